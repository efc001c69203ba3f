"""Groups of rows from which starts begin, of several kinds, where rows are few.

No kind leads to the best optimum everywhere; but each is cheap.  Some are the trees of hierarchical
clustering, cut (as mclust begins: Fraley and Raftery, How many clusters? Which clustering method?,
1998; agglomeration.py), equal parts along the longest axis, and k-means; most are rows given to the
nearest of K seeds, drawn at random or as k-means++ draws them.  Half of each kind see features,
half principal components of spread 1; where features differ much in spread, as they may where one
unit serves all, a third of each kind see features of spread 1.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.agglomeration import agglomerated, group_count
from dgmm.em.clustering import clusters
from dgmm.em.init import Random
from dgmm.model.arrays import ROUNDING, Array
from dgmm.model.lazy import Late

hierarchy, distance = Late("scipy.cluster.hierarchy"), Late("scipy.spatial.distance")

TREE_ROWS: Final = 500
"""How many rows hierarchical clustering sees: its costs grow as their square."""

LINKAGES: Final = ("ward", "average", "complete")
PLAIN: Final = 3
"""With more features than that there are trees by determinants, too (agglomeration.py)."""

KMEANS: Final = 2
"""Runs of k-means on each view of the rows."""

UNEQUAL: Final = 4.0
"""By so much spreads differ where the frame has one unit for all features (model/frame.py)."""

Labels = NDArray[np.int64]
"""The component that each row belongs to, (n,) or of S starts (S, n); -1 for none."""


def labellings(rows: Array, weights: Array, components: int, count: int, random: Random) -> Labels:
    """The labels (S, n) of so many starts of all kinds."""
    views = _views(rows)
    ways = [_parts(views[-1], components)]
    ways += [labels for view in views for labels in _trees(view, components, random)]
    ways += [labels for view in views for labels in _clusters(view, weights, components, random)]
    each = -(-(count - len(ways)) // (2 * len(views)))
    draws = [
        _seeded(view, weights, components, spread, each, random)
        for view in views
        for spread in (False, True)
    ]
    return np.concatenate([np.stack(ways), *draws])[:count]


def _views(rows: Array) -> list[Array]:
    """The rows, and their principal components of variance 1, the longest last.

    Between them, where spreads of features differ, those of spread 1.
    """
    away = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(away.T @ away / len(rows))
    some = values > 1e-8 * values[-1]
    if rows.shape[1] == 1 or not some.any():
        return [rows]
    spread, views = rows.std(axis=0), [rows]
    spread_out = spread > UNEQUAL * ROUNDING * np.abs(rows).max(axis=0)
    if spread_out.any() and np.ptp(np.log(spread[spread_out])) > np.log(UNEQUAL):
        views.append(away[:, spread_out] / spread[spread_out])
    return [*views, away @ (vectors[:, some] / np.sqrt(values[some]))]


def _parts(view: Array, components: int) -> Labels:
    """Labels (n,) by parts of equal size along the last axis of the ``view``."""
    rank = np.empty(len(view), np.int64)
    rank[np.argsort(view[:, -1], kind="stable")] = np.arange(len(view))
    return rank * components // len(view)


def _trees(view: Array, components: int, random: Random) -> Iterator[Labels]:
    """Labels (n,) by trees of rows, each cut at K groups.

    Of many rows, ``TREE_ROWS`` are drawn; the others belong to no group.
    """
    some = np.arange(len(view))
    if len(view) > TREE_ROWS:
        some = np.sort(random.choice(len(view), TREE_ROWS, replace=False))
    distances = distance.pdist(view[some])
    for method in LINKAGES:
        labels = np.full(len(view), -1)
        tree = hierarchy.linkage(distances, method)
        labels[some] = hierarchy.fcluster(tree, components, "maxclust") - 1
        yield labels
    n_features = view.shape[1]
    if n_features > PLAIN:
        labels = np.full(len(view), -1)
        count = group_count(components, n_features)
        tree = hierarchy.linkage(distances, "ward")
        groups = hierarchy.fcluster(tree, count, "maxclust") - 1
        labels[some] = agglomerated(view[some], groups.astype(np.int64), components)
        yield labels


def _clusters(view: Array, weights: Array, components: int, random: Random) -> Iterator[Labels]:
    """Labels (n,) by runs of k-means."""
    for _ in range(KMEANS):
        yield clusters(view, weights, components, "kmeans", random)


def _seeded(
    view: Array, weights: Array, components: int, spread: bool, count: int, random: Random
) -> Labels:
    """Labels (S, n) of the nearest of K seeds, drawn at random, or ``spread`` as by k-means++."""
    starts = np.arange(count)
    labels = np.zeros((count, len(view)), np.int64)
    near = np.ones((count, len(view)))
    size = np.sum(view**2, axis=1)
    for k in range(components):
        sums = np.cumsum((near if spread else 1.0) * weights * np.ones_like(near), axis=1)
        drawn = random.uniform(size=count) * sums[:, -1]
        seeds = np.minimum((sums <= drawn[:, None]).sum(axis=1), len(view) - 1)
        away = np.maximum(size + size[seeds, None] - 2 * view[seeds] @ view.T, 0.0)
        away[starts, seeds] = 0.0
        closer = away < near if k else np.ones_like(away, bool)
        labels[closer], near = k, np.where(closer, away, near)
    return labels
