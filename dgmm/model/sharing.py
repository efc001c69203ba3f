"""Work that is not a sweep, by all threads: parts of it, which do not depend on how many there are.

Between two sweeps there is work on components and on samples.  Where that takes milliseconds, in
NumPy's hands, which let go of Python's lock, threads share it.  What the parts are is decided by
their sizes alone; so the bits do not depend on the threads.

The method (``em``) knows of no threads.  Whoever has some says so (``shared``); else, and in the
threads themselves, the parts are done one after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Final, TypeVar

P = TypeVar("P")
T = TypeVar("T")

Pool = Callable[[], Executor]
"""Whoever does the work; asked for when there is some."""

LEAST_NUMBERS: Final = 1 << 19
"""How many numbers the parts touch together, at least, to be worth sharing out: about 1 ms."""

_pool: ContextVar[Pool | None] = ContextVar("pool", default=None)
_inside: ContextVar[bool] = ContextVar("inside", default=False)


@contextmanager
def shared(pool: Pool | None) -> Iterator[None]:
    """What is shared out inside is done by a ``pool``, if there is one."""
    before = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(before)


def shared_out(fn: Callable[[P], T], parts: Sequence[P], numbers: float) -> list[T]:
    """``fn`` of each of the ``parts``, in their order; these touch so many ``numbers`` in all.

    ``fn`` is called from several threads at once, each with the caller's context: what NumPy is to
    do about overflow, say.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool, shared(lambda: pool):
    ...     shared_out(abs, [-1, 2, -3], 1e9)
    [1, 2, 3]
    """
    pool = _pool.get()
    if pool is None or len(parts) < 2 or numbers < LEAST_NUMBERS:
        return [fn(part) for part in parts]
    return _by(pool(), fn, parts)


def _by(pool: Executor, fn: Callable[[P], T], parts: Sequence[P]) -> list[T]:
    """The same by the threads of a ``pool``."""

    def inside(part: P) -> T:
        _pool.set(None)  # a thread must not wait for others: they may all be waiting
        _inside.set(True)
        return fn(part)

    contexts = [copy_context() for _ in parts]
    return list(pool.map(lambda context, part: context.run(inside, part), contexts, parts))


def is_shared() -> bool:
    """Whether this is called by a thread to which a part was given."""
    return _inside.get()


def batches(count: int, size: int) -> list[slice]:
    """``count`` things in batches of ``size``, which are of one at least.

    Examples
    --------
    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = max(1, size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
