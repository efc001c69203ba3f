"""Parquet files: a part is a row group."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any, Final

from dgmm.data.columns import chosen, once
from dgmm.data.listing import files
from dgmm.data.partitions import partition_keys, types_of
from dgmm.data.patience import patience
from dgmm.data.table_source import Part, TableSource, check_installed, is_number, usual
from dgmm.data.transient import is_transient
from dgmm.data.urls import is_local, place
from dgmm.errors import DataError
from dgmm.model.lazy import Late

pyarrow, parquet = Late("pyarrow"), Late("pyarrow.parquet")
dataset, fs = Late("pyarrow.dataset"), Late("pyarrow.fs")

ASKED: Final = 16
"""How many files are asked at once for what they hold."""


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
        held = [each for each in zip(paths, footers, strict=True) if sum(each[1].rows)]
        (first, footer), *_ = held or [(paths[0], footers[0])]
        arrow_schema = footer.schema
        known = arrow_schema.names
        keys = partition_keys(url, [path for path, _ in held])
        types = {name: kind for name, kind in types_of(keys).items() if name not in known}
        all_names = [*known, *types]
        names = once(url, all_names, chosen(all_names, wanted, url, usual(arrow_schema)))
        unlike: dict[Any, str] = {}  # the first file of each schema
        for path, each in held:
            unlike.setdefault(each.schema, path)
        for schema, path in unlike.items():
            _check_alike(
                first, arrow_schema, path, schema, [name for name in names if name not in types]
            )
        in_files = [dict(zip(each.names, each.types, strict=True)) for each in unlike]
        fields = [(each.name, _type_of_all(each, in_files)) for each in arrow_schema]
        parts = [
            Part.of(path, index, rows)
            for path, footer in held
            for index, rows in enumerate(footer.rows)
        ]
        schema = pyarrow.schema([*fields, *types.items()])
        source = cls(url, parts, schema, names, vector)
        source._keys, source._types = keys, types
        return source

    _keys: dict[str, dict[str, Any]]
    """What the directories of each file say."""
    _types: dict[str, Any]
    """The types of what they say, by its names."""

    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        key = (self._opened, part.path)  # a file may be another when a table is opened again
        if _open.key != key:
            self._forget()
            _open.file, _open.key = _parquet(self.name, part.path), key
        if part.index >= _open.file.num_row_groups:
            raise DataError(f"{part.path} has changed since it was opened: it has fewer parts")
        stored = [name for name in names if name not in self._types]
        if len(stored) == len(names):
            return _open.file.read_row_group(part.index, columns=stored, use_threads=False)
        said = {
            name: pyarrow.scalar(self._keys[part.path][name], self._types[name])
            for name in names
            if name in self._types
        }
        columns = {name: pyarrow.repeat(value, part.stored) for name, value in said.items()}
        if stored:
            table = _open.file.read_row_group(part.index, columns=stored, use_threads=False)
            columns |= dict(zip(table.column_names, table.columns, strict=True))
        return pyarrow.table(columns)

    def _possible(self, parts: Sequence[Part]) -> Sequence[Part]:
        # By the statistics in the footer, and by what directories say.
        expression = self._filter and self._filter.expression()
        if expression is None:
            return parts
        path = parts[0].path
        field = dataset.field
        known = [
            field(name).is_null() if value is None else field(name) == value
            for name, value in self._keys[path].items()
            if name in self._types
        ]
        file_path, _ = place(self.name)
        other = not is_local(file_path)
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(file_path)) if other else fs.LocalFileSystem()
        try:
            fragment = dataset.ParquetFileFormat().make_fragment(
                path,
                filesystem,
                partition_expression=reduce(and_, known) if known else None,
            )
            row_groups = {
                each.id for each in fragment.subset(expression, schema=self._schema).row_groups
            }
        except pyarrow.ArrowException:
            return parts  # of types that are brought together when they are read
        return [part for part in parts if part.index in row_groups]

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


@dataclass(frozen=True)
class _Footer:
    """What is kept of a footer, which may be large: the types, and how many rows groups have."""

    schema: Any
    rows: tuple[int, ...]


def _footer(url: str, path: str) -> _Footer:
    """What the file at a ``path`` says that it holds."""
    try:
        file = _parquet(url, path)
    except Exception as error:
        if is_transient(error):
            raise
        raise DataError(f"{path} can't be read as Parquet: {error}") from error
    try:
        whole = file.metadata
        rows = (whole.row_group(index).num_rows for index in range(whole.num_row_groups))
        return _Footer(whole.schema.to_arrow_schema(), tuple(rows))
    finally:
        file.close(force=True)


def _check_alike(
    first: str, schema: Any, path: str, arrow_schema: Any, names: Sequence[str]
) -> None:
    """Raise ``DataError`` unless a file has the columns that the ``first`` has."""
    for name in names:
        if name not in arrow_schema.names:
            raise DataError(f"{path} has no column {name!r}, which {first} has")
        kinds = arrow_schema.field(name).type, schema.field(name).type
        if kinds[0] != kinds[1] and not all(map(is_number, kinds)):
            raise DataError(f"column {name!r} is {kinds[0]} in {path}, but {kinds[1]} in {first}")


def _type_of_all(field: Any, in_files: Sequence[Mapping[str, Any]]) -> Any:
    """The type of a column in all files: float64 for numbers of several types."""
    types_in_files = [types[field.name] for types in in_files if field.name in types]
    several = any(kind != field.type for kind in types_in_files)
    return pyarrow.float64() if several and all(map(is_number, types_in_files)) else field.type
