"""A thousand workers on one machine: what the scheduler and the driver do in a pass.

The scheduler is a real one in a process of its own, the workers are real ones, too, but many in one
process, and their tasks sleep for the time that they would compute.  What tasks are given and what
they bring home are a fit's, and the engine is dgmm's.
"""

import asyncio
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
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
from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.data.source import Source
from dgmm.engine import cluster, cuts
from dgmm.engine.cuts import Cut
from dgmm.kernels import natural_parameters
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

BLOCK_BYTES, MOST_BLOCKS = 8 << 20, 12_000
TOGETHER = 25
"""How many workers a process starts at a time."""

PROCESSES = 2
"""Among how many processes workers are shared out."""

HEADER = ["rows", "tasks", "pass on paper, s", "scheduler, s", "ms a task", "share"]
HEADER += ["driver, s", "pass here, s"]

QUIET = {
    "dgmm.quiet-seconds": 10_000,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.tick.interval": "60s",  # each 20 ms, a thousand workers' fill a processor
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "600s",
}
"""So that many workers in one process have little to do besides their tasks, and all the time."""


@dataclass(frozen=True)
class Case:
    """A pass: rows, columns, components, seconds a row on one thread (from the table of kernels).

    ``kept`` is whether workers keep blocks, ``old`` whether tasks are cut as they were.
    """

    rows: float
    columns: int
    components: int
    pace: float
    kept: bool = False
    old: bool = False

    @property
    def dataset(self) -> Dataset:
        """Rows that are nowhere."""
        source = Nowhere(int(self.rows), self.columns)
        most = 10 * MOST_BLOCKS if self.old else MOST_BLOCKS
        size = max(BLOCK_BYTES, int(self.rows) * self.columns * 4 // most)
        return Dataset(source, None, source.divisions(size))

    @property
    def given(self) -> natural_parameters.Given:
        """What a sweep is given."""
        components, columns = self.components, self.columns
        covariances = np.tile(np.eye(columns), (components, 1, 1))
        shape = np.full(components, 1 / components), np.zeros((components, columns)), covariances
        natural = NaturalParameters.of(
            Mixture.of_covariances(COVARIANCE_MODELS["full"], *shape), centre=True
        )
        return natural_parameters.Given(Frame(np.zeros(columns), np.ones(columns)), (natural,))


CASES: dict[str, Case] = {
    "1e10 x 8": Case(1e10, 8, 16, 139e-9),
    "1e11 x 8": Case(1e11, 8, 16, 139e-9),
    "1e11 x 8, blocks kept": Case(1e11, 8, 16, 139e-9, kept=True),
    "1e10 x 64": Case(1e10, 64, 64, 16.1e-6),
    "1e11 x 64": Case(1e11, 64, 64, 16.1e-6),
    "1e12 x 8": Case(1e12, 8, 16, 139e-9),
    "1e12 x 8, tasks of 256 MiB, as it was": Case(1e12, 8, 16, 139e-9, old=True),
}

NOTE = """\
{workers:,} workers of one thread. "pass on paper" is rows times the kernel's time for one (K = 16
for 8 columns, 64 for 64; double precision), over the threads; "scheduler, s" is the processor time
of the scheduler's process in one sweep, less what it takes when idle ({idle} of its time, for
heartbeats); "share" is that over the pass on paper. "driver, s" is the processor time of this
process. "pass here" is the time of the sweep in which tasks sleep for as long, or {seconds:g} s in
all at most: all workers share {processes} processes, which take up to {dummy:.1f} ms of processor
time a task, so it is longer than it would be."""


class Nowhere(Source):
    """Zeros, so many rows of them."""

    def __init__(self, rows: int, columns: int) -> None:
        self.name, self.shape, self.dtype = "nowhere", (rows, columns), np.dtype("f4")

    def divisions(self, block_bytes: int) -> Any:
        return self._even_cuts(1, block_bytes)

    def read(self, start: int, stop: int) -> Any:
        return np.broadcast_to(np.zeros((), self.dtype), (stop - start, *self.shape[1:]))


def sleep(block: Block, given: tuple[float, natural_parameters.Given]) -> Statistics:
    """What takes so many seconds a row, and brings home statistics, without counting anything."""
    seconds, (natural,) = given[0], given[1].naturals
    time.sleep(len(block.rows) * seconds)
    width = natural.features.width(block.rows.shape[1])
    return Statistics(
        np.zeros((len(natural.center), width)), natural.center, 0, 0, 0, len(block.rows)
    )


def old_cut(dataset: Dataset, threads: int, pace: float = 0.0) -> Cut:
    """Runs of 256 MiB, or four a thread."""
    size = dataset.block_rows * dataset.row_bytes
    most = min(dataset.blocks // (4 * threads), cuts.TASK_BYTES // size)
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
            told.put(one.address)
            await one.finished()

    with dask.config.set(QUIET):
        asyncio.run(main())


def workers(address: str, count: int, told: Any) -> None:
    """A process of workers."""
    many_files()

    async def main() -> None:
        options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "connection_limit": 8}
        every = [Worker(address, **options) for _ in range(count)]
        for first in range(0, count, TOGETHER):
            some = every[first : first + TOGETHER]
            await asyncio.gather(*some)
            told.put(len(some))
        await asyncio.Event().wait()

    # There are no matrix products, and one lock for all workers would be wanted all the time.
    with dask.config.set(QUIET), patch("dgmm.engine.tasks.one_blas_thread", nullcontext):
        asyncio.run(main())


@contextmanager
def crowd(count: int) -> Iterator[tuple[Client, psutil.Process, list[psutil.Process]]]:
    """A client, and the processes of its scheduler and of so many workers."""
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "error"  # all read it as they start
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    first = context.Process(target=scheduler, args=(told,), daemon=True)
    first.start()
    address = told.get()
    shares = [count // PROCESSES + (i < count % PROCESSES) for i in range(PROCESSES)]
    others = [
        context.Process(target=workers, args=(address, share, told), daemon=True)
        for share in shares
    ]
    with ExitStack() as stack:
        stack.callback(first.kill)
        for process in others:
            process.start()
            stack.callback(process.kill)
        there = 0
        while there < count:
            there += told.get()
            say(f"thousand: {there:,} of {count:,} workers")
        client = stack.enter_context(Client(address, set_as_default=False))
        yield client, psutil.Process(first.pid), [psutil.Process(each.pid) for each in others]


@dataclass(frozen=True)
class Used:
    """Seconds: on the clock, and of processors for scheduler, workers and driver."""

    wall: float
    scheduler: float
    workers: float
    driver: float

    @classmethod
    def now(cls, one: psutil.Process, others: list[psutil.Process]) -> "Used":
        """Since these processes began."""
        spent = [sum(process.cpu_times()[:2]) for process in (one, *others)]
        return cls(time.perf_counter(), spent[0], sum(spent[1:]), time.process_time())

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
    cases = cases or tuple(CASES)[: 1 if quick else None]
    with dask.config.set(QUIET), crowd(count) as (client, one, others):
        before = Used.now(one, others)
        time.sleep(10 if not quick else 2)
        idle = Used.now(one, others) - before
        rate = idle.scheduler / idle.wall
        for name in cases:
            case = CASES[name]
            say(f"thousand: {name}")
            paper, dataset = case.rows * case.pace / count, case.dataset
            with patch("dgmm.engine.cuts.cut_for", old_cut if case.old else cuts.cut_for):
                sweep = engine.over(dataset, client, cache_bytes=int(case.kept))
                given = case.pace * min(1.0, seconds / paper), case.given
                if isinstance(sweep, cluster.Cluster):  # once a fit, not a pass
                    sweep.checked = frozenset(client.nthreads())
                before = Used.now(one, others)
                swept = sweep(sleep, given)
                used = Used.now(one, others) - before
                sweep.close()
                tasks = cuts.count_tasks(dataset, count)
            assert swept.rows == case.rows
            busy = used.scheduler - rate * used.wall
            spent.append(used.workers / tasks)
            share = percent(busy / paper)
            each = 1e3 * busy / tasks
            lines.append([name, tasks, paper, busy, each, share, used.driver, used.wall])
            say(f"thousand: {lines[-1]}")
    note = NOTE.format(
        workers=count,
        idle=percent(rate),
        seconds=seconds,
        processes=PROCESSES,
        dummy=1e3 * max(spent),
    )
    show("Scheduler and driver in a pass", HEADER, lines, note)
