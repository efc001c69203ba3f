"""Axes: along which directions components' covariances lie, and which fit best.

A covariance is D_k diag(v_k) D_k' (spectra.py has what v_k may be).  Each member here minimises

    sum_k w_k (log |Sigma_k| + tr(Sigma_k^-1 S_k))

over all covariances with such axes D_k and such eigenvalues, for the scatters S_k that rows show.
Where an M-step is iterative it begins at the covariances before, or at a better place, and no
iteration raises that: so it never lowers the objective of EM.

**Common axes.**  With eigenvalues given, what is left is sum_d d' (sum_k w_k S_k / v_kd) d over
orthonormal columns d.  Turning two of them in their plane has a closed form, the smaller
eigenvector of a 2 x 2 matrix, and after a turn so have the two eigenvalues with their product as it
was (after Flury and Gautschi, An algorithm for simultaneous orthogonal transformation of several
positive definite symmetric matrices to nearly diagonal form, 1986; mclust's steps, of Browne and
McNicholas, Estimating common principal components in high dimensions, 2014, take thousands where
this takes a few sweeps).  Planes that have no column in common are turned at once.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import FLOOR, Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.diagonal import DIAGONAL
from dgmm.model.full import FULL
from dgmm.model.spectra import ITERATIONS, OwnSpectra, Spectra, settled, volumes_of
from dgmm.model.spherical import SPHERICAL

SWEEPS: Final = 500
"""Of all planes, in one M-step."""

ROUGH: Final = 4
"""The same, where a start is looked for, and there is none to go on from."""


@dataclass(frozen=True)
class Axes(ABC):
    """Directions that covariances may have.

    Values are those of covariances of the ``plain`` model, which knows of no constraint; there may
    be more axes of an array before theirs.
    """

    plain: ClassVar[CovarianceModel] = FULL

    @abstractmethod
    def parameters(self, n_features: int) -> tuple[int, int]:
        """The free parameters that components have in common, and each of its own."""

    @abstractmethod
    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        """The best values for ``scatters``, values of the plain model, of ``weights`` (K,).

        ``before`` are some of the same kind to begin at; ``sweeps`` bounds iterations.
        """

    def directions(self, n_features: int) -> int:
        """In how many directions covariances have a spread of their own."""
        return n_features

    def values_of(self, dense: Array) -> Array:
        """The values that ``dense`` (K, D, D) covariances of the plain model have."""
        return dense

    def dense_of(self, values: Array, n_features: int) -> Array:
        """And back."""
        return values


@dataclass(frozen=True)
class NoAxes(Axes):
    """Covariances have the same spread in all directions; values are variances (K,)."""

    plain = SPHERICAL

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 0, 0

    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        fitted: Array = spectra.fit(scatters[..., None], weights)[..., 0]
        return fitted

    def directions(self, n_features: int) -> int:
        return 1

    def values_of(self, dense: Array) -> Array:
        values: Array = dense[..., 0, 0]
        return values

    def dense_of(self, values: Array, n_features: int) -> Array:
        dense: Array = values[..., None, None] * np.eye(n_features)
        return dense


@dataclass(frozen=True)
class FeatureAxes(Axes):
    """Covariances lie along the features; values are variances (K, D)."""

    plain = DIAGONAL

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 0, 0

    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        volumes = None if before is None else volumes_of(before)
        return spectra.fit(scatters, weights, volumes)

    def values_of(self, dense: Array) -> Array:
        return np.diagonal(dense, axis1=-2, axis2=-1)

    def dense_of(self, values: Array, n_features: int) -> Array:
        dense: Array = values[..., None] * np.eye(n_features)
        return dense


@dataclass(frozen=True)
class OwnAxes(Axes):
    """Each component has axes of its own: its scatter's, in the order of their spread."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 0, n_features * (n_features - 1) // 2

    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        values, axes = np.linalg.eigh(scatters)
        volumes = None if before is None else _volumes(before)
        return _matrices(axes, spectra.fit(values, weights, volumes))


@dataclass(frozen=True)
class CommonAxes(Axes):
    """All components have the same axes, each its own spread along them."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features * (n_features - 1) // 2, 0

    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        begin = np.linalg.eigh(_mean(scatters, weights))[1]
        axes, values = _common(scatters, weights, spectra, begin, 0)
        if before is not None:
            begun = _common(scatters, weights, spectra, _shared_axes(before), 0)
            nearer = _level(*begun, scatters, weights) <= _level(axes, values, scatters, weights)
            axes = np.where(nearer[..., None, None], begun[0], axes)
        return _matrices(*_common(scatters, weights, spectra, axes, sweeps))


@dataclass(frozen=True)
class CommonForm(Axes):
    """All covariances are multiples of one: ``spectra`` is that they have one shape.

    By turns the best multiples, and the best matrix, which is a weighted mean of the scatters: so
    there is nothing to turn.
    """

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features * (n_features - 1) // 2, 0

    def fit(
        self,
        scatters: Array,
        weights: Array,
        spectra: Spectra,
        before: Array | None = None,
        sweeps: int = SWEEPS,
    ) -> Array:
        n_features = scatters.shape[-1]
        scatters = scatters + FLOOR * np.eye(n_features)
        volumes = _volumes(scatters if before is None else before)
        level = None
        for _ in range(min(ITERATIONS, 10 * sweeps)):
            form = _mean(scatters, weights / volumes)
            form = form / _volumes(form[..., None, :, :])[..., None]
            inverse: Array = np.linalg.inv(form).astype(np.float64, copy=False)
            volumes = _traces(inverse, scatters) / n_features
            now = n_features * np.sum(weights * np.log(volumes), axis=-1) / weights.sum(axis=-1)
            if level is not None and settled(level, now):
                break
            level = now
        fitted: Array = volumes[..., None, None] * form[..., None, :, :]
        return fitted


def _volumes(matrices: Array) -> Array:
    """The volumes (K,) of ``matrices`` (K, D, D): the D-th roots of their determinants."""
    values = np.linalg.eigvalsh(matrices)
    return volumes_of(np.maximum(values, FLOOR))


def _mean(matrices: Array, weights: Array) -> Array:
    """The mean (D, D) of ``matrices`` (K, D, D) by ``weights`` (K,)."""
    total: Array = weights.sum(axis=-1)[..., None, None]
    mean: Array = np.einsum("...k,...kij->...ij", weights, matrices) / total
    return mean


def _traces(inverse: Array, scatters: Array) -> Array:
    """The traces (K,) of ``inverse`` (D, D) times ``scatters`` (K, D, D)."""
    traces: Array = np.einsum("...ij,...kij->...k", inverse, scatters)
    return traces


def _matrices(axes: Array, values: Array) -> Array:
    """Covariances (K, D, D) of these ``axes`` (K, D, D), or (D, D), and ``values`` (K, D)."""
    axes = axes if axes.ndim > values.ndim else axes[..., None, :, :]
    roots = axes * np.sqrt(values)[..., None, :]
    made = roots @ roots.swapaxes(-1, -2)
    return (made + made.swapaxes(-1, -2)) / 2


def _along(axes: Array, scatters: Array) -> Array:
    """D' S D for each of ``scatters``."""
    every = axes[..., None, :, :]
    turned: Array = every.swapaxes(-1, -2) @ scatters @ every
    return turned


def _spread(turned: Array) -> Array:
    """The diagonals (K, D)."""
    return np.maximum(np.diagonal(turned, axis1=-2, axis2=-1), FLOOR)


def _level(axes: Array, values: Array, scatters: Array, weights: Array) -> Array:
    """What is minimised, for a weight of 1."""
    return _level_of(values, _spread(_along(axes, scatters)), weights)


def _level_of(values: Array, spread: Array, weights: Array) -> Array:
    each = np.sum(np.log(values) + spread / values, axis=-1)
    level: Array = np.sum(weights * each, axis=-1) / weights.sum(axis=-1)
    return level


def _shared_axes(covariances: Array) -> Array:
    """The axes (D, D) that all of these ``covariances`` (K, D, D) have, but for rounding."""
    traces = np.trace(covariances, axis1=-2, axis2=-1)
    count = covariances.shape[-3]
    odd = 0.5 + (np.arange(count) + 1) * 0.6180339887498949 % 1  # so that no two spreads tie
    begin = np.linalg.eigh(_mean(covariances, odd / traces))[1]
    even = np.ones(covariances.shape[:-2])
    return _common(covariances, even, OwnSpectra(), begin, SWEEPS)[0]


def _common(
    scatters: Array, weights: Array, spectra: Spectra, axes: Array, sweeps: int
) -> tuple[Array, Array]:
    """The best axes (D, D) from ``axes`` on, and the best eigenvalues (K, D) for them."""
    n_features = scatters.shape[-1]
    turned = _along(axes, scatters)
    spread = _spread(turned)
    values = spectra.fit(spread, weights)
    level = _level_of(values, spread, weights)
    if n_features == 1:
        return axes, values
    shares = weights / weights.sum(axis=-1, keepdims=True)
    for _ in range(sweeps):
        axes = _swept(axes, turned, shares, values)
        turned = _along(axes, scatters)
        spread = _spread(turned)
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
