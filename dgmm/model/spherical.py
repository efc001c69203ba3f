"""Each component has one variance, the same in all directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask, finite, picked, positive
from dgmm.model.convolved import Convolved, Matrices, Variances
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances, Expected, natural_form
from dgmm.model.features import Length
from dgmm.model.variances import (
    check_variances,
    factors_from_variances,
    factors_of_variances,
    raise_variances,
)


@dataclass(frozen=True)
class Spherical(CovarianceModel):
    """One variance for all features of a component."""

    name = "spherical"
    features = Length()
    centred_features = Length()

    def own_parameters(self, n_features: int) -> int:
        return 1

    def common_parameters(self, n_features: int) -> int:
        return 0

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return (components,)

    def scales(self, each: Array, together: float) -> Array:
        return np.full_like(each, together)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "SphericalEstimate":
        n_features = offsets.shape[1]
        mean_square = second[:, 0] / positive(counts) - np.sum(offsets * offsets, axis=1)
        return SphericalEstimate(mean_square / n_features, n_features)

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "SphericalEstimate":
        return SphericalEstimate(values, shape[1])

    def single(self, moments: Array) -> Array:
        variances = moments if moments.ndim == 1 else np.diagonal(moments)
        return np.full(1, variances.mean())

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return (degrees_of_freedom + 2) / n_features, float(n_features)

    def pooled(self, counts: Array, covariances: Array) -> Array:
        means = np.diagonal(covariances, axis1=-2, axis2=-1).mean(axis=-1)
        pooled: Array = means[..., None, None] * np.eye(covariances.shape[-1])
        return pooled

    def freedom(self, counts: Array) -> Array:
        return counts - 1

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "SphericalCovariances":
        return SphericalCovariances(*factors_of_variances(precisions), shape[1])

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "SphericalCovariances":
        return SphericalCovariances(covariances, factors_from_variances(covariances), shape[1])

    def of_variances(self, variances: Array, components: int) -> "SphericalCovariances":
        values = np.full(components, variances.mean())
        return SphericalCovariances(values, 1 / np.sqrt(values), len(variances))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "SphericalCovariances":
        return SphericalCovariances(covariances, precisions_cholesky, shape[1])


SPHERICAL: Final = Spherical()


@dataclass(frozen=True, eq=False)
class SphericalCovariances(Covariances):
    """Variances of so many features: ``values`` and ``precisions_cholesky`` are (K,)."""

    values: Array
    precisions_cholesky: Array
    n_features: int

    @property
    def model(self) -> Spherical:
        return SPHERICAL

    def dense(self) -> Array:
        return self.values[:, None, None] * np.eye(self.n_features)

    def variances(self) -> Array:
        return np.broadcast_to(self.values[:, None], (len(self.values), self.n_features))

    def precisions(self) -> Array:
        return self.precisions_cholesky * self.precisions_cholesky

    def factors(self) -> Array:
        return self.precisions_cholesky

    def natural(self, means: Array, constants: Array) -> Array:
        linear = self.precisions()[:, None] * means
        return natural_form(constants, means, linear, self.quadratic())

    def quadratic(self) -> Array:
        return (-0.5 * self.precisions_cholesky * self.precisions_cholesky)[:, None]

    def half_log_det(self) -> Array:
        return self.n_features * np.log(self.precisions_cholesky)

    def trace(self, weights: Array) -> Array:
        trace: Array = self.precisions() * weights.sum(axis=-1)
        return trace

    def max_eigenvalue_bound(self) -> Array:
        return self.precisions()

    def whiten(self, k: int, x: Array) -> Array:
        white: Array = self.precisions_cholesky[k] * x
        return white

    def whitened(self, vectors: Array) -> Array:
        return self.precisions_cholesky[:, None] * vectors

    def coloured(self, white: Array) -> Array:
        return white / self.precisions_cholesky[:, None]

    def whitened_trace(self, estimate: Estimate) -> Array:
        factors = self.precisions_cholesky
        return self.n_features * factors * factors * estimate.values

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        ratio = other.values * self.precisions_cholesky * self.precisions_cholesky
        return np.log(ratio)[:, None] * roots[:, None]

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "SphericalEstimate":
        values = np.exp(place / roots) / self.precisions()
        return SphericalEstimate(finite(np.where(live, values, like.values)), self.n_features)

    def rescale(self, scale: Array) -> "SphericalCovariances":
        return SphericalCovariances(
            self.values * scale[0] * scale[0], self.precisions_cholesky / scale[0], self.n_features
        )

    def drawn_together(self, weights: Array, rows: int) -> "SphericalCovariances":
        counts, n_features = rows * weights, self.n_features
        mean = np.tensordot(weights, self.values, 1)
        drawn = (counts * self.values + n_features * mean) / (counts + n_features)
        return SphericalEstimate(drawn, n_features).floored()[0]

    def alone(self, features: Sequence[int] | NDArray[np.intp]) -> "SphericalCovariances":
        return SphericalCovariances(self.values, self.precisions_cholesky, len(features))

    def among(self, features: NDArray[np.intp]) -> "SphericalCovariances":
        return SphericalCovariances(self.values, self.precisions_cholesky, len(features))

    def chosen(self, components: NDArray[np.intp]) -> "SphericalCovariances":
        return SphericalCovariances(
            picked(self.values, components), self.precisions_cholesky[components], self.n_features
        )

    def held(self, fixed: Mask, at: Covariances) -> "SphericalCovariances":
        kept = fixed
        values = np.where(kept, at.values, self.values)
        factors = np.where(kept, at.precisions_cholesky, self.precisions_cholesky)
        return SphericalCovariances(values, factors, self.n_features)

    def completed(self, sums: Array, observed: Mask) -> Array:
        n_features, count = len(observed), int(observed.sum())
        whole = np.zeros((len(sums), 2 + n_features))
        whole[:, 0] = sums[:, 0]
        whole[:, 1 : 1 + n_features][:, observed] = sums[:, 1 : 1 + count]
        whole[:, -1] = sums[:, -1] + sums[:, 0] * (n_features - count) * self.values
        return whole

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        counts = observed.sum(axis=1)[:, None]
        log_density = -0.5 * (counts * np.log(self.values))[of]
        square = np.sum(away * away, axis=2)
        log_density -= 0.5 * square / self.values

        def spread() -> Array:
            lost = (observed.shape[1] - counts) * self.values
            return np.asarray(lost[:, :, None])

        return Expected(log_density, square / self.values, away, spread)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return np.where(observed, away, np.sqrt(self.values[of])[:, None] * normals)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        if noise.ndim == 2:
            return Variances.of(self.values[:, None], noise, observed)
        return Matrices.of(self.dense(), noise, observed)

    def times(self, vectors: Array) -> Array:
        return self.values[:, None] * vectors

    def deconvolved(self, sums: Array) -> Array:
        n_features, variances = self.n_features, self.values[:, None]
        first, within = variances * sums[:, 1 : 1 + n_features], sums[:, 1 + n_features :]
        second = variances * (n_features * sums[:, :1] + variances * within)
        return np.concatenate([sums[:, :1], first, second], axis=1)

    @property
    def bare(self) -> "SphericalCovariances":
        return SphericalCovariances(self.values[:0], self.precisions_cholesky, self.n_features)

    def check(self, spread: Array) -> None:
        check_variances(self.values, self.precisions_cholesky)


@dataclass(frozen=True, eq=False)
class SphericalEstimate(Estimate):
    """Estimates (K,) of the variances of so many features."""

    values: Array
    n_features: int

    def variances(self) -> Array:
        return np.broadcast_to(self.values[:, None], (len(self.values), self.n_features))

    def about(self, counts: Array, offsets: Array) -> "SphericalEstimate":
        square = np.sum(offsets * offsets, axis=1) / self.n_features
        return SphericalEstimate(self.values + square, self.n_features)

    def raised(self, amounts: Array) -> "SphericalEstimate":
        return SphericalEstimate(self.values + amounts.mean(), self.n_features)

    def rescaled(self, scale: Array) -> "SphericalEstimate":
        return SphericalEstimate(self.values * scale[0] * scale[0], self.n_features)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "SphericalEstimate":
        square = np.sum(away * away, axis=1) / self.n_features
        combined = counts * self.values + scatter.values + weights * square
        return SphericalEstimate(combined / positive(counts + rows), self.n_features)

    def floored(self) -> tuple[SphericalCovariances, Mask]:
        raised, factors, lost = raise_variances(self.values)
        return SphericalCovariances(raised, factors, self.n_features), lost

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[SphericalCovariances, Mask]:
        raised, factors, lost = raise_variances(self.values + amounts.mean())
        values = np.where(empty, before.values, raised)
        factors = np.where(empty, before.precisions_cholesky, factors)
        return SphericalCovariances(values, factors, self.n_features), lost & ~empty

    def thinnest(self, amounts: Array) -> Array:
        thinnest: Array = self.values / amounts.mean()
        return thinnest

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        total = weights @ (self.values + ((means - weights @ means) ** 2).mean(axis=1))
        least = self.thinnest(amounts)
        return least if total >= amounts.mean() else np.full_like(least, np.inf)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return np.ones((1, len(amounts)))
