"""How a text chooses the member of a family."""

from collections.abc import Mapping
from typing import Any, TypeVar

from dgmm.errors import UsageError

Member = TypeVar("Member")


def choose(name: str, value: Any, family: Mapping[Any, Member]) -> Member:
    """The member of ``family`` that ``value`` names; raises ``UsageError`` if there is none.

    ``name`` is the parameter's, for the message.
    """
    if not isinstance(value, str) or value not in family:
        raise UsageError(f"{name} must be one of {', '.join(map(repr, family))}, not {value!r}")
    return family[value]
