"""What may be given as rows, or beside them: the array inside of it, or why there is none.

What is lazy stays so.  What must be loaded whole is refused first, if there is no room for it.
"""

import math
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from dask.base import is_dask_collection
from numpy.typing import NDArray

from dgmm.data.amounts import Amount, check_room
from dgmm.data.axes import array_of
from dgmm.data.clients import check_synchronous
from dgmm.data.columns import check_numbers, once
from dgmm.data.kinds import is_dask_frame, type_names
from dgmm.data.source import is_real
from dgmm.data.table_source import usual
from dgmm.errors import BlockError, DataError, DgmmError
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    import dask.array as da
else:
    da = Late("dask.array")

layers = Late("dask.layers")

MASKED: Final = "fill what is masked (numpy.ma.filled), with NaN where it is missing"

CPU: Final = 1
"""What DLPack calls memory of the processor."""

REAL: Final = "biuf"
"""The kinds of dtypes that are real numbers."""


def unwrapped(data: Any, memory: Amount = None) -> Any:
    """What of ``data`` is to be opened: the array in a frame of Dask or xarray, or itself.

    Raises ``DataError`` for what holds no rows that can be read right, and ``PlanError`` for a
    frame that would be loaded but can't be: ``memory`` is what this process may take.
    """
    for name in type_names(data):
        if name in FORMS:
            return FORMS[name](data, memory)
    if isinstance(data, list | tuple):
        _refuse_members(data)
    if hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
        return _of_dlpack(data, memory)
    return data


def columns(data: Any) -> Any:
    """A frame that has the columns of ``data``, with rows or without; None if ``data`` is none.

    Raises ``DataError`` if two of its columns have one name.
    """
    frame = frame_of(data)
    if frame is not None:
        called = column_names(frame)
        once(f"the {type(data).__name__}", called, tuple(called))
    return frame


def frame_of(data: Any) -> Any:
    """The same, whatever its columns are called."""
    names = set(type_names(data))
    if "pyarrow.Table" in names:
        features = set(usual(data.schema))
        return data.select([i for i, name in enumerate(data.schema.names) if name in features])
    if names & {"pandas.DataFrame", "polars.DataFrame"}:
        return data
    return data._meta if is_dask_frame(data) else None


def column_names(frame: Any) -> list[Any]:
    """What the columns of a frame are called, such as ``columns`` gives."""
    return list(frame.column_names if "pyarrow.Table" in type_names(frame) else frame.columns)


def _of_dlpack(data: Any, memory: Amount) -> NDArray[Any]:
    """An array of a library that shares memory by DLPack; copied if it lies on a device."""
    name = f"a {type(data).__name__}"
    if data.__dlpack_device__()[0] != CPU:
        check_loadable(data, memory)
    try:
        return np.from_dlpack(data, device="cpu")
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} can't be read by DLPack: {error}; make a NumPy array of it first"
        ) from error


def _data_array(data: Any, memory: Amount) -> Any:
    """Of xarray: lazy over Dask, or in memory; what is in a file, in chunks of Dask."""
    return unwrapped(array_of(data), memory)


def _masked_array(data: Any, memory: Amount) -> Any:
    """Of NumPy: what is masked is missing, as NaN is.  Copied, if there is room for that."""
    if data.dtype.kind not in REAL + "O":
        return np.ma.getdata(data)  # refused as one without a mask is
    floating = _floating(data.dtype)
    check_room("the masked array, filled,", data.size * floating.itemsize, memory)
    return data.astype(floating).filled(np.nan)


def _floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that holds such numbers and NaN."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


def _dask_frame(data: Any, memory: Amount) -> "da.Array":
    """Of dask.dataframe: its partitions are counted first, which reads little of some files."""
    check_synchronous()
    data = _numeric(data)
    try:
        lengths = np.ravel(data.map_partitions(len, enforce_metadata=False).compute()).tolist()
        # By the identity, so that the columns of each are those declared, in that order.
        data = data.map_partitions(_same, meta=data._meta)
        array: da.Array
        if len(lengths) == data.npartitions:
            array = data.to_dask_array(lengths=tuple(lengths))
        else:  # partitions of which Dask makes fewer, as few columns of them are read
            array = data.to_dask_array().compute_chunk_sizes()
    except DgmmError:
        raise
    except Exception as error:  # in the graph that it came with
        raise BlockError(
            f"the rows of a Dask {type(data).__name__} could not be counted: "
            f"{type(error).__name__}: {error}"
        ) from error
    return array


def _numeric(frame: Any) -> Any:
    """The same with plain columns: pandas' own numbers become float64, as in scikit-learn."""
    if frame.ndim == 2:
        names, dtypes = list(frame.columns), list(frame.dtypes)
    else:
        names, dtypes = [frame.name], [frame.dtype]
    masks = all(dtype.kind == "b" for dtype in dtypes)  # which together are an array
    both = zip(map(str, names), dtypes, strict=True)
    kinds = {name: (dtype, is_real(dtype) or masks) for name, dtype in both}
    check_numbers(f"a Dask {type(frame).__name__}", kinds, list(kinds))
    plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
    return frame if plain else frame.astype("float64")


def _same(frame: Any) -> Any:
    return frame


def _refused(message: str) -> Callable[[Any, Amount], Any]:
    def refuse(data: Any, memory: Amount) -> Any:
        raise DataError(message)

    return refuse


FORMS: Final[dict[str, Callable[[Any, Amount], Any]]] = {
    "numpy.MaskedArray": _masked_array,
    "xarray.DataArray": _data_array,
    "xarray.Variable": _data_array,
    "xarray.Dataset": _refused("a Dataset of xarray holds rows, and nothing beside them"),
    "dask.FrameBase": _dask_frame,
    "dask_expr.FrameBase": _dask_frame,
    "polars.LazyFrame": _refused(
        "a LazyFrame of polars is a question, no rows: give collect() of it; or the file that it "
        "scans, which is read block by block"
    ),
    "dask.Delayed": _refused(
        "a Delayed is no array of rows: say what it will be, dask.array.from_delayed(delayed, "
        "shape=(rows, features), dtype=...)"
    ),
    "dask.Bag": _refused("a Dask Bag is no array of rows; try to_dataframe()"),
    "distributed.Future": _refused(
        "a Future is no array of rows: give future.result(), or say what it will be, "
        "dask.array.from_delayed(future, shape=(rows, features), dtype=...)"
    ),
    "concurrent.Future": _refused("a Future is no array of rows: give future.result()"),
    "zarr.AsyncArray": _refused("an AsyncArray is read asynchronously; give its zarr.Array"),
}
"""What is not as simple as an array."""

ARRAYS: Final = (_data_array, _dask_frame, _masked_array)
NEVER: Final = {name for name, open_ in FORMS.items() if open_ not in ARRAYS}
"""What can't be a row, either."""


def _refuse_members(rows: Any) -> None:
    """Raise ``DataError`` if a list holds what NumPy would not read right, such as masked rows."""
    for row in rows:
        if isinstance(row, str | PathLike) and Path(row).suffix:
            raise DataError(
                "a list of paths: files that are one table have one address, a directory or a "
                "pattern such as trips/*.parquet"
            )
        for each in (row, *row) if isinstance(row, list | tuple) else (row,):
            if isinstance(each, float | int | np.generic):
                continue
            if unfit := NEVER.intersection(type_names(each)):
                FORMS[unfit.pop()](each, None)
            if "numpy.MaskedArray" in type_names(each):
                raise DataError(f"a list of masked rows or numbers: give one array; {MASKED}")
            if is_dask_collection(each):
                raise DataError("a list of lazy arrays: give one, dask.array.stack(...)")


def check_loadable(data: Any, memory: Amount) -> None:
    """Raise ``PlanError`` if there is no room for what NumPy would make of ``data``."""
    if isinstance(data, np.ndarray) or set(type_names(data)) & {"pandas.Series", "pandas.Index"}:
        return  # in memory as it is
    if "pandas.DataFrame" in type_names(data) and len(set(data.dtypes)) < 2:
        return
    shape = getattr(data, "shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(n, int | np.integer) for n in shape):
        return
    itemsize = getattr(getattr(data, "dtype", None), "itemsize", 8)
    check_room(f"the {type(data).__name__}", math.prod(map(int, shape)) * itemsize, memory)


def declared(array: "da.Array", name: str) -> "da.Array":
    """The same ``array``, of chunks that raise ``DataError`` if they are not what it says of them.

    Where their sizes are unknown they are counted, in one pass, and must be so again.
    """
    if isinstance(array._meta, np.ma.MaskedArray) and array.dtype.kind in REAL:
        array = da.ma.filled(array.astype(_floating(array.dtype)), np.nan)
    if not isinstance(array._meta, np.ndarray):
        kind = type(array._meta)
        raise DataError(
            f"{name} has chunks of {kind.__module__}.{kind.__name__}, which are not supported; "
            "make NumPy arrays of them first, by map_blocks. Sparse rows are read from a matrix of "
            "SciPy, a file of scipy.sparse.save_npz or a Zarr group of compressed rows"
        )
    if array.ndim not in (1, 2, 3) or array.dtype.kind not in REAL:
        return array  # for the door to refuse, uncounted
    if any(math.isnan(size) for sizes in array.chunks for size in sizes):
        if array.ndim == 3:
            return array  # as much: rows are not, and covariances beside them have known sizes
        array = _counted(array, name)
    axes = tuple(range(array.ndim))
    # As map_blocks does it, but for what it tells of each chunk.
    checked: da.Array = da.blockwise(
        _checked,
        axes,
        *(array, axes),
        *(layers.ArrayBlockIdDep(array.chunks), axes),
        *(layers.ArraySliceDep(array.chunks), axes),
        of=name,
        declared=array.dtype,
        dtype=array.dtype,
        meta=np.empty((0,) * array.ndim, array.dtype),
        align_arrays=False,
    )
    return checked


def _counted(array: "da.Array", name: str) -> "da.Array":
    """A copy whose chunk sizes are known."""
    check_synchronous()
    counted: da.Array = array.copy()
    try:
        counted.compute_chunk_sizes()
    except DgmmError:
        raise
    except Exception as error:  # in the graph that it came with
        raise BlockError(
            f"the rows of {name} could not be counted: {type(error).__name__}: {error}"
        ) from error
    for stated, counts in zip(array.chunks, counted.chunks, strict=True):
        if stated != counts and not any(map(math.isnan, stated)):
            raise DataError(f"{name} has chunks of {counts} where {stated} are declared")
    return counted


def _checked(
    chunk: Any,
    place: tuple[int, ...],
    row_ranges: tuple[slice, ...],
    of: str,
    declared: np.dtype[Any],
) -> NDArray[Any]:
    """The chunk at ``place`` of an array as a plain one, if it is what was declared of it."""
    if isinstance(chunk, list | tuple):
        _refuse_members(chunk)
    if isinstance(chunk, np.ma.MaskedArray) and chunk.dtype.kind == "f":
        chunk = chunk.filled(np.nan)
    try:
        plain = np.asarray(chunk)
    except (TypeError, ValueError, RuntimeError):  # by which libraries refuse that
        plain = np.empty((), object)
    whole = tuple(row_range.stop - row_range.start for row_range in row_ranges)
    masked = isinstance(chunk, np.ma.MaskedArray)
    if plain.shape == whole and plain.dtype.kind in REAL and not masked:
        return plain
    kind = type(chunk)
    shape, dtype = getattr(chunk, "shape", plain.shape), getattr(chunk, "dtype", plain.dtype)
    axes = zip(("rows", "columns", "columns"), row_ranges, strict=False)
    where = ", ".join(f"{name} {row_range.start} to {row_range.stop}" for name, row_range in axes)
    raise DataError(
        f"chunk {tuple(map(int, place))} of {of} ({where}) is a {kind.__module__}.{kind.__name__} "
        f"of shape {shape} and dtype {dtype}, where a numpy.ndarray of shape {whole} and dtype "
        f"{declared} was declared" + f"; {MASKED}" * masked
    )
