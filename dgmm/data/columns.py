"""Which columns of a table are meant: names, patterns, ranges, and what to leave out."""

import difflib
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dgmm.errors import DataError, UsageError

OBJECTS: Final = (
    ". A column of objects that are numbers, such as decimals, is made one of numbers by "
    "astype(float)"
)
"""What to do about columns that hold any objects of Python."""


def chosen(
    names: Sequence[str],
    wanted: Sequence[str] | None,
    table: str,
    usual: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Those of the ``names`` of a ``table``'s columns that are ``wanted``, in the order asked for.

    Each of ``wanted`` is a name, a pattern (``band_*``), a range of neighbours (``red:nir``), or
    one of these after a ``!``, which leaves out.  What only leaves out begins with all columns, or
    the ``usual`` ones; so does None.  A column that has a name as it was asked for is taken by it,
    whatever is in that.  Raises ``DataError`` if there is no such column.
    """
    usual = names if usual is None else usual
    if wanted is None:
        return tuple(usual)
    if isinstance(wanted, str):
        raise UsageError(f"columns must be a list of names, not the text {wanted!r}")
    requested = [str(each) for each in wanted]
    known = set(names)
    kept: dict[str, None] = {}
    if all(_leaves_out(each, known) for each in requested):
        kept = dict.fromkeys(usual)
    for each in requested:
        if _leaves_out(each, known):
            for name in _meant(names, each[1:], table):
                kept.pop(name, None)
        else:
            kept |= dict.fromkeys(_meant(names, each, table))
    if not kept:
        raise DataError(f"columns {requested} leave no column of {table}")
    return tuple(kept)


def one(url: str, names: tuple[str, ...]) -> str:
    """The only one of ``names``; raises ``DataError`` if more are meant by ``url``, a column's."""
    if len(names) > 1:
        raise DataError(f"{url} means {len(names)} of its columns, {_first(names)}: name one")
    return names[0]


def once(table: str, all_names: Sequence[Any], names: tuple[Any, ...]) -> tuple[Any, ...]:
    """The ``names``; raises ``DataError`` if one means several columns of a ``table``."""
    counts = Counter(all_names)
    if twice := {name for name in names if counts[name] > 1}:
        listed = ", ".join(sorted(map(str, twice)))
        raise DataError(f"{table} has several columns called {listed}: give each a name of its own")
    return names


def no_columns(kind: str, columns: Sequence[str]) -> UsageError:
    """What to raise where ``columns`` are asked of what has no names of any."""
    return UsageError(
        f"columns {list(columns)} are asked of {kind}, which has no names of columns: they are of "
        "a table or frame, or variables of a Zarr group or an HDF5 or NetCDF file"
    )


def check_numbers(table: str, kinds: Mapping[str, tuple[Any, bool]], names: Sequence[str]) -> None:
    """Raise ``DataError`` unless the columns ``names`` of a ``table`` are of numbers.

    ``kinds`` has the type of each column by its name, and whether that is one of numbers.
    """
    wrong = [f"{name} ({kinds[name][0]})" for name in names if not kinds[name][1]]
    if not wrong:
        return
    others = [name for name, (_, number) in kinds.items() if number and name]
    without = [f"!{name}" for name in names if not kinds[name][1]]
    few = "..." if len(without) > 10 else ", ".join(map(repr, without))
    raise DataError(
        f"columns must be real numbers: {_first(wrong)} of {table} can't be used; leave them out "
        f"(open_dataset(data, columns=[{few}]), --columns {','.join(without[:10])!r}), or make "
        "numbers of them: "
        + (f"numbers are in {_first(others)}" if others else "no column is of numbers")
        + OBJECTS * any(str(kinds[name][0]) == "object" for name in names)
    )


def _first(names: Sequence[str]) -> str:
    """Ten of the names, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(names[:10])}{more}"


def _leaves_out(wanted: str, known: set[str]) -> bool:
    return wanted.startswith("!") and wanted not in known


def _meant(names: Sequence[str], wanted: str, table: str) -> list[str]:
    """The ``names`` that one name, pattern or range means."""
    if wanted in names:
        return [wanted]
    ends = {*names, ""}
    parted = [(wanted[:i], wanted[i + 1 :]) for i, each in enumerate(wanted) if each == ":"]
    for first, last in parted:  # a name may have a colon, too
        if not {first, last} <= ends:
            continue
        places = list(names)
        start = places.index(first) if first else 0
        stop = places.index(last) + 1 if last else len(places)
        if start < stop:
            return places[start:stop]
        raise DataError(f"{table} has {last!r} before {first!r}: ask for {last}:{first}")
    if matches := fnmatch.filter(names, wanted) if set(wanted) & set("*?[") else []:
        return matches
    raise DataError(f"{table} has no column {wanted!r}; {_near(names, wanted)}")


def _near(names: Sequence[str], wanted: str) -> str:
    """What there is that looks like it; else what there is."""
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    if near:
        return f"the nearest {'are' if len(near) > 1 else 'is'} {', '.join(near)}"
    return f"it has {_first(names)}"
