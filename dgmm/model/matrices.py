"""Covariance matrices: their factors, smallest eigenvalues and coordinates, for many at once."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import rq, solve_triangular
from scipy.linalg.lapack import dtrtri

from dgmm.model.arrays import EXACT, FLOOR, ROUNDING, Array
from dgmm.model.sharing import batches, shared_out

BATCH: Final = 1 << 22
"""About how many products a factor of each of a batch of matrices takes: some 2 ms."""


@cache
def upper_places(n_features: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The index pairs i <= j in the order of the full structure's features."""
    return np.triu_indices(n_features)


@cache
def lower_places(n_features: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The index pairs i > j."""
    return np.tril_indices(n_features, -1)


def unpack(second: Array, n_features: int) -> Array:
    """Symmetric matrices (K, D, D) from their upper triangles (K, D(D+1)/2)."""
    rows, columns = upper_places(n_features)
    matrices = np.empty((len(second), n_features, n_features))
    matrices[:, rows, columns] = second
    matrices[:, columns, rows] = second
    return matrices


def precision_products(precisions: Array) -> Array:
    """The coefficients (K, D(D+1)/2) of x_i x_j, i <= j, in -x' P x / 2 for each P (K, D, D)."""
    rows, columns = upper_places(precisions.shape[1])
    return precisions[:, rows, columns] * np.where(rows == columns, -0.5, -1.0)


def by_batches(
    fn: Callable[..., tuple[NDArray[Any], ...]], *matrices: Array
) -> tuple[NDArray[Any], ...]:
    """What ``fn`` makes of ``matrices`` (K, D, ...), each by itself: threads share many large ones.

    It makes arrays (K, ...).
    """
    count, size = len(matrices[0]), max(1, matrices[0].shape[1] ** 3)
    parts = batches(count, BATCH // size)
    if len(parts) < 2:
        return fn(*matrices)
    made = shared_out(lambda part: fn(*(each[part] for each in matrices)), parts, count * size)
    return tuple(np.concatenate(each) for each in zip(*made, strict=True))


def factor_matrices(covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Covariances (K, D, D) at or above their floors, precision factors, which were raised (K,)."""
    raised, factors, lost = by_batches(_factored, covariances)
    return raised, factors, lost


def _factored(covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The same of a batch."""
    n_features = covariances.shape[1]
    precisions_cholesky = np.ascontiguousarray(
        triangle_inverses(choleskys(covariances)).swapaxes(1, 2)
    )
    floors = np.maximum(FLOOR, n_features * ROUNDING * np.trace(covariances, axis1=1, axis2=2))
    # tr(P) bounds the largest eigenvalue of P
    traces = np.einsum("kij,kij->k", precisions_cholesky, precisions_cholesky)
    thin = ~(traces * floors < 1.0)
    if not thin.any():
        return covariances, precisions_cholesky, thin
    raised, lost = covariances.copy(), np.zeros(len(thin), bool)
    for k in np.flatnonzero(thin):
        raised[k], precisions_cholesky[k], lost[k] = factor_matrix(covariances[k])
    return raised, precisions_cholesky, lost


def in_units_of(covariances: Array, variances: Array) -> tuple[Array, Array]:
    """Covariances (K, D, D) and precision factors, at or above floors in units of ``variances``.

    These (K, D) are of each feature in each component, and about as large as the covariances were
    before rounding: so floors are right in whatever units.
    """
    scale = np.exp2(np.round(np.log2(variances) / 2))
    unit = scale[:, :, None] * scale[:, None]
    raised, factors, _ = factor_matrices(covariances / unit)
    return raised * unit, factors / scale[:, :, None]


def choleskys(covariances: Array) -> Array:
    """The Cholesky factors of (K, D, D); NaN for those that have none."""
    lower: Array
    try:
        lower = np.linalg.cholesky(covariances).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        lower = np.full_like(covariances, np.nan)
        for k, each in enumerate(covariances):
            with suppress(np.linalg.LinAlgError):
                lower[k] = np.linalg.cholesky(each)
    return lower


def triangle_inverses(lower: Array) -> Array:
    """The inverses of lower triangles (K, D, D), row by row."""
    inverse = np.zeros_like(lower)
    for i in range(lower.shape[1]):
        pivot = lower[:, i, i, None]
        inverse[:, i, :i] = (-lower[:, i, None, :i] @ inverse[:, :i, :i])[:, 0] / pivot
        inverse[:, i, i] = 1 / pivot[:, 0]
    return inverse


def factor_matrix(covariance: Array) -> tuple[Array, Array, bool]:
    """One (D, D) covariance at or above its floor, its precision factor, whether it was raised.

    By its eigenvectors: the smallest eigenvalues of a matrix near its floor are rounding.
    """
    values, vectors = np.linalg.eigh(covariance)
    floor = max(FLOOR, len(covariance) * ROUNDING * values[-1])
    lost = bool(values[0] < floor)
    values = np.maximum(values, floor)
    # From the eigenvectors, not from the rebuilt matrix, too.
    factor, _ = rq(vectors / np.sqrt(values), check_finite=False)
    factor = factor * np.where(np.diagonal(factor) < 0, -1.0, 1.0)
    return (vectors * values) @ vectors.T if lost else covariance, factor, lost


def floored_values(values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Eigenvalues (K, D) at or above the floors of their matrices, and which were raised (K,)."""
    most = values.max(axis=1, keepdims=True)
    floors = np.maximum(FLOOR, values.shape[1] * ROUNDING * most)
    return np.maximum(values, floors), (values < floors).any(axis=1)


def matrices_along(axes: Array, values: Array) -> Array:
    """Matrices (K, D, D) of such ``axes`` (K, D, D), or (1, D, D), and eigenvalues (K, D)."""
    roots = axes * np.sqrt(values)[..., None, :]
    matrices = roots @ roots.swapaxes(-1, -2)
    return (matrices + matrices.swapaxes(-1, -2)) / 2


def factors_along(axes: Array, values: Array) -> Array:
    """The precision factors (K, D, D) of these, upper triangular, each direction to the last bit.

    The triangle of a root of the precision, by its QR factors with rows and columns reversed.
    """
    roots = axes / np.sqrt(values)[..., None, :]
    upper = np.linalg.qr(roots[..., ::-1, :].swapaxes(-1, -2)).R
    factors = upper.swapaxes(-1, -2)[..., ::-1, ::-1]
    signs = np.where(np.diagonal(factors, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return np.ascontiguousarray(factors * signs[..., None, :])


def least_eigenvalue(covariances: Array, amounts: Array) -> Array:
    """The smallest eigenvalue (K,) of each of ``covariances`` (K, D, D) over diag(``amounts``)."""
    root = np.sqrt(amounts)
    values = np.linalg.eigvalsh(covariances / root[:, None] / root)
    return values[:, 0].astype(np.float64, copy=False)


def least_apart(weights: Array, means: Array, covariances: Array, amounts: Array) -> Array:
    """The same, where directions that are flat in the whole mixture don't count.

    ``covariances`` are (K, D, D), or (1, D, D) for all; ``weights`` (K,) sum to 1.
    """
    root = np.sqrt(amounts)
    away = means - weights @ means
    within = np.broadcast_to(covariances, (len(weights), *covariances.shape[1:]))
    flat = flat_directions(np.tensordot(weights, within, 1) + (away.T * weights) @ away, amounts)
    flat = np.linalg.qr(flat * root[:, None])[0]
    correlations = covariances / root[:, None] / root
    least = np.linalg.eigvalsh(correlations + 2 * flat @ flat.T)[:, 0]
    return least.astype(np.float64, copy=False)


def flat_directions(total: Array, amounts: Array) -> Array:
    """Directions (D, m), v with v' ``total`` v below v' diag(``amounts``) v, or rounding.

    Each feature is looked at in units of its own spread: so one of rows far away hides no other's.
    """
    spread = np.sqrt(np.maximum(np.diagonal(total), amounts))
    values, vectors = np.linalg.eigh(total / spread[:, None] / spread)
    least = (amounts / spread / spread) @ (vectors * vectors) + len(spread) * ROUNDING
    chosen = values < least
    return vectors[:, chosen] / spread[:, None]


def least_eigenvector(covariances: Array, amounts: Array) -> Array:
    """Its eigenvector's entries (K, D) without signs, over the largest."""
    root = np.sqrt(amounts)
    vectors = np.abs(np.linalg.eigh(covariances / root[:, None] / root)[1][:, :, 0])
    directions: Array = (vectors / vectors.max(axis=1, keepdims=True)).astype(
        np.float64, copy=False
    )
    return directions


def solve_factors(precisions_cholesky: Array, white: Array) -> Array:
    """C'^-1 ``white`` for each C of ``precisions_cholesky`` (K, D, D) and ``white`` (K, D, M).

    NumPy has no solver for many triangles; one call for many is worth the general one's work.
    """
    (solved,) = by_batches(_solved, precisions_cholesky, white)
    return solved


def _solved(precisions_cholesky: Array, white: Array) -> tuple[Array]:
    """The same of a batch."""
    solved = np.linalg.solve(precisions_cholesky.swapaxes(1, 2), white)
    return (solved.astype(np.float64, copy=False),)


def log_cholesky(precisions_cholesky: Array, covariances: Array) -> Array:
    """The log-Cholesky factors of C' S C (K, M): logarithms on the diagonal, which count twice."""
    lower = np.linalg.cholesky(
        precisions_cholesky.swapaxes(1, 2) @ covariances @ precisions_cholesky
    )
    diagonals = np.sqrt(2) * np.log(np.diagonal(lower, axis1=1, axis2=2))
    rows, columns = lower_places(lower.shape[1])
    return np.concatenate([diagonals, lower[:, rows, columns]], axis=1)


def from_log_cholesky(precisions_cholesky: Array, coordinates: Array) -> Array:
    """The covariances (K, D, D) that have these ``coordinates`` (K, M)."""
    n_features = precisions_cholesky.shape[1]
    lower = np.exp(coordinates[:, :n_features] / np.sqrt(2))[:, :, None] * np.eye(n_features)
    rows, columns = lower_places(n_features)
    lower[:, rows, columns] = coordinates[:, n_features:]
    roots = solve_factors(precisions_cholesky, lower)
    return roots @ roots.swapaxes(1, 2)


def check_symmetric(matrix: Array) -> None:
    """Raise ``LinAlgError`` unless a ``matrix`` (D, D) is symmetric but for rounding."""
    size = np.sqrt(np.abs(np.diagonal(matrix)))  # of each feature, in whatever units
    off = np.abs(matrix - matrix.T)
    if not (off <= 1e-7 * np.abs(matrix.T) + EXACT * size[:, None] * size).all():
        raise np.linalg.LinAlgError("the matrix is not symmetric")


def factor_of_matrix(covariance: Array) -> Array:
    """The precision factor of one (D, D) covariance, at whatever scale."""
    check_symmetric(covariance)
    variances = np.diagonal(covariance)
    if not variances.min() > 0:
        raise np.linalg.LinAlgError("a variance is not positive")
    scale = np.exp2(np.round(np.log2(variances) / 2))
    factor = dtrtri(np.linalg.cholesky(covariance / scale[:, None] / scale), lower=1)[0].T
    return np.ascontiguousarray(factor / scale[:, None])


def check_matrix(covariance: Array, factor: Array, spread: Array) -> None:
    """Raise ``LinAlgError`` unless ``factor`` is that of ``covariance``, both (D, D).

    C' S C is the identity, or C'^-1 C^-1 is S, as far as rounding lets them: it moves the first by
    the condition number of S, which may be 1 / FLOOR, and the second by a few times the root of
    that, relative to the largest variance in units of the ``spread``.
    """
    diagonal = np.diagonal(factor)
    if np.tril(factor, -1).any() or not diagonal.min() > 0:
        raise np.linalg.LinAlgError("a factor is not upper triangular with a positive diagonal")
    variances = np.diagonal(covariance)
    if not variances.min() > 0:
        raise np.linalg.LinAlgError("a variance is not positive")
    scaled = covariance / spread[:, None] / spread
    size = EXACT * np.diagonal(scaled).max()
    if not np.abs(scaled - scaled.T).max() <= size:
        raise np.linalg.LinAlgError("a covariance is not symmetric")
    white = factor * spread[:, None]
    if np.abs(white.T @ scaled @ white - np.eye(len(white))).max() <= 100 * EXACT:
        return
    root = dtrtri(white)[0]
    if not np.abs(root.T @ root - scaled).max() <= 10 * size:
        raise np.linalg.LinAlgError("the factors don't invert the covariances")


def factors_of_matrix(precision: Array) -> tuple[Array, Array]:
    """The covariance and the precision factor of one (D, D) precision."""
    check_symmetric(precision)
    # Reversing rows and columns turns the lower Cholesky factor into the upper one.
    factor = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    inverse = solve_triangular(factor, np.eye(len(factor)), check_finite=False)
    return inverse.T @ inverse, np.ascontiguousarray(factor)
