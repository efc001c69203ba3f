"""Ways to move covariances by which they stay positive definite, in whatever units.

From S = L L' a step E leads to L exp(L^-1 E L^-T) L': to first order it is S + E, and to second
order it is along the geometry of normal distributions, so that variances move by their logarithms
(Moakher, A differential geometric approach to the geometric mean of symmetric positive-definite
matrices, 2005).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from dgmm.model.arrays import Array


@dataclass(frozen=True)
class Chart(ABC):
    """Covariances, seen from these ``values``."""

    values: Array

    @abstractmethod
    def at(self, steps: Array) -> Array:
        """Where ``steps`` (..., of the shape of the values) lead."""

    @abstractmethod
    def slopes(self, steps: Array, slopes: Array) -> Array:
        """The derivatives by the ``steps``, from those by the covariances where they lead."""


@dataclass(frozen=True)
class Variances(Chart):
    """Each by itself."""

    def at(self, steps: Array) -> Array:
        return np.asarray(self.values * np.exp(steps / self.values))

    def slopes(self, steps: Array, slopes: Array) -> Array:
        return np.asarray(slopes * np.exp(steps / self.values))


@dataclass(frozen=True)
class Matrices(Chart):
    """(..., D, D).  Derivatives are by the entries i <= j, and stand at j, i, too."""

    @property
    def _lower(self) -> Array:
        lower: Array = np.linalg.cholesky(self.values).astype(np.float64, copy=False)
        return lower

    def _axes(self, steps: Array) -> tuple[Array, Array]:
        """The eigenvalues and eigenvectors of L^-1 E L^-T."""
        lower = self._lower
        white = np.linalg.solve(lower, np.linalg.solve(lower, steps).swapaxes(-1, -2))
        logs, axes = np.linalg.eigh((white + white.swapaxes(-1, -2)) / 2)
        return logs, axes

    def at(self, steps: Array) -> Array:
        logs, axes = self._axes(steps)
        roots = self._lower @ (axes * np.exp(logs / 2)[..., None, :])
        return np.asarray(roots @ roots.swapaxes(-1, -2))

    def slopes(self, steps: Array, slopes: Array) -> Array:
        """By the derivative of the matrix exponential (Daleckii and Krein, 1965)."""
        logs, axes = self._axes(steps)
        half = 0.5 * (logs[..., :, None] - logs[..., None, :])
        mean = np.exp(0.5 * (logs[..., :, None] + logs[..., None, :]))
        with np.errstate(invalid="ignore"):
            ratios = mean * np.where(half == 0, 1.0, np.sinh(half) / half)
        lower, once = self._lower, 0.5 + 0.5 * np.eye(slopes.shape[-1])
        turned = lower @ axes
        slopes = slopes * once
        turned_slopes = (
            axes @ (ratios * (turned.swapaxes(-1, -2) @ slopes @ turned)) @ axes.swapaxes(-1, -2)
        )
        upper = lower.swapaxes(-1, -2)
        solved = np.linalg.solve(upper, np.linalg.solve(upper, turned_slopes).swapaxes(-1, -2))
        return np.asarray(solved / once)
