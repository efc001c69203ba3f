"""Values of a mixture's parameters that are given: where a fit begins, and models made of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dgmm.data import forms
from dgmm.em.first_mixtures import given_mixture
from dgmm.em.spec import FitSpec
from dgmm.errors import UsageError
from dgmm.estimators.fixed import holding
from dgmm.estimators.parameters import noise_of, tails_of
from dgmm.estimators.telling import other_names
from dgmm.model.arrays import Array
from dgmm.model.choice import choose
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture
from dgmm.model.tails import RULES, StudentTails

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def begun(
    spec: FitSpec,
    model: "GaussianMixture",
    n_features: int,
    names: Sequence[Any] | None = None,
) -> FitSpec:
    """The ``spec`` with the starting values that a model has for so many features, checked.

    They are given, or those of the last fit, if the next is to go on from there; then the features
    must have the same ``names``, if they have any.
    """
    spec.prior.check(spec.covariance_model, n_features)
    spec.covariance_model.check_features(n_features)
    if model.warm_start and hasattr(model, "mixture_"):
        _check_goes_on(spec, model, n_features, names)
        return holding(_gone_on(spec, model), model.fixed, n_features, model.mixture_)
    return holding(_with_given(spec, model, n_features), model.fixed, n_features)


def _check_goes_on(
    spec: FitSpec, model: "GaussianMixture", n_features: int, names: Sequence[Any] | None
) -> None:
    """Raise ``UsageError`` if a fit can't go on from that of a model."""
    fitted, components = model.mixture_, spec.components
    if fitted.covariance_model != spec.covariance_model:
        was, now = fitted.covariance_model, spec.covariance_model
        more = "" if was.name != now.name else f" of {was.factor_count} factors"
        factors = "" if was.name != now.name else f", n_factors {now.factor_count}"
        raise UsageError(
            f"warm_start goes on from {was.name!r} covariances{more}; "
            f"covariance_type is {model.covariance_type!r}{factors}"
        )
    if fitted.means.shape != (components, n_features):
        raise UsageError(
            f"warm_start goes on from {fitted.components} components of {fitted.n_features} "
            f"features; n_components is {components} and X has {n_features} features"
        )
    if other := other_names(model, names):
        raise UsageError(f"warm_start goes on from a model of {other}")
    if (spec.tails is None) != (fitted.tails is None):
        raise UsageError("warm_start goes on from a model of the same tails")


def _gone_on(spec: FitSpec, model: "GaussianMixture") -> FitSpec:
    """The ``spec`` of a fit that begins where the last one ended."""
    fitted, noise, tails = model.mixture_, spec.noise, spec.tails
    if tails is not None and fitted.tails is not None:
        tails = tails.going_on(fitted.tails)
    if noise is not None and fitted.noise_component is not None:
        noise = replace(noise, weight=fitted.noise_component.weight)
    return replace(
        spec,
        n_init=1,
        noise=noise,
        tails=tails,
        weights=fitted.own_weights,
        means=fitted.means,
        precisions=fitted.covariances.precisions(),
        before=model.lower_bounds_[-1] if model.lower_bounds_ else None,
    )


def _with_given(spec: FitSpec, model: "GaussianMixture", n_features: int) -> FitSpec:
    """The ``spec`` of a fit that begins at the values that are given, if there are any."""
    components = spec.components
    shape = spec.covariance_model.shape(components, n_features)
    weights = _given(model, "weights", (components,))
    means = _given(model, "means", (components, n_features))
    precisions = _given(model, "precisions", shape, f"{spec.covariance_model.name} precision")
    if weights is not None:
        check_weights(weights)
    if precisions is not None:  # refused now, not after the first pass
        uniform, zeros = np.full(components, 1 / components), np.zeros((components, n_features))
        given_mixture(spec.covariance_model, uniform, zeros, precisions)
    return replace(spec, weights=weights, means=means, precisions=precisions)


def mixture_of(
    covariance_type: str,
    weights: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike | None,
    precisions: ArrayLike | None,
    n_factors: int | None = None,
) -> Mixture:
    """The mixture of given parameters, checked: ``covariances`` or ``precisions`` is None."""
    kind: CovarianceModel = choose("covariance_type", covariance_type, COVARIANCE_TYPES)
    covariance_model = kind.sized(n_factors)
    if (covariances is None) == (precisions is None):
        raise UsageError("give either covariances or precisions, one of the two")
    shape = np.shape(means)
    if len(shape) != 2 or 0 in shape:
        raise UsageError(f"means must have shape (components, features), not {shape}")
    covariance_model.check_features(shape[1])
    if covariance_model.along_loadings and covariances is None:
        raise UsageError(
            f"precisions do not go with covariance_type={covariance_type!r}: give covariances, the "
            "noise variances and loadings"
        )
    make, name, given = (
        (Mixture.of_covariances, "covariances", covariances)
        if precisions is None
        else (Mixture.of, "precisions", precisions)
    )
    matrices = numbers(name, given, covariance_model.shape(*shape))
    checked = numbers("weights", weights, shape[:1])
    check_weights(checked)
    try:
        return make(
            covariance_model, checked / checked.sum(), numbers("means", means, shape), matrices
        )
    except np.linalg.LinAlgError as error:
        raise UsageError(f"{name} must be symmetric positive definite: {error}") from error


def with_given_tails(model: "GaussianMixture", mixture: Mixture) -> Mixture:
    """The ``mixture`` of given parameters with the tails that a new ``model`` of them asks for.

    Degrees of freedom of each component are no parameter of a fit: the model has None for them.
    """
    if noise_of(model) is not None:
        raise UsageError(
            "parameters don't tell the box of a noise component: leave noise_component out"
        )
    given: Any = model.dof
    if np.ndim(given) == 1:
        dof, model.dof = numbers("dof", given, mixture.weights.shape), None
    if (spec := tails_of(model)) is None:
        return mixture
    if np.ndim(given) == 0:
        if spec.rule != RULES["given"]:
            raise UsageError(f"dof must be a number, or one for each component, not {given!r}")
        return replace(mixture, tails=spec.begun(mixture.components))
    if not (dof > 0).all():
        raise UsageError(f"dof must be above 0, not {given!r}")
    return replace(mixture, tails=StudentTails(dof, RULES["each"]))


def check_weights(weights: Array) -> None:
    """Raise ``UsageError`` unless the weights are those of a mixture."""
    if weights.min() < 0 or weights.max() > 1:
        raise UsageError(
            "The parameter 'weights' should be in the range [0, 1], but got max value "
            f"{weights.max():.5f}, min value {weights.min():.5f}"
        )
    if not np.isclose(weights.sum(), 1.0):
        raise UsageError(
            "The parameter 'weights' should be normalized, but got sum(weights) = "
            f"{weights.sum():.5f}"
        )


def _given(
    model: "GaussianMixture", name: str, shape: tuple[int, ...], called: str = ""
) -> Array | None:
    """Starting values as float64 of the right shape, if there are any.

    Where the shape is wrong they are ``called`` as scikit-learn calls them.
    """
    value = getattr(model, f"{name}_init")
    return None if value is None else numbers(f"{name}_init", value, shape, called or name)


def numbers(name: str, value: Any, shape: tuple[int, ...], called: str = "") -> Array:
    """Parameters as float64 of the right shape."""
    try:
        array = np.array(forms.unwrapped(value))
        array = array if array.dtype.kind == "c" else array.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} must be numbers: {error}") from error
    if array.dtype.kind == "c":
        raise UsageError(f"{name} must be real numbers, not {array.dtype}")
    if array.shape != shape:
        raise UsageError(
            f"The parameter {called or name!r} should have the shape of {shape}, "
            f"but got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds NaN or infinity")
    return array
