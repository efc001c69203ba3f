"""Common axes of several covariances: the directions along which all of them fit best.

With eigenvalues given, what is left is sum_d d' (sum_k w_k S_k / v_kd) d over orthonormal columns
d. Turning two of them in their plane has a closed form, the smaller eigenvector of a 2 x 2 matrix,
and after a turn so have the two eigenvalues with their product as it was (after Flury and Gautschi,
An algorithm for simultaneous orthogonal transformation of several positive definite symmetric
matrices to nearly diagonal form, 1986; mclust's steps, of Browne and McNicholas, Estimating common
principal components in high dimensions, 2014, take thousands where this takes a few sweeps). Planes
that have no column in common are turned at once.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import FLOOR, Array
from dgmm.model.spectra import OwnSpectra, Spectra, settled, volumes_of

SWEEPS: Final = 500
"""Of all planes, in one M-step."""


def mean(matrices: Array, weights: Array) -> Array:
    """The mean (D, D) of ``matrices`` (K, D, D) by ``weights`` (K,)."""
    total: Array = weights.sum(axis=-1)[..., None, None]
    mean: Array = np.einsum("...k,...kij->...ij", weights, matrices) / total
    return mean


def along(axes: Array, scatters: Array) -> Array:
    """D' S D for each of ``scatters``."""
    every = axes[..., None, :, :]
    turned: Array = every.swapaxes(-1, -2) @ scatters @ every
    return turned


def spread_of(turned: Array) -> Array:
    """The diagonals (K, D)."""
    return np.maximum(np.diagonal(turned, axis1=-2, axis2=-1), FLOOR)


def level_along(axes: Array, values: Array, scatters: Array, weights: Array) -> Array:
    """What is minimised, for a weight of 1."""
    return _level_of(values, spread_of(along(axes, scatters)), weights)


def _level_of(values: Array, spread: Array, weights: Array) -> Array:
    each = np.sum(np.log(values) + spread / values, axis=-1)
    level: Array = np.sum(weights * each, axis=-1) / weights.sum(axis=-1)
    return level


def shared_axes(covariances: Array) -> Array:
    """The axes (D, D) that all of these ``covariances`` (K, D, D) have, but for rounding."""
    traces = np.trace(covariances, axis1=-2, axis2=-1)
    count = covariances.shape[-3]
    odd = 0.5 + (np.arange(count) + 1) * 0.6180339887498949 % 1  # so that no two spreads tie
    begin = np.linalg.eigh(mean(covariances, odd / traces))[1]
    even = np.ones(covariances.shape[:-2])
    return common(covariances, even, OwnSpectra(), begin, SWEEPS)[0]


def common(
    scatters: Array, weights: Array, spectra: Spectra, axes: Array, sweeps: int
) -> tuple[Array, Array]:
    """The best axes (D, D) from ``axes`` on, and the best eigenvalues (K, D) for them."""
    n_features = scatters.shape[-1]
    turned = along(axes, scatters)
    spread = spread_of(turned)
    values = spectra.fit(spread, weights)
    level = _level_of(values, spread, weights)
    if n_features == 1:
        return axes, values
    shares = weights / weights.sum(axis=-1, keepdims=True)
    for _ in range(sweeps):
        axes = _swept(axes, turned, shares, values)
        turned = along(axes, scatters)
        spread = spread_of(turned)
        values = spectra.fit(spread, weights, volumes_of(values))
        before, level = level, _level_of(values, spread, weights)
        if settled(before, level):
            break
    return axes, values


@cache
def _rounds(n_features: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """All pairs of columns, in rounds that have no column twice, as in a tournament."""
    size = n_features + n_features % 2
    places, rounds = list(range(size)), []
    for _ in range(size - 1):
        pairs = [(places[i], places[-1 - i]) for i in range(size // 2)]
        real = [(min(pair), max(pair)) for pair in pairs if max(pair) < n_features]
        first, second = np.array(real, dtype=np.intp).T
        rounds.append((first, second))
        places = [places[0], places[-1], *places[1:-1]]
    return tuple(rounds)


def _swept(axes: Array, turned: Array, shares: Array, values: Array) -> Array:
    """The ``axes`` (D, D) after each pair of columns was turned once.

    ``turned`` (K, D, D) are the scatters as the axes see them, ``values`` (K, D) the eigenvalues.
    """
    weights, turned, axes = shares[..., None] / values, turned.copy(), axes.copy()
    own = shares[..., None]
    for i, j in _rounds(axes.shape[-1]):
        ii, jj, ij = turned[..., i, i], turned[..., j, j], turned[..., i, j]
        light = weights[..., i] - weights[..., j]
        across = np.sum(light * (ii - jj), axis=-2)
        beside = 2 * np.sum(light * ij, axis=-2)
        size = np.sum(np.abs(light) * (ii + jj), axis=-2)
        still = np.hypot(across, beside) <= 1e-15 * size
        angle = np.where(still, 0.0, 0.5 * np.arctan2(-beside, -across))
        turn = np.cos(angle)[..., None, :], np.sin(angle)[..., None, :]
        _turn(axes, i, j, *turn)
        turn = turn[0][..., None, :], turn[1][..., None, :]
        _turn(turned, i, j, *turn)
        _turn(turned.swapaxes(-1, -2), i, j, *turn)
        ii, jj = np.maximum(turned[..., i, i], FLOOR), np.maximum(turned[..., j, j], FLOOR)
        product = np.sqrt(weights[..., i] * weights[..., j])
        ratio = np.where(own > 0, np.sqrt(jj / ii), 1.0)
        weights[..., i], weights[..., j] = product * ratio, product / ratio
    return axes


def _turn(
    columns: Array, i: NDArray[np.intp], j: NDArray[np.intp], cosine: Array, sine: Array
) -> None:
    """Turn pairs of columns in their planes, in place."""
    first, second = columns[..., i], columns[..., j]
    columns[..., i] = cosine * first + sine * second
    columns[..., j] = cosine * second - sine * first
