"""Rows with holes by compiled code: what is handed to it, and what it hands back."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import missing, native, native_noisy
from dgmm.kernels.missing import Patterns
from dgmm.kernels.natural_parameters import LOWEST, EStep, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.statistics import Stacked, Statistics


def incomplete(
    block: Block, patterns: Patterns, given: Given, complete: EStep
) -> Stacked[Statistics]:
    """The statistics of the rows of some ``patterns`` of holes, under each form.

    In single precision the many rows of a pattern are ``complete`` ones of fewer features, as this
    code has double precision alone.
    """
    mixtures = [each.mixture for each in given.naturals]
    special = any(each.noise_component or each.tails for each in mixtures)
    if special or native.is_wide(given):
        return missing.incomplete(block, patterns, given, complete)
    if any(each.single for each in given.naturals):
        return missing.by_pattern(block, patterns, given, complete, _of_all)
    return _of_all(block, patterns, given)


def _of_all(block: Block, patterns: Patterns, given: Given) -> Stacked[Statistics]:
    """The same by compiled code."""
    rows = replace(block.taken(patterns.rows), noise=None)
    return Stacked(tuple(_of(rows, patterns, given.frame, each) for each in given.naturals))


def _of(rows: Block, patterns: Patterns, frame: Frame, natural: NaturalParameters) -> Statistics:
    """The same under one mixture; ``rows`` are those of the patterns, one after another.

    Where features are uncorrelated, a pattern's rows have no factors to share: so all rows are
    taken alike, as rows with errors of no size.
    """
    if native.LAYOUTS[natural.features].pairs:
        return _of_incomplete(rows, patterns, frame, natural)
    return native_noisy.statistics(rows, frame, natural)


LANES: Final = 8
"""The compiled code takes so many components at a time, or a part of them."""


def _of_incomplete(
    block: Block, patterns: Patterns, frame: Frame, natural: NaturalParameters
) -> Statistics:
    """The same for covariances."""
    mixture, dims = natural.mixture, len(frame.shift)
    count, covariances = mixture.components, mixture.covariances.dense()
    weights = np.empty(0) if block.weights is None else block.weights
    rows = block.rows
    rows = np.ascontiguousarray(rows, np.float32 if rows.dtype == np.float32 else np.float64)
    lanes = count + -count % LANES
    width = 1 + dims + dims * (dims + 1) // 2
    sums, objective, plain = np.zeros((width, lanes)), np.zeros(1), np.zeros(1)
    most = float(natural.penalty.max())
    native.run(
        "incomplete",
        rows.dtype == np.float32,
        most,
        rows,
        native.in_order(weights),
        native.in_order(frame.shift),
        native.in_order(frame.scale),
        np.ascontiguousarray(patterns.ends, np.int64),
        _lanes(mixture.means, lanes, 0.0),
        _lanes(covariances, lanes, np.eye(dims)),
        _lanes(mixture.log_weights - natural.penalty, lanes, LOWEST[0]),
        _lanes(np.exp(natural.penalty - most), lanes, 0.0),
        sums,
        objective,
        plain,
    )
    shares = _weights_of(patterns, None if block.weights is None else weights)
    lost = float(shares @ (~patterns.observed @ np.log(frame.scale)))
    return Statistics(
        np.ascontiguousarray(sums[:, :count].T),
        natural.center,
        float(objective[0]) + lost,
        float(plain[0]) + lost,
        float(shares.sum()),
        len(rows),
    )


def _weights_of(patterns: Patterns, weights: NDArray[Any] | None) -> Array:
    """The weight of the rows of each of ``patterns``; ``weights`` are those of all, in order."""
    counts = patterns.counts
    if weights is None:
        return counts.astype(np.float64)
    return np.add.reduceat(weights.astype(np.float64), patterns.ends - counts)


def _lanes(values: Array, lanes: int, padding: Array | float) -> Array:
    """``values`` (K, ...) with components last, and as many as ``lanes``, by ``padding``."""
    whole = np.empty((lanes, *values.shape[1:]))
    whole[: len(values)] = values
    whole[len(values) :] = padding
    return np.ascontiguousarray(np.moveaxis(whole, 0, -1))
