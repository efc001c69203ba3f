"""A thousand workers on one machine: what the scheduler and the driver do in a pass.

The scheduler is a real one in a process of its own, the workers are real ones, too, but all in one
process, and their tasks sleep for the time that they would compute.  The engine is dgmm's.
"""

import asyncio
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import click
import dask
import numpy as np
import psutil
from distributed import Client, Scheduler, Worker

from benchmarks.table import Cell, percent, show
from benchmarks.timing import say
from dgmm import cluster, engine
from dgmm.dataset import Dataset, Source
from dgmm.runs import Cut
from dgmm.sweep import Block

BLOCK_BYTES, MOST_BLOCKS = 8 << 20, 12_000
TOGETHER = 50
"""How many workers start at a time."""

HEADER = ["rows", "tasks", "pass on paper, s", "scheduler, s", "ms a task", "share"]
HEADER += ["driver, s", "pass here, s"]

QUIET = {
    "dgmm.quiet-seconds": 10_000,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
}

CASES: dict[str, tuple[float, int, float, bool]] = {
    "1e11 x 8, tasks of 256 MiB, as it was": (1e11, 8, 139e-9, True),
    "1e10 x 8": (1e10, 8, 139e-9, False),
    "1e11 x 8": (1e11, 8, 139e-9, False),
    "1e10 x 64": (1e10, 64, 16.1e-6, False),
    "1e11 x 64": (1e11, 64, 16.1e-6, False),
}
"""Rows, columns, seconds a row on one thread (from the table of kernels), and whether as it was."""

NOTE = """\
{workers:,} workers of one thread. "pass on paper" is rows times the kernel's time for one (K = 16
for 8 columns, 64 for 64; double precision), over the threads; "scheduler, s" is the processor time
of the scheduler's process in one sweep, less what it takes when idle ({idle} of its time, for
heartbeats); "share" is that over the pass on paper. "driver, s" is the processor time of this
process. "pass here" is the time of the sweep in which tasks sleep for as long, or {seconds:g} s in
all at most: all workers share one process, which takes {dummy:.1f} ms of processor time a task, so
it is longer than it would be."""


class Nowhere(Source):
    """Zeros, so many rows of them."""

    def __init__(self, rows: int, columns: int) -> None:
        self.name, self.shape, self.dtype = "nowhere", (rows, columns), np.dtype("f4")

    def cuts(self, block_bytes: int) -> Any:
        return self._even_cuts(1, block_bytes)

    def read(self, start: int, stop: int) -> Any:
        return np.broadcast_to(np.zeros((), self.dtype), (stop - start, *self.shape[1:]))


def sleep(block: Block, seconds: float) -> np.float64:
    """What takes so many seconds a row."""
    time.sleep(len(block.rows) * seconds)
    return np.float64(len(block.rows))


def old_cut(dataset: Dataset, threads: int, pace: float = 0.0) -> Cut:
    """Runs of 256 MiB, or four a thread."""
    size = dataset.block_rows * dataset.row_bytes
    most = min(dataset.blocks // (4 * threads), cluster.TASK_BYTES // size)
    height = max(0, most.bit_length() - 1)
    return Cut(dataset.blocks, 1, height, height)


def many_files() -> None:
    """Allow this process as many connections as it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def scheduler(told: Any) -> None:
    """The scheduler's process."""
    many_files()

    async def main() -> None:
        async with Scheduler(port=0, dashboard=False) as one:
            told.put((one.address, os.getpid()))
            await one.finished()

    with dask.config.set(QUIET):
        asyncio.run(main())


def workers(address: str, count: int, told: Any) -> None:
    """The workers' process."""
    many_files()

    async def main() -> None:
        options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "connection_limit": 8}
        every = [Worker(address, **options) for _ in range(count)]
        for first in range(0, count, TOGETHER):
            await asyncio.gather(*every[first : first + TOGETHER])
            told.put(min(count, first + TOGETHER))
        await asyncio.Event().wait()

    with dask.config.set(QUIET):
        asyncio.run(main())


@contextmanager
def crowd(count: int) -> Iterator[tuple[Client, psutil.Process, psutil.Process]]:
    """A client, and the processes of its scheduler and of so many workers."""
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "error"  # both read it as they start
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    first = context.Process(target=scheduler, args=(told,), daemon=True)
    first.start()
    address, pid = told.get()
    second = context.Process(target=workers, args=(address, count, told), daemon=True)
    second.start()
    while (there := told.get()) < count:
        say(f"thousand: {there:,} of {count:,} workers")
    try:
        with Client(address, set_as_default=False) as client:
            yield client, psutil.Process(pid), psutil.Process(second.pid)
    finally:
        for process in (second, first):
            process.kill()
            process.join()


@dataclass(frozen=True)
class Used:
    """Seconds: on the clock, and of processors for scheduler, workers and driver."""

    wall: float
    scheduler: float
    workers: float
    driver: float

    @classmethod
    def now(cls, one: psutil.Process, other: psutil.Process) -> "Used":
        """Since these processes began."""
        spent = [sum(process.cpu_times()[:2]) for process in (one, other)]
        return cls(time.perf_counter(), *spent, time.process_time())

    def __sub__(self, other: "Used") -> "Used":
        return Used(*(getattr(self, name) - getattr(other, name) for name in vars(self)))


@click.command()
@click.option("--workers", "count", default=1000, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="The longest pass to sleep for.")
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)))
@click.option("--quick", is_flag=True, help="50 workers, 2 seconds.")
def thousand(count: int, seconds: float, cases: tuple[str, ...], quick: bool) -> None:
    """A thousand workers' scheduler, on one machine.

    What the scheduler and the driver do in a pass over 1e10 and 1e11 rows, and what share of the
    pass that is.

    Example: python -m benchmarks thousand --workers 200
    """
    count, seconds = (50, 2.0) if quick else (count, seconds)
    lines: list[list[Cell]] = []
    spent = []
    cases = cases or tuple(CASES)[: 3 if quick else None]
    with dask.config.set(QUIET), crowd(count) as (client, one, other):
        before = Used.now(one, other)
        time.sleep(10 if not quick else 2)
        idle = Used.now(one, other) - before
        rate = idle.scheduler / idle.wall
        for name in cases:
            rows, columns, pace, old = CASES[name]
            say(f"thousand: {name}")
            paper = rows * pace / count
            source = Nowhere(int(rows), columns)
            size = max(BLOCK_BYTES, int(rows) * columns * 4 // MOST_BLOCKS)
            dataset = Dataset(source, None, source.cuts(size))
            cut = old_cut if old else cluster.cut_for
            with patch("dgmm.cluster.cut_for", cut):
                sweep = engine.over(dataset, client)
                before = Used.now(one, other)
                swept = sweep(sleep, pace * min(1.0, seconds / paper))
                used = Used.now(one, other) - before
                tasks = cluster.tasks(dataset, count)
            assert swept == rows
            busy = used.scheduler - rate * used.wall
            spent.append(used.workers / tasks)
            share = percent(busy / paper)
            each = 1e3 * busy / tasks
            lines.append([name, tasks, paper, busy, each, share, used.driver, used.wall])
    note = NOTE.format(workers=count, idle=percent(rate), seconds=seconds, dummy=1e3 * max(spent))
    show("Scheduler and driver in a pass", HEADER, lines, note)
