"""``dgmm report``: a model, its fit and rows on one page of HTML."""

from __future__ import annotations

from typing import Any

import click

from dgmm.cli.base import Command
from dgmm.cli.checks import check_file_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    ListOption,
    data_if_any_argument,
    json_option,
    machine_options,
    model_argument,
    names_of,
    output_option,
    overwrite_option,
    quiet_option,
)
from dgmm.cli.results import tell
from dgmm.cli.sweeping import sweeping
from dgmm.data.columns import chosen
from dgmm.estimators import telling
from dgmm.model.lazy import Late
from dgmm.report.installed import check_pictures

mixtures, document = Late("dgmm.estimators.gaussian_mixture"), Late("dgmm.report.document")


@click.command(cls=Command, epilog=EXIT_CODES)
@model_argument
@data_if_any_argument
@output_option("Where the page goes.")
@click.option(
    "--features",
    cls=ListOption,
    metavar="NAMES",
    callback=names_of,
    help="Which features are drawn, at most 12, as a,b,c: names (x0, x1, ... if they have none), "
    "patterns, ranges.  [default: the 6 that tell most of the components]",
)
@machine_options
@rows_options("sample_weight", "missing", "noise")
@overwrite_option
@json_option
@quiet_option
def report(
    model: str,
    data: str | None,
    output: str,
    features: list[str] | None,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Write what there is to say of a model as one page of HTML, which opens from a disk.

    With DATA it also shows where these rows are and how certain their labels are, by one pass, and
    by another one standard errors, where these are told.

    Example: dgmm report model.dgmm rows.zarr -o report.html
    """
    check_pictures()
    check_file_target(output, overwrite, data, model)
    if data is None:
        rows.refuse()
        fitted = mixtures.load(model)
        document.write_report(
            fitted, output, features=_places(fitted, features), name=model, overwrite=overwrite
        )
    else:
        fitted, dataset = rows.open(model, data)
        with sweeping(machines, dataset, "report", quiet) as sweep:
            document.write_report(
                fitted,
                output,
                dataset,
                features=_places(fitted, features),
                name=model,
                overwrite=overwrite,
                sweep=sweep,
            )
    tell({"model": model, "output": output}, json)


def _places(fitted: Any, features: list[str] | None) -> list[int] | None:
    """The numbers of features that are named."""
    if features is None:
        return None
    names = telling.names_of(fitted)
    return [names.index(each) for each in chosen(names, features, "the model")]
