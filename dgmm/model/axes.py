"""Axes: along which directions components' covariances lie, and which fit best.

A covariance is D_k diag(v_k) D_k' (spectra.py has what v_k may be).  Each member here minimises

    sum_k w_k (log |Sigma_k| + tr(Sigma_k^-1 S_k))

over all covariances with such axes D_k and such eigenvalues, for the scatters S_k that rows show.
Where an M-step is iterative it begins at the covariances before, or at a better place, and no
iteration raises that: so it never lowers the objective of EM.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from dgmm.model.arrays import FLOOR, Array, Mask
from dgmm.model.common_axes import (
    SWEEPS,
    along,
    common,
    level_along,
    mean,
    shared_axes,
    spread_of,
)
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.diagonal import DIAGONAL
from dgmm.model.full import FULL
from dgmm.model.matrices import factors_along, floored_values, matrices_along
from dgmm.model.spectra import ITERATIONS, Spectra, held_up, settled, volumes_of
from dgmm.model.spherical import SPHERICAL

ROUGH: Final = 4
"""Sweeps of all planes at most (see ``SWEEPS``), where a start is looked for, from no other."""


@dataclass(frozen=True)
class Shown:
    """What rows show of covariances, and where the search for the best values begins.

    Attributes
    ----------
    scatters : values of the plain model
    weights : (K,)
    spectra : Spectra
        What eigenvalues may be.
    before : values of the plain model, or None
        Some of the same kind to begin at.
    sweeps : int
        Bounds iterations.
    """

    scatters: Array
    weights: Array
    spectra: Spectra
    before: Array | None = None
    sweeps: int = SWEEPS


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
    def fit(self, shown: Shown) -> Array:
        """The best values for what is ``shown``."""

    def covariances(self, shown: Shown, shape: tuple[int, int]) -> tuple[Covariances, Mask]:
        """The same as covariances of the plain model, and which of them were raised to FLOOR.

        They are of K components of D features, ``shape`` (K, D).
        """
        return self.plain.estimate_of(self.fit(shown), shape).floored()

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

    def fit(self, shown: Shown) -> Array:
        fitted: Array = shown.spectra.fit(shown.scatters[..., None], shown.weights)[..., 0]
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

    def fit(self, shown: Shown) -> Array:
        volumes = None if shown.before is None else volumes_of(shown.before)
        return shown.spectra.fit(shown.scatters, shown.weights, volumes)

    def values_of(self, dense: Array) -> Array:
        return np.diagonal(dense, axis1=-2, axis2=-1)

    def dense_of(self, values: Array, n_features: int) -> Array:
        dense: Array = values[..., None] * np.eye(n_features)
        return dense


@dataclass(frozen=True)
class TurnedAxes(Axes):
    """Directions that need not be those of features; values are matrices (K, D, D)."""

    @abstractmethod
    def parts(self, shown: Shown) -> tuple[Array, Array]:
        """The best axes (K, D, D), or (1, D, D) for all, and eigenvalues (K, D); see ``fit``."""

    def fit(self, shown: Shown) -> Array:
        return matrices_along(*self.parts(shown))

    def covariances(self, shown: Shown, shape: tuple[int, int]) -> tuple[Covariances, Mask]:
        # From the axes, not from the matrices: rounding of these is as large as what is small in
        # them, and takes them out of the family, where the likelihood falls in proportion.
        axes, values = self.parts(shown)
        values, lost = floored_values(values)
        matrices = matrices_along(axes, values), factors_along(axes, values)
        return self.plain.of_factors(*matrices, shape), lost


@dataclass(frozen=True)
class OwnAxes(TurnedAxes):
    """Each component has axes of its own: its scatter's, in the order of their spread."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 0, n_features * (n_features - 1) // 2

    def parts(self, shown: Shown) -> tuple[Array, Array]:
        values, axes = np.linalg.eigh(shown.scatters)
        volumes = None if shown.before is None else _volumes(shown.before)
        return axes, shown.spectra.fit(values, shown.weights, volumes)


@dataclass(frozen=True)
class CommonAxes(TurnedAxes):
    """All components have the same axes, each its own spread along them."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features * (n_features - 1) // 2, 0

    def parts(self, shown: Shown) -> tuple[Array, Array]:
        scatters, weights, spectra = shown.scatters, shown.weights, shown.spectra
        begin = np.linalg.eigh(mean(scatters, weights))[1]
        axes, values = common(scatters, weights, spectra, begin, 0)
        if shown.before is not None:
            shared, own = common(scatters, weights, spectra, shared_axes(shown.before), 0)
            there = level_along(shared, own, scatters, weights)
            nearer = there <= level_along(axes, values, scatters, weights)
            axes = np.where(nearer[..., None, None], shared, axes)
        axes, values = common(scatters, weights, spectra, axes, shown.sweeps)
        return axes[..., None, :, :], values


@dataclass(frozen=True)
class CommonForm(TurnedAxes):
    """All covariances are multiples of one: ``spectra`` is that they have one shape.

    By turns the best multiples, and the best matrix, which is a weighted mean of the scatters: so
    there is nothing to turn.
    """

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features * (n_features - 1) // 2, 0

    def parts(self, shown: Shown) -> tuple[Array, Array]:
        scatters, weights, level = shown.scatters, shown.weights, None
        volumes = _volumes(scatters if shown.before is None else shown.before)
        for _ in range(min(ITERATIONS, 10 * shown.sweeps)):
            values, axes = np.linalg.eigh(mean(scatters, weights / volumes))
            shape = held_up(values)
            shape = (shape / volumes_of(shape)[..., None])[..., None, :]
            axes = axes[..., None, :, :]
            volumes = np.mean(spread_of(along(axes[..., 0, :, :], scatters)) / shape, axis=-1)
            now = np.sum(weights * np.log(volumes), axis=-1) / weights.sum(axis=-1)
            if level is not None and settled(level, now):
                break
            level = now
        return axes, volumes[..., None] * shape


def _volumes(matrices: Array) -> Array:
    """The volumes (K,) of ``matrices`` (K, D, D): the D-th roots of their determinants."""
    values = np.linalg.eigvalsh(matrices)
    return volumes_of(np.maximum(values, FLOOR))
