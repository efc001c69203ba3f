"""Split and merge: taking a mixture apart where its components are not well placed.

Two components are merged and a third is split, for a few choices of three, and for many such
moves at once; the trials run side by side and soon with fewer, and the best is kept if it is
better (Ueda, Nakano, Ghahramani and Hinton, SMEM algorithm for mixture models, 2000).  What merging
two costs is at most Runnalls' bound (Kullback-Leibler approach to Gaussian mixture reduction,
2007).  ``splits`` has what splitting one brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.race import ROUGH, objective
from dgmm.em.solver import STEP, RunState, ranked
from dgmm.em.splits import Halves, Split, splits_of
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.model.arrays import Array
from dgmm.model.features import Features
from dgmm.model.mixture import Mixture
from dgmm.model.sharing import shared_out
from dgmm.model.statistics import Statistics

TRIALS: Final = 6
"""How many ways to take a mixture apart are tried in a round."""

MANY: Final = 128
"""Of so many components and more, there is one round of ``FEW_TRIALS``: work grows with K."""

FEW_TRIALS: Final = 4
ROUNDS: Final = 4

NEIGHBOURS: Final = 32
"""Of so many, only that many others are candidates for merging with a component."""

SPLITS: Final = 8
MERGES: Final = 5
"""How many components to think of splitting, and how many pairs of merging, one at a time."""

TWICE: Final = 2
"""Trials of one move that split the same component, at most."""

SHORT: Final = 5
LONG: Final = 8
"""Sweeps of all trials, and of the best ``FINALISTS`` and the mixture itself."""

FINALISTS: Final = 2

SWEEPS: Final = SHORT * TRIALS + LONG * (FINALISTS + 1)
"""How many sweeps of its sample a round makes."""


def taken_apart(subsample: Subsample, run: RunState) -> tuple[RunState, int]:
    """The run after splitting and merging for as long as that helps, and how many rounds did."""
    rounds, trials = effort(run.best.mixture.components)
    for helped in range(rounds):
        if subsample.cost.deadline.passed:
            return run, helped
        mixture = run.best.mixture
        starts = moved_mixtures(subsample, mixture, candidates(subsample, mixture, trials))
        if not starts:
            return run, helped
        runs = [Squarem().init(subsample.context, start, ROUGH) for start in starts]
        runs = subsample.refine(runs, SHORT)
        runs = [runs[place] for place in ranked(map(objective, runs))[:FINALISTS]]
        *runs, run = subsample.refine([*runs, run], LONG)
        best = runs[ranked(map(objective, runs))[0]]
        worth = subsample.resolution(mixture) / mixture.components
        if objective(best) - objective(run) < worth:
            return run, helped
        run = best
    return run, rounds


def effort(components: int) -> tuple[int, int]:
    """How many rounds there are at most of so many components, and how many trials in each."""
    return (1, FEW_TRIALS) if components >= MANY else (ROUNDS, TRIALS)


@dataclass(frozen=True)
class Move:
    """Components ``i`` and ``j`` become i, and ``k`` becomes j and k as ``halves``.

    ``expected_gain`` is by how much that may raise the objective, at once.
    """

    expected_gain: float
    i: int
    j: int
    k: int
    halves: Halves


def candidates(subsample: Subsample, mixture: Mixture, trials: int) -> list[list[Move]]:
    """The most promising ways to take a ``mixture`` apart, each of one move or of several."""
    live = np.flatnonzero(mixture.weights > 0)
    if len(live) < 3:
        return []
    merges = merge_costs(mixture, live)
    splits = sorted(splits_of(subsample, mixture, live), key=lambda split: -split[0])
    several = _together(merges, splits, max(1, mixture.components // 3))
    moves = [several] if len(several) > 1 else []
    if len(several) > 3:
        moves.append(several[: len(several) // 2])
    single = [
        Move(gain - cost, i, j, k, halves)
        for gain, k, halves in splits[:SPLITS]
        for cost, i, j in merges[:MERGES]
        if k not in (i, j)
    ]
    used: dict[int, int] = {}
    for each in sorted(single, key=lambda each: -each.expected_gain):
        used[each.k] = used.get(each.k, 0) + 1
        if used[each.k] <= TWICE:
            moves.append([each])
    return moves[:trials]


Merge = tuple[float, int, int]


def _together(merges: list[Merge], splits: list[Split], most: int) -> list[Move]:
    """Moves that promise something, with no component in two of them."""
    used: set[int] = set()
    moves: list[Move] = []
    for gain, k, halves in splits:
        if len(moves) == most or k in used:
            continue
        free = (m for m in merges if k not in m[1:] and not used.intersection(m[1:]))
        cost, i, j = next(free, (np.inf, 0, 0))
        if gain > cost:
            moves.append(Move(gain - cost, i, j, k, halves))
            used |= {i, j, k}
    return moves


def merge_costs(mixture: Mixture, live: NDArray[np.intp]) -> list[Merge]:
    """Runnalls' bound on what merging two ``live`` components costs, the cheapest first.

    Of ``MANY`` components and more, each is seen with those few alone that are nearest, as it
    measures distances, or light: there are too many pairs, and most are far apart.
    """
    dense = mixture.covariances.dense()
    weights, means, volumes = mixture.weights, mixture.means, np.linalg.slogdet(dense)[1]
    costs: list[Merge] = []
    for at, i in enumerate(live.tolist()):
        others = live[at + 1 :]
        if len(live) >= MANY and len(others) > NEIGHBOURS:
            away = mixture.means[others] - mixture.means[i]
            white = mixture.covariances.whiten(i, away.T)
            far = (white * white).sum(axis=0) * weights[others] / (weights[i] + weights[others])
            others = others[np.argsort(far, kind="stable")[:NEIGHBOURS]]
        total = weights[i] + weights[others]
        part, rest = (weights[i] / total)[:, None, None], (weights[others] / total)[:, None, None]
        away = means[i] - means[others]
        spread = part * rest * away[:, :, None] * away[:, None, :]
        merged = np.linalg.slogdet(part * dense[i] + rest * dense[others] + spread)[1]
        cost = total * merged - weights[i] * volumes[i] - weights[others] * volumes[others]
        costs += zip((cost / 2).tolist(), [i] * len(others), others.tolist(), strict=True)
    return sorted(costs)


def moved_mixtures(
    subsample: Subsample, mixture: Mixture, candidates: Sequence[list[Move]]
) -> list[Mixture]:
    """The mixture after each of ``candidates``, which are moves.

    It is the M-step from what its components, so changed, expect.
    """
    if not candidates:
        return []
    features = mixture.covariance_model.centred_features
    expected = _expected(features, mixture.weights, mixture.covariances.dense())
    numbers = STEP * len(candidates) * mixture.free_parameters * mixture.n_features
    return shared_out(
        lambda moves: _moved(subsample, mixture, features, expected, moves), candidates, numbers
    )


def _moved(
    subsample: Subsample, mixture: Mixture, features: Features, expected: Array, moves: list[Move]
) -> Mixture:
    """The mixture, whose components have ``expected`` sums (K, P), after ``moves``."""
    sums, center = expected.copy(), mixture.means.copy()
    for each in moves:
        i, j, k = each.i, each.j, each.k
        sums[i] += features.shifted(sums[[j]], center[[i]] - center[[j]])[0]
        weights = mixture.weights[k] * each.halves.weights
        sums[[j, k]] = _expected(features, weights, each.halves.covariances)
        center[[j, k]] = each.halves.means
    if mixture.noise_component is not None:  # it stays as it is
        sums, center = (np.vstack([each, np.zeros_like(each[:1])]) for each in (sums, center))
        sums[-1, 0] = mixture.noise_component.weight
    statistics = Statistics(sums, center, 0.0, 0.0, 1.0, len(subsample.sample.rows))
    moved = subsample.context.m_step_of(statistics, mixture).mixture
    return replace(moved, tails=mixture.tails)


def _expected(features: Features, weights: Array, dense: Array) -> Array:
    """The sums (K, P) that components of ``dense`` covariances expect, about their own means."""
    count, n_features = dense.shape[:2]
    sums = np.zeros((count, features.width(n_features)))
    sums[:, 0] = weights
    square = np.empty((sums.shape[1] - 1 - n_features, n_features))
    values, axes = np.linalg.eigh(dense)  # Cholesky's may fail where a component is singular
    for k, root in enumerate(axes * np.sqrt(np.maximum(values, 0.0))[:, None, :]):
        features.square(root, square)  # the roots' columns stand for rows
        sums[k, 1 + n_features :] = weights[k] * square.sum(axis=1)
    return sums
