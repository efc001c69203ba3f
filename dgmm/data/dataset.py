"""A dataset: rows, and what lies beside them, such as their weights, cut into blocks.

A source (``sources``) knows where an array lies and reads any of its rows; a dataset says which
rows belong together in a block.

Blocks depend on how the rows are stored and on nothing else: whole Zarr chunks (or shards) of
about ``BLOCK_BYTES`` together, whole Dask chunks, or as many rows of a plain array.  That is what
makes a result independent of the machines it was computed on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.amounts import Amount
from dgmm.data.axes import NamedAxes, has_axes, of_axes
from dgmm.data.constant import ConstantSource, is_number
from dgmm.data.forms import REAL
from dgmm.data.patience import Patience, patience
from dgmm.data.source import Source, even_divisions
from dgmm.data.sources import (
    ArraySource,
    DaskSource,
    MissingChunks,
    has_columns,
    named,
    open_source,
)
from dgmm.data.tables import named_column
from dgmm.data.transient import is_transient
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.kernels.sweep import BESIDE, Block
from dgmm.model.lazy import lazy

BLOCK_BYTES: Final = 8 << 20


NAMED: Final = 6
"""So many names of features are shown."""


@dataclass(frozen=True, repr=False)
class Dataset:
    """Rows (N, D) and what lies beside them, cut into blocks; ``open_dataset`` makes one.

    Parameters
    ----------
    source : Source
        Where the rows lie.
    weights : Source or None
        Where their weights lie; None if each row counts as one.
    divisions : array (B + 1,) of int
        The row numbers at which blocks start and end.
    patience : Patience
        How long a store that is away is asked again, here and on workers.
    noise : Source or None
        Where the variances (N, D) or covariances (N, D, D) of the rows' errors lie.
    labels : Source or None
        Where it lies what components rows may be of, (N,) or (N, K).
    axes : NamedAxes or None
        The axes that the rows of an array of xarray come from.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import open_dataset
    >>> dataset = open_dataset(np.zeros((1000, 3)))
    >>> dataset.rows, dataset.n_features, dataset.blocks
    (1000, 3, 1)
    """

    source: Source
    weights: Source | None
    divisions: NDArray[np.int64]
    patience: Patience = field(default_factory=patience)
    noise: Source | None = None
    labels: Source | None = None
    axes: NamedAxes | None = None

    def __repr__(self) -> str:
        shown = list(self.names or ())[:NAMED]
        more = ["..."] * (len(self.names or ()) > NAMED)
        named = f" ({', '.join([*shown, *more])})" * bool(shown)
        beside = "".join(f", with {name}" for name in self.beside)
        where = "" if self.source.where is None else f" where {self.source.where}"
        return (
            f"<Dataset: {self.rows:,} rows of {self.n_features} features{named}{beside}, in "
            f"{self.blocks:,} block{'s' * (self.blocks != 1)}; {self.source.name}{where}>"
        )

    @property
    def rows(self) -> int:
        """The number of rows, N."""
        return self.source.shape[0]

    @property
    def n_features(self) -> int:
        """The number of features, D."""
        return self.source.shape[1]

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the features are called, (D,), if they have names."""
        return self.source.names if self.axes is None else self.axes.names

    @property
    def blocks(self) -> int:
        """The number of blocks, B."""
        return len(self.divisions) - 1

    @lazy
    def block_rows(self) -> int:
        """The rows of the largest block."""
        return int(np.diff(self.divisions).max())

    @property
    def beside(self) -> dict[str, Source]:
        """What lies beside the rows, by its name of ``BESIDE``."""
        return {name: each for name in BESIDE if (each := getattr(self, name)) is not None}

    @property
    def layout(self) -> tuple[int, int, bool, int]:
        """N, D, whether there are weights, and how many numbers else lie beside a row."""
        others = [each for name, each in self.beside.items() if name != "weights"]
        numbers = sum(math.prod(each.shape[1:]) for each in others)
        return self.rows, self.n_features, self.weights is not None, numbers

    @property
    def _sources(self) -> list[Source]:
        return [self.source, *self.beside.values()]

    @property
    def row_bytes(self) -> int:
        """What is read for one row."""
        return sum(source.row_bytes for source in self._sources)

    @property
    def read_bytes(self) -> int:
        """The memory that reading the largest block takes."""
        return sum(source.nbytes(self.block_rows) for source in self._sources)

    @property
    def block_bytes(self) -> int:
        """The size of the largest block."""
        return self.block_rows * self.row_bytes

    @property
    def nbytes(self) -> int:
        """What a thread takes: the block that it computes on, while it reads the next one."""
        return self.read_bytes + min(self.read_bytes, self.block_bytes)

    @property
    def in_process(self) -> bool:
        """Whether only this process can read it."""
        return any(source.in_process for source in self._sources)

    @property
    def lazy(self) -> bool:
        """Whether blocks are computed through a Dask graph."""
        return any(isinstance(source, DaskSource) for source in self._sources)

    def __getstate__(self) -> dict[str, Any]:
        """Even cuts travel as a rule: there may be a million, and each sweep sends them.

        The axes that rows come from stay here.
        """
        rows, step = self.divisions[-1], self.divisions[1] - self.divisions[0]
        even = np.array_equal(self.divisions, even_divisions(rows, step)) if step else False
        cut = (int(rows), int(step)) if even else self.divisions
        return {**vars(self), "divisions": cut, "axes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        divisions = state["divisions"]
        if isinstance(divisions, tuple):
            divisions = even_divisions(*divisions)
        vars(self).update(state | {"divisions": divisions})

    def row_range(self, index: int) -> tuple[int, int]:
        """Which rows a block holds.

        Parameters
        ----------
        index : int
            The number of the block, from 0 to B - 1.

        Returns
        -------
        start, stop : int
            The number of the block's first row, and one past that of its last row.

        Raises
        ------
        IndexError
            If there is no such block.

        Examples
        --------
        >>> import dask.array as da
        >>> from dgmm import open_dataset
        >>> open_dataset(da.zeros((1000, 3), chunks=(400, 3))).row_range(2)
        (800, 1000)
        """
        return int(self.divisions[index]), int(self.divisions[index + 1])

    def rechunk(self, block_bytes: int) -> "Dataset":
        """The same rows in other blocks.

        Parameters
        ----------
        block_bytes : int
            About how large a block is to be, in bytes.  A block is at least one chunk of a Zarr
            array; the blocks of a Dask array are its chunks, whatever is asked.

        Returns
        -------
        Dataset
            The rows and what lies beside them, in these blocks.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from dgmm import open_dataset
        >>> with tempfile.TemporaryDirectory() as place:
        ...     np.save(f"{place}/rows.npy", np.zeros((1000, 3)))
        ...     dataset = open_dataset(f"{place}/rows.npy")
        >>> dataset.blocks, dataset.rechunk(6_000).blocks
        (1, 4)
        """
        return replace(_cut(self.source, self.beside, block_bytes), axes=self.axes)

    def block(self, index: int, pause: Callable[[float], Any] = time.sleep) -> Block:
        """Read a block.

        Parameters
        ----------
        index : int
            The number of the block, from 0 to B - 1.
        pause : callable, default=time.sleep
            Called with a number of seconds while the store is away: it waits so long, and gives
            True to wait no longer.

        Returns
        -------
        Block
            The number of the first row as ``start``, the ``rows`` (n, D), and what lies beside
            them: their ``weights`` (n,), or None.

        Raises
        ------
        DataError
            If chunks that were there have disappeared.
        OSError
            If the store stays away for longer than ``patience`` says.

        Examples
        --------
        >>> import dask.array as da
        >>> from dgmm import open_dataset
        >>> block = open_dataset(da.zeros((1000, 3), chunks=(400, 3))).block(2)
        >>> block.start, block.rows.shape
        (800, (200, 3))
        """
        return self.patience(partial(self._read, index), pause)

    def _read(self, index: int) -> Block:
        start, stop = self.row_range(index)
        beside = {name: each.read(start, stop) for name, each in self.beside.items()}
        return Block(start, self.source.read(start, stop), **beside)


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
    return opened(
        data,
        beside,
        missing_chunks=missing_chunks,
        raw=raw,
        columns=columns,
        where=where,
        features_dim=features_dim,
        block_bytes=block_bytes,
        memory=memory,
    )


def opened(
    data: Any,
    beside: Mapping[str, Any],
    *,
    missing_chunks: MissingChunks = "auto",
    raw: bool = False,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    features_dim: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory: Amount = None,
) -> Dataset:
    """The same, with what lies ``beside`` rows by names of ``BESIDE``, or None."""
    beside = {name: each for name, each in beside.items() if each is not None}
    if isinstance(data, Dataset):
        if beside:
            (first, *_) = beside
            raise UsageError(f"a Dataset brings its own {first}: give them to open_dataset")
        return data
    asked = partial(
        _opened,
        data,
        beside,
        missing_chunks,
        block_bytes,
        raw,
        memory,
        columns,
        features_dim,
        where,
    )
    try:
        return patience()(asked)
    except DgmmError:
        raise
    except Exception as error:  # each store has errors of its own
        if not is_transient(error):
            raise
        raise DataError(f"{named(data)} can't be reached: {error}") from error


def _opened(
    data: Any,
    beside: Mapping[str, Any],
    missing_chunks: MissingChunks,
    block_bytes: int,
    raw: bool,
    memory: Amount,
    columns: Sequence[str] | None,
    features_dim: str | None,
    where: str | None,
) -> Dataset:
    if has_axes(data):
        axes = of_axes(data, features_dim, columns)
        own = {
            name: each if is_number(each) else axes.beside(each) for name, each in beside.items()
        }
        opened = _opened(
            axes.rows,
            own,
            missing_chunks,
            block_bytes,
            raw,
            memory,
            columns=None,
            features_dim=None,
            where=where,
        )
        return replace(opened, axes=axes)
    if features_dim is not None:
        raise UsageError(
            f"features_dim={features_dim!r} is an axis of an array of xarray, and "
            f"{named(data)} is none"
        )
    source = open_source(data, missing_chunks, raw, memory, columns, where)
    _check_rows(source)
    patience()(source.check_whole)
    sources: dict[str, Source] = {}
    for name, each in beside.items():
        if name == "weights" and is_number(each):
            sources[name] = ConstantSource(float(each), source.shape[0])
            continue
        open_it = partial(
            open_source, each, missing_chunks, raw, memory, where=_where_of(name, each, source)
        )
        found = _by_name(open_it, source) if _of_features(name, each, source) else open_it()
        if found.sparse:
            raise DataError(f"{name} may not be sparse: give an array, {found.name} is none")
        SHAPES[name](found, source)
        _check_dtype(found, name)
        patience()(found.check_whole)
        sources[name] = found
    return _cut(source, sources, block_bytes)


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


def _by_name(open_it: Callable[..., Source], source: Source) -> Source:
    """Columns that are called as those of the rows; all, if they are called otherwise."""
    try:
        return open_it(columns=source.names)
    except DataError:
        return open_it()


def _cut(source: Source, beside: Mapping[str, Source], block_bytes: int) -> Dataset:
    """Rows and what lies beside them, in blocks of about so many bytes: only noise counts."""
    own = source.row_bytes
    whole = own + sum(each.row_bytes for name, each in beside.items() if name == "noise")
    divisions = source.divisions(block_bytes * own // whole)
    cut: dict[str, Any] = {
        name: each.rechunk(divisions) if isinstance(each, DaskSource) else each
        for name, each in beside.items()
    }
    return Dataset(source, cut.pop("weights", None), divisions, **cut)


IMAGE: Final = (
    ". The pixels of an image are its rows: array.reshape(-1, {}), or an xarray.DataArray with a "
    "name for each axis"
)


def _check_rows(source: Source) -> None:
    if len(source.shape) != 2:
        remedy = (
            "Reshape your data either using array.reshape(-1, 1) if it has a single feature or "
            "array.reshape(1, -1) if it is a single row"
        )
        held = isinstance(source, ArraySource)
        raise DataError(
            f"rows must be 2-D, (rows, features); {source.name} has shape {source.shape}"
            + (f". {remedy}" if held and len(source.shape) == 1 else "")
            + (IMAGE.format(source.shape[-1]) if len(source.shape) == 3 else "")
        )
    _check_dtype(source, "rows")
    if source.shape[0] == 0:
        raise DataError(
            f"{source.name} has no rows: 0 sample(s) (shape={source.shape}) while a minimum of 1 "
            "is required."
        )
    if source.shape[1] == 0:
        raise DataError(
            f"{source.name} has no columns: 0 feature(s) (shape={source.shape}) while a minimum of "
            "1 is required."
        )


def _check_weights(weights: Source, source: Source) -> None:
    if weights.shape != source.shape[:1]:
        raise DataError(
            f"weights must be one number a row, shape {source.shape[:1]}; "
            f"{weights.name} has shape {weights.shape}"
        )


def _check_noise(noise: Source, source: Source) -> None:
    rows, n_features = source.shape
    variances, covariances = (rows, n_features), (rows, n_features, n_features)
    if noise.shape not in (variances, covariances):
        raise DataError(
            f"noise must be the variances of each row's errors, shape {variances}, or their "
            f"covariances, shape {covariances}; {noise.name} has shape {noise.shape}"
        )


def _check_labels(labels: Source, source: Source) -> None:
    if labels.shape[:1] != source.shape[:1] or len(labels.shape) > 2 or 0 in labels.shape:
        raise DataError(
            f"labels must be one component a row, shape {source.shape[:1]}, or say which of K "
            f"components each row may be of, shape ({source.shape[0]}, K); {labels.name} has shape "
            f"{labels.shape}"
        )


SHAPES: Final[Mapping[str, Callable[[Source, Source], None]]] = {
    "weights": _check_weights,
    "noise": _check_noise,
    "labels": _check_labels,
}
"""By the names of ``BESIDE``: what raises ``DataError`` unless its shape fits that of the rows."""


def _check_dtype(source: Source, role: str) -> None:
    if source.dtype.kind == "c":
        raise DataError(f"Complex data not supported: {source.name} is {source.dtype}")
    if source.dtype.kind not in REAL:
        hint = "; make numbers of them, such as by astype('float64')" * (source.dtype.kind == "O")
        raise DataError(
            f"{role} must be real numbers; {source.name} has dtype {source.dtype}{hint}"
        )
