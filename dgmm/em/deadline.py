"""When a fit is to end with what it has."""

import time
from dataclasses import dataclass
from math import inf
from typing import Final


@dataclass(frozen=True)
class Deadline:
    """A moment of this process's clock (``time.perf_counter``); by default it never comes."""

    at: float = inf

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """So many seconds from now, if any are given."""
        return cls() if seconds is None else cls(time.perf_counter() + seconds)

    @property
    def seconds(self) -> float:
        """Until it comes: what another process can make one of."""
        return self.at - time.perf_counter()

    @property
    def passed(self) -> bool:
        """Whether it has come."""
        return time.perf_counter() >= self.at


NEVER: Final = Deadline()
