"""What this machine can do at most, measured beside what is judged by it.

A probe is a piece of work of known size.  Products, exp and memory are those of one thread.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from benchmarks import data
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS, Timings, alternate

PAGE_CACHE = hasattr(os, "posix_fadvise")
"""Whether this system can be asked to forget a file that it keeps in memory."""


def forget(path: Path) -> None:
    """Have the system drop what it keeps in memory of a file, or of all files in a directory."""
    if not PAGE_CACHE:
        raise click.UsageError("this system can't be told to forget files")
    for each in [path, *path.rglob("*")]:
        if each.is_file():
            with each.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class Probe:
    """A piece of work.

    Attributes
    ----------
    run : callable
        Do it once.
    work : float
        How much it is.
    what, unit : str
        What it says of the machine, and in which unit ``show`` of work and seconds is.
    show : callable
        From the work of one second.
    """

    run: Callable[[], object]
    work: float
    what: str
    unit: str
    show: Callable[[float], float]

    def rate(self, seconds: float) -> float:
        """Work a second."""
        return self.work / seconds


def product(dtype: str, size: int = 1024) -> Probe:
    """A square matrix product: the arithmetic that a core can do."""
    left, right = (np.random.default_rng(i).random((size, size)).astype(dtype) for i in (0, 1))
    out = np.empty_like(left)
    return Probe(
        lambda: np.matmul(left, right, out=out),
        2.0 * size**3,
        f"matrix product, {dtype}, one thread",
        "GF/s",
        lambda rate: rate / 1e9,
    )


def exponential(dtype: str, size: int = 8192, times: int = 40) -> Probe:
    """``numpy.exp`` of an array that stays in the cache."""
    values = np.linspace(-20, 0, size).astype(dtype)
    out = np.empty_like(values)

    def run() -> None:
        for _ in range(times):
            np.exp(values, out=out)

    return Probe(
        run, float(size * times), f"numpy.exp, {dtype}, one thread", "ns each", lambda r: 1e9 / r
    )


def memory(size: int = 128 << 20) -> Probe:
    """Read memory, beyond the caches."""
    values = np.ones(size // 8)
    return Probe(
        lambda: values @ values, float(size), "memory read, one thread", "GB/s", lambda r: r / 1e9
    )


def disk(directory: Path, size: int = 128 << 20) -> Probe:
    """Read a file that the system does not keep in memory, where it can be told so."""
    path = directory / "probe.bin"
    with path.open("wb") as file:
        file.write(np.random.default_rng(0).bytes(size))
        file.flush()
        os.fsync(file.fileno())

    def run() -> None:
        if PAGE_CACHE:
            forget(path)
        with path.open("rb", buffering=0) as file:
            while file.read(8 << 20):
                pass

    what = "disk read" if PAGE_CACHE else "disk read, cached by the system"
    return Probe(run, float(size), what, "MB/s", lambda rate: rate / 1e6)


def decompression(n_features: int = 8, size: int = 8 << 20) -> Probe:
    """Decode a Zarr chunk of float32 rows that lies, compressed, in memory."""
    rows = data.draw(data.mixture(16, n_features), size // (4 * n_features), 0)
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=rows.shape, chunks=rows.shape, dtype=rows.dtype
    )
    array[:] = rows
    stored = rows.nbytes / max(1, array.nbytes_stored())
    what = f"Zarr decompression of float32 rows ({stored:.2f} to 1), one chunk"
    return Probe(lambda: array[:], float(rows.nbytes), what, "MB/s", lambda r: r / 1e6)


def arithmetic() -> dict[str, Probe]:
    """The probes of one core."""
    return {
        "float64 product": product("float64"),
        "float32 product": product("float32"),
        "float64 exp": exponential("float64"),
        "float32 exp": exponential("float32"),
        "memory": memory(),
    }


def report(probes: Mapping[str, Probe], timings: Timings) -> None:
    """Print what the probes found."""
    rows: list[list[Cell]] = [
        [probe.what, probe.show(probe.rate(timings.seconds(name))), probe.unit]
        for name, probe in probes.items()
    ]
    rows.append(["processors", CPU_COUNT, platform.machine()])
    show("The machine in this run", ["limit", "measured", "unit"], rows)


def measure(reading: bool = False, directory: Path | None = None, rounds: int = ROUNDS) -> None:
    """Measure and print the machine's limits, with those of ``reading`` if asked."""
    with tempfile.TemporaryDirectory(dir=directory) as place, threadpool_limits(1):
        probes = arithmetic()
        if reading:
            probes |= {"disk": disk(Path(place)), "decompression": decompression()}
        report(probes, alternate({n: p.run for n, p in probes.items()}, rounds, "machine"))
