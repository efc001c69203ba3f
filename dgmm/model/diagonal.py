"""Each component has a variance for each feature."""

import numpy as np
from numpy.typing import NDArray

from dgmm.model.covariance_model import EXACT, FLOOR, Array, CovarianceModel


def raise_variances(variances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Variances at or above ``FLOOR``, their precision factors, and which had to be raised."""
    raised = np.maximum(variances, FLOOR)
    lost = np.any(raised.reshape(len(raised), -1) > variances.reshape(len(raised), -1), axis=1)
    return raised, 1.0 / np.sqrt(raised), lost


def factors_of_variances(precisions: Array) -> tuple[Array, Array]:
    """Variances and factors from ``precisions``; raises ``LinAlgError`` if there are none."""
    if not np.all(precisions > 0):
        raise np.linalg.LinAlgError("a precision is not positive")
    return 1.0 / precisions, np.sqrt(precisions)


def factors_from_variances(variances: Array) -> Array:
    """Precision factors from ``variances``; raises ``LinAlgError`` if there are none."""
    if not np.all(variances > 0):
        raise np.linalg.LinAlgError("a variance is not positive")
    return 1.0 / np.sqrt(variances)


def check_variances(variances: Array, precisions_cholesky: Array) -> None:
    """Raise ``LinAlgError`` unless ``precisions_cholesky`` belong to sound ``variances``."""
    if not (variances.min() > 0 and precisions_cholesky.min() > 0):
        raise np.linalg.LinAlgError("a variance or a factor is not positive")
    if not np.abs(precisions_cholesky * variances * precisions_cholesky - 1).max() <= EXACT:
        raise np.linalg.LinAlgError("the factors don't invert the covariances")


class Diagonal(CovarianceModel):
    """Independent features within a component."""

    name = "diag"
    informed = True
    aligned = True

    def width(self, n_features: int) -> int:
        return 1 + 2 * n_features

    def free_parameters(self, components: int, n_features: int) -> int:
        return components * n_features

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return components, n_features

    def cross(self, x: Array, y: Array) -> Array:
        return 2 * x * y

    def square(self, x: Array, out: Array) -> None:
        np.multiply(x, x, out=out)

    def whitened(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return precisions_cholesky * vectors

    def coloured(self, precisions_cholesky: Array, white: Array) -> Array:
        return white / precisions_cholesky

    def coordinates(self, precisions_cholesky: Array, covariances: Array) -> Array:
        return np.log(covariances * precisions_cholesky * precisions_cholesky) / np.sqrt(2)

    def from_coordinates(self, precisions_cholesky: Array, coordinates: Array) -> Array:
        return np.exp(coordinates * np.sqrt(2)) / (precisions_cholesky * precisions_cholesky)

    def scores(self, white: Array) -> Array:
        return (white * white - 1) / np.sqrt(2)

    def quadratic(self, precisions_cholesky: Array) -> Array:
        return -0.5 * precisions_cholesky * precisions_cholesky

    def solve(self, precisions_cholesky: Array, vectors: Array) -> Array:
        return precisions_cholesky * precisions_cholesky * vectors

    def half_log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.log(precisions_cholesky).sum(axis=1)

    def trace(self, precisions_cholesky: Array, weights: Array) -> Array:
        return np.sum(precisions_cholesky * precisions_cholesky * weights, axis=1)

    def max_eigenvalue_bound(self, precisions_cholesky: Array) -> Array:
        return (precisions_cholesky * precisions_cholesky).max(axis=1)

    def whiten(self, precisions_cholesky: Array, k: int, x: Array) -> Array:
        return precisions_cholesky[k][:, None] * x

    def whitened_trace(
        self, precisions_cholesky: Array, covariances: Array, n_features: int
    ) -> Array:
        return np.sum(precisions_cholesky * precisions_cholesky * covariances, axis=1)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        return second / counts[:, None] - offsets * offsets

    def kept(self, covariance: Array) -> Array:
        return covariance * np.eye(covariance.shape[-1])

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + amounts

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return raise_variances(covariances)

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return (covariances / amounts).min(axis=1)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        total = weights @ (covariances + (means - weights @ means) ** 2)
        return np.where(total < amounts, np.inf, covariances / amounts).min(axis=1)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        relative = np.maximum(covariances / amounts, 0.0)
        least = relative.min(axis=1, keepdims=True)
        return (least + 1.0) / (relative + 1.0)  # what ``amounts`` add hides smaller differences

    def rescale(
        self, covariances: Array, precisions_cholesky: Array, scale: Array
    ) -> tuple[Array, Array]:
        return covariances * scale * scale, precisions_cholesky / scale

    def dense(self, covariances: Array, components: int, n_features: int) -> Array:
        return covariances[:, :, None] * np.eye(n_features)

    def variances(self, covariances: Array, components: int, n_features: int) -> Array:
        return covariances

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky * precisions_cholesky

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return factors_of_variances(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return factors_from_variances(covariances)

    def check(self, covariances: Array, precisions_cholesky: Array, spread: Array) -> None:
        check_variances(covariances, precisions_cholesky)
