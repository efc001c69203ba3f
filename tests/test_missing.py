"""Rows with holes: against plain EM, a row at a time."""

import json
import os
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags

from dgmm import GaussianMixture, SufficientStatistics, load, select
from dgmm.cli.commands import main
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.errors import DgmmError
from dgmm.kernels import missing, native
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import OBSERVATIONS, Marginal
from dgmm.kernels.probe import Probe
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised

Array = np.ndarray


def dense(kind: str, values: Array, k: int, d: int) -> Array:
    """The covariances (K, D, D), from those in the shape of their type."""
    return np.array(COVARIANCE_MODELS[kind].of_covariances(values, (k, d)).dense())


@dataclass(frozen=True)
class Sums:
    """Over rows, weighted: r, r E[x], r E[xx'], and the log-likelihood with penalties."""

    counts: Array
    first: Array
    second: Array
    objective: float
    log_likelihood: float


def row_by_row(
    rows: Array, weights: Array, pi: Array, means: Array, dense: Array, penalty: Array
) -> Sums:
    """The E-step by Ghahramani and Jordan's formulas, for one row after another."""
    k, d = means.shape
    counts, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    objective = log_likelihood = 0.0
    for row, weight in zip(rows, weights, strict=True):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        if not len(o) or weight == 0:
            continue
        joint, x, extra = np.empty(k), np.zeros((k, d)), np.zeros((k, d, d))
        for j in range(k):
            s = dense[j]
            away = row[o] - means[j, o]
            solved = np.linalg.solve(s[np.ix_(o, o)], away)
            log_det = np.linalg.slogdet(2 * np.pi * s[np.ix_(o, o)])[1]
            joint[j] = np.log(pi[j]) - 0.5 * (log_det + away @ solved)
            x[j, o], x[j, m] = row[o], means[j, m] + s[np.ix_(m, o)] @ solved
            gain = np.linalg.solve(s[np.ix_(o, o)], s[np.ix_(o, m)])
            extra[j][np.ix_(m, m)] = s[np.ix_(m, m)] - s[np.ix_(m, o)] @ gain
        log_likelihood += weight * np.logaddexp.reduce(joint)
        joint -= penalty
        objective += weight * np.logaddexp.reduce(joint)
        shares = weight * np.exp(joint - np.logaddexp.reduce(joint))
        counts += shares
        first += shares[:, None] * x
        second += shares[:, None, None] * (x[:, :, None] * x[:, None, :] + extra)
    return Sums(counts, first, second, objective, log_likelihood)


def some_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    root = rng.normal(size=(k, d, d))
    full = root @ root.swapaxes(1, 2) / d + 0.3 * np.eye(d)
    made = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": full[:, 0, 0],
    }[kind]
    means = rng.normal(scale=2, size=(k, d))
    weights = rng.dirichlet(np.full(k, 4.0))
    return Mixture.of_covariances(COVARIANCE_MODELS[kind], weights, means, np.array(made))


def with_holes(n: int, d: int, share: float, rng: np.random.Generator) -> Array:
    rows = rng.normal(scale=2, size=(n, d))
    rows[rng.random((n, d)) < share] = np.nan
    return rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("d", "share"), [(1, 0.3), (3, 0.3), (6, 0.05), (9, 0.7)])
@pytest.mark.parametrize("name", ["numpy", "native"])
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_the_e_step_equals_that_of_one_row_after_another(
    kind: str, name: str, d: int, share: float, weighted: bool
) -> None:
    """Common patterns and rare ones; the rows in another frame than the mixture's units."""
    rng = np.random.default_rng(d)
    frame = Frame(rng.normal(size=d), np.exp2(np.arange(d) % 3 - 1.0))
    if kind == "spherical":
        frame = replace(frame, scale=np.full(d, 2.0))
    inside, rows = some_mixture(kind, 3, d, rng), with_holes(400, d, share, rng)
    weights = rng.uniform(0.5, 2, 400) if weighted else np.ones(400)
    weights[:3] = 0.0 if weighted else 1.0
    reg = rng.uniform(0, 0.05, d)
    if kind == "spherical":
        reg = np.full(d, 0.03)
    penalties = Regularised(reg).penalties(inside)
    natural = NaturalParameters.of(inside, penalties, centre=True, per_component=True)
    block = Block(0, rows, weights if weighted else None)
    own = KERNELS[name]
    given = Given(frame, (natural,))
    (found,) = missing.e_step(block, given, own.e_step, own.incomplete).parts
    outside = frame.leave(inside)
    covariances = outside.covariances.dense()
    true = row_by_row(rows, weights, outside.weights, outside.means, covariances, natural.penalty)
    seen = ~np.isnan(rows).all(axis=1) & (weights > 0)
    volume = frame.log_volume * weights[seen].sum()
    assert found.objective - volume == pytest.approx(true.objective, rel=1e-12)
    assert found.log_likelihood - volume == pytest.approx(true.log_likelihood, rel=1e-12)
    assert found.weight == pytest.approx(weights[seen].sum(), rel=1e-13)
    about = natural.features.shifted(found.sums, -natural.center)
    np.testing.assert_allclose(about[:, 0], true.counts, rtol=1e-11)
    shift, scale = frame.shift, frame.scale
    first = (true.first - true.counts[:, None] * shift) / scale
    np.testing.assert_allclose(about[:, 1 : 1 + d], first, rtol=1e-9, atol=1e-9)
    cross = shift[:, None] * true.first[:, None, :]
    second = true.second - cross - cross.swapaxes(1, 2)
    second += true.counts[:, None, None] * shift[:, None] * shift
    second /= scale[:, None] * scale
    rest = about[:, 1 + d :]
    upper = np.triu_indices(d)
    expected: Any = {
        rest.shape[1]: None,
        1: np.trace(second, axis1=1, axis2=2)[:, None],
    }
    if kind in ("full", "tied"):
        expected = second[:, upper[0], upper[1]]
    elif kind == "diag":
        expected = np.diagonal(second, axis1=1, axis2=2)
    else:
        expected = np.trace(second, axis1=1, axis2=2)[:, None]
    np.testing.assert_allclose(rest, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(native.compiled is None, reason="no compiler was at hand")
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_compiled_code_takes_patterns_of_any_number_of_rows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more rows than a tile, of some, and of one; more components than a vector holds."""
    rng = np.random.default_rng(1)
    d, k, ends = 5, 9, [1100, 1140, 1155, 1158, 1159]
    inside, rows = some_mixture(kind, k, d, rng), rng.normal(scale=2, size=(ends[-1], d))
    for bits, own in enumerate(np.split(rows, ends[:-1]), 3):
        own[:, [bits >> i & 1 == 1 for i in range(d)]] = np.nan
    block = Block(0, rows[rng.permutation(len(rows))], rng.uniform(0.5, 2, len(rows)))
    penalties = Regularised(np.full(d, 0.03)).penalties(inside)
    natural = NaturalParameters.of(inside, penalties, centre=True, per_component=True)
    given, plain = Given(Frame(np.full(d, 0.5), np.full(d, 2.0)), (natural,)), KERNELS["numpy"]
    (true,) = missing.e_step(block, given, plain.e_step, plain.incomplete).parts
    own = KERNELS["native"]
    for variant in range(len(native.compiled.variants())):
        monkeypatch.setattr(native, "VARIANT", variant)
        (found,) = missing.e_step(block, given, own.e_step, own.incomplete).parts
        assert found.objective == pytest.approx(true.objective, rel=1e-13)
        assert found.log_likelihood == pytest.approx(true.log_likelihood, rel=1e-13)
        np.testing.assert_allclose(found.sums, true.sums, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("name", ["numpy", "native"])
@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_penalties_far_apart_leave_the_likelihood_what_it_is(kind: str, name: str) -> None:
    """Where one component is so narrow that e^ of its penalty is beyond numbers."""
    rng = np.random.default_rng(0)
    made, rows = some_mixture(kind, 9, 3, rng), with_holes(40, 3, 0.4, rng)
    values = np.array(made.covariances.values)
    values[0] *= 1e-8
    model = COVARIANCE_MODELS[kind]
    mixture = Mixture.of_covariances(model, made.weights, made.means, values)
    penalties = Regularised(np.full(3, 1e-4)).penalties(mixture)
    assert np.ptp(penalties) > 1000
    natural = NaturalParameters.of(mixture, penalties, centre=True, per_component=True)
    own, given = KERNELS[name], Given(Frame(np.zeros(3), np.ones(3)), (natural,))
    (found,) = missing.e_step(Block(0, rows), given, own.e_step, own.incomplete).parts
    true = row_by_row(
        *(rows, np.ones(40), mixture.weights, mixture.means, mixture.covariances.dense()),
        natural.penalty,
    )
    assert found.objective == pytest.approx(true.objective, rel=1e-12)
    assert found.log_likelihood == pytest.approx(true.log_likelihood, rel=1e-12)


STEPS = 20


def dense_em(
    rows: Array, weights: Array, start: GaussianMixture, kind: str, reg: float
) -> tuple[Any, list[float]]:
    """So many iterations of EM, a row at a time, and the objective before each and at the end."""
    pi, means = start.weights_, start.means_
    k, d = means.shape
    covariances = dense(kind, start.covariances_, k, d)
    total = weights[~np.isnan(rows).all(axis=1)].sum()
    trace = []
    for _ in range(STEPS + 1):
        penalty = 0.5 * reg * np.trace(np.linalg.inv(covariances), axis1=1, axis2=2)
        last = pi, means, covariances
        sums = row_by_row(rows, weights, pi, means, covariances, penalty)
        trace.append(sums.objective / total)
        pi = sums.counts / sums.counts.sum()
        means = sums.first / sums.counts[:, None]
        scatter = sums.second / sums.counts[:, None, None] - means[:, :, None] * means[:, None]
        if kind == "tied":
            scatter = np.broadcast_to(np.tensordot(pi, scatter, 1), scatter.shape)
        elif kind == "diag":
            scatter = scatter * np.eye(d)
        elif kind == "spherical":
            scatter = np.trace(scatter, axis1=1, axis2=2)[:, None, None] * np.eye(d) / d
        covariances = scatter + reg * np.eye(d)
    return last, trace


@pytest.mark.parametrize(("share", "weighted"), [(0.05, False), (0.3, True), (0.7, False)])
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_em_equals_that_of_one_row_after_another(kind: str, share: float, weighted: bool) -> None:
    """Parameters after each of 20 iterations, and objectives; a feature is missing in a block."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 120)
    rows = rng.normal(size=(120, 4)) + 3 * labels[:, None] * [1, 0, -1, 0.5]
    rows[rng.random(rows.shape) < share] = np.nan
    rows[:40, 2] = np.nan
    weights = rng.uniform(0.5, 2, 120) if weighted else np.ones(120)
    init = {"weights": [0.4, 0.6], "means": rng.normal(size=(2, 4))}
    shape = COVARIANCE_MODELS[kind].shape(2, 4)
    unit = np.broadcast_to(np.eye(4), shape) if kind in ("full", "tied") else np.ones(shape)
    start = GaussianMixture.from_parameters(
        **init, covariances=np.array(unit), covariance_type=kind
    )
    (pi, means, covariances), trace = dense_em(rows, weights, start, kind, 1e-3)
    model = GaussianMixture(
        2,
        covariance_type=kind,
        strategy="em",
        tol=0,
        max_iter=STEPS,
        reg_covar=1e-3,
        weights_init=start.weights_,
        means_init=start.means_,
        precisions_init=start.precisions_,
        missing="marginalize",
        precision="float64",
    )
    data = da.from_array(rows, chunks=(40, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data, sample_weight=da.from_array(weights, chunks=40) if weighted else None)
    ours = [*model.lower_bounds_, model.lower_bound_]
    np.testing.assert_allclose(ours, trace, rtol=1e-10)
    assert (np.diff(ours) >= -1e-12).all()
    np.testing.assert_allclose(model.weights_, pi, rtol=1e-10)
    np.testing.assert_allclose(model.means_, means, rtol=1e-10, atol=1e-11)
    own = dense(kind, model.covariances_, 2, 4)
    np.testing.assert_allclose(own, covariances, rtol=1e-10, atol=1e-11)


# The whole: starts, passes, selections, clusters, checkpoints.


def clumps(n: int, share: float, seed: int = 0) -> tuple[Array, Array]:
    """Rows of three clumps of four columns, ``share`` of whose values are missing; and complete."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centres = np.array([[0, 0, 0, 0], [6, 0, 3, -3], [0, 6, -3, 3.0]])
    whole = centres[labels] + rng.normal(size=(n, 4)) @ np.array(
        [[1, 0.5, 0, 0.2], [0, 1, 0.4, 0], [0, 0, 1, -0.5], [0, 0, 0, 1]]
    )
    return np.where(rng.random((n, 4)) < share, np.nan, whole), whole


@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_the_default_fit_ends_where_em_does_from_the_truth(kind: str) -> None:
    rows, whole = clumps(20_000, 0.2)
    model = GaussianMixture(3, covariance_type=kind, missing="marginalize", random_state=0)
    model.fit(rows)
    near = GaussianMixture(3, covariance_type=kind, random_state=0).fit(whole)
    truth = GaussianMixture(
        3,
        covariance_type=kind,
        missing="marginalize",
        strategy="em",
        tol=1e-9,
        max_iter=500,
        weights_init=near.weights_,
        means_init=near.means_,
        precisions_init=near.precisions_,
    ).fit(rows)
    parameters = model.mixture_.free_parameters
    assert model.lower_bound_ > truth.lower_bound_ - 0.2 * parameters / (2 * len(rows))
    assert model.fit_info_["incomplete"] == int(np.isnan(rows).any(axis=1).sum())


def test_complete_rows_are_the_same_whatever_nan_means() -> None:
    """To the bit where sums are taken alike, about the means, and for each component."""
    _, rows = clumps(5000, 0.0)
    for kind in COVARIANCE_MODELS:
        fits = [
            GaussianMixture(3, covariance_type=kind, missing=missing, random_state=0).fit(rows)
            for missing in ("raise", "drop", "marginalize")
        ]
        np.testing.assert_array_equal(fits[0].means_, fits[1].means_)
        if kind != "tied" and fits[0].fit_info_["kernel"].startswith("native"):
            np.testing.assert_array_equal(fits[0].means_, fits[2].means_)
        np.testing.assert_allclose(fits[0].means_, fits[2].means_, atol=1e-4)
        assert fits[0].lower_bound_ == pytest.approx(fits[2].lower_bound_, abs=1e-6)


def test_drop_fits_to_the_complete_rows() -> None:
    rows, _ = clumps(5000, 0.1)
    complete = ~np.isnan(rows).any(axis=1)
    dropped = GaussianMixture(3, missing="drop", random_state=0).fit(rows)
    alone = GaussianMixture(3, random_state=0).fit(rows[complete])
    assert dropped.lower_bound_ == pytest.approx(alone.lower_bound_, abs=1e-4)
    assert dropped.fit_info_["left_out"] == int((~complete).sum())
    assert dropped.fit_info_["weight"] == complete.sum()
    assert dropped.score(rows) == pytest.approx(dropped.score(rows[complete]), rel=1e-12)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("missing", ["drop", "marginalize"])
def test_incomplete_rows_may_have_no_weight(
    missing: Any, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, too: the fit is that of the others."""
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rows, _ = clumps(2000, 0.1)
    complete = ~np.isnan(rows).any(axis=1)
    alone = GaussianMixture(3, random_state=0).fit(rows[complete])
    model = GaussianMixture(3, missing=missing, random_state=0)
    model.fit(rows, sample_weight=complete.astype(float))
    assert model.lower_bound_ == pytest.approx(alone.lower_bound_, abs=1e-4)
    assert model.fit_info_["left_out"] == 0
    score = model.score(rows, sample_weight=complete.astype(float))
    assert score == pytest.approx(model.score(rows[complete]), rel=1e-12)


def test_units_do_not_matter() -> None:
    rows, _ = clumps(4000, 0.2)
    scale, shift = np.array([1e-3, 1.0, 1e4, 7.0]), np.array([5.0, -1e3, 0.0, 1e2])
    fits = [
        GaussianMixture(3, missing="marginalize", random_state=0).fit(each)
        for each in (rows, rows * scale + shift)
    ]
    np.testing.assert_allclose(fits[1].means_, fits[0].means_ * scale + shift, rtol=1e-6)
    observed = ~np.isnan(rows)  # a row has the volume of what it has
    lost = -(observed[observed.any(axis=1)] @ np.log(scale)).mean()
    assert fits[1].lower_bound_ - fits[0].lower_bound_ == pytest.approx(lost, abs=1e-6)


def test_a_selection_of_incomplete_rows() -> None:
    rows, _ = clumps(6000, 0.15)
    for criterion in ("bic", "icl", "heldout"):
        best = select(
            rows, [2, 3, 4], criterion=criterion, missing="marginalize", random_state=0
        ).best_estimator_
        assert best.n_components == 3, criterion


def test_same_bits_on_a_cluster_and_after_a_kill(
    clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rows, _ = clumps(6000, 0.3)
    store = str(tmp_path / "rows.zarr")
    zarr.create_array(store=store, shape=rows.shape, chunks=(500, 4), dtype="f8")[:] = rows
    asked: dict[str, Any] = {"missing": "marginalize", "random_state": 0}
    here = GaussianMixture(3, **asked).fit(store)
    with clusters[2].as_current():
        there = GaussianMixture(3, **asked).fit(store)
    place = tmp_path / "passes"
    for number, _ in enumerate(GaussianMixture(3, checkpoint=place, **asked).fit_passes(store)):
        if number == 2:
            break
    again = GaussianMixture(3, checkpoint=place, **asked).fit(store)
    for other in (there, again):
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_array_equal(getattr(here, name), getattr(other, name))
        assert other.lower_bound_ == here.lower_bound_


def test_statistics_of_parts_add_up() -> None:
    """One EM step from two summaries is the step of both together; the bound is the objective."""
    rows, _ = clumps(3000, 0.3)
    model = GaussianMixture(3, missing="marginalize", random_state=0).fit(rows)
    both = model.summarize(rows[:1000]) + model.summarize(rows[1000:])
    assert both.bound(model.mixture_) == pytest.approx(model.lower_bound_, abs=1e-9)
    np.testing.assert_allclose(both.sums, model.sufficient_statistics_.sums, atol=1e-6)
    updated = model.partial_fit(rows[:500])
    assert updated.fit_info_["objective"] >= updated.fit_info_["objective_before"] - 1e-12


# What a model says of incomplete rows.


def test_rows_are_judged_by_what_was_observed(tmp_path: Path) -> None:
    rows, _ = clumps(400, 0.4)
    rows[7] = np.nan
    model = GaussianMixture(3, missing="marginalize", random_state=0).fit(rows)
    k = range(3)
    logs = np.full((400, 3), np.nan)
    for i, row in enumerate(rows):
        o = np.flatnonzero(~np.isnan(row))
        if len(o):
            logs[i] = [
                np.log(model.weights_[j])
                + multivariate_normal.logpdf(
                    row[o], model.means_[j][o], model.covariances_[j][np.ix_(o, o)]
                )
                for j in k
            ]
    seen = ~np.isnan(logs[:, 0])
    with np.errstate(invalid="ignore"):
        total = np.logaddexp.reduce(logs, axis=1)
    for given in (rows, da.from_array(rows, chunks=(90, 4))):
        np.testing.assert_allclose(np.asarray(model.score_samples(given))[seen], total[seen])
        labels = np.asarray(model.predict(given))
        np.testing.assert_array_equal(labels[seen], logs[seen].argmax(axis=1))
        assert (labels[~seen] == -2).all()
        proba = np.asarray(model.predict_proba(given))
        np.testing.assert_allclose(proba[seen], np.exp(logs - total[:, None])[seen], atol=1e-12)
        assert np.isnan(proba[~seen]).all()
    assert model.score(rows) == pytest.approx(total[seen].mean(), rel=1e-12)
    assert model.score(rows) == pytest.approx(model.lower_bound_, abs=1e-4)


def test_what_is_missing_becomes_its_conditional_mean() -> None:
    rows, _ = clumps(300, 0.4)
    model = GaussianMixture(3, missing="marginalize", random_state=0).fit(rows)
    filled = model.impute(rows)
    np.testing.assert_array_equal(filled[~np.isnan(rows)], rows[~np.isnan(rows)])
    for i in np.flatnonzero(np.isnan(rows).any(axis=1))[:40]:
        m = np.flatnonzero(np.isnan(rows[i]))
        o = np.flatnonzero(~np.isnan(rows[i]))
        if len(o):
            known = model.mixture_.conditional(o.tolist(), rows[i, o])
            expected = known.weights @ known.means
        else:
            expected = model.weights_ @ model.means_
        np.testing.assert_allclose(filled[i, m], expected, rtol=1e-8, atol=1e-8)
    lazy = model.impute(da.from_array(rows, chunks=(70, 4)))
    assert isinstance(lazy, da.Array)
    assert lazy.chunks[0] == (70, 70, 70, 70, 20)
    np.testing.assert_allclose(lazy.compute(), filled, rtol=1e-12)


def test_draws_are_as_spread_out_as_what_they_stand_for() -> None:
    """Moments of completed rows equal those of the rows that were hidden; means alone do not."""
    rows, whole = clumps(20_000, 0.3)
    model = GaussianMixture(3, missing="marginalize", random_state=0).fit(rows)
    drawn = model.impute(rows, sample=True)
    for j in range(4):
        lost = np.isnan(rows[:, j])
        error = 5 * whole[:, j].std() / np.sqrt(lost.sum())
        assert drawn[lost, j].mean() == pytest.approx(whole[lost, j].mean(), abs=error)
        assert drawn[lost, j].std() == pytest.approx(whole[lost, j].std(), rel=0.05)
        assert model.impute(rows)[lost, j].std() < 0.97 * whole[lost, j].std()
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(whole.T), atol=0.03)


def test_draws_do_not_depend_on_blocks() -> None:
    rows, _ = clumps(9000, 0.3)
    model = GaussianMixture(3, missing="marginalize", random_state=3).fit(rows)
    drawn = model.impute(rows, sample=True)
    for chunks in (500, 4096, 8999):
        other = model.impute(da.from_array(rows, chunks=(chunks, 4)), sample=True).compute()
        np.testing.assert_allclose(other, drawn, rtol=1e-9, atol=1e-9)


# On the command line, and at the door.


def test_on_the_command_line(tmp_path: Path) -> None:
    rows, _ = clumps(1000, 0.2)
    np.save(tmp_path / "rows.npy", rows)
    data, model, filled = (str(tmp_path / each) for each in ("rows.npy", "m.dgmm", "filled.zarr"))
    run = CliRunner()
    refused = run.invoke(main, ["fit", data, "-k", "3", "-o", model])
    assert refused.exit_code == 3
    assert "marginalize" in refused.output
    assert f"{int(np.isnan(rows).any(axis=1).sum()):,} of 1,000" in refused.output
    words = ["fit", data, "-k", "3", "-o", model, "--missing", "marginalize", "--quiet"]
    done = run.invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "incomplete" in done.output
    assert run.invoke(main, ["score", data, "-m", model, "--quiet"]).exit_code == 0
    done = run.invoke(main, ["impute", data, "-m", model, "-o", filled, "--quiet"])
    assert done.exit_code == 0, done.output
    array: Any = zarr.open_array(filled)
    np.testing.assert_allclose(array[:], load(model).impute(rows), rtol=1e-12)


def nothing_observed(rows: Array) -> Array:
    return np.full_like(rows, np.nan)


def one_column_empty(rows: Array) -> Array:
    return np.where(np.arange(4) == 2, np.nan, rows)


def infinite(rows: Array) -> Array:
    return np.where(np.arange(len(rows))[:, None] == 5, np.inf, rows)


@pytest.mark.parametrize(
    ("missing", "change", "message"),
    [
        ("marginalize", nothing_observed, "none of the 200 rows can count"),
        ("drop", one_column_empty, "none of the 200 rows can count"),
        ("marginalize", one_column_empty, "column 2 has no value in any row"),
        ("marginalize", infinite, r"^infinity in the rows: inf at row 5.* that is missing$"),
        ("drop", infinite, r"^infinity in the rows: inf at row 5.* rows with infinity: 1 of"),
        ("sometimes", infinite, "missing must be one of 'raise', 'marginalize', 'drop'"),
    ],
)
def test_what_can_not_be_fitted_is_told_at_the_door(
    missing: Any, change: Callable[[Array], Array], message: str
) -> None:
    rows, _ = clumps(200, 0.1)
    with pytest.raises(DgmmError, match=message):
        GaussianMixture(2, missing=missing).fit(change(rows))


@pytest.mark.parametrize("dtype", ["complex", "str", "datetime64[s]", "timedelta64[s]"])
def test_masked_rows_must_be_real_numbers(dtype: str) -> None:
    """As others must: none loses its imaginary part, or becomes a number of seconds."""
    rows = np.ma.masked_array(np.ones((20, 2)).astype(dtype), np.arange(40).reshape(20, 2) == 3)
    with pytest.raises(ValueError, match=r"real numbers|Complex|numeric"):
        GaussianMixture(missing="marginalize").fit(rows)


def test_apples() -> None:
    """Little and Rubin's 18 trees, the wormy share of six of which was not counted.

    The maximum-likelihood estimates are in closed form, as holes are monotone: a regression on the
    complete rows (Statistical Analysis with Missing Data, 2002, chapter 7).
    """
    size = np.array([8, 6, 11, 22, 14, 17, 18, 24, 19, 23, 26, 40, 4, 4, 5, 6, 8, 10.0])
    wormy = np.array([59, 58, 56, 53, 50, 45, 43, 42, 39, 38, 30, 27.0])
    rows = np.stack([size, np.concatenate([wormy, np.full(6, np.nan)])], axis=1)
    model = GaussianMixture(
        missing="marginalize", strategy="em", tol=1e-13, max_iter=2000, reg_covar=0
    ).fit(rows)
    slope, _ = np.polyfit(size[:12], wormy, 1)
    mean = wormy.mean() + slope * (size.mean() - size[:12].mean())
    residual = np.var(wormy) - slope**2 * np.var(size[:12])
    np.testing.assert_allclose(model.means_[0], [size.mean(), mean], rtol=1e-6)
    covariance = [
        [np.var(size), slope * np.var(size)],
        [slope * np.var(size), residual + slope**2 * np.var(size)],
    ]
    np.testing.assert_allclose(model.covariances_[0], covariance, rtol=1e-5)
    np.testing.assert_allclose(model.means_[0], [14.722, 49.333], atol=5e-3)


PEAK = """
import re, sys
from dgmm import GaussianMixture

model = GaussianMixture(8, missing="marginalize", strategy="em", max_iter=1, random_state=0)
model.set_params(cache="none").fit(sys.argv[1])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(int(peak[1]) * 1024, model.plan_.peak_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_rows_of_all_different_patterns_stay_in_planned_memory(tmp_path: Path, kernel: str) -> None:
    """In two blocks, of 20,000 rows; of fewer with NumPy, as that is slow."""
    rows, store = {"native": 40_000, "numpy": 1000}[kernel], str(tmp_path / "rows.zarr")
    array: Any = zarr.create_array(
        store=store, shape=(rows, 24), chunks=(rows // 2, 24), dtype="f4"
    )
    rng = np.random.default_rng(0)
    for start in range(0, rows, rows // 2):
        part = rng.normal(size=(rows // 2, 24)).astype("f4")
        array[start : start + rows // 2] = np.where(rng.random(part.shape) < 0.5, np.nan, part)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, store],
        env={**os.environ, "DGMM_KERNEL": kernel},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, planned = map(int, done.stdout.split())
    assert peak < planned


FAR = [[1e200, np.nan, np.nan], [1.0, 2.0, np.nan]]


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
@pytest.mark.parametrize(
    "use",
    [
        GaussianMixture.predict,
        GaussianMixture.score_samples,
        GaussianMixture.score,
        GaussianMixture.impute,
        GaussianMixture.summarize,
    ],
)
def test_incomplete_rows_beyond_all_numbers_are_told(
    kind: Any, kernel: str, use: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rows = np.random.default_rng(0).normal(size=(200, 3))
    model = GaussianMixture(covariance_type=kind, missing="marginalize").fit(rows)
    with pytest.raises(DgmmError, match="too far from the model"):
        use(model, FAR)


def test_masked_rows_in_memory_give_arrays_in_memory() -> None:
    rows = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[False, True], [False, False]])
    model = GaussianMixture.from_parameters(
        [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]
    ).set_params(missing="marginalize")
    assert type(model.predict(rows)) is np.ndarray
    assert model.impute(rows).tolist() == [[1.0, 0.5], [3.0, 4.0]]


def test_scikit_learn_is_told_whether_nan_is_allowed() -> None:
    allowed = {
        each: get_tags(GaussianMixture(missing=each)).input_tags.allow_nan for each in OBSERVATIONS
    }
    assert allowed == {"raise": False, "marginalize": True, "drop": True}


def test_a_plan_says_what_incomplete_rows_take(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((1000, 4)))
    peaks = {}
    for each in OBSERVATIONS:
        words = ["plan", str(tmp_path / "rows.npy"), "-k", "3", "--json", "--missing", each]
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        peaks[each] = json.loads(done.stdout)["peak_bytes"]
    assert peaks["raise"] < peaks["drop"] < peaks["marginalize"]


def test_rows_none_of_which_counts_are_told_as_that() -> None:
    """Not as weights of zero alone, where none were given."""
    rows, _ = clumps(500, 0.2)
    model = GaussianMixture(2, missing="marginalize", random_state=0).fit(rows)
    for use in (model.score, model.bic, model.summarize, model.partial_fit):
        with pytest.raises(DgmmError, match="too little was observed"):
            use(np.full((3, 4), np.nan))


def test_rows_of_all_different_patterns_take_what_is_said() -> None:
    """Of numbers, too, that are made wider for the compiled code."""
    rng = np.random.default_rng(0)
    rows = with_holes(100_000, 24, 0.5, rng).astype("f2")
    natural = NaturalParameters.of(
        some_mixture("full", 2, 24, rng), centre=True, per_component=True
    )
    given = Given(Frame(np.zeros(24), np.ones(24)), (natural,))
    seen = Marginal("native")
    tracemalloc.start()
    try:
        seen.e_step(Block(0, rows), given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < seen.nbytes(len(rows), rows[0].nbytes, 24, 2)


def test_moments_are_those_of_what_was_observed() -> None:
    """Each feature's, in blocks that are merged; of one that a block lacks, and far from 0."""
    rows = with_holes(900, 4, 0.3, np.random.default_rng(2))
    rows += np.array([0.0, 1e6, -5.0, 3.0])
    rows[:300, 1] = np.nan
    weights = np.random.default_rng(3).uniform(0.5, 2, 900)
    spec = FirstPassSpec(50, 1, observation=OBSERVATIONS["marginalize"]())
    parts = [
        first_pass(Block(start, rows[start : start + 300], weights[start : start + 300]), spec)
        for start in (0, 300, 600)
    ]
    moments = parts[0] + parts[1] + parts[2]
    for j in range(4):
        seen = ~np.isnan(rows[:, j])
        x, w = rows[seen, j], weights[seen]
        mean = np.average(x, weights=w)
        assert moments.mean[j] == pytest.approx(mean, rel=1e-12)
        assert moments.variance[j] == pytest.approx(np.average((x - mean) ** 2, weights=w))
        assert (moments.low[j], moments.high[j]) == (x.min(), x.max())
        assert moments.observed[j] == pytest.approx(w.sum(), rel=1e-12)


@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_draws_have_the_conditional_distribution(kind: str) -> None:
    """A draw is affine in normal variates z, b + A z: so b is its mean and A A' its covariance."""
    rng = np.random.default_rng(4)
    mixture, d = some_mixture(kind, 3, 5, rng), 5
    seen = np.array([True, False, False, True, False])
    o, m = np.flatnonzero(seen), np.flatnonzero(~seen)
    for k, s in enumerate(mixture.covariances.dense()):
        away = np.where(seen, rng.normal(size=d), 0.0)
        every = np.broadcast_to(away, (d + 1, d)), np.broadcast_to(seen, (d + 1, d))
        variates = np.vstack([np.zeros(d), np.eye(d)])
        base, *moved = mixture.covariances.drawn(*every, np.full(d + 1, k), variates)
        gain = s[np.ix_(m, o)] @ np.linalg.inv(s[np.ix_(o, o)])
        slope = np.array([each - base for each in moved])
        np.testing.assert_allclose(base[o], away[o])
        np.testing.assert_allclose(base[m], gain @ away[o], atol=1e-12)
        rest = s[np.ix_(m, m)] - gain @ s[np.ix_(o, m)]
        np.testing.assert_allclose((slope.T @ slope)[np.ix_(m, m)], rest, atol=1e-12)


# Once a model is fitted, ``missing`` may change.


def test_statistics_of_rows_follow_what_missing_is_now(tmp_path: Path) -> None:
    """A model fitted to complete rows learns from incomplete ones, once it is told to.

    As one does that was fitted with holes allowed, by the same start.
    """
    _, whole = clumps(3000, 0.0)
    more, _ = clumps(500, 0.3, seed=1)
    asked: dict[str, Any] = {"random_state": 0, "reg_covar": 1e-3}
    plain = GaussianMixture(3, **asked).fit(whole)
    with pytest.raises(DgmmError, match=r"set_params\(missing=...\)"):
        plain.partial_fit(more)
    found = plain.set_params(missing="marginalize").summarize(more)
    both = plain.sufficient_statistics_ + found
    assert both.observation.holes
    assert (found + plain.sufficient_statistics_).observation.holes
    both.save(tmp_path / "both.sums")
    assert SufficientStatistics.load(tmp_path / "both.sums").observation.holes
    true = row_by_row(
        *(more, np.ones(500), plain.weights_, plain.means_, plain.covariances_),
        0.5e-3 * np.trace(np.linalg.inv(plain.covariances_), axis1=1, axis2=2),
    )
    seen, was = np.isfinite(more).any(axis=1), plain.sufficient_statistics_.sums[:, 0]
    plain.partial_fit(more)
    np.testing.assert_allclose(plain.weights_, (was + true.counts) / (3000 + seen.sum()), rtol=1e-9)
    with pytest.raises(DgmmError, match="NaN"):
        plain.set_params(missing="raise").partial_fit(more)
    before = plain.sufficient_statistics_.weight
    plain.set_params(missing="drop").partial_fit(more)
    complete = np.isfinite(more).all(axis=1).sum()
    assert plain.sufficient_statistics_.weight == pytest.approx(before + complete)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_infinity_in_a_row_that_is_dropped_is_told(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rows, whole = clumps(200, 0.0)
    rows[7, :2] = [np.nan, np.inf]
    model = GaussianMixture(2, missing="drop", random_state=0).fit(whole)
    for use in (model.fit, model.partial_fit, model.predict, model.score):
        with pytest.raises(DgmmError, match="inf at row 7, column 1"):
            use(rows)


def test_draws_are_those_of_the_seed_on_the_command_line_too(tmp_path: Path) -> None:
    rows, _ = clumps(300, 0.3)
    np.save(tmp_path / "rows.npy", rows)
    model = GaussianMixture(2, missing="marginalize", random_state=5).fit(rows)
    model.save(tmp_path / "m.dgmm")
    data, fitted, filled = (str(tmp_path / each) for each in ("rows.npy", "m.dgmm", "filled.zarr"))
    words = ["impute", data, "-m", fitted, "-o", filled, "--sample", "--random-state", "5"]
    assert CliRunner().invoke(main, [*words, "--quiet"]).exit_code == 0
    array: Any = zarr.open_array(filled)
    np.testing.assert_allclose(array[:], model.impute(rows, sample=True), rtol=1e-12)


def test_the_command_line_tells_how_many_rows_were_judged(tmp_path: Path) -> None:
    rows, whole = clumps(300, 0.3)
    rows[:7] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    GaussianMixture(2, random_state=5).fit(whole).save(tmp_path / "m.dgmm")
    run, nothing = CliRunner(), int(np.isnan(rows).all(axis=1).sum())
    both = [str(tmp_path / "rows.npy"), "-m", str(tmp_path / "m.dgmm"), "--quiet"]
    refused = run.invoke(main, ["score", *both])
    assert refused.exit_code == 3
    assert "--missing" in refused.output
    for each, count in (
        ("marginalize", 300 - nothing),
        ("drop", int(np.isfinite(rows).all(axis=1).sum())),
    ):
        done = run.invoke(main, ["score", *both, "--missing", each, "--json"])
        told = json.loads(done.stdout)
        assert (told["rows"], told["judged"]) == (300, count)
    predict = ["predict", *both, "--missing", "marginalize", "-o"]
    done = run.invoke(main, [*predict, str(tmp_path / "labels.zarr"), "--json"])
    told = json.loads(done.stdout)
    assert told["rows_of_nothing"] == nothing
    assert sum(told["rows_of_components"]) == 300 - nothing
    done = run.invoke(main, [*predict, str(tmp_path / "labels.zarr"), "--overwrite"])
    assert "nothing observed" in done.stdout
    refused = run.invoke(main, [*predict, str(tmp_path / "labels.xlsx")])
    assert refused.exit_code == 2
    assert "labels.zarr" in refused.output
    assert not (tmp_path / "labels.xlsx").exists()


@pytest.mark.parametrize("asked", [{"missing": "marginalize"}, {"tails": "student"}])
@pytest.mark.parametrize("change", ["values", "holes"])
def test_rows_that_change_during_a_fit_are_noticed(
    tmp_path: Path, asked: dict[str, Any], change: str
) -> None:
    """Where the sums of complete rows can't tell: by every sixteenth row of each block."""
    share = 0.2 if "missing" in asked else 0.0
    rows, _ = clumps(2000, share)
    store = str(tmp_path / "rows.zarr")
    array: Any = zarr.create_array(store=store, shape=rows.shape, chunks=(500, 4), dtype="f8")
    array[:] = rows
    model = GaussianMixture(3, random_state=0, cache="none", strategy="em", tol=0, **asked)
    passes = model.fit_passes(store)
    for _ in range(3):
        next(passes)
    changed = rows[500:1000] * 1.01
    if change == "holes" and share:
        changed = np.where(np.arange(500)[:, None] % 4 == 0, np.nan, rows[500:1000])
    array[500:1000] = changed
    with pytest.raises(DgmmError, match="rows are not those of the first pass"):
        for _ in passes:
            pass


def test_a_probe_does_not_depend_on_how_rows_are_cut() -> None:
    rng = np.random.default_rng(0)
    rows, weights = with_holes(1000, 3, 0.3, rng), rng.uniform(0, 1, 1000)
    cuts = [0, 7, 16, 333, 1000]
    parts = [Probe.of(Block(a, rows[a:b], weights[a:b])) for a, b in pairwise(cuts)]
    whole, seen = reduce(add, parts), np.isfinite(rows[::16])
    own = weights[::16, None]
    np.testing.assert_allclose(whole.weights, (own * seen).sum(axis=0))
    np.testing.assert_allclose(whole.sums, np.nansum(own * rows[::16], axis=0))
    np.testing.assert_allclose(whole.squares, np.nansum(own * rows[::16] ** 2, axis=0))
    assert whole.difference(Probe.of(Block(0, rows, weights))) < 1e-12
    rows[16, 0] = 1e3
    assert whole.difference(Probe.of(Block(0, rows, weights))) > 1e-2
