"""Memory: planned, kept, and not growing with the number of rows.  Whole processes, measured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from conftest import QUIET
from distributed import Client, LocalCluster
from sklearn.mixture import GaussianMixture as Reference

import dgmm
from dgmm import engine
from dgmm.data.opening import open_dataset
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.kernels import choice
from dgmm.kernels.sweep import Block
from dgmm.model.statistics import Statistics

GIB = 1 << 30
SIZES = (2_000_000, 10_000_000, 36_000_000)
CHUNK = 100_000

pytestmark = [pytest.mark.memory, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Stores of so many rows x 8, float32, in chunks of 3.2 MB; the last holds 1.15 GB.

    The files of the chunks of others are links to those of the first, as the size of a store is
    tested, not its rows.
    """
    place = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=3.0, size=(4, 8)).astype(np.float32)
    first, *more = SIZES
    piece = rng.standard_normal((first, 8), dtype=np.float32)
    piece += centres[rng.integers(4, size=len(piece))]
    made = {rows: place / f"{rows}.zarr" for rows in SIZES}
    for rows, store in made.items():
        array = zarr.create_array(store, shape=(rows, 8), chunks=(CHUNK, 8), dtype="f4")
        if rows == first:
            array[:] = piece
    files = first // CHUNK
    for store, rows in ((made[rows], rows) for rows in more):
        for number in range(rows // CHUNK):
            (store / f"c/{number}").mkdir(parents=True)
            os.link(made[first] / f"c/{number % files}/0", store / f"c/{number}/0")
    yield made
    for path in place.glob("*"):
        subprocess.run(["rm", "-rf", str(path)], check=True)


MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command from a small process: the peak of a child counts its parent's when it was made."""


PLANS = """
import json, sys
from dgmm.cli.commands import main
for words in json.loads(sys.argv[1]):
    main(["plan", *words, "--json"], standalone_mode=False)
"""


def plans(*each: Sequence[object]) -> list[dict[str, Any]]:
    """What ``dgmm plan ... --json`` prints for such words, all in one process of its own."""
    words = json.dumps([list(map(str, words)) for words in each])
    done = subprocess.run(
        [sys.executable, "-c", PLANS, words], capture_output=True, text=True, check=True
    )
    return list(map(json.loads, done.stdout.splitlines()))


def run(*words: object, cwd: Path) -> tuple[dict[str, object], int]:
    """What ``dgmm ... --json`` prints, and the most memory its process had, in bytes."""
    command = [sys.executable, "-m", "dgmm", *map(str, words), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), int(done.stderr) * 1024


def test_fit_is_flat_in_the_number_of_rows_and_keeps_the_plan(
    stores: dict[int, Path], tmp_path: Path
) -> None:
    few, many, _ = SIZES
    peaks, asked = {}, ((few, 4), (many, 4), (few, 16))
    every = [(stores[rows], "-k", components, "--cache", "none") for rows, components in asked]
    for (rows, components), words, planned in zip(asked, every, plans(*every), strict=True):
        output = ("-o", "m.dgmm", "--overwrite", "--max-iter", 1)
        done, peak = run("fit", *words, *output, cwd=tmp_path)
        assert done["rows"] == rows
        assert peak < planned["peak_bytes"]
        assert peak < GIB
        peaks[rows, components] = peak
    assert max(peaks[few, 4], peaks[many, 4]) < 1.1 * min(peaks[few, 4], peaks[many, 4]), peaks


def growth(process: int, sweep: engine.Engine, meter: engine.Meter, rows: int) -> int:
    """How much more memory a process has at most in all of a first pass than in its first sixth."""
    early, late, done = 0, 0, Event()

    def watch() -> None:
        nonlocal early, late
        while not done.wait(0.01):
            taken = psutil.Process(process).memory_info().rss
            early = max(early, taken) if 6 * meter.rows < rows else early
            late = max(late, taken)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            found = sweep(first_pass, FirstPassSpec(1000, 0, largest=1e-4, kernel=choice.chosen()))
        finally:
            done.set()
        watching.result()
    assert found.rows == rows
    assert early > 0
    return late - early


@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("threads", [2, None])
def test_memory_does_not_creep(
    threads: int | None, compressors: str | None, clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    """In 400 blocks of 8 MiB, by threads and by a worker of Dask.  All are links to one file."""
    each, blocks = 1 << 18, 400
    array = zarr.create_array(
        tmp_path / "rows.zarr",
        shape=(each * blocks, 8),
        chunks=(each, 8),
        dtype="f4",
        compressors=compressors,
    )
    array[:each] = np.random.default_rng(0).integers(9, size=(each, 8))
    for number in range(1, blocks):
        (tmp_path / f"rows.zarr/c/{number}").mkdir()
        os.link(tmp_path / "rows.zarr/c/0/0", tmp_path / f"rows.zarr/c/{number}/0")
    dataset, meter = open_dataset(tmp_path / "rows.zarr"), engine.Meter()
    client = None if threads else clusters[1]
    (process,) = client.run(os.getpid).values() if client else [os.getpid()]
    sweep = engine.over(dataset, client, threads, meter)
    most = 17 << 20  # two blocks more may happen to be in use at once
    assert growth(process, sweep, meter, dataset.rows) < most


def test_narrow_integers_are_not_widened_at_once(tmp_path: Path) -> None:
    """Rows of int8 would take eight times their size as float64."""
    rows = zarr.create_array(
        tmp_path / "r.zarr", shape=(6_000_000, 4), chunks=(2**20, 4), dtype="i1"
    )
    rows[:] = np.random.default_rng(0).integers(-9, 9, size=(600_000, 4)).repeat(10, axis=0)
    words = (
        tmp_path / "r.zarr",
        "-k",
        2,
        "--covariance-type",
        "diag",
        "--cache",
        "none",
        "--threads",
        8,
    )
    (planned,) = plans(words)
    _, peak = run("fit", *words, "-o", "m.dgmm", "--max-iter", 1, cwd=tmp_path)
    assert peak < planned["peak_bytes"]


def test_the_cache_fills_what_is_allowed_and_no_more(
    stores: dict[int, Path], tmp_path: Path
) -> None:
    """1.15 GB of rows: some of them stay in memory, under the plan."""
    words = (stores[SIZES[-1]], "-k", 4, "--memory", "1GiB")
    planned, unkept = plans(words, (*words, "--cache", "none"))
    assert planned["peak_bytes"] == GIB
    assert 0.2 < planned["cached"] < 0.7
    assert unkept["cache_bytes"] == 0
    assert unkept["peak_bytes"] < planned["peak_bytes"]
    done, peak = run("fit", *words, "-o", "m.dgmm", "--max-iter", 1, cwd=tmp_path)
    assert done["cached"] == pytest.approx(planned["cached"], rel=0.05)
    assert planned["cache_bytes"] < peak < GIB


def test_predict_on_more_than_the_memory_allowed(stores: dict[int, Path], tmp_path: Path) -> None:
    """1.15 GB of rows under 1 GiB; the labels are scikit-learn's."""
    store = stores[SIZES[-1]]
    rows = zarr.open_array(store, mode="r")
    model = dgmm.GaussianMixture(4, random_state=0, max_iter=500).fit(rows[:100_000])
    model.save(tmp_path / "model.dgmm")
    done, peak = run("predict", store, "-m", "model.dgmm", "-o", "labels.zarr", cwd=tmp_path)
    assert done["rows"] == rows.shape[0]
    assert rows.nbytes > GIB > 2 * peak

    reference = Reference(4)
    reference.weights_, reference.means_ = model.weights_, model.means_
    reference.covariances_ = model.covariances_
    reference.precisions_cholesky_ = model.precisions_cholesky_
    labels = zarr.open_array(tmp_path / "labels.zarr", mode="r")
    for start in range(0, rows.shape[0], 4_900_000):
        chosen = slice(start, start + CHUNK)
        np.testing.assert_array_equal(labels[chosen], reference.predict(rows[chosen]))


def statistics(block: Block, shape: tuple[int, int, int]) -> Statistics:
    """As many sums as a full mixture of so many components has, for each so many."""
    components, columns, width = shape
    sums = np.full((components, width), block.rows.sum())
    return Statistics(sums, np.zeros((components, columns)), 0.0, 0.0, 1.0, len(block.rows))


def test_statistics_of_many_tasks_keep_the_plan_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 160 tasks are 660 MB, of which few are held at a time; and the bits are the same."""
    monkeypatch.setattr("dgmm.engine.cuts.TASK_BYTES", 1)
    columns, components, tasks = 64, 240, 160
    rows = np.random.default_rng(0).normal(size=(12 * tasks, columns))
    np.save(tmp_path / "rows.npy", rows)
    dataset = dgmm.open_dataset(tmp_path / "rows.npy", block_bytes=12 * 8 * columns)
    given = (components, columns, 1 + columns + columns * (columns + 1) // 2)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="700MiB", **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with client.as_current():
            planned = dgmm.GaussianMixture(components, cache="none").plan(dataset)
        found = engine.over(dataset, client)(statistics, given)
        peaks, spilled = client.run(peak_bytes), client.run(spilled_bytes)
    assert planned.tasks == tasks
    assert max(peaks.values()) < planned.peak_bytes < planned.limit_bytes
    assert set(spilled.values()) == {0}
    expected = engine.over(dataset, threads=1)(statistics, given)
    assert found.sums.tobytes() == expected.sums.tobytes()


def peak_bytes() -> int:
    """The most memory that this process had."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) << 10


def spilled_bytes(dask_worker: Any) -> float:
    """What a worker has written to its disk."""
    metrics = dask_worker.data.cumulative_metrics
    return float(metrics.get(("disk-write", "bytes"), 0))
