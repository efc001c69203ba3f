"""A dataset: rows, and perhaps their weights, cut into blocks.

A source knows where an array lies and reads any of its rows; a dataset says which rows belong
together in a block.  Arrays with an address (Zarr, ``.npy``) are read inside the task that
computes on them, so no chunk of data ever rests in a task graph or travels between processes.
Any other ``dask.array`` is computed through its own graph.

Blocks depend on how the rows are stored and on nothing else: whole Zarr chunks (or shards) of
about ``BLOCK_BYTES`` together, whole Dask chunks, or as many rows of a plain array.  That is what
makes a result independent of the machines it was computed on.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import Any, Final
from zipfile import BadZipFile

import dask.array as da
import numpy as np
import zarr
from dask.base import optimize
from dask.local import get_sync
from dask.optimization import cull
from numpy.typing import NDArray

from dgmm.data.amounts import Amount
from dgmm.data.direct import Direct
from dgmm.data.forms import REAL, check_loadable, declared, unwrapped
from dgmm.data.patience import Patience, patience
from dgmm.data.stored import Chunks, check_decoded, of_this_process
from dgmm.data.transient import is_transient
from dgmm.data.urls import exists, is_local, place, protocols, zarr_store
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.kernels.sweep import Block
from dgmm.model.lazy import lazy

BLOCK_BYTES: Final = 8 << 20

SHARED: Final = 64
LEAST_BYTES: Final = 1 << 20
"""An array in memory is so many blocks, where they are no smaller than that, or more."""


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
    copies : int
        How many buffers of a block's size a read takes, the result included.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_process: bool = False
    copies: int = 1

    @abstractmethod
    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        """Row numbers at which to cut the rows into blocks, from 0 to the number of rows."""

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""

    def check_whole(self) -> None:  # noqa: B027
        """Raise ``DataError`` if a part of it isn't there, as far as that can be told."""

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def nbytes(self, rows: int) -> int:
        """The memory that reading so many rows takes."""
        return self.copies * rows * self.row_bytes

    def _even_cuts(self, unit: int, block_bytes: int) -> NDArray[np.int64]:
        """Cuts at multiples of ``unit`` rows, into blocks of about ``block_bytes``."""
        return _even(self.shape[0], unit * max(1, block_bytes // max(1, unit * self.row_bytes)))


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
        # Cutting costs nothing here: so there is work for many threads, whatever their number.
        share = self.shape[0] * self.row_bytes // SHARED
        return self._even_cuts(1, min(block_bytes, max(share, LEAST_BYTES)))

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
        return mapped

    def read(self, start: int, stop: int) -> NDArray[Any]:
        # Mapped afresh each time: pages of a map that stays would count as memory in use.
        return np.array(self._map()[start:stop])


class ZarrSource(Source):
    """A Zarr array, of either format, sharded or not, on any store."""

    copies = 3  # the result, the compressed chunk and the decompressed one

    def __init__(self, array: "zarr.Array[Any]", name: str, missing_chunks: str, raw: bool) -> None:
        array = of_this_process(array)
        if not raw:
            check_decoded(array, name)
        self.name, self._array = name, array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self._strict, self._listed = missing_chunks != "fill", missing_chunks == "error"
        self._chunks, self._direct = Chunks(array, name), Direct.of(array)
        store = array.store
        self.in_process = isinstance(store, zarr.storage.MemoryStore) or (
            isinstance(store, zarr.storage.FsspecStore) and "memory" in protocols(store.fs)
        )

    def check_whole(self) -> None:
        if self._listed:
            self._chunks.check_all()

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(self._chunks.unit[0], block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        array = of_this_process(self._array)
        if array is not self._array:
            self._array, self._chunks = array, Chunks(array, self.name)
        rows = None if self._direct is None else self._direct.read(start, stop)
        if rows is None:
            rows = np.asarray(array[start:stop])
        if self._strict:
            self._chunks.check_read(rows, start)
        return rows


class DaskSource(Source):
    """A ``dask.array`` of any making, a chunk of rows a block.

    ``array`` has its columns together, and chunks that are what they say (``declared``).
    """

    copies = 3  # the result, and what its graph needs on the way: a guess

    def __init__(self, array: da.Array, name: str) -> None:
        if array.ndim == 2 and array.numblocks[1] > 1:
            array = array.rechunk({1: -1})
        self.name = name
        self.shape, self.dtype = array.shape, array.dtype
        self.array = array

    @classmethod
    def of(cls, array: da.Array) -> "DaskSource":
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
        return DaskSource(self.array.rechunk({0: tuple(np.diff(divisions).tolist())}), self.name)


def open_source(
    data: Any, missing_chunks: str = "error", raw: bool = False, memory: Amount = None
) -> Source:
    """Find out what ``data`` is: a source of rows or weights.

    The parameters are those of ``open_dataset``.
    """
    match unwrapped(data, memory):
        case Source() as opened:
            return opened
        case str() | PathLike() as path:
            return _open_path(str(path), missing_chunks, raw)
        case da.Array() as array:
            return DaskSource.of(array)
        case zarr.Array() as array:
            return ZarrSource(array, str(array.store_path), missing_chunks, raw)
        case zarr.Group() as group:
            raise DataError(_name_an_array(group, str(group.store_path)))
        case np.memmap() as array if source := NpySource.behind(array):
            return source
        case other:
            check_loadable(other, memory)
            return ArraySource.of(other)


def _open_path(path: str, missing_chunks: str, raw: bool) -> Source:
    filesystem, inner = place(path)
    local = is_local(filesystem)
    if path.endswith(".npy"):
        if not exists(path):
            raise DataError(f"{path} does not exist")
        if not local:
            raise UsageError(f"{path}: .npy files are read from local paths; remote data as Zarr")
        return NpySource(inner)
    try:  # before asking whether it exists: not every store can tell that of a directory
        found = patience()(lambda: zarr.open(zarr_store(path), mode="r"))
    except FileNotFoundError as error:
        if not exists(path):
            raise DataError(f"{path} does not exist") from error
        raise DataError(
            f"{path} is neither a Zarr array or group nor a .npy file; other formats can be made "
            "one, such as by dask.dataframe: read_parquet(...).to_dask_array(lengths=True)"
            ".to_zarr(...)"
        ) from error
    except Exception as error:  # each file system has errors of its own
        spoilt = local or isinstance(error, ValueError | KeyError | TypeError)
        what = "opened as Zarr" if spoilt else "reached"
        raise DataError(f"{path} can't be {what}: {error}") from error
    if isinstance(found, zarr.Group):
        raise DataError(_name_an_array(found, path))
    return ZarrSource(found, path, missing_chunks, raw)


def _name_an_array(group: "zarr.Group", path: str) -> str:
    arrays = sorted(
        name for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)
    )
    if not arrays:
        return f"{path} is a Zarr group without arrays, or in a store that does not list them"
    listed = ", ".join(f"{path.rstrip('/')}/{name}" for name in arrays[:10])
    return f"{path} is a Zarr group; name one of its {len(arrays)} arrays: {listed}"


def _even(rows: int, step: int) -> NDArray[np.int64]:
    """Cuts at multiples of ``step``."""
    return np.append(np.arange(0, rows, step), rows)


@dataclass(frozen=True)
class Dataset:
    """Rows (N, D) and perhaps weights (N,), cut into blocks.

    ``divisions`` are the row numbers at which blocks start and end, (B + 1,); ``patience`` is how
    long a store that is away is asked again, here as on workers.
    """

    source: Source
    weights: Source | None
    divisions: NDArray[np.int64]
    patience: Patience = field(default_factory=patience)

    @property
    def rows(self) -> int:
        """N."""
        return self.source.shape[0]

    @property
    def n_features(self) -> int:
        """D."""
        return self.source.shape[1]

    @property
    def blocks(self) -> int:
        """B."""
        return len(self.divisions) - 1

    @lazy
    def block_rows(self) -> int:
        """The rows of the largest block."""
        return int(np.diff(self.divisions).max())

    @property
    def _sources(self) -> list[Source]:
        return [self.source] if self.weights is None else [self.source, self.weights]

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
        """Even cuts travel as a rule: there may be a million, and each sweep sends them."""
        rows, step = self.divisions[-1], self.divisions[1] - self.divisions[0]
        even = np.array_equal(self.divisions, _even(rows, step)) if step else False
        return {**vars(self), "divisions": (int(rows), int(step)) if even else self.divisions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        divisions = state["divisions"]
        vars(self).update(
            state | {"divisions": _even(*divisions) if isinstance(divisions, tuple) else divisions}
        )

    def row_range(self, index: int) -> tuple[int, int]:
        """The rows of block ``index``: the first one's number, and one past the last one's."""
        return int(self.divisions[index]), int(self.divisions[index + 1])

    def rechunk(self, block_bytes: int) -> "Dataset":
        """The same rows in blocks of about ``block_bytes``, as far as storage allows."""
        divisions = self.source.divisions(block_bytes)
        weights = self.weights
        return Dataset(
            self.source,
            weights.rechunk(divisions) if isinstance(weights, DaskSource) else weights,
            divisions,
        )

    def block(self, index: int, pause: Callable[[float], Any] = time.sleep) -> Block:
        """Read block ``index``, as soon as its store answers; ``pause`` as ``Patience`` has it."""
        return self.patience(partial(self._read, index), pause)

    def _read(self, index: int) -> Block:
        start, stop = self.row_range(index)
        weights = None if self.weights is None else self.weights.read(start, stop)
        return Block(start, self.source.read(start, stop), weights)


def open_dataset(
    data: Any,
    sample_weight: Any = None,
    *,
    missing_chunks: str = "error",
    raw: bool = False,
    block_bytes: int = BLOCK_BYTES,
    memory: Amount = None,
) -> Dataset:
    """Open rows, and perhaps their weights, for a fit.

    Parameters
    ----------
    data : array-like, dask.array.Array, zarr.Array, path or URL, of shape (N, D)
        A path or URL ends in ``.npy`` or names a Zarr array: ``store.zarr``,
        ``store.zarr/group/array``, ``s3://bucket/store.zarr``.  Integers, float32 or float64.
        Of a DataArray of xarray, and of a DataFrame of Dask, the Dask array inside.
    sample_weight : the same, of shape (N,)
        Weights of the rows, not negative.
    missing_chunks : {"error", "late", "fill"}
        What a Zarr chunk that isn't stored means: an accident, told at once by listing the chunks;
        one that is told when it is read, which spares the list of a store of millions; or the fill
        value.
    raw : bool
        Whether to take a Zarr array's numbers as they are where its attributes (``scale_factor``,
        ``_FillValue`` and the like) say that they stand for other values; else that is refused.
    block_bytes : int
        About how much of a plain or Zarr array makes a block.  The last digits of a result depend
        on it, as they do on the chunks.
    memory : str or int, optional
        What this process may take for what can only be loaded whole, as in ``GaussianMixture``.

    Returns
    -------
    Dataset
        The rows, in blocks; nothing is read yet.

    Raises
    ------
    DataError
        If there is no array there, or its shape or dtype can't be rows of numbers.
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
    if isinstance(data, Dataset):
        if sample_weight is not None:
            raise UsageError("a Dataset brings its own weights: give them to open_dataset")
        return data
    asked = partial(_open_dataset, data, sample_weight, missing_chunks, block_bytes, raw, memory)
    try:
        return patience()(asked)
    except DgmmError:
        raise
    except Exception as error:  # each store has errors of its own
        if not is_transient(error):
            raise
        raise DataError(f"{_named(data)} can't be reached: {error}") from error


def _named(data: Any) -> str:
    """What to call ``data`` that could not be opened."""
    return str(data) if isinstance(data, str | PathLike) else f"a {type(data).__name__}"


def _open_dataset(
    data: Any, sample_weight: Any, missing_chunks: str, block_bytes: int, raw: bool, memory: Amount
) -> Dataset:
    source = open_source(data, missing_chunks, raw, memory)
    _check_rows(source)
    patience()(source.check_whole)
    divisions = source.divisions(block_bytes)
    weights = (
        None if sample_weight is None else open_source(sample_weight, missing_chunks, raw, memory)
    )
    if weights is not None:
        _check_weights(weights, source)
        patience()(weights.check_whole)
    if isinstance(weights, DaskSource):
        weights = weights.rechunk(divisions)
    return Dataset(source, weights, divisions)


def _check_rows(source: Source) -> None:
    if len(source.shape) != 2:
        remedy = (
            "Reshape your data either using array.reshape(-1, 1) if it has a single feature or "
            "array.reshape(1, -1) if it is a single row"
        )
        vector = isinstance(source, ArraySource) and len(source.shape) == 1
        raise DataError(
            f"rows must be 2-D, (rows, features); {source.name} has shape {source.shape}"
            + (f". {remedy}" if vector else "")
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
    _check_dtype(weights, "weights")


def _check_dtype(source: Source, what: str) -> None:
    if source.dtype.kind == "c":
        raise DataError(f"Complex data not supported: {source.name} is {source.dtype}")
    if source.dtype.kind not in REAL:
        hint = "; make numbers of them, such as by astype('float64')" * (source.dtype.kind == "O")
        raise DataError(
            f"{what} must be real numbers; {source.name} has dtype {source.dtype}{hint}"
        )
