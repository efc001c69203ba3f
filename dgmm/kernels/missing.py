"""The E-step of rows with holes: NaN is a value that is missing at random.

A row is judged by what of it was observed, and counts as what its component expects of the rest
(Ghahramani and Jordan, Supervised learning from incomplete data via an EM approach, 1994; Little
and Rubin, Statistical Analysis with Missing Data, 2002, chapter 11).  With o the observed features
of a row, m the missing ones, d = x - mu_k and S the covariance of component k,

    log joint     log pi_k + log N(d_o | 0, S_oo) - penalty_k
    d_m           S_mo S_oo^-1 d_o                                  expected
    d_m d_m'      the expected d_m times itself, and C = S_mm - S_mo S_oo^-1 S_om

so sums about a component's mean are completed without any cancellation.

**Rows of one pattern** (those with the same holes) share S_oo and its factor.  Where many rows have
a pattern, they are complete rows of fewer features: the kernel for complete rows takes them, and
their sums are completed once.  The few rows of rare patterns are taken together, a batch of
patterns at a time.  Compiled code (native_missing.py) does both by itself, in double precision.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels.kernel import TOO_FAR, describe_invalid_row, normalise
from dgmm.kernels.natural_parameters import LOWEST, EStep, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics
from dgmm.model.tails import Latent

MANY: Final = 1024
"""From so many rows on, a pattern's rows are taken as complete rows of fewer features."""

ODD: Final = np.uint64(0x9E3779B97F4A7C15)
EVEN: Final = np.uint64(0xBF58476D1CE4E5B8)
"""What words are multiplied by, for a hash of them: odd numbers, one for each word."""

NUMBERS: Final = 1 << 18
"""How many numbers a batch of rare patterns has in an array."""

PATTERN_BYTES: Final = 640
"""What a ``Pattern`` takes, with its arrays."""


def nbytes(rows: int, n_features: int, components: int) -> int:
    """What ``e_step`` takes beside copies of rows, in bytes: patterns, batches, and factors."""
    words = -(-n_features // 64)
    patterns = rows * (n_features + 3 * 8 * words + 5 * 8)
    patterns += PATTERN_BYTES * min(rows, 1 << n_features)
    return patterns + 8 * 8 * NUMBERS + 6 * 8 * (components + 24) * (n_features + 2) ** 2


Rest = Callable[[Block, "Patterns", Given], Stacked[Statistics]]
IncompleteStep = Callable[[Block, "Patterns", Given, EStep], Stacked[Statistics]]


@dataclass(frozen=True)
class Pattern:
    """Rows of a block with the same holes.

    Attributes
    ----------
    observed : (D,)
        Which features they have.
    rows : (n,)
        Their places in the block.
    """

    observed: NDArray[np.bool_]
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Patterns:
    """Rows of a block, those with the same holes one after another.

    Attributes
    ----------
    holes : (N, D)
        Those of all rows of the block.
    rows : (n,)
        Their places in the block.
    ends : (M,)
        One past the last row of each pattern.
    """

    holes: NDArray[np.bool_]
    rows: NDArray[np.intp]
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each has, (M,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Which features each has, (M, D)."""
        return ~self.holes[self.rows[self.ends - 1]]

    def among(self, chosen: NDArray[np.bool_]) -> "Patterns":
        """Those ``chosen`` (M,)."""
        counts = self.counts
        rows = self.rows[np.repeat(chosen, counts)]
        return Patterns(self.holes, rows, np.cumsum(counts[chosen]))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Pattern]:
        start = 0
        for end in self.ends.tolist():
            rows = self.rows[start:end]
            yield Pattern(~self.holes[rows[0]], rows)
            start = end


def packed(holes: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The rows of ``holes`` (n, D) as bits, in (n, D / 64) words."""
    bits = np.packbits(holes, axis=1)
    words = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), np.uint8)
    words[:, : bits.shape[1]] = bits
    return words.view(np.uint64)


def patterns(
    holes: NDArray[np.bool_], words: NDArray[np.uint64], chosen: NDArray[np.intp]
) -> Patterns:
    """The patterns among the ``chosen`` rows of ``holes`` (n, D), which are ``packed`` in words.

    Rows are sorted by a short hash, which is fast: so rows of one pattern that meet another of the
    same hash may make several, which costs time alone.
    """
    chosen_words = np.take(words, chosen, axis=0)
    mixed = np.bitwise_xor.reduce(
        chosen_words * (np.arange(chosen_words.shape[1], dtype=np.uint64) * EVEN + ODD), 1
    )
    order = np.argsort((mixed >> np.uint64(48)).astype(np.uint16), kind="stable")
    chosen_words, chosen = np.take(chosen_words, order, axis=0), np.take(chosen, order)
    last = np.ones(len(chosen), np.bool_)
    last[:-1] = np.any(chosen_words[1:] != chosen_words[:-1], axis=1)
    return Patterns(holes, chosen, np.flatnonzero(last) + 1)


def e_step(
    block: Block, given: Given, complete: EStep, incomplete: IncompleteStep
) -> Stacked[Statistics]:
    """The statistics of a block some of whose rows have holes.

    ``complete`` is the E-step of complete rows, ``incomplete`` that of others, which is given
    ``complete``, too; the natural parameters are those about each component's mean, with a
    quadratic part of each.  Rows without any value count for nothing.
    """
    holes = np.isnan(block.rows)
    words = packed(holes)
    counted = words.any(axis=1)
    if not counted.any():
        return complete(block, given)
    total = complete(block.taken(np.flatnonzero(~counted)), given)
    if block.weights is not None:
        counted &= block.weights > 0
    alike = patterns(holes, words, np.flatnonzero(counted))
    alike = alike.among(np.asarray(alike.observed.any(axis=1)))
    if not len(alike):
        return total
    of_incomplete = incomplete(block, alike, given, complete)
    if not all(np.isfinite(each.objective) for each in of_incomplete.parts):
        raise DataError(describe_invalid_row(block, missing=True) or TOO_FAR)
    return total + of_incomplete


def incomplete(
    block: Block, patterns: Patterns, given: Given, complete: EStep
) -> Stacked[Statistics]:
    """The statistics of the rows of some ``patterns``, by NumPy but for ``complete`` rows."""
    return by_pattern(block, patterns, given, complete, _of_rare)


def by_pattern(
    block: Block, patterns: Patterns, given: Given, complete: EStep, rest: Rest
) -> Stacked[Statistics]:
    """The same, with ``rest`` for the rows of rare patterns; others are ``complete`` rows."""
    many = patterns.counts >= MANY
    parts = [_of_common(block, each, given, complete) for each in patterns.among(many)]
    if not many.all():
        parts.append(rest(block, patterns.among(~many), given))
    return reduce(add, parts)


def _of_rare(block: Block, rare: Patterns, given: Given) -> Stacked[Statistics]:
    """The statistics of the rows of ``rare`` patterns, under each form."""
    return Stacked(tuple(_under(block, rare, given.frame, each) for each in given.naturals))


def _of_common(
    block: Block, pattern: Pattern, given: Given, complete: EStep
) -> Stacked[Statistics]:
    """The statistics of the rows of one pattern, as of complete rows of fewer features."""
    places = np.flatnonzero(pattern.observed)
    frame = Frame(given.frame.shift[places], given.frame.scale[places])
    part = block.taken(pattern.rows)
    part = replace(part, rows=part.rows[:, places])
    naturals = tuple(_marginal(each, pattern.observed) for each in given.naturals)
    statistics = complete(part, Given(frame, naturals))
    lost = float(np.log(given.frame.scale[~pattern.observed]).sum())
    return Stacked(
        tuple(
            _completed(one, natural, pattern.observed, lost)
            for one, natural in zip(statistics.parts, given.naturals, strict=True)
        )
    )


def _marginal(natural: NaturalParameters, observed: NDArray[np.bool_]) -> NaturalParameters:
    """The natural parameters of the ``observed`` (D,) features; the penalty is that of all."""
    mixture = natural.mixture.among(np.flatnonzero(observed))
    plain = NaturalParameters.of(mixture, centre=True, single=natural.single, per_component=True)
    constants = np.maximum(plain.constants - natural.penalty, LOWEST[natural.single])
    return replace(plain, constants=constants, penalty=natural.penalty)


def _completed(
    statistics: Statistics, natural: NaturalParameters, observed: NDArray[np.bool_], lost: float
) -> Statistics:
    """Statistics of rows of the ``observed`` features, as those of all features.

    ``lost`` is log of the volume that the frame's unit has in the missing features.
    """
    mixture = natural.mixture
    sums = mixture.covariances.completed(statistics.sums[: mixture.components], observed)
    if mixture.noise_component is not None:  # of its sums nothing is of use but the count
        noise = np.zeros((1, sums.shape[1]))
        noise[0, 0] = statistics.sums[-1, 0]
        sums = np.concatenate([sums, noise])
    volume = lost * statistics.weight
    return Statistics(
        sums,
        natural.center,
        statistics.objective + volume,
        statistics.log_likelihood + volume,
        statistics.weight,
        statistics.rows,
        statistics.tails,
    )


def _under(block: Block, rare: Patterns, frame: Frame, natural: NaturalParameters) -> Statistics:
    """The same under one mixture."""
    features, n_features = natural.features, len(frame.shift)
    student = natural.mixture.tails is not None
    total = Statistics.zero(natural.center, features.width(n_features), student)
    for judged in judge(block.rows, rare, frame, natural.mixture):
        log_joint = judged.log_joint - natural.penalty[:, None] + frame.log_volume
        log_norm, log_plain, responsibilities = normalise(log_joint, natural.penalty)
        weights = np.ones(len(judged.of))
        if block.weights is not None:
            weights = block.weights[judged.rows].astype(np.float64)
        responsibilities = responsibilities * weights
        spread = judged.spread()
        counts = np.zeros((len(spread), len(responsibilities)))
        np.add.at(counts, judged.of, responsibilities.T)
        sums = np.zeros_like(total.sums)
        sums[:, 0] = responsibilities.sum(axis=1)  # all there is of noise
        buffer = np.empty((sums.shape[1], len(weights)))
        count, by, tails = natural.mixture.components, responsibilities, None
        if judged.latent is not None:
            by, tails = by * judged.latent.scale, judged.latent.sums(by)
        for k, shares in enumerate(by[:count]):
            sums[k, 1:] = (features.of(judged.away[:, k].T, buffer) @ shares)[1:]
        more = np.einsum("mk,mkq->kq", counts[:, :count], spread)
        sums[:count, 1 + n_features :] += more
        objective, plain = float(log_norm @ weights), float(log_plain @ weights)
        weight, own_rows = float(weights.sum()), len(weights)
        total += Statistics(sums, natural.center, objective, plain, weight, own_rows, tails)
    return total


@dataclass(frozen=True)
class Judged:
    """What the components of a mixture say of rows with holes.

    Attributes
    ----------
    rows, of : (n,)
        Their places, and which of the patterns each has.
    log_joint : (K, n) or (K + 1, n)
        log pi_k and the log-density of what was observed, in the units of the data; of noise last.
    away : (n, K, D)
        How far the completed rows are from the means, in the frame.
    spread : callable
        The quadratic part (M, K, Q) that the missing features have beyond that, for each pattern.
    latent : Latent or None
        What is expected of the rows' own precisions, where components are t distributions.
    """

    rows: NDArray[np.intp]
    of: NDArray[np.intp]
    log_joint: Array
    away: Array
    spread: Callable[[], Array]
    latent: Latent | None = None


def judge(
    rows: NDArray[Any], chosen: Iterable[Pattern], frame: Frame, mixture: Mixture
) -> Iterator[Judged]:
    """What a ``mixture`` in the ``frame`` says of ``rows`` (n, D) of the ``chosen`` patterns."""
    most = max(1, NUMBERS // (mixture.components * mixture.n_features**2))
    for batch in _batches(chosen, most):
        observed = np.array([each.observed for each in batch])
        of = np.repeat(np.arange(len(batch)), [len(each.rows) for each in batch])
        places = np.concatenate([each.rows for each in batch])
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            x = frame.rows(rows[places], np.empty((mixture.n_features, len(of)))).T
            away = np.where(observed[of, None], x[:, None] - mixture.means, 0.0)
            expected = mixture.covariances.expected(away, observed, of)
            unit = observed @ (0.5 * np.log(2 * np.pi) + np.log(frame.scale))
            log_joint = expected.log_density.T + mixture.log_weights[:, None] - unit[of]
            latent = None
            if (tails := mixture.tails) is not None:
                counts = observed.sum(axis=1)[:, None]
                log_density = tails.log_density(expected.squares, counts[of])
                latent = tails.latent(log_density, counts[of])
                unit = unit - 0.5 * np.log(2 * np.pi) * counts[:, 0]
                log_joint = (expected.log_density + 0.5 * expected.squares + log_density).T
                log_joint += mixture.log_weights[:, None] - unit[of]
                log_joint += tails.log_constant(counts)[of].T
            if (noise := mixture.noise_component) is not None:
                even = noise.log_joint_of(observed) - observed @ np.log(frame.scale)
                log_joint[~np.isfinite(log_joint)] = -np.inf  # a row too far from them is noise
                log_joint = np.concatenate([log_joint, even[None, of]])
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        yield Judged(places, of, log_joint, expected.away, expected.spread, latent)


def _batches(chosen: Iterable[Pattern], most: int) -> Iterator[list[Pattern]]:
    """The patterns in batches of at most so many rows; those of more rows in parts."""
    batch: list[Pattern] = []
    held = 0
    for pattern in chosen:
        for start in range(0, len(pattern.rows), most):
            part = replace(pattern, rows=pattern.rows[start : start + most])
            if held + len(part.rows) > most:
                yield batch
                batch, held = [], 0
            batch.append(part)
            held += len(part.rows)
    if batch:
        yield batch
