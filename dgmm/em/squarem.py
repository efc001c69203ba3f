"""SQUAREM: EM with steps as long as the last two EM steps show them to be worth.

After Varadhan and Roland (Simple and globally convergent methods for accelerating the convergence
of any EM algorithm, 2008), scheme S3: with theta_1 = M(theta_0) and theta_2 = M(theta_1), where M
is one EM iteration, r = theta_1 - theta_0 and u = (theta_2 - theta_1) - r,

    theta' = theta_0 - 2 a r + a^2 u,    a = -|r| / |u|

A cycle costs two sweeps, of theta_1 and of theta': each gives both an objective and the next EM
step, and theta_2 is never swept unless theta' fails.

**Coordinates.**  Parameters are seen from theta_1: logarithms of weights, means and covariances
where each component of theta_1 is standard normal, each scaled by the root of its weight
(``Covariances.coordinates``).  So any step gives a mixture, lengths are about those of the
Fisher information, and the way does not depend on the units of the features.

**Safety.**  theta' is taken only if its objective is not below that of theta_1; otherwise the
solver goes on from theta_2, as EM would, and the next steps are shorter.  Unless iterations run
out, the solver ends at a theta_1, the EM image of a point not worse than any before; and never at a
point worse than the theta_1 before it.  So the objective of what is returned is never below that of
an EM step from where the solver stood.

**When to stop.**  With rho the eigenvalues of the derivative of M at the optimum, the EM step r
raises the objective by about sum r^2 (1 + rho) / 2, and the whole way left is sum r^2 / (1 - rho) /
2, in the coordinates where the complete-data information is the identity.  Now |a| is about
1 / (1 - rho) for those rho that matter in a cycle, so the longest of the last ``MEMORY`` cycles'
tells of the slowest.  With that for a, the gain left is likely to be that of the last EM step times
(a - 1)^2 / (2 a - 1), and no less than the gain of the last cycle, for that formula knows nothing
of a way that bends.  But |a| is a mean over directions: the careful estimate takes ``SLOWER`` times
as much for a.  The solver ends when that is below the target in two cycles on end, with lengths of
``LEARNT`` cycles known, be it from a solver on a sample; or where an EM step gains nothing, or less
than ``tol``.  It is an estimate: a saddle, or a way slower than any seen, it does not know of.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Model, Trial, numbers
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.model.arrays import Array, Mask
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Prior

MEMORY: Final = 6
"""How many cycles to remember the step lengths of."""

LEARNT: Final = 4
"""How many lengths must be known for the largest to say how slow the way is."""

SLOWER: Final = 2.0
"""How many times the longest |a| the slowest direction's is taken to be, before the end."""

LONGEST: Final = 4.0
"""The first limit on |a|; a good step as long as that raises it fourfold, a bad one lowers it."""

THIN: Final = 2.0
"""By how much the penalty of an extrapolation's thinnest component may grow, for each feature."""

JUMP: Final = 5.0
"""The most by which the logarithm of a weight may change in an extrapolation."""

LEAST_LOG: Final = -700.0
"""The least logarithm of the weight of noise, as coordinates have it."""


@dataclass(frozen=True)
class Squarem(Solver):
    """The accelerated solver.

    Attributes
    ----------
    base : State or None
        theta_0, once it has been swept.
    fallback : Trial or None
        theta_2, while theta' is on trial.
    longest : float
        The limit on |a|.
    taken : float
        The |a| of theta' while it is on trial.
    lengths : tuple of float
        The last cycles' |a|; at first, those of a run that led to the start.
    level : float
        The objective at the last theta_1.
    cycles_below_target : int
        For how many cycles on end the gap has been below the target.
    """

    base: State | None = None
    fallback: Trial | None = None
    longest: float = LONGEST
    taken: float = 1.0
    lengths: tuple[float, ...] = ()
    level: float = -np.inf
    cycles_below_target: int = 0

    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> RunState:
        return RunState.begin(context, start, stop, self)

    def take_over(self, run: RunState) -> RunState:
        """The ``run`` of another solver, by this one from where it stands."""
        return self._mapped(run, run.best)

    def step(self, run: RunState, state: State) -> RunState:
        if self.fallback is not None:
            return self._judged(run, state, self.fallback)
        after = run.record(state, mapped=True).by(self, state=state)
        if self.base is not None:
            return self._extrapolated(after, self.base, state)
        return after.finish(False) if after.budget_exhausted else self._mapped(after, state)

    def reach(self, run: RunState) -> float:
        return np.inf

    def _judged(self, run: RunState, state: State, fallback: Trial) -> RunState:
        """After the sweep of theta'."""
        after = run.record(state)
        if state.objective >= run.best.objective:
            solver = replace(self, fallback=None, longest=self._longer)
            after = after.by(solver, state=state)
            return after.finish(False) if after.budget_exhausted else solver._mapped(after, state)
        solver = replace(self, fallback=None, longest=max(1.0, self.taken / 4), base=None)
        after = after.by(solver, rejected=run.rejected + 1)
        if after.budget_exhausted:
            return after.finish(False)
        return after.propose(fallback, _is_far(run))

    @property
    def _longer(self) -> float:
        """The limit on |a| after a step that was good."""
        return 4 * self.longest if self.taken == self.longest else self.longest

    def _mapped(self, run: RunState, base: State) -> RunState:
        """With theta_1 on trial."""
        trial = run.context.m_step(base)
        return run.by(replace(self, base=base)).propose(trial, _is_far(run))

    def _extrapolated(self, run: RunState, base: State, state: State) -> RunState:
        """After the sweep of theta_1: stop, or put theta' on trial."""
        fallback = run.context.m_step(state)
        ends = base.mixture, state.mixture, fallback.mixture
        step = extrapolate(*ends, self.longest, run.context.model)
        gain, target = state.objective - base.objective, run.stop.target
        lengths = (*self.lengths, step.length)[-MEMORY:]
        hidden = 2 * max(base.bound, state.bound)  # what single precision may hide of it
        brought, longest = state.objective - self.level, max(lengths)
        gap_estimate = max(_left(max(0.0, gain) + hidden, longest), brought)
        gap = max(_left(max(0.0, gain) + hidden, SLOWER * longest), brought)
        exact = run.float64_passes > 1 and not base.bound
        known = exact and len(lengths) >= LEARNT
        below = self.cycles_below_target + 1 if known and gap < target else 0
        memory: dict[str, Any] = {
            "lengths": lengths,
            "level": state.objective,
            "cycles_below_target": below,
        }
        solver = replace(self, base=None, **memory)
        run = run.by(solver, gap_upper=gap, gap_estimate=gap_estimate)
        smallest = min(state.rounding, target)
        still = abs(gain) <= smallest and smallest > 0  # EM's fixed point
        settled = below > 1 or (exact and (still or abs(gain) < run.stop.tol))
        if settled or run.budget_exhausted or not np.isfinite(state.objective):
            return run.finish(settled)
        solver = replace(solver, taken=min(step.length, self.longest))
        if step.mixture is None:
            solver = replace(solver, longest=solver._longer)
            return run.by(solver).propose(fallback, _is_far(run))
        return run.by(replace(solver, fallback=fallback)).propose(step.mixture, _is_far(run))


def _is_far(run: RunState) -> bool:
    """Whether single precision may serve for another sweep."""
    if run.stop.rough or run.state is None or not run.trace:
        return True
    return run.change > max(4 * run.bound, 4 * run.stop.tol, run.stop.target)


def _left(gain: float, length: float) -> float:
    """The gain left after an EM step's, where the slowest direction wants steps of that length."""
    return gain * (length - 1) ** 2 / (2 * length - 1)


@dataclass(frozen=True)
class Step:
    """An extrapolation: the mixture, if it leads beyond theta_2, and |a| before it was limited."""

    mixture: Trial | None
    length: float


def extrapolate(
    first: Mixture, second: Mixture, third: Mixture, longest: float, model: Model
) -> Step:
    """theta' from theta_0, theta_1 and theta_2, with |a| at most ``longest``."""
    live = (first.weights > 0) & (second.weights > 0) & (third.weights > 0)
    try:
        start, middle, end = (
            coordinates(mixture, second, live, model.prior) for mixture in (first, second, third)
        )
        r, u = middle - start, (end - middle) - (middle - start)
        moved = float(np.linalg.norm(r))
        length = moved / max(float(np.linalg.norm(u)), 1e-9 * moved) if moved else 1.0
        taken = min(length, longest)
        if taken <= 1.0:
            return Step(None, max(length, 1.0))
        place = start + 2 * taken * r + taken**2 * u
        trial = mixture_at(place, third, second, live, model)
    except np.linalg.LinAlgError:
        return Step(None, 1.0)
    return Step(trial, length)


def coordinates(mixture: Mixture, seen_from: Mixture, live: Mask, prior: Prior) -> Array:
    """Coordinates (M,) of the ``live`` components and their covariances, under a ``prior``."""
    roots = prior.roots(seen_from)
    white = seen_from.covariances.whitened(mixture.means - seen_from.means)
    shapes = seen_from.covariances.coordinates(mixture.covariances, roots.covariances)
    logs = np.where(live, mixture.log_weights, 0.0) * roots.weights
    noise = _noise_coordinate(mixture, seen_from)
    tails = np.empty(0)
    if mixture.tails is not None and seen_from.tails is not None:
        tails = mixture.tails.coordinates(seen_from.tails, seen_from.weights)
    parts = (logs, noise, tails, white * roots.means[:, None], shapes * roots.common)
    return np.concatenate([part.ravel() for part in parts])


def _noise_coordinate(mixture: Mixture, seen_from: Mixture) -> Array:
    """The logarithm of the weight of noise (1,), as those of components; (0,) without noise."""
    noise, there = mixture.noise_component, seen_from.noise_component
    if noise is None or there is None:
        return np.empty(0)
    return np.array([max(noise.log_weight, LEAST_LOG) * float(np.sqrt(there.weight))])


def mixture_at(place: Array, like: Mixture, seen_from: Mixture, live: Mask, model: Model) -> Trial:
    """The mixture with these coordinates; components that are not ``live`` are as in ``like``.

    Raises ``LinAlgError`` where there is none, or where it is far thinner than ``like``, beside
    the prior of the ``model``: such a mixture is worse, and kernels would be slow to find that.
    """
    safe, (count, n_features) = model.prior.roots(seen_from).safe, like.means.shape
    noise = like.noise_component
    second = count + (noise is not None)
    third = second + (0 if like.tails is None else like.tails.rule.free(count))
    ends = [count, second, third, third + count * n_features]
    logs, log_noise, freedom, white, shapes = np.split(place, ends)
    log_weights = like.log_weights + np.clip(logs / safe.weights - like.log_weights, -JUMP, JUMP)
    top = max(log_weights.max(), LEAST_LOG)  # all rows may be noise
    weights = np.where(live, np.exp(log_weights - top), 0.0)
    total = weights.sum()
    if noise is not None and seen_from.noise_component is not None:
        there = np.sqrt(max(seen_from.noise_component.weight, 1e-300))
        moved = np.clip(log_noise[0] / there - noise.log_weight, -JUMP, JUMP)
        noise_weight = float(np.exp(noise.log_weight + moved - top))
        total += noise_weight
        noise = noise.weighing(noise_weight / total)
    away = seen_from.covariances.coloured(white.reshape(count, n_features) / safe.means[:, None])
    means = np.where(live[:, None], seen_from.means + away, like.means)
    if not np.isfinite(means).all():
        raise np.linalg.LinAlgError("a mean overflows")
    shapes = shapes / safe.common
    estimate = seen_from.covariances.at(shapes, safe.covariances, live, like.covariances)
    covariances, singular = estimate.reached(model.prior.reg)
    tails = like.tails
    if tails is not None and seen_from.tails is not None:
        tails = tails.at(freedom, seen_from.tails, seen_from.weights)
    mixture = model.hold(Mixture(weights / total, means, covariances, noise, tails), like)
    if model.penalties(mixture).max() > model.penalties(like).max() + THIN * n_features:
        raise np.linalg.LinAlgError("the extrapolation is thin")
    lost = np.broadcast_to(singular, live.shape) & live
    if model.fixed is not None:
        lost = lost & ~model.fixed.covariances
    return Trial(mixture, numbers(~live), numbers(lost))
