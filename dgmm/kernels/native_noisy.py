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
    dims, count = len(frame.shift), len(block.rows)
    pairs = block.noise is not None and block.noise.ndim == 3
    full = pairs or native.LAYOUTS[natural.features].pairs
    dual, (objective, plain) = _dual_sums(block, frame, natural, full)
    within = dual[:, 1 + dims :]
    if full:
        second = natural.features.of_matrices(unpack(within, dims))
    else:
        second = natural.features.of_variances(within)
    dual = np.concatenate([dual[:, : 1 + dims], second], axis=1)
    sums = natural.mixture.covariances.deconvolved(dual)
    return Statistics(sums, natural.center, objective, plain, block.weight, count)


def _dual_sums(
    block: Block, frame: Frame, natural: NaturalParameters, full: bool
) -> tuple[Array, tuple[float, float]]:
    """Sums (K, P) of 1, u and u u' - T^-1 (noisy.py), the objective, and the log-likelihood.

    Of matrices the sums are ``full``, upper triangles; else they are diagonals.
    """
    mixture, dims = natural.mixture, len(frame.shift)
    noise, weights = (
        np.empty(0) if each is None else each for each in (block.noise, block.weights)
    )
    means, covariances = mixture.means, mixture.covariances.variances()
    if full:
        means, covariances = _padded(means, mixture.covariances.dense())
    most = float(natural.penalty.max())
    constants, boost = mixture.log_weights - natural.penalty, np.exp(natural.penalty - most)
    least, bounds = NO_SHARE * mixture.weights, NoiseBounds.none()
    many = mixture.components > 1 and len(block.rows) >= noise_bounds.ROWS
    if full and noise.ndim != 3 and many:
        with np.errstate(divide="ignore"):
            cuts = np.log(least * boost.min())
        bounds = NoiseBounds.of(covariances, _shown(noise, frame, covariances), constants, cuts)
    width = 1 + dims + (dims * (dims + 1) // 2 if full else dims)
    dual, objective, plain = np.zeros((mixture.components, width)), np.zeros(1), np.zeros(1)
    single = block.rows.dtype == np.float32
    native.run(
        "noisy",
        *(single, noise.ndim == 3, full, most),
        native.in_order(block.rows, np.float32 if single else np.float64),
        *map(native.in_order, (noise, weights, frame.shift, frame.scale)),
        *map(native.in_order, (means, covariances, constants, boost, least)),
        *(dual, objective, plain),
        *map(native.in_order, (bounds.white, bounds.middle, bounds.slopes)),
        *map(native.in_order, (bounds.under, bounds.ceilings, bounds.cuts)),
    )
    return dual, (float(objective[0]), float(plain[0]))


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
