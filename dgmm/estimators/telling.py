"""What a model and its fit are, in words and figures for a person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgmm.estimators.judging import judged
from dgmm.estimators.passes import figure
from dgmm.model.fixed import free_parameters
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def facts(model: GaussianMixture) -> dict[str, str]:
    """What a fitted ``model`` is, and how it was fitted, by name: what matters first."""
    info, mixture = model.fit_info_, model.mixture_
    lines = {
        "mixture": f"{_count(mixture.components, 'component')}, {mixture.covariance_model.name}, "
        f"of {_count(mixture.n_features, 'feature')}",
    }
    lines |= _beside(mixture) | _kept(model) | _of_fit(model)
    if "objective_before" in info:
        before = info["objective_before"]
        was = "none" if before is None else f"{before:.9g}"
        lines["objective"] = f"{info['objective']:.9g} nats a row, a lower bound for all rows seen"
        lines["before"] = f"{was}, with the parameters from before the step"
    if "passes" in info:
        lines["converged"] = _end(model)
    lines |= _starts(info)
    for name in ("empty", "unused", "singular"):
        if info.get(name):
            lines[name] = ", ".join(map(str, info[name]))
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def other_names(model: GaussianMixture, names: Sequence[Any] | None) -> str | None:
    """How the names of a model's features and of those of rows differ; None if they do not."""
    known = vars(model).get("feature_names_in_")
    if known is None or names is None or list(known) == list(names):
        return None
    own, theirs = (", ".join(map(str, each)) for each in (known, names))
    return f"the features {own}; the rows have {theirs}, and must have the same in the same order"


def names_of(model: GaussianMixture) -> list[str]:
    """What the features are called, or x and their numbers."""
    count = model.mixture_.n_features
    return [str(each) for each in vars(model).get("feature_names_in_", _numbered(count))]


def _numbered(count: int) -> list[str]:
    return [f"x{j}" for j in range(count)]


def heaviest_first(mixture: Mixture) -> NDArray[np.intp]:
    """The numbers of the components."""
    return np.argsort(-mixture.weights, kind="stable")


def mean_and_spread(mean: float, spread: float) -> str:
    """A mean and its standard deviation, with the digits that are larger than a part of that."""
    digits = 4
    if mean and spread > 0:
        size = math.floor(math.log10(abs(mean)))
        digits = max(4, size - math.floor(math.log10(spread)) + 3, size + 1)
    return f"{mean:.{min(digits, 15)}g} ± {spread:.4g}"


def criteria_of_fit(model: GaussianMixture) -> dict[str, float]:
    """The log-likelihood of the rows of a fit, free parameters, AIC and BIC; none if not told.

    They are those of ``GaussianMixture.criteria``.  With labels, the score is that of other
    densities, as it is of a posterior; after an update, there is only a bound.
    """
    info = model.fit_info_
    mixture, _ = judged(model)
    known = "score" in info and "weight" in info and not info.get("labelled")
    if not known or mixture is not model.mixture_:
        return {}
    total, count = info["score"] * info["weight"], free_parameters(mixture, info)
    return {
        "log_likelihood": total,
        "parameters": count,
        "aic": -2 * total + 2 * count,
        "bic": -2 * total + count * float(np.log(info["weight"])),
    }


def _of_rows(info: dict[str, Any]) -> str:
    """What a fit's record says of its rows, beside their number."""
    labelled, incomplete = info.get("labelled"), info.get("incomplete")
    beside = f", of which {labelled:,} have labels" if labelled else ""
    if incomplete:
        beside += f", of which {incomplete:,} are incomplete"
        beside += f", and {info['left_out']:,} left out" * bool(info["left_out"])
    return beside + ", with known errors" * bool(info.get("noise"))


def _of_fit(model: GaussianMixture) -> dict[str, str]:
    """How many rows a fit had, what it came to, and how long it took."""
    info, lines = model.fit_info_, {}
    for name, shown in {
        "rows": "{:,}",
        "score": "{:.9g} nats a row",
        "passes": "{}",
        "seconds": "{:.1f}",
    }.items():
        if name in info:
            lines[name] = shown.format(info[name])
        if name == "score" and (found := criteria_of_fit(model)):
            lines["score"] += f"; log-likelihood {figure(found['log_likelihood'])}"
            lines["parameters"] = f"{found['parameters']:,}"
            lines["aic, bic"] = f"{figure(found['aic'])}, {figure(found['bic'])}"
    if "rows" in lines:
        lines["rows"] += _of_rows(info)
    if info.get("seconds_on_samples"):
        lines["seconds"] += f", of which {info['seconds_on_samples']:.1f} on samples"
    return lines


def _beside(mixture: Mixture) -> dict[str, str]:
    """What there is of a mixture beside normal components."""
    lines = {}
    if mixture.noise_component is not None:
        lines["noise"] = f"{mixture.noise_component.weight:.2%} of the weight"
    if mixture.tails is not None:
        lines["degrees of freedom"] = ", ".join(f"{each:.3g}" for each in mixture.dof)
    return lines


def _kept(model: GaussianMixture) -> dict[str, str]:
    """The threshold and the groups that a model keeps, if it does."""
    lines = {}
    if hasattr(model, "threshold_"):
        kept = model.threshold_
        below = f"{kept.flagged:,} of {kept.rows:,} rows were below"
        lines["threshold"] = f"{kept.log_density:.9g} nats; {below}"
    if hasattr(model, "groups_"):
        lines["groups"] = " ".join(map(str, model.groups_)) + ", of the components in their order"
    return lines


def _starts(info: dict[str, Any]) -> dict[str, str]:
    """What several starts brought, if there were any."""
    lines = {}
    if info.get("starts", 0) > 1 and info.get("starts_gain") is not None:
        lines["starts"] = (
            f"{info['starts']}; those after the first took {info['starts_seconds']:.1f} s; the "
            f"best is {info['starts_gain']:.3g} x p / (2 N) better than the first, on a sample"
        )
    if info.get("optima", 0) > 1:
        lines["optima"] = (
            f"{info['optima']}, found by {info['starts']} starts on samples; the best one was "
            "kept, but more starts (--n-init) may find a better one"
        )
    return lines


def _end(model: GaussianMixture) -> str:
    """Whether a fit has converged, and by what."""
    gap = model.fit_info_.get("estimated_gap")
    left = "" if gap is None else f"; an estimated {gap:.1e} nats a row left to gain"
    late = ", max_seconds" * (model.fit_info_.get("stopped_by") == "max_seconds")
    return (
        "yes"
        if model.converged_
        else f"no, after {model.n_iter_} iteration{'s' * (model.n_iter_ != 1)}{late}"
    ) + left
