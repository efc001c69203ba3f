"""What a command runs on: threads of its own process, workers that it starts, or a Dask cluster."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

import click
import dask

from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from distributed import Client

distributed, security = Late("distributed"), Late("distributed.security")
workers = Late("dgmm.engine.workers")

DASK_LOGGER = logging.getLogger("distributed")

LOOPBACK = "127.0.0.1:0"
"""Where a cluster of this machine would serve pages."""

NO_PAGES: dict[str, list[str]] = {
    f"distributed.{role}.http.routes": [] for role in ("scheduler", "worker")
}
"""But there are none: whoever is on this machine could read them."""


@contextmanager
def _silent_workers() -> Iterator[None]:
    """Processes started inside log nothing: what goes wrong in one is told by this process.

    Whatever Dask changes in this process's environment for their sake is put back, and so is what
    ``_quiet_end`` does.
    """
    before, level = dict(os.environ), DASK_LOGGER.level
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    try:
        yield
    finally:
        DASK_LOGGER.setLevel(level)
        for name, value in dict(os.environ).items():
            if name not in before:
                del os.environ[name]
            elif value != before[name]:
                os.environ[name] = before[name]


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Threads started inside, and the processes that they start, get no SIGINT.

    Ctrl-C in a terminal goes to all of its processes, and each would print a traceback; it is for
    this process, which ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # no POSIX
        yield
        return
    resource_tracker.ensure_running()  # whoever starts it lets SIGINT in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Nothing is logged of how workers end afterwards: slowly, or killed."""
    try:
        yield
    finally:
        DASK_LOGGER.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Machines:
    """Where to sweep: on a cluster at an address, in processes or in threads of this machine."""

    scheduler: str | None
    workers: int | None
    threads: int | None
    connect_timeout: float

    @contextmanager
    def client(self) -> Iterator[Client | None]:
        """The cluster asked for: at an address, of so many processes here, or none."""
        if self.scheduler and self.workers:
            raise click.UsageError("--scheduler and --workers exclude each other")
        if self.scheduler:
            with workers.connect(self.scheduler, self.connect_timeout) as client:
                workers.wait_for_threads(client, self.connect_timeout)  # it is they who are planned
                yield client
        elif self.workers:
            with ExitStack() as stack:
                stack.enter_context(_silent_workers())
                stack.enter_context(dask.config.set(NO_PAGES))
                with _no_interrupts():
                    local = stack.enter_context(
                        distributed.LocalCluster(
                            n_workers=self.workers,
                            threads_per_worker=self.threads or 1,
                            security=security.Security.temporary(),
                            scheduler_kwargs={"dashboard": False},
                            dashboard_address=LOOPBACK,
                        )
                    )
                client = stack.enter_context(distributed.Client(local, set_as_default=False))
                stack.enter_context(_quiet_end())
                yield client
        else:
            yield None
