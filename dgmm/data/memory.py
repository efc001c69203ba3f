"""Memory for blocks of rows, which is used again.

The C library keeps what is freed for each thread that ever asked for it, and to return memory and
ask for it again takes longer than to read a block.
"""

import ctypes
import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Memory:
    """Memory for blocks, which is used again when no array needs it any more."""

    def __init__(self) -> None:
        self._free: dict[int, list[Any]] = {}

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array of ``size`` bytes, at least one."""
        free = self._free.setdefault(size, [])
        try:
            buffer = free.pop()
        except IndexError:
            buffer = np.empty(size, np.uint8)
        owner = (ctypes.c_char * size).from_buffer(buffer)  # what all arrays made of it refer to
        weakref.finalize(owner, free.append, buffer).atexit = False
        return np.frombuffer(memoryview(owner), np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of native numbers, which are anything."""
        size = math.prod(shape) * dtype.itemsize
        return self.take(max(1, size))[:size].view(dtype).reshape(shape)

    def release(self) -> None:
        """Release what nobody uses now; of the rest when nobody uses it any more."""
        self._free = {}


memory = Memory()
