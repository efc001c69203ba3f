"""Components with heavy tails: against plain EM, a row at a time."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from dense import shaped
from distributed import Client
from scipy import optimize, stats
from scipy.special import psi

from dgmm import GaussianMixture, MixtureSearch, load
from dgmm.cli.commands import main
from dgmm.errors import DegenerateWarning, DgmmError
from dgmm.kernels import kernel, native
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics
from dgmm.model.tails import LEAST, MOST, RULES, StudentTails, root

Array = np.ndarray
KINDS = list(COVARIANCE_MODELS)
VARIANTS = range(len(native.compiled.variants()) if native.compiled else 0)


def drawn(rng: Any, count: int, dof: float, mean: Any, scale: Array) -> Array:
    """Rows of a t distribution."""
    rows: Array = stats.multivariate_t(mean, scale, dof).rvs(count, random_state=rng)
    return rows.reshape(count, -1)


def heavy(seed: int = 0, count: int = 300) -> Array:
    """Two clusters of 3 and 6 degrees of freedom."""
    rng, scale = np.random.default_rng(seed), np.array([[1, 0.5, 0], [0.5, 2, 0], [0, 0, 0.5]])
    both = drawn(rng, count, 3, np.zeros(3), scale), drawn(rng, count, 6, np.full(3, 7), np.eye(3))
    return rng.permutation(np.concatenate(both))


def textbook(
    kind: str, rule: str, rows: Array, weights: Array, start: tuple[Array, ...], n: int
) -> tuple[Array, Array, Array, Array, float]:
    """EM by Peel and McLachlan's formulas, row by row; what is NaN is missing at random."""
    pi, means, covs, dof = (np.array(each) for each in start)
    k, d = means.shape
    for step in range(n + 1):
        total, counts, evidence, heavy = 0.0, np.zeros(k), np.zeros(k), np.zeros(k)
        first, extra = np.zeros((k, d)), np.zeros((k, d, d))
        kept = []
        for row, weight in zip(rows, weights, strict=True):
            o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
            densities, x, u = np.empty(k), np.zeros((k, d)), np.empty(k)
            rest, logs = np.zeros((k, d, d)), np.empty(k)
            for j in range(k):
                s, away = covs[j], row[o] - means[j, o]
                inside = s[np.ix_(o, o)]
                densities[j] = pi[j] * stats.multivariate_t(means[j, o], inside, dof[j]).pdf(row[o])
                count = dof[j] + len(o)
                u[j] = count / (dof[j] + away @ np.linalg.solve(inside, away))
                logs[j] = np.log(u[j]) + psi(count / 2) - np.log(count / 2)
                gain = np.linalg.solve(inside, s[np.ix_(o, m)]).T
                x[j, o], x[j, m] = row[o], means[j, m] + gain @ away
                rest[j][np.ix_(m, m)] = s[np.ix_(m, m)] - gain @ s[np.ix_(o, m)]
            total += weight * np.log(densities.sum())
            shares = weight * densities / densities.sum()
            counts += shares
            heavy += shares * u
            evidence += shares * (logs - u)
            first += (shares * u)[:, None] * x
            extra += shares[:, None, None] * rest
            kept.append((shares * u, x))
        if step == n:
            break
        means, scatters = first / heavy[:, None], extra
        for by, x in kept:
            away = x - means
            scatters = scatters + by[:, None, None] * away[:, :, None] * away[:, None, :]
        covs, pi = shaped(kind, counts, scatters), counts / weights.sum()
        if rule == "common":
            evidence, counts = (np.full(k, each.sum()) for each in (evidence, counts))
        if rule != "given":
            for j in range(k):
                mean = evidence[j] / counts[j]
                dof[j] = optimize.brentq(
                    lambda nu, mean=mean: np.log(nu / 2) - psi(nu / 2) + 1 + mean, LEAST, MOST
                )
    return pi, means, covs, dof, total / weights.sum()


def begun(kind: str, **params: Any) -> GaussianMixture:
    """EM from a start that is given."""
    precisions = {
        "full": [np.eye(3), np.eye(3)],
        "tied": np.eye(3),
        "diag": np.ones((2, 3)),
        "spherical": np.ones(2),
    }[kind]
    given = {
        "strategy": "em",
        "tol": 0,
        "reg_covar": 0,
        "tails": "student",
        "weights_init": [0.5, 0.5],
        "means_init": [[0.5, 0, 0], [5, 6, 7]],
        "precisions_init": precisions,
    }
    return GaussianMixture(2, covariance_type=kind, **{**given, **params})


def quietly(model: GaussianMixture, rows: Any, weights: Any = None) -> GaussianMixture:
    """Fitted, however many iterations that would take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, sample_weight=weights)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("rule", ["each", "common", "given"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_textbook(
    kind: str, rule: str, missing: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rng, rows = np.random.default_rng(1), heavy(count=30)
    weights = rng.uniform(0.5, 2, len(rows))
    if missing:
        rows[rng.uniform(size=rows.shape) < 0.2] = np.nan
        rows[np.isnan(rows).all(axis=1), 0] = 1.0
    first = 4.0 if rule == "given" else 5.0
    where = np.array([[0.5, 0, 0], [5, 6, 7]])
    start = np.full(2, 0.5), where, np.stack([np.eye(3)] * 2), np.full(2, first)
    pi, means, covs, dof, total = textbook(kind, rule, rows, weights, start, 3)
    asked: Any = {"each": None, "common": "common", "given": 4.0}[rule]
    model = begun(kind, max_iter=3, dof=asked, missing="marginalize" if missing else "raise")
    quietly(model, rows, weights)
    np.testing.assert_allclose(model.weights_, pi, rtol=1e-10)
    np.testing.assert_allclose(model.means_, means, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.mixture_.covariances.dense(), covs, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.dof_, dof, rtol=1e-9)
    np.testing.assert_allclose(model.lower_bound_, total, rtol=1e-10)
    assert model.score(rows, sample_weight=weights) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_code_adds_up_the_same(
    kind: str, variant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the vectors, as NumPy does: in several mixtures, with weights, and far away."""
    monkeypatch.setattr(native, "VARIANT", variant)
    rng, model = np.random.default_rng(0), COVARIANCE_MODELS[kind]
    rows = rng.normal(size=(1001, 5))
    rows[::50] *= 1e6
    weights = rng.uniform(0, 2, 1001) * (rng.uniform(size=1001) > 0.1)
    naturals = []
    for k in (1, 4):
        dense = np.stack([each @ each.T + np.eye(5) for each in rng.normal(size=(k, 5, 5))])
        variances = rng.uniform(1, 2, (k, 5))
        values = {"full": dense, "tied": dense[0], "diag": variances, "spherical": variances[:, 0]}
        own = model.of_covariances(values[kind], (k, 5))
        tails = StudentTails(rng.uniform(0.2, 20, k), RULES["each"])
        mixture = Mixture(rng.dirichlet(np.ones(k)), rng.normal(size=(k, 5)), own, tails=tails)
        naturals.append(NaturalParameters.of(mixture, rng.uniform(0, 1, k)))
    given = Given(Frame(rng.normal(size=5), np.full(5, 2.0)), tuple(naturals))
    block = Block(0, rows, weights)
    for one, other in zip(
        native.e_step(block, given).parts, kernel.e_step(block, given).parts, strict=True
    ):
        for name in ("sums", "tails", "center"):
            mine, theirs = getattr(one, name), getattr(other, name)
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-9 * np.abs(theirs).max())
        assert one.objective == pytest.approx(other.objective, rel=1e-12)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("kernel_of", [kernel.e_step, native.e_step])
def test_statistics_of_parts_add_up(kernel_of: Any) -> None:
    """They are those of all rows; those of rows that count twice are twice as large."""
    rows, mixture = heavy()[:, :2], given()
    shared = Given(Frame(np.ones(2), np.full(2, 4.0)), (NaturalParameters.of(mixture),))
    weights = np.full(len(rows), 2.0)
    (whole,) = kernel_of(Block(0, rows), shared).parts
    (twice,) = kernel_of(Block(0, rows, weights), shared).parts
    parts = [kernel_of(Block(0, rows[a:b]), shared).parts[0] for a, b in ((0, 7), (7, 600))]
    none = Statistics.zero(whole.center, whole.sums.shape[1], tails=True)
    for found in (parts[0] + parts[1], parts[1] + (none + parts[0]), twice.scaled(0.5)):
        np.testing.assert_allclose(found.tails, whole.tails, rtol=1e-12)
        np.testing.assert_allclose(found.sums, whole.sums, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 4])
def test_one_component_is_the_most_likely(d: int) -> None:
    """As direct maximisation of the likelihood finds it."""
    rng = np.random.default_rng(d)
    rows = drawn(rng, 400, 2.5, np.ones(d), np.eye(d) + 0.3)
    places = np.tril_indices(d)

    def loss(at: Array) -> float:
        root = np.zeros((d, d))
        root[places] = at[d:-1]
        own = stats.multivariate_t(at[:d], root @ root.T + 1e-12 * np.eye(d), np.exp(at[-1]))
        return -float(np.mean(own.logpdf(rows)))

    begin = np.concatenate([np.median(rows, axis=0), np.eye(d)[places], [1.0]])
    best = optimize.minimize(loss, begin, method="BFGS", options={"gtol": 1e-7})
    model = quietly(GaussianMixture(1, tails="student", tol=1e-13, reg_covar=0, max_iter=500), rows)
    assert model.lower_bound_ == pytest.approx(-best.fun, abs=1e-9)
    assert model.dof_[0] == pytest.approx(np.exp(best.x[-1]), rel=1e-3)


def test_finds_what_rows_were_drawn_from() -> None:
    rows = heavy(count=20_000)
    for strategy in ("auto", "em"):
        model = GaussianMixture(
            2, tails="student", strategy=strategy, tol=1e-8, random_state=0, max_iter=500
        ).fit(rows)
        order = np.argsort(model.means_[:, 0])
        np.testing.assert_allclose(model.dof_[order], [3, 6], rtol=0.1)
        np.testing.assert_allclose(model.means_[order], [[0] * 3, [7] * 3], atol=0.05)
        spread = np.diagonal(model.component_covariances_[order[1]])
        np.testing.assert_allclose(spread, np.full(3, 1.5), rtol=0.05)
    plain = GaussianMixture(2, random_state=0).fit(rows)
    assert model.bic(rows) < plain.bic(rows)


def test_very_heavy_tails() -> None:
    """With half a degree of freedom rows reach to 1e8 and more; no floor is at 1 or 2."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([drawn(rng, 2000, 0.5, each, np.eye(2)) for each in ([0, 0], [40, 0])])
    assert np.abs(rows).max() > 1e6
    model = quietly(GaussianMixture(2, tails="student", random_state=0, max_iter=300), rows)
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.dof_, 0.5, rtol=0.15)
    np.testing.assert_allclose(model.means_[order], [[0, 0], [40, 0]], atol=0.3)
    assert np.isinf(model.component_covariances_).all()
    assert model.fit_info_["dof_at_limit"] == {"least": [], "most": []}
    truth = sum(
        0.5 * stats.multivariate_t(each, np.eye(2), 0.5).pdf(rows) for each in ([0, 0], [40, 0])
    )
    assert model.score(rows) > np.log(truth).mean()


def test_starts_are_not_led_astray() -> None:
    """By rows far away, of which one or two alone would make a likelihood without a bound."""
    close = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        where = rng.uniform(-20, 20, size=(6, 2))
        rows = np.concatenate([drawn(rng, 100, 1.5, each, np.eye(2)) for each in where])
        model = quietly(GaussianMixture(6, tails="student", random_state=0), rows)
        apart = np.linalg.norm(model.means_[:, None] - where, axis=2)
        close += int((apart.min(axis=0) < 1).sum())
        assert not model.fit_info_["singular"]
    assert close >= 16  # of 18


def test_limits_are_told() -> None:
    rng = np.random.default_rng(0)
    normal = rng.uniform(-1, 1, (500, 2))  # lighter than normal
    with pytest.warns(DegenerateWarning, match="component 0 came to 200 degrees of freedom"):
        model = GaussianMixture(1, tails="student").fit(normal)
    assert model.dof_.tolist() == [MOST]
    assert model.fit_info_["dof_at_limit"]["most"] == [0]
    plain = GaussianMixture(1).fit(normal)
    np.testing.assert_allclose(model.means_, plain.means_, atol=0.01)
    assert root(np.array([-1.0, -1e9])).tolist() == [MOST, LEAST]


def test_normal_is_the_limit() -> None:
    rows = heavy()
    endless = GaussianMixture(2, tails="student", dof=np.inf, random_state=0).fit(rows)
    plain = GaussianMixture(2, random_state=0).fit(rows)
    assert np.array_equal(endless.means_, plain.means_)
    assert np.isinf(plain.dof_).all()
    assert np.array_equal(plain.component_covariances_, plain.mixture_.covariances.dense())
    nearly = quietly(begun("full", max_iter=3, dof=1e9), rows)
    normal = quietly(begun("full", max_iter=3, tails="normal"), rows)
    np.testing.assert_allclose(nearly.means_, normal.means_, atol=1e-5)
    assert nearly.lower_bound_ == pytest.approx(normal.lower_bound_, abs=1e-5)


def test_units_do_not_matter() -> None:
    rows, scale, shift = heavy(), np.array([1e-3, 7.0, 1e5]), np.array([5.0, -1e3, 3e5])
    plain, moved = (
        GaussianMixture(2, tails="student", random_state=0).fit(each)
        for each in (rows, rows * scale + shift)
    )
    assert moved.lower_bound_ == pytest.approx(plain.lower_bound_ - np.log(scale).sum(), abs=1e-6)
    np.testing.assert_allclose(moved.dof_, plain.dof_, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_falls(kind: str) -> None:
    for strategy in ("auto", "em"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GaussianMixture(
                3, covariance_type=kind, tails="student", strategy=strategy, random_state=1
            ).fit(heavy(3))
        bounds = np.array([*model.lower_bounds_, model.lower_bound_])
        assert np.diff(bounds).min() > -1e-11


def given() -> Mixture:
    """A mixture of two t distributions."""
    covariances = np.array([[[1.0, 0.3], [0.3, 1.0]], [[0.5, 0.0], [0.0, 2.0]]])
    own = COVARIANCE_MODELS["full"].of_covariances(covariances, (2, 2))
    tails = StudentTails(np.array([3.0, 7.0]), RULES["each"])
    means = np.array([[0.0, 0.0], [3.0, 2.0]])
    return Mixture(np.array([0.6, 0.4]), means, own, tails=tails)


def test_draws_marginals_and_conditionals() -> None:
    mixture = given()
    rows, labels = mixture.sample(50_000, np.random.default_rng(0))
    assert stats.kstest(rows[labels == 0, 0], stats.t(3).cdf).pvalue > 1e-3
    mean, variance = mixture.moments()
    np.testing.assert_allclose(rows.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(rows.var(axis=0), variance, rtol=0.1)

    def density(some: Mixture, *point: float) -> float:
        return float(np.exp(some.log_joints(np.array(point)[:, None])).sum())

    marginal, known = mixture.marginal([0]), mixture.conditional([0], [1.3])
    joint = [0.6, 0.4] @ np.array([stats.t(3).pdf(1.3), stats.t(7, 3, np.sqrt(0.5)).pdf(1.3)])
    assert density(marginal, 1.3) == pytest.approx(joint)
    for other in (-5.0, 0.2, 4.0):
        assert density(known, other) == pytest.approx(density(mixture, 1.3, other) / joint)


def test_imputes_as_the_conditional_is() -> None:
    mixture = given()
    model = GaussianMixture(2, random_state=0)
    model.mixture_, model.n_features_in_ = mixture, 2
    rows = np.array([[1.3, np.nan]] * 20_000)
    known = mixture.conditional([0], [1.3])
    assert model.impute(rows[:1])[0, 1] == pytest.approx(float(known.weights @ known.means[:, 0]))
    found = np.sort(model.impute(rows, sample=True)[:, 1])
    parts = [
        stats.t(nu, mean, np.sqrt(variance)).cdf(found)
        for nu, mean, variance in zip(
            known.tails.dof, known.means[:, 0], known.variances[:, 0], strict=True
        )
    ]
    away = np.abs(known.weights @ np.array(parts) - (np.arange(20_000) + 0.5) / 20_000)
    assert away.max() < 1.63 / np.sqrt(20_000)


def test_files_checkpoints_and_engines(tmp_path: Path) -> None:
    """The same bits from a file, after an interruption, and from a cluster."""
    rows = heavy(count=1500)
    params = {"tails": "student", "random_state": 0, "dof": "common", "missing": "marginalize"}
    rows[::9, 1] = np.nan
    store = zarr.create_array(
        store=tmp_path / "rows.zarr", shape=rows.shape, chunks=(500, 3), dtype="f8"
    )
    store[:] = rows
    here = GaussianMixture(2, **params).fit(tmp_path / "rows.zarr")
    here.save(tmp_path / "model.dgmm")
    again = load(tmp_path / "model.dgmm")
    assert np.array_equal(again.dof_, here.dof_)
    assert again.mixture_.free_parameters == here.mixture_.free_parameters == 20
    assert np.array_equal(again.predict_proba(rows), here.predict_proba(rows))
    path = tmp_path / "passes"
    steps = GaussianMixture(2, checkpoint=path, **params).fit_passes(tmp_path / "rows.zarr")
    for _ in zip(range(3), steps, strict=False):
        pass
    steps.close()
    resumed = GaussianMixture(2, checkpoint=path, **params).fit(tmp_path / "rows.zarr")
    assert np.array_equal(resumed.means_, here.means_)
    assert np.array_equal(resumed.dof_, here.dof_)
    other = {**params, "dof": None}
    with pytest.raises(DgmmError, match="tails is"):
        GaussianMixture(2, checkpoint=path, **other).fit(tmp_path / "rows.zarr")
    with Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None):
        away = GaussianMixture(2, **params).fit(tmp_path / "rows.zarr")
    assert np.array_equal(away.means_, here.means_)
    assert np.array_equal(away.dof_, here.dof_)


def test_warm_starts_and_selection() -> None:
    rows = heavy()
    model = quietly(begun("full", max_iter=2, warm_start=True), rows)
    quietly(model, rows)
    four = quietly(begun("full", max_iter=4), rows)
    np.testing.assert_allclose(model.means_, four.means_, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.dof_, four.dof_, rtol=1e-9)
    with pytest.raises(DgmmError, match="same tails"):
        model.set_params(tails="normal").fit(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = MixtureSearch(
            GaussianMixture(tails="student", random_state=0), n_components=[1, 2, 3]
        ).fit(rows)
    assert search.best_params_["n_components"] == 2
    assert search.best_estimator_.mixture_.free_parameters == 2 * (6 + 3 + 1) + 1


def test_refusals() -> None:
    rows = heavy()
    student = {"tails": "student"}
    for dof in (0, -1.0, "all", np.nan, True):
        with pytest.raises(ValueError, match="dof must be"):
            GaussianMixture(2, dof=dof, **student).fit(rows)
    for params, match in (
        ({"tails": "heavy"}, "tails must be one of"),
        ({"dof": 3.0}, "of no use without tails"),
        ({**student, "noise_component": True}, "has no noise component"),
        ({**student, "prior": "conjugate"}, "'conjugate' has no tails"),
        ({**student, "fixed": "means", "means_init": rows[:2]}, "fixed holds nothing of tails"),
    ):
        with pytest.raises(ValueError, match=match):
            GaussianMixture(2, **params).fit(rows)
    for params in (student, {}):
        with pytest.raises(DgmmError, match="known errors"):
            GaussianMixture(2, **student).fit(rows).set_params(**params).score(
                rows, noise=np.ones_like(rows)
            )
    model = GaussianMixture(2, noise_component=np.False_, random_state=0).fit(rows)
    model.set_params(**student).fit(rows)
    with pytest.raises(DgmmError, match="known errors"):
        model.fit(rows, noise=np.ones_like(rows))
    assert not hasattr(model, "sufficient_statistics_")
    with pytest.raises(DgmmError, match="has no statistics that add up"):
        model.summarize(rows)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        _ = model.partial_fit
    assert "has no statistics that add up" in str(caught.value.__cause__)


def test_models_of_given_parameters(tmp_path: Path) -> None:
    params = {"covariance_type": "spherical", "tails": "student"}
    where = [[0.0, 0], [5, 5]]
    model = GaussianMixture.from_parameters([0.3, 0.7], where, [1.0, 2], dof=[3.0, 9], **params)
    assert model.dof_.tolist() == [3, 9]
    x = np.array([1.0, 2.0])
    density = 0.3 * stats.multivariate_t([0, 0], np.eye(2), 3).pdf(x)
    density += 0.7 * stats.multivariate_t([5, 5], 2 * np.eye(2), 9).pdf(x)
    assert model.score_samples([x])[0] == pytest.approx(np.log(density))
    model.save(tmp_path / "given.dgmm")
    assert load(tmp_path / "given.dgmm").dof_.tolist() == [3, 9]
    alike = GaussianMixture.from_parameters([0.3, 0.7], where, [1.0, 2], dof=4, **params)
    assert alike.dof_.tolist() == [4, 4]
    for dof in (None, "common", [1.0], [1.0, -1]):
        with pytest.raises(DgmmError, match="dof"):
            GaussianMixture.from_parameters([0.3, 0.7], where, [1.0, 2], dof=dof, **params)
    with pytest.raises(DgmmError, match="box of a noise component"):
        GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]], noise_component=True)


def test_command_line(tmp_path: Path) -> None:
    rows = heavy()
    np.save(tmp_path / "rows.npy", rows)

    def run(*words: Any) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    model, data = tmp_path / "m.dgmm", tmp_path / "rows.npy"
    run("fit", data, "-k", 2, "-o", model, "--quiet", "--tails", "student")
    fitted = load(model)
    assert (fitted.dof_ < 30).all()
    shown = run("show", model)
    assert "dof" in shown
    assert json.loads(run("show", model, "--json"))["dof"] == fitted.dof_.tolist()
    run("fit", data, "-k", 2, "-o", model, "--overwrite", "--tails", "student", "--dof", "common")
    assert len(set(load(model).dof_)) == 1
    run("fit", data, "-k", 2, "-o", model, "--overwrite", "--tails", "student", "--dof", 4)
    assert load(model).dof_.tolist() == [4, 4]
    run("plan", data, "-k", 2, "--tails", "student")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_are_told(bad: float) -> None:
    model = GaussianMixture.from_parameters(
        [1.0], [[0.0, 0]], [1.0], covariance_type="spherical", tails="student", dof=5
    )
    for judge in (model.predict, model.predict_proba, model.score_samples):
        with pytest.raises(DgmmError, match="at row 1"):
            judge(np.array([[0.0, 1], [0, bad]]))
