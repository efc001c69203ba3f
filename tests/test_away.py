"""Stores that are away, for a moment or for good, workers that can't read, places that can't be.

A server of S3, or of plain HTTP, stands behind a proxy that does what networks and stores do: it
answers 500 or 503, resets connections before or after the request was done, and answers late.
"""

import asyncio
import errno
import http.client
import json
import logging
import os
import pickle
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import botocore.parsers
import dask
import dask.array as da
import fsspec
import numpy as np
import pytest
import requests
import s3fs
import urllib3
import zarr
from click.testing import CliRunner, Result
from distributed import Client
from distributed.comm import CommClosedError
from moto.server import ThreadedMotoServer

import dgmm
from dgmm.cli.commands import main
from dgmm.data.patience import Patience
from dgmm.data.transient import CONNECTIONS, is_transient
from dgmm.estimators.row_outputs import row_outputs_of
from dgmm.io.output import write_outputs
from dgmm.kernels.outputs import OUTPUTS

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

STALL = 1.0
"""Seconds that an answer takes for which nobody waits."""

CODES = {"500": "InternalError", "503": "SlowDown"}
DELAYS = {"slow": 0.1, "stall": STALL}

Fault = str | None
Choice = Callable[[str, str], Fault]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts are pauses of a tenth of what is usual."""
    monkeypatch.setattr("dgmm.data.patience.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("dgmm.data.patience.MOST_SECONDS", 0.5)


def never(method: str, path: str) -> Fault:
    return None


class Proxy:
    """Between a client and a server of HTTP; ``choose`` says what becomes of each request.

    ``injected`` counts the faults by kind.
    """

    def __init__(self, port: int) -> None:
        self.choose: Choice = never
        self.injected: Counter[str] = Counter()
        self.port, self._lock = port, threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Carrier, self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fault(self, method: str, path: str) -> Fault:
        with self._lock:
            fault = self.choose(method, path)
            if fault is not None:
                self.injected[fault] += 1
            return fault

    @contextmanager
    def doing(self, choose: Choice) -> Iterator[None]:
        """What the proxy does while inside."""
        self.choose = choose
        try:
            yield
        finally:
            self.choose = never

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Carrier(BaseHTTPRequestHandler):
    """Carries requests there and answers back, or does not."""

    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: Proxy, *args: Any) -> None:
        self._proxy = proxy
        with suppress(OSError, ValueError):  # who was cut off needs no answer
            super().__init__(*args)

    def log_message(self, *_: object) -> None: ...

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._proxy.fault(self.command, self.path)
        if fault in CODES:
            told = f"<Error><Code>{CODES[fault]}</Code><Message>later</Message></Error>".encode()
            self._answer(int(fault), [("Content-Type", "application/xml")], told)
        elif fault in ("reset", "stall"):
            time.sleep(DELAYS.get(fault, 0))
            self._reset()
        else:
            time.sleep(DELAYS.get(fault or "", 0))
            answer = self._ask(body)
            self._reset() if fault == "lost" else self._answer(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._proxy.port)) as connection:
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        option = struct.pack("ii", 1, 0)  # close with RST, not FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.close_connection = True
        os.close(self.connection.detach())  # at once, whoever else refers to it


def some(kind: str, rate: float) -> Choice:
    """A share of all requests, by chance."""
    rng = random.Random(0)
    return lambda method, path: kind if rng.random() < rate else None


def on(kind: str, methods: str, part: str, after: int = 0) -> Choice:
    """All requests by one of the ``methods`` whose path has that ``part``, but for the first."""
    seen = Counter[str]()

    def choose(method: str, path: str) -> Fault:
        if method not in methods.split() or part not in path or path.endswith(".partial"):
            return None
        seen[""] += 1
        return kind if seen[""] > after else None

    return choose


def configure(settings: dict[str, Any]) -> dict[str, Any]:
    """How ``s3://`` is opened in this process; what it was before."""
    before = dict(fsspec.config.conf)
    fsspec.config.conf.update(settings)
    if "s3" not in settings:
        fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.retries = 1 if "s3" in settings else 5  # ours come on top of its own
    return before


@pytest.fixture(scope="module")
def settings() -> Iterator[tuple[Proxy, dict[str, Any]]]:
    """A proxy before a server of S3, and how to open that."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    hasty = {"read_timeout": STALL / 2, "retries": {"max_attempts": 0}, "region_name": "us-east-1"}
    how = {
        "endpoint_url": proxy.url,
        "key": "testing",
        "secret": "testing",
        "config_kwargs": hasty,
    }
    configure({"s3": how})
    fsspec.filesystem("s3").mkdir("bucket")
    yield proxy, {"s3": how}
    configure({})
    proxy.close()
    server.stop()


@pytest.fixture
def proxy(settings: tuple[Proxy, dict[str, Any]]) -> Proxy:
    return settings[0]


def drawn() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 2)) + 5 * rng.integers(0, 3, size=(3000, 1))


@pytest.fixture(scope="module")
def rows(settings: tuple[Proxy, dict[str, Any]]) -> str:
    """Rows in three chunks on S3."""
    zarr.create_array("s3://bucket/rows.zarr", data=drawn(), chunks=(1000, 2))
    return "s3://bucket/rows.zarr"


FIT = dict(strategy="em", tol=0, max_iter=6, random_state=0, init_params="random_from_data")
EM = ("--strategy", "em", "--tol", "0", "--max-iter", "6", "--init-params", "random_from_data")
PASSES = FIT["max_iter"] + 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dgmm.GaussianMixture:
    """The model of an undisturbed fit."""
    store = tmp_path_factory.mktemp("undisturbed") / "rows.zarr"
    zarr.create_array(store, data=drawn(), chunks=(1000, 2))
    return dgmm.GaussianMixture(3, **FIT, cache="none").fit(store)


def assert_same(model: dgmm.GaussianMixture | str, whole: dgmm.GaussianMixture) -> None:
    found = dgmm.load(model) if isinstance(model, str) else model
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.lower_bounds_ == whole.lower_bounds_


def dgmm_(*words: str, seconds: float = 60) -> Result:
    with dask.config.set({"dgmm.store-seconds": seconds}):
        done = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in done.output
    return done


def fit(rows: str, place: str, *more: str, seconds: float = 60) -> Result:
    """A fit with rows, checkpoint and model at a place."""
    words = ("fit", rows, "-k", "3", "-o", f"{place}/model.dgmm", "--checkpoint", f"{place}/passes")
    return dgmm_(*words, *EM, "--cache", "none", "--threads", "2", *more, seconds=seconds)


def left(place: str) -> set[str]:
    """The names of what is there."""
    there = fsspec.filesystem("s3")
    there.invalidate_cache()
    return {path.split("/")[-1 if "." in path.split("/")[-1] else -2] for path in there.find(place)}


# ---------------------------------------------------------------- away for a moment


@pytest.mark.parametrize(
    ("kind", "rate"), [("500", 0.3), ("503", 0.1), ("reset", 0.3), ("lost", 0.3), ("slow", 0.1)]
)
def test_a_store_that_fails_now_and_then_changes_no_bit(
    proxy: Proxy, rows: str, whole: dgmm.GaussianMixture, kind: str, rate: float
) -> None:
    """Rows, checkpoint, model and answers; at three in ten, too."""
    place = f"s3://bucket/{kind}-{rate}"
    before = proxy.injected.total()
    with proxy.doing(some(kind, rate)):
        done = fit(rows, place)
        assert done.exit_code == 0, done.output
        words = ("predict", rows, "-m", f"{place}/model.dgmm", "-o", f"{place}/labels.zarr")
        done = dgmm_(*words, "--threads", "2")
        assert done.exit_code == 0, done.output
    assert proxy.injected.total() - before >= 50 * rate  # in all, a hundred
    assert_same(f"{place}/model.dgmm", whole)
    labels = zarr.open_array(f"{place}/labels.zarr", mode="r")[:]
    np.testing.assert_array_equal(labels, whole.predict(drawn()))
    kept = {f"pass-{number:06d}.dgmm" for number in (1, PASSES - 2, PASSES - 1, PASSES)}
    assert left(f"{place}/passes") == kept
    assert not any("partial" in path for path in fsspec.filesystem("s3").find(place))


@pytest.mark.parametrize("kind", ["503", "lost"])
def test_a_store_that_fails_now_and_then_changes_no_bit_on_a_cluster(
    settings: tuple[Proxy, dict[str, Any]],
    rows: str,
    whole: dgmm.GaussianMixture,
    clusters: Mapping[int, Client],
    kind: str,
) -> None:
    proxy, how = settings
    clusters[2].run(configure, how)
    with proxy.doing(some(kind, 0.1)):
        model = dgmm.GaussianMixture(3, **FIT, cache="none")
        for _ in model.fit_passes(rows, client=clusters[2]):
            pass
    assert_same(model, whole)
    with (
        dask.config.set({"dgmm.store-seconds": 0.2}),
        proxy.doing(on("503", "GET HEAD", "/c/", 6)),
        pytest.raises(dgmm.BlockError) as caught,
    ):
        list(model.fit_passes(rows, client=clusters[2]))
    assert is_transient(caught.value)
    clusters[2].run(configure, {})


# ---------------------------------------------------------------- away for good

PLACES = {
    "rows": ("GET HEAD", "/c/", 12),
    "checkpoint": ("PUT", "pass-", 2),
    "listing": ("GET", "list-type", 6),
    "model": ("PUT", "model.dgmm", 0),
    "start": ("GET HEAD PUT", "", 0),
}
"""What is away, and from which of such requests on."""


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("rows", "500"),
        ("rows", "stall"),
        ("checkpoint", "503"),
        ("listing", "stall"),
        ("model", "reset"),
        ("start", "500"),
        ("start", "stall"),
    ],
)
def test_a_store_that_stays_away_ends_a_fit_that_can_go_on(
    proxy: Proxy, rows: str, whole: dgmm.GaussianMixture, kind: str, what: str
) -> None:
    """Exit code 4; and the same command goes on to the same bits when it is back."""
    place = f"s3://bucket/away-{kind}-{what}"
    with proxy.doing(on(kind, *PLACES[what])):
        done = fit(rows, place, seconds=0.3)
    assert done.exit_code == 4, done.output
    assert "Error: " in done.output
    assert "model.dgmm" not in left(place)
    reached = max((name for name in left(place) if name.startswith("pass-")), default="")
    done = fit(rows, place)
    assert done.exit_code == 0, done.output
    if what != "start":
        assert f"continuing after pass {int(reached[5:11])}" in done.output
    assert_same(f"{place}/model.dgmm", whole)


def test_a_checkpoint_that_can_not_be_listed_is_not_taken_for_none(
    proxy: Proxy, rows: str, whole: dgmm.GaussianMixture
) -> None:
    place = "s3://bucket/unlisted"
    with proxy.doing(on("500", "PUT", "pass-", 3)):
        assert fit(rows, place, seconds=0).exit_code == 4
    for words in ((), ("--no-resume",)):
        with proxy.doing(on("503", "GET", "passes")):
            done = fit(rows, place, *words, seconds=0)
        assert done.exit_code == 4, done.output
        assert "pass 1:" not in done.output
    for read in ("pass-000001", "pass-000003"):  # nor for a damaged one
        with proxy.doing(on("503", "GET", f"passes/{read}")):
            assert fit(rows, place, seconds=0).exit_code == 4
    done = fit(rows, place)
    assert "continuing after pass 3" in done.output
    assert_same(f"{place}/model.dgmm", whole)


@pytest.mark.parametrize("kind", ["500", "503", "reset"])
@pytest.mark.parametrize("methods", ["PUT", "GET HEAD"])
def test_answers_that_can_not_be_written_leave_nothing(
    proxy: Proxy, rows: str, whole: dgmm.GaussianMixture, kind: str, methods: str
) -> None:
    """And without a checkpoint, too, that is exit code 4: a job may try it again."""
    place = f"s3://bucket/answers-{kind}-{methods.split()[0]}"
    whole.save(f"{place}/model.dgmm")
    words = ("predict", rows, "-m", f"{place}/model.dgmm", "-o", f"{place}/labels.zarr")
    part = "labels.zarr" if methods == "PUT" else "rows.zarr/c/"
    with proxy.doing(on(kind, methods, part, 1)):
        done = dgmm_(*words, seconds=0.2)
    assert done.exit_code == 4, done.output
    assert "can't be written" in done.output or "rows " in done.output
    assert "the same command may work later" in done.output
    assert left(place) == {"model.dgmm"}


@pytest.mark.parametrize("status", ["400", "403", "404"])
def test_what_stays_refused_is_told_at_once(
    proxy: Proxy, rows: str, tmp_path: Path, status: str
) -> None:
    """Patience would be for nothing: exit code 3."""
    bad = {"404": "s3://no-such-bucket/rows.zarr"}.get(status, rows)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Refusing, int(status)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    how = {**fsspec.config.conf["s3"], "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
    words = ("fit", bad, "-k", "3", "-o", tmp_path / "model.dgmm", "--checkpoint", tmp_path / "at")
    before = configure({"s3": how})
    began = time.monotonic()
    try:
        done = dgmm_(*words, seconds=1e6)
    finally:
        configure(before)
        server.shutdown()
        server.server_close()
    assert done.exit_code == 3, done.output
    assert time.monotonic() - began < 1e5


class Refusing(BaseHTTPRequestHandler):
    def __init__(self, status: int, *args: Any) -> None:
        self._status = status
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(self._status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


# ---------------------------------------------------------------- plain HTTP


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_rows_behind_http_that_is_away(tmp_path: Path, whole: dgmm.GaussianMixture) -> None:
    zarr.create_array(tmp_path / "rows.zarr", data=drawn(), chunks=(1500, 2))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(server.server_port)
    url, words = f"{proxy.url}/rows.zarr", (*EM, "--missing-chunks", "fill", "--cache", "none")
    words = (*words, "--checkpoint", tmp_path / "passes", "-o", tmp_path / "model.dgmm")
    for kind in ("503", "reset"):
        for choice in (on(kind, "GET HEAD", ""), on(kind, "GET", "/c/", 5)):
            with proxy.doing(choice):
                done = dgmm_("fit", url, "-k", "3", *words, seconds=0.2)
            assert done.exit_code == 4, done.output
    for kind in ("500", "reset"):
        with proxy.doing(some(kind, 0.2)):
            done = dgmm_("fit", url, "-k", "3", *words, "--no-resume", "--overwrite")
        assert done.exit_code == 0, done.output
        assert_same(str(tmp_path / "model.dgmm"), whole)
    proxy.close()
    server.shutdown()
    server.server_close()
    done = dgmm_("fit", url, "-k", "3", *words, "--overwrite", seconds=0.2)
    assert done.exit_code == 4, done.output


# ---------------------------------------------------------------- what an error is


def s3_error(status: int, code: str) -> Exception:
    told = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(told, "PutObject")


def http_error(status: int) -> Exception:
    return aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]


class Google(Exception):
    """As gcsfs has it: no OSError, and a code that may be text."""

    def __init__(self, code: Any) -> None:
        super().__init__("from the store")
        self.code = code


def answered(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("from the store", response=response)


STATUS = (
    lambda status: s3_error(status, str(status)),
    http_error,
    Google,
    lambda status: Google(str(status)),
    answered,
    lambda status: urllib.error.HTTPError("http://there", status, "", {}, None),  # type: ignore
)


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("of", STATUS)
def test_errors_are_judged_by_their_status(of: Callable[[int], Exception]) -> None:
    for status in (408, 425, 429, 500, 502, 503, 504):
        assert is_transient(of(status))
        assert is_transient(chained(dgmm.DataError("it"), of(status)))
        assert is_transient(chained(FileNotFoundError("as fsspec says for HTTP"), of(status)))
    for status in (400, 401, 403, 404, 405, 409, 411, 412, 416, 501):
        assert not is_transient(of(status))
        assert not is_transient(
            chained(OSError(errno.EIO, "as s3fs says for all it knows not"), of(status))
        )


LATER = ("EBUSY", "EIO", "ESTALE", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ENETUNREACH")
LATER = (*LATER, "EHOSTUNREACH", "EPIPE", "ENOTCONN", "EAGAIN")
NEVER = ("EACCES", "EPERM", "ENOSPC", "EDQUOT", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "EFBIG")


@pytest.mark.parametrize("name", LATER)
def test_errors_that_pass_by_their_number(name: str) -> None:
    error = OSError(getattr(errno, name), "from the store")
    assert is_transient(error)
    assert is_transient(chained(dgmm.BlockError("rows"), chained(dgmm.DataError("it"), error)))


@pytest.mark.parametrize("name", NEVER)
def test_errors_that_stay_by_their_number(name: str) -> None:
    error = OSError(getattr(errno, name), "from the store")
    assert not is_transient(error)
    assert not is_transient(chained(dgmm.DataError("it"), error))


def test_errors_of_connections_are_known_whatever_they_are_called() -> None:
    for error in (
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        socket.gaierror(socket.EAI_AGAIN, "no name server"),
        http.client.IncompleteRead(b""),
        http.client.RemoteDisconnected(),
        ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "cut"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError(),
        botocore.exceptions.EndpointConnectionError(endpoint_url="http://there"),
        botocore.exceptions.ReadTimeoutError(endpoint_url="http://there"),
        botocore.exceptions.CredentialRetrievalError(provider="container-role", error_msg="no"),
        botocore.parsers.ResponseParserError("half an answer"),
        requests.ConnectionError(),
        urllib3.exceptions.ProtocolError(),
        asyncio.IncompleteReadError(b"", 1),
        CommClosedError("between workers"),
        s3_error(400, "RequestTimeout"),
        s3_error(200, "InternalError"),
        s3_error(409, "ConditionalRequestConflict"),
        dgmm.ClusterLostError("the cluster"),
        ExceptionGroup("several", [TimeoutError(), ValueError()]),
    ):
        assert is_transient(error), repr(error)
    for error in (
        ValueError(),
        KeyError("c/0/0"),
        ssl.SSLCertVerificationError(1, "self-signed"),
        FileNotFoundError("as s3fs says"),
        PermissionError("as s3fs says"),
        botocore.exceptions.NoCredentialsError(),
        s3_error(400, "ExpiredToken"),
        s3_error(404, "NoSuchBucket"),
        dgmm.DataError("rows"),
        ExceptionGroup("several", [TimeoutError(), PermissionError()]),
    ):
        assert not is_transient(error), repr(error)


@pytest.mark.parametrize("module", CONNECTIONS)
def test_libraries_have_the_errors_of_connections_that_are_asked_for(module: str) -> None:
    library = pytest.importorskip(module)
    assert all(issubclass(kind, Exception) for kind in CONNECTIONS[module](library))


def test_no_library_is_loaded_to_judge_an_error() -> None:
    code = (
        "import sys; from dgmm.data.transient import CONNECTIONS, is_transient;"
        "before = set(sys.modules);"
        "assert not is_transient(ValueError()); assert set(sys.modules) == before;"
        "assert 'requests.exceptions' in CONNECTIONS and 'requests.exceptions' not in before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def raised(first: Exception, then: Exception) -> Exception:
    """``then``, raised while ``first`` was handled."""
    try:
        try:
            raise first
        except Exception:
            raise then  # noqa: B904
    except Exception as error:
        return error


def test_what_was_handled_before_counts_last() -> None:
    """An error that was raised while another was handled, and perhaps not because of it."""
    assert is_transient(raised(FileNotFoundError("no listing"), ConnectionResetError("later")))
    assert is_transient(raised(OSError(errno.ESTALE, "the mount"), dgmm.DataError("rows")))
    assert not is_transient(raised(ConnectionResetError("before"), PermissionError("rows")))


def test_a_block_error_keeps_its_verdict_between_processes() -> None:
    """Its causes may be lost on the way."""

    def read() -> Any:
        raise chained(OSError(errno.EIO, "as s3fs says"), s3_error(503, "503"))

    with pytest.raises(dgmm.BlockError) as caught:
        dgmm.engine.threads.apply(lambda block, given: None, None, read, "rows 0 to 1", 1)
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert is_transient(arrived)
    assert str(arrived) == str(caught.value)


def test_patience_is_stated_and_ends() -> None:
    """Pauses double, up to the longest; the last attempt is when the time is over."""
    pauses: list[float] = []

    def ask() -> None:
        raise ConnectionResetError

    asked = Patience(seconds=20, first=1, most=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: sum(pauses) + 1)
        with pytest.raises(ConnectionResetError):
            asked(ask, pauses.append)
    assert sum(pauses) == pytest.approx(20)
    for pause, longest in zip(pauses[:-1], [1, 2, 4, 4, 4, 4, 4, 4, 4, 4], strict=False):
        assert longest / 2 <= pause <= longest
    calls: list[int] = []
    with pytest.raises(PermissionError):
        asked(lambda: calls.append(1) or (_ for _ in ()).throw(PermissionError()))
    assert calls == [1]


# ---------------------------------------------------------------- workers that can't


@pytest.fixture
def blind(tmp_path: Path, clusters: Mapping[int, Client]) -> Iterator[Callable[..., list[str]]]:
    """Has some of three workers not see any more what lies in this process's directory.

    Rows are named by ``/proc/self/cwd``, which leads every process to its own.
    """
    client, here = clusters[3], os.getcwd()
    there, nowhere = tmp_path / "there", tmp_path / "nowhere"
    homes = client.run(os.getcwd)
    for each in (there, nowhere):
        each.mkdir()
    client.run(os.chdir, there)
    os.chdir(there)

    def strike(count: int) -> list[str]:
        struck = sorted(client.nthreads())[:count]
        client.run(os.chdir, nowhere, workers=struck)
        return struck

    yield strike
    os.chdir(here)
    for worker, home in homes.items():
        client.run(os.chdir, home, workers=[worker])


SEEN = "/proc/self/cwd/rows"


def as_npy(rows: np.ndarray) -> Any:
    np.save("rows.npy", rows)
    return f"{SEEN}.npy"


def as_zarr(rows: np.ndarray) -> Any:
    zarr.create_array("rows.zarr", data=rows, chunks=(500, 2))
    return f"{SEEN}.zarr"


def lazily(rows: np.ndarray) -> Any:
    as_npy(rows)
    numbers = da.arange(len(rows), chunks=500)
    return numbers.map_blocks(taken, new_axis=1, chunks=(numbers.chunks[0], (2,)), dtype="f8")


def taken(numbers: np.ndarray) -> np.ndarray:
    return np.load(f"{SEEN}.npy", mmap_mode="r")[numbers]


@pytest.mark.parametrize(
    ("made", "struck", "cache"),
    [
        (as_zarr, 1, "none"),
        (as_zarr, 2, "auto"),
        (as_npy, 1, "auto"),
        (as_npy, 2, "none"),
        (lazily, 1, "none"),
        (lazily, 2, "auto"),
    ],
)
def test_a_worker_that_can_not_read_is_left_out(
    blind: Callable[[int], list[str]],
    clusters: Mapping[int, Client],
    caplog: pytest.LogCaptureFixture,
    made: Callable[[np.ndarray], Any],
    struck: int,
    cache: str,
) -> None:
    """Named, and the fit goes on to the bits it would have had."""
    data = made(np.tile(drawn(), (4, 1)))
    whole = dgmm.GaussianMixture(3, **FIT).fit(data)
    walking = dgmm.GaussianMixture(3, **FIT, cache=cache)
    passes = walking.fit_passes(data, client=clusters[3])
    next(passes)
    out = blind(struck)
    with caplog.at_level(logging.WARNING, "dgmm"):
        list(passes)
    assert_same(walking, whole)
    told = [each.getMessage() for each in caplog.records]
    named = {worker for worker in out for line in told if f"at {worker} is left out" in line}
    assert named == set(out) if cache == "none" and made is not lazily else named <= set(out)


@pytest.mark.parametrize("made", [as_zarr, as_npy, lazily])
def test_if_no_worker_can_read_that_is_told(
    blind: Callable[[int], list[str]], clusters: Mapping[int, Client], made: Callable[..., Any]
) -> None:
    data = made(drawn())
    passes = dgmm.GaussianMixture(3, **FIT, cache="none").fit_passes(data, client=clusters[3])
    next(passes)
    blind(3)
    with pytest.raises(dgmm.BlockError, match="rows"):
        list(passes)


def test_a_worker_that_can_not_write_is_left_out(
    blind: Callable[[int], list[str]], clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rows = np.tile(drawn(), (4, 1))
    zarr.create_array(tmp_path / "rows.zarr", data=rows, chunks=(500, 2))
    dataset = dgmm.open_dataset(tmp_path / "rows.zarr", block_bytes=1)
    model = dgmm.GaussianMixture(3, **FIT).fit(dataset)
    blind(1)
    sweep = dgmm.engine.over(dataset, clusters[3])
    url = "/proc/self/cwd/labels.zarr"
    written = write_outputs(sweep, dataset, row_outputs_of(model, OUTPUTS["labels"]), url)
    assert written.rows == len(rows)
    found = zarr.open_array("labels.zarr", mode="r")[:]
    np.testing.assert_array_equal(found, model.predict(rows))
    assert sorted(os.listdir()) == ["labels.zarr"]
    blind(3)
    with pytest.raises(dgmm.DataError, match="can't be written"):
        write_outputs(sweep, dataset, row_outputs_of(model, OUTPUTS["labels"]), url)
    assert sorted(os.listdir()) == ["labels.zarr"]


# ---------------------------------------------------------------- places that can't be


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """A small file system in memory."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def read_only(tmp_path: Path) -> Iterator[str]:
    with mounted(tmp_path / "small", "size=256k", "ro") as place:
        yield str(place / "passes")


@contextmanager
def full(tmp_path: Path) -> Iterator[str]:
    with mounted(tmp_path / "small", "size=256k") as place:
        (place / "much").write_bytes(bytes(250 << 10))
        yield str(place / "passes")


@contextmanager
def a_file(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "passes").touch()
    yield str(tmp_path / "passes")


@contextmanager
def below_a_file(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "file").touch()
    yield str(tmp_path / "file" / "passes")


@contextmanager
def no_bucket(tmp_path: Path) -> Iterator[str]:
    yield "s3://no-such-bucket/passes"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (read_only, "Read-only file system"),
        (full, "No space left on device"),
        (a_file, "File exists"),
        (below_a_file, "Not a directory"),
        (no_bucket, "bucket does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "select"])
def test_a_checkpoint_that_can_not_be_is_told_before_the_first_pass(
    settings: tuple[Proxy, dict[str, Any]], tmp_path: Path, place: Any, why: str, command: str
) -> None:
    rows, model = tmp_path / "rows.zarr", tmp_path / "model.dgmm"
    zarr.create_array(rows, data=drawn(), chunks=(500, 2))
    with place(tmp_path) as at:
        done = dgmm_(command, rows, "-k", "3", "-o", model, "--checkpoint", at)
    assert done.exit_code == 3, done.output
    assert f"Error: there can be no checkpoint at {at}: " in done.output
    assert why in done.output
    assert "pass 1" not in done.output
    assert not model.exists()


def test_a_model_that_could_not_be_written_is_told_before_the_first_pass(
    settings: tuple[Proxy, dict[str, Any]], tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "rows.zarr", data=drawn(), chunks=(500, 2))
    for output, code in (
        ("s3://no-such-bucket/model.dgmm", 3),
        ("http://127.0.0.1:9/model.dgmm", 4),  # which may be there later
    ):
        done = dgmm_("fit", tmp_path / "rows.zarr", "-k", "3", "-o", output, seconds=0)
        assert done.exit_code == code, done.output
        assert "pass 1" not in done.output
    with mounted(tmp_path / "small", "size=256k") as small:
        (small / "much").write_bytes(bytes(250 << 10))
        done = dgmm_("fit", tmp_path / "rows.zarr", "-k", "3", "-o", small / "model.dgmm")
    assert done.exit_code == 3, done.output
    assert "can't be written" in done.output
    assert "pass 1" not in done.output


@pytest.mark.parametrize("workers", [0, 2])
def test_predict_on_a_full_disk_leaves_nothing(
    tmp_path: Path, whole: dgmm.GaussianMixture, clusters: Mapping[int, Client], workers: int
) -> None:
    rows = np.random.default_rng(0).normal(size=(1_200_000, 2))  # three blocks
    zarr.create_array(tmp_path / "rows.zarr", data=rows, chunks=(50_000, 2))
    whole.save(tmp_path / "model.dgmm")
    words = ["predict", tmp_path / "rows.zarr", "-m", tmp_path / "model.dgmm", "--kind", "score"]
    if workers:
        words += ["--scheduler", clusters[workers].scheduler.address]
    size = 6 << 20
    with mounted(tmp_path / "small", f"size={size}") as small:
        for room in (size, 256 << 10, 0):  # for the first block, for the beginning, for nothing
            (small / "much").write_bytes(bytes(size - room))
            done = dgmm_(*words, "-o", small / "answers.zarr")
            assert done.exit_code == 3, done.output
            assert f"{small / 'answers.zarr'} can't be written" in done.output
            assert "No space left on device" in done.output
            deadline = time.monotonic() + 30
            while [*small.iterdir()] != [small / "much"] and time.monotonic() < deadline:
                time.sleep(0.1)  # a worker may be at it still
            assert [*small.iterdir()] == [small / "much"]
    assert json.loads(dgmm_("show", tmp_path / "model.dgmm", "--json").stdout)["n_components"] == 3
