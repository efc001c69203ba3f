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
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.em.first_pass import DataMoments
from dgmm.errors import DataError
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import (
    SINGLE_TOLERANCE,
    TOLERANCE,
    Away,
    Given,
    NaturalParameters,
    StatisticsCorrection,
    penalties,
)
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import FLOOR, Array
from dgmm.model.covariance_model import CovarianceModel, Estimate
from dgmm.model.mixture import Frame, Mixture
from dgmm.model.statistics import Stacked, Statistics

Precision = Literal["auto", "float64"]
"""The members of ``PRECISIONS``."""

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
class FitContext:
    """What stays the same during a fit.

    Attributes
    ----------
    covariance_model : CovarianceModel
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
        A key of ``choice.KERNELS``.
    precision : str
        One of ``PRECISIONS``: whether sweeps may be in single precision where that is good enough.
    anchor : StatisticsCorrection or None
        What is added to the statistics of each sweep.
    moments : ((D,), float) or None
        The means of x and of |x|^2, in the frame; None where sweeps are not of the rows of the
        first pass.
    reg_covar : float or None
        The parameter of that name that ``reg`` came from; see ``regularisation``.
    """

    covariance_model: CovarianceModel
    frame: Frame
    reg: Array
    weight: float
    total: Array | None
    spread: float
    kernel: str = "numpy"
    precision: str = "float64"
    anchor: StatisticsCorrection | None = None
    moments: tuple[Array, float] | None = None
    reg_covar: float | None = None

    @classmethod
    def of(
        cls,
        moments: DataMoments,
        covariance_model: CovarianceModel,
        reg_covar: float | None,
        kernel: str = "numpy",
        precision: str = "float64",
        frame: Frame | None = None,
    ) -> "FitContext":
        """The context for the rows of the first pass; ``reg_covar`` as in ``regularisation``."""
        frame = frame or frame_of(moments, covariance_model)
        reg = regularisation(moments, reg_covar) / frame.scale / frame.scale
        variance = np.maximum(moments.variance, moments.robust_variance)
        spread = np.sqrt(np.sum(variance / frame.scale / frame.scale))
        total = None
        offset = (moments.mean - frame.shift) / frame.scale
        if moments.scatter.ndim == 2:
            total = moments.scatter / frame.scale[:, None] / frame.scale
            total = total + moments.weight * offset[:, None] * offset
        return cls(
            covariance_model,
            frame,
            reg,
            moments.weight,
            total,
            float(spread),
            kernel,
            precision,
            moments=(
                offset,
                float(np.sum(moments.variance / frame.scale / frame.scale + offset**2)),
            ),
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
        most = mixture.covariances.max_eigenvalue_bound()
        condition = np.max(mixture.variances.sum(axis=1) * most, where=live, initial=0)
        return float(bound) if max(bound, 10 * unit * condition) < SINGLE_TOLERANCE else np.inf

    def single_error(self, statistics: Statistics, mixture: Mixture) -> float:
        """The same bound from what a sweep found: the rows may not be where they are expected."""
        raw = _maximum_likelihood(statistics, self, mixture)
        offsets = raw.means - mixture.means
        noise = self._noise(mixture, Away.measured(mixture, raw.estimate, offsets))
        return float(raw.weights @ np.where(raw.empty, 0.0, noise) / raw.weights.sum())

    def _noise(self, mixture: Mixture, away: Away) -> Array:
        """The bound (K,) on single precision's error in the log-densities of such rows."""
        unit = SINGLE / 2
        size = np.abs(mixture.constants - penalties(mixture, self.reg))
        return KERNELS[self.kernel].noise(mixture, away, unit) + unit * size


def frame_of(moments: DataMoments, covariance_model: CovarianceModel) -> Frame:
    """The frame for the rows of the first pass."""
    return Frame.of(moments.robust_centre, moments.robust_variance, covariance_model)


def regularisation(moments: DataMoments, reg_covar: float | None) -> Array:
    """What is added to each feature's variances (D,), in the data's units.

    ``reg_covar``, or ``RELATIVE`` times the feature's own variance if that is None; where a feature
    has none, there is no unit to go by but 1.
    """
    variance = moments.robust_variance
    if reg_covar is None:
        return RELATIVE * np.where(variance > 0, variance, 1.0)
    return np.full(len(variance), reg_covar)


@dataclass(frozen=True)
class Trial:
    """A mixture to be evaluated, and which of its components degenerated when it was made.

    ``bound`` is what single precision may do to its objective; infinity asks for double.
    """

    mixture: Mixture
    empty: tuple[int, ...] = ()
    singular: tuple[int, ...] = ()
    bound: float = np.inf


@dataclass(frozen=True)
class State:
    """A mixture (in the frame) and what one sweep says about it.

    Attributes
    ----------
    objective, score : float
        Mean per unit weight of the penalised and of the plain log-likelihood, of the data.
    empty, singular : tuple of int
        The mixture's components without weight, and those held at the smallest variance.
    bound : float
        The largest error that single precision may have put in the objective; 0 if all is double.
    """

    mixture: Mixture
    statistics: Statistics
    objective: float
    score: float
    empty: tuple[int, ...] = ()
    singular: tuple[int, ...] = ()
    bound: float = 0.0

    @property
    def rounding(self) -> float:
        """How much of a fall of the objective to here rounding explains, in double precision.

        Twice the tolerance of the kernel; and a covariance's smallest variance is off by about
        D u times the trace, which costs the square of that, relative to the variance, and where
        that is large its logarithm.  The variances of a component that has collapsed are set.
        """
        mixture = self.mixture
        inverse = mixture.covariances.trace(np.ones(mixture.n_features))
        condition = mixture.variances.sum(axis=1) * inverse
        off = mixture.n_features * np.finfo(np.float64).eps * condition
        cost = mixture.weights * np.minimum(off**2, np.log1p(off))
        cost[list(self.singular)] = 0.0
        return 2 * TOLERANCE + 1e-12 * abs(self.objective) + float(cost.sum())


def evaluate(sweep: Sweep, contexts: Sequence[FitContext], trials: Sequence[Trial]) -> list[State]:
    """One sweep: what the data say about each trial's mixture, each under its own context.

    The settings share the kernel; those of one frame share its rows, too.
    """
    kernel = KERNELS[contexts[0].kernel]
    pairs = list(zip(contexts, trials, strict=True))
    naturals = tuple(
        NaturalParameters.of(
            trial.mixture, each.reg, each.spread, kernel.centres, trial.bound < np.inf
        )
        for each, trial in pairs
    )
    frames = {id(each.frame): each.frame for each in contexts}
    places = [[i for i, each in enumerate(contexts) if id(each.frame) == key] for key in frames]
    givens = tuple(
        Given(frame, tuple(naturals[i].bare for i in chosen))
        for frame, chosen in zip(frames.values(), places, strict=True)
    )
    swept = sweep(_e_steps, (contexts[0].kernel, givens))
    found: dict[int, Statistics] = {}
    for chosen, own in zip(places, swept.parts, strict=True):
        found |= zip(chosen, own.parts, strict=True)
    states = []
    for i, ((context, trial), natural) in enumerate(zip(pairs, naturals, strict=True)):
        statistics = found[i]
        if context.moments is not None:
            _check_same_rows(statistics, natural, context.frame, context.weight, *context.moments)
        if context.anchor is not None:
            statistics = context.anchor.join(statistics, natural)
        common = natural.common_sum(context.total)
        volume = context.frame.log_volume
        objective = (statistics.objective + common) / context.weight - volume
        score = (statistics.log_likelihood + common) / context.weight - volume
        # Adding up costs the rounding of what is added up, too.
        bound = 0.0
        if natural.single:
            bound = max(trial.bound, context.single_error(statistics, trial.mixture))
            bound += 2 * SINGLE * abs(objective + volume)
        degenerate = trial.empty, trial.singular
        states.append(State(trial.mixture, statistics, objective, score, *degenerate, bound))
    return states


def _e_steps(block: Block, given: tuple[str, tuple[Given, ...]]) -> Stacked[Stacked[Statistics]]:
    """The statistics of a block by a kernel, for the mixtures of each frame."""
    kernel, givens = given
    return Stacked(tuple(KERNELS[kernel].e_step(block, each) for each in givens))


def _check_same_rows(
    statistics: Statistics,
    natural: NaturalParameters,
    frame: Frame,
    weight: float,
    mean: Array,
    size: float,
) -> None:
    """Raise ``DataError`` unless a sweep saw the rows of the first pass.

    The shares of a row sum to 1; so whatever the mixture, counts sum to the ``weight``, and x and
    |x|^2 have the ``mean`` and the mean ``size`` that they had.
    """
    features, n_features = natural.features, len(mean)
    sums = features.shifted(statistics.sums, -statistics.center).sum(axis=0) / weight
    square = features.length(n_features)
    off = [abs(sums[0] - 1), np.abs(sums[1 : 1 + n_features] - mean).max() / (1 + np.sqrt(size))]
    if len(square):
        off.append(abs(sums[1 + n_features :] @ square - size) / (1 + size))
    moved = 1e-14 * np.max(np.sum(statistics.center**2, axis=1))  # what it costs to move the sums
    stored = 1e-13 * np.max(np.abs(frame.shift) / frame.scale)  # merging rounds means far from 0
    if not max(off) < SAME[natural.single] + moved + stored:
        raise DataError(
            "the rows are not those of the first pass: their weight, mean or spread have changed, "
            f"by {max(off):.1e} of it. Something writes to them; fit again when it is done"
        )


def m_step(statistics: Statistics, context: FitContext, before: Mixture) -> Trial:
    """The mixture that maximises the expected objective under ``before``'s responsibilities."""
    raw = _maximum_likelihood(statistics, context, before)
    covariances, singular = raw.estimate.regularised(context.reg, raw.empty, before.covariances)
    mixture = Mixture(raw.weights / raw.weights.sum(), raw.means, covariances)
    return Trial(mixture, numbers(raw.empty), numbers(np.broadcast_to(singular, len(raw.means))))


@dataclass(frozen=True)
class _Raw:
    """Estimates from the statistics alone: before ``reg`` is added, and what needs care is seen to.

    Attributes
    ----------
    weights : (K,)
        They sum to the weight of the rows.
    means : (K, D)
    estimate : Estimate
        Of the covariances.
    empty : (K,)
        Which components have no weight left; their means are those they had.
    """

    weights: Array
    means: Array
    estimate: Estimate
    empty: NDArray[np.bool_]


def _maximum_likelihood(statistics: Statistics, context: FitContext, before: Mixture) -> _Raw:
    n_features = before.n_features
    counts = statistics.sums[:, 0]
    empty = counts <= np.finfo(np.float64).eps * statistics.weight
    weights = np.where(empty, 0.0, counts)
    divisors = np.where(empty, 1.0, counts)
    offsets = statistics.sums[:, 1 : 1 + n_features] / divisors[:, None]
    means = np.where(empty[:, None], before.means, statistics.center + offsets)
    second = statistics.sums[:, 1 + n_features :]
    estimate = context.covariance_model.estimate(weights, means, offsets, second, context.total)
    return _Raw(weights, means, estimate, empty)


def bare(statistics: Statistics, context: FitContext, before: Mixture) -> Trial:
    """That M-step without ``reg``: its components that singular are held up by ``reg`` alone."""
    return m_step(statistics, replace(context, reg=np.zeros_like(context.reg)), before)


def thin(
    statistics: Statistics, context: FitContext, before: Mixture, share: float
) -> tuple[int, ...]:
    """Components that in some direction have less than ``share`` times ``reg`` for a variance.

    That is, by the M-step from these ``statistics`` before ``reg`` is added.
    """
    raw = _maximum_likelihood(statistics, context, before)
    least = raw.estimate.thinnest(np.maximum(share * context.reg, FLOOR))
    return numbers((least < 1.0) & ~raw.empty)


def singular(state: State, context: FitContext) -> tuple[int, ...]:
    """Components of a state that nothing but ``reg``, or the smallest variance, holds up."""
    held = thin(state.statistics, context, state.mixture, ALONE)
    return tuple(sorted({*state.singular, *held}))


def unbounded(state: State, context: FitContext) -> tuple[int, ...]:
    """Those of the ``singular`` components that have spread in fewer directions than all rows.

    Their likelihood has no bound: a mixture that has one is not to be compared with others.  What
    is flat in all rows, a column of one value or a copy of another, is so in every mixture of the
    covariance model, and adds the same to each.
    """
    if not singular(state, context):
        return ()
    raw = _maximum_likelihood(state.statistics, context, state.mixture)
    weights, amounts = raw.weights / raw.weights.sum(), np.maximum(ALONE * context.reg, FLOOR)
    least = raw.estimate.thinnest_apart(weights, raw.means, amounts)
    return numbers(np.broadcast_to(least < 1.0, raw.empty.shape) & ~raw.empty)


@dataclass(frozen=True)
class Rivals:
    """Components of whose variance ``reg`` makes half or more, and the features where it does.

    Not among them are those that are singular, which are told of on their own.
    """

    components: tuple[int, ...]
    features: tuple[int, ...]

    @classmethod
    def of(cls, state: State, context: FitContext) -> "Rivals":
        """Those of a ``state``.

        In each component the features are those with large loadings in the direction in which its
        variance is smallest beside ``reg``.
        """
        mixture, reg = state.mixture, context.reg
        rivals = {*thin(state.statistics, context, mixture, RIVAL)} - {*singular(state, context)}
        if not rivals:
            return cls((), ())
        raw = _maximum_likelihood(state.statistics, context, mixture)
        loadings = raw.estimate.thinnest_loadings(np.maximum(reg, FLOOR))
        loadings = np.broadcast_to(loadings, mixture.means.shape)[sorted(rivals)]
        named = np.flatnonzero((loadings > LOADING).any(axis=0))
        return cls(tuple(sorted(rivals)), tuple(named.tolist()))


def numbers(flags: np.ndarray) -> tuple[int, ...]:
    """The numbers of the components that ``flags`` (K,) name."""
    return tuple(np.flatnonzero(flags).tolist())
