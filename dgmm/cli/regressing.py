"""``dgmm regress``: some features of rows, predicted from the others."""

from __future__ import annotations

from typing import Any

import click

from dgmm.cli.base import Command
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    ListOption,
    data_argument,
    json_option,
    machine_options,
    model_option,
    names_of,
    output_option,
    overwrite_option,
    quiet_option,
)
from dgmm.cli.predicting import OUTPUT_HELP, keep_option, write_rows
from dgmm.cli.results import tell
from dgmm.data import urls
from dgmm.model.lazy import Late

KINDS = ("mean", "covariance", "quantiles")

# Loaded when a command needs them, not for a usage error.
mixtures, conditionals = (
    Late("dgmm.estimators.gaussian_mixture"),
    Late("dgmm.estimators.conditionals"),
)
row_outputs, outputs = Late("dgmm.estimators.row_outputs"), Late("dgmm.io.output")


def _levels(context: click.Context, option: click.Parameter, text: str) -> tuple[float, ...]:
    """Numbers in a text, with commas between."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of numbers: 0.05,0.5,0.95, say") from None


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option(
    "--targets",
    cls=ListOption,
    required=True,
    metavar="NAMES",
    callback=names_of,
    help="The features to predict, as a,b,c: their names, or their numbers from 0 among all.",
)
@output_option(OUTPUT_HELP)
@keep_option
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="mean",
    show_default=True,
    help="What to write of the targets of each row: their mean, their covariance, or quantiles of "
    "each.",
)
@click.option(
    "--quantiles",
    cls=ListOption,
    default="0.05,0.5,0.95",
    show_default=True,
    metavar="LEVELS",
    callback=_levels,
    help="Which quantiles, with --kind quantiles.",
)
@machine_options
@rows_options()
@overwrite_option
@json_option
@quiet_option
def regress(
    data: str,
    model: str,
    targets: list[str] | None,
    output: str,
    keep: list[str],
    kind: str,
    quantiles: tuple[float, ...],
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Predict some features of rows from the others, in a Zarr array or a table.

    DATA have all features of the model but the targets, in their order; of a table with names,
    the columns are found. A missing value (NaN) among them is not known of its row.

    Example: dgmm regress tonight.parquet -m model.dgmm --targets redshift -o redshift.parquet
    """
    outputs.target_of(output, keep)
    urls.check_writable(output)
    fitted = mixtures.load(model)
    names = list(vars(fitted).get("feature_names_in_", ()))
    features = [_feature(each, names) for each in targets or ()]
    known, wanted = conditionals.regression_of(fitted, features, kind, quantiles)
    dataset = rows.open_for(known, model, data)
    job = row_outputs.row_outputs_of(known, wanted)
    written = write_rows(job, dataset, machines, output, keep, overwrite, "regress", quiet)
    tell({"output": output, "kind": kind, "rows": written.rows}, as_json=json)


def _feature(word: str, names: list[Any]) -> str | int:
    """A feature by its name, or by its number."""
    return int(word) if word not in names and word.isdecimal() else word
