"""``dgmm summarize``, ``federate``, ``join``: one fit over sites that do not share rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

import dgmm
from dgmm.cli.addresses import ADDRESS
from dgmm.cli.base import Command
from dgmm.cli.checks import check_model_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.fitting import begin_as, begin_at
from dgmm.cli.fitting_options import covariance_type_option, fitting_but, n_components_option
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.numbers import FloatRange
from dgmm.cli.options import (
    as_one,
    data_argument,
    json_option,
    machine_options,
    model_option,
    output_option,
    overwrite_option,
    quiet_option,
    reading_options,
    sample_weight_option,
)
from dgmm.cli.results import tell, tell_model
from dgmm.cli.sweeping import sweeping
from dgmm.data import urls
from dgmm.io import storage
from dgmm.model.covariance import CovarianceType
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.estimators.federation import Round
    from dgmm.inference.privacy import Privacy

sums = Late("dgmm.estimators.sufficient_statistics")

MAILBOX_CODES = """\b
Exit codes:
  0  done
  1  a crash: please report it
  2  wrong usage
  3  rows or answers that can't be used, or a site that failed: mend that first
  4  interrupted, no answer in time, or a mailbox, store or cluster could not be
     reached; the same command continues
"""


class OfMailboxes(Command):
    """A command that goes on from what mailboxes hold."""

    def goes_on(self, ctx: click.Context) -> str:
        if ctx.params.get("epsilon") is None:
            return "mailboxes keep what was said; the same command continues where it stopped"
        return (
            "the mailbox keeps what was said; the same command continues, with --rounds less those "
            "that were answered"
        )


NOT_TOLD: Final = (
    *("noise_component", "noise_volume", "tails", "dof"),
    *("checkpoint", "resume", "memory", "cache"),
)
"""Options of a fit that sums of sites can't have, or that are for who has rows."""

timeout_option = click.option(
    "--timeout",
    type=FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the other side.",
)


def _privacy(
    epsilon: float | None, delta: float | None, rounds: int | None, clip: float | None
) -> Privacy | None:
    """How private sums are to be, if that is asked for."""
    if epsilon is None:
        if (delta, rounds, clip) != (None, None, None):
            raise click.UsageError("--delta, --rounds and --clip go with --epsilon")
        return None
    if delta is None:
        raise click.UsageError("--epsilon needs --delta: far below one over the number of rows")
    return dgmm.Privacy(epsilon, delta, 1 if rounds is None else rounds, clip)


privacy_options = as_one(
    "privacy",
    _privacy,
    ["epsilon", "delta", "rounds", "clip"],
    click.option(
        "--epsilon",
        type=float,
        help="Add noise to the sums that hides any one row: what is told is at most e^epsilon "
        "times as probable with the row as without.",
    ),
    click.option("--delta", type=float, help="With --epsilon: but for this probability."),
    click.option(
        "--rounds",
        type=click.IntRange(min=1),
        help="With --epsilon: how many times sums of these rows are told in all.  [default: 1]",
    ),
    click.option(
        "--clip",
        type=float,
        metavar="RADIUS",
        help="With --epsilon: rows further than this from the middle of the model's frame, in "
        "standard deviations or so, are drawn in to there.  [default: 3 for one feature, "
        "times the root of their number]",
    ),
)


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@output_option("Where the sums go.")
@privacy_options
@machine_options
@rows_options("sample_weight", "missing", "noise", "labels")
@overwrite_option
@json_option
@quiet_option
def summarize(
    data: str,
    model: str,
    output: str,
    privacy: Privacy | None,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Write the sums of the rows DATA under a model, all that an update needs of these rows.

    Nothing is fitted. The file holds, for each component, a weight, a sum of the rows and sums of
    products, and no row. Give it to dgmm update --statistics. With --epsilon it hides any one row.

    Example: dgmm summarize here.zarr -m model.dgmm -o here.stats
    """
    urls.refuse_directory(output)
    storage.check_target(output, sums.FORMAT, overwrite)
    urls.check_writable(output)
    fitted, dataset = rows.open(model, data)
    with sweeping(machines, dataset, "summarize", quiet) as sweep:
        statistics = fitted.summarize(dataset, sweep=sweep, privacy=privacy)
    statistics.save(output, overwrite=overwrite)
    result = {
        "output": output,
        "rows": statistics.rows,
        "weight": statistics.weight,
        "under": statistics.under,
    }
    if privacy is not None:
        result |= {
            "rows": f"about {statistics.rows:,}",
            "noise_multiplier": privacy.noise_multiplier,
        }
    tell(result, json)


@click.command(cls=OfMailboxes, epilog=MAILBOX_CODES)
@click.argument("mailboxes", type=ADDRESS, nargs=-1, required=True)
@n_components_option
@covariance_type_option
@output_option("Where the model file goes.")
@click.option(
    "--start",
    type=ADDRESS,
    metavar="PATH",
    help="Begin at the parameters of this model, not where the sites' own fits lead.",
)
@timeout_option
@fitting_but(*NOT_TOLD)
@overwrite_option
@json_option
@quiet_option
def federate(
    mailboxes: tuple[str, ...],
    n_components: int,
    covariance_type: CovarianceType,
    output: str,
    start: str | None,
    timeout: float,
    params: dict[str, Any],
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Fit a mixture to the rows of many sites, which do not share them.

    MAILBOXES are directories, at paths or URLs, one for each site. At each site, dgmm join answers
    with sums. The model is that of a fit to all rows in one place, from the same start, but for
    rounding. Interrupted, the same command goes on where it stood.

    The default --reg-covar is that of one place; but where a few rows far away make up most of a
    feature's variance it is only near that, as the sites' own fits tell how wide most rows lie, and
    with --start it goes by all rows. Give a number to have the same.

    Example: dgmm federate s3://fit/north s3://fit/south -k 8 -o model.dgmm
    """
    check_model_target(output, overwrite)
    model = dgmm.GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        **params,
    )
    if start is not None:
        begin_as(model, begin_at(start, n_components, covariance_type, None))
    dgmm.federate(model, mailboxes, timeout, None if quiet else _tell_round)
    model.save(output, overwrite=overwrite)
    tell_model(model, output, json)


def _tell_round(done: Round) -> None:
    changed = "" if done.number == 1 else f", change {done.change:.2e}"
    click.echo(
        f"round {done.number}: {done.rows:,} rows, objective {done.objective:.8g}{changed}",
        err=True,
    )


@click.command(cls=OfMailboxes, epilog=MAILBOX_CODES)
@data_argument
@click.argument("mailbox", type=ADDRESS)
@timeout_option
@privacy_options
@sample_weight_option
@machine_options
@reading_options
@json_option
@quiet_option
def join(
    data: str,
    mailbox: str,
    timeout: float,
    privacy: Privacy | None,
    sample_weight: str | None,
    machines: Machines,
    reading: dict[str, Any],
    json: bool,
    quiet: bool,
) -> None:
    """Be a site of a federated fit: answer with sums of the rows DATA, which stay here.

    MAILBOX is a directory, at a path or URL, that this site has with dgmm federate. What is written
    there: number, weight, mean and scatter of the rows, which features are constant, and a mixture
    of the site's own; then, in each round, sums for each component. It ends when the fit does. With
    --epsilon all of that has noise that hides any one row, and dgmm federate needs a --start.

    Example: dgmm join patients.parquet s3://fit/north
    """
    dataset = dgmm.open_dataset(data, sample_weight, **reading)

    def said(text: str) -> None:
        click.echo(f"answered {text}", err=True)

    with machines.client() as client:
        model = dgmm.join(
            dataset,
            mailbox,
            timeout=timeout,
            privacy=privacy,
            client=client,
            n_jobs=machines.threads,
            tell=None if quiet else said,
        )
    tell_model(model, f"{mailbox.rstrip('/')}/fitted.dgmm", json)
