"""Whether there is what pictures are drawn with."""

from importlib.util import find_spec

from dgmm.errors import UsageError


def check_pictures() -> None:
    """Raise ``UsageError`` unless what draws is installed, before any work is done for one."""
    if find_spec("matplotlib") is None or find_spec("PIL") is None:
        raise UsageError(
            "pictures are drawn by matplotlib and pillow, and not both are installed: "
            "pip install 'dgmm[plot]' does that (in a clone: pip install '.[plot]')"
        )
