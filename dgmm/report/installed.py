"""Whether there is what pictures are drawn with."""

from dgmm.model.extras import require


def check_pictures() -> None:
    """Raise ``UsageError`` unless what draws is installed, before any work is done for one."""
    require("plot", "drawing", "matplotlib", "pillow")
