"""``dgmm plan`` and ``dgmm demo``: commands to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

import dgmm
from dgmm.cli.base import Command
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.fitting_options import (
    effort_option,
    missing_option,
    model_options,
    noise_options,
    prior_option,
    strategy_option,
    tails_options,
)
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    as_one,
    cache_option,
    data_argument,
    json_option,
    labels_option,
    machine_options,
    memory_option,
    noise_option,
    overwrite_option,
    reading_options,
)
from dgmm.cli.records import dumps
from dgmm.cli.results import (
    show_plan,
    show_pods,
)
from dgmm.model.covariance import CovarianceType
from dgmm.model.lazy import Late
from dgmm.report.installed import check_pictures

demonstration = Late("dgmm.cli.demo")  # which draws pictures
fits = Late("dgmm.estimators.fits")

PLANNED: Final = (
    *("effort", "strategy", "memory", "cache", "prior", "missing"),
    *("noise_component", "noise_volume", "tails", "dof"),
)
"""The parameters of ``GaussianMixture``, beside what is fitted, that a plan depends on."""


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_options
@as_one(
    "params",
    dict,
    PLANNED,
    *(effort_option, strategy_option, memory_option, cache_option, prior_option, missing_option),
    *(noise_options, tails_options),
)
@machine_options
@noise_option
@labels_option
@reading_options
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Print settings for the manifests in deploy/ instead: for --workers pods (4 unless given) "
    "with --threads each (2 unless given). --memory is then the size of a worker's container (as "
    "much as it needs unless given).",
)
@json_option
def plan(
    data: str,
    n_components: int,
    covariance_type: CovarianceType,
    n_factors: int | None,
    n_init: int,
    params: dict[str, Any],
    machines: Machines,
    noise: str | None,
    labels: str | None,
    reading: dict[str, Any],
    kubernetes: bool,
    json: bool,
) -> None:
    """Show what a fit to DATA will need: blocks, tasks, bytes read, peak memory.

    Nothing is fitted. The exit code is 3 if the fit would be refused.
    """
    dataset = dgmm.open_dataset(data, noise=noise, labels=labels, **reading)
    model = dgmm.GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        n_factors=n_factors,
        n_init=n_init,
        n_jobs=machines.threads,
        **params,
    )
    if kubernetes:
        if machines.scheduler:
            raise click.UsageError("--kubernetes plans a new cluster: leave out --scheduler")
        session = fits.session_of(model, dataset)
        pods = session.pods(machines.workers or 4, machines.threads or 2)
        pods.plan.check()
        show_pods(pods, json)
        return
    with machines.client() as client:
        planned = model.plan(dataset, client=client)
    if json:
        click.echo(dumps(planned.to_dict()))
    else:
        show_plan(planned)
    planned.check()


@click.command(cls=Command, epilog=EXIT_CODES)
@click.argument("directory", default="dgmm-demo", type=click.Path(path_type=Path))
@overwrite_option
def demo(directory: Path, overwrite: bool) -> None:
    """Fit the pixels of two photographs out of core, and draw the result.

    Writes Zarr stores, models, labels and a picture to DIRECTORY (default: dgmm-demo).
    """
    check_pictures()
    for line in demonstration.run(directory, overwrite=overwrite):
        click.echo(line)
