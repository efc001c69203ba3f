"""From a sample to all the rows, in a handful of sweeps.

**The ladder.**  A fit to n rows is off from a fit to all N by about p / 2 (1 / n - 1 / N) in the
mean log-likelihood (p free parameters), whatever it costs to find (Meek, Thiesson and Heckerman,
The learning-curve sampling method applied to model-based clustering, 2002).  So the climb begins
on a small sample, goes on only as far as that can tell, and goes over to a larger one, each a
subset of the next: the uniform sample that the survey brought home.

**The anchor.**  At the top of the ladder the sample still serves.  Let S_n(theta) be its
statistics, per unit weight, and S_N those of all rows.  One sweep of all rows at an anchor theta_c
says how the two differ there, and

    S_n(theta) + [S_N(theta_c) - S_n(theta_c)]

stands in for S_N(theta) near the anchor, at the cost of a pass over the sample: the control
variate of stochastic EM with variance reduction (Chen, Zhu, Teh and Zhang, Stochastic expectation
maximization with variance reduction, 2018), with the whole sample for a batch.  What it adds is
linear in the natural parameters, so EM with it has an objective of its own that never falls
(``kernel.Anchor``), and converges to some theta*, the next anchor.  Where theta* = theta_c, that
is the fixed point of EM on all rows, exactly.  The way from anchor to anchor is Newton's method
with the sample's information matrix for that of all rows, so the error shrinks by a factor of the
order of sqrt(p / n) in each sweep of all rows.

**When to stop.**  The gain of the stand-in from theta_c to theta* is then an estimate of the whole
gain left on all rows at theta_c: Newton's decrement.  When it is below the target, theta_c is
returned, which has been swept.  Should an anchor turn out worse than the one before, or not half as
far from the end as that, the sample is a poor guide: SQUAREM on all rows goes on from the best.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.covariance import Array
from dgmm.em import Setting, State, Stop, Trial, Walk, run
from dgmm.kernel import Anchor, Form
from dgmm.mixture import Mixture
from dgmm.native import KERNELS
from dgmm.squarem import Squarem
from dgmm.survey import Sample
from dgmm.sweep import Sweep

FEW: Final = 20
"""How many rows for each free parameter tell good starts from bad ones."""

ENOUGH: Final = 50
"""How many rows for each free parameter a sample must have to be a guide."""

AMPLE: Final = 200
"""How many rows for each free parameter are as many as a sample needs."""

LEAST: Final = 20_000
"""The rows of the highest rung, where there are few parameters."""

SMALL: Final = 4
"""A rung is at most this part of the one above, and the highest of all rows."""

RUNG_ITERATIONS: Final = 300
"""Iterations at most on one rung."""

STRETCH: Final = 10
"""Sweeps of a sample between two looks at where they lead."""

FINE: Final = 0.02
"""How exactly to end between two anchors: this fraction of p / (2 N)."""

Nearby = Callable[[Array, Array | None], Sweep]
"""The sweep over rows (n, D) and their weights (n,), in the memory of this process."""


@dataclass
class Cost:
    """Rows times mixtures evaluated in memory: the one thing here that counts as it goes."""

    rows: int = 0


def over(sample: Sample, nearby: Nearby) -> Sweep:
    """The sweep over a ``sample``."""
    return nearby(sample.rows, None if (sample.weights == 1).all() else sample.weights)


def within(setting: Setting, sample: Sample) -> Setting:
    """The ``setting`` for the rows of a ``sample`` alone."""
    total = None
    if setting.total is not None:
        x = setting.frame.rows(sample.rows, np.empty(sample.rows.shape[::-1]))
        total = (x * sample.weights) @ x.T
    return replace(setting, weight=float(sample.weights.sum()), total=total)


@dataclass(frozen=True)
class Rung:
    """A sample to fit to.

    Attributes
    ----------
    sample : Sample
        Its weights make it stand for all rows.
    sweep : Sweep
    setting : Setting
    nearby : Nearby
        To sweep over parts of it.
    cost : Cost
        Counts what is done here.
    """

    sample: Sample
    sweep: Sweep
    setting: Setting
    nearby: Nearby
    cost: Cost

    @classmethod
    def of(cls, sample: Sample, setting: Setting, nearby: Nearby, cost: Cost) -> "Rung":
        """The rung of a ``sample``."""
        return cls(sample, over(sample, nearby), within(setting, sample), nearby, cost)

    def part(self, places: NDArray[np.intp], shares: Array) -> "Rung":
        """The rows at ``places`` (m,), with weights multiplied by ``shares`` (m,)."""
        sample = self.sample
        part = Sample(
            sample.size,
            sample.keys[places],
            sample.numbers[places],
            sample.rows[places],
            sample.weights[places] * shares,
        )
        return Rung.of(part, self.setting, self.nearby, self.cost)

    def climb(self, walks: list[Walk], sweeps: int = RUNG_ITERATIONS + 1) -> list[Walk]:
        """The walks after so many sweeps more, or at their ends."""
        for _, reached in zip(range(sweeps), run(self.sweep, walks), strict=False):
            self.cost.rows += len(self.sample.rows) * sum(w.trial is not None for w in walks)
            walks = list(reached)
        return walks

    def resolution(self, mixture: Mixture) -> float:
        """p / (2 n), the statistical resolution: what the rows can't tell from nothing."""
        return mixture.free_parameters / (2 * len(self.sample.rows))


@dataclass
class Samples:
    """The survey's sample and parts of it, each made once and remembered.

    Attributes
    ----------
    sample : Sample
    rows : int
        How many rows it stands for.
    nearby : Nearby
    cost : Cost
    """

    sample: Sample
    rows: int
    nearby: Nearby
    cost: Cost = field(default_factory=Cost)
    _parts: dict[int, tuple[Sample, Sweep]] = field(default_factory=dict)

    def rung(self, size: int, setting: Setting) -> Rung:
        """So many rows, to be kept: to fit to under ``setting``."""
        if size not in self._parts:
            sample = self.sample.first(size)
            self._parts[size] = sample, over(sample, self.nearby)
        sample, sweep = self._parts[size]
        return Rung(sample, sweep, within(setting, sample), self.nearby, self.cost)

    def track(self, parameters: int, setting: Setting) -> Rung:
        """A few rows for each of so many parameters, to be used once."""
        few = int(np.clip(self.rows // 50, FEW * parameters, ENOUGH * parameters))
        sample = self.sample.first(min(few, len(self.sample.keys)))
        return Rung.of(sample, setting, self.nearby, self.cost)

    def ladder(self, parameters: int, setting: Setting) -> list[Rung]:
        """The rungs for so many parameters, the lowest first; none where there are too few rows."""
        size, sizes = len(self.sample.keys), []
        ample = max(AMPLE * parameters, LEAST)
        while size >= ENOUGH * parameters:
            if SMALL * size <= self.rows and (size < SMALL * ample):
                sizes.append(size)
            size //= SMALL
        return [self.rung(size, setting) for size in sizes[::-1]]


def climb(ladder: list[Rung], start: Mixture) -> Squarem:
    """The walk at the top of the ``ladder``, which has a rung at least."""
    lengths: tuple[float, ...] = ()
    walk: Walk
    for rung in ladder:
        stop = Stop(RUNG_ITERATIONS, target=0.5 * rung.resolution(start))
        (walk,) = rung.climb([Squarem.of(rung.setting, start, stop, lengths)])
        assert isinstance(walk, Squarem)
        start, lengths, top = walk.best.mixture, walk.lengths, walk
    return top


@dataclass(frozen=True)
class Anchored(Walk):
    """The walk from anchor to anchor.

    Attributes
    ----------
    rung : Rung
        The top of the ladder.
    fine : float
        How exactly to end between two anchors.
    lengths : tuple of float
        Of the steps that led here.
    """

    rung: Rung | None = None
    fine: float = 0.0
    lengths: tuple[float, ...] = ()

    @classmethod
    def of(cls, setting: Setting, climbed: Squarem, stop: Stop, rung: Rung, rows: int) -> Self:
        """The walk that begins where the ladder was ``climbed``; ``rows`` are all there are."""
        start = climbed.best.mixture
        gap = rung.resolution(start)
        fine = FINE * start.free_parameters / (2 * rows)
        walk = cls(setting, stop, None, gap=gap, rung=rung, fine=fine, lengths=climbed.lengths)
        return walk.trying(Trial(start), far=gap > 10 * setting.single_bound(start))

    def advance(self, found: State) -> Walk:
        assert self.rung is not None
        walk = self.told(found)
        if self.state is not None and found.objective < self.state.objective:
            return Squarem.after(replace(walk, rejected=walk.rejected + 1), self.lengths)
        walk = replace(walk, state=found)
        guide = _stand_in(self.rung, found, self.setting, self.fine)
        if guide is None:
            return Squarem.after(walk, self.lengths)
        gain = guide.best.objective - guide.trace[0]
        gap = gain + (guide.gap if np.isfinite(guide.gap) else gain)
        walk = replace(walk, gap=gap)
        settled = 0 <= walk.change < self.stop.tol
        if not found.bound and (gap < self.stop.target or settled):
            return walk.ended(True)
        if walk.spent:
            return walk.ended(False)
        if self.state is not None and gap > self.gap / 2 and not self.best.bound:
            return Squarem.after(walk, self.lengths)
        best = guide.best
        return walk.trying(Trial(best.mixture, best.vanished, best.collapsed), far=False)


def _stand_in(rung: Rung, found: State, setting: Setting, fine: float) -> Walk | None:
    """The walk on the ``rung`` anchored at ``found``, to its end; none if it leads astray."""
    mixture = found.mixture
    (own,) = rung.climb([_Once(rung.setting, Stop(1), Trial(mixture))])
    if found.statistics.sums.shape != own.best.statistics.sums.shape:
        return None
    form = Form.of(mixture, setting.reg, setting.spread, KERNELS[setting.kernel].centres)
    total = more = None
    if setting.total is not None and rung.setting.total is not None:
        total = setting.total * (rung.setting.weight / setting.weight)
        more = total - rung.setting.total
    anchor = Anchor.between(found.statistics, own.best.statistics, form.layout, more)
    anchored = replace(rung.setting, anchor=anchor, total=total, precision="float64")
    walk: Walk = Squarem.of(anchored, mixture, Stop(RUNG_ITERATIONS, target=fine))
    degenerate = set(found.vanished + found.collapsed)
    while walk.trial is not None:
        (walk,) = rung.climb([walk], STRETCH)
        best = walk.best
        lost = set(best.vanished + best.collapsed) - degenerate
        if lost or walk.fell or not np.isfinite(best.objective):
            return None  # what the anchor takes away may be all that held a component
    return walk


@dataclass(frozen=True)
class _Once(Walk):
    """One sweep, and no more."""

    def advance(self, found: State) -> Walk:
        return replace(self.told(found), state=found).ended(False)
