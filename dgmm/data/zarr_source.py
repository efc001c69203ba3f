"""The source of a Zarr array."""

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.direct import Direct
from dgmm.data.missing_chunks import MISSING_CHUNKS, Absence
from dgmm.data.packed import Packing
from dgmm.data.source import Source
from dgmm.data.stored import Chunks, attributes, of_this_process
from dgmm.data.urls import protocols


def absence_of(array: "zarr.Array[Any]", absence: Absence, raw: bool) -> Absence:
    """The ``absence`` of chunks of an ``array``: Zarr stores none in which there is no value."""
    return MISSING_CHUNKS["fill"] if absence.missing and _fills_nothing(array, raw) else absence


def _fills_nothing(array: "zarr.Array[Any]", raw: bool) -> bool:
    """Whether the fill value of an ``array`` stands for no value: NaN, or what says so."""
    fill, dtype = array.fill_value, np.dtype(array.dtype)
    if fill is None or dtype.kind not in "iuf":
        return False
    packing = None if raw else Packing.of(array.name, attributes(array), dtype)
    return bool(np.isnan(fill)) or (packing is not None and fill in packing.missing)


class ZarrSource(Source):
    """A Zarr array, of either format, sharded or not, on any store."""

    copies = 3  # the result, the compressed chunk and the decompressed one

    def __init__(self, array: "zarr.Array[Any]", name: str, absence: Absence) -> None:
        array = of_this_process(array)
        self.name, self._array = name, array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self._absence = absence
        self._chunks, self._direct = Chunks(array, name), Direct.of(array)
        store = array.store
        self.in_process = isinstance(store, zarr.storage.MemoryStore) or (
            isinstance(store, zarr.storage.FsspecStore) and "memory" in protocols(store.fs)
        )

    def check_whole(self) -> None:
        if self._absence.listed:
            self._chunks.check_all()

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(self._chunks.unit[0], block_bytes)

    def nbytes(self, rows: int) -> int:
        # Blocks are cut by the rows' chunks; those of what lies beside them may be larger.
        chunk = max(rows, min(self._array.chunks[0], self.shape[0]))
        return (rows + (self.copies - 1) * chunk) * self.row_bytes

    def read(self, start: int, stop: int) -> NDArray[Any]:
        array = of_this_process(self._array)
        if array is not self._array:
            self._array, self._chunks = array, Chunks(array, self.name)
        rows = None if self._direct is None else self._direct.read(start, stop)
        if rows is None:
            try:
                rows = np.asarray(array[start:stop])
            except Exception as error:
                self._chunks.name_spoilt(start, stop, error)
                raise
        if self._absence.checked:
            self._chunks.check_read(rows, start)
        return rows
