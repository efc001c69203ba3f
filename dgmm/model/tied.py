"""One covariance matrix serves all components."""

import numpy as np
from numpy.typing import NDArray

from dgmm.model.covariance_model import Array, CovarianceModel
from dgmm.model.full import FULL
from dgmm.model.matrices import (
    check_matrix,
    factor_matrices,
    factor_of_matrix,
    factors_of_matrix,
    from_log_cholesky,
    least_apart,
    least_eigenvalue,
    least_eigenvector,
    log_cholesky,
    solve_factors,
    unpack,
)


class Tied(CovarianceModel):
    """One covariance for all components."""

    name = "tied"
    shared = True

    @property
    def centred(self) -> CovarianceModel:
        # The total scatter is of no use once a component is much narrower than the data.
        return FULL

    def width(self, n_features: int) -> int:
        return 1 + n_features

    def free_parameters(self, components: int, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return n_features, n_features

    def cross(self, x: Array, y: Array) -> Array:
        return np.empty((0, x.shape[1]))

    def square(self, x: Array, out: Array) -> None:
        pass

    def whitened(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return vectors @ precisions_cholesky

    def coloured(self, precisions_cholesky: Array, white: Array) -> Array:
        return solve_factors(precisions_cholesky[None], white.T[None])[0].T

    def coordinates(self, precisions_cholesky: Array, covariances: Array) -> Array:
        return log_cholesky(precisions_cholesky[None], covariances[None])

    def from_coordinates(self, precisions_cholesky: Array, coordinates: Array) -> Array:
        return from_log_cholesky(precisions_cholesky[None], coordinates)[0]

    def quadratic(self, precisions_cholesky: Array) -> Array:
        return np.empty((1, 0))

    def solve(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return vectors @ precisions_cholesky @ precisions_cholesky.T

    def half_log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.sum(np.log(np.diagonal(precisions_cholesky)), keepdims=True)

    def trace(self, precisions_cholesky: Array, weights: Array) -> Array:
        diagonal = np.sum(precisions_cholesky * precisions_cholesky, axis=1)
        return np.sum(diagonal * np.atleast_2d(weights), axis=1)

    def max_eigenvalue_bound(self, precisions_cholesky: Array) -> Array:
        return np.abs(self.precisions(precisions_cholesky)).sum(axis=1).max(keepdims=True)

    def whiten(self, precisions_cholesky: Array, k: int, x: Array) -> Array:
        return precisions_cholesky.T @ x

    def common(self, precisions_cholesky: Array, x: Array) -> Array | float:
        white = self.whiten(precisions_cholesky, 0, x)
        return -0.5 * np.sum(white * white, axis=0)

    def common_sum(self, precisions_cholesky: Array, total: Array | None) -> float:
        assert total is not None
        return -0.5 * float(np.sum(precisions_cholesky * (total @ precisions_cholesky)))

    def whitened_trace(
        self, precisions_cholesky: Array, covariances: Array, n_features: int
    ) -> Array:
        return np.sum((covariances @ precisions_cholesky) * precisions_cholesky).reshape(1)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        if second.shape[1]:  # summed about the means, in the full structure's features
            total, means = unpack(second.sum(axis=0, keepdims=True), offsets.shape[1])[0], offsets
        assert total is not None
        return (total - (means.T * counts) @ means) / counts.sum()

    def freedom(self, counts: Array) -> Array:
        return np.full(len(counts), counts.sum() - np.count_nonzero(counts))

    def pooled(self, counts: Array, covariances: Array) -> Array:
        shares = counts / counts.sum(axis=-1, keepdims=True)
        return np.einsum("...k,...kij->...ij", shares, covariances)[..., None, :, :]

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + np.diag(amounts)

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        raised, precisions_cholesky, lost = factor_matrices(covariances[None])
        return raised[0], precisions_cholesky[0], lost

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvalue(covariances[None], amounts)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        return least_apart(weights, means, covariances[None], amounts)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvector(covariances[None], amounts)

    def rescale(
        self, covariances: Array, precisions_cholesky: Array, scale: Array
    ) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, precisions_cholesky / scale[:, None]

    def dense(self, covariances: Array, components: int, n_features: int) -> Array:
        return np.broadcast_to(covariances, (components, n_features, n_features))

    def variances(self, covariances: Array, components: int, n_features: int) -> Array:
        return np.broadcast_to(np.diagonal(covariances), (components, n_features))

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky @ precisions_cholesky.T

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return factors_of_matrix(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return factor_of_matrix(covariances)

    def check(self, covariances: Array, precisions_cholesky: Array, spread: Array) -> None:
        check_matrix(covariances, precisions_cholesky, spread)
