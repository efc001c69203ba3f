"""The walk from anchor to anchor: from the top of the ladder to the optimum of all rows.

**The anchor.**  The sample still serves.  Let S_n(theta) be its statistics, per unit weight, and
S_N those of all rows.  One sweep of all rows at an anchor theta_c says how the two differ there,
and

    S_n(theta) + [S_N(theta_c) - S_n(theta_c)] + mu S_N(theta_c)

stands in for S_N(theta) near the anchor, at the cost of a pass over the sample: for mu = 0, the
control variate of stochastic EM with variance reduction (Chen, Zhu, Teh and Zhang, Stochastic
expectation maximization with variance reduction, 2018), with the whole sample for a batch.  What it
adds is linear in the natural parameters, so EM with it has an objective of its own that never falls
(``kernel.Anchor``), and converges to some theta*, the next anchor.  Where theta* = theta_c, that is
the fixed point of EM on all rows, exactly.  The way from anchor to anchor is Newton's method with
the sample's information matrix for that of all rows.  In each sweep of all rows the error shrinks
by a factor of the order of sqrt(p / n); in a direction where EM's steps would have to be a times as
long, of a times that, as far as it is below 1.

**The leash** mu is 0 where that goes well.  In directions that the rows say little about, the
sample may say the opposite: then the stand-in knows no end, and takes away more of a component than
the sample has.  mu S_N(theta_c) are rows that stay as they are at the anchor, so the step is
Levenberg's and Marquardt's, in the metric of the complete data (a proximal point in the sense of
Chretien and Hero, Kullback proximal algorithms for maximum-likelihood estimation, 2000).  It leads
as far as 1 / mu steps of EM, and mu is changed by how well the gain was foreseen.  Past
``TIGHTEST`` the sample is a poor guide: SQUAREM on all rows goes on from the best anchor.

**When to stop.**  The gain of the stand-in (without the leash) from theta_c to theta* is an
estimate of the gain left on all rows at theta_c: Newton's decrement.  In a direction where EM's
steps would have to be a times as long, the leash leaves a step of 1 / (1 + mu a) of the way, so
what there is to gain is that times (1 + mu a)^2 / (1 + 2 mu a), with a the largest that SQUAREM has
met.  Where such estimates shrink by a factor q from anchor to anchor, those to come are counted,
too: 1 / (1 - q) times as much.  On a leash that is rough, and the careful estimate is the larger of
two on end, but for those whose trials were rejected.  When it is below the target, theta_c is
returned, which has been swept.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from dgmm.em.evaluate import Setting, State, Trial
from dgmm.em.ladder import Rung
from dgmm.em.squarem import Squarem
from dgmm.em.walk import Stop, Walk
from dgmm.kernels.native import KERNELS
from dgmm.kernels.natural import Anchor, Form
from dgmm.model.mixture import Mixture

ITERATIONS: Final = 300
"""Iterations at most between two anchors."""

STRETCH: Final = 10
"""Sweeps of a sample between two looks at where they lead."""

LOOSEST: Final = 0.01
TIGHTER: Final = 4.0
TIGHTEST: Final = 1.0
"""The leash when it is first put on, by how much it is changed, and when EM steps do as well."""

POOR: Final = 0.25
GOOD: Final = 0.75
"""The share of a foreseen gain that asks for a tighter leash, and that allows a looser one."""

STEADY: Final = 0.1
"""The least part of a gap that is taken to go in a sweep, where they shrink slowly."""

COARSE: Final = 0.1
FINE: Final = 0.02
"""How exactly to end between two anchors: this fraction of the gap, or at least of p / (2 N)."""


@dataclass(frozen=True)
class Anchored(Walk):
    """The walk from anchor to anchor.

    Attributes
    ----------
    rung : Rung
        The guide: the sample that stands in for all rows between two sweeps of them.
    fine : float
        How exactly to end between two anchors.
    lengths : tuple of float
        Of the steps that led here.
    leash : float
        How much the next anchor is held back to this one.
    hope : float
        What the trial should gain.
    proven : float
        ``likely`` at the last anchor whose trial turned out to be better.
    """

    rung: Rung | None = None
    fine: float = 0.0
    lengths: tuple[float, ...] = ()
    leash: float = 0.0
    hope: float = 0.0
    proven: float = np.inf

    @classmethod
    def of(cls, setting: Setting, start: Mixture, stop: Stop, rung: Rung, rows: int) -> Self:
        """The walk that begins at ``start``; ``rows`` are all there are."""
        gap = rung.resolution(start)
        fine = FINE * start.free_parameters / (2 * rows)
        walk = cls(setting, stop, None, gap=gap, likely=gap, rung=rung, fine=fine)
        return walk.trying(Trial(start), far=gap > 10 * setting.single_bound(start))

    def advance(self, found: State) -> Walk:
        walk = self._judged(found)
        if walk.rejected > self.rejected and walk.spent:
            return walk.ended(False)
        while walk.leash <= TIGHTEST:
            reached = walk._reached()
            if reached is not None:
                break
            walk = replace(walk, leash=_tighter(walk.leash))
        else:
            return walk.ended(False) if walk.spent else Squarem.after(walk, self.lengths)
        better = walk.rejected == self.rejected
        slowed = reached.gain / self.hope if better and self.hope > 0 else 0.0
        likely = reached.left / max(1 - slowed, STEADY)
        proven = self.likely if better else self.proven
        gap = max(likely, proven) if walk.leash else likely
        walk = replace(walk, gap=gap, likely=likely, proven=proven, hope=reached.gain)
        settled = better and 0 <= walk.change < self.stop.tol
        if not walk.best.bound and (gap < self.stop.target or settled):
            return walk.ended(True)
        return walk.ended(False) if walk.spent else walk.trying(reached.trial, far=False)

    def _judged(self, found: State) -> "Anchored":
        """At the better anchor, on a leash that fits how well the last gain was foreseen."""
        walk = self.told(found)
        if self.state is None:
            return replace(walk, state=found)
        gained = found.objective - self.state.objective
        share = gained / self.hope if self.hope > 0 else 1.0
        if gained < 0:
            return replace(walk, rejected=walk.rejected + 1, leash=_tighter(self.leash))
        if share < POOR:
            return replace(walk, state=found, leash=_tighter(self.leash))
        return replace(walk, state=found, leash=_looser(self.leash) if share > GOOD else self.leash)

    def _reached(self) -> "_Reached | None":
        """Where the sample leads from the best anchor; None if astray."""
        assert self.rung is not None
        with self.rung.cost.timed(), self.rung.stage():
            return self._reached_on(self.rung)

    def _reached_on(self, rung: Rung) -> "_Reached | None":
        """The same, by way of ``rung``."""
        found = self.best
        (own,) = rung.climb([_Once(rung.setting, Stop(1), Trial(found.mixture))])
        if found.statistics.sums.shape != own.best.statistics.sums.shape:
            return None
        held, setting = self._held(own.best)
        target = max(self.fine, COARSE * min(self.likely, rung.resolution(found.mixture)))
        walk: Walk = Squarem.of(setting, found.mixture, Stop(ITERATIONS, target=target))
        degenerate = set(found.vanished + found.collapsed)
        while walk.trial is not None and not (walk.state is not None and rung.cost.deadline.passed):
            (walk,) = rung.climb([walk], STRETCH)
            lost = set(walk.best.vanished + walk.best.collapsed) - degenerate
            if lost or walk.fell or not np.isfinite(walk.best.objective):
                return None  # what the anchor takes away may be all that held a component
        assert isinstance(walk, Squarem)
        best, weight = walk.best, setting.weight
        ends = [self._form(each) for each in (found.mixture, best.mixture)]
        before, after = (held.linear(form) + form.common_sum(held.total) for form in ends)
        gain = max(0.0, best.objective - walk.trace[0] - (after - before) / weight)
        short = self.leash * max((*walk.lengths, *self.lengths), default=1.0)
        left = gain * (1 + short) ** 2 / (1 + 2 * short)
        left += walk.likely if np.isfinite(walk.likely) else gain
        return _Reached(Trial(best.mixture, best.vanished, best.collapsed), gain, left)

    def _form(self, mixture: Mixture) -> Form:
        centre = KERNELS[self.setting.kernel].centres
        return Form.of(mixture, self.setting.reg, self.setting.spread, centre)

    def _held(self, own: State) -> tuple[Anchor, Setting]:
        """What the leash adds to the sample, and the setting with that and the anchor.

        ``own`` is what the sample says of the anchor's mixture.
        """
        assert self.rung is not None
        setting, found = self.rung.setting, self.best
        layout, about = self._form(found.mixture).layout, found.statistics.about
        share = setting.weight / self.setting.weight
        whole = found.statistics.sums * share
        total = more = leashed = None
        if self.setting.total is not None and setting.total is not None:
            leashed = self.setting.total * share * self.leash
            total = self.setting.total * share + leashed
            more = total - setting.total
        held = Anchor(layout, whole * self.leash, about, leashed)
        anchor = Anchor(layout, whole - own.statistics.sums + held.sums, about, more)
        return held, replace(setting, anchor=anchor, total=total, precision="float64")


def _tighter(leash: float) -> float:
    return max(TIGHTER * leash, LOOSEST)


def _looser(leash: float) -> float:
    return leash / TIGHTER if leash > LOOSEST else 0.0


@dataclass(frozen=True)
class _Reached:
    """Where the sample leads, what that should gain, and what there is to gain at all."""

    trial: Trial
    gain: float
    left: float


@dataclass(frozen=True)
class _Once(Walk):
    """One sweep, and no more."""

    def advance(self, found: State) -> Walk:
        return replace(self.told(found), state=found).ended(False)
