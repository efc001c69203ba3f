"""Expectation-maximisation, as a generator of states.

``run`` yields; whoever consumes it prints, draws, saves or stops between two states.  A ``State``
pairs a mixture with what one sweep says about *that* mixture, so the objective printed, the
parameters returned and the state saved belong together.

Iterations are counted as scikit-learn counts them: iteration i takes an E-step's statistics of the
mixture it starts from, and ends with the M-step.  The change that stops the run is judged between
the starts of two iterations.  So ``trace`` and the number of iterations equal scikit-learn's; what
differs is that the last mixture gets a sweep of its own too, and thus its own objective.

A component whose weight falls below rounding of the total **vanishes**: its weight becomes 0, and
its mean and covariance stay as they were.  A component whose covariance loses its rank is
**collapsed** onto ``covariance.FLOOR``.  Neither lowers the objective; the state names them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dgmm.covariance import Array, Structure
from dgmm.kernel import TOLERANCE, Form, Given, e_step
from dgmm.mixture import Frame, Mixture
from dgmm.statistics import Statistics
from dgmm.survey import Survey
from dgmm.sweep import Sweep


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
    """

    structure: Structure
    frame: Frame
    reg: Array
    weight: float
    total: Array | None
    spread: float

    @classmethod
    def of(cls, found: Survey, structure: Structure, reg_covar: float) -> "Setting":
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
        return cls(structure, frame, reg, found.weight, total, float(spread))


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
    """

    mixture: Mixture
    statistics: Statistics
    objective: float
    score: float
    trace: tuple[float, ...] = ()
    converged: bool = False
    vanished: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()

    @property
    def change(self) -> float:
        """By how much the last iteration raised the objective."""
        return self.objective - self.trace[-1] if self.trace else np.inf

    @property
    def rounding(self) -> float:
        """How much of a fall of the objective rounding explains.

        Twice the tolerance of the kernel; and a covariance's smallest variance is off by about
        D u times the trace, which costs the square of that, relative to the variance.
        """
        mixture = self.mixture
        inverse = mixture.structure.trace(mixture.factors, np.ones(mixture.dims))
        condition = mixture.variances.sum(axis=1) * inverse
        off = mixture.dims * np.finfo(np.float64).eps * condition
        return 2 * TOLERANCE + 1e-12 * abs(self.objective) + float(mixture.weights @ off**2)


def evaluate(sweep: Sweep, setting: Setting, mixtures: Sequence[Mixture]) -> list[State]:
    """One sweep: what the data say about each mixture."""
    forms = tuple(Form.of(mixture, setting.reg, setting.spread) for mixture in mixtures)
    swept = sweep(e_step, Given(setting.frame, forms))
    states = []
    for mixture, form, statistics in zip(mixtures, forms, swept.parts, strict=True):
        common = form.common_sum(setting.total)
        volume = setting.frame.log_volume
        objective = (statistics.objective + common) / setting.weight - volume
        score = (statistics.log_likelihood + common) / setting.weight - volume
        states.append(State(mixture, statistics, objective, score))
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
    states = evaluate(sweep, setting, starts)
    yield tuple(states)
    while active := [
        i for i, s in enumerate(states) if not s.converged and len(s.trace) < max_iter
    ]:
        improved = [m_step(states[i].statistics, setting, states[i].mixture) for i in active]
        evaluated = evaluate(sweep, setting, [found.mixture for found in improved])
        for i, found, state in zip(active, improved, evaluated, strict=True):
            before = states[i]
            states[i] = replace(
                state,
                trace=(*before.trace, before.objective),
                converged=abs(before.change) < tol,
                vanished=found.vanished,
                collapsed=found.collapsed,
            )
        yield tuple(states)
