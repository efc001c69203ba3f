"""How a dataset is opened: whatever holds the rows becomes sources, which are checked and cut."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

from dgmm.data.amounts import Amount
from dgmm.data.axes import of_axes
from dgmm.data.checks import CHECKS, check_dtype, check_rows
from dgmm.data.constant import ConstantSource, is_number
from dgmm.data.dataset import BLOCK_BYTES, Dataset, cut
from dgmm.data.forms import column_names, frame_of
from dgmm.data.kinds import has_axes
from dgmm.data.missing_chunks import MissingChunks
from dgmm.data.patience import patience
from dgmm.data.reading import USUAL, Reading
from dgmm.data.source import Source
from dgmm.data.sources import has_columns, named, open_source
from dgmm.data.tables import named_column
from dgmm.data.transient import is_transient
from dgmm.data.variables import FlatSource
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.model.lazy import loaded


def open_dataset(
    data: Any,
    sample_weight: Any = None,
    *,
    missing_chunks: MissingChunks = "auto",
    raw: bool = False,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    features_dim: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory: Amount = None,
    noise: Any = None,
    labels: Any = None,
) -> Dataset:
    """Open rows, and perhaps what lies beside them, for a fit.

    Parameters
    ----------
    data : array-like, dask.array.Array, zarr.Array, frame, path or URL, of shape (N, D)
        A path or URL ends in ``.npy`` or names a Zarr array: ``store.zarr``,
        ``store.zarr/group/array``, ``s3://bucket/store.zarr``.  Integers, float32 or float64.
        Or a table: ``.parquet`` or ``.csv`` (a file, a directory, or a pattern,
        ``trips/*.parquet``), ``.tsv``, ``.arrow`` or ``.feather``; nulls are NaN.  Or a dataset of
        a file, ``file.h5::/path`` or ``file.nc::name``, or of an archive, ``file.npz::name``.
        Or sparse rows: of SciPy in memory, a file of ``scipy.sparse.save_npz``, or a Zarr group of
        ``data``, ``indices``, ``indptr`` and a ``shape``.
        A frame of pandas, polars or Arrow in memory; of Dask, lazy.  A DataArray or Dataset of
        xarray.  A dataset or variable of h5py, netCDF4 or h5netcdf.
    sample_weight : the same, of shape (N,)
        Weights of the rows, not negative.  A column of a table by ``table.parquet::name``.
    missing_chunks : {"auto", "error", "late", "fill"}, default="auto"
        What a Zarr chunk that isn't stored means.  "auto": as "fill" where the array's fill value
        stands for no value (it is NaN, or the ``_FillValue``), for Zarr stores no chunk that holds
        nothing else; as "error" elsewhere.  "error": it was lost, and a list of all chunks is made
        now to see that none is.  "late": it was lost, which is found when the chunk is
        read; so a store of millions of chunks need not be listed.  "fill": it holds the fill value.
    raw : bool, default=False
        Whether to take numbers as they are stored, even if attributes (``scale_factor``,
        ``_FillValue`` and the like) say that they stand for other values; else those are read.
    columns : list of str, optional
        Which columns of a table are the features, in this order: names, patterns (``band_*``),
        ranges of neighbours (``red:nir``); after a ``!``, what to leave out.  By default all.  Or
        which variables of a Zarr group or an HDF5 or NetCDF file, all of one shape: rows go along
        their last axis first.
    where : str, optional
        Which rows of a table in files are taken, ``"tip > 0 and city == 'Oslo'"``: comparisons of
        columns, features or not, with numbers, texts and columns; ``in [...]``, ``is null``,
        ``and``, ``or``, ``not``.  A name with spaces stands in backticks.  What is missing meets no
        comparison.  These rows are counted now; columns of the same table beside them are of them.
    features_dim : str, optional
        Which axis of a DataArray of xarray holds the features; the others, however many, hold the
        rows.  By default the one called feature, band, variable or channel, or the last of two.
        The variables of a Dataset of xarray are features.
    block_bytes : int, default=8 MiB
        About how much of a plain or Zarr array makes a block.  The last digits of a result depend
        on it, as they do on the chunks.
    memory : str or int, optional
        How much memory this process may use for rows that must be loaded whole, as in
        ``GaussianMixture``.
    noise : the same, of shape (N, D) or (N, D, D)
        Known errors of the rows: their variances, or their covariances.  A value of infinite
        variance is missing.  Of a table, the columns that are called as those of the rows, if there
        are such.
    labels : the same, of shape (N,) or (N, K)
        What components rows may be of: the number of one, or -1 (or NaN) where that isn't known; or
        which of K components each may be of.

    Returns
    -------
    Dataset
        The rows, in blocks; nothing is read yet.

    Raises
    ------
    DataError
        If there is no array there, or its shape or dtype can't be rows of numbers; or no row meets
        the filter, or there is no column that it names.
    UsageError
        If ``missing_chunks`` is none of the four, ``columns`` are asked of what has none, or a
        filter of what is no table in files, or can't be read.
    PlanError
        If it would have to be loaded, and there is no room for it.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import open_dataset
    >>> dataset = open_dataset(np.zeros((1000, 3)))
    >>> dataset.rows, dataset.n_features
    (1000, 3)
    """
    beside = {"weights": sample_weight, "noise": noise, "labels": labels}
    reading = Reading(missing_chunks, raw, columns, where, features_dim, memory)
    return opened(data, beside, reading, block_bytes)


def opened(
    data: Any,
    beside: Mapping[str, Any],
    reading: Reading = USUAL,
    block_bytes: int = BLOCK_BYTES,
) -> Dataset:
    """The same, with what lies ``beside`` rows by names of ``BESIDE``, or None."""
    beside = {name: each for name, each in beside.items() if each is not None}
    if isinstance(data, Dataset):
        if beside:
            (first, *_) = beside
            raise UsageError(f"a Dataset brings its own {first}: give them to open_dataset")
        return data
    check_order(data, beside)
    try:
        return patience()(partial(_opened, data, beside, reading, block_bytes))
    except DgmmError:
        raise
    except Exception as error:  # each store has errors of its own
        if not is_transient(error):
            raise
        raise DataError(f"{named(data)} can't be reached: {error}") from error


def check_order(rows: Any, beside: Mapping[str, Any]) -> None:
    """Raise ``DataError`` if frames beside rows have their columns or index in another order.

    Both are taken by their places, as scikit-learn takes them, whatever they are called.
    """
    _check_columns(rows, beside.get("noise"))
    kind, of_rows = loaded("pandas", "Index"), getattr(rows, "index", None)
    if kind is None or not isinstance(of_rows, kind):
        return
    for name, data in beside.items():
        own = getattr(data, "index", None)
        if not isinstance(own, kind) or len(own) != len(of_rows) or own.equals(of_rows):
            continue
        if own.is_unique and of_rows.is_unique and own.isin(of_rows).all():
            raise DataError(
                f"the {name} have the index of the rows in another order: give them in that of the "
                "rows, .loc[rows.index]; or without an index, .to_numpy(), if they are in it"
            )


def _check_columns(rows: Any, noise: Any) -> None:
    """Raise ``DataError`` if a frame of noise has the columns of the rows in another order."""
    frames = [frame_of(each) for each in (rows, noise)]
    if any(each is None for each in frames):
        return
    names, noise_names = map(column_names, frames)
    if names != noise_names and Counter(names) == Counter(noise_names):
        raise DataError(
            f"the columns of the noise are {', '.join(map(str, noise_names))}, those of the rows "
            f"{', '.join(map(str, names))}: give them in the same order"
        )


def _opened(data: Any, beside: Mapping[str, Any], reading: Reading, block_bytes: int) -> Dataset:
    if has_axes(data):
        return _of_xarray(data, beside, reading, block_bytes)
    if reading.features_dim is not None:
        raise UsageError(
            f"features_dim={reading.features_dim!r} is an axis of an array of xarray, and "
            f"{named(data)} is none"
        )
    source = open_source(data, reading)
    check_rows(source)
    patience()(source.check_whole)
    sources = {name: _beside(name, each, source, reading) for name, each in beside.items()}
    return cut(source, sources, block_bytes)


def _of_xarray(data: Any, beside: Mapping[str, Any], reading: Reading, block_bytes: int) -> Dataset:
    """The rows of an array of xarray, which remember the axes that they come from."""
    axes = of_axes(data, reading.features_dim, reading.columns, reading.memory)
    of_rows = {
        name: each if is_number(each) else axes.beside(each) for name, each in beside.items()
    }
    plain = replace(reading, columns=None, features_dim=None)
    opened = _opened(axes.rows, of_rows, plain, block_bytes)
    opened.source.long = axes.long
    return replace(opened, axes=axes)


def _beside(name: str, data: Any, source: Source, reading: Reading) -> Source:
    """What lies beside the rows of ``source``, checked."""
    if name == "weights" and is_number(data):
        return ConstantSource(float(data), source.shape[0])
    opened = _open_beside(name, data, source, reading)
    if source.grid is not None and len(source.grid.shape) > 1 and opened.shape == source.grid.shape:
        opened = FlatSource(opened)  # a value a row, on the same axes
    if opened.sparse:
        raise DataError(f"{name} may not be sparse: give an array, {opened.name} is none")
    CHECKS[name](opened, source)
    check_dtype(opened, name)
    patience()(opened.check_whole)
    return opened


def _open_beside(name: str, data: Any, source: Source, reading: Reading) -> Source:
    """The same, not checked."""
    reading = replace(reading, columns=None, where=_where_of(name, data, source))
    try:
        if _of_features(name, data, source):
            return _by_name(data, source, reading)
        return open_source(data, reading)
    except DataError as error:
        named_alone = isinstance(data, str) and data.isidentifier()
        if not (named_alone and "does not exist" in str(error)):
            raise
        raise DataError(
            f"{name}: {error}. A column of a frame is given by itself, frame[{data!r}], and "
            f"one of a table in files as table.parquet::{data}"
        ) from error


def _where_of(name: str, data: Any, source: Source) -> str | None:
    """The filter of what lies beside rows: that of the rows, as it is of the same table.

    What is in memory has as many rows as meet it, or is refused by its shape.
    """
    if source.where is None or not isinstance(data, str | PathLike):
        return None
    if named_column(str(data))[0] == source.name:
        return source.where
    raise UsageError(
        f"{name} {data}: rows of {source.name} are taken by a filter, {source.where}, and these "
        f"are not of that table: give a column of it, {source.name}::name, or write the rows that "
        "are meant to files of their own"
    )


def _of_features(name: str, data: Any, source: Source) -> bool:
    """Whether what lies beside rows may have a column for each of their features, by its name."""
    return name == "noise" and source.names is not None and has_columns(data)


def _by_name(data: Any, source: Source, reading: Reading) -> Source:
    """Columns that are called as those of the rows; all, if none is called so."""
    try:
        return open_source(data, replace(reading, columns=source.names))
    except DataError as error:
        opened = open_source(data, reading)
        if set(opened.names or ()).isdisjoint(source.names or ()):
            return opened
        raise DataError(
            f"noise: {error}. Call its columns as those of the rows, or all of them otherwise: "
            "then they are taken in their order"
        ) from error
