"""Methods that a model has or has not, by its parameters: ``hasattr`` tells, as in scikit-learn."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sklearn.utils import metaestimators

from dgmm.errors import UsageError
from dgmm.estimators.parameters import tails_of
from dgmm.model.covariance import COVARIANCE_TYPES

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

NO_SUMS: Final = "{} has no statistics that add up: fit to all rows together"
"""Why such a model learns from no more rows."""

Method = TypeVar("Method", bound=Callable[..., Any])


def available_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """scikit-learn's, which has no types: what ``check`` raises is the cause of the error."""
    return cast(Callable[[Method], Method], metaestimators.available_if(check))


def adds_up(model: "GaussianMixture") -> bool:
    """Whether a model can learn from more rows."""
    if tails_of(model) is not None:
        raise UsageError(NO_SUMS.format('tails="student"'))
    if getattr(COVARIANCE_TYPES.get(model.covariance_type), "along_loadings", False):
        raise UsageError(NO_SUMS.format(f"covariance_type={model.covariance_type!r}"))
    return True


def has_factors(model: Any) -> bool:
    """Whether a model, or one of those that are searched, has factors."""
    kinds = model.covariance_type
    kinds = [kinds] if isinstance(kinds, str) else kinds
    known = (COVARIANCE_TYPES.get(each) for each in kinds)
    return any(each is not None and each.factor_count is not None for each in known)
