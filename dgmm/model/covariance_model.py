"""What a covariance model is: the questions that all others ask of the family.

A member has three classes.  The ``CovarianceModel`` answers what does not depend on parameters, and
estimates them.  ``Covariances`` are the parameters of one mixture, as one immutable value, and
answer what depends on them.  An ``Estimate`` is what sums say of the covariances, before anything
holds it up: it may be singular, or indefinite but for rounding.

Every covariance model keeps all variances at or above ``FLOOR`` (covariance.py says why).  A
parameter of a model, such as a number of factors, is a field of its ``CovarianceModel``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.features import Features


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
