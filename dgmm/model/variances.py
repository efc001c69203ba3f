"""Variances, of axes that don't turn: their factors, and what must hold of them."""

import numpy as np

from dgmm.model.arrays import EXACT, FLOOR, Array, Mask


def raise_variances(variances: Array) -> tuple[Array, Array, Mask]:
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
