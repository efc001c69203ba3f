"""Starts where rows are few: many of several kinds go on side by side, and the best sound one wins.

The likelihood of a few hundred rows has dozens of optima, and no kind of start leads to the best of
them everywhere; but each is cheap.  So there are hundreds, of several kinds (labellings.py).

**The tournament.**  All run EM, the worse leave, the rest run on, and so on (emEM of Biernacki,
Celeux and Govaert, 2003).  It is for all starts at once (many.py), and rough: all that it is for is
to tell which lead.  Those few begin again where they began, now in double precision, and go to
their ends by SQUAREM.  So their digits don't depend on what the tournament was run on.

**Sound ends.**  Where components collapse onto few rows, or onto rows that are tied, the likelihood
has no bound, and the best of many starts would be the one that found that first.  So an end is
*sound* only if none of its components is empty or singular but for ``reg_covar`` (evaluate.py).
A component of hardly more rows than features can be as thin as one likes without being singular:
the spurious optima that many starts find in rows without any clusters (McLachlan and Peel, Finite
mixture models, 2000, section 3.10).  So an end is *full* only if its components all have more
than twice as many rows as features, or as many as parameters of their own.  Either is worth
``WORTH`` in the objective (degenerate.py).

**Noise.**  Where there is a noise component, each start leaves out the most isolated rows: one of
the shares of them that noise may begin with (isolation.py).

**Units.**  Starts see rows exactly standardised, and rounded far above rounding: the same numbers
whatever the units of the features, and so the same start.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.degenerate import ALONE, WORTH, enough_rows, unbounded
from dgmm.em.init import Random, one_thread
from dgmm.em.labellings import Labels, labellings
from dgmm.em.many import FEATURES, SINGULAR, Field, Many, advanced, following, labelled, rounded
from dgmm.em.solver import TIED, RunState, StopRule, ranked
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.model.arrays import Array

STARTS: Final = 256
"""How many starts there are at most, unless more are asked for."""

EACH: Final = 64
"""How many there are for each component but the first, where they are cheap."""

LEAST: Final = 24
"""How many there must be: with fewer, a race on a sample is the better use of the time.

Eleven at most are not drawn."""

WORK: Final = 5e7
"""How many densities of about ten features all may cost: a third of a second."""

FIRST_SWEEPS: Final = 12
SWEEPS: Final = (40, 120)
"""Of all; then of the best quarter, and of ``FEW``."""

FEW: Final = 8

ITERATIONS: Final = 300
"""Of a finalist, at most."""

FINALISTS: Final = 3
"""How many, of different objectives, go to their ends."""

CAUTION: Final = 4
"""For how many sweeps covariances are drawn together, as in ``seeding.cautious``."""

FAR: Final = 1e12
"""Rows farther out, in standard deviations, have squares that single precision can't hold beside
the smallest variance."""

ALIKE: Final = 1e-3
"""Rough objectives nearer than this part of the resolution are as good: rounding, which is another
on another machine, must not choose."""

LOST: Final = 1e-6
"""Components of fewer rows are empty."""


def affordable(components: int, rows: int, n_features: int) -> int:
    """How many starts so many rows are cheap enough for; 0 if for too few to be of use."""
    if components == 1:
        return 0
    sweep = components * (rows * (FEATURES.width(n_features) + 16) / 32 + 2 * n_features**3)
    count = int((WORK / sweep - SWEEPS[1] * FEW) / (FIRST_SWEEPS + SWEEPS[0] / 4))
    return min(count, STARTS, EACH * (components - 1)) if count >= LEAST else 0


def scouted(
    subsample: Subsample, components: int, count: int, random: Random
) -> tuple[RunState, int]:
    """The best end of so many starts on a ``subsample``, and how many different ones were met."""
    with one_thread():
        field = Field.of(subsample)
        labels, shares = field.without_isolated(
            labellings(field.rows, field.weights, components, count, random)
        )
        leading = _leading(field, labels, shares, components)
    stop = StopRule(ITERATIONS, target=field.resolution(components) / 100)
    # Where single precision is left depends on its bound, and that on the units.
    exact = replace(subsample.context, precision="float64")
    ends: list[RunState] = []
    for first in range(0, len(leading), FINALISTS):  # more than the first few if none is sound
        some = leading[first : first + FINALISTS]
        with one_thread():
            few = _begun(field, labels[some], shares[some], components, rough=False)
            starts = following(field, advanced(field, few, sum(SWEEPS)))
        ends += subsample.refine([Squarem().init(exact, start, stop) for start in starts])
        best = ends[ranked(_worth(field, run) for run in ends)[0]]
        if _is_sound(best) and _are_full(field, best.best.mixture.weights):
            break
    return best, len(leading)


def _leading(field: Field, labels: Labels, shares: Array, components: int) -> NDArray[np.intp]:
    """Which of the ``labels`` (S, n) lead to the best optima, one for each, the best first.

    That is all that is asked here, so EM may be rough.
    """
    resolution = field.resolution(components)
    rough, apart = bool(np.abs(field.rows).max() < FAR), ALIKE * resolution
    many = _begun(field, labels, shares, components, rough)
    half_way = _ranked(field, many, apart)[: len(labels) // 4]
    many = advanced(field, many.at(half_way), SWEEPS[0], rough=rough)
    order = _ranked(field, many, apart)
    for first in range(0, len(order), FEW):  # the next few, if none of these is sound and full
        some = order[first : first + FEW]
        few = advanced(field, many.at(some), SWEEPS[1], rough=rough)
        if (_are_sound(field, few) & _are_full(field, few.weights)).any():
            break
    best = _ranked(field, few, apart)
    different = best[_different(few.objective[best], resolution / 10)]
    return half_way[some[different]]


def _begun(field: Field, labels: Labels, shares: Array, components: int, rough: bool) -> Many:
    """The mixtures that ``labels`` (S, n) lead to in the first sweeps."""
    many = labelled(field, labels, components, shares)
    many = advanced(field, many, CAUTION, field.rows.shape[1], rough)
    return advanced(field, many, FIRST_SWEEPS - CAUTION, rough=rough)


def _is_sound(run: RunState) -> bool:
    """Whether a run's end has no component that is empty or has a likelihood without a bound."""
    return not run.best.empty and not unbounded(run.best, run.context)


def _worth(field: Field, run: RunState) -> float:
    """What runs go by at their ends: the objective, and the worth of being sound and full."""
    full = bool(_are_full(field, run.best.mixture.weights))
    return run.best.objective + WORTH * (_is_sound(run) + full)


def _ranked(field: Field, many: Many, apart: float = TIED) -> NDArray[np.intp]:
    """The places of the best first: by their objectives, and what it is worth to be sound."""
    worth = WORTH * (_are_sound(field, many) + _are_full(field, many.weights).astype(np.float64))
    return np.array(ranked((many.objective + worth).tolist(), apart))


def _are_full(field: Field, weights: Array) -> NDArray[np.bool_]:
    """Whether all components, by their ``weights`` (..., K), have rows enough."""
    enough = enough_rows(field.covariance_model, field.rows.shape[1])
    full: NDArray[np.bool_] = weights.min(axis=-1) * len(field.rows) > enough - 0.5
    return full


def _are_sound(field: Field, many: Many) -> NDArray[np.bool_]:
    """Which of ``many`` have no component that is empty or singular, (S,)."""
    spread = many.covariances - ALONE * np.diag(field.reg)
    bare = np.linalg.eigvalsh(spread + 2 * field.flat)[:, :, 0]
    sound = (bare > SINGULAR * rounded(many)).all(axis=1)
    kept: NDArray[np.bool_] = sound & (many.weights.min(axis=1) * len(field.rows) > LOST)
    return kept


def _different(objectives: Array, apart: float) -> list[int]:
    """The places of objectives (S,) that are not within ``apart`` of an earlier one."""
    kept: list[int] = []
    for place, each in enumerate(objectives):
        if all(abs(each - objectives[other]) > apart for other in kept):
            kept.append(place)
    return kept
