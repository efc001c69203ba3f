"""Blocks that stay in memory from one sweep to the next.

It is only a cache: losing it costs a read, never a result.
"""

import threading

from dgmm.dataset import Dataset
from dgmm.sweep import Block


class Cache:
    """Blocks kept between sweeps: the first to come, as long as ``room`` bytes last.

    Each sweep takes the blocks in the same order, so to drop the oldest would keep none in time.
    """

    def __init__(self, room: int) -> None:
        self._lock, self._blocks, self.room = threading.Lock(), dict[int, Block](), room

    def clear(self) -> None:
        """Let go of all blocks, and keep no more."""
        with self._lock:
            self._blocks, self.room = {}, 0

    def block(self, dataset: Dataset, index: int) -> Block:
        """Block ``index``: what is kept, else read, and kept if it fits."""
        if kept := self._blocks.get(index):
            return kept
        block = dataset.block(index)
        with self._lock:
            if block.nbytes <= self.room and index not in self._blocks:
                self.room -= block.nbytes
                self._blocks[index] = block
        return block


_kept: dict[str, Cache] = {}
"""A worker's cache, by the engine that it serves; one at most."""


def cache_for(token: str, room: int) -> Cache:
    """What this worker keeps for the engine ``token``, in place of what it kept for another."""
    if not room:
        return Cache(0)
    if token not in _kept:
        _kept.clear()
    return _kept.setdefault(token, Cache(room))


async def forget(token: str) -> None:
    """Let go of what this worker keeps; a coroutine, as those need not be waited for."""
    _kept.pop(token, None)
