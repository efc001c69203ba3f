"""The seam between method and machines: a sweep.

A sweep applies a pure function to every block of a dataset and adds up the results.  The method
(``em``) sees nothing of Dask, Zarr or threads but this one callable; an engine (``engine``) knows
nothing of mixtures.

**Same blocks, same bits.**  Floating-point addition is not associative.  So the engines add in one
order, whatever the number of workers and the order of arrival: that of the balanced binary tree
over the block numbers.  ``PairwiseSum`` adds in that order as a counter counts: a new leaf is
carried up like a 1 added to a binary number.  A task may take any run of blocks.  It returns the
sums of the nodes that lie whole in the run: one for an aligned run of 2^j blocks, few for others.
The result is the same to the last bit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dgmm.model.statistics import Mergeable

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)


@dataclass(frozen=True)
class Block:
    """Consecutive rows in memory, and what lies beside them: arrays with an entry for each row.

    Attributes
    ----------
    start : int
        The first row's number.
    rows : (n, D)
    weights : (n,) or None
    noise : (n, D), (n, D, D) or None
        The variances of each row's errors, or their covariances.
    labels : (n,), (n, K) or None
        What components each row may be of: one by its number, -1 for any; or as a mask.
    names : tuple of str, (D,), or None
        What the features are called, for whoever complains of a row.
    """

    start: int
    rows: NDArray[Any]
    weights: NDArray[Any] | None = None
    noise: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    names: tuple[str, ...] | None = None

    @property
    def beside(self) -> dict[str, NDArray[Any]]:
        """The arrays that lie beside the rows, by their names of ``BESIDE``."""
        return {name: array for name in BESIDE if (array := getattr(self, name)) is not None}

    @property
    def nbytes(self) -> int:
        """The size of the arrays."""
        return self.rows.nbytes + sum(array.nbytes for array in self.beside.values())

    @property
    def weight(self) -> float:
        """The sum of the rows' weights; how many they are, where they have none."""
        return float(len(self.rows) if self.weights is None else self.weights.sum(dtype=np.float64))

    def column(self, number: int) -> str:
        """What a message calls a column: its name, if it has one; else its number."""
        return f"column {number if self.names is None else repr(str(self.names[number]))}"

    def part(self, chosen: slice) -> "Block":
        """Consecutive rows of the block, with what lies beside them; nothing is copied."""
        beside: dict[str, Any] = {name: array[chosen] for name, array in self.beside.items()}
        start = self.start + chosen.indices(len(self.rows))[0]
        return replace(self, start=start, rows=self.rows[chosen], **beside)

    def taken(self, places: NDArray[np.intp]) -> "Block":
        """A copy of some rows of the block, with what lies beside them; ``start`` stays."""
        # np.take is far faster than [places].
        beside: dict[str, Any] = {
            name: np.take(array, places, axis=0) for name, array in self.beside.items()
        }
        return replace(self, rows=np.take(self.rows, places, axis=0), **beside)


BESIDE: Final = ("weights", "noise", "labels")
"""The names of what may lie beside rows: fields of ``Block`` and of ``Dataset``."""


class Sweep(Protocol):
    """Apply ``fn(block, given)`` to every block and add up the results.

    ``fn`` is a pure function that can be pickled: it may run in another process, more than once.
    Where ``given`` has ``row_products``, the number of products that a row takes, ``fn`` may be
    applied to parts of a block (engine/units.py).
    """

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T: ...


class PairwiseSum(Generic[T]):
    """Adds values in the order of a balanced binary tree, holding at most log2 of them.

    The leaves may begin at any number, ``first``; then twice as many values are held.
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
