"""How a sweep on a cluster is cut into tasks that are worth what they cost the scheduler."""

from typing import Final

from dgmm.data.dataset import Dataset
from dgmm.engine.runs import Cut

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
