"""A table in files: rows come a part at a time, what its format lets one read by itself.

A part is a row group of Parquet, a record batch of Arrow, or some lines of a text.  So blocks are
whole parts, as many as make one worth its overhead, and a task reads its own.  Of a part, a filter
leaves the rows that meet it; they are counted when it is opened.

**Numbers.**  Columns of float32 alone stay so; all others are read as float64, in which a null is
NaN.  What is no number (texts, categories, booleans, times) is refused by name.
"""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, ClassVar, Final, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import check_numbers, chosen, once
from dgmm.data.filters import Filter
from dgmm.data.memory import memory
from dgmm.data.source import Source
from dgmm.data.transient import is_transient
from dgmm.errors import DataError, DgmmError
from dgmm.model.extras import require
from dgmm.model.lazy import Late

pyarrow = Late("pyarrow")

COLUMNS_BYTES: Final = 8 << 20
"""How much of a part is decoded at once, in columns: so it takes little beside the rows."""

COUNTING: Final = 4
"""In how many files at once rows are counted that meet a filter."""


def check_installed(url: str) -> None:
    """Raise ``UsageError`` if the library that reads tables is not installed."""
    require("parquet", f"{url}: a table", "pyarrow")


@dataclass(frozen=True)
class Part:
    """Rows of a table that are read together.

    Attributes
    ----------
    path : str
        Of the file.
    index : int
        The number of the part in it.
    stored : int
        How many rows it has.
    rows : int
        How many of these are read: those that meet the filter, if there is one.
    """

    path: str
    index: int
    stored: int
    rows: int

    @classmethod
    def of(cls, path: str, index: int, rows: int) -> "Part":
        """A part of which all rows are read."""
        return cls(path, index, rows, rows)


class TableSource(Source):
    """Columns of a table in files.

    Attributes
    ----------
    names : tuple of str
        Of the columns, in the order they are read.
    """

    names: tuple[str, ...]
    doubt: ClassVar[str] = ""
    """What else there may be to it if a part has other rows than were counted."""

    @classmethod
    @abstractmethod
    def of(cls, url: str, wanted: Sequence[str] | None, vector: bool) -> "TableSource":
        """Open the columns ``wanted`` of what is at ``url``; as a vector, if it is one column."""

    def __init__(
        self, url: str, parts: Sequence[Part], schema: Any, names: tuple[str, ...], vector: bool
    ) -> None:
        self.name, self.names, self._all_names = url, names, tuple(schema.names)
        self._schema = schema
        self._opened = uuid4().hex
        self.dtype = np.dtype(_common(url, schema, names))
        kinds = [schema.field(name).type for name in names]
        self.long = tuple(j for j, kind in enumerate(kinds) if is_long(kind))
        self.shape = (0,) if vector else (0, len(names))
        self.paths = tuple(dict.fromkeys(part.path for part in parts))
        self._have(parts)

    def _have(self, parts: Sequence[Part]) -> None:
        """Be of these parts."""
        self._parts = tuple(part for part in parts if part.rows)
        self._starts = np.cumsum([0, *(part.rows for part in self._parts)], dtype=np.int64)
        self.shape = (int(self._starts[-1]), *self.shape[1:])

    _filter: Filter | None = None

    def filtered(self, where: str) -> Self:
        """The same of the rows that meet a filter, which are counted now."""
        result = copy(self)
        result.where, result._filter = where, Filter.of(where, self.name, self._schema)
        files = [list(parts) for _, parts in groupby(self._parts, attrgetter("path"))]
        with ThreadPoolExecutor(COUNTING) as pool:
            counted = list(pool.map(result._counted, files))
        result._have([part for parts in counted for part in parts])
        if not result.shape[0]:
            raise DataError(f"no row of {self.name} meets the filter {where!r}")
        return result

    def _counted(self, parts: Sequence[Part]) -> list[Part]:
        """The parts of a file, with the numbers of their rows that meet the filter."""
        counts = []
        try:
            for part in self._possible(parts):
                kept = self._kept(part)
                counts.append(part if kept is None else replace(part, rows=int(kept.sum())))
        finally:
            self._forget()  # what a thread has open that ends
        return counts

    def _possible(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Those parts of a file that may have rows that meet the filter."""
        return parts

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        # Whole parts, as many as stay within the bytes; but a part that is larger by itself.
        most = max(1, block_bytes // max(1, self.row_bytes))
        cuts = [0]
        for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True):
            if stop - cuts[-1] > most and start > cuts[-1]:
                cuts.append(int(start))
        return np.array([*cuts, self._starts[-1]] if self._starts[-1] else [0], dtype=np.int64)

    def nbytes(self, rows: int) -> int:
        # The rows; and of a part, some columns as they are stored, decoded, and with NaN for nulls.
        largest = self._most_stored() * self.row_bytes
        column = largest // max(1, len(self.names))
        whole = rows * self.row_bytes + 3 * max(column, min(largest, COLUMNS_BYTES))
        return whole + self._filter_nbytes()

    def _most_stored(self) -> int:
        """The rows of the largest part."""
        return max((part.stored for part in self._parts), default=0)

    def _filter_nbytes(self) -> int:
        """What the columns take that the filter asks for: twice, and which rows meet it."""
        width = 0 if self._filter is None else len(self._filter.names)
        return self._most_stored() * 2 * (8 * width + 1) * (width > 0)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        rows = memory.array((stop - start, len(self.names)), self.dtype)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for index in range(first, len(self._parts)):
            begin = int(self._starts[index])
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, int(self._starts[index + 1]))
            if low < high:
                self._read(
                    self._parts[index], slice(low - begin, high - begin), rows[low - start :]
                )
        return rows[:, 0] if len(self.shape) == 1 else rows

    def _read(self, part: Part, taken: slice, rows: NDArray[Any]) -> None:
        """Write the rows of a part that are ``taken`` to the first of ``rows``."""
        count = taken.stop - taken.start
        step, kept = self._together(part), self._kept(part)
        for j in range(0, len(self.names), step):
            names = self.names[j : j + step]
            table = self._part(part, names, kept)
            for k, name in enumerate(names, j):
                rows[:count, k] = numbers(table.column(name))[taken]

    def _together(self, part: Part) -> int:
        """How many columns of a part are decoded at once."""
        return max(1, COLUMNS_BYTES // max(1, part.stored * self.dtype.itemsize))

    def _kept(self, part: Part) -> "NDArray[np.bool_] | None":
        """Which rows of a part meet the filter, (stored,); None if there is no filter."""
        if self._filter is None:
            return None
        columns = self._as_declared(self._stored(part, self._filter.names))
        kept: NDArray[np.bool_] = np.asarray(self._filter.mask(columns))
        return kept

    def _part(
        self, part: Part, names: Sequence[str], kept: "NDArray[np.bool_] | None" = None
    ) -> Any:
        """Some columns of the rows of a part that are ``kept``, as a table of Arrow."""
        table = self._stored(part, names)
        if kept is None:
            return table
        table = table.filter(pyarrow.array(kept))
        if table.num_rows != part.rows:
            raise DataError(
                f"{part.path} has changed since it was opened: {table.num_rows:,} rows of part "
                f"{part.index} meet the filter, not {part.rows:,}"
            )
        return table

    def _stored(self, part: Part, names: Sequence[str]) -> Any:
        """Some columns of a part, as a table of Arrow, if it is what it was."""
        try:
            table = self._columns(part, names)
            if table.num_rows != part.stored:
                raise DataError(
                    f"{part.path} has changed since it was opened: part {part.index} has "
                    f"{table.num_rows:,} rows, not {part.stored:,}{self.doubt}"
                )
            if gone := [name for name in names if name not in table.column_names]:
                raise DataError(f"{part.path} has no column {gone[0]!r}, which others have")
            return table.select(list(names))
        except DgmmError:
            raise
        except Exception as error:
            self._forget()
            if is_transient(error):
                raise
            raise DataError(f"part {part.index} of {part.path} can't be read: {error}") from error

    def known(self, names: Sequence[str]) -> tuple[str, ...]:
        """Which columns of the table ``names`` mean, features or not."""
        return once(self.name, self._all_names, chosen(self._all_names, names, self.name))

    def table(self, start: int, stop: int, names: Sequence[str]) -> Any:
        """Some columns of rows ``start`` to ``stop``, as they are, as a table of Arrow."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = [self._part(each, names, self._kept(each)) for each in self._parts[first:last]]
        whole = pyarrow.concat_tables(map(self._as_declared, parts))
        return whole.slice(start - int(self._starts[first]), stop - start)

    def _as_declared(self, table: Any) -> Any:
        """The same columns, of the types that the table as a whole has: files may have others."""
        kinds = [self._schema.field(name) for name in table.column_names]
        try:
            return table.cast(pyarrow.schema([(each.name, each.type) for each in kinds]))
        except pyarrow.ArrowException as error:
            raise DataError(f"columns of {self.name} are not of one type: {error}") from error

    @abstractmethod
    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        """Some columns of a part, as a table of Arrow."""

    @abstractmethod
    def _forget(self) -> None:
        """Close what this thread has open."""


def _common(url: str, schema: Any, names: Sequence[str]) -> str:
    """The type that holds the numbers of these columns; raises ``DataError`` if some are none."""
    check_numbers(url, {each.name: (each.type, is_number(each.type)) for each in schema}, names)
    kinds = [str(schema.field(name).type) for name in names]
    return "float32" if all(kind in ("halffloat", "float") for kind in kinds) else "float64"


def usual(schema: Any) -> list[str]:
    """The columns of a table that are features, where nobody says which.

    What was the index of a frame is a column of what pandas or Dask wrote of it, and names rows;
    they have noted which it is.
    """
    noted = (schema.pandas_metadata or {}).get("index_columns", ())
    index = {each for each in noted if isinstance(each, str)}  # a range is no column
    return [name for name in schema.names if name not in index] or list(schema.names)


def is_number(kind: Any) -> bool:
    """Whether a type of Arrow is of real numbers."""
    of = pyarrow.types
    return any(test(kind) for test in (of.is_integer, of.is_floating, of.is_decimal))


def is_long(kind: Any) -> bool:
    """Whether a type of Arrow is of integers not all of which float64 holds."""
    if pyarrow.types.is_decimal(kind):
        return bool(kind.scale <= 0)
    return bool(pyarrow.types.is_integer(kind) and kind.bit_width == 64)


def numbers(column: Any) -> NDArray[Any]:
    """A column of Arrow, with NaN for nulls."""
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    numbers: NDArray[Any] = column.to_numpy()
    return numbers
