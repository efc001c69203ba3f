"""Solvers: ways from a start towards an optimum, one sweep at a time.

A ``RunState`` is a value that says which mixture the next sweep should evaluate (its ``trial``),
where the run stands, and by which ``Solver`` it goes on.  It holds all that runs share.  A solver
is a method: how a run begins (``init``), and what becomes of it when a sweep has found something
about its trial (``step``).  What a solver remembers from sweep to sweep is its own fields, so a
step gives the run the solver as it is from then on.  Solvers are in expectation_maximization.py,
squarem.py, quasi_newton.py and control_variate.py.

``run_all`` advances several side by side and yields them after every sweep; whoever consumes it
prints, draws, saves or stops between two.

Iterations are counted as scikit-learn counts them: iteration i takes an E-step's statistics of the
mixture it starts from, and ends with the M-step.  The change that stops the textbook's solver is
judged between the starts of two iterations.  So ``trace`` and the number of iterations equal
scikit-learn's; what differs is that the last mixture gets a sweep of its own too, and thus its own
objective.

**Precision.**  Iterations use single precision, where it is good enough, until one changes the
objective by little more than the bound explains; then, and in the last three of ``max_iter``, all
is double.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

import numpy as np

from dgmm.em.degenerate import unbounded
from dgmm.em.evaluate import State, evaluate
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.kernels.sweep import Sweep
from dgmm.model.mixture import Mixture
from dgmm.model.sharing import shared_out

TIED: Final = 1e-10
"""Objectives, in nats a row, nearer than this are told apart by rounding alone.

So far above it, and so far below what rows can tell."""

STEP: Final = 8
"""How many numbers a step touches, about, for each free parameter and feature: M-steps and
extrapolations factor matrices."""


@dataclass(frozen=True)
class StopRule:
    """When a run may end.

    Attributes
    ----------
    max_iter : int
        Iterations at most.
    tol : float
        When an iteration changes the objective by less; 0 for never.
    target : float
        When the estimated remaining gain of the objective is below it; 0 for never.
    rough : bool
        Whether single precision serves to the end: the run is only to be compared with others.
    """

    max_iter: int
    tol: float = 0.0
    target: float = 0.0
    rough: bool = False


class Solver(ABC):
    """A method to go from a start towards an optimum; its fields are what it remembers.

    Attributes
    ----------
    works_on_samples : bool
        Whether its steps sweep samples, which takes all threads.
    """

    __slots__ = ()
    works_on_samples: ClassVar[bool] = False

    @abstractmethod
    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> "RunState":
        """The run by this solver that begins at ``start``, before its first sweep."""

    @abstractmethod
    def step(self, run: "RunState", state: State) -> "RunState":
        """The ``run``, which is by this solver, after a sweep gave the ``state`` of its trial."""

    @abstractmethod
    def reach(self, run: "RunState") -> float:
        """The objective that the ``run`` is expected not to get beyond; infinity if unknown."""


@dataclass(frozen=True)
class RunState:
    """Where a run of a solver stands: all that runs share, and the solver.

    Attributes
    ----------
    context : FitContext
    stop : StopRule
    solver : Solver
        How it goes on, with what that remembers.
    trial : Trial or None
        What the next sweep should evaluate; None when the run has ended.
    state : State or None
        The best mixture so far; None before the first sweep.
    trace : tuple of float
        The best objective at the start of each iteration so far.
    before : float or None
        The objective at the start of the last iteration of a fit that led to the start.
    converged : bool
    gap_upper : float
        By how much the objective could still grow, by a careful estimate, which the run stops
        by; infinity if there is none.
    gap_estimate : float
        The same without that care.
    float64_passes : int
        The sweeps in double precision so far; any in single precision came before.
    repeated : int
        The sweeps that were made again, in double precision.
    bound : float
        The largest error that single precision may have put in an objective so far.
    rejected : int
        Sweeps of mixtures that turned out worse than what there was, and were dropped.
    max_decrease : float
        The most by which an M-step lowered the objective beyond rounding.
    starts, optima : int
        How many starts competed for its own on samples, and to how many optima of these they led;
        0 if none did.
    starts_gain : float or None
        By how much the best end of these was better than that of the first, on the smallest of the
        larger samples; None if that is not known.
    aside : Trial or None
        What would be its next trial, if it weren't beaten: see ``kept``.
    """

    context: FitContext
    stop: StopRule
    solver: Solver
    trial: Trial | None
    state: State | None = None
    trace: tuple[float, ...] = ()
    before: float | None = None
    converged: bool = False
    gap_upper: float = np.inf
    gap_estimate: float = np.inf
    float64_passes: int = 0
    repeated: int = 0
    bound: float = 0.0
    rejected: int = 0
    max_decrease: float = 0.0
    starts: int = 0
    optima: int = 0
    starts_gain: float | None = None
    aside: Trial | None = None

    @classmethod
    def begin(
        cls, context: FitContext, start: Mixture, stop: StopRule, solver: Solver, far: bool = True
    ) -> Self:
        """The run by a ``solver`` that begins at ``start``."""
        return cls(context, stop, solver, None).propose(Trial(start), far)

    def step(self, state: State) -> "RunState":
        """The run after a sweep gave the ``state`` of its trial."""
        return self.solver.step(self, state)

    @property
    def best(self) -> State:
        """``state``, which there must be."""
        assert self.state is not None
        return self.state

    @property
    def float32_passes(self) -> int:
        """The sweeps in single precision so far."""
        return len(self.trace) + 1 + self.repeated - self.float64_passes

    @property
    def change(self) -> float:
        """By how much the last iteration raised the objective; infinity before there is one."""
        before = self.trace[-1] if self.trace else self.before
        return np.inf if before is None else self.best.objective - before

    @property
    def reason(self) -> str:
        """Why the run has ended."""
        if not self.converged:
            return "max_iter"
        return "gap" if self.gap_upper < self.stop.target else "tol"

    @property
    def budget_exhausted(self) -> bool:
        """Whether all iterations are used up."""
        return len(self.trace) >= self.stop.max_iter

    def record(self, state: State, mapped: bool = False) -> Self:
        """The run with a sweep counted; ``mapped`` if it was of the EM image of the last state."""
        before = self.state
        if before is None:
            return self.record_again(state)
        slack = state.rounding + 2 * max(state.bound, before.bound)
        fall = mapped * (before.objective - state.objective - slack)
        return replace(
            self.record_again(state),
            trace=(*self.trace, before.objective),
            max_decrease=max(self.max_decrease, fall),
        )

    def record_again(self, state: State) -> Self:
        """The run with a sweep counted that is no iteration: the first, or one made again."""
        float64_passes = self.float64_passes + (not state.bound)
        return replace(self, float64_passes=float64_passes, bound=max(self.bound, state.bound))

    def propose(self, trial: Trial, far: bool) -> Self:
        """The run with its next trial, in single precision if it is ``far`` from the end."""
        far = far and not self.float64_passes and len(self.trace) + 3 < self.stop.max_iter
        bound = self.context.single_bound(trial.mixture) if far else np.inf
        return replace(self, trial=replace(trial, bound=bound))

    def repeat(self, sweeps: int = 1) -> Self:
        """The run with ``state`` on trial again, in double, in place of so many ``sweeps``."""
        best = self.best
        trial = Trial(best.mixture, best.empty, best.singular)
        return replace(self, repeated=self.repeated + sweeps).propose(trial, far=False)

    def finish(self, converged: bool) -> Self:
        """The run at its end."""
        return replace(self, trial=None, converged=converged)

    def by(self, solver: Solver, **changes: Any) -> Self:
        """The run with its ``solver`` as that is from now on, and other ``changes``."""
        return replace(self, solver=solver, **changes)


def ranked(objectives: Iterable[float], apart: float = TIED) -> list[int]:
    """The places of ``objectives``, the highest first; those not so far ``apart`` keep their order.

    Starts that lead to one optimum differ in the order of its components.  Which of them is taken
    must not depend on rounding, which depends on units and on machines.
    """
    values = list(objectives)
    order: list[int] = []
    top = np.nan
    tied: list[int] = []
    for place in sorted(range(len(values)), key=lambda place: -values[place]):
        if not top - values[place] < apart:
            order, tied, top = order + sorted(tied), [], values[place]
        tied.append(place)
    return order + sorted(tied)


def best_of(runs: Sequence[RunState]) -> RunState:
    """The run with the highest objective, of those that have begun.

    Runs with a singular component are passed over, unless all have one.
    """
    begun = [run for run in runs if run.state is not None]
    if len(begun) > 1:
        begun = [run for run in begun if not unbounded(run.best, run.context)] or begun
    return begun[ranked(run.best.objective for run in begun)[0]]


def kept(runs: Sequence[RunState]) -> list[RunState]:
    """The ``runs``; those rest that are not expected to get as far as the best one is already.

    A run that rested goes on when that no longer holds: the best may have become singular.
    """
    best = best_of(runs).best.objective
    after = []
    for run in runs:
        trial = run.trial or run.aside
        beaten = trial is not None and run.solver.reach(run) < best
        trials = (None, trial) if beaten else (trial, None)
        after.append(replace(run, trial=trials[0], aside=trials[1]))
    return after


def run_all(sweep: Sweep, runs: Sequence[RunState]) -> Iterator[tuple[RunState, ...]]:
    """Advance ``runs`` to their ends; all share each sweep.

    Yields after every sweep; a run that has ended stays as it is.
    """
    runs = list(runs)
    while any(run.trial is not None for run in runs):
        runs = advanced(sweep, runs)
        yield tuple(runs)


def advanced(sweep: Sweep, runs: Sequence[RunState]) -> list[RunState]:
    """The ``runs`` after one sweep, which those that have a trial share."""
    trials = [run.trial for run in runs if run.trial is not None]
    going = [run for run in runs if run.trial is not None]
    states = evaluate(sweep, [run.context for run in going], trials)
    pairs = list(zip(going, states, strict=True))
    numbers = STEP * sum(
        trial.mixture.free_parameters * trial.mixture.n_features for trial in trials
    )

    def step(pair: tuple[RunState, State]) -> RunState:
        run, state = pair
        return run.step(state)

    by_turns = any(run.solver.works_on_samples for run in going)  # each takes all threads
    stepped = iter(map(step, pairs) if by_turns else shared_out(step, pairs, numbers))
    return [run if run.trial is None else next(stepped) for run in runs]
