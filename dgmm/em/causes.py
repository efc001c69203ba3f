"""Causes of collapse, in words: what messages say of components, of columns, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MANY: Final = 100
"""More values of a column are not few: a component has one of them that many rows share."""

SHOWN: Final = 6
"""How many features a message names."""


@dataclass(frozen=True)
class Cause:
    """Why components collapse, for a person.

    Attributes
    ----------
    because : str
        With {columns} and {have} for the features, {their}, {each} and {distinct} for the
        components and their rows, and {number}.
    advice : str
        With these, and {or_noise}, where a noise component would help and there is none.
    """

    because: str
    advice: str


CAUSES: Final = {
    "one row": Cause(
        "there is one row, which has no spread in {columns}",
        "Give more rows",
    ),
    "constant": Cause(
        "{columns} {have} one value in all rows",
        "Leave {it} out",
    ),
    "dependent": Cause(
        "{columns} follow from each other in all rows (copies, sums or differences)",
        "Leave {number} of them out",
    ),
    "few values": Cause(
        "{each} has rows of one {value} of {columns} alone",
        "Many rows of one value (0 and 1, codes, rounded numbers) are not normally distributed: "
        "leave such a column out, or raise reg_covar to about the square of its steps; where the "
        "value stands for something else (9999, say), make it NaN{or_noise}",
    ),
    "equal rows": Cause(
        "{their} rows are {distinct}, with no spread in {columns}",
        "Fit fewer components, or raise reg_covar to about the square of what rows are rounded to",
    ),
    "few rows": Cause(
        "{their} rows, {number} at most, are too few to spread in {columns}",
        "Fit fewer components, or fewer columns, or raise reg_covar, or give more rows",
    ),
    "flat": Cause(
        "{their} rows have no spread in some direction of {columns}, and other rows have",
        "Fit fewer components, or raise reg_covar",
    ),
    "far rows": Cause(
        "rows far from most make {their} variance so large in {columns} that others' are rounding",
        "Look at the rows far away there: leave them out, or fit more components",
    ),
    "reg_covar": Cause(
        "reg_covar is more than all the variance that the rows have in {columns}",
        "Give a smaller reg_covar, or none: the default goes by each column's own variance",
    ),
}
"""In the order in which they are told."""


@dataclass(frozen=True)
class Collapse:
    """Components that collapsed for one reason.

    Attributes
    ----------
    cause : str
        A key of ``CAUSES``.
    components : tuple of int
    features : tuple of int
        That have no spread in them, the largest loading first.
    number : int
        Of columns to leave out, of values, of distinct rows, or of rows, as the cause has it; 0
        where that isn't known.
    """

    cause: str
    components: tuple[int, ...]
    features: tuple[int, ...]
    number: int = 0

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cause": self.cause,
            "components": list(self.components),
            "features": list(self.features),
            "number": self.number,
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Collapse":
        """From what ``record`` gave."""
        components, features = (tuple(record[name]) for name in ("components", "features"))
        return cls(record["cause"], components, features, record["number"])

    def said(self, names: Sequence[str] | None = None, has_noise: bool = False) -> str:
        """For a person, with the ``names`` (D,) of the features if they have any.

        ``has_noise`` says whether there is a noise component.
        """
        several, many = len(self.components) > 1, len(self.features) > 1
        cause = CAUSES[self.cause]
        # The sample, where values are counted, may have missed others.
        values = "few" if self.number <= 1 else str(self.number)
        words = {
            "value": "value" if self.number > MANY else f"of the {values} values",
            "columns": column_names(self.features, names),
            "have": "have" if many else "has",
            "it": "them" if many else "it",
            "or_noise": "" if has_noise else ", or give noise_component",
            "their": "their" if several else "its",
            "each": "each" if several else "it",
            "number": self.number or "few",
            "distinct": ("all equal" if not several else "all equal in each component")
            if self.number == 1
            else f"{self.number or 'few'} distinct ones{' at most' * several}, many times over",
        }
        return (
            f"{component_names(self.components)} {'are' if several else 'is'} singular: "
            f"{cause.because.format(**words)}; the variance there is the smallest allowed. "
            f"{cause.advice.format(**words)}"
        )


def component_names(components: Sequence[int]) -> str:
    """What messages call components."""
    return f"component{'s' * (len(components) > 1)} {', '.join(map(str, components))}"


def column_names(features: tuple[int, ...], names: Sequence[str] | None) -> str:
    """What a message calls features: 'column 3', or 'columns 'a', 'b' and 4 more'."""
    shown = [str(j) if names is None else repr(str(names[j])) for j in sorted(features[:SHOWN])]
    more = f" and {len(features) - SHOWN} more" * (len(features) > SHOWN)
    return f"column{'s' * (len(features) > 1)} {', '.join(shown)}{more}"
