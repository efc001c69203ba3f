"""One worker process and two, and the time of a pass that is spent outside tasks."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_limits

from benchmarks import data, machine
from benchmarks.stream import Passes
from benchmarks.table import percent, show
from benchmarks.timing import ROUNDS, Seconds, alternate, say
from dgmm import GaussianMixture
from dgmm.data.opening import open_dataset

QUIET = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
DIMS, COMPONENTS = 32, 16
SMALL_DIMS, SMALL_ROWS = 8, 2048

NOTE = """\
An EM pass over {rows:,} x {dims} float32 in Zarr, K = {components} full, in double precision.
"rows kept": the workers keep them from pass to pass (cache="auto"), so it is bound by computing.
"rows read": they are read and decompressed in each pass (cache="none"), on a thread beside; a lone
worker's has the second processor to itself. "products alone" is what this machine allows: as many
plain matrix products, on the same workers, that share nothing."""

OVERHEAD = """\
Blocks of {rows} x {dims} float32. "outside tasks" is the part of (seconds x threads) in which no
task ran, from the scheduler's own record: scheduling, transfers, the M-step, and waiting for the
last task."""


@contextmanager
def workers(count: int) -> Iterator[Client]:
    """So many worker processes of one thread each."""
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def products(times: int) -> None:
    """So many matrix products, on one thread."""
    left = np.random.default_rng(0).random((1024, 1024))
    with threadpool_limits(1):
        for _ in range(times):
            left @ left


def independent(client: Client, times: int) -> None:
    """The same products, in four tasks."""
    futures = client.map(products, [times] * 4, pure=False)
    client.gather(futures)


def model(rows: Any, components: int, iterations: int, cache: str = "none") -> GaussianMixture:
    """A model with a given start, that goes on for longer than it is timed."""
    begin = data.start(rows, components)
    return GaussianMixture(
        components,
        strategy="em",
        **data.given(begin),
        tol=0,
        max_iter=iterations,
        precision="float64",
        cache=cache,
    )


def speed(clients: dict[int, Client], place: Path, rows: int, rounds: int) -> None:
    """Print seconds per pass with one worker and with two."""
    store = place / "rows.zarr"
    data.store(store, data.mixture(COMPONENTS, DIMS), rows)
    first = np.asarray(zarr.open_array(store, mode="r")[:100_000])
    named: dict[str, Callable[[], object]] = {}
    for count, client in clients.items():
        for what, cache in (("kept", "auto"), ("read", "none")):
            fitting = model(first, COMPONENTS, rounds + 8, cache)
            named[f"{what} {count}"] = Passes(fitting.fit_passes(store, client=client))
        named[f"products {count}"] = partial(independent, client, max(1, rows // 200_000))
        named[f"products {count}"]()
    timings = alternate(named, rounds, "scale")
    show(
        "One and two worker processes of a thread each",
        ["what", "1 worker, s", "2 workers, s", "ratio", "target"],
        [
            [
                what,
                timings.seconds(f"{name} 1"),
                timings.seconds(f"{name} 2"),
                timings.ratio(f"{name} 1", f"{name} 2"),
                target,
            ]
            for what, name, target in (
                ("a pass, rows kept", "kept", "1.85"),
                ("a pass, rows read", "read", "-"),
                ("products alone", "products", "-"),
            )
        ],
        NOTE.format(rows=rows, dims=DIMS, components=COMPONENTS),
    )


def busy(client: Client, run: Callable[[], object]) -> tuple[float, float, int]:
    """The seconds of a run, the seconds of its tasks together, and how many they were."""
    client.get_task_stream()  # from its first use on, the scheduler keeps a record
    began, since = time.perf_counter(), time.time()
    run()
    seconds = time.perf_counter() - began
    spans = [
        row_range["stop"] - row_range["start"]
        for task in client.get_task_stream(start=since)
        for row_range in task["startstops"]
        if row_range["action"] == "compute"
    ]
    return seconds, sum(spans), len(spans)


def overhead(client: Client, place: Path, blocks: int, rounds: int) -> None:
    """Print what a pass over many small blocks spends outside tasks."""
    store = place / "small.zarr"
    known = data.mixture(COMPONENTS, SMALL_DIMS)
    data.store(store, known, blocks * SMALL_ROWS, SMALL_ROWS)
    dataset = open_dataset(store, block_bytes=SMALL_ROWS * SMALL_DIMS * 4)
    first = np.asarray(zarr.open_array(store, mode="r")[:SMALL_ROWS])
    step = Passes(model(first, COMPONENTS, rounds + 8).fit_passes(dataset, client=client))
    threads = sum(client.nthreads().values())
    found: list[tuple[float, float, int]] = []

    def one() -> Seconds:
        found.append(busy(client, step))
        return Seconds(found[-1][0])

    timings = alternate({"pass": one}, rounds, f"scale: {blocks:,} blocks")
    outside = sorted(1 - tasks / (wall * threads) for wall, tasks, _ in found)[len(found) // 2]
    show(
        f"A pass over {dataset.blocks:,} blocks on {threads} workers",
        ["seconds", "tasks", "seconds a task", "outside tasks", "target"],
        [
            [
                timings.seconds("pass"),
                found[0][2],
                found[0][1] / max(1, found[0][2]),
                percent(outside),
                "under 5 %",
            ]
        ],
        OVERHEAD.format(rows=SMALL_ROWS, n_features=SMALL_DIMS),
    )


@click.command()
@click.option("--rows", type=int, help="[default: 4194304; quick: 262144]")
@click.option("--blocks", type=int, help="For the overhead.  [default: 10000; quick: 500]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the stores go.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help="Few rows and blocks.")
def scale(
    rows: int | None, blocks: int | None, directory: Path | None, rounds: int, quick: bool
) -> None:
    """One worker process and two, and overhead.

    Seconds per pass on clusters of this machine, and the share of a pass over 10,000 blocks that is
    spent outside tasks.

    Example: python -m benchmarks scale --quick
    """
    machine.measure()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        say("scale: starting workers")
        clients = {count: stack.enter_context(workers(count)) for count in (1, 2)}
        speed(clients, place, rows or (1 << 18 if quick else 1 << 22), rounds)
        overhead(clients[2], place, blocks or (500 if quick else 10_000), rounds)
