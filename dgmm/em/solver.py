"""Solvers: ways from a start towards an optimum, one sweep at a time.

A ``Solver`` is a value that says which mixture the next sweep should evaluate (its ``trial``), and
what it becomes when it is told what the sweep found (``advance``).  ``run`` advances several side
by side and yields them after every sweep; whoever consumes it prints, draws, saves or stops between
two.  Here is the textbook's solver, expectation-maximisation; others are in squarem.py,
quasi_newton.py and control_variate.py.

Iterations are counted as scikit-learn counts them: iteration i takes an E-step's statistics of the
mixture it starts from, and ends with the M-step.  The change that stops the textbook's solver is
judged between the starts of two iterations.  So ``trace`` and the number of iterations equal
scikit-learn's; what differs is that the last mixture gets a sweep of its own too, and thus its own
objective.

**Precision.**  Iterations use single precision, where it is good enough, until one changes the
objective by little more than the bound explains; then, and in the last three of ``max_iter``, all
is double.  Where the change of an iteration is below ``tol``, the textbook's solver takes its last
sweep again in double, and where that can't be told from what the bound explains, the one before,
too: so it stops after as many iterations as if all had been double, the last M-step has double
statistics, and the last objective is as exact.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dgmm.em.evaluate import FitContext, State, Trial, evaluate, m_step, unbounded
from dgmm.kernels.sweep import Sweep
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class StopRule:
    """When a solver may end.

    Attributes
    ----------
    max_iter : int
        Iterations at most.
    tol : float
        When an iteration changes the objective by less; 0 for never.
    target : float
        When the estimated remaining gain of the objective is below it; 0 for never.
    rough : bool
        Whether single precision serves to the end: the solver is only to be compared with others.
    """

    max_iter: int
    tol: float = 0.0
    target: float = 0.0
    rough: bool = False


@dataclass(frozen=True)
class Solver(ABC):
    """A way from a start towards an optimum, one sweep at a time.

    Attributes
    ----------
    context : FitContext
    stop : StopRule
    trial : Trial or None
        What the next sweep should evaluate; None when the solver has ended.
    state : State or None
        The best mixture so far; None before the first sweep.
    trace : tuple of float
        The best objective at the start of each iteration so far.
    converged : bool
    gap_upper : float
        By how much the objective could still grow, by a careful estimate, which the solver stops
        by; infinity if there is none.
    gap_estimate : float
        The same without that care.
    float64_passes : int
        The sweeps in double precision so far; any in single precision came before.
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
    trial: Trial | None
    state: State | None = None
    trace: tuple[float, ...] = ()
    converged: bool = False
    gap_upper: float = np.inf
    gap_estimate: float = np.inf
    float64_passes: int = 0
    bound: float = 0.0
    rejected: int = 0
    max_decrease: float = 0.0
    starts: int = 0
    optima: int = 0
    starts_gain: float | None = None
    aside: Trial | None = None

    @abstractmethod
    def step(self, found: State) -> "Solver":
        """The solver after a sweep that ``found`` this about its trial."""

    @property
    def best(self) -> State:
        """``state``, which there must be."""
        assert self.state is not None
        return self.state

    @property
    def float32_passes(self) -> int:
        """The sweeps in single precision so far."""
        return len(self.trace) + 1 - self.float64_passes

    @property
    def change(self) -> float:
        """By how much the last iteration raised the objective."""
        return self.best.objective - self.trace[-1] if self.trace else np.inf

    @property
    def reason(self) -> str:
        """Why the solver has ended."""
        if not self.converged:
            return "max_iter"
        return "gap" if self.gap_upper < self.stop.target else "tol"

    def record(self, found: State, mapped: bool = False) -> Self:
        """The solver with a sweep counted; ``mapped`` if that found the EM image of ``state``."""
        before = self.state
        if before is None:
            trace, max_decrease = self.trace, self.max_decrease
        else:
            slack = found.rounding + 2 * max(found.bound, before.bound)
            trace = (*self.trace, before.objective)
            max_decrease = max(
                self.max_decrease, mapped * (before.objective - found.objective - slack)
            )
        float64_passes = self.float64_passes + (not found.bound)
        bound = max(self.bound, found.bound)
        return replace(
            self, trace=trace, max_decrease=max_decrease, float64_passes=float64_passes, bound=bound
        )

    def propose(self, trial: Trial, far: bool) -> Self:
        """The solver with its next trial, in single precision if it is ``far`` from the end."""
        far = far and not self.float64_passes and len(self.trace) + 3 < self.stop.max_iter
        bound = self.context.single_bound(trial.mixture) if far else np.inf
        return replace(self, trial=replace(trial, bound=bound))

    def beaten(self, objective: float) -> bool:
        """Whether it isn't expected to get as far as an ``objective``; False if it can't tell."""
        return False

    def finish(self, converged: bool) -> Self:
        """The solver at its end."""
        return replace(self, trial=None, converged=converged)

    @property
    def budget_exhausted(self) -> bool:
        """Whether all iterations are used up."""
        return len(self.trace) >= self.stop.max_iter


@dataclass(frozen=True)
class EM(Solver):
    """EM, until an iteration changes the objective by less than ``stop.tol``.

    Attributes
    ----------
    before : float or None
        The objective at the start of the last iteration of a solver that led to the start.
    exact : bool
        Whether the last objective in ``trace`` is in double precision.
    again : bool
        Whether the next sweep is of ``state``'s mixture once more, in double precision.
    repeated : int
        The sweeps that were made again.
    """

    before: float | None = None
    exact: bool = True
    again: bool = False
    repeated: int = 0

    @classmethod
    def of(
        cls, context: FitContext, start: Mixture, stop: StopRule, before: float | None = None
    ) -> Self:
        """The solver that begins at ``start``."""
        solver = cls(context, stop, None, before=before)
        return solver.propose(Trial(start), far=stop.max_iter > 3)

    def step(self, found: State) -> "EM":
        known = replace(self, state=None) if self.again else self
        exact = self.exact if known.state is None else not known.state.bound
        solver = replace(known.record(found, mapped=True), state=found, exact=exact, again=False)
        if self._settled or solver.budget_exhausted:
            return solver.finish(converged=self._settled)
        change, tol = abs(solver.change), self.stop.tol
        unseen = 2 * solver.bound if found.bound or not exact else 0.0
        if tol > 0 and change - unseen < tol and not self.again:
            if change + unseen >= tol and unseen and self.state is not None:
                return replace(self._repeating(2), float64_passes=solver.float64_passes)
            if found.bound:
                return solver._repeating(1)
        trial = m_step(found.statistics, self.context, found.mixture)
        return solver.propose(trial, far=change > 2 * unseen)

    def _repeating(self, sweeps: int) -> "EM":
        """With ``state``'s mixture on trial again, in double, in place of so many ``sweeps``."""
        found = self.best
        trial = Trial(found.mixture, found.empty, found.singular)
        solver = replace(self, again=True, repeated=self.repeated + sweeps)
        return solver.propose(trial, far=False)

    @property
    def change(self) -> float:
        if self.trace or self.before is None:
            return super().change
        return self.best.objective - self.before

    @property
    def float32_passes(self) -> int:
        return super().float32_passes + self.repeated

    @property
    def _settled(self) -> bool:
        """Whether the last iteration met the stop rule, as double precision sees it."""
        seen = self.state is not None and not self.state.bound
        return seen and abs(self.change) < self.stop.tol


def best_of(solvers: Sequence[Solver]) -> Solver:
    """The solver with the highest objective, of those that begun and have no singular component.

    Of all that begun, if all have.
    """
    begun = [solver for solver in solvers if solver.state is not None]
    if len(begun) > 1:
        begun = [solver for solver in begun if not unbounded(solver.best, solver.context)] or begun
    return max(begun, key=lambda solver: solver.best.objective)


def kept(solvers: Sequence[Solver]) -> list[Solver]:
    """The ``solvers``, of which those rest that are not expected to get as far as the best has.

    Those that rested go on if that is so no more: the best may have become singular.
    """
    best = best_of(solvers).best.objective
    found = []
    for solver in solvers:
        trial = solver.trial or solver.aside
        beaten = trial is not None and solver.beaten(best)
        trials = (None, trial) if beaten else (trial, None)
        found.append(replace(solver, trial=trials[0], aside=trials[1]))
    return found


def run(
    sweep: Sweep, solvers: Sequence[Solver], drop: bool = False
) -> Iterator[tuple[Solver, ...]]:
    """Advance ``solvers`` to their ends; all share each sweep.

    Yields after every sweep; a solver that has ended stays as it is.  With ``drop`` those rest that
    are beaten.
    """
    solvers = list(solvers)
    while active := [i for i, solver in enumerate(solvers) if solver.trial is not None]:
        trials = [trial for solver in solvers if (trial := solver.trial) is not None]
        states = evaluate(sweep, [solvers[i].context for i in active], trials)
        for i, state in zip(active, states, strict=True):
            solvers[i] = solvers[i].step(state)
        solvers = kept(solvers) if drop else solvers
        yield tuple(solvers)
