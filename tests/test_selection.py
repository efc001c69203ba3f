"""Many mixtures in the sweeps of one fit: the choice is that of separate fits."""

import json
import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from test_checkpoint import values
from test_strategies import overlapping

from dgmm import (
    CheckpointError,
    DataError,
    DegenerateWarning,
    GaussianMixture,
    MixtureSearch,
    UsageError,
    load,
    select,
)
from dgmm.cli.commands import main
from dgmm.em.degenerate import singular as singular_components
from dgmm.em.holdout import HELD
from dgmm.em.sample import uniform
from dgmm.em.solver import best_of
from dgmm.io import storage
from dgmm.io.checkpoint import FORMAT
from dgmm.model.covariance import COVARIANCE_MODELS

COUNTS = range(3, 9)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return overlapping(40_000)


def log_joint(model: GaussianMixture, rows: np.ndarray) -> np.ndarray:
    """log pi_k + log N(x | k), (N, K), obviously."""
    mixture = model.mixture_
    dense = mixture.covariances.dense()
    columns = []
    for weight, mean, covariance in zip(mixture.weights, mixture.means, dense, strict=True):
        white = np.linalg.solve(np.linalg.cholesky(covariance), (rows - mean).T)
        size = np.linalg.slogdet(2 * np.pi * covariance)[1]
        columns.append(np.log(weight) - 0.5 * (np.sum(white**2, axis=0) + size))
    return np.stack(columns, axis=1)


def criterion_of(name: str, model: GaussianMixture, rows: np.ndarray) -> float:
    """A criterion by its definition."""
    joint = log_joint(model, rows)
    scores = logsumexp(joint, axis=1)
    p, n = model.mixture_.free_parameters, len(rows)
    shares = np.exp(joint - scores[:, None])
    entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-300)))
    return {
        "bic": -2 * scores.sum() + p * np.log(n),
        "aic": -2 * scores.sum() + 2 * p,
        "icl": -2 * scores.sum() + p * np.log(n) + 2 * entropy,
    }[name]


@pytest.fixture(scope="module")
def separate(rows: np.ndarray) -> dict[tuple[int, str], GaussianMixture]:
    """A fit for each number of components and each kind of covariances."""
    return {
        (count, kind): GaussianMixture(count, covariance_type=kind, random_state=0).fit(rows)
        for kind in ("full", "diag")
        for count in COUNTS
    }


@pytest.mark.parametrize("criterion", ["bic", "aic", "icl"])
def test_chooses_what_separate_fits_choose(
    criterion: str, rows: np.ndarray, separate: dict[tuple[int, str], GaussianMixture]
) -> None:
    search = select(rows, COUNTS, ["full", "diag"], criterion, random_state=0)
    values = {each: criterion_of(criterion, alone, rows) for each, alone in separate.items()}
    chosen = search.best_params_
    # Each fit ends within about a tenth of p / 2 nats of its end: twice that in a criterion.
    best, ours = min(values.values()), values[chosen["n_components"], chosen["covariance_type"]]
    assert ours <= best + search.best_estimator_.mixture_.free_parameters
    own = criterion_of(criterion, search.best_estimator_, rows)
    assert -search.best_score_ == pytest.approx(own, rel=1e-9)
    dropped = [each for each in search.results_ if each["dropped_after"] is not None]
    assert len(dropped) > len(search.results_) / 2


def test_reads_little_more_than_one_fit(rows: np.ndarray) -> None:
    one = GaussianMixture(6, random_state=0).fit(rows)
    search = select(rows, range(2, 16), random_state=0)
    assert search.passes_ < 3 * one.fit_info_["passes"]


def test_rows_held_out_are_not_fitted_to(rows: np.ndarray) -> None:
    """What is fitted is the mixture of the other rows, and it is judged by those held out."""
    search = MixtureSearch(
        GaussianMixture(random_state=0), n_components=[6], criterion="heldout"
    ).fit(rows)
    best = search.best_estimator_
    assert best.fit_info_["weight"] == pytest.approx(len(rows) * (1 - HELD), rel=0.02)
    onward = GaussianMixture(6, random_state=0).fit(rows)
    assert not np.array_equal(best.means_, onward.means_)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    held = uniform(np.arange(len(rows)), seed) < HELD
    scores = logsumexp(log_joint(best, rows), axis=1)
    assert search.best_score_ == pytest.approx(scores[held].mean(), rel=1e-9)
    assert best.fit_info_["score"] == pytest.approx(scores[~held].mean(), rel=1e-9)


@pytest.mark.parametrize("criterion", ["bic", "icl", "heldout"])
def test_weights_of_zero_are_as_if_absent(criterion: str, rows: np.ndarray) -> None:
    weights = (np.arange(len(rows)) % 3 > 0).astype(float)
    spoilt = rows.copy()
    spoilt[weights == 0] = 1e6
    a, b = (
        select(each, [4, 6], criterion=criterion, sample_weight=weights, random_state=0)
        for each in (rows, spoilt)
    )
    assert a.best_params_ == b.best_params_
    assert a.best_score_ == pytest.approx(b.best_score_, rel=1e-9)


@pytest.mark.parametrize("kinds", [list(COVARIANCE_MODELS), "spherical"])
def test_every_structure(kinds: Any, rows: np.ndarray) -> None:
    """In one frame for all, which must suit each."""
    search = select(rows * [1.0, 30.0, 0.01], [2, 6], kinds, random_state=0)
    best = search.best_params_
    alone = GaussianMixture(random_state=0, **best).fit(rows * [1.0, 30.0, 0.01])
    resolution = alone.fit_info_["resolution"]
    assert search.best_estimator_.lower_bound_ == pytest.approx(
        alone.lower_bound_, abs=2 * resolution
    )


def test_works_like_scikit_learns_searches(rows: np.ndarray) -> None:
    search = clone(MixtureSearch(GaussianMixture(random_state=0), n_components=[2, 6]))
    assert search.get_params()["estimator__random_state"] == 0
    search.fit(rows)
    results = search.cv_results_
    assert results["params"][search.best_index_] == search.best_params_
    assert results["rank_test_score"][search.best_index_] == 1
    assert results["mean_test_score"].max() == search.best_score_
    best = search.best_estimator_
    np.testing.assert_array_equal(search.predict(rows), best.predict(rows))
    np.testing.assert_array_equal(search.predict_proba(rows), best.predict_proba(rows))
    np.testing.assert_array_equal(search.score_samples(rows), best.score_samples(rows))
    assert search.score(rows) == best.score(rows)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"criterion": "best"}, "criterion must be one of"),
        ({"n_components": []}, "nothing to choose from"),
        ({"n_components": [0]}, "n_components must be an integer of at least 1"),
        ({"covariance_type": ["round"]}, "covariance_type must be one of"),
    ],
)
def test_bad_questions(wrong: dict[str, Any], said: str, rows: np.ndarray) -> None:
    with pytest.raises(UsageError, match=said):
        MixtureSearch(**wrong).fit(rows)


@pytest.mark.parametrize(
    ("criterion", "more"),
    [
        ("bic", {"random_state": 0}),
        ("icl", {"random_state": np.random.RandomState(5), "strategy": "em", "n_init": 2}),
        ("heldout", {"random_state": 0, "cache": "none"}),
        ("heldout", {"random_state": None}),
    ],
)
def test_it_goes_on_from_every_pass_to_the_same_bits(
    criterion: str, more: dict[str, Any], rows: np.ndarray, tmp_path: Path
) -> None:
    some = rows[:1500]

    def search(place: Path | None) -> MixtureSearch:
        # That of random_state=None; another one where the search goes on.
        np.random.seed(0 if place is None or not place.exists() else 1)  # noqa: NPY002
        template = GaussianMixture(checkpoint=place, max_iter=6, resolution=1.0, **more)
        kinds = ["full", "tied"]
        return MixtureSearch(
            template, n_components=[2, 4], covariance_type=kinds, criterion=criterion
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = search(None).fit(some)
        steps = []
        for step in (begun := search(tmp_path / "begun")).fit_passes(some):
            steps.append(step.passes)
            shutil.copytree(tmp_path / "begun", tmp_path / str(step.passes))
        assert begun.results_ == expected.results_
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) > 2
        for passes in {*steps[:2], *steps[2::6]}:
            found = search(tmp_path / str(passes))
            going = list(found.fit_passes(some))
            assert [step.passes for step in going] == steps[steps.index(passes) :]
            assert going[0].resumed
            assert found.results_ == expected.results_
            assert found.passes_ == expected.passes_
            assert found.best_score_ == expected.best_score_
            one, other = found.best_estimator_, expected.best_estimator_
            np.testing.assert_array_equal(one.means_, other.means_)
            np.testing.assert_array_equal(one.covariances_, other.covariances_)
            assert one.lower_bounds_ == other.lower_bounds_
            assert one.checkpoint is None


def test_a_checkpoint_of_another_selection_or_of_a_fit_is_refused(
    rows: np.ndarray, tmp_path: Path
) -> None:
    place, some = tmp_path / "passes", rows[:5000]
    given = {"random_state": 0, "checkpoint": place}
    select(some, [2, 3], **given)
    for counts, kinds, criterion, said in (
        ([2, 4], "full", "bic", r"components is \[2, 4\], was \[2, 3\]"),
        ([2, 3], ["full", "diag"], "bic", "covariance_type"),
        ([2, 3], "full", "aic", "criterion is aic, was bic"),
    ):
        with pytest.raises(CheckpointError, match=said):
            select(some, counts, kinds, criterion, **given)
    with pytest.raises(CheckpointError, match=r"components is 2, was \[2, 3\]"):
        GaussianMixture(2, **given).fit(some)
    select(some, [2, 4], resume=False, **given)
    GaussianMixture(2, resume=False, **given).fit(some)
    with pytest.raises(CheckpointError, match=r"components is \[2, 3\], was 2"):
        select(some, [2, 3], **given)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_candidates_of_another_kind_are_errors(
    data: st.DataObject, rows: np.ndarray, tmp_path: Path
) -> None:
    """Whole files of a checkpoint, with a right checksum, that say something else."""
    place, whole = tmp_path / "passes", tmp_path / "whole"
    right = select(rows[:2000], [1, 2], random_state=0, checkpoint=whole).best_score_
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    newest = max(place.iterdir())
    arrays, header = storage.read(str(newest), FORMAT)
    name = data.draw(st.sampled_from(["candidates", "rounds"]))
    candidates = header["candidates"]
    others = [[], candidates[:1], candidates * 2, candidates[::-1], [[[], 0.0, None, 0]] * 2]
    others.append([[runs, value, 3, 0] for runs, value, *_ in candidates])
    broken = st.sampled_from(others)
    header[name] = data.draw(broken | values)
    newest.unlink()
    storage.create(str(newest), FORMAT, arrays, header)
    with suppress(CheckpointError):
        assert select(rows[:2000], [1, 2], random_state=0, checkpoint=place).best_score_ == right


@pytest.mark.parametrize("to", [0.1, 1.0])
@pytest.mark.parametrize(("kind", "seed"), [("diag", 0), ("full", 1)])
def test_a_component_on_ties_does_not_win(to: float, kind: str, seed: int) -> None:
    """Rows measured to 0.1 or to 1: the likelihood of a component on one value has no bound."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([[2.0, 55.0], [4.3, 80.0]], [100, 170], axis=0)
    rows = np.round((groups + rng.normal(size=groups.shape) * [0.3, 6.0]) / to) * to
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "left out of the choice", DegenerateWarning)
        search = select(rows, range(1, 6), kind, random_state=seed)
    assert search.best_estimator_.fit_info_["singular"] == []
    best = search.results_[search.best_index_]
    assert best["unbounded"] == []
    sound = [each["bic"] for each in search.results_ if not each["unbounded"]]
    assert best["bic"] == min(sound)
    ranks = search.cv_results_["rank_test_score"]
    marked = [bool(each["unbounded"]) for each in search.results_]
    assert ranks[search.best_index_] == 1
    assert all(
        ranks[i] > ranks[j]
        for i, one in enumerate(marked)
        for j, other in enumerate(marked)
        if one and not other
    )


def test_a_start_that_ends_singular_does_not_win_a_fit() -> None:
    """Of several starts, too: one with a component on equal rows is likelier, and not better."""
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 6, np.ones((9, 2))])
    runs = []
    for means in ([[0.0, 0.0], [6.0, 6.0]], [[3.0, 3.0], [1.0, 1.0]]):
        precisions = np.array([np.eye(2), np.eye(2) * (1e4 if means[0][0] else 1.0)])
        model = GaussianMixture(
            2, means_init=means, weights_init=[0.5, 0.5], precisions_init=precisions, tol=1e-9
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            *_, last = model.fit_passes(rows)
        runs += last.best.runs
    sound, singular = runs
    assert singular_components(singular.best, singular.context) == (1,)
    assert best_of([sound, replace(singular, trial=None)]) is sound


@pytest.mark.parametrize("column", ["constant", "copy", "sum"])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_column_that_is_flat_in_all_rows_changes_no_choice(kind: str, column: str) -> None:
    """It makes every component singular, and none more than another: ties are still no reason."""
    rng = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0], [4.0, 2.0]], 300, axis=0)
    rows = np.round(groups + rng.normal(size=groups.shape))
    more = {"constant": np.ones(600), "copy": rows[:, 0], "sum": rows.sum(axis=1)}[column]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateWarning)  # it tells of the column
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain, wider = (
            select(each, range(1, 5), kind, random_state=1).best_params_["n_components"]
            for each in (rows, np.column_stack([rows, more]))
        )
    assert plain == 2
    if kind == "full" or column == "constant":  # to a diagonal one, another column is news
        assert wider == 2


def test_candidates_left_out_that_would_have_won_are_told() -> None:
    """One row far away has a component of its own in them."""
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(size=(300, 2)), rng.normal((8, 4), size=(300, 2)), [[1e6, 0]]])
    with pytest.warns(DegenerateWarning, match="left out of the choice, though their bic is lower"):
        select(rows, range(1, 5), random_state=1)


def test_if_all_are_singular_one_of_them_is_chosen() -> None:
    rows = np.repeat([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0]], 50, axis=0)
    with pytest.warns(DegenerateWarning):
        search = select(rows, [2, 3], random_state=0)
    assert all(each["unbounded"] for each in search.results_)
    assert search.best_index_ in (0, 1)


@pytest.mark.parametrize("seed", [1, 13, 21, 37, 46])
@pytest.mark.filterwarnings("ignore")
def test_somebody_always_stays(seed: int) -> None:
    """A value of rows held out may rise while others are fitted, above one that was dropped."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(3, size=(rng.integers(40, 200), rng.integers(1, 5)))
    search = select(rows, range(1, 6), ["full", "diag"], "heldout", random_state=0)
    assert np.isfinite(search.best_score_)


def test_the_command(rows: np.ndarray, tmp_path: Path) -> None:
    store, model, picture = (tmp_path / name for name in ("x.zarr", "best.dgmm", "best.png"))
    zarr.create_array(str(store), data=rows.astype("float32"), chunks=(5000, 3))
    words = ["select", str(store), "-k", "2..4,6", "--covariance-type", "full,diag,full"]
    words += ["-o", str(model)]
    done = CliRunner().invoke(main, [*words, "--json", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["n_components"] == 6
    assert len(told["candidates"]) == 8
    assert load(model).n_components == 6
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "left, best 6 full" in done.stderr
    again = CliRunner().invoke(main, [*words, "--overwrite"])
    assert again.exit_code == 0, again.output
    assert "dropped" in again.stdout
    robust = [*words, "--overwrite", "--json", "--checkpoint", str(tmp_path / "passes")]
    first, second = (CliRunner().invoke(main, robust) for _ in range(2))
    assert json.loads(first.stdout)["candidates"] == told["candidates"]
    assert json.loads(second.stdout)["candidates"] == told["candidates"]
    assert "continuing after pass" in second.stderr
    kept = CliRunner().invoke(main, [*words[:-1], f"{model}2", "--plot", str(picture)])
    assert (kept.exit_code, f"{picture} exists" in kept.output) == (3, True)
    for name in ("best", "best.pdf"):  # the first would be best.png, which is there
        refused = CliRunner().invoke(main, [*words[:-1], f"{model}2", "--plot", name])
        assert (refused.exit_code, f"{name} must end in .png" in refused.output) == (2, True)
    for bad in ("x", "0..3", "4-8", "²", ""):
        refused = CliRunner().invoke(main, ["select", str(store), "-k", bad, "-o", "m.dgmm"])
        assert refused.exit_code == 2, bad
    down = CliRunner().invoke(main, ["select", str(store), "-k", "1,6..2", "-o", "m.dgmm"])
    assert (down.exit_code, "write 2..6" in down.output) == (2, True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_of_few_rows_one_at_least_is_held_out(seed: int, weighted: bool) -> None:
    """Where none of the rows, or all of them, hash to be held out; zero weights are no rows."""
    for rows in (3, 4, 7):
        x = np.random.default_rng(rows).normal(size=(rows, 1))
        weights = None
        if weighted:
            x = np.concatenate([x, np.full((40, 1), 50.0)])
            weights = np.r_[np.ones(rows), np.zeros(40)]
        search = MixtureSearch(
            GaussianMixture(random_state=seed, reg_covar=0.1), n_components=2, criterion="heldout"
        ).fit(x, sample_weight=weights)
        info = search.best_estimator_.fit_info_
        assert 2 <= info["weight"] <= rows - 1
        assert np.isfinite(search.best_score_)


def test_no_row_is_left_to_hold_out() -> None:
    for x, weights in (
        (np.zeros((2, 1)), None),
        (np.zeros((90, 1)), np.r_[1.0, 1.0, np.zeros(88)]),
    ):
        search = MixtureSearch(n_components=(1, 2), criterion="heldout")
        with pytest.raises(DataError, match=r"n_components = 2 .*: n_samples = 2 .*too few"):
            search.fit(x, sample_weight=weights)


def test_a_search_answers_as_its_best(blobs: np.ndarray) -> None:
    weights = np.random.default_rng(0).uniform(0, 2, len(blobs))
    search = MixtureSearch(GaussianMixture(random_state=0), n_components=(2, 3))
    labels = search.fit_predict(blobs, sample_weight=weights)
    best = search.best_estimator_
    np.testing.assert_array_equal(labels, best.predict(blobs))
    assert search.score(blobs, sample_weight=weights) == best.score(blobs, sample_weight=weights)
    assert search.score(blobs) != search.score(blobs, sample_weight=weights)
    for name in ("bic", "aic"):
        assert getattr(search, name)(blobs, weights) == getattr(best, name)(blobs, weights)
    for ours, theirs in zip(search.sample(9), best.sample(9), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    tags = get_tags(search), get_tags(best)
    assert tags[0].estimator_type == tags[1].estimator_type == "density_estimator"
    assert search.n_features_in_ == 3
    assert MixtureSearch().n_components == tuple(range(1, 11))
    with pytest.raises(UsageError, match="n_components must be one, or a list or tuple"):
        MixtureSearch(n_components=iter([1, 2])).fit(blobs)
    assert select(blobs, iter([1]), random_state=0).best_params_["n_components"] == 1
