"""Rows of no cluster: against plain EM, a row at a time."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from dense import shaped
from distributed import Client
from scipy.stats import multivariate_normal

from dgmm import ConjugatePrior, GaussianMixture, MixtureSearch, align, load
from dgmm.cli.commands import main
from dgmm.em.information import Information
from dgmm.em.model import Model, Trial
from dgmm.em.sample import Sample
from dgmm.em.squarem import coordinates, mixture_at
from dgmm.errors import DegenerateWarning, DgmmError
from dgmm.kernels.complete import NOTHING
from dgmm.kernels.observation import COMPLETE
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import NOISE, Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.prior import Regularised

Array = np.ndarray
KINDS = list(COVARIANCE_MODELS)


def rows_with_noise(seed: int = 0, count: int = 300, d: int = 3) -> Array:
    """Two clusters, and a quarter of the rows spread over a box."""
    rng = np.random.default_rng(seed)
    near, there = rng.normal(size=(count, d)), 0.5 * rng.normal(size=(count, d)) + 4
    return rng.permutation(np.concatenate([near, there, rng.uniform(-9, 9, (2 * count // 3, d))]))


def textbook(
    kind: str, rows: Array, weights: Array, start: tuple[Array, Array, Array], share: float, n: int
) -> tuple[Array, Array, Array, float, float]:
    """EM with noise for ``n`` iterations, row by row; values that are NaN are missing at random.

    Weights, means, covariances (K, D, D), the weight of noise, and the log-likelihood at the end.
    """
    pi, means, covs = (np.array(each) for each in start)
    pi, extent = pi * (1 - share), np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    k, d = means.shape
    for step in range(n + 1):
        total, counts, even = 0.0, np.zeros(k), 0.0
        first, second = np.zeros((k, d)), np.zeros((k, d, d))
        for row, weight in zip(rows, weights, strict=True):
            o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
            densities, x, extra = np.empty(k + 1), np.zeros((k, d)), np.zeros((k, d, d))
            densities[k] = share / np.prod(extent[o])
            for j in range(k):
                s = covs[j]
                inside = s[np.ix_(o, o)]
                densities[j] = pi[j] * multivariate_normal(means[j, o], inside).pdf(row[o])
                gain = np.linalg.solve(inside, s[np.ix_(o, m)]).T
                x[j, o], x[j, m] = row[o], means[j, m] + gain @ (row[o] - means[j, o])
                extra[j][np.ix_(m, m)] = s[np.ix_(m, m)] - gain @ s[np.ix_(o, m)]
            total += weight * np.log(densities.sum())
            shares = weight * densities / densities.sum()
            even += shares[k]
            counts += shares[:k]
            first += shares[:k, None] * x
            second += shares[:k, None, None] * (x[:, :, None] * x[:, None, :] + extra)
        if step == n:
            break
        means = first / counts[:, None]
        scatters = second - counts[:, None, None] * means[:, :, None] * means[:, None, :]
        covs = shaped(kind, counts, scatters)
        pi, share = counts / weights.sum(), even / weights.sum()
    return pi, means, covs, share, total / weights.sum()


def begun(kind: str, **params: Any) -> GaussianMixture:
    """EM from a start that is given."""
    precisions = {
        "full": [np.eye(3), np.eye(3)],
        "tied": np.eye(3),
        "diag": np.ones((2, 3)),
        "spherical": np.ones(2),
    }[kind]
    return GaussianMixture(
        2,
        covariance_type=kind,
        strategy="em",
        tol=0,
        reg_covar=0,
        precision="float64",
        weights_init=[0.5, 0.5],
        means_init=[[0.5, 0, 0], [3.5, 4, 4]],
        precisions_init=precisions,
        noise_component=0.2,
        **params,
    )


def quietly(model: GaussianMixture, rows: Any, weights: Any = None) -> GaussianMixture:
    """Fitted, however many iterations that would take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, sample_weight=weights)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_textbook(
    kind: str, weighted: bool, missing: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rng, rows = np.random.default_rng(1), rows_with_noise(count=30)
    weights = rng.uniform(0.5, 2, len(rows)) if weighted else np.ones(len(rows))
    if missing:
        rows[rng.uniform(size=rows.shape) < 0.2] = np.nan
        rows[np.isnan(rows).all(axis=1), 0] = 1.0
    start = np.full(2, 0.5), np.array([[0.5, 0, 0], [3.5, 4, 4]]), np.stack([np.eye(3)] * 2)
    pi, means, covs, share, total = textbook(kind, rows, weights, start, 0.2, 3)
    model = begun(kind, max_iter=3, missing="marginalize" if missing else "raise")
    quietly(model, rows, weights if weighted else None)
    np.testing.assert_allclose(model.weights_, pi, rtol=1e-10)
    np.testing.assert_allclose(model.noise_weight_, share, rtol=1e-10)
    np.testing.assert_allclose(model.means_, means, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.mixture_.covariances.dense(), covs, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.lower_bound_, total, rtol=1e-10)
    assert model.weights_.sum() + model.noise_weight_ == pytest.approx(1, abs=1e-14)
    extent = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    assert model.noise_log_density_ == pytest.approx(-np.log(extent).sum(), rel=1e-12)
    if not weighted:
        assert model.score(rows) == pytest.approx(total, rel=1e-10)


def test_many_rows_of_one_pattern() -> None:
    """The compiled kernel takes those as complete rows of fewer features."""
    rows = rows_with_noise(count=1000)
    rows[: len(rows) // 2, 1] = np.nan
    whole = quietly(begun("full", max_iter=2, missing="marginalize"), rows)
    weights, start = np.ones(200), (whole.mixture_.own_weights, whole.means_, whole.covariances_)
    some = rows[len(rows) // 2 - 100 :][:200]
    share = whole.noise_weight_
    logs = np.empty(len(some))
    for i, row in enumerate(some):
        seen = np.flatnonzero(~np.isnan(row))
        density = share / np.prod(whole.mixture_.noise_component.extent[seen])
        for j in range(2):
            normal = multivariate_normal(start[1][j, seen], start[2][j][np.ix_(seen, seen)])
            density += whole.weights_[j] * normal.pdf(row[seen])
        logs[i] = np.log(density)
    np.testing.assert_allclose(whole.score_samples(some), logs, rtol=1e-10)
    assert whole.score(some) == pytest.approx(float(np.average(logs, weights=weights)))


@pytest.mark.parametrize("kind", KINDS)
def test_finds_clusters_in_noise(kind: str) -> None:
    """Both strategies find the clusters that rows were drawn from, and how many are noise."""
    rows = rows_with_noise()
    found = [
        GaussianMixture(
            2, covariance_type=kind, strategy=strategy, noise_component=True, random_state=0
        ).fit(rows)
        for strategy in ("auto", "em")
    ]
    for model in found:
        assert np.abs(np.sort(model.means_[:, 0]) - [0, 4]).max() < 0.25
        assert abs(model.noise_weight_ - 0.25) < 0.03
        assert abs(np.mean(model.predict(rows) == NOISE) - 0.25) < 0.05
    assert found[0].lower_bound_ > found[1].lower_bound_ - 1e-3


def test_many_rows_by_samples() -> None:
    """Where rows are many, starts on samples, quasi-Newton steps and single precision serve."""
    rows = rows_with_noise(count=15_000)
    model = GaussianMixture(2, noise_component=True, random_state=0).fit(rows)
    assert model.converged_
    assert model.fit_info_["float32_passes"]
    precise = GaussianMixture(
        2, noise_component=True, random_state=0, strategy="em", tol=1e-9, precision="float64"
    ).fit(rows)
    resolution = model.fit_info_["resolution"]
    assert abs(model.lower_bound_ - precise.lower_bound_) < 0.1 * resolution


def test_rows_far_away_are_noise() -> None:
    """In the fit, and when they are predicted: the density does not end at the box."""
    rows = rows_with_noise()
    model = GaussianMixture(2, noise_component=True, random_state=0).fit(rows)
    far = np.array([[1e6, 0, 0], [1e200, -1e200, 0], [0, 0, 0], [np.nan, np.nan, np.nan]])
    seen = model.set_params(missing="marginalize").predict(far)
    assert seen.tolist()[:2] == [NOISE, NOISE]
    assert seen[2] in (0, 1)
    assert seen[3] == NOTHING
    proba = model.predict_proba(far)
    assert proba.shape == (4, 3)
    assert proba[0].tolist() == [0, 0, 1]
    log_density = np.log(model.noise_weight_) + model.noise_log_density_
    np.testing.assert_allclose(model.score_samples(far[:2]), log_density, rtol=1e-12)
    with_far = np.concatenate([rows, [[1e4, -1e4, 0]]])
    again = GaussianMixture(2, noise_component=True, noise_volume=18.0**3, random_state=0).fit(
        with_far
    )
    assert again.predict(with_far)[-1] == NOISE
    assert np.abs(again.means_[np.argsort(again.means_[:, 0])] - [[0] * 3, [4] * 3]).max() < 0.3


def test_units_do_not_matter() -> None:
    rows, scale, shift = rows_with_noise(), np.array([1e-3, 7.0, 1e5]), np.array([5.0, -1e3, 3e5])
    for strategy in ("auto", "em"):
        plain, moved = (
            GaussianMixture(2, strategy=strategy, noise_component=True, random_state=0).fit(each)
            for each in (rows, rows * scale + shift)
        )
        assert moved.noise_weight_ == pytest.approx(plain.noise_weight_, rel=1e-6)
        both = zip((plain, moved), (rows, rows * scale + shift), strict=True)
        labels = [model.predict(each) for model, each in both]
        assert np.array_equal(*labels)
        expected = plain.lower_bound_ - np.log(scale).sum()
        assert moved.lower_bound_ == pytest.approx(expected, abs=1e-6)
        assert moved.noise_log_density_ == pytest.approx(
            plain.noise_log_density_ - np.log(scale).sum(), rel=1e-9
        )


def test_the_volume_may_be_given() -> None:
    rows = rows_with_noise()
    model = GaussianMixture(2, noise_component=True, noise_volume=1e4, random_state=0).fit(rows)
    assert model.noise_log_density_ == pytest.approx(-np.log(1e4), rel=1e-12)
    noise = model.mixture_.noise_component
    middle = (rows.min(axis=0) + rows.max(axis=0)) / 2
    np.testing.assert_allclose(noise.low + noise.extent / 2, middle, atol=1e-9)


def given() -> Mixture:
    """A mixture of two components and noise."""
    weights, means = np.array([0.5, 0.3]), np.array([[0.0, 0.0], [3.0, 2.0]])
    covariances = np.array([[[1.0, 0.3], [0.3, 1.0]], [[0.5, 0.0], [0.0, 2.0]]])
    noise = NoiseComponent.of(0.2, np.array([-4.0, -5.0]), np.array([6.0, 5.0]))
    own = COVARIANCE_MODELS["full"].of_covariances(covariances, (2, 2))
    return Mixture(weights, means, own, noise)


def test_draws_marginals_and_conditionals() -> None:
    mixture = given()
    mixture.check()
    rows, labels = mixture.sample(40_000, np.random.default_rng(0))
    assert abs(np.mean(labels == NOISE) - 0.2) < 0.01
    mean, variance = mixture.moments()
    np.testing.assert_allclose(rows.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(rows.var(axis=0), variance, rtol=0.03)
    assert (rows[labels == NOISE] >= [-4, -5]).all()
    x = np.array([0.7])

    def density(some: Mixture, point: Array) -> float:
        return float(np.exp(some.log_joints(point[:, None])).sum())

    other = np.linspace(-30, 30, 60_001)
    both = np.stack([np.full_like(other, 0.7), other])
    inside = np.exp(mixture.log_joints(both))
    inside[-1, (other < -5) | (other > 5)] = 0  # what integrates to 1 is in the box
    marginal = density(mixture.marginal([0]), x)
    assert inside.sum() * 1e-3 == pytest.approx(marginal, rel=1e-3)
    known = mixture.conditional([0], [0.7])
    assert known.all_weights.sum() == pytest.approx(1)
    joint = np.exp(mixture.log_joints(np.array([[0.7], [1.3]]))).sum()
    assert density(known, np.array([1.3])) == pytest.approx(joint / marginal)


def test_imputes_from_the_box() -> None:
    mixture = given()
    model = GaussianMixture(2)
    model.mixture_, model.n_features_in_ = mixture, 2
    far = np.array([[1e3, np.nan]] * 2000)
    assert model.impute(far)[0, 1] == pytest.approx(0.0)  # the middle of -5 to 5
    drawn = model.set_params(random_state=0).impute(far, sample=True)[:, 1]
    assert drawn.min() > -5
    assert drawn.max() < 5
    assert np.var(drawn) == pytest.approx(100 / 12, rel=0.1)
    assert np.array_equal(drawn[:5], model.impute(far[:5], sample=True)[:, 1])


def test_coordinates_have_noise() -> None:
    """Whatever is seen from a mixture is found again there."""
    mixture, frame = given(), Frame(np.zeros(2), np.ones(2))
    other = replace(
        mixture,
        weights=np.array([0.4, 0.35]),
        noise_component=mixture.noise_component.weighing(0.25),
        means=mixture.means + 0.1,
    )
    live, prior = np.ones(2, bool), Regularised(np.zeros(2))
    model = Model(COVARIANCE_MODELS["full"], prior, COMPLETE)
    place = coordinates(other, mixture, live, prior)
    assert len(place) == mixture.free_parameters + 1
    found = mixture_at(place, mixture, mixture, live, model)
    assert isinstance(found, Trial)
    np.testing.assert_allclose(found.mixture.all_weights, other.all_weights, rtol=1e-12)
    np.testing.assert_allclose(found.mixture.means, other.means, rtol=1e-12)
    rows, _ = mixture.sample(4000, np.random.default_rng(0))
    numbers = np.arange(4000)
    sample = Sample(4000, numbers.astype(float), numbers, rows, np.ones(4000))
    information = Information.of(sample, frame, mixture)
    assert len(information.values) == len(place)

    def score(step: Array) -> float:
        at = coordinates(mixture, mixture, live, prior) + step
        moved = mixture_at(at, mixture, mixture, live, model).mixture
        return float(np.logaddexp.reduce(moved.log_joints(rows.T)).mean())

    for j in (0, 1, 2):  # the weights, noise last: curvature by differences
        step = np.zeros(len(place))
        step[j] = 1e-2
        curvature = (score(step) + score(-step) - 2 * score(0 * step)) / 1e-4
        row = information.vectors[j]
        own = row @ (information.values * row)
        root = np.sqrt(mixture.all_weights[j])
        assert -curvature == pytest.approx(own - root * root, abs=0.03)


def test_criteria_count_its_weight() -> None:
    rows = rows_with_noise()
    search = MixtureSearch(
        GaussianMixture(noise_component=True, random_state=0), n_components=[1, 2, 3]
    ).fit(rows)
    best = search.best_estimator_
    assert search.best_params_["n_components"] == 2
    assert best.mixture_.free_parameters == 2 * (6 + 3) + 2  # two of three weights
    log_n = np.log(len(rows))
    p = best.mixture_.free_parameters
    assert best.bic(rows) == pytest.approx(-2 * len(rows) * best.score(rows) + p * log_n)
    plain = GaussianMixture(2, random_state=0).fit(rows)
    assert best.bic(rows) < plain.bic(rows)


def test_files_checkpoints_and_engines(tmp_path: Path) -> None:
    """The same bits from a file, after an interruption, and from a cluster."""
    rows = rows_with_noise(count=1500)
    params = {"noise_component": 0.3, "random_state": 0, "covariance_type": "tied"}
    model = GaussianMixture(2, **params).fit(da.from_array(rows, chunks=(500, 3)))
    model.save(tmp_path / "model.dgmm")
    again = load(tmp_path / "model.dgmm")
    assert again.noise_weight_ == model.noise_weight_
    assert np.array_equal(again.predict_proba(rows), model.predict_proba(rows))
    assert again.noise_component == 0.3
    store = zarr.create_array(
        store=tmp_path / "rows.zarr", shape=rows.shape, chunks=(500, 3), dtype="f8"
    )
    store[:] = rows
    here = GaussianMixture(2, **params).fit(tmp_path / "rows.zarr")
    path = tmp_path / "passes"
    steps = GaussianMixture(2, checkpoint=path, **params).fit_passes(tmp_path / "rows.zarr")
    for _ in zip(range(3), steps, strict=False):
        pass
    steps.close()
    resumed = GaussianMixture(2, checkpoint=path, **params).fit(tmp_path / "rows.zarr")
    assert np.array_equal(resumed.means_, here.means_)
    assert resumed.noise_weight_ == here.noise_weight_
    with pytest.raises(DgmmError, match="noise_component is"):
        GaussianMixture(2, checkpoint=path, **{**params, "noise_component": True}).fit(
            tmp_path / "rows.zarr"
        )
    with Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None):
        away = GaussianMixture(2, **params).fit(tmp_path / "rows.zarr")
    assert np.array_equal(away.means_, here.means_)
    assert away.noise_weight_ == here.noise_weight_


@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_is_an_em_step(kind: str) -> None:
    """Statistics of parts add up to an iteration over all rows, from where the fit was."""
    rows = rows_with_noise()
    model = quietly(begun(kind, max_iter=2), rows)
    once_more = quietly(begun(kind, max_iter=3), rows)
    parts = [model.summarize(rows[:100]), model.summarize(rows[100:])]
    model.update(sum(parts))
    np.testing.assert_allclose(model.means_, once_more.means_, rtol=1e-8, atol=1e-9)
    assert model.noise_weight_ == pytest.approx(once_more.noise_weight_, rel=1e-9)
    assert model.lower_bounds_[-1] <= model.lower_bound_


def test_alignment_keeps_noise() -> None:
    rows = rows_with_noise()
    one, other = (
        GaussianMixture(2, noise_component=True, random_state=seed).fit(rows) for seed in (0, 1)
    )
    moved = other.mixture_.chosen([1, 0])
    turned = align(moved, other).model
    assert turned.noise_weight_ == other.noise_weight_
    assert np.array_equal(turned.means_, moved.means)
    assert turned.sufficient_statistics_.sums.shape == (3, 10)
    turned.partial_fit(rows[:50])
    assert align(one, turned).divergences.max() < 1


def test_warm_start_goes_on() -> None:
    rows = rows_with_noise()
    model = quietly(begun("full", max_iter=2, warm_start=True), rows)
    quietly(model, rows)
    four = quietly(begun("full", max_iter=4), rows)
    np.testing.assert_allclose(model.means_, four.means_, rtol=1e-9, atol=1e-10)
    assert model.noise_weight_ == pytest.approx(four.noise_weight_, rel=1e-9)


def test_refusals() -> None:
    rows = rows_with_noise()
    for wrong in (1.0, 0.0, -0.1, 2, "yes", None):
        with pytest.raises(ValueError, match="noise_component must be"):
            GaussianMixture(2, noise_component=wrong).fit(rows)
    for volume in (0, -1.0, np.inf, "big"):
        with pytest.raises(ValueError, match="noise_volume must be"):
            GaussianMixture(2, noise_component=True, noise_volume=volume).fit(rows)
    with pytest.raises(ValueError, match="'variational' has no noise component"):
        GaussianMixture(2, noise_component=True, prior="variational").fit(rows)
    with pytest.raises(ValueError, match="of no use without noise_component"):
        GaussianMixture(2, noise_volume=1.0).fit(rows)
    rows[:, 1] = 3.0
    with pytest.raises(DgmmError, match="column 1 has one value in all rows"):
        GaussianMixture(2, noise_component=True).fit(rows)
    plain = GaussianMixture(1, random_state=0).fit(rows_with_noise())
    assert plain.noise_weight_ == 0.0
    assert plain.noise_log_density_ == -np.inf


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strategy": "em", "prior": ConjugatePrior()},
        {"covariance_type": "tied", "means_init": np.eye(2, 3), "fixed": {"means": True}},
    ],
)
def test_all_rows_may_be_noise(more: dict[str, Any], tmp_path: Path) -> None:
    """As they are where the box that is asked for is far too small."""
    rows = rows_with_noise(count=60)
    model = GaussianMixture(2, noise_component=True, noise_volume=1e-8, random_state=0, **more)
    with pytest.warns(DegenerateWarning, match="become empty"):
        model.fit(rows)
    assert (model.weights_.tolist(), model.noise_weight_) == ([0, 0], 1)
    assert np.isclose(model.score(rows), 8 * np.log(10))
    model.save(tmp_path / "m.dgmm")
    assert (load(tmp_path / "m.dgmm").predict(rows) == NOISE).all()


def test_command_line(tmp_path: Path) -> None:
    rows = rows_with_noise()
    np.save(tmp_path / "rows.npy", rows)

    def run(*words: Any) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    model, labels = tmp_path / "m.dgmm", tmp_path / "labels.zarr"
    data = tmp_path / "rows.npy"
    run("fit", data, "-k", 2, "-o", model, "--quiet", "--noise-component")
    fitted = load(model)
    assert fitted.noise_component is True
    assert "noise" in run("show", model)
    shown = json.loads(run("show", model, "--json"))
    assert shown["noise_component"]["weight"] == fitted.noise_weight_
    told = json.loads(run("predict", data, "-m", model, "-o", labels, "--json", "--quiet"))
    found = zarr.open_array(labels, mode="r")[:]
    assert told["rows_of_noise"] == np.count_nonzero(found == NOISE)
    assert sum(told["rows_of_components"]) + told["rows_of_noise"] == len(rows)
    table = run("predict", data, "-m", model, "-o", labels, "--overwrite", "--quiet")
    assert "noise" in table
    run("plan", data, "-k", 2, "--noise-component", 0.2)
    other = tmp_path / "other.dgmm"
    run("fit", data, "-k", 2, "-o", other, "--quiet", "--noise-component=0.2", "--start", model)
    assert load(other).noise_weight_ == pytest.approx(fitted.noise_weight_, abs=0.02)
    wrong = CliRunner().invoke(main, ["fit", "--noise-component", str(data), "-k", "2"])
    assert wrong.exit_code == 2
    assert "is no weight" in wrong.output


def test_noise_that_no_row_needs_has_the_weight_zero_under_a_prior(tmp_path: Path) -> None:
    """Rounding does not bring it below 0, which no draw and no file could take."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(300, 2)) + 9 * (np.arange(300) % 5)[:, None]
        model = GaussianMixture(
            5,
            prior=ConjugatePrior(),
            noise_component=0.1,
            noise_volume=1e300,
            strategy="em",
            random_state=0,
            means_init=[[9 * k, 9 * k] for k in range(5)],
        ).fit(rows, sample_weight=rng.uniform(0.1, 2, 300))
        assert 0 <= model.noise_weight_ < 1e-200
        assert model.weights_.sum() == pytest.approx(1.0, rel=1e-14)
        assert model.sample(9)[0].shape == (9, 2)
        model.save(tmp_path / f"{seed}.dgmm")
        assert load(tmp_path / f"{seed}.dgmm").noise_weight_ == model.noise_weight_
