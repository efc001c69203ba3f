"""Rows with known errors: what lies beside rows, and extreme deconvolution a row at a time."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client

from dgmm import engine
from dgmm.data.dataset import Dataset, opened
from dgmm.em.first_pass import DataMoments, FirstPassSpec, first_pass
from dgmm.errors import DataError, UsageError
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.statistics import WeightedSum

Array = np.ndarray

N, D = 1000, 3


def numbered(shape: tuple[int, ...]) -> Array:
    """Noise of which each entry tells its row."""
    noise = np.zeros((N, *shape))
    noise[...] = np.arange(N).reshape(N, *[1] * len(shape))
    return noise + 1.0 if len(shape) == 1 else noise * 0.0 + np.eye(D) * noise


def stored(name: str, array: Array, folder: Path) -> Any:
    """The array in one of the forms that rows may have."""
    if name == "zarr":
        made = zarr.create_array(
            store=str(folder / "noise.zarr"),
            shape=array.shape,
            chunks=(77, *array.shape[1:]),
            dtype="f8",
        )
        made[:] = array
        return str(folder / "noise.zarr")
    np.save(folder / "noise.npy", array)
    return {
        "array": array,
        "npy": str(folder / "noise.npy"),
        "memmap": np.load(folder / "noise.npy", mmap_mode="r"),
        "dask": da.from_array(array, chunks=(130, *[2] * (array.ndim - 1))),
    }[name]


def agreeing(block: Block, given: None) -> WeightedSum:
    """How many rows have the noise that is theirs."""
    assert block.noise is not None
    assert block.weights is not None
    number = np.arange(block.start, block.start + len(block.rows))
    noise = np.asarray(block.noise)
    found = noise[:, 0] - 1 if noise.ndim == 2 else noise[:, 0, 0]
    same = (found == number) & (block.rows[:, 0] == number) & (block.weights == number + 1)
    return WeightedSum(float(same.sum()), float(len(number)))


@pytest.mark.parametrize("shape", [(D,), (D, D)], ids=["variances", "covariances"])
@pytest.mark.parametrize("name", ["array", "npy", "memmap", "zarr", "dask"])
def test_noise_lies_beside_the_rows_that_it_is_of(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """In any form, whatever its chunks; in other blocks, cached, and swept by threads."""
    rows = np.arange(N, dtype=float)[:, None] * np.ones(D)
    beside = {"weights": np.arange(N) + 1.0, "noise": stored(name, numbered(shape), tmp_path)}
    dataset = opened(da.from_array(rows, chunks=(170, D)), beside)
    assert dataset.blocks == 6
    assert dataset.row_bytes == 8 * (D + 1 + np.prod(shape))
    for each in (dataset, dataset.rechunk(10_000), opened(rows, beside).rechunk(3_000)):
        for cache in (0, 1 << 20):
            with closing(engine.over(each, threads=2, cache_bytes=cache)) as sweep:
                for _ in range(2):
                    assert sweep(agreeing, None) == WeightedSum(N, N)


@pytest.mark.parametrize("name", ["zarr", "dask"])
def test_noise_goes_with_its_rows_to_a_cluster(
    name: str, tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    np.save(tmp_path / "rows.npy", np.arange(N, dtype=float)[:, None] * np.ones(D))
    noise = stored(name, numbered((D, D)), tmp_path)
    beside = {"weights": da.arange(N, chunks=300) + 1.0, "noise": noise}
    if name == "zarr":
        np.save(tmp_path / "weights.npy", np.arange(N) + 1.0)
        beside["weights"] = str(tmp_path / "weights.npy")
    dataset = opened(str(tmp_path / "rows.npy"), beside, block_bytes=20_000)
    assert dataset.blocks > 4
    with closing(engine.over(dataset, clusters[2])) as sweep:
        assert sweep(agreeing, None) == WeightedSum(N, N)


def test_blocks_of_rows_with_noise_are_as_large_as_those_without() -> None:
    """In bytes: so what is read at once does not grow with what lies beside rows."""
    rows = np.zeros((200_000, 4), "f4")
    noise = da.zeros((200_000, 4, 4), chunks=(1000, 4, 4), dtype="f4")
    alone = opened(rows, {}).rechunk(1 << 20)
    both = opened(rows, {"noise": noise}).rechunk(1 << 20)
    assert both.block_bytes <= alone.block_bytes * 1.01


def moments_of(rows: Array, noise: Any, spec: FirstPassSpec, step: int = 90) -> DataMoments:
    """Of the first pass over blocks of so many rows."""
    whole = Block(0, rows, np.linspace(0.5, 2, len(rows)), noise)
    parts = [whole.part(slice(start, start + step)) for start in range(0, len(rows), step)]
    return tree_sum(map(partial(_first_pass, spec=spec), parts))


def _first_pass(block: Block, spec: FirstPassSpec) -> DataMoments:
    return first_pass(block, spec)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("shape", [(D,), (D, D)])
def test_a_sample_has_the_noise_of_its_rows(kernel: str, shape: tuple[int, ...]) -> None:
    rows = np.arange(N, dtype=float)[:, None] * np.ones(D)
    spec = FirstPassSpec(60, 3, kernel=kernel, beside=int(np.prod(shape)))
    noise = numbered(shape)
    sample = moments_of(rows, noise, spec).sample
    assert len(sample.numbers) == 60
    for each in (sample, sample.first(20), sample.chosen(np.array([5, 2, 9]))):
        np.testing.assert_array_equal(each.noise, noise[each.numbers])
        np.testing.assert_array_equal(each.given.noise, noise[each.numbers])
        np.testing.assert_array_equal(each.rows[:, 0], each.numbers)
    sweep = engine.in_memory_sweep(**{"rows": sample.given.rows, **sample.given.beside})
    assert sweep(lambda block, given: WeightedSum(float(block.noise.sum()), 0.0), None) == (
        WeightedSum(float(noise[sample.numbers].sum()), 0.0)
    )


def bad(shape: tuple[int, ...], place: tuple[int, ...], value: float) -> Array:
    noise = np.ones((N, *shape)) if len(shape) == 1 else np.zeros((N, *shape)) + np.eye(D)
    noise[place] = value
    return noise


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (bad((D,), (217, 1), -0.5), "infinite: -0.5 at row 217, column 1"),
        (bad((D,), (217, 2), np.nan), "infinite: nan at row 217, column 2"),
        (bad((D,), (217, 2), -np.inf), "infinite: -inf at row 217, column 2"),
        (bad((D, D), (217, 1, 1), -1.0), "infinite: -1.0 at row 217, column 1"),
        (bad((D, D), (217, 1, 2), 0.5), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), 1.5), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), np.nan), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), np.inf), "that of row 217 is not"),
    ],
)
def test_noise_that_no_error_can_have_is_told_with_its_row(
    noise: Array, message: str, kernel: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(N, D))
    noise[600] = noise[217]
    told = moments_of(rows, noise, FirstPassSpec(10, 1, kernel=kernel)).complaint
    assert told is not None
    assert message in told
    assert "such noise: " in told


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(
    "noise",
    [
        bad((D,), (217, 1), np.inf),
        bad((D,), (slice(None), 1), 0.0),
        bad((D, D), (217, [1, 2], [2, 1]), 1.0),  # of rank 2
        bad((D, D), (217, 1, 1), np.inf),
        np.zeros((N, D, D), "f4"),
        np.ones((N, D), "i4"),
    ],
)
def test_noise_may_be_singular_infinite_or_integers(noise: Array, kernel: str) -> None:
    rows = np.random.default_rng(0).normal(size=(N, D))
    moments = moments_of(rows, noise, FirstPassSpec(10, 1, kernel=kernel))
    assert moments.complaint is None
    assert moments.rows == N


@pytest.mark.parametrize("shape", [(N,), (N, D + 1), (N - 1, D), (N, D, 2), (N, D, D, D)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"noise must be .* \(1000, 3\), or .*\(1000, 3, 3\); the"):
        opened(np.zeros((N, D)), {"noise": np.zeros(shape)})


def test_a_dataset_brings_its_own_noise() -> None:
    dataset = opened(np.zeros((N, D)), {"noise": np.zeros((N, D))})
    assert isinstance(dataset, Dataset)
    assert dataset.layout == (N, D, False, D)
    with pytest.raises(UsageError, match="brings its own noise"):
        opened(dataset, {"noise": np.zeros((N, D))})
