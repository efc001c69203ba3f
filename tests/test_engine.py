"""The engine's contract, sentence by sentence: threads of this process, and real clusters."""

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from conftest import QUIET
from distributed import Client, LocalCluster, get_client, get_worker, worker_client
from threadpoolctl import threadpool_info, threadpool_limits

import dgmm
from dgmm import BlockError, ClusterError, Dataset, GaussianMixture, engine, open_dataset
from dgmm.engine import cache
from dgmm.engine.cuts import cut_for
from dgmm.engine.threads import Threads
from dgmm.engine.workers import connect
from dgmm.kernels.sweep import Block

CHUNK = 50
BLOCKS = 29


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows (N, 3) of 29 blocks, the last one shorter, from three normal distributions."""
    rng = np.random.default_rng(5)
    count = CHUNK * BLOCKS - 13
    centres = np.array([[0.0, 0, 0], [4, 1, -2], [1, 5, 3]])
    return centres[rng.integers(3, size=count)] + rng.normal(size=(count, 3))


@pytest.fixture(scope="module")
def weights(rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng(6).uniform(0.0, 3.0, size=len(rows))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, weights: np.ndarray) -> Path:
    """A Zarr group of the rows and the weights, in chunks that make a block each."""
    path = tmp_path_factory.mktemp("engine") / "store.zarr"
    group = zarr.open_group(str(path), mode="w")
    for name, array in (("rows", rows), ("weights", weights)):
        chunks = (CHUNK, *array.shape[1:])
        group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)[:] = array
    return path


def stored(store: Path, weighted: bool = False) -> Dataset:
    """The stored rows, a chunk a block."""
    return open_dataset(store / "rows", store / "weights" if weighted else None, block_bytes=1)


def bits(model: GaussianMixture) -> dict[str, bytes]:
    """All that a fit found, to the last bit."""
    return {
        name: np.asarray(getattr(model, name)).tobytes()
        for name in ("weights_", "means_", "covariances_", "lower_bounds_", "lower_bound_")
    }


def fitted(data: Any, client: Client | None = None, **options: Any) -> GaussianMixture:
    """A model fitted to ``data`` on ``client``, or on threads of this process."""
    options = {"n_components": 3, "random_state": 0, "tol": 0.01, **options}
    model = GaussianMixture(**options)
    for _ in model.fit_passes(data, client=client):
        pass
    assert model.fit_info_["engine"] == ("threads" if client is None else "distributed")
    return model


# Values to sweep for: what can be seen inside of tasks.


@dataclass(frozen=True)
class Seen:
    """A set that merges by union."""

    values: frozenset[Any]

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.values | other.values)


def see(*values: Any) -> Seen:
    return Seen(frozenset(values))


def see_rows(block: Block, given: Any) -> Seen:
    return see((block.start, block.start + len(block.rows)))


def see_process(block: Block, given: Any) -> Seen:
    return see(os.getpid())


def see_task(block: Block, given: Any) -> Seen:
    return see((get_worker().get_current_task(), block.start))


def blas_threads() -> set[int]:
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def see_blas(block: Block, seconds: float) -> Seen:
    time.sleep(seconds)
    return see(*blas_threads())


def sum_rows(block: Block, given: float) -> np.float64:
    return np.float64(given * block.rows.astype(np.float64).sum())


def all_spans(dataset: Dataset) -> set[tuple[int, int]]:
    return {dataset.row_range(index) for index in range(dataset.blocks)}


# Blocks kept between sweeps.


def test_blocks_that_are_kept_are_not_read_again(store: Path, tmp_path: Path) -> None:
    """The store can go away after the first pass."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    model = GaussianMixture(3, random_state=0, tol=0.01)
    passes = model.fit_passes(stored(copy))
    next(passes)
    shutil.rmtree(copy)
    list(passes)
    assert model.fit_info_["cached"] == 1.0
    assert bits(model) == bits(fitted(stored(store)))


def blocks_kept() -> list[int]:
    return [len(each._blocks) for each in cache.caches._by_token.values()]


@contextmanager
def each_its_own(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No worker does the work of another, whose blocks it would have no room for."""

    async def set_stealing(dask_scheduler: Any, to: str) -> None:
        await getattr(dask_scheduler.extensions["stealing"], to)()

    with monkeypatch.context() as context:
        context.setattr("dgmm.engine.runs.AT_LEAST", math.inf)
        client.run_on_scheduler(set_stealing, to="stop")
        try:
            yield
        finally:
            client.run_on_scheduler(set_stealing, to="start")


def test_workers_keep_blocks_as_long_as_the_fit_lasts(
    store: Path, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, dataset = clusters[2], stored(store)
    model = GaussianMixture(3, random_state=0, tol=0.01, cache="1MiB")
    before = [0, 0]
    with each_its_own(client, monkeypatch):
        for _ in model.fit_passes(dataset, client=client):
            counts = client.run(blocks_kept).values()
            kept = [sum(each) for each in counts]
            assert sum(kept) >= dataset.blocks
            assert all(now >= then for now, then in zip(kept, before, strict=True))
            assert all(counts)
            before = kept
    assert not any(client.run(blocks_kept).values())


def test_what_a_dead_driver_kept_makes_room_for_the_next(
    store: Path, clusters: Mapping[int, Client]
) -> None:
    """Killed, it could not let go; planned as a worker's own, its blocks might leave no room."""
    client, dataset = clusters[2], stored(store)
    gone = Client(client.scheduler.address, set_as_default=False)
    abandoned = GaussianMixture(3, random_state=0).fit_passes(dataset, client=gone)
    next(abandoned)
    gone.close()
    kept = client.run(blocks_kept)
    assert any(map(sum, kept.values()))
    GaussianMixture(3).plan(dataset, client=client)  # is a question: it lets go of nothing
    assert client.run(blocks_kept) == kept
    passes = GaussianMixture(3, random_state=0).fit_passes(dataset, client=client)
    next(passes)
    counts = client.run(blocks_kept).values()
    assert all(len(each) == 1 for each in counts)
    assert sum(map(sum, counts)) >= dataset.blocks
    passes.close()


def test_no_more_is_kept_than_fits(store: Path) -> None:
    dataset = stored(store)
    size = dataset.block(0).nbytes
    kept = cache.Cache(3 * size + 1)
    sweep = Threads(dataset, 2, cache=kept)
    for _ in range(2):
        sweep(see_rows, None)
    assert kept.room == 1
    sweep.close()
    assert not kept._blocks
    assert sweep(see_rows, None).values == all_spans(dataset)
    assert not kept._blocks


# Same blocks, same bits.

FITS: dict[str, dict[str, Any]] = {
    "full": {},
    "diag": {"covariance_type": "diag"},
    "weighted": {"weighted": True},
    "weighted tied": {"weighted": True, "covariance_type": "tied"},
    "three starts": {"n_init": 3, "init_params": "k-means++"},
    "double": {"precision": "float64"},
    "nothing kept": {"cache": "none"},
    "some kept": {"cache": 10_000},
}


@pytest.mark.parametrize("case", FITS)
def test_the_same_blocks_give_the_same_bits(
    store: Path, clusters: Mapping[int, Client], case: str
) -> None:
    options = dict(FITS[case])
    dataset = stored(store, options.pop("weighted", False))
    assert dataset.blocks == BLOCKS

    one_thread = bits(fitted(dataset, n_jobs=1, **options))

    assert bits(fitted(dataset, n_jobs=2, **options)) == one_thread
    for client in clusters.values():
        assert bits(fitted(dataset, client, **options)) == one_thread


def test_other_blocks_may_give_other_bits(store: Path) -> None:
    # Else the comparisons above would compare nothing.
    assert bits(fitted(stored(store))) != bits(fitted(store / "rows"))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 16, 17, 31, 32, 33])
def test_every_number_of_blocks_is_swept_once_with_the_same_bits(
    tmp_path: Path, rows: np.ndarray, clusters: Mapping[int, Client], blocks: int
) -> None:
    np.save(tmp_path / "rows.npy", rows[: 10 * blocks])
    dataset = open_dataset(tmp_path / "rows.npy", block_bytes=240)
    assert dataset.blocks == blocks
    expected = Threads(dataset, 1)(sum_rows, 0.1)

    sweeps = [
        engine.over(dataset, threads=3),
        *(engine.over(dataset, clusters[workers]) for workers in (2, 3)),
    ]

    for sweep in sweeps:
        assert sweep(see_rows, None).values == all_spans(dataset)
        assert sweep(sum_rows, 0.1).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("task_blocks", "fan_in"), [(1, 2), (1, 64), (2, 4), (4, 2), (64, 8)])
def test_the_length_of_tasks_and_sums_changes_no_bit(
    store: Path,
    clusters: Mapping[int, Client],
    monkeypatch: pytest.MonkeyPatch,
    task_blocks: int,
    fan_in: int,
) -> None:
    dataset = stored(store)
    expected = bits(fitted(dataset, n_jobs=1, max_iter=3, tol=1.0))
    monkeypatch.setattr("dgmm.engine.runs.FAN_IN", fan_in)
    monkeypatch.setattr("dgmm.engine.cuts.TASK_BYTES", task_blocks * CHUNK * 24)

    length = 1 << cut_for(dataset, 1).long
    found = bits(fitted(dataset, clusters[2], max_iter=3, tol=1.0))

    assert length == min(task_blocks, 4)  # four tasks a thread, where there are so many blocks
    assert found == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: da.from_array(rows, chunks=(CHUNK, 3)),
        lambda rows: da.from_array(rows, chunks=(171, 2)),
        lambda rows: da.from_array(rows, chunks=(400, 3)).map_blocks(np.flipud)[::-1],
        lambda rows: da.from_array(rows, chunks=(400, 3))[
            da.from_array(rows, chunks=400)[:, 0] > -1
        ],
        lambda rows: da.concatenate([da.from_array(part) for part in (rows[:9], rows[:0], rows)]),
    ],
    ids=["chunks", "column-chunks", "computed", "filtered", "empty-chunk"],
)
def test_a_dask_array_gives_the_same_bits_through_its_graph(
    rows: np.ndarray,
    clusters: Mapping[int, Client],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[np.ndarray], da.Array],
) -> None:
    given = make(rows)
    expected = bits(fitted(given, n_jobs=1))

    assert bits(fitted(given, n_jobs=2)) == expected
    assert bits(fitted(given, clusters[3])) == expected
    monkeypatch.setattr("dgmm.engine.cluster.FAN_IN", 2)
    assert bits(fitted(given, clusters[1])) == expected


@pytest.mark.parametrize("lazy", ["rows", "weights", "both"])
def test_lazy_rows_and_weights_go_with_stored_ones(
    store: Path, clusters: Mapping[int, Client], lazy: str
) -> None:
    def source(name: str) -> Any:
        path = store / name
        return da.from_zarr(str(path)) if lazy in (name, "both") else path

    dataset = open_dataset(source("rows"), source("weights"), block_bytes=1)
    assert dataset.lazy

    found = bits(fitted(dataset, clusters[2]))

    assert found == bits(fitted(stored(store, weighted=True), n_jobs=1))


# Tasks are fat, and read where they compute.


def test_many_small_blocks_are_swept_in_few_tasks(
    tmp_path: Path, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgmm.engine.runs.AT_LEAST", math.inf)  # else a slow machine gets help
    array = zarr.create_array(
        str(tmp_path / "rows.zarr"), shape=(6000, 1), chunks=(2, 1), dtype="f4", compressors=None
    )
    array[:] = np.random.default_rng(0).normal(size=(6000, 1)).astype("f4")
    dataset = open_dataset(str(tmp_path / "rows.zarr"), block_bytes=1)
    assert dataset.blocks == 3000

    seen = engine.over(dataset, clusters[2])(see_task, None).values

    assert sorted(start for _, start in seen) == list(range(0, 6000, 2))
    tasks = {task for task, _ in seen}
    assert cut_for(dataset, 2).long == 8
    assert len(tasks) == 10 + 4 + 3  # the last one of each thread is cut in four


def test_a_task_reads_no_more_than_it_should(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = stored(store)
    for blocks in (1, 2, 3, 4, 5, 7):
        monkeypatch.setattr("dgmm.engine.cuts.TASK_BYTES", blocks * CHUNK * 24 + 5)
        length = 1 << cut_for(dataset, 1).long
        assert length == 1 << (blocks.bit_length() - 1)
        assert length * CHUNK * 24 <= dgmm.engine.cuts.TASK_BYTES


def test_tasks_run_in_the_workers_on_all_of_them(
    store: Path, clusters: Mapping[int, Client]
) -> None:
    def slowly_see_process(block: Block, given: Any) -> Seen:
        time.sleep(0.02)
        return see_process(block, given)

    for workers, client in clusters.items():
        pids = set(client.run(os.getpid).values())
        assert len(pids) == workers
        seen, ends = set[int](), time.monotonic() + 60
        while seen != pids:  # of one that is late for a sweep, others may take all tasks
            assert time.monotonic() < ends
            seen |= engine.over(stored(store), client)(slowly_see_process, None).values
            assert seen <= pids


ARRIVED: list[int] = []


@dataclass(frozen=True)
class Parcel:
    """A sum that notes when it is unpacked in a process, which ``given`` must not be."""

    value: int

    def __add__(self, other: "Parcel") -> "Parcel":
        return Parcel(self.value + other.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, (self.value,)


def unpack(value: int) -> Parcel:
    ARRIVED.append(value)
    return Parcel(value)


def count_rows(block: Block, given: Any) -> Parcel:
    return Parcel(len(block.rows))


@pytest.mark.parametrize("lazy", [False, True])
def test_only_the_final_sum_comes_back(
    store: Path, rows: np.ndarray, clusters: Mapping[int, Client], lazy: bool
) -> None:
    dataset = open_dataset(da.from_array(rows, chunks=(CHUNK, 3))) if lazy else stored(store)
    ARRIVED.clear()

    total = engine.over(dataset, clusters[2])(count_rows, None)

    assert total.value == len(rows)
    assert [len(rows)] == ARRIVED


def keys_on(client: Client) -> list[str]:
    return client.run_on_scheduler(lambda dask_scheduler: [str(k) for k in dask_scheduler.tasks])


def none_left(client: Client) -> bool:
    """Whether the scheduler soon holds no key; keys are released some time after their futures."""
    deadline = time.monotonic() + 10
    while keys_on(client) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not keys_on(client)


@pytest.mark.parametrize("lazy", [False, True])
def test_nothing_stays_on_the_cluster(
    store: Path, rows: np.ndarray, clusters: Mapping[int, Client], lazy: bool
) -> None:
    dataset = open_dataset(da.from_array(rows, chunks=(CHUNK, 3))) if lazy else stored(store)
    client = clusters[2]
    assert none_left(client)

    engine.over(dataset, client)(count_rows, None)
    assert none_left(client)
    fitted(dataset, client, max_iter=3, tol=1.0)
    assert none_left(client)
    with pytest.raises(BlockError):
        engine.over(dataset, client)(fail_at, 25 * CHUNK)
    assert none_left(client)


# A fit within a task of the cluster that it uses.


WAYS: dict[str, Callable[[], Any]] = {
    "nothing": nullcontext,
    "get_client": lambda: nullcontext(get_client()),
    "worker_client": worker_client,
}


def fit_in_a_task(data: Any, way: str) -> tuple[str, dict[str, bytes]]:
    """What a fit finds in a task, and where it was swept."""
    model = GaussianMixture(3, random_state=0, tol=0.01)
    with WAYS[way]():
        model.fit(data() if callable(data) else data)
        scored = model.score(data() if callable(data) else data)
    return model.fit_info_["engine"], {**bits(model), "score": np.float64(scored).tobytes()}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Client]:
    """A cluster of one worker with one thread, for tasks that leave Clients in it."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("way", "lazy"),
    [("nothing", False), ("nothing", True), ("get_client", True), ("worker_client", False)],
)
def test_a_fit_in_a_task_ends(store: Path, narrow: Client, way: str, lazy: bool) -> None:
    """It waits for tasks that have no other place than its own."""

    def array() -> da.Array:
        rows = da.from_zarr(str(store / "rows"))
        return rows[rows[:, 0] > -1]  # of chunks to be counted first

    data = array if lazy else store / "rows"
    _, expected = fit_in_a_task(data, "nothing")
    tasks = [narrow.submit(fit_in_a_task, data, way, pure=False) for _ in range(2)]
    for where, found in narrow.gather(tasks):
        assert found == expected
        assert where == "distributed" or way == "nothing"
    # Whoever stood aside has come back, and gone: tasks still run one at a time.
    assert set(narrow.gather(narrow.map(running_beside, [0.05] * 4, pure=False))) == {1}


RUNNING: list[int] = []


def running_beside(seconds: float) -> int:
    """How many tasks such as this a worker runs at a time."""
    RUNNING.append(0)
    time.sleep(seconds)
    together = len(RUNNING)
    RUNNING.pop()
    return together


# A failure names the block and keeps its cause.


def fail_at(block: Block, start: int) -> Parcel:
    if block.start == start:
        raise KeyError("a flaw")
    return count_rows(block, None)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("index", [0, 25, BLOCKS - 1])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_failure_names_the_block(
    store: Path,
    rows: np.ndarray,
    clusters: Mapping[int, Client],
    workers: int,
    index: int,
    lazy: bool,
) -> None:
    dataset = open_dataset(da.from_array(rows, chunks=(CHUNK, 3))) if lazy else stored(store)
    sweep = engine.over(dataset, clusters.get(workers), threads=2)
    start, stop = dataset.row_range(index)

    with pytest.raises(BlockError) as caught:
        sweep(fail_at, start)

    assert f"rows {start} to {stop} (block {index}) of {dataset.source.name}" in str(caught.value)
    assert "KeyError: 'a flaw'" in str(caught.value)
    if not workers:  # what crosses between processes loses it
        assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_source_that_fails_names_the_block_on_a_cluster(
    tmp_path: Path, rows: np.ndarray, clusters: Mapping[int, Client], lazy: bool
) -> None:
    path = tmp_path / "rows.zarr"
    zarr.create_array(str(path), data=rows, chunks=(CHUNK, 3))
    os.truncate(path / "c" / "7" / "0", 20)
    dataset = open_dataset(da.from_zarr(str(path)) if lazy else path, block_bytes=1)

    for sweep in (engine.over(dataset, threads=2), engine.over(dataset, clusters[2])):
        with pytest.raises(BlockError) as caught:
            sweep(count_rows, None)
        assert dataset.source.name in str(caught.value)
        if not lazy:  # a graph fails in a task of its own, which knows no rows
            assert f"rows 350 to 400 (block 7) of {dataset.source.name}" in str(caught.value)


def test_threads_stop_soon_after_a_failure(rows: np.ndarray) -> None:
    done: list[int] = []

    def note(block: Block, given: Any) -> Parcel:
        done.append(block.start)
        time.sleep(0.05)  # many times what it takes to notice, on a busy machine, too
        return fail_at(block, 0)

    with pytest.raises(BlockError, match="rows 0 to 1 "):
        engine.over(open_dataset(rows[:1000], block_bytes=1), threads=2)(note, None)

    assert len(done) < 20


# Retries are harmless, and a lost worker costs at most its tasks.


def fail_once(block: Block, marker: str) -> np.float64:
    if block.start == 25 * CHUNK and not os.path.exists(marker):
        Path(marker).touch()
        raise OSError("the network is away for a moment")
    return sum_rows(block, 0.1)


def die_once(block: Block, marker: str) -> np.float64:
    if block.start == 25 * CHUNK and not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sum_rows(block, 0.1)


def die(block: Block, start: int) -> np.float64:
    if block.start == start:
        os._exit(1)
    return sum_rows(block, 0.1)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_task_that_fails_once_is_tried_again(
    tmp_path: Path, store: Path, rows: np.ndarray, clusters: Mapping[int, Client], lazy: bool
) -> None:
    dataset = open_dataset(da.from_array(rows, chunks=(CHUNK, 3))) if lazy else stored(store)
    marker = tmp_path / "failed"

    found = engine.over(dataset, clusters[2])(fail_once, str(marker))

    assert marker.exists()
    assert found.tobytes() == engine.over(dataset)(sum_rows, 0.1).tobytes()


@pytest.fixture(scope="module")
def mortal() -> Iterator[Client]:
    """A cluster of two workers to be killed, each watched by a nanny that starts another."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_a_worker_killed_in_a_task_changes_no_bit(
    tmp_path: Path, store: Path, mortal: Client
) -> None:
    found = engine.over(stored(store), mortal)(die_once, str(tmp_path / "died"))

    assert (tmp_path / "died").exists()
    assert found.tobytes() == engine.over(stored(store))(sum_rows, 0.1).tobytes()


def test_a_worker_killed_during_a_fit_changes_no_bit(store: Path, mortal: Client) -> None:
    dataset = stored(store)
    expected = bits(fitted(dataset, n_jobs=1))
    mortal.wait_for_workers(2, timeout=60)
    pids = mortal.run(os.getpid)
    killed: list[str] = []

    def kill() -> None:
        """Kill the first worker that has tasks."""
        while not killed:
            busy = [worker for worker, keys in mortal.processing().items() if keys]
            killed.extend(busy[:1])
        os.kill(pids[killed[0]], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    for _ in range(20):
        done = bool(killed)
        assert bits(fitted(dataset, mortal)) == expected
        if done:
            break
    killer.join(10)

    assert killed


def test_a_worker_lost_after_the_last_pass_costs_nothing(store: Path, mortal: Client) -> None:
    """Though it can't be told to let go of the blocks that it kept."""
    dataset = stored(store)
    mortal.wait_for_workers(2, timeout=60)
    pids = mortal.run(os.getpid)
    model = GaussianMixture(3, random_state=0, tol=0.01)
    passes = model.fit_passes(dataset, client=mortal)
    for progress in passes:
        if progress.candidates and progress.run.converged:
            os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert bits(model) == bits(fitted(dataset))


def test_a_block_that_kills_its_workers_is_named(store: Path, mortal: Client) -> None:
    dataset = stored(store)
    start, stop = dataset.row_range(25)
    mortal.wait_for_workers(2, timeout=60)
    mortal.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))

    with pytest.raises(BlockError) as caught:
        engine.over(dataset, mortal)(die, start)

    blamed = re.findall(r"rows (\d+) to (\d+)", str(caught.value))
    assert any(int(first) <= start < stop <= int(last) for first, last in blamed)
    assert dataset.source.name in str(caught.value)


# BLAS runs one thread per worker thread.


def test_blas_runs_one_thread_in_threads(store: Path) -> None:
    dataset = stored(store)
    with threadpool_limits(2):
        assert blas_threads() == {2}  # else there would be nothing to see
        assert engine.over(dataset, threads=3)(see_blas, 0.001).values == {1}
        assert blas_threads() == {2}
        with pytest.raises(BlockError):
            engine.over(dataset, threads=3)(fail_at, 0)
        assert blas_threads() == {2}


@contextmanager
def two_blas_threads() -> Iterator[None]:
    """Let BLAS use two threads, from a thread that ends: while it lives no other could set it."""

    def limit(threads: int) -> None:
        thread = threading.Thread(target=threadpool_limits, args=(threads,))
        thread.start()
        thread.join()

    (before,) = blas_threads()
    limit(2)
    try:
        assert blas_threads() == {2}
        yield
        assert blas_threads() == {2}
    finally:
        limit(before)


def test_blas_runs_one_thread_until_the_last_of_several_sweeps_is_done(store: Path) -> None:
    seen: dict[float, frozenset[Any]] = {}

    def sweep(seconds: float) -> None:
        seen[seconds] = engine.over(stored(store), threads=2)(see_blas, seconds).values

    with two_blas_threads():
        for order in (1, -1):  # the first to begin is the first to end, or the last
            sweeps = [
                threading.Thread(target=sweep, args=(seconds,))
                for seconds in (0.002, 0.005, 0.01)[::order]
            ]
            for thread in sweeps:
                thread.start()
                time.sleep(0.005)
            for thread in sweeps:
                thread.join()
            assert set(seen.values()) == {frozenset({1})}
            assert blas_threads() == {2}


@pytest.mark.parametrize("lazy", [False, True])
def test_blas_runs_one_thread_in_each_thread_of_a_worker(
    store: Path, rows: np.ndarray, lazy: bool
) -> None:
    # A worker in this process: other processes are started with one BLAS thread anyway.
    dataset = open_dataset(da.from_array(rows, chunks=(CHUNK, 3))) if lazy else stored(store)
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, processes=False, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
        two_blas_threads(),
    ):
        for _ in range(3):
            assert engine.over(dataset, client)(see_blas, 0.002).values == {1}
            assert blas_threads() == {2}
        with pytest.raises(BlockError):
            engine.over(dataset, client)(fail_at, 0)
        time.sleep(0.1)  # the other tasks may be under way still


def test_answers_use_one_blas_thread_and_give_the_limit_back(store: Path) -> None:
    model = fitted(stored(store))
    with threadpool_limits(2):
        np.asarray(model.predict(store / "rows"))
        model.score(store / "rows")
        assert blas_threads() == {2}


# Which engine sweeps.


def test_an_active_client_is_used(store: Path, clusters: Mapping[int, Client]) -> None:
    expected = GaussianMixture(3, random_state=0).fit(store / "rows")
    assert expected.fit_info_["engine"] == "threads"

    with Client(clusters[2].scheduler.address) as client:
        model = GaussianMixture(3, random_state=0).fit(store / "rows")
        workers = set(client.run(os.getpid).values())
        assert engine.over(stored(store))(see_process, None).values <= workers
    assert model.fit_info_["engine"] == "distributed"
    assert (model.plan_.workers, model.plan_.threads) == (2, 1)
    assert bits(model) == bits(expected)

    with clusters[3].as_current():
        model = GaussianMixture(3, random_state=0).fit(store / "rows")
    assert model.fit_info_["engine"] == "distributed"
    assert model.plan_.workers == 3

    assert engine.active_client() is None
    assert engine.over(stored(store))(see_process, None).values == {os.getpid()}


@pytest.mark.parametrize("form", ["array", "mapped part", "memory store", "weights in memory"])
def test_what_lies_in_memory_is_swept_here(
    tmp_path: Path,
    store: Path,
    rows: np.ndarray,
    weights: np.ndarray,
    clusters: Mapping[int, Client],
    form: str,
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    data, sample_weight = {
        "array": (rows, None),
        "mapped part": (np.load(tmp_path / "rows.npy", mmap_mode="r")[1:], None),
        "memory store": (zarr.create_array(zarr.storage.MemoryStore(), data=rows), None),
        "weights in memory": (store / "rows", weights),
    }[form]
    expected = GaussianMixture(3, random_state=0).fit(data, sample_weight=sample_weight)

    with clusters[2].as_current():
        model = GaussianMixture(3, random_state=0).fit(data, sample_weight=sample_weight)
        dataset = open_dataset(data, sample_weight)
        assert engine.over(dataset)(see_process, None).values == {os.getpid()}

    assert model.fit_info_["engine"] == "threads"
    assert model.plan_.engine == "threads"
    assert bits(model) == bits(expected)


@pytest.mark.parametrize("kind", ["zarr", "npy", "dask"])
def test_answers_are_lazy_and_the_same_on_a_cluster(
    tmp_path: Path, store: Path, rows: np.ndarray, clusters: Mapping[int, Client], kind: str
) -> None:
    model = fitted(stored(store))
    np.save(tmp_path / "rows.npy", rows)
    data = {
        "zarr": stored(store),
        "npy": tmp_path / "rows.npy",
        "dask": da.from_array(rows, chunks=(171, 2)),
    }[kind]

    def processes(chunk: np.ndarray) -> np.ndarray:
        return np.full(len(chunk), os.getpid())

    for ask in (model.predict, model.predict_proba, model.score_samples):
        expected = ask(rows)
        here = ask(data)
        assert isinstance(here, da.Array)
        assert here.chunks[0] == tuple(np.diff(open_dataset(data).divisions).tolist())
        assert (here.shape, here.dtype) == (expected.shape, expected.dtype)
        found = here.compute()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        with clusters[2].as_current():
            there = ask(data)
            assert there.compute().tobytes() == found.tobytes()
    score = model.score(data)
    with clusters[2].as_current():
        assert model.score(data) == score
        where = model.predict(data).map_blocks(processes, dtype=np.int64).compute()
    assert set(where.tolist()) <= set(clusters[2].run(os.getpid).values())


def test_nobody_answers_within_the_time_stated() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()

        with pytest.raises(ClusterError, match=rf"no Dask scheduler answered at {address} .*1 s"):
            connect(address, seconds=1.0)

        assert time.monotonic() - began < 9  # by default it would be ten seconds


@pytest.mark.parametrize("address", ["nowhere", "nope://127.0.0.1:8786", "tcp://127.0.0.1", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=f"^{address!r} is no address: .*tcp://host:8786"):
        connect(address, seconds=1.0)


def test_a_connection_made_by_address_sweeps_and_is_not_made_the_default(
    store: Path, clusters: Mapping[int, Client]
) -> None:
    with connect(clusters[2].scheduler.address) as client:
        assert engine.active_client() is None
        assert engine.over(stored(store), client)(see_rows, None).values == all_spans(stored(store))


def test_a_worker_with_other_packages_is_refused(store: Path, tmp_path: Path) -> None:
    """Its results could be others; and the error says which packages."""
    other = tmp_path / "zarr-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 0.0.1\n")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard"]
    with (
        LocalCluster(n_workers=0, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
        subprocess.Popen(
            [*command, cluster.scheduler_address],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stderr=subprocess.DEVNULL,
        ) as worker,
    ):
        client.wait_for_workers(1, timeout=60)
        with pytest.raises(
            ClusterError, match=r"use one image for all: zarr is [\d.]+ here, 0\.0\.1 on worker tcp"
        ):
            engine.over(stored(store), client)(sum_rows, 0.0)
        worker.kill()
