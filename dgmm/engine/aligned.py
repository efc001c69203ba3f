"""What came over the network, as if it had been made here.

An array that did may begin in the midst of a word.  NumPy adds the numbers of such a one up in
pieces, as it copies them, and in other pieces than those of an array that was made here: the sum's
last digit may be another.  So arrays are copied before anything is made of them.
"""

import pickle
from typing import Final, TypeVar

import numpy as np
from distributed.protocol.pickle import dumps, loads

T = TypeVar("T")

WORD: Final = 16
"""Where arrays that are made here begin: a multiple of so many bytes."""


def aligned(value: T) -> T:
    """The same value, all of whose arrays begin with a word; itself, if they do.

    Examples
    --------
    >>> part = np.zeros(17, np.uint8)[1:].view(np.float64)
    >>> part.flags.aligned, aligned([part])[0].flags.aligned
    (False, True)
    """
    buffers: list[pickle.PickleBuffer] = []
    rest = dumps(value, buffer_callback=buffers.append)
    arrays = [np.asarray(buffer.raw()) for buffer in buffers]
    if not any(array.ctypes.data % WORD for array in arrays if array.size):
        return value
    copied: T = loads(rest, buffers=[array.copy() for array in arrays])
    return copied
