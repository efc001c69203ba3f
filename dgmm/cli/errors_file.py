"""What ``dgmm errors --json`` printed, read again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from dgmm.data import urls
from dgmm.errors import DataError
from dgmm.inference.standard_errors import StandardErrors
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.estimators.gaussian_mixture import GaussianMixture

sums = Late("dgmm.estimators.sufficient_statistics")


def read_errors(url: str, model: GaussianMixture, path: str) -> StandardErrors:
    """The errors of weights and means of a ``model`` at ``path``; raises ``DataError``."""
    filesystem, place = urls.place(url)
    try:
        record = json.loads(filesystem.cat_file(place))
        shape = model.mixture_.means.shape
        weights, means = (np.array(record[name], dtype=np.float64) for name in ("weights", "means"))
        if (weights.shape, means.shape) != (shape[:1], shape):
            raise ValueError(f"means of shape {means.shape}, where {path} has {shape}")
        kind, rows, under = str(record["kind"]), int(record["rows"]), str(record["under"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{url} is not what dgmm errors DATA -m {path} --json prints: "
            f"{type(error).__name__}: {error}"
        ) from error
    if under != sums.digest(model.mixture_):
        raise DataError(f"{url} has the errors of another model than {path}: tell them anew")
    none = np.full((0, 0), np.nan)
    return StandardErrors(weights, means, none, none, kind, rows)
