"""A match: dgmm and a peer, in turn, on the same case from the same start."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.contender import OURS, Contender, Program, Unavailable, contender
from benchmarks.table import Cell
from benchmarks.timing import Seconds, alternate, say

SCORED_ITERATIONS, SCORED_ROWS = 5, 100_000
MOST_ITERATIONS = 8
"""That are timed at once: dgmm's, near convergence, would no longer be in single precision."""

Shape = tuple[int, int, int]
"""Rows, columns and components of a case."""


@dataclass(frozen=True)
class Match:
    """What dgmm and a peer both do."""

    peer: Program
    case: Shape
    dtype: str
    covariance_model: str

    @property
    def target(self) -> str:
        """The ratio to reach."""
        if self.covariance_model != "full":
            return "3"
        by_peer = {
            "scikit-learn": "25" if self.case[1:] == (8, 16) else "10",
            "onedal": "1.8" if self.dtype == "float64" else "1.5",
        }
        return by_peer.get(self.peer.name, "10")

    @property
    def label(self) -> list[Cell]:
        """The first cells of its line."""
        rows, n_features, components = self.case
        return [f"{rows:,} x {n_features}, {components}", self.covariance_model, self.dtype]


@dataclass(frozen=True)
class Manner:
    """How to measure.

    Attributes
    ----------
    pythons : dict
        The interpreter of each program.
    threads, rounds : int
    seconds : float
        How long the iterations of one measurement should take, about.
    budget : float
        Rounds end when one more would go beyond so many seconds; so long may a single run take.
    """

    pythons: dict[str, str]
    threads: int
    rounds: int
    seconds: float
    budget: float


def write(place: Path, case: Shape) -> None:
    """Write a case's rows and its start to a directory."""
    count, n_features, components = case
    known = data.mixture(components, n_features)
    rows = data.draw(known, count, 1)
    save(place, rows, data.start_near(known, rows))


def save(place: Path, rows: NDArray[Any], begin: data.Start) -> None:
    """Write rows and a start to a directory, as contenders read them."""
    covariances = np.repeat(begin.covariance[None], len(begin.weights), axis=0)
    names = ("rows", "weights", "means", "covariances")
    for name, array in zip(names, (rows, *begin[:2], covariances), strict=True):
        np.save(place / f"{name}.npy", array)


class Runner:
    """A contender whose next measurement is made when it is called.

    Attributes
    ----------
    score : str
        From a first run, which warms up.
    note : str
        What it said of its latest run.
    """

    def __init__(self, contender: Contender, seconds: float) -> None:
        scored = contender.run(SCORED_ITERATIONS, score=SCORED_ROWS)
        self.score = "own start" if contender.own_start else f"{scored['score']:.9g}"
        each, self.note = contender.each(2)
        self._iterations = int(np.clip(seconds / max(each, 1e-6), 2, MOST_ITERATIONS))
        self._contender = contender

    def __call__(self) -> Seconds:
        each, self.note = self._contender.each(self._iterations)
        return Seconds(each)


def line(match: Match, place: Path, manner: Manner) -> list[Cell]:
    """The table's line for a match; raises ``Unavailable``."""
    with ExitStack() as stack:
        contenders = {
            program.name: stack.enter_context(
                contender(
                    *(program, manner.pythons[program.name], place),
                    *(match.dtype, match.covariance_model, manner.threads, manner.budget),
                )
            )
            for program in (match.peer, OURS)
        }
        peer = match.peer.name
        title = f"peers {' '.join(map(str, match.label))}, {peer}"
        say(f"{title}: first runs")
        runners = {name: Runner(each, manner.seconds) for name, each in contenders.items()}
        timings = alternate(runners, manner.rounds, title, manner.budget)
    return [
        *match.label,
        f"{peer} {contenders[peer].version}",
        timings.seconds(peer),
        timings.seconds(OURS.name),
        timings.ratio(peer, OURS.name),
        match.target,
        len(timings.rounds),
        runners[peer].score,
        runners[OURS.name].score,
        runners[OURS.name].note,
    ]


def missing(match: Match, error: Exception) -> list[Cell]:
    """The line of a match that can't be held."""
    return [*match.label, match.peer.name, str(error), None, None, match.target, *[None] * 4]


def matches(
    case: Shape, peers: list[Program], covariance_models: tuple[str, ...]
) -> Iterator[Match]:
    """All that is to be measured for a case."""
    for peer in peers:
        for dtype in peer.precisions:
            yield Match(peer, case, dtype, "full")
        for covariance_model in covariance_models:
            if covariance_model in peer.covariance_models:
                yield Match(peer, case, "float64", covariance_model)


def measure(place: Path, match: Match, manner: Manner) -> list[Cell]:
    """The line of a match, whatever comes of it."""
    try:
        return line(match, place, manner)
    except Unavailable as error:
        return missing(match, error)
