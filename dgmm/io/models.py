"""Model files: a mixture and what is known of its fit, in an archive."""

from typing import Any, Final

import numpy as np

from dgmm.errors import ModelFileError, UsageError
from dgmm.io.storage import Arrays, expect, matrix, read, write
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.tails import RULES, StudentTails

MODEL: Final = "dgmm-model"

PARAMETERS: Final = ("weights", "means", "covariances", "precisions_cholesky")

NOISE: Final = ("noise_weight", "noise_low", "noise_extent")
"""Of the noise component, if there is one."""


def write_model(
    url: str, mixture: Mixture, header: dict[str, Any], arrays: Arrays, overwrite: bool
) -> None:
    """Write ``mixture``, more for the ``header`` and more ``arrays`` to a model file."""
    covariances = mixture.covariances
    values = mixture.weights, mixture.means, covariances.values, covariances.precisions_cholesky
    parameters = dict(zip(PARAMETERS, values, strict=True))
    if (noise := mixture.noise_component) is not None:
        noise_arrays = np.array([noise.weight]), noise.low, noise.extent
        parameters |= dict(zip(NOISE, noise_arrays, strict=True))
    if (tails := mixture.tails) is not None:
        parameters["dof"] = tails.dof
        header = {"dof_rule": tails.rule.name, **header}
    header = {"covariance_type": mixture.covariance_model.name, **header}
    if (count := mixture.covariance_model.factor_count) is not None:
        header = {"n_factors": count, **header}
    _mixture(header, parameters)  # what could not be read again must not be written
    write(url, MODEL, {**parameters, **arrays}, header, overwrite)


def read_model(url: str) -> tuple[Mixture, dict[str, Any], Arrays]:
    """A mixture, its header and all arrays; raises ``ModelFileError`` if that can't be had."""
    arrays, header = read(url, MODEL)
    try:
        if not isinstance(header.get("record"), dict):
            raise ModelFileError("its header has no record of the fit")
        return _mixture(header, arrays), header, arrays
    except ModelFileError as error:
        raise ModelFileError(f"{url} is no usable model file: {error}") from error


def structure_of(header: dict[str, Any]) -> CovarianceModel:
    """The covariance model that a header names."""
    name = str(header.get("covariance_type"))
    if name not in COVARIANCE_TYPES:
        raise ModelFileError(f"it has unknown covariances {header.get('covariance_type')!r}")
    try:
        return COVARIANCE_TYPES[name].sized(header.get("n_factors"))
    except UsageError as error:
        raise ModelFileError(str(error)) from error


def _mixture(header: dict[str, Any], arrays: Arrays) -> Mixture:
    covariance_model = structure_of(header)
    means = matrix(arrays, "means")
    components, n_features = means.shape
    shape = covariance_model.shape(components, n_features)
    shapes = ((components,), means.shape, shape, shape)
    expect(arrays, dict(zip(PARAMETERS, shapes, strict=True)))
    covariances, factors = arrays["covariances"], arrays["precisions_cholesky"]
    parameters = covariance_model.of_factors(covariances, factors, means.shape)
    noise = None
    if NOISE[0] in arrays:
        expect(arrays, dict(zip(NOISE, ((1,), (n_features,), (n_features,)), strict=True)))
        weight, low, extent = (arrays[name] for name in NOISE)
        noise = NoiseComponent(float(weight[0]), low, extent)
    tails = None
    if (rule := header.get("dof_rule")) is not None:
        if not isinstance(rule, str) or rule not in RULES:
            raise ModelFileError(f"it has an unknown rule of degrees of freedom {rule!r}")
        expect(arrays, {"dof": (components,)})
        tails = StudentTails(arrays["dof"], RULES[rule])
    mixture = Mixture(arrays["weights"], means, parameters, noise, tails)
    try:
        mixture.check()
    except ValueError as error:
        raise ModelFileError(str(error)) from error
    return mixture
