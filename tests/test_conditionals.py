"""Marginals, conditionals and regressions: equal to dense formulas."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import dgmm
from dgmm.cli.commands import main
from dgmm.estimators.judging import judged
from dgmm.inference.regression import quantile

RNG = np.random.default_rng(3)
K, D = 4, 5
ROOTS = RNG.normal(size=(K, D, D))
DENSE = ROOTS @ ROOTS.swapaxes(1, 2) + 0.3 * np.eye(D)
VALUES = {
    "full": DENSE,
    "tied": DENSE[0],
    "diag": np.diagonal(DENSE, axis1=1, axis2=2),
    "spherical": DENSE[:, 0, 0],
}
WEIGHTS, MEANS = RNG.dirichlet(np.ones(K)), 3 * RNG.normal(size=(K, D))
TARGETS, KNOWN = [3, 1], [0, 2, 4]


def model_of(kind: str = "full", **params: Any) -> dgmm.GaussianMixture:
    return dgmm.GaussianMixture.from_parameters(
        WEIGHTS, MEANS, VALUES[kind], covariance_type=kind, **params
    )


def dense(model: dgmm.GaussianMixture, x: np.ndarray, known: list[int]) -> tuple[np.ndarray, ...]:
    """Weights (K, n), means (K, n, T) and covariances (K, T, T) of the targets, given x."""
    own, cov = model.means_, model.component_covariances_
    inner = [each[np.ix_(known, known)] for each in cov]
    logs = [
        np.log(model.weights_[k]) + multivariate_normal(own[k][known], inner[k]).logpdf(x)
        for k in range(K)
    ]
    gains = [cov[k][np.ix_(TARGETS, known)] @ np.linalg.inv(inner[k]) for k in range(K)]
    means = [own[k][TARGETS] + (x - own[k][known]) @ gains[k].T for k in range(K)]
    left = [
        cov[k][np.ix_(TARGETS, TARGETS)] - gains[k] @ cov[k][np.ix_(known, TARGETS)]
        for k in range(K)
    ]
    return np.exp(logs - logsumexp(logs, axis=0)), np.array(means), np.array(left)


@pytest.mark.parametrize("kind", VALUES)
def test_regressions_are_the_dense_formulas(kind: str) -> None:
    model = model_of(kind)
    x = model.sample(300)[0][:, KNOWN]
    weights, means, left = dense(model, x, KNOWN)
    mean = np.einsum("kn,knt->nt", weights, means)
    np.testing.assert_allclose(model.regress(x, TARGETS), mean, rtol=1e-10, atol=1e-10)
    away = means - mean
    covariance = np.einsum("kn,ktu->ntu", weights, left)
    covariance += np.einsum("kn,knt,knu->ntu", weights, away, away)
    found = model.regress(x, TARGETS, kind="covariance")
    np.testing.assert_allclose(found, covariance, rtol=1e-10, atol=1e-10)
    levels = [1e-9, 0.05, 0.5, 0.999]
    quantiles = model.regress(x, TARGETS, kind="quantiles", quantiles=levels)
    spread = np.sqrt(np.diagonal(left, axis1=1, axis2=2))[:, None]
    for place, level in enumerate(levels):
        below = norm.cdf((quantiles[:, :, place] - means) / spread)
        np.testing.assert_allclose(np.einsum("kn,knt->nt", weights, below), level, rtol=1e-9)


def test_it_is_what_gmr_says() -> None:
    """gmr 2.0.3 has these numbers for this mixture."""
    covariances = [
        [[1, 0.3, 0.2], [0.3, 2, 0.1], [0.2, 0.1, 1.5]],
        [[0.5, -0.2, 0.1], [-0.2, 1, 0.3], [0.1, 0.3, 0.8]],
        [[2, 0.5, -0.4], [0.5, 1, 0.2], [-0.4, 0.2, 1]],
    ]
    means = [[0.0, 0, 1], [2, -1, 0], [-1, 3, 2]]
    model = dgmm.GaussianMixture.from_parameters([0.3, 0.5, 0.2], means, covariances)
    rows = np.array([[0.3, -0.7], [1.9, 2.4], [-3.0, 0.5], [8.0, -6.0]])
    told = [0.77385362, 1.27288617, 1.45302247, 0.23914359]
    np.testing.assert_allclose(model.regress(rows, targets=[2])[:, 0], told, atol=5e-9)
    given = model.condition({0: 1.9, 1: 2.4})
    weights = [0.6401681769456133, 0.06806041568048671, 0.29177140737389984]
    centres = [1.418324607329843, 1.2217391304347824, 0.9657142857142857]
    spreads = [1.4591623036649215, 0.6543478260869566, 0.8171428571428572]
    for own, theirs in (
        (given.weights_, weights),
        (given.means_, centres),
        (given.covariances_, spreads),
    ):
        np.testing.assert_allclose(own.ravel(), theirs, rtol=1e-10)


def test_what_is_not_known_of_a_row_is_left_out() -> None:
    model = model_of()
    x = model.sample(60)[0][:, KNOWN]
    x[::3, 1] = np.nan
    x[1::3, [0, 2]] = np.nan
    x[5] = np.nan
    found = model.regress(x, TARGETS)
    for row, own in zip(x, found, strict=True):
        seen = ~np.isnan(row)
        if not seen.any():
            np.testing.assert_allclose(own, WEIGHTS @ MEANS[:, TARGETS], rtol=1e-12)
            continue
        weights, means, _ = dense(model, row[seen][None], list(np.array(KNOWN)[seen]))
        expected = np.einsum("kn,knt->nt", weights.reshape(K, 1), means.reshape(K, 1, 2))[0]
        np.testing.assert_allclose(own, expected, rtol=1e-10, atol=1e-10)


def test_units_do_not_matter() -> None:
    scale, shift = np.array([1e6, 1e-9, 1e3, 1e-4, 1.0]), np.array([1e8, 0, -1e4, 3, 1e5])
    moved = dgmm.GaussianMixture.from_parameters(
        WEIGHTS, MEANS * scale + shift, DENSE * scale[:, None] * scale
    )
    model = model_of()
    x = model.sample(100)[0]
    for kind, unit in (("mean", scale[TARGETS]), ("quantiles", scale[TARGETS][:, None])):
        own = model.regress(x[:, KNOWN], TARGETS, kind)  # type: ignore[arg-type]
        theirs = moved.regress((x * scale + shift)[:, KNOWN], TARGETS, kind)  # type: ignore[arg-type]
        begin = shift[TARGETS].reshape(unit.shape)
        np.testing.assert_allclose((theirs - begin) / unit, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_marginals_have_the_covariances_of_the_whole_in_any_units(kind: str) -> None:
    scale = np.array([1e9, 1e-12, 1.0, 1e-9, 1e5])
    values = VALUES[kind] * scale[:, None] * scale
    moved = dgmm.GaussianMixture.from_parameters(
        WEIGHTS, MEANS * scale, values, covariance_type=kind
    )
    chosen = [1, 0, 3]
    part = moved.marginal(chosen)
    expected = values[..., np.array(chosen)[:, None], chosen]
    np.testing.assert_allclose(part.covariances_, expected, rtol=1e-14)
    own = model_of(kind).marginal(chosen).score_samples(MEANS[:, chosen])
    found = part.score_samples((MEANS * scale)[:, chosen])
    np.testing.assert_allclose(found, own - np.log(scale[chosen]).sum(), rtol=1e-12)


def test_narrow_components_stay_narrow_beside_wide_ones_far_away() -> None:
    sizes = np.array([1.0, 1e-10, 1e8, 1e-4])
    values, means = DENSE * sizes[:, None, None] ** 2, MEANS * 1e6
    model = dgmm.GaussianMixture.from_parameters(WEIGHTS, means, values)
    np.testing.assert_allclose(
        model.marginal([2, 0]).covariances_, values[:, [[2], [0]], [2, 0]], rtol=1e-14
    )
    left = DENSE[:, 1:, 1:] - DENSE[:, 1:, :1] @ DENSE[:, :1, 1:] / DENSE[:, :1, :1]
    found = model.condition({0: 0.0}).covariances_
    np.testing.assert_allclose(found / sizes[:, None, None] ** 2, left, rtol=1e-9, atol=1e-12)


def test_two_branches_and_rows_far_away() -> None:
    """The median lies on the heavier branch, the mean on none; far rows are of the nearest."""
    model = dgmm.GaussianMixture.from_parameters(
        [0.6, 0.4], [[0.0, -5], [0, 5]], np.full(2, 0.01), covariance_type="spherical"
    )
    found = model.regress([[0.0]], [1], "quantiles", [0.3, 0.5999, 0.6001, 0.9])[0, 0]
    lower, upper = (
        -5 + 0.1 * norm.ppf([0.5, 0.5999 / 0.6]),
        5 + 0.1 * norm.ppf([0.0001 / 0.4, 0.75]),
    )
    np.testing.assert_allclose(found, [*lower, *upper], rtol=1e-9)
    assert model.regress([[0.0]], [1])[0, 0] == pytest.approx(-1)
    apart = dgmm.GaussianMixture.from_parameters(
        [0.5, 0.5], [[0.0, -5], [1, 5]], np.ones(2), covariance_type="spherical"
    )
    assert apart.regress([[1e5]], [1])[0, 0] == pytest.approx(5)
    with pytest.raises(dgmm.DataError, match="too far"):
        apart.regress([[1e200]], [1])


def test_quantiles_where_components_weigh_nothing() -> None:
    weights = np.array([[1.0], [0.0]])
    found = quantile(weights, np.array([[2.0], [1e9]]), np.array([[3.0], [1e-3]]), 0.9)
    assert found[0] == pytest.approx(norm(2, 3).ppf(0.9), rel=1e-14)


def test_models_of_fewer_features_are_models() -> None:
    rows = model_of().sample(200)[0]
    names = ["a", "b", "c", "d", "e"]
    model = model_of()
    model.feature_names_in_ = np.array(names, dtype=object)
    part = model.marginal(["e", "a"])
    assert list(part.feature_names_in_) == ["e", "a"]
    assert (part.means_ == MEANS[:, [4, 0]]).all()
    expected = logsumexp(
        [
            np.log(WEIGHTS[k])
            + multivariate_normal(MEANS[k, [4, 0]], DENSE[k][np.ix_([4, 0], [4, 0])]).logpdf(
                rows[:, [4, 0]]
            )
            for k in range(K)
        ],
        axis=0,
    )
    with pytest.warns(UserWarning, match="feature names"):
        found = part.score_samples(rows[:, [4, 0]])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert model_of("tied").marginal([2, 0]).covariance_type == "tied"
    given = model.condition({"b": 1.0, 3: -2.0})
    assert list(given.feature_names_in_) == ["a", "c", "e"]
    whole = model_of().score_samples
    point = np.array([[0.5, 1.0, 2.0, -2.0, 0.1]])
    left = whole(point) - model_of().marginal([1, 3]).score_samples(point[:, [1, 3]])
    with pytest.warns(UserWarning, match="feature names"):
        np.testing.assert_allclose(given.score_samples(point[:, [0, 2, 4]]), left, rtol=1e-10)


def test_tails_and_noise_are_conditioned_or_refused(tmp_path: Path) -> None:
    rows = model_of().sample(400)[0]
    student = model_of(tails="student", dof=4.0)
    noisy = dgmm.GaussianMixture(2, noise_component=True, random_state=0, max_iter=3, tol=1.0)
    noisy.fit(rows)
    for model in (student, noisy):
        with pytest.raises(dgmm.UsageError, match="is not told"):
            model.regress(rows[:, KNOWN], TARGETS)
        point = rows[:1]
        given = model.condition({j: float(point[0, j]) for j in KNOWN})
        expected = model.score_samples(point) - model.marginal(KNOWN).score_samples(point[:, KNOWN])
        np.testing.assert_allclose(given.score_samples(point[:, [1, 3]]), expected, rtol=1e-9)
        given.save(tmp_path / "given.dgmm", overwrite=True)
        again = dgmm.load(tmp_path / "given.dgmm")
        assert (again.predict_proba(rows[:, [1, 3]]) == given.predict_proba(rows[:, [1, 3]])).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model: model.marginal([7]), "no feature 7.*there are 5.*have no names"),
        (lambda model: model.marginal(["z"]), "no feature 'z'"),
        (lambda model: model.marginal([0, 0]), "named twice"),
        (lambda model: model.marginal([]), "one feature at least"),
        (lambda model: model.marginal(2), "must be a list"),
        (lambda model: model.condition({j: 0.0 for j in range(5)}), "nothing left"),
        (lambda model: model.condition({0: "x"}), "'x' is no number"),
        (lambda model: model.condition({0: 1e200}), "too far from the model"),
        (lambda model: model.mixture_.conditional([0], [np.inf]), "want a number each"),
        (lambda model: model.condition([0]), "must be a dict"),
        (lambda model: model.regress([[0.0]], range(5)), "none is left"),
        (lambda model: model.regress([[0.0]], [0], "mode"), "kind"),
        (lambda model: model.regress([[0.0]], [0], "quantiles", [1.0]), "above 0 and below 1"),
        (lambda model: model.regress([[0.0]], [0]), "has 1 features.*expecting 4"),
        (
            lambda model: model.regress(
                dgmm.open_dataset(np.zeros((2, 4)), noise=np.ones((2, 4))), [0]
            ),
            "knows of no errors",
        ),
    ],
)
def test_what_makes_no_sense_is_told(call: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call(model_of())


def test_lazy_rows_and_frames() -> None:
    xarray = pytest.importorskip("xarray")
    model = model_of()
    x = model.sample(900)[0][:, KNOWN]
    for kind in ("mean", "covariance", "quantiles"):
        lazy = model.regress(da.from_array(x, chunks=(250, 3)), TARGETS, kind)
        here = model.regress(x, TARGETS, kind)
        assert isinstance(lazy, da.Array)
        assert lazy.shape == here.shape
        assert lazy.chunks[0] == (250, 250, 250, 150)
        np.testing.assert_allclose(lazy.compute(scheduler="sync"), here, rtol=1e-12)
        cube = xarray.DataArray(x.reshape(30, 30, 3), dims=("lat", "lon", "band"))
        map_of = model.regress(cube, TARGETS, kind)
        assert map_of.dims[:3] == ("lat", "lon", "target")
        assert (map_of.values.reshape(here.shape) == here).all()
    frame = pytest.importorskip("pandas").DataFrame(x, columns=["a", "c", "e"])
    model.feature_names_in_ = np.array(["a", "b", "c", "d", "e"], dtype=object)
    assert (model.regress(frame, ["d", "b"]) == model_of().regress(x, TARGETS)).all()
    with pytest.raises(dgmm.DataError, match="have columns of targets, b: leave these out"):
        model.regress(frame.assign(b=0.0), ["d", "b"])


def test_bayesian_mixtures_and_searches_regress_too() -> None:
    rows = model_of().sample(400)[0]
    bayes = dgmm.BayesianGaussianMixture(3, random_state=0, tol=1.0).fit(rows)
    mixture, _ = judged(bayes._fitted)
    same = dgmm.GaussianMixture.from_parameters(mixture.weights, mixture.means, bayes.covariances_)
    x = rows[:, KNOWN]
    np.testing.assert_allclose(
        bayes.regress(x, TARGETS), same.regress(x, TARGETS), rtol=1e-12, atol=1e-13
    )
    search = dgmm.select(rows, [1, 2], random_state=0)
    assert (search.regress(x, [1, 3]) == search.best_estimator_.regress(x, [1, 3])).all()


def test_the_command_writes_arrays_and_tables(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    model = model_of()
    x = model.sample(500)[0][:, KNOWN]
    np.save(tmp_path / "known.npy", x)
    model.save(tmp_path / "model.dgmm")
    model.feature_names_in_ = np.array(["a", "b", "c", "d", "e"], dtype=object)
    model.save(tmp_path / "named.dgmm")
    table = {"id": np.arange(500), **dict(zip("ace", x.T, strict=True))}
    parquet.write_table(pyarrow.table(table), tmp_path / "known.parquet")

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["regress", *(str(each) for each in words)])
        assert done.exit_code == code, done.output
        return done.output

    out = str(tmp_path / "out.zarr")
    plain = (str(tmp_path / "known.npy"), "-m", str(tmp_path / "model.dgmm"))
    run(*plain, "--targets", "3,1", "-o", out, "--kind", "covariance", "--quiet")
    assert (zarr.open_array(out)[:] == model_of().regress(x, TARGETS, "covariance")).all()
    out = str(tmp_path / "out.parquet")
    named = (str(tmp_path / "known.parquet"), "-m", str(tmp_path / "named.dgmm"))
    levels = ("--kind", "quantiles", "--quantiles", "0.1,0.9")
    run(*named, "--targets", "d,b", "-o", out, *levels, "--keep", "id", "--quiet")
    found = parquet.read_table(out)
    assert found.column_names == ["id", "d_0.1", "d_0.9", "b_0.1", "b_0.9"]
    expected = model_of().regress(x, TARGETS, "quantiles", [0.1, 0.9])
    assert (found["b_0.9"].to_numpy() == expected[:, 1, 1]).all()
    assert "no feature 'x'" in run(*named, "--targets", "x", "-o", out, code=2)
    assert "is no list of numbers" in run(
        *named, "--targets", "d", "-o", out, "--quantiles", "a", code=2
    )
