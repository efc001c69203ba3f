"""Sweeps with threads of this process.

Reading goes on while blocks are computed on, one block ahead of each thread.  Matrix products use
one thread each, whatever else runs in the process (blas.py).

Threads don't survive a fork, nor does whatever they would have let go of; so a process that was
forked begins with no pools, ours or Dask's, and with locks of its own.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import TypeVar

import dask.threaded

from dgmm.data.dataset import Dataset
from dgmm.data.direct import memory
from dgmm.data.transient import is_transient
from dgmm.engine.blas import kept_pool, one_blas_thread
from dgmm.engine.cache import Cache
from dgmm.engine.meter import Meter
from dgmm.errors import BlockError, DgmmError
from dgmm.kernels.sweep import Block, PairwiseSum
from dgmm.model.statistics import Mergeable

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)


def _forked() -> None:
    """Forget the threads that a process just forked has none of."""
    kept_pool.cache_clear()
    one_blas_thread.forked()
    dask.threaded.default_pool = None  # Dask would wait for it, and lazy answers are computed there
    dask.threaded.pools.clear()
    dask.threaded.pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: one_blas_thread.lock.acquire(),
        after_in_parent=lambda: one_blas_thread.lock.release(),
        after_in_child=_forked,
    )


def apply(fn: Callable[[Block, G], T], given: G, read: Callable[[], Block], place: str) -> T:
    """One block's result; what goes wrong names the block, and says whether it may pass."""
    try:
        return fn(read(), given)
    except Exception as error:
        kind = "" if isinstance(error, DgmmError) else f"{type(error).__name__}: "
        failure = BlockError(f"{place}: {kind}{error}")
        failure.is_transient = is_transient(error)  # here, where all its causes are
        raise failure from error


def block_name(dataset: Dataset, index: int) -> str:
    """What errors call a block."""
    start, stop = dataset.row_range(index)
    return f"rows {start} to {stop} (block {index}) of {dataset.source.name}"


def rows_between(dataset: Dataset, first: int, last: int) -> int:
    """The number of rows in blocks ``first`` to ``last``."""
    return int(dataset.divisions[last] - dataset.divisions[first])


def results_alive(blocks: int, threads: int) -> int:
    """How many blocks' results there are at once: in the tree, in the making, waiting to be added.

    So it is in a worker process, too.
    """
    return PairwiseSum.most(blocks) + 5 * threads


@dataclass(frozen=True)
class Threads:
    """Sweeps with threads of this process."""

    dataset: Dataset
    threads: int
    meter: Meter = field(default_factory=Meter)
    cache: Cache = field(default_factory=lambda: Cache(0))

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T:
        def task(index: int, reading: Future[Block]) -> T:
            result = apply(fn, given, reading.result, block_name(self.dataset, index))
            self.meter.add(rows_between(self.dataset, index, index + 1))
            return result

        def read(index: int) -> Block:
            if leaving.is_set():
                raise CancelledError
            return self.cache.block(self.dataset, index, leaving.wait)

        if self.dataset.in_process and self.dataset.blocks == 1:  # nothing to share out
            block = self.dataset.block(0)
            with one_blas_thread():
                result = apply(fn, given, lambda: block, block_name(self.dataset, 0))
            self.meter.add(self.dataset.rows)
            return result
        leaving = threading.Event()  # whoever waits for a store, or is to read, need not any more
        tree: PairwiseSum[T] = PairwiseSum()
        pending: deque[Future[T]] = deque()
        pool, readers = kept_pool("dgmm", self.threads), kept_pool("dgmm-read", self.threads)
        with one_blas_thread():
            try:
                for index in range(self.dataset.blocks):
                    if len(pending) == 2 * self.threads:
                        tree.add(pending.popleft().result())
                    reading = readers.submit(read, index)
                    pending.append(pool.submit(task, index, reading))
                while pending:
                    tree.add(pending.popleft().result())
            finally:
                leaving.set()
                for future in pending:
                    future.cancel()
                wait(pending)
        return tree.sum()

    def close(self) -> None:
        self.cache.release()
        memory.release()
