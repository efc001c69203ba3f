"""Tables by address: what reads them is told by how their names end, or by what is in a directory.

Names may end in capitals, as some programs write them: ``TRIPS.CSV``.

A column of a table is a vector by ``table.parquet::name``.
"""

import os
import re
from collections.abc import Sequence
from os import PathLike
from typing import Final

from dgmm.data.arrow import ArrowSource
from dgmm.data.columns import one
from dgmm.data.delimited import DelimitedSource
from dgmm.data.parquet import ParquetSource
from dgmm.data.table_source import TableSource
from dgmm.errors import UsageError

PARQUET: Final = (".parquet", ".parq", ".pq")

FORMATS: Final[dict[str, type[TableSource]]] = {
    **dict.fromkeys(PARQUET, ParquetSource),
    ".arrow": ArrowSource,
    ".feather": ArrowSource,
    ".csv": DelimitedSource,
    ".tsv": DelimitedSource,
}
"""By how their names end."""

COLUMN: Final = re.compile(
    rf"(?P<table>.*(?:{'|'.join(map(re.escape, FORMATS))}))::(?P<column>[^/]+)",
    re.IGNORECASE | re.DOTALL,
)
"""A column of a table."""

PACKED: Final = tuple(
    f"{ending}{packed}"
    for ending in (".csv", ".tsv")
    for packed in (".gz", ".bz2", ".xz", ".zst", ".zip")
)
"""How the names of texts end that are compressed."""


def is_table(data: object) -> bool:
    """Whether ``data`` is the address of a table."""
    return isinstance(data, str | PathLike) and _format(str(data)) is not None


def is_table_or_column(data: object) -> bool:
    """Whether ``data`` is the address of a table, or of one column."""
    return isinstance(data, str | PathLike) and is_table(named_column(str(data))[0])


def open_table(
    url: str, wanted: Sequence[str] | None = None, where: str | None = None
) -> TableSource | None:
    """The table at ``url``, of which the columns ``wanted`` are read; None if it is none.

    Of its rows those are read that meet the filter ``where``.
    """
    opened = _opened(url, wanted)
    return opened if opened is None or where is None else opened.filtered(where)


def _opened(url: str, wanted: Sequence[str] | None) -> TableSource | None:
    table, column = named_column(url)
    if table.lower().endswith(PACKED):
        raise UsageError(
            f"{table}: a text that is compressed as a whole can't be read by parts; unpack it, or "
            "make Parquet of it"
        )
    kind = _format(table)
    if kind is None:
        return None
    if column is None:
        return kind.of(table, wanted, vector=False)
    if wanted is not None:
        raise UsageError(f"{url} names its column: leave out columns={list(wanted)}")
    opened = kind.of(table, [column], vector=True)
    one(url, opened.names)
    return opened


def _format(url: str) -> type[TableSource] | None:
    """What reads the table at ``url``; None if it is no table."""
    name = url.rstrip("/").lower()
    for ending, kind in FORMATS.items():
        if name.endswith(ending) or f"{ending}/" in name:
            return kind
    return ParquetSource if _holds_parquet(url) else None


def _holds_parquet(url: str) -> bool:
    """Whether it is a directory here in which Parquet lies, whatever it is called.

    Elsewhere, to ask would be to list it.
    """
    path = url.removeprefix("file://")
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(map(_is_part, entries))


def _is_part(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a Parquet file, or a directory of those with one value: ``year=2020``."""
    if entry.is_dir():
        return "=" in entry.name
    return entry.name.lower().endswith(PARQUET)


def named_column(url: str) -> tuple[str, str | None]:
    """The address of a table, and the column that is named after it: ``table.parquet::name``."""
    match = COLUMN.fullmatch(url)
    return (match["table"], match["column"]) if match else (url, None)
