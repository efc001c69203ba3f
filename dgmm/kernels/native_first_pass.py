"""What the first pass (em/first_pass.py) does with a block, by compiled code."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import native
from dgmm.kernels.native import UNUSABLE, in_order, run
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array


@dataclass(frozen=True)
class Moments:
    """Of a block's rows that have a weight: their number and weight, and as in ``DataMoments``."""

    weighted: int
    weight: float
    mean: Array
    scatter: Array
    low: Array
    high: Array


def moments(block: Block, pairs: bool) -> Moments | None:
    """The moments of one of ``native.pieces``; None if it has a NaN, a bad weight or the like.

    None, too, where sums overflow that others' ways to add might not let overflow.
    """
    n_features = block.rows.shape[1]
    totals, mean = np.zeros(2), np.zeros(n_features)
    scatter = np.zeros((n_features, n_features) if pairs else n_features)
    low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    weights = np.empty(0) if block.weights is None else block.weights
    status = run(
        "first_pass",
        block.rows.dtype == np.float32,
        pairs,
        block.rows,
        in_order(weights),
        *(totals, mean, scatter, low, high),
    )
    if status == UNUSABLE:
        return None
    return Moments(int(totals[0]), float(totals[1]), mean, scatter, low, high)


def draw(start: int, count: int, seed: int, least: int) -> NDArray[np.int64]:
    """Of ``count`` row numbers from ``start`` on, those whose hash is ``least`` or more.

    They are ``native.DRAWN`` at most.
    """
    numbers = native.scratch.numbers
    drawn = native.compiled.draw(native.VARIANT, start, seed, least, numbers[:count])
    return numbers[:drawn].copy()
