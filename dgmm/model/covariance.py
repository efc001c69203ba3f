"""The four covariance structures: what differs between them, and only that.

A Gaussian mixture is an exponential family: with the features T(x) = [1, x, quadratic part] of a
row, ``log pi_k + log N(x | k) = T(x) . eta_k``.  A structure says what the quadratic part is, how
a covariance is estimated from sums of it, and how a covariance is inverted.

=========  ======================  =================  ===================  ==============
structure  quadratic part, Q wide  covariances        precision factors C  P = 1 + D + Q
=========  ======================  =================  ===================  ==============
full       x_i x_j, i <= j         (K, D, D)          (K, D, D)            1+D+D(D+1)/2
diag       x_i^2                   (K, D)             (K, D)               1+2D
spherical  |x|^2                   (K,)               (K,)                 2+D
tied       none                    (D, D)             (D, D)               1+D
=========  ======================  =================  ===================  ==============

The precision is ``C C'`` with C upper triangular, as scikit-learn's ``precisions_cholesky_``.

Tied has no quadratic part because it is the same for all components: it cancels in the
responsibilities, and what it adds to the log-likelihood follows from the total scatter of the
rows, which never changes and is summed once, in the first sweep (``common`` and ``total``).

**Rank.**  A component may collapse onto fewer rows than it has features, and its likelihood then
grows without bound.  Every structure keeps all variances at or above ``FLOOR`` (in the frame,
where a feature's spread is about 1) by raising smaller eigenvalues to it.  That is the exact
M-step of the likelihood maximised under the constraint "no variance below FLOOR", because

    argmax_S  -log|S| - tr(S^-1 M)   subject to   S >= FLOOR I

keeps the eigenvectors of M and clips its eigenvalues; so the objective still never falls.

A matrix of large eigenvalues holds none much smaller than their rounding, D u times the largest.
So a component that is far wider than the frame has that for its own floor; it counts as collapsed
at it, as the eigenvalue that was there is only rounding.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import rq, solve_triangular
from scipy.linalg.lapack import dtrtri

Array = NDArray[np.float64]

FLOOR: Final = 1e-15
"""The smallest variance, where the data's own is about 1.  Rounding in a sum of squares is about
1e-16 of it, so a smaller variance would be mostly noise."""

ROUNDING: Final = float(np.finfo(np.float64).eps)


EXACT: Final = 1e-8
"""How far covariances and factors in a file may be apart: rounding may be 1e-16 / sqrt(FLOOR)."""


class Structure(ABC):
    """How the covariances of K components are tied down.  Use ``STRUCTURES[name]``."""

    name: ClassVar[str]
    shared: ClassVar[bool] = False
    """One covariance serves all components."""
    aligned: ClassVar[bool] = False
    """A component has variances of its features, and no covariances."""
    informed: ClassVar[bool] = False
    """It has ``scores``."""
    isotropic: ClassVar[bool] = False
    """The structure survives only the scaling of all features by one number."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickle by name: there is one object of each structure in a process."""
        return structure, (self.name,)

    @property
    def centred(self) -> "Structure":
        """The structure whose features are summed about a component's own mean."""
        return self

    @abstractmethod
    def width(self, dims: int) -> int:
        """P, the number of features of T for ``dims`` = D columns."""

    @abstractmethod
    def free_parameters(self, components: int, dims: int) -> int:
        """The covariances' free parameters, for information criteria."""

    @abstractmethod
    def shape(self, components: int, dims: int) -> tuple[int, ...]:
        """The shape of the covariances, and of the precision factors."""

    @abstractmethod
    def square(self, x: Array, out: Array) -> None:
        """Write the quadratic part of ``x`` (D, n) to ``out`` (Q, n)."""

    def features(self, x: Array, out: Array) -> Array:
        """Write T(x) to ``out`` (P, n) for ``x`` (D, n), a row a column, and return it."""
        dims = len(x)
        out[0] = 1.0
        out[1 : 1 + dims] = x
        self.square(x, out[1 + dims :])
        return out

    @abstractmethod
    def cross(self, x: Array, y: Array) -> Array:
        """What ``square`` of (D, n) ``x + y`` has beyond those of each: (Q, n), bilinear."""

    def moved(self, sums: Array, by: Array) -> Array:
        """Sums (K, P) of T(x - by_k), from ``sums`` (K, P) of T(x); ``by`` is (K, D)."""
        dims = by.shape[1]
        counts, first, second = sums[:, :1], sums[:, 1 : 1 + dims], sums[:, 1 + dims :]
        both, alone = self.cross(first.T, by.T).T, self.cross(by.T, by.T).T / 2
        return np.concatenate([counts, first - counts * by, second - both + counts * alone], axis=1)

    @abstractmethod
    def coordinates(self, factors: Array, covariances: Array) -> Array:
        """Unconstrained coordinates (K, M) of ``covariances``, seen from others' ``factors``.

        They are 0 where the two are equal, and there, the Fisher information of a normal
        distribution for them is near the identity.  Raises ``LinAlgError`` where rounding makes a
        matrix indefinite.
        """

    @abstractmethod
    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        """The covariances with these ``coordinates``, seen from ``factors``."""

    def scores(self, white: Array) -> Array:
        """The derivatives (M, n) of log-densities by ``coordinates``, at rows ``white`` (D, n).

        These are rows as a component with the factors sees them: ``whiten``.
        """
        raise NotImplementedError(f"a sample's information is not known for {self.name}")

    @abstractmethod
    def quadratic(self, factors: Array) -> Array:
        """The coefficients (K, Q) of the quadratic part in log N(x | k)."""

    @abstractmethod
    def solve(self, factors: Array, vectors: Array) -> Array:
        """Each precision times its row of ``vectors`` (K, D)."""

    @abstractmethod
    def half_log_det(self, factors: Array, dims: int) -> Array:
        """Half the log-determinant of each precision, (K,) or (1,)."""

    @abstractmethod
    def trace(self, factors: Array, weights: Array) -> Array:
        """sum_j weights_j P_jj of each precision P, (K,) or (1,); ``weights``: (D,) or (K, D)."""

    @abstractmethod
    def stiffness(self, factors: Array) -> Array:
        """An upper bound of each precision's largest eigenvalue, (K,) or (1,)."""

    @abstractmethod
    def whiten(self, factors: Array, k: int, x: Array) -> Array:
        """C_k' x, for ``x`` (D, n): rows of unit variance."""

    @abstractmethod
    def whitened(self, factors: Array, vectors: Array) -> Array:
        """C_k' times row k of ``vectors`` (K, D), for every k."""

    @abstractmethod
    def coloured(self, factors: Array, white: Array) -> Array:
        """The vectors (K, D) whose ``whitened`` are ``white`` (K, D)."""

    @abstractmethod
    def whitened_trace(self, factors: Array, covariances: Array, dims: int) -> Array:
        """The trace of C' S C for each covariance S, (K,) or (1,): D where S has these factors."""

    def common(self, factors: Array, x: Array) -> Array | float:
        """What log N(x | k) holds beyond T(x) . eta_k, the same for every k; ``x`` is (D, n)."""
        return 0.0

    def common_sum(self, factors: Array, total: Array | None) -> float:
        """The sum of ``common`` over all rows, from their ``total`` scatter about 0 (D, D)."""
        return 0.0

    @abstractmethod
    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        """Maximum-likelihood covariances.

        ``counts`` (K,), ``means`` (K, D) about 0; ``offsets`` (K, D) the means and ``second``
        (K, Q) the sums of the quadratic part, both about the same points; ``total`` (D, D) for
        tied, see ``common_sum``.
        """

    def freedom(self, counts: Array) -> Array:
        """How many rows beyond the mean's one each covariance is of, (K,), from ``counts`` (K,)."""
        return counts - 1

    def kept(self, covariance: Array) -> Array:
        """What of a ``covariance`` (..., D, D) one of the structure can have."""
        return covariance

    def pooled(self, counts: Array, covariances: Array) -> Array:
        """The structure's estimates (..., K, D, D) from full ones, each of so many rows (..., K).

        Where one serves all components it is (..., 1, D, D).
        """
        return self.kept(covariances)

    @abstractmethod
    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        """The covariances plus diag(``amounts``), (D,)."""

    @abstractmethod
    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Covariances at or above FLOOR, their precision factors, and which had to be raised."""

    @abstractmethod
    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        """The smallest variance in any direction in units of ``amounts`` (D,) > 0, (K,) or (1,).

        That is the smallest eigenvalue of each covariance relative to diag(``amounts``).
        """

    @abstractmethod
    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        """``thinnest``, but for directions in which all rows together have no more either.

        All rows: the mixture of these ``weights`` (K,), which sum to 1, ``means`` (K, D) and
        ``covariances``.
        """

    @abstractmethod
    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        """How much each feature takes part in that direction, (K, D) or (1, D), from 0 to 1."""

    @abstractmethod
    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        """Covariances and factors of ``scale * x``; ``scale`` is (D,)."""

    @abstractmethod
    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        """The covariances as (K, D, D)."""

    @abstractmethod
    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        """The diagonals of the covariances, (K, D)."""

    @abstractmethod
    def precisions(self, factors: Array) -> Array:
        """The precisions C C', in the shape of the covariances."""

    @abstractmethod
    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        """Covariances and precision factors of given ``precisions``.

        Raises ``numpy.linalg.LinAlgError`` unless every one is symmetric positive definite.
        """

    @abstractmethod
    def factors_of_covariances(self, covariances: Array) -> Array:
        """The precision factors of given ``covariances``, however small, without any FLOOR.

        Raises ``numpy.linalg.LinAlgError`` unless every one is symmetric positive definite.
        """

    @abstractmethod
    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        """Raise ``LinAlgError`` unless ``factors`` are those of ``covariances``, but for rounding.

        ``spread`` (D,) is the standard deviation of each feature of the data.
        """


@cache
def _upper(dims: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The index pairs i <= j in the order of the full structure's features."""
    return np.triu_indices(dims)


@cache
def _below(dims: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The index pairs i > j."""
    return np.tril_indices(dims, -1)


def _unpack(second: Array, dims: int) -> Array:
    """Symmetric matrices (K, D, D) from their upper triangles (K, D(D+1)/2)."""
    rows, columns = _upper(dims)
    matrices = np.empty((len(second), dims, dims))
    matrices[:, rows, columns] = second
    matrices[:, columns, rows] = second
    return matrices


def _factor_matrices(covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Covariances (K, D, D) at or above their floors, precision factors, which were raised (K,)."""
    dims = covariances.shape[1]
    factors = np.ascontiguousarray(_inverses(choleskys(covariances)).swapaxes(1, 2))
    floors = np.maximum(FLOOR, dims * ROUNDING * np.trace(covariances, axis1=1, axis2=2))
    # tr(P) bounds the largest eigenvalue of P
    thin = ~(np.sum(factors * factors, axis=(1, 2)) * floors < 1.0)
    if not thin.any():
        return covariances, factors, thin
    raised, lost = covariances.copy(), np.zeros(len(thin), bool)
    for k in np.flatnonzero(thin):
        raised[k], factors[k], lost[k] = _factor_matrix(covariances[k])
    return raised, factors, lost


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


def _inverses(lower: Array) -> Array:
    """The inverses of lower triangles (K, D, D), row by row."""
    inverse = np.zeros_like(lower)
    for i in range(lower.shape[1]):
        pivot = lower[:, i, i, None]
        inverse[:, i, :i] = (-lower[:, i, None, :i] @ inverse[:, :i, :i])[:, 0] / pivot
        inverse[:, i, i] = 1 / pivot[:, 0]
    return inverse


def _factor_matrix(covariance: Array) -> tuple[Array, Array, bool]:
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


def _least_eigenvalue(covariances: Array, amounts: Array) -> Array:
    """The smallest eigenvalue (K,) of each of ``covariances`` (K, D, D) over diag(``amounts``)."""
    root = np.sqrt(amounts)
    values = np.linalg.eigvalsh(covariances / root[:, None] / root)
    return values[:, 0].astype(np.float64, copy=False)


def _least_apart(weights: Array, means: Array, covariances: Array, amounts: Array) -> Array:
    """The same, where directions that are flat in the whole mixture don't count.

    ``covariances`` are (K, D, D), or (1, D, D) for all; ``weights`` (K,) sum to 1.
    """
    root = np.sqrt(amounts)
    away = means - weights @ means
    within = np.broadcast_to(covariances, (len(weights), *covariances.shape[1:]))
    flat = flat_directions(np.tensordot(weights, within, 1) + (away.T * weights) @ away, amounts)
    flat = np.linalg.qr(flat * root[:, None])[0]
    own = covariances / root[:, None] / root
    least = np.linalg.eigvalsh(own + 2 * flat @ flat.T)[:, 0]
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


def _least_eigenvector(covariances: Array, amounts: Array) -> Array:
    """Its eigenvector's entries (K, D) without signs, over the largest."""
    root = np.sqrt(amounts)
    vectors = np.abs(np.linalg.eigh(covariances / root[:, None] / root)[1][:, :, 0])
    return (vectors / vectors.max(axis=1, keepdims=True)).astype(np.float64, copy=False)


def _solve(factors: Array, white: Array) -> Array:
    """C'^-1 ``white`` for each of ``factors`` (K, D, D) and its own ``white`` (K, D, M).

    NumPy has no solver for many triangles; one call for all is worth the general one's work.
    """
    return np.linalg.solve(factors.swapaxes(1, 2), white).astype(np.float64, copy=False)


def _log_cholesky(factors: Array, covariances: Array) -> Array:
    """The log-Cholesky factors of C' S C (K, M): logarithms on the diagonal, which count twice."""
    lower = np.linalg.cholesky(factors.swapaxes(1, 2) @ covariances @ factors)
    diagonals = np.sqrt(2) * np.log(np.diagonal(lower, axis1=1, axis2=2))
    rows, columns = _below(lower.shape[1])
    return np.concatenate([diagonals, lower[:, rows, columns]], axis=1)


def _from_log_cholesky(factors: Array, coordinates: Array) -> Array:
    """The covariances (K, D, D) that have these ``coordinates`` (K, M)."""
    dims = factors.shape[1]
    lower = np.exp(coordinates[:, :dims] / np.sqrt(2))[:, :, None] * np.eye(dims)
    rows, columns = _below(dims)
    lower[:, rows, columns] = coordinates[:, dims:]
    roots = _solve(factors, lower)
    return roots @ roots.swapaxes(1, 2)


def _check_symmetric(matrix: Array) -> None:
    if not np.allclose(matrix, matrix.T, rtol=1e-7, atol=1e-12 * np.abs(matrix).max()):
        raise np.linalg.LinAlgError("the matrix is not symmetric")


def _factor_of_matrix(covariance: Array) -> Array:
    """The precision factor of one (D, D) covariance, at whatever scale."""
    _check_symmetric(covariance)
    variances = np.diagonal(covariance)
    if not variances.min() > 0:
        raise np.linalg.LinAlgError("a variance is not positive")
    scale = np.exp2(np.round(np.log2(variances) / 2))
    factor = dtrtri(np.linalg.cholesky(covariance / scale[:, None] / scale), lower=1)[0].T
    return np.ascontiguousarray(factor / scale[:, None])


def _check_matrix(covariance: Array, factor: Array, spread: Array) -> None:
    """Raise ``LinAlgError`` unless ``factor`` is that of ``covariance``, both (D, D).

    C' S C is the identity, or C'^-1 C^-1 is S, as far as rounding lets them: it moves the first by
    the condition number of S, which may be 1 / FLOOR, and the second by the root of that, relative
    to the largest variance in units of the ``spread``.
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
    if not np.abs(root.T @ root - scaled).max() <= size:
        raise np.linalg.LinAlgError("the factors don't invert the covariances")


def _factors_of_matrix(precision: Array) -> tuple[Array, Array]:
    """The covariance and the precision factor of one (D, D) precision."""
    _check_symmetric(precision)
    # Reversing rows and columns turns the lower Cholesky factor into the upper one.
    factor = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    inverse = solve_triangular(factor, np.eye(len(factor)), check_finite=False)
    return inverse.T @ inverse, np.ascontiguousarray(factor)


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
        rows, columns = _upper(len(x))
        return x[rows] * y[columns] + x[columns] * y[rows]

    def square(self, x: Array, out: Array) -> None:
        at = 0
        for i in range(len(x)):
            np.multiply(x[i], x[i:], out=out[at : at + len(x) - i])
            at += len(x) - i

    def whitened(self, factors: Array, vectors: Array) -> Array:
        return (vectors[:, None, :] @ factors)[:, 0]

    def coloured(self, factors: Array, white: Array) -> Array:
        return _solve(factors, white[:, :, None])[:, :, 0]

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return _log_cholesky(factors, covariances)

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return _from_log_cholesky(factors, coordinates)

    def scores(self, white: Array) -> Array:
        rows, columns = _below(len(white))
        own = (white * white - 1) / np.sqrt(2)
        return np.concatenate([own, white[rows] * white[columns]])

    def quadratic(self, factors: Array) -> Array:
        rows, columns = _upper(factors.shape[1])
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
        mean_square = _unpack(second / counts[:, None], offsets.shape[1])
        return mean_square - offsets[:, :, None] * offsets[:, None, :]

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + np.diag(amounts)

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return _factor_matrices(covariances)

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return _least_eigenvalue(covariances, amounts)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        return _least_apart(weights, means, covariances, amounts)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return _least_eigenvector(covariances, amounts)

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, factors / scale[:, None]

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return covariances

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return np.diagonal(covariances, axis1=1, axis2=2)

    def precisions(self, factors: Array) -> Array:
        return factors @ factors.swapaxes(1, 2)

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        covariances, factors = zip(*map(_factors_of_matrix, precisions), strict=True)
        return np.stack(covariances), np.stack(factors)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return np.stack([_factor_of_matrix(each) for each in covariances])

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        for pair in zip(covariances, factors, strict=True):
            _check_matrix(*pair, spread)


class Tied(Structure):
    """One covariance for all components."""

    name = "tied"
    shared = True

    @property
    def centred(self) -> Structure:
        # The total scatter is of no use once a component is much narrower than the data.
        return STRUCTURES["full"]

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
        return _solve(factors[None], white.T[None])[0].T

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return _log_cholesky(factors[None], covariances[None])

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return _from_log_cholesky(factors[None], coordinates)[0]

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
            total, means = _unpack(second.sum(axis=0, keepdims=True), offsets.shape[1])[0], offsets
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
        raised, factors, lost = _factor_matrices(covariances[None])
        return raised[0], factors[0], lost

    def thinnest(self, covariances: Array, amounts: Array) -> Array:
        return _least_eigenvalue(covariances[None], amounts)

    def thinnest_apart(
        self, weights: Array, means: Array, covariances: Array, amounts: Array
    ) -> Array:
        return _least_apart(weights, means, covariances[None], amounts)

    def thinnest_loadings(self, covariances: Array, amounts: Array) -> Array:
        return _least_eigenvector(covariances[None], amounts)

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale[:, None] * scale, factors / scale[:, None]

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return np.broadcast_to(covariances, (components, dims, dims))

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return np.broadcast_to(np.diagonal(covariances), (components, dims))

    def precisions(self, factors: Array) -> Array:
        return factors @ factors.T

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return _factors_of_matrix(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return _factor_of_matrix(covariances)

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        _check_matrix(covariances, factors, spread)


def _raise_variances(variances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    raised = np.maximum(variances, FLOOR)
    lost = np.any(raised.reshape(len(raised), -1) > variances.reshape(len(raised), -1), axis=1)
    return raised, 1.0 / np.sqrt(raised), lost


def _factors_of_variances(precisions: Array) -> tuple[Array, Array]:
    if not np.all(precisions > 0):
        raise np.linalg.LinAlgError("a precision is not positive")
    return 1.0 / precisions, np.sqrt(precisions)


def _factors_from_variances(variances: Array) -> Array:
    if not np.all(variances > 0):
        raise np.linalg.LinAlgError("a variance is not positive")
    return 1.0 / np.sqrt(variances)


def _check_variances(variances: Array, factors: Array) -> None:
    if not (variances.min() > 0 and factors.min() > 0):
        raise np.linalg.LinAlgError("a variance or a factor is not positive")
    if not np.abs(factors * variances * factors - 1).max() <= EXACT:
        raise np.linalg.LinAlgError("the factors don't invert the covariances")


class Diagonal(Structure):
    """Independent features within a component."""

    name = "diag"
    informed = True
    aligned = True

    def width(self, dims: int) -> int:
        return 1 + 2 * dims

    def free_parameters(self, components: int, dims: int) -> int:
        return components * dims

    def shape(self, components: int, dims: int) -> tuple[int, ...]:
        return components, dims

    def cross(self, x: Array, y: Array) -> Array:
        return 2 * x * y

    def square(self, x: Array, out: Array) -> None:
        np.multiply(x, x, out=out)

    def whitened(self, factors: Array, vectors: Array) -> Array:
        return factors * vectors

    def coloured(self, factors: Array, white: Array) -> Array:
        return white / factors

    def coordinates(self, factors: Array, covariances: Array) -> Array:
        return np.log(covariances * factors * factors) / np.sqrt(2)

    def from_coordinates(self, factors: Array, coordinates: Array) -> Array:
        return np.exp(coordinates * np.sqrt(2)) / (factors * factors)

    def scores(self, white: Array) -> Array:
        return (white * white - 1) / np.sqrt(2)

    def quadratic(self, factors: Array) -> Array:
        return -0.5 * factors * factors

    def solve(self, factors: Array, vectors: Array) -> Array:
        return factors * factors * vectors

    def half_log_det(self, factors: Array, dims: int) -> Array:
        return np.log(factors).sum(axis=1)

    def trace(self, factors: Array, weights: Array) -> Array:
        return np.sum(factors * factors * weights, axis=1)

    def stiffness(self, factors: Array) -> Array:
        return (factors * factors).max(axis=1)

    def whiten(self, factors: Array, k: int, x: Array) -> Array:
        return factors[k][:, None] * x

    def whitened_trace(self, factors: Array, covariances: Array, dims: int) -> Array:
        return np.sum(factors * factors * covariances, axis=1)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        return second / counts[:, None] - offsets * offsets

    def kept(self, covariance: Array) -> Array:
        return covariance * np.eye(covariance.shape[-1])

    def add_to_diagonal(self, covariances: Array, amounts: Array) -> Array:
        return covariances + amounts

    def factor(self, covariances: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return _raise_variances(covariances)

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

    def rescale(self, covariances: Array, factors: Array, scale: Array) -> tuple[Array, Array]:
        return covariances * scale * scale, factors / scale

    def dense(self, covariances: Array, components: int, dims: int) -> Array:
        return covariances[:, :, None] * np.eye(dims)

    def variances(self, covariances: Array, components: int, dims: int) -> Array:
        return covariances

    def precisions(self, factors: Array) -> Array:
        return factors * factors

    def factors_of(self, precisions: Array) -> tuple[Array, Array]:
        return _factors_of_variances(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return _factors_from_variances(covariances)

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        _check_variances(covariances, factors)


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
        return _raise_variances(covariances)

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
        return _factors_of_variances(precisions)

    def factors_of_covariances(self, covariances: Array) -> Array:
        return _factors_from_variances(covariances)

    def check(self, covariances: Array, factors: Array, spread: Array) -> None:
        _check_variances(covariances, factors)


STRUCTURES: Final[dict[str, Structure]] = {
    each.name: each for each in (Full(), Tied(), Diagonal(), Spherical())
}


def structure(name: str) -> Structure:
    """The structure of this ``name``, a key of ``STRUCTURES``."""
    return STRUCTURES[name]
