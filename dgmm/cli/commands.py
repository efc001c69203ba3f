"""The command line: ``dgmm fit | select | update | predict | score | show | plan | demo``.

Results go to standard output, progress and warnings to standard error.
"""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from dask.utils import format_bytes

import dgmm
from dgmm.cli import progress, tables
from dgmm.cli.command import ENVIRONMENT, EXIT_CODES, Command
from dgmm.cli.machines import Machines
from dgmm.cli.options import (
    Shown,
    cache_option,
    data_argument,
    fitting_options,
    json_option,
    machine_options,
    memory_option,
    model_option,
    model_options,
    n_init_option,
    overwrite_option,
    quiet_option,
    reading_options,
    sample_weight_option,
    shown_options,
)
from dgmm.cli.progress import LOGS
from dgmm.data import urls
from dgmm.em.criteria import CRITERIA
from dgmm.errors import DataError, UsageError
from dgmm.io import models, storage
from dgmm.kernels import native
from dgmm.kernels.outputs import OUTPUTS, OutputKind
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.engine.kubernetes import Pods
    from dgmm.engine.plan import Plan
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.io.output import Written

# Loaded when a command needs them, not for a usage error.
datasets, engine, outputs = Late("dgmm.data.dataset"), Late("dgmm.engine"), Late("dgmm.io.output")
report, demonstration = Late("dgmm.report.pictures"), Late("dgmm.cli.demo")

MOST_FEATURES = 100
"""How many features ``show`` has in its tables."""

HELP = """\
Fit Gaussian mixtures to data that does not fit in memory.

DATA is a path or URL: store.zarr, store.zarr/group/array, rows.npy,
s3://bucket/store.zarr.

\b
Start here:
  dgmm demo                                  see it work on real photographs
  dgmm plan rows.zarr -k 16                  what a fit will need
  dgmm fit rows.zarr -k 16 -o model.dgmm     fit, out of core
  dgmm predict rows.zarr -m model.dgmm -o labels.zarr
  dgmm select rows.zarr -k 2..32 -o best.dgmm     how many components?
"""


@click.group(
    help=HELP,
    epilog=f"{ENVIRONMENT}\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DGMM"},
)
@click.version_option(
    dgmm.__version__,
    prog_name="dgmm",
    message=f"%(prog)s %(version)s, {native.described(native.preferred())} kernel",
    allow_from_autoenv=False,
)
def main() -> None:
    """``dgmm``."""


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_options
@click.option("-o", "--output", required=True, metavar="PATH", help="Where the model file goes.")
@sample_weight_option
@click.option(
    "--start",
    metavar="PATH",
    help="Begin at the parameters of this model (yesterday's, say) instead of looking for a start.",
)
@fitting_options
@machine_options
@reading_options
@overwrite_option
@json_option
@shown_options
def fit(
    data: str,
    n_components: int,
    covariance_type: str,
    n_init: int,
    output: str,
    sample_weight: str | None,
    start: str | None,
    how: dict[str, Any],
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    shown: Shown,
) -> None:
    """Fit a mixture to the rows of DATA, and write it to a model file.

    Example: dgmm fit rows.zarr -k 16 -o model.dgmm
    """
    _check_model_target(output, overwrite)
    if start is not None and (how["init_params"] != "auto" or n_init > 1):
        raise click.UsageError("--start is one start: leave out --init-params and --n-init")
    dataset = dgmm.open_dataset(data, sample_weight, **reading)
    given = {} if start is None else _parameters(start, n_components, covariance_type)
    model = dgmm.GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        n_init=n_init,
        n_jobs=machines.threads,
        **how,
        **given,
    )
    meter = engine.Meter()
    with shown.watches() as watches, machines.client() as client:
        session = model.session(dataset, client=client)
        steps = model.fit_passes(session, meter=meter)
        progress.run(progress.of_fit(steps), session.plan, meter, *watches)
    model.save(output, overwrite=overwrite)
    _tell_model(model, output, json)
    _tell_end(shown.log, model, output)


def _parameters(path: str, n_components: int, covariance_type: str) -> dict[str, Any]:
    """Of the model at ``path``, as starting values; it must be of this size and structure."""
    model = dgmm.load(path)
    found = (model.n_components, model.covariance_type)
    if found != (n_components, covariance_type):
        raise UsageError(
            f"{path} has {found[0]} components and {found[1]} covariances; a fit that begins there "
            f"has as many and the same, not {n_components} and {covariance_type}"
        )
    return {
        "weights_init": model.weights_,
        "means_init": model.means_,
        "precisions_init": model.precisions_,
    }


def _numbers(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    """2..32, or 2,4,8, or both."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        if not first.isdigit() or not (last or first).isdigit():
            raise click.BadParameter(f"{text!r} is not like 2..32 or 2,4,8")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} names no numbers of components from 1 on")
    return sorted(set(numbers))


def _covariance_types(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """Covariance types, with commas between."""
    names = text.split(",")
    for name in names:
        if name not in COVARIANCE_MODELS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(COVARIANCE_MODELS)}")
    return names


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@click.option(
    "-k",
    "--n-components",
    callback=_numbers,
    default="1..10",
    show_default=True,
    metavar="RANGE",
    help="Numbers of components to choose from: 2..32, or 2,4,8.",
)
@click.option(
    "--covariance-type",
    callback=_covariance_types,
    default="full",
    show_default=True,
    metavar="NAMES",
    help=f"Covariance types to choose from, with commas between: {', '.join(COVARIANCE_MODELS)}.",
)
@click.option(
    "--criterion",
    type=click.Choice(list(CRITERIA)),
    default="bic",
    show_default=True,
    help="What is to be small; heldout: minus the score of one row in ten, which is not fitted.",
)
@click.option("-o", "--output", required=True, metavar="PATH", help="Where the best model goes.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PNG",
    help="Draw the criterion into a picture, too.",
)
@sample_weight_option
@n_init_option
@fitting_options
@machine_options
@reading_options
@overwrite_option
@json_option
@shown_options
def select(
    data: str,
    n_components: list[int],
    covariance_type: list[str],
    criterion: str,
    output: str,
    plot: Path | None,
    sample_weight: str | None,
    n_init: int,
    how: dict[str, Any],
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    shown: Shown,
) -> None:
    """Choose the number of components and the covariance type for DATA.

    All candidates share every pass over the data, and leave when they can't win any more.  Writes
    the best model, and prints what became of each, and whether the best is at the edge of the
    numbers tried.

    Example: dgmm select rows.zarr -k 2..32 --covariance-type full,diag -o best.dgmm
    """
    _check_model_target(output, overwrite)
    if plot is not None:
        _check_pictures()
    dataset = dgmm.open_dataset(data, sample_weight, **reading)
    template = dgmm.GaussianMixture(n_init=n_init, n_jobs=machines.threads, **how)
    search = dgmm.MixtureSearch(
        template,
        n_components=n_components,
        covariance_type=covariance_type,
        criterion=criterion,
    )
    meter = engine.Meter()
    with shown.watches() as watches, machines.client() as client:
        session = search.session(dataset, client=client)
        steps = search.fit_passes(session, meter=meter)
        progress.run(progress.of_selection(steps, criterion), session.plan, meter, *watches)
    search.best_estimator_.save(output, overwrite=overwrite)
    if plot is not None:
        report.criteria_figure(search.results_, criterion).savefig(plot)
    if json:
        record = {"criterion": criterion, **_fit_record(search.best_estimator_, output)}
        click.echo(dumps({**record, "at_edge": search.at_edge_, "candidates": search.results_}))
    else:
        _show_candidates(search.results_, criterion)
        _tell_model(search.best_estimator_, output, json)
        if search.at_edge_:
            size = search.best_estimator_.n_components
            click.echo(EDGES[search.at_edge_].format(size, size // 2, 2 * size))
    _tell_end(shown.log, search.best_estimator_, output, at_edge=search.at_edge_)


EDGES = {
    "most": "the best has {0} components, the most that were tried: try more (-k {0}..{2})",
    "fewest": "the best has {0} components, the fewest that were tried: try fewer (-k {1}..{0})",
}
"""What ``select`` says when a better size may lie beyond those that were tried."""


def _show_candidates(results: list[dict[str, Any]], criterion: str) -> None:
    """A table of a search's candidates, the best first, those that can't be compared last."""
    unbounded = any(each["unbounded"] for each in results)
    heads = [
        *("components", "covariance type", "parameters", criterion, "score", "dropped after pass"),
        *("unbounded",) * unbounded,
    ]
    rows = [
        (
            str(each["n_components"]),
            each["covariance_type"],
            f"{each['parameters']:,}",
            tables.figure(each[criterion]),
            f"{each['score']:.6f}",
            "" if each["dropped_after"] is None else str(each["dropped_after"]),
            *(str(len(each["unbounded"]) or ""),) * unbounded,
        )
        for each in sorted(results, key=lambda each: (bool(each["unbounded"]), each[criterion]))
    ]
    tables.show(heads, rows, keep=2)
    if unbounded:
        click.echo(
            "A component is unbounded if reg_covar alone decides how likely it is. Candidates with "
            "such components can't be compared: one is chosen only if all have them"
        )


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option("-o", "--output", required=True, metavar="PATH", help="Where the Zarr array goes.")
@click.option(
    "--kind",
    type=click.Choice(list(OUTPUTS)),
    default="labels",
    show_default=True,
    help="The likeliest component, each one's probability, or the log-density.",
)
@machine_options
@reading_options
@overwrite_option
@json_option
@quiet_option
def predict(
    data: str,
    model: str,
    output: str,
    kind: OutputKind,
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Say of each row of DATA what a model thinks of it, in a Zarr array.

    Prints how many rows are likeliest in each component, too, unless --kind is score.

    Example: dgmm predict rows.zarr -m model.dgmm -o labels.zarr
    """
    urls.check_writable(output)
    fitted, dataset = _open_both(model, data, None, reading)
    outputs.check_target(output, dataset, overwrite)
    # A block's answers may be larger than the block: smaller blocks, then.
    answer_bytes = 8 * math.prod(OUTPUTS[kind].columns(fitted.mixture_.components))
    dataset = dataset.rechunk(
        datasets.BLOCK_BYTES * dataset.row_bytes // max(dataset.row_bytes, answer_bytes)
    )
    meter = engine.Meter()
    with (
        machines.client() as client,
        progress.sweep_bar(meter, dataset.rows, "predict", quiet),
    ):
        sweep = engine.over(dataset, client, machines.threads, meter)
        written = outputs.write_answers(sweep, dataset, fitted.mixture_, kind, output)
    told = {"output": output, "kind": kind, "rows": written.rows}
    if json:
        click.echo(dumps({**told, "rows_of_components": list(written.counts) or None}))
        return
    _tell(told, as_json=False)
    if written.counts:
        _show_counts(written)


def _show_counts(written: Written) -> None:
    """How many rows are in each component: a table, the largest first."""
    order = np.argsort(-np.array(written.counts), kind="stable")
    counts = [(str(k), written.counts[k]) for k in order]
    rows = [(k, f"{count:,}", f"{count / written.rows:.2%}") for k, count in counts]
    tables.show(("component", "rows", "share"), rows)


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@sample_weight_option
@machine_options
@reading_options
@json_option
@quiet_option
def score(
    data: str,
    model: str,
    sample_weight: str | None,
    machines: Machines,
    reading: dict[str, Any],
    json: bool,
    quiet: bool,
) -> None:
    """Score DATA under a model: the mean log-likelihood of its rows, AIC and BIC.

    Example: dgmm score held-out.zarr -m model.dgmm
    """
    fitted, dataset = _open_both(model, data, sample_weight, reading)
    meter = engine.Meter()
    with (
        machines.client() as client,
        progress.sweep_bar(meter, dataset.rows, "score", quiet),
    ):
        scored = fitted.criteria(
            dataset, sweep=engine.over(dataset, client, machines.threads, meter)
        )
    _tell({"model": model, "data": data, "rows": dataset.rows, **scored}, json)


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_option
@click.option("-o", "--output", required=True, metavar="PATH", help="Where the new model goes.")
@sample_weight_option
@machine_options
@reading_options
@overwrite_option
@json_option
@quiet_option
def update(
    data: str,
    model: str,
    output: str,
    sample_weight: str | None,
    machines: Machines,
    reading: dict[str, Any],
    overwrite: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Learn from DATA, rows that MODEL has not seen, in one pass over them alone.

    A step of incremental EM: the statistics of all rows seen before are in the model file. The
    objective it tells is a lower bound of that of all rows seen.

    Example: dgmm update tonight.zarr -m model.dgmm -o model.dgmm --overwrite
    """
    _check_model_target(output, overwrite)
    fitted, dataset = _open_both(model, data, sample_weight, reading)
    meter = engine.Meter()
    with (
        machines.client() as client,
        progress.sweep_bar(meter, dataset.rows, "update", quiet),
    ):
        found = fitted.summarize(
            dataset, sweep=engine.over(dataset, client, machines.threads, meter)
        )
    fitted.update(fitted.sufficient_statistics_ + found)
    fitted.save(output, overwrite=overwrite)
    _tell_model(fitted, output, json)


@main.command(cls=Command, epilog=EXIT_CODES)
@click.argument("model")
@json_option
def show(model: str, json: bool) -> None:
    """Show the components of a model file, and how it was fitted."""
    fitted = dgmm.load(model)
    mixture = fitted.mixture_
    spread = np.sqrt(mixture.variances)
    if json:
        described = {
            **_fit_record(fitted, model),
            "weights": mixture.weights.tolist(),
            "means": mixture.means.tolist(),
            "covariances": mixture.covariances.tolist(),
        }
        click.echo(dumps(described))
        return
    _tell_model(fitted, model, as_json=False)
    names = getattr(fitted, "feature_names_in_", [f"x{j}" for j in range(mixture.n_features)])
    shown = min(mixture.n_features, MOST_FEATURES)
    rows = []
    for k in np.argsort(-mixture.weights):
        pairs = zip(mixture.means[k, :shown], spread[k], strict=False)
        cells = [tables.mean_and_spread(float(mean), float(sd)) for mean, sd in pairs]
        rows.append((str(k), f"{mixture.weights[k]:.4f}", *cells))
    heads = ("component", "weight", *(f"{name}: mean ± sd" for name in names[:shown]))
    tables.show(heads, rows, keep=2)
    if shown < mixture.n_features:
        click.echo(f"and {mixture.n_features - shown} more features: --json shows all")


@main.command(cls=Command, epilog=EXIT_CODES)
@data_argument
@model_options
@machine_options
@memory_option
@cache_option
@reading_options
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Print settings for the manifests in deploy/ instead, for --workers pods  [default: 4] of "
    "--threads each  [default: 2]; --memory is then a worker's container.  [default: as much as "
    "it needs]",
)
@json_option
def plan(
    data: str,
    n_components: int,
    covariance_type: str,
    n_init: int,
    machines: Machines,
    memory: str | None,
    cache: str,
    reading: dict[str, Any],
    kubernetes: bool,
    json: bool,
) -> None:
    """Show what a fit to DATA will need, without fitting: blocks, tasks, bytes read, peak memory.

    Ends with exit code 3 if the fit would be refused.
    """
    dataset = dgmm.open_dataset(data, **reading)
    model = dgmm.GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        n_init=n_init,
        n_jobs=machines.threads,
        memory=memory,
        cache=cache,
    )
    if kubernetes:
        if machines.scheduler:
            raise click.UsageError("--kubernetes plans a cluster to be made: without --scheduler")
        pods = model.pods(dataset, machines.workers or 4, machines.threads or 2)
        pods.plan.check()
        _show_pods(pods, json)
        return
    with machines.client() as client:
        planned = model.plan(dataset, client=client)
    if json:
        click.echo(dumps(planned.to_dict()))
    else:
        _show_plan(planned)
    planned.check()


@main.command(cls=Command, epilog=EXIT_CODES)
@click.argument("directory", default="dgmm-demo", type=click.Path(path_type=Path))
@overwrite_option
def demo(directory: Path, overwrite: bool) -> None:
    """See dgmm at work: fit the pixels of two photographs out of core, and picture the result.

    Leaves a Zarr store, the model, the labels and a picture in DIRECTORY (default: dgmm-demo).
    """
    _check_pictures()
    for line in demonstration.run(directory, overwrite=overwrite):
        click.echo(line)


def _check_model_target(output: str, overwrite: bool) -> None:
    """Raise unless a model file may and can be written, before any work is done for it."""
    urls.refuse_directory(output)
    storage.check_target(output, models.MODEL, overwrite)
    urls.check_writable(output)


def _check_pictures() -> None:
    """Raise unless what pictures are drawn with is there, before any work is done for one."""
    if find_spec("matplotlib") is None or find_spec("PIL") is None:
        raise UsageError(
            "pictures are drawn by matplotlib and pillow, and not both are installed: "
            "pip install 'dgmm[plot]' does that (in a clone: pip install '.[plot]')"
        )


def _open_both(
    model: str, data: str, sample_weight: str | None, reading: dict[str, Any]
) -> tuple[GaussianMixture, Dataset]:
    """A model and rows that it can judge."""
    fitted = dgmm.load(model)
    dataset = dgmm.open_dataset(data, sample_weight, **reading)
    if dataset.n_features != fitted.n_features_in_:
        raise DataError(
            f"{data} has {dataset.n_features} features; {model} was fitted "
            f"to {fitted.n_features_in_}"
        )
    return fitted, dataset


def _fit_record(model: GaussianMixture, path: str) -> dict[str, Any]:
    return {
        "model": path,
        "n_components": model.mixture_.components,
        "covariance_type": model.mixture_.covariance_model.name,
        "features": model.n_features_in_,
        "converged": model.converged_,
        "iterations": model.n_iter_,
        **model.fit_info_,
    }


TOLD_AT_END = ("score", "passes", "seconds", "seconds_on_samples")
"""What of ``fit_info_`` the last event has."""


def _tell_end(log: str, model: GaussianMixture, path: str, **more: Any) -> None:
    """The last event: where the model is, and what it came to."""
    info = {name: model.fit_info_[name] for name in TOLD_AT_END}
    ended = {"converged": model.converged_, "reason": model.fit_info_["stopped_by"]}
    LOGS[log].say("done", model=path, **info, **ended, **more)


def _tell_model(model: GaussianMixture, path: str, as_json: bool) -> None:
    """Print how a model was fitted: all as JSON, or for a person what matters first."""
    if as_json:
        click.echo(dumps(_fit_record(model, path)))
        return
    info, mixture = model.fit_info_, model.mixture_
    lines = {
        "model": path,
        "mixture": f"{mixture.components} components, {mixture.covariance_model.name}, of "
        f"{mixture.n_features} features",
    }
    for name, shown in {
        "rows": "{:,}",
        "score": "{:.9g} nats a row",
        "passes": "{}",
        "seconds": "{:.1f}",
    }.items():
        if name in info:
            lines[name] = shown.format(info[name])
    if info.get("seconds_on_samples"):
        lines["seconds"] += f", of which {info['seconds_on_samples']:.1f} on samples"
    if "objective_before" in info:
        before = info["objective_before"]
        was = "none" if before is None else f"{before:.9g}"
        lines["objective"] = f"{info['objective']:.9g} nats a row, a lower bound for all rows seen"
        lines["before"] = f"{was}, with the parameters from before the step"
    if "passes" in info:
        lines["converged"] = _end(model)
    lines |= _starts(info)
    for name in ("empty", "singular"):
        if info.get(name):
            lines[name] = ", ".join(map(str, info[name]))
    _tell(lines, as_json=False)


def _starts(info: dict[str, Any]) -> dict[str, str]:
    """What several starts brought, if there were any."""
    lines = {}
    if info.get("starts", 0) > 1 and info.get("starts_gain") is not None:
        lines["starts"] = (
            f"{info['starts']}; those after the first took {info['starts_seconds']:.1f} s, and the "
            f"best of all led {info['starts_gain']:.3g} x p/2N higher than the first, on a sample"
        )
    if info.get("optima", 0) > 1:
        lines["optima"] = (
            f"{info['optima']}, to which {info['starts']} starts led on samples; the best went on, "
            "but more starts than that (--n-init) may lead to a better one"
        )
    return lines


def _end(model: GaussianMixture) -> str:
    """Whether a fit has converged, and by what."""
    gap = model.fit_info_.get("estimated_gap")
    left = "" if gap is None else f"; an estimated {gap:.1e} nats a row left to gain"
    late = ", max_seconds" * (model.fit_info_.get("stopped_by") == "max_seconds")
    return ("yes" if model.converged_ else f"no, after {model.n_iter_} iterations{late}") + left


def _tell(values: dict[str, Any], as_json: bool) -> None:
    """Print ``values`` as JSON, or as lines for a person."""
    if as_json:
        click.echo(dumps(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:.12g}" if isinstance(value, float) else value
        shown = f"{value:,}" if isinstance(value, int) else shown
        click.echo(f"{name:<{width}}  {shown}")


def _show_pods(pods: Pods, as_json: bool) -> None:
    """Settings as lines for ``deploy/base/settings.env``, or as an object."""
    planned, settings = pods.plan, pods.settings
    threads = planned.workers * planned.threads
    if planned.tasks < threads:
        logging.getLogger("dgmm").warning(
            f"a pass has {planned.tasks} tasks for {threads} threads: fewer --workers or --threads "
            "do the same, or store the rows in smaller chunks"
        )
    if as_json:
        click.echo(dumps(settings))
        return
    parts = ("base_bytes", "thread_bytes", "shared_bytes", "cache_bytes")
    base, thread, shared, cache = (format_bytes(getattr(planned, part)) for part in parts)
    click.echo(f"# {planned.source}: {planned.rows:,} rows x {planned.n_features}")
    click.echo(f"# {planned.n_components} components, of width {planned.width}")
    click.echo(f"# {planned.tasks:,} tasks a pass, for {threads} threads")
    click.echo(f"# a worker: {base} + {planned.threads} x {thread} + {shared}, + {cache} of cache")
    kept = f"# {planned.cached:.0%} of the rows stay in memory between passes"
    click.echo(kept + f"; all with --memory {pods.keeping >> 20}Mi" * (planned.cached < 1))
    for name, value in settings.items():
        click.echo(f"{name}={value}")


def _show_plan(planned: Plan) -> None:
    block = f"largest {planned.block_rows:,} rows, {format_bytes(planned.block_bytes)}"
    machines = f"worker processes: {planned.workers}, threads of each: {planned.threads}"
    each = -(-planned.blocks // planned.tasks)
    kept = f"{planned.cached:.0%}: {format_bytes(planned.cache_bytes)} per worker"
    _tell(
        {
            "data": planned.source,
            "rows x columns": f"{planned.rows:,} x {planned.n_features}",
            "components": planned.n_components,
            "engine": f"{planned.engine}; {machines}",
            "blocks": f"{planned.blocks:,}; {block}",
            "tasks per pass": f"{planned.tasks:,}, blocks of each: {each:,}",
            "kernel": native.described(native.chosen()),
            "rows as they lie in memory": format_bytes(planned.pass_bytes),
            "kept between passes": kept,
            "peak memory per worker": f"at most {format_bytes(planned.peak_bytes)}",
            "allowed per worker": format_bytes(planned.limit_bytes),
            "finding a start": _starting(planned),
        },
        as_json=False,
    )


def _starting(planned: Plan) -> str:
    if not planned.starts:
        return "nothing on samples"
    return (
        f"up to {planned.starts} on {planned.starts_rows:,} rows, and on larger samples: the work "
        f"of about {planned.starts_passes:.0f} passes"
    )
