"""What the data say about a mixture: the E-step.

A ``State`` pairs a mixture with what one sweep says about *that* mixture, so the objective printed,
the parameters returned and the state saved belong together.  ``evaluate`` takes the sweep; the
context's ``m_step`` makes the next mixture of its statistics (model.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.em.fit_context import SINGLE, FitContext
from dgmm.em.model import Trial
from dgmm.errors import DataError
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Observation
from dgmm.kernels.probe import SAME as CHANGED
from dgmm.kernels.probe import Probe
from dgmm.kernels.rounding import OMITTED, TOLERANCE
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.sharing import shared_out
from dgmm.model.statistics import Stacked, Statistics

SAME: Final = (1e-6, 1e-3)
"""How far moments may be off by rounding, in double and single precision, where 1 is the spread."""

FORM: Final = 2
"""How many numbers it takes to make natural parameters, about, for each free parameter and feature;
and to make a state of statistics."""

NOT_THE_SAME: Final = (
    "the rows are not those of the first pass: their {} have changed, by {:.1e} of it. Something "
    "writes to them; fit again when it is done"
)


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
        that is large its logarithm.  The variances of a singular component are set.
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

    The contexts share the observation model; those of one frame share its rows, too.
    """
    pairs = list(zip(contexts, trials, strict=True))
    numbers = FORM * sum(each.mixture.free_parameters * each.mixture.n_features for each in trials)

    def natural(pair: tuple[FitContext, Trial]) -> NaturalParameters:
        return pair[0].natural(pair[1].mixture, pair[1].bound < np.inf)

    naturals = tuple(shared_out(natural, pairs, numbers))
    observation = contexts[0].model.observation
    frames = {id(context.frame): context.frame for context in contexts}
    places = [
        [i for i, context in enumerate(contexts) if id(context.frame) == key] for key in frames
    ]
    givens = tuple(
        Given(frame, tuple(observation.given(naturals[i]) for i in chosen))
        for frame, chosen in zip(frames.values(), places, strict=True)
    )
    probe = contexts[0].probe
    swept = sweep(_e_steps, _EStep(observation, givens, probe is not None))
    _check_probe(probe, swept.probe)
    statistics: dict[int, Statistics] = {}
    for chosen, stacked in zip(places, swept.statistics.parts, strict=True):
        statistics |= zip(chosen, stacked.parts, strict=True)
    found = [statistics[i] for i in range(len(pairs))]
    told = list(zip(contexts, trials, naturals, found, strict=True))
    return shared_out(lambda each: _state(*each), told, numbers)


def _state(
    context: FitContext, trial: Trial, natural: NaturalParameters, statistics: Statistics
) -> State:
    """What the ``statistics`` of a sweep under the ``natural`` parameters of a trial come to."""
    if context.moments is not None:
        _check_same_rows(statistics, natural, context.frame, context.weight, *context.moments)
    if context.correction is not None:
        statistics = context.correction.join(statistics, natural)
    common = natural.common_sum(context.total)
    volume = context.frame.log_volume
    objective = (statistics.objective + common) / context.weight - volume
    objective += context.share * context.model.prior.log_density(trial.mixture)
    score = (statistics.log_likelihood + common) / context.weight - volume
    # Adding up costs the rounding of what is added up, too.
    bound = 0.0
    if natural.single:
        bound = max(trial.bound, context.single_error(statistics, trial.mixture))
        bound += 2 * SINGLE * abs(objective + volume) + OMITTED[True]
    return State(trial.mixture, statistics, objective, score, trial.empty, trial.singular, bound)


def swept_statistics(
    sweep: Sweep, context: FitContext, naturals: Sequence[NaturalParameters]
) -> tuple[Statistics, ...]:
    """What rows that are not those of a first pass say of mixtures, and nothing else."""
    observation = context.model.observation
    given = Given(context.frame, tuple(observation.given(natural) for natural in naturals))
    return sweep(_e_steps, _EStep(observation, (given,), False)).statistics.parts[0].parts


@dataclass(frozen=True)
class Swept:
    """The statistics under the mixtures of each frame, and a ``Probe`` where it is wanted."""

    statistics: Stacked[Stacked[Statistics]]
    probe: Probe | None

    def __add__(self, other: "Swept") -> "Swept":
        both = None if self.probe is None or other.probe is None else self.probe + other.probe
        return Swept(self.statistics + other.statistics, both)


@dataclass(frozen=True)
class _EStep:
    """What a sweep is given: mixtures in frames, and whether a ``Probe`` is wanted."""

    observation: Observation
    givens: tuple[Given, ...]
    probed: bool

    @property
    def row_products(self) -> float:
        """How many products a row takes; see ``Sweep``."""
        return sum(self.observation.row_products(given) for given in self.givens)


def _e_steps(block: Block, given: _EStep) -> Swept:
    """The statistics of a block under the mixtures of each frame."""
    observation = given.observation
    statistics = Stacked(tuple(observation.e_step(block, in_frame) for in_frame in given.givens))
    return Swept(statistics, Probe.of(block) if given.probed else None)


def _check_probe(before: Probe | None, now: Probe | None) -> None:
    """Raise ``DataError`` unless a sweep saw the ``Probe`` of the first pass, if there was one."""
    if before is not None and now is not None:
        off = before.difference(now)
        if off > CHANGED:  # NaN is of squares that overflow
            raise DataError(NOT_THE_SAME.format("holes, weight, mean or spread", off))


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
        raise DataError(NOT_THE_SAME.format("weight, mean or spread", max(off)))
