"""Expectation-maximisation, as the textbook has it: from each mixture to its EM image.

Sweeps may be in single precision.  Where the change of an iteration is below ``tol``, the solver
takes its last sweep again in double precision.  Where single precision may hide on which side of
``tol`` the change is, it takes the one before again, too.  So it stops after as many iterations as
if all had been double, the last M-step has double statistics, and the last objective is as exact.
"""

from dataclasses import dataclass, replace

import numpy as np

from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class EM(Solver):
    """EM, until an iteration changes the objective by less than ``stop.tol``.

    Attributes
    ----------
    exact : bool
        Whether the last objective in the run's ``trace`` is in double precision.
    again : bool
        Whether the next sweep is of the best mixture once more, in double precision.
    """

    exact: bool = True
    again: bool = False

    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> RunState:
        return RunState.begin(context, start, stop, self)

    def step(self, run: RunState, state: State) -> RunState:
        before = None if self.again else run.state
        exact = self.exact if before is None else not before.bound
        recorded = run.record_again(state) if self.again else run.record(state, mapped=True)
        after = recorded.by(EM(exact), state=state)
        settled = _is_settled(run)
        if settled or after.budget_exhausted:
            return after.finish(converged=settled)
        change, tol = abs(after.change), run.stop.tol
        hidden = 2 * after.bound if state.bound or not exact else 0.0
        if tol > 0 and change - hidden < tol and not self.again:
            if change + hidden >= tol and hidden and run.state is not None:
                again = run.by(replace(self, again=True)).repeat(2)
                return replace(again, float64_passes=after.float64_passes)
            if state.bound:
                return after.by(EM(exact, again=True)).repeat()
        trial = run.context.m_step(state)
        return after.propose(trial, far=change > 2 * hidden)

    def reach(self, run: RunState) -> float:
        return np.inf


def _is_settled(run: RunState) -> bool:
    """Whether the last iteration met the stop rule, as double precision sees it."""
    exact = run.state is not None and not run.state.bound
    return exact and abs(run.change) < run.stop.tol
