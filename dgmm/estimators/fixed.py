"""What ``fixed`` asks for, checked: parameters to be held at their starting values."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dgmm.em.spec import FitSpec
from dgmm.errors import UsageError
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import PARTS, Fixed, Held
from dgmm.model.mixture import Mixture

NAMES = ", ".join(repr(each) for each in PARTS)


def fixed_of(asked: Any, components: int, covariance_model: CovarianceModel) -> Fixed | None:
    """What is to be held of so many components; None if nothing is.

    ``asked`` is the name of a part, several, or a mapping from names to True or to components.
    """
    if asked is None:
        return None
    named = _named(asked)
    if unknown := [name for name in named if name not in PARTS]:
        raise UsageError(f"fixed can hold {NAMES}, not {unknown[0]!r}")
    numbers = {name: _components(name, own, components) for name, own in named.items()}
    fixed = Fixed.of(components, **numbers)
    some = fixed.covariances.any() and not fixed.covariances.all()
    if some and covariance_model.couples:
        raise UsageError(
            f"fixed holds the covariance of some components, and {covariance_model.name!r} "
            "covariances have parts in common: hold them for all, or for none"
        )
    return fixed if fixed.any else None


def _named(asked: Any) -> dict[Any, Any]:
    """The parts that are to be held, with True or the components of each."""
    if isinstance(asked, str):
        return {asked: True}
    if isinstance(asked, Mapping):
        return dict(asked)
    if isinstance(asked, Iterable):
        names = list(asked)
        if all(isinstance(each, str) for each in names):
            return dict.fromkeys(names, True)
    raise UsageError(
        f"fixed must be the names of what to hold ({NAMES}), or a mapping from these to True or to "
        f"lists of components, not {asked!r:.80}"
    )


def _components(name: str, own: Any, components: int) -> list[int]:
    """The components that ``own`` names: True for all, False or None for none, or numbers."""
    if own is None or isinstance(own, bool | np.bool_):
        return list(range(components)) if own else []
    try:
        numbers = [own] if isinstance(own, int | np.integer) else list(own)
    except TypeError as error:
        raise UsageError(f"fixed[{name!r}] must be True or components, not {own!r}") from error
    if numbers and all(isinstance(each, bool | np.bool_) for each in numbers):
        if len(numbers) != components:
            raise UsageError(f"fixed[{name!r}] must say of {components} components, not {own!r}")
        return np.flatnonzero(np.array(numbers, bool)).tolist()
    for each in numbers:
        whole = isinstance(each, int | np.integer) and not isinstance(each, bool)
        if not whole or not 0 <= each < components:
            raise UsageError(f"fixed[{name!r}] names {each!r}, which is none of {components}")
    return [int(each) for each in numbers]


def holding(spec: FitSpec, asked: Any, n_features: int, fitted: Mixture | None = None) -> FitSpec:
    """The ``spec`` with what is ``asked`` to be fixed at its starting values.

    ``fitted`` is the mixture that a fit goes on from, if it does.  Raises ``UsageError`` unless
    there are values for all that is to be held, and they leave something to fit.
    """
    fixed = fixed_of(asked, spec.components, spec.covariance_model)
    if fixed is None:
        return spec
    if not spec.prior.is_density:
        raise UsageError(
            "fixed holds parameters, and a variational fit has a posterior of them instead: leave "
            "out fixed, or use a ConjugatePrior"
        )
    given = {"weights": spec.weights, "means": spec.means, "covariances": spec.precisions}
    for name, own in fixed.record().items():
        if own and given[name] is None:
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
    found = replace(spec, held=Held(fixed, at), before=None)
    if found.parameters(n_features) <= 0:
        raise UsageError("fixed holds all there is: nothing is left to fit")
    return found


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
    own = at.weights[fixed.weights]
    if (own <= 0).any():
        k = int(np.flatnonzero(fixed.weights & (at.weights <= 0))[0])
        raise UsageError(f"fixed holds the weight of component {k}, which is 0: leave it out")
    if (noise or not fixed.weights.all()) and own.sum() >= 1 - 1e-12:
        raise UsageError(
            f"fixed holds weights that sum to {own.sum():.6g}, which leaves nothing to the others"
        )
