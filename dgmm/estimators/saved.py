"""A fitted model in a file: its parameters, the record of its fit, and its statistics."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dgmm.em.priors import parse_prior
from dgmm.errors import ModelFileError
from dgmm.estimators.grouping import checked_groups
from dgmm.estimators.parameters import prior_of
from dgmm.estimators.record import become
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.inference.odd_rows import Threshold
from dgmm.io import models
from dgmm.io.storage import Arrays
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

OF_ONE_FIT: Final = ("callbacks", "checkpoint", "fixed", "max_seconds", "resume")
"""Parameters that are not saved: they belong to one fit, and not to the model."""

RECORD: Final[dict[str, tuple[type, ...]]] = {
    "converged": (bool,),
    "n_iter": (int,),
    "lower_bound": (float, int),
    "lower_bounds": (list,),
    "fit_info": (dict,),
}
"""What a model file records of the fit, by name, and of what types that may be."""


def check_record(
    record: dict[str, Any], mixture: Mixture, statistics: SufficientStatistics | None
) -> None:
    """Raise ``ModelFileError`` unless a record has the types and shapes that ``read_into`` uses."""
    for name, kinds in RECORD.items():
        if type(record[name]) not in kinds:
            raise ModelFileError(
                f"its record has {record[name]!r:.40} for {name}, which is no {kinds[0].__name__}"
            )
    if not {type(each) for each in record["lower_bounds"]} <= {float, int}:
        raise ModelFileError("its record has lower_bounds that are no numbers")
    names = record["feature_names"]
    if names is not None and (
        not isinstance(names, list)
        or len(names) != mixture.n_features
        or not all(isinstance(each, str) for each in names)
    ):
        raise ModelFileError(f"its record does not name each of the {mixture.n_features} features")
    if statistics is not None and (
        statistics.covariance_model != mixture.covariance_model
        or statistics.center.shape != (len(mixture.all_weights), mixture.n_features)
    ):
        raise ModelFileError("its statistics are not of the model's covariance model and shape")


def write(model: "GaussianMixture", path: str, overwrite: bool) -> None:
    """Write a fitted model to a path or URL."""
    record = {
        "params": _plain_params(model),
        "converged": bool(model.converged_),
        "n_iter": model.n_iter_,
        "lower_bound": model.lower_bound_,
        "lower_bounds": model.lower_bounds_,
        "fit_info": model.fit_info_,
        "prior": prior_of(model).record(),
        "feature_names": list(getattr(model, "feature_names_in_", [])) or None,
    }
    if hasattr(model, "threshold_"):
        record["threshold"] = model.threshold_.record()
    if hasattr(model, "groups_"):
        record["groups"] = list(model.groups_)
    header, arrays = {"record": record}, {}
    if hasattr(model, "sufficient_statistics_"):
        header["sufficient_statistics"] = model.sufficient_statistics_.record()
        arrays = model.sufficient_statistics_.arrays()
    models.write_model(path, model.mixture_, header, arrays, overwrite)


def _plain_params(model: "GaussianMixture") -> dict[str, Any]:
    """The parameters of a model that are numbers, texts or None."""
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in model.get_params().items()
        if name not in OF_ONE_FIT
    }
    return {
        name: value
        for name, value in plain.items()
        if isinstance(value, str | int | float | bool) or value is None
    }


def read_into(model: "GaussianMixture", path: str) -> None:
    """Make of ``model`` the fitted model in a file; raises ``ModelFileError`` if it can't be."""
    mixture, header, arrays = models.read_model(path)
    try:
        _set_params(model, header["record"], mixture.covariance_model, mixture.components)
        fitted = _fitted(header, arrays, mixture)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is no usable model file: {error}") from error
    except KeyError as error:
        raise ModelFileError(f"{path}: the record of the fit lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path}: the record of the fit can't be used: {error}") from error
    become(model, **fitted)


def _fitted(header: dict[str, Any], arrays: Arrays, mixture: Mixture) -> dict[str, Any]:
    """The attributes of the model that has such a file, by name."""
    record, fitted = header["record"], dict[str, Any]()
    if "sufficient_statistics" in header:
        fitted["sufficient_statistics_"] = SufficientStatistics.parse(arrays, header)
    check_record(record, mixture, fitted.get("sufficient_statistics_"))
    fitted |= {f"{name}_": record[name] for name in RECORD}
    names, groups = record["feature_names"], record.get("groups")
    return {
        **fitted,
        "mixture_": mixture,
        "threshold_": Threshold.of(record["threshold"]) if "threshold" in record else None,
        "groups_": None if groups is None else checked_groups(groups, mixture.components),
        "n_features_in_": mixture.n_features,
        "feature_names_in_": np.array(names, dtype=object) if names else None,
    }


def _set_params(
    model: "GaussianMixture",
    record: dict[str, Any],
    covariance_model: CovarianceModel,
    components: int,
) -> None:
    """Give ``model`` the parameters that a ``record`` has, and those that its mixture has."""
    model.set_params(**record["params"])
    if "prior" in record and "prior" not in record["params"]:  # a value, not a name
        model.set_params(prior=parse_prior(record["prior"]))
    model.set_params(
        n_components=components,
        covariance_type=covariance_model.name,
        n_factors=covariance_model.factor_count,
    )
