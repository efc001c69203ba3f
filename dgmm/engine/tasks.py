"""What the workers of a cluster do for a sweep: each task reads its own blocks and adds up."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, is_dataclass
from functools import partial
from threading import Event
from typing import Any, TypeVar

import numpy as np
from dask.sizeof import sizeof
from distributed import Client, get_worker

from dgmm.data.array_sources import DaskSource
from dgmm.data.dataset import Dataset
from dgmm.data.memory import memory
from dgmm.data.source import Source
from dgmm.data.transient import may_work_elsewhere
from dgmm.engine.aligned import aligned
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.cache import Cache, caches
from dgmm.engine.cuts import Cut, Node
from dgmm.engine.runs import Part, part_of, size_of
from dgmm.engine.threads import apply, block_name
from dgmm.engine.units import unit_rows
from dgmm.errors import BlockError
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.statistics import Mergeable

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)


@dataclass(frozen=True)
class Job:
    """What the tasks of a sweep are given.

    ``room`` is what a worker may keep of blocks, under the name ``token``.
    """

    dataset: Dataset
    fn: Callable[[Block, Any], Any]
    given: Any
    token: str
    room: int


def hand_on(job: Job) -> Job:
    """A task whose result is the job, which workers then fetch from each other."""
    return job


def start_runs(
    client: Client, job: Any, cut: Cut, name: str, nodes: list[Node], home: dict[str, Any]
) -> list[Any]:
    """Tasks for the runs ``nodes``, with options that say where; their futures."""
    row_ranges = [cut.row_range(node) for node in nodes]
    return (
        client.map(
            run_blocks,
            [job] * len(nodes),
            *zip(*row_ranges, strict=True),
            key=[(name, *each) for each in row_ranges],
            pure=False,
            **home,
        )
        if nodes
        else []
    )


def run_blocks(job: Job, first: int, last: int) -> Part[Any]:
    """A worker's task: the sums over blocks ``first`` to ``last``, each read one block ahead."""
    cache = caches.cache_for(job.token, job.room) if job.room else Cache(0)
    fn, given = aligned((job.fn, job.given))
    unit = unit_rows(job.dataset.rows, given)
    leaving = Event()  # whoever waits for a store waits no longer
    wanted = _wanted()

    def result(index: int, reading: Future[Block]) -> Any:
        try:
            name = block_name(job.dataset, index)
            return apply(fn, given, reading.result, name, unit)
        except BlockError as error:
            if reading.exception() is not None or may_work_elsewhere(error):
                error.block, error.worker = index, get_worker().address
            raise

    def results(reader: ThreadPoolExecutor) -> Iterator[Any]:
        reading = reader.submit(cache.block, job.dataset, first, leaving.wait)
        for index in range(first, last):
            current = reading
            if not wanted():
                raise CancelledError
            if index + 1 < last:
                reading = reader.submit(cache.block, job.dataset, index + 1, leaving.wait)
            yield result(index, current)

    with one_blas_thread(), ThreadPoolExecutor(1, "dgmm-read") as reader:
        try:
            return part_of(results(reader), first, job.dataset.blocks)
        finally:
            leaving.set()
            memory.release()


def _wanted() -> Callable[[], bool]:
    """Whether anyone still waits for the task that asks: a thread can't be told to stop."""
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return wanted


def parts_of(dataset: Dataset, source: Source) -> list[Any]:
    """Each block's rows, or what lies beside them: a lazy array, or how to read it."""
    if isinstance(source, DaskSource):
        return list(source.array.to_delayed().ravel())
    return [partial(source.read, *dataset.row_range(index)) for index in range(dataset.blocks)]


def _array(part: Any) -> Any:
    """The numbers of a part; see ``aligned``."""
    return np.require(part() if callable(part) else part, requirements=["A", "E"])


def run_graph(
    job: tuple[Callable[[Block, G], T], G, int, tuple[str, ...] | None],
    start: int,
    place: str,
    parts: dict[str, Any],
) -> T:
    """A task for one block of a Dask array, whose rows its own graph has computed.

    The ``job`` ends with how many rows make a unit, and what features are called; ``parts`` are by
    the block's fields.
    """
    fn, given, unit, names = aligned(job)

    def read() -> Block:
        return Block(start, names=names, **{name: _array(part) for name, part in parts.items()})

    with one_blas_thread():
        result = apply(fn, given, read, place, unit)
    return _measured(result)


def add_up(values: list[T]) -> T:
    """A task that adds up results, in their order."""
    return _measured(tree_sum(values))


def _measured(value: T) -> T:
    """``value``, after Dask was told how to measure such ones."""
    if is_dataclass(value):
        sizeof.register(type(value), size_of)
    return value
