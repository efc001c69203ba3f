"""One thread for matrix products while anyone is inside; and pools of threads that are kept."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

from dask.system import CPU_COUNT
from threadpoolctl import ThreadpoolController

from dgmm.model.sharing import shared

S = TypeVar("S")


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own; finding them takes milliseconds."""
    return ThreadpoolController()


@cache
def kept_pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Threads for the life of this process.

    Python can't end while a thread waits for work that the main thread was starting as Ctrl-C
    arrived: the pool does not know of it.  So all are started once, by a thread that no Ctrl-C
    interrupts.
    """
    pool = ThreadPoolExecutor(threads, name)
    starter = threading.Thread(target=_start_all, args=(pool, threads))
    starter.start()
    starter.join()
    return pool


def _start_all(pool: ThreadPoolExecutor, threads: int) -> None:
    """Start all threads of a ``pool``: none is free while others are not there."""
    everyone = threading.Barrier(threads)
    try:
        wait([pool.submit(everyone.wait) for _ in range(threads)])
    finally:
        everyone.abort()  # where one can't be started, the others are not to wait for it


class _Own(threading.local):
    """How often a thread is inside, and what it has set for that."""

    def __init__(self) -> None:
        self.depth = 0
        self.limits = ExitStack()


class _OneBlasThread:
    """While anyone is inside, matrix products use one thread each: threads are ours to share out.

    The limit belongs to the process, and threadpoolctl lets only the thread that set it lift it,
    or set another until it has left.  So a thread of its own sets it for the first one in, and
    leaves after the last one out.  Whoever enters sets a limit too: that of a library with one for
    each thread (OpenMP), or one under the caller's own.

    A thread that is inside has its limits: to enter again costs next to nothing.

    All of it happens under one lock, which a fork takes first: else the child might inherit, held,
    the one that threadpoolctl has.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held = ExitStack()
        self._inside, self._forks = 0, 0
        self._own = _Own()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        own, forks = self._own, self._forks
        if not own.depth:
            self._enter(own)
        own.depth += 1
        try:
            yield
        finally:
            own.depth -= 1
            if not own.depth:
                self._leave(own, forks)

    def _enter(self, own: _Own) -> None:
        """A thread comes in."""
        with self.lock:
            limit = _libraries().limit
            self._inside += 1
            if self._inside == 1:
                keeper = kept_pool("dgmm-blas", 1)
                keeper.submit(lambda: self._held.enter_context(limit(limits=1))).result()
            own.limits.enter_context(limit(limits=1))

    def _leave(self, own: _Own, forks: int) -> None:
        """A thread goes, which came in after so many ``forks``."""
        with self.lock:
            own.limits.close()
            if forks == self._forks:
                self._inside -= 1
                if not self._inside:
                    kept_pool("dgmm-blas", 1).submit(self._held.close).result()

    def forked(self) -> None:
        """Nobody is inside, in a process just forked; whoever was has a copy in the other one."""
        self.lock = threading.Lock()
        self._held.close()
        self._inside, self._forks = 0, self._forks + 1
        self._own = _Own()


one_blas_thread = _OneBlasThread()


def each_on_one_blas_thread(steps: Iterator[S], threads: int | None) -> Iterator[S]:
    """The items of ``steps``, made with one thread for matrix products.

    For small matrices more threads only wait for each other, and for large ones they may round
    differently.  What can be shared out (model/sharing.py) is, by so many ``threads``, or by one
    for each processor.
    """
    end = object()
    threads = threads or CPU_COUNT
    pool = partial(kept_pool, "dgmm", threads) if threads > 1 else None
    while True:
        with one_blas_thread(), shared(pool):
            item: Any = next(steps, end)
        if item is end:
            return
        yield item
