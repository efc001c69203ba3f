"""One covariance matrix serves all components."""

import numpy as np
from numpy.typing import NDArray

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
from dgmm.model.structure import Array, Structure


class Tied(Structure):
    """One covariance for all components."""

    name = "tied"
    shared = True

    @property
    def centred(self) -> Structure:
        # The total scatter is of no use once a component is much narrower than the data.
        return FULL

    def width(self, dims: int) -> int:
        return 1 + dims

    def free_parameters(self, components: int, dims: int) -> int:
        return dims * (dims + 1) // 2

    def shape(self, components: int, dims: int) -> tuple[int, ...]:
        return dims, dims

    def cross(self, x: Array, y: Array) -> Array:
        return np.empty((0, x.shape[1]))

    def square(self, x: Array, out: Array) -> None:
        pass

    def whitened(self, factors: Array, vectors: Array) -> Array:
        return vectors @ factors

    def coloured(self, factors: Array, white: Array) -> Array:
        return solve_factors(factors[None], white.T[None])[0].T

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return log_cholesky(factors[None], covariances[None])

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return from_log_cholesky(factors[None], coordinates)[0]

    def quadratic(self, factors: Array) -> Array:
        return np.empty((1, 0))

    def solve(self, factors: Array, vectors: Array) -> Array:
        return vectors @ factors @ factors.T

    def half_log_det(self, factors: Array, dims: int) -> Array:
        return np.sum(np.log(np.diagonal(factors)), keepdims=True)

    def trace(self, factors: Array, weights: Array) -> Array:
        diagonal = np.sum(factors * factors, axis=1)
        return np.sum(diagonal * np.atleast_2d(weights), axis=1)

    def stiffness(self, factors: Array) -> Array:
        return np.abs(self.precisions(factors)).sum(axis=1).max(keepdims=True)

    def whiten(self, factors: Array, k: int, x: Array) -> Array:
        return factors.T @ x

    def common(self, factors: Array, x: Array) -> Array | float:
        white = self.whiten(factors, 0, x)
        return -0.5 * np.sum(white * white, axis=0)

    def common_sum(self, factors: Array, total: Array | None) -> float:
        assert total is not None
        return -0.5 * float(np.sum(factors * (total @ factors)))

    def whitened_trace(self, factors: Array, covariances: Array, dims: int) -> Array:
        return np.sum((covariances @ factors) * factors).reshape(1)

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
        raised, factors, lost = factor_matrices(covariances[None])
        return raised[0], factors[0], lost

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvalue(covariances[None], amounts)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        return least_apart(weights, means, covariances[None], amounts)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvector(covariances[None], amounts)

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, factors / scale[:, None]

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return np.broadcast_to(covariances, (components, dims, dims))

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return np.broadcast_to(np.diagonal(covariances), (components, dims))

    def precisions(self, factors: Array) -> Array:
        return factors @ factors.T

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return factors_of_matrix(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return factor_of_matrix(covariances)

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        check_matrix(covariances, factors, spread)
