"""One covariance matrix serves all components."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask, finite
from dgmm.model.conditional import completed, deconvolved, drawn, expected
from dgmm.model.convolved import Convolved, Matrices
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances, Expected, natural_form
from dgmm.model.features import Linear, Products
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
    precision_products,
    solve_factors,
    unpack,
)


@dataclass(frozen=True)
class Tied(CovarianceModel):
    """One covariance for all components."""

    name = "tied"
    features = Linear()
    # The total scatter is of no use once a component is much narrower than the data.
    centred_features = Products()
    needs_scatter = True
    correlates = True
    couples = True

    def own_parameters(self, n_features: int) -> int:
        return 0

    def common_parameters(self, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return n_features, n_features

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "TiedEstimate":
        if second.shape[1]:  # summed about the means, in the features of a full covariance
            total, means = unpack(second.sum(axis=0, keepdims=True), offsets.shape[1])[0], offsets
        assert total is not None
        whole = counts.sum() or 1.0  # all rows may be noise
        return TiedEstimate((total - (means.T * counts) @ means) / whole, len(counts))

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "TiedEstimate":
        return TiedEstimate(values, shape[0])

    def single(self, moments: Array) -> Array:
        return np.diag(moments) if moments.ndim == 1 else moments

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return degrees_of_freedom + n_features + 1, 1.0

    def sharing(self, components: int) -> int:
        return components

    def pooled(self, counts: Array, covariances: Array) -> Array:
        shares = counts / counts.sum(axis=-1, keepdims=True)
        pooled: Array = np.einsum("...k,...kij->...ij", shares, covariances)[..., None, :, :]
        return pooled

    def freedom(self, counts: Array) -> Array:
        return np.full(len(counts), counts.sum() - np.count_nonzero(counts))

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "TiedCovariances":
        return TiedCovariances(*factors_of_matrix(precisions), shape[0])

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "TiedCovariances":
        return TiedCovariances(covariances, factor_of_matrix(covariances), shape[0])

    def of_variances(self, variances: Array, components: int) -> "TiedCovariances":
        return TiedCovariances(np.diag(variances), np.diag(1 / np.sqrt(variances)), components)

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "TiedCovariances":
        return TiedCovariances(covariances, precisions_cholesky, shape[0])


TIED: Final = Tied()


@dataclass(frozen=True, eq=False)
class TiedCovariances(Covariances):
    """One for all: ``values`` and ``precisions_cholesky`` are (D, D), of so many ``components``."""

    values: Array
    precisions_cholesky: Array
    components: int

    @property
    def model(self) -> Tied:
        return TIED

    def dense(self) -> Array:
        return np.broadcast_to(self.values, (self.components, *self.values.shape))

    def variances(self) -> Array:
        return np.broadcast_to(np.diagonal(self.values), (self.components, len(self.values)))

    def precisions(self) -> Array:
        return self.precisions_cholesky @ self.precisions_cholesky.T

    def factors(self) -> Array:
        factor = self.precisions_cholesky
        return np.broadcast_to(factor, (self.components, *factor.shape))

    def natural(self, means: Array, constants: Array) -> Array:
        linear = means @ self.precisions_cholesky @ self.precisions_cholesky.T
        return natural_form(constants, means, linear, np.empty((1, 0)))

    def quadratic(self) -> Array:
        factors = self.factors()
        return precision_products(factors @ factors.swapaxes(1, 2))

    def half_log_det(self) -> Array:
        return np.sum(np.log(np.diagonal(self.precisions_cholesky)), keepdims=True)

    def trace(self, weights: Array) -> Array:
        diagonal = np.sum(self.precisions_cholesky * self.precisions_cholesky, axis=1)
        trace: Array = np.sum(diagonal * np.atleast_2d(weights), axis=1)
        return trace

    def max_eigenvalue_bound(self) -> Array:
        bound: Array = np.abs(self.precisions()).sum(axis=1).max(keepdims=True)
        return bound

    def whiten(self, k: int, x: Array) -> Array:
        return self.precisions_cholesky.T @ x

    def whitened(self, vectors: Array) -> Array:
        return vectors @ self.precisions_cholesky

    def coloured(self, white: Array) -> Array:
        coloured: Array = solve_factors(self.precisions_cholesky[None], white.T[None])[0].T
        return coloured

    def whitened_trace(self, estimate: Estimate) -> Array:
        factor = self.precisions_cholesky
        return np.sum((estimate.values @ factor) * factor).reshape(1)

    def common(self, x: Array) -> Array | float:
        white = self.whiten(0, x)
        squares: Array = -0.5 * np.sum(white * white, axis=0)
        return squares

    def common_sum(self, total: Array | None) -> float:
        assert total is not None
        factor = self.precisions_cholesky
        return -0.5 * float(np.sum(factor * (total @ factor)))

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        return log_cholesky(self.precisions_cholesky[None], other.values[None])

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "TiedEstimate":
        values = from_log_cholesky(self.precisions_cholesky[None], place.reshape(1, -1))[0]
        return TiedEstimate(finite(values), self.components)

    def rescale(self, scale: Array) -> "TiedCovariances":
        return TiedCovariances(
            self.values * scale[:, None] * scale,
            self.precisions_cholesky / scale[:, None],
            self.components,
        )

    def drawn_together(self, weights: Array, rows: int) -> "TiedCovariances":
        return self

    def among(self, features: NDArray[np.intp]) -> "TiedCovariances":
        values = self.values[None, features[:, None], features]
        (values,), (factor,) = in_units_of(values, np.diagonal(values, axis1=1, axis2=2))
        return TiedCovariances(values, factor, self.components)

    def chosen(self, components: NDArray[np.intp]) -> "TiedCovariances":
        return TiedCovariances(self.values, self.precisions_cholesky, len(components))

    def held(self, fixed: Mask, at: Covariances) -> "TiedCovariances":
        if not fixed.all():
            return self
        return TiedCovariances(at.values, at.precisions_cholesky, self.components)

    def completed(self, sums: Array, observed: Mask) -> Array:
        return completed(self.values[None], sums, observed)

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        return expected(self.values[None], away, observed, of)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        return Matrices.of(self.values[None], noise, observed)

    def times(self, vectors: Array) -> Array:
        return vectors @ self.values

    def deconvolved(self, sums: Array) -> Array:
        return deconvolved(self.values[None], sums)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return drawn(self.values[None], away, observed, np.zeros_like(of), normals)

    @property
    def bare(self) -> "TiedCovariances":
        return TiedCovariances(self.values[:0], self.precisions_cholesky, self.components)

    def check(self, spread: Array) -> None:
        check_matrix(self.values, self.precisions_cholesky, spread)


@dataclass(frozen=True, eq=False)
class TiedEstimate(Estimate):
    """One estimate (D, D) for all ``components``."""

    values: Array
    components: int

    def variances(self) -> Array:
        return np.broadcast_to(np.diagonal(self.values), (self.components, len(self.values)))

    def about(self, counts: Array, offsets: Array) -> "TiedEstimate":
        square = (offsets.T * (counts / (counts.sum() or 1.0))) @ offsets  # all rows may be noise
        return TiedEstimate(self.values + square, self.components)

    def raised(self, amounts: Array) -> "TiedEstimate":
        return TiedEstimate(self.values + np.diag(amounts), self.components)

    def rescaled(self, scale: Array) -> "TiedEstimate":
        return TiedEstimate(self.values * scale[:, None] * scale, self.components)

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "TiedEstimate":
        total = float(counts.sum())
        combined = total * self.values + scatter.values + (away.T * weights) @ away
        return TiedEstimate(combined / (total + rows), self.components)

    def floored(self) -> tuple[TiedCovariances, Mask]:
        raised, factors, lost = factor_matrices(self.values[None])
        return TiedCovariances(raised[0], factors[0], self.components), lost

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[Covariances, Mask]:
        if empty.all():
            return before, np.zeros(1, np.bool_)
        return self.raised(amounts).floored()

    def thinnest(self, amounts: Array) -> Array:
        return least_eigenvalue(self.values[None], amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        return least_apart(weights, means, self.values[None], amounts)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return least_eigenvector(self.values[None], amounts)
