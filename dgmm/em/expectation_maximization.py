"""Expectation-maximisation, as the textbook has it: from each mixture to its EM image.

Where the change of an iteration is below ``tol``, the solver takes its last sweep again in double
precision, and where that can't be told from what the bound on single precision explains, the one
before, too.  So it stops after as many iterations as if all had been double, the last M-step has
double statistics, and the last objective is as exact.
"""

from dataclasses import dataclass, replace

import numpy as np

from dgmm.em.evaluate import FitContext, State
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

    def step(self, run: RunState, found: State) -> RunState:
        known = None if self.again else run.state
        exact = self.exact if known is None else not known.bound
        counted = run.record_again(found) if self.again else run.record(found, mapped=True)
        after = counted.by(EM(exact), state=found)
        settled = _is_settled(run)
        if settled or after.budget_exhausted:
            return after.finish(converged=settled)
        change, tol = abs(after.change), run.stop.tol
        unseen = 2 * after.bound if found.bound or not exact else 0.0
        if tol > 0 and change - unseen < tol and not self.again:
            if change + unseen >= tol and unseen and run.state is not None:
                again = run.by(replace(self, again=True)).repeat(2)
                return replace(again, float64_passes=after.float64_passes)
            if found.bound:
                return after.by(EM(exact, again=True)).repeat()
        trial = run.context.m_step(found)
        return after.propose(trial, far=change > 2 * unseen)

    def reach(self, run: RunState) -> float:
        return np.inf


def _is_settled(run: RunState) -> bool:
    """Whether the last iteration met the stop rule, as double precision sees it."""
    seen = run.state is not None and not run.state.bound
    return seen and abs(run.change) < run.stop.tol
