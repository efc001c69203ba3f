"""Fixtures that many test modules share."""

from collections.abc import Iterator

import numpy as np
import pytest
from distributed import Client, LocalCluster

QUIET = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


@pytest.fixture(scope="session")
def clusters() -> Iterator[dict[int, Client]]:
    """Clients of clusters of 1, 2 and 3 worker processes, one thread each."""
    opened: dict[int, Client] = {}
    stack = []
    for workers in (1, 2, 3):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **QUIET)
        opened[workers] = Client(cluster, set_as_default=False)
        stack.append(cluster)
    yield opened
    for client in opened.values():
        client.close()
    for cluster in stack:
        cluster.close()


@pytest.fixture
def blobs() -> np.ndarray:
    """Rows (3000, 3) from four overlapping normal distributions."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(4, 3)) * 4
    shapes = rng.normal(size=(4, 3, 3)) * 0.6 + np.eye(3)
    labels = rng.integers(4, size=3000)
    return centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(3000, 3)))
