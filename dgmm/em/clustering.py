"""Clusters of a few thousand rows, as seeds for mixtures: k-means++, k-means, breathing k-means.

Rows are few, in memory and in single precision: seeds need no more digits.  All work is in matrix
products over parts of the rows, whatever the number of clusters.

**Breathing k-means** (Fritzke, The k-means algorithm evolved, 2020): to the clusters of k-means,
add a few centres where the error is largest, run k-means, remove as many that are of the least use,
run k-means again; keep that if the error is lower, else breathe less deeply.  It finds clusters
that k-means misses, which no EM mends.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
Random = np.random.RandomState

PART: Final = 1 << 18
"""Distances in memory at a time."""

FEW: Final = 64
"""Of so many clusters at most the means are one product: more arithmetic, in less time."""

SEEDING: Final = 1 << 24
"""Of more rows times clusters than that, the first centres are among some of the rows only."""

SEEDS: Final = 16
"""For each cluster so many rows at least: their number squared is what first centres cost."""

SETTLED: Final = 1e-3
"""Lloyd's iterations end when one lowers the error by less than this part of it."""

LLOYD: Final = 30
"""Iterations of k-means at most."""

DEPTH: Final = 5
"""How many centres breathing k-means adds and removes at most."""

BREATH: Final = 12
"""Iterations of k-means after centres were added; twice as many after they were removed."""

BETTER: Final = 1e-4
"""A breath helps if it lowers the error by more than this part of it."""

NUDGE: Final = 0.01
"""How far from an old centre a new one begins, over the root mean square distance of rows."""


@dataclass(frozen=True)
class Clusters:
    """Centres (K, D), each row's nearest (n,), its squared distance (n,), and the sum of these."""

    centres: Single
    labels: NDArray[np.int64]
    away: Single
    error: float


def _parts(count: int, n: int) -> Iterator[slice]:
    """Places of ``n`` rows, few enough for their distances from so many centres."""
    step = max(1, PART // count)
    return (slice(start, start + step) for start in range(0, n, step))


def _distances(rows: Single, centres: Single) -> Single:
    """Squared distances (K, n) of ``rows`` from ``centres``, but for the rows' own squares."""
    far: Single = (-2 * centres) @ rows.T
    far += (centres * centres).sum(axis=1)[:, None]
    return far


def _assigned(rows: Single, weights: Single, sizes: Single, centres: Single) -> Clusters:
    """Each of ``rows`` (n, D), whose squared ``sizes`` are known, with its nearest centre.

    Which is nearest is told by a product: NumPy takes ten times as long for ``argmin``.
    """
    labels, away = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    numbers = np.arange(len(centres), dtype=np.float32)
    for part in _parts(len(centres), len(rows)):
        far = _distances(rows[part], centres)
        away[part] = nearest = far.min(axis=0)
        own = far == nearest
        if np.count_nonzero(own) == len(nearest):
            labels[part] = numbers @ own.astype(np.float32)
        else:  # some are as near to two
            labels[part] = far.argmin(axis=0)
    away = np.maximum(away + sizes, 0)
    return Clusters(centres, labels, away, float(away.astype(np.float64) @ weights))


def _lloyd(
    rows: Single, weights: Single, sizes: Single, centres: Single, iterations: int
) -> Clusters:
    """k-means from ``centres``, for so many iterations at most."""
    clusters = _assigned(rows, weights, sizes, centres)
    for _ in range(iterations):
        moved = _means(rows, weights, clusters)
        before, clusters = clusters.error, _assigned(rows, weights, sizes, moved)
        if before - clusters.error < SETTLED * before:
            break
    return clusters


def _means(rows: Single, weights: Single, clusters: Clusters) -> Single:
    """The mean of each cluster's rows; an empty one stays where it is."""
    count = len(clusters.centres)
    heavy = np.bincount(clusters.labels, weights, count)
    if count <= FEW:
        sums, numbers = np.zeros(clusters.centres.shape), np.arange(count)[:, None]
        for part in _parts(count, len(rows)):
            own = (clusters.labels[part] == numbers).astype(np.float32)
            own *= weights[part]
            sums += own @ rows[part]
    else:
        sums = np.stack(
            [np.bincount(clusters.labels, weights * column, count) for column in rows.T], axis=1
        )
    means = sums / np.where(heavy > 0, heavy, 1.0)[:, None]
    return np.where(heavy[:, None] > 0, means, clusters.centres).astype(np.float32)


def _breathed(
    rows: Single, weights: Single, sizes: Single, clusters: Clusters, random: Random
) -> Clusters:
    """The clusters after breathing, for as long as that helps."""
    count, n_features = clusters.centres.shape
    depth = min(DEPTH, max(1, count // 2))
    while depth > 0:
        error = np.bincount(clusters.labels, clusters.away * weights, count)
        most = np.argsort(-error, kind="stable")[:depth]
        step = NUDGE * np.sqrt(clusters.error / weights.sum() / n_features)
        nudged = clusters.centres[most] + step * random.standard_normal((depth, n_features))
        more = np.concatenate([clusters.centres, nudged.astype(np.float32)])
        many = _lloyd(rows, weights, sizes, more, BREATH)
        kept = np.delete(many.centres, _useless(rows, weights, sizes, many, depth), axis=0)
        new = _lloyd(rows, weights, sizes, kept, 2 * BREATH)
        if new.error < clusters.error * (1 - BETTER):
            clusters = new
        else:
            depth -= 1
    return clusters


def _useless(
    rows: Single, weights: Single, sizes: Single, clusters: Clusters, depth: int
) -> list[int]:
    """So many centres without which the error would grow least, and no two that are neighbours."""
    centres = clusters.centres
    use = np.bincount(clusters.labels, _regrets(rows, sizes, clusters) * weights, len(centres))
    apart = np.stack([((centres - each) ** 2).sum(axis=1) for each in centres])
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(use, kind="stable").tolist()
    removed: list[int] = []
    frozen: set[int] = set()
    for k in order:
        if len(removed) < depth and k not in frozen:
            removed.append(k)
            if len(frozen) + depth < len(centres):
                frozen.add(int(apart[k].argmin()))
    return [*removed, *(k for k in order if k not in removed)][:depth]


def _regrets(rows: Single, sizes: Single, clusters: Clusters) -> Single:
    """By how much farther (n,) rows' second nearest centres are than the nearest."""
    second = np.empty(len(rows), np.float32)
    for part in _parts(len(clusters.centres), len(rows)):
        far = _distances(rows[part], clusters.centres)
        far[clusters.labels[part], np.arange(far.shape[1])] = np.inf
        second[part] = far.min(axis=0)
    regrets: Single = np.maximum(second + sizes, 0) - clusters.away
    return regrets


def clusters(rows: Any, weights: Any, count: int, method: str, random: Random) -> NDArray[np.int64]:
    """The labels (n,) of so many clusters of ``rows`` (n, D), by a ``method`` of ``METHODS``."""
    rows = np.ascontiguousarray(rows, np.float32)
    weights = (weights / weights.max()).astype(np.float32)  # of any size in double precision
    sizes = (rows * rows).sum(axis=1)
    # BLAS may report as invalid what lies beside the numbers of a small product; these are finite.
    with np.errstate(invalid="ignore"):
        centres = _first_centres(rows, weights, sizes, count, random)
        return METHODS[method](rows, weights, sizes, centres, random).labels


def _first_centres(
    rows: Single, weights: Single, sizes: Single, count: int, random: Random
) -> Single:
    """Centres (K, D) by k-means++ (Arthur and Vassilvitskii, 2007), of rows in any order.

    Each is the best of a few that are drawn, as scikit-learn has it.
    """
    if len(rows) * count > SEEDING:
        some = slice(max(SEEDING // count, SEEDS * count))
        rows, weights, sizes = rows[some], weights[some], sizes[some]
    tried, last = 2 + int(np.log(count)), len(rows) - 1
    chosen = np.empty(count, np.int64)
    near = np.ones_like(weights)
    for k in range(count):
        sums = np.cumsum(near * weights, dtype=np.float64)
        drawn = random.uniform(size=tried if k else 1) * sums[-1]
        places = np.minimum(np.searchsorted(sums, drawn, side="right"), last)
        away = _distances(rows, rows[places])
        away += sizes
        np.maximum(away, 0, out=away)
        away[np.arange(len(places)), places] = 0
        if k:
            np.minimum(away, near, out=away)
        best = int((away @ weights).argmin())
        chosen[k], near = places[best], away[best]
    return rows[chosen]


Method = Callable[[Single, Single, Single, Single, Random], Clusters]
METHODS: Final[dict[str, Method]] = {
    "breathing": lambda rows, weights, sizes, centres, random: _breathed(
        rows, weights, sizes, _lloyd(rows, weights, sizes, centres, LLOYD), random
    ),
    "kmeans": lambda rows, weights, sizes, centres, random: _lloyd(
        rows, weights, sizes, centres, LLOYD
    ),
    "k-means++": lambda rows, weights, sizes, centres, random: _assigned(
        rows, weights, sizes, centres
    ),
}
