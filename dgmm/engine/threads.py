"""Sweeps with threads of this process.

Reading goes on while blocks are computed on, one block ahead of each thread; these are shared out
in units (units.py).  Matrix products use one thread each, whatever else runs in the process
(blas.py).

Threads don't survive a fork, nor does whatever they would have let go of; so a process that was
forked begins with no pools, ours or Dask's, and with locks of its own.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import dask.threaded
from dask.local import SynchronousExecutor

from dgmm.data.dataset import Dataset
from dgmm.data.memory import memory
from dgmm.data.transient import is_transient
from dgmm.engine.adding import SharedSum
from dgmm.engine.blas import kept_pool, one_blas_thread
from dgmm.engine.cache import Cache
from dgmm.engine.meter import Meter
from dgmm.engine.units import in_units, unit_rows, units
from dgmm.errors import BlockError, DgmmError
from dgmm.kernels.sweep import Block, PairwiseSum
from dgmm.model.sharing import is_shared
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


def apply(
    fn: Callable[[Block, G], T], given: G, read: Callable[[], Block], place: str, unit: int
) -> T:
    """One block's result, by units of about so many rows.

    What goes wrong names the block, and says whether it may pass.
    """
    try:
        return in_units(fn, read(), given, unit)
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


@dataclass
class _Shared(Generic[T]):
    """A sweep under way: blocks that are read, and units that are computed and added to ``total``.

    ``read`` begins to read one of the ``blocks``, and ``start`` its units, of which it says whether
    each is the last.  At most so many, ``most``, are under way at once, of blocks as of units.
    """

    blocks: int
    most: int
    read: Callable[[int], Future[Block]]
    start: Callable[[int, Future[Block]], Iterator[tuple[Future[None], bool]]]
    total: SharedSum[T]
    _begun: int = 0
    _ended: int = 0
    _read: deque[tuple[int, Future[Block]]] = field(default_factory=deque)
    _units: deque[tuple[Future[None], bool]] = field(default_factory=deque)

    def result(self) -> T:
        """What units found, added up."""
        while self._read_ahead() or self._units:
            if not self._read:
                self._take()
                continue
            for each in self.start(*self._read.popleft()):
                self._units.append(each)
                if len(self._units) == self.most:
                    self._take()
        return self.total.sum()

    def _read_ahead(self) -> bool:
        """Have blocks read, as far as they may be; whether there are some to compute on."""
        while self._begun < self.blocks and self._begun - self._ended < self.most:
            self._read.append((self._begun, self.read(self._begun)))
            self._begun += 1
        return bool(self._read)

    def _take(self) -> None:
        """Wait for the next unit."""
        future, last = self._units.popleft()
        future.result()
        if last:
            self._ended += 1
            self._read_ahead()

    def stop(self) -> None:
        """Wait until nothing is under way."""
        for future, _ in self._units:
            future.cancel()
        wait([future for future, _ in self._units])


@dataclass(frozen=True)
class Threads:
    """Sweeps with threads of this process."""

    dataset: Dataset
    threads: int
    meter: Meter = field(default_factory=Meter)
    cache: Cache = field(default_factory=lambda: Cache(0))

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T:
        unit = unit_rows(self.dataset.rows, given)

        def task(index: int, number: int, of: tuple[slice, bool], reading: Future[Block]) -> None:
            chosen, last = of

            def read() -> Block:
                return reading.result().part(chosen)

            rows = chosen.stop - chosen.start
            result = apply(fn, given, read, block_name(self.dataset, index), rows)
            self.meter.add(rows)
            total.add(index, number, last, result)

        def read(index: int) -> Block:
            if leaving.is_set():
                raise CancelledError
            return self.cache.block(self.dataset, index, leaving.wait)

        if self.dataset.in_process and self.dataset.blocks == len(self._units(0, unit)) == 1:
            with one_blas_thread():  # nothing to share out
                result = apply(
                    fn, given, lambda: self.dataset.block(0), block_name(self.dataset, 0), unit
                )
            self.meter.add(self.dataset.rows)
            return result
        leaving = threading.Event()  # whoever waits for a store, or is to read, need not any more
        pool: Executor = kept_pool("dgmm", self.threads)
        if is_shared():  # this is one of its threads, and all of them may come to wait for it
            pool = SynchronousExecutor()
        readers = kept_pool("dgmm-read", self.threads)
        total = SharedSum[T]()

        def start(index: int, reading: Future[Block]) -> Iterator[tuple[Future[None], bool]]:
            for number, of in enumerate(self._units(index, unit)):
                yield pool.submit(task, index, number, of, reading), of[1]

        most = 2 * self.threads
        shared = _Shared(
            self.dataset.blocks, most, lambda index: readers.submit(read, index), start, total
        )
        with one_blas_thread():
            try:
                return shared.result()
            finally:
                leaving.set()
                shared.stop()

    def _units(self, index: int, unit: int) -> list[tuple[slice, bool]]:
        """The units of a block, and whether each is its last."""
        chosen = units(rows_between(self.dataset, index, index + 1), unit)
        return [(each, each is chosen[-1]) for each in chosen]

    def close(self) -> None:
        self.cache.release()
        memory.release()
