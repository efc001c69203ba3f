"""How data are read: what ``open_dataset`` is told beside the data and what lies beside these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dgmm.data.amounts import Amount
from dgmm.data.missing_chunks import MISSING_CHUNKS, Absence, MissingChunks
from dgmm.model.choice import choose


@dataclass(frozen=True)
class Reading:
    """How data are read; the fields are the parameters of ``open_dataset`` of the same names.

    Raises ``UsageError`` if it is not known what a chunk that isn't stored means.
    """

    missing_chunks: MissingChunks = "auto"
    raw: bool = False
    columns: Sequence[str] | None = None
    where: str | None = None
    features_dim: str | None = None
    memory: Amount = None

    def __post_init__(self) -> None:
        choose("missing_chunks", self.missing_chunks, MISSING_CHUNKS)

    @property
    def absence(self) -> Absence:
        """What a chunk that isn't stored means."""
        return MISSING_CHUNKS[self.missing_chunks]


USUAL: Final = Reading()
"""How data are read where nobody says more."""
