"""Rows with known errors by compiled code: what is handed to it, and what it hands back."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import native, noise_bounds, noisy
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.noise_bounds import NoiseBounds
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.matrices import unpack
from dgmm.model.statistics import Stacked, Statistics

NO_SHARE: Final = 1e-15
"""Of a row with noise: over a component's weight, a share that is lost beside those of others."""


SIDE: Final = 4
"""Compiled code takes matrices of rows with noise in blocks of so many rows and columns."""


def with_noise(block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of rows that all have noise, a value each, and weight."""
    if native.is_wide(given) or any(each.mixture.noise_component for each in given.naturals):
        return noisy.noisy(block, given)
    return Stacked(tuple(statistics(block, given.frame, each) for each in given.naturals))


def statistics(block: Block, frame: Frame, natural: NaturalParameters) -> Statistics:
    """The same under one mixture; without noise, too, if features are uncorrelated."""
    mixture, dims = natural.mixture, len(frame.shift)
    noise = np.empty(0) if block.noise is None else block.noise
    pairs = noise.ndim == 3
    full = pairs or native.LAYOUTS[natural.features].pairs
    if full:
        means, covariances = _padded(mixture.means, mixture.covariances.dense())
    else:
        means, covariances = mixture.means, mixture.covariances.variances()
    weights = np.empty(0) if block.weights is None else block.weights
    width = 1 + dims + (dims * (dims + 1) // 2 if full else dims)
    dual, objective, plain = np.zeros((mixture.components, width)), np.zeros(1), np.zeros(1)
    most = float(natural.penalty.max())
    constants, boost = mixture.log_weights - natural.penalty, np.exp(natural.penalty - most)
    least, bounds = NO_SHARE * mixture.weights, NoiseBounds.none()
    if full and not pairs and mixture.components > 1 and len(block.rows) >= noise_bounds.ROWS:
        with np.errstate(divide="ignore"):
            cuts = np.log(least * boost.min())
        bounds = NoiseBounds.of(covariances, _shown(noise, frame, covariances), constants, cuts)
    real = np.float32 if block.rows.dtype == np.float32 else np.float64
    native.run(
        "noisy",
        real is np.float32,
        pairs,
        full,
        most,
        native.in_order(block.rows, real),
        native.in_order(noise),
        native.in_order(weights),
        native.in_order(frame.shift),
        native.in_order(frame.scale),
        native.in_order(means),
        native.in_order(covariances),
        native.in_order(constants),
        native.in_order(boost),
        native.in_order(least),
        *(dual, objective, plain),
        *map(native.in_order, (bounds.white, bounds.middle, bounds.slopes)),
        *map(native.in_order, (bounds.under, bounds.ceilings, bounds.cuts)),
    )
    within = dual[:, 1 + dims :]
    if full:
        second = natural.features.of_matrices(unpack(within, dims))
    else:
        second = natural.features.of_variances(within)
    dual = np.concatenate([dual[:, : 1 + dims], second], axis=1)
    count = len(block.rows)
    weight = float(count if block.weights is None else weights.sum(dtype=np.float64))
    sums = mixture.covariances.deconvolved(dual)
    return Statistics(sums, natural.center, float(objective[0]), float(plain[0]), weight, count)


def _shown(noise: NDArray[Any], frame: Frame, covariances: Array) -> Array:
    """Some of the variances of ``noise`` (n, D), in the frame, and 0 for more features."""
    some = noise[:: len(noise) // noise_bounds.ROWS].astype(np.float64)
    wide = np.zeros((len(some), covariances.shape[1]))
    with np.errstate(over="ignore"):
        wide[:, : noise.shape[1]] = some / frame.scale / frame.scale
    return wide


def _padded(means: Array, covariances: Array) -> tuple[Array, Array]:
    """The same with more features, of variance 1, so that they are a multiple of ``SIDE``."""
    components, dims = means.shape
    size = -(-dims // SIDE) * SIDE
    wide, whole = np.zeros((components, size)), np.zeros((components, size, size))
    wide[:, :dims], whole[:, :dims, :dims] = means, covariances
    whole[:, range(dims, size), range(dims, size)] = 1
    return wide, whole
