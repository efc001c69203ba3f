"""Variables that say something of others, by the CF conventions: they are features by name only.

Such are a grid mapping (5.6), bounds (7.1), climatologies (7.4), cell measures (7.2), geometries
(7.5), coordinates (5), and what has one value for all rows, which is what xarray, too, takes for
coordinates (``decode_coords="all"``).  But terms of formulas and ancillary variables may well be
features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dgmm.data.columns import chosen

NAMING: Final = (
    *("coordinates", "grid_mapping", "bounds", "climatology", "cell_measures", "geometry"),
    *("node_coordinates", "node_count", "part_node_count", "interior_ring"),
)
"""Attributes that name such variables."""


@dataclass(frozen=True)
class Variable:
    """What is known of an array in a group or a file before any of it is read.

    Attributes
    ----------
    shape : tuple of int
    said : mapping
        Its attributes.
    is_axis : bool
        Whether its values are the places along an axis.
    """

    shape: tuple[int, ...]
    said: Mapping[str, Any]
    is_axis: bool = False

    @property
    def names(self) -> list[str]:
        """The variables that it names."""
        names: list[str] = []
        for attribute in NAMING:
            words = text_of(self.said.get(attribute, "")).split()
            # "area: name", but "name: axis axis" of a grid mapping, as far as it has colons.
            keys = attribute == "grid_mapping"
            names += [each.rstrip(":") for each in words if keys or not each.endswith(":")]
        return names


def features(
    variables: Mapping[str, Variable],
    wanted: Sequence[str] | None,
    table: str,
    whole: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Which of the ``variables`` of a ``table``, by their paths in it, are ``wanted`` as features.

    Patterns, ranges and None mean none that says something of others; a name means what has it.
    ``whole`` are the attributes of the table.
    """
    others = auxiliary(variables, whole or {})
    plain = [name for name in variables if name not in others]
    requested = set() if wanted is None else {str(each).removeprefix("!") for each in wanted}
    known = [name for name in variables if name not in others or name in requested]
    return chosen(known, wanted, table, plain)


def auxiliary(variables: Mapping[str, Variable], whole: Mapping[str, Any]) -> set[str]:
    """Those that say something of others, unless all do; ``whole`` are attributes of the table."""
    names = {name for name, each in variables.items() if each.is_axis or not each.shape}
    for path, each in {**variables, "": Variable((), whole)}.items():
        for name in each.names:
            names |= _meant(variables, path, name)
    return names if len(names) < len(variables) else set()


def _meant(variables: Mapping[str, Variable], path: str, name: str) -> set[str]:
    """The variable that the one at ``path`` calls ``name``: of its group, or one above (2.7)."""
    group = path.rpartition("/")[0]
    while True:
        where = f"{group}/{name}" if group and not name.startswith("/") else name.lstrip("/")
        if where in variables:
            return {where}
        if not group:
            return set()
        group = group.rpartition("/")[0]


def text_of(value: Any) -> str:
    """The text of an attribute, as whatever library has it."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""
