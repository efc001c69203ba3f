"""What work on samples took, and where it is at the moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from dgmm.em.deadline import NEVER, Deadline

T = TypeVar("T")

Tell = Callable[[str, int], None]
"""Takes what is done on samples at the moment ("" for nothing any more), and in which sweep."""


def silent(stage: str, sweep: int) -> None:
    """Tell nobody."""


@dataclass
class Cost:
    """What work on samples took so far, and what is done at the moment.

    It changes as work goes on, which no other value of this room does.  Work ends once the
    ``deadline`` has passed.

    Attributes
    ----------
    densities : int
        Rows times components evaluated in memory.
    seconds : float
        That all work on samples took.
    starts_seconds : float
        Of these, what looking for starts after the first took.
    deadline : Deadline
    tell : callable
        Is told of each stage, and of each sweep.
    """

    densities: int = 0
    seconds: float = 0.0
    starts_seconds: float = 0.0
    deadline: Deadline = NEVER
    tell: Tell = silent
    _stages: tuple[str, ...] = ()
    _sweeps: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            self.tell("", 0)

    @contextmanager
    def stage(self, said: str) -> Iterator[None]:
        """Tell what is done inside, as a part of what is done outside; "" for no more than that."""
        outer = self._stages, self._sweeps
        self._stages, self._sweeps = (*self._stages, *[said] * bool(said)), 0
        self._report()
        try:
            yield
        finally:
            self._stages, self._sweeps = outer

    @contextmanager
    def start(self, number: int, most: int) -> Iterator[None]:
        """Tell that a start is looked for inside; those after the first have their seconds."""
        with (
            self.stage(f"start {number} of {most}"),
            self.others() if number > 1 else nullcontext(),
        ):
            yield

    def several(self, count: int, make: Callable[[], T]) -> list[T]:
        """So many starts, each told as it is looked for: what ``make`` makes."""
        starts = list[T]()
        while len(starts) < count:
            with self.start(len(starts) + 1, count):
                starts.append(make())
        return starts

    @contextmanager
    def others(self) -> Iterator[None]:
        """Count the seconds inside as those of starts after the first."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.starts_seconds += time.perf_counter() - began

    def swept(self, densities: int) -> None:
        """Count a sweep, of so many."""
        self.densities += densities
        self._sweeps += 1
        self._report()

    def _report(self) -> None:
        self.tell(", ".join(self._stages), self._sweeps)
