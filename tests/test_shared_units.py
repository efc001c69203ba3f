"""Units of blocks, which threads share: how many there are, and the same bits from any engine."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

from dgmm import BlockError, engine, open_dataset
from dgmm.data.array_sources import NpySource
from dgmm.data.dataset import Dataset
from dgmm.data.source import even_divisions
from dgmm.engine.threads import Threads
from dgmm.engine.units import (
    LEAST_ROWS,
    LEAST_SECONDS,
    MOST_SECONDS,
    PRODUCT_SECONDS,
    UNITS,
    unit_rows,
    units,
)
from dgmm.kernels.sweep import Block, tree_sum

BLOCK, ROWS = 25_000, 160_123


@dataclass(frozen=True)
class Asked:
    """What a sweep is given."""

    factor: float
    row_products: float


def sum_rows(block: Block, asked: Asked) -> np.float64:
    return np.float64(asked.factor * block.rows.sum())


@pytest.mark.parametrize(
    ("rows", "n_features", "components", "block"),
    [
        (4_000_000, 8, 16, 62_500),
        (4_000_000, 8, 16, 262_144),
        (1_000_000, 24, 40, 87_381),
        (1_000_000, 64, 64, 32_768),
        (200_000, 64, 200, 32_768),
        (100_000, 2, 5, 100_000),
        (10**9, 8, 16, 262_144),
    ],
)
def test_there_are_many_units_and_none_is_long(
    rows: int, n_features: int, components: int, block: int
) -> None:
    width = 1 + n_features + n_features * (n_features + 1) // 2
    row = components * (width + 20) * PRODUCT_SECONDS
    unit = unit_rows(rows, Asked(1.0, row / PRODUCT_SECONDS))
    each = units(block, unit)
    longest = max(part.stop - part.start for part in each)
    assert [part.start for part in each[1:]] == [part.stop for part in each[:-1]]
    assert (each[0].start, each[-1].stop) == (0, block)
    assert longest * row < 1.2 * MOST_SECONDS or longest <= LEAST_ROWS
    whole = rows // block * len(each)
    assert whole >= 0.75 * min(UNITS, rows * row / LEAST_SECONDS, rows / LEAST_ROWS)


def test_units_give_the_same_bits_on_any_engine(
    tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    rows = np.random.default_rng(0).standard_cauchy(size=(ROWS, 2))
    np.save(tmp_path / "rows.npy", rows)
    dataset = open_dataset(tmp_path / "rows.npy", block_bytes=BLOCK * 16)
    lazy = open_dataset(da.from_array(rows, chunks=((*np.diff(dataset.divisions), 0), 2)))
    asked = Asked(0.1, 1e9)
    cut = units(BLOCK, unit_rows(ROWS, asked))
    assert len(cut) == 3

    def of_block(index: int) -> Any:
        block = dataset.block(index)
        parts = [sum_rows(block.part(each), asked) for each in units(len(block.rows), LEAST_ROWS)]
        return sum(parts[1:], parts[0])

    expected = tree_sum(of_block(index) for index in range(dataset.blocks))
    assert expected != Threads(dataset, 1)(sum_rows, Asked(0.1, 0.0))  # or nothing is compared

    for sweep in (
        Threads(dataset, 1),
        Threads(dataset, 3),
        Threads(lazy, 2),
        engine.over(dataset, clusters[2]),
        engine.over(lazy, clusters[2]),
    ):
        assert sweep(sum_rows, asked) == expected


class Watched(NpySource):
    """A file that counts the blocks that were read, and those that are in memory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.lock, self.reads, self.alive, self.most = threading.Lock(), 0, set[int](), 0

    def read(self, start: int, stop: int) -> Any:
        with self.lock:
            self.reads += 1
            self.alive.add(start)
            self.most = max(self.most, len(self.alive))
        return super().read(start, stop)


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_read_once_and_no_more_are_held_than_planned(
    tmp_path: Path, threads: int
) -> None:
    """Two for each thread; a block is gone when its last unit is done."""
    np.save(tmp_path / "rows.npy", np.zeros((20 * BLOCK, 1)))
    source = Watched(str(tmp_path / "rows.npy"))
    dataset = Dataset(source, None, even_divisions(20 * BLOCK, BLOCK))

    def fn(block: Block, asked: Asked) -> np.float64:
        if block.start % BLOCK + len(block.rows) == BLOCK:
            with source.lock:
                source.alive.discard(block.start // BLOCK * BLOCK)
        return np.float64(len(block.rows))

    assert Threads(dataset, threads)(fn, Asked(1.0, 1e9)) == 20 * BLOCK
    assert source.reads == 20
    assert source.most <= 2 * threads


def test_a_failure_in_a_unit_names_the_block() -> None:
    def fails(block: Block, asked: Asked) -> np.float64:
        if block.start > 3 * 2 * LEAST_ROWS:  # not in the first of a block
            raise ValueError("no")
        return np.float64(0)

    dataset = open_dataset(np.zeros((20 * LEAST_ROWS, 8)))  # a block is 1 MiB
    with pytest.raises(BlockError, match=r"rows 49152 to 65536 \(block 3\) of .*: no"):
        Threads(dataset, 2)(fails, Asked(1.0, 1e9))


def sum_given(block: Block, given: tuple[str, np.ndarray]) -> np.float64:
    return np.float64(len(block.rows) + given[1].sum())


def test_what_is_given_is_added_up_alike_wherever_it_came_from(
    tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    """One worker gets it from the other, in a message in which arrays begin anywhere."""
    numbers = np.random.default_rng(2).standard_cauchy(size=50_001)
    np.save(tmp_path / "rows.npy", np.zeros((ROWS, 1)))
    dataset = open_dataset(tmp_path / "rows.npy", block_bytes=8 * 1000)
    lazy = open_dataset(da.zeros((ROWS, 1), chunks=(20_000, 1)))
    for rows in (dataset, lazy):
        expected = Threads(rows, 1)(sum_given, ("", numbers))
        for length in range(4):  # of what stands before the array
            given = "x" * length, numbers
            assert engine.over(rows, clusters[2])(sum_given, given) == expected
