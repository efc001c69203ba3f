"""Where a mixture is flat: features and directions in which it has no spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import FLOOR, Array
from dgmm.model.mixture import Mixture

FLAT: Final = 10.0
"""A variance up to so many times ``FLOOR`` or rounding is nothing else."""

SAME: Final = 1e-12
"""Where means differ by the root of it, in the frame, they are the same but for rounding."""


@dataclass(frozen=True)
class Flat:
    """Where a covariance is flat: features without variance (D,), directions (D, m) of others."""

    constant: NDArray[np.bool_]
    directions: Array

    @classmethod
    def of(cls, covariance: Array) -> "Flat":
        rounding = len(covariance) * np.finfo(np.float64).eps * np.trace(covariance)
        limit = FLAT * max(FLOOR, float(rounding))
        constant = np.diagonal(covariance) <= limit
        rest = np.flatnonzero(~constant)
        directions = np.zeros((len(covariance), 0))
        if len(rest):
            values, vectors = np.linalg.eigh(covariance[np.ix_(rest, rest)])
            inside = vectors[:, values <= limit]
            directions = np.zeros((len(covariance), inside.shape[1]))
            directions[rest] = inside
        return cls(constant, directions)

    @property
    def rank(self) -> int:
        """In how many directions there is spread."""
        return int(len(self.constant) - self.constant.sum() - self.directions.shape[1])

    @property
    def basis(self) -> Array:
        """All that is flat, (D, m)."""
        return np.concatenate([np.eye(len(self.constant))[:, self.constant], self.directions], 1)

    def beyond(self, other: "Flat") -> Array:
        """Of its ``directions``, what is not flat in the ``other``, (D, m)."""
        known = np.where(self.constant[:, None], 0.0, other.directions)
        basis, sizes, _ = np.linalg.svd(known, full_matrices=False)
        basis = basis[:, sizes > 1e-3]
        left, sizes, _ = np.linalg.svd(
            self.directions - basis @ (basis.T @ self.directions), full_matrices=False
        )
        return np.asarray(left[:, sizes > 0.5])


def flat_in_all(mixture: Mixture, flats: Sequence[Flat]) -> Flat:
    """What is flat in all rows: in every component that has any, and between these."""
    spread = np.zeros((mixture.n_features, mixture.n_features))
    for flat, weight in zip(flats, mixture.weights, strict=True):
        if weight > 0:
            spread += np.eye(mixture.n_features) - flat.basis @ flat.basis.T
    values, vectors = np.linalg.eigh(spread)
    inside = vectors[:, values < 1e-6]
    means = mixture.covariance_model.kept(_between(mixture))
    values, vectors = np.linalg.eigh(inside.T @ means @ inside)
    inside = inside @ vectors[:, values <= SAME]
    constant = np.sum(inside * inside, axis=1) > 1 - 1e-6
    directions, sizes, _ = np.linalg.svd(
        np.where(constant[:, None], 0.0, inside), full_matrices=False
    )
    return Flat(constant, directions[:, sizes > 0.5])


def _between(mixture: Mixture) -> Array:
    """The covariance of the components' means, (D, D)."""
    weights = mixture.own_weights
    away = mixture.means - weights @ mixture.means
    return (away.T * weights) @ away


def total_covariance(mixture: Mixture, dense: Array) -> Array:
    """The covariance of all rows, (D, D): within the components and between."""
    return np.tensordot(mixture.own_weights, dense, 1) + _between(mixture)
