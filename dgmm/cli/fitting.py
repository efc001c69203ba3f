"""``dgmm fit`` and ``dgmm select``: commands that fit mixtures."""

from __future__ import annotations

from typing import Any

import click

import dgmm
from dgmm.cli import progress
from dgmm.cli.addresses import ADDRESS
from dgmm.cli.base import Command
from dgmm.cli.checks import check_file_target, check_model_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.fitting_options import (
    fitting_options,
    model_options,
    n_init_option,
)
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    ListOption,
    ProgressDisplay,
    data_argument,
    display_options,
    json_option,
    labels_option,
    machine_options,
    noise_option,
    output_option,
    overwrite_option,
    reading_options,
    sample_weight_option,
)
from dgmm.cli.results import (
    tell_end,
    tell_model,
    tell_search,
)
from dgmm.em.criteria import CRITERIA, CriterionName
from dgmm.errors import UsageError
from dgmm.estimators.telling import other_names
from dgmm.model.covariance import COVARIANCE_TYPES, CovarianceType
from dgmm.model.fixed import PARTS
from dgmm.model.lazy import Late
from dgmm.report.installed import check_pictures

# Loaded when a command needs them, not for a usage error.
mixtures = Late("dgmm.estimators.gaussian_mixture")
exchange, records = Late("dgmm.estimators.exchange"), Late("dgmm.estimators.record")
fits, passes = Late("dgmm.estimators.fits"), Late("dgmm.estimators.passes")
engine, report = Late("dgmm.engine"), Late("dgmm.report.pictures")
storage = Late("dgmm.io.storage")


def _fixed(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, Any] | None:
    """What is to be held: means, or means=0,2."""
    fixed: dict[str, Any] = {}
    for text in texts:
        name, given, numbers = text.partition("=")
        listed = numbers.split(",")
        if name not in PARTS or (given and not all(each.isdecimal() for each in listed)):
            raise click.BadParameter(
                f"{text!r} is not like means or means=0,2; what can be held is {', '.join(PARTS)}"
            )
        fixed[name] = [int(each) for each in listed] if given else True
    return fixed or None


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_options
@output_option("Where the model file goes.")
@sample_weight_option
@noise_option
@labels_option
@click.option(
    "--start",
    type=ADDRESS,
    metavar="PATH",
    help="Begin at the parameters of this model instead of searching for a start.",
)
@click.option(
    "--fixed",
    multiple=True,
    callback=_fixed,
    metavar="PART[=LIST]",
    help="Hold weights, means or covariances as --start has them: of all components, or of those "
    "listed, as in means=0,2. May be given more than once.",
)
@fitting_options
@machine_options
@reading_options
@overwrite_option
@json_option
@display_options
def fit(
    data: str,
    n_components: int,
    covariance_type: CovarianceType,
    n_factors: int | None,
    n_init: int,
    output: str,
    sample_weight: str | None,
    noise: str | None,
    labels: str | None,
    start: str | None,
    fixed: dict[str, Any] | None,
    params: dict[str, Any],
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    display: ProgressDisplay,
) -> None:
    """Fit a mixture to the rows of DATA, and write it to a model file.

    Example: dgmm fit rows.zarr -k 16 -o model.dgmm
    """
    check_model_target(output, overwrite, params["checkpoint"])
    _check_start(start, fixed, params["init_params"] != "auto" or n_init > 1)
    dataset = dgmm.open_dataset(data, sample_weight, noise=noise, labels=labels, **reading)
    model = dgmm.GaussianMixture(
        n_components, covariance_type=covariance_type, n_factors=n_factors, n_init=n_init
    )
    if start is not None:
        begin = begin_at(start, n_components, covariance_type, n_factors)
        if other := other_names(begin, dataset.names):
            raise UsageError(f"--start: {start} is a model of {other}")
        model = _begun(model, begin, fixed, params["tails"])
        if params["noise_component"] is True:
            params["noise_component"] = begin.noise_weight_ or True
    model.set_params(n_jobs=machines.threads, **params)
    meter = engine.Meter()
    with display.watches() as watches, machines.client() as client:
        session = fits.session_of(model, dataset, client=client)
        steps = fits.fit_session(model, session, meter)
        progress.run(passes.of_fit(steps), session.plan, meter, *watches)
    model.save(output, overwrite=overwrite)
    tell_model(model, output, json)
    tell_end(display.log, model, output)


def _check_start(start: str | None, fixed: dict[str, Any] | None, sought: bool) -> None:
    """Raise ``UsageError`` where a start is given and ``sought``, or none is given to be held."""
    if start is not None and sought:
        raise click.UsageError("--start gives the only start: leave out --init-params and --n-init")
    if fixed and start is None:
        raise click.UsageError("--fixed holds what --start gives: give that, too")


def _begun(
    model: dgmm.GaussianMixture,
    begin: dgmm.GaussianMixture,
    fixed: dict[str, Any] | None,
    tails: str,
) -> dgmm.GaussianMixture:
    """What is to be fitted where it begins at the parameters of another model: that, or ``model``.

    It is that one where starting values don't say all, or must be the very numbers in the file.
    """
    heavy = begin.tails == tails == "student"  # whose degrees of freedom count, too
    if fixed or model.n_factors is not None or heavy:
        begin.set_params(warm_start=True, fixed=fixed or None)
        return begin
    model.set_params(**parameters_of(begin))
    return model


def begin_at(
    path: str, n_components: int, covariance_type: str, n_factors: int | None
) -> dgmm.GaussianMixture:
    """The model at ``path``, for a fit to begin at; it must be of this size and structure."""
    model: dgmm.GaussianMixture = mixtures.load(path)
    size = (model.n_components, model.covariance_type)
    wanted = (n_components, COVARIANCE_TYPES[covariance_type].name)
    if model.n_factors != n_factors and size == wanted:
        raise UsageError(
            f"{path} has n_factors {model.n_factors}; a fit that begins there must have the same, "
            f"not {n_factors}"
        )
    if size != wanted:
        raise UsageError(
            f"{path} has {size[0]} components and {size[1]} covariances; a fit that begins there "
            f"must have the same, not {n_components} components and {covariance_type} covariances"
        )
    return model


def begin_as(model: dgmm.GaussianMixture, start: dgmm.GaussianMixture) -> None:
    """Have ``model`` begin at the parameters of ``start``, for features of the same names."""
    begun = exchange.given(start.mixture_.without_noise)
    records.become(model, **begun, feature_names_in_=vars(start).get("feature_names_in_"))
    model.set_params(warm_start=True)


def parameters_of(model: dgmm.GaussianMixture) -> dict[str, Any]:
    """Of a model, as starting values."""
    return {
        "weights_init": model.mixture_.own_weights,
        "means_init": model.means_,
        "precisions_init": model.precisions_,
    }


def _numbers(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    """2..32, or 2,4,8, or both."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise click.BadParameter(f"{text!r} is not like 2..32 or 2,4,8")
        if int(last or first) < int(first):
            raise click.BadParameter(f"{part!r} goes down: write {last}..{first}")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} must name numbers of components of at least 1")
    return sorted(set(numbers))


def _covariance_types(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """Covariance types, with commas between."""
    names = dict.fromkeys(text.split(","))
    for name in names:
        if name not in COVARIANCE_TYPES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(COVARIANCE_TYPES)}")
    return list(names)


@click.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@click.option(
    "-k",
    "--n-components",
    cls=ListOption,
    callback=_numbers,
    default="1..10",
    show_default=True,
    metavar="RANGE",
    help="Numbers of components to choose from: 2..32, or 2,4,8.",
)
@click.option(
    "--covariance-type",
    cls=ListOption,
    callback=_covariance_types,
    default="full",
    show_default=True,
    metavar="NAMES",
    help=f"Covariance types to choose from, with commas between: {', '.join(COVARIANCE_TYPES)}.",
)
@click.option(
    "--n-factors",
    cls=ListOption,
    callback=lambda context, option, text: text and _numbers(context, option, text),
    metavar="RANGE",
    help="Numbers of factors to choose from, for covariance types that have any: 2..8, or 4,8.",
)
@click.option(
    "--criterion",
    type=click.Choice(list(CRITERIA)),
    default="bic",
    show_default=True,
    help="What to minimise. heldout: minus the score of one row in ten, which is not fitted.",
)
@click.option(
    "--mclust-sign",
    is_flag=True,
    help="Write the BIC as mclust does, 2 L - p log N: larger is better.",
)
@output_option("Where the best model goes.")
@click.option(
    "--plot",
    type=ADDRESS,
    metavar="PATH",
    help="Also draw the criterion of all candidates, as a .png file.",
)
@sample_weight_option
@noise_option
@labels_option
@n_init_option
@fitting_options
@machine_options
@reading_options
@overwrite_option
@json_option
@display_options
def select(
    data: str,
    n_components: list[int],
    covariance_type: list[CovarianceType],
    n_factors: list[int] | None,
    criterion: CriterionName,
    mclust_sign: bool,
    output: str,
    plot: str | None,
    sample_weight: str | None,
    noise: str | None,
    labels: str | None,
    n_init: int,
    params: dict[str, Any],
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    display: ProgressDisplay,
) -> None:
    """Choose the number of components and the covariance type for DATA.

    All candidates share every pass over the data; those that can no longer win are dropped.
    Writes the best model, prints a table of all candidates, and says whether the best one has the
    smallest or the largest number of components tried.

    Example: dgmm select rows.zarr -k 2..32 --covariance-type full,diag -o best.dgmm
    """
    check_model_target(output, overwrite, params["checkpoint"])
    if mclust_sign and criterion != "bic":
        raise click.UsageError(f"--mclust-sign is of the bic, not of --criterion {criterion}")
    if plot is not None:
        check_pictures()
        if not plot.lower().endswith(".png"):
            raise UsageError(f"--plot: {plot} must end in .png: that is what is drawn")
        check_file_target(plot, overwrite)
    dataset = dgmm.open_dataset(data, sample_weight, noise=noise, labels=labels, **reading)
    template = dgmm.GaussianMixture(n_init=n_init, n_jobs=machines.threads, **params)
    search = dgmm.MixtureSearch(
        template,
        n_components=n_components,
        covariance_type=covariance_type,
        n_factors=n_factors,
        criterion=criterion,
    )
    meter = engine.Meter()
    with display.watches() as watches, machines.client() as client:
        session = fits.session_of(search, dataset, client=client)
        steps = fits.fit_session(search, session, meter)
        progress.run(passes.of_selection(steps, criterion), session.plan, meter, *watches)
    search.best_estimator_.save(output, overwrite=overwrite)
    if plot is not None:
        figure = report.criteria_figure(search.results_, criterion)
        storage.put(plot, memoryview(report.png(figure)))
    tell_search(search, output, json, mclust_sign)
    tell_end(display.log, search.best_estimator_, output, at_edge=search.at_edge_)
