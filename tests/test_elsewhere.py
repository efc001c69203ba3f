"""Starts that the workers of a cluster look for side by side: the same as found one by one here."""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client

from dgmm import GaussianMixture, MixtureSearch, engine
from dgmm.data.opening import open_dataset
from dgmm.em.sample import Sample
from dgmm.em.starts import Search
from dgmm.engine.cluster import Cluster

ROWS, DIMS = 30_000, 3
SIZES = (3, 6, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows from five normal distributions."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("elsewhere") / "rows.zarr"
    centres = rng.normal(size=(5, DIMS)) * 6
    noise = rng.normal(size=(ROWS, DIMS))
    zarr.save_array(path, centres[rng.integers(5, size=ROWS)] + noise)
    return path


def refuse(search: Search, *where: Any) -> None:
    raise AssertionError("this process was to look for no start")


def search() -> MixtureSearch:
    return MixtureSearch(GaussianMixture(random_state=0), n_components=SIZES)


def test_a_search_has_the_bits_that_it_has_without_a_cluster(
    store: Path, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = search().fit(str(store))
    monkeypatch.setattr(Search, "found", refuse)  # in this process: workers have their own
    with pytest.raises(AssertionError, match="no start"):
        search().fit(str(store))
    with clusters[2].as_current():
        there = search().fit(str(store))
    for name in ("weights_", "means_", "covariances_"):
        own = getattr(there.best_estimator_, name)
        assert np.array_equal(own, getattr(here.best_estimator_, name)), name


def test_other_starts_of_a_fit_have_the_same_bits(
    store: Path, clusters: Mapping[int, Client]
) -> None:
    model = GaussianMixture(5, n_init=3, random_state=0)
    here = model.fit(str(store))
    with clusters[2].as_current():
        there = GaussianMixture(**model.get_params()).fit(str(store))
    assert here.fit_info_["starts"] == there.fit_info_["starts"] > 1
    assert np.array_equal(here.means_, there.means_)
    assert np.array_equal(here.lower_bounds_, there.lower_bounds_)
    assert there.fit_info_["starts_seconds"] > 0


def test_room_that_workers_lack_is_taken_here(
    store: Path, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Search, "found", refuse)
    monkeypatch.setattr(Search, "nbytes", lambda self, *size: 1 << 60)
    with (
        clusters[2].as_current(),
        pytest.raises(AssertionError, match="no start"),
    ):
        search().fit(str(store))


def twice(item: int, given: int) -> tuple[int, float]:
    return item * given, time.monotonic()


def test_results_come_in_the_order_of_the_items(clusters: Mapping[int, Client]) -> None:
    dataset = open_dataset(np.zeros((4, 1)))
    with closing(engine.over(dataset)) as threads:
        assert engine.elsewhere(threads, 1) is None
    with closing(Cluster(dataset, clusters[2], engine.Meter())) as cluster:
        workers = engine.elsewhere(cluster, 1)
        assert workers is not None
        assert [value for value, _ in workers(twice, 3, range(23))] == list(range(0, 69, 3))


@pytest.mark.parametrize("even", [True, False])
def test_the_head_of_a_sample_has_the_same_first_rows(even: bool) -> None:
    rng = np.random.default_rng(0)
    weights = np.ones(50) if even else rng.uniform(0.1, 5, size=50)
    keys, rows = rng.exponential(size=50) / weights, rng.normal(size=(50, 2))
    whole = Sample(50, keys, np.arange(50), rows, weights)
    for size in (1, 7, 20):
        expected, first = whole.first(size), whole.head(20).first(size)
        assert np.array_equal(first.numbers, expected.numbers)
        assert np.array_equal(first.weights, expected.weights)
    assert np.array_equal(whole.head(60).first(55).weights, weights)
