"""Directories that say what all rows below them have: ``year=2020/part-0.parquet``, as Hive has it.

Such keys are columns, of integers or of texts, but no features unless they are asked for by name:
most are categories.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from dgmm.data.urls import above, place
from dgmm.model.lazy import Late

pyarrow = Late("pyarrow")

NULL: Final = "__HIVE_DEFAULT_PARTITION__"


def partition_keys(url: str, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The keys of each of the ``paths`` of the table at ``url``; none unless all have the same."""
    root = above(place(url)[1]) + "/"
    said = {path: _said(path.removeprefix(root)) for path in paths}
    names = [list(keys) for keys in said.values()]
    if not names or any(each != names[0] for each in names):
        return {path: {} for path in paths}
    whole = [key for key in names[0] if all(_is_integer(keys[key]) for keys in said.values())]
    return {path: _typed(keys, whole) for path, keys in said.items()}


def _said(below: str) -> dict[str, str | None]:
    pairs = (each.split("=", 1) for each in below.split("/")[:-1] if "=" in each)
    return {unquote(key): None if value == NULL else unquote(value) for key, value in pairs if key}


def _is_integer(value: str | None) -> bool:
    return value is None or (value.removeprefix("-").isdecimal() and len(value) < 19)


def _typed(keys: Mapping[str, str | None], whole: Sequence[str]) -> dict[str, Any]:
    return {
        key: int(value) if key in whole and value is not None else value
        for key, value in keys.items()
    }


def types_of(keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The types of Arrow of the keys, by their names."""
    names = next(iter(keys.values()), {})
    texts = {name for name in names if any(isinstance(each[name], str) for each in keys.values())}
    return {name: pyarrow.string() if name in texts else pyarrow.int64() for name in names}
