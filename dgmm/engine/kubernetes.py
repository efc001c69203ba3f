"""What to ask of Kubernetes for a fit: the memory of its containers, by the arithmetic of ``plan``.

A worker's container holds a nanny and a worker process, which Dask ends at its memory limit; the
plan's peak is to be within the usable share of that.
"""

import math
from dataclasses import dataclass
from typing import Final

from dgmm.data.amounts import USABLE, memory_bytes
from dgmm.data.dataset import Dataset
from dgmm.em import sample
from dgmm.em.spec import FitSpec
from dgmm.engine.plan import (
    CACHEABLE,
    SLACK,
    Needs,
    Plan,
    first_pass_spec_of,
    plan_on,
)
from dgmm.engine.resources import PROCESS, Resources

NANNY: Final = 150 << 20
"""What is beside a worker process in its container: Dask's nanny, twice what was measured."""

OF_CONTAINER: Final = 0.95
"""The most of its container to let a worker have: what lies in ``/dev/shm`` counts, too."""

STEP: Final = 128 << 20
"""What containers are rounded up to."""

TASK_STATE: Final = 16 << 10
"""What scheduler and driver know about a task."""


@dataclass(frozen=True)
class Pods:
    """What to ask of Kubernetes for a fit on a cluster of its own; sizes are bytes.

    Attributes
    ----------
    plan : Plan
        Of a worker process.
    worker, limit : int
        A worker's container, and what Dask is told of it.
    driver, scheduler : int
        Their containers.
    """

    plan: Plan
    worker: int
    limit: int
    driver: int
    scheduler: int

    @property
    def settings(self) -> dict[str, int | str]:
        """By the names that the manifests in ``deploy`` use."""
        return {
            "WORKERS": self.plan.workers,
            "WORKER_THREADS": self.plan.threads,
            "WORKER_CPU": self.plan.threads,
            "WORKER_MEMORY": _quantity(self.worker),
            "WORKER_MEMORY_LIMIT": self.limit,
            "DRIVER_CPU": self.plan.threads,
            "DRIVER_MEMORY": _quantity(self.driver),
            "SCHEDULER_MEMORY": _quantity(self.scheduler),
        }

    @property
    def keeping(self) -> int:
        """A worker's container that would keep all of its rows between passes."""
        plan = self.plan
        share = -(-plan.pass_bytes // plan.workers) + plan.block_bytes
        return _container((plan.peak_bytes - plan.cache_bytes + share) / CACHEABLE)


def pods(
    dataset: Dataset,
    spec: FitSpec,
    workers: int,
    threads: int,
    memory: str | int | None = None,
    cache: str | int = "auto",
) -> Pods:
    """Plan to fit ``spec`` to ``dataset`` on ``workers`` pods that are not there yet.

    ``memory`` is what each one's container has; without it, as much as the fit needs, and nothing
    to keep rows in unless ``cache`` says how much.
    """

    def planned(limit: int, cache: str | int) -> Plan:
        pods = Resources(False, workers, threads, PROCESS, limit, limit)
        return plan_on(pods, dataset, spec, None, cache)

    if memory is None:
        cache = "none" if cache == "auto" else cache
        worker = _container(planned(0, cache).peak_bytes / USABLE)
    else:
        worker = memory_bytes(memory)
    limit = max(0, min(worker - NANNY, int(worker * OF_CONTAINER)))
    plan = planned(limit, cache)
    tasks = plan.tasks * TASK_STATE
    return Pods(
        plan,
        worker,
        limit,
        _up(_driver_bytes(dataset, spec, threads) + tasks),
        _up(max(1 << 30, PROCESS + SLACK + tasks)),
    )


def _driver_bytes(dataset: Dataset, spec: FitSpec, threads: int) -> int:
    """What the driver takes, which fits to the sample and writes checkpoints."""
    needs = Needs.of(dataset, spec, near=True)
    rows = first_pass_spec_of(dataset, spec).sampled(dataset.rows)
    # The sample as it came, as it is swept, and as a file is made and sent; and the statistics of
    # the solvers, of the threads that sweep the sample, and of the file.
    return (
        PROCESS
        + SLACK
        + 9 * sample.nbytes(rows, dataset.n_features)
        + (24 + 5 * threads) * needs.statistics
        + threads * needs.tile
        + needs.solvers
    )


def _container(limit: float) -> int:
    """The container of a worker whose memory limit is to be at least ``limit``."""
    return _up(max(limit + NANNY, limit / OF_CONTAINER))


def _up(size: float) -> int:
    return math.ceil(size / STEP) * STEP


def _quantity(size: int) -> str:
    """As Kubernetes writes it."""
    for unit, name in ((1 << 30, "Gi"), (1 << 20, "Mi")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)
