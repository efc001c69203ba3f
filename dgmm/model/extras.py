"""Libraries that only some uses of dgmm need: the extras of its package."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from dgmm.errors import UsageError

MODULES: Final[Mapping[str, str]] = {"pillow": "PIL"}
"""What a library is imported as, where that is not its name."""


def how_to_install(extra: str) -> str:
    """The command that installs an ``extra``, for a message."""
    return f"pip install 'dgmm[{extra}]' (in a clone: pip install '.[{extra}]')"


def require(extra: str, task: str, *libraries: str) -> None:
    """Raise ``UsageError`` unless the ``libraries`` of an ``extra``, for a ``task``, are there."""
    missing = [each for each in libraries if find_spec(MODULES.get(each, each)) is None]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        raise UsageError(
            f"{task} needs {' and '.join(missing)}, which {are} not installed: "
            f"{how_to_install(extra)}"
        )
