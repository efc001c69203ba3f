"""Models of scikit-learn made of ours, and ours of theirs, or of parameters."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.errors import UsageError
from dgmm.estimators.record import become
from dgmm.io import plain
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

mixture = Late("sklearn.mixture")

SHARED = (
    *("n_components", "covariance_type", "max_iter", "n_init", "random_state", "warm_start"),
    *("weights_init", "means_init", "precisions_init"),
)
"""Parameters that have the same meaning in both."""


def to_sklearn(model: "GaussianMixture") -> Any:
    """The ``sklearn.mixture.GaussianMixture`` that says the same of rows."""
    own = model.mixture_
    if own.noise_component is not None or own.tails is not None:
        raise UsageError(
            "scikit-learn has no mixtures with a noise component or heavy tails: there is none "
            "that says the same"
        )
    if own.covariance_model.along_loadings:
        raise UsageError(
            f"scikit-learn has no mixtures with covariance_type={own.covariance_model.name!r}; "
            'one of "full" has their component_covariances_'
        )
    params = {name: getattr(model, name) for name in SHARED}
    params["covariance_type"] = own.covariance_model.plain.name
    theirs = mixture.GaussianMixture(**params)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        setattr(theirs, name, np.array(getattr(model, name)))
    for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
        setattr(theirs, name, getattr(model, name))
    if hasattr(model, "feature_names_in_"):
        theirs.feature_names_in_ = model.feature_names_in_.copy()
    return theirs


def from_sklearn(cls: "type[GaussianMixture]", theirs: Any) -> "GaussianMixture":
    """Ours of the parameters of a fitted mixture of scikit-learn."""
    missing = [name for name in ("weights_", "means_", "covariances_") if not hasattr(theirs, name)]
    if missing:
        raise UsageError(
            f"a fitted mixture of scikit-learn has weights_, means_ and covariances_; this "
            f"{type(theirs).__name__} has no {', '.join(missing)}"
        )
    kind = theirs.covariance_type
    model = cls.from_parameters(
        theirs.weights_ / np.sum(theirs.weights_),
        theirs.means_,
        theirs.covariances_,
        covariance_type=kind,
        random_state=theirs.random_state,
    )
    if hasattr(theirs, "feature_names_in_"):
        model.feature_names_in_ = np.array(theirs.feature_names_in_)
    return model


def from_json(cls: "type[GaussianMixture]", text: str) -> "GaussianMixture":
    """Ours of parameters as JSON."""
    mixture, names = plain.loads(text)
    kind: Any = mixture.covariance_model.name
    model = cls(
        mixture.components,
        covariance_type=kind,
        n_factors=mixture.covariance_model.factor_count,
        noise_component=mixture.noise_component is not None,
        tails="normal" if mixture.tails is None else "student",
    )
    named = {} if names is None else {"feature_names_in_": np.array(names, dtype=object)}
    become(model, **given(mixture), **named)
    return model


def given(mixture: Mixture) -> dict[str, Any]:
    """What a model has that was made of a ``mixture``, without a fit."""
    return {
        "mixture_": mixture,
        "converged_": False,
        "n_iter_": 0,
        "lower_bounds_": [],
        "lower_bound_": -np.inf,
        "fit_info_": {"strategy": "given", "empty": [], "singular": []},
        "n_features_in_": mixture.n_features,
    }
