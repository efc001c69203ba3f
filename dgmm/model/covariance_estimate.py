"""What sums of rows say of covariances, before anything holds them up (covariance_model.py)."""

from abc import ABC, abstractmethod

from dgmm.model.arrays import Array, Mask
from dgmm.model.covariance_parameters import Covariances


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
