"""The machines that a sweep runs on: how many processes and threads, and what memory they have."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
from dask.system import CPU_COUNT

from dgmm.data.amounts import USABLE, memory_limit
from dgmm.data.clients import check_open
from dgmm.data.dataset import Dataset
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from distributed import Client

    from dgmm.engine import workers
else:
    workers = Late("dgmm.engine.workers")

PROCESS: Final = 224 << 20
"""What a process takes once it has loaded all that a sweep needs; a fresh worker has not yet."""


@dataclass(frozen=True)
class Resources:
    """Where a sweep runs.

    Attributes
    ----------
    in_process : bool
        Whether that is this process, or workers of a cluster.
    workers, threads : int
        Worker processes, and threads of each.
    base : int
        What a worker process takes to begin with.
    available, free : int
        What it has, and what of that nobody uses now.
    """

    in_process: bool
    workers: int
    threads: int
    base: int
    available: int
    free: int

    @property
    def engine(self) -> str:
        """What a plan calls it."""
        return "threads" if self.in_process else "distributed"


def resources(dataset: Dataset, client: "Client | None", threads: int | None) -> Resources:
    """The machines there are for ``dataset``: those of ``client``, or this one."""
    threads = threads or CPU_COUNT
    if client is None or dataset.in_process:
        free = int(psutil.virtual_memory().available * USABLE)
        base = psutil.Process().memory_info().rss
        return Resources(True, 1, threads, base, memory_limit(), free)
    check_open(client)
    workers.wait_for_threads(client)
    known = client.scheduler_info(n_workers=-1).get("workers", {})
    kept = workers.left_bytes(client)
    limits = [worker["memory_limit"] for worker in known.values() if worker["memory_limit"]]
    used = [worker["metrics"]["memory"] - kept.get(name, 0) for name, worker in known.items()]
    available = min(limits, default=memory_limit())
    return Resources(
        False,
        max(1, len(known)),
        max((worker["nthreads"] for worker in known.values()), default=threads),
        max([PROCESS, *used]),
        available,
        available,
    )
