"""Sweeps with the workers of a Dask cluster.

A task takes a run of 2^j consecutive blocks, one at a time; what it is given (the mixture, and
where the data lie) is the result of one small task that the workers fetch from each other, not
scattered data: a result can be computed again when its worker dies, scattered data are lost with
it.  Only the final sum comes back.  The rows of a Dask array come through its own graph.

Where processes keep blocks between sweeps, each run of blocks has a worker that is asked first, but
any may take it: a block that is not there is read again.

**What may go wrong.**  Dask itself runs the tasks of a dead worker again.  Where the scheduler or
the connection is lost, the sweep is begun again when they are back, ``ATTEMPTS`` times at most,
with keys never used before.  Workers that don't answer while nothing gets done are dropped, so
their tasks go to others.  Nothing of an abandoned sweep gets into another's result.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

import numpy as np
from dask.delayed import delayed
from distributed import Client, KilledWorker
from distributed.protocol.pickle import dumps

from dgmm.cache import Cache, cache_for, forget
from dgmm.dataset import DaskSource, Dataset, Source
from dgmm.errors import BlockError, LostError
from dgmm.statistics import Mergeable
from dgmm.sweep import Block, tree_sum
from dgmm.threads import Meter, apply, block_name, one_blas_thread, rows_between
from dgmm.workers import (
    LOST,
    UNANSWERED,
    ask_workers,
    check_alike,
    check_open,
    connect,
    lost,
    standing_aside,
    wait_for_threads,
    watched,
    worker_threads,
)

log = logging.getLogger("dgmm")

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)

FAN_IN: Final = 16
"""How many results one task adds up: a power of two, so that it adds whole nodes of the tree."""

TASK_BYTES: Final = 256 << 20
"""The most one task reads, so that a lost one costs seconds."""

RETRIES: Final = 2

ATTEMPTS: Final = 5
"""How often a sweep is begun before the cluster is given up."""

RETURN_SECONDS: Final = 300
"""How long to wait for a lost scheduler to come back."""


@dataclass
class Cluster:
    """Sweeps with the workers of a Dask cluster.

    ``client`` is replaced if it can't be saved; ``address`` is its scheduler's, once it was used;
    ``alike`` are the workers found fit to serve.
    """

    dataset: Dataset
    client: Client
    meter: Meter = field(default_factory=Meter)
    cache_bytes: int = 0
    token: str = field(init=False)
    address: str = ""
    alike: frozenset[str] = frozenset()
    own: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.token = _token(self.client)

    def close(self) -> None:
        """Free what is kept, as far as workers answer: nothing is lost where they don't."""
        with self.own:
            if self.cache_bytes and self.client.status == "running":
                ask_workers(self.client, forget, self.token, wait=False, on_error="ignore")

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T:
        with standing_aside():
            return self._persistently(fn, given)

    def _persistently(self, fn: Callable[[Block, G], T], given: G) -> T:
        """A sweep, begun again where the cluster is lost."""
        if not self.address:
            check_open(self.client)
            wait_for_threads(self.client)  # not for longer: there may never be one
            self.address = self.client.scheduler.address
        for attempt in range(2, ATTEMPTS + 1):
            counted = self.meter.rows
            try:
                return self._sweep(fn, given)
            except LostError as error:
                log.warning("%s: begun again, %d of %d", error, attempt, ATTEMPTS)
                self.meter.add(counted - self.meter.rows)
                self._find_again(self.address)
        return self._sweep(fn, given)

    def _find_again(self, address: str) -> None:
        """Wait until the scheduler is back, and a worker."""
        until = time.monotonic() + RETURN_SECONDS
        while time.monotonic() < until:
            with suppress(*UNANSWERED, LostError):
                if self.client.status == "closed":
                    client = connect(address, security=self.client.security)
                    self.client = self.own.enter_context(client)
                    self.token = _token(client)
                if self.client.status == "running" and worker_threads(self.client):
                    return
            time.sleep(0.5)
        raise LostError(
            f"the Dask scheduler at {address} with a worker did not come back in {RETURN_SECONDS} s"
        )

    def _sweep(self, fn: Callable[[Block, G], T], given: G) -> T:
        workers = wait_for_threads(self.client)
        if not self.alike.issuperset(workers):
            check_alike(self.client)
            self.alike = frozenset(workers)
        if self.dataset.lazy:
            return self._through_graph(fn, given)
        threads = sum(workers.values())
        step = run_length(self.dataset, threads)
        runs = [
            (first, min(first + step, self.dataset.blocks))
            for first in range(0, self.dataset.blocks, step)
        ]
        job: Any = (self.dataset, fn, given, self.token, self.cache_bytes)
        futures: list[Any] = []
        try:
            few = len(runs) <= 2 * threads
            futures += self._submit(job, runs, workers, few and _is_small(job, len(runs)))
            return watched(self.client, futures)
        except LOST as error:
            raise lost(error) from error
        except KilledWorker as error:
            raise self._named(error, futures, runs) from error
        finally:
            for future in futures:  # a traceback would keep them, and they their results
                future.release()

    def _submit(
        self, job: Any, runs: list[tuple[int, int]], workers: dict[str, int], inline: bool
    ) -> Iterator[Any]:
        """The futures of a sweep: first one for each run of blocks, last the sum's."""
        token = uuid4().hex  # keys are never used again: an old result can't be taken for a new
        if not inline:  # few tasks would all be sent where the job's result is
            job = self.client.submit(_same, job, key=(f"dgmm-given-{token}", 0), priority=10)
        level = []
        for chosen, home in self._homes(len(runs), workers):
            level += self.client.map(
                _run,
                [job] * len(chosen),
                *zip(*(runs[i] for i in chosen), strict=True),
                key=[(f"dgmm-sweep-{token}", i) for i in chosen],
                retries=RETRIES,
                pure=False,
                **home,
            )
        for future, run in zip(level, runs, strict=True):
            rows = rows_between(self.dataset, *run)
            future.add_done_callback(partial(self._count, rows))
        yield from level
        height = 0
        while len(level) > 1:
            height += 1
            groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
            level = self.client.map(
                tree_sum,
                groups,
                key=[(f"dgmm-add{height}-{token}", i) for i in range(len(groups))],
                retries=RETRIES,
                priority=5,
                pure=False,
            )
            yield from level

    def _count(self, rows: int, future: Any) -> None:
        """Count ``rows`` if they were swept: a future that is given up is done, too."""
        if future.status == "finished":
            self.meter.add(rows)

    def _homes(self, runs: int, workers: dict[str, int]) -> Iterator[tuple[range, dict[str, Any]]]:
        """Which of the ``runs`` go together, and where they would best be computed."""
        if not self.cache_bytes:
            yield range(runs), {}
            return
        # In the order of their names, so that a worker finds what it kept in the last sweep.
        threads = sorted(workers.items())
        ends = np.cumsum([count for _, count in threads])
        ends = runs * ends // ends[-1]
        for start, stop, (worker, _) in zip([0, *ends], ends, threads, strict=False):
            if start < stop:
                home = {"workers": [worker], "allow_other_workers": True}
                yield range(int(start), int(stop)), home

    def _named(
        self, error: KilledWorker, futures: list[Any], runs: list[tuple[int, int]]
    ) -> BlockError:
        """An error that names the rows whose workers died.

        Dask blames each task that a dying worker held, so there may be several, one the culprit.
        """
        cuts = self.dataset.cuts
        blamed = [
            f"rows {cuts[first]} to {cuts[last]}"
            for future, (first, last) in zip(futures, runs, strict=False)
            if future.status == "error"
        ]
        return BlockError(
            f"{' or '.join(blamed) or 'some rows'} of {self.dataset.source.name}: "
            f"each worker that took them died: {error}"
        )

    def _through_graph(self, fn: Callable[[Block, G], T], given: G) -> T:
        """The same for rows or weights that a Dask graph computes: a task a block."""
        rows, weights = _parts(self.dataset, self.dataset.source), None
        if self.dataset.weights is not None:
            weights = _parts(self.dataset, self.dataset.weights)
        job = delayed((fn, given), name=f"dgmm-given-{uuid4().hex}", traverse=False)
        level = [
            delayed(_run_graph, pure=False)(
                job,
                self.dataset.span(index)[0],
                block_name(self.dataset, index),
                rows[index],
                None if weights is None else weights[index],
            )
            for index in range(self.dataset.blocks)
        ]
        add = delayed(tree_sum, pure=False)
        while len(level) > 1:
            level = [add(level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
        future = self.client.compute(level[0], retries=RETRIES)
        try:
            result = watched(self.client, [future])
        except (BlockError, LostError):
            raise
        except LOST as error:
            raise lost(error) from error
        except Exception as error:  # in the graph that the array came with
            name = self.dataset.source.name
            raise BlockError(
                f"{name} could not be computed: {type(error).__name__}: {error}"
            ) from error
        finally:
            future.release()
        self.meter.add(self.dataset.rows)
        return result


def _token(client: Client) -> str:
    """A name for what a worker keeps, which says for whom."""
    return f"{client.id} {uuid4().hex}"


def _is_small(job: Any, copies: int) -> bool:
    """Whether so many copies of ``job`` may travel through the scheduler."""
    return copies * len(dumps(job)) < 10 << 20


def run_length(dataset: Dataset, threads: int) -> int:
    """How many blocks a task takes: a power of two that leaves several tasks a thread."""
    block_bytes = dataset.block_rows * dataset.row_bytes
    most = min(dataset.blocks // (4 * threads), TASK_BYTES // max(1, block_bytes))
    return 1 << max(0, int(most).bit_length() - 1)


def _same(job: Any) -> Any:
    return job


def _run(job: tuple[Dataset, Callable[[Block, G], T], G, str, int], first: int, last: int) -> T:
    """A worker's task: the sum over blocks ``first`` to ``last``, each read one block ahead."""
    dataset, fn, given, token, room = job
    cache = cache_for(token, room) if room else Cache(0)

    def results(reader: ThreadPoolExecutor) -> Iterator[T]:
        reading = reader.submit(cache.block, dataset, first)
        for index in range(first, last):
            current = reading
            if index + 1 < last:
                reading = reader.submit(cache.block, dataset, index + 1)
            yield apply(fn, given, current.result, block_name(dataset, index))

    with one_blas_thread(), ThreadPoolExecutor(1, "dgmm-read") as reader:
        return tree_sum(results(reader))


def _parts(dataset: Dataset, source: Source) -> list[Any]:
    """Each block's rows or weights: a lazy array, or how to read it."""
    if isinstance(source, DaskSource):
        return list(source.array.to_delayed().ravel())
    return [partial(source.read, *dataset.span(index)) for index in range(dataset.blocks)]


def _array(part: Any) -> Any:
    return None if part is None else np.asarray(part() if callable(part) else part)


def _run_graph(
    job: tuple[Callable[[Block, G], T], G], start: int, place: str, rows: Any, weights: Any
) -> T:
    fn, given = job
    with one_blas_thread():
        return apply(fn, given, lambda: Block(start, _array(rows), _array(weights)), place)
