"""Tables by address: Parquet and Arrow files, read a part at a time.

A part is what its format lets one read by itself: a row group of Parquet, a record batch of Arrow.
So blocks are whole parts, as many as make one worth its overhead, and a task reads its own.

**Numbers.**  Columns of float32 alone stay so; all others are read as float64, in which a null is
NaN.  What is no number (texts, categories, booleans, times) is refused by name.

A column of a table is a vector by ``table.parquet::name``.
"""

import threading
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from typing import Any, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import check_numbers, chosen, once
from dgmm.data.patience import patience
from dgmm.data.source import Source
from dgmm.data.transient import is_transient
from dgmm.data.urls import exists, is_local, place
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.model.lazy import Late

pyarrow, parquet = Late("pyarrow"), Late("pyarrow.parquet")

COLUMNS_BYTES: Final = 8 << 20
"""How much of a part is decoded at once, in columns: so it takes little beside the rows."""

ASKED: Final = 16
"""How many files are asked at once for what they hold."""

HIDDEN: Final = ("_", ".")
"""What the names begin with of files that are no part of a table."""


def check_installed(url: str) -> None:
    """Raise ``UsageError`` if the library that reads tables is not installed."""
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"{url}: tables are read by pyarrow, which is not installed: "
            "pip install 'dgmm[parquet]' does that (in a clone: pip install '.[parquet]')"
        )


@dataclass(frozen=True)
class Part:
    """Rows of a table that are read together: the file, the number of the part in it, and rows."""

    path: str
    index: int
    rows: int


class TableSource(Source):
    """Columns of a table in files.

    Attributes
    ----------
    names : tuple of str
        Of the columns, in the order they are read.
    """

    names: tuple[str, ...]

    def __init__(
        self, url: str, parts: Sequence[Part], schema: Any, names: tuple[str, ...], vector: bool
    ) -> None:
        self.name, self.names, self._all_names = url, names, tuple(schema.names)
        self._opened = uuid4().hex
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(part.rows for part in parts)], dtype=np.int64)
        rows = int(self._starts[-1])
        self.shape = (rows,) if vector else (rows, len(names))
        self.dtype = np.dtype(_common(url, schema, names))

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
        largest = max((part.rows for part in self._parts), default=0) * self.row_bytes
        column = largest // max(1, len(self.names))
        return rows * self.row_bytes + 3 * max(column, min(largest, COLUMNS_BYTES))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        rows = np.empty((stop - start, len(self.names)), self.dtype)
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
        step = max(1, COLUMNS_BYTES // max(1, part.rows * self.dtype.itemsize))
        for j in range(0, len(self.names), step):
            names = self.names[j : j + step]
            table = self._part(part, names)
            for k, name in enumerate(names, j):
                rows[:count, k] = numbers(table.column(name))[taken]

    def _part(self, part: Part, names: Sequence[str]) -> Any:
        """Some columns of a part, as a table of Arrow, if it is what it was."""
        try:
            table = self._columns(part, names)
            if table.num_rows != part.rows:
                raise DataError(
                    f"{part.path} has changed since it was opened: part {part.index} has "
                    f"{table.num_rows:,} rows, not {part.rows:,}"
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
        whole = pyarrow.concat_tables(self._part(each, names) for each in self._parts[first:last])
        return whole.slice(start - int(self._starts[first]), stop - start)

    @abstractmethod
    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        """Some columns of a part, as a table of Arrow."""

    @abstractmethod
    def _forget(self) -> None:
        """Close what this thread has open."""


class _Open(threading.local):
    """The file that a thread reads: most often the next part is in it, too."""

    def __init__(self) -> None:
        self.key: tuple[str, str] = ("", "")
        self.file: Any = None


_open = _Open()


class ParquetSource(TableSource):
    """A Parquet file, or many that are one table: a directory, or what a pattern matches.

    The files are in the order of their names.
    """

    @classmethod
    def of(cls, url: str, wanted: Sequence[str] | None, vector: bool) -> "ParquetSource":
        """Open what is at ``url``: the footers of the files are read, and no rows."""
        check_installed(url)
        paths = files(url, (".parquet", ".parq", ".pq"))
        with ThreadPoolExecutor(ASKED) as pool:
            footers = list(pool.map(lambda path: patience()(lambda: _footer(url, path)), paths))
        # What writers give a file without rows says nothing: often it has no types.
        held = [each for each in zip(paths, footers, strict=True) if each[1].num_rows]
        (first, footer), *_ = held or [(paths[0], footers[0])]
        schema = footer.schema.to_arrow_schema()
        names = once(url, schema.names, chosen(schema.names, wanted, url))
        parts = []
        for path, footer in held:
            _check_alike(first, schema, path, footer.schema.to_arrow_schema(), names)
            groups = range(footer.num_row_groups)
            parts += [Part(path, index, footer.row_group(index).num_rows) for index in groups]
        return cls(url, [part for part in parts if part.rows], schema, names, vector)

    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        key = (self._opened, part.path)  # a file may be another when a table is opened again
        if _open.key != key:
            self._forget()
            _open.file, _open.key = _parquet(self.name, part.path), key
        if part.index >= _open.file.num_row_groups:
            raise DataError(f"{part.path} has changed since it was opened: it has fewer parts")
        return _open.file.read_row_group(part.index, columns=list(names), use_threads=False)

    def _forget(self) -> None:
        if _open.file is not None:
            _open.file.close(force=True)
        _open.file, _open.key = None, ("", "")


def _parquet(url: str, path: str) -> Any:
    """The Parquet file at a ``path`` on the file system of ``url``."""
    filesystem, _ = place(url)
    if is_local(filesystem):
        return parquet.ParquetFile(path)
    file = filesystem.open(path, "rb")
    try:
        return parquet.ParquetFile(file, pre_buffer=True)
    except BaseException:
        file.close()
        raise


def _footer(url: str, path: str) -> Any:
    """What the file at a ``path`` says that it holds."""
    try:
        file = _parquet(url, path)
    except Exception as error:
        if is_transient(error):
            raise
        raise DataError(f"{path} can't be read as Parquet: {error}") from error
    try:
        return file.metadata
    finally:
        file.close(force=True)


def _check_alike(first: str, schema: Any, path: str, own: Any, names: Sequence[str]) -> None:
    """Raise ``DataError`` unless a file has the columns that the ``first`` has."""
    for name in names:
        if name not in own.names:
            raise DataError(f"{path} has no column {name!r}, which {first} has")
        if own.field(name).type != schema.field(name).type:
            raise DataError(
                f"column {name!r} is {own.field(name).type} in {path}, but "
                f"{schema.field(name).type} in {first}"
            )


class ArrowSource(TableSource):
    """An Arrow file (Feather, version 2) on a file system that all processes share."""

    @classmethod
    def of(cls, url: str, wanted: Sequence[str] | None, vector: bool) -> "ArrowSource":
        """Open the file at ``url``: how many rows its batches have is read."""
        check_installed(url)
        filesystem, path = place(url)
        if not is_local(filesystem):
            raise UsageError(
                f"{url}: Arrow files are read from local paths; remote data as Parquet"
            )
        if not exists(url):
            raise DataError(f"{url} does not exist")
        try:
            with _arrow(path) as file:
                schema = file.schema
                names = once(url, schema.names, chosen(schema.names, wanted, url))
                rows = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        except DgmmError:
            raise
        except Exception as error:
            raise DataError(f"{url} can't be read as an Arrow file: {error}") from error
        parts = [Part(path, index, count) for index, count in enumerate(rows) if count]
        return cls(url, parts, schema, names, vector)

    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        with _arrow(part.path, names) as file:
            return pyarrow.Table.from_batches([file.get_batch(part.index)])

    def _forget(self) -> None:
        pass


def _arrow(path: str, names: Sequence[str] | None = None) -> Any:
    """The Arrow file at a local ``path``, of which some columns are read."""
    mapped = pyarrow.memory_map(path)
    if names is None:
        return pyarrow.ipc.open_file(mapped)
    whole = pyarrow.ipc.open_file(mapped).schema
    fields = [whole.get_field_index(name) for name in names]
    mapped.seek(0)
    return pyarrow.ipc.open_file(
        mapped, options=pyarrow.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    )


FORMATS: Final[dict[str, type[ParquetSource] | type[ArrowSource]]] = {
    ".parquet": ParquetSource,
    ".parq": ParquetSource,
    ".pq": ParquetSource,
    ".arrow": ArrowSource,
    ".feather": ArrowSource,
}
"""By how their names end."""


def is_table(data: object) -> bool:
    """Whether ``data`` is the address of a table."""
    return isinstance(data, str | PathLike) and _format(str(data)) is not None


def open_table(url: str, wanted: Sequence[str] | None = None) -> TableSource | None:
    """The table at ``url``, of which the columns ``wanted`` are read; None if it is none."""
    table, column = named_column(url)
    kind = _format(table)
    if kind is None:
        return None
    if column is None:
        return kind.of(table, wanted, vector=False)
    if wanted is not None:
        raise UsageError(f"{url} names its column: leave out columns={list(wanted)}")
    return kind.of(table, [column], vector=True)


def _format(url: str) -> type[ParquetSource] | type[ArrowSource] | None:
    """What reads the table at ``url``; None if it is no table."""
    for ending, kind in FORMATS.items():
        if url.rstrip("/").endswith(ending) or f"{ending}/" in url:
            return kind
    return None


def named_column(url: str) -> tuple[str, str | None]:
    """The address of a table, and the column that is named after it: ``table.parquet::name``."""
    for ending in FORMATS:
        table, colons, column = url.rpartition(f"{ending}::")
        if colons and column and "/" not in column:
            return table + ending, column
    return url, None


def files(url: str, endings: Iterable[str]) -> list[str]:
    """The paths of the files at ``url``: itself, those in a directory, or those of a pattern."""
    filesystem, path = place(url)

    def ask() -> list[str]:
        filesystem.invalidate_cache()
        if filesystem.isdir(path):
            found = filesystem.find(path)
        elif filesystem.exists(path):  # whatever is in its name
            return [path]
        elif set(path) & set("*?["):
            found = filesystem.glob(path)
        else:
            raise DataError(f"{url} does not exist")
        return [each for each in sorted(found) if _is_part(each, path, tuple(endings))]

    try:
        found: list[str] = patience()(ask)
    except DgmmError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be reached: {error}") from error
    if not found:
        raise DataError(f"{url} has no file whose name ends in {', '.join(endings)}")
    return found


def _is_part(path: str, root: str, endings: tuple[str, ...]) -> bool:
    """Whether a file below ``root`` is a part of the table: no note that a writer left."""
    below = path.removeprefix(root.rstrip("/") + "/").split("/")
    return path.endswith(endings) and not any(each.startswith(HIDDEN) for each in below)


def _common(url: str, schema: Any, names: Sequence[str]) -> str:
    """The type that holds the numbers of these columns; raises ``DataError`` if some are none."""
    check_numbers(url, {each.name: (each.type, is_number(each.type)) for each in schema}, names)
    kinds = [str(schema.field(name).type) for name in names]
    return "float32" if all(kind in ("halffloat", "float") for kind in kinds) else "float64"


def is_number(kind: Any) -> bool:
    """Whether a type of Arrow is of real numbers."""
    of = pyarrow.types
    return any(test(kind) for test in (of.is_integer, of.is_floating, of.is_decimal))


def numbers(column: Any) -> NDArray[Any]:
    """A column of Arrow, with NaN for nulls."""
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    numbers: NDArray[Any] = column.to_numpy()
    return numbers
