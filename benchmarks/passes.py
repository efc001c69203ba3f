"""Passes to the optimum, and what is left where a fit stops."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from math import inf, isfinite
from statistics import median
from typing import Any, NamedTuple

import click
from sklearn.exceptions import ConvergenceWarning

from benchmarks.families import FAMILIES, LABEL, Problem, problem, sized, spans
from benchmarks.table import Cell, show
from benchmarks.timing import say
from dgmm import GaussianMixture
from dgmm.model.mixture import Mixture

METHODS = ("EM", "SQUAREM", "auto")
MOST, TAIL = 1000, 300
"""Iterations at most: of what is compared, and of the EM that checks where it ended."""

NEAR = 0.1
"""How near to an optimum counts as there, in p / (2 N)."""

STILL, WHILE = 1e-3 * NEAR, 20
"""EM stands still when so many passes bring less than that, in p / (2 N), each."""

KNOWN = ("overlapping", "heavy tails", "curved")
"""The families that are measured unless others are named."""

PASSES = f"""\
Seeds: {{seeds}}, medians of them. EM begins with k-means, SQUAREM at its very start, "auto" without
one. Passes are over all rows: the first counts, and work on samples by its rows (times components);
k-means does not, but in the seconds. "To the best" is until within {NEAR} p / (2 N) of the highest
objective that any of the three led to, "to its own" of where the method itself led, found by going
on from its end; in brackets, how many seeds got there. EM is
given up after {MOST:,} iterations or when it stands still: what follows a > are the passes made by
then, which also serve for "EM / auto, own". "EM / auto, best" is over the seeds where EM got there,
and 0 where only EM did. "Below the best": the objective where it stopped, in p / (2 N), median and
worst."""
STOPS = f"""\
The gain that was left when the fit stopped, in p / (2 N), median and worst (seeds: {{seeds}}): as
estimated, and as found by SQUAREM down to 1e-5 and EM after it, in float64. Fits stop when the
estimate is below {NEAR}; SQUAREM alone begins where k-means does."""


class Made(NamedTuple):
    """Passes, and the seconds that they took."""

    passes: float
    seconds: float

    def more(self, made: "Made", twice: "Made") -> "Made":
        """With what another ``made``, less what it did ``twice``."""
        return Made(*(a + b - c for a, b, c in zip(self, made, twice, strict=True)))


NEVER = Made(inf, inf)
Step = tuple[Made, float]
"""What was made so far, and the objective."""


@dataclass(frozen=True)
class Course:
    """A fit, with objectives in p / (2 N).

    ``steps`` are those of its passes, also ``beyond`` its end; ``gap`` is the gain left at the
    end, as estimated; ``ends`` are the first and the last mixture, ``optimum`` is where it led.
    """

    steps: tuple[Step, ...]
    gap: float
    ends: tuple[Mixture, Mixture]
    beyond: tuple[Step, ...] = ()
    optimum: float = inf

    def to(self, level: float) -> Made:
        """What it took until near ``level``; infinities if it never was."""
        steps = (*self.steps, *self.beyond)
        return next((made for made, reached in steps if reached >= level - NEAR), NEVER)

    @property
    def made(self) -> Made:
        """What it took until it stopped."""
        return self.steps[-1][0]

    def below(self, level: float) -> float:
        """How far below ``level`` it ended."""
        return level - self.steps[-1][1]


@dataclass(frozen=True)
class Case:
    """Rows of a family, and what is fitted to them: of ``covariance_model``, if it is named."""

    family: str
    count: int
    seed: int
    covariance_model: str = ""

    @cached_property
    def problem(self) -> Problem:
        """What is fitted to what."""
        made = problem(self.family, self.count, self.seed)
        return made._replace(covariance_model=self.covariance_model or made.covariance_model)

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
        rows, components, covariance_model = self.problem
        model = GaussianMixture(components, covariance_type=covariance_model, max_iter=MOST)
        model.set_params(random_state=self.seed, **params)
        unit = self.problem.resolution
        steps: list[Step] = []
        ends: list[Mixture] = []
        began = time.perf_counter()
        for progress in islice(model.fit_passes(rows), 1, most):  # the first pass is the first
            seconds = time.perf_counter() - began
            ends = [*ends[:1], progress.mixture]
            passes = progress.passes + progress.densities / (len(rows) * components)
            steps.append((Made(passes, seconds), progress.run.best.objective / unit))
            if len(steps) % 50 == 1:
                case = f"{self.family}, {len(rows):,}, {covariance_model}, seed {self.seed}"
                say(f"{case}, {name}: pass {progress.passes}")
            if len(steps) > WHILE and steps[-1][1] - steps[-1 - WHILE][1] < WHILE * still:
                break
        gap = progress.run.gap_upper / unit
        return Course(tuple(steps), gap, (ends[0], ends[-1]))

    def _led(self, name: str, course: Course) -> Course:
        """The course with what is beyond its end."""
        exact = partial(self._fit, f"after {name}", precision="float64")
        onward = exact(resolution=1e-5, **_start(course.ends[1]))
        tol = max(1e-13, 1e-7 * self.problem.resolution)
        tail = exact(strategy="em", tol=tol, max_iter=TAIL, **_start(onward.ends[1]))
        optimum = max(each.steps[-1][1] for each in (course, onward, tail))
        twice = onward.steps[0][0]  # its first pass and the sweep of where the course ended
        own = [(course.made.more(made, twice), reached) for made, reached in onward.steps]
        return replace(course, beyond=tuple(own) if name != "EM" else (), optimum=optimum)


def _start(mixture: Mixture) -> dict[str, Any]:
    precisions = mixture.covariances.precisions()
    names = ("weights_init", "means_init", "precisions_init")
    return dict(zip(names, (mixture.weights, mixture.means, precisions), strict=True))


def _both(values: list[float]) -> str:
    return f"{median(values):.2g}, {max(values):.2g}"


def _told(made: list[Made], otherwise: str) -> str:
    there = sum(isfinite(each.passes) for each in made)
    text = _made(made) if isfinite(median(each.passes for each in made)) else otherwise
    return text if there in (0, len(made)) else f"{text} ({there} of {len(made)})"


def _made(made: list[Made]) -> str:
    passes, seconds = (median(values) for values in zip(*made, strict=True))
    return f"{passes:.3g}: {seconds:.2g} s"


def passes_line(courses: list[dict[str, Course]]) -> list[Cell]:
    """How many passes and seconds each method took, and where they led."""
    tops = [max(course.optimum for course in each.values()) for each in courses]
    best = {m: [c[m].to(top) for c, top in zip(courses, tops, strict=True)] for m in METHODS}
    own = {m: [c[m].to(c[m].optimum) for c in courses] for m in METHODS}
    made = {m: [c[m].made for c in courses] for m in METHODS}
    least = map(min, own["EM"], made["EM"])
    pairs = zip(best["EM"], best["auto"], strict=True)
    ratios = [em.passes / auto.passes for em, auto in pairs if em.passes < inf]
    below = ([c[m].below(top) for c, top in zip(courses, tops, strict=True)] for m in METHODS)
    return [
        *(_told(best[m], "never") for m in METHODS),
        median(ratios) if ratios else None,
        *(_told(own[m], f"> {_made(made[m])}") for m in METHODS),
        median(em.passes / auto.passes for em, auto in zip(least, own["auto"], strict=True)),
        _made(made["auto"]),
        *map(_both, below),
    ]


def stop_line(courses: list[dict[str, Course]]) -> list[Cell]:
    """What was left when "auto" and SQUAREM stopped: as estimated, and as found."""
    pairs = ([(c[m].gap, c[m].below(c[m].optimum)) for c in courses] for m in ("auto", "SQUAREM"))
    return [_both(list(each)) for pair in pairs for each in zip(*pair, strict=True)]


@click.command()
@click.option("--rows", multiple=True, type=float, help="[default: 1e5 and 1e6; quick: 2e4]")
@click.option("--seeds", type=int, help="[default: 3; quick: 1]")
@click.option(
    "--family",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help=f"[default: {', '.join(KNOWN)}]",
)
@click.option("--quick", is_flag=True, help="Few rows, one seed.")
def passes(
    rows: tuple[float, ...], seeds: int | None, family: tuple[str, ...], quick: bool
) -> None:
    """How many passes a fit takes, and how near to the optimum it stops.

    Plain EM, SQUAREM from EM's start and strategy="auto", on rows of such a mixture and of others.

    Example: python -m benchmarks passes --rows 1e7 --seeds 1
    """
    warnings.simplefilter("ignore", ConvergenceWarning)
    counts = [int(each) for each in rows] or ([20_000] if quick else [10**5, 10**6])
    seeds = seeds or (1 if quick else 3)
    done: list[tuple[list[Cell], list[dict[str, Course]]]] = []

    def lines() -> Iterator[list[Cell]]:
        for name, count in sized(family or KNOWN, counts):
            courses, shapes = [], []
            for seed in range(seeds):
                case = Case(name, count, seed)
                courses.append(case.courses())
                shapes.append(case.problem.shape)
            label = [name, *spans(shapes)]
            done.append(([*label, case.problem.covariance_model], courses))
            yield [*label, *passes_line(courses)]

    def stops() -> Iterator[list[Cell]]:
        yield from ([*label, *stop_line(courses)] for label, courses in done)
        name, least = "overlapping", min(counts)
        for covariance_model in ("diag", "tied", "spherical") if name in (family or KNOWN) else ():
            cases = [Case(name, least, seed, covariance_model) for seed in range(seeds)]
            courses = [case.courses(("SQUAREM", "auto")) for case in cases]
            label = [name, *spans([case.problem.shape for case in cases]), covariance_model]
            yield [*label, *stop_line(courses)]

    best, own, below = (
        [f"{m} {what}" for m in METHODS] for what in ("to the best", "to its own", "below the best")
    )
    header = [*best, "EM / auto, best", *own, "EM / auto, own", "auto stops at", *below]
    title, note = "Passes to the optimum", PASSES.format(seeds=seeds)
    show(title, [*LABEL, *header], lines(), note)
    header = ["auto, estimated", "auto, found", "SQUAREM, estimated", "SQUAREM, found"]
    title, note = "The stop rule", STOPS.format(seeds=seeds)
    show(title, [*LABEL, "structure", *header], stops(), note)
