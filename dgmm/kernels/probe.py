"""Sums over some rows, which tell whether two sweeps saw the same rows.

Sums of complete rows can be checked against those of the first pass for nothing, as the shares of a
row sum to 1.  Where rows have holes, or count for less the farther out they are, such sums are of
what is expected, not of what is there.  So one row in ``STRIDE`` is looked at besides, by its
number: whoever writes to a store changes whole chunks.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final

import numpy as np

from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array

STRIDE: Final = 16

PIECE: Final = 1024
"""Of these rows, so many are looked at at a time."""

SAME: Final = 1e-9
"""How far sums may be off by rounding: a graph that computes rows may add in any order."""


@dataclass(frozen=True)
class Probe:
    """Of one row in sixteen, for each feature (D,): weights of values, sums of x and of x^2."""

    weights: Array
    sums: Array
    squares: Array

    def __add__(self, other: "Probe") -> "Probe":
        return Probe(
            self.weights + other.weights, self.sums + other.sums, self.squares + other.squares
        )

    @classmethod
    def of(cls, block: Block) -> "Probe":
        """Those of a block's rows; which they are does not depend on how rows are cut."""
        some = block.part(slice(-block.start % STRIDE, None, STRIDE))
        starts = range(0, max(1, len(some.rows)), PIECE)
        return reduce(add, (cls._of(some.part(slice(at, at + PIECE))) for at in starts))

    @classmethod
    def _of(cls, some: Block) -> "Probe":
        """Those of few rows."""
        rows = some.rows.astype(np.float64)
        weights = np.isfinite(rows).astype(np.float64)
        if some.weights is not None:
            weights *= some.weights[:, None]
        rows[weights == 0] = 0.0
        weighted = weights * rows
        return cls(weights.sum(axis=0), weighted.sum(axis=0), (weighted * rows).sum(axis=0))

    def difference(self, other: "Probe") -> float:
        """How far another's sums are from these, where 1 is the size of what is added up."""
        sizes = np.sqrt(self.weights) * np.sqrt(self.squares)
        pairs = (
            (self.weights - other.weights, self.weights),
            (self.sums - other.sums, sizes),
            (self.squares - other.squares, self.squares),
        )
        with np.errstate(invalid="ignore", over="ignore"):
            return max(float(np.max(np.abs(off) / np.where(of > 0, of, 1.0))) for off, of in pairs)
