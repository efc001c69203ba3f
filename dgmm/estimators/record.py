"""What a fitted model has after a run: its attributes, the record of the fit, and warnings."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dgmm import engine
from dgmm.em.causes import Collapse, column_names, component_names
from dgmm.em.collapse import LabelledSample, collapses
from dgmm.em.degenerate import ALONE, Rivals, bare, singular
from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.em.progress import Candidate, Progress
from dgmm.em.sample import Sample
from dgmm.errors import DegenerateWarning, ObjectiveFellWarning
from dgmm.estimators.session import Session
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.kernels import choice
from dgmm.kernels.outputs import row_outputs
from dgmm.kernels.rounding import OMITTED
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.tails import LEAST, MOST

LOOKED_AT = 20_000
"""How many rows of a sample are looked at to see why components are singular."""

NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase "
    "max_iter, tol, or check for degenerate data."
)
"""In scikit-learn's words, which filters of warnings know."""


def fitted(
    progress: Progress, session: Session, seconds: float, cut: str = "max_seconds"
) -> dict[str, Any]:
    """The attributes of the model that a run has come to: its best mixture, by name.

    The run took so many ``seconds``; ``cut`` is why it stopped, if it did before its end.
    """
    with engine.one_blas_thread():
        return _fitted(progress, session, seconds, cut)


def _fitted(progress: Progress, session: Session, seconds: float, cut: str) -> dict[str, Any]:
    machines = {"seconds": seconds, "engine": session.plan.engine, "cached": session.plan.cached}
    return {**reached(progress, session.names, cut, machines), "plan_": session.plan}


def reached(
    progress: Progress, names: NDArray[Any] | None, cut: str, machines: dict[str, Any]
) -> dict[str, Any]:
    """The attributes of the model that a run has come to, by name, but for its plan.

    ``names`` (D,) are those of the features, and ``machines`` is what ``fit_info_`` says of these.
    """
    run = progress.run
    best = run.best
    return {
        "mixture_": progress.mixture,
        "sufficient_statistics_": _statistics(best, run.context),
        "converged_": run.converged,
        "n_iter_": len(run.trace),
        "lower_bounds_": list(run.trace),
        "lower_bound_": best.objective,
        "n_features_in_": best.mixture.n_features,
        "feature_names_in_": names,
        "fit_info_": {
            **_of_run(progress, cut),
            **machines,
            **_degenerate(progress),
            "fixed": {} if run.context.model.fixed is None else run.context.model.fixed.record(),
            "prior": run.context.model.prior.numbers(),
            "unused": _unused(progress),
            "reg_covar": (run.context.model.prior.reg * run.context.frame.scale**2).tolist(),
        },
    }


def _statistics(best: State, context: FitContext) -> SufficientStatistics | None:
    """The statistics of all rows, where they add up; of heavy tails or factors they do not."""
    model = context.model
    if model.tails is not None or model.covariance_model.along_loadings:
        return None
    return SufficientStatistics.of(best, context)


def _unused(progress: Progress) -> list[int]:
    """The components that the posterior leaves out of predictions: they have next to no rows."""
    run, moments = progress.run, progress.moments
    unused = run.context.model.prior.unused(run.best.mixture, moments.weight / moments.rows)
    return np.flatnonzero(unused).tolist()


def _of_run(progress: Progress, cut: str) -> dict[str, Any]:
    """What ``fit_info_`` says of the work that was done, and what came of it."""
    run, moments = progress.run, progress.moments
    best = run.best
    gain, resolution = (
        run.starts_gain,
        run.context.model.free_parameters(best.mixture) / (2 * moments.weighted),
    )
    return {
        "strategy": progress.best.spec.strategy.name,
        "rows": moments.rows,
        "weight": moments.weight,
        "incomplete": moments.incomplete,
        "left_out": moments.left_out,
        "labelled": 0 if moments.allowed is None else int(moments.allowed[1].sum()),
        "noise": progress.best.spec.observation.deconvolves,
        "passes": progress.passes,
        "sample_passes": progress.densities / (moments.rows * best.mixture.components),
        "starts": run.starts,
        "optima": run.optima,
        "starts_gain": gain if gain is None else gain / resolution,
        "starts_seconds": progress.starts_seconds,
        "rejected": run.rejected,
        "stopped_by": run.reason if run.trial is None else cut,
        "estimated_gap": run.gap_upper if np.isfinite(run.gap_upper) else None,
        "resolution": resolution,
        "seconds_on_samples": progress.seconds_on_samples,
        "score": best.score,
        "objective": best.objective,
        "kernel": choice.described(run.context.model.observation.kernel),
        "float32_passes": run.float32_passes,
        "float32_bound": run.bound,
        "omitted_bound": OMITTED[run.bound > 0],
    }


def _degenerate(progress: Progress) -> dict[str, Any]:
    """What ``fit_info_`` says of empty and singular components, and of where ``reg`` rivals one."""
    run, moments = progress.run, progress.moments
    best = run.best
    rivals, reg = Rivals.of(best, run.context), run.context.model.prior.reg
    known = singular(best, run.context)
    counts = best.statistics.sums[: best.mixture.components, 0]
    counts = counts * (moments.weighted / moments.weight)
    noiseless = best.mixture.covariances.noiseless(reg, counts)
    noiseless[list(known)] = False
    return {
        "empty": list(best.empty),
        **singular_of(
            known,
            bare(best, run.context),
            counts,
            reg,
            (moments.sample, progress.mixture),
        ),
        "noiseless": {
            "components": np.flatnonzero(noiseless.any(axis=1)).tolist(),
            "features": np.flatnonzero(noiseless.any(axis=0)).tolist(),
        },
        "rivalled": {
            "components": list(rivals.components),
            "features": list(rivals.features),
        },
        **({} if best.mixture.tails is None else {"dof_at_limit": best.mixture.tails.limits}),
    }


def singular_of(
    known: Sequence[int],
    bare: Trial,
    counts: Array,
    reg: Array,
    sampled: tuple[Sample, Mixture] | None = None,
) -> dict[str, Any]:
    """What a fit's record says of components that are singular, and why.

    They are those ``known``, and those that collapse in the M-step without ``reg_covar``, whose
    mixture in the frame is ``bare``'s.  ``counts`` (K,) are their rows; the fitted mixture (of the
    data) tells which rows of a sample are whose.
    """
    singular = sorted({*known, *bare.singular})
    labelled = None
    if singular and sampled is not None:
        rows = sampled[0].first(LOOKED_AT).rows
        rows = rows[~np.isnan(rows).any(axis=1)]
        labelled = LabelledSample(rows, row_outputs(rows, sampled[1], "labels"))
    causes = collapses(bare.mixture, singular, counts, reg, ALONE, labelled)
    return {"singular": singular, "singular_causes": [cause.record() for cause in causes]}


def what_is_left(fitted: dict[str, Any]) -> str:
    """How much a fit that did not converge has left to gain, in words."""
    gap, resolution = fitted["fit_info_"]["estimated_gap"], fitted["fit_info_"]["resolution"]
    if gap is not None:
        return (
            f"the objective could still grow by {gap:.2e}, as estimated, "
            f"{gap / resolution:.2g} of the statistical resolution"
        )
    if not fitted["lower_bounds_"]:
        return "what the objective could still grow by is not known yet"
    change = fitted["lower_bound_"] - fitted["lower_bounds_"][-1]
    return f"the last one changed the objective by {change:.3g}"


def warn_of_degenerate(
    fit_info: dict[str, Any],
    names: NDArray[Any] | None,
    reg_covar: float | None,
    has_noise: bool,
    stacklevel: int,
) -> None:
    """Warn of components that are empty, singular, or held up by ``reg_covar`` alone."""
    for message in degenerate_messages(fit_info, names, reg_covar, has_noise):
        warnings.warn(message, DegenerateWarning, stacklevel=stacklevel)


def degenerate_messages(
    fit_info: dict[str, Any],
    names: NDArray[Any] | None,
    reg_covar: float | None,
    has_noise: bool,
) -> list[str]:
    """The messages about such components, one for each problem."""
    empty: list[int] = fit_info.get("empty", [])
    called = None if names is None else [str(name) for name in names]
    causes = fit_info.get("singular_causes", [])
    messages = [Collapse.of(cause).said(called, has_noise) for cause in causes]
    if empty:
        have = "have" if len(empty) > 1 else "has"
        messages.append(
            f"{component_names(empty)} {have} become empty; mean and covariance are the "
            "last it had. Fit fewer components"
        )
    rivals = fit_info.get("rivalled", {"components": [], "features": []})
    if rivals["components"]:
        given = "its default" if reg_covar is None else f"{reg_covar:g}"
        messages.append(
            f"reg_covar ({given}) makes half or more of the variance of "
            f"{column_names(tuple(rivals['features']), called)} in "
            f"{component_names(rivals['components'])}: these are narrower than it is good for. "
            "Give a smaller reg_covar; or leave a column out that follows from others but for "
            "rounding (a sum, a difference); or, if many rows have one value there (0, say), which "
            "no reg_covar mends, leave that column out or fit those rows by themselves"
        )
    noiseless = fit_info.get("noiseless", {"components": [], "features": []})
    if noiseless["components"]:
        messages.append(
            f"{column_names(tuple(noiseless['features']), called)} in "
            f"{component_names(noiseless['components'])} came to noise that can't be told from "
            "none: factors alone make up what they are (a Heywood case). Choose fewer factors, or "
            'covariance_type="factor-tied" or "ppca"'
        )
    messages += _limit_messages(fit_info.get("dof_at_limit", {"least": [], "most": []}))
    return messages


def _limit_messages(limits: dict[str, list[int]]) -> list[str]:
    """The messages about components whose degrees of freedom are at a limit."""
    messages = []
    if heavy := limits["least"]:
        messages.append(
            f"{component_names(heavy)} came to {LEAST:g} degrees of freedom, the least there are: "
            "its tails are heavier than those of any data. Look for rows that are all equal, fit "
            "more components, or give dof"
        )
    if light := limits["most"]:
        messages.append(
            f"{component_names(light)} came to {MOST:g} degrees of freedom, the most there are: as "
            'good as normal. tails="normal" fits the same there'
        )
    return messages


def warn_of(fitted: dict[str, Any], candidate: Candidate, stacklevel: int = 4) -> None:
    """Warn of what is wrong with the best ``candidate``, ``fitted``, before the model takes it on.

    So where warnings are errors, a fit that warns leaves the model as it was.
    """
    spec, max_decrease = candidate.spec, max(run.max_decrease for run in candidate.runs)
    info, names = fitted["fit_info_"], fitted["feature_names_in_"]
    has_noise = fitted["mixture_"].noise_component is not None
    warn_of_degenerate(info, names, spec.reg_covar, has_noise, stacklevel + 1)
    if max_decrease > 0:
        warnings.warn(
            f"the objective fell by {max_decrease:.3g} in an iteration, more than rounding "
            "explains; check the scale of the columns, or raise reg_covar",
            ObjectiveFellWarning,
            stacklevel=stacklevel,
        )
    late = info["stopped_by"] == "max_seconds"
    if not fitted["converged_"] and (spec.max_iter or late):
        iterations = f"{fitted['n_iter_']} iteration{'s' * (fitted['n_iter_'] != 1)}"
        warnings.warn(
            f"{NOT_CONVERGED} After {iterations}, {what_is_left(fitted)}. "
            f"Raise {'max_seconds' if late else 'max_iter'} or {spec.strategy.goal(spec)}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def become(model: Any, **fitted: Any) -> None:
    """Give a model these attributes, in one step: an interrupt finds the old model or the new one.

    Attributes that a model may lack are left out where they are None.  With another mixture go the
    threshold and the groups, unless they are given with it.
    """
    if "mixture_" in fitted:
        fitted["mixture_"] = _frozen(fitted["mixture_"])
        fitted = {"threshold_": None, "groups_": None, **fitted}
    state = {**vars(model), **fitted}
    for name in ("feature_names_in_", "sufficient_statistics_", "threshold_", "groups_"):
        if state.get(name) is None:
            state.pop(name, None)
    model.__dict__ = state


def _frozen(mixture: Mixture) -> Mixture:
    """The same mixture, in arrays that can't be written to: its parts belong together."""
    parameters = mixture.covariances
    values, factors = read_only(parameters.values), read_only(parameters.precisions_cholesky)
    covariances = parameters.model.of_factors(values, factors, mixture.means.shape)
    noise = mixture.noise_component
    if noise is not None:
        noise = replace(noise, low=read_only(noise.low), extent=read_only(noise.extent))
    tails = mixture.tails
    if tails is not None:
        tails = replace(tails, dof=read_only(tails.dof))
    return Mixture(read_only(mixture.weights), read_only(mixture.means), covariances, noise, tails)


def read_only(array: Array) -> Array:
    """The same numbers, not to be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
