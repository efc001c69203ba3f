"""What a file of sufficient statistics says, checked: it may come from anywhere."""

from typing import Any, Final

import numpy as np

from dgmm.em.fit import WEIGHTS
from dgmm.errors import ModelFileError
from dgmm.io import models, storage
from dgmm.kernels.observation import OBSERVATIONS, Noisy, Observation
from dgmm.model.arrays import Array
from dgmm.model.conjugate import Conjugate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import Fixed
from dgmm.model.frame import Frame
from dgmm.model.prior import Prior, Regularised
from dgmm.model.variational import Variational


def fields(arrays: storage.Arrays, header: dict[str, Any]) -> dict[str, Any]:
    """The fields of the ``SufficientStatistics`` that a file holds, by name.

    Raises ``ModelFileError`` if an array or a number is missing, or can't be one of any rows.
    """
    record = header.get("sufficient_statistics")
    if not isinstance(record, dict):
        raise ModelFileError("its header has no record of the statistics")
    covariance_model = models.structure_of(record)
    center = storage.matrix(arrays, "center")
    components, n_features = center.shape
    width = covariance_model.centred_features.width(n_features)
    shapes = {
        "sums": (components, width),
        **dict.fromkeys(("shift", "scale", "reg"), (n_features,)),
    }
    storage.expect(arrays, shapes)
    reg_covar, observation = _checked(record), _observation_of(record)
    sound = _sound(arrays, record, observation)
    if not sound or not _possible(covariance_model, arrays["sums"], center):
        raise ModelFileError("its statistics are those of no rows")
    return {
        **{name: record[name] for name in ("origin", "entropy", "weight", "rows")},
        "covariance_model": covariance_model,
        "frame": Frame(arrays["shift"], arrays["scale"]),
        "prior": _prior_of(record.get("prior", {}), arrays, covariance_model, n_features),
        "reg_covar": reg_covar,
        "sums": arrays["sums"],
        "center": center,
        "observation": observation,
        "fixed": _fixed(record, components),
        "under": _under(record),
    }


def _checked(record: dict[str, Any]) -> float | None:
    """The ``reg_covar`` of a file's ``record``, whose other numbers are of their types, too."""
    kinds = {"origin": str, "entropy": float, "weight": float, "rows": int}
    for name, kind in kinds.items():
        if type(record.get(name)) is not kind:
            raise ModelFileError(f"its statistics have {name} {record.get(name)!r}")
    reg_covar = record.get("reg_covar", "missing")
    if reg_covar is None or (type(reg_covar) is float and 0 <= reg_covar < np.inf):
        return reg_covar
    raise ModelFileError(f"its statistics have reg_covar {reg_covar!r}")


def _under(record: dict[str, Any]) -> str | None:
    """The digest of the mixture that a file's statistics were taken under, if it tells that."""
    under = record.get("under")
    if under is None or isinstance(under, str):
        return under
    raise ModelFileError(f"its statistics have under {under!r:.80}")


def _sound(arrays: storage.Arrays, record: dict[str, Any], observation: Observation) -> bool:
    """Whether a file's numbers may be those of rows."""
    weight, counts = record["weight"], arrays["sums"][:, 0]
    most = np.inf if observation.holes else weight * np.log(len(counts)) * (1 + 1e-9)
    return bool(
        WEIGHTS[0] < weight < WEIGHTS[1]
        and record["rows"] > 0
        and (-np.inf if observation.holes else 0) <= record["entropy"] <= most
        and np.isfinite(record["entropy"])
        and counts.min() >= 0
        and abs(counts.sum() / weight - 1) < 1e-6
        and arrays["scale"].min() > 0
        and arrays["reg"].min() >= 0
    )


def _observation_of(record: dict[str, Any]) -> Observation:
    """What NaN means, and whether rows have noise, as a file's ``record`` says."""
    missing = record.get("missing", "raise")
    if missing not in OBSERVATIONS:
        raise ModelFileError(f"its statistics have missing {missing!r}")
    noise = record.get("noise", False)
    if not isinstance(noise, bool):
        raise ModelFileError(f"its statistics have noise {noise!r}")
    plain = OBSERVATIONS[missing]()
    return Noisy(within=plain) if noise else plain


PRIORS: Final = {each.name: each for each in (Regularised, Conjugate, Variational)}
"""What priors a file may hold, by name."""


def _prior_of(
    told: Any, arrays: storage.Arrays, covariance_model: CovarianceModel, n_features: int
) -> Prior:
    """The prior that a file holds; that of likelihood alone, where it says nothing of one."""
    try:
        kind: type[Prior] = PRIORS[told.get("name", Regularised.name)]
        return kind.parse(told, arrays, covariance_model, n_features)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"its statistics have no usable prior: {error!r}") from error


def _possible(covariance_model: CovarianceModel, sums: Array, center: Array) -> bool:
    """Whether rows may have such ``sums`` (K, P): no variance is negative, but for rounding."""
    counts, n_features = sums[:, 0], center.shape[1]
    held = counts > np.finfo(np.float64).eps * counts.sum()  # others are rounding themselves
    counts, second = counts[held], sums[held, 1 + n_features :]
    offsets = sums[held, 1 : 1 + n_features] / counts[:, None]
    found = covariance_model.estimate(counts, center[held] + offsets, offsets, second, None)
    least = found.variances().min()
    return bool(least >= -1e-9 * max(1.0, np.abs(second / counts[:, None]).max()))


def _fixed(of_file: dict[str, Any], components: int) -> Fixed | None:
    """What a file says that is held of so many components, or of one less: noise is the last."""
    record, own = of_file.get("fixed"), of_file.get("components")
    if record is None:
        return None
    if own not in (None, components, components - 1):
        raise ModelFileError(f"its statistics have fixed of {own!r} components")
    try:
        return Fixed.of(components if own is None else own, **record)
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise ModelFileError(f"its statistics have fixed {record!r:.80}") from error
