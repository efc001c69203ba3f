"""Priors: against plain MAP EM, a component at a time, and against closed forms."""

import json
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import QUIET
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from dgmm import (
    ConjugatePrior,
    GaussianMixture,
    SufficientStatistics,
    engine,
    load,
    select,
)
from dgmm.cli.commands import main
from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.evaluate import evaluate
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.em.squarem import coordinates, mixture_at
from dgmm.errors import DgmmError, UsageError
from dgmm.kernels.sweep import Sweep
from dgmm.model.covariance import COVARIANCE_MODELS

Array = np.ndarray
KINDS = sorted(COVARIANCE_MODELS)
every_structure = pytest.mark.parametrize("kind", KINDS)
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def in_memory(rows: Array) -> Sweep:
    return engine.in_memory_sweep(rows, threads=1)


def groups(n: int, d: int, k: int, seed: int = 0, apart: float = 3.0) -> Array:
    rng = np.random.default_rng(seed)
    centres = apart * rng.normal(size=(k, d))
    return centres[rng.integers(0, k, n)] + rng.normal(size=(n, d)) * rng.uniform(0.5, 2, size=d)


def dense(kind: str, values: Array, k: int, d: int) -> Array:
    return np.array(COVARIANCE_MODELS[kind].of_covariances(np.asarray(values), (k, d)).dense())


def default_scale(kind: str, rows: Array, weights: Array, k: int) -> Array:
    """Fraley and Raftery's, but for each feature's own variance where there are no covariances."""
    d = rows.shape[1]
    away = rows - np.average(rows, axis=0, weights=weights)
    covariance = (away.T * weights) @ away / (weights.sum() - 1)
    variances = np.diag(covariance)
    own = {"full": covariance, "tied": covariance, "diag": variances, "spherical": variances.mean()}
    return np.asarray(own[kind] / k ** (2 / d))


def map_step(
    kind: str, rows: Array, weights: Array, shares: Array, prior: dict[str, float], scale: Array
) -> tuple[Array, Array, Array]:
    """The most probable mixture for these ``shares`` (n, K), by the formulas of the paper."""
    d, k = rows.shape[1], shares.shape[1]
    kappa, nu, alpha = prior["kappa"], prior["nu"], prior["alpha"]
    m = np.average(rows, axis=0, weights=weights)
    shares = shares * weights[:, None]
    counts = shares.sum(axis=0)
    pi = (counts + alpha - 1) / (weights.sum() + k * (alpha - 1))
    means, scatters = np.empty((k, d)), np.empty((k, d, d))
    for j in range(k):
        own = shares[:, j] @ rows / counts[j]
        means[j] = (shares[:, j] @ rows + kappa * m) / (counts[j] + kappa)
        away = rows - own
        drawn = kappa * counts[j] / (kappa + counts[j]) * np.outer(own - m, own - m)
        scatters[j] = (away.T * shares[:, j]) @ away + drawn
    diagonals = np.diagonal(scatters, axis1=1, axis2=2)
    made = {
        "full": lambda: (scale + scatters) / (counts + nu + d + 2)[:, None, None],
        "tied": lambda: (scale + scatters.sum(axis=0)) / (counts.sum() + nu + d + k + 1),
        "diag": lambda: (scale + diagonals) / (counts + nu + 3)[:, None],
        "spherical": lambda: (scale + diagonals.sum(axis=1)) / (counts * d + nu + d + 2),
    }
    return pi, means, made[kind]()


def log_prior(
    kind: str, mixture: tuple[Array, Array, Array], prior: dict[str, float], scale: Array, m: Array
) -> float:
    """The logarithm of the density of covariances, means and weights, but for constants."""
    pi, means, values = mixture
    k, d = means.shape
    covariances, nu = dense(kind, values, k, d), prior["nu"]
    total = (prior["alpha"] - 1) * np.log(pi).sum()
    for mean, covariance in zip(means, covariances, strict=True):  # normal, given the covariance
        solved = np.linalg.solve(covariance, mean - m)
        total -= 0.5 * (np.linalg.slogdet(covariance)[1] + prior["kappa"] * (mean - m) @ solved)
    if kind in ("full", "tied"):  # inverse Wishart
        for covariance in covariances if kind == "full" else covariances[:1]:
            total -= 0.5 * (nu + d + 1) * np.linalg.slogdet(covariance)[1]
            total -= 0.5 * np.trace(np.linalg.solve(covariance, scale))
    else:  # inverse gamma
        total -= float(np.sum((nu / 2 + 1) * np.log(values) + scale / values / 2))
    return float(total)


def log_joint(kind: str, mixture: tuple[Array, Array, Array], rows: Array) -> Array:
    pi, means, values = mixture
    covariances = dense(kind, values, *means.shape)
    return np.stack(
        [
            np.log(pi[j])
            + np.atleast_1d(multivariate_normal(means[j], covariances[j]).logpdf(rows))
            for j in range(len(pi))
        ],
        axis=1,
    )


@quiet
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("d", "given_scale"), [(1, False), (3, False), (3, True)])
@every_structure
def test_em_is_that_of_the_paper(kind: str, d: int, given_scale: bool, weighted: bool) -> None:
    """Iteration by iteration: parameters, and the objective."""
    rows, k = groups(60, d, 2), 2
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2, 60) if weighted else np.ones(60)
    prior = {"kappa": 0.7, "nu": d + 5.5, "alpha": 2.5}
    scale = default_scale(kind, rows, weights, k)
    if given_scale:
        root = rng.normal(size=(d, d))
        full = root @ root.T + np.eye(d)
        scale = {"diag": np.diag(full), "spherical": np.asarray(1.5)}.get(kind, full)
    asked = ConjugatePrior(
        weight_concentration=2.5,
        mean_precision=0.7,
        degrees_of_freedom=d + 5.5,
        scale=scale if given_scale else None,
    )
    start = np.full(2, 0.5), rows[:2], np.ones(COVARIANCE_MODELS[kind].shape(k, d))
    if kind in ("full", "tied"):
        start = (*start[:2], np.broadcast_to(np.eye(d), COVARIANCE_MODELS[kind].shape(k, d)))
    mixture, m = start, np.average(rows, axis=0, weights=weights)
    for iteration in range(4):
        model = GaussianMixture(
            k,
            covariance_type=kind,
            prior=asked,
            strategy="em",
            tol=0,
            reg_covar=0,
            max_iter=iteration,
            weights_init=start[0],
            means_init=start[1],
            precisions_init=start[2],
        ).fit(rows, sample_weight=weights if weighted else None)
        for mine, theirs in zip(
            (model.weights_, model.means_, model.covariances_), mixture, strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
        joint = log_joint(kind, mixture, rows)
        norm = np.logaddexp.reduce(joint, axis=1)
        objective = weights @ norm + log_prior(kind, mixture, prior, scale, m)
        np.testing.assert_allclose(model.lower_bound_, objective / weights.sum(), rtol=1e-9)
        np.testing.assert_allclose(model.fit_info_["score"], weights @ norm / weights.sum())
        shares = np.exp(joint - norm[:, None])
        mixture = map_step(kind, rows, weights, shares, prior, scale)


@every_structure
def test_one_component_is_the_closed_form(kind: str) -> None:
    rows = groups(30, 3, 1)
    every, d = np.ones(30), 3
    scale = default_scale(kind, rows, every, 1)
    prior = {"kappa": 0.01, "nu": d + 2.0, "alpha": 1.0}
    for strategy in ("em", "auto"):
        model = GaussianMixture(
            covariance_type=kind, prior="conjugate", strategy=strategy, reg_covar=0
        ).fit(rows)
        _, means, values = map_step(kind, rows, every, np.ones((30, 1)), prior, scale)
        np.testing.assert_allclose(model.means_, means, rtol=1e-9)
        np.testing.assert_allclose(model.covariances_, values, rtol=1e-9)
        assert model.converged_


@every_structure
def test_equal_rows_have_the_variance_of_the_prior(kind: str) -> None:
    """And no component is singular, nor warned of."""
    rows, d = np.full((7, 2), 3.0), 2
    scale = {"full": 2 * np.eye(2), "tied": 2 * np.eye(2), "diag": np.array([2.0, 2.0])}
    prior = ConjugatePrior(scale=scale.get(kind, 2.0))
    model = GaussianMixture(covariance_type=kind, prior=prior, reg_covar=0).fit(rows)
    denominators = {"full": 7 + 4 + d + 2, "tied": 7 + 4 + d + 2, "diag": 7 + 4 + 3}
    variance = 2 / denominators.get(kind, 7 * d + 4 + d + 2)
    np.testing.assert_allclose(model.mixture_.variances, variance, rtol=1e-12)
    np.testing.assert_allclose(model.means_, 3.0)
    assert model.fit_info_["singular"] == []


@every_structure
def test_a_prior_of_no_weight_is_maximum_likelihood(kind: str) -> None:
    rows = groups(300, 2, 3)
    target = {"diag": np.ones(2), "spherical": 1.0}.get(kind, np.eye(2))
    fits = [
        GaussianMixture(3, covariance_type=kind, prior=prior, random_state=0).fit(rows)
        for prior in (None, ConjugatePrior.shrinkage(target, rows=0))
    ]
    for name in ("weights_", "means_", "covariances_"):
        mine, theirs = (getattr(each, name) for each in fits)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fits[0].lower_bound_, fits[1].lower_bound_, rtol=1e-9)


@every_structure
def test_shrinkage_is_so_many_rows_of_the_target(kind: str) -> None:
    rows, d = groups(20, 3, 1), 3
    target = {"diag": np.array([1.0, 2, 3]), "spherical": 2.0}.get(kind, np.diag([1.0, 2, 3]))
    prior = ConjugatePrior.shrinkage(target, rows=10)
    model = GaussianMixture(covariance_type=kind, prior=prior, reg_covar=0).fit(rows)
    own = np.cov(rows.T, bias=True)
    mean = np.asarray(
        {"full": own[None], "tied": own, "diag": np.diag(own)[None]}.get(
            kind, np.full(1, np.trace(own) / d)
        )
    )
    np.testing.assert_allclose(model.covariances_, (20 * mean + 10 * target) / 30, rtol=1e-9)
    np.testing.assert_allclose(model.means_[0], rows.mean(axis=0))


STRONG = ConjugatePrior(weight_concentration=30.0, mean_precision=20.0, degrees_of_freedom=60.0)
"""Beside a few hundred rows it is seen in every parameter."""


@every_structure
def test_the_step_of_em_is_the_gradient_of_the_objective(kind: str) -> None:
    """Near the optimum, in the coordinates of the solvers: by differences of the objective."""
    rows = groups(200, 2, 2, apart=1.0)
    model = GaussianMixture(2, covariance_type=kind, prior=STRONG, tol=1e-14, random_state=0)
    *_, last = model.set_params(strategy="em", max_iter=5000).fit_passes(rows)
    run = last.best.run
    context: FitContext = run.context
    prior, optimum, live = context.model.prior, run.best.mixture, np.ones(2, bool)
    sweep = in_memory(rows)

    def judged(place: Array) -> tuple[float, Array]:
        trial = mixture_at(place, optimum, optimum, live, context.model)
        (state,) = evaluate(sweep, [context], [Trial(trial.mixture)])
        image = context.m_step(state).mixture
        ends = [coordinates(each, optimum, live, prior) for each in (trial.mixture, image)]
        return state.objective, ends[1] - ends[0]

    middle = coordinates(optimum, optimum, live, prior)
    rng = np.random.default_rng(0)
    errors = []
    away = rng.normal(size=len(middle))
    away[:2] -= away[:2].mean()  # what adds to all logarithms of weights changes nothing
    for size in (0.02, 0.01):
        place = middle + size * away / np.linalg.norm(away)
        step = judged(place)[1]
        gradient = np.empty(len(place))
        for j in range(len(place)):
            h = 1e-5 * np.eye(len(place))[j]
            gradient[j] = (judged(place + h)[0] - judged(place - h)[0]) / 2e-5
        root = prior.roots(optimum).weights
        step[:2] -= root * (root @ step[:2]) / (root @ root)  # along the sum of weights
        errors.append(np.linalg.norm(step - gradient) / np.linalg.norm(gradient))
    assert errors[1] < 0.02
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("rows", [400, 6000])
@every_structure
def test_all_strategies_reach_one_optimum_and_never_fall(kind: str, rows: int) -> None:
    """Where rows are few, and where starts compete on a sample; a strong prior, and weights."""
    x = groups(rows, 3, 3)
    w = np.random.default_rng(0).uniform(0.5, 2, rows)
    model = GaussianMixture(
        3, covariance_type=kind, prior=STRONG, random_state=0, resolution=1e-4
    ).fit(x, None, w)
    assert model.converged_
    for _ in range(2):
        trace = np.array([*model.lower_bounds_, model.lower_bound_])
        assert (np.diff(trace) >= -1e-9).all()
        objective, means = model.lower_bound_, model.means_
        model.set_params(strategy="em", tol=1e-12, max_iter=5000, warm_start=True).fit(x, None, w)
    np.testing.assert_allclose(model.lower_bound_, objective, atol=2e-6)
    np.testing.assert_allclose(model.means_, means, atol=0.02)


@quiet
@every_structure
def test_a_surrogate_goes_to_the_optimum_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between passes, a sample stands in for all rows, and for the prior beside these."""
    monkeypatch.setattr("dgmm.em.strategies.FAR_BELOW", 1)  # as if there were many more rows
    rows = groups(20_000, 2, 3, apart=2.0)
    prior = ConjugatePrior(mean_precision=1000.0, degrees_of_freedom=3000.0)
    how = {"init_params": "kmeans", "random_state": 0, "resolution": 1e-3}
    model = GaussianMixture(3, covariance_type=kind, prior=prior, **how)
    runs = [each.run for each in model.fit_passes(rows) if each.candidates]
    assert isinstance(runs[0].solver, ControlVariateEM)
    objectives = [run.best.objective for run in runs]
    assert objectives == sorted(objectives)
    reached = model.lower_bound_
    model.set_params(strategy="em", tol=1e-12, max_iter=5000, warm_start=True).fit(rows)
    assert reached <= model.lower_bound_ + 1e-9
    p = model.mixture_.free_parameters
    assert model.lower_bound_ - reached < 0.02 * p / (2 * len(rows))


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(2, 12),
    d=st.integers(1, 3),
    k=st.integers(1, 6),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
)
def test_nothing_collapses(n: int, d: int, k: int, kind: str, seed: int) -> None:
    """Few rows, many of them equal, more components than rows of their own."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))[rng.integers(0, n, n)]
    rows[0] = rows[-1] + 1  # so that there is some spread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", ".*become empty.*")
        warnings.filterwarnings("ignore", ".*follow from each other in all rows.*")
        warnings.filterwarnings("ignore", ".*too few to spread.*")
        warnings.filterwarnings("ignore", ".*distinct.*")
        model = GaussianMixture(
            min(n, k),
            covariance_type=kind,
            prior="conjugate",
            random_state=0,
            precision="float64",
        ).fit(rows)
    assert np.isfinite(model.lower_bound_)
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-9 * np.abs(trace[1:])).all()
    if kind in ("diag", "spherical"):  # whatever is flat in all rows is so in a matrix of them
        assert model.fit_info_["singular"] == []
        assert model.mixture_.variances.min() > 1e-3 * rows.var(axis=0).min() / n


@every_structure
def test_units_don_t_matter(kind: str) -> None:
    rows = groups(300, 3, 3)
    scale = np.full(3, 7.0) if kind == "spherical" else np.array([1e-3, 1.0, 3e4])
    fits = [
        GaussianMixture(3, covariance_type=kind, prior="conjugate", random_state=0).fit(x)
        for x in (rows, rows * scale + 5.0)
    ]
    np.testing.assert_allclose(fits[1].means_, fits[0].means_ * scale + 5.0, rtol=1e-6)
    moved = fits[0].mixture_.covariances.dense() * scale[:, None] * scale
    np.testing.assert_allclose(fits[1].mixture_.covariances.dense(), moved, rtol=1e-5, atol=1e-12)


@every_structure
def test_rows_with_holes_meet_the_same_prior(kind: str) -> None:
    """The objective of a fit is that of row by row, with the default prior of what was observed."""
    rows = groups(80, 2, 2)
    rows[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
    rows = rows[~np.isnan(rows).all(axis=1)]
    model = GaussianMixture(
        2,
        covariance_type=kind,
        prior="conjugate",
        missing="marginalize",
        reg_covar=0,
        random_state=0,
    ).fit(rows)
    n, d = rows.shape
    variances = np.nanvar(rows, axis=0) * n / (n - 1) / 2 ** (2 / d)
    scale = {"diag": variances, "spherical": variances.mean()}.get(kind, np.diag(variances))
    numbers = {"kappa": 0.01, "nu": d + 2.0, "alpha": 1.0}
    mixture = model.weights_, model.means_, model.covariances_
    every = np.array([multivariate_rows(row, model) for row in rows])
    prior = log_prior(kind, mixture, numbers, np.asarray(scale), np.nanmean(rows, axis=0))
    np.testing.assert_allclose(model.lower_bound_, every.mean() + prior / n, rtol=1e-9)
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-9).all()


def multivariate_rows(row: Array, model: GaussianMixture) -> float:
    o = np.flatnonzero(~np.isnan(row))
    covariances = model.mixture_.covariances.dense()
    each = [
        np.log(weight) + multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o])
        for weight, mean, covariance in zip(model.weights_, model.means_, covariances, strict=True)
    ]
    return float(np.logaddexp.reduce(each))


@every_structure
def test_the_prior_of_the_first_rows_stays(kind: str, tmp_path: Path) -> None:
    """In the model file, in statistics of their own, and when rows are added."""
    first, more = groups(100, 2, 2), groups(50, 2, 2, seed=5) + 3
    asked = ConjugatePrior(mean_precision=5.0, degrees_of_freedom=20.0, weight_concentration=3.0)
    model = GaussianMixture(
        2,
        covariance_type=kind,
        prior=asked,
        reg_covar=0,
        random_state=0,
        resolution=1e-6,
        max_iter=1000,
    ).fit(first)
    model.save(tmp_path / "model.dgmm")
    again = load(tmp_path / "model.dgmm")
    assert again.prior.record() == asked.record()
    added = again.summarize(more)
    added.save(tmp_path / "more.sums")
    again.update(again.sufficient_statistics_ + SufficientStatistics.load(tmp_path / "more.sums"))
    # An M-step for all rows, with the shares they have now, and the prior that the first made.
    both = np.concatenate([first, more])
    numbers = {"kappa": 5.0, "nu": 20.0, "alpha": 3.0}
    scale = default_scale(kind, first, np.ones(100), 2)
    joint = log_joint(kind, (model.weights_, model.means_, model.covariances_), both)
    shares = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    counts = shares.sum(axis=0)
    m, k, d = first.mean(axis=0), 2, 2
    means = (shares.T @ both + 5.0 * m) / (counts + 5.0)[:, None]
    np.testing.assert_allclose(again.means_, means, rtol=1e-9)
    np.testing.assert_allclose(again.weights_, (counts + 2) / (150 + k * 2), rtol=1e-9)
    if kind == "full":
        for j in range(k):
            own = shares[:, j] @ both / counts[j]
            away = both - own
            drawn = 5 * counts[j] / (5 + counts[j]) * np.outer(own - m, own - m)
            scatter = scale + (away.T * shares[:, j]) @ away + drawn
            np.testing.assert_allclose(
                again.covariances_[j], scatter / (counts[j] + 20 + d + 2), rtol=1e-9
            )
    # The bound for all rows is what it is by its definition, at what it was made with.
    norm = np.logaddexp.reduce(joint, axis=1).sum()
    old = (model.weights_, model.means_, model.covariances_)
    whole = (norm + log_prior(kind, old, numbers, scale, m)) / 150
    np.testing.assert_allclose(again.lower_bounds_, [whole], rtol=1e-9)
    assert again.lower_bound_ >= whole


def test_statistics_of_other_priors_do_not_add_up() -> None:
    rows = groups(100, 2, 2)
    fits = [
        GaussianMixture(
            2,
            prior=prior,
            weights_init=[0.5, 0.5],
            means_init=rows[:2],
            precisions_init=[np.eye(2)] * 2,
            max_iter=0,
        ).fit(rows)
        for prior in (None, "conjugate")
    ]
    sums = [each.sufficient_statistics_ for each in fits]
    assert sums[0].differs(sums[1]) == "their models were fitted apart"
    with pytest.raises(UsageError, match="prior were"):
        fits[1].set_params(prior=None).partial_fit(rows)


def test_rows_are_added_under_the_same_numbers_of_a_prior(tmp_path: Path) -> None:
    """Given ones that changed are refused; the same, and what is the data's own, are taken."""
    rows, begin = 100 * groups(60, 2, 2) + 7, {"random_state": 0, "max_iter": 3, "tol": 1.0}
    own: dict[str, Any] = {"mean": [1.0, 200.0], "scale": [[900.0, 100.0], [100.0, 400.0]]}
    model = GaussianMixture(2, prior=ConjugatePrior(**own), **begin).fit(rows)
    model.save(tmp_path / "model.dgmm")
    changes: dict[str, Any] = {
        "weight_concentration": 2.0,
        "mean_precision": 1.0,
        "degrees_of_freedom": 9.0,
        "mean": [1.0, 200.1],
        "scale": [[900.0, 100.0], [100.0, 401.0]],
    }
    for name, value in changes.items():
        again = load(tmp_path / "model.dgmm")
        again.set_params(prior=ConjugatePrior(**{**own, name: value}))
        with pytest.raises(UsageError, match=f"{name} of the prior is another now"):
            again.partial_fit(rows)
    for same in (ConjugatePrior(**own), ConjugatePrior(degrees_of_freedom=4.0), "conjugate"):
        load(tmp_path / "model.dgmm").set_params(prior=same).partial_fit(rows)
    shrunk = GaussianMixture(2, prior=ConjugatePrior.shrinkage(own["scale"], 5), **begin).fit(rows)
    shrunk.partial_fit(rows)
    for target, count, name in ((own["scale"], 6, "rows"), (np.eye(2), 5, "covariance")):
        with pytest.raises(UsageError, match=f"{name} of the prior"):
            shrunk.set_params(prior=ConjugatePrior.shrinkage(target, count)).partial_fit(rows)
    units = np.array([1e-7, 1e7])  # a mean is compared feature by feature
    small = GaussianMixture(2, prior=ConjugatePrior(mean=units), **begin).fit(rows * units)
    small.partial_fit(rows * units)
    with pytest.raises(UsageError, match="mean of the prior is another now"):
        small.set_params(prior=ConjugatePrior(mean=[3e-7, 1e7])).partial_fit(rows * units)


def test_checkpoint_and_clusters_and_select(tmp_path: Path) -> None:
    rows = groups(600, 2, 3)
    how = {"prior": ConjugatePrior(mean_precision=2.0), "random_state": 0}
    whole = GaussianMixture(3, **how).fit(rows)
    path = tmp_path / "passes"
    model = GaussianMixture(3, **how, checkpoint=path)
    for _ in zip(range(2), model.fit_passes(rows), strict=False):
        pass
    model.fit(rows)
    assert (model.means_ == whole.means_).all()
    assert model.lower_bound_ == whole.lower_bound_
    with pytest.raises(DgmmError, match="prior is"):
        GaussianMixture(3, random_state=0, checkpoint=path).fit(rows)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **QUIET) as cluster,
        Client(cluster),
    ):
        lazily = GaussianMixture(3, **how).fit(da.from_array(rows, chunks=(100, 2)))
    np.testing.assert_allclose(np.sort(lazily.means_[:, 0]), np.sort(whole.means_[:, 0]), rtol=1e-3)
    search = select(rows, [1, 2, 3], ["full", "tied", "diag"], **how)
    best = search.best_estimator_
    n, p = len(rows), best.mixture_.free_parameters
    bic = -2 * n * best.score(rows) + p * np.log(n)  # of the likelihood, without the prior
    np.testing.assert_allclose(-search.best_score_, bic, rtol=1e-9)
    assert best.fit_info_["prior"]["mean_precision"] == 2.0


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ("wishart", "prior must be one of"),
        (3, "prior must be None, a ConjugatePrior or one of none, conjugate, variational, not 3"),
        (ConjugatePrior(weight_concentration=0.5), "weight_concentration of a ConjugatePrior"),
        (ConjugatePrior(mean_precision=-1), "mean_precision of a ConjugatePrior must be"),
        (ConjugatePrior(mean=[1.0]), "mean of a prior must have shape \\(2,\\)"),
        (ConjugatePrior(scale=[1.0, 1.0]), "scale of a prior must have shape \\(2, 2\\)"),
        (ConjugatePrior(scale=-np.eye(2)), "scale of a prior must be positive definite"),
        (ConjugatePrior(covariance=np.eye(2)), "covariance and rows together"),
        (ConjugatePrior(covariance=np.eye(2), rows=1, scale=np.eye(2)), "wants either covariance"),
        (ConjugatePrior.shrinkage(np.eye(2), rows=np.nan), "rows of a ConjugatePrior must be"),
        (ConjugatePrior(degrees_of_freedom="3"), "degrees_of_freedom of a ConjugatePrior"),
    ],
)
def test_a_prior_that_is_none_is_refused_at_the_door(prior: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        GaussianMixture(2, prior=prior).plan(np.eye(2))


def test_scikit_learn_clones_it() -> None:
    prior = ConjugatePrior(mean_precision=2.0)
    model = clone(GaussianMixture(2, prior=prior))
    assert model.prior.record() == prior.record()


def test_the_command_line(tmp_path: Path) -> None:
    rows = groups(200, 2, 2)
    np.save(tmp_path / "rows.npy", rows)
    data, out = str(tmp_path / "rows.npy"), str(tmp_path / "model.dgmm")
    done = CliRunner().invoke(
        main, ["fit", data, "-k", "2", "-o", out, "--prior", "conjugate", "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["prior"]["name"] == "conjugate"
    same = GaussianMixture(2, prior="conjugate", random_state=0).fit(rows)
    assert (load(out).means_ == same.means_).all()
    assert load(out).prior == "conjugate"
    planned = CliRunner().invoke(main, ["plan", data, "-k", "2", "--prior", "conjugate"])
    assert planned.exit_code == 0, planned.output


def test_fixed_means_and_a_prior() -> None:
    """The covariance of a component whose mean is held is about that mean; nothing falls."""
    rows, held = groups(150, 2, 2), np.zeros(2)
    prior = ConjugatePrior(mean_precision=4.0, degrees_of_freedom=9.0, weight_concentration=2.0)
    model = GaussianMixture(
        2,
        prior=prior,
        means_init=[held, rows[0]],
        fixed={"means": [0]},
        strategy="em",
        tol=1e-13,
        max_iter=5000,
        reg_covar=0,
        precision="float64",
    ).fit(rows)
    assert (model.means_[0] == held).all()
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-10).all()
    joint = log_joint("full", (model.weights_, model.means_, model.covariances_), rows)
    shares = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    scale, m = default_scale("full", rows, np.ones(150), 2), rows.mean(axis=0)
    scatter = scale + (rows.T * shares[:, 0]) @ rows + 4.0 * np.outer(m, m)
    expected = scatter / (shares[:, 0].sum() + 9 + 2 + 2)
    np.testing.assert_allclose(model.covariances_[0], expected, rtol=1e-5)


@every_structure
def test_rows_with_known_errors_meet_a_prior_too(kind: str) -> None:
    rows = groups(200, 2, 2)
    noise = np.random.default_rng(0).uniform(0.1, 1.0, size=rows.shape)
    model = GaussianMixture(
        2,
        covariance_type=kind,
        prior=STRONG,
        random_state=0,
        strategy="em",
        tol=1e-10,
        max_iter=3000,
        precision="float64",
    ).fit(rows, noise=noise)
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-10).all()
    assert model.converged_


@every_structure
def test_a_noise_component_beside_a_prior(kind: str) -> None:
    """At its end, the mixture is the most probable one for the shares that it gives the rows."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([groups(200, 2, 2), rng.uniform(-15, 15, size=(60, 2))])
    prior = ConjugatePrior(weight_concentration=2.5, mean_precision=3.0, degrees_of_freedom=9.0)
    model = GaussianMixture(
        2,
        covariance_type=kind,
        prior=prior,
        noise_component=True,
        random_state=0,
        strategy="em",
        tol=1e-13,
        max_iter=5000,
        reg_covar=0,
        precision="float64",
    ).fit(rows)
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-10).all()
    found = model.weights_, model.means_, model.covariances_
    joint = log_joint(kind, found, rows)
    noise = np.full((260, 1), np.log(model.noise_weight_) + model.noise_log_density_)
    norm = np.logaddexp.reduce(np.concatenate([joint, noise], axis=1), axis=1)
    numbers, every = {"kappa": 3.0, "nu": 9.0, "alpha": 2.5}, np.ones(260)
    scale = default_scale(kind, rows, every, 2)
    objective = norm.mean() + log_prior(kind, found, numbers, scale, rows.mean(axis=0)) / 260
    np.testing.assert_allclose(model.lower_bound_, objective, rtol=1e-9)
    best = map_step(kind, rows, every, np.exp(joint - norm[:, None]), numbers, scale)
    for mine, theirs in zip(found, best, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.weights_.sum() + model.noise_weight_, 1)
    fast = GaussianMixture(
        2, covariance_type=kind, prior=prior, noise_component=True, random_state=0
    ).fit(rows)
    assert fast.lower_bound_ > model.lower_bound_ - 1e-3


def test_labels_beside_a_prior() -> None:
    """A component keeps its labelled rows; the objective never falls."""
    rows = groups(200, 2, 2)
    labels = np.full(200, -1)
    labels[:40] = (rows[:40, 0] > rows[:, 0].mean()).astype(int)
    model = GaussianMixture(2, prior=STRONG, random_state=0, strategy="em", precision="float64")
    model.fit(rows, labels=labels)
    trace = np.array([*model.lower_bounds_, model.lower_bound_])
    assert (np.diff(trace) >= -1e-10).all()
    for k in range(2):
        own = rows[:40][labels[:40] == k].mean(axis=0)
        assert np.linalg.norm(model.means_[k] - own) < np.linalg.norm(model.means_[1 - k] - own)
