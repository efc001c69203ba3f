"""The strategies: what "auto" reaches, in how many passes, and that it says what it did."""

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from dgmm import DegenerateWarning, GaussianMixture
from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.init import cautious
from dgmm.em.squarem import Squarem
from dgmm.model.covariance import COVARIANCE_MODELS

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def overlapping(rows: int, seed: int = 0) -> np.ndarray:
    """Rows (rows, 3) of six overlapping normal distributions: EM is slow on them."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(size=(6, 3, 3)) * 0.5 + np.eye(3)
    labels = rng.integers(6, size=rows)
    means = 2.0 * rng.normal(size=(6, 3))
    return means[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(rows, 3)))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return overlapping(200_000)


def to_the_end(
    model: GaussianMixture, rows: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """The objective where EM ends that goes on from a fitted model for very long."""
    onward = GaussianMixture(
        model.n_components,
        strategy="em",
        covariance_type=model.covariance_type,
        weights_init=model.weights_,
        means_init=model.means_,
        precisions_init=model.precisions_,
        tol=1e-11,
        max_iter=2000,
        precision="float64",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(onward.fit(rows, sample_weight=weights).lower_bound_)


@every_structure
def test_a_handful_of_passes_to_the_resolution(kind: str, rows: np.ndarray) -> None:
    """It stops where it says: EM run on for ever gains no more than a few estimates' worth."""
    model = GaussianMixture(6, covariance_type=kind, random_state=0).fit(rows)
    info = model.fit_info_
    assert info["strategy"] == "auto"
    assert info["stopped_by"] == "gap"
    assert info["passes"] <= 11  # EM takes 17 to 92, mostly to far poorer optima
    assert info["estimated_gap"] < 0.1 * info["resolution"]
    assert info["sample_passes"] > 0
    assert model.lower_bounds_ == sorted(model.lower_bounds_)
    assert to_the_end(model, rows) - model.lower_bound_ < 0.3 * info["resolution"]
    plain = GaussianMixture(6, strategy="em", covariance_type=kind, random_state=0).fit(rows)
    assert model.lower_bound_ > plain.lower_bound_ - 0.1 * info["resolution"]


def test_it_says_to_how_many_optima_its_starts_led() -> None:
    """To one, where components are far apart; to several, where no such mixture fits.

    And where the first start can't be bettered, there are no others.
    """
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(100_000, 2)) + 20 * rng.integers(2, size=(100_000, 2))
    model = GaussianMixture(4, random_state=0).fit(apart)
    assert (model.fit_info_["starts"], model.fit_info_["optima"]) == (1, 1)
    assert (model.fit_info_["starts_gain"], model.fit_info_["starts_seconds"]) == (0, 0)
    cube = np.random.default_rng(0).uniform(size=(100_000, 3))
    model = GaussianMixture(12, n_init=4, random_state=0, resolution=10).fit(cube)
    assert 1 < model.fit_info_["optima"] <= model.fit_info_["starts"] == 4
    assert model.fit_info_["starts_gain"] >= 0
    assert 0 < model.fit_info_["starts_seconds"] < model.fit_info_["seconds_on_samples"]
    model.set_params(init_params="k-means++", n_init=1).fit(cube)
    assert (model.fit_info_["starts"], model.fit_info_["optima"]) == (1, 1)


def test_the_run_from_reference_to_reference(
    rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass over all rows leaves but a fraction of what there was to gain."""
    monkeypatch.setattr("dgmm.em.strategies.FAR_BELOW", 1)  # as if there were many more rows
    model = GaussianMixture(6, random_state=0, resolution=1e-3)
    runs = [p.run for p in model.fit_passes(rows) if p.candidates]
    assert all(isinstance(run.solver, ControlVariateEM) for run in runs)
    objectives = [run.best.objective for run in runs]
    for earlier, later in itertools.pairwise(runs):
        gained = later.best.objective - earlier.best.objective
        assert gained == pytest.approx(earlier.gap_upper, rel=0.5)
        assert later.gap_upper < earlier.gap_upper / 2
    assert objectives == sorted(objectives)


@every_structure
@pytest.mark.parametrize("strategy", ["auto", "em"])
def test_same_bits_everywhere(
    kind: str, strategy: str, clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    """With threads, and with any number of workers."""
    data = overlapping(60_000)
    store = str(tmp_path / "rows.zarr")
    zarr.create_array(store, data=data, chunks=(4096, 3))
    args: dict[str, Any] = {"covariance_type": kind, "strategy": strategy, "random_state": 1}
    models = [GaussianMixture(6, n_jobs=n, **args).fit(store) for n in (1, 2)]
    for client in clusters.values():
        model = GaussianMixture(6, **args)
        list(model.fit_passes(store, client=client))
        models.append(model)
    for model in models[1:]:
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(models[0], name))
        assert model.lower_bounds_ == models[0].lower_bounds_
        assert model.fit_info_["passes"] == models[0].fit_info_["passes"]


@every_structure
def test_a_given_start_is_where_it_begins(kind: str, blobs: np.ndarray) -> None:
    """And only acceleration is left: no worse than EM from there, in fewer iterations."""
    first = Reference(4, covariance_type=kind, max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first.fit(blobs)
    start = {
        "covariance_type": kind,
        "weights_init": first.weights_,
        "means_init": first.means_,
        "precisions_init": first.precisions_,
        "precision": "float64",
    }
    runs = [p.run for p in GaussianMixture(4, **start).fit_passes(blobs) if p.candidates]
    assert all(isinstance(run.solver, Squarem) for run in runs)
    plain = GaussianMixture(4, strategy="em", tol=1e-9, max_iter=5000, **start).fit(blobs)
    assert runs[0].best.objective == plain.lower_bounds_[0]
    assert runs[-1].best.objective > plain.lower_bound_ - 1e-5
    assert len(runs[-1].trace) < plain.n_iter_


def test_too_few_rows_for_a_sample(blobs: np.ndarray) -> None:
    """A race needs five rows for each parameter; without, it is SQUAREM from a k-means start."""
    model = GaussianMixture(160, covariance_type="tied", random_state=0, max_iter=500).fit(blobs)
    assert model.fit_info_["sample_passes"] == 0
    assert model.converged_


def test_tol_is_honoured(rows: np.ndarray) -> None:
    model = GaussianMixture(6, tol=1e-2, random_state=0).fit(rows)
    assert model.fit_info_["stopped_by"] == "tol"
    assert model.converged_


def test_it_says_when_it_had_to_stop(rows: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="of the statistical resolution"):
        model = GaussianMixture(6, max_iter=1, resolution=1e-9, random_state=0).fit(rows)
    assert not model.converged_
    assert model.fit_info_["stopped_by"] == "max_iter"
    assert model.n_iter_ == 1


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_a_named_start_is_used(init: str, rows: np.ndarray) -> None:
    one = GaussianMixture(6, init_params=init, random_state=0).fit(rows)
    again = GaussianMixture(6, init_params=init, random_state=0).fit(rows)
    assert one.lower_bounds_ == again.lower_bounds_
    raced = GaussianMixture(6, random_state=0).fit(rows)
    assert raced.lower_bound_ > one.lower_bound_ - one.fit_info_["resolution"]


@pytest.mark.parametrize("weighted", ["counts", "uneven"])
def test_weighted_rows(weighted: str, rows: np.ndarray) -> None:
    """Whatever the weights, it stops where EM would end, and a weight of 2 is a row twice."""
    rng = np.random.default_rng(3)
    weights = {
        "counts": rng.integers(0, 3, len(rows)).astype(float),
        "uneven": rng.gamma(0.5, size=len(rows)),
    }[weighted]
    model = GaussianMixture(6, random_state=0).fit(rows, sample_weight=weights)
    gain = to_the_end(model, rows, weights) - model.lower_bound_
    assert gain < 0.3 * model.fit_info_["resolution"]
    if weighted == "counts":
        repeated = np.repeat(rows, weights.astype(int), axis=0)
        assert to_the_end(model, repeated) - model.lower_bound_ == pytest.approx(gain, abs=1e-8)


@pytest.mark.parametrize("seed", [0, 14])
def test_a_crooked_way_is_not_cut_short(seed: int) -> None:
    """Where the likely estimate is low too early, the careful one has SQUAREM go on, with gain."""
    rng = np.random.default_rng(seed)
    bent = rng.normal(size=(20_000, 2))
    bent[:, 1] += 1.5 * np.sin(2 * bent[:, 0])
    unit = np.broadcast_to(np.eye(2), (6, 2, 2))
    start = {"weights_init": np.ones(6) / 6, "means_init": bent[:6], "precisions_init": unit}
    model = GaussianMixture(6, max_iter=500, **start)
    runs = [p.run for p in model.fit_passes(bent) if p.candidates]
    assert all(
        isinstance(run.solver, Squarem) and run.gap_estimate <= run.gap_upper for run in runs
    )
    end, target = runs[-1], runs[-1].stop.target
    assert end.reason == "gap"
    assert end.gap_upper < target
    early = next(run for run in runs if run.gap_estimate < target)
    assert end.best.objective - early.best.objective > target


def test_strategies_must_exist(blobs: np.ndarray) -> None:
    with pytest.raises(ValueError, match="strategy must be one of 'auto', 'em'"):
        GaussianMixture(2, strategy="best").fit(blobs)


def test_a_collapsed_component_does_not_hide_what_is_left_to_gain() -> None:
    """Its variances are set, not rounded: a fit that still climbs is seen to."""
    rng = np.random.default_rng(0)
    line = 7 + rng.normal(size=(1500, 1)) * np.linspace(0.5, 1.5, 6)
    clouds = [rng.normal(size=(4000, 6)), 1.3 * rng.normal(size=(4000, 6)) + 0.8]
    means = np.repeat([[-0.3], [0.3], [7.0]], 6, axis=1)
    unit = np.broadcast_to(np.eye(6), (3, 6, 6))
    start = {"means_init": means, "precisions_init": unit, "weights_init": np.ones(3) / 3}
    model = GaussianMixture(3, reg_covar=0, **start)
    with pytest.warns(DegenerateWarning, match="singular"):
        model.fit(np.concatenate([*clouds, line]))
    assert model.fit_info_["singular"] == [2]
    assert model.fit_info_["stopped_by"] == "gap"
    assert model.fit_info_["estimated_gap"] < 0.1 * model.fit_info_["resolution"]


@every_structure
def test_a_cautious_start_draws_covariances_together(kind: str) -> None:
    """A component of n rows keeps n parts of its own covariance, and takes D of their mean."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 3)) * np.where(np.arange(100) < 90, 1.0, 5.0)[:, None]
    before = GaussianMixture(2, covariance_type=kind, random_state=0).fit(rows).mixture_
    after = cautious(before, 100)
    dense = [each.covariances.dense() for each in (before, after)]
    mean = np.tensordot(before.weights, dense[0], 1)
    counts = 100 * before.weights[:, None, None]
    np.testing.assert_allclose(dense[1], (counts * dense[0] + 3 * mean) / (counts + 3), rtol=1e-12)
    expected = [
        multivariate_normal.logpdf(rows, m, c) for m, c in zip(after.means, dense[1], strict=True)
    ]
    densities = [after.log_joint(k, rows.T) - after.log_weights[k] for k in range(2)]
    np.testing.assert_allclose(densities, expected, rtol=1e-9)
