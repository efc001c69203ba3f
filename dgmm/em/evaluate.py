"""What the data say about a mixture, and the mixture that they say next: E-step and M-step.

A ``State`` pairs a mixture with what one sweep says about *that* mixture, so the objective printed,
the parameters returned and the state saved belong together.  ``evaluate`` takes the sweep;
``m_step`` makes the next mixture of its statistics.

**Precision.**  Where the kernel's bound shows single precision to be good enough a trial may ask
for it; its state says how much that may have changed the objective.

A component whose weight falls below rounding of the total **vanishes**: its weight becomes 0, and
its mean and covariance stay as they were.  A component whose covariance loses its rank is
**collapsed** onto ``covariance.FLOOR``.  Neither lowers the objective; the state names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.survey import Survey
from dgmm.errors import DataError
from dgmm.kernels.native import KERNELS
from dgmm.kernels.natural import SINGLE_TOLERANCE, TOLERANCE, Anchor, Away, Form, Given, penalties
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.mixture import Frame, Mixture
from dgmm.model.statistics import Statistics, Together
from dgmm.model.structure import FLOOR, Array, Structure

PRECISIONS: Final = ("auto", "float64")

SINGLE: Final = float(np.finfo(np.float32).eps)

RELATIVE: Final = 1e-6
"""The default ``reg_covar``, over each feature's variance."""

ALONE: Final = 1e-3
"""A variance below so much of what ``reg_covar`` adds is held up by that alone."""

LOADING: Final = 0.3
"""Features with this part of a direction's largest loading are said to be in it."""

RIVAL: Final = 1.0
"""A variance below so many times what ``reg_covar`` adds is half or more of its making."""

SAME: Final = (1e-6, 1e-3)
"""How far moments may be off by rounding, in double and single precision, where 1 is the spread."""


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
    anchor : Anchor or None
        What is added to the statistics of each sweep.
    moments : ((D,), float) or None
        The means of x and of |x|^2, in the frame; None where sweeps are not of the surveyed rows.
    reg_covar : float or None
        The parameter of that name that ``reg`` came from; see ``regularisation``.
    """

    structure: Structure
    frame: Frame
    reg: Array
    weight: float
    total: Array | None
    spread: float
    kernel: str = "numpy"
    precision: str = "float64"
    anchor: Anchor | None = None
    moments: tuple[Array, float] | None = None
    reg_covar: float | None = None

    @classmethod
    def of(
        cls,
        found: Survey,
        structure: Structure,
        reg_covar: float | None,
        kernel: str = "numpy",
        precision: str = "float64",
        frame: Frame | None = None,
    ) -> "Setting":
        """The setting for surveyed rows; ``reg_covar`` as in ``regularisation``."""
        frame = frame or frame_of(found, structure)
        reg = regularisation(found, reg_covar) / frame.scale / frame.scale
        variance = np.maximum(found.variance, found.robust_variance)
        spread = np.sqrt(np.sum(variance / frame.scale / frame.scale))
        total = None
        offset = (found.mean - frame.shift) / frame.scale
        if found.scatter.ndim == 2:
            total = found.scatter / frame.scale[:, None] / frame.scale
            total = total + found.weight * offset[:, None] * offset
        return cls(
            structure,
            frame,
            reg,
            found.weight,
            total,
            float(spread),
            kernel,
            precision,
            moments=(offset, float(np.sum(found.variance / frame.scale / frame.scale + offset**2))),
            reg_covar=reg_covar,
        )

    def single_bound(self, mixture: Mixture) -> float:
        """The bound on single precision's error in log-densities; infinity if it is too large.

        The M-step's error, relative to the smallest variance, is about the condition number times
        the unit round-off, and costs the square of that.
        """
        if self.precision != "auto":
            return np.inf
        unit, live = SINGLE / 2, mixture.weights > 0
        noise = self._noise(mixture, Away.expected(mixture))
        bound = np.max(noise, where=live, initial=0)
        stiffness = mixture.structure.stiffness(mixture.factors)
        condition = np.max(mixture.variances.sum(axis=1) * stiffness, where=live, initial=0)
        return float(bound) if max(bound, 10 * unit * condition) < SINGLE_TOLERANCE else np.inf

    def single_error(self, statistics: Statistics, mixture: Mixture) -> float:
        """The same bound from what a sweep found: the rows may not be where they are expected."""
        raw = _maximum_likelihood(statistics, self, mixture)
        offsets = raw.means - mixture.means
        noise = self._noise(mixture, Away.found(mixture, raw.covariances, offsets))
        return float(raw.weights @ np.where(raw.vanished, 0.0, noise) / raw.weights.sum())

    def _noise(self, mixture: Mixture, away: Away) -> Array:
        """The bound (K,) on single precision's error in the log-densities of such rows."""
        unit = SINGLE / 2
        size = np.abs(mixture.constants - penalties(mixture, self.reg))
        return KERNELS[self.kernel].noise(mixture, away, unit) + unit * size


def frame_of(found: Survey, structure: Structure) -> Frame:
    """The frame for surveyed rows."""
    return Frame.of(found.robust_centre, found.robust_variance, structure)


def regularisation(found: Survey, reg_covar: float | None) -> Array:
    """What is added to each feature's variances (D,), in the data's units.

    ``reg_covar``, or ``RELATIVE`` times the feature's own variance if that is None; where a feature
    has none, there is no unit to go by but 1.
    """
    variance = found.robust_variance
    if reg_covar is None:
        return RELATIVE * np.where(variance > 0, variance, 1.0)
    return np.full(len(variance), reg_covar)


@dataclass(frozen=True)
class Trial:
    """A mixture to be evaluated, and which of its components degenerated when it was made.

    ``bound`` is what single precision may do to its objective; infinity asks for double.
    """

    mixture: Mixture
    vanished: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()
    bound: float = np.inf


@dataclass(frozen=True)
class State:
    """A mixture (in the frame) and what one sweep says about it.

    Attributes
    ----------
    objective, score : float
        Mean per unit weight of the penalised and of the plain log-likelihood, of the data.
    vanished, collapsed : tuple of int
        The mixture's components without weight, and those held at the smallest variance.
    bound : float
        The largest error that single precision may have put in the objective; 0 if all is double.
    """

    mixture: Mixture
    statistics: Statistics
    objective: float
    score: float
    vanished: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()
    bound: float = 0.0

    @property
    def rounding(self) -> float:
        """How much of a fall of the objective to here rounding explains, in double precision.

        Twice the tolerance of the kernel; and a covariance's smallest variance is off by about
        D u times the trace, which costs the square of that, relative to the variance, and where
        that is large its logarithm.  The variances of a component that has collapsed are set.
        """
        mixture = self.mixture
        inverse = mixture.structure.trace(mixture.factors, np.ones(mixture.dims))
        condition = mixture.variances.sum(axis=1) * inverse
        off = mixture.dims * np.finfo(np.float64).eps * condition
        cost = mixture.weights * np.minimum(off**2, np.log1p(off))
        cost[list(self.collapsed)] = 0.0
        return 2 * TOLERANCE + 1e-12 * abs(self.objective) + float(cost.sum())


def evaluate(sweep: Sweep, settings: Sequence[Setting], trials: Sequence[Trial]) -> list[State]:
    """One sweep: what the data say about each trial's mixture, each under its own setting.

    The settings share the kernel; those of one frame share its rows, too.
    """
    kernel = KERNELS[settings[0].kernel]
    pairs = list(zip(settings, trials, strict=True))
    forms = tuple(
        Form.of(trial.mixture, each.reg, each.spread, kernel.centres, trial.bound < np.inf)
        for each, trial in pairs
    )
    frames = {id(each.frame): each.frame for each in settings}
    places = [[i for i, each in enumerate(settings) if id(each.frame) == key] for key in frames]
    givens = tuple(
        Given(frame, tuple(forms[i].bare for i in chosen))
        for frame, chosen in zip(frames.values(), places, strict=True)
    )
    swept = sweep(_e_steps, (settings[0].kernel, givens))
    found: dict[int, Statistics] = {}
    for chosen, own in zip(places, swept.parts, strict=True):
        found |= zip(chosen, own.parts, strict=True)
    states = []
    for i, ((setting, trial), form) in enumerate(zip(pairs, forms, strict=True)):
        statistics = found[i]
        if setting.moments is not None:
            _check_same_rows(statistics, form, setting.frame, setting.weight, *setting.moments)
        if setting.anchor is not None:
            statistics = setting.anchor.join(statistics, form)
        common = form.common_sum(setting.total)
        volume = setting.frame.log_volume
        objective = (statistics.objective + common) / setting.weight - volume
        score = (statistics.log_likelihood + common) / setting.weight - volume
        # Adding up costs the rounding of what is added up, too.
        bound = 0.0
        if form.single:
            bound = max(trial.bound, setting.single_error(statistics, trial.mixture))
            bound += 2 * SINGLE * abs(objective + volume)
        degenerate = trial.vanished, trial.collapsed
        states.append(State(trial.mixture, statistics, objective, score, *degenerate, bound))
    return states


def _e_steps(block: Block, given: tuple[str, tuple[Given, ...]]) -> Together[Together[Statistics]]:
    """The statistics of a block by a kernel, for the mixtures of each frame."""
    kernel, givens = given
    return Together(tuple(KERNELS[kernel].e_step(block, each) for each in givens))


def _check_same_rows(
    statistics: Statistics, form: Form, frame: Frame, weight: float, mean: Array, size: float
) -> None:
    """Raise ``DataError`` unless a sweep saw the rows of the survey.

    The shares of a row sum to 1; so whatever the mixture, counts sum to the ``weight``, and x and
    |x|^2 have the ``mean`` and the mean ``size`` that they had.
    """
    layout, dims = form.layout, len(mean)
    sums = layout.moved(statistics.sums, -statistics.about).sum(axis=0) / weight
    identity = layout.add_to_diagonal(np.zeros(layout.shape(1, dims)), np.ones(dims))
    square = -2 * layout.quadratic(identity)[0]  # the coefficients of |x|^2; none for tied
    off = [abs(sums[0] - 1), np.abs(sums[1 : 1 + dims] - mean).max() / (1 + np.sqrt(size))]
    if len(square):
        off.append(abs(sums[1 + dims :] @ square - size) / (1 + size))
    moved = 1e-14 * np.max(np.sum(statistics.about**2, axis=1))  # what it costs to move the sums
    stored = 1e-13 * np.max(np.abs(frame.shift) / frame.scale)  # merging rounds means far from 0
    if not max(off) < SAME[form.single] + moved + stored:
        raise DataError(
            "the rows are not those of the first pass: their weight, mean or spread have changed, "
            f"by {max(off):.1e} of it. Something writes to them; fit again when it is done"
        )


def m_step(statistics: Statistics, setting: Setting, before: Mixture) -> Trial:
    """The mixture that maximises the expected objective under ``before``'s responsibilities."""
    structure = setting.structure
    raw = _maximum_likelihood(statistics, setting, before)
    covariances, factors, collapsed = structure.factor(
        structure.add_to_diagonal(raw.covariances, setting.reg)
    )
    vanished = raw.vanished
    if not structure.shared:
        kept = vanished.reshape(-1, *[1] * (covariances.ndim - 1))
        covariances = np.where(kept, before.covariances, covariances)
        factors = np.where(kept, before.factors, factors)
        collapsed = collapsed & ~vanished
    weights = raw.weights / raw.weights.sum()
    mixture = Mixture(structure, weights, raw.means, covariances, factors)
    return Trial(mixture, numbers(vanished), numbers(np.broadcast_to(collapsed, len(raw.means))))


@dataclass(frozen=True)
class _Raw:
    """Estimates from the statistics alone: before ``reg`` is added, and what needs care is seen to.

    Attributes
    ----------
    weights : (K,)
        They sum to the weight of the rows.
    means : (K, D)
    covariances : shape ``structure.shape(K, D)``
    vanished : (K,)
        Which components have no weight left; their means are those they had.
    """

    weights: Array
    means: Array
    covariances: Array
    vanished: NDArray[np.bool_]


def _maximum_likelihood(statistics: Statistics, setting: Setting, before: Mixture) -> _Raw:
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
    return _Raw(weights, means, covariances, vanished)


def bare(statistics: Statistics, setting: Setting, before: Mixture) -> Trial:
    """That M-step without ``reg``: its components that collapsed are held up by ``reg`` alone."""
    return m_step(statistics, replace(setting, reg=np.zeros_like(setting.reg)), before)


def thin(
    statistics: Statistics, setting: Setting, before: Mixture, share: float
) -> tuple[int, ...]:
    """Components that in some direction have less than ``share`` times ``reg`` for a variance.

    That is, by the M-step from these ``statistics`` before ``reg`` is added.
    """
    raw = _maximum_likelihood(statistics, setting, before)
    least = setting.structure.thinnest(raw.covariances, np.maximum(share * setting.reg, FLOOR))
    return numbers((least < 1.0) & ~raw.vanished)


def singular(state: State, setting: Setting) -> tuple[int, ...]:
    """Components of a state that nothing but ``reg``, or the smallest variance, holds up."""
    held = thin(state.statistics, setting, state.mixture, ALONE)
    return tuple(sorted({*state.collapsed, *held}))


def unbounded(state: State, setting: Setting) -> tuple[int, ...]:
    """Those of the ``singular`` components that have spread in fewer directions than all rows.

    Their likelihood has no bound: a mixture that has one is not to be compared with others.  What
    is flat in all rows, a column of one value or a copy of another, is so in every mixture of the
    structure, and adds the same to each.
    """
    if not singular(state, setting):
        return ()
    raw = _maximum_likelihood(state.statistics, setting, state.mixture)
    least = setting.structure.thinnest_apart(
        raw.weights / raw.weights.sum(),
        raw.means,
        raw.covariances,
        np.maximum(ALONE * setting.reg, FLOOR),
    )
    return numbers(np.broadcast_to(least < 1.0, raw.vanished.shape) & ~raw.vanished)


@dataclass(frozen=True)
class Rivals:
    """Components of whose variance ``reg`` makes half or more, and the features where it does.

    Not among them are those that are singular, which are told of on their own.
    """

    components: tuple[int, ...]
    features: tuple[int, ...]

    @classmethod
    def of(cls, state: State, setting: Setting) -> "Rivals":
        """Those of a ``state``.

        In each component the features are those with large loadings in the direction in which its
        variance is smallest beside ``reg``.
        """
        mixture, reg = state.mixture, setting.reg
        rivals = {*thin(state.statistics, setting, mixture, RIVAL)} - {*singular(state, setting)}
        if not rivals:
            return cls((), ())
        raw = _maximum_likelihood(state.statistics, setting, mixture).covariances
        loadings = mixture.structure.thinnest_loadings(raw, np.maximum(reg, FLOOR))
        loadings = np.broadcast_to(loadings, mixture.means.shape)[sorted(rivals)]
        named = np.flatnonzero((loadings > LOADING).any(axis=0))
        return cls(tuple(sorted(rivals)), tuple(named.tolist()))


def numbers(flags: np.ndarray) -> tuple[int, ...]:
    """The numbers of the components that ``flags`` (K,) name."""
    return tuple(np.flatnonzero(flags).tolist())
