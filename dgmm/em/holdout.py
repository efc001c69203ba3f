"""Rows that are held out, chosen by their numbers: the same ones in every sweep."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.sample import uniform
from dgmm.errors import DataError
from dgmm.kernels.sweep import Block, Sweep

HELD: Final = 0.1
"""The share of rows held out."""

MANY: Final = 10_000
"""Of so many rows some are held out and most are not, whatever their numbers hash to."""


def share_of(numbers: NDArray[np.int64], seed: int, fitted: int) -> float:
    """Below what hash rows are held out: about ``HELD``, but at least one row is.

    At least ``fitted`` rows are not.  ``numbers`` are those of the rows that have any weight;
    raises ``DataError`` if they are too few.
    """
    if not len(numbers):
        return HELD  # there is nothing to fit, as the first pass will say
    if len(numbers) <= fitted:
        raise DataError(
            f"held-out rows are not fitted to, and n_components = {fitted} want as many others: "
            f"n_samples = {len(numbers)} (of weight above 0) is too few. Use more rows, fewer "
            "components, or another criterion"
        )
    keys = np.sort(uniform(numbers, seed))
    return float(min(max(HELD, np.nextafter(keys[0], 1.0)), keys[-fitted]))


@dataclass(frozen=True)
class Part:
    """Rows held out, or all others: ``fn`` applied to a block where the rest has no weight."""

    fn: Callable[[Block, Any], Any]
    seed: int
    held: bool
    share: float = HELD

    def __call__(self, block: Block, given: Any) -> Any:
        numbers = np.arange(block.start, block.start + len(block.rows), dtype=np.int64)
        inside = (uniform(numbers, self.seed) < self.share) == self.held
        weights = np.ones(len(numbers)) if block.weights is None else block.weights
        return self.fn(replace(block, weights=np.where(inside, weights, 0.0)), given)


class Counted:
    """A sweep over the rows to be fitted, or over those held out, that counts its calls.

    ``share`` of the rows are held out; None if all are to be fitted.
    """

    def __init__(self, sweep: Sweep, share: float | None, seed: int) -> None:
        self._sweep, self._share, self._seed = sweep, share, seed
        self.passes = 0

    def __call__(self, fn: Callable[[Block, Any], Any], given: Any, held: bool = False) -> Any:
        self.passes += 1
        part = fn if self._share is None else Part(fn, self._seed, held, self._share)
        return self._sweep(part, given)
