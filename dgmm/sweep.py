"""The seam between method and machines: a sweep.

A sweep applies a pure function to every block of a dataset and adds up the results.  The method
(floor 2) sees nothing of Dask, Zarr or threads but this one callable; an engine (floor 3) knows
nothing of mixtures.

**Same blocks, same bits.**  Floating-point addition is not associative, so the engines add in one
order whatever the number of workers and the order of arrival: the balanced binary tree over the
block numbers.  ``Tree`` is that order, as a counter does it: a new leaf is carried up like a 1
added to a binary number.  Sums of aligned runs of 2^j blocks are nodes of the tree, so a task may
take any such run, and the result is the same to the last bit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from dgmm.statistics import Mergeable

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


class Tree(Generic[T]):
    """Adds values in the order of a balanced binary tree, holding at most log2 of them."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, T]] = []  # (height, sum), heights falling

    def add(self, value: T) -> None:
        """Add the next leaf."""
        height = 0
        while self._nodes and self._nodes[-1][0] == height:
            value = self._nodes.pop()[1] + value
            height += 1
        self._nodes.append((height, value))

    def sum(self) -> T:
        """The sum of all leaves added; there must be one at least."""
        *rest, (_, value) = self._nodes
        for _, node in reversed(rest):
            value = node + value
        return value


def tree_sum(values: Iterable[T]) -> T:
    """The sum of ``values``, added in the order of a balanced binary tree."""
    tree: Tree[T] = Tree()
    for value in values:
        tree.add(value)
    return tree.sum()
