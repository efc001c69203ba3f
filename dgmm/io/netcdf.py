"""Outputs of rows as variables of a NetCDF file, on the axes of the rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dgmm.data.dataset import Dataset
from dgmm.io.axes import (
    Axes,
    StoredVariable,
    axes_of_rows,
    meanings,
    opened,
    variables_of,
    whole_name,
)
from dgmm.io.files import FileTarget, cast, no_value, row_size, slabs, stored_type
from dgmm.io.targets import MARK, Beside
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.extras import require
from dgmm.model.lazy import Late

h5netcdf, h5py = Late("h5netcdf"), Late("h5py")


class NetCdfTarget(FileTarget):
    """A NetCDF-4 file."""

    called = "NetCDF file"

    def check(self, url: str, dataset: Dataset) -> None:
        super().check(url, dataset)
        require("hdf5", f"{url}: writing NetCDF", "h5netcdf")

    def is_at(self, url: str) -> bool:
        try:
            with opened(url) as file:
                return MARK in file.attrs
        except (OSError, ValueError):
            return False

    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        with (
            _kept(path) as written,
            axes_of_rows(dataset) as axes,
            h5netcdf.File(written, "w") as file,
        ):
            file.attrs.update({**axes.of_file, MARK: wanted.output.name})
            for dim, size in axes.sizes.items():
                file.dimensions[dim] = size
            for name, variable in axes.variables.items():
                _copy(variable, file, name)
            _put(file, array, axes, wanted, variables_of(wanted, beside.names), written.check)


class _Kept:
    """A new file, whose first error is kept, and told when HDF5 has let go of it.

    Where HDF5 can't write, as to a full disk, it can't close a file either, and crashes.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of it, unless something could not be written."""
        left = memoryview(content).cast("B")
        try:
            while len(left) and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(content)

    def truncate(self, size: int | None = None) -> None:
        """As a file does."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _kept(path: str) -> Iterator[_Kept]:
    """A new file at ``path``, while inside; raises what it could not do."""
    with open(path, "w+b", buffering=0) as file:
        written = _Kept(file)
        try:
            yield written
        finally:
            written.check()


def _copy(variable: StoredVariable, file: Any, name: str) -> None:
    """Copy a variable, a slab at a time, with what is said of it."""
    for dim, size in zip(variable.dimensions, variable.shape, strict=True):
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    dtype, fill = _stored(variable.dtype), variable.attrs.get("_FillValue")
    copy = file.create_variable(name, variable.dimensions, dtype, fillvalue=fill)
    for attribute, value in variable.attrs.items():
        if attribute != "_FillValue":
            copy.attrs[attribute] = value
    if not variable.shape:
        copy[...] = _cast(variable[...], dtype)
        return
    for where, _, _ in slabs(variable.shape, np.dtype(dtype).itemsize):
        copy[where] = _cast(variable[where], dtype)


def _stored(dtype: Any) -> Any:
    """The type that NetCDF has for one of an array."""
    kind = np.dtype(dtype).kind
    if kind in "UT" or (kind == "O" and h5py.check_string_dtype(np.dtype(dtype)) is None):
        return h5py.string_dtype()
    return np.dtype(np.int8) if kind == "b" else dtype  # NetCDF has no yes and no


def _cast(values: Any, dtype: Any) -> Any:
    kind = np.asarray(values).dtype.kind
    if kind in "UT":
        return np.asarray(values, dtype=object)
    return np.asarray(values, dtype=dtype) if kind == "b" else values


def _put(
    file: Any,
    array: Any,
    axes: Axes,
    wanted: RowOutputs,
    names: tuple[str, ...],
    check: Callable[[], None],
) -> None:
    """Write outputs (N, ...): a variable for each of ``names``, or one of more axes.

    ``check`` raises what could not be written.
    """
    dtype = stored_type(wanted)
    dims, shape = tuple(axes.sizes), tuple(axes.sizes.values())
    tail: tuple[int, ...] = () if names else array.shape[1:]
    for called, size in zip(wanted.output.axes, tail, strict=False):
        while called in file.dimensions:
            called += "_"
        file.dimensions[called] = size
        dims += (called,)
    cell = dtype.itemsize * row_size(array)
    parts = list(slabs(shape, cell))
    first = parts[0][0]
    chunks = (*(1 for _ in first[:-1]), first[-1].stop - first[-1].start, *shape[len(first) :])
    variables = [
        file.create_variable(
            name,
            dims,
            dtype,
            fillvalue=no_value(dtype),
            chunks=(*chunks, *tail),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        for name in names or (whole_name(wanted),)
    ]
    for each in variables:
        each.attrs.update({**meanings(wanted, dtype), **axes.said})
    for where, start, stop in parts:
        check()
        rows = cast(array[start:stop], dtype).reshape(stop - start, -1)
        inner = (-1, *shape[len(where) :])
        if not names:
            variables[0][where] = rows.reshape(*inner, *tail)
            continue
        for j, each in enumerate(variables):
            each[where] = rows[:, j].reshape(inner)
