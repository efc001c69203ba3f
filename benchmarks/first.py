"""The first pass against an EM pass over the same rows."""

import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from numpy.random import RandomState

from benchmarks import data
from benchmarks.kernel import Case as Shape
from benchmarks.kernel import fitted
from benchmarks.stream import nothing
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS, alternate
from dgmm import engine
from dgmm.data.opening import open_dataset
from dgmm.em.first_pass import first_pass
from dgmm.em.spec import FitSpec
from dgmm.em.strategies import STRATEGIES
from dgmm.kernels.choice import KERNELS, chosen, described
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.model.covariance import COVARIANCE_MODELS

COMPONENTS = 16
DIMS = (2, 8, 16, 64)
THREADS = (1, 2)
TILE = 16384
"""Rows that page faults are told for."""

LONG = 10**9
"""The rows of a data set of whose first pass this is a part."""

NOTE = """\
ns are nanoseconds a row. "read" only reads, "EM" is a pass of full covariances in float64, K =
{components}; ratios are of the first pass to that. "first" is the first pass, which brings home a
sample of 100,000 rows or 4 million numbers; "long" the same where these rows are a part of
{long:,}, and so is the sample. Faults are page faults of the process per {tile:,} rows of the
latter. The store holds float32 in chunks of 8 MiB that are not compressed, and is in the system's
memory."""

HEADER = ("D", "threads", "rows in", "read", "EM", "first", "long", "ratio", "long", "faults")


@dataclass(frozen=True)
class Case:
    """Rows of ``n_features`` columns, in a store or in memory, swept by so many threads."""

    place: Path
    n_features: int
    threads: int
    stored: bool
    size: int
    rounds: int

    @property
    def known(self) -> data.Known:
        """What the rows are drawn from."""
        return data.mixture(COMPONENTS, self.n_features)

    @property
    def rows(self) -> Any:
        """The rows, or the path of their store."""
        path = self.place / f"{self.n_features}.zarr"
        if not path.exists():
            drawn = data.draw(self.known, self.size // (4 * self.n_features), 1)
            chunks = (data.CHUNK_BYTES // (4 * self.n_features), self.n_features)
            made = zarr.create_array(
                path, shape=drawn.shape, chunks=chunks, dtype="f4", compressors=None
            )
            made[:] = drawn
        return path if self.stored else np.asarray(zarr.open_array(path, mode="r")[:])

    def line(self) -> list[Cell]:
        """Time the three sweeps in turn."""
        dataset = open_dataset(self.rows)
        full = COVARIANCE_MODELS["full"]
        spec = FitSpec(full, COMPONENTS, STRATEGIES["em"], kernel=chosen(), random=RandomState(0))
        frame, mixture = fitted(Shape(full, self.n_features, COMPONENTS), self.known)
        kernel = KERNELS[chosen()]
        given = Given(frame, (NaturalParameters.of(mixture, centre=kernel.centres),))
        sweep = engine.over(dataset, None, self.threads)
        long = partial(sweep, first_pass, spec.first_pass_spec(LONG, self.n_features, False))
        named: dict[str, Callable[[], object]] = {
            "read": partial(sweep, nothing, None),
            "EM": partial(sweep, kernel.e_step, given),
            "first": partial(
                sweep, first_pass, spec.first_pass_spec(dataset.rows, self.n_features, False)
            ),
            "long": long,
        }
        for run in named.values():
            run()
        timings = alternate(
            named, self.rounds, f"first D = {self.n_features}, {self.threads} threads"
        )
        long()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        long()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return [
            self.n_features,
            self.threads,
            "Zarr" if self.stored else "memory",
            *(1e9 * timings.seconds(name) / dataset.rows for name in named),
            timings.ratio("first", "EM"),
            timings.ratio("long", "EM"),
            faults * TILE / dataset.rows,
        ]


@click.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the stores go.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help="A quarter of the rows.")
def first(directory: Path | None, rounds: int, quick: bool) -> None:
    """The first pass against an EM pass.

    For D from 2 to 64, one thread and two, rows in a warm Zarr store and in memory: nanoseconds a
    row, the ratio of the first pass to an EM pass, and page faults.

    Example: python -m benchmarks first --quick
    """
    size = 1 << (25 if quick else 27)

    def lines(place: Path) -> Iterator[list[Cell]]:
        for n_features in DIMS:
            for threads in THREADS:
                for stored in (True, False):
                    yield Case(place, n_features, threads, stored, size, rounds).line()

    with tempfile.TemporaryDirectory(dir=directory) as place:
        show(
            f"The first pass over {size >> 20} MiB of float32 ({described(chosen())})",
            HEADER,
            lines(Path(place)),
            NOTE.format(components=COMPONENTS, long=LONG, tile=TILE),
        )
