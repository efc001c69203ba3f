"""What source serves some data: an array in memory, a path or URL, a table, a Dask collection.

Arrays with an address (Zarr, ``.npy``) are read inside the task that computes on them, so no chunk
of data ever rests in a task graph or travels between processes.  Any other ``dask.array`` is
computed through its own graph.
"""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.data.amounts import Amount
from dgmm.data.array_sources import ArraySource, DaskSource, NpySource
from dgmm.data.columns import chosen, no_columns, once
from dgmm.data.forms import check_loadable, unwrapped
from dgmm.data.frames import Maker, maker_of, open_frame, plain_array
from dgmm.data.hdf import is_hdf, open_hdf
from dgmm.data.kinds import (
    has_axes,
    is_dask_array,
    is_dask_frame,
    is_zarr_array,
    is_zarr_group,
    type_names,
)
from dgmm.data.npz import is_npy, named_array, open_npz
from dgmm.data.raster import is_raster, open_raster
from dgmm.data.reading import USUAL, Reading
from dgmm.data.sliced import variable_maker
from dgmm.data.source import Source, is_long
from dgmm.data.sparse import is_sparse, open_sparse, open_sparse_npz
from dgmm.data.tables import is_table, is_table_or_column, open_table
from dgmm.data.urls import exists, is_local, place
from dgmm.errors import DataError, UsageError
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data import zarr_stores
else:
    zarr_stores = Late("dgmm.data.zarr_stores")


def open_source(data: Any, reading: Reading = USUAL) -> Source:
    """Find out what ``data`` is: a source of rows, or of what lies beside them."""
    if reading.where is not None and not is_table_or_column(data):
        raise UsageError(
            f"where={reading.where!r} is asked of {named(data)}, which is no table in files: "
            "filters are for Parquet, Arrow and CSV; of a frame or an array, give the rows that "
            "are meant"
        )
    if known := _of_kind(data, reading):
        return known
    match unwrapped(data, reading.memory):
        case str() | PathLike() as path:
            return _open_path(str(path), reading)
        case group if is_zarr_group(group):
            return zarr_stores.of_group(group, str(group.store_path), reading)
        case other if reading.columns is not None:
            raise no_columns(f"a {type(other).__name__}", reading.columns)
        case Source() as opened:
            return opened
        case array if is_dask_array(array):
            return DaskSource.of(array)
        case array if is_zarr_array(array):
            return zarr_stores.of_array(array, str(array.store_path), reading)
        case np.memmap() as array if source := NpySource.behind(array):
            return source
        case other:
            check_loadable(other, reading.memory)
            return ArraySource.of(other)


def _of_kind(data: Any, reading: Reading) -> Source | None:
    """The source of a table, a sparse matrix or a variable of an open file; else None."""
    names, columns = type_names(data), reading.columns
    if is_sparse(data):
        if columns is not None:
            raise no_columns(f"a {type(data).__name__}", columns)
        return open_sparse(data, reading.memory)
    if is_dask_frame(data):  # first: it has the protocols of frames in memory, too
        return _of_dask_frame(data, columns, reading.memory)
    if make := maker_of(data, names):
        return _of_frame(data, make, columns, reading.memory)
    variable = variable_maker(names)
    if variable is None:
        return None
    if columns is not None:
        raise no_columns(f"a {type(data).__name__}", columns)
    return variable(data, reading.raw)


def _of_frame(data: Any, make: Maker, columns: Sequence[str] | None, memory: Amount) -> Source:
    """Columns of a table in memory."""
    array = plain_array(data, type_names(data)) if columns is None else None
    if array is None:
        return open_frame(data, make, columns, memory)
    once(f"the {type(data).__name__}", list(data.columns), tuple(data.columns))
    source = ArraySource(array)
    named = all(isinstance(each, str) for each in data.columns)
    source.names = tuple(data.columns) if named else None
    return source


def _of_dask_frame(frame: Any, columns: Sequence[str] | None, memory: Amount) -> Source:
    """Columns of a frame of Dask."""
    called, all_names = "the Dask DataFrame", list(frame.columns)
    named = all(isinstance(each, str) for each in all_names)
    if columns is not None and not named:
        raise no_columns("a Dask DataFrame with numbered columns", columns)
    names = once(called, all_names, chosen(all_names, columns, called))
    if columns is not None:
        frame = frame[list(names)]
    source = DaskSource.of(unwrapped(frame, memory))
    source.names = tuple(frame.columns) if named else None
    source.long = tuple(j for j, kind in enumerate(frame.dtypes) if is_long(kind))
    return source


def named(data: Any) -> str:
    """What to call ``data`` that could not be opened."""
    return str(data) if isinstance(data, str | PathLike) else f"a {type(data).__name__}"


def is_opened_by_kind(data: Any) -> bool:
    """Whether ``data`` is a table in memory or a variable of a file, which are not loaded whole."""
    names = type_names(data)
    return maker_of(data, names) is not None or variable_maker(names) is not None


def has_columns(data: object) -> bool:
    """Whether columns of ``data`` are chosen by their names: an address, or a Dataset of xarray."""
    if is_zarr_group(data) or (has_axes(data) and hasattr(data, "data_vars")):
        return True
    if not isinstance(data, str | PathLike):
        return False
    path = str(data)
    if is_table(path) or is_hdf(path) or is_raster(path):
        return True
    if is_npy(path) or named_array(path):
        return False
    return zarr_stores.has_group(path)


def _open_path(path: str, reading: Reading) -> Source:
    columns, raw = reading.columns, reading.raw
    if table := open_table(path, columns, reading.where):
        return table
    if file := open_hdf(path, columns, raw) or open_raster(path, columns, raw):
        return file
    if named_array(path) is not None or is_npy(path):
        return _open_numpy(path, columns, reading.memory)
    return zarr_stores.open_zarr(path, reading)


def _open_numpy(path: str, columns: Sequence[str] | None, memory: Amount) -> Source:
    """The array of a ``.npy`` or ``.npz`` file."""
    if columns is not None and exists(path):
        raise no_columns(path, columns)
    if sparse := open_sparse_npz(path, memory):
        return sparse
    archive = open_npz(path, memory)
    if archive is not None:
        return ArraySource(archive) if isinstance(archive, np.ndarray) else archive
    filesystem, inner = place(path)
    if not exists(path):
        raise DataError(f"{path} does not exist")
    if not is_local(filesystem):
        raise UsageError(f"{path}: .npy files are read from local paths; remote data as Zarr")
    return NpySource(inner)
