"""How sure parameters are: standard errors by the information of the rows, in one pass.

The covariance of the estimates is H^-1 by the observed information H (minus the second derivatives
of the log-likelihood), J^-1 by the empirical one J (the outer products of the scores), or the
sandwich H^-1 J H^-1, which holds for a model that is only near the truth, too (White, Maximum
likelihood estimation of misspecified models, 1982).

**Weights of rows** count as repetitions in H and J.  In the middle of the sandwich stand the outer
products of weighted scores, w^2 s s', as is right for weights by which rows were sampled.

The errors of all K weights come from those of the K - 1 that are free by the delta method.  All is
computed in the frame, so units don't matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from dgmm.errors import DataError, UsageError
from dgmm.inference.information import Information, Query, information
from dgmm.inference.layouts import LAYOUTS, Layout
from dgmm.inference.resampling import NOTHING, Resampling
from dgmm.kernels.observation import Observation
from dgmm.kernels.sweep import Sweep
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

MOST: Final = 1200
"""With more coordinates a matrix of all pairs is too much work for each row."""

ErrorKind = Literal["observed", "empirical", "sandwich"]
"""The names of ``KINDS``."""

KINDS: Final[dict[ErrorKind, Callable[[Information], Array]]] = {
    "observed": lambda found: inverse(found.complete + found.outer, found),
    "empirical": lambda found: inverse(found.outer, found),
    "sandwich": lambda found: _sandwich(found),
}
"""How the covariance of the coordinates comes from the information."""


class InformationError(DataError):
    """The information of rows about parameters has no inverse that is a covariance."""


def _sandwich(measured: Information) -> Array:
    bread = inverse(measured.complete + measured.outer, measured)
    return np.asarray(bread @ measured.squared @ bread)


def inverse(matrix: Array, measured: Information) -> Array:
    """The inverse of an information; raises ``DataError`` if it is not positive definite."""
    size = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if (size > 0).all():
        values, vectors = np.linalg.eigh(matrix / size[:, None] / size)
        if values[0] > len(matrix) * np.spacing(1.0) * values[-1]:
            inverse: Array = (vectors / values) @ vectors.T / size[:, None] / size
            return inverse
    raise InformationError(
        f"the information of {measured.rows:,} rows about {len(matrix)} parameters is not positive "
        "definite: too few rows, a component that is empty or singular, or a model that is not at "
        "an optimum for these rows. Fit it to them until it converges, or fit fewer components"
    )


@dataclass(frozen=True)
class StandardErrors:
    """Standard errors of a mixture's parameters, each in the shape of what it is of.

    Parameters
    ----------
    weights : array (K,)
        Of the weights.
    means : array (K, D)
        Of the means.
    covariances : array
        Of the covariances: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
    covariance : array (P, P)
        The covariance of all estimates: weights, means, and the entries j <= l of covariances, or
        what there is on their diagonals, component by component.
    kind : str
        By what it was estimated: "observed", "empirical", "sandwich" or "bootstrap".
    rows : int
        How many rows counted.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(400, 1))
    >>> errors = GaussianMixture().fit(rows).standard_errors(rows)
    >>> bool(np.isclose(errors.means[0, 0], rows.std() / 20))
    True
    """

    weights: Array
    means: Array
    covariances: Array
    covariance: Array = field(repr=False)
    kind: str
    rows: int

    def of(self, jacobian: Any) -> Array:
        """Standard errors of what is derived from the parameters, by the delta method.

        Parameters
        ----------
        jacobian : array (M, P)
            The derivatives of M numbers by the parameters, in the order of ``covariance``.

        Returns
        -------
        array (M,)
            The standard errors of the M numbers.

        Raises
        ------
        UsageError
            If there is not a derivative by each parameter.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 1))
        >>> errors = GaussianMixture().fit(rows).standard_errors(rows)
        >>> twice_the_mean = [[0.0, 2.0, 0.0]]
        >>> bool(np.isclose(errors.of(twice_the_mean), 2 * errors.means[0, 0])[0])
        True
        """
        slopes = np.asarray(jacobian, dtype=np.float64)
        if slopes.ndim != 2 or slopes.shape[1] != len(self.covariance):
            raise UsageError(
                f"a jacobian must have shape (M, {len(self.covariance)}), not {slopes.shape}"
            )
        squares: Array = np.sum((slopes @ self.covariance) * slopes, axis=1)
        return np.sqrt(np.maximum(squares, 0.0))  # what is sure is 0 but for rounding


def standard_errors(
    sweep: Sweep, mixture: Mixture, observation: Observation, kind: ErrorKind
) -> StandardErrors:
    """The standard errors of a ``mixture`` of the data, fitted to the rows, in one sweep."""
    query = query_of(mixture, observation)
    measured = sweep(information, query)
    free = KINDS[kind](measured)
    unit = units(query)
    weights, count = mixture.weights, mixture.components - 1
    to = np.zeros((len(free) + 1, len(free)))  # of all weights
    to[: count + 1, :count] = (np.diag(weights) - np.outer(weights, weights))[:, :count]
    to[count + 1 :, count:] = np.diag(unit[count:])
    return of_covariance(mixture, query.layout, to @ free @ to.T, kind, measured.rows)


def of_covariance(
    mixture: Mixture, layout: Layout, covariance: Array, kind: str, rows: int
) -> StandardErrors:
    """The errors by the ``covariance`` (P, P) of weights, means and the free entries."""
    errors = np.sqrt(np.diagonal(covariance))
    ends = np.cumsum([mixture.components, mixture.means.size])
    weights, means, entries = np.split(errors, ends)
    means, entries = means.reshape(mixture.means.shape), layout.shape(entries)
    return StandardErrors(weights, means, entries, covariance, kind, rows)


def query_of(mixture: Mixture, observation: Observation, resampling: Resampling = NOTHING) -> Query:
    """What to ask of rows about a ``mixture`` of the data, if that can be told."""
    check(mixture)
    frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
    return Query(frame.enter(mixture), frame, observation, resampling)


def units(query: Query) -> Array:
    """What the frame's unit of each coordinate (p,) is in the data."""
    layout, scale, components = query.layout, query.frame.scale, query.mixture.components
    entries = np.tile(scale[layout.rows] * scale[layout.columns], components)
    mean_units = (layout.own > 0).T @ entries / (layout.own > 0).sum(axis=0)
    return np.concatenate([np.ones(components - 1), np.tile(scale, components), mean_units])


def check(mixture: Mixture, subject: str = "standard errors are") -> None:
    """Raise ``UsageError`` for mixtures that have no standard errors, or no ``subject``."""
    if mixture.noise_component is not None or mixture.tails is not None:
        raise UsageError(
            f"{subject} not told of mixtures with a noise component or heavy tails: for "
            "that, fit one without (noise_component, tails)"
        )
    name = mixture.covariance_model.name
    if name not in LAYOUTS:
        raise UsageError(f"{subject} told for covariance_type {', '.join(LAYOUTS)}, not {name!r}")
    if (count := mixture.free_parameters) > MOST:
        raise UsageError(
            f"the model has {count:,} free parameters; {subject} told for at most "
            f"{MOST:,}, as each row costs their square"
        )
