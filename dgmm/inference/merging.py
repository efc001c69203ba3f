"""Which components belong together: groups of them, by one criterion or another.

By the entropy of the labels of rows: label_entropy.py.  Without rows, from weights, means and
covariances, where a group stands for the normal distribution of its weight w, mean and covariance
S, which has the spread of the means in it:

Runnalls (Kullback-Leibler approach to Gaussian mixture reduction, 2007) joins the pair with the
least

    1/2 [(w_A + w_B) log |S| - w_A log |S_A| - w_B log |S_B|]

Along the tree these add up to the sum of w_k KL(N_k | N_A(k)), A(k) the group of component k, and
that is, by the log-sum inequality, an upper bound of the relative entropy of the whole mixture from
the mixture of the groups.  Hennig (Methods for merging Gaussian mixture components, 2010) joins the
pair with the least Bhattacharyya distance.

Noise is of no group.  A component of no weight is joined to the heaviest one first, at no cost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.inference.groups import Cost, Group, Tree, grown
from dgmm.inference.label_entropy import by_entropy
from dgmm.kernels.complete import NOTHING
from dgmm.kernels.outputs import OUTPUTS, Output, RowOutputs, as_they_are, one_number
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import NOISE, Mixture, full_mixture

LEVELS: Final = {
    "entropy": "entropy of the labels",
    "runnalls": "bound of the divergence",
    "bhattacharyya": "distance of the two joined",
}
"""What levels are called, by the criterion."""


@dataclass(frozen=True)
class _Moments:
    """The weights, means and covariances of a mixture's components, and of groups of them."""

    mixture: Mixture

    def of(self, group: Group) -> tuple[float, Array, Array]:
        """The weight, the mean (D,) and the covariance (D, D) of a group."""
        k = sorted(group)
        share, means = self.mixture.weights[k], self.mixture.means[k]
        weight = float(share.sum())
        shares = share / weight if weight > 0 else np.full(len(k), 1.0 / len(k))
        mean = shares @ means
        away = (means - mean) * np.sqrt(shares)[:, None]
        within = np.tensordot(shares, self.mixture.covariances.dense()[k], 1)
        return weight, mean, within + away.T @ away

    def log_det(self, group: Group) -> float:
        """log |S| of a group."""
        return float(np.linalg.slogdet(self.of(group)[2])[1])


def runnalls(mixture: Mixture) -> Cost:
    """What Runnalls's bound of the relative entropy grows by if two groups are joined."""
    moments, known = _Moments(mixture), dict[Group, float]()

    def level(group: Group) -> float:
        if group not in known:
            known[group] = 0.5 * moments.of(group)[0] * moments.log_det(group)
        return known[group]

    return lambda a, b: max(level(a | b) - level(a) - level(b), 0.0)


def bhattacharyya(mixture: Mixture) -> Cost:
    """The Bhattacharyya distance of two groups, each as a normal distribution."""
    moments, known = _Moments(mixture), dict[Group, tuple[Array, Array, float]]()

    def seen(group: Group) -> tuple[Array, Array, float]:
        if group not in known:
            _, mean, covariance = moments.of(group)
            known[group] = mean, covariance, float(np.linalg.slogdet(covariance)[1])
        return known[group]

    def cost(a: Group, b: Group) -> float:
        (mean, s, own), (other, t, theirs) = seen(a), seen(b)
        away, middle = mean - other, 0.5 * (s + t)
        apart = float(away @ np.linalg.solve(middle, away)) / 8
        return max(apart + 0.5 * float(np.linalg.slogdet(middle)[1]) - 0.25 * (own + theirs), 0.0)

    return cost


def elbow(levels: Array) -> int:
    """Where two lines, fitted to the left and the right of a number of groups, meet best.

    Both have that number.  The ``levels`` (K,) are of 1, 2, ... K groups.
    """
    count = len(levels)
    if count < 3:
        return count
    places = np.arange(1, count + 1, dtype=np.float64)

    def squares(part: slice) -> float:
        line = np.polynomial.polynomial.polyfit(places[part], levels[part], 1)
        return float(
            np.sum((levels[part] - np.polynomial.polynomial.polyval(places[part], line)) ** 2)
        )

    totals = [squares(slice(0, c)) + squares(slice(c - 1, count)) for c in range(2, count)]
    return 2 + int(np.argmin(totals))


OVERLAP: Final = 0.1
"""Groups whose exp(-distance) is at least this are one, as Hennig has it."""


def overlapping(levels: Array) -> int:
    """How many groups are left where those that overlap are joined, of distances (K,)."""
    apart = np.flatnonzero(np.exp(-levels[:-1]) < OVERLAP)  # joins that made 1, 2, ... groups
    return int(apart.max()) + 2 if len(apart) else 1


CriterionName = Literal["entropy", "runnalls", "bhattacharyya"]
"""By what components can be merged: the entropy, or one of ``WITHOUT_ROWS``."""


@dataclass(frozen=True)
class WithoutRows:
    """A criterion of the mixture alone.

    Attributes
    ----------
    cost : callable
        From a mixture to what joining two of its groups costs.
    levels : callable
        From what the joins cost, 0 for none before, to what is said of K, K - 1, ... 1 groups.
    cut : callable
        From the levels of 1, 2, ... K groups to how many there should be.
    """

    cost: Callable[[Mixture], Cost]
    levels: Callable[[Array], Array]
    cut: Callable[[Array], int]


def _as_they_came(costs: Array) -> Array:
    return costs


WITHOUT_ROWS: Final[Mapping[str, WithoutRows]] = {
    "runnalls": WithoutRows(runnalls, np.cumsum, elbow),
    "bhattacharyya": WithoutRows(bhattacharyya, _as_they_came, overlapping),
}
"""Criteria that need no rows, by name."""


@dataclass(frozen=True, eq=False)
class Merging:
    """A tree of groups of a mixture's K components; ``GaussianMixture.merge`` makes it.

    Parameters
    ----------
    criterion : str
        By what pairs were chosen.
    pairs : array (K - 1, 2) of int
        What was joined, in order: a component by its number, what the m-th join made, from 0, as
        K + m, as ``scipy.cluster.hierarchy`` has it.
    costs : array (K - 1,)
        By "entropy" what each join took from the entropy of the labels, in nats a unit of weight;
        by "runnalls" what it added to the bound of the relative entropy, in nats; by
        "bhattacharyya" how far the two were from each other.
    levels : array (K,)
        Of 1, 2, ... K groups: the entropy of their labels; the bound; or how far the two were from
        each other whose join made so many, 0 for K.
    cut : int
        How many groups there should be: by "entropy" and "runnalls" where two lines fit the levels
        best, and by "bhattacharyya" so many as do not overlap (exp(-distance) below 0.1).
    rows : int or None
        How many rows it was found by.

    Examples
    --------
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters(
    ...     [0.3, 0.3, 0.4], [[0.0], [1.0], [9.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
    ... )
    >>> found = model.merge(criterion="bhattacharyya")
    >>> found.pairs.tolist(), found.cut, found.groups().tolist()
    ([[0, 1], [3, 2]], 2, [0, 0, 1])
    """

    criterion: str
    pairs: NDArray[np.intp]
    costs: Array
    levels: Array
    cut: int
    rows: int | None = None

    @classmethod
    def _of(
        cls, criterion: str, tree: Tree, levels: Array, cut: int, rows: int | None = None
    ) -> "Merging":
        pairs = np.array(tree.pairs, np.intp).reshape(-1, 2)
        return cls(criterion, pairs, np.array(tree.costs, np.float64), levels, cut, rows)

    def groups(self, count: int | None = None) -> NDArray[np.intp]:
        """The group of each component.

        Parameters
        ----------
        count : int, optional
            How many groups; by default ``cut``.

        Returns
        -------
        array (K,) of int
            Groups are numbered from 0, in the order of their first components.

        Raises
        ------
        UsageError
            If there can't be so many.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.3, 0.3, 0.4], [[0.0], [1.0], [9.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
        ... )
        >>> model.merge(criterion="runnalls").groups(1).tolist()
        [0, 0, 0]
        """
        components = len(self.levels)
        wanted = self.cut if count is None else count
        if not isinstance(wanted, int | np.integer) or not 1 <= wanted <= components:
            raise UsageError(
                f"{components} components make 1 to {components} groups, not {count!r:.40}"
            )
        members = [[k] for k in range(components)]
        for one, other in self.pairs[: components - wanted].tolist():
            members.append(members[one] + members[other])
            members[one] = members[other] = []
        labels = np.empty(components, np.intp)
        for number, group in enumerate(sorted(each for each in map(sorted, members) if each)):
            labels[group] = number
        return labels


def merge_by_entropy(sweep: Sweep, wanted: RowOutputs) -> Merging:
    """The tree by the entropy of the labels; ``wanted`` gives the responsibilities of rows."""
    tree, levels, rows = by_entropy(sweep, wanted)
    return Merging._of("entropy", tree, levels, elbow(levels), rows)


def merge_without_rows(mixture: Mixture, criterion: str) -> Merging:
    """The tree by a criterion of ``WITHOUT_ROWS``, which takes components for normal ones."""
    if mixture.tails is not None:
        raise UsageError(
            f"criterion={criterion!r} takes components for normal distributions, and these have "
            "heavy tails (tails='student'): merge them by criterion='entropy', with rows"
        )
    way = WITHOUT_ROWS[criterion]
    frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
    tree = grown(Tree.of(mixture.own_weights), way.cost(frame.enter(mixture)), 1.0)
    levels = way.levels(np.array([0.0, *tree.costs]))[::-1]
    return Merging._of(criterion, tree, levels, way.cut(levels))


def reduced(mixture: Mixture, groups: NDArray[np.intp]) -> Mixture:
    """The mixture of the normal distributions that ``groups`` (K,) of components stand for."""
    moments = _Moments(mixture)
    own = [
        moments.of(frozenset(np.flatnonzero(groups == number).tolist()))
        for number in range(int(groups.max()) + 1)
    ]
    weights, means, covariances = (np.array(each) for each in zip(*own, strict=True))
    return full_mixture(weights, means, covariances, mixture.noise_component)


def groups_output(groups: tuple[int, ...]) -> Output:
    """The output that says of each row its most probable group, by the group of each component."""
    return Output("groups", partial(_groups, groups), np.int64, one_number, labels=as_they_are)


def _groups(groups: tuple[int, ...], block: Block, wanted: RowOutputs) -> NDArray[Any]:
    proba: Array = replace(wanted, output=OUTPUTS["proba"])(block)
    count, components = max(groups) + 1, len(groups)
    members = np.eye(count)[list(groups)]
    shares = proba[:, :components] @ members
    labels: NDArray[np.int64] = shares.argmax(axis=1)
    if proba.shape[1] > components:
        labels[proba[:, components] > shares.max(axis=1)] = NOISE
    labels[np.isnan(proba[:, 0])] = NOTHING
    return labels
