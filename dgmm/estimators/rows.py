"""Rows as estimators take them: opened, with the features of a fit, or for one."""

import warnings
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.utils.validation import validate_data

from dgmm.data import forms
from dgmm.data.clients import check_synchronous
from dgmm.data.dataset import Dataset
from dgmm.data.kinds import has_axes, is_dask_array, is_dask_frame, is_zarr_array, is_zarr_group
from dgmm.data.opening import check_order, opened
from dgmm.data.reading import Reading
from dgmm.data.sources import has_columns, is_opened_by_kind
from dgmm.data.sparse import is_sparse
from dgmm.errors import DataError, UsageError

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

Data = Any
"""Rows (N, D): an array-like, ``dask.array``, ``zarr.Array``, path, URL or ``Dataset``; or a lazy
frame: a DataArray of xarray, a DataFrame of Dask."""

NOTHING: Final[Mapping[str, Data]] = {}
"""What lies beside rows, where nothing does."""


def open_rows(
    model: "GaussianMixture",
    X: Data,
    beside: Mapping[str, Data] = NOTHING,
    reset: bool = False,
    sparse: bool = False,
) -> Dataset:
    """Open ``X``, which must have the features of the ``model``'s fit.

    With ``reset`` the model takes the features of ``X`` instead.  ``beside`` has what lies beside
    the rows, by name, or None; ``sparse`` says whether rows may be sparse.
    """
    check_order(X, beside)
    named, columns = forms.columns(X), None
    known = None if reset else vars(model).get("feature_names_in_")
    if known is not None and has_columns(X):  # which may be more, and in another order
        columns = known
    if is_dask_frame(X):  # opened as it is: its columns have names
        check_synchronous()
    elif not has_axes(X):
        X = forms.unwrapped(X, model.memory)
    if named is not None:
        validate_data(model, named, reset=reset, skip_check_array=True)
    elif not (is_stored(X) or has_axes(X) or is_opened_by_kind(X) or is_sparse(X)):
        forms.check_loadable(X, model.memory)
        X = validate_data(
            model,
            X,
            reset=reset,
            dtype="numeric",
            ensure_2d=False,
            allow_nd=True,
            ensure_all_finite=False,
            ensure_min_samples=0,
            ensure_min_features=0,
        )
    dataset = opened(X, beside, Reading(columns=columns, memory=model.memory))
    if dataset.source.sparse and not sparse:
        raise UsageError(
            f"{dataset.source.name} holds sparse rows, which fit, select, predict, predict_proba, "
            "score and score_samples take; for this, make dense ones of some of them (toarray)"
        )
    if dataset.names is not None and named is None:
        _take_names(model, dataset.names, reset)
    if not reset and dataset.n_features != model.n_features_in_:
        raise DataError(
            f"X has {dataset.n_features} features, but {type(model).__name__} is expecting "
            f"{model.n_features_in_} features as input"
        )
    return dataset


def is_stored(data: Data) -> bool:
    """Whether rows are not looked at before they are opened."""
    return (
        isinstance(data, str | PathLike | np.memmap | np.ma.MaskedArray | Dataset)
        or is_dask_array(data)
        or is_zarr_array(data)
        or is_zarr_group(data)
    )


def _take_names(model: "GaussianMixture", names: tuple[str, ...], reset: bool) -> None:
    """Have the ``model`` take the ``names`` of features, or compare them, as scikit-learn does."""
    if reset:
        model.feature_names_in_ = np.asarray(names, dtype=object)
        return
    known = vars(model).get("feature_names_in_")
    called = type(model).__name__
    if known is None:
        warnings.warn(
            f"X has feature names, but {called} was fitted without feature names", stacklevel=4
        )
    elif list(known) != list(names):
        raise DataError(
            "The feature names should match those that were passed during fit: "
            f"{', '.join(map(str, known))}; X has {', '.join(names)}"
        )
