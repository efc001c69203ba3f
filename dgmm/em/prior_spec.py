"""What users say of priors: values that become a ``Prior`` when the first pass is done.

A prior that is made of the data is made once, of the moments of all rows: model files and
statistics hold what it became, so that rows that are added later meet the same prior.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from dgmm.em.moments import DataMoments
from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.prior import Prior, Regularised


class PriorSpec(ABC):
    """What a fit is asked to hold beside the likelihood.

    Attributes
    ----------
    name : str
        What files and fingerprints call it.
    kind : str
        The name of the ``Prior`` that it becomes.
    is_density : bool
        Whether it is a density of the parameters, so that EM's step is a gradient of the objective.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    is_density: ClassVar[bool] = True

    def needs_covariance(self, covariance_model: CovarianceModel) -> bool:
        """Whether the covariances of all rows, between features, must be known."""
        return False

    @abstractmethod
    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        """Raise ``UsageError`` unless it can be a prior of such covariances."""

    def unit(self, weight: float) -> float:
        """What ``tol`` is times, as objectives are means over the rows.

        Parameters
        ----------
        weight : float
            Of all rows.

        Returns
        -------
        float
            1, or 1 / weight where ``tol`` is of a sum over the rows.

        Examples
        --------
        >>> from dgmm import ConjugatePrior
        >>> ConjugatePrior().unit(100.0)
        1.0
        """
        return 1.0

    @abstractmethod
    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        """The prior in the ``frame``, for rows of these ``moments``; ``reg`` is (D,), there."""

    def changed(self, prior: Prior, frame: Frame) -> str:
        """The name of a number given here that ``prior``, in the ``frame``, has not; "" if none.

        What is not given is made of the data, once: it asks for nothing else.
        """
        return ""

    def record(self) -> dict[str, Any]:
        """What a file or a fingerprint says of it: numbers, texts and lists."""
        return {"name": self.name}


@dataclass(frozen=True)
class NoPrior(PriorSpec):
    """Maximum likelihood, regularised."""

    name: ClassVar[str] = "none"
    kind: ClassVar[str] = Regularised.name

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        pass

    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        return Regularised(reg)


NO_PRIOR: Final = NoPrior()


def is_number(value: Any) -> bool:
    """Whether a parameter is one number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if value is None or isinstance(value, str):
        return value
    return np.asarray(value, dtype=np.float64).tolist()


def covariance_of(moments: DataMoments) -> Array:
    """The covariance (D, D) of all rows, with N - 1, or the variances (D,) if that is not known.

    A feature without variance has that of ``reg_covar``'s unit, so that a prior made of it holds
    up.
    """
    covariance = moments.scatter / moments.weight if moments.scatter.ndim == 2 else moments.variance
    count = max(moments.weight, float(moments.weighted))  # weights may sum to 1, or to less
    covariance = covariance * (count / (count - 1) if count > 1 else 1.0)
    variances = np.diagonal(covariance) if covariance.ndim == 2 else covariance
    flat = np.where(variances > 0, 0.0, 1e-6)
    result: Array = covariance + (np.diag(flat) if covariance.ndim == 2 else flat)
    return result


def of_numbers(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A parameter as float64 of the right shape."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} of a prior must be numbers: {error}") from error
    if array.shape != shape:
        raise UsageError(f"{name} of a prior must have shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{name} of a prior holds NaN or infinity")
    return array


def positive_definite(
    name: str, value: ArrayLike, covariance_model: CovarianceModel, n_features: int
) -> Array:
    """One covariance in ``shape(1, D)``, positive definite, from that in its own shape."""
    shape = covariance_model.shape(1, n_features)
    shape_of_one = shape if covariance_model.sharing(2) > 1 else shape[1:]
    array = of_numbers(name, value, shape_of_one).reshape(shape)
    try:
        covariance_model.of_covariances(array, (1, n_features))
    except np.linalg.LinAlgError as error:
        raise UsageError(f"{name} of a prior must be positive definite: {error}") from error
    return array
