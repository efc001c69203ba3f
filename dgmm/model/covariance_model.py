"""What a covariance model is: the questions that all others ask of the family.

A member has three classes.  The ``CovarianceModel`` answers what does not depend on parameters, and
estimates them.  ``Covariances`` are the parameters of one mixture, as one immutable value, and
answer what depends on them.  An ``Estimate`` is what sums say of the covariances, before anything
holds it up: it may be singular, or indefinite but for rounding.

Every covariance model keeps all variances at or above ``FLOOR`` (covariance.py says why).  A
parameter of a model, such as a number of factors, is a field of its ``CovarianceModel``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.convolved import Convolved
from dgmm.model.features import Features

Mask = NDArray[np.bool_]


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
        (own,) = self.chosen(np.array([k])).dense()
        rows: Array = normals @ np.linalg.cholesky(own).T
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


class Estimate(ABC):
    """What sums of rows say of the covariances: maximum likelihood, however thin they are.

    Attributes
    ----------
    values : shape ``CovarianceModel.shape(K, D)``
    """

    values: Array

    @abstractmethod
    def variances(self) -> Array:
        """The diagonals, (K, D)."""

    @abstractmethod
    def about(self, counts: Array, offsets: Array) -> "Estimate":
        """The mean squares about other means than the rows' own, ``offsets`` (K, D) away.

        ``counts`` (K,) are the weights of the components' rows.
        """

    @abstractmethod
    def raised(self, amounts: Array) -> "Estimate":
        """The same with diag(``amounts``), (D,), added to each, as far as the model has that."""

    @abstractmethod
    def rescaled(self, scale: Array) -> "Estimate":
        """Those of ``scale * x``; ``scale`` is (D,)."""

    @abstractmethod
    def combined(
        self, counts: Array, scatter: "Estimate", rows: float, weights: Array, away: Array
    ) -> "Estimate":
        """The estimates when more is known than these rows, of so many ``counts`` (K,).

        (n_k S_k + scatter + w_k v_k v_k') / (n_k + rows), with ``weights`` w (K,) and ``away``
        v (K, D); where one covariance serves all components, of the sums over these.  The
        ``scatter`` is of one component.
        """

    @abstractmethod
    def floored(self) -> tuple[Covariances, Mask]:
        """Covariances at or above FLOOR, and which had to be raised, (K,) or (1,)."""

    def reached(self, amounts: Array) -> tuple[Covariances, Mask]:
        """The same, such as an M-step might have led to that adds ``amounts`` (D,).

        An M-step from elsewhere would lead back there first, and the objective fall.
        """
        return self.floored()

    @abstractmethod
    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[Covariances, Mask]:
        """The same after diag(``amounts``), (D,), is added to each.

        A component that is ``empty`` (K,) keeps what covariance of its own it had ``before``, and
        was not raised.
        """

    @abstractmethod
    def thinnest(self, amounts: Array) -> Array:
        """The smallest variance in any direction in units of ``amounts`` (D,) > 0, (K,) or (1,).

        That is the smallest eigenvalue of each covariance relative to diag(``amounts``).
        """

    @abstractmethod
    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        """``thinnest``, but for directions in which all rows together have no more either.

        All rows: the mixture of these ``weights`` (K,), which sum to 1, ``means`` (K, D) and
        covariances.
        """

    @abstractmethod
    def thinnest_loadings(self, amounts: Array) -> Array:
        """How much each feature takes part in that direction, (K, D) or (1, D), from 0 to 1."""


@dataclass(frozen=True)
class CovarianceModel(ABC):
    """How the covariances of K components are tied down.  ``COVARIANCE_MODELS`` has the members.

    Attributes
    ----------
    name : str
    features : Features
        T, of whose sums covariances are made.
    centred_features : Features
        The same for sums that are taken about a component's own mean.
    needs_scatter : bool
        Whether ``features`` don't tell the covariances without the ``total`` scatter of the rows.
    correlates : bool
        Whether features may be correlated within a component.
    couples : bool
        Whether what the covariance of one component may be depends on those of others.
    has_priors : bool
        Whether there are priors of such covariances (model/conjugate.py, model/variational.py).
    along_loadings : bool
        Whether sums are taken along loadings of the mixture they are taken under, about its means.
        Then those under one mixture say nothing of others: they don't add up from fit to fit.
    """

    name: ClassVar[str]
    features: ClassVar[Features]
    centred_features: ClassVar[Features]
    needs_scatter: ClassVar[bool] = False
    correlates: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    has_priors: ClassVar[bool] = True
    along_loadings: ClassVar[bool] = False

    def sized(self, n_factors: int | None) -> "CovarianceModel":
        """The same of so many factors; raises ``UsageError`` where there can't be so many.

        A model that has no factors is of None.
        """
        if n_factors is not None:
            raise UsageError(
                f"n_factors={n_factors!r} is of no use with covariance_type={self.name!r}: leave "
                "it out"
            )
        return self

    @property
    def factor_count(self) -> int | None:
        """How many factors each component has, where it has any."""
        return None

    def check_features(self, n_features: int) -> None:
        """Raise ``UsageError`` unless there can be such covariances of so many features."""
        del n_features  # of any

    @property
    def plain(self) -> "CovarianceModel":
        """The model without constraints that has such arrays; itself, if it has none."""
        return self

    @abstractmethod
    def own_parameters(self, n_features: int) -> int:
        """The free parameters of each component's own covariance."""

    @abstractmethod
    def common_parameters(self, n_features: int) -> int:
        """The free parameters of the covariances that all components share."""

    def free_parameters(self, components: int, n_features: int) -> int:
        """The covariances' free parameters, for information criteria."""
        return self.common_parameters(n_features) + components * self.own_parameters(n_features)

    def coordinates(self, components: int, n_features: int) -> int:
        """How many ``Covariances.coordinates`` there are; more than free parameters in some."""
        return self.free_parameters(components, n_features)

    @abstractmethod
    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        """The shape of the covariances, and of the precision factors."""

    def scales(self, each: Array, together: float) -> Array:
        """By what features may be scaled: ``each`` (D,) by its own, or ``together`` by one number.

        The covariance model must survive that.
        """
        return each

    @abstractmethod
    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Estimate:
        """Maximum-likelihood covariances.

        ``counts`` (K,), 0 for a component without rows; ``means`` (K, D) about 0; ``offsets``
        (K, D) the means and ``second`` (K, Q) the sums of the quadratic part, both about the same
        points; ``total`` (D, D) where the model ``needs_scatter``, see ``common_sum``.
        """

    @abstractmethod
    def estimate_of(self, values: Array, shape: tuple[int, int]) -> Estimate:
        """Estimates of these ``values``, for K components of D features, ``shape`` (K, D)."""

    @abstractmethod
    def single(self, moments: Array) -> Array:
        """One covariance of the model, in ``shape(1, D)``, from that of rows, (D, D) or (D,).

        The latter are variances of which no covariances are known.
        """

    @abstractmethod
    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        """What an inverse Wishart density of a covariance counts as, beside rows.

        That is as many rows as the first, whose scatter is the density's scale over the second.
        With independent variances each has an inverse gamma density of half these
        ``degrees_of_freedom``.
        """

    def sharing(self, components: int) -> int:
        """How many of so many components share each covariance."""
        return 1

    @abstractmethod
    def pooled(self, counts: Array, covariances: Array) -> Array:
        """The model's estimates (..., K, D, D) from full ones, each of so many rows (..., K).

        Where one serves all components it is (..., 1, D, D).
        """

    def kept(self, covariances: Array) -> Array:
        """What of ``covariances`` (..., D, D), each by itself, one of the model can have."""
        return self.pooled(np.ones((*covariances.shape[:-2], 1)), covariances[..., None, :, :])[
            ..., 0, :, :
        ]

    @abstractmethod
    def freedom(self, counts: Array) -> Array:
        """How many rows beyond the mean's one each covariance is of, (K,), from ``counts`` (K,)."""

    def scores(self, white: Array) -> Array | None:
        """The derivatives (M, n) of log-densities by ``coordinates``, at rows ``white`` (D, n).

        These are rows as a component with the factors sees them: ``whiten``.  None where they are
        not known.
        """
        return None

    @abstractmethod
    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> Covariances:
        """From ``precisions``, for K components of D features, ``shape`` (K, D).

        Raises ``numpy.linalg.LinAlgError`` unless every one is symmetric positive definite.
        """

    @abstractmethod
    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> Covariances:
        """From ``covariances``, however small, without any FLOOR; the rest is the same."""

    @abstractmethod
    def of_variances(self, variances: Array, components: int) -> Covariances:
        """Those of components that all have the same ``variances`` (D,), and no covariances."""

    @abstractmethod
    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> Covariances:
        """From ``covariances`` and their precision factors, which ``check`` may doubt."""


def natural_form(constants: Array, means: Array, linear: Array, quadratic: Array) -> Array:
    """eta (K, P) from its parts, for log-densities ``constants`` (K,) at the ``means`` (K, D)."""
    n_features = means.shape[1]
    eta = np.empty((len(means), 1 + n_features + quadratic.shape[1]))
    eta[:, 0] = constants - 0.5 * np.sum(means * linear, axis=1)
    eta[:, 1 : 1 + n_features] = linear
    eta[:, 1 + n_features :] = quadratic
    return eta


def picked(array: Array, components: NDArray[np.intp]) -> Array:
    """Those of some components; nothing of what ``bare`` leaves empty."""
    return array[components] if len(array) else array


def finite(values: Array) -> Array:
    """The ``values``; raises ``LinAlgError`` if one overflows."""
    if not np.isfinite(values).all():
        raise np.linalg.LinAlgError("a covariance overflows")
    return values


def positive(counts: Array) -> Array:
    """What sums are divided by: ``counts``, or 1 where there are no rows."""
    return np.where(counts > 0, counts, 1.0)
