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

    def release(self) -> None:
        """Release all blocks, and keep no more."""
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
"""A cache not used for so long is one that nobody could release."""


class Caches:
    """A process's caches, by tokens of the engines that they serve: a client's name, and their own.

    There is one in each process, ``caches``; sent to a worker, it is that of the worker.
    """

    def __init__(self) -> None:
        self._lock, self._by_token = threading.Lock(), dict[str, Cache]()

    def __reduce__(self) -> str:
        return "caches"

    def forked(self) -> None:
        """A process just forked is no worker, and nobody in it lets go of the lock."""
        self._lock, self._by_token = threading.Lock(), {}

    def cache_for(self, token: str, room: int) -> Cache:
        """What this worker keeps for the engine ``token``.

        The first engine has the ``room``; one that comes while that is at work has none, as both
        were promised the same memory.
        """
        with self._lock:
            if token not in self._by_token:
                idle = time.monotonic() - IDLE_SECONDS
                for other in [name for name, each in self._by_token.items() if each.used < idle]:
                    del self._by_token[other]
                self._by_token[token] = Cache(0 if self._by_token else room)
            return self._by_token[token]

    def left_behind(self, living: list[str]) -> int:
        """How many bytes are kept for clients that aren't ``living``.

        A driver that was killed could not release them, and the same fit, started again, needs the
        room.
        """
        with self._lock:
            return sum(self._by_token[token].nbytes for token in self._left(living))

    def release_all_but(self, living: list[str]) -> None:
        """Release what is kept for clients that aren't ``living``."""
        with self._lock:
            for token in self._left(living):
                del self._by_token[token]

    def release(self, token: str) -> None:
        """Release what is kept for one engine."""
        with self._lock:
            self._by_token.pop(token, None)

    def _left(self, living: list[str]) -> list[str]:
        return [token for token in self._by_token if token.split()[0] not in living]


caches: Final = Caches()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=caches.forked)
