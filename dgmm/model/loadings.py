"""Loadings L (K, D, q) beside noise variances psi (K, D): their rotation, start, and spectrum."""

from typing import Final

import numpy as np
from scipy.linalg import eigh

from dgmm.model.arrays import FLOOR, Array, finite

LEAST_SPREAD: Final = 0.01
"""Where a start sees no factor, one of this variance beside the noise is there to be found."""

LEAST_NOISE: Final = 0.01
"""A start leaves so much of a feature's variance to its noise at least."""


def packed(psi: Array, loadings: Array) -> Array:
    """Both as one array (K, D, 1 + q), in the order of rows: bits depend on the order in memory."""
    whole = np.empty((*psi.shape, 1 + loadings.shape[2]))
    whole[:, :, 0], whole[:, :, 1:] = psi, loadings
    return whole


def canonical(psi: Array, loadings: Array) -> Array:
    """The ``loadings`` (K, D, q) in the rotation in which L' diag(psi)^-1 L is diagonal.

    Its diagonal descends, and the largest number of each column is positive.
    """
    root = np.sqrt(psi)[:, :, None]
    left, sizes, _ = np.linalg.svd(finite(loadings / root), full_matrices=False)
    turned: Array = np.zeros_like(loadings)
    turned[:, :, : sizes.shape[1]] = left * sizes[:, None] * root
    places = np.abs(turned).argmax(axis=1)[:, None]
    signs = np.where(np.take_along_axis(turned, places, axis=1) < 0, -1.0, 1.0)
    turned *= signs
    return turned


def beside(along: Array, shrink: Array, white: Array) -> Array:
    """``along`` diag(``shrink``) ``along``' times vectors ``white`` (K, D)."""
    factors = np.matmul(white[:, None], along) * shrink[:, None]
    product: Array = np.matmul(along, factors.swapaxes(1, 2))[:, :, 0]
    return product


def principal(x: Array, weights: Array, variances: Array, n_factors: int) -> tuple[Array, Array]:
    """Noise (D,) and loadings (D, q) by principal components of rows ``x`` (D, n).

    In units in which the ``variances`` (D,) are 1; there, the mean of the rows' other variances is
    noise.
    """
    root, n_features = np.sqrt(variances), len(x)
    psi, loadings = variances.copy(), np.zeros((n_features, n_factors))
    whole = weights.sum()
    if x.shape[1] < 2 or not whole > 0:
        return psi, loadings
    scaled = x / root[:, None] * np.sqrt(weights / whole)
    wide = x.shape[1] >= n_features
    square = scaled @ scaled.T if wide else scaled.T @ scaled
    count = min(n_factors, len(square))
    values, vectors = eigh(square, subset_by_index=(len(square) - count, len(square) - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    rest = max(float(np.trace(square) - values.sum()), 0.0) / max(n_features - count, 1)
    if not wide:
        vectors = scaled @ vectors / np.sqrt(np.maximum(values, FLOOR))
    size = np.maximum(values - rest, LEAST_SPREAD * max(rest, LEAST_NOISE))
    loadings[:, :count] = root[:, None] * vectors * np.sqrt(size)
    psi = np.maximum(variances - np.sum(loadings * loadings, axis=1), LEAST_NOISE * variances)
    return psi, loadings


def least_eigenvalue(values: Array, amounts: Array) -> Array:
    """The smallest eigenvalue (K,) of each psi + L L' relative to diag(``amounts``).

    By bisection: of psi + L L' as many eigenvalues are below t as of psi are, less the negative
    ones of I + L' (psi - t)^-1 L (Haynsworth, Determination of the inertia of a partitioned
    Hermitian matrix, 1968).  Below 1e-9 it is only known to be that.
    """
    psi = values[:, :, 0] / amounts
    loadings = values[:, :, 1:] / np.sqrt(amounts)[:, None]
    count = loadings.shape[2]
    order = np.sort(psi, axis=1)
    low = np.log(np.clip(order[:, 0], 1e-9, None))
    if count < psi.shape[1]:  # L L' lifts at most q of them
        most = order[:, count]
    else:  # none is below the smallest on the diagonal
        most = np.min(psi + np.sum(loadings * loadings, axis=2), axis=1)
    high = np.log(np.clip(most, 1e-9, None))
    for _ in range(40):
        middle = (low + high) / 2
        off = psi - np.exp(middle)[:, None]
        off = np.where(np.abs(off) < 1e-200, 1e-200, off)  # squares are below 1e100
        inner = np.eye(count) + loadings.swapaxes(1, 2) @ (loadings / off[:, :, None])
        below = (off < 0).sum(axis=1) - (np.linalg.eigvalsh(inner) < 0).sum(axis=1)
        low, high = np.where(below > 0, low, middle), np.where(below > 0, middle, high)
    return np.exp(high)
