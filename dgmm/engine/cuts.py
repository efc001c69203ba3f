"""How a sweep on a cluster is cut into tasks that are worth what they cost the scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.data.dataset import Dataset

Node = tuple[int, int]
"""A run: its height in the tree over cells, and its number among those of that height."""

TASK_BYTES: Final = 256 << 20
"""The most one task reads, so that a lost one costs seconds; more, if there were too many tasks."""

MOST_TASKS: Final = 8
"""How many tasks a thread has, or half as many, where they are smaller than ``TASK_BYTES``..."""

SHORT_TASKS: Final = 3
"""...and so many more as the last one is cut in four."""

SCHEDULER_SECONDS: Final = 0.001
"""What a task costs the scheduler (measured: benchmarks, thousand)."""

SCHEDULER_SHARE: Final = 0.05
"""How much of a sweep's time may be spent so..."""

BYTES_PER_SECOND: Final = 250e6
"""...if each thread sweeps so many, where no more is known: as fast as any does."""

FEW_TASKS: Final = 256
"""So many tasks are no burden."""

CELL_BITS: Final = 5
"""A cell is less than 2^5 blocks, and at least half as many where runs are longer than that."""


@dataclass(frozen=True)
class Cut:
    """How blocks are cut into runs.

    Attributes
    ----------
    blocks, cell : int
        How many there are, and how many make a cell.
    long, short : int
        Heights of runs, and of the last ones: they have 2^height cells.
    """

    blocks: int
    cell: int
    long: int
    short: int

    def runs(self, shares: Sequence[int]) -> list[list[Node]]:
        """Runs for homes of so many threads as ``shares`` says; a thread's last ones are short."""
        deeper, cells = self.long - self.short, -(-self.blocks // self.cell)
        count = -(-cells >> self.long)
        ends = [int(end) for end in count * np.cumsum(shares) // sum(shares)]
        homes = []
        for start, stop, threads in zip([0, *ends], ends, shares, strict=False):
            whole = max(start, stop - threads)
            last = min(stop << deeper, -(-cells >> self.short))
            shorter = [(self.short, number) for number in range(whole << deeper, last)]
            homes.append([*((self.long, number) for number in range(start, whole)), *shorter])
        return homes

    def row_range(self, node: Node) -> tuple[int, int]:
        """The first block of a run, and one past its last."""
        height, number = node
        length = self.cell << height
        return number * length, min(self.blocks, (number + 1) * length)

    def pieces(self, node: Node, deeper: int) -> list[Node]:
        """The runs so much ``deeper`` in the tree, as far as it goes, that make up a run."""
        height = max(0, node[0] - deeper)
        first, last = self.row_range(node)
        length = self.cell << height
        return [(height, number) for number in range(first // length, -(-last // length))]


def count_tasks(dataset: Dataset, threads: int) -> int:
    """How many tasks a sweep takes, without those that add up."""
    (runs,) = cut_for(dataset, threads).runs([threads])
    return len(runs)


def cut_for(dataset: Dataset, threads: int, pace: float = 0.0) -> Cut:
    """How to cut blocks into runs: several for each thread, if that is worth the scheduler's time.

    The last one of each thread is cut in four, if there are so many blocks.  ``pace`` is how many
    seconds a thread takes for a block, if that is known.
    """
    blocks, block_bytes = dataset.blocks, max(1, dataset.block_rows * dataset.row_bytes)
    seconds = blocks * max(pace, block_bytes / BYTES_PER_SECOND) / threads
    worth = max(FEW_TASKS, int(SCHEDULER_SHARE * seconds / SCHEDULER_SECONDS)) // threads
    if worth >= MOST_TASKS + SHORT_TASKS:
        # Lengths are powers of two, by which there may be twice as many tasks.
        most = max(TASK_BYTES // block_bytes, 2 * blocks // (threads * (worth - SHORT_TASKS)))
        most = min(blocks // (MOST_TASKS // 2 * threads), most)
        long = max(0, most.bit_length() - 1)
        return Cut(blocks, 1, long, max(0, long - 2))
    length = -(-blocks // (threads * max(1, worth)))
    height = max(0, length.bit_length() - CELL_BITS)
    return Cut(blocks, -(-length >> height), height, height)
