"""What commands print on standard output: tables and lines for a person, or JSON."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from dask.utils import format_bytes

from dgmm.cli import tables
from dgmm.cli.progress import LOGS
from dgmm.cli.records import dumps
from dgmm.estimators.passes import figure
from dgmm.kernels import choice
from dgmm.model.covariance import described
from dgmm.model.fixed import free_parameters

if TYPE_CHECKING:
    from dgmm.engine.kubernetes import Pods
    from dgmm.engine.plan import Plan
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.estimators.search import MixtureSearch
    from dgmm.io.output import Written
    from dgmm.model.mixture import Mixture

EDGES = {
    "most": "the best has {0} components, the most that were tried: try more (-k {0}..{2})",
    "fewest": "the best has {0} components, the fewest that were tried: try fewer (-k {1}..{0})",
}
"""What ``select`` says when a better size may lie beyond those that were tried."""


def tell_search(search: MixtureSearch, path: str, as_json: bool, as_mclust: bool) -> None:
    """Print what a search chose, and from what: all as JSON, or a table and lines for a person.

    ``as_mclust`` asks for mclust's BIC, where larger is better.
    """
    best, criterion, edge = search.best_estimator_, search.criterion, search.at_edge_
    if as_json:
        record = {"criterion": criterion, **fit_record(best, path)}
        if as_mclust:
            record["mclust_bic"] = search.mclust_bic()
        click.echo(dumps({**record, "at_edge": edge, "candidates": search.results_}))
        return
    show_candidates(search.results_, criterion, as_mclust)
    tell_model(best, path, as_json)
    if edge:
        size = best.n_components
        click.echo(EDGES[edge].format(size, size // 2, 2 * size))


def show_candidates(results: list[dict[str, Any]], criterion: str, as_mclust: bool = False) -> None:
    """A table of a search's candidates, the best first, those that can't be compared last."""
    named, sign = ("2 L - p log N", -1) if as_mclust else (criterion, 1)
    unbounded = any(each["unbounded"] for each in results)
    several = len(set(map(described, results))) > 1  # covariance types; one is told below
    heads = [
        "components",
        *("covariance type",) * several,
        *("parameters", named, "score", "dropped"),
        *("unbounded",) * unbounded,
    ]
    rows = [
        (
            str(each["n_components"]),
            *(described(each),) * several,
            f"{each['parameters']:,}",
            figure(sign * each[criterion]),
            f"{each['score']:.6f}",
            "" if each["dropped_after"] is None else f"pass {each['dropped_after']}",
            *(str(len(each["unbounded"]) or ""),) * unbounded,
        )
        for each in sorted(results, key=lambda each: (bool(each["unbounded"]), each[criterion]))
    ]
    tables.show(heads, rows, keep=1 + several)
    if unbounded:
        click.echo(
            "The likelihood of an unbounded component depends on reg_covar alone. Candidates with "
            "such components can't be compared: one is chosen only if all have them"
        )


def show_counts(written: Written, called: str = "component") -> None:
    """How many rows are in each component, or group: a table, the largest first; noise is last."""
    order = np.argsort(-np.array(written.counts), kind="stable")
    counts = [(str(k), written.counts[k]) for k in order]
    if written.noise is not None:
        counts.append(("noise", written.noise))
    counts += [("none: nothing observed", written.nothing)] * bool(written.nothing)
    rows = [(k, f"{count:,}", f"{count / written.rows:.2%}") for k, count in counts]
    tables.show((called, "rows", "share"), rows)


def fit_record(model: GaussianMixture, path: str) -> dict[str, Any]:
    """How the model at ``path`` was fitted, by name, for JSON."""
    return {
        "model": path,
        "n_components": model.mixture_.components,
        "covariance_type": model.mixture_.covariance_model.name,
        **({} if model.n_factors is None else {"n_factors": model.n_factors}),
        "features": model.n_features_in_,
        "converged": model.converged_,
        "iterations": model.n_iter_,
        **({} if model.mixture_.noise_component is None else {"noise_weight": model.noise_weight_}),
        **({"threshold": model.threshold_.record()} if hasattr(model, "threshold_") else {}),
        **({"groups": list(model.groups_)} if hasattr(model, "groups_") else {}),
        **model.fit_info_,
        **criteria_of_fit(model),
    }


def criteria_of_fit(model: GaussianMixture) -> dict[str, float]:
    """The log-likelihood of the rows of a fit, free parameters, AIC and BIC; none if not told.

    They are those of ``GaussianMixture.criteria``.  With labels, the score is that of other
    densities, as it is of a posterior; after an update, there is only a bound.
    """
    info = model.fit_info_
    mixture, _ = model.judged()
    known = "score" in info and "weight" in info and not info.get("labelled")
    if not known or mixture is not model.mixture_:
        return {}
    total, count = info["score"] * info["weight"], free_parameters(mixture, info)
    return {
        "log_likelihood": total,
        "parameters": count,
        "aic": -2 * total + 2 * count,
        "bic": -2 * total + count * float(np.log(info["weight"])),
    }


TOLD_AT_END = ("score", "passes", "seconds", "seconds_on_samples")
"""What of ``fit_info_`` the last event has."""


def tell_end(log: str, model: GaussianMixture, path: str, **more: Any) -> None:
    """The last event: where the model is, and what it came to."""
    info = {name: model.fit_info_[name] for name in TOLD_AT_END}
    ended = {"converged": model.converged_, "reason": model.fit_info_["stopped_by"]}
    LOGS[log].say("done", model=path, **info, **ended, **more)


def _of_rows(info: dict[str, Any]) -> str:
    """What a fit's record says of its rows, beside their number."""
    labelled, incomplete = info.get("labelled"), info.get("incomplete")
    told = f", of which {labelled:,} have labels" if labelled else ""
    if incomplete:
        told += f", of which {incomplete:,} are incomplete"
        told += f", and {info['left_out']:,} left out" * bool(info["left_out"])
    return told


def tell_model(model: GaussianMixture, path: str, as_json: bool) -> None:
    """Print how a model was fitted: all as JSON, or for a person what matters first."""
    if as_json:
        click.echo(dumps(fit_record(model, path)))
        return
    info, mixture = model.fit_info_, model.mixture_
    lines = {
        "model": path,
        "mixture": f"{mixture.components} components, {mixture.covariance_model.name}, of "
        f"{mixture.n_features} features",
    }
    lines |= _beside(mixture) | _kept(model) | _of_fit(model)
    if "objective_before" in info:
        before = info["objective_before"]
        was = "none" if before is None else f"{before:.9g}"
        lines["objective"] = f"{info['objective']:.9g} nats a row, a lower bound for all rows seen"
        lines["before"] = f"{was}, with the parameters from before the step"
    if "passes" in info:
        lines["converged"] = _end(model)
    lines |= _starts(info)
    for name in ("empty", "unused", "singular"):
        if info.get(name):
            lines[name] = ", ".join(map(str, info[name]))
    tell(lines, as_json=False)


def _of_fit(model: GaussianMixture) -> dict[str, str]:
    """How many rows a fit had, what it came to, and how long it took."""
    info, lines = model.fit_info_, {}
    for name, shown in {
        "rows": "{:,}",
        "score": "{:.9g} nats a row",
        "passes": "{}",
        "seconds": "{:.1f}",
    }.items():
        if name in info:
            lines[name] = shown.format(info[name])
        if name == "score" and (found := criteria_of_fit(model)):
            lines["score"] += f"; log-likelihood {figure(found['log_likelihood'])}"
            lines["parameters"] = f"{found['parameters']:,}"
            lines["aic, bic"] = f"{figure(found['aic'])}, {figure(found['bic'])}"
    if "rows" in lines:
        lines["rows"] += _of_rows(info)
    if info.get("seconds_on_samples"):
        lines["seconds"] += f", of which {info['seconds_on_samples']:.1f} on samples"
    return lines


def _beside(mixture: Mixture) -> dict[str, str]:
    """What there is of a mixture beside normal components."""
    lines = {}
    if mixture.noise_component is not None:
        lines["noise"] = f"{mixture.noise_component.weight:.2%} of the weight"
    if mixture.tails is not None:
        lines["degrees of freedom"] = ", ".join(f"{each:.3g}" for each in mixture.dof)
    return lines


def _kept(model: GaussianMixture) -> dict[str, str]:
    """The threshold and the groups that a model keeps, if it does."""
    lines = {}
    if hasattr(model, "threshold_"):
        kept = model.threshold_
        below = f"{kept.flagged:,} of {kept.rows:,} rows were below"
        lines["threshold"] = f"{kept.log_density:.9g} nats; {below}"
    if hasattr(model, "groups_"):
        lines["groups"] = " ".join(map(str, model.groups_)) + ", of the components in their order"
    return lines


def _starts(info: dict[str, Any]) -> dict[str, str]:
    """What several starts brought, if there were any."""
    lines = {}
    if info.get("starts", 0) > 1 and info.get("starts_gain") is not None:
        lines["starts"] = (
            f"{info['starts']}; those after the first took {info['starts_seconds']:.1f} s; the "
            f"best is {info['starts_gain']:.3g} x p / (2 N) better than the first, on a sample"
        )
    if info.get("optima", 0) > 1:
        lines["optima"] = (
            f"{info['optima']}, found by {info['starts']} starts on samples; the best one was "
            "kept, but more starts (--n-init) may find a better one"
        )
    return lines


def _end(model: GaussianMixture) -> str:
    """Whether a fit has converged, and by what."""
    gap = model.fit_info_.get("estimated_gap")
    left = "" if gap is None else f"; an estimated {gap:.1e} nats a row left to gain"
    late = ", max_seconds" * (model.fit_info_.get("stopped_by") == "max_seconds")
    return ("yes" if model.converged_ else f"no, after {model.n_iter_} iterations{late}") + left


def tell(values: dict[str, Any], as_json: bool) -> None:
    """Print ``values`` as JSON, or as lines for a person."""
    if as_json:
        click.echo(dumps(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:.12g}" if isinstance(value, float) else value
        shown = f"{value:,}" if isinstance(value, int) else shown
        click.echo(f"{name:<{width}}  {shown}")


def show_pods(pods: Pods, as_json: bool) -> None:
    """Settings as lines for ``deploy/base/settings.env``, or as an object."""
    planned, settings = pods.plan, pods.settings
    threads = planned.workers * planned.threads
    if planned.tasks < threads:
        logging.getLogger("dgmm").warning(
            f"a pass has only {counted(planned.tasks, 'task')} for {threads} threads: fewer "
            "--workers or --threads are as fast; or store the rows in smaller chunks"
        )
    if as_json:
        click.echo(dumps(settings))
        return
    parts = ("base_bytes", "thread_bytes", "shared_bytes", "cache_bytes")
    base, thread, shared, cache = (format_bytes(getattr(planned, part)) for part in parts)
    click.echo(f"# {planned.source}: {planned.rows:,} rows x {planned.n_features}")
    click.echo(f"# {planned.n_components} components, of width {planned.width}")
    click.echo(f"# {counted(planned.tasks, 'task')} a pass, for {threads} threads")
    click.echo(f"# a worker: {base} + {planned.threads} x {thread} + {shared}, + {cache} of cache")
    kept = f"# {planned.cached:.0%} of the rows stay in memory between passes"
    click.echo(kept + f"; all do with --memory {pods.keeping >> 20}Mi" * (planned.cached < 1))
    for name, value in settings.items():
        click.echo(f"{name}={value}")


def counted(number: int, name: str) -> str:
    """So many of what has a ``name``."""
    return f"{number:,} {name}" + "s" * (number != 1)


def show_plan(planned: Plan) -> None:
    """Print a plan for a person."""
    told = planned.told()
    tell({**told, "kernel": choice.described(choice.chosen())}, as_json=False)
