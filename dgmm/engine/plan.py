"""What a run will need, worked out before it: blocks, tasks, bytes read, memory.

The memory a worker needs does not depend on the number of rows: each of its threads holds one
block and reads the next, beside one tile's temporaries and a few statistics.  The projection adds
these up on the high side; a run that would not fit is refused, with what to change.  What is left
of the memory may keep blocks from one pass to the next.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed import Client
from distributed.system import MEMORY_LIMIT

from dgmm.data.amounts import USABLE, memory_bytes
from dgmm.data.dataset import Dataset
from dgmm.em import quasi_newton, split_merge
from dgmm.em.first_pass import TILE, FirstPassSpec
from dgmm.em.fit import FitSpec
from dgmm.engine.cluster import tasks
from dgmm.engine.workers import check_open, left_bytes, wait_for_threads
from dgmm.errors import PlanError
from dgmm.kernels.kernel import TILE_BYTES, tile_rows

CACHEABLE: Final = 0.6
"""The share to fill with cached blocks, unless told: Dask's workers complain from 70 % on."""

SLACK: Final = 96 << 20
"""What libraries load and the allocator keeps beyond what is asked of it."""

PROCESS: Final = 224 << 20
"""What a process takes once it has loaded all that a sweep needs; a fresh worker has not yet."""


@dataclass(frozen=True)
class Plan:
    """What a run will need; sizes are bytes.

    Attributes
    ----------
    source : str
    rows, columns, components, width : int
        N, D, K and P.
    engine : str
        What sweeps.
    workers, threads : int
        Worker processes, and threads of each.
    blocks, block_rows, block_bytes : int
        How the rows are cut; rows and size of the largest block.
    tasks : int
        Tasks of one pass.
    pass_bytes : int
        Read in one pass, as it lies in memory.
    base_bytes, thread_bytes, shared_bytes : int
        What a worker process takes to begin with, for each of its threads, and for what they
        bring home.
    cache_bytes : int
        Blocks that a worker process keeps between passes.
    limit_bytes : int
        What it may take.
    starts, starts_rows : int
        How many starts compete on samples at most, and on how many rows; 0 if none do.
    starts_passes : float
        How many passes over all rows that is worth, about.
    """

    source: str
    rows: int
    columns: int
    components: int
    width: int
    engine: str
    workers: int
    threads: int
    blocks: int
    block_rows: int
    block_bytes: int
    tasks: int
    pass_bytes: int
    base_bytes: int
    thread_bytes: int
    shared_bytes: int
    cache_bytes: int
    limit_bytes: int
    starts: int
    starts_rows: int
    starts_passes: float

    @property
    def peak_bytes(self) -> int:
        """The most a worker process will take."""
        working = self.base_bytes + self.threads * self.thread_bytes + self.shared_bytes
        return working + self.cache_bytes

    @property
    def cached(self) -> float:
        """The share of the rows that is kept between passes."""
        return min(1.0, self.workers * self.cache_bytes / max(1, self.pass_bytes))

    def to_dict(self) -> dict[str, Any]:
        """The fields, the peak and the cached share by name."""
        return {**asdict(self), "peak_bytes": self.peak_bytes, "cached": self.cached}

    def check(self) -> None:
        """Raise ``PlanError`` if the run would not fit."""
        if self.peak_bytes <= self.limit_bytes:
            return
        room = self.limit_bytes - self.base_bytes - self.shared_bytes - self.cache_bytes
        fewer = f"use at most {room // self.thread_bytes} threads, " * (room > self.thread_bytes)
        smaller = "keep less in the cache, " * bool(self.cache_bytes)
        raise PlanError(
            f"the fit would take up to {format_bytes(self.peak_bytes)} in each worker process, "
            f"but may take {format_bytes(self.limit_bytes)}. "
            f"It is {format_bytes(self.base_bytes)} to begin with, "
            f"{format_bytes(self.thread_bytes)} for each of {self.threads} threads, and "
            f"{format_bytes(self.shared_bytes)} for statistics and the sample"
            + f", and {format_bytes(self.cache_bytes)} of cache"
            * bool(self.cache_bytes)
            + f". To change that, "
            f"{fewer}{smaller}allow more memory, or store the rows in smaller chunks (the largest "
            f"block has {self.block_rows:,} rows, {format_bytes(self.block_bytes)})"
        )


@dataclass(frozen=True)
class Resources:
    """Where a sweep runs.

    Attributes
    ----------
    engine : str
    workers, threads : int
        Worker processes, and threads of each.
    base : int
        What a worker process takes to begin with.
    available, free : int
        What it has, and what of that nobody uses now.
    """

    engine: str
    workers: int
    threads: int
    base: int
    available: int
    free: int


def resources(dataset: Dataset, client: Client | None, threads: int | None) -> Resources:
    """The machines there are for ``dataset``: those of ``client``, or this one."""
    threads = threads or CPU_COUNT
    if client is None or dataset.in_process:
        free = int(psutil.virtual_memory().available * USABLE)
        base = psutil.Process().memory_info().rss
        return Resources("threads", 1, threads, base, MEMORY_LIMIT, free)
    check_open(client)
    wait_for_threads(client)
    found = client.scheduler_info(n_workers=-1).get("workers", {})
    described, left = found.values(), left_bytes(client)
    limits = [worker["memory_limit"] for worker in described if worker["memory_limit"]]
    taken = [worker["metrics"]["memory"] - left.get(name, 0) for name, worker in found.items()]
    available = min(limits, default=MEMORY_LIMIT)
    return Resources(
        "distributed",
        max(1, len(described)),
        max((worker["nthreads"] for worker in described), default=threads),
        max([PROCESS, *taken]),
        available,
        available,
    )


def plan(
    dataset: Dataset,
    spec: FitSpec,
    client: Client | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    cache: str | int = "auto",
    checkpoint: bool = False,
) -> Plan:
    """Plan to fit ``spec`` to ``dataset``, on ``client`` or with ``threads`` of this process.

    ``memory`` is what a worker process may take: bytes, or text such as "2GiB"; without it, 70 %
    of a worker's memory limit or of this machine's memory.  ``cache`` is what it may keep of the
    rows between passes: an amount like ``memory``, "none", or "auto" for what the plan leaves free.
    ``checkpoint`` says whether passes are written to one.
    """
    return plan_on(resources(dataset, client, threads), dataset, spec, memory, cache, checkpoint)


def plan_on(
    on: Resources,
    dataset: Dataset,
    spec: FitSpec,
    memory: str | int | None,
    cache: str | int,
    checkpoint: bool = False,
) -> Plan:
    """Plan to fit ``spec`` to ``dataset`` with ``on``; the rest is as in ``plan``."""
    threads, workers, available = on.threads, on.workers, on.available
    keeps = cache not in ("none", "0", 0)
    asked = memory_bytes(cache) if keeps and cache != "auto" else None
    first_pass_spec = spec.first_pass_spec(
        dataset.rows, dataset.n_features, dataset.weights is not None
    )
    writes = checkpoint and on.engine == "threads"  # on a cluster, the driver does
    budget = spec.budget(
        dataset.rows, dataset.n_features, min(first_pass_spec.sample, dataset.rows)
    )
    fat = on.engine == "distributed" and not dataset.lazy
    near = on.engine == "threads"  # samples are fitted to here
    solvers = spec.abreast(
        dataset.rows, dataset.n_features, min(first_pass_spec.sample, dataset.rows), near
    )
    planned = Plan(
        source=dataset.source.name,
        rows=dataset.rows,
        columns=dataset.n_features,
        components=spec.components,
        width=spec.covariance_model.width(dataset.n_features),
        engine=on.engine,
        workers=workers,
        threads=threads,
        blocks=dataset.blocks,
        block_rows=dataset.block_rows,
        block_bytes=dataset.block_rows * dataset.row_bytes,
        tasks=tasks(dataset, threads * workers) if fat else dataset.blocks,
        pass_bytes=dataset.rows * dataset.row_bytes,
        base_bytes=on.base + SLACK,
        thread_bytes=_thread_bytes(dataset, spec, solvers),
        shared_bytes=_alive_bytes(dataset, spec, solvers, threads)
        + (walks_bytes if near else _given_bytes)(dataset, spec, solvers)
        + _sample_bytes(dataset, first_pass_spec, threads)
        + writes * _file_bytes(dataset, first_pass_spec),
        cache_bytes=0,
        limit_bytes=int(available * USABLE) if memory is None else memory_bytes(memory),
        starts=budget.starts,
        starts_rows=budget.rows,
        starts_passes=budget.passes,
    )
    if not keeps or not dataset.read_bytes or (dataset.lazy and on.engine == "distributed"):
        return planned  # in memory already, or not ours to keep
    room = min(int(available * CACHEABLE), on.free) if memory is None else planned.limit_bytes
    room = max(0, room - planned.peak_bytes) if asked is None else asked
    share = -(-planned.pass_bytes // workers) + planned.block_bytes * (workers > 1)
    return replace(planned, cache_bytes=min(room, share))


def _thread_bytes(dataset: Dataset, spec: FitSpec, solvers: int) -> int:
    """What a thread holds: a block, the next one being read, and the temporaries of a tile."""
    columns, width = _statistics_shape(dataset, spec, solvers)
    first_pass = 8 * 6 * min(TILE, dataset.block_rows) * dataset.n_features
    block = min(dataset.read_bytes, dataset.block_rows * dataset.row_bytes)
    parameters = 8 * columns * 2 * width  # as the compiled kernel wants them
    return (
        dataset.read_bytes
        + block
        + parameters
        + max(tile_bytes(dataset, spec, solvers), first_pass)
    )


def tile_bytes(dataset: Dataset, spec: FitSpec, solvers: int) -> int:
    """The temporaries of a tile."""
    columns, width = _statistics_shape(dataset, spec, solvers)
    return 3 * max(TILE_BYTES, 8 * (width + 2 * columns) * tile_rows(width + 2 * columns))


def statistics_bytes(dataset: Dataset, spec: FitSpec, solvers: int) -> int:
    """The statistics of all components, and what they are taken about."""
    columns, width = _statistics_shape(dataset, spec, solvers)
    return 8 * columns * (width + dataset.n_features)


def walks_bytes(dataset: Dataset, spec: FitSpec, solvers: int) -> int:
    """What is found out where solvers are: what they remember, or what shows how to split."""
    if spec.strategy != "auto":
        return 0
    components, n_features = spec.components, dataset.n_features
    split = not spec.given and not spec.direct(dataset.rows, n_features)
    splits = (
        split_merge.held(components, n_features)
        if split_merge.affordable(components, n_features)
        else 0
    )
    return 8 * max(solvers * quasi_newton.held(spec.parameters(n_features)), split * splits)


def _statistics_shape(dataset: Dataset, spec: FitSpec, solvers: int) -> tuple[int, int]:
    """K of all ``solvers``, which share each sweep, and P."""
    width = spec.covariance_model.centred.width(dataset.n_features)
    return solvers * spec.components, width


def _alive_bytes(dataset: Dataset, spec: FitSpec, solvers: int, threads: int) -> int:
    """Statistics alive at once: in the tree, waiting to be added, and in the making."""
    one = statistics_bytes(dataset, spec, solvers)
    return one * (dataset.blocks.bit_length() + 5 * threads)


def _given_bytes(dataset: Dataset, spec: FitSpec, solvers: int) -> int:
    """What a worker is sent for a sweep: factors of precisions, and the kernel's form."""
    columns, width = _statistics_shape(dataset, spec, solvers)
    return 3 * 8 * columns * width


def _sample_bytes(dataset: Dataset, first_pass_spec: FirstPassSpec, threads: int) -> int:
    """The first sweep's sample, and what seeding makes of it."""
    row = 8 * (dataset.n_features + 3)
    whole = min(first_pass_spec.sample, dataset.rows)
    if first_pass_spec.largest < float("inf"):  # each block brings home its share
        return 6 * whole * row
    waiting = min(first_pass_spec.sample, dataset.block_rows) * (3 * threads)
    return (4 * whole + waiting + whole * min(4, dataset.blocks.bit_length())) * row


def _file_bytes(dataset: Dataset, first_pass_spec: FirstPassSpec) -> int:
    """The file of a checkpoint's first pass: in a buffer, as what is sent, and in parts of that."""
    sample = 8 * (dataset.n_features + 3) * min(first_pass_spec.sample, dataset.rows)
    scatter = 8 * dataset.n_features * (dataset.n_features if first_pass_spec.pairs else 1)
    return 3 * (sample + scatter) * 9 // 8  # a buffer has room to grow
