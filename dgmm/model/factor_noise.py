"""The noise variances of factor analysers: which of them components and features share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dgmm.model.arrays import Array, Mask


class NoiseVariances(ABC):
    """Which noise variances psi (K, D) a model has.

    Attributes
    ----------
    name : str
    same : str
        Where they are the same, in words.
    """

    name: ClassVar[str]
    same: ClassVar[str]

    @abstractmethod
    def own(self, n_features: int) -> int:
        """How many each component has of its own."""

    @abstractmethod
    def common(self, n_features: int) -> int:
        """How many all components share."""

    @abstractmethod
    def pooled(self, psi: Array, counts: Array) -> Array:
        """The M-step's, from each component's and feature's own, of so many rows (K,)."""

    @abstractmethod
    def seen_by(self, counts: Array) -> Array:
        """By how many rows each component's are known, (K,), where it has so many ``counts``."""

    @abstractmethod
    def information(self, n_features: int, roots: Array) -> Array:
        """By what logarithms of psi are scaled, (K, 1), for unit information of complete data."""

    def scales(self, each: Array, together: float) -> Array:
        """As in ``CovarianceModel``."""
        return each

    def given(self, psi: Array, logs: Array, live: Mask) -> Array:
        """The logarithms (K, D) that coordinates ``logs`` stand for, of the components ``live``."""
        return np.where(live[:, None], logs, 0.0)


@dataclass(frozen=True)
class EachNoise(NoiseVariances):
    """One for each feature of each component."""

    name = "factor"
    same = "nowhere"

    def own(self, n_features: int) -> int:
        return n_features

    def common(self, n_features: int) -> int:
        return 0

    def pooled(self, psi: Array, counts: Array) -> Array:
        return psi

    def seen_by(self, counts: Array) -> Array:
        return counts

    def information(self, n_features: int, roots: Array) -> Array:
        information: Array = roots[:, None] / np.sqrt(2)
        return information


@dataclass(frozen=True)
class CommonNoise(NoiseVariances):
    """One for each feature, the same in all components."""

    name = "factor-tied"
    same = "in all components"

    def own(self, n_features: int) -> int:
        return 0

    def common(self, n_features: int) -> int:
        return n_features

    def pooled(self, psi: Array, counts: Array) -> Array:
        whole = counts.sum()
        shares = counts / whole if whole > 0 else np.full(len(counts), 1 / len(counts))
        return np.broadcast_to(shares @ psi, psi.shape)

    def seen_by(self, counts: Array) -> Array:
        return np.full(len(counts), counts.sum())

    def information(self, n_features: int, roots: Array) -> Array:
        return np.full((len(roots), 1), 1 / np.sqrt(2 * len(roots)))

    def given(self, psi: Array, logs: Array, live: Mask) -> Array:
        return np.broadcast_to(logs.mean(axis=0), logs.shape)


@dataclass(frozen=True)
class IsotropicNoise(NoiseVariances):
    """One for each component, the same in all features: probabilistic principal components."""

    name = "ppca"
    same = "in all features of a component"

    def own(self, n_features: int) -> int:
        return 1

    def common(self, n_features: int) -> int:
        return 0

    def pooled(self, psi: Array, counts: Array) -> Array:
        return np.broadcast_to(psi.mean(axis=1, keepdims=True), psi.shape)

    def seen_by(self, counts: Array) -> Array:
        return np.full(len(counts), np.inf)  # of all features

    def information(self, n_features: int, roots: Array) -> Array:
        information: Array = roots[:, None] / np.sqrt(2)
        return information

    def scales(self, each: Array, together: float) -> Array:
        return np.full_like(each, together)

    def given(self, psi: Array, logs: Array, live: Mask) -> Array:
        mean = np.where(live, logs.mean(axis=1), 0.0)
        return np.broadcast_to(mean[:, None], logs.shape)
