"""Each component has one variance, the same in all directions."""

import numpy as np
from numpy.typing import NDArray

from dgmm.model.covariance_model import Array, CovarianceModel
from dgmm.model.diagonal import (
    check_variances,
    factors_from_variances,
    factors_of_variances,
    raise_variances,
)


class Spherical(CovarianceModel):
    """One variance for all features of a component."""

    name = "spherical"
    aligned = True
    isotropic = True

    def width(self, n_features: int) -> int:
        return 2 + n_features

    def free_parameters(self, components: int, n_features: int) -> int:
        return components

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return (components,)

    def cross(self, x: Array, y: Array) -> Array:
        return 2 * np.sum(x * y, axis=0, keepdims=True)

    def square(self, x: Array, out: Array) -> None:
        np.sum(x * x, axis=0, out=out[0])

    def whitened(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return precisions_cholesky[:, None] * vectors

    def coloured(self, precisions_cholesky: Array, white: Array) -> Array:
        return white / precisions_cholesky[:, None]

    def coordinates(self, precisions_cholesky: Array, covariances: Array) -> Array:
        return np.log(covariances * precisions_cholesky * precisions_cholesky)[:, None]

    def from_coordinates(self, precisions_cholesky: Array, coordinates: Array) -> Array:
        return np.exp(coordinates[:, 0]) / (precisions_cholesky * precisions_cholesky)

    def quadratic(self, precisions_cholesky: Array) -> Array:
        return (-0.5 * precisions_cholesky * precisions_cholesky)[:, None]

    def solve(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return (precisions_cholesky * precisions_cholesky)[:, None] * vectors

    def half_log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return n_features * np.log(precisions_cholesky)

    def trace(self, precisions_cholesky: Array, weights: Array) -> Array:
        return precisions_cholesky * precisions_cholesky * weights.sum(axis=-1)

    def max_eigenvalue_bound(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky * precisions_cholesky

    def whiten(self, precisions_cholesky: Array, k: int, x: Array) -> Array:
        return precisions_cholesky[k] * x

    def whitened_trace(
        self, precisions_cholesky: Array, covariances: Array, n_features: int
    ) -> Array:
        return n_features * precisions_cholesky * precisions_cholesky * covariances

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        mean_square = second[:, 0] / counts - np.sum(offsets * offsets, axis=1)
        return mean_square / offsets.shape[1]

    def kept(self, covariance: Array) -> Array:
        means = np.diagonal(covariance, axis1=-2, axis2=-1).mean(axis=-1)
        return means[..., None, None] * np.eye(covariance.shape[-1])

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + amounts.mean()

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return raise_variances(covariances)

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return covariances / amounts.mean()

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        total = weights @ (covariances + ((means - weights @ means) ** 2).mean(axis=1))
        least = self.thinnest(covariances, amounts)
        return least if total >= amounts.mean() else np.full_like(least, np.inf)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return np.ones((1, len(amounts)))

    def rescale(
        self, covariances: Array, precisions_cholesky: Array, scale: Array
    ) -> tuple[Array, Array]:
        return covariances * scale[0] * scale[0], precisions_cholesky / scale[0]

    def dense(self, covariances: Array, components: int, n_features: int) -> Array:
        return covariances[:, None, None] * np.eye(n_features)

    def variances(self, covariances: Array, components: int, n_features: int) -> Array:
        return np.broadcast_to(covariances[:, None], (components, n_features))

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky * precisions_cholesky

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return factors_of_variances(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return factors_from_variances(covariances)

    def check(self, covariances: Array, precisions_cholesky: Array, spread: Array) -> None:
        check_variances(covariances, precisions_cholesky)
