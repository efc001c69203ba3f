"""The ladder: fits to larger and larger samples, which cost next to nothing beside a sweep.

A fit to n rows is off from a fit to all N by about p / 2 (1 / n - 1 / N) in the mean log-likelihood
(p free parameters), whatever it costs to find (Meek, Thiesson and Heckerman, The learning-curve
sampling method applied to model-based clustering, 2002).  So the climb begins on a small sample,
goes on only as far as that can tell, and goes over to a larger one, each a subset of the next: the
uniform sample that the survey brought home.  Several starts climb side by side.  Those that end at
one optimum are one from then on, and those that end more than p / 2n below the best stay behind:
the higher the rung, the finer the differences that it can tell.

From the top quasi.py goes on, over all rows, or anchored.py where the sample is a small part of
these.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from dgmm.em.deadline import NEVER, Deadline
from dgmm.em.evaluate import Setting
from dgmm.em.information import Information
from dgmm.em.quasi import FLOOR, Quasi
from dgmm.em.sample import Sample
from dgmm.em.walk import Stop, Walk, run
from dgmm.kernels.answers import answer
from dgmm.kernels.sweep import Sweep
from dgmm.model.mixture import Mixture
from dgmm.model.structure import Array

FEW: Final = 20
"""With fewer rows for each free parameter, a rung is not climbed to its end."""

MANY_SWEEPS: Final = 25
FEW_SWEEPS: Final = 8
"""Sweeps of a rung at most, and of one with few rows for each parameter."""

NEAR: Final = 0.15
"""How near its own optimum a rung leads, in p / (2 n), by a careful estimate."""

INFORMED_SWEEPS: Final = 10
INFORMED_TIMES: Final = 3
"""Sweeps of a rung with the information at one mixture, and how often that is renewed."""

UNSURE: Final = 2.0
"""By how many times p / (2 n) an optimum may be worse on a rung and yet be better on all rows."""

ABREAST: Final = 3
"""How many optima go on from a rung at most."""

ALIKE_ROWS: Final = 20_000
"""How many rows tell two mixtures apart."""

Nearby = Callable[[Array, Array | None], Sweep]
"""The sweep over rows (n, D) and their weights (n,), in the memory of this process."""


Tell = Callable[[str, int], None]
"""Takes what is done on samples at the moment ("" for nothing any more), and in which sweep."""


def untold(stage: str, sweep: int) -> None:
    """Tell nobody."""


@dataclass
class Cost:
    """What work on samples took so far; and where it is.

    The one thing here that counts as it goes.  It is to cost no more once the ``deadline`` has
    passed.

    Attributes
    ----------
    densities : int
        Rows times components evaluated in memory.
    seconds : float
        That all work on samples took.
    starts_seconds : float
        Of these, what looking for starts after the first took.
    deadline : Deadline
    tell : callable
        Is told of each stage, and of each sweep.
    """

    densities: int = 0
    seconds: float = 0.0
    starts_seconds: float = 0.0
    deadline: Deadline = NEVER
    tell: Tell = untold
    _stages: tuple[str, ...] = ()
    _sweeps: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            self.tell("", 0)

    @contextmanager
    def stage(self, said: str) -> Iterator[None]:
        """Tell what is done inside, as a part of what is done outside."""
        outer = self._stages, self._sweeps
        self._stages, self._sweeps = (*self._stages, said), 0
        self._told()
        try:
            yield
        finally:
            self._stages, self._sweeps = outer

    @contextmanager
    def start(self, number: int, most: int) -> Iterator[None]:
        """Tell that a start is looked for inside; those after the first have their seconds."""
        began = time.perf_counter()
        with self.stage(f"start {number} of {most}"):
            yield
        if number > 1:
            self.starts_seconds += time.perf_counter() - began

    def swept(self, densities: int) -> None:
        """Count a sweep, of so many."""
        self.densities += densities
        self._sweeps += 1
        self._told()

    def _told(self) -> None:
        self.tell(", ".join(self._stages), self._sweeps)


def over(sample: Sample, nearby: Nearby) -> Sweep:
    """The sweep over a ``sample``."""
    return nearby(sample.rows, None if (sample.weights == 1).all() else sample.weights)


def within(setting: Setting, sample: Sample) -> Setting:
    """The ``setting`` for the rows of a ``sample`` alone."""
    total = None
    if setting.total is not None:
        x = setting.frame.rows(sample.rows, np.empty(sample.rows.shape[::-1]))
        total = (x * sample.weights) @ x.T
    return replace(setting, weight=float(sample.weights.sum()), total=total, moments=None)


@dataclass(frozen=True)
class Rung:
    """A sample to fit to.

    Attributes
    ----------
    sample : Sample
        Its weights make it stand for all rows.
    sweep : Sweep
    setting : Setting
    cost : Cost
        Counts what is done here.
    """

    sample: Sample
    sweep: Sweep
    setting: Setting
    cost: Cost

    @classmethod
    def of(cls, sample: Sample, setting: Setting, nearby: Nearby, cost: Cost) -> "Rung":
        """The rung of a ``sample``."""
        return cls(sample, over(sample, nearby), within(setting, sample), cost)

    def climb(self, walks: Sequence[Walk], sweeps: int = 1000) -> list[Walk]:
        """The walks after so many sweeps more, or at their ends; after one, if time is up."""
        for _, reached in zip(range(sweeps), run(self.sweep, walks), strict=False):
            trials = [walk.trial for walk in walks if walk.trial is not None]
            components = sum(trial.mixture.components for trial in trials)
            self.cost.swept(len(self.sample.rows) * components)
            walks = reached
            if self.cost.deadline.passed:
                break
        return list(walks)

    def stage(self) -> AbstractContextManager[None]:
        """Tell that what is done inside is done here."""
        return self.cost.stage(f"{len(self.sample.rows):,} rows")

    def resolution(self, mixture: Mixture) -> float:
        """p / (2 n), the statistical resolution: what the rows can't tell from nothing."""
        return mixture.free_parameters / (2 * len(self.sample.rows))


@dataclass
class Samples:
    """The survey's sample and parts of it, each made once and remembered.

    Attributes
    ----------
    sample : Sample
    rows : int
        How many rows it stands for.
    nearby : Nearby
    cost : Cost
    """

    sample: Sample
    rows: int
    nearby: Nearby
    cost: Cost = field(default_factory=Cost)
    _parts: dict[int, tuple[Sample, Sweep]] = field(default_factory=dict)

    def part(self, size: int, setting: Setting) -> Rung:
        """So many rows, to be used once: to fit to under ``setting``."""
        return Rung.of(self.sample.first(size), setting, self.nearby, self.cost)

    def rung(self, size: int, setting: Setting) -> Rung:
        """So many rows, to be kept: to fit to under ``setting``."""
        if size not in self._parts:
            sample = self.sample.first(size)
            self._parts[size] = sample, over(sample, self.nearby)
        sample, sweep = self._parts[size]
        return Rung(sample, sweep, within(setting, sample), self.cost)


@dataclass(frozen=True)
class Climbed:
    """What came of starts.

    Attributes
    ----------
    ends : list of Mixture
        The best at the top.
    optima : int
        How many the lowest rung met; 0 if there is none.
    gain : float
        By how much the best end was better there than that of the first start.
    """

    ends: list[Mixture]
    optima: int = 0
    gain: float = 0.0


def climb(ladder: Sequence[Rung], starts: Sequence[Mixture]) -> Climbed:
    """What comes of ``starts`` on the way up the ``ladder``.

    Of the optima on each rung, those go on that it can't tell to be worse than the best.
    """
    found = Climbed(list(starts))
    for rung in ladder:
        resolution = rung.resolution(starts[0])
        few = len(rung.sample.rows) < FEW * starts[0].free_parameters
        stop = Stop(FEW_SWEEPS if few else MANY_SWEEPS, target=NEAR * resolution)
        with rung.stage():
            walks = rung.climb([Quasi.of(rung.setting, start, stop) for start in found.ends])
            different = _different(rung, walks)
            best = different[0]
            if not found.optima:
                first = walks[0]
                apart = len(_different(rung, [best, first])) > 1
                gain = best.best.objective - first.best.objective if apart else 0.0
                found = Climbed([], len(different), gain)
        least = best.best.objective - UNSURE * resolution
        ends = [walk.best.mixture for walk in different if walk.best.objective > least][:ABREAST]
        found = replace(found, ends=ends)
    return found


def informed(rung: Rung, mixture: Mixture, rows: int) -> tuple[Mixture, Information, float]:
    """Nearer the optimum of a ``rung``, with the information of so many ``rows`` there.

    And with the floor of its eigenvalues that served.
    """
    sample, floor = rung.sample.first(rows), FLOOR[1]
    frame = rung.setting.frame
    stop = Stop(INFORMED_SWEEPS, target=NEAR * rung.resolution(mixture))
    for _ in range(INFORMED_TIMES):
        information = Information.of(sample, frame, mixture)
        with rung.stage():
            (walk,) = rung.climb([Quasi.of(rung.setting, mixture, stop, information, floor)])
        assert isinstance(walk, Quasi)
        mixture, floor = walk.best.mixture, walk.floor
        if walk.converged or rung.cost.deadline.passed:
            break
    return mixture, Information.of(sample, frame, mixture), floor


def _different(rung: Rung, walks: Sequence[Walk]) -> list[Walk]:
    """Those of ``walks`` that ended at optima of their own, the best first.

    At one optimum the log-densities of two ends differ, in the mean square, by less than 2 p / n:
    that much where each is p / (4 n) from it on a side of its own, and next to nothing mostly.
    """
    if len(walks) == 1:
        return list(walks)
    sample = rung.sample.first(min(len(rung.sample.keys), ALIKE_ROWS))
    kept: list[tuple[Walk, Array]] = []
    for walk in sorted(walks, key=lambda walk: walk.best.objective, reverse=True):
        mixture = rung.setting.frame.leave(walk.best.mixture)
        logs = answer(sample.rows, mixture, "score")
        apart = (np.average((logs - each) ** 2, weights=sample.weights) for _, each in kept)
        if all(each > 4 * rung.resolution(mixture) for each in apart):
            kept.append((walk, logs))
    return [walk for walk, _ in kept]
