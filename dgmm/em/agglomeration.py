"""Groups of rows merged by turns, by what normal distributions say: starts where rows are few.

Of two groups those are merged that cost the likelihood least when each group has a covariance of
its own: sum_k n_k log |W_k / n_k|, with W_k the scatter of a group (Fraley, Algorithms for
model-based Gaussian hierarchical clustering, 1998).  That of few rows has no determinant; so an
even spread is added, of the group's own mean variance and of that of all rows, which counts for
less the more rows a group has.  mclust begins so.

Such trees find clusters that are long, or lie across each other, which Ward's, of round ones, cut.
Ward's makes the first groups here: one for each row would cost the square of their number.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array

GROUPS: Final = 40
WIDE: Final = 16
"""So many groups are merged; fewer where there are more features than that."""

Labels = NDArray[np.int64]


def group_count(components: int, n_features: int) -> int:
    """How many groups are merged: their determinants cost the third power of the features."""
    most = GROUPS * (WIDE / max(WIDE, n_features)) ** 1.5
    return max(int(most), 4 * components)


@dataclass(frozen=True)
class _Groups:
    """The number of rows (m,), the means (m, D) and the scatters (m, D, D) of groups."""

    counts: Array
    means: Array
    scatters: Array

    @classmethod
    def of(cls, rows: Array, labels: Labels) -> Self:
        members = [rows[labels == k] for k in range(labels.max() + 1)]
        means = np.array([each.mean(axis=0) for each in members])
        away = [each - mean for each, mean in zip(members, means, strict=True)]
        return cls(
            np.array([float(len(each)) for each in members]),
            means,
            np.array([each.T @ each for each in away]),
        )

    def merged(self, one: int | NDArray[np.intp], others: NDArray[np.intp]) -> "_Groups":
        """The group ``one`` with each of ``others``; or each of several with its own."""
        counts = self.counts[others] + self.counts[one]
        away = self.means[others] - self.means[one]
        beside = self.counts[others] * self.counts[one] / counts
        across = beside[:, None, None] * away[:, :, None] * away[:, None, :]
        scatters = self.scatters[others] + self.scatters[one] + across
        means = self.means[one] + away * (self.counts[others] / counts)[:, None]
        return _Groups(counts, means, scatters)

    def levels(self, spread: float) -> Array:
        """n log |W / n|, (m,), with an even spread added; ``spread`` is that of all rows."""
        n_features = self.means.shape[1]
        traces = np.trace(self.scatters, axis1=1, axis2=2)
        even = (traces + spread) / (self.counts * n_features)
        inner = self.scatters / self.counts[:, None, None]
        inner = inner + even[:, None, None] * np.eye(n_features)
        levels: Array = self.counts * np.linalg.slogdet(inner)[1]
        return levels


def agglomerated(rows: Array, labels: Labels, components: int) -> Labels:
    """The groups of ``rows`` (n, D) that ``labels`` (n,) name, merged until so many are left."""
    groups = _Groups.of(rows, labels)
    spread = float(rows.var(axis=0).mean()) or 1.0  # rows that are all the same have none
    count, levels = len(groups.counts), groups.levels(spread)
    costs, of = np.full((count, count), np.inf), np.arange(count)
    alive = np.ones(count, bool)

    def fill(one: int | NDArray[np.intp], others: NDArray[np.intp]) -> None:
        """What it costs to merge ``one`` with each of ``others``, or several each with its own."""
        lost = groups.merged(one, others).levels(spread) - levels[others] - levels[one]
        costs[one, others] = costs[others, one] = lost

    fill(*np.tril_indices(count, -1))
    for _ in range(count - components):
        one, other = divmod(int(costs.argmin()), count)
        whole = groups.merged(one, np.array([other]))
        for name in ("counts", "means", "scatters"):
            getattr(groups, name)[one] = getattr(whole, name)[0]
        levels[one] = whole.levels(spread)[0]
        of[of == other], alive[other] = one, False
        costs[other] = costs[:, other] = np.inf
        others = np.flatnonzero(alive)
        fill(one, others[others != one])
    return np.unique(of[labels], return_inverse=True)[1].astype(np.int64)
