"""Real processes that begin where everything is imported already.

A Python that imports dgmm, Dask and Zarr takes a second and a half before it does anything.  So a
*nursery*, a process that has imported them and done nothing else, forks the processes that tests
kill, interrupt and listen to: they have an identity, an environment, pipes, signals, an end and an
exit code of their own, as if started from a shell.  What is tested of the start itself or of memory
still runs ``sys.executable``.

Run as a program, this file is the nursery.
"""

import faulthandler
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self

import dask
from distributed.config import initialize_logging

DGMM = "from dgmm.cli.commands import main; main()"
IMPORTED = """
dgmm.cli.commands dgmm.cli.changing dgmm.cli.federating dgmm.cli.fitting dgmm.cli.planning
dgmm.cli.predicting dgmm.cli.uncertainty dgmm.cli.using dgmm.cli.machines
dgmm.em.fit dgmm.em.selection dgmm.estimators.search dgmm.io.output
dgmm.report distributed.cli.dask_scheduler distributed.cli.dask_worker
distributed.nanny dask.array sklearn.mixture zarr rich.live rich.progress rich.table
"""
MESSAGE_BYTES = 1 << 16


class Process:
    """A process that a nursery has forked; used as ``subprocess.Popen`` is."""

    def __init__(self, link: socket.socket, stdout: Any, stderr: Any) -> None:
        self._link, self.stdout, self.stderr = link, stdout, stderr
        self.returncode: int | None = None
        self.pid = int(self._told())

    def _told(self) -> str:
        told = self._link.recv(64).decode()
        assert told, "the nursery has ended"
        return told

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._link.settimeout(timeout)
            try:
                self.returncode = int(self._told())
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self) -> tuple[str, str]:
        """All that it prints, where the one pipe or the other holds little."""
        with self:
            told = self.stderr.read() if self.stderr else ""
            printed = self.stdout.read() if self.stdout else ""
        return printed, told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abort()
        self.wait()
        for each in (self.stdout, self.stderr, self._link):
            if each is not None:
                each.close()

    def _abort(self) -> None:
        """End what a test that failed may wait for in vain; first it tells where it is."""
        for number in (signal.SIGABRT, signal.SIGCONT):
            self.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            self.wait(10)
        self.kill()


def start(
    *words: object,
    cwd: Path,
    script: str = DGMM,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
    start_new_session: bool = False,
) -> Process | subprocess.Popen[str]:
    """Python running a ``script`` with these words in a process of its own.

    All else is as ``subprocess.Popen`` has it; standard input is empty.  Only Linux has what a
    nursery needs: elsewhere each process imports all for itself.
    """
    if env is None:
        env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    if not hasattr(os, "pidfd_open"):
        return subprocess.Popen(
            [sys.executable, "-P", "-c", script, *map(str, words)],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=start_new_session,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    order = [script, list(map(str, words)), str(cwd), dict(env), start_new_session]
    return nursery().start(json.dumps(order).encode(), stdout, stderr)


class Nursery:
    """A process that forks others."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(self, order: bytes, stdout: int, stderr: int) -> Process:
        assert len(order) < MESSAGE_BYTES
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, printed), (err, told) = map(_end, (stdout, stderr))
        socket.send_fds(self._control, [order], [theirs.fileno(), out, err])
        theirs.close()
        for given, handle in ((stdout, out), (stderr, err)):
            if given < 0:
                os.close(handle)
        return Process(link, printed, told)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


def _end(given: int) -> tuple[int, IO[str] | None]:
    """The end of a stream that a process gets, and what its parent reads, if anything."""
    if given == subprocess.PIPE:
        reader, writer = os.pipe()
        return writer, open(reader)
    if given == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_WRONLY), None
    return given, None


@cache
def nursery() -> Nursery:
    """It lives until ``close``."""
    return Nursery()


def close() -> None:
    """End the nursery, if there is one."""
    if nursery.cache_info().currsize:
        nursery().close()
        nursery.cache_clear()


# ---------------------------------------------------------------- in the nursery


def serve(control: socket.socket) -> tuple[str, list[str]] | None:
    """Fork a process for each order: there, return its script and words; None at the end."""
    children: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    _bury(selector, children.pop(int(key.fd)), int(key.fd))
                    continue
                order, handles, *_ = socket.recv_fds(control, MESSAGE_BYTES, 3)
                if not order:
                    return None
                script, words, place, environment, session = json.loads(order)
                link = socket.socket(fileno=handles[0])
                if child := os.fork():
                    link.send(str(child).encode())
                    watched = os.pidfd_open(child)
                    children[watched] = (child, link)
                    selector.register(watched, selectors.EVENT_READ)
                    for handle in handles[1:]:
                        os.close(handle)
                else:
                    for watched, (_, other) in children.items():
                        os.close(watched)
                        other.close()
                    control.close()
                    link.close()
                    _settle(handles[1:], place, session)
                    _surround(environment)
                    return script, words


def _bury(selector: Any, child: tuple[int, socket.socket], watched: int) -> None:
    """Tell how a child ended."""
    pid, link = child
    selector.unregister(watched)
    os.close(watched)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody may want to know
        link.send(str(os.waitstatus_to_exitcode(status)).encode())
    link.close()


def _settle(handles: Sequence[int], place: str, session: bool) -> None:
    """What ``subprocess.Popen`` does for a new process."""
    for number, handle in enumerate(handles, start=1):
        os.dup2(handle, number)
        os.close(handle)
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place)


def _surround(environment: Mapping[str, str]) -> None:
    """An environment, and what Dask reads from it when it is imported."""
    read = dask.config.collect_env()
    os.environ.clear()
    os.environ.update(environment)
    if dask.config.collect_env() != read:
        dask.config.refresh()
        initialize_logging(dask.config.config)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who wait for the others
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    for name in IMPORTED.split():
        import_module(name)
    faulthandler.enable(os.dup(2))  # whatever becomes of standard error
    gc.freeze()  # else each would look through all of it when it ends, and take half a second
    control = socket.socket(fileno=int(sys.argv[1]))
    if (asked := serve(control)) is None:
        return
    script, sys.argv[1:] = asked
    sys.argv[0] = "-c"
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    exec(compile(script, "<string>", "exec"), vars(module))


if __name__ == "__main__":
    main()
