"""Passes over a Zarr store against the same rows in memory, and against reading alone."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT

from benchmarks import data, machine
from benchmarks.table import Cell, percent, show
from benchmarks.timing import ROUNDS, Timings, alternate
from dgmm import GaussianMixture, engine
from dgmm.data.opening import open_dataset
from dgmm.em.fit_context import PRECISIONS
from dgmm.em.progress import Progress
from dgmm.kernels.sweep import Block
from dgmm.model.statistics import WeightedSum

DIMS = 8
COMPONENTS = (2, 16, 64, 512)
TARGET = "1.15"

NOTE = """\
Seconds per pass. "read" reads and decompresses and does nothing else; "in memory" is an EM pass
over a NumPy array, "streamed" one over the same rows in Zarr with cache="none", "cached" one that
keeps the share named in memory. The ratio, which the target is for, is "streamed" to the larger of
"in memory" and "read"; "of the sum" is "streamed" to both together. Reading and computing overlap
fully where reading waits for the disk; where it keeps all processors busy with decompressing, no
pass can take less than the sum. {where}"""
WARM = "Files are in the system's memory; --cold reads them from the disk."
COLD = "Files are read from the disk."


@dataclass(frozen=True)
class Case:
    """A fit to a store of rows, from a given start."""

    store: Path
    rows: Any
    components: int
    precision: str
    threads: int
    rounds: int

    def model(self, cache: str) -> GaussianMixture:
        """A model that goes on for longer than it is timed."""
        begin = data.start(self.rows, self.components)
        return GaussianMixture(
            self.components,
            strategy="em",
            **data.given(begin),
            tol=0,
            max_iter=self.rounds + 8,
            n_jobs=self.threads,
            precision=self.precision,
            cache=cache,
        )

    def passes(self, cache: str, stored: bool) -> "Passes":
        """The passes of a fit over the store or over the rows in memory."""
        return Passes(self.model(cache).fit_passes(self.store if stored else self.rows))


class Passes:
    """A fit whose next pass is made when it is called; those that do not count are done.

    Attributes
    ----------
    last : Progress
        After the latest pass.
    single : int
        How many of the passes called for were in single precision.
    """

    def __init__(self, progress: Iterator[Progress]) -> None:
        self._progress = progress
        for self.last in (
            next(progress),
            next(progress),
        ):  # the first pass, and the start's own pass
            pass
        self._before = self.last.run.float32_passes

    def __call__(self) -> None:
        self.last = next(self._progress)

    @property
    def single(self) -> int:
        """How many of the passes called for were in single precision."""
        return self.last.run.float32_passes - self._before


def nothing(block: Block, given: None) -> WeightedSum:
    """What reading alone does with a block."""
    return WeightedSum(0.0, float(len(block.rows)))


def cold(store: Path, run: Callable[[], object]) -> None:
    """Do something with the store's files not in memory, but for the time this takes."""
    machine.forget(store)
    run()


def time_case(case: Case, forget: bool) -> tuple[Timings, dict[str, Passes]]:
    """Alternate the four passes."""
    dataset = open_dataset(case.store)
    read = partial(engine.over(dataset, None, case.threads), nothing, None)
    fits = {
        "in memory": case.passes("none", stored=False),
        "streamed": case.passes("none", stored=True),
        "cached": case.passes("auto", stored=True),
    }
    named: dict[str, Callable[[], object]] = {"read": read, **fits}
    if forget:
        for name in ("read", "streamed"):
            named[name] = partial(cold, case.store, named[name])
    title = f"stream K = {case.components} {case.precision}"
    return alternate(named, case.rounds, title), fits


def line(case: Case, timings: Timings, fits: dict[str, Passes]) -> list[Cell]:
    """The table's line for a case."""
    single = fits["streamed"].single
    kept = case.model("auto").plan(case.store).cached
    return [
        f"{DIMS}, {case.components}",
        DIMS * case.components,
        "float64" if not single else f"float32 ({single} of {case.rounds} passes)",
        timings.seconds("in memory"),
        timings.seconds("read"),
        timings.seconds("streamed"),
        timings.figure(lambda s: s["streamed"] / max(s["in memory"], s["read"])),
        TARGET,
        timings.figure(lambda s: s["streamed"] / (s["in memory"] + s["read"])),
        f"{timings.seconds('cached'):.3g} ({percent(kept)})",
    ]


@click.command()
@click.option("--rows", type=int, help="Rows of the store.  [default: 2097152; quick: 262144]")
@click.option(
    "-k",
    "counts",
    multiple=True,
    type=int,
    help="Components, one or more times.  [default: 2, 16, 64 and 512; quick: 2, 16]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="[default: auto, which is float32 in these passes, and float64]",
)
@click.option("--threads", default=CPU_COUNT, show_default="all processors")
@click.option("--cold", "forget", is_flag=True, help="Read from the disk, not the system's memory.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the store goes.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help="Few rows, two numbers of components.")
def stream(
    rows: int | None,
    counts: tuple[int, ...],
    precisions: tuple[str, ...],
    threads: int,
    forget: bool,
    directory: Path | None,
    rounds: int,
    quick: bool,
) -> None:
    """How far reading Zarr hides behind computing.

    For K D from 16 to 4096: an EM pass over the store, over the same rows in memory, over a cached
    store, and reading alone.

    Example: python -m benchmarks stream -k 16 --cold
    """
    rows = rows or (1 << 18 if quick else 1 << 21)
    machine.measure(reading=True, directory=directory)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        store = Path(place) / "rows.zarr"
        size = data.store(store, data.mixture(16, DIMS), rows)
        held = np.asarray(zarr.open_array(store, mode="r")[:])
        cases = (
            Case(store, held, components, precision, threads, rounds)
            for components in counts or (COMPONENTS[:2] if quick else COMPONENTS)
            for precision in precisions or PRECISIONS
        )
        header = ["D, K", "K D", "passes in", "in memory", "read", "streamed", "ratio", "target"]
        show(
            f"Streaming {rows:,} x {DIMS} float32 from Zarr ({size / held.nbytes:.2f} of its size "
            f"when compressed), {threads} threads",
            [*header, "of the sum", "cached"],
            (line(case, *time_case(case, forget)) for case in cases),
            NOTE.format(where=COLD if forget else WARM),
        )
