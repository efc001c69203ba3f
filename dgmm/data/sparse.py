"""Sparse rows: matrices of SciPy in memory or in its ``.npz`` files, and compressed rows in Zarr.

A Zarr group of compressed rows has the arrays ``data``, ``indices`` and ``indptr``, and the shape
as an attribute ``shape``, as AnnData writes them (``X`` of a ``.zarr`` of cells), or as an array.
Their blocks are read by address; those in memory stay as they are, by reference.
"""

import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dgmm.data.amounts import Amount, check_room
from dgmm.data.npz import named_array
from dgmm.data.source import Source
from dgmm.data.urls import exists, is_local, place
from dgmm.errors import DataError
from dgmm.kernels.sparse_rows import SparseRows, canonical

PARTS: Final = ("data", "indices", "indptr")

COPIES: Final = 6
"""Of a block: as it is read and sorted, scaled, squared, and turned for products."""


class _SparseSource(Source):
    """What all sparse rows share."""

    sparse = True
    copies = COPIES
    stored: int

    @property
    def row_bytes(self) -> int:
        """The mean size of a row: 16 bytes a number, and where it ends."""
        return 8 + -(-16 * self.stored // max(1, self.shape[0]))

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(1, block_bytes)


class SparseSource(_SparseSource):
    """A matrix of SciPy in this process's memory."""

    in_process = True

    def __init__(self, matrix: Any, name: str) -> None:
        self.name, self.shape, self.dtype = name, matrix.shape, matrix.dtype
        self._csr = canonical(scipy.sparse.csr_array(matrix))
        self.stored = int(self._csr.nnz)

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._shared_cuts(block_bytes)

    def read(self, start: int, stop: int) -> Any:
        return SparseRows(self._csr[start:stop])


class SparseGroupSource(_SparseSource):
    """Compressed rows in three arrays that are read by address."""

    def __init__(self, parts: Mapping[str, Source], shape: tuple[int, int], name: str) -> None:
        self.name, self.shape, self._parts = name, shape, dict(parts)
        self.dtype, self.stored = parts["data"].dtype, parts["data"].shape[0]
        if parts["indptr"].shape != (shape[0] + 1,) or parts["indices"].shape != (self.stored,):
            raise DataError(
                f"{name} is no group of compressed rows: indptr has {parts['indptr'].shape[0]} "
                f"numbers for {shape[0]} rows, indices {parts['indices'].shape[0]} for "
                f"{self.stored} values"
            )
        self.in_process = any(each.in_process for each in parts.values())

    def check_whole(self) -> None:
        for each in self._parts.values():
            each.check_whole()

    def read(self, start: int, stop: int) -> Any:
        indptr = self._parts["indptr"].read(start, stop + 1).astype(np.int64)
        low, high = int(indptr[0]), int(indptr[-1])
        whole = 0 <= low <= high <= self.stored and not (np.diff(indptr) < 0).any()
        indices = self._parts["indices"].read(low, high) if whole else np.empty(0, np.int64)
        if not whole or (len(indices) and not 0 <= indices.min() <= indices.max() < self.shape[1]):
            raise DataError(
                f"{self.name} is no group of compressed rows: of rows {start} to {stop}, indptr "
                "or indices point outside"
            )
        values = self._parts["data"].read(low, high)
        return SparseRows.of(values, indices, indptr - low, (stop - start, self.shape[1]))


def is_sparse(data: Any) -> bool:
    """Whether ``data`` is a matrix or array of SciPy."""
    return bool(scipy.sparse.issparse(data))


def open_sparse(data: Any, memory: Amount) -> Source:
    """The source of a matrix of SciPy; copied, if there is room for that, unless it is by rows."""
    if data.ndim != 2:
        raise DataError(f"rows must be 2-D, (rows, features); the sparse array has {data.shape}")
    name = f"the {type(data).__name__} in memory"
    if data.format != "csr" or not data.has_canonical_format:
        place_bytes = 8 if max(data.shape) > np.iinfo(np.int32).max else 4
        size = data.nnz * (data.dtype.itemsize + place_bytes)
        check_room(f"a copy of {name}, by rows and sorted,", size, memory)
    return SparseSource(data, name)


def open_sparse_npz(url: str, memory: Amount) -> Source | None:
    """What ``scipy.sparse.save_npz`` wrote, loaded if there is room for it; None if it is not."""
    named = named_array(url)
    if named is None or named[1] is not None or not exists(url):
        return None
    filesystem, path = place(url)
    if not is_local(filesystem):
        return None
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
        if "format.npy" not in sizes or "shape.npy" not in sizes:
            return None
        check_room(url, sum(sizes.values()), memory)
        return SparseSource(scipy.sparse.load_npz(path), url)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{url} can't be read as a sparse matrix of SciPy: {error}") from error


def shape_of(attributes: Mapping[str, Any], stored: NDArray[Any] | None) -> tuple[int, int] | None:
    """The shape that a group of compressed rows tells, by its ``attributes`` or what is ``stored``.

    None if it tells none, or that its columns are compressed.
    """
    if str(attributes.get("encoding-type", "csr_matrix")) != "csr_matrix":
        return None
    shape = attributes.get("shape") if stored is None else stored.tolist()
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        return None
    return int(shape[0]), int(shape[1])
