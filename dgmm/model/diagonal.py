"""Each component has a variance for each feature."""

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
from dgmm.model.features import Squares
from dgmm.model.variances import (
    check_variances,
    factors_from_variances,
    factors_of_variances,
    raise_variances,
)


@dataclass(frozen=True)
class Diagonal(CovarianceModel):
    """Independent features within a component."""

    name = "diag"
    features = Squares()
    centred_features = Squares()

    def own_parameters(self, n_features: int) -> int:
        return n_features

    def common_parameters(self, n_features: int) -> int:
        return 0

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return components, n_features

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "DiagonalEstimate":
        return DiagonalEstimate(second / positive(counts)[:, None] - offsets * offsets)

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "DiagonalEstimate":
        return DiagonalEstimate(values)

    def single(self, moments: Array) -> Array:
        return (moments if moments.ndim == 1 else np.diagonal(moments))[None]

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return degrees_of_freedom + 2, 1.0

    def pooled(self, counts: Array, covariances: Array) -> Array:
        return covariances * np.eye(covariances.shape[-1])

    def freedom(self, counts: Array) -> Array:
        return counts - 1

    def scores(self, white: Array) -> Array:
        scores: Array = (white * white - 1) / np.sqrt(2)
        return scores

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "DiagonalCovariances":
        return DiagonalCovariances(*factors_of_variances(precisions))

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "DiagonalCovariances":
        return DiagonalCovariances(covariances, factors_from_variances(covariances))

    def of_variances(self, variances: Array, components: int) -> "DiagonalCovariances":
        values = np.tile(variances, (components, 1))
        return DiagonalCovariances(values, 1 / np.sqrt(values))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "DiagonalCovariances":
        return DiagonalCovariances(covariances, precisions_cholesky)


DIAGONAL: Final = Diagonal()


@dataclass(frozen=True, eq=False)
class DiagonalCovariances(Covariances):
    """Variances: ``values`` and ``precisions_cholesky``, one over their roots, are (K, D)."""

    values: Array
    precisions_cholesky: Array

    @property
    def model(self) -> Diagonal:
        return DIAGONAL

    def dense(self) -> Array:
        return self.values[:, :, None] * np.eye(self.values.shape[1])

    def variances(self) -> Array:
        return self.values

    def precisions(self) -> Array:
        return self.precisions_cholesky * self.precisions_cholesky

    def factors(self) -> Array:
        return self.precisions_cholesky

    def natural(self, means: Array, constants: Array) -> Array:
        return natural_form(constants, means, self.precisions() * means, self.quadratic())

    def quadratic(self) -> Array:
        return -0.5 * self.precisions_cholesky * self.precisions_cholesky

    def half_log_det(self) -> Array:
        half: Array = np.log(self.precisions_cholesky).sum(axis=1)
        return half

    def trace(self, weights: Array) -> Array:
        trace: Array = np.sum(self.precisions() * weights, axis=1)
        return trace

    def max_eigenvalue_bound(self) -> Array:
        bound: Array = self.precisions().max(axis=1)
        return bound

    def whiten(self, k: int, x: Array) -> Array:
        white: Array = self.precisions_cholesky[k][:, None] * x
        return white

    def whitened(self, vectors: Array) -> Array:
        return self.precisions_cholesky * vectors

    def coloured(self, white: Array) -> Array:
        return white / self.precisions_cholesky

    def whitened_trace(self, estimate: Estimate) -> Array:
        trace: Array = np.sum(self.precisions() * estimate.values, axis=1)
        return trace

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        ratio = other.values * self.precisions_cholesky * self.precisions_cholesky
        coordinates: Array = np.log(ratio) / np.sqrt(2) * roots[:, None]
        return coordinates

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "DiagonalEstimate":
        coordinates = place.reshape(self.values.shape) / roots[:, None]
        values = np.exp(coordinates * np.sqrt(2)) / self.precisions()
        return DiagonalEstimate(finite(np.where(live[:, None], values, like.values)))

    def rescale(self, scale: Array) -> "DiagonalCovariances":
        return DiagonalCovariances(self.values * scale * scale, self.precisions_cholesky / scale)

    def drawn_together(self, weights: Array, rows: int) -> "DiagonalCovariances":
        counts, n_features = (rows * weights).reshape(-1, 1), self.values.shape[1]
        mean = np.tensordot(weights, self.values, 1)
        drawn = (counts * self.values + n_features * mean) / (counts + n_features)
        return DiagonalEstimate(drawn).floored()[0]

    def alone(self, features: Sequence[int] | NDArray[np.intp]) -> "DiagonalCovariances":
        return DiagonalCovariances(self.values[:, features], self.precisions_cholesky[:, features])

    def among(self, features: NDArray[np.intp]) -> "DiagonalCovariances":
        return DiagonalCovariances(self.values[:, features], self.precisions_cholesky[:, features])

    def chosen(self, components: NDArray[np.intp]) -> "DiagonalCovariances":
        return DiagonalCovariances(
            picked(self.values, components), self.precisions_cholesky[components]
        )

    def held(self, fixed: Mask, at: Covariances) -> "DiagonalCovariances":
        kept = fixed.reshape(-1, 1)
        values = np.where(kept, at.values, self.values)
        factors = np.where(kept, at.precisions_cholesky, self.precisions_cholesky)
        return DiagonalCovariances(values, factors)

    def completed(self, sums: Array, observed: Mask) -> Array:
        n_features, count = len(observed), int(observed.sum())
        whole = np.zeros((len(sums), 1 + 2 * n_features))
        whole[:, 0] = sums[:, 0]
        whole[:, 1 : 1 + n_features][:, observed] = sums[:, 1 : 1 + count]
        whole[:, 1 + n_features :] = sums[:, :1] * self.values
        whole[:, 1 + n_features :][:, observed] = sums[:, 1 + count :]
        return whole

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        logs, squares = observed @ np.log(self.values).T, away * away / self.values
        log_density = -0.5 * (logs[of] + squares.sum(axis=2))
        square = squares.sum(axis=2)
        return Expected(log_density, square, away, lambda: ~observed[:, None] * self.values)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return np.where(observed, away, np.sqrt(self.values[of]) * normals)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        if noise.ndim == 2:
            return Variances.of(self.values, noise, observed)
        return Matrices.of(self.dense(), noise, observed)

    def times(self, vectors: Array) -> Array:
        return self.values * vectors

    def deconvolved(self, sums: Array) -> Array:
        n_features = self.values.shape[1]
        first = self.values * sums[:, 1 : 1 + n_features]
        second = self.values * (sums[:, :1] + self.values * sums[:, 1 + n_features :])
        return np.concatenate([sums[:, :1], first, second], axis=1)

    @property
    def bare(self) -> "DiagonalCovariances":
        return DiagonalCovariances(self.values[:0], self.precisions_cholesky)

    def check(self, spread: Array) -> None:
        check_variances(self.values, self.precisions_cholesky)


@dataclass(frozen=True, eq=False)
class DiagonalEstimate(Estimate):
    """Estimates (K, D) of the variances."""

    values: Array

    def variances(self) -> Array:
        return self.values

    def about(self, counts: Array, offsets: Array) -> "DiagonalEstimate":
        return DiagonalEstimate(self.values + offsets * offsets)

    def raised(self, amounts: Array) -> "DiagonalEstimate":
        return DiagonalEstimate(self.values + amounts)

    def rescaled(self, scale: Array) -> "DiagonalEstimate":
        return DiagonalEstimate(self.values * scale * scale)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "DiagonalEstimate":
        combined = counts[:, None] * self.values + scatter.values + weights[:, None] * away * away
        return DiagonalEstimate(combined / positive(counts + rows)[:, None])

    def floored(self) -> tuple[DiagonalCovariances, Mask]:
        raised, factors, lost = raise_variances(self.values)
        return DiagonalCovariances(raised, factors), lost

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[DiagonalCovariances, Mask]:
        raised, factors, lost = raise_variances(self.values + amounts)
        kept = empty.reshape(-1, 1)
        values = np.where(kept, before.values, raised)
        factors = np.where(kept, before.precisions_cholesky, factors)
        return DiagonalCovariances(values, factors), lost & ~empty

    def thinnest(self, amounts: Array) -> Array:
        thinnest: Array = (self.values / amounts).min(axis=1)
        return thinnest

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        total = weights @ (self.values + (means - weights @ means) ** 2)
        thinnest: Array = np.where(total < amounts, np.inf, self.values / amounts).min(axis=1)
        return thinnest

    def thinnest_loadings(self, amounts: Array) -> Array:
        relative = np.maximum(self.values / amounts, 0.0)
        least = relative.min(axis=1, keepdims=True)
        # What ``amounts`` add hides smaller differences.
        weights: Array = (least + 1.0) / (relative + 1.0)
        return weights
