"""Quasi-Newton: the last steps to an optimum, over all rows or a large sample.

EM's step is a gradient, in coordinates where the complete data have the identity for information
(squarem.py): so L-BFGS, with that step for the gradient, learns how much longer the steps have to
be in the directions that the rows say little about, and EM's is where it begins (Jamshidian and
Jennrich, Acceleration of the EM algorithm by using quasi-Newton methods, 1997; Liu and Nocedal, On
the limited memory BFGS method for large scale optimization, 1989).  A pass gives both the objective
and the gradient, and each pass is a step.

**Where parameters are few**, it need not learn it: the observed information of a sample of rows is
where it begins (information.py), with its eigenvalues no lower than a floor, which goes up and down
with how well gains are foreseen, as the damping of Levenberg and Marquardt does.

**Safety.**  A trial is taken only if the objective is not below what there is.  Else what it found
still tells of the curvature, and the next trial knows it; after a second fall EM's own step is
made, which cannot fall; and where that leads farther than steps may go.

**When to stop.**  Half the gradient times the step is what Newton's method expects to gain.  The
solver ends when that, ``CAREFUL`` times, is below the target twice on end.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.information import Information
from dgmm.em.model import Trial
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.em.squarem import coordinates, mixture_at
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

PAIRS: Final = 20
"""Steps, and changes of the gradient along them, that are remembered."""

ROOM: Final = 1 << 23
"""Numbers that all these may have together, but for the last three steps."""

CAREFUL: Final = 3.0
"""How many times the gain that is foreseen may be left, before a solver may end."""

FAR: Final = 20.0
"""Single precision serves while so many times the target is left."""

LONGEST: Final = 2.0
NEWTON: Final = 0.5
"""How long a step may be, in standard deviations of the parameters of one row: of L-BFGS, and with
the information of a sample."""

STRETCH: Final = 30.0
"""By how much the first guess at a step may be longer than EM's."""

FLOOR: Final = (1e-3, 0.02, 1.0)
"""The least, the first and the largest floor of the information's eigenvalues."""

POOR: Final = 0.25
GOOD: Final = 0.7
"""Shares of a foreseen gain that raise the floor and lower it."""

SURE: Final = 0.05
"""A gap so far below the target need not be seen twice."""

TRUSTED: Final = 12
"""Passes after which the information of a sample has done what it can."""


@dataclass(frozen=True)
class QuasiNewton(Solver):
    """The quasi-Newton solver.

    Attributes
    ----------
    origin : Mixture or None
        What coordinates are seen from: the start, or that of the ``information``.
    steps, changes : tuple of (M,)
        The last steps, and by how much the gradient fell along each.
    information : Information or None
        Of a sample, near the start.
    floor : float
        Of its eigenvalues.
    foreseen : float
        What the trial should gain; 0 for EM's step.
    mapped : bool
        Whether the trial is the EM image of the best mixture.
    again : bool
        Whether the trial is the best mixture once more, in double precision.
    falls, cycles_below_target : int
        Trials on end that were worse, and gaps on end below the target.
    here, gradient : (M,) or None
        Where the best mixture is, and the step that EM makes from there.
    image : Trial or None
        Where that leads.
    """

    origin: Mixture | None = None
    steps: tuple[Array, ...] = ()
    changes: tuple[Array, ...] = ()
    information: Information | None = None
    floor: float = FLOOR[1]
    foreseen: float = 0.0
    mapped: bool = False
    again: bool = False
    falls: int = 0
    cycles_below_target: int = 0
    here: Array | None = None
    gradient: Array | None = None
    image: Trial | None = None

    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> RunState:
        origin = start if self.information is None else self.information.origin
        return RunState.begin(context, start, stop, replace(self, origin=origin))

    def step(self, run: RunState, state: State) -> RunState:
        point = self._point(run, state)
        if run.state is None or self.again:
            solver = replace(self._at(point), again=False)
            return solver._next(replace(run.record_again(state), state=state))
        after = run.record(state, mapped=self.mapped)
        gained = state.objective - run.state.objective
        learnt = self._learnt(point)
        if gained >= 0 and point.step is not None:
            solver = replace(learnt._at(point), falls=0, floor=self._refloored(gained))
            return solver._next(replace(after, state=state))
        after = replace(after, rejected=run.rejected + 1)
        floor = min(4 * self.floor, FLOOR[2])
        solver = replace(self, falls=self.falls + 1, floor=floor, cycles_below_target=0)
        if after.budget_exhausted:
            return after.by(solver).finish(False)
        if self.mapped:  # EM's own step gains nothing: rounding is all that is left
            return solver._settled(after)
        if solver.falls > 1 or learnt is self:
            return solver._forgetful._plain(after)
        return replace(solver, steps=learnt.steps, changes=learnt.changes)._next(after)

    def reach(self, run: RunState) -> float:
        return run.best.objective + run.gap_upper

    def _refloored(self, gained: float) -> float:
        if not self.foreseen > 0:
            return self.floor
        share = gained / self.foreseen
        if share > GOOD:
            return max(self.floor / 3, FLOOR[0])
        return min(2 * self.floor, FLOOR[2]) if share < POOR else self.floor

    def _point(self, run: RunState, state: State) -> "_Point":
        """A ``state`` in coordinates, as far as rounding allows that."""
        assert self.origin is not None
        image, prior = run.context.m_step(state), run.context.model.prior
        try:
            here = coordinates(state.mixture, self.origin, self._live(state), prior)
            there = coordinates(image.mixture, self.origin, self._live(state), prior)
        except np.linalg.LinAlgError:
            return _Point(image)
        if not (np.isfinite(state.objective) and np.isfinite(there).all()):
            return _Point(image)
        return _Point(image, here, there - here)

    def _live(self, state: State) -> NDArray[np.bool_]:
        assert self.origin is not None
        live: NDArray[np.bool_] = (state.mixture.weights > 0) & (self.origin.weights > 0)
        return live

    def _at(self, point: "_Point") -> Self:
        """The solver that stands at ``point``."""
        return replace(self, here=point.here, gradient=point.step, image=point.image)

    @property
    def _forgetful(self) -> Self:
        """The solver without what it has learnt."""
        return replace(self, steps=(), changes=())

    @np.errstate(over="ignore", invalid="ignore")
    def _learnt(self, point: "_Point") -> Self:
        """The solver that also knows the curvature between where it stands and ``point``."""
        if point.here is None or point.step is None or self.here is None or self.gradient is None:
            return self
        step, change = point.here - self.here, self.gradient - point.step
        if not step @ change > 1e-6 * np.linalg.norm(step) * np.linalg.norm(change):
            return self
        most = _pairs(len(step))
        steps, changes = (*self.steps, step)[-most:], (*self.changes, change)[-most:]
        return replace(self, steps=steps, changes=changes)

    @np.errstate(over="ignore", invalid="ignore")
    def _next(self, run: RunState) -> RunState:
        """The ``run`` with the next trial, or at its end."""
        if self.here is None or self.gradient is None:
            return run.by(self).finish(False) if run.budget_exhausted else self._plain(run)
        solver, step = self, self._directed(self.gradient)
        decrement = 0.5 * float(self.gradient @ step)
        if not decrement > 0 and self.steps:
            solver = self._forgetful
            step = solver._directed(self.gradient)
            decrement = 0.5 * float(self.gradient @ step)
        if not np.isfinite(decrement):
            return run.by(solver).finish(False) if run.budget_exhausted else solver._plain(run)
        gap, target = CAREFUL * max(decrement, 0.0), run.stop.target
        run = replace(run, gap_upper=gap, gap_estimate=max(decrement, 0.0))
        below = self.cycles_below_target + 1 if gap < target else 0
        solver = replace(solver, cycles_below_target=below)
        still = not self.falls and 0 <= run.change < run.stop.tol
        if below > 1 or still or gap < SURE * target or not gap:
            return solver._settled(run)
        if run.budget_exhausted:
            return run.by(solver).finish(False)
        if solver.information is not None and len(run.trace) >= TRUSTED:
            solver = replace(solver, information=None)
        return solver._stepped(run, step, decrement)

    def _stepped(self, run: RunState, step: Array, decrement: float) -> RunState:
        """With a mixture a ``step`` away on trial, or as far as steps may go."""
        assert self.here is not None
        assert self.image is not None
        assert self.origin is not None
        assert self.gradient is not None
        size = float(np.linalg.norm(step))
        longest = LONGEST if self.information is None else NEWTON
        if not np.isfinite(size) or np.linalg.norm(self.gradient) > longest:
            return self._forgetful._plain(run)
        share = min(1.0, longest / size) if size > 0 else 1.0
        like, live = self.image.mixture, self._live(run.best)
        try:
            place = self.here + share * step
            trial = mixture_at(place, like, self.origin, live, run.context.model)
        except np.linalg.LinAlgError:
            return self._forgetful._plain(run)
        foreseen = 2 * decrement * share * (1 - share / 2)
        far = run.gap_upper > max(FAR * run.stop.target, 4 * run.bound)
        return run.by(replace(self, foreseen=foreseen, mapped=False)).propose(trial, far)

    def _settled(self, run: RunState) -> RunState:
        """The ``run`` at its end; if that is in single precision, it is swept again in double."""
        if not run.best.bound:
            return run.by(self).finish(True)
        return run.by(replace(self, again=True, mapped=False)).repeat()

    def _plain(self, run: RunState) -> RunState:
        """With EM's step on trial."""
        assert self.image is not None
        return run.by(replace(self, mapped=True, foreseen=0.0)).propose(self.image, far=False)

    def _directed(self, gradient: Array) -> Array:
        """The inverse of the curvature, as far as it is known, times the ``gradient``."""
        if not self.steps and self.information is None:
            return gradient.copy()
        inner = [float(s @ y) for s, y in zip(self.steps, self.changes, strict=True)]
        pairs = list(zip(self.steps, self.changes, inner, strict=True))
        left, along = gradient.copy(), []
        for step, change, product in reversed(pairs):
            along.append(float(step @ left) / product)
            left -= along[-1] * change
        if self.information is not None:
            left = self.information.solve(left, self.floor)
        else:
            _, change, product = pairs[-1]
            left *= min(max(product / float(change @ change), 1.0), STRETCH)
        for (step, change, product), part in zip(pairs, reversed(along), strict=True):
            left += step * (part - float(change @ left) / product)
        return left


def _pairs(parameters: int) -> int:
    """How many steps are remembered."""
    return int(np.clip(ROOM // (2 * parameters), 3, PAIRS))


def nbytes(parameters: int) -> int:
    """What a solver takes at most: what it remembers, a few mixtures, statistics."""
    return 8 * (2 * _pairs(parameters) + 20) * parameters


@dataclass(frozen=True)
class _Point:
    """Where EM leads from a mixture; its coordinates (M,) and EM's step (M,), if there are any."""

    image: Trial
    here: Array | None = None
    step: Array | None = None
