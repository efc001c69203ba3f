"""Processes forked from one that has fitted: without its threads they work all the same."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import joblib
import numpy as np
import pytest
import zarr
from conftest import Clusters
from distributed import Client
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

import dgmm
from dgmm import ClusterError, GaussianMixture
from dgmm.engine.blas import one_blas_thread

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that forks is needed"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

SECONDS = 60
"""A child that has not ended after so long hangs."""


def in_a_child(work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a process forked here."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        try:
            writer.send((True, work()))
        except BaseException as error:
            writer.send((False, f"{type(error).__name__}: {error}"))
        finally:
            os._exit(0)
    try:
        assert reader.poll(SECONDS), "the child hangs"
        worked, answer = reader.recv()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert worked, answer
    return answer


def all_of(data: Any) -> tuple[bytes, ...]:
    """What a fit to ``data`` finds and answers, to the last bit."""
    model = GaussianMixture(3, random_state=0).fit(data)
    labels = np.asarray(model.predict(data))
    found = (model.means_, model.covariances_, model.lower_bound_, labels, model.score(data))
    return tuple(np.asarray(each).tobytes() for each in found)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows (3000, 3) of three groups."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(3000, 3)) + 6 * rng.integers(0, 3, size=(3000, 1))


@pytest.fixture(scope="module")
def store(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forks") / "rows.zarr"
    zarr.create_array(str(path), data=rows, chunks=(500, 3))
    return path


KINDS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "numpy": lambda rows, place: rows,
    "npy": lambda rows, place: place / "rows.npy",
    "zarr": lambda rows, place: place / "rows.zarr",
    "opened": lambda rows, place: zarr.open_array(place / "rows.zarr", mode="r"),
    "dataset": lambda rows, place: dgmm.open_dataset(place / "rows.zarr"),
    "dask": lambda rows, place: da.from_array(rows, chunks=(700, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_fits_and_predicts(kind: str, rows: np.ndarray, store: Path) -> None:
    np.save(store.parent / "rows.npy", rows)
    data = KINDS[kind](rows, store.parent)
    expected = all_of(data)
    assert in_a_child(lambda: all_of(data)) == expected
    assert in_a_child(lambda: in_a_child(lambda: all_of(data))) == expected


def test_a_model_of_the_parent_answers_in_a_child(rows: np.ndarray, store: Path) -> None:
    model = GaussianMixture(3, random_state=0).fit(rows)
    lazy, expected = model.predict_proba(store), model.predict_proba(rows)
    np.testing.assert_allclose(lazy, expected)
    np.testing.assert_array_equal(in_a_child(lambda: model.predict_proba(rows)), expected)
    np.testing.assert_allclose(in_a_child(lambda: np.asarray(lazy)), expected)


def test_a_pool_of_forked_processes(rows: np.ndarray) -> None:
    expected = all_of(rows)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(all_of, [rows] * 3).get(SECONDS) == [expected] * 3


def test_joblib_with_forked_processes(rows: np.ndarray) -> None:
    expected = all_of(rows)
    with joblib.Parallel(2, backend="multiprocessing", timeout=SECONDS) as parallel:
        assert parallel(joblib.delayed(all_of)(rows) for _ in range(3)) == [expected] * 3


@pytest.mark.parametrize("init", ["kmeans", "auto"])
def test_a_child_of_one_whose_openmp_has_threads(rows: np.ndarray, init: str) -> None:
    """Those of scikit-learn's k-means, which its child would wait for."""
    model = GaussianMixture(3, init_params=init, random_state=0)
    with threadpool_limits(2):
        KMeans(3, n_init=1, random_state=0).fit(np.tile(rows, (20, 1)))
        expected = model.fit(rows).means_
        np.testing.assert_array_equal(in_a_child(lambda: model.fit(rows).means_), expected)


def test_a_fit_goes_on_in_a_child(store: Path) -> None:
    expected = GaussianMixture(3, random_state=0).fit(store)
    model = GaussianMixture(3, random_state=0)
    passes = model.fit_passes(store)
    next(passes)
    found = in_a_child(lambda: (list(passes), model.means_)[1])
    np.testing.assert_array_equal(found, expected.means_)
    list(passes)
    np.testing.assert_array_equal(model.means_, expected.means_)


@pytest.fixture
def busy(store: Path) -> Iterator[None]:
    """Other threads of this process fit, over and over."""
    enough = threading.Event()

    def fit() -> None:
        while not enough.is_set():
            GaussianMixture(3, random_state=0).fit(store)

    threads = [threading.Thread(target=fit) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    enough.set()
    for thread in threads:
        thread.join()


def test_children_forked_in_the_midst_of_fits(busy: None, rows: np.ndarray, store: Path) -> None:
    expected = all_of(store)
    for _ in range(3):
        assert in_a_child(lambda: all_of(store)) == expected


def blas_threads() -> list[int]:
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_a_child_has_its_parents_threads_for_matrix_products() -> None:
    """As many as if nobody had been fitting as it was forked; and later none too few."""

    def inside_and_after() -> tuple[list[int], list[int], list[int]]:
        begun = blas_threads()
        with one_blas_thread():
            inside = blas_threads()
        return begun, inside, blas_threads()

    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with one_blas_thread():
            entered.set()
            leave.wait(SECONDS)

    free, thread = blas_threads(), threading.Thread(target=stay)
    thread.start()
    entered.wait(SECONDS)
    assert set(blas_threads()) == {1}
    found = in_a_child(inside_and_after)
    leave.set()
    thread.join()
    assert found == (free, [1] * len(free), free)
    assert blas_threads() == free


def test_the_clients_of_a_parent_stay_with_it(store: Path, clusters: Clusters) -> None:
    """A child sweeps with its own threads, or is told that the Client it was given is none."""
    expected = all_of(store)
    address = clusters[1].scheduler.address

    def of_the_child(given: Client) -> tuple[Any, ...]:
        model = GaussianMixture(3, random_state=0)
        with pytest.raises(ClusterError, match="forked"):
            list(model.fit_passes(store, client=given))
        with pytest.raises(ClusterError, match="forked"):
            model.plan(store, client=given)
        own = all_of(store)
        with Client(address):
            again = all_of(store)
        return own, again

    with Client(address) as client:
        assert all_of(store) == expected
        assert in_a_child(lambda: of_the_child(client)) == (expected, expected)
        assert all_of(store) == expected
