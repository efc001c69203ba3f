"""Sources of an array in memory, of a ``.npy`` file, and of any ``dask.array``."""

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from dask.base import optimize
from dask.local import get_sync
from dask.optimization import cull
from numpy.typing import NDArray

from dgmm.data.forms import declared
from dgmm.data.source import Source
from dgmm.errors import DataError
from dgmm.model.lazy import lazy

if TYPE_CHECKING:
    import dask.array as da


class ArraySource(Source):
    """An array in this process's memory."""

    in_process = True
    copies = 0

    def __init__(self, array: NDArray[Any]) -> None:
        self.name = "the array in memory"
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array

    @classmethod
    def of(cls, data: Any) -> "ArraySource":
        """The source of what NumPy makes of ``data``."""
        try:
            array = np.asarray(data)
        except (ValueError, TypeError) as error:
            raise DataError(f"a {type(data).__name__} is no array of numbers: {error}") from error
        if array.shape == () and array.dtype.kind == "O":
            raise DataError(
                "rows must be 2-D, (rows, features), and weights 1-D; a "
                f"{type(array.item()).__name__} is no array of numbers"
            )
        return cls(array)

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._shared_cuts(block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._array[start:stop]


class NpySource(Source):
    """A ``.npy`` file on a file system that all processes share."""

    def __init__(self, path: str) -> None:
        self.name = self._path = path
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError, BadZipFile) as error:
            raise DataError(f"{path} can't be read as a .npy file: {error}") from error
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} can't be read as a .npy file: it is a .npz archive")
        self.shape, self.dtype = array.shape, array.dtype

    @classmethod
    def behind(cls, array: "np.memmap[Any, Any]") -> "NpySource | None":
        """The file that ``array`` maps, if it maps all of a ``.npy`` file as it is."""
        try:
            source = cls(str(array.filename))
        except DataError:
            return None
        whole = source._map()
        same = all(
            getattr(array, name) == getattr(whole, name)
            for name in ("offset", "shape", "dtype", "strides")
        )
        return source if same and array.mode != "c" else None

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(1, block_bytes)

    def _map(self) -> "np.memmap[Any, Any]":
        mapped: np.memmap[Any, Any] = np.load(self._path, mmap_mode="r", allow_pickle=False)
        if (mapped.shape, mapped.dtype) != (self.shape, self.dtype):
            raise DataError(
                f"{self.name} has changed since it was opened: it has shape {mapped.shape} and "
                f"dtype {mapped.dtype}, not {self.shape} and {self.dtype}"
            )
        return mapped

    def read(self, start: int, stop: int) -> NDArray[Any]:
        # Mapped afresh each time: pages of a map that stays would count as memory in use.
        return np.array(self._map()[start:stop])


class DaskSource(Source):
    """A ``dask.array`` of any making, a chunk of rows a block.

    ``array`` has its columns together, and chunks that are what they say (``declared``).
    """

    copies = 3  # the result, and what its graph needs on the way: a guess

    def __init__(self, array: "da.Array", name: str) -> None:
        if max(array.numblocks[1:], default=1) > 1:
            array = array.rechunk(dict.fromkeys(range(1, array.ndim), -1))
        self.name = name
        self.shape, self.dtype = array.shape, array.dtype
        self.array = array

    @classmethod
    def of(cls, array: "da.Array") -> "DaskSource":
        """Of an array as it was given."""
        name = f"the Dask array {array.name}"
        return cls(declared(array, name), name)

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return np.cumsum([0, *self.array.chunks[0]], dtype=np.int64)

    @lazy
    def _graph(self) -> dict[Any, Any]:
        """The graph of all chunks, optimised once; it never leaves this process."""
        (optimised,) = optimize(self.array)
        return dict(optimised.__dask_graph__())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        index = int(np.searchsorted(self.divisions(0), start, side="right")) - 1
        key = (self.array.name, index, *[0] * (self.array.ndim - 1))
        return np.asarray(get_sync(cull(self._graph, [key])[0], key))

    def rechunk(self, divisions: NDArray[np.int64]) -> "DaskSource":
        """The same rows in chunks of other sizes."""
        again = DaskSource(self.array.rechunk({0: tuple(np.diff(divisions).tolist())}), self.name)
        again.names, again.long = self.names, self.long
        return again
