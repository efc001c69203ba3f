"""The whole fit, from the first sweep to the last, as a generator of progress.

::

    survey -> errors at the door -> setting -> walks, by strategy -> run -> walks

It yields after every sweep.  Its consumer shows progress, saves, stops, and takes the best walk
of the last one.

**Strategies.**  "em" is the textbook: EM from each start.  "auto" finds its start on a small part
of the survey's sample (starts.py), climbs the ladder of larger parts (ladder.py), up to an eighth
of all rows, and goes on over all rows in quasi-Newton steps (quasi.py).  Several ends of the ladder
go on side by side where it can't tell which is best.  Where rows are so many that the sample is far
less, it goes on serving between two passes (anchored.py).  Where all rows are so few that hundreds
of starts over them are cheap, these take the place of the sample's (scouts.py); and then, or where
rows are too few for the number of parameters, or the start is given, it is SQUAREM over all rows
(squarem.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from dgmm.em import race, seeding
from dgmm.em.anchored import Anchored
from dgmm.em.deadline import NEVER, Deadline
from dgmm.em.evaluate import Setting, Trial
from dgmm.em.ladder import ABREAST, Cost, Nearby, Samples, Tell, climb, informed, untold
from dgmm.em.quasi import Quasi
from dgmm.em.scouts import WORK, affordable, scouted
from dgmm.em.seeding import representative
from dgmm.em.squarem import Squarem
from dgmm.em.starts import TOP, Budget, named, rows_told, several
from dgmm.em.survey import Question, Survey, survey
from dgmm.em.walk import Stop, Textbook, Walk, best_of, run
from dgmm.errors import DataError, UsageError
from dgmm.kernels.sweep import Sweep
from dgmm.model.mixture import Mixture
from dgmm.model.structure import Array, Structure

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
class Request:
    """What is to be fitted; arrays are in the data's units.

    Attributes
    ----------
    structure : Structure
    components, strategy, tol, resolution, reg_covar, max_iter, n_init, init_params, effort
        As in ``GaussianMixture``.
    kernel, precision : str
        A key of ``native.KERNELS``; one of ``evaluate.PRECISIONS``.
    random : RandomState
    weights, means, precisions : (K,), (K, D), ``structure.shape(K, D)``, or None
        Where to start, as far as given.
    before : float or None
        The objective at the start of the last iteration of the fit that gave the start, if one did.
    deadline : Deadline
        When it ends with what it has, once there is an objective; asked between sweeps.
    """

    structure: Structure
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

    def question(self, rows: int, dims: int, weighted: bool) -> Question:
        """What the first sweep asks for."""
        seed = seeding.sample_seed(self.random)
        pairs = self.structure.shared
        ample = max(AMPLE * self.parameters(dims), min(rows // TOP, ROOM // dims))
        wanted = ample if self.strategy == "auto" else 0
        return Question.about(
            rows, dims, self.components, seed, weighted, pairs, wanted, self.kernel
        )

    def parameters(self, dims: int) -> int:
        """The number of free parameters."""
        covariances = self.structure.free_parameters(self.components, dims)
        return covariances + self.components * dims + self.components - 1

    def budget(self, rows: int, dims: int, sampled: int) -> Budget:
        """What finding a start on a sample may cost; nothing where none is looked for there."""
        if self.strategy == "auto" and (cheap := _cheap(self, (rows, dims), sampled)):
            return Budget(rows, max(self.n_init, cheap), (), WORK / (rows * self.components))
        if self.strategy != "auto" or self.given or self.direct(rows, dims):
            return Budget(0, 0, (), 0.0)
        return Budget.of(
            (rows, dims),
            self.components,
            self.parameters(dims),
            sampled,
            self.effort,
            self.n_init,
            self.init_params != "auto",
        )

    def abreast(self, rows: int, dims: int, sampled: int, near: bool = True) -> int:
        """How many walks may go on side by side: on samples, if these are ``near``, and over all.

        What so few rows cost that hundreds of starts are cheap is not counted.
        """
        budget = self.budget(rows, dims, sampled)
        if not budget.rows:
            return self.n_init
        ends = max(budget.starts, self.n_init) if budget.rungs else 1
        return ends if near else min(ends, ABREAST)

    def direct(self, rows: int, dims: int) -> bool:
        """Whether "auto" goes on over all rows from any start: there are few, or one optimum."""
        return rows < RACEABLE * self.parameters(dims) or self.components == 1

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
    found : Survey
    setting : Setting
    walks : tuple of Walk
        Empty after the first sweep.
    nearby : int
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
    found: Survey
    setting: Setting
    walks: tuple[Walk, ...] = ()
    nearby: int = 0
    resumed: bool = False
    seconds_on_samples: float = 0.0
    starts_seconds: float = 0.0
    seeking: bool = False

    @property
    def reached(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by name; nothing after the first sweep."""
        return {"walks": self.walks, "nearby": self.nearby} if self.walks else {}

    @property
    def best(self) -> Walk:
        """The walk with the highest objective."""
        return best_of(self.walks)

    @property
    def mixture(self) -> Mixture:
        """The best walk's mixture, of the data."""
        return self.setting.frame.leave(self.best.best.mixture)


class Stopped(Protocol):
    """Where a fit or a selection stopped that is to go on.

    Attributes
    ----------
    passes, found, nearby
        As in ``Progress``.
    """

    @property
    def passes(self) -> int: ...

    @property
    def found(self) -> Survey: ...

    @property
    def nearby(self) -> int: ...

    def restore(self, random: Any) -> None:
        """Put the random numbers where they were, if walks are still to be begun."""


class Resumed(Stopped, Protocol):
    """Where a fit stopped."""

    def walks(self, setting: Setting, samples: Samples | None) -> tuple[Walk, ...]:
        """The walks; none if they are still to be begun."""


def fit(
    sweep: Sweep,
    request: Request,
    question: Question,
    nearby: Nearby | None = None,
    resumed: Resumed | None = None,
    tell: Tell = untold,
) -> Iterator[Progress]:
    """Fit; raises ``DataError`` after the first sweep if the rows can't be used.

    ``nearby`` sweeps over rows in memory; "auto" wants it.  ``tell`` is told what is done on
    samples, for as long as that takes.  A fit that is ``resumed`` yields where
    it stopped first, without a sweep.
    """
    found = sweep(survey, question) if resumed is None else resumed.found
    check(found, request.components)
    setting = Setting.of(
        found, request.structure, request.reg_covar, request.kernel, request.precision
    )
    cost = Cost(deadline=request.deadline, tell=tell)
    samples = None
    if nearby is not None:
        samples = Samples(representative(found), found.weighted, nearby, cost)
    done, walks = 1, tuple[Walk, ...]()
    if resumed is not None:
        resumed.restore(request.random)
        done, walks = resumed.passes, resumed.walks(setting, samples)
        cost.densities = resumed.nearby
    seeking = not walks and not request.complete
    yield Progress(
        done, found, setting, walks, cost.densities, resumed is not None, seeking=seeking
    )
    if not walks:
        with cost.timed():
            walks = tuple(STRATEGIES[request.strategy](found, setting, request, samples))
    for passes, reached in enumerate(run(sweep, walks, drop=True), start=done + 1):
        yield Progress(
            *(passes, found, setting, reached, cost.densities),
            seconds_on_samples=cost.seconds,
            starts_seconds=cost.starts_seconds,
        )
        if request.deadline.passed:
            break


def _textbook(
    found: Survey, setting: Setting, request: Request, samples: Samples | None
) -> list[Walk]:
    """EM from each start."""
    stop = Stop(request.max_iter, tol=TOL if request.tol is None else request.tol)
    starts = _starts(found, setting, request, samples)
    return [Textbook.of(setting, start, stop, request.before) for start in starts]


def _auto(found: Survey, setting: Setting, request: Request, samples: Samples | None) -> list[Walk]:
    """The least time over all rows that the sample allows."""
    parameters = request.parameters(len(found.mean))
    resolution = parameters / (2 * found.weighted)
    target = request.resolution * resolution if request.tol is None else 0.0
    stop = Stop(request.max_iter, request.tol or 0.0, target)
    walk: Squarem
    walks: list[Walk]
    late = request.deadline.passed  # to look around
    shape, sampled = (found.weighted, len(found.mean)), len(found.sample.keys)
    if samples is not None and not late and (cheap := _cheap(request, shape, sampled)):
        rung = samples.rung(sampled, setting)
        count = max(request.n_init, cheap)
        with rung.cost.stage(f"{count} starts"):
            best, optima = scouted(rung, request.components, count, request.random)
        end = best.best.mixture
        walk = Squarem.of(setting, end, stop, best.lengths)
        # In double precision from the first sweep: it begins where it is to end.
        return [replace(walk, trial=Trial(end), starts=count, optima=optima)]
    if samples is None or request.given or late or request.direct(*shape):
        starts = _starts(found, setting, request, samples, ours=True)
        return [Squarem.of(setting, start, stop) for start in starts]
    budget = request.budget(*shape, sampled)
    raced = samples.part(budget.rows, setting)
    wanted, random = request.n_init, request.random
    if request.init_params == "auto":
        starts = several(raced, budget, request.components, parameters, wanted, random)
    else:
        starts = named(raced, request.components, request.init_params, wanted, random)
    top = max(budget.rungs, default=budget.rows)
    rung = samples.rung(top, setting)
    lower = [samples.part(size, setting) for size in budget.rungs if size < top]
    climbed = climb([*lower, rung] if budget.rungs else [], starts)
    ends = climbed.ends
    if top * FAR_BELOW < found.weighted and top > GUIDED * parameters:
        walks = [Anchored.of(setting, end, stop, rung, found.weighted) for end in ends]
    elif setting.structure.informed and (told := rows_told(shape, parameters, top)):
        near = [informed(rung, end, told) for end in ends]
        walks = [Quasi.of(setting, end, stop, known, floor) for end, known, floor in near]
    else:
        walks = [Quasi.of(setting, end, stop) for end in ends]
    return [
        replace(walk, starts=len(starts), optima=climbed.optima, starts_gain=climbed.gain)
        for walk in walks
    ]


def _cheap(request: Request, shape: tuple[int, int], sampled: int) -> int:
    """How many starts may run over all rows, if these are few and no start is named; else 0."""
    if request.given or request.init_params != "auto" or sampled < shape[0]:
        return 0
    return affordable(request.components, *shape)


Strategy = Callable[[Survey, Setting, Request, Samples | None], list[Walk]]
STRATEGIES: Final[dict[str, Strategy]] = {"auto": _auto, "em": _textbook}


def check(found: Survey, components: int) -> None:
    """Raise ``DataError`` unless so many components can be fitted to the rows."""
    if found.complaint is not None:
        raise DataError(found.complaint)
    if not found.weight > 0:
        raise DataError("all weights are zero: there is nothing to fit")
    if not WEIGHTS[0] < found.weight < WEIGHTS[1]:
        raise DataError(
            f"the weights sum to {found.weight:.3g}; rescale them, so that sums don't overflow"
        )
    if found.weighted < components:
        raise DataError(
            f"{found.weighted} rows have a weight above 0, fewer than the {components} components"
        )
    if not np.isfinite(found.variance).all():
        raise DataError("the rows are too large: their sums of squares overflow; rescale them")
    small = (found.low < found.high) & (found.robust_variance < SMALLEST)
    if small.any():
        j = int(small.argmax())
        raise DataError(
            f"the rows are too small: column {j} ranges from {found.low[j]:.3g} to "
            f"{found.high[j]:.3g}, and squares of that underflow; rescale it, or leave it out"
        )


def _starts(
    found: Survey,
    setting: Setting,
    request: Request,
    samples: Samples | None,
    ours: bool = False,
) -> list[Mixture]:
    """As many first mixtures as are asked for; see ``_start``."""
    cost = Cost() if samples is None else samples.cost
    starts = list[Mixture]()
    while len(starts) < request.n_init:
        with cost.start(len(starts) + 1, request.n_init):
            starts.append(_start(found, setting, request, ours))
    return starts


def _start(found: Survey, setting: Setting, request: Request, ours: bool = False) -> Mixture:
    """One first mixture (in the frame): what is given of it, the rest by ``init_params``.

    A method that is named sees the rows as scikit-learn's would, in their own units, unless the
    start is ``ours``; what nobody named must not depend on units.
    """
    weights, means, precisions = request.weights, request.means, request.precisions
    if weights is not None and means is not None and precisions is not None:
        return setting.frame.enter(given_mixture(request.structure, weights, means, precisions))
    unnamed = request.init_params == "auto"
    method = "kmeans" if unnamed else request.init_params
    theirs = seeding.seeded if ours or unnamed else seeding.seed
    make = race.seeded if ours and unnamed else theirs
    seed = make(representative(found), setting, request.components, method, request.random)
    seed = setting.frame.leave(seed)
    weights = seed.weights if weights is None else weights
    means = seed.means if means is None else means
    if precisions is not None:
        return setting.frame.enter(given_mixture(request.structure, weights, means, precisions))
    return setting.frame.enter(replace(seed, weights=weights, means=means))


def given_mixture(structure: Structure, weights: Array, means: Array, precisions: Array) -> Mixture:
    """A mixture from given parameters; raises ``UsageError`` unless they make one."""
    try:
        return Mixture.of(structure, weights / weights.sum(), means, precisions)
    except np.linalg.LinAlgError as error:
        raise UsageError(f"precisions_init must be symmetric positive definite: {error}") from error
