"""Observation models: how a block of rows becomes expected sums.

Complete rows are all there.  Rows with holes, NaN, are refused, left out, or judged by what of them
was observed (missing.py).  A new model is a new class, and its line in ``OBSERVATIONS``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import missing
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.rounding import Away
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics


@dataclass(frozen=True)
class Counted:
    """A block as an observation model counts it.

    Attributes
    ----------
    block : Block
        Rows that count for nothing have no weight.
    incomplete : int
        How many rows with a weight hold NaN.
    left_out : int
        How many of these count for nothing.
    """

    block: Block
    incomplete: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Observation(ABC):
    """How a block of rows becomes expected sums under given mixtures.

    Attributes
    ----------
    kernel : str
        What computes that, a key of ``choice.KERNELS``.
    """

    kernel: str = "numpy"

    name: ClassVar["Missing"]
    holes: ClassVar[bool] = False
    """Whether rows that count may hold NaN."""
    refuses: ClassVar[bool] = False
    """Whether a row that holds NaN is an error."""

    def counted(self, block: Block) -> Counted:
        """The block with the rows that count."""
        return Counted(block)

    def given(self, natural: NaturalParameters) -> NaturalParameters:
        """What an E-step needs of natural parameters."""
        return natural.bare

    @property
    def centres(self) -> bool:
        """Whether all components are to be seen by differences from their means."""
        return self.holes or KERNELS[self.kernel].centres

    @property
    def noise(self) -> Callable[[Mixture, Away, float], Array]:
        """The bound on the error of log-densities; see ``choice.Kernel``."""
        return KERNELS[self.kernel].noise

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        """What telling which rows of a block count takes, and what they lack, in bytes."""
        return 0

    @abstractmethod
    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        """The statistics of a block under each mixture."""


@dataclass(frozen=True)
class Complete(Observation):
    """All rows are complete; one that is not can't be used."""

    name = "raise"
    refuses = True

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        return KERNELS[self.kernel].e_step(block, given)


@dataclass(frozen=True)
class Dropped(Observation):
    """Incomplete rows are left out."""

    name = "drop"

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        return rows * (row_bytes + n_features + 16)  # a copy, which rows count, and their weights

    def counted(self, block: Block) -> Counted:
        incomplete = np.isnan(block.rows).any(axis=1)
        return _without(block, incomplete, incomplete, zeroed=True)

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        return KERNELS[self.kernel].e_step(self.counted(block).block, given)


@dataclass(frozen=True)
class Marginal(Observation):
    """What is missing is missing at random: rows are judged by what of them was observed."""

    name = "marginalize"
    holes = True

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        return rows * row_bytes + missing.nbytes(rows, n_features, components)  # and copies of rows

    def given(self, natural: NaturalParameters) -> NaturalParameters:
        return natural  # with the covariances

    def counted(self, block: Block) -> Counted:
        holes = np.isnan(block.rows)
        return _without(block, holes.any(axis=1), holes.all(axis=1))

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        kernel = KERNELS[self.kernel]
        return missing.e_step(block, given, kernel.e_step, kernel.incomplete)


def _without(
    block: Block,
    incomplete: NDArray[np.bool_],
    left_out: NDArray[np.bool_],
    zeroed: bool = False,
) -> Counted:
    """The block whose rows ``left_out`` (n,) have no weight, and no NaN if ``zeroed``."""
    if not incomplete.any():
        return Counted(block)
    weights = np.ones(len(block.rows)) if block.weights is None else block.weights
    lost = left_out & (weights > 0)
    counts = int((incomplete & (weights > 0)).sum()), int(lost.sum())
    if zeroed:  # those without a weight, too: 0 times NaN is NaN
        block = replace(block, rows=np.where(left_out[:, None], 0, block.rows))
    if lost.any():
        block = replace(block, weights=np.where(lost, 0, weights))
    return Counted(block, *counts)


COMPLETE: Final = Complete()

NONE_COUNT: Final = "no row counts: all weights are zero, or too little was observed to {}"
"""Said of rows to score, or to learn from."""

Missing = Literal["raise", "marginalize", "drop"]
"""The names of ``OBSERVATIONS``."""

OBSERVATIONS: Final[dict[Missing, type[Observation]]] = {
    each.name: each for each in (Complete, Marginal, Dropped)
}
