"""The parameters of a variational posterior as a model's attributes, by scikit-learn's names."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dgmm.estimators.fitted_attribute import FittedAttribute
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.record import read_only
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.model.arrays import Array
from dgmm.model.variational import Variational


def _prior(model: GaussianMixture) -> Variational:
    """The prior, in the frame, beside all rows seen."""
    statistics = model.sufficient_statistics_
    prior = statistics.prior.of_weight(statistics.weight)
    assert isinstance(prior, Variational)
    return prior


def _counts(model: GaussianMixture) -> Array:
    return _prior(model).counts(model.mixture_)


def _mean_prior(model: GaussianMixture) -> Array:
    frame = model.sufficient_statistics_.frame
    mean: Array = _prior(model).mean * frame.scale + frame.shift
    return mean


def _covariance_prior(model: GaussianMixture) -> Any:
    """The prior's covariance as users give it: of one component."""
    scale = model.sufficient_statistics_.frame.scale
    values = _prior(model).scatter.rescaled(scale).values
    shared = model.mixture_.covariance_model.sharing(2) > 1
    prior = values if shared else values[0]
    return prior if prior.ndim else float(prior)


def _freedom(model: GaussianMixture) -> Any:
    freedom = _prior(model).freedom(_counts(model))
    return float(freedom[0]) if model.mixture_.covariance_model.sharing(2) > 1 else freedom


def in_sum(model: GaussianMixture, bound: float) -> float:
    """The bound as scikit-learn has it: a sum over the rows, without constants.

    ``bound`` is a mean over the rows, with all constants.
    """
    statistics: SufficientStatistics = model.sufficient_statistics_
    components, n_features = model.mixture_.means.shape
    prior, volume = _prior(model), statistics.frame.log_volume
    constant = components * (prior.log_norm + prior.degrees_of_freedom * volume)
    constant += prior.concentration.log_norm(components)
    constant += 0.5 * components * n_features * np.log(prior.mean_precision)
    constant -= 0.5 * statistics.weight * n_features * np.log(2 * np.pi)
    return statistics.weight * bound - float(constant)


def _shown(part: Callable[[GaussianMixture], Any], doc: str) -> FittedAttribute[Any]:
    """An attribute that shows a part of the fitted mixture, ``model_``."""
    return FittedAttribute("model_", part, doc)


def _same(name: str) -> FittedAttribute[Any]:
    """The attribute that ``model_`` has by that name."""
    return _shown(lambda model: getattr(model, name), f"As in ``GaussianMixture.{name}``.")


class PosteriorParameters:
    """The attributes that show a part of ``model_``, a fitted mixture with a variational prior."""

    weights_ = _shown(
        lambda model: read_only(_prior(model).concentration.weights(_counts(model))),
        "The means of the components' weights, (K,).",
    )
    weight_concentration_ = _shown(
        lambda model: _prior(model).concentration.parameters(_counts(model)),
        "The concentrations of the posterior, or (a, b) of the sticks.",
    )
    weight_concentration_prior_ = _shown(
        lambda model: _prior(model).concentration.value, "The concentration of the prior."
    )
    mean_precision_ = _shown(
        lambda model: _prior(model).mean_precision + _counts(model), "beta of the posterior, (K,)."
    )
    mean_precision_prior_ = _shown(lambda model: _prior(model).mean_precision, "beta of the prior.")
    mean_prior_ = _shown(_mean_prior, "The mean of the prior, (D,).")
    degrees_of_freedom_ = _shown(_freedom, "nu of the posterior, (K,); one number for tied.")
    degrees_of_freedom_prior_ = _shown(
        lambda model: _prior(model).degrees_of_freedom, "nu of the prior."
    )
    covariance_prior_ = _shown(_covariance_prior, "What the prior holds of a covariance.")
    lower_bound_ = _shown(
        lambda model: in_sum(model, model.lower_bound_), "The bound, as scikit-learn has it."
    )
    lower_bounds_ = _shown(
        lambda model: [in_sum(model, each) for each in model.lower_bounds_],
        "The bound at the beginning of each iteration.",
    )
    means_, covariances_ = _same("means_"), _same("covariances_")
    precisions_, precisions_cholesky_ = _same("precisions_"), _same("precisions_cholesky_")
    mixture_, sufficient_statistics_ = _same("mixture_"), _same("sufficient_statistics_")
    converged_, n_iter_ = _same("converged_"), _same("n_iter_")
    n_features_in_, feature_names_in_ = _same("n_features_in_"), _same("feature_names_in_")
    plan_, fit_info_ = _same("plan_"), _same("fit_info_")
