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

from dgmm.em.evaluate import FitContext, State, Trial, m_step
from dgmm.em.information import Information
from dgmm.em.solver import Solver, StopRule
from dgmm.em.squarem import coordinates, mixture_at
from dgmm.model.covariance_model import Array
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
        What coordinates are seen from.
    steps, changes : tuple of (M,)
        The last steps, and by how much the gradient fell along each.
    information : Information or None
        Of a sample, near the start.
    floor : float
        Of its eigenvalues.
    foreseen : float
        What the trial should gain; 0 for EM's step.
    mapped : bool
        Whether the trial is the EM image of ``state``.
    again : bool
        Whether the trial is ``state``'s mixture once more, in double precision.
    repeated : int
        The sweeps that were made again.
    falls, cycles_below_target : int
        Trials on end that were worse, and gaps on end below the target.
    here, gradient : (M,) or None
        Where ``state`` is, and the step that EM makes from there.
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
    repeated: int = 0
    falls: int = 0
    cycles_below_target: int = 0
    here: Array | None = None
    gradient: Array | None = None
    image: Trial | None = None

    @classmethod
    def of(
        cls,
        context: FitContext,
        start: Mixture,
        stop: StopRule,
        information: Information | None = None,
        floor: float = FLOOR[1],
        single: bool = True,
    ) -> Self:
        """The solver that begins at ``start``; ``information`` is seen from its ``origin``."""
        origin = start if information is None else information.origin
        solver = cls(context, stop, None, origin=origin, information=information, floor=floor)
        return solver.propose(Trial(start), far=single)

    def step(self, found: State) -> "QuasiNewton":
        seen = self._placed(found)
        if self.state is None or self.again:
            solver = replace(self, state=None).record(found)
            return replace(solver, trace=self.trace, again=False)._at(found, seen)._next()
        solver = self.record(found, mapped=self.mapped)
        gained = found.objective - self.state.objective
        learnt = self._learnt(seen)
        if gained >= 0 and seen is not None:
            solver = replace(solver, falls=0, floor=self._refloored(gained))
            solver = replace(solver, steps=learnt.steps, changes=learnt.changes)
            return solver._at(found, seen)._next()
        solver = replace(
            solver, rejected=self.rejected + 1, falls=self.falls + 1, cycles_below_target=0
        )
        solver = replace(solver, floor=min(4 * self.floor, FLOOR[2]))
        if solver.budget_exhausted:
            return solver.finish(False)
        if self.mapped:  # EM's own step gains nothing: rounding is all that is left
            return solver._exact() or solver.finish(True)
        if solver.falls > 1 or learnt is self:
            return replace(solver, steps=(), changes=())._plain()
        return replace(solver, steps=learnt.steps, changes=learnt.changes)._next()

    @property
    def float32_passes(self) -> int:
        return super().float32_passes + self.repeated

    def beaten(self, objective: float) -> bool:
        return self.best.objective + self.gap_upper < objective

    def _refloored(self, gained: float) -> float:
        if not self.foreseen > 0:
            return self.floor
        share = gained / self.foreseen
        if share > GOOD:
            return max(self.floor / 3, FLOOR[0])
        return min(2 * self.floor, FLOOR[2]) if share < POOR else self.floor

    def _placed(self, state: State) -> "_Seen | None":
        """A state as coordinates see it; None if rounding forbids that."""
        assert self.origin is not None
        image = m_step(state.statistics, self.context, state.mixture)
        try:
            here = coordinates(state.mixture, self.origin, self._live(state))
            there = coordinates(image.mixture, self.origin, self._live(state))
        except np.linalg.LinAlgError:
            return None
        if not (np.isfinite(state.objective) and np.isfinite(there).all()):
            return None
        return _Seen(here, there - here, image)

    def _live(self, state: State) -> NDArray[np.bool_]:
        assert self.origin is not None
        live: NDArray[np.bool_] = (state.mixture.weights > 0) & (self.origin.weights > 0)
        return live

    def _at(self, state: State, seen: "_Seen | None") -> Self:
        """The solver that stands at a ``state``."""
        image = (
            m_step(state.statistics, self.context, state.mixture) if seen is None else seen.image
        )
        here, gradient = (None, None) if seen is None else (seen.here, seen.gradient)
        return replace(self, state=state, here=here, gradient=gradient, image=image)

    @np.errstate(over="ignore", invalid="ignore")
    def _learnt(self, seen: "_Seen | None") -> Self:
        """With the curvature between where the solver stands and what it has ``seen``, if any."""
        if seen is None or self.here is None or self.gradient is None:
            return self
        step, change = seen.here - self.here, self.gradient - seen.gradient
        if not step @ change > 1e-6 * np.linalg.norm(step) * np.linalg.norm(change):
            return self
        most = _pairs(len(step))
        steps, changes = (*self.steps, step)[-most:], (*self.changes, change)[-most:]
        return replace(self, steps=steps, changes=changes)

    @np.errstate(over="ignore", invalid="ignore")
    def _next(self) -> "QuasiNewton":
        """With the next trial, or at its end."""
        if self.here is None or self.gradient is None:
            return self.finish(False) if self.budget_exhausted else self._plain()
        solver = self
        step = solver._directed(self.gradient)
        decrement = 0.5 * float(self.gradient @ step)
        if not decrement > 0 and solver.steps:
            solver = replace(solver, steps=(), changes=())
            step = solver._directed(self.gradient)
            decrement = 0.5 * float(self.gradient @ step)
        if not np.isfinite(decrement):
            return solver.finish(False) if solver.budget_exhausted else solver._plain()
        gap, target = CAREFUL * max(decrement, 0.0), self.stop.target
        cycles_below_target = self.cycles_below_target + 1 if gap < target else 0
        solver = replace(
            solver,
            gap_upper=gap,
            gap_estimate=max(decrement, 0.0),
            cycles_below_target=cycles_below_target,
        )
        settled = not self.falls and 0 <= self.change < self.stop.tol
        if cycles_below_target > 1 or settled or gap < SURE * target or not gap:
            return solver._exact() or solver.finish(True)
        if solver.budget_exhausted:
            return solver.finish(False)
        if solver.information is not None and len(solver.trace) >= TRUSTED:
            solver = replace(solver, information=None)
        return solver._stepped(step, decrement)

    def _stepped(self, step: Array, decrement: float) -> "QuasiNewton":
        """With a mixture a ``step`` away on trial, or as far as steps may go."""
        assert self.here is not None
        assert self.image is not None
        assert self.origin is not None
        assert self.gradient is not None
        size = float(np.linalg.norm(step))
        longest = LONGEST if self.information is None else NEWTON
        if not np.isfinite(size) or np.linalg.norm(self.gradient) > longest:
            return replace(self, steps=(), changes=())._plain()
        share = min(1.0, longest / size) if size > 0 else 1.0
        like, live = self.image.mixture, self._live(self.best)
        try:
            place = self.here + share * step
            trial = mixture_at(place, like, self.origin, live, self.context.reg)
        except np.linalg.LinAlgError:
            return replace(self, steps=(), changes=())._plain()
        foreseen = 2 * decrement * share * (1 - share / 2)
        far = self.gap_upper > max(FAR * self.stop.target, 4 * self.bound)
        return replace(self, foreseen=foreseen, mapped=False).propose(trial, far)

    def _exact(self) -> "QuasiNewton | None":
        """The solver that sees its mixture again in double precision; None if it has."""
        if not self.best.bound:
            return None
        state = self.best
        trial = Trial(state.mixture, state.empty, state.singular)
        solver = replace(self, again=True, mapped=False, repeated=self.repeated + 1)
        return solver.propose(trial, far=False)

    def _plain(self) -> "QuasiNewton":
        """With EM's step on trial."""
        assert self.image is not None
        return replace(self, mapped=True, foreseen=0.0).propose(self.image, far=False)

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
class _Seen:
    """Coordinates (M,) of a mixture, the step (M,) that EM makes from there, and where it leads."""

    here: Array
    gradient: Array
    image: Trial
