"""Control-variate EM: a sample corrects itself by each pass, up to the optimum of all rows.

**The surrogate.**  Let S_n(theta) be the statistics of the sample, per unit weight, and S_N those
of all rows.  One sweep of all rows at a reference theta_c says how the two differ there, and

    S_n(theta) + [S_N(theta_c) - S_n(theta_c)] + mu S_N(theta_c)

stands in for S_N(theta) near theta_c, at the cost of a pass over the sample.  For mu = 0 it is the
control variate of stochastic EM with variance reduction (Chen, Zhu, Teh and Zhang, Stochastic
expectation maximization with variance reduction, 2018), with the whole sample for a batch.  What it
adds is linear in the natural parameters.  So EM with it has an objective of its own that never
falls (``StatisticsCorrection``), and converges to some theta*, the next reference.  Where theta* =
theta_c, that is the fixed point of EM on all rows, exactly.  The way from reference to reference is
Newton's method with the sample's information matrix for that of all rows.  In each sweep of all
rows the error shrinks by a factor of the order of sqrt(p / n); in a direction where EM's steps
would have to be a times as long, of a times that, as far as it is below 1.

**The damping** mu is 0 where that goes well.  In directions that the rows say little about, the
sample may say the opposite: then the surrogate has no optimum, and takes away more of a component
than the sample has.  mu S_N(theta_c) are rows that stay as they are at theta_c, so the step is
Levenberg's and Marquardt's, in the metric of the complete data (a proximal point in the sense of
Chretien and Hero, Kullback proximal algorithms for maximum-likelihood estimation, 2000).  It leads
as far as 1 / mu steps of EM, and mu is changed by how well the gain was predicted.  Past ``MOST``
the sample is a poor surrogate: SQUAREM on all rows goes on from the best reference.

**When to stop.**  The gain of the surrogate (without damping) from theta_c to theta* is an estimate
of the gain left on all rows at theta_c: Newton's decrement.  In a direction where EM's steps would
have to be a times as long, damping leaves a step of 1 / (1 + mu a) of the way, so what there is to
gain is that times (1 + mu a)^2 / (1 + 2 mu a), with a the largest that SQUAREM has met.  Where such
estimates shrink by a factor q from reference to reference, those to come are counted, too: 1 / (1 -
q) times as much.  With damping that is rough, and the careful estimate is the larger of two on end,
but for those whose trials were rejected.  When it is below the target, theta_c is returned, which
has been swept.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.kernels.correction import StatisticsCorrection
from dgmm.model.mixture import Mixture

ITERATIONS: Final = 300
"""Iterations at most between two references."""

STRETCH: Final = 10
"""Sweeps of a sample between two looks at where they lead."""

LEAST: Final = 0.01
FACTOR: Final = 4.0
MOST: Final = 1.0
"""The damping at first, by what factor it is changed, and when EM steps do as well."""

POOR: Final = 0.25
GOOD: Final = 0.75
"""The share of a predicted gain that asks for more damping, and that allows less."""

STEADY: Final = 0.1
"""The least part of a gap that is taken to go in a sweep, where they shrink slowly."""

COARSE: Final = 0.1
FINE: Final = 0.02
"""How exactly to end between two references: this fraction of the gap, or at least of p / (2 N)."""


@dataclass(frozen=True)
class ControlVariateEM(Solver):
    """The solver from reference to reference.

    Attributes
    ----------
    subsample : Subsample
        The surrogate: the sample that stands in for all rows between two sweeps of them.
    rows : int
        How many all are.
    damping : float
        How much the next reference is held back to this one.
    predicted_gain : float
        What the trial should gain.
    last_accepted_gap : float
        ``gap_estimate`` at the last reference whose trial turned out to be better.
    """

    works_on_samples: ClassVar[bool] = True

    subsample: Subsample
    rows: int
    damping: float = 0.0
    predicted_gain: float = 0.0
    last_accepted_gap: float = np.inf

    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> RunState:
        gap = self.subsample.resolution(start)
        far = gap > 10 * context.single_bound(start)
        run = RunState.begin(context, start, stop, self, far)
        return replace(run, gap_upper=gap, gap_estimate=gap)

    def step(self, run: RunState, state: State) -> RunState:
        after, solver = self._judged(run, state)
        better = after.rejected == run.rejected
        if not better and after.budget_exhausted:
            return after.by(solver).finish(False)
        while solver.damping <= MOST:
            reached = solver._reached(after)
            if reached is not None:
                break
            solver = replace(solver, damping=_more(solver.damping))
        else:
            after = after.by(solver)
            return after.finish(False) if after.budget_exhausted else Squarem().take_over(after)
        slowed = reached.gain / self.predicted_gain if better and self.predicted_gain > 0 else 0.0
        gap_estimate = reached.left / max(1 - slowed, STEADY)
        last_accepted_gap = run.gap_estimate if better else self.last_accepted_gap
        gap = max(gap_estimate, last_accepted_gap) if solver.damping else gap_estimate
        solver = replace(solver, last_accepted_gap=last_accepted_gap, predicted_gain=reached.gain)
        after = after.by(solver, gap_upper=gap, gap_estimate=gap_estimate)
        settled = better and 0 <= after.change < run.stop.tol
        if not after.best.bound and (gap < run.stop.target or settled):
            return after.finish(True)
        if after.budget_exhausted:
            return after.finish(False)
        return after.propose(reached.trial, far=False)

    def reach(self, run: RunState) -> float:
        return np.inf

    def _judged(self, run: RunState, state: State) -> "tuple[RunState, ControlVariateEM]":
        """At the better reference, with damping that fits how well the last gain was predicted."""
        after = run.record(state)
        if run.state is None:
            return replace(after, state=state), self
        gained = state.objective - run.state.objective
        share = gained / self.predicted_gain if self.predicted_gain > 0 else 1.0
        if gained < 0:
            rejected = replace(after, rejected=run.rejected + 1)
            return rejected, replace(self, damping=_more(self.damping))
        damping = self.damping
        if share < POOR:
            damping = _more(damping)
        elif share > GOOD:
            damping = _less(damping)
        return replace(after, state=state), replace(self, damping=damping)

    def _reached(self, run: RunState) -> "_Reached | None":
        """Where the sample leads from the best reference; None if astray."""
        with self.subsample.cost.timed(), self.subsample.stage():
            return self._reached_on(self.subsample, run)

    def _reached_on(self, subsample: Subsample, run: RunState) -> "_Reached | None":
        """The same, by way of ``subsample``."""
        reference = run.best
        sampled = subsample.evaluate(Trial(reference.mixture))
        if reference.statistics.sums.shape != sampled.statistics.sums.shape:
            return None
        held, context = self._held(run, sampled)
        fine = FINE * reference.mixture.free_parameters / (2 * self.rows)
        coarse = COARSE * min(run.gap_estimate, subsample.resolution(reference.mixture))
        stop = StopRule(ITERATIONS, target=max(fine, coarse))
        inner = Squarem().init(context, reference.mixture, stop)
        degenerate = set(reference.empty + reference.singular)
        while inner.trial is not None and not (
            inner.state is not None and subsample.cost.deadline.passed
        ):
            (inner,) = subsample.refine([inner], STRETCH)
            lost = set(inner.best.empty + inner.best.singular) - degenerate
            if lost or inner.max_decrease or not np.isfinite(inner.best.objective):
                return None  # what the correction takes away may be all that held a component
        best, weight = inner.best, context.weight
        ends = [run.context.natural(mixture) for mixture in (reference.mixture, best.mixture)]
        before, after = (held.linear(natural) + natural.common_sum(held.total) for natural in ends)
        prior = run.context.model.prior
        priors = [prior.log_density(mixture) for mixture in (reference.mixture, best.mixture)]
        held_back = (after - before) / weight + self.damping * (priors[1] - priors[0])
        gain = max(0.0, best.objective - inner.trace[0] - held_back)
        assert isinstance(inner.solver, Squarem)
        short = self.damping * max(inner.solver.lengths, default=1.0)
        left = gain * (1 + short) ** 2 / (1 + 2 * short)
        left += inner.gap_estimate if np.isfinite(inner.gap_estimate) else gain
        return _Reached(Trial(best.mixture, best.empty, best.singular), gain, left)

    def _held(self, run: RunState, sampled: State) -> tuple[StatisticsCorrection, FitContext]:
        """What damping adds to the sample, and the context with that and the correction.

        ``sampled`` is what the sample says of the reference.
        """
        context, reference = self.subsample.context, run.best
        features = run.context.natural(reference.mixture).features
        center = reference.statistics.center
        share = context.weight / run.context.weight
        whole = reference.statistics.sums * share
        total = more = damped = None
        if run.context.total is not None and context.total is not None:
            damped = run.context.total * share * self.damping
            total = run.context.total * share + damped
            more = total - context.total
        held = StatisticsCorrection(features, whole * self.damping, center, damped)
        correction = StatisticsCorrection(
            features, whole - sampled.statistics.sums + held.sums, center, more, self.damping
        )
        return held, replace(context, correction=correction, total=total, precision="float64")


def _more(damping: float) -> float:
    return max(FACTOR * damping, LEAST)


def _less(damping: float) -> float:
    return damping / FACTOR if damping > LEAST else 0.0


@dataclass(frozen=True)
class _Reached:
    """Where the sample leads, what that should gain, and what there is to gain at all."""

    trial: Trial
    gain: float
    left: float
