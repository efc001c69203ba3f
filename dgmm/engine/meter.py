"""What a sweep has done so far, for whoever watches."""

import threading
from collections.abc import Callable


class Meter:
    """How far a fit is: written by it as it works, read by whoever shows progress.

    Attributes
    ----------
    rows : int
        How many rows have been swept; those of samples don't count.
    stage, sweep : str, int
        What is done on samples at the moment, "" for nothing, and in which sweep.
    listener : callable
        Is called when these change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rows = self.sweep = 0
        self.stage = ""
        self.listener: Callable[[], None] = lambda: None

    def tell(self, stage: str, sweep: int) -> None:
        """Set what is done on samples."""
        self.stage, self.sweep = stage, sweep
        self.listener()

    def add(self, rows: int) -> None:
        """Count ``rows`` more."""
        with self._lock:
            self.rows += rows
