"""Volumes and shapes: what the eigenvalues of components' covariances may be, and which fit best.

An eigenvalue matrix is written lambda_k A_k, with |A_k| = 1: lambda_k is the *volume* of component
k and A_k its *shape* (Banfield and Raftery, Model-based Gaussian and non-Gaussian clustering, 1993;
Celeux and Govaert, Gaussian parsimonious clustering models, 1995, whose section 4 has these
M-steps).  Each rule here minimises

    sum_k w_k sum_d (log v_kd + s_kd / v_kd)

over its ``v`` (K, D), for ``s`` (K, D) that the rows show along the axes, of weights ``w`` (K,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.model.arrays import FLOOR, Array

TOLERANCE: Final = 1e-14
"""Iterative M-steps end when one more iteration gains no more than this part of what is minimised,
or of 1 if that is more: rounding, in nats for a row."""

ITERATIONS: Final = 1000
"""How many iterations they have at most; what there is then is no worse than any before."""


ROUNDED: Final = 1e-13
"""Of a component's largest eigenvalue: where it shares a volume or shape, none is smaller."""


@dataclass(frozen=True)
class Spectra(ABC):
    """What volumes and shapes components may have.  Arrays may have more axes before these."""

    @abstractmethod
    def parameters(self, n_features: int) -> tuple[int, int]:
        """How many free parameters components have in common, and how many each has for itself."""

    @abstractmethod
    def fit(self, observed: Array, weights: Array, volumes: Array | None = None) -> Array:
        """The eigenvalues (K, D) that fit those ``observed`` (K, D), of ``weights`` (K,), best.

        ``volumes`` (K,) are where an iteration begins.
        """


@dataclass(frozen=True)
class OneSpectrum(Spectra):
    """One volume and one shape."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features, 0

    def fit(self, observed: Array, weights: Array, volumes: Array | None = None) -> Array:
        mean = np.sum(weights[..., None] * observed, axis=-2, keepdims=True)
        mean = np.maximum(mean / weights.sum(axis=-1)[..., None, None], FLOOR)
        return np.broadcast_to(mean, observed.shape)


@dataclass(frozen=True)
class OwnShapes(Spectra):
    """One volume; each component has a shape of its own."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 1, n_features - 1

    def fit(self, observed: Array, weights: Array, volumes: Array | None = None) -> Array:
        safe = held_up(observed)
        observed_volumes = volumes_of(safe)
        volume = np.sum(weights * observed_volumes, axis=-1) / weights.sum(axis=-1)
        fitted: Array = safe * (volume[..., None] / observed_volumes)[..., None]
        return fitted


@dataclass(frozen=True)
class OwnVolumes(Spectra):
    """One shape; each component has a volume of its own.

    By turns the best volumes for the shape, and the best shape for the volumes.  In logarithms the
    problem is convex: there is one minimum.
    """

    def parameters(self, n_features: int) -> tuple[int, int]:
        return n_features - 1, 1

    def fit(self, observed: Array, weights: Array, volumes: Array | None = None) -> Array:
        safe = held_up(observed)
        volumes = volumes_of(safe) if volumes is None else np.maximum(volumes, FLOOR)
        volumes, shape = _turned(safe, weights, volumes)
        level = _level(volumes, weights)
        for _ in range(ITERATIONS):
            volumes, shape = _turned(safe, weights, volumes)
            before, level = level, _level(volumes, weights)
            if settled(before, level):
                break
        fitted: Array = volumes[..., None] * shape
        return fitted


@dataclass(frozen=True)
class OwnSpectra(Spectra):
    """A volume and a shape of its own for each component."""

    def parameters(self, n_features: int) -> tuple[int, int]:
        return 0, n_features

    def fit(self, observed: Array, weights: Array, volumes: Array | None = None) -> Array:
        return np.maximum(observed, FLOOR)


def settled(before: Array, level: Array) -> bool:
    """Whether no ``level`` is below what it was ``before`` by more than rounding."""
    return not np.any(before - level > TOLERANCE * np.maximum(1.0, np.abs(level)))


def held_up(eigenvalues: Array) -> Array:
    """The ``eigenvalues`` (K, D), none smaller than the rounding of its component's largest."""
    least: Array = np.maximum(FLOOR, ROUNDED * eigenvalues.max(axis=-1, keepdims=True))
    return np.maximum(eigenvalues, least)


def volumes_of(values: Array) -> Array:
    """The volumes (K,) of eigenvalues (K, D): their geometric means."""
    volumes: Array = np.exp(np.log(values).mean(axis=-1))
    return volumes


def mean_weights(weights: Array) -> Array:
    """``weights`` (K,) that sum to 1; equal where there are none."""
    total = weights.sum(axis=-1, keepdims=True)
    even = np.full_like(weights, 1 / weights.shape[-1])
    return np.where(total > 0, weights / np.where(total > 0, total, 1.0), even)


def _turned(observed: Array, weights: Array, volumes: Array) -> tuple[Array, Array]:
    """The best volumes (K,) for the best shape (1, D), which is that for the ``volumes``."""
    shape = np.sum((weights / volumes)[..., None] * observed, axis=-2, keepdims=True)
    shape = shape / volumes_of(shape)[..., None]
    return np.mean(observed / shape, axis=-1), shape


def _level(volumes: Array, weights: Array) -> Array:
    """What is minimised, over D, but for a constant; the volumes are the best for the shape."""
    level: Array = np.sum(weights * np.log(volumes), axis=-1) / weights.sum(axis=-1)
    return level
