"""Nested subsamples: fits to larger and larger ones, which cost next to nothing beside a sweep.

A fit to n rows is off from a fit to all N by about p / 2 (1 / n - 1 / N) in the mean log-likelihood
(p free parameters), whatever it costs to find (Meek, Thiesson and Heckerman, The learning-curve
sampling method applied to model-based clustering, 2002).  So a fit begins on a small subsample,
goes on only as far as that can tell, and goes over to a larger one, each a subset of the next: the
last is the uniform sample that the first pass brought home.  Several starts go on side by side.
Those that end at one optimum are one from then on, and those that end more than p / 2n below the
best are left behind: the larger the subsample, the finer the differences that it can tell.

From the largest quasi_newton.py goes on, over all rows, or control_variate.py where the sample is a
small part of these.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import numpy as np

from dgmm.em.cost import Cost
from dgmm.em.evaluate import State, evaluate
from dgmm.em.fit_context import FitContext
from dgmm.em.information import Information
from dgmm.em.model import Trial
from dgmm.em.quasi_newton import FLOOR, QuasiNewton
from dgmm.em.sample import Sample
from dgmm.em.solver import RunState, StopRule, ranked, run_all
from dgmm.kernels.outputs import row_outputs
from dgmm.kernels.sweep import Sweep
from dgmm.model.mixture import Mixture
from dgmm.model.sharing import shared_out

A = TypeVar("A")
G = TypeVar("G")
T = TypeVar("T")

FEW: Final = 20
"""With fewer rows for each free parameter, no subsample is fitted to its end."""

MANY_SWEEPS: Final = 25
FEW_SWEEPS: Final = 8
"""Sweeps of a subsample at most, and of one with few rows for each parameter."""

NEAR: Final = 0.15
"""How near its own optimum a subsample leads, in p / (2 n), by a careful estimate."""

INFORMED_SWEEPS: Final = 10
INFORMED_TIMES: Final = 3
"""Sweeps of a subsample with the information at one mixture, and how often that is renewed."""

UNSURE: Final = 2.0
"""By how many times p / (2 n) what is worse on a subsample may yet be better on all rows."""

ABREAST: Final = 3
"""How many optima go on from a subsample at most."""

ALIKE_ROWS: Final = 20_000
"""How many rows tell two mixtures apart."""

InMemorySweep = Callable[..., Sweep]
"""The sweep over rows (n, D) in the memory of this process, with what lies beside them by name."""


class Elsewhere(Protocol):
    """Machines besides this one: they call ``fn(item, given)``, a pure function, for each of items.

    Attributes
    ----------
    room : int
        How many bytes a call may take.
    in_memory : InMemorySweep
        The sweep for calls: several go on side by side.
    """

    @property
    def room(self) -> int: ...

    @property
    def in_memory(self) -> InMemorySweep: ...

    def __call__(self, fn: Callable[[A, G], T], given: G, items: Sequence[A]) -> Sequence[T]: ...


def over(sample: Sample, in_memory: InMemorySweep) -> Sweep:
    """The sweep over a ``sample``."""
    block = sample.given
    return in_memory(block.rows, **block.beside)


def within(context: FitContext, sample: Sample) -> FitContext:
    """The ``context`` for the rows of a ``sample`` alone."""
    total = None
    if context.total is not None:
        x = context.frame.rows(sample.rows, np.empty(sample.rows.shape[::-1]))
        total = (x * sample.weights) @ x.T
    return replace(
        context, weight=float(sample.weights.sum()), total=total, moments=None, probe=None
    )


@dataclass(frozen=True)
class Subsample:
    """A sample to fit to.

    Attributes
    ----------
    sample : Sample
        Its weights make it stand for all rows.
    sweep : Sweep
    context : FitContext
    cost : Cost
        Counts what is done here.
    """

    sample: Sample
    sweep: Sweep
    context: FitContext
    cost: Cost

    @classmethod
    def of(
        cls, sample: Sample, context: FitContext, in_memory: InMemorySweep, cost: Cost
    ) -> "Subsample":
        """A ``sample`` to fit to."""
        return cls(sample, over(sample, in_memory), within(context, sample), cost)

    def refine(self, runs: Sequence[RunState], sweeps: int = 1000) -> list[RunState]:
        """The runs after so many sweeps more, or at their ends; after one, if time is up."""
        for _, reached in zip(range(sweeps), run_all(self.sweep, runs), strict=False):
            self._swept([run.trial for run in runs if run.trial is not None])
            runs = reached
            if self.cost.deadline.passed:
                break
        return list(runs)

    def evaluate(self, trial: Trial) -> State:
        """What the sample says of a mixture."""
        (state,) = evaluate(self.sweep, [self.context], [trial])
        self._swept([trial])
        return state

    def _swept(self, trials: Sequence[Trial]) -> None:
        """Count a sweep of these."""
        components = sum(trial.mixture.components for trial in trials)
        self.cost.swept(len(self.sample.rows) * components)

    def stage(self) -> AbstractContextManager[None]:
        """Tell that what is done inside is done here."""
        return self.cost.stage(f"{len(self.sample.rows):,} rows")

    def resolution(self, mixture: Mixture) -> float:
        """p / (2 n), the statistical resolution: what the rows can't tell from nothing."""
        return mixture.free_parameters / (2 * len(self.sample.rows))


@dataclass
class Samples:
    """The first pass's sample and parts of it, each made once and remembered.

    Attributes
    ----------
    sample : Sample
    rows : int
        How many rows it stands for.
    in_memory : InMemorySweep
    cost : Cost
    elsewhere : Elsewhere or None
        Machines that may help; None if there is only this one.
    """

    sample: Sample
    rows: int
    in_memory: InMemorySweep
    cost: Cost = field(default_factory=Cost)
    elsewhere: Elsewhere | None = None
    _parts: dict[int, tuple[Sample, Sweep]] = field(default_factory=dict)

    def part(self, size: int, context: FitContext) -> Subsample:
        """So many rows, to be used once: to fit to under ``context``."""
        return Subsample.of(self.sample.first(size), context, self.in_memory, self.cost)

    def subsample(self, size: int, context: FitContext) -> Subsample:
        """So many rows, to be kept: to fit to under ``context``."""
        if size not in self._parts:
            sample = self.sample.first(size)
            self._parts[size] = sample, over(sample, self.in_memory)
        sample, sweep = self._parts[size]
        return Subsample(sample, sweep, within(context, sample), self.cost)


@dataclass(frozen=True)
class Refined:
    """What came of starts.

    Attributes
    ----------
    ends : list of Mixture
        The best on the largest subsample.
    optima : int
        How many the smallest subsample met; 0 if there is none.
    gain : float
        By how much the best end was better there than that of the first start.
    """

    ends: list[Mixture]
    optima: int = 0
    gain: float = 0.0


def refine(subsamples: Sequence[Subsample], starts: Sequence[Mixture]) -> Refined:
    """What comes of ``starts`` on larger and larger ``subsamples``.

    Of the optima on each, those go on that it can't tell to be worse than the best.
    """
    refined = Refined(list(starts))
    for subsample in subsamples:
        resolution = subsample.resolution(starts[0])
        few = len(subsample.sample.rows) < FEW * starts[0].free_parameters
        stop = StopRule(FEW_SWEEPS if few else MANY_SWEEPS, target=NEAR * resolution)
        with subsample.stage():
            runs = subsample.refine(
                [QuasiNewton().init(subsample.context, start, stop) for start in refined.ends]
            )
            different = _different(subsample, runs)
            best = different[0]
            if not refined.optima:
                first = runs[0]
                apart = len(_different(subsample, [best, first])) > 1
                gain = best.best.objective - first.best.objective if apart else 0.0
                refined = Refined([], len(different), gain)
        least = best.best.objective - UNSURE * resolution
        ends = [run.best.mixture for run in different if run.best.objective > least]
        refined = replace(refined, ends=ends[:ABREAST])
    return refined


def informed(
    subsample: Subsample, mixture: Mixture, rows: int
) -> tuple[Mixture, Information, float]:
    """Nearer the optimum of a ``subsample``, with the information of so many ``rows`` there.

    And with the floor of its eigenvalues that served.
    """
    sample, floor = subsample.sample.first(rows), FLOOR[1]
    frame = subsample.context.frame
    stop = StopRule(INFORMED_SWEEPS, target=NEAR * subsample.resolution(mixture))
    for _ in range(INFORMED_TIMES):
        information = Information.of(sample, frame, mixture)
        with subsample.stage():
            solver = QuasiNewton(information=information, floor=floor)
            (run,) = subsample.refine([solver.init(subsample.context, mixture, stop)])
        assert isinstance(run.solver, QuasiNewton)
        mixture, floor = run.best.mixture, run.solver.floor
        if run.converged or subsample.cost.deadline.passed:
            break
    return mixture, Information.of(sample, frame, mixture), floor


def _different(subsample: Subsample, runs: Sequence[RunState]) -> list[RunState]:
    """Those of ``runs`` that ended at optima of their own, the best first.

    At one optimum the log-densities of two ends differ, in the mean square, by less than 2 p / n:
    that much where each is p / (4 n) from it on a side of its own, and next to nothing mostly.
    """
    if len(runs) == 1:
        return list(runs)
    sample = subsample.sample.first(min(len(subsample.sample.keys), ALIKE_ROWS))
    mixtures = [subsample.context.frame.leave(run.best.mixture) for run in runs]
    numbers = len(sample.rows) * sum(mixture.free_parameters for mixture in mixtures)
    logs = shared_out(
        lambda mixture: row_outputs(sample.rows, mixture, "score", sample.noise), mixtures, numbers
    )
    kept: list[int] = []
    for at in ranked(run.best.objective for run in runs):
        apart = (np.average((logs[at] - logs[i]) ** 2, weights=sample.weights) for i in kept)
        if all(each > 4 * subsample.resolution(mixtures[at]) for each in apart):
            kept.append(at)
    return [runs[at] for at in kept]
