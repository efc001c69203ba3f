"""How sure parameters are: replicates of the estimates, as of other rows of the same kind.

In each of B replicates a row counts as often as a Poisson variate says (resampling.py).  With s_i
the score of a row, c_i how often it counts, and H the observed information of all rows
(information.py), a replicate's estimates are, but for what is of the order of 1 / N,

    theta + H^-1 sum_i (c_i - 1) w_i s_i

All B sums are taken in one pass, that of the information (Davison and Hinkley, Bootstrap methods
and their application, 1997, section 2.7; for many rows at once: Kleiner et al., A scalable
bootstrap for massive data, 2014).  For many replicates their covariance is that of the sandwich,
H^-1 J H^-1.  The weights' step is one of their logarithms, and a covariance's one along its own
geometry, so that replicates are mixtures, too, and are skewed as estimates near a bound are.

Replicates may be fitted again to their rows (refit.py).

**Weights of rows** go with the rows that are drawn, as is right for weights by which rows were
sampled.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from dgmm.errors import UsageError
from dgmm.inference.information import Information, Query, information
from dgmm.inference.layouts import LAYOUTS, Layout
from dgmm.inference.standard_errors import StandardErrors, inverse, of_covariance, units
from dgmm.kernels.sweep import Sweep
from dgmm.model.arrays import Array
from dgmm.model.choice import choose
from dgmm.model.mixture import Mixture

IntervalKind = Literal["percentile", "basic"]
"""The names of ``KINDS``."""

KINDS: Final[dict[IntervalKind, Any]] = {
    "percentile": lambda low, high, estimate: (low, high),
    "basic": lambda low, high, estimate: (2 * estimate - high, 2 * estimate - low),
}
"""The ends of intervals, by two quantiles of the replicates and the estimate."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of a mixture's parameters: the low ends, and the high ones.

    Parameters
    ----------
    weights : array (2, K)
        Of the weights.
    means : array (2, K, D)
        Of the means.
    covariances : array (2, ...)
        Of the covariances, in their shape.
    level : float
        Which share of such intervals should hold what they are of.
    kind : str
        How they were made: "percentile" or "basic".

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(400, 1))
    >>> found = GaussianMixture().fit(rows).bootstrap(rows).intervals(0.9)
    >>> low, high = found.means
    >>> bool(low[0, 0] < rows.mean() < high[0, 0])
    True
    """

    weights: Array
    means: Array
    covariances: Array
    level: float
    kind: str


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of a mixture's parameters; ``GaussianMixture.bootstrap`` makes them.

    Parameters
    ----------
    weights : array (B, K)
        The weights of each replicate.
    means : array (B, K, D)
        The means.
    covariances : array (B, ...)
        The covariances, in the shape of the model's.
    mixture : Mixture
        The estimates that they are replicates of.
    rows : int
        How many rows counted.
    refitted : bool
        Whether replicates were fitted to their rows; else they are one step from the estimates.
    failed : int
        How many more replicates there were that no fit was found for.
    passes : int
        How many passes over the rows it took.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(400, 1))
    >>> found = GaussianMixture().fit(rows).bootstrap(rows, n_replicates=200)
    >>> ratio = found.means[:, 0, 0].std() / (rows.std() / 20)
    >>> found.means.shape, bool(0.8 < ratio < 1.2)
    ((200, 1, 1), True)
    """

    weights: Array = field(repr=False)
    means: Array = field(repr=False)
    covariances: Array = field(repr=False)
    mixture: Mixture = field(repr=False)
    rows: int
    refitted: bool = False
    failed: int = 0
    passes: int = 1

    def standard_errors(self) -> StandardErrors:
        """The standard deviations of the replicates, and their covariance.

        Returns
        -------
        StandardErrors
            As ``GaussianMixture.standard_errors`` has it, of the kind "bootstrap".

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 1))
        >>> model = GaussianMixture().fit(rows)
        >>> errors = model.bootstrap(rows).standard_errors()
        >>> bool(abs(errors.means / model.standard_errors(rows).means - 1) < 0.1)
        True
        """
        mixture = self.mixture
        layout = LAYOUTS[mixture.covariance_model.name](mixture.components, mixture.n_features)
        entries = np.stack([layout.entries(each) for each in self.covariances])
        count = len(self.weights)
        replicates = np.concatenate([self.weights, self.means.reshape(count, -1), entries], axis=1)
        away = replicates - replicates.mean(axis=0)
        covariance = away.T @ away / (count - 1)
        return of_covariance(mixture, layout, covariance, "bootstrap", self.rows)

    def intervals(self, level: float = 0.95, kind: IntervalKind = "percentile") -> Intervals:
        """Intervals by the quantiles of the replicates.

        Parameters
        ----------
        level : float, default=0.95
            Which share of such intervals should hold what they are of.
        kind : {"percentile", "basic"}, default="percentile"
            From quantile to quantile; or with their distances from the estimate laid off on its
            other sides, which may lead below 0.

        Returns
        -------
        Intervals
            Their ends, in the shapes of the parameters.

        Raises
        ------
        UsageError
            If there are too few replicates: less than one would lie beyond either end.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 1))
        >>> low, high = GaussianMixture().fit(rows).bootstrap(rows).intervals().covariances
        >>> bool(low < rows.var() < high)
        True
        """
        ends: Any = choose("kind", kind, KINDS)
        if not (isinstance(level, int | float | np.number) and 0 < level < 1):
            raise UsageError(f"level must be between 0 and 1, not {level!r}")
        outside = (1 - level) / 2
        least = int(np.ceil(1 / outside - 1e-9))
        if len(self.weights) < least:
            raise UsageError(
                f"intervals of {level:.12g} need at least {least:,} replicates: there are "
                f"{len(self.weights):,}"
            )
        mixture, intervals = self.mixture, {}
        for name, estimate in (
            ("weights", mixture.weights),
            ("means", mixture.means),
            ("covariances", mixture.covariances.values),
        ):
            quantiles = np.quantile(getattr(self, name), (outside, 1 - outside), axis=0)
            intervals[name] = np.stack(ends(*quantiles, estimate))
        return Intervals(**intervals, level=level, kind=kind)


def bootstrap(sweep: Sweep, mixture: Mixture, query: Query) -> tuple[Bootstrap, Information]:
    """One-step replicates of a ``mixture`` of the data, in one sweep, and what that found."""
    measured = sweep(information, query)
    steps = measured.pulls @ inverse(measured.complete + measured.outer, measured)
    return Bootstrap(
        *moved(mixture, query.layout, steps * units(query)), mixture, measured.rows
    ), measured


def moved(mixture: Mixture, layout: Layout, steps: Array) -> tuple[Array, Array, Array]:
    """Weights, means and covariances, ``steps`` (B, p) away from those of a ``mixture``."""
    weight_steps, means, entries = parted(mixture, steps)
    logs = np.zeros((len(steps), mixture.components))
    logs[:, :-1] = weight_steps
    weights = mixture.weights * np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    places = mixture.means + means.reshape(-1, *mixture.means.shape)
    moves = np.stack([layout.shape(each) for each in entries])
    return weights, places, layout.chart(mixture.covariances.values).at(moves)


def parted(mixture: Mixture, coordinates: Array) -> list[Array]:
    """Coordinates (B, p) of weights, means and covariances."""
    count = mixture.components - 1
    return np.split(coordinates, [count, count + mixture.means.size], axis=1)
