"""Passes to the optimum, what is left where a fit stops, and seconds to the same likelihood."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice, product
from math import inf, isfinite
from statistics import median
from typing import Any

import click
import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from benchmarks import data, machine
from benchmarks.table import Cell, show
from benchmarks.timing import alternate, say
from dgmm import GaussianMixture
from dgmm.covariance import STRUCTURES
from dgmm.mixture import Mixture

Rows = NDArray[Any]
DIMS, COMPONENTS = 6, 12
METHODS = ("EM", "SQUAREM", "auto")
MOST, TAIL = 1000, 300
"""Iterations at most: of what is compared, and of the EM that checks where it ended."""

NEAR = 0.1
"""How near to an optimum counts as there, in p / (2 N)."""

STILL, WHILE = 1e-3 * NEAR, 20
"""EM stands still when so many passes bring less than that, in p / (2 N), each."""

PASSES = f"""\
{COMPONENTS} components, full, {DIMS} columns; seeds: {{seeds}}, medians of them. EM begins with
k-means, SQUAREM at its very start, "auto" without one. Passes are over all rows: surveys count, and
work on samples by its rows (times components); k-means does not. "To the best" is until within
{NEAR} p / (2 N) of the highest objective that any of the three led to, "to its own" of where the
method itself led, found by going on from its end; in brackets, how many seeds got there. EM is
given up after {MOST:,} iterations or when it stands still: what follows a > are the passes made by
then, which also serve for "EM / auto, own". "EM / auto, best" is over the seeds where EM got there,
and 0 where only EM did. "Below the best": the objective where it stopped, in p / (2 N), median and
worst."""
STOPS = f"""\
The gain that was left when the fit stopped, in p / (2 N), median and worst (seeds: {{seeds}}): as
estimated, and as found by SQUAREM down to 1e-5 and EM after it, in float64. Fits stop when the
estimate is below {NEAR}; SQUAREM alone begins where k-means does."""
CLOCK = """\
Whole fits to rows in memory, float64, {threads} threads, one run each, with random_state=0 and else
defaults but for what is named. Held out: the mean log-likelihood of {held:,} fresh rows; dgmm's
should be no less than the others'."""


def overlapping(rng: np.random.Generator, count: int, dtype: str) -> Rows:
    """Normal components that overlap."""
    mixture, rows = rng.integers(1 << 32, size=2).tolist()
    return data.draw(data.mixture(COMPONENTS, DIMS, mixture), count, rows, dtype)


def heavy(rng: np.random.Generator, count: int, dtype: str) -> Rows:
    """Multivariate t with 5 degrees of freedom around each centre."""
    centres = (3 * rng.normal(size=(COMPONENTS, DIMS))).astype(dtype)
    rows = rng.standard_normal((count, DIMS), dtype=np.dtype(dtype))
    rows *= np.sqrt(5 / rng.chisquare(5, size=(count, 1))).astype(dtype)
    rows += centres[rng.integers(COMPONENTS, size=count)]
    return rows


def curved(rng: np.random.Generator, count: int, dtype: str) -> Rows:
    """Normal rows, bent: of no such mixture."""
    rows = rng.standard_normal((count, DIMS), dtype=np.dtype(dtype))
    rows[:, 1] += 0.8 * rows[:, 0] ** 2
    rows[:, 3] += 1.5 * np.sin(2 * rows[:, 2])
    return rows


FAMILIES = {"overlapping": overlapping, "heavy tails": heavy, "curved": curved}


@dataclass(frozen=True)
class Course:
    """A fit, with objectives in p / (2 N).

    ``steps`` are passes and objectives, also ``beyond`` its end; ``gap`` is the gain left at the
    end, as estimated; ``ends`` are the first and the last mixture, ``optimum`` is where it led.
    """

    steps: tuple[tuple[float, float], ...]
    gap: float
    ends: tuple[Mixture, Mixture]
    beyond: tuple[tuple[float, float], ...] = ()
    optimum: float = inf

    def to(self, level: float) -> float:
        """The passes until near ``level``; infinity if it never was."""
        steps = (*self.steps, *self.beyond)
        return next((passes for passes, reached in steps if reached >= level - NEAR), inf)

    def below(self, level: float) -> float:
        """How far below ``level`` it ended."""
        return level - self.steps[-1][1]


@dataclass(frozen=True)
class Case:
    """Rows of a family, float32 where there are ten million, and what is fitted to them."""

    family: str
    count: int
    seed: int
    structure: str = "full"

    @cached_property
    def rows(self) -> Rows:
        """(N, D)."""
        dtype = "float64" if self.count < 10**7 else "float32"
        return FAMILIES[self.family](np.random.default_rng(self.seed), self.count, dtype)

    @property
    def resolution(self) -> float:
        """p / (2 N)."""
        free = STRUCTURES[self.structure].free_parameters(COMPONENTS, DIMS)
        return (free + COMPONENTS * DIMS + COMPONENTS - 1) / (2 * self.count)

    def courses(self, methods: tuple[str, ...] = METHODS) -> dict[str, Course]:
        """What comes of each method."""
        most = None if "EM" in methods else 2  # its start is wanted either way
        em = self._fit("EM", STILL, most, strategy="em", tol=0)
        squarem = self._fit("SQUAREM", **_start(em.ends[0]))
        found = {"EM": em, "SQUAREM": squarem, "auto": self._fit("auto")}
        return {name: self._led(name, found[name]) for name in methods}

    def _fit(
        self, name: str, still: float = -inf, most: int | None = None, **params: Any
    ) -> Course:
        """Fit, to the end, or for the ``most`` passes, or until it is so ``still``."""
        model = GaussianMixture(COMPONENTS, covariance_type=self.structure, max_iter=MOST)
        model.set_params(random_state=self.seed, **params)
        steps: list[tuple[float, float]] = []
        ends: list[Mixture] = []
        for progress in islice(model.fit_passes(self.rows), 1, most):  # the survey is the first
            ends = [*ends[:1], progress.mixture]
            passes = progress.passes + progress.nearby / (self.count * COMPONENTS)
            steps.append((passes, progress.best.best.objective / self.resolution))
            if len(steps) % 50 == 1:
                case = f"{self.family}, {self.count:,}, {self.structure}, seed {self.seed}"
                say(f"{case}, {name}: pass {progress.passes}")
            if len(steps) > WHILE and steps[-1][1] - steps[-1 - WHILE][1] < WHILE * still:
                break
        gap = progress.best.gap / self.resolution
        return Course(tuple(steps), gap, (ends[0], ends[-1]))

    def _led(self, name: str, course: Course) -> Course:
        """The course with what is beyond its end."""
        exact = partial(self._fit, f"after {name}", precision="float64")
        onward = exact(resolution=1e-5, **_start(course.ends[1]))
        tol = max(1e-13, 1e-7 * self.resolution)
        tail = exact(strategy="em", tol=tol, max_iter=TAIL, **_start(onward.ends[1]))
        optimum = max(each.steps[-1][1] for each in (course, onward, tail))
        # Its survey and the sweep of where the course ended are not counted again.
        own = [(course.steps[-1][0] + passes - 2, reached) for passes, reached in onward.steps]
        return replace(course, beyond=tuple(own) if name != "EM" else (), optimum=optimum)


def _start(mixture: Mixture) -> dict[str, Any]:
    precisions = mixture.structure.precisions(mixture.factors)
    names = ("weights_init", "means_init", "precisions_init")
    return dict(zip(names, (mixture.weights, mixture.means, precisions), strict=True))


def _both(values: list[float]) -> str:
    return f"{median(values):.2g}, {max(values):.2g}"


def _told(passes: list[float], otherwise: str) -> str:
    there = sum(map(isfinite, passes))
    text = f"{median(passes):.3g}" if isfinite(median(passes)) else otherwise
    return text if there in (0, len(passes)) else f"{text} ({there} of {len(passes)})"


def passes_line(courses: list[dict[str, Course]]) -> list[Cell]:
    """How many passes each method took, and where they led."""
    tops = [max(course.optimum for course in each.values()) for each in courses]
    best = {m: [c[m].to(top) for c, top in zip(courses, tops, strict=True)] for m in METHODS}
    own = {m: [c[m].to(c[m].optimum) for c in courses] for m in METHODS}
    made = {m: [c[m].steps[-1][0] for c in courses] for m in METHODS}
    least = map(min, own["EM"], made["EM"])
    ratios = [em / auto for em, auto in zip(best["EM"], best["auto"], strict=True) if em < inf]
    below = ([c[m].below(top) for c, top in zip(courses, tops, strict=True)] for m in METHODS)
    return [
        *(_told(best[m], "never") for m in METHODS),
        median(ratios) if ratios else None,
        *(_told(own[m], f"> {median(made[m]):.0f}") for m in METHODS),
        median(em / auto for em, auto in zip(least, own["auto"], strict=True)),
        median(made["auto"]),
        *map(_both, below),
    ]


def stop_line(courses: list[dict[str, Course]]) -> list[Cell]:
    """What was left when "auto" and SQUAREM stopped: as estimated, and as found."""
    pairs = ([(c[m].gap, c[m].below(c[m].optimum)) for c in courses] for m in ("auto", "SQUAREM"))
    return [_both(list(each)) for pair in pairs for each in zip(*pair, strict=True)]


def clock(quick: bool) -> None:
    """Print the seconds of whole fits."""
    count, dims, components, held = (50_000, 8, 8, 20_000) if quick else (10**6, 16, 16, 200_000)
    known = data.mixture(components, dims)
    rows, fresh = (data.draw(known, size, size, "float64") for size in (count, held))
    models = {
        "scikit-learn": Reference(components, random_state=0),
        "scikit-learn, n_init=10": Reference(components, n_init=10, random_state=0),
        "dgmm": GaussianMixture(components, random_state=0),
    }
    machine.measure()
    timings = alternate({n: partial(m.fit, rows) for n, m in models.items()}, 1, "clock")
    lines = (
        [n, m.n_iter_, str(m.converged_), timings.seconds(n), timings.ratio(n, "dgmm"), score]
        for n, m in models.items()
        for score in [f"{m.score(fresh):.6f}"]
    )
    title = f"Wall clock to the same held-out likelihood: {count:,} x {dims}, K = {components} full"
    header = ["fit", "iterations", "converged", "seconds", "to dgmm's", "held out"]
    show(title, header, lines, CLOCK.format(threads=CPU_COUNT, held=held))


@click.command()
@click.option("--rows", multiple=True, type=float, help="[default: 1e5 and 1e6; quick: 2e4]")
@click.option("--seeds", type=int, help="[default: 3; quick: 1]")
@click.option("--family", multiple=True, type=click.Choice(list(FAMILIES)), help="[default: all]")
@click.option("--clock", "timed", is_flag=True, help="Seconds against scikit-learn, nothing else.")
@click.option("--quick", is_flag=True, help="Few rows, one seed.")
def passes(
    rows: tuple[float, ...], seeds: int | None, family: tuple[str, ...], timed: bool, quick: bool
) -> None:
    """How many passes a fit takes, and how near to the optimum it stops.

    Plain EM, SQUAREM from EM's start and strategy="auto", on rows of such a mixture and of others.
    With --clock, the seconds until a held-out likelihood like scikit-learn's.

    Example: python -m benchmarks passes --rows 1e7 --seeds 1
    """
    warnings.simplefilter("ignore", ConvergenceWarning)
    if timed:
        return clock(quick)
    counts = [int(each) for each in rows] or ([20_000] if quick else [10**5, 10**6])
    seeds = seeds or (1 if quick else 3)
    done: list[tuple[list[Cell], list[dict[str, Course]]]] = []

    def lines() -> Iterator[list[Cell]]:
        for name, count in product(family or FAMILIES, counts):
            courses = [Case(name, count, seed).courses() for seed in range(seeds)]
            done.append(([name, count, "full"], courses))
            yield [name, count, *passes_line(courses)]

    def stops() -> Iterator[list[Cell]]:
        yield from ([*label, *stop_line(courses)] for label, courses in done)
        name, least = "overlapping", min(counts)
        for structure in ("diag", "tied", "spherical") if name in (family or FAMILIES) else ():
            cases = (Case(name, least, seed, structure) for seed in range(seeds))
            courses = [case.courses(("SQUAREM", "auto")) for case in cases]
            yield [name, least, structure, *stop_line(courses)]

    best, own, below = (
        [f"{m} {what}" for m in METHODS] for what in ("to the best", "to its own", "below the best")
    )
    header = [*best, "EM / auto, best", *own, "EM / auto, own", "auto stops at", *below]
    title, note = "Passes to the optimum", PASSES.format(seeds=seeds)
    show(title, ["rows are", "N", *header], lines(), note)
    header = ["auto, estimated", "auto, found", "SQUAREM, estimated", "SQUAREM, found"]
    title, note = "The stop rule", STOPS.format(seeds=seeds)
    show(title, ["rows are", "N", "structure", *header], stops(), note)
