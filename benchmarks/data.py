"""Synthetic rows of a known mixture, seeded, and where an EM run on them starts."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from benchmarks.timing import say

Array = NDArray[np.float64]
CHUNK_BYTES = 8 << 20


class Known(NamedTuple):
    """A mixture: weights (K,), means (K, D), and roots A (K, D, D) of covariances A A'."""

    weights: Array
    means: Array
    roots: Array

    @property
    def covariances(self) -> Array:
        """(K, D, D)."""
        return self.roots @ self.roots.swapaxes(1, 2)


class Start(NamedTuple):
    """Where EM starts: weights (K,), means (K, D), and one covariance (D, D) for all."""

    weights: Array
    means: Array
    covariance: Array


def mixture(components: int, n_features: int, seed: int = 0) -> Known:
    """A random mixture: components overlap, and standard deviations are from 0.5 to 1.5."""
    rng = np.random.default_rng([seed, components, n_features])
    axes = np.linalg.qr(rng.normal(size=(components, n_features, n_features)))[0]
    roots = axes * rng.uniform(0.5, 1.5, size=(components, 1, n_features))
    means = 2.0 * rng.normal(size=(components, n_features)) * np.sqrt(4 / max(n_features, 4))
    return Known(rng.dirichlet(np.full(components, 10.0)), means, roots)


def draw(known: Known, rows: int, seed: int, dtype: str = "float32") -> NDArray[Any]:
    """``rows`` rows (n, D) of ``known`` in random order; chunks have seeds of their own."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(rows, known.weights)
    drawn = rng.standard_normal((rows, known.means.shape[1]), dtype=np.dtype(dtype))
    ends = np.cumsum(counts)
    for k, (end, count) in enumerate(zip(ends, counts, strict=True)):
        part = drawn[end - count : end]
        part[:] = part @ known.roots[k].T.astype(dtype) + known.means[k].astype(dtype)
    return drawn[rng.permutation(rows)]


def start(rows: NDArray[Any], components: int, seed: int = 0) -> Start:
    """Random rows as means, and the covariance of the rows for all."""
    chosen = np.random.default_rng(seed).choice(len(rows), components, replace=False)
    return _start(rows, rows[chosen].astype(np.float64))


def start_near(known: Known, rows: NDArray[Any], seed: int = 0) -> Start:
    """Means off by a length of about 4, so that in many dimensions no component collapses.

    From random rows some would soon have fewer rows than dimensions, and most programs give up.
    """
    noise = np.random.default_rng(seed).normal(size=known.means.shape)
    return _start(rows, known.means + 4 * noise / np.sqrt(rows.shape[1]))


def _start(rows: NDArray[Any], means: Array) -> Start:
    covariance = np.cov(rows[:100_000].T.astype(np.float64)).reshape(2 * rows.shape[1:])
    return Start(np.full(len(means), 1 / len(means)), means, covariance)


_SHAPED: dict[str, Callable[[Array], Array]] = {
    "full": lambda dense: dense,
    "tied": lambda dense: dense.mean(axis=0),
    "diag": lambda dense: np.diagonal(dense, axis1=1, axis2=2).copy(),
    "spherical": lambda dense: np.diagonal(dense, axis1=1, axis2=2).mean(axis=1),
}

_INVERSE: dict[str, Callable[..., Array]] = {
    "full": np.linalg.inv,
    "tied": np.linalg.inv,
    "diag": np.reciprocal,
    "spherical": np.reciprocal,
}


def shaped(covariance_model: str, dense: Array) -> Array:
    """Covariances (K, D, D), as near as ``covariance_model`` comes to them and in its shape."""
    return _SHAPED[covariance_model](dense)


def given(begin: Start, covariance_model: str = "full") -> dict[str, Any]:
    """The start as parameters of a ``GaussianMixture``."""
    covariances = shaped(
        covariance_model, np.repeat(begin.covariance[None], len(begin.weights), axis=0)
    )
    return {
        "weights_init": begin.weights,
        "means_init": begin.means,
        "precisions_init": _INVERSE[covariance_model](covariances),
    }


def store(path: Path, known: Known, rows: int, chunk_rows: int | None = None, seed: int = 0) -> int:
    """Write ``rows`` float32 rows of ``known`` to a Zarr array, unless it is there; its size.

    Chunks are of some 8 MiB, compressed as Zarr does by default.  The array appears whole: until
    then it has another name.
    """
    n_features = known.means.shape[1]
    step = chunk_rows or CHUNK_BYTES // (4 * n_features)
    if not path.exists():
        write(path, rows, n_features, step, lambda i, n: draw(known, n, 1 + i + (seed << 32)))
    return int(zarr.open_array(path, mode="r").nbytes_stored())


def write(
    path: Path,
    rows: int,
    n_features: int,
    step: int,
    chunk: Callable[[int, int], NDArray[Any]],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a Zarr array of float32 rows (n, D) whose chunk i, of m rows, is ``chunk(i, m)``.

    ``about`` becomes its attributes.  Chunks are made and written by several threads.
    """
    partial = path.with_suffix(".partial")
    array = zarr.create_array(
        partial,
        shape=(rows, n_features),
        chunks=(min(step, rows), n_features),
        dtype="f4",
        attributes=dict(about or {}),
        overwrite=True,
    )
    starts = range(0, rows, step)

    def put(index: int) -> None:
        begin = starts[index]
        array[begin : begin + step] = chunk(index, min(step, rows - begin))
        if index % max(1, len(starts) // 20) == 0:
            say(f"writing {path.name}: {begin:,} of {rows:,} rows")

    with ThreadPoolExecutor(CPU_COUNT) as pool:
        list(pool.map(put, range(len(starts))))
    partial.rename(path)
