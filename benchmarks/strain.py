"""Workers under strain: large statistics in little memory, and one worker that is slow."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from distributed import Client, LocalCluster

from benchmarks.table import Cell, mebibytes, show
from benchmarks.timing import ROUNDS, alternate, say
from dgmm import GaussianMixture, engine, open_dataset
from dgmm.data.dataset import Dataset
from dgmm.engine import cuts
from dgmm.kernels.sweep import Block

QUIET = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
COMPONENTS, DIMS, TASKS, TASK_ROWS = 1000, 64, 200, 16
WORKERS, BLOCKS, BLOCK_SECONDS, SLOWER = 4, 256, 0.05, 10

LARGE = """\
K = {components:,}, D = {dims}, full: statistics of {size:.0f} MB, in {tasks} tasks of {rows} rows
each, on two workers of 1 GiB and one thread: an EM pass, beside the first one and the last. "peak"
is the most memory that one of the workers had, "spilled" what they wrote to their disks."""

SLOW = """\
{blocks} blocks on {workers} workers of one thread; a block takes {each:g} s, and ten times as long
on the slow worker, by the clock. "ideal" is the time if all threads were busy to the end, each as
fast as it is."""


@contextmanager
def workers(count: int, memory: str) -> Iterator[Client]:
    """So many worker processes of one thread each."""
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, memory_limit=memory, **QUIET) as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


def rows_in(place: Path, blocks: int, block_rows: int, columns: int) -> Dataset:
    """Rows of float32 in a file, so many a block."""
    rows = np.random.default_rng(0).standard_normal((blocks * block_rows, columns), dtype="f4")
    np.save(place / "rows.npy", rows)
    return open_dataset(place / "rows.npy", block_bytes=block_rows * columns * 4)


def peak() -> int:
    """The most memory that this process had."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def spilled(dask_worker: Any) -> float:
    """The bytes that a worker wrote to its disk."""
    return float(dask_worker.data.cumulative_metrics.get(("disk-write", "bytes"), 0))


def large(place: Path, components: int, tasks: int) -> None:
    """Print what workers take whose statistics are large."""
    dataset = rows_in(place, tasks, TASK_ROWS, DIMS)
    means = np.random.default_rng(1).normal(size=(components, DIMS))
    start = {
        "weights_init": np.full(components, 1 / components),
        "means_init": means,
        "precisions_init": np.tile(np.eye(DIMS), (components, 1, 1)),
    }
    options: dict[str, Any] = {"strategy": "em", "tol": 0, "max_iter": 1, "cache": "none", **start}
    model, other = (GaussianMixture(components, **options) for _ in range(2))
    say("strain: large statistics")
    cuts.TASK_BYTES = 1  # type: ignore[misc]  # a block a task
    with workers(2, "1GiB") as client:
        began = time.perf_counter()
        list(model.fit_passes(dataset, client=client))
        seconds = time.perf_counter() - began
        peaks, written = client.run(peak), client.run(spilled)
    list(other.fit_passes(dataset))
    same = model.covariances_.tobytes() == other.covariances_.tobytes()
    show(
        "Large statistics on small workers",
        ["tasks", "plan", "peak", "spilled", "bits", "s in all"],
        [
            [
                model.plan_.tasks,
                mebibytes(model.plan_.peak_bytes),
                mebibytes(max(peaks.values())),
                mebibytes(sum(written.values())),
                "the same as by threads" if same else "others",
                seconds,
            ]
        ],
        LARGE.format(
            components=components,
            dims=DIMS,
            size=8e-6 * components * (1 + DIMS + DIMS * (DIMS + 1) // 2 + DIMS),
            tasks=tasks,
            rows=TASK_ROWS,
        ),
    )


def wait(block: Block, slow: int) -> np.float64:
    """What takes its time, and more in the process ``slow``."""
    time.sleep(BLOCK_SECONDS * (SLOWER if os.getpid() == slow else 1))
    return np.float64(block.start)


def slow(place: Path, blocks: int, rounds: int) -> None:
    """Print the time of a pass if one worker is slow."""
    dataset = rows_in(place, blocks, 1, 1)
    with workers(WORKERS, "1GiB") as client:
        one = min(client.run(os.getpid).values())
        sweep = engine.over(dataset, client)
        ideal = {
            "all alike": blocks * BLOCK_SECONDS / WORKERS,
            "one slow": blocks * BLOCK_SECONDS / (WORKERS - 1 + 1 / SLOWER),
        }

        def passed(pid: int) -> Callable[[], object]:
            return lambda: sweep(wait, pid)

        named = {"all alike": passed(0), "one slow": passed(one)}
        named["all alike"]()
        timings = alternate(named, rounds, "strain: a slow worker")
    lines: list[list[Cell]] = [
        [name, least, timings.seconds(name), timings.seconds(name) / least]
        for name, least in ideal.items()
    ]
    note = SLOW.format(blocks=blocks, workers=WORKERS, each=BLOCK_SECONDS)
    show("A slow worker", ["workers", "ideal, s", "a pass, s", "of the ideal"], lines, note)


@click.command()
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help="Smaller statistics, fewer blocks.")
def strain(rounds: int, quick: bool) -> None:
    """Large statistics on small workers, and a worker that is slow.

    Peak memory of two workers of 1 GiB against the plan; the time of a pass if one of four workers
    takes ten times as long.

    Example: python -m benchmarks strain --quick
    """
    with tempfile.TemporaryDirectory() as name:
        slow(Path(name), BLOCKS // 4 if quick else BLOCKS, rounds)
        large(Path(name), COMPONENTS // 4 if quick else COMPONENTS, TASKS)
