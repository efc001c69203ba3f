"""The whole fit, from the first sweep to the last, as a generator of progress.

::

    first pass -> errors at the door -> context -> runs, by strategy -> sweeps -> runs

It yields after every sweep.  Its consumer shows progress, saves, stops, and takes the best run of
the last one.

**Strategies.**  "em" is the textbook: EM from each start.  "auto" finds its start on a small part
of the first pass's sample (starts.py), climbs the ladder of larger parts (subsamples.py), up to an
eighth of all rows, and goes on over all rows in quasi-Newton steps (quasi_newton.py).  Several ends
of the ladder go on side by side where it can't tell which is best.  Where rows are so many that the
sample is far less, it goes on serving between two passes (control_variate.py).  Where all rows are
so few that hundreds of starts over them are cheap, these take the place of the sample's
(scouts.py); and then, or where rows are too few for the number of parameters, or the start is
given, it is SQUAREM over all rows (squarem.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy as np

from dgmm.em import init, quasi_newton, race, split_merge
from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.deadline import NEVER, Deadline
from dgmm.em.evaluate import FitContext, Trial
from dgmm.em.expectation_maximization import EM
from dgmm.em.first_pass import DataMoments, FirstPassSpec, first_pass
from dgmm.em.information import is_known
from dgmm.em.init import representative
from dgmm.em.quasi_newton import QuasiNewton
from dgmm.em.scouts import WORK, affordable, scouted
from dgmm.em.solver import RunState, StopRule, best_of, run_all
from dgmm.em.squarem import Squarem
from dgmm.em.starts import TOP, Budget, named, rows_told, several
from dgmm.em.subsamples import ABREAST, Cost, InMemorySweep, Samples, Tell, informed, refine, untold
from dgmm.errors import DataError, UsageError
from dgmm.kernels.sweep import Sweep
from dgmm.model.covariance_model import Array, CovarianceModel
from dgmm.model.mixture import Mixture

TOL: Final = 1e-3
"""When "em" stops unless told: as scikit-learn does."""

RACEABLE: Final = 5
"""With fewer rows for each free parameter there is no race, and no ladder."""

WEIGHTS: Final = (1e-200, 1e200)
"""Between which the sum of all weights must be, so that sums of squares don't overflow."""

SMALLEST: Final = np.finfo(np.float64).tiny / np.finfo(np.float64).eps
"""The smallest variance whose digits doubles hold."""

FAR_BELOW: Final = 16
"""Where the sample is a smaller part of all rows, it goes on serving between passes over them."""

AMPLE: Final = 200
"""How many rows for each free parameter are as many as a sample needs."""

ROOM: Final = 1 << 21
"""Numbers in a sample that is to be ``TOP`` of all rows."""

GUIDED: Final = 50
"""How many rows for each free parameter it must have for that."""


@dataclass(frozen=True)
class FitSpec:
    """What is to be fitted; arrays are in the data's units.

    Attributes
    ----------
    covariance_model : CovarianceModel
    components, strategy, tol, resolution, reg_covar, max_iter, n_init, init_params, effort
        As in ``GaussianMixture``.
    kernel, precision : str
        A key of ``native.KERNELS``; one of ``evaluate.PRECISIONS``.
    random : RandomState
    weights, means, precisions : (K,), (K, D), ``covariance_model.shape(K, D)``, or None
        Where to start, as far as given.
    before : float or None
        The objective at the start of the last iteration of the fit that gave the start, if one did.
    deadline : Deadline
        When it ends with what it has, once there is an objective; asked between sweeps.
    """

    covariance_model: CovarianceModel
    components: int
    strategy: str = "em"
    tol: float | None = None
    resolution: float = 0.1
    reg_covar: float | None = None
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "auto"
    effort: str = "auto"
    kernel: str = "numpy"
    precision: str = "float64"
    random: Any = None
    weights: Array | None = None
    means: Array | None = None
    precisions: Array | None = None
    before: float | None = None
    deadline: Deadline = NEVER

    def first_pass_spec(self, rows: int, n_features: int, weighted: bool) -> FirstPassSpec:
        """What the first sweep asks for."""
        seed = init.sample_seed(self.random)
        pairs = self.covariance_model.needs_scatter
        ample = max(AMPLE * self.parameters(n_features), min(rows // TOP, ROOM // n_features))
        wanted = ample if self.strategy == "auto" else 0
        return FirstPassSpec.of(
            rows, n_features, self.components, seed, weighted, pairs, wanted, self.kernel
        )

    def parameters(self, n_features: int) -> int:
        """The number of free parameters."""
        covariances = self.covariance_model.free_parameters(self.components, n_features)
        return covariances + self.components * n_features + self.components - 1

    def budget(self, rows: int, n_features: int, sampled: int) -> Budget:
        """What finding a start on a sample may cost; nothing where none is looked for there."""
        if self.strategy == "auto" and (cheap := _cheap(self, (rows, n_features), sampled)):
            return Budget(rows, max(self.n_init, cheap), (), WORK / (rows * self.components))
        if self.strategy != "auto" or self.given or self.direct(rows, n_features):
            return Budget(0, 0, (), 0.0)
        return Budget.of(
            (rows, n_features),
            self.components,
            self.parameters(n_features),
            sampled,
            self.effort,
            self.n_init,
            self.init_params != "auto",
        )

    def abreast(self, rows: int, n_features: int, sampled: int, near: bool = True) -> int:
        """How many runs may go on side by side: on samples, if these are ``near``, and over all.

        What so few rows cost that hundreds of starts are cheap is not counted.
        """
        budget = self.budget(rows, n_features, sampled)
        if not budget.rows:
            return self.n_init
        ends = max(budget.starts, self.n_init) if budget.subsamples else 1
        return ends if near else min(ends, ABREAST)

    def nbytes(self, rows: int, n_features: int, solvers: int) -> int:
        """What ``solvers`` side by side take: their memory, or what shows how to split."""
        if self.strategy != "auto":
            return 0
        remembered = solvers * quasi_newton.nbytes(self.parameters(n_features))
        if self.given or self.direct(rows, n_features):
            return remembered
        return max(remembered, split_merge.nbytes(self.components, n_features))

    def direct(self, rows: int, n_features: int) -> bool:
        """Whether "auto" goes on over all rows from any start: there are few, or one optimum."""
        return rows < RACEABLE * self.parameters(n_features) or self.components == 1

    @property
    def given(self) -> bool:
        """Whether any starting values are."""
        return any(each is not None for each in (self.weights, self.means, self.precisions))

    @property
    def complete(self) -> bool:
        """Whether all starting values are given."""
        return all(each is not None for each in (self.weights, self.means, self.precisions))


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a sweep.

    Attributes
    ----------
    passes : int
        Sweeps so far.
    moments : DataMoments
    context : FitContext
    runs : tuple of RunState
        Empty after the first sweep.
    densities : int
        Rows of the sample evaluated so far, times components.
    resumed : bool
        Whether the fit goes on from here, and no sweep was made to get here.
    seconds_on_samples : float
        That work on samples took so far, since it was resumed.
    starts_seconds : float
        Of these, what looking for starts after the first took.
    seeking : bool
        Whether starts are looked for on samples next.
    """

    passes: int
    moments: DataMoments
    context: FitContext
    runs: tuple[RunState, ...] = ()
    densities: int = 0
    resumed: bool = False
    seconds_on_samples: float = 0.0
    starts_seconds: float = 0.0
    seeking: bool = False

    @property
    def reached(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by name; nothing after the first sweep."""
        return {"runs": self.runs, "densities": self.densities} if self.runs else {}

    @property
    def best(self) -> RunState:
        """The run with the highest objective."""
        return best_of(self.runs)

    @property
    def mixture(self) -> Mixture:
        """The best run's mixture, of the data."""
        return self.context.frame.leave(self.best.best.mixture)


class Stopped(Protocol):
    """Where a fit or a selection stopped that is to go on.

    Attributes
    ----------
    passes, moments, densities
        As in ``Progress``.
    """

    @property
    def passes(self) -> int: ...

    @property
    def moments(self) -> DataMoments: ...

    @property
    def densities(self) -> int: ...

    def restore(self, random: Any) -> None:
        """Put the random numbers where they were, if runs are still to be begun."""


class Resumed(Stopped, Protocol):
    """Where a fit stopped."""

    def runs(self, context: FitContext, samples: Samples | None) -> tuple[RunState, ...]:
        """The runs; none if they are still to be begun."""


def fit(
    sweep: Sweep,
    spec: FitSpec,
    first_pass_spec: FirstPassSpec,
    in_memory_sweep: InMemorySweep | None = None,
    resumed: Resumed | None = None,
    tell: Tell = untold,
) -> Iterator[Progress]:
    """Fit; raises ``DataError`` after the first sweep if the rows can't be used.

    ``in_memory_sweep`` sweeps over rows in memory; "auto" wants it.  ``tell`` is told what is done
    on samples, for as long as that takes.  A fit that is ``resumed`` yields where it stopped first,
    without a sweep.
    """
    moments = sweep(first_pass, first_pass_spec) if resumed is None else resumed.moments
    check(moments, spec.components)
    context = FitContext.of(
        moments, spec.covariance_model, spec.reg_covar, spec.kernel, spec.precision
    )
    cost = Cost(deadline=spec.deadline, tell=tell)
    samples = None
    if in_memory_sweep is not None:
        samples = Samples(representative(moments), moments.weighted, in_memory_sweep, cost)
    done, runs = 1, tuple[RunState, ...]()
    if resumed is not None:
        resumed.restore(spec.random)
        done, runs = resumed.passes, resumed.runs(context, samples)
        cost.densities = resumed.densities
    seeking = not runs and not spec.complete
    yield Progress(
        done, moments, context, runs, cost.densities, resumed is not None, seeking=seeking
    )
    if not runs:
        with cost.timed():
            runs = tuple(STRATEGIES[spec.strategy](moments, context, spec, samples))
    for passes, reached in enumerate(run_all(sweep, runs, drop=True), start=done + 1):
        yield Progress(
            *(passes, moments, context, reached, cost.densities),
            seconds_on_samples=cost.seconds,
            starts_seconds=cost.starts_seconds,
        )
        if spec.deadline.passed:
            break


def _textbook(
    moments: DataMoments, context: FitContext, spec: FitSpec, samples: Samples | None
) -> list[RunState]:
    """EM from each start."""
    stop = StopRule(spec.max_iter, tol=TOL if spec.tol is None else spec.tol)
    starts = _starts(moments, context, spec, samples)
    return [replace(EM().init(context, start, stop), before=spec.before) for start in starts]


def _auto(
    moments: DataMoments, context: FitContext, spec: FitSpec, samples: Samples | None
) -> list[RunState]:
    """The least time over all rows that the sample allows."""
    parameters = spec.parameters(len(moments.mean))
    resolution = parameters / (2 * moments.weighted)
    target = spec.resolution * resolution if spec.tol is None else 0.0
    stop = StopRule(spec.max_iter, spec.tol or 0.0, target)
    late = spec.deadline.passed  # to look around
    shape, sampled = (moments.weighted, len(moments.mean)), len(moments.sample.keys)
    if samples is not None and not late and (cheap := _cheap(spec, shape, sampled)):
        subsample = samples.subsample(sampled, context)
        count = max(spec.n_init, cheap)
        with subsample.cost.stage(f"{count} starts"):
            best, optima = scouted(subsample, spec.components, count, spec.random)
        assert isinstance(best.solver, Squarem)
        end = best.best.mixture
        run = Squarem(lengths=best.solver.lengths).init(context, end, stop)
        # In double precision from the first sweep: it begins where it is to end.
        return [replace(run, trial=Trial(end), starts=count, optima=optima)]
    if samples is None or spec.given or late or spec.direct(*shape):
        starts = _starts(moments, context, spec, samples, ours=True)
        return [Squarem().init(context, start, stop) for start in starts]
    budget = spec.budget(*shape, sampled)
    raced = samples.part(budget.rows, context)
    wanted, random = spec.n_init, spec.random
    if spec.init_params == "auto":
        starts = several(raced, budget, spec.components, parameters, wanted, random)
    else:
        starts = named(raced, spec.components, spec.init_params, wanted, random)
    top = max(budget.subsamples, default=budget.rows)
    subsample = samples.subsample(top, context)
    lower = [samples.part(size, context) for size in budget.subsamples if size < top]
    refined = refine([*lower, subsample] if budget.subsamples else [], starts)
    ends = refined.ends
    if top * FAR_BELOW < moments.weighted and top > GUIDED * parameters:
        guided = ControlVariateEM(subsample, moments.weighted)
        runs = [guided.init(context, end, stop) for end in ends]
    elif is_known(spec.covariance_model, shape[1]) and (told := rows_told(shape, parameters, top)):
        near = [informed(subsample, end, told) for end in ends]
        runs = [
            QuasiNewton(information=known, floor=floor).init(context, end, stop)
            for end, known, floor in near
        ]
    else:
        runs = [QuasiNewton().init(context, end, stop) for end in ends]
    return [
        replace(run, starts=len(starts), optima=refined.optima, starts_gain=refined.gain)
        for run in runs
    ]


def _cheap(spec: FitSpec, shape: tuple[int, int], sampled: int) -> int:
    """How many starts may run over all rows, if these are few and no start is named; else 0."""
    if spec.given or spec.init_params != "auto" or sampled < shape[0]:
        return 0
    return affordable(spec.components, *shape)


Strategy = Callable[[DataMoments, FitContext, FitSpec, Samples | None], list[RunState]]
StrategyName = Literal["auto", "em"]
"""The names of ``STRATEGIES``."""

STRATEGIES: Final[dict[str, Strategy]] = {"auto": _auto, "em": _textbook}


def check(moments: DataMoments, components: int) -> None:
    """Raise ``DataError`` unless so many components can be fitted to the rows."""
    if moments.complaint is not None:
        raise DataError(moments.complaint)
    if not moments.weight > 0:
        raise DataError("all weights are zero: there is nothing to fit")
    if not WEIGHTS[0] < moments.weight < WEIGHTS[1]:
        raise DataError(
            f"the weights sum to {moments.weight:.3g}; rescale them, so that sums don't overflow"
        )
    if moments.weighted < components:
        raise DataError(
            f"{moments.weighted} rows have a weight above 0, fewer than the {components} components"
        )
    if not np.isfinite(moments.variance).all():
        raise DataError("the rows are too large: their sums of squares overflow; rescale them")
    small = (moments.low < moments.high) & (moments.robust_variance < SMALLEST)
    if small.any():
        j = int(small.argmax())
        raise DataError(
            f"the rows are too small: column {j} ranges from {moments.low[j]:.3g} to "
            f"{moments.high[j]:.3g}, and squares of that underflow; rescale it, or leave it out"
        )


def _starts(
    moments: DataMoments,
    context: FitContext,
    spec: FitSpec,
    samples: Samples | None,
    ours: bool = False,
) -> list[Mixture]:
    """As many first mixtures as are asked for; see ``_start``."""
    cost = Cost() if samples is None else samples.cost
    starts = list[Mixture]()
    while len(starts) < spec.n_init:
        with cost.start(len(starts) + 1, spec.n_init):
            starts.append(_start(moments, context, spec, ours))
    return starts


def _start(moments: DataMoments, context: FitContext, spec: FitSpec, ours: bool = False) -> Mixture:
    """One first mixture (in the frame): what is given of it, the rest by ``init_params``.

    A method that is named sees the rows as scikit-learn's would, in their own units, unless the
    start is ``ours``; what nobody named must not depend on units.
    """
    weights, means, precisions = spec.weights, spec.means, spec.precisions
    if weights is not None and means is not None and precisions is not None:
        return context.frame.enter(given_mixture(spec.covariance_model, weights, means, precisions))
    unnamed = spec.init_params == "auto"
    method = "kmeans" if unnamed else spec.init_params
    theirs = init.seeded if ours or unnamed else init.seed
    make = race.seeded if ours and unnamed else theirs
    seed = make(representative(moments), context, spec.components, method, spec.random)
    seed = context.frame.leave(seed)
    weights = seed.weights if weights is None else weights
    means = seed.means if means is None else means
    if precisions is not None:
        return context.frame.enter(given_mixture(spec.covariance_model, weights, means, precisions))
    return context.frame.enter(replace(seed, weights=weights, means=means))


def given_mixture(
    covariance_model: CovarianceModel, weights: Array, means: Array, precisions: Array
) -> Mixture:
    """A mixture from given parameters; raises ``UsageError`` unless they make one."""
    try:
        return Mixture.of(covariance_model, weights / weights.sum(), means, precisions)
    except np.linalg.LinAlgError as error:
        raise UsageError(f"precisions_init must be symmetric positive definite: {error}") from error
