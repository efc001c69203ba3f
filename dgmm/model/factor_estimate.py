"""What sums of rows say of the covariances of factor analysers (factor.py)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dgmm.model.arrays import FLOOR, ROUNDING, Array, Mask
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.loadings import LEAST_NOISE, least_eigenvalue, packed

if TYPE_CHECKING:  # which imports this
    from dgmm.model.factor import Factor
    from dgmm.model.factor_covariances import FactorCovariances

NOT_WITH: Final = "{} covariances are not for rows with {}"


class AlongLoadings(Estimate):
    """What tells the covariances along loadings."""

    @abstractmethod
    def along(self, directions: Array) -> Array:
        """The covariances times the ``directions`` (K, D, q) of sums."""


@dataclass(frozen=True, eq=False)
class FactorEstimate(AlongLoadings):
    """Noise variances and loadings, (K, D, 1 + q), however thin."""

    structure: "Factor"
    values: Array

    def variances(self) -> Array:
        variances: Array = self.values[:, :, 0] + np.sum(self.values[:, :, 1:] ** 2, axis=2)
        return variances

    def along(self, directions: Array) -> Array:
        loadings = self.values[:, :, 1:]
        product: Array = self.values[:, :, :1] * directions
        return product + loadings @ (loadings.swapaxes(1, 2) @ directions)

    def about(self, counts: Array, offsets: Array) -> "FactorEstimate":
        raise NotImplementedError("factors have the means of their rows")

    def raised(self, amounts: Array) -> "FactorEstimate":
        values = self.values.copy()
        values[:, :, 0] += amounts
        return FactorEstimate(self.structure, values)

    def rescaled(self, scale: Array) -> "FactorEstimate":
        scales = scale[:, None] * np.where(np.arange(self.values.shape[2]), 1, scale[:, None])
        return FactorEstimate(self.structure, self.values * scales)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> Estimate:
        raise NotImplementedError(NOT_WITH.format(self.structure.name, "a prior"))

    def floored(self) -> "tuple[FactorCovariances, Mask]":
        return self.reached(np.zeros(self.values.shape[1]))

    def reached(self, amounts: Array) -> "tuple[FactorCovariances, Mask]":
        floor = np.maximum(rounding_of(self.variances()), amounts)
        floor = self.structure.noise.pooled(floor, np.ones(len(floor)))
        return _held_up(self.structure, self.values, floor, floor)

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> "tuple[FactorCovariances, Mask]":
        return self.raised(amounts).floored()

    def thinnest(self, amounts: Array) -> Array:
        return least_eigenvalue(self.values, amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        total = weights @ (self.variances() + (means - weights @ means) ** 2)
        some = total >= amounts  # a column of one value is as flat in all of them
        if not some.any():
            return np.full(len(self.values), np.inf)
        return least_eigenvalue(self.values[:, some], amounts[some])

    def thinnest_loadings(self, amounts: Array) -> Array:
        psi = np.maximum(self.values[:, :, 0], LEAST_NOISE * amounts)
        precision = self.structure.made(psi, self.values[:, :, 1:])._diagonal() * amounts
        loadings: Array = np.sqrt(np.maximum(precision, 0.0) / precision.max(axis=1, keepdims=True))
        return loadings


@dataclass(frozen=True, eq=False)
class FactorSums(AlongLoadings):
    """What sums along loadings say of covariances S: a step of EM from those they were taken with.

    Attributes
    ----------
    before : FactorCovariances
        Those whose G is in ``projected``.
    counts : (K,)
    diagonal : (K, D)
        That of each S.
    projected : (K, D, q)
        S G.
    """

    before: "FactorCovariances"
    counts: Array
    diagonal: Array
    projected: Array

    @property
    def values(self) -> Array:  # type: ignore[override]
        return self._stepped(self.diagonal, self.projected)

    def _stepped(self, diagonal: Array, projected: Array) -> Array:
        """The noise variances and loadings (K, D, 1 + q) after a step."""
        before, count = self.before, projected.shape[2]
        second = before.directions.swapaxes(1, 2) @ projected  # of the factors
        second = 0.5 * (second + second.swapaxes(1, 2))
        second[:, np.arange(count), np.arange(count)] += 1 / (1 + before.spreads)
        white: Array = np.linalg.solve(np.linalg.cholesky(second), projected.swapaxes(1, 2))
        psi = diagonal - np.sum(white * white, axis=1)
        psi = before.structure.noise.pooled(psi, self.counts)
        return packed(psi, white.swapaxes(1, 2))

    def variances(self) -> Array:
        return self.diagonal

    def along(self, directions: Array) -> Array:
        return self.projected  # of no others it is known

    def less(self, offsets: Array) -> "FactorSums":
        """The same about means that are ``offsets`` (K, D) from the points of these."""
        moved = np.matmul(offsets[:, None], self.before.directions)
        diagonal, projected = (
            self.diagonal - offsets * offsets,
            self.projected - offsets[:, :, None] * moved,
        )
        return FactorSums(self.before, self.counts, diagonal, projected)

    def about(self, counts: Array, offsets: Array) -> "FactorSums":
        moved = np.matmul(offsets[:, None], self.before.directions)
        diagonal, projected = (
            self.diagonal + offsets * offsets,
            self.projected + offsets[:, :, None] * moved,
        )
        return FactorSums(self.before, self.counts, diagonal, projected)

    def raised(self, amounts: Array) -> "FactorSums":
        diagonal = self.diagonal + amounts
        projected = self.projected + amounts[:, None] * self.before.directions
        return FactorSums(self.before, self.counts, diagonal, projected)

    def rescaled(self, scale: Array) -> "FactorSums":
        diagonal, projected = self.diagonal * scale * scale, self.projected * scale[:, None]
        return FactorSums(self.before.rescale(scale), self.counts, diagonal, projected)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> Estimate:
        raise NotImplementedError(NOT_WITH.format(self.before.structure.name, "a prior"))

    def floored(self) -> "tuple[FactorCovariances, Mask]":
        return self._floored(np.zeros(self.diagonal.shape[1]))

    def _floored(self, amounts: Array) -> "tuple[FactorCovariances, Mask]":
        """The step's covariances, with noise at or above ``amounts`` (D,).

        Of noise that is less than rounding of the variances nothing is known; it becomes that, but
        not if it was less before: it would cost likelihood.
        """
        structure = self.before.structure
        least = np.broadcast_to(np.maximum(FLOOR, amounts), self.diagonal.shape)
        least = structure.noise.pooled(least, self.counts)
        known = np.maximum(least, rounding_of(self.diagonal))
        known = structure.noise.pooled(known, self.counts)
        held = np.maximum(least, np.minimum(known, self.before.noise))
        return _held_up(structure, self.values, known, held)

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> "tuple[FactorCovariances, Mask]":
        covariances, lost = self.raised(amounts)._floored(amounts)
        if not empty.any():
            return covariances, lost
        structure = self.before.structure
        values = np.where(empty.reshape(-1, 1, 1), before.values, covariances.values)
        psi = structure.noise.pooled(values[:, :, 0], self.counts)
        return structure.made(psi, values[:, :, 1:]), lost & ~empty

    def thinnest(self, amounts: Array) -> Array:
        return self._step().thinnest(amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        return self._step().thinnest_apart(weights, means, amounts)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return self._step().thinnest_loadings(amounts)

    def _step(self) -> FactorEstimate:
        return FactorEstimate(self.before.structure, self.values)


def rounding_of(variances: Array) -> Array:
    """Below which noise is only rounding of ``variances`` (K, D)."""
    return np.maximum(FLOOR, 8 * ROUNDING * variances)


def _held_up(
    structure: "Factor", values: Array, known: Array, held: Array
) -> "tuple[FactorCovariances, Mask]":
    """Covariances of ``values``, and which are flat.

    Noise below what is ``known`` (K, D) is ``held`` at that much.  They are flat that had to be
    held up, and have no more variance in some direction than that.
    """
    below = values[:, :, 0] < known
    psi = np.where(below, held, values[:, :, 0])
    low: Mask = np.any(below, axis=1)
    covariances = structure.made(psi, values[:, :, 1:])
    if low.any():
        least = least_eigenvalue(covariances.values, np.full(psi.shape[1], FLOOR))
        low &= least < 2.0
    return covariances, low
