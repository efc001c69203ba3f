"""``dgmm merge``, ``reduce``: components joined to groups, and to fewer components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dgmm.cli import tables
from dgmm.cli.base import Command
from dgmm.cli.checks import check_model_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.judged_rows import JudgedRows, rows_options
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    data_if_any_argument,
    json_option,
    machine_options,
    model_argument,
    model_option,
    output_option,
    overwrite_option,
    quiet_option,
)
from dgmm.cli.records import dumps
from dgmm.cli.results import tell
from dgmm.cli.sweeping import sweeping
from dgmm.errors import UsageError
from dgmm.inference.merging import LEVELS
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.inference.merging import CriterionName, Merging

mixtures = Late("dgmm.estimators.gaussian_mixture")


@click.command(cls=Command, epilog=EXIT_CODES)
@data_if_any_argument
@model_option
@click.option(
    "--criterion",
    type=click.Choice(list(LEVELS)),
    default="entropy",
    show_default=True,
    help="By what pairs are joined. entropy: what they take from the entropy of the labels of "
    "DATA. Without DATA, runnalls: what they add to a bound of the divergence from the mixture; "
    "bhattacharyya: their distance.",
)
@click.option(
    "--groups",
    type=click.IntRange(min=1),
    help="How many groups are kept.  [default: as many as the criterion says]",
)
@output_option("Where the model goes, with its groups, if anywhere.", required=False)
@machine_options
@rows_options("sample_weight", "missing", "noise")
@overwrite_option
@json_option
@quiet_option
def merge(
    data: str | None,
    model: str,
    criterion: CriterionName,
    groups: int | None,
    output: str | None,
    machines: Machines,
    rows: JudgedRows,
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Join the components of a model to groups, as a cluster may be several components.

    It tells the whole tree. With -o the groups are kept in the model, for predict --kind groups.

    Example: dgmm merge rows.zarr -m model.dgmm -o model.dgmm --overwrite
    """
    if output is not None:
        check_model_target(output, overwrite)
    _check_criterion(criterion, data)
    if data is None:
        rows.refuse()
        fitted = mixtures.load(model)
        merging = fitted.merge(criterion=criterion)
    else:
        fitted, dataset = rows.open(model, data)
        with sweeping(machines, dataset, "merge", quiet) as sweep:
            merging = fitted.merge(dataset, sweep=sweep)
    labels = merging.groups(groups)
    if output is not None:
        fitted.keep_groups(labels).save(output, overwrite=overwrite)
    if json:
        names = ("pairs", "costs", "levels")
        arrays = {**{name: getattr(merging, name) for name in names}, "groups": labels}
        result = {"model": output or model, "criterion": criterion, "cut": merging.cut}
        click.echo(dumps({**result, **{name: each.tolist() for name, each in arrays.items()}}))
        return
    show_merging(fitted, merging, labels)


def _check_criterion(criterion: CriterionName, data: str | None) -> None:
    """Raise ``UsageError`` unless a criterion has DATA if it needs them, and else has none."""
    if criterion == "entropy" and data is None:
        raise UsageError(
            "--criterion entropy needs DATA, rows such as the model was fitted to; runnalls and "
            "bhattacharyya need none"
        )
    if criterion != "entropy" and data is not None:
        raise UsageError(f"--criterion {criterion} needs no DATA: leave them out")


def show_merging(model: GaussianMixture, merging: Merging, groups: np.ndarray[Any, Any]) -> None:
    """Two tables: how groups were made, and which there are now."""
    count = len(merging.levels)
    parts = [str(k) for k in range(count)]
    rows = []
    for step, (pair, level) in enumerate(zip(merging.pairs, merging.levels[-2::-1], strict=True)):
        one, other = (parts[number] for number in pair)
        parts.append(f"{one} {other}")
        rows.append((str(count - 1 - step), f"{one} + {other}", f"{level:.6g}"))
    tables.show(("groups left", "joined", LEVELS[merging.criterion]), rows, keep=2)
    weights = model.mixture_.weights
    members = [np.flatnonzero(groups == number) for number in range(int(groups.max()) + 1)]
    shown = [
        (str(number), " ".join(map(str, group)), f"{weights[group].sum():.4f}")
        for number, group in enumerate(members)
    ]
    tables.show(("group", "components", "weight"), shown, keep=2)


@click.command(cls=Command, epilog=EXIT_CODES)
@model_argument
@click.option(
    "-k", "--components", type=click.IntRange(min=1), required=True, help="How many are left."
)
@output_option("Where the new model goes.")
@overwrite_option
@json_option
def reduce(model: str, components: int, output: str, overwrite: bool, json: bool) -> None:
    """Make a model of fewer components that is near a MODEL, without rows.

    Components are joined where that costs least, and keep their weight, mean and covariance
    together. How far the new model is from MODEL is told, as an upper bound in nats.

    Example: dgmm reduce model.dgmm -k 8 -o small.dgmm
    """
    check_model_target(output, overwrite)
    less = mixtures.load(model).reduce(components)
    less.save(output, overwrite=overwrite)
    result = {"n_components": components, "divergence_bound": less.fit_info_["divergence_bound"]}
    tell({"model": output, **result}, json)
