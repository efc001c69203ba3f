"""Rows of which it is known what components they may be of."""

import json
import warnings
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from dense import Array, Parameters, em, sums_of
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as some
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dgmm import (
    BayesianGaussianMixture,
    DataError,
    GaussianMixture,
    MixtureSearch,
    load,
    open_dataset,
    select,
)
from dgmm.cli.commands import main
from dgmm.errors import CheckpointError, DgmmError, UsageError
from dgmm.kernels.labelled import Labelled
from dgmm.kernels.labels import allowed, first_invalid_label, sole, tally
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import OBSERVATIONS
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised

KINDS = sorted(COVARIANCE_MODELS)
Labels = NDArray[Any]


def mask_of(labels: Labels, components: int) -> NDArray[np.bool_]:
    """Row by row."""
    if labels.ndim == 2:
        return labels.astype(bool)
    mask = np.ones((len(labels), components), bool)
    for row, label in zip(mask, labels, strict=True):
        if label >= 0:
            row[:] = False
            row[int(label)] = True
    return mask


def some_labels(form: str, rows: int, components: int, rng: np.random.Generator) -> Labels:
    numbers = rng.integers(-1, components, rows)
    if form == "numbers":
        return numbers
    if form == "floats":
        return np.where(numbers < 0, np.nan, numbers)
    if form == "one of each":
        return np.arange(rows) % components
    mask = rng.random((rows, components)) < 0.6
    mask[~mask.any(axis=1)] = True
    return mask


def some_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    model = COVARIANCE_MODELS[kind]
    shape = model.shape(k, d)
    values = rng.uniform(0.5, 2, size=shape)
    if shape[-2:] == (d, d):
        roots = rng.normal(size=(*shape[:-1], d + 2))
        values = roots @ roots.swapaxes(-1, -2) / d + 0.3 * np.eye(d)
    weights = rng.dirichlet(np.full(k, 4.0))
    return Mixture.of_covariances(model, weights, rng.normal(scale=2, size=(k, d)), values)


@pytest.mark.parametrize("form", ["numbers", "floats", "one of each", "mask"])
@pytest.mark.parametrize("missing", ["raise", "marginalize", "drop"])
@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_e_step_equals_that_of_one_row_after_another(
    kind: str, kernel: str, missing: Any, form: str
) -> None:
    rng = np.random.default_rng(1)
    k, d, n = 4, 3, 200
    mixture, rows = some_mixture(kind, k, d, rng), rng.normal(scale=2, size=(n, d))
    if missing != "raise":
        rows[rng.random((n, d)) < 0.2] = np.nan
    weights, labels = rng.uniform(0.5, 2, n), some_labels(form, n, k, rng)
    penalties = Regularised(np.full(d, 0.03)).penalties(mixture)
    seen = Labelled(kernel, OBSERVATIONS[missing](), k)
    natural = NaturalParameters.of(mixture, penalties, centre=seen.centres, per_component=True)
    frame_given = Given(Frame(np.zeros(d), np.ones(d)), (seen.given(natural),) * 2)
    block = Block(0, rows, weights, labels=labels)
    found, again = seen.e_step(block, frame_given).parts
    at = Parameters(mixture.weights, mixture.means, np.array(mixture.covariances.dense()))
    counted = weights * (~np.isnan(rows).any(axis=1) if missing == "drop" else 1)
    true = sums_of(rows, counted, at, np.array(natural.penalty), mask_of(labels, k))
    assert found.objective == pytest.approx(true.objective, rel=1e-11)
    assert found.weight == pytest.approx(true.weight, rel=1e-13)
    about = natural.features.shifted(found.sums, -natural.center)
    np.testing.assert_allclose(about[:, 0], true.counts, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(about[:, 1 : 1 + d], true.first, rtol=1e-9, atol=1e-9)
    if kind in ("full", "tied"):
        second = true.second[:, *np.triu_indices(d)]
    elif kind == "diag":
        second = np.diagonal(true.second, axis1=1, axis2=2)
    else:
        second = np.trace(true.second, axis1=1, axis2=2)[:, None]
    np.testing.assert_allclose(about[:, 1 + d :], second, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.sums, again.sums)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_rows_without_labels_are_rows_as_any_others(kernel: str) -> None:
    """To the bit."""
    rng = np.random.default_rng(0)
    mixture, rows = some_mixture("full", 4, 3, rng), rng.normal(size=(500, 3))
    natural = NaturalParameters.of(mixture, centre=True)
    frame_given = Given(Frame(np.zeros(3), np.ones(3)), (natural.bare,))
    plain = OBSERVATIONS["raise"](kernel).e_step(Block(0, rows), frame_given).parts[0]
    free: list[Labels] = [np.full(500, -1), np.full(500, np.nan), np.ones((500, 4), bool)]
    for labels in free:
        seen = Labelled(kernel, components=4).e_step(Block(0, rows, labels=labels), frame_given)
        np.testing.assert_array_equal(seen.parts[0].sums, plain.sums)
        assert seen.parts[0].objective == plain.objective


def test_labels_are_counted_and_those_that_can_not_be_are_named() -> None:
    rows = np.zeros((4, 1))
    labels: Labels = np.array([-1, 2, 0, 2])
    assert tally(labels, 3).tolist() == [[2, 1, 3], [1, 0, 2]]
    assert sole(labels).tolist() == [-1, 2, 0, 2]
    mask = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert tally(mask, 3).tolist() == [[2, 3, 2], [0, 1, 1]]
    assert sole(mask).tolist() == [-1, -1, 1, 2]
    assert allowed(mask, 4)[:, 3].tolist() == [True, False, False, False]
    wrong: list[tuple[Labels, str, int]] = [
        (np.array([0, 3, 7, 1]), "labels must be components, from 0 to 2.*: 3 at row 11", 2),
        (np.array([0, -2, 1, 1]), "-2 at row 11", 1),
        (np.array([0.0, np.nan, 0.5, np.inf]), "0.5 at row 12", 2),
        (np.array([[1, 0], [0, 0], [0, 0], [1, 1]]), "row 11 may be of no component", 2),
        (np.array([[1, 0], [0, 1], [0.5, 0], [1, 1]]), "true or false: not so row 12", 1),
    ]
    for bad, message, count in wrong:
        found = first_invalid_label(Block(10, rows, labels=bad), 3)
        assert found is not None
        assert found[1] == count
        with pytest.raises(ValueError, match=message):
            raise ValueError(found[0])
    assert first_invalid_label(Block(0, rows, labels=labels), 3) is None


# Fits.

STEPS = 20


def clumps(rows: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Rows of three components that overlap, and whose each is."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0, 0.0], [3.0, 1.0, -1.0], [-1.0, 4.0, 2.0]])
    labels = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    scales = np.array([1.0, 0.6, 1.4])
    return means[labels] + rng.normal(size=(rows, 3)) * scales[labels, None], labels


def partly(labels: NDArray[np.int64], share: float, seed: int = 1) -> NDArray[np.int64]:
    """The labels of a ``share`` of the rows."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < share, labels, -1)


def quietly(model: GaussianMixture, rows: Any, **more: Any) -> GaussianMixture:
    """Fit, where the run is too short to converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, **more)


def start_of(kind: str) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    shape = COVARIANCE_MODELS[kind].shape(3, 3)
    unit = np.broadcast_to(np.eye(3), shape) if kind in ("full", "tied") else np.ones(shape)
    weights, means = np.array([0.3, 0.45, 0.25]), rng.normal(size=(3, 3))
    return {"weights_init": weights, "means_init": means, "precisions_init": np.array(unit)}


@pytest.mark.parametrize("form", ["numbers", "mask"])
@pytest.mark.parametrize(("holes", "weighted"), [(False, False), (True, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_em_equals_that_of_one_row_after_another(
    kind: Any, weighted: bool, holes: bool, form: str
) -> None:
    """Parameters after 20 iterations, and the objective after each."""
    rng = np.random.default_rng(3)
    rows, _ = clumps(90)
    if holes:
        rows[rng.random(rows.shape) < 0.3] = np.nan
    weights = rng.uniform(0.5, 2, 90) if weighted else np.ones(90)
    labels = some_labels(form, 90, 3, rng)
    labels[:40] = -1 if form == "numbers" else 1
    start = start_of(kind)
    unit = np.broadcast_to(np.eye(3), (3, 3, 3))
    at = Parameters(start["weights_init"], start["means_init"], unit)
    expected, trace = em(rows, weights, at, kind, 1e-3, STEPS, allowed=mask_of(labels, 3))
    model = GaussianMixture(
        3,
        covariance_type=kind,
        strategy="em",
        tol=0,
        max_iter=STEPS,
        reg_covar=1e-3,
        missing="marginalize" if holes else "raise",
        precision="float64",
        **start,
    )
    beside: dict[str, Any] = {"labels": da.from_array(labels, chunks=40)}
    if weighted:
        beside["sample_weight"] = weights
    quietly(model, da.from_array(rows, chunks=(25, 3)), **beside)
    ours = [*model.lower_bounds_, model.lower_bound_]
    np.testing.assert_allclose(ours, trace, rtol=1e-10)
    assert (np.diff(ours) >= -1e-12).all()
    np.testing.assert_allclose(model.weights_, expected.weights, rtol=1e-10)
    np.testing.assert_allclose(model.means_, expected.means, rtol=1e-10, atol=1e-10)
    own = model.mixture_.covariances.dense()
    np.testing.assert_allclose(own, expected.covariances, rtol=1e-10, atol=1e-10)
    sole = mask_of(labels, 3).sum(axis=1) == 1
    seen = ~np.isnan(rows).all(axis=1)
    assert model.fit_info_["labelled"] == (sole & seen).sum()


@pytest.mark.parametrize("strategy", ["auto", "em"])
@pytest.mark.parametrize("kind", KINDS)
def test_components_are_what_the_labels_say(kind: Any, strategy: Any) -> None:
    """In any order, of few rows and of many, where one in twenty rows has a label."""
    for count in (300, 8000):
        rows, labels = clumps(count)
        for seed, order in enumerate(permutations(range(3))):
            named = np.array(order)[labels]
            model = GaussianMixture(
                3, covariance_type=kind, strategy=strategy, random_state=seed, max_iter=300
            ).fit(rows, labels=partly(named, 0.05))
            assert (model.predict(rows) == named).mean() > 0.8
            if count == 8000 and seed > 1:
                break


def test_rare_labels_are_found_in_many_rows() -> None:
    """Sixty rows of 400,000 have labels: a sample of the rows holds about fifteen of these."""
    rows, labels = clumps(400_000)
    known = np.full(len(rows), -1)
    for k in range(3):
        known[np.flatnonzero(labels == k)[:20]] = (k + 1) % 3
    model = GaussianMixture(3, random_state=0).fit(rows, labels=known)
    assert (model.predict(rows) == (labels + 1) % 3).mean() > 0.9
    assert model.fit_info_["labelled"] == 60


def test_labels_of_some_components_leave_the_others_to_be_found() -> None:
    """As well as from the truth; with noise, too, which no labelled row is."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0], [4, 1], [-1, 4], [5, 6]])
    labels = rng.choice(4, 1500, p=[0.4, 0.3, 0.2, 0.1])
    scales = np.array([1.0, 0.6, 1.4, 0.5])
    rows = means[labels] + rng.normal(size=(1500, 2)) * scales[labels, None]
    known = np.where(labels < 2, partly(labels, 0.03), -1)
    near = GaussianMixture(4, random_state=0).fit(rows, labels=labels)
    start = {
        "weights_init": near.weights_,
        "means_init": near.means_,
        "precisions_init": near.precisions_,
    }
    truth = GaussianMixture(4, **start).fit(rows, labels=known)
    model = GaussianMixture(4, random_state=0).fit(rows, labels=known)
    assert model.lower_bound_ > truth.lower_bound_ - model.fit_info_["resolution"]
    inside = labels < 2
    assert (model.predict(rows)[inside] == labels[inside]).mean() > 0.95
    more = np.concatenate([rows, rng.uniform(-30, 30, size=(150, 2))])
    known = np.concatenate([known, np.full(150, -1)])
    noisy = GaussianMixture(4, noise_component=True, random_state=0).fit(more, labels=known)
    assert noisy.noise_weight_ == pytest.approx(150 / 1650, abs=0.02)
    assert (noisy.predict(more)[:1500][inside] == labels[inside]).mean() > 0.95


def test_rows_that_all_have_labels_are_fitted_each_component_by_itself() -> None:
    rows, labels = clumps(600)
    model = GaussianMixture(3, reg_covar=0, random_state=0).fit(rows, labels=labels)
    for k in range(3):
        own = rows[labels == k]
        assert model.weights_[k] == pytest.approx(len(own) / 600, rel=1e-12)
        np.testing.assert_allclose(model.means_[k], own.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(
            model.covariances_[k], np.cov(own.T, bias=True), rtol=1e-8, atol=1e-10
        )


@pytest.mark.parametrize("kind", KINDS)
def test_free_labels_are_no_labels(kind: Any) -> None:
    """To the bit, from the same start."""
    rows, _ = clumps(500)
    start = {"covariance_type": kind, **start_of(kind)}
    plain = GaussianMixture(3, **start).fit(rows)
    free = GaussianMixture(3, **start).fit(rows, labels=np.full(500, -1))
    np.testing.assert_array_equal(plain.means_, free.means_)
    np.testing.assert_array_equal(plain.covariances_, free.covariances_)
    assert plain.lower_bound_ == free.lower_bound_


@settings(max_examples=15, deadline=None)
@given(
    kind=some.sampled_from(KINDS),
    form=some.sampled_from(["numbers", "floats", "mask"]),
    strategy=some.sampled_from(["auto", "em"]),
    holes=some.booleans(),
    noise=some.booleans(),
    seed=some.integers(0, 1000),
)
def test_the_objective_never_falls(
    kind: Any, form: str, strategy: Any, holes: bool, noise: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, _ = clumps(200, seed)
    if holes:
        rows[rng.random(rows.shape) < 0.2] = np.nan
    labels = some_labels(form, 200, 3, rng)
    labels[:120] = 1 if form == "mask" else -1
    model = GaussianMixture(
        3,
        covariance_type=kind,
        strategy=strategy,
        noise_component=noise,
        missing="marginalize" if holes else "raise",
        random_state=seed,
        max_iter=12,
        precision="float64",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels=labels)
    assert (np.diff([*model.lower_bounds_, model.lower_bound_]) >= -1e-11).all()


def test_the_same_fit_in_all_forms_on_a_cluster_and_after_a_kill(
    clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rows, labels = clumps(2000)
    known = partly(labels, 0.1)
    store, beside = str(tmp_path / "rows.zarr"), str(tmp_path / "labels.zarr")
    zarr.create_array(store=store, shape=rows.shape, chunks=(250, 3), dtype="f8")[:] = rows
    zarr.create_array(store=beside, shape=known.shape, chunks=(777,), dtype="i4")[:] = known
    np.save(tmp_path / "labels.npy", known)
    asked: dict[str, Any] = {"random_state": 0}
    here = GaussianMixture(3, **asked).fit(store, labels=beside)
    with clusters[2].as_current():
        there = GaussianMixture(3, **asked).fit(store, labels=beside)
    place = tmp_path / "passes"
    model = GaussianMixture(3, checkpoint=place, **asked)
    for number, _ in enumerate(model.fit_passes(store, labels=beside)):
        if number == 2:
            break
    with pytest.raises(CheckpointError, match="other values in the rows, or beside them"):
        model.fit(store)
    again = model.fit(store, labels=beside)
    forms = [
        GaussianMixture(3, **asked).fit(store, labels=each)
        for each in (known, known.tolist(), str(tmp_path / "labels.npy"), known.astype(float))
    ]
    own = GaussianMixture(3, **asked).fit(open_dataset(store, labels=da.from_array(known)))
    for other in (there, again, own, *forms):
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_array_equal(getattr(here, name), getattr(other, name))
        assert other.lower_bound_ == here.lower_bound_


@pytest.mark.parametrize("criterion", ["bic", "icl", "heldout"])
def test_a_selection_of_rows_with_labels(criterion: Any) -> None:
    rows, labels = clumps(3000)
    known = np.where(labels < 2, partly(labels, 0.1), -1)
    search = select(rows, [2, 3, 4], criterion=criterion, random_state=0, labels=known)
    best = search.best_estimator_
    assert best.n_components in ((3, 4) if criterion == "heldout" else (3,))  # of 300 rows
    assert (best.predict(rows) == labels)[labels < 2].mean() > 0.9
    if criterion == "icl":  # of a row with a label nothing is unsure
        proba = best.predict_proba(rows)[known < 0]
        entropy = -np.sum(proba * np.log(np.maximum(proba, 1e-300)))
        found = next(each for each in search.results_ if each["n_components"] == 3)
        plain = -2 * 3000 * found["score"] + found["parameters"] * np.log(3000)
        assert found["icl"] == pytest.approx(plain + 2 * entropy, rel=1e-9)


def test_rows_with_labels_are_added() -> None:
    """One EM step from two summaries is the step of both together."""
    rows, labels = clumps(900)
    known = partly(labels, 0.2)
    asked = {
        "reg_covar": 1e-3,
        "precision": "float64",
        "strategy": "em",
        "tol": 0,
        **start_of("full"),
    }
    model = quietly(GaussianMixture(3, max_iter=4, **asked), rows, labels=known)
    parts = [
        model.summarize(rows[part], labels=known[part]) for part in (slice(300), slice(300, 900))
    ]
    both = parts[0] + parts[1]
    assert both.bound(model.mixture_) == pytest.approx(model.lower_bound_, abs=1e-9)
    more = quietly(GaussianMixture(3, max_iter=5, **asked), rows, labels=known)
    model.update(both)
    np.testing.assert_allclose(model.means_, more.means_, rtol=1e-9)
    with pytest.raises(DataError, match="3 at row 1"):
        model.partial_fit(rows[:2], labels=[0, 3])
    assert model.partial_fit(rows[:2], labels=[0, -1]).sufficient_statistics_.rows == 902


def test_on_the_command_line(tmp_path: Path) -> None:
    rows, labels = clumps(1000)
    known = partly((labels + 1) % 3, 0.1)
    for name, each in (("rows", rows), ("labels", known), ("wrong", known + 1)):
        np.save(tmp_path / f"{name}.npy", each)
    data, beside, wrong, model = (
        str(tmp_path / each) for each in ("rows.npy", "labels.npy", "wrong.npy", "m.dgmm")
    )
    run = CliRunner()
    words = ["fit", data, "-k", "3", "-o", model, "--quiet", "--labels"]
    refused = run.invoke(main, [*words, wrong])
    assert refused.exit_code == 3
    assert "from 0 to 2" in refused.output
    assert not Path(model).exists()
    assert run.invoke(main, [*words, beside], catch_exceptions=False).exit_code == 0
    found = load(model)
    assert (found.predict(rows) == (labels + 1) % 3).mean() > 0.9
    assert found.fit_info_["labelled"] == (known >= 0).sum()
    more = ["update", data, "-m", model, "-o", str(tmp_path / "more.dgmm"), "--labels"]
    assert "from 0 to 2" in run.invoke(main, [*more, wrong]).output
    assert run.invoke(main, [*more, beside], catch_exceptions=False).exit_code == 0
    words = ["select", data, "-k", "3,4", "-o", model, "--quiet", "--overwrite", "--labels", beside]
    assert run.invoke(main, words, catch_exceptions=False).exit_code == 0
    assert (load(model).predict(rows) == (labels + 1) % 3).mean() > 0.9
    peaks = []
    for more in ([], ["--labels", beside]):
        words = ["plan", data, "-k", "3", "--json", *more]
        done = run.invoke(main, words, catch_exceptions=False)
        peaks.append(json.loads(done.stdout)["peak_bytes"])
    assert peaks[0] < peaks[1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(50) % 3, "components, from 0 to 1, or -1 .*: 2 at row 2; .*: 16 of 50"),
        (np.full(50, "a"), r"labels must be real numbers.*number them, .*pandas.factorize"),
        (np.full(49, -1), r"labels must be one component a row, shape \(50,\)"),
        (np.ones((50, 3), bool), "which of 3 components .* n_components is 2"),
        (np.zeros((50, 2), bool), "row 0 may be of no component"),
        (np.zeros(50, int), "no row may be of component 1: none that has a weight has that label"),
        (np.full(50, 0.5), "0.5 at row 0"),
        (np.full((50, 1, 1), -1), "labels must be"),
    ],
)
def test_labels_that_can_not_be_are_told_at_the_door(labels: Any, message: str) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1))
    with pytest.raises(DgmmError, match=message):
        GaussianMixture(2).fit(rows, labels=labels)


def test_a_component_without_a_row_of_weight_is_refused() -> None:
    rows, weights = np.random.default_rng(0).normal(size=(50, 1)), np.ones(50)
    labels = np.arange(50) % 2
    weights[labels == 1] = 0
    with pytest.raises(DataError, match="component 1"):
        GaussianMixture(2).fit(rows, sample_weight=weights, labels=labels)
    with pytest.raises(DataError, match="component 2"):
        MixtureSearch(n_components=[2, 3]).fit(rows, labels=labels)
    with pytest.raises(UsageError, match="init_params='random'"):
        GaussianMixture(2, init_params="random").fit(rows, labels=labels)
    with pytest.raises(UsageError, match="no component that a label could name"):
        BayesianGaussianMixture(2).fit(open_dataset(rows, labels=labels))


@pytest.mark.parametrize("what", ["plain", "noise", "student", "noise component"])
def test_a_labelled_row_counts_with_the_density_of_its_component(what: str) -> None:
    """The objective, from what the fitted model says of the rows: log pi_k and log N(x | k)."""
    rng = np.random.default_rng(0)
    rows, labels = clumps(800)
    known = partly(labels, 0.2)
    beside: dict[str, Any] = {}
    asked: dict[str, Any] = {"reg_covar": 0, "precision": "float64", "random_state": 0}
    if what == "noise":
        beside["noise"] = rng.uniform(0.01, 0.5, rows.shape)
        rows += rng.normal(size=rows.shape) * np.sqrt(beside["noise"])
    elif what == "student":
        asked["tails"] = "student"
    elif what == "noise component":
        asked["noise_component"] = True
        rows[:40], known[:40] = rng.uniform(-20, 20, size=(40, 3)), -1
    model = GaussianMixture(3, **asked).fit(rows, labels=known, **beside)
    logs, proba = (each(rows, **beside) for each in (model.score_samples, model.predict_proba))
    sure = known >= 0
    own = logs[sure] + np.log(proba[sure, known[sure]])
    expected = (own.sum() + logs[~sure].sum()) / len(rows)
    assert model.lower_bound_ == pytest.approx(expected, rel=1e-9)
    assert (model.predict(rows, **beside)[sure] == known[sure]).mean() > 0.85
