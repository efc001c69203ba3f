"""A step of incremental EM: what a fitted model becomes by the statistics of all rows seen."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dgmm import engine
from dgmm.errors import DataError, UsageError
from dgmm.estimators.fixed import fixed_of
from dgmm.estimators.parameters import noise_of, prior_of, tails_of
from dgmm.estimators.record import singular_of
from dgmm.estimators.sufficient_statistics import SufficientStatistics, digest
from dgmm.kernels import choice
from dgmm.model.choice import choose
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

SAME: Final = 1e-9
"""How near sums are, relative to the largest, that are the same but for rounding."""


def check_descends(
    model: "GaussianMixture", reference: SufficientStatistics, statistics: SufficientStatistics
) -> None:
    """Raise ``UsageError`` unless ``statistics`` descend from the fit of a ``model``.

    ``reference`` are the model's statistics.
    """
    if not isinstance(statistics, SufficientStatistics):
        raise UsageError(f"update needs SufficientStatistics, not {type(statistics).__name__}")
    if why := reference.differs(statistics):
        raise UsageError(f"the statistics do not descend from this model: {why}")
    noisy = model.mixture_.noise_component is not None
    count, kind = len(reference.sums) - noisy, prior_of(model).kind
    covariance_type = choose("covariance_type", model.covariance_type, COVARIANCE_TYPES).name
    now = (model.n_components, covariance_type, model.reg_covar, kind)
    then = (count, reference.covariance_model.name, reference.reg_covar, reference.prior.name)
    if now != then:
        raise UsageError(
            f"n_components, covariance_type, reg_covar and prior were {then} in the fit and are "
            f"{now} now; rows can only be added under the same"
        )
    if changed := prior_of(model).changed(reference.prior, reference.frame):
        raise UsageError(
            f"{changed} of the prior is another now than it was in the fit; rows can only be added "
            "under the same prior"
        )
    _check_kind(model, reference)


def together(
    model: "GaussianMixture",
    reference: SufficientStatistics,
    statistics: Mapping[str, SufficientStatistics],
) -> SufficientStatistics:
    """The sum of the ``statistics`` of sites, by name, which all must be under ``model``.

    ``reference`` are the model's statistics, which say what it was fitted with.  Raises
    ``DataError`` that names the site that is refused.
    """
    if not statistics:
        raise UsageError("update needs the statistics of at least one site")
    under = digest(model.mixture_)
    accepted: dict[str, SufficientStatistics] = {}
    for name, of_site in statistics.items():
        try:
            check_descends(model, reference, of_site)
        except UsageError as error:
            raise DataError(f"{name} is refused: {error}") from error
        if of_site.under != under:
            named = (
                "its file does not say of which" if of_site.under is None else of_site.under[:12]
            )
            raise DataError(
                f"{name} is refused: it has statistics under another model ({named}) than this one "
                f"({under[:12]}); summarize the rows again, with this model"
            )
        for other, before in accepted.items():
            if _alike(of_site, before):
                raise DataError(
                    f"{name} is refused: it has the statistics of {other}, so rows would count "
                    "twice; give each site once"
                )
        accepted[name] = of_site
    return reduce(add, accepted.values())


def _alike(one: SufficientStatistics, other: SufficientStatistics) -> bool:
    """Whether two statistics under one mixture are of the same rows, as far as sums tell."""
    size = SAME * np.abs(one.sums).max()
    return (
        one.rows == other.rows
        and abs(one.weight - other.weight) <= SAME * one.weight
        and bool(np.abs(one.sums - other.sums).max() <= size)
    )


def _check_kind(model: "GaussianMixture", reference: SufficientStatistics) -> None:
    """Raise ``UsageError`` if a model asks for another kind of mixture than it was fitted as.

    What is ``fixed`` is not kept in files: None asks for nothing else.
    """
    noise, box = noise_of(model), model.mixture_.noise_component
    changed = ""
    if tails_of(model) is not None:
        changed = f"tails is {model.tails!r} now, and was 'normal' in the fit"
    elif (noise is None) != (box is None):
        was = "none" if box is None else "one"
        changed = f"noise_component is {model.noise_component!r} now, and the fit had {was}"
    elif noise is not None and box is not None and not noise.fits(box):
        changed = f"noise_volume is {model.noise_volume!r} now, and was another in the fit"
    elif model.fixed is not None:
        fixed = fixed_of(model.fixed, model.n_components, reference.covariance_model)
        now, then = (None if one is None else one.record() for one in (fixed, reference.fixed))
        if now != then:
            changed = f"fixed is {model.fixed!r:.80} now, and was another in the fit"
    if changed:
        raise UsageError(f"{changed}; rows can only be added under the same")


def step(mixture: Mixture, statistics: SufficientStatistics) -> dict[str, Any]:
    """The attributes of a model, by name, after an M-step from ``statistics``.

    ``mixture`` is that of the data before the step.  Raises ``DataError`` if the likelihood would
    not be finite.
    """
    with engine.one_blas_thread():
        trial = statistics.improve(mixture)
        bare = statistics.bare(mixture)
        held = statistics.held(mixture)
        before, after = (statistics.bound(one) for one in (mixture, trial.mixture))
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
