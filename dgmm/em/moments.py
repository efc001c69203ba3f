"""What the first sweep brings home of the rows; scales and centres that are made of it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.sample import Sample
from dgmm.kernels.kernel import INFINITY, remedy
from dgmm.kernels.probe import Probe
from dgmm.model.arrays import Array
from dgmm.model.lazy import lazy

FAR: Final = 100.0
"""A variance that is so many times that of most rows is made by a few."""

QUANTILE_ROWS: Final = 10_000
"""How many rows tell quantiles."""

NORMAL_WIDTH: Final = 2.5631031310892007
"""From the 10 % to the 90 % quantile of a normal distribution, in standard deviations."""

NARROWEST: Final = 1e-14
"""The least variance of weighted rows, over that of the same rows without weights."""


@dataclass(frozen=True)
class DataMoments:
    """What the first sweep brings home.

    Attributes
    ----------
    rows, weighted, weight : int, int, float
        The number of rows, how many have a weight above 0, and the sum of the weights.
    mean : (D,)
        Weighted.
    scatter : (D,) or (D, D)
        Weighted sum of squares (of products) of differences from the mean.
    low, high : (D,)
        The range of each feature over rows of positive weight.
    sample : Sample
    invalid_row : (int, str) or None
        The first row that can't be used, and why.
    holes, misweighted, misjudged, mislabelled : int
        How many rows can't be used as they hold NaN or infinity, or have a weight, noise or a label
        that can't be.
    observed : (D,)
        The sum of the weights of the rows that have a value of each feature.
    incomplete, left_out : int
        How many rows with a weight hold NaN, and how many of these count for nothing.
    allowed : (2, K) or None
        How many rows with a weight may be of each component, and are known to be, where there are
        labels.
    known : tuple of Sample
        Some rows that are known to be of each component, where there are labels.
    probe : Probe or None
        What later sweeps must see, where the sums of these don't tell.
    """

    rows: int
    weighted: int
    weight: float
    mean: Array
    scatter: Array
    low: Array
    high: Array
    sample: Sample
    invalid_row: tuple[int, str] | None
    observed: Array
    holes: int = 0
    misweighted: int = 0
    misjudged: int = 0
    incomplete: int = 0
    left_out: int = 0
    mislabelled: int = 0
    allowed: Array | None = None
    known: tuple[Sample, ...] = ()
    probe: Probe | None = None

    @np.errstate(over="ignore", invalid="ignore")
    def __add__(self, other: "DataMoments") -> "DataMoments":
        """Merge means and scatters after Chan, Golub and LeVeque (1983)."""
        observed = self.observed + other.observed
        share = other.observed / np.where(observed > 0, observed, 1.0)
        delta = other.mean - self.mean
        pairs = self.scatter.ndim == 2  # then all rows are complete
        between = (self.observed * share)[0 if pairs else ...] * products(delta[:, None], pairs)
        flaws = [
            invalid_row
            for invalid_row in (self.invalid_row, other.invalid_row)
            if invalid_row is not None
        ]
        return DataMoments(
            self.rows + other.rows,
            self.weighted + other.weighted,
            self.weight + other.weight,
            self.mean + share * delta,
            self.scatter + other.scatter + between,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.sample + other.sample,
            min(flaws, default=None),
            observed,
            self.holes + other.holes,
            self.misweighted + other.misweighted,
            self.misjudged + other.misjudged,
            self.incomplete + other.incomplete,
            self.left_out + other.left_out,
            self.mislabelled + other.mislabelled,
            _either(self.allowed, other.allowed),
            _side_by_side(self.known, other.known),
            None if self.probe is None or other.probe is None else self.probe + other.probe,
        )

    @property
    def complaint(self) -> str | None:
        """Which row can't be used, how many can't, and what to do; None if all can."""
        if self.invalid_row is None:
            return None
        message = self.invalid_row[1]
        if self.misweighted:
            message += f"; such weights: {self.misweighted:,} of {self.rows:,}"
        if self.misjudged:
            message += f"; rows with such noise: {self.misjudged:,} of {self.rows:,}"
        if self.mislabelled:
            message += f"; rows with such labels: {self.mislabelled:,} of {self.rows:,}"
        if self.holes:
            what = INFINITY if message.startswith(INFINITY) else "NaN or infinity"
            message += f"; rows with {what}: {self.holes:,} of {self.rows:,}. "
            message += remedy(self.invalid_row[1])
        return message

    @property
    def variance(self) -> Array:
        """Each feature's variance (D,); 0 exactly where all its values are equal."""
        scatter = np.diagonal(self.scatter) if self.scatter.ndim == 2 else self.scatter
        observed = np.where(self.observed > 0, self.observed, 1.0)
        return np.where(self.low < self.high, scatter / observed, 0.0)

    @lazy
    def _quantiles(self) -> Array:
        """The 10 %, 50 % and 90 % quantiles (3, D) of the sample."""
        rows = self.sample.first(QUANTILE_ROWS).rows
        of = np.nanquantile if np.isnan(rows).any() else np.quantile
        quantiles: Array = of(rows, (0.1, 0.5, 0.9), axis=0)
        return quantiles

    @property
    def _bulk(self) -> Array:
        """The variance (D,) that the quantiles would have if they were a normal distribution's."""
        lower, _, upper = self._quantiles
        bulk: Array = ((upper - lower) / NORMAL_WIDTH) ** 2
        return bulk

    @property
    def narrow(self) -> NDArray[np.bool_]:
        """Features (D,) of which most rows have one value."""
        narrow: NDArray[np.bool_] = self._bulk == 0
        return narrow

    @property
    def _far(self) -> NDArray[np.bool_]:
        """Features (D,) whose variance is made by a few rows far away, or by a cluster of few."""
        return ~self.narrow & (self.variance > FAR * self._bulk)

    @lazy
    @np.errstate(over="ignore", invalid="ignore")
    def robust_variance(self) -> Array:
        """Each feature's variance (D,), or that of most rows where a few make up all of it.

        The frame and the default ``reg_covar`` are in its units.  And where weights differ so much
        that one row leaves the others no spread, it is that of the rows, as far as doubles reach.
        """
        bulk = self._bulk
        variance = np.where(self._far, bulk, self.variance)
        least = NARROWEST * np.where(bulk > 0, bulk, (self.high - self.low) ** 2)
        return np.where(self.low < self.high, np.maximum(variance, least), 0.0)

    @property
    @np.errstate(over="ignore", invalid="ignore")
    def robust_centre(self) -> Array:
        """Each feature's mean (D,), or its median where a few rows far away decide the mean.

        Where all values are equal, it is exactly that value.
        """
        centre = np.where(self._far, self._quantiles[1], self.mean)
        return np.where(self.low < self.high, centre, self.low)


def _either(one: Array | None, other: Array | None) -> Array | None:
    """The sum of what there is."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _side_by_side(one: tuple[Sample, ...], other: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The sums of what there is."""
    if not one or not other:
        return one or other
    return tuple(mine + theirs for mine, theirs in zip(one, other, strict=True))


def products(away: Array, pairs: bool) -> Array:
    """Sums over rows ``away`` (D, n) of squares (D,), or of products of ``pairs`` (D, D)."""
    return away @ away.T if pairs else np.sum(away * away, axis=1)
