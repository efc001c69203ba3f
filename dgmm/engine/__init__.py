"""Two ways to sweep: threads of this process (threads.py), and a Dask cluster (cluster.py).

Both keep the contract of ``sweep.Sweep``: each task reads its own blocks, adds up what it finds in
the order of ``sweep.PairwiseSum``, and hands back one small result; so the same blocks give the
same bits on either, with any number of workers.  Either may keep blocks between sweeps (``Cache``).

What those who sweep need besides is named here, too.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from dask.system import CPU_COUNT

from dgmm.data.clients import active_client
from dgmm.data.dataset import Dataset
from dgmm.data.opening import opened
from dgmm.engine.blas import each_on_one_blas_thread, one_blas_thread
from dgmm.engine.cache import Cache
from dgmm.engine.meter import Meter
from dgmm.engine.threads import Threads
from dgmm.kernels.sweep import Sweep
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from distributed import Client

    from dgmm.engine import calls as called
    from dgmm.engine import cluster as clusters
else:  # by other names than those of modules, which a package has for attributes
    called, clusters = Late("dgmm.engine.calls"), Late("dgmm.engine.cluster")

__all__ = [
    "Engine",
    "Meter",
    "active_client",
    "each_on_one_blas_thread",
    "elsewhere",
    "in_memory_sweep",
    "one_blas_thread",
    "over",
]

IN_MEMORY_BLOCK_BYTES: Final = 512 << 10
"""The size of a block of rows that are in memory anyhow..."""

IN_MEMORY_BLOCK_ROWS: Final = 2048
"""...if it has so many rows: with fewer nothing is left out of an E-step."""


class Engine(Sweep, Protocol):
    """A sweep that may keep blocks between calls; ``close`` releases them."""

    def close(self) -> None:
        """Free what is kept."""


def over(
    dataset: Dataset,
    client: "Client | None" = None,
    threads: int | None = None,
    meter: Meter | None = None,
    cache_bytes: int = 0,
) -> Engine:
    """The sweep over ``dataset``: on ``client``, else an active Client, else this process.

    Rows in this process's memory are swept by its own threads, cluster or no cluster.  Each
    process may keep ``cache_bytes`` of blocks from one sweep to the next.
    """
    client = None if dataset.in_process else client or active_client()
    meter = meter or Meter()
    if client is not None:
        return clusters.Cluster(dataset, client, meter, cache_bytes)
    return Threads(dataset, threads or CPU_COUNT, meter, Cache(cache_bytes))


def elsewhere(sweep: Engine, room: int) -> "called.Elsewhere | None":
    """The machines of a ``sweep`` besides this process, each of whose threads has that much room.

    None if it uses no others.
    """
    if isinstance(sweep, Threads):
        return None
    assert isinstance(sweep, clusters.Cluster)  # there is no third
    return called.Elsewhere(sweep, room, partial(in_memory_sweep, threads=1))


def in_memory_sweep(rows: Any, threads: int | None = None, **beside: Any) -> Sweep:
    """The sweep over ``rows`` (n, D) in this process's memory, with what lies ``beside`` them.

    Their blocks are small, so that a sample of a few thousand rows is shared out, too.
    """
    dataset = opened(rows, beside, block_bytes=IN_MEMORY_BLOCK_BYTES)
    if dataset.block_rows < IN_MEMORY_BLOCK_ROWS:
        dataset = dataset.rechunk(IN_MEMORY_BLOCK_ROWS * dataset.row_bytes)
    return Threads(dataset, threads or CPU_COUNT)
