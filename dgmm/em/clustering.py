"""Clusters of a few thousand rows, as seeds for mixtures: k-means++, k-means, breathing k-means.

Rows are few, in memory and in single precision: seeds need no more digits.  All work is in matrix
products over parts of the rows, whatever the number of clusters.

**Breathing k-means** (Fritzke, The k-means algorithm evolved, 2020): to the clusters of k-means,
add a few centres where the error is largest, run k-means, remove as many that are of the least use,
run k-means again; keep that if the error is lower, else breathe less deeply.  It finds clusters
that k-means misses, which no EM mends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.lazy import Late

cluster = Late("sklearn.cluster")

Single = NDArray[np.float32]
Random = np.random.RandomState

PART: Final = 1 << 18
"""Distances in memory at a time."""

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
    """Centres (K, D), each row's nearest (n,), and squared distances to the nearest two (2, n)."""

    centres: Single
    labels: NDArray[np.int64]
    away: Single
    error: float


def _assigned(rows: Single, weights: Single, sizes: Single, centres: Single) -> Clusters:
    """Each of ``rows`` (n, D), whose squared ``sizes`` are known, with its nearest centre."""
    count, n = len(centres), len(rows)
    labels, away = np.empty(n, np.int64), np.zeros((2, n), np.float32)
    square, twice = (centres * centres).sum(axis=1), -2 * centres.T
    step = max(1, PART // count)
    for start in range(0, n, step):
        part = slice(start, start + step)
        far = rows[part] @ twice  # a row's distances lie beside each other: so they are searched
        far += square
        nearest = far.argmin(axis=1)
        labels[part] = nearest
        places = np.arange(len(nearest))
        away[0, part] = far[places, nearest]
        if count > 1:
            far[places, nearest] = np.inf
            away[1, part] = far.min(axis=1)
    away = np.maximum(away + sizes, 0)
    return Clusters(centres, labels, away, float(away[0].astype(np.float64) @ weights))


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
        error = np.bincount(clusters.labels, clusters.away[0] * weights, count)
        most = np.argsort(-error, kind="stable")[:depth]
        step = NUDGE * np.sqrt(clusters.error / weights.sum() / n_features)
        nudged = clusters.centres[most] + step * random.standard_normal((depth, n_features))
        more = np.concatenate([clusters.centres, nudged.astype(np.float32)])
        many = _lloyd(rows, weights, sizes, more, BREATH)
        kept = np.delete(many.centres, _useless(many, weights, depth), axis=0)
        new = _lloyd(rows, weights, sizes, kept, 2 * BREATH)
        if new.error < clusters.error * (1 - BETTER):
            clusters = new
        else:
            depth -= 1
    return clusters


def _useless(clusters: Clusters, weights: Single, depth: int) -> list[int]:
    """So many centres without which the error would grow least, and no two that are neighbours."""
    centres = clusters.centres
    use = np.bincount(
        clusters.labels, (clusters.away[1] - clusters.away[0]) * weights, len(centres)
    )
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


def clusters(rows: Any, weights: Any, count: int, method: str, random: Random) -> NDArray[np.int64]:
    """The labels (n,) of so many clusters of ``rows`` (n, D), by a ``method`` of ``METHODS``."""
    rows = np.ascontiguousarray(rows, np.float32)
    weights = (weights / weights.max()).astype(np.float32)  # of any size in double precision
    centres = _first_centres(rows, weights, count, random)
    sizes = (rows * rows).sum(axis=1)
    return METHODS[method](rows, weights, sizes, centres, random).labels


def _first_centres(rows: Single, weights: Single, count: int, random: Random) -> Single:
    """Centres (K, D) by k-means++ (Arthur and Vassilvitskii, 2007), of rows in any order."""
    if len(rows) * count > SEEDING:
        some = max(SEEDING // count, SEEDS * count)
        # In double precision: of single precision each distance is made in small parts.
        rows, weights = rows[:some].astype(np.float64), weights[:some]
    centres, _ = cluster.kmeans_plusplus(rows, count, sample_weight=weights, random_state=random)
    return np.asarray(centres, np.float32)


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
