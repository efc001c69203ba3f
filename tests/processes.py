"""Real processes that begin where everything is imported already.

A Python that imports dgmm, Dask and Zarr takes a second and a half before it does anything.  So a
*nursery*, a process that has imported them and done nothing else, forks the processes that tests
kill, interrupt and listen to: they have an identity, pipes, signals, an end and an exit code of
their own, as if started from a shell.  What is tested of the start itself, of memory or of the
environment still runs ``sys.executable``.

Run as a program, this file is the nursery.
"""

import atexit
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

DGMM = "from dgmm.cli.commands import main; main()"
IMPORTED = (
    *("dgmm.cli.commands", "dgmm.cli.machines", "dgmm.em.fit", "dgmm.em.selection"),
    *("dgmm.io.output", "dgmm.estimators.search", "dgmm.report", "distributed.cli.dask_worker"),
    *(
        "distributed.cli.dask_scheduler",
        "distributed.nanny",
        "sklearn.mixture",
        "zarr",
        "dgmm.cli.metrics",
        "rich.live",
    ),
    *(
        "zarr.codecs.numcodecs",
        "dask.array",
        "dgmm.cli.metrics",
        "rich.live",
        "rich.progress",
        "rich.table",
    ),
)
MESSAGE_BYTES = 1 << 16


class Process:
    """A process that a nursery has forked; used as ``subprocess.Popen`` is."""

    def __init__(self, link: socket.socket, stdout: IO[str] | None, stderr: IO[str]) -> None:
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
        told = self.stderr.read()
        printed = self.stdout.read() if self.stdout else ""
        self.wait()
        return printed, told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for each in (self.stdout, self.stderr, self._link):
            if each is not None:
                each.close()


def start(
    *words: str,
    cwd: Path,
    script: str = DGMM,
    env: Mapping[str, str] | None = None,
    printed: bool = False,
    start_new_session: bool = False,
) -> Process:
    """Python running a ``script`` with these words in a process of its own.

    Standard error is a pipe, and so is standard output where it is to be ``printed``.  ``env`` is
    its environment, if that is not this process's.
    """
    given = (env or os.environ).items()
    environment = tuple(sorted(each for each in given if each[0] != "PYTEST_CURRENT_TEST"))
    return nursery(environment).start(script, words, cwd, printed, start_new_session)


class Nursery:
    """A process that forks others."""

    def __init__(self, environment: Sequence[tuple[str, str]]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def start(
        self, script: str, words: Sequence[str], cwd: Path, printed: bool, session: bool
    ) -> Process:
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        out_reader, out_writer = os.pipe() if printed else (None, os.open(os.devnull, os.O_WRONLY))
        order = json.dumps([script, [str(word) for word in words], str(cwd), session])
        assert len(order) < MESSAGE_BYTES
        handles = [theirs.fileno(), out_writer, writer]
        socket.send_fds(self._control, [order.encode()], handles)
        theirs.close()
        os.close(out_writer)
        os.close(writer)
        return Process(link, None if out_reader is None else open(out_reader), open(reader))

    def close(self) -> None:
        self._control.close()
        self._process.wait()


@cache
def nursery(environment: Sequence[tuple[str, str]]) -> Nursery:
    """The one for processes of this environment; it lives as long as this process."""
    return Nursery(environment)


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
                script, words, place, session = json.loads(order)
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


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who wait for the others
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    for name in IMPORTED:
        import_module(name)
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
