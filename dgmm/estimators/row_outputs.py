"""What a fitted model says of each row, in the form the rows came in.

NumPy in, NumPy out; Dask in, lazy Dask out, in the same row chunks, also for a dask.dataframe;
xarray in, xarray out, on the axes of rows; for a path, a URL or a Zarr array, lazy Dask out, in the
dataset's blocks.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from dgmm import engine
from dgmm.data.array_sources import DaskSource
from dgmm.data.dataset import Dataset
from dgmm.data.source import Source
from dgmm.errors import MissingNoiseWarning, UsageError
from dgmm.estimators.judging import judged
from dgmm.estimators.parameters import observation_of, threads_of
from dgmm.estimators.rows import Data, is_stored, open_rows
from dgmm.kernels.outputs import DENOISED, Output, RowOutputs
from dgmm.kernels.sweep import Block
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    import dask.array as da

    # Which imports this.
    from dgmm.estimators.gaussian_mixture import GaussianMixture
else:
    da = Late("dask.array")


Names = tuple[str, ...] | None
"""What the features of a block are called."""


def warn_without_noise(model: GaussianMixture, dataset: Dataset, stacklevel: int = 3) -> None:
    """Say that a model knew of errors of rows, if none are given for those of ``dataset``."""
    if dataset.noise is None and model.fit_info_.get("noise"):
        warnings.warn(
            "the model was fitted to rows with known errors, and none are given for these: they "
            "are judged as if they had none. Give noise= (--noise); zeros say that there are none",
            MissingNoiseWarning,
            stacklevel=stacklevel,
        )


def row_outputs_of(
    model: GaussianMixture, output: Output, seed: int | None = None, noise: bool = False
) -> RowOutputs:
    """The function of a block of rows that gives an ``output`` of each, as a ``model`` judges them.

    ``seed`` is of draws, where the output has any; ``noise`` says whether the blocks have noise.
    """
    mixture, offset = judged(model)
    return RowOutputs(mixture, output, observation_of(model, noise), seed, offset)


def outputs_of(
    model: GaussianMixture,
    X: Data,
    output: Output,
    seed: int | None = None,
    noise: Data = None,
) -> Any:
    """What a fitted model says of each row: an array, or a lazy one."""
    dataset = open_rows(model, X, {"noise": noise}, sparse=output.judges)
    if output is DENOISED and dataset.noise is None:
        raise UsageError("denoise needs the noise of the rows")
    if not output.fills:
        warn_without_noise(model, dataset, stacklevel=4)
    wanted = row_outputs_of(model, output, seed, dataset.noise is not None)
    values = _of_dataset(model, X, dataset, wanted)
    if dataset.axes is None:
        return values
    return dataset.axes.put_back(values, output.name, output.by_feature, output.axes)


def _of_dataset(model: GaussianMixture, X: Data, dataset: Dataset, wanted: RowOutputs) -> Any:
    """The same for opened rows."""
    elsewhere = is_stored(X) or not dataset.source.in_process
    if dataset.lazy or (elsewhere and not isinstance(X, np.ndarray)):
        return _lazy_outputs(dataset, wanted)
    values = np.empty((dataset.rows, *wanted.columns), dtype=wanted.output.dtype)

    def fill(index: int) -> None:
        block = dataset.block(index)
        values[block.start : block.start + len(block.rows)] = wanted(block)

    with engine.one_blas_thread(), ThreadPoolExecutor(threads_of(model) or CPU_COUNT) as pool:
        list(pool.map(fill, range(dataset.blocks)))
    return values


def _lazy_outputs(dataset: Dataset, wanted: RowOutputs) -> Any:
    """The same as a Dask array: of the rows' own chunks, or of the dataset's blocks."""
    columns = wanted.columns
    chunks = (tuple(np.diff(dataset.divisions).tolist()), *((n,) for n in columns))
    meta = np.empty((0,) * (1 + len(columns)), dtype=wanted.output.dtype)
    if not isinstance(dataset.source, DaskSource):
        return da.map_blocks(_output_block, (dataset, wanted), chunks=chunks, meta=meta)
    if dataset.noise is not None:
        return _noisy_outputs(dataset.source.array, dataset, wanted, meta)
    return da.map_blocks(
        _output_chunk,
        *(dataset.source.array, wanted, dataset.names),
        chunks=chunks,
        drop_axis=None if columns else 1,
        new_axis=list(range(2, 1 + len(columns))) or None,
        meta=meta,
    )


def _noisy_outputs(rows: da.Array, dataset: Dataset, wanted: RowOutputs, meta: NDArray[Any]) -> Any:
    """The same of the chunks of ``rows`` with their noise."""
    source = dataset.noise
    assert source is not None
    if isinstance(source, DaskSource):
        noise = source.array
    else:
        chunks = (rows.chunks[0], *((n,) for n in source.shape[1:]))
        noise = da.map_blocks(_noise_chunk, source, chunks=chunks, dtype=source.dtype)
    starts = da.from_array(dataset.divisions[:-1], chunks=1)
    columns = dict(zip("uv", wanted.columns, strict=False))
    return da.blockwise(
        _noisy_output,
        ("n", *columns),
        *(rows, "nd", noise, "nab"[: noise.ndim], starts, "n", wanted, None, dataset.names, None),
        new_axes=columns,
        concatenate=True,
        align_arrays=False,
        meta=meta,
    )


def _noise_chunk(source: Source, block_info: dict[Any, Any]) -> NDArray[Any]:
    start, stop = block_info[None]["array-location"][0]
    return source.read(start, stop)


def _noisy_output(
    rows: NDArray[Any],
    noise: NDArray[Any],
    starts: NDArray[Any],
    wanted: RowOutputs,
    names: Names,
) -> NDArray[Any]:
    start = int(starts[0]) if len(starts) else 0
    with engine.one_blas_thread():
        return wanted(Block(start, rows, noise=noise, names=names))


def _output_block(given: tuple[Dataset, RowOutputs], block_info: dict[Any, Any]) -> NDArray[Any]:
    dataset, wanted = given
    block = dataset.block(block_info[None]["chunk-location"][0])
    with engine.one_blas_thread():
        return wanted(block)


def _output_chunk(
    rows: NDArray[Any], wanted: RowOutputs, names: Names, block_info: dict[Any, Any]
) -> NDArray[Any]:
    with engine.one_blas_thread():
        return wanted(Block(block_info[0]["array-location"][0][0], rows, names=names))
