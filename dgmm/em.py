"""Expectation-maximisation, as a generator of states.

``run`` yields; whoever consumes it prints, draws, saves or stops between two states.  A ``State``
pairs a mixture with what one sweep says about *that* mixture, so the objective printed, the
parameters returned and the state saved belong together.

Iterations are counted as scikit-learn counts them: iteration i takes an E-step's statistics of the
mixture it starts from, and ends with the M-step.  The change that stops the run is judged between
the starts of two iterations.  So ``trace`` and the number of iterations equal scikit-learn's; what
differs is that the last mixture gets a sweep of its own too, and thus its own objective.

**Precision.**  Where the kernel's bound shows single precision to be good enough, iterations use it
until one changes the objective by less than ``tol`` or than the bound explains; then, and in the
last three of ``max_iter``, all is double.  Two sweeps at least are, so the last M-step has double
statistics, and the last objective is as exact as if all had been double.

A component whose weight falls below rounding of the total **vanishes**: its weight becomes 0, and
its mean and covariance stay as they were.  A component whose covariance loses its rank is
**collapsed** onto ``covariance.FLOOR``.  Neither lowers the objective; the state names them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dgmm.covariance import Array, Structure
from dgmm.kernel import SINGLE_TOLERANCE, TOLERANCE, Form, Given, penalties
from dgmm.mixture import Frame, Mixture
from dgmm.native import KERNELS
from dgmm.statistics import Statistics
from dgmm.survey import Survey
from dgmm.sweep import Sweep

PRECISIONS: Final = ("auto", "float64")

SINGLE: Final = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Setting:
    """What stays the same during a fit.

    Attributes
    ----------
    structure : Structure
    frame : Frame
    reg : (D,)
        What is added to the diagonal of each covariance, in the frame.
    weight : float
        The sum of the row weights.
    total : (D, D) or None
        sum w x x' over the rows, in the frame; for tied.
    spread : float
        The root mean square of |x| in the frame.
    kernel : str
        A key of ``native.KERNELS``.
    precision : str
        One of ``PRECISIONS``: whether sweeps may be in single precision where that is good enough.
    """

    structure: Structure
    frame: Frame
    reg: Array
    weight: float
    total: Array | None
    spread: float
    kernel: str = "numpy"
    precision: str = "float64"

    @classmethod
    def of(
        cls,
        found: Survey,
        structure: Structure,
        reg_covar: float,
        kernel: str = "numpy",
        precision: str = "float64",
    ) -> "Setting":
        """The setting for surveyed rows; ``reg_covar`` is in the data's units."""
        # A row of enormous weight makes the others' spread nothing; they must not overflow.
        variance = np.maximum(found.variance, (1e-7 * (found.high - found.low)) ** 2)
        frame = Frame.of(found.centre, variance, structure)
        reg = reg_covar / frame.scale**2
        spread = np.sqrt(np.sum(variance / frame.scale**2))
        total = None
        if found.scatter.ndim == 2:
            offset = (found.mean - frame.shift) / frame.scale
            total = found.scatter / frame.scale[:, None] / frame.scale
            total = total + found.weight * offset[:, None] * offset
        return cls(structure, frame, reg, found.weight, total, float(spread), kernel, precision)

    def single_bound(self, mixture: Mixture) -> float:
        """The bound on single precision's error in log-densities; infinity if it is too large.

        The M-step's error, relative to the smallest variance, is about the condition number times
        the unit round-off, and costs the square of that.
        """
        if self.precision != "auto":
            return np.inf
        unit, live = SINGLE / 2, mixture.weights > 0
        noise = KERNELS[self.kernel].noise(mixture, self.spread, unit)
        size = np.abs(mixture.constants - penalties(mixture, self.reg))
        bound = np.max(noise + unit * size, where=live, initial=0)
        stiffness = mixture.structure.stiffness(mixture.factors)
        condition = np.max(mixture.variances.sum(axis=1) * stiffness, where=live, initial=0)
        return float(bound) if max(bound, 10 * unit * condition) < SINGLE_TOLERANCE else np.inf


@dataclass(frozen=True)
class State:
    """A mixture (in the frame) and what one sweep says about it.

    Attributes
    ----------
    objective, score : float
        Mean per unit weight of the penalised and of the plain log-likelihood, of the data.
    trace : tuple of float
        The objective at the start of each iteration so far.
    converged : bool
        Whether the last iteration met the stop rule.
    vanished, collapsed : tuple of int
        The mixture's components without weight, and those held at the smallest variance.
    doubles : int
        The sweeps in double precision so far; any in single precision came before.
    bound : float
        The largest error that single precision may have put in an objective so far.
    """

    mixture: Mixture
    statistics: Statistics
    objective: float
    score: float
    trace: tuple[float, ...] = ()
    converged: bool = False
    vanished: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()
    doubles: int = 1
    bound: float = 0.0

    @property
    def singles(self) -> int:
        """The sweeps in single precision so far."""
        return len(self.trace) + 1 - self.doubles

    @property
    def change(self) -> float:
        """By how much the last iteration raised the objective."""
        return self.objective - self.trace[-1] if self.trace else np.inf

    @property
    def rounding(self) -> float:
        """How much of a fall of the objective rounding explains.

        Twice the bound of single precision, or the tolerance of the kernel; and a covariance's
        smallest variance is off by about D u times the trace, which costs the square of that,
        relative to the variance.
        """
        mixture = self.mixture
        inverse = mixture.structure.trace(mixture.factors, np.ones(mixture.dims))
        condition = mixture.variances.sum(axis=1) * inverse
        off = mixture.dims * np.finfo(np.float64).eps * condition
        noise = TOLERANCE if self.doubles > 1 else max(TOLERANCE, self.bound)
        return 2 * noise + 1e-12 * abs(self.objective) + float(mixture.weights @ off**2)


def evaluate(
    sweep: Sweep, setting: Setting, mixtures: Sequence[Mixture], bounds: Sequence[float] = ()
) -> list[State]:
    """One sweep: what the data say about each mixture.

    ``bounds`` are those of single precision; infinity, or none at all, asks for double.
    """
    kernel = KERNELS[setting.kernel]
    bounds = bounds or [np.inf] * len(mixtures)
    forms = tuple(
        Form.of(mixture, setting.reg, setting.spread, kernel.centres, bound < np.inf)
        for mixture, bound in zip(mixtures, bounds, strict=True)
    )
    swept = sweep(kernel.e_step, Given(setting.frame, forms))
    states = []
    for mixture, form, bound, statistics in zip(mixtures, forms, bounds, swept.parts, strict=True):
        common = form.common_sum(setting.total)
        volume = setting.frame.log_volume
        objective = (statistics.objective + common) / setting.weight - volume
        score = (statistics.log_likelihood + common) / setting.weight - volume
        state = State(mixture, statistics, objective, score)
        if form.single:  # adding up costs the rounding of what is added up, too
            state = replace(state, doubles=0, bound=bound + 2 * SINGLE * abs(objective + volume))
        states.append(state)
    return states


@dataclass(frozen=True)
class Maximised:
    """The outcome of an M-step: a mixture and which of its components degenerated."""

    mixture: Mixture
    vanished: tuple[int, ...]
    collapsed: tuple[int, ...]


def m_step(statistics: Statistics, setting: Setting, before: Mixture) -> Maximised:
    """The mixture that maximises the expected objective under ``before``'s responsibilities."""
    structure, dims = setting.structure, before.dims
    counts = statistics.sums[:, 0]
    vanished = counts <= np.finfo(np.float64).eps * statistics.weight
    weights = np.where(vanished, 0.0, counts)
    divisors = np.where(vanished, 1.0, counts)
    offsets = statistics.sums[:, 1 : 1 + dims] / divisors[:, None]
    means = np.where(vanished[:, None], before.means, statistics.about + offsets)
    covariances = structure.estimate(
        divisors if not structure.shared else weights,
        means,
        offsets,
        statistics.sums[:, 1 + dims :],
        setting.total,
    )
    covariances, factors, collapsed = structure.factor(
        structure.add_to_diagonal(covariances, setting.reg)
    )
    if not structure.shared:
        kept = vanished.reshape(-1, *[1] * (covariances.ndim - 1))
        covariances = np.where(kept, before.covariances, covariances)
        factors = np.where(kept, before.factors, factors)
        collapsed = collapsed & ~vanished
    mixture = Mixture(structure, weights / weights.sum(), means, covariances, factors)
    return Maximised(mixture, _numbers(vanished), _numbers(np.broadcast_to(collapsed, len(means))))


def _numbers(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist())


def run(
    sweep: Sweep, setting: Setting, starts: Sequence[Mixture], tol: float, max_iter: int
) -> Iterator[tuple[State, ...]]:
    """Improve each of ``starts`` (in the frame) until the objective changes by less than ``tol``.

    All share each sweep.  Yields one state for each start, first for the starts themselves, then
    after every iteration; the state of a run that has stopped stays as it is.
    """
    bounds = [setting.single_bound(start) if max_iter > 3 else np.inf for start in starts]
    states = evaluate(sweep, setting, starts, bounds)
    yield tuple(states)
    while active := [
        i for i, s in enumerate(states) if not s.converged and len(s.trace) < max_iter
    ]:
        improved = [m_step(states[i].statistics, setting, states[i].mixture) for i in active]
        bounds = [
            setting.single_bound(found.mixture) if _far(states[i], tol, max_iter) else np.inf
            for i, found in zip(active, improved, strict=True)
        ]
        evaluated = evaluate(sweep, setting, [found.mixture for found in improved], bounds)
        for i, found, state in zip(active, improved, evaluated, strict=True):
            before = states[i]
            states[i] = replace(
                state,
                trace=(*before.trace, before.objective),
                converged=_settled(before, tol),
                vanished=found.vanished,
                collapsed=found.collapsed,
                doubles=before.doubles + state.doubles,
                bound=max(before.bound, state.bound),
            )
        yield tuple(states)


def _far(state: State, tol: float, max_iter: int) -> bool:
    """Whether the end is so far off that single precision may serve for another sweep."""
    last = len(state.trace) + 3 >= max_iter
    return not state.doubles and not last and state.change > max(tol, 2 * state.bound)


def _settled(state: State, tol: float) -> bool:
    """Whether the last iteration met the stop rule, as far as rounding lets one see that."""
    seen = state.doubles > 1 or (state.doubles == 1 and 20 * state.bound < tol)
    return seen and abs(state.change) < tol
