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

A worker that can't read where others can (its mount is gone, it has no credentials) fails fastest,
and so would get the tasks.  Where one could not, all are asked for the same block; those that fail
are left out, and the sweep is begun again without them.  If none can, the first error is told.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Any, Final, TypeVar
from uuid import uuid4

import numpy as np
from dask.delayed import delayed
from distributed import Client, KilledWorker, get_worker, wait
from distributed.protocol.pickle import dumps

from dgmm.cache import Cache, cache_for, forget
from dgmm.dataset import DaskSource, Dataset, Source
from dgmm.direct import memory
from dgmm.errors import BlockError, LostError, elsewhere
from dgmm.statistics import Mergeable
from dgmm.sweep import Block, tree_sum
from dgmm.threads import Meter, apply, block_name, one_blas_thread, rows_between
from dgmm.workers import (
    ANSWER_SECONDS,
    LOST,
    UNANSWERED,
    ask_workers,
    check_alike,
    check_open,
    connect,
    failed_on,
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
"""How often Dask runs a failed task again, but for those that read stored rows (``_unable``)."""

ATTEMPTS: Final = 5
"""How often a sweep is begun before the cluster is given up."""

ASKED_SECONDS: Final = 5
"""How long a worker asks a store again that is asked whether it can read at all."""

RETURN_SECONDS: Final = 300
"""How long to wait for a lost scheduler to come back."""


@dataclass
class Cluster:
    """Sweeps with the workers of a Dask cluster.

    ``client`` is replaced if it can't be saved; ``address`` is its scheduler's, once it was used;
    ``alike`` are the workers found fit to serve; ``left_out`` those that can't do what others can.
    """

    dataset: Dataset
    client: Client
    meter: Meter = field(default_factory=Meter)
    cache_bytes: int = 0
    token: str = field(init=False)
    address: str = ""
    alike: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
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
            except BlockError as error:
                self._leave_out(self._unable(error, fn, given), error)
                log.warning("%s: begun again, %d of %d", error, attempt, ATTEMPTS)
                self.meter.add(counted - self.meter.rows)
        return self._sweep(fn, given)

    def _unable(
        self, error: BlockError, fn: Callable[[Block, G], T], given: G
    ) -> dict[str, BaseException]:
        """The workers that can't do what one of them could not, and why, if others can.

        Raises ``error`` if none can, or if it is no worker's fault.
        """
        if error.worker is None:
            raise error
        if error.block is None:
            return {error.worker: error}
        hasty = replace(
            self.dataset.patience, seconds=min(ASKED_SECONDS, self.dataset.patience.seconds)
        )
        dataset = replace(self.dataset, patience=hasty)
        token = uuid4().hex
        job = self.client.submit(
            _same, (dataset, fn, given, self.token, 0), key=(f"dgmm-given-{token}", 0), priority=20
        )
        asked = {
            worker: self.client.submit(
                _run,
                job,
                error.block,
                error.block + 1,
                key=(f"dgmm-asked-{token}", number),
                workers=[worker],
                priority=20,
            )
            for number, worker in enumerate(self._able(worker_threads(self.client)))
        }
        with self.client.as_current(), suppress(TimeoutError, *LOST):  # who is silent may be busy
            wait(list(asked.values()), timeout=self.dataset.patience.seconds + ANSWER_SECONDS)
        if not any(future.status == "finished" for future in asked.values()):
            raise error
        return {w: future.exception() for w, future in asked.items() if future.status == "error"}

    def _leave_out(self, unable: dict[str, BaseException], error: BlockError) -> None:
        """Give no more tasks to those ``unable``; raises ``error`` if there are no others."""
        if not set(worker_threads(self.client)) - self.left_out - set(unable):
            raise error
        for worker, why in unable.items():
            log.warning(
                "the worker at %s is left out, others can do what it can't: %s", worker, why
            )
        self.left_out |= set(unable)

    def _able(self, workers: dict[str, int]) -> dict[str, int]:
        """Those of the ``workers`` that are not left out; all, if there are no others any more."""
        able = {name: count for name, count in workers.items() if name not in self.left_out}
        if not able:
            self.left_out = frozenset()
        return able or workers

    def _only(self, workers: dict[str, int]) -> dict[str, Any]:
        """Options for tasks that no worker that is left out may take."""
        return {"workers": list(workers), "allow_other_workers": False} if self.left_out else {}

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
        workers = self._able(wait_for_threads(self.client))
        if not self.alike.issuperset(workers):
            check_alike(self.client)
            self.alike = frozenset(workers)
        if self.dataset.lazy:
            found = self.dataset.patience(partial(self._through_graph, fn, given, workers))
            if isinstance(found, LostError):
                raise found
            return found
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
            return watched(self.client, futures, workers if self.left_out else ())
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
        if not self.cache_bytes or self.left_out:  # or else those would be asked, too
            yield range(runs), self._only(workers)
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

    def _through_graph(
        self, fn: Callable[[Block, G], T], given: G, workers: dict[str, int]
    ) -> T | LostError:
        """The same for rows or weights that a Dask graph computes: a task a block.

        Gives, not raises, the error of a cluster that is lost: no patience with a store helps.
        """
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
        future = self.client.compute(level[0], retries=RETRIES, **self._only(workers))
        try:
            result = watched(self.client, [future], workers if self.left_out else ())
        except BlockError:
            raise
        except LostError as error:
            return error
        except LOST as error:
            return lost(error)
        except Exception as error:  # in the graph that the array came with
            name = self.dataset.source.name
            told = BlockError(f"{name} could not be computed: {type(error).__name__}: {error}")
            if elsewhere(error):
                told.worker = failed_on(self.client, future.key)
            raise told from error
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
    leaving = Event()  # whoever waits for a store waits no longer

    def result(index: int, reading: Future[Block]) -> T:
        try:
            return apply(fn, given, reading.result, block_name(dataset, index))
        except BlockError as error:
            if reading.exception() is not None or elsewhere(error):
                error.block, error.worker = index, get_worker().address
            raise

    def results(reader: ThreadPoolExecutor) -> Iterator[T]:
        reading = reader.submit(cache.block, dataset, first, leaving.wait)
        for index in range(first, last):
            current = reading
            if index + 1 < last:
                reading = reader.submit(cache.block, dataset, index + 1, leaving.wait)
            yield result(index, current)

    with one_blas_thread(), ThreadPoolExecutor(1, "dgmm-read") as reader:
        try:
            return tree_sum(results(reader))
        finally:
            leaving.set()
            memory.clear()


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
