"""A mixture's parameters as JSON, for whatever reads that: numbers come back to the last bit."""

import json
from typing import Any, Final

import numpy as np

from dgmm.errors import ModelFileError
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.tails import RULES, StudentTails

FORMAT: Final = "dgmm-parameters"

VERSION: Final = 1


def dumps(mixture: Mixture, names: list[str] | None, indent: int | None = None) -> str:
    """The parameters of a ``mixture``, whose features have ``names`` or none."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "covariance_type": mixture.covariance_model.name,
        **(
            {} if (count := mixture.covariance_model.factor_count) is None else {"n_factors": count}
        ),
        "feature_names": names,
        "weights": mixture.weights.tolist(),
        "means": mixture.means.tolist(),
        "covariances": mixture.covariances.values.tolist(),
    }
    if (noise := mixture.noise_component) is not None:
        box = {"low": noise.low.tolist(), "extent": noise.extent.tolist()}
        record["noise_component"] = {"weight": noise.weight, **box}
    if (tails := mixture.tails) is not None:
        record["dof"] = tails.dof.tolist()
        record["dof_rule"] = tails.rule.name
    return json.dumps(record, indent=indent, allow_nan=False)


def loads(text: str) -> tuple[Mixture, list[str] | None]:
    """A mixture and the names of its features; raises ``ModelFileError`` if there is none."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"the parameters can't be read as JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelFileError(f"the JSON has no object that says format: {FORMAT!r}")
    if record.get("version") != VERSION:
        raise ModelFileError(
            f"the parameters have version {record.get('version')!r}; this dgmm reads {VERSION}"
        )
    try:
        mixture = _mixture(record)
        mixture.check()
        return mixture, _names(record, mixture)
    except KeyError as error:
        raise ModelFileError(f"the parameters lack {error}") from error
    except (ValueError, TypeError, np.linalg.LinAlgError) as error:
        raise ModelFileError(f"the parameters can't be used: {error}") from error


def _mixture(record: dict[str, Any]) -> Mixture:
    model = COVARIANCE_TYPES[record["covariance_type"]].sized(record.get("n_factors"))
    means = np.array(record["means"], dtype=np.float64)
    if means.ndim != 2 or 0 in means.shape:
        raise ValueError(f"means must have shape (components, features), not {means.shape}")
    count, n_features = means.shape
    weights = _numbers(record, "weights", (count,))
    values = _numbers(record, "covariances", model.shape(count, n_features))
    noise, tails = None, None
    if (box := record.get("noise_component")) is not None:
        low, extent = (_numbers(box, name, (n_features,)) for name in ("low", "extent"))
        noise = NoiseComponent(float(box["weight"]), low, extent)
    if record.get("dof") is not None:
        tails = StudentTails(_numbers(record, "dof", (count,)), RULES[record["dof_rule"]])
    return Mixture(weights, means, model.of_covariances(values, means.shape), noise, tails)


def _numbers(record: dict[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    array = np.array(record[name], dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers of shape {shape}, not {array.shape}")
    return array


def _names(record: dict[str, Any], mixture: Mixture) -> list[str] | None:
    names = record.get("feature_names")
    if names is None:
        return None
    if len(names) != mixture.n_features or not all(isinstance(each, str) for each in names):
        raise ValueError(f"feature_names must be {mixture.n_features} texts")
    return list(names)
