"""Passes over Parquet and NetCDF, against Zarr and what the decoders can do."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from dask.system import CPU_COUNT

from benchmarks import data, machine
from benchmarks.stream import Case, nothing
from benchmarks.table import Cell, mebibytes, show
from benchmarks.timing import ROUNDS, Timings, alternate
from dgmm import engine
from dgmm.data.opening import open_dataset

DIMS, COMPONENTS = 8, 16
CHUNK = 1 << 16
TARGET = "0.8"

NOTE = """\
"read" is the speed at which all threads together read and decode the rows and do nothing else, in
MiB of float32 a second; "pass" that of an EM pass with {components} components, with cache="none".
"decoder" is what the library alone does, in as many threads: pyarrow decodes row groups to its own
columns, h5py reads chunks, and nothing is made of them. The ratios are those to Zarr as it is
stored by default (zstd)."""


def as_zarr(path: Path, rows: np.ndarray, **how: Any) -> str:
    """Rows in chunks."""
    zarr.create_array(path, data=rows, chunks=(CHUNK, rows.shape[1]), **how)
    return str(path)


def as_parquet(path: Path, rows: np.ndarray, **how: Any) -> str:
    """Columns in row groups."""
    table = pa.table({f"x{j}": rows[:, j] for j in range(rows.shape[1])})
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=CHUNK, **how)
    return str(path.with_suffix(".parquet"))


def as_netcdf(path: Path, rows: np.ndarray, **how: Any) -> str:
    """A variable of two axes."""
    with h5py.File(path.with_suffix(".nc"), "w") as file:
        file.create_dataset("x", data=rows, **how)
    return f"{path.with_suffix('.nc')}::x"


CHUNKED = {"chunks": (CHUNK, DIMS)}

FORMS: dict[str, tuple[Callable[..., str], dict[str, Any]]] = {
    "Zarr": (as_zarr, {}),
    "Zarr, not compressed": (as_zarr, {"compressors": None}),
    "Parquet, snappy": (as_parquet, {}),
    "Parquet, no dictionary": (as_parquet, {"use_dictionary": False}),
    "Parquet, zstd, no dictionary": (as_parquet, {"use_dictionary": False, "compression": "zstd"}),
    "Parquet, not compressed": (as_parquet, {"use_dictionary": False, "compression": "none"}),
    "NetCDF, zlib": (as_netcdf, {**CHUNKED, "compression": 4, "shuffle": True}),
    "NetCDF, chunks": (as_netcdf, CHUNKED),
    "NetCDF, contiguous": (as_netcdf, {}),
}


def decode_parquet(path: str, threads: int) -> None:
    """Decode all row groups."""
    groups = pq.ParquetFile(path).num_row_groups

    def some(first: int) -> None:
        with pq.ParquetFile(path) as file:
            for group in range(first, groups, threads):
                file.read_row_group(group, use_threads=False)

    together(some, threads)


def decode_hdf(path: str, threads: int) -> None:
    """Read all chunks; the library lets one thread in at a time."""
    name, _, dataset = path.partition("::")

    def some(first: int) -> None:
        with h5py.File(name, locking=False) as file:
            rows = file[dataset]
            for start in range(first * CHUNK, len(rows), threads * CHUNK):
                rows[start : start + CHUNK]

    together(some, threads)


def together(some: Callable[[int], None], threads: int) -> None:
    """Do a part in each of so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


DECODERS: dict[Callable[..., str], Callable[[str, int], None]] = {
    as_parquet: decode_parquet,
    as_netcdf: decode_hdf,
}


def timed(place: Path, rows: np.ndarray, threads: int, rounds: int) -> Timings:
    """Alternate all forms: reading, a pass, and the decoder."""
    named: dict[str, Callable[[], object]] = {}
    for number, (name, (make, how)) in enumerate(FORMS.items()):
        path = make(place / f"rows-{number}", rows, **how)
        dataset = open_dataset(path)
        case = Case(Path(path), rows, COMPONENTS, "auto", threads, rounds)
        model = case.model("none")
        named[f"{name}: read"] = partial(engine.over(dataset, None, threads), nothing, None)
        named[f"{name}: pass"] = Steps(model.fit_passes(dataset))
        if make in DECODERS:
            named[f"{name}: decoder"] = partial(DECODERS[make], path, threads)
    return alternate(named, rounds, "forms")


class Steps:
    """A fit whose next pass is made when it is called; the first two are done."""

    def __init__(self, progress: Iterator[object]) -> None:
        self._progress = progress
        next(progress), next(progress)

    def __call__(self) -> None:
        next(self._progress)


def lines(timings: Timings, size: float) -> Iterator[list[Cell]]:
    """The table's lines."""
    for name, (make, _) in FORMS.items():
        decoder = f"{name}: decoder"
        yield [
            name,
            size / timings.seconds(f"{name}: read"),
            timings.ratio("Zarr: read", f"{name}: read"),
            size / timings.seconds(f"{name}: pass"),
            timings.ratio("Zarr: pass", f"{name}: pass"),
            TARGET,
            size / timings.seconds(decoder) if make in DECODERS else None,
            timings.ratio(decoder, f"{name}: read") if make in DECODERS else None,
        ]


@click.command()
@click.option("--rows", type=int, help="[default: 2097152; quick: 262144]")
@click.option("--threads", default=CPU_COUNT, show_default="all processors")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the files go.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help="Few rows.")
def forms(rows: int | None, threads: int, directory: Path | None, rounds: int, quick: bool) -> None:
    """How fast passes over Parquet and NetCDF are, beside passes over Zarr.

    Example: python -m benchmarks forms --quick
    """
    count = rows or (1 << 18 if quick else 1 << 21)
    machine.measure(reading=False, directory=directory)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        store = Path(place) / "rows.zarr"
        data.store(store, data.mixture(16, DIMS), count)
        held = np.asarray(zarr.open_array(store, mode="r")[:])
        timings = timed(Path(place), held, threads, rounds)
        size = held.nbytes / (1 << 20)
        header = ["rows in", "read", "to Zarr", "pass", "to Zarr", "target", "decoder"]
        show(
            f"Passes over {count:,} x {DIMS} float32 ({mebibytes(held.nbytes)}), {threads} threads",
            [*header, "read, to the decoder"],
            lines(timings, size),
            NOTE.format(components=COMPONENTS),
        )
