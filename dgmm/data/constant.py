"""One number for all rows: what scikit-learn takes for ``sample_weight``, too."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Source


class ConstantSource(Source):
    """The same number for each of so many rows; nothing of their number is ever made."""

    def __init__(self, value: float, rows: int) -> None:
        self.name = f"{value:g}, one number for all rows,"
        self.shape, self.dtype = (rows,), np.dtype(np.float64)
        self._value = value

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(1, block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.full(stop - start, self._value)


def is_number(data: Any) -> bool:
    """Whether it is one number."""
    return isinstance(data, Real)
