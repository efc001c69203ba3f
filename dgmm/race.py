"""Good starts: many candidates on a small sample, of which the likeliest wins.

The candidates are of several kinds, because none is best everywhere: k-means++ seeds with each row
given to the nearest, the same after Lloyd's iterations, and rows drawn at random.  All run EM side
by side, sharing each sweep; after a few iterations the worse half leaves, and so on (emEM of
Biernacki, Celeux and Govaert, 2003, with successive halving).  They are ranked by the mixture's
likelihood, which is what is wanted, not by the squared distances that k-means lowers.

Then the winner is taken apart: two components are merged and a third is split, for a few choices
of three, again side by side and soon with fewer; the best is kept if it is better (Ueda, Nakano,
Ghahramani and Hinton, SMEM algorithm for mixture models, 2000).  What merging two costs is at most
Runnalls' bound (Kullback-Leibler approach to Gaussian mixture reduction, 2007); what splitting one
brings is found by EM with two components on its rows alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.covariance import Array
from dgmm.em import Stop, Walk, m_step
from dgmm.kernel import log_sum_exp
from dgmm.ladder import Rung
from dgmm.mixture import Mixture
from dgmm.seeding import Random, labelled, mixture_of, pieces, seeded
from dgmm.squarem import Squarem
from dgmm.statistics import Statistics

CANDIDATES: Final = ("k-means++", "kmeans", "k-means++", "kmeans", "random_from_data", "kmeans")
HEAT: Final = 6
"""Sweeps before the worse half leaves."""

MERGES: Final = 5
TRIALS: Final = 6
"""How many pairs to think of merging, and how many exchanges to try."""

SOME: Final = 1e-3
"""Rows of a smaller share in a component tell nothing of it."""

TRIAL_SWEEPS: Final = 10
FINALISTS: Final = 2
ROUNDS: Final = 3

SWEEPS: Final = 150
"""How many sweeps of its sample all that makes, about; it may take the time of twice as many."""


def race(rung: Rung, components: int, random: Random) -> Mixture:
    """The likeliest mixture (in the frame) of so many components found on a ``rung``."""
    starts = [
        seeded(rung.sample, rung.setting, components, method, random) for method in CANDIDATES
    ]
    walks = [_walk(rung, start) for start in starts]
    while True:
        walks = sorted(rung.climb(walks, HEAT), key=_objective, reverse=True)
        if len(walks) == 1:
            break
        walks = walks[: len(walks) // 2]
    return _taken_apart(rung, walks[0]) if components > 2 else walks[0].best.mixture


def _walk(rung: Rung, start: Mixture) -> Walk:
    return Squarem.of(rung.setting, start, Stop(1000))


def _objective(walk: Walk) -> float:
    return walk.best.objective


def _taken_apart(rung: Rung, winner: Walk) -> Mixture:
    """The winner after merging and splitting for as long as that helps."""
    for _ in range(ROUNDS):
        mixture = winner.best.mixture
        starts = [_exchanged(rung, mixture, each) for each in _exchanges(rung, mixture)]
        trials = rung.climb([_walk(rung, start) for start in starts], TRIAL_SWEEPS // 2)
        trials = sorted(trials, key=_objective, reverse=True)[:FINALISTS]
        trials = rung.climb(trials, TRIAL_SWEEPS // 2)
        (winner,) = rung.climb([winner], TRIAL_SWEEPS)
        best = max([winner, *trials], key=_objective)
        worth = rung.resolution(mixture) / mixture.components
        if _objective(best) - _objective(winner) < worth:
            break
        winner = best
    return winner.best.mixture


@dataclass(frozen=True)
class _Exchange:
    """Components ``i`` and ``j`` become i, and ``k`` becomes j and k as ``halves`` share its rows.

    ``promise`` is by how much that may raise the objective, at once.
    """

    promise: float
    i: int
    j: int
    k: int
    halves: Mixture


def _exchanges(rung: Rung, mixture: Mixture) -> list[_Exchange]:
    """The most promising exchanges, the best first."""
    live = np.flatnonzero(mixture.weights > 0).tolist()
    cost = _merge_costs(mixture, live)
    merges = sorted(cost, key=lambda pair: cost[pair])[:MERGES]
    found = []
    for k, members in zip(live, _members(rung, mixture, live), strict=True):
        if (halved := _halves(rung, mixture, k, members)) is None:
            continue
        gain, halves = halved
        pairs = [pair for pair in merges if k not in pair]
        found += [_Exchange(gain - cost[i, j], i, j, k, halves) for i, j in pairs]
    return sorted(found, key=lambda each: -each.promise)[:TRIALS]


def _merge_costs(mixture: Mixture, live: list[int]) -> dict[tuple[int, int], float]:
    """Runnalls' bound on what merging costs, for each pair of ``live`` components."""
    dense = mixture.structure.dense(mixture.covariances, mixture.components, mixture.dims)
    weights, means, volumes = mixture.weights, mixture.means, np.linalg.slogdet(dense)[1]
    costs: dict[tuple[int, int], float] = {}
    for at, i in enumerate(live):
        others = live[at + 1 :]
        total = weights[i] + weights[others]
        part, rest = (weights[i] / total)[:, None, None], (weights[others] / total)[:, None, None]
        away = means[i] - means[others]
        spread = part * rest * away[:, :, None] * away[:, None, :]
        merged = np.linalg.slogdet(part * dense[i] + rest * dense[others] + spread)[1]
        each = total * merged - weights[i] * volumes[i] - weights[others] * volumes[others]
        costs |= {(i, j): float(cost) for j, cost in zip(others, each / 2, strict=True)}
    return costs


Members = tuple[NDArray[np.intp], Array]
"""Where the rows of a component stand in the sample (m,), and its shares in them (m,)."""


def _members(rung: Rung, mixture: Mixture, components: list[int]) -> list[Members]:
    """The rows of each of ``components``; few are of many, so this is much less than (K, n)."""
    found: dict[int, list[Members]] = {k: [] for k in components}
    for tile in _tiles(rung, mixture):
        for k in components:
            some = np.flatnonzero(tile.shares[k] > SOME)
            found[k].append((some + tile.chosen.start, tile.shares[k][some]))
    return [
        (np.concatenate([places for places, _ in parts]), np.concatenate([own for _, own in parts]))
        for parts in found.values()
    ]


def _halves(rung: Rung, mixture: Mixture, k: int, members: Members) -> tuple[float, Mixture] | None:
    """Two components in the place of k, and what they add to the objective: EM on its rows.

    None if these can't be told apart.
    """
    dense = mixture.structure.dense(mixture.covariances, mixture.components, mixture.dims)
    axis = np.linalg.eigh(dense[k])[1][:, -1]
    part = rung.part(*members)
    rows = part.sample.rows
    x = part.setting.frame.rows(rows, np.empty(rows.shape[::-1]))
    beyond = axis @ (x - mixture.means[k][:, None]) > 0
    if beyond.all() or not beyond.any():
        return None
    starts = [
        mixture_of(part.sample, part.setting, labelled(labels, count), count)
        for count, labels in ((1, np.zeros(len(rows), int)), (2, beyond.astype(int)))
    ]
    one, two = part.climb([_walk(part, start) for start in starts], TRIAL_SWEEPS)
    gain = part.setting.weight / rung.setting.weight * (_objective(two) - _objective(one))
    return gain, two.best.mixture


@dataclass(frozen=True)
class _Tile:
    """Some rows (D, n) in the frame, where they stand, and responsibilities (K, n)."""

    chosen: slice
    x: Array
    shares: Array


def _tiles(rung: Rung, mixture: Mixture) -> Iterator[_Tile]:
    for chosen in pieces(len(rung.sample.rows), mixture.components):
        rows = rung.sample.rows[chosen]
        x = rung.setting.frame.rows(rows, np.empty(rows.shape[::-1]))
        yield _Tile(chosen, x, _shares(mixture, x))


def _shares(mixture: Mixture, x: Array) -> Array:
    """The responsibilities (K, n) for rows (D, n)."""
    joint = np.stack([mixture.log_joint(k, x) for k in range(mixture.components)])
    return log_sum_exp(joint)[1]


def _exchanged(rung: Rung, mixture: Mixture, exchange: _Exchange) -> Mixture:
    """The mixture after an exchange: the M-step from what its components, so changed, expect."""
    i, j, k = exchange.i, exchange.j, exchange.k
    sums, about = _expected(mixture), mixture.means.copy()
    layout = mixture.structure.centred
    sums[i] += layout.moved(sums[[j]], about[[i]] - about[[j]])[0]
    sums[[j, k]] = mixture.weights[k] * _expected(exchange.halves)
    about[[j, k]] = exchange.halves.means
    statistics = Statistics(sums, about, 0.0, 0.0, 1.0, len(rung.sample.rows))
    return m_step(statistics, rung.setting, mixture).mixture


def _expected(mixture: Mixture) -> Array:
    """The statistics (K, P) that each component expects of its rows, about its own mean."""
    layout, count, dims = mixture.structure.centred, *mixture.means.shape
    dense = mixture.structure.dense(mixture.covariances, count, dims)
    sums = np.zeros((count, layout.width(dims)))
    sums[:, 0] = mixture.weights
    square = np.empty((sums.shape[1] - 1 - dims, dims))
    for k, root in enumerate(np.linalg.cholesky(dense)):
        layout.square(root, square)  # the roots' columns stand for rows
        sums[k, 1 + dims :] = mixture.weights[k] * square.sum(axis=1)
    return sums
