"""A step of incremental EM: what a fitted model becomes by the statistics of all rows seen."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm import engine
from dgmm.errors import DataError, UsageError
from dgmm.estimators.parameters import prior_of
from dgmm.estimators.record import singular_of
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.kernels import choice
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def check_descends(
    model: "GaussianMixture", own: SufficientStatistics, statistics: SufficientStatistics
) -> None:
    """Raise ``UsageError`` unless ``statistics`` and a model's ``own`` descend from one fit."""
    if not isinstance(statistics, SufficientStatistics):
        raise UsageError(f"update needs SufficientStatistics, not {type(statistics).__name__}")
    if why := own.differs(statistics):
        raise UsageError(f"the statistics do not descend from this model: {why}")
    noisy = model.mixture_.noise_component is not None
    count, kind = len(own.sums) - noisy, prior_of(model).kind
    now = (model.n_components, model.covariance_type, model.reg_covar, kind)
    then = (count, own.covariance_model.name, own.reg_covar, own.prior.name)
    if now != then:
        raise UsageError(
            f"n_components, covariance_type, reg_covar and prior were {then} in the fit and are "
            f"{now} now; rows can only be added under the same"
        )


def step(mixture: Mixture, statistics: SufficientStatistics) -> dict[str, Any]:
    """The attributes of a model, by name, after an M-step from ``statistics``.

    ``mixture`` is that of the data before the step.  Raises ``DataError`` if the likelihood would
    not be finite.
    """
    with engine.one_blas_thread():
        trial = statistics.improve(mixture)
        bare = statistics.bare(mixture)
        held = statistics.held(mixture)
        before, after = (statistics.bound(each) for each in (mixture, trial.mixture))
    if not np.isfinite(after):
        raise DataError("these rows and those before have no finite likelihood; rescale them")
    fit_info = {
        "strategy": "incremental",
        "rows": statistics.rows,
        "weight": statistics.weight,
        "noise": statistics.observation.deconvolves,
        "objective_before": before if np.isfinite(before) else None,
        "objective": after,
        "kernel": choice.described(choice.chosen()),
        "empty": list(trial.empty),
        "prior": statistics.prior.of_weight(statistics.weight).numbers(),
        "fixed": {} if statistics.fixed is None else statistics.fixed.record(),
        **singular_of(
            sorted({*trial.singular, *held}),
            replace(bare, mixture=statistics.frame.enter(bare.mixture)),
            statistics.sums[: mixture.components, 0] * (statistics.rows / statistics.weight),
            statistics.prior.reg,
        ),
    }
    return {
        "mixture_": trial.mixture,
        "sufficient_statistics_": statistics,
        "lower_bounds_": [before],
        "lower_bound_": after,
        "converged_": False,
        "fit_info_": fit_info,
    }
