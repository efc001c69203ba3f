"""How runs are cut, what a cluster holds of what they found, and who helps those that are late."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.sizeof import sizeof
from distributed import Client, get_worker

from dgmm import Dataset, engine, open_dataset
from dgmm.data.source import Source
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.engine.cuts import Cut, count_tasks, cut_for
from dgmm.engine.runs import LARGE_BYTES, add, part_of
from dgmm.engine.threads import Threads
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.statistics import Stacked, Statistics

BLOCKS = 61


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows of 61 blocks of 8."""
    path = tmp_path_factory.mktemp("runs") / "rows.npy"
    np.save(path, np.random.default_rng(3).normal(size=(8 * BLOCKS - 3, 2)))
    return open_dataset(path, block_bytes=128)


@pytest.mark.parametrize("blocks", [1, 2, 15, 16, 17, 100, 1023])
@pytest.mark.parametrize(("cell", "long", "short"), [(1, 0, 0), (1, 1, 0), (1, 4, 2), (5, 3, 3)])
@pytest.mark.parametrize("shares", [[1], [3], [1, 1], [4, 1, 2]])
def test_runs_cover_all_blocks_and_the_last_of_each_thread_are_short(
    blocks: int, cell: int, long: int, short: int, shares: list[int]
) -> None:
    cut = Cut(blocks, cell, long, short)
    homes = cut.runs(shares)
    assert len(homes) == len(shares)
    ends = [cut.row_range(node) for nodes in homes for node in nodes]
    assert [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])]
    assert ends[-1][1] == blocks
    for nodes, threads in zip(homes, shares, strict=True):
        heights = [height for height, _ in nodes]
        assert heights == sorted(heights, reverse=True)
        assert set(heights) <= {long, short}
        if short < long:
            assert heights.count(short) <= threads << (long - short)
    node = next(node for nodes in homes for node in nodes)
    for deeper in (0, 1, 2, 9):
        pieces = cut.pieces(node, deeper)
        spans = [cut.row_range(piece) for piece in pieces]
        assert (spans[0][0], spans[-1][1]) == cut.row_range(node)
        assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]


@pytest.mark.parametrize("ends", [[7, 19, 20], [1, 2, 4, 33, 40], [32], []])
def test_parts_add_up_to_the_sum_along_the_tree(ends: list[int]) -> None:
    """Wherever runs begin and end, and in whatever groups their parts are put together."""
    values = list(np.random.default_rng(1).normal(size=61))
    spans = list(zip([0, *ends], [*ends, 61], strict=True))
    parts = [part_of(values[first:last], first, 61) for first, last in spans]
    for grouped in (
        parts,
        [*parts[:1], *([add(parts[1:], 61)] if ends else [])],
        [*([add(parts[:-1], 61)] if ends else []), *parts[-1:]],
    ):
        assert add(grouped, 61).nodes == ((0, 0, tree_sum(values)),)


class Rows(Source):
    """So many rows x 8 of float32, nowhere."""

    def __init__(self, rows: int) -> None:
        self.name, self.shape, self.dtype = "rows", (rows, 8), np.dtype("f4")

    def divisions(self, block_bytes: int) -> Any:
        return self._even_cuts(1, block_bytes)

    def read(self, start: int, stop: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("rows", "threads", "least", "most"),
    [
        (10_000_000, 2, 13, 22),  # 39 blocks
        (1_000_000_000, 16, 7 * 16, 11 * 16),
        (1_000_000_000_000, 16, 119_000, 120_000),  # of 256 MiB
        (10_000_000_000, 1000, 900, 1000),
        (100_000_000_000, 1000, 950, 1000),
        (1_000_000_000_000, 1000, 5000, 7000),
    ],
)
def test_there_are_as_many_tasks_as_are_worth_the_schedulers_time(
    rows: int, threads: int, least: int, most: int
) -> None:
    source = Rows(rows)
    dataset = Dataset(source, None, source.divisions(8 << 20))
    assert least <= count_tasks(dataset, threads) <= most
    cut = cut_for(dataset, threads)
    longest = cut.cell << cut.long
    assert longest * threads <= 1.1 * dataset.blocks  # all have something to do


def test_slow_blocks_are_worth_more_tasks() -> None:
    source = Rows(10_000_000_000)
    dataset = Dataset(source, None, source.divisions(8 << 20))
    (runs,) = cut_for(dataset, 1000, pace=2.0).runs([1000])
    assert 2000 < len(runs) < 4000


def test_dask_is_told_the_size_of_what_is_swept() -> None:
    statistics = Statistics(np.ones((50, 400)), np.ones((50, 30)), 0.0, 0.0, 1.0, 1)
    size = 8 * 50 * 430
    assert size <= sizeof(part_of([statistics], 0, 2)) < 1.1 * size
    assert 2 * size <= sizeof(part_of([Stacked((statistics, statistics))], 0, 2)) < 2.2 * size
    found = first_pass(Block(0, np.ones((1000, 20))), FirstPassSpec(1000, 0))
    assert sizeof(part_of([found], 0, 2)) > found.sample.rows.nbytes


@dataclass(frozen=True)
class Weighty:
    """A number, and what makes it as large as statistics can be."""

    value: Any
    ballast: np.ndarray

    def __add__(self, other: "Weighty") -> "Weighty":
        return Weighty(self.value + other.value, self.ballast)


def count_at_the_end(block: Block, last: int) -> Weighty:
    """How many results this worker holds, soon after all blocks but the last are done."""
    ballast = np.ones(LARGE_BYTES // 4)
    if block.start < last:
        return Weighty(0, ballast)
    until = time.monotonic() + 20
    while (held := len(get_worker().data)) > 8 and time.monotonic() < until:
        time.sleep(0.02)
    return Weighty(held, ballast)


def test_a_cluster_holds_few_results(
    dataset: Dataset, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 61 tasks, the sums of the first 32, of the next 16, 8 and 4 are all that must be."""
    monkeypatch.setattr("dgmm.engine.cuts.TASK_BYTES", 1)
    last = dataset.row_range(BLOCKS - 1)[0]
    assert engine.over(dataset, clusters[2])(count_at_the_end, last).value <= 8


def sum_or_wait(block: Block, given: tuple[str, int, int]) -> Weighty:
    """The sum of a block's numbers; whoever comes to one block first gets no further for a while.

    It leaves its number, waits until it may go on, and notes what it does from then on.
    """
    place, start = Path(given[0]), given[1]
    mine = place / str(os.getpid())
    if block.start == start and not any(place.glob("[0-9]*")):
        mine.touch()
    if mine.exists():
        with mine.open("a") as file:
            file.write(f"{block.start}\n")
        until = time.monotonic() + 60
        while not (place / "go").exists() and time.monotonic() < until:
            time.sleep(0.02)
    return Weighty(sum_rows(block, None), np.ones(given[2]))


@pytest.mark.parametrize("size", [1, LARGE_BYTES // 4])
@pytest.mark.parametrize("index", [0, 8, BLOCKS - 1])
def test_a_run_that_is_late_is_swept_by_others(
    tmp_path: Path, dataset: Dataset, clusters: Mapping[int, Client], index: int, size: int
) -> None:
    """The sweep ends while a worker is still at its first block, which then does no more."""
    start, _ = dataset.row_range(index)

    found = engine.over(dataset, clusters[3])(sum_or_wait, (str(tmp_path), start, size))

    assert not (tmp_path / "go").exists()
    (waiting,) = tmp_path.glob("[0-9]*")
    (tmp_path / "go").touch()
    assert found.value.tobytes() == Threads(dataset, 1)(sum_rows, None).tobytes()
    until = time.monotonic() + 20
    while any(clusters[3].run(busy_threads).values()) and time.monotonic() < until:
        time.sleep(0.02)
    assert waiting.read_text() == f"{start}\n"


def sum_rows(block: Block, given: Any) -> np.float64:
    return np.float64(0.1 * block.rows.sum())


def busy_threads(dask_worker: Any) -> int:
    return len(dask_worker.active_threads)
