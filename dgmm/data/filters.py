"""Which rows of a table in files are taken: ``tip > 0 and city == 'Oslo'``.

The words are Python's: comparisons of columns with numbers, texts or other columns; ``in`` a list;
``is null``; ``and``, ``or``, ``not``.  A name that is no word of Python stands in backticks.

**What is missing** (a null, NaN) meets no comparison, and none that is turned round by ``not``, as
in SQL.  So NaN is taken for a null before anything is compared.

Nothing is evaluated as Python: the text is parsed, and each of the few kinds of words that there
are becomes a function of Arrow, of columns or, to skip parts by their statistics, of their names.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

from dgmm.data.columns import chosen, once
from dgmm.errors import DataError, UsageError
from dgmm.model.lazy import Late, lazy

pyarrow, compute = Late("pyarrow"), Late("pyarrow.compute")

COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
"""What Arrow calls them."""

CONSTANTS: Final = {"true": True, "false": False}
NULL: Final = "null"

QUOTED: Final = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|`([^`]+)`""")
"""A text, or a name in backticks."""

HOW: Final = (
    "a filter compares columns with numbers, texts in quotes or lists of these: tip > 0 and city "
    "== 'Oslo' (with two =), year in [2025, 2026], tip is null; and, or, not are in small letters; "
    "a name with spaces stands in backticks"
)

Get = Callable[[str], Any]
"""Gives a column by its name; or what stands for it."""


@dataclass(frozen=True)
class Filter:
    """A condition that rows of a table meet.

    Attributes
    ----------
    text : str
        As it was asked.
    table : str
        The address of the table.
    types : mapping
        The types of Arrow of the columns that it speaks of, by their names.
    """

    text: str
    table: str
    types: Mapping[str, Any]

    @classmethod
    def of(cls, text: str, table: str, schema: Any) -> "Filter":
        """That of a table with a ``schema``; raises ``DataError`` if it can't be asked of it."""
        root, names = _parsed(text)
        name_nodes = [node for node in ast.walk(root) if isinstance(node, ast.Name)]
        used = {
            names.get(node.id, node.id): None for node in name_nodes if not _is_word(node, names)
        }
        try:
            for name in used:
                once(table, schema.names, chosen(schema.names, [name], table))
                if name not in schema.names:  # a pattern
                    raise UsageError(f"{name} is no column of {table}")
        except DataError as error:
            raise DataError(f"where {text!r}: {error}") from error
        if not used:
            raise UsageError(f"where {text!r} names no column: {HOW}")
        result = cls(text, table, {name: schema.field(name).type for name in used})
        empty = pyarrow.schema(list(result.types.items())).empty_table()
        try:
            kind = result.mask(empty).type
        except pyarrow.ArrowException as error:
            types = ", ".join(f"{name} is {kind}" for name, kind in result.types.items())
            zoned = any(getattr(kind, "tz", None) for kind in result.types.values())
            hint = ". A time has its zone here, as in '2025-01-31T12:00Z'" * zoned
            cause = str(error).removesuffix(".")
            raise DataError(
                f"where {text!r} can't be asked of {table}, of which {types}: {cause}{hint}"
            ) from error
        if not pyarrow.types.is_boolean(kind):
            raise DataError(f"where {text!r} is {kind}, and neither true nor false: {HOW}")
        return result

    @property
    def names(self) -> list[str]:
        """The columns that it speaks of."""
        return list(self.types)

    @lazy
    def _tree(self) -> tuple[ast.expr, dict[str, str]]:
        return _parsed(self.text)

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text, "table": self.table, "types": dict(self.types)}

    def mask(self, table: Any) -> Any:
        """Which rows of a ``table`` of Arrow, with its columns, meet it; a column of booleans."""
        mask = self._made(lambda name: _plain(table.column(name)), pyarrow.scalar)
        return compute.fill_null(mask, False)

    def expression(self) -> Any:
        """The same of columns by their names, by which Arrow skips parts; None if it can't be.

        Statistics count no NaN, which are missing here: what asks for these skips nothing.
        """
        root, _ = self._tree
        asks = any(isinstance(node, ast.Is | ast.IsNot) for node in ast.walk(root))
        return None if asks else self._made(compute.field, compute.scalar)

    def _made(self, get: Get, literal: Callable[[Any], Any]) -> Any:
        root, names = self._tree
        return _Making(self, get, literal, names).of(root)


@dataclass(frozen=True)
class _Making:
    """What the words of a filter mean, of columns that ``get`` gives, and ``literal`` values."""

    filter: Filter
    get: Get
    literal: Callable[[Any], Any]
    names: Mapping[str, str]

    def of(self, node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=kind, values=values):
                name = "and_kleene" if isinstance(kind, ast.And) else "or_kleene"
                return _all(name, map(self.of, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return compute.invert(self.of(operand))
            case ast.Compare(left=left, ops=ops, comparators=others):
                ends = [left, *others]
                pairs = zip(ends[:-1], ops, ends[1:], strict=True)
                return _all("and_kleene", (self._compared(*each) for each in pairs))
            case ast.Name() if not _is_word(node, self.names):
                return self._column(node)
        raise self._refused(node)

    def _compared(self, left: ast.expr, kind: ast.cmpop, right: ast.expr) -> Any:
        if isinstance(kind, ast.Is | ast.IsNot):
            if not _is_null(right) or not self._is_column(left):
                raise self._refused(right)
            call = compute.is_null if isinstance(kind, ast.Is) else compute.is_valid
            return call(self._column(left))
        if isinstance(kind, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
                raise self._refused(right)
            comparisons = _all("or_kleene", (self._equal(left, each) for each in right.elts))
            return compute.invert(comparisons) if isinstance(kind, ast.NotIn) else comparisons
        return self._called(COMPARISONS[type(kind)], left, right)

    def _equal(self, left: ast.expr, right: ast.expr) -> Any:
        return self._called("equal", left, right)

    def _called(self, name: str, left: ast.expr, right: ast.expr) -> Any:
        if not (self._is_column(left) or self._is_column(right)):
            raise self._refused(left)
        call = getattr(compute, name)
        return call(self._side(left, right), self._side(right, left))

    def _side(self, node: ast.expr, other: ast.expr) -> Any:
        if self._is_column(node):
            return self._column(node)
        value = self._literal(node)
        kind = self.filter.types[self._name(other)]
        if isinstance(value, str) and pyarrow.types.is_temporal(kind):
            return self.literal(pyarrow.scalar(value).cast(kind))
        return self.literal(value)

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return operator.neg(value)
            case ast.Name(id=name) if name.lower() in CONSTANTS:
                return CONSTANTS[name.lower()]
        raise self._refused(node)

    def _is_column(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and not _is_word(node, self.names)

    def _name(self, node: ast.expr) -> str:
        assert isinstance(node, ast.Name)
        return self.names.get(node.id, node.id)

    def _column(self, node: ast.expr) -> Any:
        return self.get(self._name(node))

    def _refused(self, node: ast.expr) -> UsageError:
        if _is_null(node):
            return UsageError(f"where {self.filter.text!r}: ask for null by: is null, is not null")
        said = ast.unparse(node)
        return UsageError(f"where {self.filter.text!r}: {said!r} is not understood; {HOW}")


def _all(name: str, values: Iterator[Any]) -> Any:
    """What a function of two of Arrow makes of them all."""
    return reduce(getattr(compute, name), values)


def _parsed(text: str) -> tuple[ast.expr, dict[str, str]]:
    """The tree of a filter, and the names that were in backticks by what stands for them there."""
    names: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        word = f"_column_{len(names)}"
        while word in text:
            word += "_"
        names[word] = match[2]
        return word

    try:
        return ast.parse(QUOTED.sub(stand_in, text).strip(), mode="eval").body, names
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = getattr(error, "msg", error)  # of a syntax error, without a line of a file
        raise UsageError(f"where {text!r} can't be read: {why}; {HOW}") from error


def _is_word(node: ast.Name, names: Mapping[str, str]) -> bool:
    """Whether it is a value, and no column: a column of such a name stands in backticks."""
    return node.id not in names and node.id.lower() in (NULL, *CONSTANTS)


def _is_null(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id.lower() == NULL
    return isinstance(node, ast.Constant) and node.value is None


def _plain(column: Any) -> Any:
    """A column with nulls for NaN."""
    if not pyarrow.types.is_floating(column.type):
        return column
    return compute.if_else(compute.is_nan(column), pyarrow.scalar(None, column.type), column)
