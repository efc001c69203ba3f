"""Rows that a model judges: the options that say how they are read, and what opens them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

import dgmm
from dgmm.cli.options import (
    Decorator,
    as_one,
    judged_option,
    labels_option,
    noise_option,
    reading_options,
    sample_weight_option,
)
from dgmm.errors import DataError
from dgmm.kernels.observation import Missing
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.estimators.gaussian_mixture import GaussianMixture

mixtures = Late("dgmm.estimators.gaussian_mixture")
opened, sources = Late("dgmm.estimators.rows"), Late("dgmm.data.sources")


@dataclass(frozen=True)
class JudgedRows:
    """How rows are read, and what lies beside them; None is for what a command has no option for.

    Attributes
    ----------
    reading : dict
        The options of ``open_dataset``, by name.
    sample_weight, noise, labels : str or None
        Paths or URLs of what lies beside the rows.
    missing : str or None
        What NaN means, if not as in the fit.
    """

    reading: dict[str, Any]
    sample_weight: str | None = None
    missing: Missing | None = None
    noise: str | None = None
    labels: str | None = None

    def refuse(self) -> None:
        """Raise ``UsageError`` if anything is said of rows, where none are given."""
        beside = (self.sample_weight, self.missing, self.noise, self.labels)
        if any(beside) or any(self.reading[name] for name in ("columns", "where", "raw")):
            raise click.UsageError(
                "how DATA are read, what lies beside them, and what NaN means there: without DATA, "
                "leave these options out"
            )

    def open(self, model: str, data: str) -> tuple[GaussianMixture, Dataset]:
        """The model at a path or URL, and the rows at another, which it can judge."""
        fitted = mixtures.load(model)
        fitted.set_params(missing=self.missing or fitted.missing)
        return fitted, self.open_for(fitted, model, data)

    def open_for(self, fitted: GaussianMixture, model: str, data: str) -> Dataset:
        """Rows that a ``fitted`` model can judge: its features, by name if it knows names."""
        names = vars(fitted).get("feature_names_in_")
        reading = self.reading
        if reading.get("columns") is None and names is not None and sources.has_columns(data):
            reading = {**reading, "columns": names}
        dataset = dgmm.open_dataset(
            data, self.sample_weight, noise=self.noise, labels=self.labels, **reading
        )
        if dataset.n_features != fitted.n_features_in_:
            raise DataError(
                f"{data} has {dataset.n_features} features; {model} was fitted "
                f"to {fitted.n_features_in_}"
            )
        rows: Dataset = opened.open_rows(fitted, dataset, sparse=True)
        return rows


OPTIONS: Final[dict[str, Decorator]] = {
    "sample_weight": sample_weight_option,
    "missing": judged_option,
    "noise": noise_option,
    "labels": labels_option,
}
"""The options that a command may have, by the field that each fills."""


def rows_options(*names: str) -> Decorator:
    """Options as one parameter ``rows``: those of some ``names``, and how rows are read."""
    chosen = [OPTIONS[name] for name in names]
    return as_one("rows", JudgedRows, [*names, "reading"], *chosen, reading_options)
