"""What one asks of a Dask cluster: where it is, who works there, whether they live and match.

Scheduler and workers may hang without a word, so every question has its time; what is not answered
within it is ``ClusterLostError``, or None where a worker's answer is not needed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import dask
from distributed import Client, rejoin, secede
from distributed.client import FutureCancelledError
from distributed.comm.addressing import get_address_host
from distributed.comm.core import CommClosedError
from distributed.security import Security
from distributed.worker import thread_state  # type: ignore[attr-defined]  # as all versions have it

from dgmm.engine.cache import caches
from dgmm.errors import ClusterError, ClusterLostError

log = logging.getLogger("dgmm")

QUIET_SECONDS: Final = 60
"""How long without a finished task until workers are asked if they live; see ``quiet_seconds``."""

ANSWER_SECONDS: Final = 10
"""How long a worker may take to say so."""

SCHEDULER_SECONDS: Final = 30
"""How long the scheduler may take to answer."""

WORKER_ASKED_SECONDS: Final = 0.1
"""How much longer it may take for each worker that it has to ask."""

MATCHED: Final[tuple[str, ...]] = ("dgmm", "dask", "distributed", "numpy", "zarr", "numcodecs")
MATCHED_BY_SCHEDULER: Final[tuple[str, ...]] = ("dask", "distributed")
"""The packages whose versions must be the same on all workers, and on the scheduler, too."""

WORKER_SECONDS: Final = 60
"""How long to wait for a cluster's first worker."""

LOST: Final = (CancelledError, FutureCancelledError, CommClosedError)
"""What a future says when its scheduler is gone."""

UNANSWERED: Final = (OSError, *LOST)
"""What becomes of a question to a scheduler that is gone, or to a worker."""


def connect(address: str, seconds: float = 10.0, security: Security | None = None) -> Client:
    """A Client of the scheduler at ``address``; raises ``ClusterLostError`` after ``seconds``.

    Certificates are those of ``security``, else of Dask's configuration.  Raises ``ClusterError``
    if ``address`` is none, or asks for a certificate that isn't there.
    """
    try:
        get_address_host(address)
    except ValueError as error:
        raise ClusterError(f"{address!r} is no address: {error}; try tcp://host:8786") from error
    security = security or Security()
    if address.startswith("tls") and not security.get_connection_args("client")["ssl_context"]:
        raise ClusterError(
            f"{address} wants a certificate, and Dask's configuration names none: set "
            "distributed.comm.tls.ca-file, distributed.comm.tls.client.cert and .key"
        )
    try:
        return Client(address, timeout=seconds, security=security, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterLostError(
            f"no Dask scheduler answered at {address} within {seconds:g} s: {error}"
        ) from error


@contextmanager
def standing_aside() -> Iterator[None]:
    """Where this runs in a task, give its place to other tasks while inside.

    Those waited for may have no other place.
    """
    stepped = False
    if hasattr(thread_state, "start_time"):  # in a task that has a thread
        with suppress(ValueError, KeyError):  # no worker's; one that has stood aside already
            secede()
            stepped = True
    try:
        yield
    finally:
        if stepped:
            rejoin()


def wait_for_threads(client: Client, seconds: float | None = None) -> dict[str, int]:
    """How many threads each worker has, once there is one; waits ``WORKER_SECONDS`` at least."""
    seconds = max(seconds or 0, WORKER_SECONDS)
    if client.status != "running":
        raise ClusterLostError("the Dask cluster was lost: its scheduler does not answer")
    until = time.monotonic() + seconds
    while not (threads := worker_threads(client)):
        if time.monotonic() > until:
            raise ClusterLostError(f"the Dask cluster had no worker within {seconds:g} s")
        time.sleep(0.2)
    return threads


def worker_threads(client: Client) -> dict[str, int]:
    """How many threads each worker has, as the scheduler says."""
    return dict(_ask_scheduler(client, client.nthreads))


def _ask_scheduler(
    client: Client,
    question: Callable[..., Any],
    *args: Any,
    more: float = 0.0,
    **options: Any,
) -> Any:
    """What the scheduler answers to a question; raises ``ClusterLostError`` unless it does in time.

    It has ``more`` seconds than usual.
    """

    async def ask() -> Any:
        return await asyncio.wait_for(question(*args, **options), SCHEDULER_SECONDS + more)

    try:
        return client.sync(ask)
    except UNANSWERED as error:
        raise lost(error) from error


def lost(error: BaseException) -> ClusterLostError:
    """What one of ``LOST`` or ``UNANSWERED`` means."""
    return ClusterLostError(f"the Dask cluster was lost ({type(error).__name__})")


def check_versions_match(client: Client, workers: int) -> None:
    """Raise ``ClusterError`` if versions of packages differ: results would, or pickles break.

    So many ``workers`` are asked, by the scheduler, each over a connection of its own.
    """
    more = workers * WORKER_ASKED_SECONDS
    versions = _ask_scheduler(client, client.get_versions, packages=list(MATCHED), more=more)
    ours = versions["client"]["packages"]
    others = {"the scheduler": (versions["scheduler"], MATCHED_BY_SCHEDULER)}
    others |= {f"worker {name}": (each, MATCHED) for name, each in versions["workers"].items()}
    unlike = [
        f"{package} is {ours.get(package)} here, {each['packages'].get(package)} on {name}"
        for name, (each, packages) in others.items()
        for package in packages
        if each["packages"].get(package) != ours.get(package)
    ]
    if unlike:
        raise ClusterError(
            "the cluster's packages are not those of this process; use one image for all: "
            + "; ".join(unlike)
        )


def quiet_seconds() -> float:
    """Seconds without a finished task after which workers are asked whether they live.

    Dask's configuration value ``dgmm.quiet-seconds``.
    """
    return float(dask.config.get("dgmm.quiet-seconds", QUIET_SECONDS))


@dataclass
class Watch:
    """Has an eye on a cluster: workers that hang while nothing gets done are dropped.

    Of those ``needed`` one must be left.
    """

    client: Client
    needed: Collection[str] = ()
    quiet: float = field(default_factory=quiet_seconds)
    _since: float = field(default_factory=time.monotonic)

    @property
    def pause(self) -> float:
        """How long to wait until the next look."""
        return min(self.quiet, 5)

    def heard(self) -> None:
        """Something got done."""
        self._since = time.monotonic()

    def look(self) -> None:
        """Drop workers that hang; raises ``ClusterLostError`` if no others are left."""
        if time.monotonic() - self._since <= self.quiet:
            return
        _drop_hung(self.client)
        if self.needed and not set(self.needed).intersection(worker_threads(self.client)):
            raise ClusterLostError("the Dask cluster has lost all workers that can read the rows")
        self.heard()

    def result(self, future: Any) -> Any:
        """The result of ``future``."""
        while True:
            try:
                return future.result(timeout=self.pause)
            except TimeoutError:
                if future.status == "error":  # a task's own
                    raise
            self.look()


def tasks_under_way(client: Client) -> dict[str, list[Any]]:
    """The keys of the tasks that each worker was given."""
    return dict(_ask_scheduler(client, client.processing))


def _drop_hung(client: Client) -> None:
    """Have the scheduler forget workers that don't answer; their tasks go to others.

    Raises ``ClusterLostError`` if there are no others, or no scheduler.
    """
    workers = list(worker_threads(client))
    answering = client.sync(_answering, client, workers)
    if not any(answering):
        raise ClusterLostError(
            f"the Dask cluster was lost: of its workers ({len(workers)}) none answers"
        )
    for worker, answered in zip(workers, answering, strict=True):
        if not answered:
            log.warning("the worker at %s does not answer: its tasks go to others", worker)
            _ask_scheduler(client, client.run_on_scheduler, _drop, worker)


async def _answering(client: Client, workers: list[str]) -> list[bool]:
    """Which of ``workers`` answer in time."""
    asked = (client.run(_alive, workers=[worker]) for worker in workers)
    timed = (asyncio.wait_for(each, ANSWER_SECONDS) for each in asked)
    return [reply is not None for reply in await asyncio.gather(*map(_in_time, timed))]


async def _in_time(asked: Awaitable[Any]) -> Any:
    """What it gives, or None if that can't be had in time."""
    with suppress(*UNANSWERED):
        return await asked
    return None


def _alive() -> bool:
    return True


async def _drop(worker: str, dask_scheduler: Any) -> None:
    await dask_scheduler.remove_worker(worker, stimulus_id="dgmm-hung", expected=True)


def failed_on(client: Client, key: Any) -> str | None:
    """The worker on which what ``key`` needs has failed; None if that is not known."""
    worker: str | None = _ask_scheduler(client, client.run_on_scheduler, _failed_on, key)
    return worker


def _failed_on(key: Any, dask_scheduler: Any) -> str | None:
    task = dask_scheduler.tasks.get(key)
    blamed = task and task.exception_blame
    return min(blamed.erred_on or (), default=None) if blamed else None


def left_bytes(client: Client) -> dict[str, int]:
    """What each worker that answers keeps of rows for clients that are gone."""
    return ask_workers(client, caches.left_behind, _living(client), on_error="ignore") or {}


def free_left(client: Client) -> None:
    """Have workers release what they keep of rows for clients that are gone."""
    ask_workers(client, caches.release_all_but, _living(client), on_error="ignore")


def _living(client: Client) -> list[str]:
    """The clients that the scheduler knows."""
    return list(_ask_scheduler(client, client.run_on_scheduler, _clients))


def _clients(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.clients)


def ask_workers(client: Client, question: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run ``question`` on workers; what each answers, or None if one does not in time."""

    async def ask() -> Any:
        replies = client.run(question, *args, **options)
        return await _in_time(asyncio.wait_for(replies, ANSWER_SECONDS))

    return client.sync(ask)
