"""Each component has a covariance matrix of its own."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.covariance_model import Array, CovarianceModel
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
    lower_places,
    solve_factors,
    unpack,
    upper_places,
)


class Full(CovarianceModel):
    """A covariance of its own for each component."""

    name = "full"
    informed = True

    def width(self, n_features: int) -> int:
        return 1 + n_features + n_features * (n_features + 1) // 2

    def free_parameters(self, components: int, n_features: int) -> int:
        return components * n_features * (n_features + 1) // 2

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return components, n_features, n_features

    def cross(self, x: Array, y: Array) -> Array:
        rows, columns = upper_places(len(x))
        return x[rows] * y[columns] + x[columns] * y[rows]

    def square(self, x: Array, out: Array) -> None:
        at = 0
        for i in range(len(x)):
            np.multiply(x[i], x[i:], out=out[at : at + len(x) - i])
            at += len(x) - i

    def whitened(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return (vectors[:, None, :] @ precisions_cholesky)[:, 0]

    def coloured(self, precisions_cholesky: Array, white: Array) -> Array:
        return solve_factors(precisions_cholesky, white[:, :, None])[:, :, 0]

    def coordinates(self, precisions_cholesky: Array, covariances: Array) -> Array:
        return log_cholesky(precisions_cholesky, covariances)

    def from_coordinates(self, precisions_cholesky: Array, coordinates: Array) -> Array:
        return from_log_cholesky(precisions_cholesky, coordinates)

    def scores(self, white: Array) -> Array:
        rows, columns = lower_places(len(white))
        own = (white * white - 1) / np.sqrt(2)
        return np.concatenate([own, white[rows] * white[columns]])

    def quadratic(self, precisions_cholesky: Array) -> Array:
        rows, columns = upper_places(precisions_cholesky.shape[1])
        precisions = self.precisions(precisions_cholesky)
        return precisions[:, rows, columns] * np.where(rows == columns, -0.5, -1.0)

    def solve(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return (precisions_cholesky @ (vectors[:, None, :] @ precisions_cholesky).swapaxes(1, 2))[
            :, :, 0
        ]

    def half_log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.sum(np.log(np.diagonal(precisions_cholesky, axis1=1, axis2=2)), axis=1)

    def trace(self, precisions_cholesky: Array, weights: Array) -> Array:
        diagonals = np.sum(precisions_cholesky * precisions_cholesky, axis=2)
        return np.sum(diagonals * weights, axis=1)

    def max_eigenvalue_bound(self, precisions_cholesky: Array) -> Array:
        return np.abs(self.precisions(precisions_cholesky)).sum(axis=2).max(axis=1)

    def whiten(self, precisions_cholesky: Array, k: int, x: Array) -> Array:
        return precisions_cholesky[k].T @ x

    def whitened_trace(
        self, precisions_cholesky: Array, covariances: Array, n_features: int
    ) -> Array:
        return np.sum((covariances @ precisions_cholesky) * precisions_cholesky, axis=(1, 2))

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        mean_square = unpack(second / counts[:, None], offsets.shape[1])
        return mean_square - offsets[:, :, None] * offsets[:, None, :]

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + np.diag(amounts)

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return factor_matrices(covariances)

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvalue(covariances, amounts)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        return least_apart(weights, means, covariances, amounts)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return least_eigenvector(covariances, amounts)

    def rescale(
        self, covariances: Array, precisions_cholesky: Array, scale: Array
    ) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, precisions_cholesky / scale[:, None]

    def dense(self, covariances: Array, components: int, n_features: int) -> Array:
        return covariances

    def variances(self, covariances: Array, components: int, n_features: int) -> Array:
        return np.diagonal(covariances, axis1=1, axis2=2)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky @ precisions_cholesky.swapaxes(1, 2)

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        covariances, precisions_cholesky = zip(*map(factors_of_matrix, precisions), strict=True)
        return np.stack(covariances), np.stack(precisions_cholesky)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return np.stack([factor_of_matrix(each) for each in covariances])

    def check(self, covariances: Array, precisions_cholesky: Array, spread: Array) -> None:
        for pair in zip(covariances, precisions_cholesky, strict=True):
            check_matrix(*pair, spread)


FULL: Final = Full()
