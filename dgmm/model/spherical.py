"""Each component has one variance, the same in all directions."""

import numpy as np
from numpy.typing import NDArray

from dgmm.model.diagonal import (
    check_variances,
    factors_from_variances,
    factors_of_variances,
    raise_variances,
)
from dgmm.model.structure import Array, Structure


class Spherical(Structure):
    """One variance for all features of a component."""

    name = "spherical"
    aligned = True
    isotropic = True

    def width(self, dims: int) -> int:
        return 2 + dims

    def free_parameters(self, components: int, dims: int) -> int:
        return components

    def shape(self, components: int, dims: int) -> tuple[int, ...]:
        return (components,)

    def cross(self, x: Array, y: Array) -> Array:
        return 2 * np.sum(x * y, axis=0, keepdims=True)

    def square(self, x: Array, out: Array) -> None:
        np.sum(x * x, axis=0, out=out[0])

    def whitened(self, factors: Array, vectors: Array) -> Array:
        return factors[:, None] * vectors

    def coloured(self, factors: Array, white: Array) -> Array:
        return white / factors[:, None]

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return np.log(covariances * factors * factors)[:, None]

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return np.exp(coordinates[:, 0]) / (factors * factors)

    def quadratic(self, factors: Array) -> Array:
        return (-0.5 * factors * factors)[:, None]

    def solve(self, factors: Array, vectors: Array) -> Array:
        return (factors * factors)[:, None] * vectors

    def half_log_det(self, factors: Array, dims: int) -> Array:
        return dims * np.log(factors)

    def trace(self, factors: Array, weights: Array) -> Array:
        return factors * factors * weights.sum(axis=-1)

    def stiffness(self, factors: Array) -> Array:
        return factors * factors

    def whiten(self, factors: Array, k: int, x: Array) -> Array:
        return factors[k] * x

    def whitened_trace(self, factors: Array, covariances: Array, dims: int) -> Array:
        return dims * factors * factors * covariances

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

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale[0] * scale[0], factors / scale[0]

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return covariances[:, None, None] * np.eye(dims)

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return np.broadcast_to(covariances[:, None], (components, dims))

    def precisions(self, factors: Array) -> Array:
        return factors * factors

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return factors_of_variances(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return factors_from_variances(covariances)

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        check_variances(covariances, factors)
