"""Each component has a covariance matrix of its own."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

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
from dgmm.model.structure import Array, Structure


class Full(Structure):
    """A covariance of its own for each component."""

    name = "full"
    informed = True

    def width(self, dims: int) -> int:
        return 1 + dims + dims * (dims + 1) // 2

    def free_parameters(self, components: int, dims: int) -> int:
        return components * dims * (dims + 1) // 2

    def shape(self, components: int, dims: int) -> tuple[int, ...]:
        return components, dims, dims

    def cross(self, x: Array, y: Array) -> Array:
        rows, columns = upper_places(len(x))
        return x[rows] * y[columns] + x[columns] * y[rows]

    def square(self, x: Array, out: Array) -> None:
        at = 0
        for i in range(len(x)):
            np.multiply(x[i], x[i:], out=out[at : at + len(x) - i])
            at += len(x) - i

    def whitened(self, factors: Array, vectors: Array) -> Array:
        return (vectors[:, None, :] @ factors)[:, 0]

    def coloured(self, factors: Array, white: Array) -> Array:
        return solve_factors(factors, white[:, :, None])[:, :, 0]

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return log_cholesky(factors, covariances)

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return from_log_cholesky(factors, coordinates)

    def scores(self, white: Array) -> Array:
        rows, columns = lower_places(len(white))
        own = (white * white - 1) / np.sqrt(2)
        return np.concatenate([own, white[rows] * white[columns]])

    def quadratic(self, factors: Array) -> Array:
        rows, columns = upper_places(factors.shape[1])
        precisions = self.precisions(factors)
        return precisions[:, rows, columns] * np.where(rows == columns, -0.5, -1.0)

    def solve(self, factors: Array, vectors: Array) -> Array:
        return (factors @ (vectors[:, None, :] @ factors).swapaxes(1, 2))[:, :, 0]

    def half_log_det(self, factors: Array, dims: int) -> Array:
        return np.sum(np.log(np.diagonal(factors, axis1=1, axis2=2)), axis=1)

    def trace(self, factors: Array, weights: Array) -> Array:
        diagonals = np.sum(factors * factors, axis=2)
        return np.sum(diagonals * weights, axis=1)

    def stiffness(self, factors: Array) -> Array:
        return np.abs(self.precisions(factors)).sum(axis=2).max(axis=1)

    def whiten(self, factors: Array, k: int, x: Array) -> Array:
        return factors[k].T @ x

    def whitened_trace(self, factors: Array, covariances: Array, dims: int) -> Array:
        return np.sum((covariances @ factors) * factors, axis=(1, 2))

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

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, factors / scale[:, None]

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return covariances

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return np.diagonal(covariances, axis1=1, axis2=2)

    def precisions(self, factors: Array) -> Array:
        return factors @ factors.swapaxes(1, 2)

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        covariances, factors = zip(*map(factors_of_matrix, precisions), strict=True)
        return np.stack(covariances), np.stack(factors)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return np.stack([factor_of_matrix(each) for each in covariances])

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        for pair in zip(covariances, factors, strict=True):
            check_matrix(*pair, spread)


FULL: Final = Full()
