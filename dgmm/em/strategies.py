"""The ways to fit that users can name: a strategy says by what solvers, and from what starts.

"em" is the textbook: EM from each start.

"auto" finds its start on a small part of the first pass's sample (starts.py), refines it on larger
parts (subsamples.py), up to an eighth of all rows, and goes on over all rows in quasi-Newton steps
(quasi_newton.py).  Where the largest part can't tell which of several ends is best, they go on side
by side.  There are three exceptions:

- The sample is a far smaller part of all rows: it goes on serving between two passes
  (control_variate.py).
- All rows are so few that hundreds of starts over them are cheap, or dozens of factors and heavy
  tails: these take the place of the sample's (scouts.py, knockout.py), and SQUAREM over all rows
  follows (squarem.py).
- Rows are too few for the number of parameters, or the start is given: it is SQUAREM over all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from dgmm.em import knockout, labelled, quasi_newton, splits
from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.expectation_maximization import EM
from dgmm.em.first_mixtures import first_mixtures
from dgmm.em.fit_context import FitContext
from dgmm.em.information import is_known
from dgmm.em.init import Random
from dgmm.em.model import Trial
from dgmm.em.moments import DataMoments
from dgmm.em.posterior_starts import POSTERIOR, RACEABLE, from_posteriors
from dgmm.em.quasi_newton import QuasiNewton
from dgmm.em.scouts import WORK, affordable, scouted
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.em.spec import FitSpec, Strategy
from dgmm.em.squarem import Squarem
from dgmm.em.starts import TOP, Budget, Search, information_rows, named
from dgmm.em.subsamples import Samples, Subsample, informed, refine
from dgmm.kernels.observation import COMPLETE
from dgmm.model.mixture import Mixture

TOL: Final = 1e-3
"""When "em" stops unless told: as scikit-learn does."""

FAR_BELOW: Final = 16
"""Where the sample is a smaller part of all rows, it goes on serving between passes over them."""

AMPLE: Final = 200
"""How many rows for each free parameter are as many as a sample needs."""

ROOM: Final = 1 << 21
"""Numbers in a sample that is to be ``TOP`` of all rows."""

SURROGATE: Final = 50
"""How many rows for each free parameter it must have for that."""


@dataclass(frozen=True)
class Textbook(Strategy):
    """EM from each start."""

    name: ClassVar[str] = "em"
    solvers: ClassVar[tuple[type[Solver], ...]] = (EM,)

    def goal(self, spec: FitSpec) -> str:
        return "tol"

    def sample_rows(self, spec: FitSpec, rows: int, n_features: int) -> int:
        return 0

    def budget(self, spec: FitSpec, rows: int, n_features: int, sampled: int) -> Budget:
        return Budget(0, 0, (), 0.0)

    def nbytes(self, spec: FitSpec, rows: int, n_features: int, runs: int) -> int:
        return 0

    def begin(
        self, moments: DataMoments, context: FitContext, spec: FitSpec, samples: Samples
    ) -> list[RunState]:
        tol = (TOL if spec.tol is None else spec.tol) * spec.prior.unit(moments.weight)
        stop = StopRule(spec.max_iter, tol=tol)
        starts = first_mixtures(context, spec, samples)
        return [replace(EM().init(context, start, stop), before=spec.before) for start in starts]


@dataclass(frozen=True)
class Auto(Strategy):
    """The least time over all rows that the sample allows."""

    name: ClassVar[str] = "auto"
    solvers: ClassVar[tuple[type[Solver], ...]] = (Squarem, QuasiNewton, ControlVariateEM)

    def goal(self, spec: FitSpec) -> str:
        return "resolution" if spec.tol is None else "tol"

    def sample_rows(self, spec: FitSpec, rows: int, n_features: int) -> int:
        return max(AMPLE * spec.parameters(n_features), min(rows // TOP, ROOM // n_features))

    def budget(self, spec: FitSpec, rows: int, n_features: int, sampled: int) -> Budget:
        if cheap := _cheap(spec, (rows, n_features), sampled):
            return Budget(rows, max(spec.n_init, cheap), (), WORK / (rows * spec.components))
        if count := _tries(spec, (rows, n_features), sampled):
            return Budget(rows, count, (), knockout.passes(count))
        few = _cheap(replace(spec, observation=COMPLETE), (rows, n_features), sampled)
        if spec.given or few or _direct(spec, rows, n_features):
            return Budget(0, 0, (), 0.0)
        named = spec.init_params != "auto" or spec.observation.labelled
        budget = Budget.of(
            (rows, n_features),
            spec.components,
            spec.coordinates(n_features),
            sampled,
            spec.effort,
            spec.n_init,
            named,
        )
        seeds = 0 if named else _seeds(spec, (budget.rows, n_features))
        work = budget.starts * knockout.passes(seeds) * budget.rows / rows
        return replace(budget, passes=budget.passes + work)

    def nbytes(self, spec: FitSpec, rows: int, n_features: int, runs: int) -> int:
        remembered = runs * quasi_newton.nbytes(spec.coordinates(n_features))
        if spec.given:
            return remembered
        # Where rows are more than that, starts are found on half so many at least.
        count = _tries(spec, (rows, n_features), rows)
        count = count or _seeds(spec, (min(rows, knockout.ROWS // 2), n_features))
        model, components = spec.covariance_model, spec.components
        remembered = max(remembered, knockout.nbytes(model, components, n_features, count))
        if _direct(spec, rows, n_features) or model.along_loadings:
            return remembered
        return max(remembered, splits.nbytes(components, n_features))

    def search(
        self, context: FitContext, spec: FitSpec, shape: tuple[int, int], sampled: int
    ) -> Search | None:
        named = spec.init_params != "auto" or spec.observation.labelled
        few = _cheap(spec, shape, sampled) or _tries(spec, shape, sampled)
        if named or spec.deadline.passed or few:
            return None
        budget, parameters = spec.budget(*shape, sampled), spec.parameters(shape[1])
        if not budget.rows:
            return None
        return Search(context, spec.components, parameters, budget, spec.n_init, spec.random)

    def begin(
        self, moments: DataMoments, context: FitContext, spec: FitSpec, samples: Samples
    ) -> list[RunState]:
        parameters, shape = (
            spec.parameters(len(moments.mean)),
            (moments.weighted, len(moments.mean)),
        )
        target = spec.resolution * (parameters / (2 * moments.weighted))
        tol = (spec.tol or 0.0) * spec.prior.unit(moments.weight)
        stop = StopRule(spec.max_iter, tol, target if spec.tol is None else 0.0)
        late = spec.deadline.passed  # no time to look for a start
        sampled = len(moments.sample.keys)
        if (cheap := _cheap(spec, shape, sampled)) and not late:
            return _from_finals(context, spec, samples, stop, max(spec.n_init, cheap), scouted)
        if (count := _tries(spec, shape, sampled)) and not late:
            return _from_finals(context, spec, samples, stop, count, knockout.best_of_seeds)
        if not (spec.given or late or spec.prior.is_density):
            return from_posteriors(context, spec, samples, stop)
        if not spec.prior.is_density:
            stop = replace(stop, target=POSTERIOR * stop.target)
        few = _cheap(replace(spec, observation=COMPLETE), shape, sampled)
        if spec.given or late or few or _direct(spec, *shape):
            if spec.observation.labelled and not (spec.given or late):
                whole = samples.subsample(len(samples.sample.keys), context)
                starts = labelled.several(whole, spec.components, spec.n_init, spec.random)
            else:
                starts = first_mixtures(context, spec, samples, ours=True)
            return [Squarem().init(context, start, stop) for start in starts]
        return _from_samples(context, spec, samples, stop, shape)


def _direct(spec: FitSpec, rows: int, n_features: int) -> bool:
    """Whether "auto" goes on over all rows from any start.

    It does where rows are few, where there is one optimum, and where it is not the likelihood that
    tells optima apart.
    """
    few = rows < RACEABLE * spec.parameters(n_features)
    return few or spec.components == 1 or not spec.prior.is_density


def _cheap(spec: FitSpec, shape: tuple[int, int], sampled: int) -> int:
    """How many starts may run over all rows, if these are few and no start is named; else 0."""
    named = spec.given or spec.init_params != "auto" or spec.observation.labelled
    other = spec.tails is not None or not spec.prior.is_density
    other = other or spec.covariance_model.along_loadings
    if named or other or sampled < shape[0]:
        return 0
    return affordable(spec.components, *shape)


def _tries(spec: FitSpec, shape: tuple[int, int], sampled: int) -> int:
    """How many seeds may run over all rows to their ends, where nobody named a start; else 0."""
    named = spec.given or spec.held is not None or spec.init_params != "auto"
    if named or spec.observation.labelled or not spec.prior.is_density or sampled < shape[0]:
        return 0
    return spec.n_init * _seeds(spec, shape)


def _seeds(spec: FitSpec, shape: tuple[int, int]) -> int:
    """How many seeds knock each other out on rows of that ``shape``, if any do there."""
    student = spec.tails is not None
    return knockout.tries(spec.covariance_model, student, spec.components, shape)


def _from_finals(
    context: FitContext,
    spec: FitSpec,
    samples: Samples,
    stop: StopRule,
    count: int,
    find: Callable[[Subsample, int, int, Random], tuple[RunState, int]],
) -> list[RunState]:
    """The run from the best end of so many starts over all rows, which are few."""
    subsample = samples.subsample(len(samples.sample.keys), context)
    with subsample.cost.stage(f"{count} starts"):
        best, optima = find(subsample, spec.components, count, spec.random)
    assert isinstance(best.solver, Squarem)
    end = best.best.mixture
    run = Squarem(lengths=best.solver.lengths).init(context, end, stop)
    # In double precision from the first sweep: it begins where it is to end.
    return [replace(run, trial=Trial(end), starts=count, optima=optima)]


def _from_samples(
    context: FitContext, spec: FitSpec, samples: Samples, stop: StopRule, shape: tuple[int, int]
) -> list[RunState]:
    """The runs from where starts on a small part of the sample lead on larger parts."""
    wanted, random = spec.n_init, spec.random
    budget = spec.budget(*shape, len(samples.sample.keys))
    if spec.starts:
        starts = list(spec.starts)
    elif spec.observation.labelled:
        raced = samples.part(budget.rows, context)
        starts = labelled.several(raced, spec.components, wanted, random)
    else:
        raced = samples.part(budget.rows, context)
        starts = named(raced, spec.components, spec.init_params, wanted, random)
    top = max(budget.subsamples, default=budget.rows)
    subsample = samples.subsample(top, context)
    lower = [samples.part(size, context) for size in budget.subsamples if size < top]
    refined = refine([*lower, subsample] if budget.subsamples else [], starts)
    return [
        replace(run, starts=len(starts), optima=refined.optima, starts_gain=refined.gain)
        for run in _over_all(context, stop, subsample, top, shape, refined.ends)
    ]


def _over_all(
    context: FitContext,
    stop: StopRule,
    subsample: Subsample,
    top: int,
    shape: tuple[int, int],
    ends: list[Mixture],
) -> list[RunState]:
    """The runs over all rows from where a ``subsample``, of ``top`` rows, leads."""
    parameters, rows = ends[0].free_parameters, shape[0]
    student = context.model.tails is not None
    # Their statistics are no sums of natural features.
    other = student or context.model.covariance_model.along_loadings
    if top * FAR_BELOW < rows and top > SURROGATE * parameters and not other:
        solver = ControlVariateEM(subsample, rows)
        return [solver.init(context, end, stop) for end in ends]
    covariance_model = context.model.covariance_model
    informing = information_rows(shape, parameters, top)
    observation = context.model.observation
    plain = context.model.prior.is_likelihood and not observation.deconvolves and not student
    if informing and plain and is_known(covariance_model, shape[1]):
        near = [informed(subsample, end, informing) for end in ends]
        return [
            QuasiNewton(information=known, floor=floor).init(context, end, stop)
            for end, known, floor in near
        ]
    return [QuasiNewton().init(context, end, stop) for end in ends]


StrategyName = Literal["auto", "em"]
"""The names of ``STRATEGIES``."""

STRATEGIES: Final[dict[str, Strategy]] = {
    strategy.name: strategy for strategy in (Auto(), Textbook())
}
"""What ``strategy`` may be, by name."""
