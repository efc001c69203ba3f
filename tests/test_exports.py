"""What a model becomes elsewhere says the same of rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy import stats

from dgmm import BayesianGaussianMixture, DataError, GaussianMixture, ModelFileError, UsageError
from dgmm.cli.commands import main

KINDS = ["full", "tied", "diag", "spherical"]

MODELS: dict[str, Any] = {
    **{kind: GaussianMixture(3, covariance_type=kind, random_state=0) for kind in KINDS},
    "noise": GaussianMixture(2, noise_component=0.1, random_state=0),
    "tied noise": GaussianMixture(2, covariance_type="tied", noise_component=0.1, random_state=0),
    "heavy tails": GaussianMixture(2, tails="student", random_state=0, max_iter=10),
    "factors": GaussianMixture(
        2, covariance_type="factor", n_factors=1, random_state=0, max_iter=9
    ),
    "of one shape": GaussianMixture(2, covariance_type="EEV", random_state=0, max_iter=9),
    "posterior": BayesianGaussianMixture(4, random_state=0, max_iter=30),
}


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    """Far from zero, of very different size, and some of no cluster."""
    rng = np.random.default_rng(0)
    near = rng.normal(size=(600, 3)) + 6 * rng.integers(0, 3, size=(600, 1))
    return np.concatenate([near, rng.uniform(-30, 30, size=(40, 3))]) * [1, 100, 0.01] + [1e4, 0, 0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_says_the_same(name: str, rows: NDArray[np.float64], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = MODELS[name].fit(rows)
    path = tmp_path / "model.onnx"
    model.to_onnx(path)
    session = onnxruntime.InferenceSession(str(path))
    single = rows.astype(np.float32)
    labels, shares, densities = session.run(None, {"rows": single})
    assert (shares.dtype, densities.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(shares, model.predict_proba(single), rtol=0, atol=1e-5)
    np.testing.assert_allclose(densities, model.score_samples(single), rtol=1e-6)
    np.testing.assert_array_equal(labels, model.predict(single))
    with pytest.raises(DataError, match="exists"):
        model.to_onnx(path)
    double = model.to_onnx(path, dtype="float64", overwrite=True).SerializeToString()
    labels, shares, densities = onnxruntime.InferenceSession(double).run(None, {"rows": rows})
    np.testing.assert_allclose(shares, model.predict_proba(rows), rtol=0, atol=1e-12)
    np.testing.assert_allclose(densities, model.score_samples(rows), rtol=1e-12)
    np.testing.assert_array_equal(labels, model.predict(rows))


def test_a_graph_keeps_names_and_takes_any_number_of_rows() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    graph = GaussianMixture(1).fit(frame).to_onnx()
    assert {each.key: each.value for each in graph.metadata_props} == {"feature_names": "a\nb"}
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for count in (0, 1, 7):
        found = session.run(None, {"rows": np.zeros((count, 2), np.float32)})
        assert [each.shape for each in found] == [(count,), (count, 1), (count,)]
    with pytest.raises(UsageError, match="dtype must be one of float32, float64"):
        GaussianMixture(1).fit(frame).to_onnx(dtype="float16")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_parameters_come_back_from_json(name: str, rows: NDArray[np.float64]) -> None:
    model = MODELS[name].fit(rows)
    again = GaussianMixture.from_json(model.to_json())
    for mine, theirs in ((again, model), (GaussianMixture.from_json(again.to_json(2)), again)):
        np.testing.assert_array_equal(mine.means_, theirs.means_)
        np.testing.assert_array_equal(np.abs(mine.covariances_), np.abs(theirs.covariances_))
        np.testing.assert_array_equal(mine.predict(rows), theirs.predict(rows))
        np.testing.assert_allclose(
            mine.predict_proba(rows), theirs.predict_proba(rows), rtol=0, atol=1e-12
        )
    assert json.loads(model.to_json())["covariance_type"] == model.covariance_type


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "another"}, "no object that says format"),
        ({"version": 2}, "version 2; this dgmm reads 1"),
        ({"means": [1.0]}, "means must have shape"),
        ({"weights": [0.7, 0.7]}, "weights are not a distribution"),
        ({"covariances": [[[1.0]], [[-1.0]]]}, "can't be used"),
        ({"covariance_type": "round"}, "lack 'round'"),
        ({"feature_names": ["a", "b"]}, "must be 1 texts"),
    ],
)
def test_what_are_no_parameters_is_told(change: dict[str, Any], why: str) -> None:
    model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [1]], [[[1.0]], [[1.0]]])
    with pytest.raises(ModelFileError, match=why):
        GaussianMixture.from_json(json.dumps(json.loads(model.to_json()) | change))
    with pytest.raises(ModelFileError, match="can't be read as JSON"):
        GaussianMixture.from_json("nothing")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["full", "spherical", "heavy tails"])
def test_components_are_scipys(name: str, rows: NDArray[np.float64]) -> None:
    model = MODELS[name].fit(rows)
    each = [model.frozen(k) for k in range(model.n_components)]
    density = sum(w * one.pdf(rows) for w, one in zip(model.weights_, each, strict=True))
    np.testing.assert_allclose(np.log(density), model.score_samples(rows), rtol=1e-9)
    whole = model.frozen()
    np.testing.assert_allclose(whole.pdf(rows), density, rtol=1e-9)
    np.testing.assert_allclose(whole.logpdf(rows[0]), np.log(density[0]), rtol=1e-9)
    with pytest.raises(UsageError, match="no component 9: they have the numbers 0 to"):
        model.frozen(9)
    with pytest.raises(UsageError, match="3 features on the last axis"):
        whole.pdf([0.0, 1.0])


def test_a_component_with_features_in_any_units() -> None:
    """SciPy takes a covariance for singular whose eigenvalues are 1e10 apart."""
    units = np.array([1.0, 1e-9])
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]])
    there = stats.multivariate_normal([0.0, 0.0], covariance)
    scaled = covariance * units * units[:, None]
    model = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [scaled])
    here, point = model.frozen(0), np.array([0.3, -0.4])
    assert here.logpdf(point * units) == pytest.approx(there.logpdf(point) - np.log(units).sum())
    assert here.cdf(point * units) == pytest.approx(there.cdf(point), abs=1e-4)
    np.testing.assert_allclose(here.cov, scaled)
    heavy = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [scaled], tails="student", dof=3.0)
    with pytest.raises(UsageError, match="units nearer to each other"):
        heavy.frozen(0)
    expected = stats.multivariate_t([0.0, 0.0], covariance, 3.0).logpdf(point)
    assert heavy.frozen().logpdf(point * units) == pytest.approx(expected - np.log(units).sum())


def test_moments_are_of_components_that_have_weight() -> None:
    """Another may have heavier tails than have a variance."""
    model = GaussianMixture.from_parameters(
        [0.5, 0.5, 0.0],
        [[0.0], [2.0], [9.0]],
        [1.0] * 3,
        covariance_type="spherical",
        tails="student",
        dof=[4.0, 4.0, 1.0],
    )
    assert model.frozen().cov.tolist() == [[3.0]]
    assert [each.tolist() for each in model.mixture_.moments()] == [[1.0], [3.0]]


def test_a_frozen_mixture_draws_what_it_says() -> None:
    """By large numbers: the tolerance is five standard errors."""
    covariances = [[[1.0, 0.5], [0.5, 1.0]], [[4.0, 0.0], [0.0, 1.0]]]
    model = GaussianMixture.from_parameters([0.3, 0.7], [[0.0, 0], [5, 2]], covariances)
    mixture = model.frozen()
    drawn = mixture.rvs(100_000, random_state=0)
    error = 5 * np.sqrt(np.diag(mixture.cov) / 100_000)
    assert (np.abs(drawn.mean(axis=0) - mixture.mean) < error).all()
    np.testing.assert_allclose(np.cov(drawn.T), mixture.cov, rtol=0.03)
    assert mixture.rvs(random_state=1).shape == (2,)
    near = np.linalg.norm(drawn - [0, 0], axis=1) < np.linalg.norm(drawn - [5, 2], axis=1)
    turns, chance = int((near[1:] != near[:-1]).sum()), 2 * near.mean() * (~near).mean()
    assert stats.binomtest(turns, 99_999, chance).pvalue > 1e-6  # not grouped by component
    rows = np.random.default_rng(0).normal(size=(300, 2))
    boxed = GaussianMixture(1, noise_component=0.2).fit(rows)
    some = boxed.frozen().rvs(50_000, random_state=0)
    np.testing.assert_allclose(np.cov(some.T), boxed.frozen().cov, rtol=0.1, atol=0.05)


def test_the_command(tmp_path: Path) -> None:
    model = GaussianMixture.from_parameters([1.0], [[0.5]], [[[1.0]]])
    model.save(tmp_path / "model.dgmm")
    run = CliRunner().invoke
    asked = ["export", str(tmp_path / "model.dgmm"), "-o"]
    done = run(main, [*asked, str(tmp_path / "model.json"), "--json"])
    assert json.loads(done.stdout)["bytes"] == (tmp_path / "model.json").stat().st_size
    again = GaussianMixture.from_json((tmp_path / "model.json").read_text())
    assert again.means_.tolist() == [[0.5]]
    assert run(main, [*asked, str(tmp_path / "model.json")]).exit_code == 3
    assert run(main, [*asked, str(tmp_path / "model.json"), "--overwrite"]).exit_code == 0
    other = run(main, [*asked, str(tmp_path / "model.pmml")])
    assert (other.exit_code, "must end in .onnx or .json" in other.stderr) == (2, True)
    onnxruntime = pytest.importorskip("onnxruntime")
    assert run(main, [*asked, str(tmp_path / "model.onnx"), "--dtype", "float64"]).exit_code == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    density = session.run(["log_densities"], {"rows": np.zeros((1, 1))})[0]
    np.testing.assert_allclose(density, model.score_samples([[0.0]]))


def test_a_graph_without_onnx_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgmm.model.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs onnx, .*pip install 'dgmm\[onnx\]'"):
        GaussianMixture.from_parameters([1.0], [[0.5]], [[[1.0]]]).to_onnx()
