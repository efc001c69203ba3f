"""What users of scikit-learn do with its estimators works, or is refused by name."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import sklearn
import zarr
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dgmm import BayesianGaussianMixture, GaussianMixture, MixtureSearch, UsageError


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 2)) + 6 * rng.integers(0, 2, size=(400, 1))


def test_one_weight_for_all_rows_is_as_many_equal_ones(
    rows: NDArray[np.float64], tmp_path: Path
) -> None:
    model = GaussianMixture(2, random_state=0)
    zarr.create_array(store=str(tmp_path / "rows.zarr"), data=rows, chunks=(100, 2))
    forms = (rows, da.from_array(rows, chunks=(100, 2)), str(tmp_path / "rows.zarr"))
    for form in forms:
        every = model.fit(form, sample_weight=np.full(400, 2.5)).mixture_
        one = model.fit(form, sample_weight=2.5)
        np.testing.assert_array_equal(one.means_, every.means)
        assert one.fit_info_["weight"] == 1000
        assert one.score(form, sample_weight=3) == pytest.approx(one.score(form), rel=1e-12)
    assert model.partial_fit(rows[:10], sample_weight=1).sufficient_statistics_.rows == 410
    for weight, why in ((0.0, "all weights are zero"), (-1, "not negative"), (np.nan, "finite")):
        with pytest.raises(ValueError, match=why):
            model.fit(rows, sample_weight=weight)


@pytest.mark.parametrize(
    "model",
    [
        GaussianMixture(2, random_state=0),
        BayesianGaussianMixture(2, random_state=0),
        MixtureSearch(GaussianMixture(random_state=0), n_components=(1, 2)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_weights_are_routed(rows: NDArray[np.float64], model: Any) -> None:
    """The routed weights are used: rows of weight 0 are as if they weren't there."""
    weights = (rows[:, 0] < 3).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        asking = sklearn.clone(model).set_fit_request(sample_weight=True)
        asking.set_score_request(sample_weight=True)
        found = cross_validate(
            asking, rows, cv=2, params={"sample_weight": weights}, return_estimator=True
        )
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        line = make_pipeline(scaler, asking).fit(rows, sample_weight=weights)
    for half, fitted in zip((rows[200:], rows[:200]), found["estimator"], strict=True):
        assert fitted.score(half[half[:, 0] < 3]) > -3.2
    np.testing.assert_allclose(line[0].mean_, rows[weights > 0].mean(axis=0))


def test_routed_weights_in_a_grid(rows: NDArray[np.float64]) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        asking = GaussianMixture(random_state=0).set_fit_request(sample_weight=True)
        asking.set_score_request(sample_weight=True)
        grid = GridSearchCV(asking, {"n_components": [1, 2]}, cv=3)
        grid.fit(rows, sample_weight=np.ones(400))
    assert grid.best_params_ == {"n_components": 2}


def test_a_pipeline_that_gives_frames(rows: NDArray[np.float64]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows, columns=["a", "b"])
    line = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0))
    line.set_output(transform="pandas").fit(frame)
    assert line[-1].feature_names_in_.tolist() == ["a", "b"]
    assert line.predict(frame).shape == (400,)


def test_labels_go_with_fit_predict(rows: NDArray[np.float64]) -> None:
    known = np.where(rows[:, 0] < 3, 1, 0)
    some = np.where(np.arange(400) % 10 == 0, known, -1)
    given = GaussianMixture(2, random_state=0).fit_predict(rows, labels=some)
    assert (given == known).mean() > 0.99
    search = MixtureSearch(GaussianMixture(random_state=0), n_components=2)
    np.testing.assert_array_equal(search.fit_predict(rows, labels=some), given)
    bayesian = BayesianGaussianMixture(2, random_state=0)
    for learn in (bayesian.fit, bayesian.fit_predict):
        with pytest.raises(UsageError, match="no component that a label could name"):
            learn(rows, labels=some)


def test_parameters_are_not_assigned(rows: NDArray[np.float64]) -> None:
    model = GaussianMixture(2, random_state=0).fit(rows)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        with pytest.raises(AttributeError, match="from_parameters"):
            setattr(model, name, getattr(model, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[...] = 0
        posterior = BayesianGaussianMixture(2)
        with pytest.raises(AttributeError, match="can't be set"):
            setattr(posterior, name, 1.0)
