"""Distributions with their parameters, as ``scipy.stats`` has them: a component, or a mixture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import logsumexp

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture


@dataclass(frozen=True, eq=False)
class FrozenMixture:
    """A mixture with the methods of a frozen distribution of ``scipy.stats``.

    Parameters
    ----------
    mixture : Mixture
        Its parameters.

    Examples
    --------
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [[[1.0]], [[1.0]]])
    >>> both = model.frozen()
    >>> round(float(both.pdf([2.0])), 4), both.mean.tolist(), both.cov.tolist()
    (0.054, [2.0], [[5.0]])
    """

    mixture: Mixture

    def logpdf(self, x: ArrayLike) -> Any:
        """The logarithm of the density at points.

        Parameters
        ----------
        x : array-like (..., D)
            The points.

        Returns
        -------
        float or array (...)
            In nats.  That of a noise component is the same everywhere.

        Raises
        ------
        UsageError
            If the points are of other features.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> one = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]]).frozen()
        >>> one.logpdf([[0.0], [1.0]]).round(3).tolist()
        [-0.919, -1.419]
        """
        points = np.asarray(x, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != self.mixture.n_features:
            raise UsageError(
                f"points must have {self.mixture.n_features} features on the last axis; their "
                f"shape is {points.shape}"
            )
        joint = self.mixture.log_joints(points.reshape(-1, points.shape[-1]).T)
        return logsumexp(joint, axis=0).reshape(points.shape[:-1])[()]

    def pdf(self, x: ArrayLike) -> Any:
        """The density at points.

        Parameters
        ----------
        x : array-like (..., D)
            The points.

        Returns
        -------
        float or array (...)
            In one over the units of the features.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> one = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]]).frozen()
        >>> round(float(one.pdf([0.0])), 3)
        0.399
        """
        return np.exp(self.logpdf(x))

    def rvs(self, size: int | tuple[int, ...] = 1, random_state: Any = None) -> Array:
        """Draw points, each by itself of any component.

        Parameters
        ----------
        size : int or tuple of int, default=1
            How many.
        random_state : int, RandomState, Generator or None
            The seed, or where to draw from.

        Returns
        -------
        array (*size, D), or (D,) for one
            As ``scipy.stats.multivariate_normal.rvs`` has it, for any number of features.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> one = GaussianMixture.from_parameters([1.0], [[0.0, 0]], [[[1.0, 0], [0, 1]]]).frozen()
        >>> one.rvs(random_state=0).shape, one.rvs((3, 4), random_state=0).shape
        ((2,), (3, 4, 2))
        """
        shape = (size,) if isinstance(size, int | np.integer) else tuple(size)
        rng = random_state
        if rng is None or isinstance(rng, int | np.integer):
            rng = np.random.default_rng(rng)
        rows = self.mixture.sample(int(np.prod(shape)), rng)[0]
        drawn: Array = rng.permutation(rows).reshape(*shape, self.mixture.n_features)
        return drawn[0] if shape == (1,) else drawn

    @property
    def mean(self) -> Array:
        """The mean, (D,)."""
        return self.mixture.moments()[0]

    @property
    def cov(self) -> Array:
        """The covariance, (D, D): infinite or NaN where that of a t distribution is."""
        mixture, mean = self.mixture, self.mean
        some = mixture.weights > 0  # of the others a covariance may be infinite
        weights, away = mixture.weights[some], mixture.means[some] - mean
        within = np.einsum("k,kij->ij", weights, mixture.component_covariances[some])
        covariance: Array = within + np.einsum("k,ki,kj->ij", weights, away, away)
        if (noise := mixture.noise_component) is not None:
            offset = noise.low + noise.extent / 2 - mean
            covariance += noise.weight * (np.outer(offset, offset) + np.diag(noise.extent**2 / 12))
        return covariance


def frozen_component(mixture: Mixture, component: int) -> Any:
    """SciPy's frozen distribution of one component: multivariate normal or t."""
    numbers: NDArray[np.intp] = np.arange(mixture.components)
    if component not in numbers:
        raise UsageError(
            f"there is no component {component!r}: they have the numbers 0 to {numbers[-1]}"
        )
    mean, scale = mixture.means[component], mixture.covariances.dense()[component]
    try:
        if mixture.tails is None:
            return stats.multivariate_normal(mean, scale)
        return stats.multivariate_t(mean, scale, mixture.dof[component])
    except np.linalg.LinAlgError as error:  # units far apart make a matrix singular to SciPy
        if mixture.tails is None:
            root = np.linalg.cholesky(scale)
            return stats.multivariate_normal(mean, stats.Covariance.from_cholesky(root))
        raise UsageError(
            f"SciPy takes the scale matrix of component {component} for singular: its t "
            "distribution wants features in units nearer to each other. model.frozen() has the "
            "density of the mixture in these"
        ) from error
