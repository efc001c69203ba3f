"""Finals of starts where rows are few: those that lead go to their ends, and the best one wins.

A few sweeps don't tell which start leads highest.  So the best few of many (scouts.py,
knockout.py), of different objectives, go to their ends by SQUAREM, in double precision.

**Sound ends.**  Where components collapse onto few rows, or onto rows that are tied, the likelihood
has no bound, and the best of many starts would be the one that found that first.  So an end is
*sound* only if none of its components is empty or singular but for ``reg_covar`` (evaluate.py).
A component of hardly more rows than features can be as thin as one likes without being singular:
the spurious optima that many starts find in rows without any clusters (McLachlan and Peel, Finite
mixture models, 2000, section 3.10).  So an end is *full* only if its components all have more
than twice as many rows as features, or as many as parameters of their own.  Either is worth
``WORTH`` in the objective (degenerate.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dgmm.em.degenerate import WORTH, enough_rows, unbounded
from dgmm.em.solver import RunState, StopRule, ranked
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

ITERATIONS: Final = 300
"""Of a finalist, at most."""

NEAR: Final = 0.01
"""How near its end each goes, in p / (2 n)."""


def best_end(subsample: Subsample, finalists: Iterable[Sequence[Mixture]]) -> RunState:
    """The best end on a ``subsample``; the next of ``finalists`` run if none so far is sound."""
    # Where single precision is left depends on its bound, and that on the units.
    exact = replace(subsample.context, precision="float64")
    ends: list[RunState] = []
    for starts in finalists:
        stop = StopRule(ITERATIONS, target=NEAR * subsample.resolution(starts[0]))
        ends += subsample.refine([Squarem().init(exact, each, stop) for each in starts])
        best = ends[ranked(map(worth, ends))[0]]
        if _is_sound(best) and _is_full(best):
            break
    return best


def different(objectives: Array, apart: float) -> list[int]:
    """The places of objectives (S,) that are not within ``apart`` of an earlier one."""
    kept: list[int] = []
    for place, each in enumerate(objectives):
        if all(abs(each - objectives[other]) > apart for other in kept):
            kept.append(place)
    return kept


def worth(run: RunState) -> float:
    """What runs go by: the objective, and the worth of being sound and full."""
    return run.best.objective + WORTH * (_is_sound(run) + _is_full(run))


def _is_sound(run: RunState) -> bool:
    """Whether a run's end has no component that is empty or has a likelihood without a bound."""
    return not run.best.empty and not unbounded(run.best, run.context)


def _is_full(run: RunState) -> bool:
    """Whether all components of a run have rows enough."""
    best = run.best
    enough = enough_rows(run.context.model.covariance_model, best.mixture.n_features)
    return bool(best.mixture.weights.min() * best.statistics.rows > enough - 0.5)
