"""Fixtures that many test modules share."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing

import dask
import numpy as np
import pytest
from dask.system import CPU_COUNT

# A cluster's worker processes are forked from one that has imported what they need; those of
# commands in processes of their own are started as Dask does by default.
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})

import processes  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

multiprocessing.set_forkserver_preload(["distributed", "zarr", "dgmm.em.fit", "dgmm.io.output"])

QUIET = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


CALM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""For clusters that live long: idle, they would look after themselves for a third of all time."""


FIRST = ("test_memory.py", "test_pods.py", "test_chaos.py", "test_engine.py", "test_s3.py")
"""Files with the longest tests: begun last, one would go on alone while all else is done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of the longest tests go first; what is long within one is not at its end."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else 99)


def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than processors: tests that kill and cut off wait a third of the time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return CPU_COUNT + 1


def pytest_sessionfinish() -> None:
    processes.close()


class Clusters(Mapping[int, Client]):
    """Clients of clusters of 1, 2 and 3 worker processes, one thread each, by that number.

    Each is started when a test first asks for it, and lives as long as the tests do.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._open = stack, dict[int, Client]()

    def __getitem__(self, workers: int) -> Client:
        if workers not in (1, 2, 3):
            raise KeyError(workers)
        if workers not in self._open:
            with dask.config.set(CALM):
                cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **QUIET)
            self._stack.enter_context(cluster)
            client = Client(cluster, set_as_default=False)
            self._open[workers] = self._stack.enter_context(closing(client))
        return self._open[workers]

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 3))

    def __len__(self) -> int:
        return 3


@pytest.fixture(scope="session")
def clusters() -> Iterator[Mapping[int, Client]]:
    """Clients of clusters of 1, 2 and 3 worker processes, started when they are asked for."""
    with ExitStack() as stack:
        yield Clusters(stack)


@pytest.fixture
def blobs() -> np.ndarray:
    return some_blobs()


def some_blobs() -> np.ndarray:
    """Rows (3000, 3) from four overlapping normal distributions."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(4, 3)) * 4
    shapes = rng.normal(size=(4, 3, 3)) * 0.6 + np.eye(3)
    labels = rng.integers(4, size=3000)
    return centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(3000, 3)))
