"""Sweeps with the workers of a Dask cluster.

A task takes a run of 2^j consecutive blocks, one at a time (runs.py).  All tasks need the mixture,
and where the data lie.  That is the result of one small task, which the workers fetch from each
other.  It is not scattered data: a result is computed again when its worker dies, scattered data
are lost with it.  Only the final sum comes back.  The rows of a Dask array come through its own
graph.

Where processes keep blocks between sweeps, each run of blocks has a preferred worker.  Any other
may take the run, too; then the blocks are read again.

**What may go wrong.**  Dask itself runs the tasks of a dead worker again.  Where the scheduler or
the connection is lost, the sweep is begun again when they are back, ``ATTEMPTS`` times at most,
with keys never used before.  Workers that don't answer while nothing gets done are dropped, so
their tasks go to others.  Nothing of an abandoned sweep gets into another's result.

A worker that can't read where others can (its mount is gone, it has no credentials) fails fastest,
and so it would get most tasks.  When a worker fails, all are asked for the same block; those that
fail are left out, and the sweep is begun again without them.  If all fail, the first error is
raised.
"""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import dask
from dask.delayed import delayed
from dask.sizeof import sizeof
from distributed import Client, KilledWorker, wait
from distributed.protocol.pickle import dumps

from dgmm.data.clients import check_open
from dgmm.data.dataset import Dataset
from dgmm.data.transient import may_work_elsewhere
from dgmm.engine import cuts
from dgmm.engine.aligned import aligned
from dgmm.engine.cache import caches
from dgmm.engine.meter import Meter
from dgmm.engine.runs import FAN_IN, RETRIES, Runs, size_of
from dgmm.engine.tasks import Job, add_up, hand_on, parts_of, run_blocks, run_graph, start_runs
from dgmm.engine.threads import block_name, rows_between
from dgmm.engine.units import unit_rows
from dgmm.engine.workers import (
    ANSWER_SECONDS,
    LOST,
    UNANSWERED,
    Watch,
    ask_workers,
    check_versions_match,
    connect,
    failed_on,
    free_left,
    lost,
    standing_aside,
    wait_for_threads,
    worker_threads,
)
from dgmm.errors import BlockError, ClusterLostError
from dgmm.kernels.sweep import Block
from dgmm.model.statistics import Mergeable

log = logging.getLogger("dgmm")

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)


LARGE: Final = "distributed.admin.large-graph-warning-threshold"
"""Dask's setting of the size of a graph to warn of: ours has the mixture in it, once."""

ATTEMPTS: Final = 5
"""How often a sweep is begun before the cluster is given up."""

ASKED_SECONDS: Final = 5
"""How long a worker asks a store again, where the question is whether it can read at all."""

RETURN_SECONDS: Final = 300
"""How long to wait for a lost scheduler to come back."""


@dataclass
class Cluster:
    """Sweeps with the workers of a Dask cluster.

    ``client`` is replaced if it can't be saved; ``address`` is its scheduler's, once it was used;
    ``checked`` are workers that are fit to serve; ``left_out`` those that can't do what others can;
    ``pace`` is how many seconds a thread took for a block in the last sweep, if that is known.
    """

    dataset: Dataset
    client: Client
    meter: Meter = field(default_factory=Meter)
    cache_bytes: int = 0
    token: str = field(init=False)
    address: str = ""
    checked: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    pace: float = 0.0
    connections: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.token = _token(self.client)

    def close(self) -> None:
        """Free the blocks that are kept; a worker that does not answer is passed over.

        It is waited for: to a fit that comes meanwhile, the room would seem taken.
        """
        with self.connections:
            if self.cache_bytes and self.client.status == "running":
                ask_workers(self.client, caches.release, self.token, on_error="ignore")

    def __call__(self, fn: Callable[[Block, G], T], given: G) -> T:
        with standing_aside():
            return self._persistently(fn, given)

    def _persistently(self, fn: Callable[[Block, G], T], given: G) -> T:
        """A sweep, begun again where the cluster is lost."""
        if not self.address:
            check_open(self.client)
            wait_for_threads(self.client)  # not for longer: there may never be one
            scheduler: Any = self.client.scheduler  # there is one: the Client is open
            self.address = scheduler.address
        for attempt in range(2, ATTEMPTS + 1):
            counted = self.meter.rows
            try:
                return self._sweep(fn, given)
            except ClusterLostError as error:
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
        """The workers that fail as one of them did, with their errors, if others don't.

        Raises ``error`` if all fail, or if it is no worker's fault.
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
            hand_on,
            Job(dataset, fn, given, self.token, 0),
            key=(f"dgmm-given-{token}", 0),
            priority=20,
        )
        answers = {
            worker: self.client.submit(
                run_blocks,
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
            wait(list(answers.values()), timeout=self.dataset.patience.seconds + ANSWER_SECONDS)
        if not any(future.status == "finished" for future in answers.values()):
            raise error
        return {w: future.exception() for w, future in answers.items() if future.status == "error"}

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
            with suppress(*UNANSWERED, ClusterLostError):
                if self.client.status == "closed":
                    client = connect(address, security=self.client.security)
                    self.client = self.connections.enter_context(client)
                    self.token = _token(client)
                if self.client.status == "running" and worker_threads(self.client):
                    return
            time.sleep(0.5)
        raise ClusterLostError(
            f"the Dask scheduler at {address} with a worker did not come back in {RETURN_SECONDS} s"
        )

    def _meet(self, workers: Collection[str]) -> None:
        """Check that versions match, and free leftovers, before ``workers`` first serve."""
        check_versions_match(self.client, len(workers))
        if not self.checked:
            free_left(self.client)
        self.checked = frozenset(workers)

    def _sweep(self, fn: Callable[[Block, G], T], given: G) -> T:
        workers = self._able(wait_for_threads(self.client))
        if not self.checked.issuperset(workers):
            self._meet(workers)
        if self.dataset.lazy:
            result = self.dataset.patience(partial(self._through_graph, fn, given, workers))
            if isinstance(result, ClusterLostError):
                raise result
            return result
        threads = sum(workers.values())
        cut = cuts.cut_for(self.dataset, threads, self.pace)
        homes = self._homes(workers)
        given_out = cut.runs([threads for threads, _ in homes])
        count = sum(map(len, given_out))
        job: Any = Job(self.dataset, fn, given, self.token, self.cache_bytes)
        name = uuid4().hex
        # Few tasks would all be sent where the job's result is.
        if count > 2 * threads or not _is_small(job, count):
            with dask.config.set({LARGE: "1TiB"}):
                job = self.client.submit(hand_on, job, key=(f"dgmm-given-{name}", 0), priority=10)
        start = partial(start_runs, self.client, job, cut)
        runs = Runs(self.client, name, cut, start, self._count, workers)
        watch = Watch(self.client, workers if self.left_out else ())
        try:
            for nodes, (_, home) in zip(given_out, homes, strict=True):
                runs.give_out(nodes, home)
            ((_, _, result),) = watch.result(runs.whole(watch)).nodes
            if not self.cache_bytes:  # or else other runs would look for blocks elsewhere
                self.pace = runs.seconds * threads / cut.blocks
            return cast(T, aligned(result))
        except LOST as error:
            raise lost(error) from error
        except KilledWorker as error:
            raise self._named(error, runs) from error
        finally:  # a traceback would keep futures, and they their results
            runs.release()
            if not isinstance(job, Job):
                job.release()

    def _count(self, first: int, last: int) -> None:
        self.meter.add(rows_between(self.dataset, first, last))

    def _homes(self, workers: dict[str, int]) -> list[tuple[int, dict[str, Any]]]:
        """The places to compute runs at: numbers of threads, and options for their tasks."""
        if not self.cache_bytes or self.left_out:  # a preferred worker could be one left out
            return [(sum(workers.values()), self._only(workers))]
        # In the order of their names, so that a worker finds what it kept in the last sweep.
        return [
            (threads, {"workers": [worker], "allow_other_workers": True})
            for worker, threads in sorted(workers.items())
        ]

    def _named(self, error: KilledWorker, runs: Runs) -> BlockError:
        """An error that names the rows whose workers died.

        Dask blames each task that a dying worker held, so there may be several, one the culprit.
        """
        divisions = self.dataset.divisions
        blamed = [f"rows {divisions[first]} to {divisions[last]}" for first, last in runs.failed()]
        return BlockError(
            f"{' or '.join(blamed) or 'some rows'} of {self.dataset.source.name}: "
            f"each worker that took them died: {error}"
        )

    def _through_graph(
        self, fn: Callable[[Block, G], T], given: G, workers: dict[str, int]
    ) -> T | ClusterLostError:
        """The same for rows, or what lies beside them, that a Dask graph computes: a task a block.

        Returns the error of a cluster that is lost, and does not raise it: no patience with a store
        would help.
        """
        sources = {"rows": self.dataset.source, **self.dataset.beside}
        parts = {name: parts_of(self.dataset, each) for name, each in sources.items()}
        given_to_tasks = fn, given, unit_rows(self.dataset.rows, given), self.dataset.names
        job = delayed(given_to_tasks, name=f"dgmm-given-{uuid4().hex}", traverse=False)
        level = [
            delayed(run_graph, pure=False)(
                job,
                self.dataset.row_range(index)[0],
                block_name(self.dataset, index),
                {name: each[index] for name, each in parts.items()},
            )
            for index in range(self.dataset.blocks)
        ]
        add = delayed(add_up, pure=False)
        while len(level) > 1:
            level = [add(level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
        future = self.client.compute(level[0], retries=RETRIES, **self._only(workers))
        try:
            watch = Watch(self.client, workers if self.left_out else ())
            result: T = aligned(watch.result(future))
        except BlockError:
            raise
        except ClusterLostError as error:
            return error
        except LOST as error:
            return lost(error)
        except Exception as error:  # in the graph that the array came with
            name = self.dataset.source.name
            failure = BlockError(f"{name} could not be computed: {type(error).__name__}: {error}")
            if may_work_elsewhere(error):
                failure.worker = failed_on(self.client, future.key)
            raise failure from error
        finally:
            future.release()
        self.meter.add(self.dataset.rows)
        return result


def _token(client: Client) -> str:
    """A name for what a worker keeps, which names the client that it is kept for."""
    return f"{client.id} {uuid4().hex}"


def _is_small(job: Any, copies: int) -> bool:
    """Whether so many copies of ``job`` may travel through the scheduler."""
    return copies * len(dumps(job)) < 10 << 20


sizeof.register(Job, size_of)
