"""Adding up what units and blocks bring, by the threads that bring it.

A sample of 100,000 rows takes longer to add to another than its block takes to read; so the thread
that waits for a sweep adds nothing.  Whoever brings a result adds it to those beside it that are
there: units in their order, which makes a block, and blocks as ``PairwiseSum`` adds them.  Which
thread is first decides who adds, never what is added to what.
"""

from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

from dgmm.model.statistics import Mergeable

T = TypeVar("T", bound=Mergeable)


@dataclass
class _Units(Generic[T]):
    """What units of a block brought: the sum of the first ones, and those that wait for others."""

    lock: Lock = field(default_factory=Lock)
    waiting: dict[int, tuple[bool, T]] = field(default_factory=dict)
    sum: tuple[T, ...] = ()
    next: int = 0

    def add(self, number: int, last: bool, value: T) -> tuple[T, ...]:
        """The sum of all units, if these are there now; else nothing."""
        with self.lock:
            self.waiting[number] = last, value
            while self.next in self.waiting:
                last, value = self.waiting.pop(self.next)
                self.sum = (self.sum[0] + value if self.sum else value,)
                self.next += 1
                if last:
                    return self.sum
        return ()


class SharedSum(Generic[T]):
    """The sum over blocks, in the order of ``PairwiseSum``; any thread may add."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks: dict[int, _Units[T]] = {}
        self._nodes: dict[tuple[int, int], T] = {}  # by height and number

    def add(self, block: int, number: int, last: bool, value: T) -> None:
        """Add a unit of a block, of which each number is added once; ``last`` ends the block."""
        if number == 0 and last:
            self._carry(block, value)
            return
        with self._lock:
            units = self._blocks.setdefault(block, _Units())
        for whole in units.add(number, last, value):
            with self._lock:
                del self._blocks[block]
            self._carry(block, whole)

    def _carry(self, block: int, value: T) -> None:
        """Add a block to its neighbour, if that is there, the sum to that one's, and so on."""
        height, number = 0, block
        while True:
            with self._lock:
                beside = height, number ^ 1
                if beside not in self._nodes:
                    self._nodes[height, number] = value
                    return
                other = self._nodes.pop(beside)
            value = other + value if number % 2 else value + other
            height, number = height + 1, number // 2

    def sum(self) -> T:
        """The sum of all blocks; there must be one at least, and none missing before the last."""
        *rest, (_, value) = sorted(self._nodes.items(), key=lambda node: -node[0][0])
        for _, node in reversed(rest):
            value = node + value
        return value
