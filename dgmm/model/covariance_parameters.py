"""The covariances of one mixture: what depends on their parameters (covariance_model.py)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask
from dgmm.model.convolved import Convolved

if TYPE_CHECKING:  # which import this
    from dgmm.model.covariance_estimate import Estimate
    from dgmm.model.covariance_model import CovarianceModel


@dataclass(frozen=True)
class Expected:
    """What components expect of rows with holes.

    Attributes
    ----------
    log_density : (n, K)
        Of what was observed, but for the constant.
    squares : (n, K)
        The squared distance that is in that.
    away : (n, K, D)
        How far the completed rows are from the means.
    spread : callable
        The quadratic part (M, K, Q) that the missing features have beyond that, for each pattern of
        holes; computed where it is wanted.
    """

    log_density: Array
    squares: Array
    away: Array
    spread: Callable[[], Array]


class Covariances(ABC):
    """The covariances of K components of D features, as one immutable value.

    Attributes
    ----------
    values : shape ``CovarianceModel.shape(K, D)``
        The covariances, as users give and see them.
    precisions_cholesky : the same shape
        C with precision C C', upper triangular.
    """

    values: Array
    precisions_cholesky: Array

    @property
    @abstractmethod
    def model(self) -> "CovarianceModel":
        """The member of the family whose parameters these are."""

    @abstractmethod
    def dense(self) -> Array:
        """The covariances as (K, D, D)."""

    @abstractmethod
    def variances(self) -> Array:
        """The diagonals of the covariances, (K, D)."""

    @abstractmethod
    def precisions(self) -> Array:
        """The precisions C C', in the shape of ``values``."""

    @abstractmethod
    def factors(self) -> Array:
        """Each component's own C, (K, ...)."""

    @abstractmethod
    def natural(self, means: Array, constants: Array) -> Array:
        """eta (K, P) with log N(x | k) = T(x) . eta_k, in the model's ``features``.

        But for ``common``; ``constants`` (K,) are the log-densities at the ``means`` (K, D).
        """

    @abstractmethod
    def quadratic(self) -> Array:
        """The coefficients (K, Q) of the quadratic part of ``centred_features`` in log N(x | k)."""

    @abstractmethod
    def half_log_det(self) -> Array:
        """Half the log-determinant of each precision, (K,) or (1,)."""

    @abstractmethod
    def trace(self, weights: Array) -> Array:
        """sum_j weights_j P_jj of each precision P, (K,) or (1,); ``weights``: (D,) or (K, D)."""

    @abstractmethod
    def max_eigenvalue_bound(self) -> Array:
        """An upper bound of each precision's largest eigenvalue, (K,) or (1,)."""

    @abstractmethod
    def whiten(self, k: int, x: Array) -> Array:
        """C_k' x, for ``x`` (D, n): rows of unit variance."""

    @abstractmethod
    def whitened(self, vectors: Array) -> Array:
        """C_k' times row k of ``vectors`` (K, D), for every k."""

    @abstractmethod
    def coloured(self, white: Array) -> Array:
        """The vectors (K, D) whose ``whitened`` are ``white`` (K, D)."""

    @abstractmethod
    def whitened_trace(self, estimate: "Estimate") -> Array:
        """The trace of C' S C for each covariance S of an ``estimate``, (K,) or (1,)."""

    def common(self, x: Array) -> Array | float:
        """What log N(x | k) holds beyond T(x) . eta_k, the same for every k; ``x`` is (D, n)."""
        return 0.0

    def common_sum(self, total: Array | None) -> float:
        """The sum of ``common`` over all rows, from their ``total`` scatter about 0 (D, D)."""
        return 0.0

    @abstractmethod
    def coordinates(self, other: "Covariances", roots: Array) -> Array:
        """Unconstrained coordinates of ``other`` covariances, seen from these, row by row.

        They are 0 where the two are equal, and there the Fisher information of a normal
        distribution for them is near the identity.  A component's own are times its ``roots`` (K,),
        the root of its weight.  Raises ``LinAlgError`` where rounding makes a matrix indefinite.
        """

    @abstractmethod
    def at(self, place: Array, roots: Array, live: Mask, like: "Covariances") -> "Estimate":
        """The covariances with these coordinates ``place`` (M,), seen from these.

        Components that are not ``live`` (K,) are as in ``like``.  Raises ``LinAlgError`` if one
        overflows.
        """

    @abstractmethod
    def rescale(self, scale: Array) -> "Covariances":
        """Those of ``scale * x``; ``scale`` is (D,)."""

    @abstractmethod
    def drawn_together(self, weights: Array, rows: int) -> "Covariances":
        """Each drawn towards the mean of all by ``weights`` (K,), which share out so many rows.

        As if D more rows of each component had shown that mean.
        """

    def alone(self, features: Sequence[int] | NDArray[np.intp]) -> "Covariances | None":
        """Those of some features alone, where no feature goes with another; else None."""
        return None

    def narrowed(self, features: NDArray[np.intp]) -> "Covariances | None":
        """What serves for some features where all are too many for matrices; None if none does."""
        return self.alone(features)

    @abstractmethod
    def among(self, features: NDArray[np.intp]) -> "Covariances":
        """Those of these ``features``, whatever the others are."""

    @abstractmethod
    def chosen(self, components: NDArray[np.intp]) -> "Covariances":
        """Those of these ``components``, in that order."""

    @abstractmethod
    def held(self, fixed: Mask, at: "Covariances") -> "Covariances":
        """These, but for those of the components that are ``fixed`` (K,): they are as ``at``.

        One for all components is held if all are fixed.
        """

    @abstractmethod
    def completed(self, sums: Array, observed: Mask) -> Array:
        """Sums (K, P) of all features as expected, from those of the ``observed`` (D,) ones.

        Both are about the components' means, in the model's ``centred_features``.
        """

    @abstractmethod
    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        """What components expect of rows with holes.

        ``away`` (n, K, D) is how far the rows are from the means, 0 where nothing is observed;
        ``observed`` (M, D) are patterns, and ``of`` (n,) says which each row has.
        """

    @abstractmethod
    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        """The covariances of rows with errors.

        ``noise`` are variances (M, D) or covariances (M, D, D) of errors, 0 where nothing is
        ``observed`` (M, D).
        """

    @abstractmethod
    def times(self, vectors: Array) -> Array:
        """S_k times ``vectors`` (..., K, D)."""

    @abstractmethod
    def deconvolved(self, sums: Array) -> Array:
        """Sums (K, P) of rows without errors as expected, about the components' means.

        From those of u = (S + N)^-1 d, where the quadratic part of (S + N)^-1 has been taken off
        that of u u', both in the model's ``centred_features``: so S u is what is expected of a row,
        and S + S (u u' - (S + N)^-1) S of its square.
        """

    @abstractmethod
    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        """How far rows (n, D) are from their means once what they lack is drawn.

        ``away`` (n, D) is how far they are before that, 0 where nothing is ``observed`` (n, D);
        ``of`` (n,) are their components; ``normals`` (n, D) are standard normal variates.
        """

    def drawn_rows(self, k: int, normals: Array) -> Array:
        """Rows (n, D) of component ``k`` about its mean, from standard ``normals`` (n, D)."""
        (covariance,) = self.chosen(np.array([k])).dense()
        rows: Array = normals @ np.linalg.cholesky(covariance).T
        return rows

    def estimated(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "Estimate":
        """``CovarianceModel.estimate`` of sums that were taken under these covariances."""
        return self.model.estimate(counts, means, offsets, second, total)

    def begun(self, members: Callable[[int], tuple[Array, Array]]) -> "Covariances":
        """Where a fit may begin that sums alone have made these of.

        ``members`` gives rows (D, n) of a component about their mean, and their weights (n,).
        """
        return self

    def noiseless(self, reg: Array, counts: Array) -> Mask:
        """Where features (K, D) are of factors alone: their noise can't be told from none.

        A component has so many rows, ``counts`` (K,); ``reg`` (D,) is what is added to variances.
        """
        return np.zeros_like(self.variances(), dtype=np.bool_)

    def factor_parts(self) -> tuple[Array, Array] | None:
        """The loadings (K, D, q) and noise variances (K, D), where components have factors."""
        return None

    @property
    @abstractmethod
    def bare(self) -> "Covariances":
        """The same without ``values``, which an E-step needs not."""

    @abstractmethod
    def check(self, spread: Array) -> None:
        """Raise ``LinAlgError`` unless factors belong to covariances, but for rounding.

        ``spread`` (D,) is the standard deviation of each feature of the data.
        """


def natural_form(constants: Array, means: Array, linear: Array, quadratic: Array) -> Array:
    """eta (K, P) from its parts, for log-densities ``constants`` (K,) at the ``means`` (K, D)."""
    n_features = means.shape[1]
    eta = np.empty((len(means), 1 + n_features + quadratic.shape[1]))
    eta[:, 0] = constants - 0.5 * np.sum(means * linear, axis=1)
    eta[:, 1 : 1 + n_features] = linear
    eta[:, 1 + n_features :] = quadratic
    return eta
