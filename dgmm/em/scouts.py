"""Starts where rows are few: many of several kinds go on side by side, and the best sound one wins.

The likelihood of a few hundred rows has dozens of optima, and no kind of start leads to the best of
them everywhere; but each is cheap.  So there are hundreds, of several kinds (labellings.py).

**The tournament.**  All run EM, the worse leave, the rest run on, and so on (emEM of Biernacki,
Celeux and Govaert, 2003).  It is for all starts at once (many.py), and rough: all that it is for is
to tell which lead.  Those few begin again where they began, now in double precision, and go to
their ends (finals.py).  So their digits don't depend on what the tournament was run on.

**Noise.**  Where there is a noise component, each start leaves out the most isolated rows: one of
the shares of them that noise may begin with (isolation.py).

**Units.**  Starts see rows exactly standardised, and rounded far above rounding: the same numbers
whatever the units of the features, and so the same start.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.degenerate import ALONE, WORTH, enough_rows
from dgmm.em.finals import best_end, different
from dgmm.em.init import Random, one_thread
from dgmm.em.labellings import Labels, labellings
from dgmm.em.many import FEATURES, SINGULAR, Field, Many, advanced, following, labelled, rounded
from dgmm.em.solver import TIED, RunState, ranked
from dgmm.em.subsamples import Subsample
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

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

FINALISTS: Final = 3
"""How many, of different objectives, go to their ends."""

CAUTION: Final = 4
"""For how many sweeps covariances are drawn together, as in ``init.cautious``."""

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
    finalists = _finalists(field, labels[leading], shares[leading], components)
    return best_end(subsample, finalists), len(leading)


def _finalists(
    field: Field, labels: Labels, shares: Array, components: int
) -> Iterator[list[Mixture]]:
    """Where the ``labels`` (S, n) that lead go to their ends from, a few at a time."""
    for first in range(0, len(labels), FINALISTS):
        some = slice(first, first + FINALISTS)
        with one_thread():
            few = _begun(field, labels[some], shares[some], components, rough=False)
            starts = following(field, advanced(field, few, sum(SWEEPS)))
        yield starts


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
    return half_way[some[best[different(few.objective[best], resolution / 10)]]]


def _begun(field: Field, labels: Labels, shares: Array, components: int, rough: bool) -> Many:
    """The mixtures that ``labels`` (S, n) lead to in the first sweeps."""
    many = labelled(field, labels, components, shares)
    many = advanced(field, many, CAUTION, field.rows.shape[1], rough)
    return advanced(field, many, FIRST_SWEEPS - CAUTION, rough=rough)


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
