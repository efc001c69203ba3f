"""Variables of files that others have open: datasets of h5py, variables of netCDF4 and h5netcdf.

A dataset of a file that is open for reading is opened again by its address, for each read, so that
other processes read it, too.  All others are read a block at a time through the object itself, in
this process, and by one thread at a time: the libraries below are not made for several.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.hdf import HdfSource, said_of
from dgmm.data.packed import ATTRIBUTES, unpacked
from dgmm.data.source import Source
from dgmm.errors import DataError

_one_at_a_time = threading.RLock()


class SlicedSource(Source):
    """An array of which rows are read by slices.

    What it masks is NaN.
    """

    in_process = True
    copies = 3  # the result, a chunk and what it is decoded from

    def __init__(
        self, name: str, array: Any, dtype: np.dtype[Any], stored: np.dtype[Any] | None = None
    ) -> None:
        self.name, self.shape, self.dtype = name, tuple(map(int, array.shape)), dtype
        self._array, self._stored = array, stored or dtype
        self._unit = _rows_of_a_chunk(array)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        return self._stored

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(self._unit, block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        with _one_at_a_time:
            try:
                rows = self._array[start:stop]
            except (OSError, RuntimeError, ValueError) as error:
                raise DataError(f"{self.name} can't be read: {error}") from error
        if isinstance(rows, np.ma.MaskedArray):
            rows = np.ma.filled(rows.astype(self.dtype), np.nan)
        return np.asarray(rows, self.dtype)


def _rows_of_a_chunk(array: Any) -> int:
    """How many rows are stored together."""
    chunks = getattr(array, "chunks", None)
    if chunks is None and hasattr(array, "chunking"):
        chunks = array.chunking()
    known = isinstance(chunks, list | tuple) and len(chunks) > 0
    return max(1, int(chunks[0])) if known else 1  # type: ignore[index]


def _of_h5py(dataset: Any, raw: bool) -> Source:
    """A dataset of h5py."""
    file, path = dataset.file, dataset.name
    if dataset.shape is None:
        raise DataError(f"the dataset {path} has no values")
    source: Source
    if file.mode == "r" and file.driver == "sec2" and path is not None:
        source = HdfSource(file.filename, path.strip("/"), dataset)
    else:
        source = SlicedSource(f"the dataset {path} of {file.filename}", dataset, dataset.dtype)
    return unpacked(source, said_of(dataset), raw)


def _of_h5netcdf(variable: Any, raw: bool) -> Source:
    """A variable of h5netcdf, which gives numbers as they are stored."""
    said = {each: variable.attrs[each] for each in ATTRIBUTES if each in variable.attrs}
    source = SlicedSource(f"the variable {variable.name}", variable, np.dtype(variable.dtype))
    return unpacked(source, said, raw)


def _of_netcdf4(variable: Any, raw: bool) -> Source:
    """A variable of netCDF4, which unpacks and masks by itself, unless it was told not to."""
    name = f"the variable {variable.name}"
    given = np.dtype(variable[:0].dtype) if variable.shape else np.dtype(variable.dtype)
    if given.kind not in "iuf":
        return SlicedSource(name, variable, given)
    return SlicedSource(name, variable, np.dtype("f4" if given == np.float32 else "f8"), given)


VARIABLES: Final[dict[str, Callable[[Any, bool], Source]]] = {
    "h5py.Dataset": _of_h5py,
    "h5netcdf.Variable": _of_h5netcdf,
    "netCDF4.Variable": _of_netcdf4,
}
"""By the names of their types."""


def variable_maker(names: Sequence[str]) -> Callable[[Any, bool], Source] | None:
    """What opens a value whose types are called ``names``; None if it is no such variable."""
    for name in names:
        if name in VARIABLES:
            return VARIABLES[name]
    return None
