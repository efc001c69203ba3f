"""What is known beforehand, and labels that keep their order from fit to fit."""

import copy
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.base import clone

from dgmm import BayesianGaussianMixture, GaussianMixture, Mixture, MixtureSearch, align, load
from dgmm.errors import UsageError
from dgmm.model.covariance import COVARIANCE_MODELS

Array = NDArray[np.float64]

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def clumps(rows: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Rows of three components that overlap, and whose each is."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0, 0.0], [3.0, 1.0, -1.0], [-1.0, 4.0, 2.0]])
    labels = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    scales = np.array([1.0, 0.6, 1.4])
    return means[labels] + rng.normal(size=(rows, 3)) * scales[labels, None], labels


# Components that are matched.


def some_mixture(kind: str, seed: int, components: int = 4, n_features: int = 3) -> Mixture:
    rng = np.random.default_rng(seed)
    shape = COVARIANCE_MODELS[kind].shape(components, n_features)
    if shape[-2:] == (n_features, n_features):
        roots = rng.normal(size=(*shape[:-1], n_features + 3))
        values = roots @ roots.swapaxes(-1, -2)
    else:
        values = rng.uniform(0.5, 4, size=shape)
    weights = rng.dirichlet(np.full(components, 5.0))
    means = 3 * rng.normal(size=(components, n_features))
    return Mixture.of_covariances(COVARIANCE_MODELS[kind], weights, means, values)


def jeffreys(one: Mixture, k: int, other: Mixture, j: int) -> float:
    """By drawing rows: the integral of (f - g) log (f / g) for two weighted normals."""
    rng, total = np.random.default_rng(1), 0.0
    first = multivariate_normal(one.means[k], one.covariances.dense()[k])
    second = multivariate_normal(other.means[j], other.covariances.dense()[j])
    p, q = one.weights[k], other.weights[j]
    for weight, density, sign in ((p, first, 1), (q, second, -1)):
        rows = density.rvs(50_000, random_state=rng)
        ratio = np.log(p / q) + first.logpdf(rows) - second.logpdf(rows)
        total += sign * weight * ratio.mean()
    return total


@every_structure
@pytest.mark.parametrize("theirs", ["full", "diag"])
def test_components_are_matched_by_the_least_total_divergence(kind: str, theirs: str) -> None:
    one, other = some_mixture(kind, 0), some_mixture(theirs, 1)
    found = align(one, other)
    pairs = np.array([[jeffreys(one, k, other, j) for j in range(4)] for k in range(4)])
    totals = {each: pairs[np.arange(4), list(each)].sum() for each in permutations(range(4))}
    assert tuple(found.order) == min(totals, key=lambda each: totals[each])
    np.testing.assert_allclose(found.divergences, pairs[np.arange(4), found.order], rtol=0.05)


@every_structure
def test_a_model_in_another_order_is_the_same_model(kind: Any, tmp_path: Path) -> None:
    rows, _ = clumps(900)
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows)
    order = [2, 0, 1]
    other = align(model.mixture_.chosen(order), model).model
    np.testing.assert_array_equal(other.means_, model.means_[order])
    np.testing.assert_array_equal(other.weights_, model.weights_[order])
    for k, j in enumerate(order):
        np.testing.assert_array_equal(
            other.mixture_.covariances.dense()[k], model.mixture_.covariances.dense()[j]
        )
    np.testing.assert_array_equal(np.array(order)[other.predict(rows)], model.predict(rows))
    assert other.score(rows) == pytest.approx(model.score(rows), rel=1e-12)
    assert other.lower_bound_ == model.lower_bound_
    other.save(tmp_path / "other.dgmm")
    again = align(model, load(tmp_path / "other.dgmm"))
    assert again.order.tolist() == [1, 2, 0]
    np.testing.assert_allclose(again.divergences, 0, atol=1e-9)
    np.testing.assert_array_equal(again.model.means_, model.means_)
    # An M-step from the statistics of each is the same, too; but their statistics don't add.
    before, after = model.partial_fit(rows[:50]).means_, other.partial_fit(rows[:50]).means_
    np.testing.assert_allclose(after, before[order], rtol=1e-10)
    with pytest.raises(UsageError, match="fit"):
        model.sufficient_statistics_ + other.sufficient_statistics_


def test_what_is_held_moves_with_its_component() -> None:
    rows, _ = clumps(900)
    first = GaussianMixture(3, random_state=0).fit(rows)
    held = {"means_init": first.means_.tolist(), "weights_init": [0.2, 0.5, 0.3]}
    asked = {"means": [0], "weights": [1]}
    model = GaussianMixture(3, random_state=0, fixed=asked, max_iter=500, **held).fit(rows)
    order = [2, 0, 1]
    other = align(model.mixture_.chosen(order), model).model
    assert other.fit_info_["fixed"] == {"weights": [2], "means": [1], "covariances": []}
    for found in (
        copy.deepcopy(other).partial_fit(rows + 1),
        clone(other).fit(rows),
        other.set_params(warm_start=True).fit(rows + 1),
    ):
        np.testing.assert_array_equal(found.means_[1], first.means_[0])
        assert found.weights_[2] == 0.5


@pytest.mark.filterwarnings("ignore::dgmm.DegenerateWarning")
def test_what_is_told_of_components_moves_with_them() -> None:
    rng, order = np.random.default_rng(0), [2, 0, 1]
    rows = np.concatenate([rng.uniform(-1, 1, (300, 2)) + each for each in ([0, 0], [9, 0])])
    heavy = multivariate_t([0, 9], np.eye(2), 3.0).rvs(300, random_state=rng)
    model = GaussianMixture(
        3, tails="student", means_init=[[0, 9], [0, 0], [9, 0]], max_iter=500, random_state=0
    ).fit(np.concatenate([rows, heavy]))
    assert model.fit_info_["dof_at_limit"] == {"least": [], "most": [1, 2]}
    other = align(model.mixture_.chosen(order), model).model
    assert other.fit_info_["dof_at_limit"] == other.mixture_.tails.limits
    assert other.fit_info_["dof_at_limit"]["most"] == [0, 2]
    named = {"noiseless": {"components": [0, 1], "features": [1]}, "unused": [1]}
    model.fit_info_ |= named  # as of factors, and of a posterior
    other = align(model.mixture_.chosen(order), model).model
    assert other.fit_info_["noiseless"] == {"components": [1, 2], "features": [1]}
    assert other.fit_info_["unused"] == [2]


def test_units_do_not_matter_and_a_search_can_be_aligned() -> None:
    rows, _ = clumps(900)
    units = np.array([1e6, 1.0, 1e-6])
    first = GaussianMixture(3, random_state=0).fit(rows * units)
    search = MixtureSearch(GaussianMixture(random_state=5), n_components=[3]).fit(rows * units)
    found = align(first, search)
    assert found.divergences.max() < 1e-2
    np.testing.assert_allclose(found.model.means_, first.means_, rtol=0.1, atol=0.1)
    empty = Mixture(np.array([1.0, 0.0]), *_two())
    np.testing.assert_array_equal(align(empty, empty).order, [0, 1])


def _two() -> tuple[Array, Any]:
    covariances = COVARIANCE_MODELS["spherical"].of_covariances(np.ones(2), (2, 1))
    return np.array([[0.0], [1.0]]), covariances


def test_a_dirichlet_process_keeps_its_order_and_gives_its_mixture() -> None:
    rows, _ = clumps(300)
    first = GaussianMixture(3, random_state=0).fit(rows)
    for kind in ("dirichlet_process", "dirichlet_distribution"):
        other = BayesianGaussianMixture(3, weight_concentration_prior_type=kind, random_state=1)
        found = align(first, other.fit(rows))
        own = found.model if isinstance(found.model, Mixture) else found.model.mixture_
        assert isinstance(found.model, Mixture) == (kind == "dirichlet_process")
        np.testing.assert_array_equal(own.means, other.means_[found.order])
    np.testing.assert_allclose(
        found.model.score_samples(rows), other.score_samples(rows), rtol=1e-12
    )


def test_models_of_different_size_are_refused() -> None:
    one, other = some_mixture("full", 0), some_mixture("full", 0, components=3)
    with pytest.raises(UsageError, match="4 components of 3 features, the other 3 of 3"):
        align(one, other)
    with pytest.raises(UsageError, match="not int"):
        align(one, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not fitted"):
        align(one, GaussianMixture())


# Starting values that order components.


@every_structure
@pytest.mark.parametrize("strategy", ["auto", "em"])
def test_components_keep_the_order_of_starting_means(kind: Any, strategy: Any) -> None:
    """Whatever the seed, and the order that k-means would have them in."""
    rows, labels = clumps(1000)
    centres = np.stack([rows[labels == k].mean(axis=0) for k in range(3)])
    for seed, order in enumerate(permutations(range(3))):
        means = centres[list(order)]
        model = GaussianMixture(
            3,
            covariance_type=kind,
            strategy=strategy,
            means_init=means,
            n_init=1 + seed % 2,
            random_state=seed,
            max_iter=300,
        ).fit(rows)
        away = np.linalg.norm(model.means_[:, None] - centres, axis=2)
        assert tuple(away.argmin(axis=1)) == order


@pytest.mark.parametrize("strategy", ["auto", "em"])
def test_a_start_has_of_each_component_what_rows_near_its_mean_say(strategy: Any) -> None:
    rng = np.random.default_rng(0)
    centres, scales = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]]), np.array([0.1, 1.0, 4.0])
    labels = rng.choice(3, 1500, p=[0.6, 0.3, 0.1])
    rows = centres[labels] + rng.normal(size=(1500, 2)) * scales[labels, None]
    for seed, order in enumerate(permutations(range(3))):
        asked = {"strategy": strategy, "random_state": seed, "means_init": centres[list(order)]}
        start = GaussianMixture(3, covariance_type="spherical", max_iter=0, **asked).fit(rows)
        np.testing.assert_allclose(np.sqrt(start.covariances_), scales[list(order)], rtol=0.3)
        shares = np.bincount(labels) / 1500
        np.testing.assert_allclose(start.weights_, shares[list(order)], rtol=1e-12)
