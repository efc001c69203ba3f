"""``write_report``: a model, its fit and rows on one page of HTML that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dgmm import engine
from dgmm.data import urls
from dgmm.errors import DataError, UsageError
from dgmm.estimators.conditionals import places_of
from dgmm.estimators.judging import judged
from dgmm.estimators.parameters import threads_of
from dgmm.estimators.record import degenerate_messages
from dgmm.estimators.rows import Data, open_rows
from dgmm.estimators.telling import facts, heaviest_first, mean_and_spread, names_of
from dgmm.inference.overview import SHOWN, Overview, edges_of, most_telling
from dgmm.io import storage
from dgmm.kernels.sweep import Sweep
from dgmm.model.lazy import Late
from dgmm.report.installed import check_pictures
from dgmm.report.pages import Table, page

if TYPE_CHECKING:
    from dgmm.estimators.conditionals import Feature
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.inference.standard_errors import StandardErrors
    from dgmm.model.mixture import Mixture

figures = Late("dgmm.report.figures")

OPEN: Final = 20
"""So many components are shown at once; the others are folded."""

CELLS: Final = 15_000
"""A table of all components and features has no more cells than this."""


def write_report(
    model: GaussianMixture,
    path: str | PathLike[str],
    X: Data = None,
    features: Sequence[Feature] | None = None,
    sample_weight: Data = None,
    noise: Data = None,
    name: str = "model.dgmm",
    overwrite: bool = False,
    sweep: Sweep | None = None,
) -> None:
    """Write what there is to say of a fitted model as one page of HTML.

    The page shows what was fitted and how that went, the components, what is wrong with them, and
    how to use the model; with rows, also their density, how certain labels are, and standard errors
    where these are told.  It opens from a disk, without network or scripts.

    Parameters
    ----------
    model : GaussianMixture
        A fitted one.
    path : str or PathLike
        Where the page goes, also a URL.
    X : rows (N, D), optional
        In any form that ``fit`` takes.  They are read once; and once more for standard errors.
    features : sequence of int or str, optional
        Those that are drawn, at most 12; by default the 6 that tell most of the components.
    sample_weight : (N,), optional
        Weights of the rows, for standard errors; elsewhere rows count as one each.
    noise : (N, D) or (N, D, D), optional
        Known errors of the rows.
    name : str, default="model.dgmm"
        What the page calls the model: its file, in the commands shown.
    overwrite : bool, default=False
        Whether to replace an existing file.
    sweep : callable, optional
        The engine to use; by default the one that ``fit`` would use.

    Raises
    ------
    UsageError
        For features that are not there, or where matplotlib is not installed.
    DataError
        If the rows can't be used, or there is a file already.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = dgmm.GaussianMixture(random_state=0).fit(rows)
    >>> dgmm.write_report(model, "report.html", rows)               # doctest: +SKIP
    """
    check_pictures()
    target = fspath(path)
    urls.refuse_directory(target)
    if not overwrite:
        urls.refuse_existing(target)
    fitted = model._fitted
    mixture, _ = judged(fitted)
    places = most_telling(mixture, SHOWN) if features is None else places_of(fitted, features)
    overview, errors, why = None, None, "give rows (DATA, or X) to have them"
    if X is not None:
        dataset = open_rows(fitted, X, {"noise": noise, "weights": sample_weight})
        sweep = sweep or engine.over(dataset, threads=threads_of(fitted))
        overview = fitted.overview(dataset, features=list(places), sweep=sweep)
        try:
            errors = fitted.standard_errors(dataset, sweep=sweep)
        except (UsageError, DataError) as error:
            why = str(error)
    text = _page(fitted, name, list(places), overview, errors, why)
    storage.put(target, memoryview(text.encode()))


def _rate(rows: int) -> str:
    """A rate of odd rows that is a row at least, of so many; 0 where that is not known."""
    rates = ("1e-4", "1e-3", "1e-2", "0.1")
    return next((rate for rate in rates if not rows or rows * float(rate) >= 1), "0.5")


def _page(
    model: GaussianMixture,
    name: str,
    places: list[int],
    overview: Overview | None,
    errors: StandardErrors | None,
    why: str,
) -> str:
    mixture, names = model.mixture_, names_of(model)
    shown, _ = judged(model)
    rows = model.fit_info_.get("rows", 0) if overview is None else overview.rows
    return page(
        "report.html",
        **_of_fit(model),
        name=name,
        quoted=shlex.quote(name),
        python=repr(name),
        rate=_rate(rows),
        names=names,
        mixture=mixture,
        noise=mixture.noise_component,
        pairs=figures.pairs(shown, names, places, edges_of(shown, places), overview=overview),
        certainty=None if overview is None else figures.certainty(overview),
        labels=None if overview is None else _labels(shown, overview),
        overview=overview,
        components=_components(model, places, OPEN, errors),
        all_components=_all(model, errors),
        errors=errors,
        why=why,
        threshold=vars(model).get("threshold_"),
        groups=vars(model).get("groups_"),
    )


def _of_fit(model: GaussianMixture) -> dict[str, Any]:
    """What a page says of the fit: what was asked for, how it went, and what is wrong."""
    info, objectives = model.fit_info_, [*model.lower_bounds_, model.lower_bound_]
    names, noise = vars(model).get("feature_names_in_"), model.mixture_.noise_component
    settings = {key: str(value) for key, value in model.get_params().items() if value is not None}
    return {
        "facts": facts(model),
        "settings": settings,
        "degenerate": degenerate_messages(info, names, model.reg_covar, noise is not None),
        "converged": model.converged_,
        "path": figures.path(objectives) if len(objectives) > 1 else None,
        "bounds": Table(
            "The objective by iteration, nats a row",
            ("iteration", "objective"),
            [(str(k), f"{each:.10g}") for k, each in enumerate(objectives)],
        ),
        "resolution": info.get("resolution"),
        "gap": info.get("estimated_gap"),
    }


def _all(model: GaussianMixture, errors: StandardErrors | None) -> Table | None:
    """All features of all components, or as many as a page can have; None if they are shown."""
    mixture = model.mixture_
    if mixture.components <= OPEN and mixture.n_features <= SHOWN:
        return None
    most = max(1, CELLS // mixture.n_features)
    return _components(model, list(range(mixture.n_features)), most, errors)


def _components(
    model: GaussianMixture, places: Sequence[int], most: int, errors: StandardErrors | None
) -> Table:
    """The heaviest components: weights, means with spreads, and errors if there are any."""
    mixture, names = model.mixture_, names_of(model)
    order, spread = heaviest_first(mixture)[:most], np.sqrt(mixture.variances)
    student = mixture.tails is not None
    rows = []
    for k in order:
        weight = f"{mixture.weights[k]:.4f}"
        cells = [mean_and_spread(float(mixture.means[k, j]), float(spread[k, j])) for j in places]
        if errors is not None:
            weight += f" (± {errors.weights[k]:.2g})"
            cells = [
                f"{cell} (± {errors.means[k, j]:.2g})"
                for cell, j in zip(cells, places, strict=True)
            ]
        rows.append((str(k), weight, *[f"{mixture.dof[k]:.3g}"] * student, *cells))
    shown = "all" if len(order) == mixture.components else f"the {len(order)} heaviest of"
    caption = f"{shown} {mixture.components} components, the heaviest first: " + (
        "locations ± scales" if student else "means ± standard deviations"
    )
    whole = len(places) == mixture.n_features
    which = "each feature" if whole else f"{len(places)} of {mixture.n_features} features"
    caption += f" of {which}, in the units of the data"
    caption += "; in brackets, standard errors of weights and means" * (errors is not None)
    heads = ("component", "weight", *["degrees of freedom"] * student, *(names[j] for j in places))
    return Table(caption[0].upper() + caption[1:], heads, rows)


def _labels(mixture: Mixture, overview: Overview) -> Table:
    """How many rows have each label, and how certain these are."""
    known = max(1, int(overview.labels.sum()))
    rows = []
    for k in np.argsort(-overview.labels, kind="stable"):
        count, sure = int(overview.labels[k]), int(overview.certainty[k, -1])
        called = "noise" if k == mixture.components else str(k)
        means = (f"{overview.mean_certainty[k]:.3f}", f"{sure / count:.1%}") if count else ("", "")
        weight = f"{mixture.all_weights[k]:.2%}"
        rows.append((called, f"{count:,}", f"{count / known:.2%}", weight, *means))
    heads = ("component", "rows", "share", "weight", "mean probability", "0.95 or more")
    return Table("Rows by their most probable component", heads, rows)
