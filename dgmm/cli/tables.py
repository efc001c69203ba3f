"""Tables whose figures stay whole in however narrow a terminal.

Where the columns don't fit beside each other, there are several tables one under another, each with
the first columns again.  What is folded is names of columns, never what stands below them.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

HEAD: Final = 10
"""Names of columns are folded if they are wider than this and than what stands below."""

FRAME: Final = 3
"""What a column takes beside its own width."""


def show(
    heads: Sequence[str], rows: Sequence[Sequence[str]], keep: int = 1, wide: bool = False
) -> None:
    """Print ``rows`` of cells below ``heads`` to standard output; the first ``keep`` are names.

    ``wide`` tables are one, however wide the terminal is.
    """
    width = sys.maxsize if wide else Console().width
    columns = [_Column(head, [row[j] for row in rows], j < keep) for j, head in enumerate(heads)]
    for some in _groups(columns, keep, width):
        table = Table()
        for column in some:
            head = Text("\n".join(column.head), justify="left")
            table.add_column(head, justify="left" if column.name else "right", no_wrap=True)
        for cells in zip(*(column.cells for column in some), strict=True):
            table.add_row(*map(Text, cells))
        Console(width=_width(some) if wide else max(width, _width(some))).print(table)


class _Column:
    """A column, and how wide it is."""

    def __init__(self, head: str, cells: Sequence[str], name: bool) -> None:
        self.cells, self.name = cells, name
        widest = max(map(cell_len, cells), default=0)
        self.head = _folded(head, max(widest, HEAD))
        self.width = max(widest, *map(cell_len, self.head))


def _folded(name: str, width: int) -> list[str]:
    """Lines of a name; a word that is too wide is folded after one of its ``_``, ``.`` or ``-``."""
    parts = re.split(r"(?<=[_.-])(?=\w)|(?<=\s)", name)
    lines = [""]
    for part in parts:
        if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [each for line in lines for each in wrap(line, width)] or [""]


def _width(columns: Sequence[_Column]) -> int:
    return 1 + sum(column.width + FRAME for column in columns)


def _groups(columns: list[_Column], keep: int, width: int) -> Iterator[list[_Column]]:
    """The columns of each table: as many as fit, and one at least beside the first."""
    names, rest = columns[:keep], columns[keep:]
    some = list(names)
    for column in rest:
        if len(some) > keep and _width([*some, column]) > width:
            yield some
            some = list(names)
        some.append(column)
    yield some
