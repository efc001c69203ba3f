"""Each component has a covariance matrix of its own."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask, finite, picked, positive
from dgmm.model.conditional import completed, deconvolved, drawn, expected
from dgmm.model.convolved import Convolved, Matrices
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances, Expected, natural_form
from dgmm.model.features import Products
from dgmm.model.matrices import (
    check_matrix,
    factor_matrices,
    factor_of_matrix,
    factors_of_matrix,
    from_log_cholesky,
    in_units_of,
    least_apart,
    least_eigenvalue,
    least_eigenvector,
    log_cholesky,
    lower_places,
    precision_products,
    solve_factors,
    unpack,
)


@dataclass(frozen=True)
class Full(CovarianceModel):
    """A covariance of its own for each component."""

    name = "full"
    features = Products()
    centred_features = Products()
    correlates = True

    def own_parameters(self, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    def common_parameters(self, n_features: int) -> int:
        return 0

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return components, n_features, n_features

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "FullEstimate":
        mean_square = unpack(second / positive(counts)[:, None], offsets.shape[1])
        return FullEstimate(mean_square - offsets[:, :, None] * offsets[:, None, :])

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "FullEstimate":
        return FullEstimate(values)

    def single(self, moments: Array) -> Array:
        return (np.diag(moments) if moments.ndim == 1 else moments)[None]

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return degrees_of_freedom + n_features + 1, 1.0

    def pooled(self, counts: Array, covariances: Array) -> Array:
        return covariances

    def freedom(self, counts: Array) -> Array:
        return counts - 1

    def scores(self, white: Array) -> Array:
        rows, columns = lower_places(len(white))
        squares = (white * white - 1) / np.sqrt(2)
        return np.concatenate([squares, white[rows] * white[columns]])

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "FullCovariances":
        covariances, factors = zip(*map(factors_of_matrix, precisions), strict=True)
        return FullCovariances(np.stack(covariances), np.stack(factors))

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "FullCovariances":
        factors = np.stack([factor_of_matrix(covariance) for covariance in covariances])
        return FullCovariances(covariances, factors)

    def of_variances(self, variances: Array, components: int) -> "FullCovariances":
        ones = np.ones((components, 1, 1))
        return FullCovariances(ones * np.diag(variances), ones * np.diag(1 / np.sqrt(variances)))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "FullCovariances":
        return FullCovariances(covariances, precisions_cholesky)


FULL: Final = Full()


@dataclass(frozen=True, eq=False)
class FullCovariances(Covariances):
    """A covariance for each component: ``values`` and ``precisions_cholesky`` are (K, D, D)."""

    values: Array
    precisions_cholesky: Array

    @property
    def model(self) -> Full:
        return FULL

    def dense(self) -> Array:
        return self.values

    def variances(self) -> Array:
        return np.diagonal(self.values, axis1=1, axis2=2)

    def precisions(self) -> Array:
        return self.precisions_cholesky @ self.precisions_cholesky.swapaxes(1, 2)

    def factors(self) -> Array:
        return self.precisions_cholesky

    def natural(self, means: Array, constants: Array) -> Array:
        white = means[:, None, :] @ self.precisions_cholesky
        linear = (self.precisions_cholesky @ white.swapaxes(1, 2))[:, :, 0]
        return natural_form(constants, means, linear, self.quadratic())

    def quadratic(self) -> Array:
        return precision_products(self.precisions())

    def half_log_det(self) -> Array:
        half: Array = np.sum(
            np.log(np.diagonal(self.precisions_cholesky, axis1=1, axis2=2)), axis=1
        )
        return half

    def trace(self, weights: Array) -> Array:
        diagonals = np.einsum("kij,kij->ki", self.precisions_cholesky, self.precisions_cholesky)
        trace: Array = np.sum(diagonals * weights, axis=1)
        return trace

    def max_eigenvalue_bound(self) -> Array:
        bound: Array = np.abs(self.precisions()).sum(axis=2).max(axis=1)
        return bound

    def whiten(self, k: int, x: Array) -> Array:
        white: Array = self.precisions_cholesky[k].T @ x
        return white

    def whitened(self, vectors: Array) -> Array:
        return (vectors[:, None, :] @ self.precisions_cholesky)[:, 0]

    def coloured(self, white: Array) -> Array:
        return solve_factors(self.precisions_cholesky, white[:, :, None])[:, :, 0]

    def whitened_trace(self, estimate: Estimate) -> Array:
        factors = self.precisions_cholesky
        trace: Array = np.einsum("kij,kij->k", estimate.values @ factors, factors)
        return trace

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        return log_cholesky(self.precisions_cholesky, other.values) * roots[:, None]

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "FullEstimate":
        coordinates = place.reshape(len(roots), -1) / roots[:, None]
        values = from_log_cholesky(self.precisions_cholesky, coordinates)
        return FullEstimate(finite(np.where(live[:, None, None], values, like.values)))

    def rescale(self, scale: Array) -> "FullCovariances":
        return FullCovariances(
            self.values * scale[:, None] * scale, self.precisions_cholesky / scale[:, None]
        )

    def drawn_together(self, weights: Array, rows: int) -> Covariances:
        counts, n_features = (rows * weights).reshape(-1, 1, 1), self.values.shape[1]
        mean = np.tensordot(weights, self.values, 1)
        drawn = (counts * self.values + n_features * mean) / (counts + n_features)
        return FullEstimate(drawn).floored()[0]

    def among(self, features: NDArray[np.intp]) -> "FullCovariances":
        values = self.values[:, features[:, None], features]
        return FullCovariances(*in_units_of(values, np.diagonal(values, axis1=1, axis2=2)))

    def chosen(self, components: NDArray[np.intp]) -> "FullCovariances":
        return FullCovariances(
            picked(self.values, components), self.precisions_cholesky[components]
        )

    def held(self, fixed: Mask, at: Covariances) -> "FullCovariances":
        kept = fixed.reshape(-1, 1, 1)
        values = np.where(kept, at.values, self.values)
        factors = np.where(kept, at.precisions_cholesky, self.precisions_cholesky)
        return FullCovariances(values, factors)

    def completed(self, sums: Array, observed: Mask) -> Array:
        return completed(self.values, sums, observed)

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        return expected(self.values, away, observed, of)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        return Matrices.of(self.values, noise, observed)

    def times(self, vectors: Array) -> Array:
        return (vectors[..., None, :] @ self.values)[..., 0, :]

    def deconvolved(self, sums: Array) -> Array:
        return deconvolved(self.values, sums)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return drawn(self.values, away, observed, of, normals)

    @property
    def bare(self) -> "FullCovariances":
        return FullCovariances(self.values[:0], self.precisions_cholesky)

    def check(self, spread: Array) -> None:
        for pair in zip(self.values, self.precisions_cholesky, strict=True):
            check_matrix(*pair, spread)


@dataclass(frozen=True, eq=False)
class FullEstimate(Estimate):
    """An estimate (K, D, D) for each component."""

    values: Array

    def variances(self) -> Array:
        return np.diagonal(self.values, axis1=1, axis2=2)

    def about(self, counts: Array, offsets: Array) -> "FullEstimate":
        return FullEstimate(self.values + offsets[:, :, None] * offsets[:, None, :])

    def raised(self, amounts: Array) -> "FullEstimate":
        return FullEstimate(self.values + np.diag(amounts))

    def rescaled(self, scale: Array) -> "FullEstimate":
        return FullEstimate(self.values * scale[:, None] * scale)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "FullEstimate":
        combined = counts[:, None, None] * self.values + scatter.values
        combined = combined + weights[:, None, None] * away[:, :, None] * away[:, None, :]
        return FullEstimate(combined / positive(counts + rows)[:, None, None])

    def floored(self) -> tuple[FullCovariances, Mask]:
        raised, factors, lost = factor_matrices(self.values)
        return FullCovariances(raised, factors), lost

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[FullCovariances, Mask]:
        raised, factors, lost = factor_matrices(self.values + np.diag(amounts))
        kept = empty.reshape(-1, 1, 1)
        values = np.where(kept, before.values, raised)
        factors = np.where(kept, before.precisions_cholesky, factors)
        return FullCovariances(values, factors), lost & ~empty

    def thinnest(self, amounts: Array) -> Array:
        return least_eigenvalue(self.values, amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        return least_apart(weights, means, self.values, amounts)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return least_eigenvector(self.values, amounts)
