"""The bootstrap: its counts, its steps against dense sums, its fits against fits."""

import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from scipy import linalg, stats
from sklearn.exceptions import ConvergenceWarning
from test_standard_errors import dense, derivatives, log_densities, rows_of

import dgmm
from dgmm import engine
from dgmm.cli.commands import main
from dgmm.inference import bootstrap
from dgmm.inference.charts import Matrices, Variances
from dgmm.inference.information import Query
from dgmm.inference.layouts import LAYOUTS
from dgmm.inference.resampling import Resampling
from dgmm.kernels.observation import Marginal
from dgmm.model.frame import Frame


def test_rows_count_as_poisson_variates() -> None:
    numbers = np.arange(40_000)
    counts = Resampling.first(9, seed=3).counts(numbers)
    expected = stats.poisson(1).pmf(np.arange(7)) * counts.size
    found = np.bincount(counts.ravel(), minlength=7)[:7]
    assert stats.chi2.sf(((found - expected) ** 2 / expected).sum(), 6) > 0.001
    together = np.corrcoef(counts.T) - np.eye(9)
    assert abs(together).max() < 5 / np.sqrt(len(numbers))
    assert abs(np.corrcoef(counts[1:, 0], counts[:-1, 0])[0, 1]) < 5 / np.sqrt(len(numbers))
    some = Resampling((8, 2), seed=3).counts(numbers[70:90])
    assert (some == counts[70:90][:, [8, 2]]).all()
    assert (Resampling.first(9, seed=4).counts(numbers) != counts).mean() > 0.6


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_step_is_that_of_numerical_derivatives(kind: str, holes: float) -> None:
    """With weights and holes: H^-1 times the sum of (c - 1) w s, and where that leads."""
    rows = rows_of(120, holes=holes)
    rows = rows[~np.isnan(rows).all(axis=1)]
    weights = np.random.default_rng(1).integers(0, 4, len(rows)).astype(float)
    plain = dgmm.GaussianMixture(2, covariance_type=kind, missing="marginalize", random_state=0)
    mixture = plain.fit(rows, sample_weight=weights).mixture_
    values = mixture.covariances.values
    upper = np.triu_indices(2)
    entries = {"full": lambda: values[:, *upper], "tied": lambda: values[upper]}
    own = np.ravel(entries.get(kind, lambda: values)())
    theta = np.array(
        [np.log(mixture.weights[0] / mixture.weights[1]), *mixture.means.ravel(), *own]
    )
    theta = theta.astype(np.longdouble)
    first, second = derivatives(lambda at: log_densities(kind, at, rows) * weights, theta)
    resampling = Resampling.first(5, seed=1)
    counts = resampling.counts(np.arange(len(rows))).astype(float)
    steps = np.linalg.solve(-second.astype(float), (first.astype(float).T @ (counts - 1))).T
    frame = Frame(np.zeros(2), np.ones(2))
    query = Query(mixture, frame, Marginal(), resampling)
    sweep = engine.in_memory_sweep(rows, weights=weights)
    found, sums = bootstrap.bootstrap(sweep, mixture, query)
    levels = weights * log_densities(kind, theta, rows).astype(float)
    np.testing.assert_allclose(
        sums.drawn, counts.T @ np.stack([weights, levels], axis=1), rtol=1e-7
    )
    shares, means, three = (
        np.stack(each).astype(float)
        for each in zip(*(dense(kind, theta + step) for step in steps), strict=True)
    )
    np.testing.assert_allclose(found.weights, shares, rtol=1e-5)
    np.testing.assert_allclose(found.means, means, rtol=1e-4, atol=1e-5)
    before = mixture.covariances.dense()
    moves = np.stack([three[..., :2], three[..., 1:]], axis=-2) - before
    layout = query.layout
    for each, move in zip(found.covariances, moves, strict=True):
        for was, by, now in zip(before, move, layout.dense(each), strict=True):
            root = linalg.cholesky(was, lower=True)
            inner = linalg.solve(root, linalg.solve(root, by).T)
            np.testing.assert_allclose(
                now, root @ linalg.expm(inner) @ root.T, rtol=1e-3, atol=1e-6
            )


def test_charts_keep_covariances_positive_and_know_their_derivatives() -> None:
    rng = np.random.default_rng(0)
    for chart, step in (
        (Variances(np.array([0.5, 4.0])), np.array([-3.0, 5.0])),
        (Matrices(np.array([[2.0, 0.6], [0.6, 1.0]])), np.array([[-5.0, 1.0], [1.0, 2.0]])),
    ):
        values = chart.at(step[None])[0]
        assert (np.linalg.eigvalsh(np.diag(values) if values.ndim == 1 else values) > 0).all()
        weights = rng.normal(size=values.shape)
        weights = weights + weights.T if values.ndim == 2 else weights
        found = chart.slopes(step, weights)
        for place in np.ndindex(*step.shape):
            move = np.zeros_like(step)
            move[place] = move[place[::-1]] = 1e-6
            change = chart.at(step + move) - chart.at(step - move)
            once = np.triu(change) if change.ndim == 2 else change
            np.testing.assert_allclose(found[place], np.sum(weights * once) / 2e-6, rtol=1e-6)


def test_replicates_vary_as_the_sandwich_says() -> None:
    rows = rows_of(900)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    found = model.bootstrap(rows, n_replicates=2000)
    errors, expected = found.standard_errors(), model.standard_errors(rows, kind="sandwich")
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(errors, name), getattr(expected, name), rtol=0.08)
    assert errors.kind == "bootstrap"
    np.testing.assert_allclose(errors.means, found.means.std(axis=0, ddof=1))
    assert errors.covariance.shape == (2 + 4 + 6,) * 2
    quantiles = np.quantile(found.weights, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(found.intervals(0.9).weights, quantiles)
    basic = found.intervals(0.9, "basic").weights
    np.testing.assert_allclose(basic, 2 * model.weights_ - quantiles[::-1])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_refitted_replicates_are_fits_to_weighted_rows(kind: str) -> None:
    """In units far from 1; where one step alone is off by a sixth of an error and more."""
    rows = rows_of(600) * [1e4, 1e-3]
    model = dgmm.GaussianMixture(2, covariance_type=kind, resolution=1e-3, random_state=0)
    model.fit(rows)
    errors = model.standard_errors(rows)
    begun = model.bootstrap(rows, n_replicates=3)
    found = model.bootstrap(rows, n_replicates=3, refit=True)
    assert (found.refitted, found.failed) == (True, 0)
    assert found.passes < 12
    off = []
    for b, counts in enumerate(Resampling.first(3, 0).counts(np.arange(600)).T):
        again = dgmm.GaussianMixture(
            2,
            covariance_type=kind,
            weights_init=model.weights_,
            means_init=model.means_,
            precisions_init=model.precisions_,
            resolution=1e-5,
            max_iter=1000,
        ).fit(rows, sample_weight=counts.astype(float))
        for name in ("weights", "means", "covariances"):
            own, error = getattr(again, f"{name}_"), getattr(errors, name)
            assert (abs(getattr(found, name)[b] - own) < 0.05 * error).all(), name
        off.append(abs(begun.means[b] - again.means_) / errors.means)
    assert np.max(off) > 0.06


def test_blocks_and_engines_make_no_difference(
    clusters: Mapping[int, Client], tmp_path: Any
) -> None:
    rows = rows_of(900, holes=0.1)
    rows[np.isnan(rows).all(axis=1)] = 0
    model = dgmm.GaussianMixture(2, missing="marginalize", random_state=0).fit(rows)
    np.save(tmp_path / "rows.npy", rows)
    dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(4 << 10)
    assert dataset.blocks > 2
    how = {"n_replicates": 6, "refit": True}
    here = model.bootstrap(dataset, **how)
    there = model.bootstrap(dataset, **how, sweep=engine.over(dataset, clusters[2]))
    assert (here.means == there.means).all()
    assert (here.covariances == there.covariances).all()
    np.testing.assert_allclose(model.bootstrap(rows, **how).means, here.means, rtol=1e-7)
    other = model.bootstrap(rows, n_replicates=6, random_state=1)
    assert (other.means != here.means).all()


def test_components_that_trade_places_are_aligned() -> None:
    """Two of nearly equal weight: replicate after replicate, the first is the one on the left."""
    rows = np.random.default_rng(0).normal(size=(300, 1))
    rows[:150] += 3
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    found = model.bootstrap(rows, n_replicates=40, refit=True)
    left = model.means_[:, 0].argmin()
    assert (found.means[:, left, 0] < found.means[:, 1 - left, 0]).all()


def test_replicates_without_an_optimum_are_told() -> None:
    """Of three rows of a component some replicates have none, or one."""
    rows = np.random.default_rng(0).normal(size=(60, 1))
    rows[:4] += 20
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    with pytest.warns(ConvergenceWarning, match="replicates came to no optimum") as told:
        found = model.bootstrap(rows, n_replicates=40, refit=True)
    assert found.failed > 2
    assert f"{found.failed} of 40 replicates" in str(told[0].message)
    assert len(found.weights) == len(found.means) == 40 - found.failed
    assert (found.covariances > 0).all()


def test_memory_is_planned_and_does_not_grow_with_rows(tmp_path: Any) -> None:
    few, many = 15_000, 150_000
    rows = np.random.default_rng(0).permutation(rows_of(many)).astype("f4")
    model = dgmm.GaussianMixture(2, random_state=0, n_jobs=1).fit(rows[:2000])
    peaks = []
    for count in (few, many):
        np.save(tmp_path / "rows.npy", rows[:count])
        dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(16 << 10)
        tracemalloc.start()
        model.bootstrap(dataset, n_replicates=4, refit=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Less than a number a row: other threads of this process allocate a little, too.
    assert peaks[1] - peaks[0] < 8 * (many - few)
    model.set_params(memory="300MiB")
    with pytest.raises(dgmm.PlanError, match="ask for fewer replicates"):
        model.bootstrap(rows, n_replicates=3_000_000)


def test_what_can_not_be_is_refused() -> None:
    rows = rows_of(300)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    with pytest.raises(dgmm.UsageError, match="n_replicates must be an integer of at least 2"):
        model.bootstrap(rows, n_replicates=1)
    with pytest.raises(dgmm.UsageError, match="random_state"):
        model.bootstrap(rows, random_state=None)  # type: ignore[arg-type]
    found = model.bootstrap(rows, n_replicates=39)
    with pytest.raises(dgmm.UsageError, match=r"0\.95 need at least 40 replicates: there are 39"):
        found.intervals()
    for level in (95, "0.9"):
        with pytest.raises(dgmm.UsageError, match="level"):
            found.intervals(level)  # type: ignore[arg-type]
    with pytest.raises(dgmm.UsageError, match="kind"):
        found.intervals(0.9, "bca")  # type: ignore[arg-type]
    student = dgmm.GaussianMixture(tails="student").fit(rows)
    with pytest.raises(dgmm.UsageError, match="heavy tails"):
        student.bootstrap(rows)
    with pytest.raises(dgmm.DataError, match="not positive definite"):
        model.bootstrap(rows[:1])


def test_the_command_tells_intervals(tmp_path: Any) -> None:
    rows = rows_of(400)
    np.save(tmp_path / "rows.npy", rows)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    model.save(tmp_path / "model.dgmm")
    words = ["errors", str(tmp_path / "rows.npy"), "-m", str(tmp_path / "model.dgmm"), "--quiet"]
    how = ["--bootstrap", "100", "--level", "0.9", "--interval", "basic", "--random-state", "7"]
    told = CliRunner().invoke(main, [*words, *how, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    own = model.bootstrap(rows, n_replicates=100, random_state=7)
    np.testing.assert_allclose(found["means"], own.standard_errors().means, rtol=1e-9)
    ends = own.intervals(0.9, "basic").covariances
    np.testing.assert_allclose(found["intervals"]["covariances"], ends, rtol=1e-9)
    assert (found["kind"], found["replicates"], found["refitted"]) == ("bootstrap", 100, False)
    shown = CliRunner().invoke(main, [*words, *how, "--refit"])
    assert shown.exit_code == 0, shown.output
    assert "weight: 90 %" in shown.output
    assert "100 replicates, fitted again; basic intervals" in shown.output
    for wrong, said in (
        (["--refit"], "--refit is of a bootstrap: add --bootstrap B"),
        (["--kind", "sandwich", "--bootstrap", "50"], "leave out one"),
        (["--bootstrap", "20"], "at least 40 replicates"),
    ):
        refused = CliRunner().invoke(main, [*words, *wrong])
        assert refused.exit_code == 2
        assert said in refused.output
