"""Choosing a mixture: many candidates fitted side by side, in the sweeps of one fit.

Every candidate (a number of components and a covariance model) goes its own way by its own solver,
and all share each sweep: the rows are read and decompressed once for all, whatever there is to
compute on them.  After each sweep a candidate leaves that is not expected to win any more: one
whose criterion, if it gained ``OPTIMISM`` times what it is gap_estimate to have left to gain
(``CAUTION`` times, if no samples showed it the way), would still be worse than another's is
already.  What is left at the end are fitted models; the best needs no refit.

**Singular components.**  A component on rows that have no spread in some direction, such as rows
with ties, has a likelihood without a bound: what it comes to is up to ``reg_covar``.  A candidate
with such a component is not comparable.  So it is fitted again from other starts, ``REFITS`` times
at most, and if it stays singular, it is left out of the ranking, unless all are.  Candidates that
were dropped for the sake of one that turned out so come back.

**Criteria** (criteria.py): those that are not a formula of the likelihood are measured by sweeps of
their own, after the first, second, fourth, eighth ... sweep of the candidates, to drop the losers,
and after the last.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from dgmm.em.criteria import Criterion
from dgmm.em.evaluate import FitContext, frame_of, unbounded
from dgmm.em.first_pass import DataMoments, FirstPassSpec, first_pass
from dgmm.em.fit import STRATEGIES, FitSpec, Progress, Stopped, check
from dgmm.em.holdout import HELD, Part
from dgmm.em.init import representative
from dgmm.em.solver import RunState, advanced, best_of, kept
from dgmm.em.subsamples import Cost, InMemorySweep, Samples, Tell, untold
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import WeightedSum

OPTIMISM: Final = 2.0
CAUTION: Final = 10.0
"""How many times its estimate a gain may turn out to be, after a ladder and without one."""

REFITS: Final = 2
"""How often a candidate with a singular component is fitted again."""


@dataclass(frozen=True)
class Candidate:
    """One of the mixtures to choose from, as far as it has come.

    Attributes
    ----------
    spec : FitSpec
    context : FitContext
    runs : tuple of RunState
        Its starts'; empty before they are made.
    value : float
        Its criterion as it stands; infinity if unknown.
    dropped : int or None
        After how many sweeps it left.
    refits : int
        How often it was fitted again because a component was singular.
    """

    spec: FitSpec
    context: FitContext
    runs: tuple[RunState, ...] = ()
    value: float = np.inf
    dropped: int | None = None
    refits: int = 0

    @property
    def run(self) -> RunState:
        """The best run."""
        return best_of(self.runs)

    @property
    def unbounded(self) -> tuple[int, ...]:
        """The best run's components whose likelihood has no bound."""
        return unbounded(self.run.best, self.context)

    @property
    def running(self) -> bool:
        """Whether it has a trial for the next sweep."""
        return self.dropped is None and any(run.trial is not None for run in self.runs)

    @property
    def mixture(self) -> Mixture:
        """Of the data."""
        return self.context.frame.leave(self.run.best.mixture)


@dataclass(frozen=True)
class Standings:
    """Where a selection stands after a sweep.

    Attributes
    ----------
    passes : int
        Sweeps so far.
    moments : DataMoments
    candidates : tuple of Candidate
        Empty after the first sweep.
    densities : int
        Rows of the sample evaluated so far, times components.
    rounds : int
        Sweeps of all that run, so far.
    due : bool
        Whether their criteria are to be measured next.
    resumed : bool
        Whether the selection goes on from here, and no sweep was made to get here.
    seconds_on_samples, starts_seconds, seeking
        As in ``fit.Progress``.
    """

    passes: int
    moments: DataMoments
    candidates: tuple[Candidate, ...] = ()
    densities: int = 0
    rounds: int = 0
    due: bool = False
    resumed: bool = False
    seconds_on_samples: float = 0.0
    starts_seconds: float = 0.0
    seeking: bool = False

    @property
    def reached(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by name; nothing after the first sweep."""
        if not self.candidates:
            return {}
        candidates = tuple(
            (each.runs, each.value, each.dropped, each.refits) for each in self.candidates
        )
        counts = {"densities": self.densities, "rounds": self.rounds, "due": self.due}
        return {"candidates": candidates, **counts}

    @property
    def best(self) -> Candidate:
        """The candidate with the lowest criterion of those that stayed and can be compared."""
        return min(_comparable(self.candidates), key=lambda each: each.value)

    @property
    def progress(self) -> Progress:
        """Where the best candidate's fit stands."""
        best = self.best
        return Progress(
            *(self.passes, self.moments, best.context, best.runs, self.densities),
            seconds_on_samples=self.seconds_on_samples,
            starts_seconds=self.starts_seconds,
        )


class Resumed(Stopped, Protocol):
    """Where a selection stopped.

    Attributes
    ----------
    rounds, due
        As in ``Standings``.
    """

    @property
    def rounds(self) -> int: ...

    @property
    def due(self) -> bool: ...

    def candidates(self, entrants: list[Candidate], samples: Samples) -> list[Candidate]:
        """The ``entrants`` as they stood, if they have begun."""


class _Counted:
    """A sweep over the rows to be fitted, or those held out, that counts its calls."""

    def __init__(self, sweep: Sweep, share: float | None, seed: int, passes: int) -> None:
        self._sweep, self._share, self._seed = sweep, share, seed
        self.passes = passes

    def __call__(self, fn: Callable[[Block, Any], Any], given: Any, held: bool = False) -> Any:
        self.passes += 1
        part = fn if self._share is None else Part(fn, self._seed, held, self._share)
        return self._sweep(part, given)


def select(
    sweep: Sweep,
    specs: Sequence[FitSpec],
    first_pass_spec: FirstPassSpec,
    in_memory_sweep: InMemorySweep,
    criterion: Criterion,
    resumed: Resumed | None = None,
    share: float = HELD,
    tell: Tell = untold,
) -> Iterator[Standings]:
    """Fit what ``specs`` ask for and choose by ``criterion``; yields after every sweep.

    ``first_pass_spec`` is the first_pass's, the largest that any of them asks; ``share`` of the
    rows is held out, if the criterion wants that; ``tell`` is as in ``fit``.  Raises ``DataError``
    as a fit does.  A selection that is ``resumed`` yields where it stopped first, without a sweep;
    it ends with what it has once the first request's deadline has passed, and the candidates have
    their criteria.
    """
    done = 0 if resumed is None else resumed.passes
    counted = _Counted(sweep, share if criterion.holds_out else None, first_pass_spec.seed, done)
    moments = counted(first_pass, first_pass_spec) if resumed is None else resumed.moments
    check(moments, max(spec.components for spec in specs))
    deadline = specs[0].deadline
    cost = Cost(deadline=deadline, tell=tell)
    samples = Samples(representative(moments), moments.weighted, in_memory_sweep, cost)
    candidates, rounds, due = _entrants(moments, specs), 0, False
    if resumed is not None:
        for spec in specs:
            resumed.restore(spec.random)
        candidates = resumed.candidates(candidates, samples)
        rounds, due = resumed.rounds, resumed.due
        cost.densities = resumed.densities

    def standings(resumed: bool = False) -> Standings:
        begun = tuple(each for each in candidates if each.runs)
        reached = (counted.passes, moments, begun, cost.densities, rounds, due, resumed)
        return Standings(*reached, cost.seconds, cost.starts_seconds, not begun)

    yield standings(resumed is not None)
    if not rounds:
        with cost.timed():
            candidates = [_started(each, moments, samples) for each in candidates]
    before = rounds
    while due or rounds == before or not deadline.passed:
        if not due and not any(each.running for each in candidates):
            with cost.timed():
                candidates = [
                    _refitted(each, moments, samples, first_pass_spec) for each in candidates
                ]
            candidates = _revived(criterion, candidates, moments.weight)
            if not any(each.running for each in candidates):
                break
        if due:
            candidates, due = _judged(counted, criterion, candidates, moments.weight), False
        else:
            candidates = _advanced(counted, candidates)
            rounds += 1
            if criterion.measure is None:
                candidates = _judged(counted, criterion, candidates, moments.weight)
            else:
                due = rounds.bit_count() == 1 or not any(each.running for each in candidates)
        yield standings()


def _entrants(moments: DataMoments, specs: Sequence[FitSpec]) -> list[Candidate]:
    """The candidates without runs; those of one frame share it, and so the rows in it."""
    own = [frame_of(moments, each.covariance_model) for each in specs]
    frames = {each.scale.tobytes(): each for each in reversed(own)}
    return [
        Candidate(
            each,
            FitContext.of(
                moments,
                each.covariance_model,
                each.reg_covar,
                each.kernel,
                each.precision,
                frames[frame.scale.tobytes()],
            ),
        )
        for each, frame in zip(specs, own, strict=True)
    ]


def _started(candidate: Candidate, moments: DataMoments, samples: Samples) -> Candidate:
    """The candidate with its runs, before their first sweep."""
    return replace(candidate, runs=_begun(candidate, candidate.spec, moments, samples))


def _refitted(
    candidate: Candidate, moments: DataMoments, samples: Samples, first_pass_spec: FirstPassSpec
) -> Candidate:
    """The candidate with more runs, from other starts, if all it has ended singular."""
    given = candidate.spec.given
    if given or candidate.dropped is not None or candidate.refits == REFITS:
        return candidate
    if not candidate.unbounded:
        return candidate
    refits = candidate.refits + 1
    seed = (first_pass_spec.seed, candidate.spec.components, refits)
    spec = replace(candidate.spec, random=np.random.RandomState(seed))
    runs = _begun(candidate, spec, moments, samples)
    return replace(candidate, runs=(*candidate.runs, *runs), refits=refits)


def _begun(
    candidate: Candidate, spec: FitSpec, moments: DataMoments, samples: Samples
) -> tuple[RunState, ...]:
    """The runs of a ``candidate`` by a ``spec``, before their first sweep."""
    with samples.cost.stage(f"{spec.components} components, {spec.covariance_model.name}"):
        return tuple(STRATEGIES[spec.strategy](moments, candidate.context, spec, samples))


def _revived(criterion: Criterion, candidates: list[Candidate], weight: float) -> list[Candidate]:
    """Candidates with those back that were dropped for one that turned out to be singular."""
    stayed = [each for each in candidates if each.dropped is None]
    if any(each.running for each in stayed):
        return candidates
    if not any(each.unbounded or each.refits for each in stayed):  # a cured one has a new value
        return candidates
    best = min((each.value for each in stayed if not each.unbounded), default=np.inf)
    return [
        replace(each, dropped=None, refits=each.refits + 1)
        if each.dropped is not None
        and each.refits < REFITS
        and not each.unbounded
        and _attainable(criterion, each, weight) < best
        else each
        for each in candidates
    ]


def _comparable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that stayed that have no singular component; all, if all have."""
    stayed = [each for each in candidates if each.dropped is None]
    return [each for each in stayed if not each.unbounded] or stayed


def _advanced(sweep: Sweep, candidates: list[Candidate]) -> list[Candidate]:
    """All candidates that run, one sweep further."""
    running = [each for each in candidates if each.running]
    runs = iter(advanced(sweep, [run for each in running for run in each.runs]))
    return [
        replace(each, runs=tuple(kept([next(runs) for _ in each.runs]))) if each.running else each
        for each in candidates
    ]


def _judged(
    sweep: _Counted, criterion: Criterion, candidates: list[Candidate], weight: float
) -> list[Candidate]:
    """Candidates with their criteria, without those that can't win any more."""
    return _dropped(criterion, _valued(sweep, criterion, candidates, weight), weight, sweep.passes)


def _valued(
    sweep: _Counted, criterion: Criterion, candidates: list[Candidate], weight: float
) -> list[Candidate]:
    """Candidates with their criteria, measured where that is needed."""
    alive = [i for i, each in enumerate(candidates) if each.dropped is None]
    measured: list[WeightedSum | None] = [None] * len(alive)
    if criterion.measure is not None:
        mixtures = tuple(candidates[i].mixture for i in alive)
        measured = list(sweep(criterion.measure, mixtures, held=True).parts)
    valued = list(candidates)
    for i, own in zip(alive, measured, strict=True):
        value = criterion.value(candidates[i].run.best, weight, own)
        valued[i] = replace(candidates[i], value=value)
    return valued


def _dropped(
    criterion: Criterion, candidates: list[Candidate], weight: float, passes: int
) -> list[Candidate]:
    """Candidates without those that run and are not expected to win any more."""
    best = min(each.value for each in _comparable(candidates))
    return [
        replace(each, dropped=passes)
        if each.running and _attainable(criterion, each, weight) > best
        else each
        for each in candidates
    ]


def _attainable(criterion: Criterion, candidate: Candidate, weight: float) -> float:
    """The criterion that a candidate may still get to."""
    run = candidate.run
    gain = (OPTIMISM if run.starts else CAUTION) * run.gap_estimate
    return candidate.value - criterion.worth(gain, weight)
