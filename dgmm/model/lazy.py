"""Values computed, and modules imported, when they are first asked for."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


class lazy(cached_property[T]):
    """``functools.cached_property`` as it is since Python 3.12: without a lock.

    Python 3.11 has one lock for all instances of a class: fits in two threads would wait for each
    other, and a process forked while another thread holds it would wait for ever.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        super().__init__(compute)
        self.lock = nullcontext()


class Late:
    """A module that is imported when a name in it is first asked for.

    For what many users of a module never need, and what takes long to import.  Its names are Any to
    a type checker, unless it sees the import itself, under ``if TYPE_CHECKING``, and not this.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks at all there is, asks for these, and loads nothing
            raise AttributeError(name)
        return getattr(import_module(self._module), name)


def loaded(module: str, name: str) -> Any:
    """What is called ``name`` in ``module``; None if nobody has imported that, up to there.

    For what only users of a library can have made, such as a client of a cluster.
    """
    return getattr(sys.modules.get(module), name, None)
