"""``dgmm predict``, ``impute``, ``denoise``: they write something of each row."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from dgmm.cli.addresses import ADDRESS
from dgmm.cli.base import Command
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.deciding import MORE
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    NOISE_HELP,
    ListOption,
    data_argument,
    json_option,
    machine_options,
    model_option,
    names_of,
    output_option,
    overwrite_option,
    quiet_option,
    random_state_option,
    reading_options,
)
from dgmm.cli.records import dumps
from dgmm.cli.results import show_counts, tell
from dgmm.cli.sweeping import sweeping
from dgmm.data import urls
from dgmm.kernels.outputs import DENOISED, FILLED, OUTPUTS, OutputKind
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.io.output import Written
    from dgmm.kernels.outputs import RowOutputs

# Loaded when a command needs them, not for a usage error.
datasets, outputs = Late("dgmm.data.dataset"), Late("dgmm.io.output")
row_outputs, parameters = Late("dgmm.estimators.row_outputs"), Late("dgmm.estimators.parameters")


OUTPUT_HELP = (
    "What to write: a Zarr array, or of a cube a group on its axes; by its ending a table of "
    "Parquet files (.parquet), a CSV file (.csv, .tsv), a .npy file, a NetCDF file on "
    "the axes of one or of a Zarr group (.nc), of a GeoTIFF file another (.tif)."
)

keep_option = click.option(
    "--keep",
    cls=ListOption,
    metavar="NAMES",
    callback=lambda context, option, names: names_of(context, option, names) or [],
    help="Which columns of a table of rows are written, too, as a,b,c: names, patterns, ranges.",
)


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@output_option(OUTPUT_HELP)
@keep_option
@click.option(
    "--kind",
    type=click.Choice([*OUTPUTS, *MORE]),
    default="labels",
    show_default=True,
    help="What to write for each row. labels: its most probable component. proba: the probability "
    "of each component, and of noise last, if there is any. score: its log-density. factors: its "
    "factors in its most probable component, by a model that has some. groups: its most probable "
    "group of components, by those that the model keeps; see dgmm merge. outliers: whether its "
    "log-density is below the threshold that the model keeps; see dgmm threshold. distances: how "
    "far it is from the mean of each component, in standard deviations (Mahalanobis). deviations: "
    "how far each feature is from what the others make one expect, in standard deviations.",
)
@machine_options
@rows_options("missing", "noise")
@overwrite_option
@json_option
@quiet_option
def predict(
    data: str,
    model: str,
    output: str,
    keep: list[str],
    kind: OutputKind | Literal["groups", "outliers", "distances", "deviations"],
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Label each row of DATA with its component, in a Zarr array, a table or a file.

    Also prints how many rows each component has, or how many are outliers.

    Example: dgmm predict rows.zarr -m model.dgmm -o labels.zarr

    Example: dgmm predict trips.parquet -m model.dgmm -o labels.parquet --keep id

    Example: dgmm predict image.tif -m model.dgmm -o labels.tif
    """
    outputs.target_of(output, keep)
    urls.check_writable(output)
    fitted, dataset = rows.open(model, data)
    row_outputs.warn_without_noise(fitted, dataset)
    chosen = MORE[kind](fitted, model) if kind in MORE else OUTPUTS[cast(OutputKind, kind)]
    wanted = row_outputs.row_outputs_of(fitted, chosen, noise=dataset.noise is not None)
    written = write_rows(wanted, dataset, machines, output, keep, overwrite, "predict", quiet)
    called = "component"
    if kind == "groups":
        called, count = "group", max(fitted.groups_) + 1
        written = replace(written, counts=written.counts[:count])
    summary = {"output": output, "kind": kind, "rows": written.rows}
    if written.flagged is not None:
        summary["outliers"] = written.flagged
    if json:
        counts: dict[str, Any] = {f"rows_of_{called}s": list(written.counts) or None}
        if written.noise is not None:
            counts |= {"rows_of_noise": written.noise}
        if written.counts:
            counts |= {"rows_of_nothing": written.nothing}
        click.echo(dumps({**summary, **counts}))
        return
    tell(summary, as_json=False)
    if written.counts:
        show_counts(written, called)


def write_rows(
    wanted: RowOutputs,
    dataset: Dataset,
    machines: Machines,
    output: str,
    keep: list[str],
    overwrite: bool,
    label: str,
    quiet: bool,
) -> Written:
    """Write an output of each row."""
    outputs.check_target(output, dataset, overwrite, keep)
    # A block's outputs may be larger than the block: smaller blocks, then.
    output_bytes = 8 * math.prod(wanted.columns)
    dataset = dataset.rechunk(
        datasets.BLOCK_BYTES * dataset.row_bytes // max(dataset.row_bytes, output_bytes)
    )
    dataset = outputs.blocks_for(output, dataset)
    with sweeping(machines, dataset, label, quiet) as sweep:
        written: Written = outputs.write_outputs(sweep, dataset, wanted, output, keep)
    return written


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@output_option(OUTPUT_HELP)
@keep_option
@click.option(
    "--sample",
    is_flag=True,
    help="Draw what is missing, given what was observed, instead of taking its mean.",
)
@random_state_option(
    "The seed of the draws; they don't depend on how the rows are cut into blocks."
)
@machine_options
@rows_options()
@overwrite_option
@json_option
@quiet_option
def impute(
    data: str,
    model: str,
    output: str,
    keep: list[str],
    sample: bool,
    random_state: int,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Fill in the missing values (NaN) of DATA, in a Zarr array or a table.

    A missing value becomes what the model expects of it, given what was observed of its row.

    Example: dgmm impute rows.zarr -m model.dgmm -o filled.zarr
    """
    outputs.target_of(output, keep)
    urls.check_writable(output)
    fitted, dataset = rows.open(model, data)
    fitted.set_params(random_state=random_state)
    seed = parameters.draws_of(fitted) if sample else None
    wanted = row_outputs.row_outputs_of(fitted, FILLED, seed)
    written = write_rows(wanted, dataset, machines, output, keep, overwrite, "impute", quiet)
    tell({"output": output, "rows": written.rows}, as_json=json)


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option("--noise", required=True, type=ADDRESS, metavar="DATA", help=NOISE_HELP)
@output_option(OUTPUT_HELP)
@keep_option
@machine_options
@reading_options
@overwrite_option
@json_option
@quiet_option
def denoise(
    data: str,
    model: str,
    noise: str,
    output: str,
    keep: list[str],
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Write what DATA are expected to be without their known errors, as a Zarr array or a table.

    A missing value (NaN), or one of infinite variance, becomes what the model expects of it.

    Example: dgmm denoise rows.zarr -m model.dgmm --noise noise.zarr -o true.zarr
    """
    outputs.target_of(output, keep)
    urls.check_writable(output)
    fitted, dataset = JudgedRows(reading, noise=noise).open(model, data)
    wanted = row_outputs.row_outputs_of(fitted, DENOISED, noise=True)
    written = write_rows(wanted, dataset, machines, output, keep, overwrite, "denoise", quiet)
    tell({"output": output, "rows": written.rows}, as_json=json)
