"""What rows look like under a mixture, in counts that one pass brings home.

Rows are counted in the bins of some features, one by one and in pairs, and by how certain it is
what component they are of: the largest of a row's responsibilities.  The bins are those of the
mixture, so that no pass is needed to find the range of the rows: they hold all but ``TAIL`` of its
weight at either end, and rows outside are counted, too.  Counts are integers, the same whatever
the number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.inference.regression import quantile
from dgmm.kernels.outputs import RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

BINS: Final = 64
"""Bins of a feature."""

CERTAINTIES: Final = 20
"""Bins of the certainty: the last one begins at 0.95."""

TAIL: Final = 2e-4
"""How much of a mixture's weight lies outside the bins of a feature, at either end."""

SHOWN: Final = 6
"""How many features are looked at unless they are named."""

MOST: Final = 12
"""So many features are looked at side by side."""

TILE: Final = 1 << 20
"""How many responsibilities there are at once."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Overview:
    """What rows look like under a mixture: how many are where, and how certain their labels are.

    Parameters
    ----------
    features : tuple of int
        The m features that rows were counted by.
    edges : array (m, B + 1)
        The ends of each one's bins.
    singles : array (m, B) of int
        How many rows are in each bin of a feature.
    pairs : array (m (m - 1) / 2, B, B) of int
        How many are in each bin of two: of features i < j, ordered by i, then j.
    outside, missing : array (m,) of int
        How many rows have a value outside the bins, and none.
    certainty : array (K, 20) or (K + 1, 20) of int
        How many rows have each label, the last that of noise if there is any, by the probability of
        that label, in twenty steps from 0 to 1.
    certainty_sums : array (K,) or (K + 1,)
        The sum of these probabilities.
    rows, nothing, below : int
        The number of rows; of those of which nothing was observed; and of those below the threshold
        that the model keeps.
    log_likelihood : float
        The sum of the rows' log-densities, in nats.

    Examples
    --------
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> seen = model.overview([[0.1], [-0.3], [9.2]])
    >>> seen
    <Overview: 3 rows, by 1 feature>
    >>> seen.labels.tolist(), seen.rows, int(seen.singles.sum())
    ([2, 1], 3, 3)
    """

    features: tuple[int, ...]
    edges: Array
    singles: Counts
    pairs: Counts
    outside: Counts
    missing: Counts
    certainty: Counts
    certainty_sums: Array
    rows: int
    nothing: int
    below: int
    log_likelihood: float

    def __repr__(self) -> str:
        plural = "s" * (len(self.features) != 1)
        return f"<Overview: {self.rows:,} rows, by {len(self.features)} feature{plural}>"

    def __add__(self, other: "Overview") -> "Overview":
        both = {name: getattr(self, name) + getattr(other, name) for name in ADDED}
        return replace(self, **both)

    @property
    def labels(self) -> Counts:
        """How many rows have each label, (K,) or (K + 1,)."""
        return np.asarray(self.certainty.sum(axis=1))

    @property
    def mean_certainty(self) -> Array:
        """The mean probability of the label that rows have, (K,) or (K + 1,); NaN of no rows."""
        counts = self.labels
        none = np.full(len(counts), np.nan)
        return np.asarray(np.divide(self.certainty_sums, counts, out=none, where=counts > 0))

    @property
    def mean_log_likelihood(self) -> float:
        """Of the rows of which anything was observed, in nats a row."""
        known = self.rows - self.nothing
        return self.log_likelihood / known if known else float("nan")

    def pair(self, first: int, second: int) -> Counts:
        """How many rows are in each bin of two of the features.

        Parameters
        ----------
        first, second : int
            Their places in ``features``; the first is the smaller.

        Returns
        -------
        array (B, B) of int
            The first axis is that of the first one.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [[[1.0, 0], [0, 1]]])
        >>> int(model.overview([[0.1, 0.2], [0.3, 9.0]]).pair(0, 1).sum())
        1
        """
        return np.asarray(self.pairs[pair_place(first, second, len(self.features))])


ADDED: Final = tuple(
    each.name for each in fields(Overview) if each.name not in ("features", "edges")
)
"""What adds up from block to block."""


def pair_place(first: int, second: int, count: int) -> int:
    """Where the pair of features ``first`` < ``second`` of ``count`` stands among all."""
    return first * (2 * count - first - 1) // 2 + second - first - 1


@dataclass(frozen=True)
class Query:
    """What a sweep for an overview is given.

    Attributes
    ----------
    wanted : RowOutputs
        The log-density and the responsibilities of each row (``JUDGED``).
    features : tuple of int
    edges : (m, B + 1)
    threshold : float
        A log-density; minus infinity if there is none.
    """

    wanted: RowOutputs
    features: tuple[int, ...]
    edges: Array
    threshold: float = -np.inf

    def bins(self, rows: NDArray[Any]) -> NDArray[np.intp]:
        """The bins (n, m) of values of rows (n, D): ``BINS`` if outside, ``BINS`` + 1 if none."""
        values = np.asarray(rows[:, list(self.features)], dtype=np.float64)
        low, high = self.edges[:, 0], self.edges[:, -1]
        inside = (values >= low) & (values <= high)
        place = np.where(inside, (values - low) / (high - low), 0.0) * BINS
        bins = np.minimum(place.astype(np.intp), BINS - 1)
        return np.where(inside, bins, np.where(np.isnan(values), BINS + 1, BINS))


def most_telling(mixture: Mixture, count: int) -> tuple[int, ...]:
    """The ``count`` features, in order, of whose variance most lies between the components."""
    weights = mixture.own_weights[:, None]
    away = mixture.means - (weights * mixture.means).sum(axis=0)
    between, within = (weights * away**2).sum(axis=0), (weights * mixture.variances).sum(axis=0)
    share = between / (between + within)
    chosen = np.argsort(-share.round(12), kind="stable")[:count]
    return tuple(sorted(chosen.tolist()))


def edges_of(mixture: Mixture, features: Sequence[int]) -> Array:
    """The ends (m, BINS + 1) of bins of some ``features`` that hold nearly all of a mixture."""
    chosen = mixture.own_weights > 0
    weights = mixture.own_weights[chosen] / mixture.own_weights[chosen].sum()
    found = []
    for j in features:
        means = mixture.means[chosen, j, None]
        spread = np.sqrt(mixture.variances[chosen, j, None])
        ends = (TAIL, 1 - TAIL)
        low, high = (float(quantile(weights[:, None], means, spread, p)[0]) for p in ends)
        room = max((high - low) * 0.04, abs(low) * 1e-12, abs(high) * 1e-12)
        span = [low - room, high + room]
        if mixture.tails is not None or mixture.noise_component is not None:  # rows lie farther out
            span = [low - 6 * room, high + 6 * room]
        found.append(np.linspace(span[0], span[1], BINS + 1))
    return np.array(found)


def overview(sweep: Sweep, query: Query) -> Overview:
    """What the rows look like, in one sweep; raises ``UsageError`` for too many features."""
    if not 0 < len(query.features) <= MOST:
        raise UsageError(
            f"rows are counted by 1 to {MOST} features side by side; {len(query.features)} were "
            "asked for"
        )
    return sweep(of_block, query)


def of_block(block: Block, query: Query) -> Overview:
    """What the rows of a block look like."""
    step = max(1, TILE // len(query.wanted.mixture.all_weights))
    starts = range(0, max(1, len(block.rows)), step)
    first, *rest = (_of_part(block.part(slice(start, start + step)), query) for start in starts)
    return sum(rest, first)


def _of_part(part: Block, query: Query) -> Overview:
    judged = query.wanted(part)
    count, bins = len(query.features), query.bins(part.rows)
    outcomes = BINS + 2
    singles = np.stack([np.bincount(bins[:, i], minlength=outcomes) for i in range(count)])
    both = [
        np.bincount(outcomes * bins[:, i] + bins[:, j], minlength=outcomes**2)
        for i in range(count)
        for j in range(i + 1, count)
    ]
    pairs = np.array(both, dtype=np.int64).reshape(-1, outcomes, outcomes)[:, :BINS, :BINS]
    known = ~np.isnan(judged[:, 0])
    scores, proba = judged[known, 0], judged[known, 1:]
    labels, certain = proba.argmax(axis=1), proba.max(axis=1, initial=0.0)
    steps = np.minimum((certain * CERTAINTIES).astype(np.intp), CERTAINTIES - 1)
    kinds = proba.shape[1]
    certainty = np.bincount(labels * CERTAINTIES + steps, minlength=kinds * CERTAINTIES)
    return Overview(
        query.features,
        query.edges,
        singles[:, :BINS],
        pairs,
        singles[:, BINS],
        singles[:, BINS + 1],
        certainty.reshape(kinds, CERTAINTIES),
        np.bincount(labels, weights=certain, minlength=kinds).astype(np.float64),
        len(part.rows),
        int((~known).sum()),
        int((scores < query.threshold).sum()),
        float(scores.sum()),
    )
