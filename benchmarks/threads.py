"""What more threads bring: an EM pass, the first pass and a whole default fit."""

import heapq
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT
from numpy.random import RandomState

from benchmarks import data
from benchmarks.kernel import Case as Shape
from benchmarks.kernel import fitted
from benchmarks.table import Cell, percent, show
from benchmarks.timing import ROUNDS, Seconds, Timings, alternate
from dgmm import GaussianMixture, engine
from dgmm.data.dataset import Dataset
from dgmm.data.opening import open_dataset
from dgmm.em.first_pass import first_pass
from dgmm.em.spec import FitSpec
from dgmm.em.strategies import STRATEGIES
from dgmm.engine.units import unit_rows, units
from dgmm.kernels.choice import KERNELS, chosen, described
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.model.covariance import COVARIANCE_MODELS

NOTE = """\
Full covariances, float32 rows, passes in float64; each figure is a median of rounds in which the
numbers of threads took turns. "speed-up" is the time on one thread over that on so many, and its
share is of the ideal, the number of threads. "fit" is a whole default fit, from rows to model, of
the same process, without its start-up, once for each number of threads; "in passes" is that over
an EM pass on as many threads, "one alone" what share of the processors' time for it went to the
thread that asked for it, while others may have been idle. "memory": an array; else a Zarr store
that is not compressed, in chunks of so much, in the system's memory, without a cache of dgmm's
own. "units" are what threads share of an EM pass, with the longest in milliseconds by the time on
one thread; "at best" is the speed-up on 16 and on 64 threads that these units allow, if each goes
to the first thread that is free and nothing else takes time."""

HEADER = (
    "D, K",
    "rows",
    "rows in",
    "threads",
    "EM pass, ns a row",
    "speed-up",
    "share",
    "first pass, ns a row",
    "speed-up",
    "to EM",
    "fit, s",
    "in passes",
    "one alone",
    "units, ms",
    "at best",
)
MACHINES = (16, 64)
"""Threads of machines that are not at hand."""


@dataclass(frozen=True)
class Case:
    """Rows of ``n_features`` columns, in memory or in a store of chunks of so many bytes."""

    rows: int
    n_features: int
    components: int
    chunk_bytes: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.n_features}, {self.components}"

    @property
    def where(self) -> str:
        """Where the rows are, for people."""
        return f"{self.chunk_bytes >> 10:,} KiB" if self.chunk_bytes else "memory"

    @property
    def known(self) -> data.Known:
        """What the rows are drawn from."""
        return data.mixture(self.components, self.n_features)

    def draw(self, place: Path) -> Any:
        """The rows, or the path of their store in ``place``."""
        drawn = data.draw(self.known, self.rows, 1)
        if not self.chunk_bytes:
            return drawn
        path = place / f"{self.n_features}-{self.chunk_bytes}.zarr"
        chunks = (self.chunk_bytes // (4 * self.n_features), self.n_features)
        made = zarr.create_array(
            path, shape=drawn.shape, chunks=chunks, dtype="f4", compressors=None
        )
        made[:] = drawn
        return path


CASES = (
    Case(4_000_000, 8, 16),
    Case(4_000_000, 8, 16, 8 << 20),
    Case(4_000_000, 8, 16, 256 << 10),
    Case(1_000_000, 24, 40),
    Case(400_000, 64, 64),
    Case(200_000, 63, 200),
)
QUICK, PART = (0, 2), 40
"""The cases of a quick run, and the part of their rows that it takes."""


def counts(most: int) -> list[int]:
    """1, 2, 4 ... threads, and ``most``."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


class FitSeconds(Seconds):
    """Seconds of a fit; ``alone`` is what share of the processors' time the caller's thread had."""

    alone: float


def fit(rows: Any, components: int, threads: int) -> FitSeconds:
    """Seconds of a default fit."""
    began, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge
        GaussianMixture(components, random_state=0, n_jobs=threads).fit(rows)
    seconds = FitSeconds(time.perf_counter() - began)
    seconds.alone = (time.thread_time() - own) / (time.process_time() - all_threads)
    return seconds


def shared(dataset: Dataset, given: Given) -> list[int]:
    """The rows of each unit of an EM pass."""
    unit = unit_rows(dataset.rows, given)
    blocks = np.diff(dataset.divisions).tolist()
    return [each.stop - each.start for rows in blocks for each in units(rows, unit)]


def at_best(rows: list[int], threads: int) -> float:
    """The speed-up where units of so many rows go to so many threads in turn, as these are free."""
    free = [0] * threads
    for each in rows:
        heapq.heappushpop(free, free[0] + each)
    return sum(rows) / max(free)


def passes(
    case: Case, dataset: Dataset, threads: int
) -> tuple[dict[str, Callable[[], object]], list[int]]:
    """An EM pass and the first pass on so many threads; the rows of each unit of the EM pass."""
    full, kernel = COVARIANCE_MODELS["full"], KERNELS[chosen()]
    spec = FitSpec(
        full, case.components, STRATEGIES["em"], kernel=chosen(), random=RandomState(0)
    ).first_pass_spec(dataset.rows, case.n_features, False)
    frame, mixture = fitted(Shape(full, case.n_features, case.components), case.known)
    given = Given(frame, (NaturalParameters.of(mixture, centre=kernel.centres),))
    sweep = engine.over(dataset, None, threads)
    timed: dict[str, Callable[[], object]] = {
        f"EM {threads}": partial(sweep, kernel.e_step, given),
        f"first {threads}": partial(sweep, first_pass, spec),
    }
    return timed, shared(dataset, given)


def lines(
    case: Case, threads: list[int], rounds: int, fits: bool, place: Path
) -> Iterator[list[Cell]]:
    """The table's lines for a case: one for each number of threads."""
    rows = case.draw(place)
    dataset = open_dataset(rows)
    timed: dict[str, Callable[[], object]] = {}
    for count in threads:
        runs, rows_of_units = passes(case, dataset, count)
        timed |= runs
    for run in timed.values():
        run()
    title = f"threads {case.name} in {case.where}"
    timings = alternate(timed, rounds, title)
    for count in threads:
        whole = {"fit": partial(fit, rows, case.components, count)} if fits else {}
        once = alternate(whole, 1, f"{title}, fit on {count}")
        yield [*_line(case, count, timings, once), *_units(case, timings, rows_of_units)]


def _units(case: Case, timings: Timings, rows: list[int]) -> list[Cell]:
    longest = 1e3 * max(rows) * timings.seconds("EM 1") / case.rows
    best = ", ".join(f"{at_best(rows, threads):.1f}" for threads in MACHINES)
    return [f"{len(rows)}, {longest:.3g}", best]


def _line(case: Case, count: int, timings: Timings, whole: Timings) -> list[Cell]:
    em, first = f"EM {count}", f"first {count}"
    gain = timings.ratio("EM 1", em)
    seconds = whole.rounds[0].get("fit")
    return [
        case.name,
        case.rows,
        case.where,
        count,
        1e9 * timings.seconds(em) / case.rows,
        gain,
        percent(gain / count),
        1e9 * timings.seconds(first) / case.rows,
        timings.ratio("first 1", first),
        timings.ratio(first, em),
        seconds,
        None if seconds is None else seconds / timings.seconds(em),
        percent(seconds.alone) if isinstance(seconds, FitSeconds) else None,
    ]


@click.command()
@click.option(
    "--case",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(CASES)),
    help="Only this, by its number; may be given more than once.  "
    + "; ".join(f"{number}: {each.name} in {each.where}" for number, each in enumerate(CASES, 1))
    + ".",
)
@click.option("--threads", "most", default=CPU_COUNT, help="At most.  [default: all processors]")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--fits/--no-fits", default=True, show_default=True, help="Time whole fits, too.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the stores go.")
@click.option("--quick", is_flag=True, help="Two cases on few rows, to see that it works.")
def threads(
    numbers: tuple[int, ...],
    most: int,
    rounds: int,
    fits: bool,
    directory: Path | None,
    quick: bool,
) -> None:
    """What more threads bring.

    Passes and whole default fits on 1, 2, 4 ... threads, as many as there are processors: from
    memory, and from Zarr in large and in small chunks; the speed-up beside the ideal.

    Example: python -m benchmarks threads --case 1 --no-fits
    """
    cases = [CASES[number - 1] for number in numbers] or list(CASES)
    if quick:
        cases = [
            Case(each.rows // PART, each.n_features, each.components, each.chunk_bytes)
            for each in (CASES[index] for index in QUICK)
        ]

    def table(place: Path) -> Iterator[list[Cell]]:
        for case in cases:
            yield from lines(case, counts(most), rounds, fits, place)

    with tempfile.TemporaryDirectory(dir=directory) as place:
        show(f"Threads ({described(chosen())})", HEADER, table(Path(place)), NOTE)
