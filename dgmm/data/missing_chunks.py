"""What a Zarr chunk that isn't stored means."""

from dataclasses import dataclass
from typing import Final, Literal

MissingChunks = Literal["auto", "error", "late", "fill"]
"""The names of ``MISSING_CHUNKS``."""


@dataclass(frozen=True)
class Absence:
    """What a chunk that isn't stored means.

    Attributes
    ----------
    listed : bool
        Whether the chunks are listed when the array is opened, and all must be there.
    checked : bool
        Whether a chunk must be there when it is read; else it holds the fill value.
    missing : bool
        Whether that is so only if the fill value stands for no value.
    """

    listed: bool
    checked: bool
    missing: bool = False


MISSING_CHUNKS: Final[dict[MissingChunks, Absence]] = {
    "auto": Absence(listed=True, checked=True, missing=True),
    "error": Absence(listed=True, checked=True),
    "late": Absence(listed=False, checked=True),
    "fill": Absence(listed=False, checked=False),
}
