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

from dgmm.em import sparse_first_pass
from dgmm.em.moments import DataMoments, products
from dgmm.em.sample import OTHERS, Sample, least_hash, numbers_drawn, smallest_keys, uniform
from dgmm.em.sample import nbytes as sample_nbytes
from dgmm.errors import DataError
from dgmm.kernels.kernel import first_invalid_row
from dgmm.kernels.labels import FREE, sole
from dgmm.kernels.native import DRAWN, pieces
from dgmm.kernels.native_first_pass import draw, moments
from dgmm.kernels.observation import COMPLETE, Observation
from dgmm.kernels.probe import Probe
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array

TILE = 16384

KNOWN_ROWS: Final = 64
"""How many rows of each component are kept that are known to be of it."""


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
        rest = pairs, kernel, observation, beside, components
        return cls(sample, seed, float(largest), *rest)

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
    labels = sole(block.labels)
    if block.weights is not None:
        labels = np.where(block.weights > 0, labels, FREE)
    parts = []
    for k in range(first_pass_spec.components):
        places = np.flatnonzero(labels == k)
        numbers = block.start + places
        keys = -np.log(uniform(numbers, first_pass_spec.seed))
        if block.weights is not None:
            keys /= block.weights[places]
        taken = block.taken(places)
        rows, weights = taken.rows.astype(np.float64, order="C"), np.ones(len(places))
        others: dict[str, Any] = {name: getattr(taken, name) for name in OTHERS}
        sample = Sample(KNOWN_ROWS, keys, numbers, rows, weights, **others)
        parts.append(sample.smallest())
    return tuple(parts)


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
        compiled = moments(piece, first_pass_spec.pairs)
        if compiled is None:
            return _first_pass(block, first_pass_spec)
        observed = np.full(len(nothing.mean), compiled.weight)
        parts.append(replace(nothing, rows=len(piece.rows), observed=observed, **vars(compiled)))
    return reduce(add, parts)


def _first_pass_tile(tile: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    count = len(tile.rows)
    nothing = _nothing(tile.rows.shape[1], first_pass_spec)
    observation = first_pass_spec.observation
    missing = observation.holes  # NaN that is dropped is gone by now
    holes = first_invalid_row(tile, missing or not observation.refuses)
    wrong = invalid_weight(tile)
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
    of = _of_holes if missing and np.isnan(rows).any() else _of_complete
    return replace(of(rows, weights, nothing), rows=count)


def _of_complete(rows: Array, weights: Array, nothing: DataMoments) -> DataMoments:
    """The moments of complete ``rows`` (n, D)."""
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
        weighted=len(rows),
        weight=float(weight),
        mean=mean,
        scatter=products(away, nothing.scatter.ndim == 2),
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


def check_row_weights(block: Block) -> None:
    """Raise ``DataError`` if a weight of a block can't be used."""
    if wrong := invalid_weight(block):
        raise DataError(wrong[0])


def _sample(block: Block, first_pass_spec: FirstPassSpec, draw: "Draw") -> Sample:
    """The rows of a block with the smallest keys.

    Only of rows whose hash says that they may be among these is a logarithm taken.
    """
    size, bound, held = first_pass_spec.sample, first_pass_spec.largest, 0
    keys, numbers = [np.empty(0)], [np.empty(0, np.int64)]
    for first in range(block.start, block.start + len(block.rows), DRAWN):
        part = slice(first - block.start, first - block.start + DRAWN)
        weights = None if block.weights is None else block.weights[part].astype(np.float64)
        most = 1.0 if weights is None else float(weights.max())
        if most == 0:
            continue
        drawn = draw(first, len(block.rows[part]), first_pass_spec.seed, least_hash(bound * most))
        drawn_keys = -np.log(uniform(drawn, first_pass_spec.seed))
        if weights is not None:
            drawn_keys /= weights[drawn - first]
        near = drawn_keys < bound  # so those without weight are not
        keys.append(drawn_keys[near])
        numbers.append(drawn[near])
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
    """How the first pass takes a block, but for the sample; and how row numbers are hashed.

    ``nbytes`` says what temporaries take, of a block of so many rows and features.
    """

    first_pass: Callable[[Block, FirstPassSpec], DataMoments]
    draw: Draw
    nbytes: Callable[[int, int], int]


def _sparse(block: Block, first_pass_spec: FirstPassSpec) -> DataMoments:
    """The same of sparse rows."""
    nothing = _nothing(block.rows.shape[1], first_pass_spec)
    return sparse_first_pass.moments(block, nothing, invalid_weight(block))


WAYS: Final = {
    "numpy": Way(_first_pass, numbers_drawn, nbytes),
    "native": Way(_compiled, draw, nbytes),
    "sparse": Way(_sparse, numbers_drawn, sparse_first_pass.nbytes),
}
"""By the names of ``choice.WAYS``."""
