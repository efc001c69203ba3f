"""What rows, and what lies beside them, must be: numbers, of shapes that go together."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from dgmm.data.array_sources import ArraySource
from dgmm.data.forms import REAL
from dgmm.data.source import Source
from dgmm.errors import DataError

IMAGE: Final = (
    ". The pixels of an image are its rows: array.reshape(-1, {}), or an xarray.DataArray with a "
    "name for each axis"
)

STORED: Final = re.compile(r"(?P<store>.+\.zarr|.+\.zarr/.+|.+(?=::))(?:::/?|/)(?P<name>[^/]+)")
"""The name of a variable in a store or a file."""

VARIABLE: Final = (
    ". Each of its values is a row of one feature by open_dataset({store!r}, columns=[{name!r}]) "
    "(--columns {name}); if one of its axes holds the features, open it by xarray and say which: "
    "open_dataset(array, features_dim=...)"
)


def check_rows(source: Source) -> None:
    """Raise ``DataError`` unless a ``source`` is (N, D), of real numbers, with N and D above 0."""
    if len(source.shape) != 2:
        remedy = (
            "Reshape your data either using array.reshape(-1, 1) if it has a single feature or "
            "array.reshape(1, -1) if it is a single row"
        )
        hint = ""
        if stored := STORED.fullmatch(source.name):
            hint = VARIABLE.format(**stored.groupdict())
        elif len(source.shape) == 3:
            hint = IMAGE.format(source.shape[-1])
        elif len(source.shape) == 1 and isinstance(source, ArraySource):
            hint = f". {remedy}"
        raise DataError(
            f"rows must be 2-D, (rows, features); {source.name} has shape {source.shape}{hint}"
        )
    check_dtype(source, "rows")
    if source.shape[0] == 0:
        raise DataError(
            f"{source.name} has no rows: 0 sample(s) (shape={source.shape}) while a minimum of 1 "
            "is required."
        )
    if source.shape[1] == 0:
        raise DataError(
            f"{source.name} has no columns: 0 feature(s) (shape={source.shape}) while a minimum of "
            "1 is required."
        )


def _check_weights(weights: Source, source: Source) -> None:
    if weights.shape != source.shape[:1]:
        raise DataError(
            f"weights must be one number a row, shape {source.shape[:1]}; "
            f"{weights.name} has shape {weights.shape}"
        )


def _check_noise(noise: Source, source: Source) -> None:
    rows, n_features = source.shape
    variances, covariances = (rows, n_features), (rows, n_features, n_features)
    if noise.shape not in (variances, covariances):
        raise DataError(
            f"noise must be the variances of each row's errors, shape {variances}, or their "
            f"covariances, shape {covariances}; {noise.name} has shape {noise.shape}"
        )


def _check_labels(labels: Source, source: Source) -> None:
    if labels.shape[:1] != source.shape[:1] or len(labels.shape) > 2 or 0 in labels.shape:
        raise DataError(
            f"labels must be one component a row, shape {source.shape[:1]}, or say which of K "
            f"components each row may be of, shape ({source.shape[0]}, K); {labels.name} has shape "
            f"{labels.shape}"
        )


CHECKS: Final[Mapping[str, Callable[[Source, Source], None]]] = {
    "weights": _check_weights,
    "noise": _check_noise,
    "labels": _check_labels,
}
"""By the names of ``BESIDE``: what raises ``DataError`` unless its shape fits that of the rows."""


def check_dtype(source: Source, role: str) -> None:
    """Raise ``DataError`` unless a ``source`` has real numbers; its ``role`` is for the message."""
    if source.dtype.kind == "c":
        raise DataError(f"Complex data not supported: {source.name} is {source.dtype}")
    if source.dtype.kind not in REAL:
        hint = "; make numbers of them, such as by astype('float64')" * (source.dtype.kind == "O")
        if role == "labels" and source.dtype.kind in "OSTU":
            hint = "; number them, such as by pandas.factorize(labels)[0], where -1 is no label"
        raise DataError(
            f"{role} must be real numbers; {source.name} has dtype {source.dtype}{hint}"
        )
