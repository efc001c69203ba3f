"""``dgmm errors``: how sure a model's parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np

from dgmm.cli import tables
from dgmm.cli.base import Command
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.components import MOST_FEATURES
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.numbers import FloatRange
from dgmm.cli.options import (
    data_argument,
    json_option,
    machine_options,
    model_option,
    quiet_option,
    random_state_option,
)
from dgmm.cli.records import dumps
from dgmm.cli.sweeping import sweeping
from dgmm.errors import UsageError
from dgmm.estimators.telling import heaviest_first, mean_and_spread, names_of
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.inference.bootstrap import Bootstrap, IntervalKind, Intervals
    from dgmm.inference.standard_errors import ErrorKind, StandardErrors
    from dgmm.model.arrays import Array

sums = Late("dgmm.estimators.sufficient_statistics")

OF_BOOTSTRAP: Final = ("refit", "interval", "level", "random_state")
"""Options that are of a bootstrap alone."""


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option(
    "--kind",
    type=click.Choice(["observed", "empirical", "sandwich"]),
    default="observed",
    show_default=True,
    help="By what. observed: the second derivatives of the log-likelihood. empirical: the outer "
    "products of the rows' scores. sandwich: both, right for a model that is only near the truth, "
    "too, and for weights by which rows were sampled.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(2),
    metavar="B",
    help="By B replicates of a bootstrap in place of --kind, all in one pass, with intervals; 1000 "
    "serve for these, 100 for errors.",
)
@click.option(
    "--refit",
    is_flag=True,
    help="Fit each replicate to its rows: a few more passes, each of the work of B.",
)
@click.option(
    "--interval",
    type=click.Choice(["percentile", "basic"]),
    default="percentile",
    show_default=True,
    help="Intervals from quantile to quantile of the replicates, or with these laid off on the "
    "other sides of the estimates.",
)
@click.option(
    "--level",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Which share of such intervals should hold what they are of.",
)
@random_state_option("The seed of the replicates.")
@machine_options
@rows_options("sample_weight", "missing")
@json_option
@quiet_option
@click.pass_context
def errors(
    context: click.Context,
    data: str,
    model: str,
    kind: ErrorKind,
    bootstrap: int | None,
    refit: bool,
    interval: IntervalKind,
    level: float,
    random_state: int,
    machines: Machines,
    rows: JudgedRows,
    json: bool,
    quiet: bool,
) -> None:
    """Tell the standard errors of a model's parameters, by the rows DATA that it was fitted to.

    Example: dgmm errors rows.zarr -m model.dgmm --bootstrap 1000
    """
    _check_options(context, bootstrap)
    if bootstrap is not None and bootstrap * (1 - level) / 2 < 1 - 1e-9:
        raise UsageError(
            f"intervals of {level:g} need at least {int(np.ceil(2 / (1 - level) - 1e-9)):,} "
            f"replicates: --bootstrap {bootstrap} is fewer"
        )
    fitted, dataset = rows.open(model, data)
    with sweeping(machines, dataset, "errors", quiet) as sweep:
        if bootstrap is None:
            errors = fitted.standard_errors(dataset, kind=kind, sweep=sweep)
            replicates = intervals = None
        else:
            replicates = fitted.bootstrap(dataset, None, bootstrap, refit, random_state, sweep)
            errors = replicates.standard_errors()
            intervals = replicates.intervals(level, interval)
    if json:
        under = sums.digest(fitted.mixture_)
        click.echo(dumps({"model": model, **_record(errors, under, replicates, intervals)}))
        return
    show_errors(fitted, errors, intervals)
    said = f"{errors.kind} standard errors, by {errors.rows:,} rows"
    if replicates is not None:
        again = "fitted again" if refit else "one step each"
        said += f", {len(replicates.weights):,} replicates, {again}; {interval} intervals"
    click.echo(f"{said}; --json has covariances, too")


def _check_options(context: click.Context, bootstrap: int | None) -> None:
    """Raise ``UsageError`` for options that are of no use."""
    given = [
        name
        for name in ("kind", *OF_BOOTSTRAP)
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if bootstrap is not None and "kind" in given:
        raise UsageError("--kind and --bootstrap are two ways to errors: leave out one")
    if bootstrap is None and given != ["kind"] * len(given):
        option = "--" + next(name for name in given if name != "kind").replace("_", "-")
        raise UsageError(f"{option} is of a bootstrap: add --bootstrap B, or leave it out")


def _record(
    errors: StandardErrors,
    under: str,
    replicates: Bootstrap | None = None,
    intervals: Intervals | None = None,
) -> dict[str, Any]:
    """Errors ``under`` a model, and intervals, as JSON has them."""
    shaped = ("weights", "means", "covariances")
    record: dict[str, Any] = {"kind": errors.kind, "rows": errors.rows, "under": under}
    record |= {name: getattr(errors, name).tolist() for name in shaped}
    if replicates is None or intervals is None:
        return record
    ends = {name: getattr(intervals, name).tolist() for name in shaped}
    return {
        **record,
        "replicates": len(replicates.weights),
        "refitted": replicates.refitted,
        "failed": replicates.failed,
        "intervals": {"kind": intervals.kind, "level": intervals.level, **ends},
    }


def show_errors(
    model: GaussianMixture, errors: StandardErrors, intervals: Intervals | None = None
) -> None:
    """A table of the components, the heaviest first: weights and means with their errors."""
    mixture = model.mixture_
    shown = range(min(mixture.n_features, MOST_FEATURES))
    names = names_of(model)
    heads = ["component", "weight ± se"]
    if intervals is not None:
        heads.append(f"weight: {100 * intervals.level:.6g} %")
    for j in shown:
        heads.append(f"{names[j]}: mean ± se")
        if intervals is not None:
            heads.append(f"{names[j]}: {100 * intervals.level:.6g} %")
    rows = []
    for k in heaviest_first(mixture):
        cells = [str(k), f"{mixture.weights[k]:.4f} ± {errors.weights[k]:.4f}"]
        if intervals is not None:
            cells.append(_between(intervals.weights[:, k], errors.weights[k]))
        for j in shown:
            mean, error = float(mixture.means[k, j]), float(errors.means[k, j])
            cells.append(mean_and_spread(mean, error))
            if intervals is not None:
                cells.append(_between(intervals.means[:, k, j], error))
        rows.append(cells)
    tables.show(heads, rows, keep=2)


def _between(ends: Array | Sequence[float], error: float) -> str:
    """Two ends, with the digits that are larger than a part of the error."""
    low, high = (mean_and_spread(float(end), float(error)).split(" ")[0] for end in ends)
    return f"{low} to {high}"
