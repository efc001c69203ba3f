"""Outputs of rows in one file, which no two tasks could write at once.

Tasks write a Zarr array beside it.  When that is whole, one process makes the file of it, a slab at
a time, under a temporary name; the file gets its own in one go.
"""

import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.dataset import Dataset
from dgmm.data.patience import patience
from dgmm.data.urls import is_local, place, zarr_store
from dgmm.io.directories import abandon
from dgmm.io.targets import Beside, ZarrTarget
from dgmm.kernels.complete import NOTHING
from dgmm.kernels.outputs import RowOutputs

SLAB_BYTES: Final = 4 << 20
"""About how much of a file is written at once."""


class FileTarget(ZarrTarget):
    """One file."""

    @abstractmethod
    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        """Write a Zarr ``array`` (N, ...) of what is ``wanted`` to a new file at a local path."""

    def publish(
        self, partial: str, url: str, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        filesystem, path = place(url)
        array = zarr.open_array(zarr_store(partial), mode="r")
        name = "whole" + os.path.splitext(path)[1]
        if is_local(filesystem):
            published = f"{place(partial)[1]}/{name}"
            self.write(published, array, dataset, wanted, beside)
            os.replace(published, path)
        else:
            with tempfile.TemporaryDirectory() as directory:
                published = f"{directory}/{name}"
                self.write(published, array, dataset, wanted, beside)
                patience()(lambda: filesystem.put_file(published, path))
        abandon(partial, self.mark)


class NpyTarget(FileTarget):
    """A file of NumPy."""

    called = "NumPy file"

    def is_at(self, url: str) -> bool:
        filesystem, path = place(url)
        try:
            with filesystem.open(path, "rb") as file:
                np.lib.format.read_magic(file)
        except (OSError, ValueError):
            return False
        return True

    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        with open(path, "wb") as file:
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _, start, stop in slabs(array.shape[:1], array.dtype.itemsize * row_size(array)):
                file.write(np.ascontiguousarray(array[start:stop]).data)


def row_size(array: Any) -> int:
    """How many numbers of an ``array`` belong to a row."""
    return int(np.prod(array.shape[1:], dtype=int))


def slabs(shape: tuple[int, ...], cell: int) -> Iterator[tuple[tuple[Any, ...], int, int]]:
    """Parts of an array of cells of so many bytes, in order: where it is, and its cells from .. to.

    Each has some places along one axis, and all along those after it.
    """
    axis = len(shape) - 1
    inner = 1  # cells of one place along the axis
    while axis > 0 and shape[axis] * inner * cell <= SLAB_BYTES:
        inner *= shape[axis]
        axis -= 1
    step = max(1, SLAB_BYTES // max(1, inner * cell))
    along = range(0, shape[axis], step)
    start = 0
    for outer in product(*map(range, shape[:axis])):
        for first in along:
            last = min(shape[axis], first + step)
            stop = start + (last - first) * inner
            yield (*outer, slice(first, last)), start, stop
            start = stop


def stored_type(wanted: RowOutputs) -> np.dtype[Any]:
    """The type of outputs in a file of maps: the smallest for labels that others read, too."""
    dtype = np.dtype(wanted.output.dtype)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind != "i":
        return dtype
    return np.dtype(np.int16 if wanted.mixture.components < 2**15 else np.int32)


def no_value(dtype: np.dtype[Any]) -> float | int | None:
    """What stands for no value among outputs of a type, if something does."""
    return {"f": np.nan, "i": NOTHING}.get(dtype.kind)


def cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Outputs in the type that is stored."""
    return np.asarray(values).astype(dtype, copy=False)
