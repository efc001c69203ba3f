"""Thresholds of the log-density: as a sort of all rows would find them, on any engine."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import dgmm
from dgmm import engine
from dgmm.cli.commands import main
from dgmm.inference import odd_rows

MODEL = dgmm.GaussianMixture.from_parameters(
    [0.6, 0.4], [[0.0, 0], [5, 5]], [np.eye(2), [[2.0, 1], [1, 3]]]
)


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    return np.asarray(MODEL.mixture_.sample(rows, np.random.default_rng(seed))[0])


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(allow_nan=False)))
def test_keys_sort_as_numbers_do_and_tell_them(values: np.ndarray) -> None:
    keys = odd_rows.keys_of(values)
    assert (np.argsort(keys, kind="stable") == np.argsort(values, kind="stable")).all()
    assert [odd_rows.value_of(int(key)) for key in keys] == values.tolist()


@pytest.mark.parametrize("few", [1 << 17, 0])  # with none to bring home, all bits are counted
@pytest.mark.parametrize("rate", [0.0002, 0.29, 0.5, 0.9999])
def test_it_is_what_a_sort_finds(rate: float, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd_rows, "FEW", few)
    rows = drawn(10_000)
    scores = np.sort(MODEL.score_samples(rows))
    found = MODEL.find_threshold(rows, rate)
    place = round(rate * 10_000)
    assert found.log_density == scores[place]
    assert (found.flagged, found.rows, found.nothing) == (place, 10_000, 0)
    assert (
        MODEL.outliers(rows, rate).tolist() == (MODEL.score_samples(rows) < scores[place]).tolist()
    )


def test_the_same_bits_on_a_cluster(clusters: Mapping[int, Client], tmp_path: Path) -> None:
    rows = drawn(60_000).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(64 << 10)
    here = MODEL.find_threshold(dataset, 0.003)
    assert dataset.blocks > 5
    for workers in (1, 2):
        sweep = engine.over(dataset, clusters[workers])
        assert MODEL.find_threshold(dataset, 0.003, sweep=sweep) == here
    assert here.flagged == 180


def test_ties_flag_fewer_and_never_more() -> None:
    rows = np.repeat([[9.0, -9], [3, 3], [0, 0]], [3, 50, 47], axis=0)
    assert MODEL.find_threshold(rows, 0.03).flagged == 3
    for rate in (0.04, 0.2, 0.5):
        found = MODEL.find_threshold(rows, rate)
        assert found.log_density == MODEL.score_samples([[3.0, 3]])[0]
        assert found.flagged == 3
    assert MODEL.outliers(rows, 0.02).sum() == 0  # three rows tie: no rate below theirs has any


def test_rows_of_which_nothing_was_observed_are_not_counted() -> None:
    model = dgmm.GaussianMixture.from_parameters(
        MODEL.weights_, MODEL.means_, MODEL.covariances_, missing="marginalize"
    )
    rows = drawn(1000)
    rows[::2] = np.nan
    rows[1, 0] = np.nan
    scores = model.score_samples(rows)
    found = model.find_threshold(rows, 0.1)
    assert (found.rows, found.nothing, found.flagged) == (500, 500, 50)
    assert found.log_density == np.sort(scores[1::2])[50]
    assert not model.outliers(rows, 0.1)[::2].any()
    with pytest.raises(dgmm.DataError, match="nothing was observed of any"):
        model.find_threshold(rows[::2], 0.1)
    with pytest.raises(dgmm.DataError, match="missing"):
        MODEL.find_threshold(rows, 0.1)


def test_lazy_rows_have_lazy_flags_and_noise_counts() -> None:
    da = pytest.importorskip("dask.array")
    rows = drawn(4000)
    lazy = MODEL.outliers(da.from_array(rows, chunks=(900, 2)), 0.01)
    assert isinstance(lazy, da.Array)
    assert lazy.dtype == bool
    assert int(lazy.sum().compute()) == 40
    noise = np.full(rows.shape, 0.5)
    found = MODEL.find_threshold(rows, 0.01, noise=noise)
    assert found.log_density == np.sort(MODEL.score_samples(rows, noise=noise))[40]
    assert MODEL.outliers(rows, 0.01, noise=noise).sum() == 40


def test_a_threshold_is_kept_saved_and_dropped_by_another_fit(tmp_path: Path) -> None:
    rows = drawn(500)
    for model in (dgmm.GaussianMixture(2, random_state=0), dgmm.BayesianGaussianMixture(2)):
        model.fit(rows)
        with pytest.raises(dgmm.UsageError, match="keep a threshold"):
            model.outliers(rows)
        assert not hasattr(model, "threshold_")
        found = model.find_threshold(rows, 0.02)
        assert model.keep_threshold(found).threshold_ == found
        path = str(tmp_path / f"{type(model).__name__}.dgmm")
        model.save(path)
        again = dgmm.load(path)
        assert again.threshold_ == found
        assert again.outliers(rows).sum() == 10
        narrow = model.find_threshold(rows, np.float32(0.25))  # type: ignore[arg-type]
        model.keep_threshold(narrow).save(path, overwrite=True)
        assert dgmm.load(path).threshold_ == narrow
        model.partial_fit(rows)
        assert not hasattr(model, "threshold_")
    search = dgmm.select(rows, [1, 2], random_state=0)
    search.keep_threshold(search.find_threshold(rows, 0.02))
    assert search.outliers(rows).sum() == 10
    assert search.best_estimator_.threshold_ == search.threshold_
    assert not hasattr(search.keep_threshold(None), "threshold_")


@pytest.mark.parametrize(
    ("rate", "error", "told"),
    [
        (0.0, dgmm.UsageError, "above 0 and below 1"),
        (1.0, dgmm.UsageError, "above 0 and below 1"),
        (float("nan"), dgmm.UsageError, "above 0 and below 1"),
        ("1%", dgmm.UsageError, "above 0 and below 1.*it is '1%'"),
        (1e-4, dgmm.DataError, "less than one row.*at least 0.01"),
    ],
)
def test_a_rate_that_is_no_share_is_told(rate: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        MODEL.find_threshold(drawn(100), rate)


def test_what_it_does_not_do_is_told() -> None:
    rows = drawn(100)
    weighted = dgmm.open_dataset(rows, np.ones(100))
    with pytest.raises(dgmm.UsageError, match="without weights"):
        MODEL.find_threshold(weighted, 0.1)
    with pytest.raises(dgmm.UsageError, match="needs what find_threshold gives"):
        MODEL.keep_threshold(-3.0)  # type: ignore[arg-type]
    good = dgmm.Threshold(-3.0, 0.1, 1, 10).record()
    for bad in (None, {}, {**good, "rows": "10"}, {**good, "rows": 1.5}, {**good, "more": 1}):
        with pytest.raises(ValueError, match="threshold"):
            dgmm.Threshold.of(bad)


def test_commands_find_keep_and_flag(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    rows = drawn(2000)
    np.save(tmp_path / "rows.npy", rows)
    MODEL.save(tmp_path / "model.dgmm")
    data, model, out = (str(tmp_path / name) for name in ("rows.npy", "model.dgmm", "odd.zarr"))

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, [*words, "--quiet"])
        assert done.exit_code == 0, done.output
        return done.output

    predict = ["predict", data, "-m", model, "-o", out, "--kind", "outliers"]
    asked = CliRunner().invoke(main, predict)
    assert asked.exit_code == 2
    assert "keeps no threshold" in asked.output
    run("threshold", data, "-m", model, "--rate", "0.005", "-o", model, "--overwrite")
    kept = dgmm.load(model).threshold_
    assert kept == MODEL.find_threshold(rows, 0.005)
    told = run(*predict)
    assert "outliers" in told
    assert "10" in told
    flags = zarr.open_array(out, mode="r")[:]
    assert flags.dtype == bool
    assert flags.tolist() == (MODEL.score_samples(rows) < kept.log_density).tolist()
    assert "10 of 2,000 rows were below" in CliRunner().invoke(main, ["show", model]).output
    assert replace(kept, rate=0.005) == kept


def test_why_a_row_is_odd() -> None:
    """Distances by the inverse covariances; deviations by the conditional of each feature."""
    model = dgmm.GaussianMixture.from_parameters(
        MODEL.weights_, MODEL.means_ * 1e3, MODEL.covariances_ * 1e6, missing="marginalize"
    )
    rows = drawn(40) * 1e3
    rows[0, 1], rows[1] = np.nan, np.nan
    distances, deviations = model.distances(rows), model.deviations(rows)
    assert np.isnan(distances[1]).all()
    assert np.isnan(deviations[1]).all()
    assert np.isnan(deviations[0]).tolist() == [False, True]
    for place in range(2, 40):
        away = rows[place] - model.means_
        squares = np.einsum("ki,kij,kj->k", away, model.precisions_, away)
        np.testing.assert_allclose(distances[place], np.sqrt(squares), rtol=1e-9)
        k = model.predict(rows[place : place + 1])[0]
        one = dgmm.GaussianMixture.from_parameters(
            [1.0], model.means_[k : k + 1], model.covariances_[k : k + 1]
        )
        for j in range(2):
            given = one.condition({1 - j: rows[place, 1 - j]})
            z = (rows[place, j] - given.means_[0, 0]) / np.sqrt(given.covariances_[0, 0, 0])
            assert deviations[place, j] == pytest.approx(z, rel=1e-9)
    own = model.marginal([0]).distances(rows[:1, :1])
    np.testing.assert_allclose(distances[0], own[0], rtol=1e-12)
    da = pytest.importorskip("dask.array")
    lazy = model.deviations(da.from_array(rows, chunks=(15, 2)))
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), deviations)
    for ask in (model.distances, model.deviations):
        with pytest.raises(dgmm.UsageError, match="known errors"):
            ask(dgmm.open_dataset(rows[2:], noise=np.ones((38, 2))))
