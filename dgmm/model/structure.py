"""What a covariance structure is: the questions that all others ask of it.

Every structure keeps all variances at or above ``FLOOR`` (covariance.py says why).
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


def structure(name: str) -> Structure:
    """The structure of this ``name``, a key of ``covariance.STRUCTURES``."""
    found: Structure = covariance.STRUCTURES[name]
    return found
