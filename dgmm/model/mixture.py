"""A mixture's parameters, as one immutable value."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.full import FullCovariances
from dgmm.model.lazy import lazy
from dgmm.model.matrices import in_units_of
from dgmm.model.noise_component import LOG_ZERO, NoiseComponent
from dgmm.model.tails import StudentTails

NOISE = -1
"""The label of rows of the noise component."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of K normal distributions of D features: all parameters, as one value.

    There may be noise beside these (noise_component.py), or they may be t distributions (tails.py).

    Parameters
    ----------
    weights : array (K,)
        The components' weights; with that of the noise component, if there is one, they sum to 1.
    means : array (K, D)
        The components' means.
    covariances : Covariances
        The covariances of all components, as one value.
    noise_component : NoiseComponent, optional
        One more component, of constant density.
    tails : StudentTails, optional
        The degrees of freedom, where components are t distributions.  Then the ``covariances`` are
        their scale matrices, nu / (nu - 2) times less than what their covariances are.

    Examples
    --------
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters(
    ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
    ... )
    >>> model.mixture_
    <Mixture: 2 diag components of 2 features>
    >>> model.mixture_.free_parameters
    9
    """

    weights: Array
    means: Array
    covariances: Covariances
    noise_component: NoiseComponent | None = None
    tails: StudentTails | None = None

    @classmethod
    def of(
        cls, covariance_model: CovarianceModel, weights: Array, means: Array, precisions: Array
    ) -> "Mixture":
        """Make a mixture from inverse covariances.

        Parameters
        ----------
        covariance_model : CovarianceModel
            What the covariances may be; a value of ``dgmm.model.covariance.COVARIANCE_MODELS``.
        weights : array (K,)
            The components' weights, which sum to 1.
        means : array (K, D)
            The components' means.
        precisions : array
            The inverse covariances: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.

        Returns
        -------
        Mixture
            The mixture of these parameters.

        Raises
        ------
        LinAlgError
            If a precision is not positive definite.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import Mixture
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> weights, means = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [8.0, 4.0]])
        >>> spherical = COVARIANCE_MODELS["spherical"]
        >>> Mixture.of(spherical, weights, means, np.array([1.0, 0.25])).variances.tolist()
        [[1.0, 1.0], [4.0, 4.0]]
        """
        return cls(weights, means, covariance_model.of_precisions(precisions, means.shape))

    @classmethod
    def of_covariances(
        cls, covariance_model: CovarianceModel, weights: Array, means: Array, covariances: Array
    ) -> "Mixture":
        """Make a mixture from covariances.

        Parameters
        ----------
        covariance_model : CovarianceModel
            What the covariances may be; a value of ``dgmm.model.covariance.COVARIANCE_MODELS``.
        weights : array (K,)
            The components' weights, which sum to 1.
        means : array (K, D)
            The components' means.
        covariances : array
            The covariances: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.

        Returns
        -------
        Mixture
            The mixture of these parameters.

        Raises
        ------
        LinAlgError
            If a covariance is not positive definite.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import Mixture
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> weights, means = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [8.0, 4.0]])
        >>> spherical = COVARIANCE_MODELS["spherical"]
        >>> mixture = Mixture.of_covariances(spherical, weights, means, np.array([1.0, 4.0]))
        >>> mixture.variances.tolist()
        [[1.0, 1.0], [4.0, 4.0]]
        """
        return cls(weights, means, covariance_model.of_covariances(covariances, means.shape))

    def __repr__(self) -> str:
        kind = self.covariance_model.name
        return f"<Mixture: {self.components} {kind} components of {self.n_features} features>"

    def check(self) -> None:
        """Check that parameters read from a file are those of a mixture.

        The arrays must have the right shapes, and be finite.

        Raises
        ------
        ValueError
            If the weights do not sum to 1, or a covariance is not positive definite.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import Mixture
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> weights, means = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [8.0, 4.0]])
        >>> spherical = COVARIANCE_MODELS["spherical"]
        >>> Mixture.of(spherical, weights, means, np.array([1.0, 0.25])).check()
        """
        if self.noise_component is not None:
            self.noise_component.check()
            if self.noise_component.extent.shape != self.means.shape[1:]:
                raise ValueError("its noise component is of other features")
        if self.tails is not None:
            self.tails.check()
            if self.tails.dof.shape != self.weights.shape:
                raise ValueError("its degrees of freedom are of other components")
        weights = self.all_weights
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-9:
            raise ValueError("its weights are not a distribution")
        with np.errstate(all="ignore"):  # what overflows is refused, too
            spread = np.sqrt(self.moments_of_components()[1])
            try:
                self.covariances.check(spread)
            except np.linalg.LinAlgError as error:
                raise ValueError(f"its covariances are impossible: {error}") from error

    @property
    def covariance_model(self) -> CovarianceModel:
        """The model that the covariances are of."""
        return self.covariances.model

    @property
    def components(self) -> int:
        """The number of components, K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """The number of features, D."""
        return int(self.means.shape[1])

    @property
    def free_parameters(self) -> int:
        """The number of free parameters, for information criteria."""
        covariances = self.covariance_model.free_parameters(self.components, self.n_features)
        means = self.components * self.n_features
        tails = 0 if self.tails is None else self.tails.rule.free(self.components)
        return covariances + means + len(self.all_weights) - 1 + tails

    @property
    def all_weights(self) -> Array:
        """The weights, (K,), and that of the noise component, if there is one, (K + 1,)."""
        if self.noise_component is None:
            return self.weights
        return np.append(self.weights, self.noise_component.weight)

    @property
    def own_weights(self) -> Array:
        """The weights (K,) of the components among themselves, which sum to 1.

        Where all rows are noise, they are equal.
        """
        if self.noise_component is None:
            return self.weights
        total = self.weights.sum()
        return self.weights / total if total > 0 else np.full(self.components, 1 / self.components)

    @property
    def without_noise(self) -> "Mixture":
        """The mixture of the components alone, whose weights sum to 1."""
        if self.noise_component is None:
            return self
        return replace(self, weights=self.own_weights, noise_component=None)

    @property
    def log_weights(self) -> Array:
        """log pi (K,); ``LOG_ZERO`` for a weight of 0."""
        tiny = np.finfo(np.float64).tiny
        return np.where(self.weights > 0, np.log(np.maximum(self.weights, tiny)), LOG_ZERO)

    @lazy
    def constants(self) -> Array:
        """log pi_k + log N(mu_k | k), (K,): each component's weighted log-density at its mean.

        They are computed once: each component's log-density needs them.
        """
        half_log_det = self.covariances.half_log_det()
        if self.tails is not None:
            unit = self.tails.log_constant(self.n_features)
            return np.asarray(self.log_weights + half_log_det + unit)
        constants: Array = (
            self.log_weights + half_log_det - 0.5 * self.n_features * np.log(2 * np.pi)
        )
        return constants

    @property
    def variances(self) -> Array:
        """Each feature's variance in each component, (K, D)."""
        return self.covariances.variances()

    @property
    def dof(self) -> Array:
        """The degrees of freedom (K,): infinity where components are normal."""
        return np.full(self.components, np.inf) if self.tails is None else self.tails.dof

    @property
    def component_covariances(self) -> Array:
        """The components' own covariances (K, D, D), infinite for up to 2 degrees of freedom."""
        dense = self.covariances.dense()
        if self.tails is None:
            return dense
        spreads = self.tails.spreads[:, None, None]
        finite = np.isfinite(spreads)
        return np.where(finite, np.where(finite, spreads, 1.0) * dense, np.inf)

    def log_joint(self, k: int, x: Array) -> Array:
        """The log-density of rows in one component, with the component's weight.

        It is computed by differences from the mean, and is exact to rounding for rows near it.

        Parameters
        ----------
        k : int
            The number of the component, from 0.
        x : array (D, n)
            The rows, as columns.

        Returns
        -------
        array (n,)
            log pi_k + log N(x | k), in nats.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import Mixture
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> weights, means = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [8.0, 4.0]])
        >>> spherical = COVARIANCE_MODELS["spherical"]
        >>> mixture = Mixture.of(spherical, weights, means, np.array([1.0, 0.25]))
        >>> mixture.log_joint(0, np.array([[0.0], [0.0]])).round(3).tolist()
        [-2.531]
        """
        white = self.covariances.whiten(k, x - self.means[k][:, None])
        if self.tails is not None:
            squares = np.sum(white * white, axis=0)[:, None]
            log_density = self.tails.chosen([k]).log_density(squares, self.n_features)
            return np.asarray(self.constants[k] + log_density[:, 0])
        log_joint: Array = self.constants[k] - 0.5 * np.sum(white * white, axis=0)
        return log_joint

    def log_joints(self, x: Array) -> Array:
        """The log-density of rows in each component, with the component's weight.

        Parameters
        ----------
        x : array (D, n)
            The rows, as columns.

        Returns
        -------
        array (K, n) or (K + 1, n)
            In nats; the noise component, if there is one, is the last.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> import numpy as np
        >>> model.mixture_.log_joints(np.array([[0.0], [0.0]])).shape
        (2, 1)
        """
        log_joints = [self.log_joint(k, x) for k in range(self.components)]
        if self.noise_component is not None:
            log_joints.append(np.full(x.shape[1], self.noise_component.log_joint))
        return np.stack(log_joints)

    def moments(self) -> tuple[Array, Array]:
        """The mean (D,) and the variance of each feature (D,) of the mixture as a whole.

        Returns
        -------
        mean : (D,)
            In the units of the rows.
        variance : (D,)
            In these units squared.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> mixture = model.mixture_
        >>> mean, variance = mixture.moments()
        >>> mean.tolist(), variance.tolist()
        ([4.0, 2.0], [17.0, 6.5])
        """
        mean, variance = self.moments_of_components()
        noise = self.noise_component
        if self.tails is not None:
            spreads = np.where(self.weights > 0, self.tails.spreads, 0.0)  # which may be infinite
            within = self.weights @ (spreads[:, None] * self.variances)
            return mean, within + self.weights @ (self.means - mean) ** 2
        if noise is None:
            return mean, variance
        share = self.weights.sum()
        whole = share * mean + noise.weight * (noise.low + noise.extent / 2)
        apart = (mean - whole) ** 2, (noise.low + noise.extent / 2 - whole) ** 2
        of_components, of_noise = variance + apart[0], noise.extent**2 / 12 + apart[1]
        return whole, share * of_components + noise.weight * of_noise

    def moments_of_components(self) -> tuple[Array, Array]:
        """The mean and variances of the components alone: where they are.

        Noise is left out, and scale matrices count as covariances.

        Returns
        -------
        mean : (D,)
            In the units of the rows.
        variance : (D,)
            In these units squared.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> model.mixture_.moments_of_components()[0].tolist()
        [4.0, 2.0]
        """
        weights = self.own_weights
        mean = weights @ self.means
        return mean, weights @ (self.variances + (self.means - mean) ** 2)

    def sample(self, rows: int, rng: Any) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows, grouped by component.

        Parameters
        ----------
        rows : int
            How many rows to draw.
        rng : numpy.random.RandomState or Generator
            The source of random numbers.

        Returns
        -------
        rows : array (rows, D)
            In the units of the mixture.
        components : array (rows,) of int
            The component that each row is drawn from; -1 is noise.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> mixture = model.mixture_
        >>> import numpy as np
        >>> drawn, components = mixture.sample(5, np.random.default_rng(0))
        >>> drawn.shape, components.shape
        ((5, 2), (5,))
        """
        weights, labels = self.all_weights, np.arange(self.components)
        counts = rng.multinomial(rows, weights / weights.sum())
        drawn = [
            mean + self.covariances.drawn_rows(k, rng.standard_normal((count, self.n_features)))
            for k, (mean, count) in enumerate(zip(self.means, counts, strict=False))
        ]
        if self.tails is not None:  # each row has a precision of its own
            components = zip(drawn, self.means, self.tails.dof, strict=True)
            drawn = [
                mean + (rows - mean) / np.sqrt(rng.chisquare(dof, len(rows)) / dof)[:, None]
                for rows, mean, dof in components
            ]
        if self.noise_component is not None:
            drawn.append(self.noise_component.sample(int(counts[-1]), rng))
            labels = np.append(labels, NOISE)
        return np.concatenate(drawn), np.repeat(labels, counts)

    def among(self, features: NDArray[np.intp]) -> "Mixture":
        """The mixture of some features alone, with covariances of the same model.

        Parameters
        ----------
        features : array (M,) of int
            Their numbers, in the order of the result.

        Returns
        -------
        Mixture
            The mixture of these features.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> model.mixture_.among(np.array([1])).variances.tolist()
        [[1.0], [4.0]]
        """
        covariances = self.covariances.among(features)
        noise = self.noise_component and self.noise_component.among(features)
        return Mixture(self.weights, self.means[:, features], covariances, noise, self.tails)

    def chosen(self, components: Sequence[int] | NDArray[np.intp]) -> "Mixture":
        """Some of the components, in the order given; their weights stay as they are.

        Parameters
        ----------
        components : sequence of int
            Their numbers, from 0.  All of them in another order make the same mixture.

        Returns
        -------
        Mixture
            The mixture of these components.

        Raises
        ------
        IndexError
            If there is no such component.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.25, 0.75], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> model.mixture_.chosen([1, 0]).weights.tolist()
        [0.75, 0.25]
        """
        places = np.arange(self.components)[list(components)]
        covariances = self.covariances.chosen(places)
        tails = None if self.tails is None else self.tails.chosen(places)
        return Mixture(
            self.weights[places], self.means[places], covariances, self.noise_component, tails
        )

    def marginal(self, features: Sequence[int]) -> "Mixture":
        """The mixture of some features alone.

        Parameters
        ----------
        features : sequence of int
            The numbers of the features, from 0, in the order of the result.

        Returns
        -------
        Mixture
            The mixture of these features, with full covariances.

        Raises
        ------
        IndexError
            If there is no such feature.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> mixture = model.mixture_
        >>> mixture.marginal([1]).means.tolist()
        [[0.0], [4.0]]
        """
        chosen = np.arange(self.n_features)[list(features)]
        dense = self.covariances.dense()
        noise = self.noise_component and self.noise_component.among(chosen)
        covariances = dense[:, chosen[:, None], chosen]
        return replace(
            full_mixture(self.weights, self.means[:, chosen], covariances, noise), tails=self.tails
        )

    def conditional(self, features: Sequence[int], values: Array) -> "Mixture":
        """The mixture of the other features, given that ``features`` have ``values``.

        Each component's mean becomes mu_a + S_ab S_bb^-1 (v - mu_b), its covariance
        S_aa - S_ab S_bb^-1 S_ba, and its weight is multiplied by its density at the values
        (Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.1).

        Parameters
        ----------
        features : sequence of int
            The numbers of the features whose values are known, from 0.
        values : array (len(features),)
            Their values.

        Returns
        -------
        Mixture
            The mixture of the other features, with full covariances.

        Raises
        ------
        UsageError
            If there is not one finite number for each of the features, or these are so far from the
            model that their log-density overflows.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> mixture = model.mixture_
        >>> known = mixture.conditional([0], [8.0])
        >>> known.weights.round(6).tolist(), known.means.tolist()
        ([0.0, 1.0], [[0.0], [4.0]])
        """
        given = np.arange(self.n_features)[list(features)]
        free = np.setdiff1d(np.arange(self.n_features), given)
        known = self.marginal(features)
        point = np.asarray(values, dtype=np.float64)
        hidden = np.ma.isMaskedArray(values)
        if hidden or point.shape != given.shape or not np.isfinite(point).all():
            raise UsageError(f"features {list(features)} want a number each, not {values!r}")
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = known.log_joints(point[:, None])[:, 0]
        log_joint = np.where(np.isfinite(log_joint), log_joint, -np.inf)
        if log_joint.max() == -np.inf:
            raise UsageError(
                f"the values {point.tolist()} of features {list(features)} are too far from the "
                "model: their log-density overflows"
            )
        weights = np.exp(log_joint - log_joint.max())
        weights /= weights.sum()
        dense = self.covariances.dense()
        cross = dense[:, free[:, None], given]
        gain = np.linalg.solve(known.covariances.dense(), cross.swapaxes(1, 2)).swapaxes(1, 2)
        means = self.means[:, free] + (gain @ (point - known.means)[:, :, None])[:, :, 0]
        covariances = dense[:, free[:, None], free] - gain @ cross.swapaxes(1, 2)
        tails = self.tails
        if tails is not None:
            # Known values tell of the row's own precision, too: it is a t distribution again.
            away = point - known.means
            solved = np.linalg.solve(known.covariances.dense(), away[:, :, None])[:, :, 0]
            count = tails.dof + len(given)
            covariances *= ((tails.dof + np.sum(away * solved, axis=1)) / count)[:, None, None]
            tails = replace(tails, dof=count)
        noise = self.noise_component
        if noise is not None:
            noise, weights = noise.among(free).weighing(weights[-1]), weights[:-1]
        within = np.diagonal(dense, axis1=1, axis2=2)[:, free]
        return replace(full_mixture(weights, means, covariances, noise, within), tails=tails)


def full_mixture(
    weights: Array,
    means: Array,
    covariances: Array,
    noise: NoiseComponent | None,
    variances: Array | None = None,
) -> Mixture:
    """A full mixture; ``variances`` (K, D) say what its covariances are rounded by, if not own."""
    own = np.diagonal(covariances, axis1=1, axis2=2)
    factored = in_units_of(covariances, own if variances is None else variances)
    return Mixture(weights, means, FullCovariances(*factored), noise)
