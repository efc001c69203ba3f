"""Whole fits by the clock: seconds from start to model, and the held-out likelihood they reach."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import click
import numpy as np
from dask.system import CPU_COUNT
from matplotlib.artist import Artist
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.contender import (
    OURS,
    PEERS,
    GivenUp,
    Program,
    Unavailable,
    against_option,
    contender,
    python_option,
)
from benchmarks.families import Problem
from benchmarks.match import save
from benchmarks.peers.harness import score
from benchmarks.table import Cell, show
from benchmarks.timing import say
from dgmm.report import pictures as report

HELD = 50_000
"""Fresh rows, whose mean log-likelihood is compared."""

NEAR = 0.1
"""Likelihoods that differ by so much, in p / (2 N), are the same: dgmm stops as near as that."""

SHAPES = ((400_000, 24, 40), (1_000_000, 2, 5), (1_000_000, 8, 16), (200_000, 32, 16))
"""N, D and K of the problems."""

PART = 40
"""The part of the rows that a quick run takes."""

PANEL = (700, 420)
"""Pixels of a panel of the plot."""

AXES = "held-out log-likelihood of a row, against seconds; a dot is the end of a fit"

NOTE = """\
Whole fits to float64 rows in memory, each in a process of its own, one run each, {threads} threads,
seed {seed}, with the defaults of each program but for what is named. "start-up" is until the
process has loaded its program (Spark: and has the rows in its own form), without "reading", of the
rows from a file; neither counts in "fit". "held out" is the mean log-likelihood of {held:,} fresh
rows, by one function for all. "dgmm to the same" is when the default fit of dgmm first had a
mixture after a pass that comes within {near} p / (2 N) of it, and "ratio" the seconds of this fit
to these; "of whole fits" is to the end of dgmm's. A fit given up after the budget says how long it
had, and its ratio is to dgmm's end. "onedal" begins with the best of 20 trials, its default, and
makes 100 iterations, by default 10; with "one trial" it stops by scikit-learn's tolerance, too.
The machine's load (of the minute before) when each fit began: {load}."""


@dataclass(frozen=True)
class Entrant:
    """A program with its options for whole fits, and the ratio to reach against it."""

    program: Program
    options: dict[str, Any] = field(default_factory=dict)
    target: int | None = None


DEFAULT, OLD = "dgmm", "dgmm, old"
"""In the table."""

ENTRANTS = {
    DEFAULT: Entrant(OURS),
    OLD: Entrant(OURS),
    "dgmm, em": Entrant(OURS, {"strategy": "em"}),
    "scikit-learn": Entrant(PEERS["scikit-learn"], target=20),
    "scikit-learn, n_init=10": Entrant(PEERS["scikit-learn"], {"n_init": 10}, 50),
    "spark": Entrant(PEERS["spark"], target=10),
    "onedal": Entrant(PEERS["onedal"], {"trials": 20}, 5),
    "onedal, one trial": Entrant(PEERS["onedal"], {"trials": 1, "tol": 1e-3}, 5),
}


@dataclass(frozen=True)
class Reached:
    """What became of a fit.

    Attributes
    ----------
    startup, reading : float
        Seconds before the fit.
    at, scores : (T,)
        The seconds of each mixture that it told, and their likelihood of held-out rows; the last
        is its end.
    iterations : int
        As the program counts them; dgmm's are passes.
    version : str
    failed : str
        Why there is no model.
    budget : float
        Seconds that it had, where these were not enough.
    """

    startup: float = 0.0
    reading: float = 0.0
    at: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    iterations: int = 0
    version: str = ""
    failed: str = ""
    budget: float = 0.0

    @property
    def seconds(self) -> float:
        """To the end."""
        return self.at[-1]

    @property
    def score(self) -> float:
        """At the end."""
        return self.scores[-1]

    def to(self, level: float) -> float:
        """The seconds until it was as good as ``level``; infinity if it never was."""
        return next((t for t, own in zip(self.at, self.scores, strict=True) if own >= level), inf)


def problem(shape: tuple[int, int, int], seed: int) -> tuple[Problem, NDArray[Any]]:
    """Rows of overlapping normal components, and fresh rows of the same."""
    count, n_features, components = shape
    known = data.mixture(components, n_features, seed)
    rows, fresh = (data.draw(known, n, seed + i, "float64") for i, n in ((1, count), (2, HELD)))
    return Problem(rows, components), fresh


def fit(
    entrant: Entrant, python: str, place: Path, fresh: NDArray[Any], seed: int, budget: float
) -> Reached:
    """Fit the rows in the directory ``place``, for at most ``budget`` seconds."""
    how = (entrant.program, python, place, "float64", "full", CPU_COUNT, budget)
    try:
        with contender(*how) as loaded:
            done = loaded.whole(seed, entrant.options)
    except GivenUp as why:
        return Reached(failed=str(why), budget=budget)
    except Unavailable as why:
        return Reached(failed=str(why))
    with np.load(place / "found.npz") as found:
        at, *parts = (found[name] for name in ("seconds", "weights", "means", "covariances"))
    return Reached(
        startup=loaded.starting - loaded.reading,
        reading=loaded.reading,
        at=tuple(at.tolist()),
        scores=tuple(score(fresh, parameters) for parameters in zip(*parts, strict=True)),
        iterations=done["iterations"],
        version=loaded.version,
    )


def line(one: Reached, ours: Reached | None, near: float) -> list[Cell]:
    """What the table says of a fit, beside ``ours``, the default one."""
    ours = ours if ours and not ours.failed else None
    if one.failed:
        ratio = f"> {one.budget / ours.seconds:.3g}" if one.budget and ours else None
        told = f"> {one.budget:.0f}" if one.budget else one.failed
        return [None, None, None, told, *[None] * 3, ratio, ratio]
    own: list[Cell] = [one.version, one.startup, one.reading, one.seconds, one.iterations]
    own.append(f"{one.score:.6f}")
    if ours is None:
        return [*own, None, None, None]
    to = ours.to(one.score - near)
    same: list[Cell] = [to, one.seconds / to] if to < inf else ["not reached", None]
    return [*own, *same, one.seconds / ours.seconds]


def plot(path: Path, panels: Sequence[tuple[str, dict[str, Reached]]]) -> None:
    """Draw held-out likelihood against seconds: a panel for each problem."""
    wide, high = PANEL
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = report.canvas(across * (wide + 150) + 20, down * (high + 90) + 110)
    handles: dict[str, Artist] = {}
    for number, (title, found) in enumerate(panels):
        left, top = 130 + number % across * (wide + 150), 50 + number // across * (high + 90)
        report.write(figure, left, top - 10, title, 8)
        axes = report.panel(figure, left, top, wide, high)
        axes.set_xscale("log")
        axes.tick_params(which="both", width=0.6, color=report.FAINT)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        made = {name: each for name, each in found.items() if not each.failed}
        for name, each in made.items():
            colour = f"C{list(ENTRANTS).index(name)}"
            if len(each.at) > 1:
                axes.step(each.at, each.scores, where="post", linewidth=1, color=colour)
            handles[name] = axes.plot(each.seconds, each.score, "o", color=colour, markersize=4)[0]
        if made:
            ends = [each.score for each in made.values()]
            spread = max(max(ends) - min(ends), 1e-6)
            axes.set_ylim(min(ends) - 0.3 * spread, max(ends) + 0.1 * spread)
    report.write(figure, 130, down * (high + 90) + 40, AXES, 7, color=report.FAINT)
    place = {"loc": "lower left", "bbox_to_anchor": (130 / (across * (wide + 150) + 20), 0.0)}
    figure.legend(
        list(handles.values()), list(handles), ncols=4, fontsize=7, frameon=False, **place
    )
    report.save(figure, path)


def title(shape: tuple[int, int, int]) -> str:
    """A problem, for people."""
    count, n_features, components = shape
    return f"{count:,} x {n_features}, {components}"


@click.command()
@click.option(
    "--problem",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(SHAPES)),
    help="Only this, by its number; may be given more than once.  "
    + "; ".join(f"{number}: {title(shape)}" for number, shape in enumerate(SHAPES, start=1))
    + ".",
)
@click.option(
    "--fit",
    "names",
    multiple=True,
    type=click.Choice(list(ENTRANTS)),
    help="Only this; may be given more than once.",
)
@against_option
@python_option
@click.option("--budget", default=300.0, show_default=True, help="Seconds that a fit may take.")
@click.option("--seed", default=0, show_default=True, help="Of the rows, and of each fit.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A PNG to draw: likelihood against seconds.",
)
@click.option("--quick", is_flag=True, help="Few rows.")
def reach(
    numbers: tuple[int, ...],
    names: tuple[str, ...],
    against: Path | None,
    pythons: dict[str, str],
    budget: float,
    seed: int,
    picture: Path | None,
    quick: bool,
) -> None:
    """Seconds of whole fits to the same held-out likelihood.

    The default fit of dgmm against its own EM, that of another checkout, and whole fits by
    scikit-learn, Spark and oneDAL. Peers may be in environments of their own.

    Example: python -m benchmarks reach --problem 1 --fit dgmm --fit scikit-learn --plot reach.png
    """
    chosen = [SHAPES[number - 1] for number in numbers or range(1, len(SHAPES) + 1)]
    entrants = {name: ENTRANTS[name] for name in ENTRANTS if name in (names or ENTRANTS)}
    if against is None:
        entrants.pop(OLD, None)
    else:
        entrants[OLD] = Entrant(replace(OURS, checkout=against))
    panels: list[tuple[str, dict[str, Reached]]] = []
    loads: list[str] = []

    def lines() -> Iterator[list[Cell]]:
        for rows, *rest in chosen:
            shape = (rows // PART if quick else rows, *rest)
            made, fresh = problem(shape, seed)
            found: dict[str, Reached] = {}
            panels.append((title(shape), found))
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory)
                save(place, made.rows, data.start(made.rows, made.components))
                for name, entrant in entrants.items():
                    say(f"reach {title(shape)}: {name}")
                    loads.append(f"{os.getloadavg()[0]:.1f}")
                    python = pythons[entrant.program.name]
                    found[name] = fit(entrant, python, place, fresh, seed, budget)
                    told = line(found[name], found.get(DEFAULT), NEAR * made.resolution)
                    yield [title(shape), name, *told, entrant.target]

    header = ["rows x D, K", "fit", "version", "start-up, s", "reading, s", "fit, s", "iterations"]
    header += ["held out", "dgmm to the same, s", "ratio", "of whole fits", "target"]
    show("Whole fits to the same held-out likelihood", header, lines())
    note = {"threads": CPU_COUNT, "seed": seed, "held": HELD, "near": NEAR}
    print(NOTE.format(**note, load=", ".join(loads)) + "\n")
    if picture is not None:
        plot(picture, panels)
