"""``dgmm threshold``: what a model tells so that something can be decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from dgmm.cli.base import Command
from dgmm.cli.checks import check_model_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.numbers import FloatRange
from dgmm.cli.options import (
    data_argument,
    json_option,
    machine_options,
    model_option,
    output_option,
    overwrite_option,
    quiet_option,
)
from dgmm.cli.results import tell
from dgmm.cli.sweeping import sweeping
from dgmm.errors import UsageError
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.kernels.outputs import Output

odd_rows = Late("dgmm.inference.odd_rows")
merging, oddness = Late("dgmm.inference.merging"), Late("dgmm.inference.oddness")


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option(
    "--rate",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="The share of the rows of DATA that are odd.",
)
@output_option("Where the model goes, with its threshold, if anywhere.", required=False)
@machine_options
@rows_options("missing", "noise")
@overwrite_option
@json_option
@quiet_option
def threshold(
    data: str,
    model: str,
    rate: float,
    output: str | None,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Find the log-density below which a share of the rows of DATA lies.

    It is exact, by two to four passes. With -o it is kept in the model, for predict --kind
    outliers.

    Example: dgmm threshold rows.zarr -m model.dgmm --rate 1e-4 -o model.dgmm --overwrite
    """
    if output is not None:
        check_model_target(output, overwrite)
    fitted, dataset = rows.open(model, data)
    with sweeping(machines, dataset, "threshold", quiet) as sweep:
        limit = fitted.find_threshold(dataset, rate, sweep=sweep)
    if output is not None:
        fitted.keep_threshold(limit).save(output, overwrite=overwrite)
    result = asdict(limit)
    if not json:
        result["without a value"] = result.pop("nothing")
    tell({"model": output or model, **result}, json)


def outliers_of(model: GaussianMixture, path: str) -> Output:
    """Whether rows are odd, by the threshold that the model at ``path`` keeps."""
    if not hasattr(model, "threshold_"):
        raise UsageError(
            f"{path} keeps no threshold: dgmm threshold DATA -m {path} --rate RATE -o {path} "
            "--overwrite finds one and keeps it"
        )
    output: Output = odd_rows.outliers_below(model.threshold_.log_density)
    return output


def groups_of(model: GaussianMixture, path: str) -> Output:
    """The group of rows, by the groups that the model at ``path`` keeps."""
    if not hasattr(model, "groups_"):
        raise UsageError(
            f"{path} keeps no groups: dgmm merge DATA -m {path} -o {path} --overwrite makes some"
        )
    output: Output = merging.groups_output(model.groups_)
    return output


def _distances(model: GaussianMixture, path: str) -> Output:
    output: Output = oddness.DISTANCES
    return output


def _deviations(model: GaussianMixture, path: str) -> Output:
    output: Output = oddness.DEVIATIONS
    return output


MORE: Final[dict[str, Callable[[GaussianMixture, str], Output]]] = {
    "groups": groups_of,
    "outliers": outliers_of,
    "distances": _distances,
    "deviations": _deviations,
}
"""What predict writes besides ``OUTPUTS``, given a model and its path."""
