"""What goes with sparse rows."""

from collections.abc import Container
from dataclasses import replace
from typing import TYPE_CHECKING

from dgmm.em.spec import FitSpec
from dgmm.errors import UsageError
from dgmm.kernels.choice import SPARSE
from dgmm.kernels.observation import Complete
from dgmm.kernels.sparse import QUADRATIC
from dgmm.model.covariance import COVARIANCE_TYPES

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def of_sparse(spec: FitSpec, beside: Container[str]) -> FitSpec:
    """The same request of sparse rows; raises ``UsageError`` for what does not go with them.

    ``beside`` has the names of what lies beside the rows.
    """
    model = spec.covariance_model
    if model.features.name not in QUADRATIC:
        names = [name for name, each in COVARIANCE_TYPES.items() if each.features.name in QUADRATIC]
        raise UsageError(
            f"covariance_type={model.name!r} is not fitted to sparse rows: its sums are of all "
            f"pairs of features, or along factors. Choose one of {', '.join(names)}"
        )
    others = {
        f"missing={spec.observation.name!r}": spec.observation.name != "raise",
        'tails="student"': spec.tails is not None,
        "noise=": "noise" in beside,
        "labels=": "labels" in beside,
    }
    for name, asked in others.items():
        if asked:
            raise UsageError(f"sparse rows do not go with {name}: leave out one of the two")
    return replace(spec, kernel=SPARSE, observation=Complete(SPARSE))


def takes_sparse(model: "GaussianMixture") -> bool:
    """Whether a model is fitted to sparse rows, as far as its parameters tell."""
    kind = model.covariance_type
    known = COVARIANCE_TYPES.get(kind) if isinstance(kind, str) else None
    plain = model.missing == Complete.name and model.tails == "normal"
    return plain and known is not None and known.features.name in QUADRATIC
