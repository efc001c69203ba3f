"""Groups of components by the entropy of the labels.

The method is that of Baudry et al. (Combining mixture components for clustering, 2010).  With
t_A the sum of a row's responsibilities in the components of a group A, joining A and B takes from
the entropy of the labels, -sum_i w_i sum_A t_A log t_A,

    sum_i w_i (h(t_A + t_B) - h(t_A) - h(t_B)),    h(t) = t log t,  h(0) = 0

which is never negative, so the entropy never rises.  The pair that takes the most is joined.

What the next pairs take is another sum over the rows, as t_A of a joined group is.  So a sweep asks
for the first pairs and for all those that would come up if the rows were like draws from the
mixture: then one sweep tells the whole tree, unless the rows choose otherwise; then another goes on
from there.  What is told is exact, whatever was foreseen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.first_pass import check_row_weights
from dgmm.em.sample import uniform
from dgmm.errors import DataError
from dgmm.inference.groups import Cost, Group, Pair, Tree, grown
from dgmm.kernels.observation import COMPLETE, NONE_COUNT
from dgmm.kernels.outputs import RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array

LEAST_SHARE: Final = 1e-20
"""A smaller responsibility is none: it has less than 1e-18 nats of a row's entropy."""

KEPT: Final = 2_000
"""How many rows are kept, or drawn, to foresee the tree by."""

TILE: Final = 1 << 21
"""How many numbers of all groups there are at once."""


@dataclass(frozen=True)
class Query:
    """What a sweep is given: groups of components, and pairs of these, by their places in a list.

    Attributes
    ----------
    wanted : RowOutputs
        The responsibilities of each row.
    members : (G, K) of float
        1 where a component is of a group.
    pairs : (Q, 2)
        In the order of the first.
    """

    wanted: RowOutputs
    members: Array
    pairs: NDArray[np.intp]

    @classmethod
    def of(cls, wanted: RowOutputs, pairs: list[Pair]) -> "Query":
        """The pairs of some groups."""
        groups = {group: None for pair in pairs for group in pair}
        places = {group: i for i, group in enumerate(groups)}
        members = np.zeros((len(groups), wanted.mixture.components))
        for group, i in places.items():
            members[i, list(group)] = 1.0
        pair_places = np.array([[places[a], places[b]] for a, b in pairs], np.intp).reshape(-1, 2)
        return cls(wanted, members, pair_places)


@dataclass(frozen=True)
class Kept:
    """The responsibilities of a sample of the rows: those whose numbers' hashes are the least.

    Attributes
    ----------
    keys : (n,)
        The hashes.
    proba : (n, K)
    weights : (n,)
    """

    keys: Array
    proba: Array
    weights: Array

    def __add__(self, other: "Kept") -> "Kept":
        both = zip(self._parts, other._parts, strict=True)
        return Kept(*(np.concatenate(pair) for pair in both)).smallest()

    @property
    def _parts(self) -> tuple[Array, Array, Array]:
        return self.keys, self.proba, self.weights

    def smallest(self) -> "Kept":
        """At most ``KEPT`` of them."""
        if len(self.keys) <= KEPT:
            return self
        few = np.argpartition(self.keys, KEPT - 1)[:KEPT]
        return Kept(*(each[few] for each in self._parts))


@dataclass(frozen=True)
class Sums:
    """What joining each pair takes, and of how many rows.

    Attributes
    ----------
    taken : (Q,)
    entropy, weight : float
        Of all components' labels, and of all rows.
    rows : int
    kept : Kept
    """

    taken: Array
    entropy: float
    weight: float
    rows: int
    kept: Kept

    def __add__(self, other: "Sums") -> "Sums":
        taken, entropy = self.taken + other.taken, self.entropy + other.entropy
        weight, rows = self.weight + other.weight, self.rows + other.rows
        return Sums(taken, entropy, weight, rows, self.kept + other.kept)


def sums(block: Block, query: Query) -> Sums:
    """What the rows of a block say of pairs."""
    check_row_weights(block)
    groups, components = query.members.shape
    nothing = Kept(np.empty(0), np.empty((0, components)), np.empty(0))
    total = Sums(np.zeros(len(query.pairs)), 0.0, 0.0, 0, nothing)
    size = int(np.clip(TILE // (groups + components), 1024, 1 << 15))
    for start in range(0, len(block.rows), size):
        part = block.part(slice(start, start + size))
        proba = query.wanted(part)
        weights = query.wanted.observation.counted(part).block.weights
        weights = np.ones(len(proba)) if weights is None else weights.astype(np.float64)
        counted = np.flatnonzero((weights > 0) & ~np.isnan(proba[:, 0]))  # else nothing is known
        proba, weights = proba[counted], weights[counted]
        of_components = proba[:, :components]
        entropy = -float((_h(proba).sum(axis=1) * weights).sum())
        keys = uniform(part.start + counted, seed=0)
        kept = Kept(keys, of_components, weights).smallest()
        taken = _taken(of_components, weights, query)
        total += Sums(taken, entropy, float(weights.sum()), len(weights), kept)
    return total


def _taken(proba: Array, weights: Array, query: Query) -> Array:
    """What joining each pair takes (Q,), by responsibilities (n, K) of rows with weights (n,)."""
    shares = _Shares.of(query.members @ proba.T, weights)
    return np.array([shares.taken(a, b) for a, b in query.pairs.tolist()])


@dataclass(frozen=True)
class _Shares:
    """The shares (G, n) of groups in rows with weights (n,), their logarithms; who has some."""

    shares: Array
    logs: Array
    some: NDArray[np.bool_]
    weights: Array

    @classmethod
    def of(cls, shares: Array, weights: Array) -> "_Shares":
        some = shares > LEAST_SHARE
        return cls(shares, np.log(np.where(some, shares, 1.0)), some, weights)

    def taken(self, a: int, b: int) -> float:
        """What joining two groups takes, by the rows that both have a share in."""
        both = np.flatnonzero(self.some[a] & self.some[b])
        if not len(both):
            return 0.0
        one, other = self.shares[a, both], self.shares[b, both]
        log = np.log(one + other)  # no difference of near numbers cancels below
        gained = one * (log - self.logs[a, both]) + other * (log - self.logs[b, both])
        return float(gained @ self.weights[both])


def _h(t: Array) -> Array:
    entropies: Array = t * np.log(np.where(t > LEAST_SHARE, t, 1.0))
    return entropies


def by_entropy(sweep: Sweep, wanted: RowOutputs) -> tuple[Tree, Array, int]:
    """The tree by entropy, the entropy (K,) of 1, 2, ... K groups a unit of weight, and the rows.

    ``wanted`` gives the responsibilities of rows.
    """
    tree = start = Tree.of(wanted.mixture.weights)
    known: dict[Pair, float] = {}
    foreseen = _drawn(wanted)
    while True:
        pairs = _coming_up(tree, known, foreseen)
        swept = sweep(sums, Query.of(wanted, pairs))
        if swept.weight == 0:
            raise DataError(NONE_COUNT.format("merge by"))
        known |= dict(zip(pairs, (swept.taken / swept.weight).tolist(), strict=True))
        tree = grown(start, _looked_up(known), -1.0)
        if len(tree.groups) == 1:
            break
        rough = _by_sample(swept.kept.proba, swept.kept.weights)
        foreseen = _sharpened(rough, known, wanted.mixture.components)
    noisy = wanted.mixture.noise_component is not None  # else one group has no entropy at all
    last = max(swept.entropy / swept.weight - sum(tree.costs), 0.0) if noisy else 0.0
    return tree, np.cumsum([last, *reversed(tree.costs)]), swept.rows


def _coming_up(tree: Tree, known: Mapping[Pair, float], foreseen: Cost) -> list[Pair]:
    """Pairs that come up from ``tree`` on, if those that are not known are as foreseen."""
    query: dict[Pair, None] = {}

    def cost(a: Group, b: Group) -> float | None:
        if (a, b) in known:
            return known[a, b]
        query[a, b] = None
        return foreseen(a, b)

    grown(tree, cost, -1.0)
    return sorted(query, key=lambda pair: (sorted(pair[0]), sorted(pair[1])))


def _drawn(wanted: RowOutputs) -> Cost:
    """What pairs take from the entropy of rows that are drawn from the mixture."""
    mixture = wanted.mixture
    rows, _ = mixture.sample(KEPT, np.random.default_rng(0))
    proba = replace(wanted, observation=COMPLETE)(Block(0, rows))
    return _by_sample(proba[:, : mixture.components], np.ones(len(proba)))


def _by_sample(proba: Array, weights: Array) -> Cost:
    """What pairs take from the entropy of a sample of rows, by their responsibilities (n, K)."""
    weights = weights / weights.sum()
    known: dict[Group, tuple[Array, Array, NDArray[np.bool_]]] = {}

    def of(group: Group) -> tuple[Array, Array, NDArray[np.bool_]]:
        if group not in known:
            shares = _Shares.of(proba[:, sorted(group)].sum(axis=1)[None], weights)
            known[group] = shares.shares[0], shares.logs[0], shares.some[0]
        return known[group]

    def cost(a: Group, b: Group) -> float:
        shares, logs, some = (np.array(pair) for pair in zip(of(a), of(b), strict=True))
        return _Shares(shares, logs, some, weights).taken(0, 1)

    return cost


def _looked_up(known: Mapping[Pair, float]) -> Cost:
    return lambda a, b: known.get((a, b))


def _sharpened(rough: Cost, known: Mapping[Pair, float], components: int) -> Cost:
    """A ``rough`` cost times what is known of the pairs of components, by what is rough of these.

    Where no row has more than two components, what groups take is the sum over pairs of components.
    """
    exact, estimated = np.zeros((2, components, components))
    for (a, b), taken in known.items():
        if len(a) == len(b) == 1:
            i, j = *a, *b
            exact[i, j] = exact[j, i] = taken
            estimated[i, j] = estimated[j, i] = rough(a, b)

    def cost(a: Group, b: Group) -> float:
        places = np.ix_(sorted(a), sorted(b))
        whole, part = float(exact[places].sum()), float(estimated[places].sum())
        return whole * (rough(a, b) or 0.0) / part if part > 0 else whole

    return cost
