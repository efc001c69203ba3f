"""``align``: the components of two models, matched."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.em.causes import Collapse
from dgmm.errors import UsageError
from dgmm.estimators.fixed import fixed_of
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.predictor import Predictor
from dgmm.estimators.record import become
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.model.arrays import Array
from dgmm.model.divergence import divergences, matched
from dgmm.model.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the components of two models match; ``align`` finds it.

    Parameters
    ----------
    order : array (K,) of int
        Component ``order[k]`` of the other model is component k of the first.
    divergences : array (K,)
        How far the two components of each pair are from each other, in nats; 0 if they are equal.
    model : GaussianMixture or Mixture
        The other model with its components in the order of the first: what was component
        ``order[k]`` is component k.  Of a fit under a Dirichlet process, to which the order of its
        components matters, it is the mixture alone.

    Examples
    --------
    >>> from dgmm import GaussianMixture, align
    >>> first = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> other = GaussianMixture.from_parameters([0.5, 0.5], [[9.1], [0.1]], [[[1.0]], [[1.0]]])
    >>> found = align(first, other)
    >>> found.order.tolist(), found.model.means_.tolist()
    ([1, 0], [[0.1], [9.1]])
    """

    order: NDArray[np.intp]
    divergences: Array
    model: Any


def align(
    model: GaussianMixture | Predictor | Mixture, other: GaussianMixture | Predictor | Mixture
) -> Alignment:
    """Match the components of two models, so that labels keep their order from fit to fit.

    The match is that of the least total divergence: for weights p and q and normal distributions
    N, the Jeffreys divergence of p N_k and q N_l, which does not depend on units, summed over the
    pairs.  That total is an upper bound of the Jeffreys divergence of the two mixtures.  Components
    of heavy tails are compared as normal ones of their locations and scale matrices; noise is not
    compared.

    Parameters
    ----------
    model : GaussianMixture, MixtureSearch or Mixture
        The fitted model whose order counts.
    other : GaussianMixture, MixtureSearch or Mixture
        A model of as many components and features, of any covariance type.

    Returns
    -------
    Alignment
        The ``order`` of the other's components, the ``divergences`` of the pairs, and the other
        ``model`` in that order; neither argument changes.

    Raises
    ------
    UsageError
        If the two have different numbers of components or features, or features of other names, or
        are no models.
    NotFittedError
        If one is not fitted yet.

    References
    ----------
    Do, Fast approximation of Kullback-Leibler distance for dependence trees and hidden Markov
    models, 2003; Kuhn, The Hungarian method for the assignment problem, 1955.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture, align
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> rows[100:] += 9
    >>> monday = GaussianMixture(2, random_state=0).fit(rows)
    >>> tuesday = align(monday, GaussianMixture(2, random_state=1).fit(rows + 0.1)).model
    >>> bool((tuesday.predict(rows) == monday.predict(rows)).all())
    True
    """
    (first, mixture), (second, other_mixture) = model_of(model), model_of(other)
    if mixture.means.shape != other_mixture.means.shape:
        raise UsageError(
            "models can be aligned that have as many components and features: one has "
            f"{mixture.components} components of {mixture.n_features} features, the other "
            f"{other_mixture.components} of {other_mixture.n_features}"
        )
    check_names(first, second)
    costs = divergences(mixture, other_mixture)
    order = matched(costs)
    distances = costs[np.arange(len(order)), order]
    reordered = other_mixture.chosen(order)
    if second is None or _has_order(second):
        return Alignment(order, distances, reordered)
    return Alignment(order, distances, _reordered(second, reordered, order))


def model_of(model: Any) -> tuple[GaussianMixture | None, Mixture]:
    """The fitted model, if there is one, and its mixture."""
    if isinstance(model, Mixture):
        return None, model
    if not isinstance(model, Predictor):
        raise UsageError(f"align needs fitted models or mixtures, not {type(model).__name__}")
    fitted: GaussianMixture = model._fitted
    return fitted, fitted.mixture_


def check_names(first: GaussianMixture | None, second: GaussianMixture | None) -> None:
    """Raise ``UsageError`` if two models' features have names, and others, or another order."""
    both = [list(vars(each).get("feature_names_in_", ())) for each in (first, second) if each]
    if all(both) and len(both) == 2 and both[0] != both[1]:
        own, theirs = (", ".join(map(str, names)) for names in both)
        raise UsageError(
            f"models must have the same features, in the same order: one has {own}, the other "
            f"{theirs}"
        )


def _has_order(model: GaussianMixture) -> bool:
    """Whether the order of a model's components says something: that of sticks, broken in turn."""
    prior = model.fit_info_.get("prior") or {}
    return prior.get("weight_concentration_prior_type") == "dirichlet_process"


def _reordered(
    model: GaussianMixture, mixture: Mixture, order: NDArray[np.intp]
) -> GaussianMixture:
    """A copy of ``model`` with its components in that ``order``, which those of ``mixture`` have.

    So do its starting values, and what of them is fixed.
    """
    result = type(model)(**_params(model, order))
    attributes = {
        name: value
        for name, value in vars(model).items()
        if name.endswith("_") and not name.startswith("_")
    }
    attributes |= {"mixture_": mixture, "fit_info_": _info(model.fit_info_, order)}
    if hasattr(model, "groups_"):
        attributes["groups_"] = tuple(model.groups_[k] for k in order)
    if hasattr(model, "sufficient_statistics_"):
        attributes["sufficient_statistics_"] = _statistics(model.sufficient_statistics_, order)
    become(result, **attributes)
    return result


def _params(model: GaussianMixture, order: NDArray[np.intp]) -> dict[str, Any]:
    """A model's parameters, where they name components or have a number for each."""
    params: dict[str, Any] = model.get_params(deep=False)
    shared = model.mixture_.covariance_model.sharing(2) > 1
    for name in ("weights_init", "means_init", *(() if shared else ("precisions_init",))):
        if params.get(name) is not None:
            params[name] = np.asarray(params[name])[order]
    if params.get("fixed") is not None:
        fixed = fixed_of(params["fixed"], len(order), model.mixture_.covariance_model)
        params["fixed"] = None if fixed is None else fixed.chosen(order).record()
    return params


def _info(info: dict[str, Any], order: NDArray[np.intp]) -> dict[str, Any]:
    """The record of a fit, where it names components."""
    places = np.argsort(order).tolist()

    def named(components: Any) -> list[int]:
        return sorted(places[k] for k in components)

    renumbered = {**info}
    plain = ("empty", "singular", "unused")
    renumbered |= {name: named(info[name]) for name in plain if name in info}
    if info.get("fixed"):
        renumbered["fixed"] = {name: named(held) for name, held in info["fixed"].items()}
    if "singular_causes" in info:
        collapses = [Collapse.of(cause) for cause in info["singular_causes"]]
        renumbered["singular_causes"] = [
            replace(cause, components=tuple(named(cause.components))).record()
            for cause in collapses
        ]
    for name in ("rivalled", "noiseless"):
        if name in info:
            renumbered[name] = {**info[name], "components": named(info[name]["components"])}
    if "dof_at_limit" in info:
        limits = info["dof_at_limit"]
        renumbered["dof_at_limit"] = {end: named(limits[end]) for end in limits}
    return renumbered


def _statistics(statistics: SufficientStatistics, order: NDArray[np.intp]) -> SufficientStatistics:
    """The statistics in that order; those of the same fit in another order don't add to them."""
    if (order == np.arange(len(order))).all():
        return statistics
    digest = hashlib.sha256(statistics.origin.encode() + order.astype("<i8").tobytes())
    fixed = None if statistics.fixed is None else statistics.fixed.chosen(order)
    order = np.append(order, np.arange(len(order), len(statistics.sums)))  # noise stays last
    return replace(
        statistics,
        fixed=fixed,
        origin=digest.hexdigest()[:16],
        sums=statistics.sums[order],
        center=statistics.center[order],
    )
