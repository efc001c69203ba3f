"""Blocks that stay in memory from one sweep to the next.

It is only a cache: losing it costs a read, never a result.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from dgmm.data.dataset import Dataset
from dgmm.kernels.sweep import Block


class Cache:
    """Blocks kept between sweeps: the first to come, as long as ``room`` bytes last.

    Each sweep takes the blocks in the same order, so to drop the oldest would keep none in time.
    """

    def __init__(self, room: int) -> None:
        self._lock, self._blocks, self.room = threading.Lock(), dict[int, Block](), room
        self.used = time.monotonic()

    def clear(self) -> None:
        """Let go of all blocks, and keep no more."""
        with self._lock:
            self._blocks, self.room = {}, 0

    @property
    def nbytes(self) -> int:
        """The size of what is kept."""
        with self._lock:
            return sum(block.nbytes for block in self._blocks.values())

    def block(
        self, dataset: Dataset, index: int, pause: Callable[[float], Any] = time.sleep
    ) -> Block:
        """Block ``index``: what is kept, else read, and kept if it fits; see ``Dataset.block``."""
        self.used = time.monotonic()
        if kept := self._blocks.get(index):
            return kept
        block = dataset.block(index, pause)
        with self._lock:
            if block.nbytes <= self.room and index not in self._blocks:
                self.room -= block.nbytes
                self._blocks[index] = block
        return block


IDLE_SECONDS: Final = 600
"""A cache not used for so long is one that nobody could let go of."""

_kept: dict[str, Cache] = {}
"""A worker's caches, by the engines that they serve: a client's name, and the engine's own."""

_lock = threading.Lock()


def _forked() -> None:
    """A process just forked is no worker, and nobody in it lets go of the lock."""
    global _lock
    _lock = threading.Lock()
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def cache_for(token: str, room: int) -> Cache:
    """What this worker keeps for the engine ``token``.

    The first engine has the ``room``; one that comes while that is at work has none, as both were
    promised the same memory.
    """
    with _lock:
        if token not in _kept:
            idle = time.monotonic() - IDLE_SECONDS
            for other in [name for name, cache in _kept.items() if cache.used < idle]:
                del _kept[other]
            _kept[token] = Cache(0 if _kept else room)
        return _kept[token]


def left_behind(living: list[str]) -> int:
    """How many bytes are kept for clients that aren't ``living``.

    A driver that was killed could not let go, and the same fit, started again, needs the room.
    """
    with _lock:
        return sum(_kept[token].nbytes for token in _left(living))


def let_go(living: list[str]) -> None:
    """Let go of what is kept for clients that aren't ``living``."""
    with _lock:
        for token in _left(living):
            del _kept[token]


def _left(living: list[str]) -> list[str]:
    return [token for token in _kept if token.split()[0] not in living]


async def forget(token: str) -> None:
    """Let go of what this worker keeps; a coroutine, as those need not be waited for."""
    with _lock:
        _kept.pop(token, None)
