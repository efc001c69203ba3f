"""Parameters that are held at their starting values."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from dense import Array, Parameters, em
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.exceptions import ConvergenceWarning

from dgmm import (
    ConjugatePrior,
    GaussianMixture,
    MixtureSearch,
    SufficientStatistics,
    align,
    load,
    select,
)
from dgmm.cli.commands import main
from dgmm.errors import CheckpointError, DegenerateWarning, UsageError
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.fixed import PARTS, Fixed

KINDS = sorted(COVARIANCE_MODELS)
STEPS = 20


def clumps(rows: int, seed: int = 0) -> Array:
    """Rows of three components that overlap, far from 0 and in columns of different size."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0, 0.0], [3.0, 1.0, -1.0], [-1.0, 4.0, 2.0]])
    labels = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    found = means[labels] + rng.normal(size=(rows, 3)) * np.array([1, 0.6, 1.4])[labels, None]
    return found * [1.0, 10.0, 0.1] + [0.0, 50.0, -7.0]


UNITS, SHIFT = np.array([1.0, 10.0, 0.1]), np.array([0.0, 50.0, -7.0])


def start_of(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Starting values for ``clumps``, of three components, not near the optimum."""
    means = rng.normal(size=(3, 3)) + np.array([[0, 0, 0], [2, 2, -1], [-1, 3, 1]])
    variances = rng.uniform(0.7, 2, size=(3, 3)) * UNITS**2
    spread = np.einsum("ki,ij->kij", variances, np.eye(3))
    precisions = {
        "full": np.linalg.inv(spread),
        "tied": np.linalg.inv(spread[0]),
        "diag": 1 / variances,
        "spherical": 1 / variances[:, 1],
    }[kind]
    weights = np.array([0.3, 0.45, 0.25])
    return {
        "weights_init": weights,
        "means_init": means * UNITS + SHIFT,
        "precisions_init": precisions,
    }


def dense(kind: str, start: dict[str, Any]) -> Parameters:
    model = COVARIANCE_MODELS[kind]
    own = model.of_precisions(np.array(start["precisions_init"]), (3, 3))
    return Parameters(start["weights_init"], start["means_init"], np.array(own.dense()))


CHOICES: list[Any] = [
    "weights",
    ("means",),
    ["covariances"],
    {"means": [0, 2], "covariances": True, "weights": [1]},
    {"means": [True, False, False], "weights": [0, 2]},
    ("means", "covariances"),
    ("weights", "covariances"),
]


def masks(asked: Any) -> Fixed:
    named = {asked: True} if isinstance(asked, str) else asked
    if not isinstance(named, dict):
        named = dict.fromkeys(named, True)
    numbers = {}
    for name, own in named.items():
        if own is True:
            numbers[name] = [0, 1, 2]
        else:
            whole = all(isinstance(each, bool) for each in own)
            numbers[name] = np.flatnonzero(own).tolist() if whole else own
    return Fixed.of(3, **numbers)


def quietly(model: GaussianMixture, rows: Any, **more: Any) -> GaussianMixture:
    """Fit, where the run is too short to converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DegenerateWarning)  # of 80 rows some are left alone
        return model.fit(rows, **more)


def assert_held(model: GaussianMixture, start: dict[str, Any], fixed: Fixed) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(
        model.weights_[fixed.weights], start["weights_init"][fixed.weights]
    )
    np.testing.assert_array_equal(model.means_[fixed.means], start["means_init"][fixed.means])
    given = GaussianMixture.from_parameters(
        start["weights_init"],
        start["means_init"],
        precisions=start["precisions_init"],
        covariance_type=model.covariance_type,
    )
    own = model.mixture_.covariances.dense(), given.mixture_.covariances.dense()
    np.testing.assert_array_equal(own[0][fixed.covariances], own[1][fixed.covariances])
    factors = [each.mixture_.covariances.factors() for each in (model, given)]
    np.testing.assert_array_equal(factors[0][fixed.covariances], factors[1][fixed.covariances])
    assert model.weights_.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("share", "weighted"), [(0.0, False), (0.3, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_em_equals_that_of_one_row_after_another(kind: Any, weighted: bool, share: float) -> None:
    """Parameters after 20 iterations, and the objective after each; some rows have holes."""
    rng = np.random.default_rng(3)
    rows = clumps(60)
    if share:
        rows[rng.random(rows.shape) < share] = np.nan
    weights = rng.uniform(0.5, 2, 60) if weighted else np.ones(60)
    for asked in CHOICES[3:5] if weighted else CHOICES:
        fixed, start = masks(asked), start_of(kind, rng)
        reg = 1e-3
        expected, trace = em(rows, weights, dense(kind, start), kind, reg, STEPS, fixed)
        model = GaussianMixture(
            3,
            covariance_type=kind,
            strategy="em",
            tol=0,
            max_iter=STEPS,
            reg_covar=reg,
            missing="marginalize" if share else "raise",
            fixed=asked,
            precision="float64",
            **start,
        )
        given_weights = da.from_array(weights, chunks=30) if weighted else None
        quietly(model, da.from_array(rows, chunks=(30, 3)), sample_weight=given_weights)
        ours = [*model.lower_bounds_, model.lower_bound_]
        np.testing.assert_allclose(ours, trace, rtol=1e-10)
        assert (np.diff(ours) >= -1e-12).all()
        np.testing.assert_allclose(model.weights_, expected.weights, rtol=1e-9)
        np.testing.assert_allclose(model.means_, expected.means, rtol=1e-9, atol=1e-9)
        own = model.mixture_.covariances.dense() / UNITS[:, None] / UNITS
        np.testing.assert_allclose(
            own, expected.covariances / UNITS[:, None] / UNITS, rtol=1e-8, atol=1e-9
        )
        assert_held(model, start, fixed)


@pytest.mark.parametrize("kind", KINDS)
def test_beside_noise_equals_that_of_one_row_after_another(kind: Any) -> None:
    """Free weights and that of noise share what fixed ones leave."""
    rng = np.random.default_rng(3)
    rows = clumps(80)
    rows[:8] = rng.uniform(-8, 8, size=(8, 3)) * UNITS + SHIFT
    for asked in ({"weights": [1]}, {"weights": [0, 2], "means": [0]}, ("means", "covariances")):
        fixed, start = masks(asked), start_of(kind, rng)
        model = GaussianMixture(
            3,
            covariance_type=kind,
            strategy="em",
            tol=0,
            max_iter=STEPS,
            reg_covar=1e-3,
            noise_component=0.1,
            fixed=asked,
            precision="float64",
            **start,
        )
        quietly(model, rows)
        weights, at = np.array(start["weights_init"]), dense(kind, start)
        free, left = ~fixed.weights, 1 - weights[fixed.weights].sum()
        share = left / (0.9 * weights[free].sum() + 0.1)  # of the start, with noise of 0.1
        begin = np.where(free, 0.9 * weights * share, weights)
        at = Parameters(begin, at.means, at.covariances, 0.1 * share)
        expected, trace = em(
            rows,
            np.ones(80),
            at,
            kind,
            1e-3,
            STEPS,
            fixed,
            log_density=model.noise_log_density_,
        )
        ours = [*model.lower_bounds_, model.lower_bound_]
        np.testing.assert_allclose(ours, trace, rtol=1e-10)
        assert (np.diff(ours) >= -1e-12).all()
        np.testing.assert_allclose(model.weights_, expected.weights, rtol=1e-9, atol=1e-15)
        assert model.noise_weight_ == pytest.approx(expected.noise, rel=1e-8)
        np.testing.assert_allclose(model.means_, expected.means, rtol=1e-8, atol=1e-8)
        np.testing.assert_array_equal(model.weights_[fixed.weights], weights[fixed.weights])
        np.testing.assert_array_equal(model.means_[fixed.means], start["means_init"][fixed.means])
        free_count = int(free.sum()) + 3 * int((~fixed.means).sum())
        own = {"full": 6, "tied": 0, "diag": 3, "spherical": 1}[kind]
        free_count += own * int((~fixed.covariances).sum())
        free_count += 6 * (kind == "tied" and not fixed.covariances.all())
        total = 2 * len(rows) * model.score(rows)
        assert model.aic(rows) == pytest.approx(2 * free_count - total)
    more = np.concatenate([clumps(900), rng.uniform(-8, 8, size=(50, 3)) * UNITS + SHIFT])
    model = GaussianMixture(3, noise_component=True, random_state=0).fit(more)
    before = model.mixture_
    asked_again = {"weights": [0], "means": [1], "covariances": [2]}
    model.set_params(warm_start=True, fixed=asked_again)
    quietly(model, clumps(900, seed=1))
    assert model.weights_[0] == before.weights[0]
    assert model.weights_.sum() + model.noise_weight_ == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(model.means_[1], before.means[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_strategy_ends_where_em_does(kind: Any) -> None:
    """SQUAREM moves free parameters alone; both end at the optimum given the rest."""
    rows, rng = clumps(800), np.random.default_rng(5)
    for asked in CHOICES[1:5]:
        start, fixed = start_of(kind, rng), masks(asked)
        how = {"covariance_type": kind, "fixed": asked, "random_state": 0, **start}
        model = GaussianMixture(3, **how, max_iter=400, precision="float64").fit(rows)
        slow = GaussianMixture(3, strategy="em", tol=1e-9, max_iter=5000, **how).fit(rows)
        assert model.lower_bound_ > slow.lower_bound_ - 0.2 * model.fit_info_["resolution"]
        assert (np.diff([*model.lower_bounds_, model.lower_bound_]) >= -1e-11).all()
        assert_held(model, start, fixed)
        assert model.fit_info_["fixed"] == fixed.record()


def free_parameters(kind: str, fixed: Fixed) -> int:
    """Counted one by one."""
    own = {"full": 6, "tied": 0, "diag": 3, "spherical": 1}[kind]
    count = max(0, int((~fixed.weights).sum()) - 1) + 3 * int((~fixed.means).sum())
    count += own * int((~fixed.covariances).sum())
    return count + 6 * (kind == "tied" and not fixed.covariances.all())


@pytest.mark.parametrize("kind", KINDS)
def test_criteria_count_free_parameters_alone(kind: Any, tmp_path: Path) -> None:
    rows, rng = clumps(500), np.random.default_rng(6)
    for asked in CHOICES:
        start, fixed = start_of(kind, rng), masks(asked)
        model = GaussianMixture(3, covariance_type=kind, fixed=asked, **start)
        model = quietly(model, rows)
        free = free_parameters(kind, fixed)
        total = 2 * len(rows) * model.score(rows)
        assert model.aic(rows) == pytest.approx(2 * free - total)
        assert model.bic(rows) == pytest.approx(free * np.log(len(rows)) - total)
        assert model.fit_info_["resolution"] == pytest.approx(free / (2 * len(rows)))
        model.save(tmp_path / "model.dgmm", overwrite=True)
        assert load(tmp_path / "model.dgmm").bic(rows) == model.bic(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        chosen = select(rows, 3, kind, fixed=asked, **start)
    assert chosen.results_[0]["parameters"] == free
    assert chosen.results_[0]["bic"] == pytest.approx(chosen.best_estimator_.bic(rows))


def test_weights_that_are_all_held_are_those_of_a_mixture(tmp_path: Path) -> None:
    """They may be given with few digits; then they sum to 1 nearly."""
    rows, weights = clumps(300), [0.33333, 0.33333, 0.33333]
    model = GaussianMixture(3, weights_init=weights, fixed="weights", random_state=0)
    model = quietly(model, rows)
    np.testing.assert_allclose(model.weights_, 1 / 3, rtol=1e-12)
    model.save(tmp_path / "model.dgmm")
    np.testing.assert_array_equal(load(tmp_path / "model.dgmm").weights_, model.weights_)


@settings(max_examples=15, deadline=None)
@given(
    kind=some.sampled_from(KINDS),
    held=some.fixed_dictionaries(
        {name: some.lists(some.integers(0, 2), max_size=2, unique=True) for name in PARTS}
    ),
    strategy=some.sampled_from(["auto", "em"]),
    prior=some.sampled_from([None, ConjugatePrior(2.0, 5.0)]),
    seed=some.integers(0, 1000),
)
def test_the_objective_never_falls_and_what_is_held_stays(
    kind: Any, held: dict[str, list[int]], strategy: Any, prior: Any, seed: int
) -> None:
    held = held | {"covariances": []} if kind == "tied" else held
    rows, start = clumps(150, seed), start_of(kind, np.random.default_rng(seed))
    model = GaussianMixture(
        3,
        covariance_type=kind,
        strategy=strategy,
        fixed=held,
        prior=prior,
        max_iter=15,
        precision="float64",
        **start,
    )
    model = quietly(model, rows)
    assert (np.diff([*model.lower_bounds_, model.lower_bound_]) >= -1e-11).all()
    assert_held(model, start, Fixed.of(3, **held))


def test_a_narrow_component_that_is_held_is_no_less_likely_for_reg_covar() -> None:
    """reg_covar holds up what is estimated; the density of what is known stays what it is."""
    rows = np.random.default_rng(0).normal(size=(400, 1))
    rows[:100] *= 1e-4
    model = GaussianMixture(
        2,
        covariance_type="diag",
        strategy="em",
        reg_covar=1e-3,
        tol=1e-9,
        max_iter=200,
        weights_init=[0.5, 0.5],
        means_init=[[0.0], [0.0]],
        precisions_init=[[1e8], [1.0]],
        fixed={"means": [0], "covariances": [0]},
    ).fit(rows)
    assert model.weights_[0] == pytest.approx(0.25, abs=0.01)
    assert model.fit_info_["singular"] == []


def test_components_without_rows_keep_a_weight_that_is_held() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 1))
    start = {"weights_init": [0.2, 0.8], "means_init": [[1e5], [0.0]], "precisions_init": [1.0, 1]}
    model = GaussianMixture(
        2, covariance_type="spherical", fixed={"weights": [0]}, max_iter=50, **start
    ).fit(rows)
    np.testing.assert_array_equal(model.weights_, [0.2, 0.8])
    assert model.means_[0] == 1e5
    assert model.fit_info_["empty"] == []


# Files, sites, clusters.


def test_the_same_bits_on_a_cluster_and_after_a_kill(
    clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rows, store = clumps(1500), str(tmp_path / "rows.zarr")
    zarr.create_array(store=store, shape=rows.shape, chunks=(250, 3), dtype="f8")[:] = rows
    start = start_of("full", np.random.default_rng(0))
    asked: dict[str, Any] = {"fixed": {"means": [0], "weights": [1]}, **start}
    here = GaussianMixture(3, **asked).fit(store)
    with clusters[2].as_current():
        there = GaussianMixture(3, **asked).fit(store)
    place = tmp_path / "passes"
    for number, _ in enumerate(GaussianMixture(3, checkpoint=place, **asked).fit_passes(store)):
        if number == 3:
            break
    others: list[dict[str, Any]] = [{"fixed": None}, {"fixed": "means"}]
    for other in others:
        with pytest.raises(CheckpointError, match="fixed is"):
            GaussianMixture(3, checkpoint=place, **asked | other).fit(store)
    again = GaussianMixture(3, checkpoint=place, **asked).fit(store)
    for other_fit in (there, again):
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_array_equal(getattr(here, name), getattr(other_fit, name))
        assert other_fit.lower_bound_ == here.lower_bound_


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_stays_when_rows_are_added(kind: Any, tmp_path: Path) -> None:
    """An M-step from the statistics of all rows is an iteration of the fit to all rows."""
    rows, start = clumps(900), start_of(kind, np.random.default_rng(1))
    fixed = masks({"means": [0, 2], "weights": [1]})
    asked = {"covariance_type": kind, "fixed": fixed.record(), "reg_covar": 1e-3, **start}
    asked["precision"] = "float64"
    model = quietly(GaussianMixture(3, strategy="em", max_iter=4, **asked), rows)
    model.save(tmp_path / "model.dgmm")
    model.sufficient_statistics_.save(tmp_path / "statistics.dgmm")
    statistics = SufficientStatistics.load(tmp_path / "statistics.dgmm")
    assert statistics.bound(model.mixture_) == pytest.approx(model.lower_bound_, rel=1e-12)
    more = quietly(GaussianMixture(3, strategy="em", max_iter=5, tol=0, **asked), rows)
    for each in (model, load(tmp_path / "model.dgmm")):
        each.update(statistics)
        np.testing.assert_allclose(each.weights_, more.weights_, rtol=1e-10)
        np.testing.assert_allclose(each.means_, more.means_, rtol=1e-10)
        assert_held(each, start, fixed)
        assert each.fit_info_["fixed"] == fixed.record()
        each.partial_fit(clumps(100, seed=4))
        assert_held(each, start, fixed)


def test_a_file_keeps_what_is_held_beside_noise(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2))
    rows[150:] += 9
    start = {"means_init": [[0.5, 0], [9, 9]], "weights_init": [0.6, 0.4]}
    asked = {"weights": [1], "means": [0]}
    model = GaussianMixture(2, noise_component=0.1, fixed=asked, random_state=0, **start)
    quietly(model, rows).save(tmp_path / "model.dgmm")
    found = load(tmp_path / "model.dgmm").partial_fit(rows)
    own = model.partial_fit(rows)
    np.testing.assert_array_equal(found.means_, own.means_)
    np.testing.assert_array_equal(found.weights_, own.weights_)
    assert found.weights_[1] == start["weights_init"][1]
    np.testing.assert_array_equal(found.means_[0], start["means_init"][0])


def test_a_fit_goes_on_from_a_fitted_model_whose_parts_are_held() -> None:
    rows = clumps(1000)
    first = GaussianMixture(3, random_state=0).fit(rows)
    before = first.mixture_
    first.set_params(warm_start=True, fixed={"covariances": [1], "means": [1], "weights": [1]})
    first.fit(clumps(1000, seed=1))
    for name in ("weights_", "means_", "covariances_"):
        own = {
            "weights_": before.weights,
            "means_": before.means,
            "covariances_": before.covariances.values,
        }
        np.testing.assert_array_equal(getattr(first, name)[1], own[name][1])
        assert not np.array_equal(getattr(first, name)[0], own[name][0])
    order = [1, 0, 2]
    other = align(before.chosen(order), first).model
    assert other.fit_info_["fixed"] == {"weights": [0], "means": [0], "covariances": [0]}
    assert other.sufficient_statistics_.fixed.record() == other.fit_info_["fixed"]


def test_on_the_command_line(tmp_path: Path) -> None:
    rows = clumps(1000)
    np.save(tmp_path / "rows.npy", rows)
    begin = GaussianMixture(3, random_state=0).fit(clumps(500, seed=2))
    begin.save(tmp_path / "begin.dgmm")
    data, start, model = (str(tmp_path / each) for each in ("rows.npy", "begin.dgmm", "m.dgmm"))
    run = CliRunner()
    words = ["fit", data, "-k", "3", "-o", model, "--quiet", "--overwrite"]
    refused = run.invoke(main, [*words, "--fixed", "means"])
    assert refused.exit_code == 2
    assert "--start" in refused.output
    words += ["--start", start]
    for wrong in ("mean", "means=", "means=a", "means=0:2"):
        refused = run.invoke(main, [*words, "--fixed", wrong])
        assert refused.exit_code == 2, wrong
        assert "means=0,2" in refused.output
    assert "none of 3" in run.invoke(main, [*words, "--fixed", "means=3"]).output
    done = run.invoke(main, [*words, "--fixed", "means=0,2", "--fixed", "covariances", "--json"])
    assert done.exit_code == 0, done.output
    found = load(model)
    np.testing.assert_array_equal(found.means_[[0, 2]], begin.means_[[0, 2]])
    np.testing.assert_array_equal(found.covariances_, begin.covariances_)
    assert not np.array_equal(found.means_[1], begin.means_[1])
    json.loads(done.stdout)


# At the door.

BEGIN = {
    "weights_init": [0.5, 0.5],
    "means_init": [[0.0], [1.0]],
    "precisions_init": [[[1.0]], [[1.0]]],
}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fixed": "mean"}, "fixed can hold 'weights', 'means', 'covariances', not 'mean'"),
        ({"fixed": 3}, "fixed must be the names of what to hold"),
        ({"fixed": [1]}, "fixed must be the names of what to hold"),
        ({"fixed": {"means": 2.5}}, "must be True or components, not 2.5"),
        ({"fixed": {"means": [2]}}, "names 2, which is none of 2"),
        ({"fixed": {"means": [-1]}}, "names -1"),
        ({"fixed": {"means": [0.5]}}, "names 0.5"),
        ({"fixed": {"means": [True]}}, "must say of 2 components"),
        ({"fixed": "means", "means_init": None}, "fixed holds means, and .* give means_init"),
        ({"fixed": "weights", "weights_init": None}, "give weights_init"),
        ({"fixed": "covariances", "precisions_init": None}, "give precisions_init"),
        ({"fixed": ("weights", "means", "covariances")}, "nothing is left to fit"),
        ({"fixed": "weights", "weights_init": [0, 1.0]}, "weight of component 0, which is 0"),
        (
            {"fixed": {"weights": [1]}, "weights_init": [0, 1.0]},
            "sum to 1, which leaves nothing to the others",
        ),
        ({"fixed": "weights", "noise_component": True}, "leaves nothing to the others"),
        ({"fixed": "means", "tails": "student"}, "leave out one of the two"),
        (
            {
                "fixed": {"covariances": [1]},
                "covariance_type": "tied",
                "precisions_init": [[1.0]],
            },
            "'tied' covariances have parts in common",
        ),
    ],
)
def test_what_can_not_be_held_is_told_at_the_door(asked: dict[str, Any], message: str) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1))
    with pytest.raises(UsageError, match=message):
        GaussianMixture(2, **{**BEGIN, **asked}).fit(rows)


def test_nothing_held_is_a_plain_fit() -> None:
    rows = clumps(500)
    start = start_of("full", np.random.default_rng(0))
    plain = GaussianMixture(3, **start).fit(rows)
    for asked in ((), {}, {"means": False, "weights": []}):
        other = GaussianMixture(3, fixed=asked, **start).fit(rows)
        np.testing.assert_array_equal(plain.means_, other.means_)
    search = MixtureSearch(GaussianMixture(fixed="means", **start), n_components=[2, 3])
    with pytest.raises(UsageError, match="should have the shape"):
        search.fit(rows)
