"""The parameters of a fitted mixture as a model's attributes, by scikit-learn's names."""

from collections.abc import Callable
from typing import Final

import numpy as np

from dgmm.estimators.fitted import Fitted
from dgmm.estimators.fitted_attribute import FittedAttribute
from dgmm.estimators.record import read_only
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

INSTEAD: Final = (
    ". GaussianMixture.from_parameters(weights, means, covariances) makes a model of other "
    "parameters, and with warm_start=True a fit goes on from there"
)


def _parameter(part: Callable[[Mixture], Array], doc: str) -> FittedAttribute[Array]:
    """An attribute that shows an array of ``mixture_``."""
    return FittedAttribute("mixture_", lambda mixture: read_only(part(mixture)), doc, INSTEAD)


def _factor_parts(mixture: Mixture) -> tuple[Array, Array]:
    """The loadings and noise variances; raises ``AttributeError`` if there are none."""
    if (parts := mixture.covariances.factor_parts()) is None:
        raise AttributeError(f"{mixture.covariance_model.name!r} covariances have no factors")
    return parts


class FittedParameters(Fitted):
    """The attributes that show a part of ``mixture_``, read-only: K components, D features."""

    weights_ = _parameter(lambda mixture: mixture.weights, "The components' weights, (K,).")
    means_ = _parameter(lambda mixture: mixture.means, "The components' means, (K, D).")
    covariances_ = _parameter(
        lambda mixture: mixture.covariances.values,
        "The covariances: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.",
    )
    precisions_cholesky_ = _parameter(
        lambda mixture: mixture.covariances.precisions_cholesky,
        "C with precision C C', upper triangular, in the shape of the covariances.",
    )
    precisions_ = _parameter(
        lambda mixture: mixture.covariances.precisions(),
        "The inverse covariances, in their shape.",
    )
    dof_ = _parameter(
        lambda mixture: mixture.dof, "The components' degrees of freedom, (K,); infinity if normal."
    )
    component_covariances_ = _parameter(
        lambda mixture: mixture.component_covariances,
        "The components' own covariances, (K, D, D), whatever their tails.",
    )
    loadings_ = _parameter(
        lambda mixture: _factor_parts(mixture)[0],
        "The loadings of each component's factors, (K, D, q).",
    )
    noise_variance_ = _parameter(
        lambda mixture: _factor_parts(mixture)[1],
        "The variance of each feature beside the factors, (K, D).",
    )

    @property
    def noise_weight_(self) -> float:
        """The weight of the noise component; 0 if there is none."""
        noise = self._fitted.mixture_.noise_component
        return 0.0 if noise is None else noise.weight

    @property
    def noise_log_density_(self) -> float:
        """The logarithm of the noise component's density; minus infinity if there is none."""
        noise = self._fitted.mixture_.noise_component
        return -np.inf if noise is None else noise.log_density
