"""The first sweep: what must be known of the rows before a fit can begin.

One reading brings home the number of rows and their weight, each feature's mean, scatter and
range, a uniform sample, and the first row that can't be used.  The frame, the start and the
errors at the door all come from it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.sample import OTHERS, Sample, least_hash, numbers_drawn, smallest_keys, uniform
from dgmm.em.sample import nbytes as sample_nbytes
from dgmm.kernels.kernel import REMEDY, first_invalid_row
from dgmm.kernels.labels import FREE, sole
from dgmm.kernels.native import DRAWN, draw, moments, pieces
from dgmm.kernels.observation import COMPLETE, Observation
from dgmm.kernels.probe import Probe
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.lazy import lazy

TILE = 16384

FAR: Final = 100.0
"""A variance that is so many times that of most rows is made by a few."""

QUANTILE_ROWS: Final = 10_000
"""How many rows tell quantiles."""

NORMAL_WIDTH: Final = 2.5631031310892007
"""From the 10 % to the 90 % quantile of a normal distribution, in standard deviations."""

KNOWN_ROWS: Final = 64
"""How many rows of each component are kept that are known to be of it."""

NARROWEST: Final = 1e-14
"""The least variance of weighted rows, over that of the same rows without weights."""


@dataclass(frozen=True)
class FirstPassSpec:
    """What the first sweep asks for.

    Attributes
    ----------
    sample : int
        How many rows to sample.
    seed : int
        Of the sample's hash.
    largest : float
        Keys above it can't be among the smallest; infinity where that isn't known.
    pairs : bool
        Whether the scatter is wanted for pairs of features (D, D), or for each alone (D,).
    kernel : str
        A key of ``WAYS``.
    observation : Observation
        What NaN means.
    beside : int
        How many numbers a row has beside its own and its weight.
    components : int
        How many components are to be fitted.
    probed : bool
        Whether a ``Probe`` is wanted.
    """

    sample: int
    seed: int
    largest: float = np.inf
    pairs: bool = False
    kernel: str = "numpy"
    observation: Observation = COMPLETE
    beside: int = 0
    components: int = 1
    probed: bool = False

    @classmethod
    def of(
        cls,
        rows: int,
        n_features: int,
        components: int,
        seed: int,
        weighted: bool,
        pairs: bool,
        wanted: int = 0,
        kernel: str = "numpy",
        observation: Observation = COMPLETE,
        beside: int = 0,
    ) -> "FirstPassSpec":
        """What to ask of ``rows`` = N: a sample of 100 000 rows, or as many as are ``wanted``.

        It has at most some 30 MB, or 130 MB if more are wanted, and never too few rows for K.
        """
        most = (1 << (24 if wanted > 100_000 else 22)) // (n_features + beside)
        sample = max(min(max(100_000, wanted), most), 20 * components)
        # N keys are exponential variates: the n smallest lie below n/N, give or take ten sigma.
        expected = (sample + 10 * np.sqrt(sample) + 10) / max(rows, 1)
        alike = not weighted and observation.all_count  # else some rows may have no weight
        largest = -np.log1p(-expected) if expected < 1 and alike else np.inf
        how = pairs, kernel, observation, beside, components
        return cls(sample, seed, float(largest), *how)

    def sampled(self, rows: int) -> int:
        """How many of so many rows come into the sample."""
        return min(self.sample, rows)

    def kept(self, rows: int) -> int:
        """The same, and those that are known to be of a component, where there are labels."""
        known = KNOWN_ROWS * self.components if self.observation.labelled else 0
        return self.sampled(rows) + min(known, rows)

    def samples_nbytes(
        self, rows: int, n_features: int, block_rows: int, levels: int, waiting: int
    ) -> int:
        """What samples take at once, while their blocks' are added up and seeding copies the whole.

        Of N ``rows``, in blocks of ``block_rows`` at most: ``waiting`` are of a block, ``levels``
        are sums of several.
        """
        whole = self.kept(rows)
        if self.largest < np.inf:  # each block brings home its share
            return sample_nbytes(6 * whole, n_features, self.beside)
        of_blocks = waiting * self.kept(block_rows)
        return sample_nbytes((4 + min(4, levels)) * whole + of_blocks, n_features, self.beside)


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
        between = (self.observed * share)[0 if pairs else ...] * _products(delta[:, None], pairs)
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
        told = self.invalid_row[1]
        if self.misweighted:
            told += f"; such weights: {self.misweighted:,} of {self.rows:,}"
        if self.misjudged:
            told += f"; rows with such noise: {self.misjudged:,} of {self.rows:,}"
        if self.mislabelled:
            told += f"; rows with such labels: {self.mislabelled:,} of {self.rows:,}"
        if self.holes:
            told += f"; rows with NaN or infinity: {self.holes:,} of {self.rows:,}. {REMEDY}"
        return told

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
        found: Array = of(rows, (0.1, 0.5, 0.9), axis=0)
        return found

    @property
    def _bulk(self) -> Array:
        """The variance (D,) that the quantiles would have if they were a normal distribution's."""
        lower, _, upper = self._quantiles
        bulk: Array = ((upper - lower) / NORMAL_WIDTH) ** 2
        return bulk

    @property
    def _far(self) -> NDArray[np.bool_]:
        """Features (D,) whose variance is made by a few rows far away, or by a cluster of few."""
        return (self._bulk > 0) & (self.variance > FAR * self._bulk)

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


def first_pass(block: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    """The moments of one block, with its share of the sample."""
    way, observation = WAYS[first_pass_spec.kernel], first_pass_spec.observation
    invalid = observation.invalid(block)
    if invalid.first is not None:
        return replace(
            _nothing(block.rows.shape[1], first_pass_spec),
            rows=len(block.rows),
            invalid_row=(block.start, invalid.first),
            holes=invalid.holes,
            misjudged=invalid.misjudged,
            mislabelled=invalid.mislabelled,
        )
    counted = observation.counted(block)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # told at the door
        moments = way.first_pass(counted.block, first_pass_spec)
        if moments.invalid_row is not None:
            return moments
        sample = _sample(counted.block, first_pass_spec, way.draw)
        return replace(
            moments,
            sample=sample,
            incomplete=counted.incomplete,
            left_out=counted.left_out,
            allowed=observation.allowed(counted.block),
            known=_known(counted.block, first_pass_spec),
            probe=Probe.of(block) if first_pass_spec.probed else None,
        )


def _known(block: Block, first_pass_spec: FirstPassSpec) -> tuple[Sample, ...]:
    """Some rows of a block that are known to be of each component: those with the smallest keys."""
    if block.labels is None:
        return ()
    own = sole(block.labels)
    if block.weights is not None:
        own = np.where(block.weights > 0, own, FREE)
    found = []
    for k in range(first_pass_spec.components):
        places = np.flatnonzero(own == k)
        numbers = block.start + places
        keys = -np.log(uniform(numbers, first_pass_spec.seed))
        if block.weights is not None:
            keys /= block.weights[places]
        taken = block.taken(places)
        rows, weights = taken.rows.astype(np.float64, order="C"), np.ones(len(places))
        others: dict[str, Any] = {name: getattr(taken, name) for name in OTHERS}
        sample = Sample(KNOWN_ROWS, keys, numbers, rows, weights, **others)
        found.append(sample.smallest())
    return tuple(found)


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


def nbytes(rows: int, n_features: int) -> int:
    """What the temporaries of a tile take, of a block of so many rows: six copies of it."""
    return 6 * 8 * min(TILE, rows) * n_features


def _nothing(n_features: int, first_pass_spec: FirstPassSpec) -> DataMoments:
    """The moments of no rows."""
    none = np.empty(0)
    sample = Sample(
        first_pass_spec.sample, none, np.empty(0, np.int64), np.empty((0, n_features)), none
    )
    scatter = np.zeros((n_features, n_features) if first_pass_spec.pairs else n_features)
    low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    none = np.zeros(n_features)
    return DataMoments(0, 0, 0.0, none, scatter, low, high, sample, None, none)


def _first_pass(block: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    """The moments of a block, without a sample: by NumPy, a tile at a time."""
    result = _nothing(block.rows.shape[1], first_pass_spec)
    for start in range(0, len(block.rows), TILE):
        result += _first_pass_tile(block.part(slice(start, start + TILE)), first_pass_spec)
    return result


def _compiled(block: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    """The same by compiled code, in one read; what that can't use, NumPy describes."""
    nothing = _nothing(block.rows.shape[1], first_pass_spec)
    parts = []
    for piece in pieces(block):
        found = moments(piece, first_pass_spec.pairs)
        if found is None:
            return _first_pass(block, first_pass_spec)
        observed = np.full(len(nothing.mean), found.weight)
        parts.append(replace(nothing, rows=len(piece.rows), observed=observed, **vars(found)))
    return reduce(add, parts)


def _first_pass_tile(tile: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    count = len(tile.rows)
    nothing = _nothing(tile.rows.shape[1], first_pass_spec)
    missing = first_pass_spec.observation.holes
    holes, wrong = first_invalid_row(tile, missing), invalid_weight(tile)
    if invalid_row := holes or wrong:
        return replace(
            nothing,
            rows=count,
            invalid_row=(tile.start, invalid_row[0]),
            holes=holes[1] if holes else 0,
            misweighted=wrong[1] if wrong else 0,
        )
    rows = tile.rows.astype(np.float64, order="C")
    weights = np.ones(count) if tile.weights is None else tile.weights.astype(np.float64)
    if not weights.all():
        rows, weights = rows[weights > 0], weights[weights > 0]
    if not len(rows):
        return replace(nothing, rows=count)
    if missing and np.isnan(rows).any():
        return replace(_of_holes(rows, weights, nothing), rows=count)
    weight = weights.sum()
    columns = np.ascontiguousarray(rows.T)  # sums along memory are several times as fast
    shares = weights / weight
    mean = columns @ shares
    away = columns - mean[:, None]
    missed = away @ shares  # the sum's rounding, which shows where a mean is large
    mean += missed
    away -= missed[:, None]
    away *= np.sqrt(weights)
    return replace(
        nothing,
        rows=count,
        weighted=len(rows),
        weight=float(weight),
        mean=mean,
        scatter=_products(away, first_pass_spec.pairs),
        low=columns.min(axis=1),
        high=columns.max(axis=1),
        observed=np.full(len(mean), weight),
    )


def _of_holes(rows: Array, weights: Array, nothing: DataMoments) -> DataMoments:
    """The moments of ``rows`` (n, D) of which each feature has those that are not NaN."""
    holes = np.isnan(rows)
    shares = np.where(holes, 0.0, weights[:, None])
    observed = shares.sum(axis=0)
    shares /= np.where(observed > 0, observed, 1.0)
    away = np.where(holes, 0.0, rows)
    mean = np.einsum("nd,nd->d", away, shares)
    away -= mean
    away[holes] = 0.0
    missed = np.einsum("nd,nd->d", away, shares)  # the sum's rounding
    away -= missed
    away[holes] = 0.0
    return replace(
        nothing,
        weighted=len(rows),
        weight=float(weights.sum()),
        mean=mean + missed,
        scatter=np.einsum("n,nd,nd->d", weights, away, away),
        low=np.where(observed > 0, np.fmin.reduce(rows, axis=0), np.inf),
        high=np.where(observed > 0, np.fmax.reduce(rows, axis=0), -np.inf),
        observed=observed,
    )


def _products(away: Array, pairs: bool) -> Array:
    """Sums over rows ``away`` (D, n) of squares (D,), or of products of ``pairs`` (D, D)."""
    return away @ away.T if pairs else np.sum(away * away, axis=1)


def invalid_weight(tile: Block) -> tuple[str, int] | None:
    """Name the first weight that can't be used, and count those, if there are."""
    if tile.weights is None:
        return None
    bad = ~(np.isfinite(tile.weights) & (tile.weights >= 0))
    if not bad.any():
        return None
    row = int(bad.argmax())
    name = "weights must be finite and not negative: "
    return f"{name}{tile.weights[row]} at row {tile.start + row}", int(bad.sum())


def _sample(block: Block, first_pass_spec: FirstPassSpec, draw: "Draw") -> Sample:
    """The rows of a block with the smallest keys.

    Only of rows whose hash says that they may be among these is a logarithm taken.
    """
    size, bound, held = first_pass_spec.sample, first_pass_spec.largest, 0
    keys, numbers = [np.empty(0)], [np.empty(0, np.int64)]
    for first in range(block.start, block.start + len(block.rows), DRAWN):
        here = slice(first - block.start, first - block.start + DRAWN)
        weights = None if block.weights is None else block.weights[here].astype(np.float64)
        most = 1.0 if weights is None else float(weights.max())
        if most == 0:
            continue
        moments = draw(first, len(block.rows[here]), first_pass_spec.seed, least_hash(bound * most))
        own = -np.log(uniform(moments, first_pass_spec.seed))
        if weights is not None:
            own /= weights[moments - first]
        near = own < bound  # so those without weight are not
        keys.append(own[near])
        numbers.append(moments[near])
        held += int(np.count_nonzero(near))
        if held >= 2 * size:
            keys, numbers = smallest_keys(keys, numbers, size)
            bound, held = float(keys[0].max()), size
    (key,), (number,) = smallest_keys(keys, numbers, size)
    taken = block.taken(number - block.start)
    weights = np.ones(len(number)) if taken.weights is None else taken.weights
    others: dict[str, Any] = {name: getattr(taken, name) for name in OTHERS}
    rows = taken.rows.astype(np.float64, order="C")
    return Sample(size, key, number, rows, weights.astype(np.float64), **others)


Draw = Callable[[int, int, int, int], NDArray[np.int64]]
"""Which of consecutive row numbers have a hash that is large enough, as ``numbers_drawn``."""


@dataclass(frozen=True)
class Way:
    """How the first pass takes a block, but for the sample; and how row numbers are hashed."""

    first_pass: Callable[[Block, FirstPassSpec], DataMoments]
    draw: Draw


WAYS: Final = {"numpy": Way(_first_pass, numbers_drawn), "native": Way(_compiled, draw)}
"""By the names of ``choice.KERNELS``."""
