"""Units don't matter: rows in other units give the same model in these, or a word about it."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dgmm import (
    DegenerateWarning,
    GaussianMixture,
    MixtureSearch,
    SufficientStatistics,
    load,
    select,
)
from dgmm.em.solver import ranked
from dgmm.em.strategies import STRATEGIES
from dgmm.model.covariance import COVARIANCE_MODELS

D, K = 3, 3
CENTRES = np.array([[0.0, 0.0, 0.0], [4.0, 1.0, -2.0], [-1.0, 5.0, 3.0]])

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)
exponents = st.lists(st.floats(-6, 6), min_size=D, max_size=D)
shifts = st.lists(st.floats(-1e3, 1e3), min_size=D, max_size=D)


def drawn(rows: int = 600) -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    shapes = np.eye(D) + 0.3 * rng.normal(size=(K, D, D))
    labels = rng.integers(K, size=rows)
    return CENTRES[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(rows, D)))


ROWS = drawn()


def units(kind: str, powers: list[float]) -> NDArray[np.float64]:
    """A factor for each column; a spherical model survives only one for all."""
    by = 10.0 ** np.array(powers)
    return np.full(D, by[0]) if kind == "spherical" else by


def dense(model: GaussianMixture) -> NDArray[np.float64]:
    return model.mixture_.covariances.dense()


def assert_same_in_other_units(
    plain: GaussianMixture,
    model: GaussianMixture,
    by: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> None:
    """Up to rounding: rows are rounded to u times their shift, and a fit stops a step apart."""
    spread = ROWS.std(axis=0)
    means = model.means_ / by - shift
    np.testing.assert_allclose(model.weights_, plain.weights_, atol=1e-6)
    np.testing.assert_allclose((means - plain.means_) / spread, 0, atol=1e-6)
    unit = spread[:, None] * spread
    difference = (dense(model) / by[:, None] / by - dense(plain)) / unit
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    volume = np.log(by).sum()
    assert model.lower_bound_ + volume == pytest.approx(plain.lower_bound_, abs=1e-6)


@cache
def plain(kind: str, strategy: str) -> GaussianMixture:
    """The fit of the rows as they are."""
    return fitted(ROWS, kind, strategy)


def fitted(rows: NDArray[np.float64], kind: str, strategy: str) -> GaussianMixture:
    tol = 1e-9 if strategy == "em" else None
    return GaussianMixture(
        K, covariance_type=kind, strategy=strategy, tol=tol, max_iter=300, random_state=0
    ).fit(rows)


@every_structure
@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=4, deadline=None)
@given(powers=exponents, offsets=shifts)
def test_columns_in_other_units_give_the_same_model(
    kind: str, strategy: str, powers: list[float], offsets: list[float]
) -> None:
    by, shift = units(kind, powers), np.array(offsets)
    model = fitted((ROWS + shift) * by, kind, strategy)
    assert_same_in_other_units(plain(kind, strategy), model, by, shift)


@cache
def plain_selection(*kinds: str) -> MixtureSearch:
    """The selection of the rows as they are."""
    return select(ROWS, [2, 3, 4], list(kinds), random_state=0)


@settings(max_examples=3, deadline=None)
@given(powers=exponents, offsets=shifts)
def test_a_selection_in_other_units_chooses_the_same(
    powers: list[float], offsets: list[float]
) -> None:
    """With the spherical structure, for one factor; without it, for one a column."""
    for kinds in (["full", "tied", "diag"], list(COVARIANCE_MODELS)):
        by, shift = units(kinds[-1], powers), np.array(offsets)
        first = plain_selection(*kinds)
        second = select((ROWS + shift) * by, [2, 3, 4], kinds, random_state=0)
        assert second.best_params_ == first.best_params_
        gains = [
            [each["score"] for each in search.results_ if each["dropped_after"] is None]
            for search in (first, second)
        ]
        np.testing.assert_allclose(gains[1] + np.log(by).sum(), gains[0], atol=1e-5)
        assert_same_in_other_units(first.best_estimator_, second.best_estimator_, by, shift)


def test_a_narrow_column_beside_a_wide_one_in_one_selection() -> None:
    """The spherical candidates have a frame of their own; the full ones see the narrow column."""
    by = np.array([1.0, 1e-9, 1e9])
    search = select(ROWS * by, [K], ["full", "spherical"], random_state=0)
    alone = GaussianMixture(K, random_state=0).fit(ROWS)
    assert search.best_params_["covariance_type"] == "full"
    assert_same_in_other_units(alone, search.best_estimator_, by, np.zeros(D))


@every_structure
def test_what_was_added_is_told_and_kept(kind: str, tmp_path: Path) -> None:
    by = units(kind, [-4.0, 0.0, 3.0])
    variance = (ROWS * by).var(axis=0)
    model = fitted(ROWS * by, kind, "auto")
    np.testing.assert_allclose(model.fit_info_["reg_covar"], 1e-6 * variance, rtol=1e-12)
    assert model.sufficient_statistics_.reg_covar is None
    model.save(tmp_path / "model.dgmm")
    again = load(tmp_path / "model.dgmm")
    assert again.reg_covar is None
    assert again.fit_info_["reg_covar"] == model.fit_info_["reg_covar"]
    assert again.sufficient_statistics_.reg_covar is None
    again.partial_fit(ROWS[:100] * by)

    absolute = GaussianMixture(K, covariance_type=kind, reg_covar=1e-3, random_state=0).fit(ROWS)
    np.testing.assert_allclose(absolute.fit_info_["reg_covar"], 1e-3, rtol=1e-12)
    absolute.sufficient_statistics_.save(tmp_path / "sums")
    assert SufficientStatistics.load(tmp_path / "sums").reg_covar == 1e-3


@every_structure
def test_three_clusters_in_small_units_are_three(kind: str) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0], [8, 0], [0, 8]], 200, axis=0)
    rows = groups + rng.normal(size=groups.shape)
    for by in (1e-4, 1e-6, 1e3):
        model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows * by)
        labels = model.predict(rows * by)
        assert sorted(np.unique(labels, return_counts=True)[1].tolist()) == [200, 200, 200]
        assert dense_of(model) / by**2 == pytest.approx(1.0, rel=0.2)


def dense_of(model: GaussianMixture) -> NDArray[np.float64]:
    """The variances, (K, D)."""
    return model.mixture_.variances


@every_structure
def test_a_number_that_rivals_a_variance_is_told_with_the_features(kind: str) -> None:
    """Column 1 has a variance of 1e-8, and reg_covar is 1e-6: for spherical, both must be so."""
    by = units(kind, [-4.0, 0.0, 0.0]) if kind == "spherical" else np.array([1.0, 1e-4, 1.0])
    model = GaussianMixture(K, covariance_type=kind, random_state=0, reg_covar=1e-6)
    named = "columns 0, 1, 2" if kind == "spherical" else "column 1"
    with pytest.warns(DegenerateWarning, match=rf"reg_covar \(1e-06\) .* variance of {named} in"):
        model.fit(ROWS * by)
    assert 1 in model.fit_info_["rivalled"]["features"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianMixture(K, covariance_type=kind, random_state=0).fit(ROWS * by)


@pytest.mark.filterwarnings("ignore:.*as good as normal:dgmm.DegenerateWarning")
@pytest.mark.parametrize(
    "more",
    [
        {"noise_component": True},
        {"tails": "student"},
        {"covariance_type": "EEI"},
        {"covariance_type": "VEE"},
        {"covariance_type": "factor-tied", "n_factors": 1},
    ],
)
def test_components_keep_their_order(more: dict[str, Any]) -> None:
    """Many starts lead to one optimum, each to an order of its own; rounding chooses none."""
    rows = np.random.default_rng(0).normal(size=(900, D)) + 8 * (np.arange(900) % K)[:, None]
    by, shift = np.array([1e-3, 1.0, 1e4]), np.array([5.0, -1e3, 0.0])
    first, second = (
        GaussianMixture(K, random_state=0, **more).fit(each) for each in (rows, rows * by + shift)
    )
    np.testing.assert_allclose((second.means_ - shift) / by, first.means_, atol=1e-3)


def test_what_rounding_tells_apart_is_tied() -> None:
    assert ranked([1.0, 2.0, 2.0 + 1e-13, -np.inf, 2.0 - 1e-6, 2.0 - 1e-13]) == [1, 2, 5, 4, 0, 3]
    assert ranked([-np.inf, -np.inf]) == [0, 1]
    assert ranked([]) == []
