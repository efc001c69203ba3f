"""Observation models: how a block of rows becomes expected sums.

Complete rows are all there.  Rows with holes, NaN, are refused, left out, or judged by what of them
was observed (missing.py).  A new model is a new class, and its line in ``OBSERVATIONS``.  Rows with
known errors (noisy.py) may have holes, too: their model holds one of these.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import missing, noisy
from dgmm.kernels.choice import WAYS
from dgmm.kernels.kernel import first_invalid_row
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.noise import first_invalid_noise
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
class Invalid:
    """The first row of a block that can't be used, and why; how many there are, and of what.

    Attributes
    ----------
    first : str or None
    holes, misjudged, mislabelled : int
        Rows that hold NaN or infinity, and rows with noise or labels that can't be.
    """

    first: str | None = None
    holes: int = 0
    misjudged: int = 0
    mislabelled: int = 0


@dataclass(frozen=True)
class Observation(ABC):
    """How a block of rows becomes expected sums under given mixtures.

    Attributes
    ----------
    kernel : str
        What computes that, a key of ``choice.WAYS``.
    """

    kernel: str = "numpy"

    name: ClassVar["Missing"]
    holes: ClassVar[bool] = False
    """Whether rows that count may hold NaN."""
    refuses: ClassVar[bool] = False
    """Whether a row that holds NaN is an error."""
    all_count: ClassVar[bool] = False
    """Whether each row that has a weight counts."""
    deconvolves: ClassVar[bool] = False
    """Whether rows are seen with errors; then all is in double precision, and no information of
    complete rows is asked for."""

    labelled: ClassVar[bool] = False
    """Whether of some rows it is known what components they may be of."""

    @property
    def plain(self) -> "Observation":
        """The same for rows without labels."""
        return self

    def invalid(self, block: Block) -> Invalid:
        """What of a block can't be used, so far as that is not seen by its moments."""
        return Invalid()

    def counted(self, block: Block) -> Counted:
        """The block with the rows that count."""
        return Counted(block)

    def allowed(self, block: Block) -> Array | None:
        """How many rows may be of each component, and are known to be: (2, K); None if any may."""
        return None

    def given(self, natural: NaturalParameters) -> NaturalParameters:
        """What an E-step needs of natural parameters."""
        return natural.bare

    @property
    def centres(self) -> bool:
        """Whether all components are to be seen by differences from their means."""
        return self.holes or WAYS[self.kernel].centres

    @property
    def error_bound(self) -> Callable[[Mixture, Away, float], Array]:
        """The bound on the error of log-densities; see ``choice.Kernel``."""
        return WAYS[self.kernel].error_bound

    def row_products(self, given: Given) -> float:
        """About how many products a row takes; 0 where a block must be taken whole.

        Rows with holes are better taken with all of the block that have the same.
        """
        return 0.0

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
    all_count = True

    def row_products(self, given: Given) -> float:
        return given.row_products * WAYS[self.kernel].divides

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        return WAYS[self.kernel].e_step(block, given)


@dataclass(frozen=True)
class Dropped(Observation):
    """Incomplete rows are left out."""

    name = "drop"

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        return rows * (row_bytes + n_features + 16)  # a copy, which rows count, and their weights

    def row_products(self, given: Given) -> float:
        return given.row_products * WAYS[self.kernel].divides

    def counted(self, block: Block) -> Counted:
        incomplete = np.isnan(block.rows).any(axis=1)
        return _without(block, incomplete, incomplete, zeroed=True)

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        return WAYS[self.kernel].e_step(self.counted(block).block, given)


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
        kernel = WAYS[self.kernel]
        return _of_all(block, missing.e_step(block, given, kernel.e_step, kernel.incomplete))


@dataclass(frozen=True)
class Noisy(Observation):
    """Rows have errors whose covariances lie beside them; ``within`` says what NaN means."""

    within: Observation = field(default_factory=Complete)

    holes = True  # what has infinite noise is one
    deconvolves = True

    @property
    def name(self) -> "Missing":  # type: ignore[override]
        return self.within.name

    @property
    def refuses(self) -> bool:  # type: ignore[override]
        return self.within.refuses

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        holes = Marginal(self.kernel).nbytes(rows, row_bytes, n_features, components)
        return holes + noisy.nbytes(rows, row_bytes, n_features, components)

    def given(self, natural: NaturalParameters) -> NaturalParameters:
        return natural

    def invalid(self, block: Block) -> Invalid:
        rows = first_invalid_row(block, not self.within.refuses)
        noise = first_invalid_noise(block)
        first = rows or noise
        if first is None:
            return Invalid()
        return Invalid(first[0], rows[1] if rows else 0, noise[1] if noise else 0)

    def counted(self, block: Block) -> Counted:
        within = self.within.counted(block)
        masked = noisy.masked(within.block)
        holes = np.isnan(masked.rows)
        without_empty = _without(masked, holes.any(axis=1), holes.all(axis=1))
        left_out = within.left_out + without_empty.left_out
        return Counted(without_empty.block, within.left_out + without_empty.incomplete, left_out)

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        block = self.within.counted(block).block
        quiet = Marginal(self.kernel).e_step
        kernel = WAYS[self.kernel]
        return _of_all(block, noisy.e_step(block, given, quiet, kernel.noisy, kernel.e_step))


def _of_all(block: Block, found: Stacked[Statistics]) -> Stacked[Statistics]:
    """What was ``found``, with all rows of the block counted, as the first pass counts them."""
    return Stacked(tuple(replace(each, rows=len(block.rows)) for each in found.parts))


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
    if zeroed:  # those without a weight, too: 0 times NaN is NaN; infinity is told, as ever
        rows = block.rows.copy()
        rows[left_out] = np.where(np.isinf(rows[left_out]), rows[left_out], 0)
        block = replace(block, rows=rows)
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
