"""The whole run, from the first sweep to the last, as a generator of progress.

::

    first pass -> errors at the door -> candidates -> their runs -> sweeps and choices -> end

A fit is a selection with one candidate.  Every candidate goes its own way, and all share each
sweep: the rows are read and decompressed once for all, whatever there is to compute on them.  The
generator yields after every sweep.  Its consumer shows progress, saves, stops, and takes the best
run of the last progress.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.random import RandomState

from dgmm.em.columns import UNKNOWN, Columns
from dgmm.em.cost import Cost, Tell, silent
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.fit_context import FitContext, frame_of
from dgmm.em.holdout import Counted
from dgmm.em.init import representative, sample_seed
from dgmm.em.moments import DataMoments
from dgmm.em.progress import Candidate, Progress, Stopped, all_begun
from dgmm.em.selection import Choice
from dgmm.em.solver import advanced, kept
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Elsewhere, InMemorySweep, Samples
from dgmm.errors import DataError
from dgmm.kernels.sweep import Sweep
from dgmm.model.arrays import Array

WEIGHTS: Final = (1e-200, 1e200)
"""Between which the sum of all weights must be, so that sums of squares don't overflow."""

SMALLEST: Final = np.finfo(np.float64).tiny / np.finfo(np.float64).eps
"""The smallest variance whose digits doubles hold."""


def fit(
    sweep: Sweep,
    specs: Sequence[FitSpec],
    first_pass_spec: FirstPassSpec,
    in_memory_sweep: InMemorySweep,
    choice: Choice,
    stopped: Stopped | None = None,
    tell: Tell = silent,
    elsewhere: Elsewhere | None = None,
    columns: Columns = UNKNOWN,
) -> Iterator[Progress]:
    """Fit what ``specs`` ask for, and make the ``choice``; yields after every sweep.

    ``first_pass_spec`` is the largest that any of the ``specs`` needs.  ``in_memory_sweep`` sweeps
    over rows in memory.  ``tell`` is called with what is done on samples, for as long as that
    takes; the machines ``elsewhere`` help with it.  A fit that ``stopped`` before goes on from
    there: it yields that progress first, without a sweep.  Once the deadline of the first of the
    ``specs`` has passed, the fit ends with what it has, when the choice can be made.  ``columns``
    says what is known of the features.

    Raises ``DataError`` after the first sweep if the rows can't be used.
    """
    counted = Counted(sweep, choice.held, first_pass_spec.seed)
    moments = counted(first_pass, first_pass_spec) if stopped is None else stopped.moments
    check(moments, specs, columns)
    cost = Cost(deadline=specs[0].deadline, tell=tell)
    sample = representative(moments, specs[0].kernel)
    samples = Samples(sample, moments.weighted, in_memory_sweep, cost, elsewhere)
    entrants = _entrants(moments, specs)
    at = _begun(moments, entrants) if stopped is None else _resumed(stopped, entrants, samples)
    counted.passes, cost.densities, before = at.passes, at.densities, at.rounds
    yield at
    if not at.candidates:
        with cost.timed():
            at = replace(at, candidates=_started(entrants, moments, samples, choice))
    while at.due or at.rounds == before or not cost.deadline.passed:
        if not at.due and not at.running:
            tried = choice.again(at.candidates, moments, samples, first_pass_spec.seed)
            at = replace(at, candidates=tried)
            if not at.running:
                break
        at = replace(
            _swept(counted, choice, at),
            passes=counted.passes,
            densities=cost.densities,
            resumed=False,
            seeking=False,
            seconds_on_samples=cost.seconds,
            starts_seconds=cost.starts_seconds,
        )
        yield at


def _begun(moments: DataMoments, entrants: Sequence[Candidate]) -> Progress:
    """After the first pass."""
    return Progress(1, moments, seeking=not all(entrant.spec.complete for entrant in entrants))


def _started(
    entrants: Sequence[Candidate], moments: DataMoments, samples: Samples, choice: Choice
) -> tuple[Candidate, ...]:
    """The candidates with their runs, whose starts are found on ``samples``."""
    specs = _with_separate_random([entrant.spec for entrant in entrants])
    return all_begun(entrants, specs, moments, samples, [choice.title(spec) for spec in specs])


def _with_separate_random(specs: Sequence[FitSpec]) -> list[FitSpec]:
    """The ``specs``, each with random numbers that no other draws from."""
    if len({id(spec.random) for spec in specs}) == len(specs):
        return list(specs)
    return [replace(spec, random=RandomState(sample_seed(spec.random))) for spec in specs]


def _resumed(stopped: Stopped, entrants: Sequence[Candidate], samples: Samples) -> Progress:
    """Where a run ``stopped``, with random numbers as they were there."""
    if stopped.passes > 1:
        return replace(stopped.restored(entrants, samples), resumed=True)
    for entrant in entrants:
        entrant.spec.random.set_state(stopped.random.get_state())
    return replace(_begun(stopped.moments, entrants), resumed=True)


def _swept(sweep: Counted, choice: Choice, at: Progress) -> Progress:
    """One sweep further: of all candidates that run, or of the rows they are judged by."""
    weight = at.moments.weight
    if at.due:
        return replace(at, candidates=choice.judged(sweep, at.candidates, weight), due=False)
    candidates, rounds = _advanced(sweep, at.candidates), at.rounds + 1
    due = choice.is_due(rounds, candidates)
    if not choice.measures:
        candidates = choice.judged(sweep, candidates, weight)
    return replace(at, candidates=candidates, rounds=rounds, due=due)


def _advanced(sweep: Sweep, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """All candidates that run, one sweep further."""
    running = [candidate for candidate in candidates if candidate.running]
    runs = iter(advanced(sweep, [run for candidate in running for run in candidate.runs]))
    return tuple(
        replace(candidate, runs=tuple(kept([next(runs) for _ in candidate.runs])))
        if candidate.running
        else candidate
        for candidate in candidates
    )


def _entrants(moments: DataMoments, specs: Sequence[FitSpec]) -> list[Candidate]:
    """The candidates, without runs; those with equal frames share one, and so the rows in it."""
    frames = [frame_of(moments, spec.covariance_model) for spec in specs]
    shared = {frame.scale.tobytes(): frame for frame in reversed(frames)}
    return [
        Candidate(
            spec,
            FitContext.of(
                moments,
                spec.covariance_model,
                spec.reg_covar,
                spec.observation,
                spec.precision,
                shared[frame.scale.tobytes()],
                None if spec.held is None else spec.held.fixed,
                spec.prior,
                spec.components,
                spec.noise,
                spec.tails,
            ),
        )
        for spec, frame in zip(specs, frames, strict=True)
    ]


def check(moments: DataMoments, specs: Sequence[FitSpec], columns: Columns) -> None:
    """Raise ``DataError`` unless what ``specs`` ask for can be fitted to the rows."""
    components = max(spec.components for spec in specs)
    if moments.complaint is not None:
        raise DataError(moments.complaint)
    if moments.left_out and not moments.weight > 0:
        raise DataError(
            f"none of the {moments.rows:,} rows can count: {moments.left_out:,} are incomplete, "
            "and are left out"
        )
    if not moments.weight > 0:
        raise DataError("all weights are zero: there is nothing to fit")
    if not WEIGHTS[0] < moments.weight < WEIGHTS[1]:
        raise DataError(
            f"the weights sum to {moments.weight:.3g}; rescale them, so that sums don't overflow"
        )
    if moments.weighted < components:
        raise DataError(
            f"{moments.weighted} rows have a weight above 0, fewer than the {components} "
            f"components asked for: {too_few(moments.weighted)}"
        )
    if moments.allowed is not None:
        _check_labels(moments.allowed[0], moments.allowed[1], components)
    _check_columns(moments, columns)
    for spec in specs:
        if spec.noise is not None:
            spec.noise.check(moments, columns)


def _check_columns(moments: DataMoments, columns: Columns) -> None:
    """Raise ``DataError`` if there is a column that no fit can have."""
    if not moments.observed.all():
        empty = columns.called(int(moments.observed.argmin()))
        raise DataError(f"{empty} has no value in any row: leave it out")
    if not np.isfinite(moments.variance).all():
        raise DataError("the rows are too large: their sums of squares overflow; rescale them")
    small = (moments.low < moments.high) & (moments.robust_variance < SMALLEST)
    if small.any():
        j = int(small.argmax())
        raise DataError(
            f"the rows are too small: {columns.called(j)} ranges from {moments.low[j]:.3g} to "
            f"{moments.high[j]:.3g}, and squares of that underflow; rescale it, or leave it out"
        )
    size = np.maximum(np.abs(moments.low), np.abs(moments.high))
    columns.check_rounding(size, np.sqrt(moments.robust_variance))


def too_few(rows: int) -> str:
    """What to do about more components than there are ``rows``, in words."""
    return f"fit at most {rows}, or give more rows" if rows > 1 else "fit one, or give more rows"


def _check_labels(may: Array, known: Array, components: int) -> None:
    """Raise ``DataError`` if there is a component that no row may be of.

    ``may`` and ``known`` are how many rows may be of each component, and are known to be.
    """
    none = np.flatnonzero(may == 0).tolist()
    if not none and components > len(may) and not (may - known).any():
        none = list(range(len(may), components))
    if none:
        raise DataError(
            f"no row may be of component {none[0]}: none that has a weight has that label, and "
            "none is free. Fit fewer components, or give -1 to rows that may be of it"
        )
