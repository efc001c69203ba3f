"""What ``fixed`` asks for, checked: parameters to be held at their starting values."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from dgmm.em.spec import FitSpec
from dgmm.errors import UsageError
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import PARTS, Fixed, Held
from dgmm.model.mixture import Mixture

NAMES = ", ".join(repr(each) for each in PARTS)

ROUNDED: Final = 1e-12
"""Weights that are all held, and sum to 1 but for so much, are held to the last bit."""


def fixed_of(request: Any, components: int, covariance_model: CovarianceModel) -> Fixed | None:
    """What is to be held of so many components; None if nothing is.

    A ``request`` is the name of a part, several, or a mapping from names to True or to components.
    """
    if request is None:
        return None
    named = _named(request)
    if unknown := [name for name in named if name not in PARTS]:
        raise UsageError(f"fixed can hold {NAMES}, not {unknown[0]!r}")
    numbers = {name: _components(name, chosen, components) for name, chosen in named.items()}
    fixed = Fixed.of(components, **numbers)
    some = fixed.covariances.any() and not fixed.covariances.all()
    if some and covariance_model.couples:
        raise UsageError(
            f"fixed holds the covariance of some components, and {covariance_model.name!r} "
            "covariances have parts in common: hold them for all, or for none"
        )
    return fixed if fixed.any else None


def _named(request: Any) -> dict[Any, Any]:
    """The parts that are to be held, with True or the components of each."""
    if isinstance(request, str):
        return {request: True}
    if isinstance(request, Mapping):
        return dict(request)
    if isinstance(request, Iterable):
        names = list(request)
        if all(isinstance(name, str) for name in names):
            return dict.fromkeys(names, True)
    raise UsageError(
        f"fixed must be the names of what to hold ({NAMES}), or a mapping from these to True or to "
        f"lists of components, not {request!r:.80}"
    )


def _components(name: str, chosen: Any, components: int) -> list[int]:
    """The components that are ``chosen``: True for all, False or None for none, or numbers."""
    if chosen is None or isinstance(chosen, bool | np.bool_):
        return list(range(components)) if chosen else []
    try:
        numbers = [chosen] if isinstance(chosen, int | np.integer) else list(chosen)
    except TypeError as error:
        raise UsageError(f"fixed[{name!r}] must be True or components, not {chosen!r}") from error
    if numbers and all(isinstance(number, bool | np.bool_) for number in numbers):
        if len(numbers) != components:
            raise UsageError(f"fixed[{name!r}] must say of {components} components, not {chosen!r}")
        return np.flatnonzero(np.array(numbers, bool)).tolist()
    for number in numbers:
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or not 0 <= number < components:
            raise UsageError(f"fixed[{name!r}] names {number!r}, which is none of {components}")
    return [int(number) for number in numbers]


def holding(spec: FitSpec, request: Any, n_features: int, fitted: Mixture | None = None) -> FitSpec:
    """The ``spec`` that holds what a ``request`` names at its starting values.

    ``fitted`` is the mixture that a fit goes on from, if it does.  Raises ``UsageError`` unless
    there are values for all that is to be held, and they leave something to fit.
    """
    fixed = fixed_of(request, spec.components, spec.covariance_model)
    if fixed is None:
        return spec
    if not spec.prior.is_density:
        raise UsageError(
            "fixed holds parameters, and a variational fit has a posterior of them instead: leave "
            "out fixed, or use a ConjugatePrior"
        )
    given = {"weights": spec.weights, "means": spec.means, "covariances": spec.precisions}
    for name, held in fixed.record().items():
        if held and given[name] is None:
            begin = {"covariances": "precisions_init"}.get(name, f"{name}_init")
            raise UsageError(
                f"fixed holds {name}, and there are none to hold: give {begin}, or begin at a "
                "fitted model (warm_start=True)"
            )
    noise = spec.noise is not None
    if fitted is not None and not noise:
        fitted = fitted.without_noise
    at = _values(spec, n_features) if fitted is None else fitted
    _check_weights(fixed, at, noise)
    off = abs(at.weights.sum() - 1)
    if fixed.weights.all() and not noise and off > ROUNDED:  # no free one makes up for that
        at = replace(at, weights=at.weights / at.weights.sum())
    result = replace(spec, held=Held(fixed, at), before=None)
    if result.parameters(n_features) <= 0:
        raise UsageError("fixed holds all there is: nothing is left to fit")
    return result


def _values(spec: FitSpec, n_features: int) -> Mixture:
    """The starting values as a mixture; what is not given, and so not held, is anything."""
    components, covariance_model = spec.components, spec.covariance_model
    shape = components, n_features
    weights = np.full(components, 1 / components) if spec.weights is None else spec.weights
    means = np.zeros(shape) if spec.means is None else spec.means
    covariances = (
        covariance_model.of_variances(np.ones(n_features), components)
        if spec.precisions is None
        else covariance_model.of_precisions(spec.precisions, shape)
    )
    return Mixture(weights, means, covariances)


def _check_weights(fixed: Fixed, at: Mixture, noise: bool) -> None:
    """Raise ``UsageError`` unless the fixed weights leave something to others, or to ``noise``."""
    held = at.weights[fixed.weights]
    if (held <= 0).any():
        k = int(np.flatnonzero(fixed.weights & (at.weights <= 0))[0])
        raise UsageError(f"fixed holds the weight of component {k}, which is 0: leave it out")
    if (noise or not fixed.weights.all()) and held.sum() >= 1 - 1e-12:
        raise UsageError(
            f"fixed holds weights that sum to {held.sum():.6g}, which leaves nothing to the others"
        )
