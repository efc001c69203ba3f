"""What a run will need, worked out before it: blocks, tasks, bytes read, memory.

The memory a worker needs does not depend on the number of rows: each of its threads holds one
block and reads the next, beside one tile's temporaries and a few statistics.  What each of these
takes, on the high side, says the module that makes it (its ``nbytes``); here it is added up.  A run
that would not fit is refused, with what to change.  What is left of the memory may keep blocks from
one pass to the next.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dask.utils import format_bytes

from dgmm.data.amounts import USABLE, memory_bytes
from dgmm.data.dataset import Dataset
from dgmm.em import first_pass
from dgmm.em.first_pass import FirstPassSpec
from dgmm.em.spec import FitSpec
from dgmm.engine.cuts import count_tasks
from dgmm.engine.resources import Resources, resources
from dgmm.engine.threads import results_alive
from dgmm.errors import PlanError
from dgmm.kernels import choice, kernel, native, natural_parameters
from dgmm.kernels.sweep import PairwiseSum
from dgmm.model import statistics

if TYPE_CHECKING:
    from distributed import Client

CACHEABLE: Final = 0.6
"""The share to fill with cached blocks, unless told: Dask's workers complain from 70 % on."""

SLACK: Final = 96 << 20
"""What libraries load and the allocator keeps beyond what is asked of it."""


@dataclass(frozen=True)
class Plan:
    """What a run will need, as ``GaussianMixture.plan`` and ``plan_`` tell it; sizes are bytes.

    Parameters
    ----------
    source : str
        Where the rows lie.
    rows, n_features, n_components, width : int
        N, D, K and P.
    engine : {"threads", "distributed"}
        What sweeps: threads of this process, or workers of a Dask cluster.
    kernel : str
        What computes blocks of rows: "native" with the processor's instructions, "numpy", or
        "sparse".
    workers, threads : int
        How many worker processes, and how many threads each of them has.
    blocks, block_rows, block_bytes : int
        How many blocks there are; rows and size of the largest one.
    tasks : int
        How many tasks a pass has.
    pass_bytes : int
        How much a pass reads, as it lies in memory.
    base_bytes, thread_bytes, shared_bytes : int
        What a worker process takes to begin with, for each of its threads, and for their results.
    cache_bytes : int
        The size of the blocks that a worker process keeps between passes.
    limit_bytes : int
        The most that a worker process may take.
    starts, starts_rows : int
        How many starts compete on samples at most, and on how many rows; 0 if none do.
    starts_passes : float
        The work on samples, as about so many passes over all rows.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> plan = GaussianMixture(2, n_jobs=4).plan(np.eye(6))
    >>> plan.rows, plan.n_features, plan.engine, plan.threads
    (6, 6, 'threads', 4)
    """

    source: str
    rows: int
    n_features: int
    n_components: int
    width: int
    engine: str
    kernel: str
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

    def __str__(self) -> str:
        return "\n".join(f"{name:<26}  {said}" for name, said in self.described().items())

    def described(self) -> dict[str, str]:
        """The plan in words, by what each is about.

        Returns
        -------
        dict
            What ``dgmm plan`` prints, and ``print(plan)``.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> GaussianMixture(2).plan(np.eye(6)).described()["rows x columns"]
        '6 x 6'
        """
        machines = f"worker processes: {self.workers}, threads of each: {self.threads}"
        block = f"largest {self.block_rows:,} rows, {format_bytes(self.block_bytes)}"
        each = -(-self.blocks // max(1, self.tasks))
        kept = f"{self.cached:.0%}: {format_bytes(self.cache_bytes)} per worker"
        return {
            "data": self.source,
            "rows x columns": f"{self.rows:,} x {self.n_features}",
            "components": f"{self.n_components:,}",
            "engine": f"{self.engine}; {machines}",
            "blocks": f"{self.blocks:,}; {block}",
            "tasks per pass": f"{self.tasks:,}, blocks of each: {each:,}",
            "size of the rows in memory": format_bytes(self.pass_bytes),
            "kept between passes": kept,
            "peak memory per worker": f"at most {format_bytes(self.peak_bytes)}",
            "allowed per worker": format_bytes(self.limit_bytes),
            "finding a start": self._starting(),
            "kernel": self.kernel,
        }

    def _starting(self) -> str:
        if not self.starts:
            return "no starts compete on samples"
        starts = "1 start" if self.starts == 1 else f"up to {self.starts} starts"
        samples = "" if self.starts_rows == self.rows else " and larger samples"
        return (
            f"{starts}, on {self.starts_rows:,} rows{samples}: the work of about "
            f"{self.starts_passes:,.0f} passes"
        )

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
        """The plan as a dictionary of numbers and texts.

        Returns
        -------
        dict
            The fields by name, with ``peak_bytes``, the most a worker process will take, and
            ``cached``, the share of the rows that stays in memory between passes.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> planned = GaussianMixture(2).plan(np.eye(6)).to_dict()
        >>> planned["rows"], planned["peak_bytes"] < planned["limit_bytes"]
        (6, True)
        """
        return {**asdict(self), "peak_bytes": self.peak_bytes, "cached": self.cached}

    def check(self) -> None:
        """See that the run fits in memory.

        Raises
        ------
        PlanError
            If a worker process would take more than ``limit_bytes``; it says what to change.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> GaussianMixture(2).plan(np.eye(6)).check()
        >>> GaussianMixture(2, memory="1MiB").plan(np.eye(6)).check()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        dgmm.errors.PlanError: the fit would take up to ...
        """
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
            f"{fewer}{smaller}allow more memory, or store the rows in smaller chunks, row groups "
            f"in Parquet (the largest block has {self.block_rows:,} rows, "
            f"{format_bytes(self.block_bytes)})"
        )


@dataclass(frozen=True)
class Needs:
    """What the rooms say that they take, in bytes.

    Attributes
    ----------
    reading : int
        Blocks of rows, for each thread.
    observing : int
        What an observation model takes to look at a block, for each thread.
    tile : int
        The temporaries of the E-step, for each thread.
    parameters : int
        The parameters as a thread's kernel wants them.
    first_pass : int
        The temporaries of the first pass, for each thread.
    statistics : int
        Those of a block, or of all.
    given : int
        What a worker is sent for a sweep.
    solvers : int
        What is found out where solvers are.
    """

    reading: int
    observing: int
    tile: int
    parameters: int
    first_pass: int
    statistics: int
    given: int
    solvers: int

    @classmethod
    def of(cls, dataset: Dataset, spec: FitSpec, near: bool) -> "Needs":
        """Those of ``spec``, whose solvers share each sweep; ``near`` as in ``FitSpec.abreast``."""
        rows, n_features = dataset.rows, dataset.n_features
        sampled = first_pass_spec_of(dataset, spec).sampled(rows)
        solvers = spec.abreast(rows, n_features, sampled, near)
        own = spec.all_components
        components = solvers * own
        width = spec.covariance_model.centred_features.width(n_features)
        return cls(
            reading=dataset.nbytes,
            observing=spec.observation.nbytes(
                dataset.block_rows, dataset.row_bytes, n_features, components
            ),
            tile=kernel.nbytes(components, width),
            parameters=native.nbytes(components, width)
            + native.nbytes_of_few(solvers, own, n_features, width),
            first_pass=first_pass.WAYS[spec.kernel].nbytes(dataset.block_rows, n_features),
            statistics=statistics.nbytes(components, width, n_features),
            given=natural_parameters.nbytes(components, width),
            solvers=spec.nbytes(rows, n_features, solvers),
        )

    @property
    def thread(self) -> int:
        """What each thread takes; an E-step and the first pass are not at once."""
        return self.reading + self.observing + self.parameters + max(self.tile, self.first_pass)


def first_pass_spec_of(dataset: Dataset, spec: FitSpec) -> FirstPassSpec:
    """What the first pass over ``dataset`` asks for."""
    return spec.first_pass_spec(*dataset.layout)


def plan(
    dataset: Dataset,
    spec: FitSpec,
    client: "Client | None" = None,
    threads: int | None = None,
    memory: str | int | None = None,
    cache: str | int = "auto",
    writing: int = 0,
) -> Plan:
    """Plan to fit ``spec`` to ``dataset``, on ``client`` or with ``threads`` of this process.

    ``memory`` is what a worker process may take: bytes, or text such as "2GiB"; without it, 70 %
    of a worker's memory limit or of this machine's memory.  ``cache`` is what it may keep of the
    rows between passes: an amount like ``memory``, "none", or "auto" for what the plan leaves free.
    ``writing`` is what writing passes to a checkpoint takes, in bytes, where there is one.
    """
    return plan_on(resources(dataset, client, threads), dataset, spec, memory, cache, writing)


def plan_on(
    on: Resources,
    dataset: Dataset,
    spec: FitSpec,
    memory: str | int | None,
    cache: str | int,
    writing: int = 0,
) -> Plan:
    """Plan to fit ``spec`` to ``dataset`` with ``on``; the rest is as in ``plan``."""
    rows, n_features, threads = dataset.rows, dataset.n_features, on.threads
    first_pass_spec = first_pass_spec_of(dataset, spec)
    budget = spec.budget(rows, n_features, first_pass_spec.sampled(rows))
    needs = Needs.of(dataset, spec, near=on.in_process)
    alive = results_alive(dataset.blocks, threads)
    # Samples are fitted to, and checkpoints written, in the process of the fit.
    samples = first_pass_spec.samples_nbytes(
        rows, n_features, dataset.block_rows, PairwiseSum.most(dataset.blocks), 3 * threads
    )
    fat = not on.in_process and not dataset.lazy
    planned = Plan(
        source=dataset.source.name,
        rows=rows,
        n_features=n_features,
        n_components=spec.components,
        width=spec.covariance_model.features.width(n_features),
        engine=on.engine,
        kernel=choice.described(spec.kernel),
        workers=on.workers,
        threads=threads,
        blocks=dataset.blocks,
        block_rows=dataset.block_rows,
        block_bytes=dataset.block_bytes,
        tasks=count_tasks(dataset, threads * on.workers) if fat else dataset.blocks,
        pass_bytes=rows * dataset.row_bytes,
        base_bytes=on.base + SLACK,
        thread_bytes=needs.thread,
        shared_bytes=alive * needs.statistics
        + (needs.solvers + writing if on.in_process else needs.given)
        + samples,
        cache_bytes=0,
        limit_bytes=int(on.available * USABLE) if memory is None else memory_bytes(memory),
        starts=budget.starts,
        starts_rows=budget.rows,
        starts_passes=budget.passes,
    )
    return replace(planned, cache_bytes=_cache_bytes(planned, on, dataset, memory, cache))


def _cache_bytes(
    planned: Plan, on: Resources, dataset: Dataset, memory: str | int | None, cache: str | int
) -> int:
    """How much of the rows a worker process keeps, where all else is ``planned``."""
    keeps = cache not in ("none", "0", 0)
    limit = memory_bytes(cache) if keeps and cache != "auto" else None
    if not keeps or not dataset.read_bytes or (dataset.lazy and not on.in_process):
        return 0  # in memory already, or not ours to keep
    room = min(int(on.available * CACHEABLE), on.free) if memory is None else planned.limit_bytes
    room = max(0, room - planned.peak_bytes) if limit is None else limit
    share = -(-planned.pass_bytes // on.workers) + planned.block_bytes * (on.workers > 1)
    return min(room, share)
