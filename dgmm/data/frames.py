"""Tables in this process's memory: frames of pandas and polars, and tables of Arrow.

The columns of a block are brought together when it is read: there is no second copy of all rows.
Numbers are as in tables of files: columns of float32 alone stay so, all others are float64, in
which a null is NaN.

Tables of other libraries come by the Arrow stream (``__arrow_c_stream__``), batch by batch while
there is room, or by the dataframe interchange protocol (``__dataframe__``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data import source, table_source
from dgmm.data.amounts import Amount, check_room
from dgmm.data.columns import check_numbers, chosen, once
from dgmm.data.source import Source
from dgmm.data.table_source import check_installed, is_number, numbers, usual
from dgmm.errors import DataError, UsageError
from dgmm.model.lazy import Late

pyarrow, interchange = Late("pyarrow"), Late("pyarrow.interchange")


class Table(ABC):
    """A table in memory.

    Attributes
    ----------
    rows : int
    columns : list
        What its columns are called, texts or not.
    kinds : list
        The types of the columns.
    usual : list, or None
        Which are features where nobody says which, if not all.
    """

    rows: int
    columns: list[Any]
    kinds: list[Any]
    usual: list[Any] | None = None

    @abstractmethod
    def number(self, kind: Any) -> bool:
        """Whether a type is of real numbers."""

    @abstractmethod
    def boolean(self, kind: Any) -> bool:
        """Whether a type is of booleans."""

    @abstractmethod
    def single(self, kind: Any) -> bool:
        """Whether a type is of floats of 4 bytes or less."""

    @abstractmethod
    def long(self, kind: Any) -> bool:
        """Whether a type is of integers of 8 bytes or more."""

    @abstractmethod
    def take(
        self, places: Sequence[int], start: int, stop: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Columns, by their places, of rows ``start`` to ``stop``, (n, D), of a ``dtype``."""


class PandasTable(Table):
    """A frame of pandas."""

    def __init__(self, frame: Any) -> None:
        self._frame, self.rows = frame, len(frame)
        self.columns, self.kinds = list(frame.columns), list(frame.dtypes)

    def number(self, kind: Any) -> bool:
        return source.is_real(kind)

    def boolean(self, kind: Any) -> bool:
        return bool(kind.kind == "b")

    def single(self, kind: Any) -> bool:
        return kind.kind == "f" and (getattr(kind, "itemsize", None) or 8) <= 4

    def long(self, kind: Any) -> bool:
        return source.is_long(kind)

    def take(
        self, places: Sequence[int], start: int, stop: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        part = self._frame.iloc[start:stop, list(places)]
        missing = {"na_value": np.nan} if dtype.kind == "f" else {}
        return np.asarray(part.to_numpy(dtype=dtype, **missing))


class PolarsTable(Table):
    """A frame of polars."""

    def __init__(self, frame: Any) -> None:
        self._frame, self.rows = frame, frame.height
        self.columns, self.kinds = list(frame.columns), list(frame.dtypes)

    def number(self, kind: Any) -> bool:
        return bool(kind.is_numeric())

    def boolean(self, kind: Any) -> bool:
        return str(kind) == "Boolean"

    def single(self, kind: Any) -> bool:
        return str(kind) in ("Float16", "Float32")

    def long(self, kind: Any) -> bool:
        return str(kind) in ("Int64", "UInt64", "Int128")

    def take(
        self, places: Sequence[int], start: int, stop: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        part = self._frame[start:stop].select([self.columns[place] for place in places])
        return np.asarray(part.to_numpy(), dtype=dtype)


class ArrowTable(Table):
    """A table of Arrow."""

    def __init__(self, table: Any) -> None:
        self._table, self.rows = table, table.num_rows
        self.columns, self.kinds = list(table.schema.names), list(table.schema.types)
        self.usual = usual(table.schema)

    def number(self, kind: Any) -> bool:
        return is_number(kind)

    def boolean(self, kind: Any) -> bool:
        return bool(pyarrow.types.is_boolean(kind))

    def single(self, kind: Any) -> bool:
        return str(kind) in ("halffloat", "float")

    def long(self, kind: Any) -> bool:
        return table_source.is_long(kind)

    def take(
        self, places: Sequence[int], start: int, stop: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        part = self._table.slice(start, stop - start)
        rows = np.empty((part.num_rows, len(places)), dtype)
        for j, place in enumerate(places):
            rows[:, j] = numbers(part.column(place))
        return rows


class FrameSource(Source):
    """Columns of a table in this process's memory."""

    in_process = True
    copies = 2  # the rows, and what the table makes of them

    def __init__(self, name: str, table: Table, wanted: Sequence[str] | None) -> None:
        self.name = name
        named = all(isinstance(each, str) for each in table.columns)
        if wanted is not None and not named:
            raise UsageError(
                f"columns {list(wanted)} are asked of {name}, whose columns have no names"
            )
        names = once(name, table.columns, chosen(table.columns, wanted, name, table.usual))
        self._table, self._places = table, [table.columns.index(each) for each in names]
        kinds = [table.kinds[place] for place in self._places]
        masks = bool(kinds) and all(map(table.boolean, kinds))
        if not masks:  # which together are an array, such as labels may be
            parts_by_name = {
                str(each): (kind, table.number(kind))
                for each, kind in zip(table.columns, table.kinds, strict=True)
            }
            check_numbers(name, parts_by_name, list(map(str, names)))
        small = bool(kinds) and all(map(table.single, kinds))
        self.dtype = np.dtype("bool" if masks else "float32" if small else "float64")
        self.shape = (table.rows, len(names))
        self.names = tuple(names) if named else None
        self.long = tuple(j for j, kind in enumerate(kinds) if table.long(kind))

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._shared_cuts(block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._table.take(self._places, start, stop, self.dtype)


Maker = Callable[[Any, Amount], Table]


def maker_of(data: Any, names: Sequence[str]) -> Maker | None:
    """What makes a ``Table`` of ``data``, whose types are called ``names``; None if it is none."""
    for name in names:
        if name in TABLES:
            return TABLES[name]
    # A column by itself (a Series) has the stream, too; but that is an array, and no table.
    whole = hasattr(data, "__dataframe__")
    if hasattr(data, "__arrow_c_stream__") and (whole or not hasattr(data, "__array__")):
        return _of_stream
    return _of_interchange if whole else None


def plain_array(data: Any, names: Sequence[str]) -> NDArray[Any] | None:
    """The array that a frame of pandas already is, as its columns are numbers of one type.

    Columns that were put together one by one are several arrays, of which there would be a copy.
    """
    if "pandas.DataFrame" not in names:
        return None
    kinds = set(data.dtypes)
    plain = len(kinds) == 1 and all(isinstance(kind, np.dtype) for kind in kinds)
    if not plain or kinds.pop().kind not in "biuf":
        return None
    first_row, first_column = data.iloc[:1].to_numpy(), data.iloc[:, 0].to_numpy()
    one = len(data) == 0 or np.may_share_memory(first_row, first_column)
    return data.to_numpy() if one else None


def open_frame(data: Any, make: Maker, wanted: Sequence[str] | None, memory: Amount) -> FrameSource:
    """The columns ``wanted`` of the table that ``make`` makes of ``data``."""
    return FrameSource(f"the {type(data).__name__}", make(data, memory), wanted)


def _of_pandas(data: Any, memory: Amount) -> Table:
    return PandasTable(data)


def _of_polars(data: Any, memory: Amount) -> Table:
    return PolarsTable(data)


def _of_arrow(data: Any, memory: Amount) -> Table:
    return ArrowTable(data)


def _of_batch(data: Any, memory: Amount) -> Table:
    return ArrowTable(pyarrow.Table.from_batches([data]))


def _of_stream(data: Any, memory: Amount) -> Table:
    """By the Arrow stream, as long as there is room for what it gives."""
    name = f"a {type(data).__name__}"
    check_installed(name)
    batches = []
    try:
        reader = pyarrow.RecordBatchReader.from_stream(data)
        for batch in reader:
            check_room(name, batch.nbytes, memory)
            batches.append(batch)
        return ArrowTable(pyarrow.Table.from_batches(batches, reader.schema))
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{name} can't be read as a table of Arrow: {error}") from error


def _of_interchange(data: Any, memory: Amount) -> Table:
    """By the dataframe interchange protocol."""
    name = f"a {type(data).__name__}"
    check_installed(name)
    said = data.__dataframe__()
    check_room(name, 8 * (said.num_rows() or 0) * said.num_columns(), memory)
    try:
        return ArrowTable(interchange.from_dataframe(data))
    except (pyarrow.ArrowException, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{name} can't be read as a table: {error}") from error


TABLES: Final[dict[str, Maker]] = {
    "pandas.DataFrame": _of_pandas,
    "polars.DataFrame": _of_polars,
    "pyarrow.Table": _of_arrow,
    "pyarrow.RecordBatch": _of_batch,
}
"""By the names of their types."""
