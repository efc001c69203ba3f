"""Sweeps with threads of this process, and what any process that sweeps takes care of.

Reading goes on while blocks are computed on, one block ahead of each thread.  Matrix products use
one thread each, whatever else runs in the process.

Threads don't survive a fork, nor does whatever they would have let go of; so a process that was
forked begins with no pools, ours or Dask's, and with locks of its own.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import dask.threaded
from threadpoolctl import ThreadpoolController

from dgmm.data.dataset import Dataset
from dgmm.data.direct import memory
from dgmm.engine.cache import Cache
from dgmm.errors import BlockError, DgmmError, passing
from dgmm.kernels.sweep import Block, Tree
from dgmm.model.statistics import Mergeable

G = TypeVar("G")
S = TypeVar("S")
T = TypeVar("T", bound=Mergeable)


class Meter:
    """How far a fit is: written by it as it works, read by whoever shows progress.

    Attributes
    ----------
    rows : int
        How many rows have been swept; those of samples don't count.
    stage, sweep : str, int
        What is done on samples at the moment, "" for nothing, and in which sweep.
    listener : callable
        Is called when these change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rows = self.sweep = 0
        self.stage = ""
        self.listener: Callable[[], None] = lambda: None

    def tell(self, stage: str, sweep: int) -> None:
        """Set what is done on samples."""
        self.stage, self.sweep = stage, sweep
        self.listener()

    def add(self, rows: int) -> None:
        """Count ``rows`` more."""
        with self._lock:
            self.rows += rows


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own; finding them takes milliseconds."""
    return ThreadpoolController()


@cache
def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Threads for the life of this process.

    Python can't end while a thread waits for work that started as Ctrl-C arrived; so they are
    started once, not for every sweep.
    """
    return ThreadPoolExecutor(threads, name)


class _OneBlasThread:
    """While anyone is inside, matrix products use one thread each: threads are ours to share out.

    The limit belongs to the process, and threadpoolctl lets only the thread that set it lift it,
    or set another until it has left.  So a thread of its own sets it for the first one in, and
    leaves after the last one out.  Whoever enters sets a limit too: that of a library with one for
    each thread (OpenMP), or one under the caller's own.

    All of it happens under one lock, which a fork takes first: else the child might inherit, held,
    the one that threadpoolctl has.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held = ExitStack()
        self._inside, self._forks = 0, 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        own = ExitStack()
        with self.lock:
            limit, forks = _libraries().limit, self._forks
            self._inside += 1
            if self._inside == 1:
                keeper = _pool("dgmm-blas", 1)
                keeper.submit(lambda: self._held.enter_context(limit(limits=1))).result()
            own.enter_context(limit(limits=1))
        try:
            yield
        finally:
            with self.lock:
                own.close()
                if forks == self._forks:
                    self._inside -= 1
                    if not self._inside:
                        _pool("dgmm-blas", 1).submit(self._held.close).result()

    def forked(self) -> None:
        """Nobody is inside, in a process just forked; whoever was has a copy in the other one."""
        self.lock = threading.Lock()
        self._held.close()
        self._inside, self._forks = 0, self._forks + 1


one_blas_thread = _OneBlasThread()


def _forked() -> None:
    """Forget the threads that a process just forked has none of."""
    _pool.cache_clear()
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


def each_on_one_blas_thread(steps: Iterator[S]) -> Iterator[S]:
    """The items of ``steps``, made with one thread for matrix products.

    For small matrices more threads only wait for each other, and for large ones they may round
    differently.
    """
    end = object()
    while True:
        with one_blas_thread():
            item: Any = next(steps, end)
        if item is end:
            return
        yield item


def apply(fn: Callable[[Block, G], T], given: G, read: Callable[[], Block], place: str) -> T:
    """One block's result; what goes wrong names the block, and says whether it may pass."""
    try:
        return fn(read(), given)
    except Exception as error:
        kind = "" if isinstance(error, DgmmError) else f"{type(error).__name__}: "
        told = BlockError(f"{place}: {kind}{error}")
        told.passing = passing(error)  # here, where all its causes are
        raise told from error


def block_name(dataset: Dataset, index: int) -> str:
    """What errors call a block."""
    start, stop = dataset.span(index)
    return f"rows {start} to {stop} (block {index}) of {dataset.source.name}"


def rows_between(dataset: Dataset, first: int, last: int) -> int:
    """The number of rows in blocks ``first`` to ``last``."""
    return int(dataset.cuts[last] - dataset.cuts[first])


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

        if self.dataset.here and self.dataset.blocks == 1:  # nothing to share out
            block = self.dataset.block(0)
            with one_blas_thread():
                result = apply(fn, given, lambda: block, block_name(self.dataset, 0))
            self.meter.add(self.dataset.rows)
            return result
        leaving = threading.Event()  # whoever waits for a store, or is to read, need not any more
        tree: Tree[T] = Tree()
        pending: deque[Future[T]] = deque()
        pool, readers = _pool("dgmm", self.threads), _pool("dgmm-read", self.threads)
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
        self.cache.clear()
        memory.clear()
