"""``dgmm score``, ``update``, ``show``: they use a model."""

from __future__ import annotations

import click

import dgmm
from dgmm.cli.addresses import ADDRESS
from dgmm.cli.base import Command
from dgmm.cli.checks import check_model_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.components import Wanted, features_shown, show_components
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    ListOption,
    data_argument,
    data_if_any_argument,
    json_option,
    machine_options,
    model_argument,
    model_option,
    names_of,
    output_option,
    overwrite_option,
    quiet_option,
)
from dgmm.cli.records import dumps
from dgmm.cli.results import fit_record, tell, tell_model
from dgmm.cli.sweeping import sweeping
from dgmm.model.lazy import Late

mixtures = Late("dgmm.estimators.gaussian_mixture")  # loaded when a command needs it


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@machine_options
@rows_options("sample_weight", "missing", "noise")
@json_option
@quiet_option
def score(
    data: str,
    model: str,
    machines: Machines,
    rows: JudgedRows,
    json: bool,
    quiet: bool,
) -> None:
    """Score a model on DATA: the mean log-likelihood of the rows, AIC and BIC.

    Example: dgmm score held-out.zarr -m model.dgmm
    """
    fitted, dataset = rows.open(model, data)
    with sweeping(machines, dataset, "score", quiet) as sweep:
        scored = fitted.criteria(dataset, sweep=sweep)
    tell({"model": model, "data": data, "rows": dataset.rows, **scored}, json)


@click.command(cls=Command, epilog=EXIT_CODES)
@data_if_any_argument
@model_option
@output_option("Where the new model goes.")
@click.option(
    "--statistics",
    type=ADDRESS,
    multiple=True,
    metavar="PATH",
    help="In place of DATA, the sums of the rows of a site under this model, by dgmm summarize; "
    "give it once for each site. The step is then of their rows alone.",
)
@machine_options
@rows_options("sample_weight", "missing", "noise", "labels")
@overwrite_option
@json_option
@quiet_option
def update(
    data: str | None,
    model: str,
    output: str,
    statistics: tuple[str, ...],
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Update a model with DATA, rows that it has not seen, in one pass over these.

    This is a step of incremental EM: the model file has the statistics of all rows seen before. The
    objective that is printed is a lower bound of the objective of all rows seen.

    Example: dgmm update tonight.zarr -m model.dgmm -o model.dgmm --overwrite

    Example: dgmm update --statistics a.stats --statistics b.stats -m model.dgmm -o next.dgmm
    """
    if (data is None) == (not statistics):
        raise click.UsageError("give either DATA or --statistics, one of the two")
    if data is None:
        rows.refuse()
    if len(set(statistics)) < len(statistics):
        raise click.UsageError("a file of --statistics is given twice: its rows would count twice")
    check_model_target(output, overwrite)
    if data is None:
        fitted = mixtures.load(model)
        fitted.update({each: dgmm.SufficientStatistics.load(each) for each in statistics})
    else:
        fitted, dataset = rows.open(model, data)
        with sweeping(machines, dataset, "update", quiet) as sweep:
            found = fitted.summarize(dataset, sweep=sweep)
        fitted.update(fitted.sufficient_statistics_ + found)
    fitted.save(output, overwrite=overwrite)
    tell_model(fitted, output, json)


@click.command(cls=Command, epilog=EXIT_CODES)
@model_argument
@click.option(
    "--features",
    cls=ListOption,
    metavar="NAMES",
    callback=names_of,
    help="Which features tables have, as a,b,c: names (x0, x1, ... if they have none), patterns, "
    "ranges.",
)
@click.option("--covariances", is_flag=True, help="Show the covariances of each component, too.")
@click.option("--wide", is_flag=True, help="Have one table, however wide, and all features.")
@json_option
def show(model: str, features: list[str] | None, covariances: bool, wide: bool, json: bool) -> None:
    """Show the components of a model file, and how it was fitted.

    A table that is wider than the terminal becomes several; figures are never cut.

    Example: dgmm show model.dgmm --features 'a*' --covariances
    """
    fitted = mixtures.load(model)
    if json:
        mixture = fitted.mixture_
        described = {
            **fit_record(fitted, model),
            "weights": mixture.weights.tolist(),
            "means": mixture.means.tolist(),
            "covariances": mixture.covariances.values.tolist(),
        }
        if mixture.tails is not None:
            described["dof"] = mixture.dof.tolist()
        if (noise := mixture.noise_component) is not None:
            box = {"low": noise.low.tolist(), "high": noise.high.tolist()}
            shown = {"weight": noise.weight, "log_density": noise.log_density, **box}
            described["noise_component"] = shown
        click.echo(dumps(described))
        return
    wanted = Wanted(features, covariances, wide)
    features_shown(fitted, wanted)  # or an error comes first
    tell_model(fitted, model, as_json=False)
    show_components(fitted, wanted)
