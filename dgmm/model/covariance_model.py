"""What a covariance model is: the questions that all others ask of it.

Every covariance model keeps all variances at or above ``FLOOR`` (covariance.py says why).
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.lazy import Late

covariance = Late("dgmm.model.covariance")

Array = NDArray[np.float64]


FLOOR: Final = 1e-15
"""The smallest variance, where the data's own is about 1.  Rounding in a sum of squares is about
1e-16 of it, so a smaller variance would be mostly noise."""


ROUNDING: Final = float(np.finfo(np.float64).eps)


EXACT: Final = 1e-8
"""How far covariances and factors in a file may be apart: rounding may be 1e-16 / sqrt(FLOOR)."""


class CovarianceModel(ABC):
    """How the covariances of K components are tied down.  Use ``COVARIANCE_MODELS[name]``."""

    name: ClassVar[str]
    shared: ClassVar[bool] = False
    """One covariance serves all components."""
    aligned: ClassVar[bool] = False
    """A component has variances of its features, and no covariances."""
    informed: ClassVar[bool] = False
    """It has ``scores``."""
    isotropic: ClassVar[bool] = False
    """The covariance model survives only the scaling of all features by one number."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickle by name: there is one object of each covariance model in a process."""
        return covariance_model, (self.name,)

    @property
    def centred(self) -> "CovarianceModel":
        """The covariance model whose features are summed about a component's own mean."""
        return self

    @abstractmethod
    def width(self, n_features: int) -> int:
        """P, the number of features of T for ``n_features`` = D columns."""

    @abstractmethod
    def free_parameters(self, components: int, n_features: int) -> int:
        """The covariances' free parameters, for information criteria."""

    @abstractmethod
    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        """The shape of the covariances, and of the precision factors."""

    @abstractmethod
    def square(self, x: Array, out: Array) -> None:
        """Write the quadratic part of ``x`` (D, n) to ``out`` (Q, n)."""

    def features(self, x: Array, out: Array) -> Array:
        """Write T(x) to ``out`` (P, n) for ``x`` (D, n), a row a column, and return it."""
        n_features = len(x)
        out[0] = 1.0
        out[1 : 1 + n_features] = x
        self.square(x, out[1 + n_features :])
        return out

    @abstractmethod
    def cross(self, x: Array, y: Array) -> Array:
        """What ``square`` of (D, n) ``x + y`` has beyond those of each: (Q, n), bilinear."""

    def shift_moments(self, sums: Array, by: Array) -> Array:
        """Sums (K, P) of T(x - by_k), from ``sums`` (K, P) of T(x); ``by`` is (K, D)."""
        n_features = by.shape[1]
        counts, first, second = sums[:, :1], sums[:, 1 : 1 + n_features], sums[:, 1 + n_features :]
        both, alone = self.cross(first.T, by.T).T, self.cross(by.T, by.T).T / 2
        return np.concatenate([counts, first - counts * by, second - both + counts * alone], axis=1)

    @abstractmethod
    def coordinates(self, precisions_cholesky: Array, covariances: Array) -> Array:
        """Unconstrained coordinates (K, M) of ``covariances``.

        They are seen from others' ``precisions_cholesky``: 0 where the two are equal, and there,
        the Fisher information of a normal distribution for them is near the identity.  Raises
        ``LinAlgError`` where rounding makes a matrix indefinite.
        """

    @abstractmethod
    def from_coordinates(self, precisions_cholesky: Array, coordinates: Array) -> Array:
        """The covariances with these ``coordinates``, seen from ``precisions_cholesky``."""

    def scores(self, white: Array) -> Array:
        """The derivatives (M, n) of log-densities by ``coordinates``, at rows ``white`` (D, n).

        These are rows as a component with the factors sees them: ``whiten``.
        """
        raise NotImplementedError(f"a sample's information is not known for {self.name}")

    @abstractmethod
    def quadratic(self, precisions_cholesky: Array) -> Array:
        """The coefficients (K, Q) of the quadratic part in log N(x | k)."""

    @abstractmethod
    def solve(self, precisions_cholesky: Array, vectors: Array) -> Array:
        """Each precision times its row of ``vectors`` (K, D)."""

    @abstractmethod
    def half_log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        """Half the log-determinant of each precision, (K,) or (1,)."""

    @abstractmethod
    def trace(self, precisions_cholesky: Array, weights: Array) -> Array:
        """sum_j weights_j P_jj of each precision P, (K,) or (1,); ``weights``: (D,) or (K, D)."""

    @abstractmethod
    def max_eigenvalue_bound(self, precisions_cholesky: Array) -> Array:
        """An upper bound of each precision's largest eigenvalue, (K,) or (1,)."""

    @abstractmethod
    def whiten(self, precisions_cholesky: Array, k: int, x: Array) -> Array:
        """C_k' x, for ``x`` (D, n): rows of unit variance."""

    @abstractmethod
    def whitened(self, precisions_cholesky: Array, vectors: Array) -> Array:
        """C_k' times row k of ``vectors`` (K, D), for every k."""

    @abstractmethod
    def coloured(self, precisions_cholesky: Array, white: Array) -> Array:
        """The vectors (K, D) whose ``whitened`` are ``white`` (K, D)."""

    @abstractmethod
    def whitened_trace(
        self, precisions_cholesky: Array, covariances: Array, n_features: int
    ) -> Array:
        """The trace of C' S C for each covariance S, (K,) or (1,): D where S has these factors."""

    def common(self, precisions_cholesky: Array, x: Array) -> Array | float:
        """What log N(x | k) holds beyond T(x) . eta_k, the same for every k; ``x`` is (D, n)."""
        return 0.0

    def common_sum(self, precisions_cholesky: Array, total: Array | None) -> float:
        """The sum of ``common`` over all rows, from their ``total`` scatter about 0 (D, D)."""
        return 0.0

    @abstractmethod
    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Array:
        """Maximum-likelihood covariances.

        ``counts`` (K,), ``means`` (K, D) center 0; ``offsets`` (K, D) the means and ``second``
        (K, Q) the sums of the quadratic part, both about the same points; ``total`` (D, D) for
        tied, see ``common_sum``.
        """

    def freedom(self, counts: Array) -> Array:
        """How many rows beyond the mean's one each covariance is of, (K,), from ``counts`` (K,)."""
        return counts - 1

    def kept(self, covariance: Array) -> Array:
        """What of a ``covariance`` (..., D, D) one of the covariance model can have."""
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
    def rescale(
        self, covariances: Array, precisions_cholesky: Array, scale: Array
    ) -> tuple[Array, Array]:
        """Covariances and factors of ``scale * x``; ``scale`` is (D,)."""

    @abstractmethod
    def dense(self, covariances: Array, components: int, n_features: int) -> Array:
        """The covariances as (K, D, D)."""

    @abstractmethod
    def variances(self, covariances: Array, components: int, n_features: int) -> Array:
        """The diagonals of the covariances, (K, D)."""

    @abstractmethod
    def precisions(self, precisions_cholesky: Array) -> Array:
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
    def check(self, covariances: Array, precisions_cholesky: Array, spread: Array) -> None:
        """Raise ``LinAlgError`` unless ``precisions_cholesky`` belong to ``covariances``.

        That is, but for rounding.

        ``spread`` (D,) is the standard deviation of each feature of the data.
        """


def covariance_model(name: str) -> CovarianceModel:
    """The covariance model of this ``name``, a key of ``covariance.COVARIANCE_MODELS``."""
    found: CovarianceModel = covariance.COVARIANCE_MODELS[name]
    return found
