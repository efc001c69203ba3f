"""A source: an array, where it lies, and how any of its rows are read."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SHARED: Final = 64
"""How many blocks an array in memory has at least, where each is ``LEAST_BYTES`` or more."""

LEAST_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Grid:
    """Axes on which rows lie, the last first: those of a variable of a file, or of a Zarr group.

    Attributes
    ----------
    url : str
        Of the file or the group.
    path : str
        Of the variable in it.
    shape : tuple of int
        How long the axes are.
    """

    url: str
    path: str
    shape: tuple[int, ...]


class Source(ABC):
    """An array and where it lies.

    Attributes
    ----------
    name : str
        For messages: its address, or what it is.
    shape, dtype
        Of the array, rows first.
    in_process : bool
        Whether only this process can read it.
    names : tuple of str, or None
        Of the columns of a table; other arrays have none.
    long : tuple of int, or None
        Which columns are stored as integers of 8 bytes, where ``dtype`` does not tell.
    where : str or None
        The filter that its rows meet, of those of a table in files.
    copies : int
        How many buffers of a block's size a read takes, the result included.
    paths : tuple of str
        Of the files that it reads, where ``name`` is not the path of all.
    grid : Grid or None
        Where the axes are told on which rows lie, if they are.
    sparse : bool
        Whether it reads ``SparseRows``, of what is not 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None = None
    long: tuple[int, ...] | None = None
    where: str | None = None
    in_process: bool = False
    copies: int = 1
    paths: tuple[str, ...] = ()
    grid: Grid | None = None
    sparse: bool = False

    @abstractmethod
    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        """Row numbers at which to cut the rows into blocks, from 0 to the number of rows."""

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""

    def check_whole(self) -> None:  # noqa: B027
        """Raise ``DataError`` if a part of it isn't there, as far as that can be told."""

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The type of the numbers as they are stored, where they are the values as well."""
        return self.dtype

    @property
    def integers(self) -> tuple[int, ...]:
        """Which columns are integers of 8 bytes, not all of which float64 holds."""
        if self.long is not None or self.sparse or len(self.shape) < 2:
            return self.long or ()
        return tuple(range(self.shape[1])) if is_long(self.stored_dtype) else ()

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def nbytes(self, rows: int) -> int:
        """The memory that reading so many rows takes."""
        return self.copies * rows * self.row_bytes

    def _shared_cuts(self, block_bytes: int) -> NDArray[np.int64]:
        """Cuts of rows in memory, where cutting costs nothing: there is work for many threads."""
        share = self.shape[0] * self.row_bytes // SHARED
        return self._even_cuts(1, min(block_bytes, max(share, LEAST_BYTES)))

    def _even_cuts(self, unit: int, block_bytes: int) -> NDArray[np.int64]:
        """Cuts at multiples of ``unit`` rows, into blocks of about ``block_bytes``."""
        units = max(1, block_bytes // max(1, unit * self.row_bytes))
        return even_divisions(self.shape[0], unit * units)


def is_long(dtype: Any) -> bool:
    """Whether a type of NumPy or pandas is of integers of 8 bytes, or may be."""
    return dtype.kind in "iu" and getattr(dtype, "itemsize", 8) == 8  # pandas' sparse have none


def is_real(dtype: Any) -> bool:
    """Whether a type of NumPy or pandas is of real numbers; pandas has decimals of Arrow, too."""
    return dtype.kind in "iuf" or str(dtype).startswith("decimal")


def even_divisions(rows: int, step: int) -> NDArray[np.int64]:
    """Cuts of so many rows at multiples of ``step``."""
    return np.append(np.arange(0, rows, step), rows)
