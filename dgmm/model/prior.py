"""The prior: what the objective holds beside the likelihood of the rows.

A ``Prior`` acts in two ways.  It lowers each component's log-density (``penalties``), which changes
the E-step's constants, and it adds a term for the parameters themselves (``log_density``).  Its
M-step comes in parts, from what maximum likelihood says: weights, means, and covariances given the
means.  Whoever holds some of the parameters fixed replaces one part and leaves the others.

**The unit** is one unit of the rows' weight, as in the objective: a prior knows the weight of all
rows, and its M-step takes statistics of any part of them as if they were of all.  So a sample that
stands for all rows has their prior, not one that counts for more beside fewer rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dgmm.model.arrays import FLOOR, Array, Mask
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class MaximumLikelihood:
    """What the statistics alone say, before the prior and the floor of variances.

    Attributes
    ----------
    weights : (K,)
        With that of noise they sum to the weight of the rows.
    means : (K, D)
    estimate : Estimate
        Of the covariances.
    empty : (K,)
        Which components have no weight left; their means are those they had.
    noise : float
        The weight of the rows that are noise.
    """

    weights: Array
    means: Array
    estimate: Estimate
    empty: Mask
    noise: float = 0.0

    @property
    def total(self) -> float:
        """The weight of all rows, to divide by: 1 if there are none."""
        return float(self.weights.sum() + self.noise) or 1.0

    def about(self, means: Array) -> Estimate:
        """The mean squares about these ``means`` (K, D), which may be others than the rows'."""
        if means is self.means:
            return self.estimate
        return self.estimate.about(self.weights, self.means - means)


@dataclass(frozen=True)
class Roots:
    """By what coordinates are scaled, so that complete data have the identity for information.

    Attributes
    ----------
    weights, means, covariances : (K,)
        The roots of how much each component's parameters are known by, for a unit of weight.
    common : float
        The same for a covariance that all components share.
    """

    weights: Array
    means: Array
    covariances: Array
    common: float = 1.0

    @property
    def safe(self) -> "Roots":
        """The same, to divide by: 1 where there is nothing."""
        weights, means, covariances = (
            np.where(each > 0, each, 1.0) for each in (self.weights, self.means, self.covariances)
        )
        return Roots(weights, means, covariances, self.common)


class Prior(ABC):
    """What the objective holds beside the likelihood; all in the frame.

    Attributes
    ----------
    reg : (D,)
        What is added to the diagonal of each covariance of the rows.
    """

    name: ClassVar[str]
    is_likelihood: ClassVar[bool] = False
    """Whether the objective is a sum over rows, and nothing besides."""
    prunes: ClassVar[bool] = False
    """Whether components without rows are as they should be, and nothing to warn of."""
    reg: Array

    def penalties(self, mixture: Mixture) -> Array:
        """By how much the objective lowers each component's log-density, (K,)."""
        return np.broadcast_to(0.5 * mixture.covariances.trace(self.reg), (mixture.components,))

    @abstractmethod
    def log_density(self, mixture: Mixture) -> float:
        """What is added to the objective, once and not for each row, for a unit of weight."""

    @abstractmethod
    def weights(self, mle: MaximumLikelihood) -> Array:
        """The M-step's weights (K,), which sum to 1: those of the components among themselves."""

    def shares(self, mle: MaximumLikelihood) -> tuple[float, float]:
        """The M-step's weight of all components together, and that of noise beside them."""
        return float(mle.weights.sum()) / mle.total, mle.noise / mle.total

    @abstractmethod
    def means(self, mle: MaximumLikelihood) -> Array:
        """The M-step's means (K, D)."""

    @abstractmethod
    def estimate(self, mle: MaximumLikelihood, means: Array) -> Estimate:
        """The covariances for these ``means`` (K, D), before ``reg`` and the floor of variances."""

    @abstractmethod
    def covariances(
        self, mle: MaximumLikelihood, means: Array, before: Covariances
    ) -> tuple[Covariances, Mask]:
        """The M-step's covariances for these ``means``, and which were raised to FLOOR.

        The latter is (K,) or (1,).  A component of which nothing is known keeps what covariance of
        its own it had ``before``.
        """

    @abstractmethod
    def roots(self, mixture: Mixture) -> Roots:
        """By what coordinates seen from a ``mixture`` are scaled."""

    @property
    @abstractmethod
    def unregularised(self) -> "Prior":
        """The same without ``reg``."""

    @abstractmethod
    def of_weight(self, weight: float) -> "Prior":
        """The same beside rows of another ``weight`` in all."""

    @abstractmethod
    def numbers(self) -> dict[str, float | str]:
        """What a file holds of it, beside its arrays."""

    def arrays(self) -> dict[str, Array]:
        """The arrays that a file holds of it, beside ``reg``."""
        return {}

    @classmethod
    @abstractmethod
    def parse(
        cls,
        numbers: dict[str, Any],
        arrays: Mapping[str, Array],
        covariance_model: CovarianceModel,
        n_features: int,
    ) -> "Prior":
        """What a file holds of such a prior: ``numbers``, and ``arrays`` with ``reg``.

        Raises ``KeyError`` or ``ValueError`` if that is none.
        """

    def is_same(self, other: "Prior") -> bool:
        """Whether two priors are one, beside whatever rows."""
        one, two = self.of_weight(1.0), other.of_weight(1.0)
        if one.numbers() != two.numbers() or not np.array_equal(self.reg, other.reg):
            return False
        pairs = zip(self.arrays().values(), other.arrays().values(), strict=True)
        return all(np.array_equal(*pair) for pair in pairs)

    def judged(self, mixture: Mixture, row: float) -> tuple[Mixture, float]:
        """By what rows are judged: a mixture, and what is added to log-densities.

        The ``mixture`` is fitted, and ``row`` is the weight of one of its rows.
        """
        return mixture, 0.0

    def unused(self, mixture: Mixture, row: float) -> Mask:
        """Which components (K,) no rows are judged by."""
        return np.zeros(mixture.components, bool)

    def share(self, share: float) -> Array:
        """The variances (D,) below which an estimate is less than a ``share`` of what is added."""
        return np.maximum(share * self.reg, FLOOR)


@dataclass(frozen=True, eq=False)
class Regularised(Prior):
    """Maximum likelihood, but each component's log-density is lowered by reg . diag(P_k) / 2.

    Adding e to the diagonal of each covariance, as ``reg_covar`` does, is the exact M-step not of
    the likelihood, but of the likelihood with each component's density multiplied by exp(-e tr(P_k)
    / 2), with P_k its precision.  So that is the objective, and it never falls; the plain
    log-likelihood is summed beside it.
    """

    name = "likelihood"
    is_likelihood = True

    reg: Array

    def log_density(self, mixture: Mixture) -> float:
        return 0.0

    def weights(self, mle: MaximumLikelihood) -> Array:
        weights: Array = mle.weights / (mle.weights.sum() or 1.0)  # all rows may be noise
        return weights

    def means(self, mle: MaximumLikelihood) -> Array:
        return mle.means

    def estimate(self, mle: MaximumLikelihood, means: Array) -> Estimate:
        return mle.about(means)

    def covariances(
        self, mle: MaximumLikelihood, means: Array, before: Covariances
    ) -> tuple[Covariances, Mask]:
        return mle.about(means).regularised(self.reg, mle.empty, before)

    def roots(self, mixture: Mixture) -> Roots:
        root = np.sqrt(mixture.weights)
        return Roots(root, root, root)

    @property
    def unregularised(self) -> "Regularised":
        return Regularised(np.zeros_like(self.reg))

    def of_weight(self, weight: float) -> "Regularised":
        return self

    def numbers(self) -> dict[str, float | str]:
        return {"name": self.name}

    @classmethod
    def parse(
        cls,
        numbers: dict[str, Any],
        arrays: Mapping[str, Array],
        covariance_model: CovarianceModel,
        n_features: int,
    ) -> "Regularised":
        return cls(arrays["reg"])


def numbers_of(record: dict[str, Any], least: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a ``record`` by name, at least so large; raises ``ValueError`` otherwise."""
    for name, low in least.items():
        value: Any = record.get(name)
        if type(value) not in (float, int) or not low <= value < np.inf:
            raise ValueError(f"{name} is {value!r:.40}")
    return {name: float(record[name]) for name in least}


def of_shape(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    """The array of this name; raises ``ValueError`` if it has another shape, or NaN."""
    array = arrays[name]
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} can't be that of a prior")
    return array
