"""Markdown tables on standard output, to be pasted as they are."""

import sys
from collections.abc import Iterable, Sequence

Cell = str | float | int | None


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], note: str = "") -> None:
    """Print a table under its ``title``, each row as it comes, and a ``note`` on how to read it."""
    _clear()
    print(f"**{title}**\n")
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join(["---"] * len(header)) + " |", flush=True)
    for row in rows:
        _clear()
        print("| " + " | ".join(map(shown, row)) + " |", flush=True)
    print(f"\n{note}\n" if note else "", flush=True)


def _clear() -> None:
    """Remove the line of progress."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def shown(cell: Cell) -> str:
    """A number with three digits, and anything else as it is."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def percent(share: float) -> str:
    """A share of 1 in per cent."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def mebibytes(size: float) -> str:
    """Bytes, for people."""
    return f"{size / (1 << 20):,.0f} MiB"
