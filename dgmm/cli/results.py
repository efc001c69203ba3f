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
from dgmm.estimators.telling import criteria_of_fit, facts
from dgmm.model.covariance import described

if TYPE_CHECKING:
    from dgmm.engine.kubernetes import Pods
    from dgmm.engine.plan import Plan
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.estimators.search import MixtureSearch
    from dgmm.io.output import Written

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


TOLD_AT_END = ("score", "passes", "seconds", "seconds_on_samples")
"""What of ``fit_info_`` the last event has."""


def tell_end(log: str, model: GaussianMixture, path: str, **more: Any) -> None:
    """The last event: where the model is, and what it came to."""
    info = {name: model.fit_info_[name] for name in TOLD_AT_END}
    ended = {"converged": model.converged_, "reason": model.fit_info_["stopped_by"]}
    LOGS[log].say("done", model=path, **info, **ended, **more)


def tell_model(model: GaussianMixture, path: str, as_json: bool) -> None:
    """Print how a model was fitted: all as JSON, or for a person what matters first."""
    if as_json:
        click.echo(dumps(fit_record(model, path)))
        return
    tell({"model": path, **facts(model)}, as_json=False)


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
    tell(planned.described(), as_json=False)
