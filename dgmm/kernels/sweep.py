"""The seam between method and machines: a sweep.

A sweep applies a pure function to every block of a dataset and adds up the results.  The method
(floor 2) sees nothing of Dask, Zarr or threads but this one callable; an engine (floor 3) knows
nothing of mixtures.

**Same blocks, same bits.**  Floating-point addition is not associative, so the engines add in one
order whatever the number of workers and the order of arrival: the balanced binary tree over the
block numbers.  ``PairwiseSum`` is that order, as a counter does it: a new leaf is carried up like a
1 added to a binary number.  A task may take any run of blocks: it brings home the sums of the nodes
that lie in it whole, one if the run is an aligned one of 2^j blocks, and few if not, and the result
is the same to the last bit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from dgmm.model.statistics import Mergeable

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)


@dataclass(frozen=True)
class Block:
    """Consecutive rows in memory: the first one's number, rows (n, D), row weights (n,) or None."""

    start: int
    rows: NDArray[Any]
    weights: NDArray[Any] | None = None

    @property
    def nbytes(self) -> int:
        """The size of its arrays."""
        return self.rows.nbytes + (0 if self.weights is None else self.weights.nbytes)


class Sweep(Protocol):
    """Apply ``fn(block, given)`` to every block and add up the results.

    ``fn`` is a pure function that can be pickled: it may run in another process, more than once.
    """

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T: ...


class PairwiseSum(Generic[T]):
    """Adds values in the order of a balanced binary tree, holding at most log2 of them.

    They may begin at any leaf, number ``first``; then twice as many are held.
    """

    def __init__(self, first: int = 0) -> None:
        self.nodes: list[tuple[int, int, T]] = []  # (height, number, sum), side by side
        self._next = first

    @staticmethod
    def most(leaves: int) -> int:
        """How many values it holds at most, of so many leaves from the first on."""
        return leaves.bit_length()

    def add(self, value: T) -> None:
        """Add the next leaf."""
        self.append(0, self._next, value)
        self._next += 1

    def append(self, height: int, number: int, value: T) -> None:
        """Add the next node: the sum of 2^height leaves, ``number`` among such."""
        while self.nodes and number % 2 and self.nodes[-1][0] == height:
            value = self.nodes.pop()[2] + value
            height, number = height + 1, number // 2
        self.nodes.append((height, number, value))

    def sum(self) -> T:
        """The sum of all leaves added; there must be one at least."""
        *rest, (_, _, value) = self.nodes
        for _, _, node in reversed(rest):
            value = node + value
        return value


def tree_sum(values: Iterable[T]) -> T:
    """The sum of ``values``, added in the order of a balanced binary tree."""
    tree: PairwiseSum[T] = PairwiseSum()
    for value in values:
        tree.add(value)
    return tree.sum()
