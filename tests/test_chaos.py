"""Faults: processes killed, stopped and cut off, and always the model of an undisturbed run."""

import datetime
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import processes
import psutil
import pytest
import zarr
from conftest import QUIET
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster
from processes import Process

import dgmm
from dgmm import BlockError, ClusterLostError, GaussianMixture, load
from dgmm.engine import Meter

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

ROWS, COLUMNS, PASSES = 400_000, 8, 14
FIT = ("fit", "rows.zarr", "-k", "6", "-o", "model.dgmm", "--overwrite", "--checkpoint", "passes")
TEXTBOOK = ("--strategy", "em", "--tol", "0", "--max-iter", str(PASSES - 2), "--cache", "none")
ENVIRONMENT = {**os.environ, "DASK_LOGGING__DISTRIBUTED": "error", "DASK_DGMM__QUIET_SECONDS": "2"}


@pytest.fixture(autouse=True)
def patient_clusters() -> Iterator[None]:
    """Dask gives up a worker that is not back in 15 s; a busy machine takes longer to start it."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"}):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("chaos") / "rows.zarr"
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.normal(size=(6, COLUMNS))
    rows = centres[rng.integers(6, size=ROWS)] + rng.normal(size=(ROWS, COLUMNS))
    zarr.create_array(place, data=rows.astype("f4"), chunks=(5000, COLUMNS))
    return place


@pytest.fixture
def place(tmp_path: Path, store: Path) -> Path:
    (tmp_path / "rows.zarr").symlink_to(store)
    return tmp_path


def start(*words: str, cwd: Path, script: str = processes.DGMM) -> Process:
    """A ``dgmm`` command in a process of its own, deaf to none of the signals."""
    return processes.start(*words, cwd=cwd, script=script, env=ENVIRONMENT)


def end(process: Process) -> str:
    """What it tells until it ends."""
    with process:
        return process.stderr.read()


def finish(process: Process) -> str:
    """What it tells until it ends, which must be well."""
    told = end(process)
    assert process.returncode == 0, told
    return told


def wait_for_pass(process: Process, number: int) -> None:
    for line in process.stderr:
        if line.startswith(f"pass {number}:"):
            return
    raise AssertionError(f"it ended before pass {number}")


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> GaussianMixture:
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "rows.zarr").symlink_to(store)
    finish(start(*FIT, *TEXTBOOK, cwd=place))
    return load(place / "model.dgmm")


def assert_same(path: Path, expected: GaussianMixture) -> None:
    assert_same_parameters(load(path / "model.dgmm") if path.is_dir() else load(path), expected)


def assert_same_parameters(model: GaussianMixture, expected: GaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name))
    assert model.lower_bounds_ == expected.lower_bounds_


def newest(place: Path) -> int:
    """The last pass that left a file."""
    names = [path.stem for path in (place / "passes").glob("pass-*.dgmm")]
    return max((int(name.removeprefix("pass-")) for name in names), default=0)


# ---------------------------------------------------------------- the driver


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_again_and_again(
    place: Path, undisturbed: GaussianMixture, seed: int
) -> None:
    """At random moments: no more is lost than the pass under way."""
    rng, killed, reached = random.Random(seed), 0, 0
    while killed < 6:
        process = start(*FIT, *TEXTBOOK, cwd=place)
        process.stderr.readline()  # it has begun, or goes on
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        end(process)
        killed += 1
        assert newest(place) >= reached
        reached = newest(place)
    told = finish(start(*FIT, *TEXTBOOK, cwd=place))
    assert f"continuing after pass {reached}" in told or not reached
    assert_same(place, undisturbed)
    assert not list((place / "passes").glob("*.partial"))


def test_a_selection_killed_again_and_again(place: Path) -> None:
    words = ("select", "rows.zarr", "-k", "2..5", "-o", "best.dgmm", "--overwrite")
    finish(start(*words, "--random-state", "1", cwd=place))
    expected, rng, killed = load(place / "best.dgmm"), random.Random(0), 0
    while killed < 4 or not newest(place):  # a slow one is killed later, until it has done a pass
        process = start(*words, "--random-state", "1", "--checkpoint", "passes", cwd=place)
        process.stderr.readline()
        time.sleep(rng.uniform(0, 1) + killed // 4)
        process.kill()
        end(process)
        killed += 1
    told = finish(start(*words, "--random-state", "1", "--checkpoint", "passes", cwd=place))
    assert "continuing after pass" in told
    assert_same(place / "best.dgmm", expected)


KILLED_WITHIN = """
import os, signal, sys
calls, last = 0, int(sys.argv.pop(1))
def count():
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(real):
    def call(first, *others, **options):
        ours = isinstance(first, int) or "passes" in str(first)
        if ours:
            count()
        result = real(first, *others, **options)
        if ours:
            count()
        return result
    return call
for name in ("fsync", "link", "replace", "remove"):
    setattr(os, name, counted(getattr(os, name)))
from dgmm.cli.commands import main
main()
"""
"""Dies before or after the n-th call of those that write a file durably."""


@pytest.mark.parametrize("call", [3, 12, 16])
def test_killed_while_it_writes_a_checkpoint(
    place: Path, undisturbed: GaussianMixture, call: int
) -> None:
    """Before the first pass has its name, when the second has it, and when all is cleared up."""
    process = start(str(call), *FIT, *TEXTBOOK, cwd=place, script=KILLED_WITHIN)
    end(process)
    assert process.returncode == -signal.SIGKILL
    reached = newest(place)
    told = finish(start(*FIT, *TEXTBOOK, cwd=place))
    assert (f"continuing after pass {reached}" in told) == (reached > 0)
    assert_same(place, undisturbed)
    assert not list((place / "passes").glob("*.partial"))


class Photographer:
    """Keeps what is in a directory as it is before and after each call that changes it.

    Whoever is killed leaves his files as they are at that moment: so a copy of them is what a kill
    there would leave, and one fit shows what all of them would.
    """

    def __init__(self, place: Path, copies: Path) -> None:
        self._place, self._copies = place, copies
        self._seen = list[dict[str, bytes]]()

    def look(self) -> None:
        """Keep what is there now, if it is news, and the same with half of what is not whole."""
        there = {path.name: path.read_bytes() for path in sorted(self._place.glob("*"))}
        halves = {
            name: content[: len(content) // 2] if name.endswith(".partial") else content
            for name, content in there.items()
        }
        self._seen += [each for each in (there, halves) if each not in self._seen]

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            self.look()
            result = real(*given, **options)
            self.look()
            return result

        return call

    def pictures(self) -> Iterator[Path]:
        """A directory for each."""
        for number, there in enumerate(self._seen):
            place = self._copies / str(number)
            place.mkdir(parents=True)
            for name, content in there.items():
                (place / name).write_bytes(content)
            yield place


def test_killed_at_any_point_of_writing_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit goes on from the newest pass that is whole, to the same bits, and clears up."""
    rows = np.random.default_rng(0).normal(size=(900, 2)) + 3 * (np.arange(900) % 3)[:, None]
    fit = partial(GaussianMixture, 3, strategy="em", tol=0, max_iter=5, random_state=0)
    photographer = Photographer(tmp_path / "passes", tmp_path / "pictures")
    with monkeypatch.context() as patch:
        for name in ("open", "makedirs", "fsync", "link", "replace", "remove"):
            patch.setattr(os, name, photographer.around(getattr(os, name)))
        whole = fit(checkpoint=tmp_path / "passes").fit(rows)
    pictures = list(photographer.pictures())
    assert len(pictures) > 7 * 4  # of each pass: empty or half, whole, named, and cleared up
    for picture in pictures:
        reached = max((int(path.stem[5:]) for path in picture.glob("pass-*.dgmm")), default=0)
        steps = list((model := fit(checkpoint=picture)).fit_passes(rows))
        assert steps[0].resumed == (reached > 0)
        assert steps[0].passes == max(reached, 1)
        assert_same_parameters(model, whole)
        assert not list(picture.glob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_fit_that_can_go_on(
    place: Path, undisturbed: GaussianMixture, number: signal.Signals
) -> None:
    process = start(*FIT, *TEXTBOOK, cwd=place)
    wait_for_pass(process, 4)
    process.send_signal(number)
    told = end(process)
    assert process.returncode == 4
    assert "Interrupted: the same command continues where it stopped." in told
    assert "Traceback" not in told
    assert newest(place) >= 4
    finish(start(*FIT, *TEXTBOOK, cwd=place))
    assert_same(place, undisturbed)


def test_a_second_signal_ends_it_at_once(place: Path) -> None:
    """Workers that hang hold up an end in good order, which tells how to go on."""
    process = start(*FIT, *TEXTBOOK, "--workers", "2", cwd=place)
    wait_for_pass(process, 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()
    try:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 4
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):  # one may have ended with its parent
                worker.kill()
    assert "continues where it stopped" not in end(process)


def test_of_two_drivers_one_ends(place: Path, undisturbed: GaussianMixture) -> None:
    """And the other's model is whole."""
    drivers = [start(*FIT, *TEXTBOOK, cwd=place) for _ in range(2)]
    told = [end(driver) for driver in drivers]
    codes = sorted(driver.returncode for driver in drivers)
    assert codes in ([0, 3], [0, 0]), told  # the second may have come when all was done
    if codes == [0, 3]:
        assert any("another driver writes to" in text for text in told)
    assert_same(place, undisturbed)


# ---------------------------------------------------------------- workers and the scheduler


def passes_with(rows: Any, client: Client, meter: Meter | None = None) -> Iterator[Any]:
    model = GaussianMixture(
        6, strategy="em", tol=0, max_iter=PASSES - 2, random_state=0, cache="none"
    )
    yield from model.fit_passes(rows, client=client, meter=meter)
    yield model


def pids(client: Client) -> list[int]:
    return sorted(client.run(os.getpid).values())


@contextmanager
def later(seconds: float, what: Callable[[], object]) -> Iterator[None]:
    """``what`` happens while the body runs."""
    timer = threading.Timer(seconds, what)
    timer.start()
    yield
    timer.cancel()
    timer.join()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def finished(walking: Iterator[Any]) -> GaussianMixture:
    (*_, model) = walking
    assert isinstance(model, GaussianMixture)
    return model


def test_every_worker_killed_in_turn(store: Path, undisturbed: GaussianMixture) -> None:
    """During passes; Dask starts others in their places."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        walking = passes_with(store, client)
        next(walking)
        for turn in range(PASSES - 2):
            client.wait_for_workers(2, timeout=60)
            victim = pids(client)[turn % 2]
            with later(0.05, lambda victim=victim: kill(victim)):
                next(walking)
        model = finished(walking)
    np.testing.assert_array_equal(model.means_, undisturbed.means_)
    assert model.lower_bounds_ == undisturbed.lower_bounds_


def test_workers_that_are_stopped(
    store: Path, undisturbed: GaussianMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hang, and don't hang the fit; one that comes back late changes nothing."""
    monkeypatch.setattr("dgmm.engine.workers.QUIET_SECONDS", 1)
    monkeypatch.setattr("dgmm.engine.workers.ANSWER_SECONDS", 5)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        walking = passes_with(store, client)
        next(walking)
        for _ in range(2):
            victim = pids(client)[0]
            kill(victim, signal.SIGSTOP)
            next(walking)
            kill(victim, signal.SIGCONT)
            next(walking)
        model = finished(walking)
    np.testing.assert_array_equal(model.means_, undisturbed.means_)


@pytest.mark.parametrize("opened", [str, da.from_zarr], ids=["stored", "lazy"])
def test_a_cluster_of_which_all_workers_stop_is_given_up(
    store: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[Path], Any]
) -> None:
    patience = {"workers.QUIET_SECONDS": 1, "workers.ANSWER_SECONDS": 3, "cluster.ATTEMPTS": 2}
    for name, value in patience.items():
        monkeypatch.setattr(f"dgmm.engine.{name}", value)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        meter = Meter()
        walking = passes_with(opened(store), client, meter)
        next(walking)
        stopped = pids(client)
        try:
            for each in stopped:
                kill(each, signal.SIGSTOP)
            with pytest.raises(ClusterLostError, match=r"of its workers \(2\) none answers"):
                next(walking)
        finally:
            for each in stopped:
                kill(each, signal.SIGCONT)
        assert meter.rows <= ROWS  # what was given up is not counted as swept


def test_a_block_that_kills_its_worker_is_named(store: Path) -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        sweep = dgmm.engine.over(dgmm.open_dataset(store), client)
        with pytest.raises(BlockError, match="each worker that took them died"):
            sweep(deadly, 200_000)


def deadly(block: Any, row: int) -> Any:
    if block.start <= row < block.start + len(block.rows):
        os._exit(1)
    return dgmm.model.statistics.WeightedSum(1.0, 1.0)


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


class Supervised:
    """A scheduler and two workers, each started again when it ends, as a cluster's owner does."""

    def __init__(self, place: Path, protocol: str = "tcp") -> None:
        self.port, self._place, self._stop = free_port(), place, threading.Event()
        address, host = f"{protocol}://127.0.0.1:{self.port}", f"{protocol}://127.0.0.1"
        commands = [
            ["scheduler", "--host", host, "--port", str(self.port), "--no-dashboard"],
            *(
                ["worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
                for _ in range(2)
            ),
        ]
        self.processes: list[Any] = [None] * len(commands)
        self._threads = [
            threading.Thread(target=self._keep, args=(number, words))
            for number, words in enumerate(commands)
        ]
        for thread in self._threads:
            thread.start()

    def _keep(self, number: int, words: list[str]) -> None:
        while not self._stop.is_set():
            script = f"from distributed.cli.dask_{words[0]} import main; main()"
            self.processes[number] = start(*words[1:], cwd=self._place, script=script)
            end(self.processes[number])
            time.sleep(0.2)

    def close(self) -> None:
        self._stop.set()
        for process in self.processes:
            process.kill()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    cluster = Supervised(tmp_path)
    yield cluster
    cluster.close()


def test_a_scheduler_that_stops_is_given_up(
    store: Path, supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = {
        "workers.QUIET_SECONDS": 1,
        "workers.SCHEDULER_SECONDS": 3,
        "cluster.RETURN_SECONDS": 4,
        "cluster.ATTEMPTS": 2,
    }
    address = f"tcp://127.0.0.1:{supervised.port}"
    with Client(address, set_as_default=False, timeout=60) as client:
        walking = passes_with(store, client)
        next(walking)
        for name, value in patience.items():
            monkeypatch.setattr(f"dgmm.engine.{name}", value)
        supervised.processes[0].send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ClusterLostError, match="did not come back in 4 s"):
                next(walking)
        finally:
            supervised.processes[0].send_signal(signal.SIGCONT)


def test_the_scheduler_is_killed(
    place: Path, undisturbed: GaussianMixture, supervised: Supervised
) -> None:
    address = f"tcp://127.0.0.1:{supervised.port}"
    process = start(*FIT, *TEXTBOOK, "--scheduler", address, "--connect-timeout", "60", cwd=place)
    for number in (2, 5, 8):
        wait_for_pass(process, number)
        supervised.processes[0].kill()
    told = finish(process)
    assert "begun again, 2 of 5" in told
    assert_same(place, undisturbed)


class Proxy:
    """Between the driver and the scheduler: a wire that can be cut."""

    def __init__(self, port: int) -> None:
        self._to, self._pairs = port, list[tuple[socket.socket, socket.socket]]()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._server.accept()
                try:
                    outer = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    inner.close()
                    continue
                self._pairs.append((inner, outer))
                for one, other in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def close(self) -> None:
        self._server.close()
        self.cut()


def test_the_connection_is_cut(
    place: Path, undisturbed: GaussianMixture, supervised: Supervised
) -> None:
    with Client(f"tcp://127.0.0.1:{supervised.port}", timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    proxy = Proxy(supervised.port)
    address = f"tcp://127.0.0.1:{proxy.port}"
    process = start(*FIT, *TEXTBOOK, "--scheduler", address, "--connect-timeout", "60", cwd=place)
    for number in (2, 4, 6, 8):
        wait_for_pass(process, number)
        time.sleep(0.05)
        proxy.cut()
    finish(process)
    proxy.close()
    assert_same(place, undisturbed)


# ---------------------------------------------------------------- predict


def test_predict_killed_leaves_nothing_half(place: Path, undisturbed: GaussianMixture) -> None:
    undisturbed.save(place / "model.dgmm")
    words = ("predict", "rows.zarr", "-m", "model.dgmm", "-o", "labels.zarr")
    for delay in (0.0, 0.1, 0.2, 0.4):
        process = start(*words, cwd=place)
        until = time.monotonic() + 30
        while not list(place.glob("labels.zarr*")) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        end(process)
        if (place / "labels.zarr").exists():  # it was done before
            break
    if not (place / "labels.zarr").exists():
        finish(start(*words, cwd=place))
    labels = zarr.open_array(place / "labels.zarr", mode="r")
    assert labels.shape == (ROWS,)
    expected = undisturbed.predict(zarr.open_array(place / "rows.zarr", mode="r")[:50_000])
    np.testing.assert_array_equal(labels[:50_000], expected)
    assert np.asarray(labels[:]).max() < 6


# ---------------------------------------------------------------- a soak


def test_many_passes_leave_nothing_behind(tmp_path: Path) -> None:
    """500 passes: neither memory nor tasks pile up, in driver, scheduler or workers."""
    rng = np.random.default_rng(0)
    zarr.create_array(tmp_path / "rows.zarr", data=rng.normal(size=(4000, 3)), chunks=(250, 3))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        everyone = [psutil.Process(), *(psutil.Process(pid) for pid in pids(client))]
        model = GaussianMixture(
            3, strategy="em", tol=0, max_iter=498, random_state=0, checkpoint=tmp_path / "passes"
        )
        sizes = {}
        for progress in model.fit_passes(tmp_path / "rows.zarr", client=client):
            if progress.passes in (150, 500):
                sizes[progress.passes] = [each.memory_info().rss for each in everyone]
        for early, late in zip(sizes[150], sizes[500], strict=True):
            assert late < early + (24 << 20)  # 70 kB a pass would be a leak
        tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        until = time.monotonic() + 10
        while tasks and time.monotonic() < until:
            time.sleep(0.2)
            tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        assert tasks == 0
    assert len(list((tmp_path / "passes").iterdir())) == 4


# ---------------------------------------------------------------- strangers


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """Dask's configuration for a cluster of one certificate authority, as environment variables."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(encoding))
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "key.pem").write_bytes(private)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    settings = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    settings[f"{tls}CA_FILE"] = str(tmp_path / "cert.pem")
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        settings[f"{tls}{role}__CERT"] = str(tmp_path / "cert.pem")
        settings[f"{tls}{role}__KEY"] = str(tmp_path / "key.pem")
    return settings


def test_a_cluster_behind_tls(
    place: Path,
    undisturbed: GaussianMixture,
    certificates: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It serves who has a certificate, by Dask's own configuration; others are turned away."""
    plain = dict(ENVIRONMENT)
    monkeypatch.setitem(globals(), "ENVIRONMENT", {**ENVIRONMENT, **certificates})
    cluster = Supervised(place, "tls")
    try:
        address = f"tls://127.0.0.1:{cluster.port}"
        words = (*FIT, *TEXTBOOK, "--scheduler", address, "--connect-timeout", "60")
        finish(start(*words, cwd=place))
        assert_same(place, undisturbed)
        monkeypatch.setitem(globals(), "ENVIRONMENT", plain)
        for stranger, code in ((address, 2), (f"tcp://127.0.0.1:{cluster.port}", 4)):
            words = ("score", "rows.zarr", "-m", "model.dgmm", "--scheduler", stranger)
            process = start(*words, "--connect-timeout", "5", cwd=place)
            told = end(process)
            assert process.returncode == code, told
            assert "Traceback" not in told
    finally:
        cluster.close()
