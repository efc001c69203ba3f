"""Many mixtures in the sweeps of one fit: the choice is that of separate fits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from scipy.special import logsumexp
from sklearn.base import clone
from test_strategies import overlapping

from dgmm import GaussianMixture, MixtureSearch, UsageError, load, select
from dgmm.cli import main
from dgmm.covariance import STRUCTURES
from dgmm.selection import HELD
from dgmm.survey import uniform

COUNTS = range(3, 9)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return overlapping(40_000)


def log_joint(model: GaussianMixture, rows: np.ndarray) -> np.ndarray:
    """log pi_k + log N(x | k), (N, K), obviously."""
    mixture = model.mixture_
    dense = mixture.structure.dense(mixture.covariances, mixture.components, mixture.dims)
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


@pytest.mark.parametrize("criterion", ["bic", "aic", "icl"])
def test_chooses_what_separate_fits_choose(criterion: str, rows: np.ndarray) -> None:
    search = select(rows, COUNTS, ["full", "diag"], criterion, random_state=0)
    values = {}
    for kind in ("full", "diag"):
        for count in COUNTS:
            alone = GaussianMixture(count, covariance_type=kind, random_state=0).fit(rows)
            values[count, kind] = criterion_of(criterion, alone, rows)
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


@pytest.mark.parametrize("kinds", [list(STRUCTURES), "spherical"])
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
        ({"estimator": GaussianMixture(checkpoint="passes")}, "checkpoint='passes': leave it out"),
    ],
)
def test_bad_questions(wrong: dict[str, Any], said: str, rows: np.ndarray) -> None:
    with pytest.raises(UsageError, match=said):
        MixtureSearch(**wrong).fit(rows)


def test_the_command(rows: np.ndarray, tmp_path: Path) -> None:
    store, model, picture = (tmp_path / name for name in ("x.zarr", "best.dgmm", "best.png"))
    zarr.create_array(str(store), data=rows.astype("float32"), chunks=(5000, 3))
    words = ["select", str(store), "-k", "2..4,6", "--covariance", "full,diag", "-o", str(model)]
    done = CliRunner().invoke(main, [*words, "--json", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["components"] == 6
    assert len(told["candidates"]) == 8
    assert load(model).n_components == 6
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "candidates left" in done.stderr
    again = CliRunner().invoke(main, [*words, "--overwrite"])
    assert again.exit_code == 0, again.output
    assert "left after" in again.stdout
    for bad in ("x", "0..3", "4-8", ""):
        refused = CliRunner().invoke(main, ["select", str(store), "-k", bad, "-o", "m.dgmm"])
        assert refused.exit_code == 2, bad
