"""Memory for blocks of rows, which is used again.

The C library keeps what is freed for each thread that ever asked for it, and to return memory and
ask for it again takes longer than to read a block.

Blocks of a text, or of rows that meet a filter, are all of other sizes.  So sizes are rounded up a
little, and where a buffer of another size is made, one that nobody uses is let go: there are no
more of about one size than were in use at once.  A much larger one stays: rows and their weights
are read in turn.
"""

import ctypes
import math
import weakref
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STEPS: Final = 16
"""How many sizes of buffers there are from one power of two to the next."""


class Memory:
    """Memory for blocks, which is used again when no array needs it any more."""

    def __init__(self) -> None:
        self._free: dict[int, list[Any]] = {}

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array of ``size`` bytes, at least one."""
        step = max(1, (1 << size.bit_length() - 1) // STEPS)
        whole = -(-size // step) * step
        free = self._free.setdefault(whole, [])
        try:
            buffer = free.pop()
        except IndexError:
            self._let_one_go(2 * whole)
            buffer = np.empty(whole, np.uint8)
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

    def _let_one_go(self, most: int) -> None:
        """Release the largest buffer, of so many bytes at most, that nobody uses now."""
        for size in sorted(list(self._free), reverse=True):
            free = self._free.get(size)
            if size <= most and free:
                with suppress(IndexError):  # others take from these, too
                    del free[-1]
                    return


memory = Memory()
