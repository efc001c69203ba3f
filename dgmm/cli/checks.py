"""What commands check before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dgmm
from dgmm.data import urls
from dgmm.errors import DataError
from dgmm.io import models, storage
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.kernels.observation import Missing

mixtures = Late("dgmm.estimators.gaussian_mixture")
session, sources = Late("dgmm.estimators.session"), Late("dgmm.data.sources")


def check_model_target(output: str, overwrite: bool) -> None:
    """Raise unless a model file may and can be written, before any work is done for it."""
    urls.refuse_directory(output)
    storage.check_target(output, models.MODEL, overwrite)
    urls.check_writable(output)


def open_both(
    model: str,
    data: str,
    sample_weight: str | None,
    reading: dict[str, Any],
    missing: Missing | None = None,
    noise: str | None = None,
    labels: str | None = None,
) -> tuple[GaussianMixture, Dataset]:
    """A model and rows that it can judge; ``missing`` is what NaN means, if not as in the fit."""
    fitted = mixtures.load(model)
    fitted.set_params(missing=missing or fitted.missing)
    return fitted, open_for(fitted, model, data, reading, sample_weight, noise, labels)


def open_for(
    fitted: GaussianMixture,
    model: str,
    data: str,
    reading: dict[str, Any],
    sample_weight: str | None = None,
    noise: str | None = None,
    labels: str | None = None,
) -> Dataset:
    """Rows that a ``fitted`` model can judge, of the features that it knows by name, if it does."""
    names = vars(fitted).get("feature_names_in_")
    if reading.get("columns") is None and names is not None and sources.has_columns(data):
        reading = {**reading, "columns": names}
    dataset = dgmm.open_dataset(data, sample_weight, noise=noise, labels=labels, **reading)
    if dataset.n_features != fitted.n_features_in_:
        raise DataError(
            f"{data} has {dataset.n_features} features; {model} was fitted "
            f"to {fitted.n_features_in_}"
        )
    rows: Dataset = session.open_rows(fitted, dataset, sparse=True)
    return rows
