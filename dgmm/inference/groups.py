"""Trees of groups of components, made by joining two at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.model.arrays import Array

Group = frozenset[int]
"""Numbers of components."""

Pair = tuple[Group, Group]
Cost = Callable[[Group, Group], float | None]
"""What joining two groups costs, or takes; None if that is not known."""

LEAST: Final = 1e-12
"""A component of less weight has none."""


@dataclass(frozen=True)
class Tree:
    """Groups that are left, and how they were made.

    Attributes
    ----------
    groups : tuple of frozenset
        By their least component.
    numbers : tuple of int
        Of the groups: a component's own, or K + m for what the m-th join made.
    pairs : tuple of (int, int)
        The numbers of what was joined.
    costs : tuple of float
    """

    groups: tuple[Group, ...]
    numbers: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    costs: tuple[float, ...] = ()

    @classmethod
    def of(cls, weights: Array) -> "Tree":
        """The one that nothing was joined in, but components that have none of the ``weights``."""
        count = len(weights)
        tree = cls(tuple(frozenset([k]) for k in range(count)), tuple(range(count)))
        heaviest = int(weights.argmax())
        for k in np.flatnonzero(weights < LEAST).tolist():
            ends = sorted((tree._place(heaviest), tree._place(k)))
            tree = tree.joined(ends[0], ends[1], 0.0)
        return tree

    def _place(self, component: int) -> int:
        return next(i for i, group in enumerate(self.groups) if component in group)

    def joined(self, i: int, j: int, cost: float) -> "Tree":
        """With the groups at ``i`` < ``j`` joined."""
        count = len(self.groups) + len(self.pairs)
        groups, numbers = list(self.groups), list(self.numbers)
        pair = (numbers[i], numbers[j])
        groups[i], numbers[i] = groups[i] | groups[j], count + len(self.pairs)
        del groups[j], numbers[j]
        pairs, costs = (*self.pairs, pair), (*self.costs, cost)
        return Tree(tuple(groups), tuple(numbers), pairs, costs)


def grown(tree: Tree, cost: Cost, sign: float) -> Tree:
    """The tree with the pair of the least ``sign`` times cost joined, until one has no cost."""
    count = len(tree.groups)
    costs = np.full((count, count), np.nan)
    for i in range(count):
        if not _fill(costs, tree.groups, i, cost):
            return tree
    while len(tree.groups) > 1:
        place = int(np.nanargmin(sign * costs))
        i, j = divmod(place, len(costs))
        tree = tree.joined(i, j, float(costs[i, j]))
        costs = np.delete(np.delete(costs, j, axis=0), j, axis=1)
        if len(tree.groups) > 1 and not _fill(costs, tree.groups, i, cost):
            return tree
    return tree


def _fill(costs: Array, groups: tuple[Group, ...], i: int, cost: Cost) -> bool:
    """Write what pairs with the group at ``i`` cost; whether all is known."""
    known = True
    for j in range(len(groups)):
        if j == i:
            continue
        low, high = (i, j) if i < j else (j, i)
        of_pairs = cost(groups[low], groups[high])
        known = known and of_pairs is not None
        costs[low, high] = np.nan if of_pairs is None else of_pairs
    return known
