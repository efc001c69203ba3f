"""Text files of columns (CSV, TSV): a part is the lines of about ``PART_BYTES``, read by Arrow.

**Opening** reads each file once, to see where its rows end: a line break between quotes is none.
The types of columns are those that the first part has; numbers are read as float64.  Where that
part has integers alone, others may have fractions.

**The first line** has the names of columns.  A first column without a name has row names, as R and
pandas write them: it is no feature, unless it is asked for.  The separator is the one of ``,``,
``;``, tab and ``|`` that this line has most of; beside ``;``, numbers may have decimal commas.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import chosen, once
from dgmm.data.listing import files
from dgmm.data.patience import patience
from dgmm.data.table_source import Part, TableSource, check_installed, is_number
from dgmm.data.transient import is_transient
from dgmm.data.urls import place
from dgmm.errors import DataError
from dgmm.model.lazy import Late

pyarrow, csv = Late("pyarrow"), Late("pyarrow.csv")

PART_BYTES: Final = 8 << 20

LINE_BYTES: Final = 64 << 20
"""More than a line has."""

SEPARATORS: Final = ",;\t|"

BREAK, QUOTE, RETURN = b'\n"\r'


class DelimitedSource(TableSource):
    """A text file, or many that are one table: a directory, or what a pattern matches.

    The files are in the order of their names.
    """

    doubt = ", or a text that is not in quotes has one in it"

    @classmethod
    def of(cls, url: str, wanted: Sequence[str] | None, vector: bool) -> "DelimitedSource":
        """Open what is at ``url``."""
        check_installed(url)
        paths = files(url, (".csv", ".tsv"))
        ends = {path: patience()(partial(_row_ends, url, path)) for path in paths}
        parts = [
            Part.of(path, index, rows)
            for path, (_, rows_of_parts) in ends.items()
            for index, rows in enumerate(rows_of_parts)
        ]
        first = next((part.path for part in parts if part.rows), paths[0])
        form = _Form.of(url, first, ends[first][0])
        for path in paths:
            form.check_alike(url, path, first, ends[path][0])
        names = form.schema.names
        usual = names[1:] if names[:1] == [""] and len(names) > 1 else names
        features = once(url, names, chosen(names, wanted, url, usual))
        source = cls(url, parts, form.schema, features, vector)
        source._form, source._places = form, {path: places for path, (places, _) in ends.items()}
        return source

    _form: "_Form"
    _places: dict[str, tuple[int, ...]]
    """Where the parts of each file begin and end."""

    def nbytes(self, rows: int) -> int:
        # The rows; and of a part, the text, and its columns decoded, all at once.
        largest = self._most_stored() * self.row_bytes
        return rows * self.row_bytes + 2 * PART_BYTES + 2 * largest + self._filter_nbytes()

    def _together(self, part: Part) -> int:
        return len(self.names)  # the text is read once

    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        start, stop = self._places[part.path][part.index : part.index + 2]
        text = _read(self.name, part.path, start, stop)
        if len(text) != stop - start:
            raise DataError(f"{part.path} has changed since it was opened: it is shorter")
        try:
            return self._form.parsed(text, names)
        except pyarrow.ArrowInvalid as error:
            with suppress(pyarrow.ArrowInvalid):
                return self._form.with_fractions().parsed(text, names)
            raise DataError(
                f"the lines from byte {start:,} to {stop:,} of {part.path} can't be read: "
                f"{self._form.told(str(error))}"
            ) from error

    def _as_declared(self, table: Any) -> Any:
        try:
            return super()._as_declared(table)
        except DataError as error:
            raise DataError(
                f"{error}. A column that begins with whole numbers has these alone where it is "
                "kept, or in a filter: write them as 1.0, or make Parquet of the text"
            ) from error

    def _forget(self) -> None:
        pass


class _Form:
    """How a text is parsed."""

    def __init__(self, header: bytes, separator: str, decimal: str, schema: Any) -> None:
        self.header, self.separator, self.decimal = header, separator, decimal
        self.schema = schema

    @classmethod
    def of(cls, url: str, path: str, places: tuple[int, ...]) -> "_Form":
        """That of the file at a ``path``, by its first part."""
        header = _read(url, path, 0, places[0])
        bare = re.sub(rb'"[^"]*"', b"", header).decode(errors="replace")
        separator = max(SEPARATORS, key=bare.count)
        head = header.removeprefix(b"\xef\xbb\xbf").strip(b"\r\n")
        try:
            names = cls(head, separator, ".", pyarrow.schema([]))._named()
            sample = _read(url, path, places[0], places[1]) if len(places) > 1 else b""
            forms = [cls(head, separator, decimal, pyarrow.schema([])) for decimal in (".", ",")]
            schemas = [form._inferred(sample, names) for form in forms[: 1 + (separator == ";")]]
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            hint = ". Write it in UTF-8" * isinstance(error, UnicodeDecodeError)
            raise DataError(
                f"{path} can't be read as {separator!r}-separated text: {error}{hint}"
            ) from error
        if all(_like_a_number(name) for name in names):
            raise DataError(
                f"the first line of {path} has numbers alone ({', '.join(names[:4])}...), where "
                "the names of columns should be: write them there"
            )
        best = max(range(len(schemas)), key=lambda i: sum(map(is_number, schemas[i].types)))
        return cls(head, separator, forms[best].decimal, schemas[best])

    def check_alike(self, url: str, path: str, first: str, places: tuple[int, ...]) -> None:
        """Raise ``DataError`` unless a file has the first line that the ``first`` has."""
        header = _read(url, path, 0, places[0]).removeprefix(b"\xef\xbb\xbf").strip(b"\r\n")
        if header != self.header:
            raise DataError(f"{path} has other columns than {first}, or in another order")

    def with_fractions(self) -> "_Form":
        """The same, where columns of integers may have other numbers, too."""
        is_integer, double = pyarrow.types.is_integer, pyarrow.float64()
        kinds = [double if is_integer(kind) else kind for kind in self.schema.types]
        schema = pyarrow.schema(list(zip(self.schema.names, kinds, strict=True)))
        return _Form(self.header, self.separator, self.decimal, schema)

    def parsed(self, text: bytes, names: Sequence[str]) -> Any:
        """The columns ``names`` of lines of text, as a table of Arrow."""
        kinds = {name: self.schema.field(name).type for name in names}
        return self._table(text, self.schema.names, include_columns=list(names), column_types=kinds)

    def told(self, error: str) -> str:
        """What Arrow says, with the names of columns for their numbers."""
        names = self.schema.names
        return re.sub(r"CSV column #(\d+)", lambda match: f"column {names[int(match[1])]!r}", error)

    def _table(self, text: bytes, names: Sequence[str], **options: Any) -> Any:
        if not text.strip(b"\r\n"):
            return self.schema.empty_table()
        return csv.read_csv(
            pyarrow.BufferReader(text),
            csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=list(names)),
            csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            csv.ConvertOptions(decimal_point=self.decimal, strings_can_be_null=True, **options),
        )

    def _named(self) -> list[str]:
        table = csv.read_csv(
            pyarrow.BufferReader(self.header + b"\n"),
            csv.ReadOptions(use_threads=False),
            csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
        )
        return list(table.schema.names)

    def _inferred(self, sample: bytes, names: Sequence[str]) -> Any:
        """The types of columns, by the first part; of one that is empty there, float64."""
        numbered = [str(i) for i in range(len(names))]  # names may be the same
        table = self._table(sample, numbered)
        kinds = [table.schema.field(each).type for each in table.schema.names] or [
            pyarrow.null() for _ in names
        ]
        kinds = [pyarrow.float64() if pyarrow.types.is_null(kind) else kind for kind in kinds]
        return pyarrow.schema(list(zip(names, kinds, strict=True)))


def _like_a_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _read(url: str, path: str, start: int, stop: int) -> bytes:
    """Bytes of the file at a ``path`` on the file system of ``url``; less if it has no more."""
    with place(url)[0].open(path, "rb") as file:
        file.seek(start)
        content: bytes = file.read(stop - start)
    return content


def _row_ends(url: str, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the first line of a file ends and then each part; and the rows of each part."""
    try:
        with place(url)[0].open(path, "rb") as file:
            return _ends(file)
    except Exception as error:
        if is_transient(error):
            raise
        raise DataError(f"{path} can't be read: {error}") from error


def _ends(file: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same of an open file."""
    places: list[int] = []
    rows: list[int] = []
    begin, text, ended = 0, b"", False
    while not ended:
        more = file.read(PART_BYTES)
        ended = not more
        text += more if more or text.endswith(b"\n") else b"\n" * bool(text)
        breaks, filled = _lines(np.frombuffer(text, np.uint8))
        if not places and filled.any():  # the first line that is not empty
            head = int(np.argmax(filled))
            places.append(begin + int(breaks[head]) + 1)
            filled[: head + 1] = False
        whole = int(breaks[-1]) + 1 if len(breaks) else 0
        if places and begin + whole > places[-1]:
            places.append(begin + whole)
            rows.append(int(np.count_nonzero(filled)))
        begin, text = begin + whole, text[whole:]
        if len(text) > LINE_BYTES or (ended and text):
            raise DataError(
                f"from byte {begin:,} on it is one line: a quote is not closed, or stands in "
                "a text that is not in quotes"
            )
    if not places:
        raise DataError("it has no line with the names of columns")
    size = file.tell()
    return tuple(min(place, size) for place in places), tuple(rows)


def _lines(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where lines end, in a text that begins with one; and which of them hold something."""
    breaks = np.flatnonzero(codes == BREAK)
    quotes = np.flatnonzero(codes == QUOTE)
    if len(quotes):
        breaks = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    if not len(breaks):
        return breaks, np.zeros(0, np.bool_)
    length = np.diff(breaks, prepend=-1) - 1
    return breaks, (length > 1) | ((length == 1) & (codes[breaks - 1] != RETURN))
