"""``dgmm drift``, ``compare``: whether rows, or another model, are what a model was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import dgmm
from dgmm.cli import tables
from dgmm.cli.addresses import ADDRESS
from dgmm.cli.base import Command
from dgmm.cli.checks import check_file_target
from dgmm.cli.codes import ALARM, DRIFTED, EXIT_CODES
from dgmm.cli.errors_file import read_errors
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.numbers import FloatRange
from dgmm.cli.options import (
    data_argument,
    json_option,
    machine_options,
    model_argument,
    model_option,
    overwrite_option,
    quiet_option,
    random_state_option,
)
from dgmm.cli.records import dumps
from dgmm.cli.results import tell
from dgmm.cli.sweeping import sweeping
from dgmm.estimators.telling import names_of
from dgmm.io import storage
from dgmm.model.lazy import Late
from dgmm.report.drifting import drift_page, in_words, p_value
from dgmm.report.installed import check_pictures

if TYPE_CHECKING:
    from dgmm.inference.drift import Drift

mixtures = Late("dgmm.estimators.gaussian_mixture")


@click.command(cls=Command, epilog=ALARM)
@data_argument
@model_option
@click.option(
    "--level",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    help="Exit with code 5 if the rows have drifted: by a test that raises a false alarm in this "
    "share of quiet nights. Without it the drift is told only.",
)
@click.option(
    "--effect",
    type=FloatRange(0),
    default=0.0,
    show_default=True,
    help="With --level: how much it must amount to, in nats a row. With many rows any change is "
    "significant, also one that does not matter.",
)
@click.option(
    "--html",
    type=ADDRESS,
    metavar="PATH",
    help="Also write a page of HTML with the changes, which opens from a disk.",
)
@machine_options
@rows_options("sample_weight", "missing")
@overwrite_option
@json_option
@quiet_option
def drift(
    data: str,
    model: str,
    level: float | None,
    effect: float,
    html: str | None,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Tell whether the rows DATA are like those that a model was fitted to, and what changed.

    It takes one pass, and no fit.

    Example: dgmm drift tonight.zarr -m model.dgmm --level 0.001 --effect 0.01

    Example: dgmm drift tonight.zarr -m model.dgmm --html tonight.html
    """
    if html is not None:
        check_pictures()
        check_file_target(html, overwrite, data, model)
    fitted, dataset = rows.open(model, data)
    with sweeping(machines, dataset, "drift", quiet) as sweep:
        changes = fitted.drift(dataset, sweep=sweep)
    alarm = level is not None and changes.beyond(level, effect)
    if html is not None:
        allowed = "" if level is None else f"p below {level:g}"
        allowed += f", with an effect of at least {effect:g} nats a row" * bool(allowed and effect)
        page = drift_page(changes, names_of(fitted), model, data, allowed, alarm)
        storage.put(html, memoryview(page.encode()))
    if json:
        click.echo(dumps({"model": model, "data": data, "drifted": alarm, **changes.record()}))
    else:
        show_drift(changes, None if level is None else alarm)
    if alarm:
        click.get_current_context().exit(DRIFTED)


def show_drift(changes: Drift, alarm: bool | None) -> None:
    """What changed, in all and of each component; and whether that is an alarm, if it was asked."""
    said = "yes, beyond what is allowed" if alarm else "not beyond what is allowed"
    tell({**in_words(changes), **({} if alarm is None else {"drifted": said})}, as_json=False)
    rows = []
    for k, each in enumerate(changes.components):
        shares = f"{each.weight_before:.4f} > {each.weight_now:.4f}"
        spread = f"{min(each.spread):.3f} to {max(each.spread):.3f}"
        cells = (shares, p_value(each.weight), f"{each.moved:.4f}", p_value(each.mean), spread)
        rows.append((str(k), *cells, p_value(each.covariance)))
    heads = ("component", "weight", "", "mean moved (sd)", "", "spread, by what it was", "")
    tables.show(heads, rows)


@click.command(cls=Command, epilog=EXIT_CODES)
@model_argument
@click.argument("other", type=ADDRESS)
@click.option(
    "--errors",
    type=ADDRESS,
    metavar="PATH",
    help="Also tell what changed in units of standard errors: a file with what dgmm errors --json "
    "printed of MODEL. Without --other-errors, OTHER is taken for known.",
)
@click.option(
    "--other-errors", type=ADDRESS, metavar="PATH", help="The same of OTHER; both count together."
)
@click.option(
    "--samples",
    type=click.IntRange(min=100),
    default=100_000,
    show_default=True,
    help="How many rows are drawn from each model, for the divergences.",
)
@random_state_option("The seed of the draws.")
@json_option
def compare(
    model: str,
    other: str,
    errors: str | None,
    other_errors: str | None,
    samples: int,
    random_state: int,
    json: bool,
) -> None:
    """Tell how far the model OTHER is from MODEL, and which components moved.

    Example: dgmm compare monday.dgmm tuesday.dgmm

    Example: dgmm errors monday.zarr -m monday.dgmm --json > monday.json

    Example: dgmm compare monday.dgmm tuesday.dgmm --errors monday.json
    """
    one, second = mixtures.load(model), mixtures.load(other)
    one_errors = None if errors is None else read_errors(errors, one, model)
    two_errors = None if other_errors is None else read_errors(other_errors, second, other)
    comparison = dgmm.compare(one, second, one_errors, two_errors, samples, random_state)
    if json:
        click.echo(dumps({"model": model, "other": other, **comparison.record()}))
        return
    named = {
        "divergence": (comparison.divergence, " nats a row, of MODEL from OTHER"),
        "and back": (comparison.divergence_back, " nats a row, of OTHER from MODEL"),
        "Hellinger distance": (comparison.hellinger, ", from 0 to 1"),
    }
    tell({k: f"{v.value:.6g} ± {v.error:.1e}{unit}" for k, (v, unit) in named.items()}, False)
    if comparison.order is None or comparison.weights is None or comparison.moved is None:
        return
    heads = ["component", "of OTHER", "weight", "mean moved (sd)"]
    rows = [
        [str(k), str(place), f"{weight:+.4f}", f"{moved:.4f}"]
        for k, (place, weight, moved) in enumerate(
            zip(comparison.order, comparison.weights, comparison.moved, strict=True)
        )
    ]
    if comparison.weights_in_errors is not None and comparison.means_in_errors is not None:
        heads += ["weight (errors)", *(f"{name}: mean (errors)" for name in names_of(one))]
        for row, weight, mean in zip(
            rows, comparison.weights_in_errors, comparison.means_in_errors, strict=True
        ):
            row += [f"{weight:+.2f}", *(f"{each:+.2f}" for each in mean)]
    tables.show(heads, rows, keep=2)
