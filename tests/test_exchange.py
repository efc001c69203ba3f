"""Models of scikit-learn made of ours, and ours of theirs: they say the same of rows."""

from typing import Any

import numpy as np
import pytest
import sklearn.mixture
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from dgmm import GaussianMixture, UsageError

KINDS = ["full", "tied", "diag", "spherical"]


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 3)) * [1, 10, 0.1] + 5 * rng.integers(0, 2, size=(600, 1))


def assert_alike(one: Any, other: Any, rows: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(one.predict_proba(rows), other.predict_proba(rows), atol=1e-12)
    np.testing.assert_allclose(one.score_samples(rows), other.score_samples(rows), rtol=1e-11)
    np.testing.assert_array_equal(one.predict(rows), other.predict(rows))
    assert one.bic(rows) == pytest.approx(other.bic(rows), rel=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(rows: NDArray[np.float64], kind: Any) -> None:
    model = GaussianMixture(2, covariance_type=kind, random_state=0).fit(rows)
    theirs = model.to_sklearn()
    assert type(theirs) is sklearn.mixture.GaussianMixture
    assert_alike(model, theirs, rows)
    np.testing.assert_allclose(theirs.precisions_, model.precisions_)
    assert theirs.sample(10)[0].shape == (10, 3)
    back = GaussianMixture.from_sklearn(theirs)
    assert_alike(back, theirs, rows)
    assert back.covariance_type == kind
    fitted = theirs.set_params(max_iter=3, warm_start=True).fit(rows)  # it can go on from there
    assert fitted.lower_bound_ >= model.score(rows) - 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_bayesian_mixture_gives_its_means(rows: NDArray[np.float64], kind: Any) -> None:
    theirs = sklearn.mixture.BayesianGaussianMixture(
        n_components=2, covariance_type=kind, random_state=0, max_iter=500
    ).fit(rows)
    ours = GaussianMixture.from_sklearn(theirs)
    np.testing.assert_allclose(ours.means_, theirs.means_)
    np.testing.assert_allclose(ours.weights_, theirs.weights_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_narrow_floats_is_taken(rows: NDArray[np.float64], kind: Any) -> None:
    """Its covariances are symmetric but for the rounding of float32."""
    theirs = sklearn.mixture.GaussianMixture(2, covariance_type=kind, random_state=0)
    theirs.fit((rows + np.array([0, 1000, 0])).astype(np.float32))
    assert theirs.covariances_.dtype == np.float32
    ours = GaussianMixture.from_sklearn(theirs)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, rtol=1e-6)


def test_a_posterior_has_no_counterpart(rows: NDArray[np.float64]) -> None:
    model = GaussianMixture(2, prior="variational", random_state=0).fit(rows)
    with pytest.raises(UsageError, match=r"has no posterior.*\.from_json"):
        model.to_sklearn()
    plain = GaussianMixture.from_json(model.to_json())
    theirs = plain.to_sklearn()
    assert_alike(plain, theirs, rows)
    np.testing.assert_allclose(theirs.predict_proba(rows), model.predict_proba(rows), atol=1e-12)


def test_names_are_kept(rows: NDArray[np.float64]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows, columns=["a", "b", "c"])
    model = GaussianMixture(2, random_state=0).fit(frame)
    theirs = model.to_sklearn()
    assert theirs.feature_names_in_.tolist() == ["a", "b", "c"]
    assert GaussianMixture.from_sklearn(theirs).feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.filterwarnings("ignore:.*as good as normal:dgmm.DegenerateWarning")
def test_what_has_no_counterpart_is_told(rows: NDArray[np.float64]) -> None:
    with pytest.raises(NotFittedError):
        GaussianMixture().to_sklearn()
    with pytest.raises(UsageError, match="has no weights_, means_, covariances_"):
        GaussianMixture.from_sklearn(sklearn.mixture.GaussianMixture())
    for how in ({"noise_component": True}, {"tails": "student"}):
        model = GaussianMixture(2, random_state=0, **how).fit(rows)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="no mixtures with a noise component or heavy tails"):
            model.to_sklearn()
