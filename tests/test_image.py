"""The image, run as the manifests say: driver, scheduler and workers, from bucket to bucket.

Its base is made by debootstrap and it is built by buildah, so no Docker engine is needed; the pods
are containers of this machine (``node.py``), and the store is an S3 server with TLS.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import s3fs
import zarr
from node import HOST, MEMORY, SERVICE, Container, Document, Node, bridge, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sklearn.exceptions import ConvergenceWarning
from test_deploy import DEPLOY, FOUND, ROOT, certify, put, render

import dgmm

TOOLS = ("buildah", "debootstrap", "ip", "unshare", "openssl")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
MISSING += ["kubectl or kustomize"] * (FOUND is None) + ["root"] * (os.geteuid() != 0)
MISSING += [str(MEMORY)] * (not os.access(MEMORY, os.W_OK))
# One image and one network of this machine: not in processes side by side.
MISSING += ["pytest -n 0"] * ("PYTEST_XDIST_WORKER" in os.environ)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(MISSING), reason=f"to run an image, {', '.join(MISSING)} is needed"),
]

SUITE = "trixie"
"""The Debian that the Dockerfile begins with."""

ROWS, COLUMNS, PASSES = 400_000, 8, 14
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


# ---------------------------------------------------------------- the image


def buildah(*words: object, storage: Path) -> str:
    """What a buildah command prints."""
    places = ["--root", storage / "images", "--runroot", storage / "running"]
    every = [str(word) for word in ("buildah", *places, *words)]
    done = subprocess.run(every, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def mirror() -> list[str]:
    """Where this machine's packages of Debian come from, if it is a Debian."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return [each for each in found if each.rstrip("/").endswith("/debian")][:1]


def pip_settings(place: Path) -> list[str]:
    """Mounts that give a build the settings that pip has here: indices and certificates."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    known = dict(re.findall(r"^(?::env:|global)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    mounts = {}
    if (certificates := known.get("cert")) is not None:
        shutil.copy(certificates, place / "ca.crt")  # the build replaces those of the system
        mounts[str(place / "ca.crt")] = known["cert"] = "/run/ca.crt"
    known.pop("constraint", None)  # of this machine's packages: the image's have hashes
    for index, path in re.findall(r"(file://)?(/[\w./-]+)", " ".join(known.values())):
        if (there := Path(path).parent if index else Path(path)).is_dir():
            mounts[str(there)] = str(there)
    lines = [f"{name} = {value}" for name, value in known.items()]
    (place / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    mounts[str(place / "pip.conf")] = "/etc/pip.conf"
    return [f"--volume={source}:{target}:ro" for source, target in mounts.items()]


@dataclass(frozen=True)
class Image:
    """Its files, its configuration and its size."""

    root: Path
    config: Document
    size: int


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built from deploy/Dockerfile, on a Debian made here."""
    place = tmp_path_factory.mktemp("image")
    base, storage = place / "base", place / "storage"
    run("debootstrap", "--variant=minbase", SUITE, base, *mirror())
    run("chroot", base, "apt-get", "clean")
    # As in the images of Debian: nothing that is installed is waited for until it is on disk.
    (base / "etc/dpkg/dpkg.cfg.d/docker-apt-speedup").write_text("force-unsafe-io\n")
    container = buildah("from", "scratch", storage=storage)
    buildah("add", container, base, "/", storage=storage)
    buildah("commit", "--rm", container, "base", storage=storage)
    words = ["--isolation=chroot", "--network=host", "--format=docker", "--jobs=2"]
    words += pip_settings(place)
    words += ["--build-arg=BASE=localhost/base", f"--file={DEPLOY / 'Dockerfile'}", "--tag=dgmm"]
    buildah("build", *words, ROOT, storage=storage)
    config = json.loads(buildah("inspect", "--type=image", "dgmm", storage=storage))
    container = buildah("from", "dgmm", storage=storage)
    root = Path(buildah("mount", container, storage=storage))
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())
    yield Image(root, config["Docker"]["config"], size)
    buildah("rm", "--all", storage=storage)


def test_the_image_is_as_stated(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["Healthcheck"]["Test"] == ["CMD", "dgmm", "--version"]
    (stated,) = re.findall(r"takes about (\d+) MB", (DEPLOY / "README.md").read_text())
    assert 0.8 * int(stated) < image.size / 1e6 < 1.1 * int(stated)
    for package in ("dgmm", "scipy", "distributed"):  # where all is read-only nothing can be
        (found,) = image.root.glob(f"opt/dgmm/lib/python3.*/site-packages/{package}")
        assert list(found.glob("__pycache__/*.pyc")), "compiled later"
    assert not (image.root / "opt/dgmm/bin/pip").exists()
    assert not (image.root / "usr/bin/gcc").exists()


def test_all_that_is_asked_for_is_pinned() -> None:
    """By requirements.txt, in a version that will do, and with digests."""
    text = (DEPLOY / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE))
    assert len(re.findall(r"^\S", text, re.MULTILINE)) == len(pinned)
    assert all("--hash=sha256:" in each for each in text.split("==")[1:])
    asked = {str(each).partition(";")[0] for each in requires("dgmm") or [] if "extra" not in each}
    asked |= {"s3fs", "prometheus-client", "matplotlib", "pillow", "bokeh", "setuptools"}
    for each in map(Requirement, asked):
        name = canonicalize_name(each.name)
        assert each.specifier.contains(pinned[name]), each


# ---------------------------------------------------------------- the store and the node


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the runbook's commands put into Secrets, and the certificate of a store of one's own."""
    place = certify(tmp_path_factory.mktemp("secrets"))
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    words += f" -subj /CN=store -addext subjectAltName=IP:{HOST} -keyout store.key -out store.crt"
    subprocess.run(words.split(), cwd=place, check=True, capture_output=True)
    names = ("ca.crt", "tls.crt", "tls.key", "store.crt", "store.key")
    files = {name: (place / name).read_text() for name in names}
    return {"dgmm-tls": files, "dgmm-store": KEYS}


MOTO = "import socket; socket.setdefaulttimeout(10); from moto.server import main; main()"
"""A store that does not wait for ever for a client that was killed in a TLS handshake."""


@dataclass(frozen=True)
class Store:
    """An S3 server with TLS, and a bucket."""

    url: str
    files: s3fs.S3FileSystem
    options: Document

    def clear(self) -> None:
        """Leave nothing but the rows."""
        for name in self.files.ls("bucket", refresh=True):
            if not name.endswith("rows.zarr"):
                self.files.rm(name, recursive=True)


@pytest.fixture(scope="module")
def store(
    secrets: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    place = tmp_path_factory.mktemp("store")
    for name in ("store.crt", "store.key"):
        (place / name).write_text(secrets["dgmm-tls"][name])
    with bridge():
        words = ["-H", HOST, "-p", "5443", "-c", "store.crt", "-k", "store.key"]
        server = subprocess.Popen(
            [sys.executable, "-c", MOTO, *words],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"https://{HOST}:5443"
        options: Document = {
            "key": KEYS["AWS_ACCESS_KEY_ID"],
            "secret": KEYS["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": url,
            "client_kwargs": {"verify": str(place / "store.crt")},
            "config_kwargs": {"retries": {"max_attempts": 20}},
        }
        files = s3fs.S3FileSystem(**options)
        files.mkdir("bucket")
        rng = np.random.default_rng(0)
        centres = 1.5 * rng.normal(size=(6, COLUMNS))
        rows = centres[rng.integers(6, size=ROWS)] + rng.normal(size=(ROWS, COLUMNS))
        zarr.create_array(
            "s3://bucket/rows.zarr",
            storage_options=options,
            data=rows.astype("f4"),
            chunks=(10_000, COLUMNS),
        )
        yield Store(url, files, options)
        server.kill()
        server.wait()


SETTINGS = {
    "DGMM_FIT_N_COMPONENTS": "6",
    "WORKERS": "2",
}
MORE = {
    "AWS_CA_BUNDLE": "/tls/store.crt",
    "AWS_DEFAULT_REGION": "us-east-1",
    "DGMM_FIT_STRATEGY": "em",
    "DGMM_FIT_TOL": "0",
    "DGMM_FIT_MAX_ITER": str(PASSES - 2),
    "DGMM_FIT_CACHE": "none",
}


@pytest.fixture(scope="module")
def nodes(
    image: Image,
    store: Store,
    secrets: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    place = tmp_path_factory.mktemp("pods")
    node = Node(image.root, image.config, place, secrets=secrets)
    yield node
    node.close()


@pytest.fixture(scope="module")
def planned(nodes: Node, store: Store) -> str:
    """The settings that ``dgmm plan --kubernetes`` prints, asked as the runbook says, in a pod."""
    apply(nodes, store)
    template = nodes.document("Job", "dgmm")["spec"]["template"]
    words = ["dgmm", "plan", "$(DATA)", "-k", "6", "--workers", "2", "--threads", "1"]
    pod = nodes.start("plan", template, [*words, "--kubernetes"])
    assert pod.process.wait(120) == 0, pod.lines()
    pod.close()
    return pod.log.read_text()


def apply(node: Node, store: Store, planned: str = "", **changes: str) -> None:
    """Edit the settings as a person would, and apply the plain overlay."""
    place = node.place / f"deploy-{node.starts}"
    shutil.copytree(DEPLOY, place, dirs_exist_ok=True)
    put(SETTINGS, place)
    settings = place / "base/settings.env"
    text = settings.read_text()
    if planned:
        text = text[: text.index("# What dgmm plan")] + planned
    added = {**MORE, "AWS_ENDPOINT_URL": store.url, **changes}
    settings.write_text(text + "".join(f"\n{name}={value}" for name, value in added.items()))
    node.documents = render(place / "overlays/plain")


@pytest.fixture
def cluster(nodes: Node, store: Store, planned: str) -> Iterator[Node]:
    """The plain overlay applied, with a clean bucket; nothing has started yet."""
    nodes.close()
    store.clear()
    apply(nodes, store, planned)
    yield nodes
    nodes.close()


def events(pod: Container) -> list[Document]:
    """What the driver told: every line is a JSON object, one of them the result."""
    return [{"event": "result", **json.loads(line)} for line in pod.lines()]


def passed(node: Node, number: int) -> bool:
    """Whether the driver has told of a pass."""
    return bool(node.attempts) and any(
        each.get("pass", 0) >= number
        for each in map(json.loads, node.driver.log.read_text().split("\n")[:-1])
    )


def model(store: Store, place: Path) -> dgmm.GaussianMixture:
    store.files.get("bucket/model.dgmm", str(place / "model.dgmm"))
    return dgmm.load(place / "model.dgmm")


def assert_same(found: dgmm.GaussianMixture, expected: dgmm.GaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.lower_bounds_ == expected.lower_bounds_


@pytest.fixture(scope="module")
def undisturbed(
    nodes: Node, store: Store, planned: str, tmp_path_factory: pytest.TempPathFactory
) -> dgmm.GaussianMixture:
    """The model of a fit in which nothing happens; it tells how it goes on the way.

    Scheduler and workers are left running.
    """
    apply(nodes, store, planned)
    nodes.until(lambda: passed(nodes, 3))
    with urllib.request.urlopen(f"http://{nodes.driver.address}:9090/metrics") as answer:
        told = answer.read().decode()
    seen = dict(re.findall(r"^(dgmm_\w+) (\S+)$", told, re.MULTILINE))
    assert float(seen["dgmm_passes_total"]) >= 3
    assert float(seen["dgmm_rows_total"]) >= 3 * ROWS
    assert float(seen["dgmm_rows_per_second"]) > 0
    assert float(seen["dgmm_seconds_left_at_most"]) > 0
    assert -100 < float(seen["dgmm_score"]) < 0
    # The dashboard answers inside the pod, as for a port-forward, and nobody else.
    scheduler = nodes.containers["dgmm-scheduler-0"]
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).status)"
    inside = ["ip", "netns", "exec", scheduler.name, sys.executable, "-c", ask]
    for page in ("health", "status"):
        done = subprocess.run([*inside, f"http://127.0.0.1:8787/{page}"], capture_output=True)
        assert done.stdout.strip() == b"200"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{scheduler.address}:8787/health", timeout=5)
    nodes.until(lambda: nodes.ended)
    (driver,) = nodes.attempts
    assert driver.exit_code == 0, nodes.story()
    story = events(driver)
    assert [each["pass"] for each in story if each["event"] == "pass"] == list(range(1, PASSES + 1))
    kinds = [each["event"] for each in story]
    assert kinds.index("start") < kinds.index("pass")
    assert kinds[-1] == "done"
    assert story[-1]["model"] == "s3://bucket/model.dgmm"
    return model(store, tmp_path_factory.mktemp("undisturbed"))


# ---------------------------------------------------------------- what happens to it


def test_from_bucket_to_bucket(undisturbed: dgmm.GaussianMixture, store: Store) -> None:
    """It is the model that a fit on this machine finds, whatever Python and NumPy there are."""
    rows = zarr.open_array("s3://bucket/rows.zarr", mode="r", storage_options=store.options)[:]
    here = dgmm.GaussianMixture(6, strategy="em", tol=0, max_iter=PASSES - 2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        here.fit(rows)
    assert undisturbed.lower_bound_ == pytest.approx(here.lower_bound_, rel=1e-9)


@pytest.mark.usefixtures("undisturbed")
def test_strangers_are_refused(nodes: Node, tmp_path: Path) -> None:
    """No certificate, that of another authority, and no TLS at all."""
    nodes.until(lambda: passed(nodes, 1))  # as it has, unless it is stopped since
    script = """
import sys
from distributed import Client
from distributed.security import Security
address, files = sys.argv[1:]
security = Security(
    tls_ca_file=f"{files}/ca.crt",
    tls_client_cert=f"{files}/tls.crt",
    tls_client_key=f"{files}/tls.key",
) if address.startswith("tls") else Security()
Client(address, security=security, timeout=5)
print("connected")
"""
    ours, others = tmp_path / "ours", certify_in(tmp_path / "others")
    ours.mkdir()
    for name, value in nodes.secrets["dgmm-tls"].items():
        (ours / name).write_text(value)
    mixed = tmp_path / "mixed"  # it knows whom to trust, but nobody trusts it
    shutil.copytree(others, mixed)
    shutil.copy(ours / "ca.crt", mixed / "ca.crt")
    asked = [(f"tls://{SERVICE}:8786", ours), (f"tls://{SERVICE}:8786", others)]
    asked += [(f"tls://{SERVICE}:8786", mixed), (f"tcp://{SERVICE}:8786", ours)]
    told = []
    for address, files in asked:
        words = [sys.executable, "-c", script, address, str(files)]
        told.append(subprocess.run(words, capture_output=True, text=True).stdout.strip())
    assert told == ["connected", "", "", ""]


def certify_in(place: Path) -> Path:
    place.mkdir()
    return certify(place)


@pytest.mark.usefixtures("undisturbed")
def test_a_plan_that_does_not_fit_is_refused_once(nodes: Node, store: Store, planned: str) -> None:
    nodes.close_job()
    store.clear()
    apply(nodes, store, planned, DGMM_FIT_MEMORY="50MiB")
    nodes.until(lambda: nodes.ended)
    assert [each.exit_code for each in nodes.attempts] == [3]
    last = events(nodes.driver)[-1]
    assert last["event"] == "error"
    assert "may take 50.00 MiB" in last["message"]
    assert not store.files.exists("bucket/model.dgmm")


def test_a_driver_that_is_killed_goes_on(
    cluster: Node, undisturbed: dgmm.GaussianMixture, store: Store, tmp_path: Path
) -> None:
    for number in (3, 6):
        cluster.until(lambda number=number: passed(cluster, number))
        cluster.driver.kill()
    cluster.until(lambda: cluster.ended)
    assert [each.exit_code for each in cluster.attempts] == [137, 137, 0]
    for before, after in pairwise(cluster.attempts):  # at most the pass under way is lost
        reached = [each["pass"] for each in events(before) if each["event"] == "pass"]
        resumed = next(each["pass"] for each in events(after) if each["event"] == "pass")
        assert resumed >= reached[-1]
    assert_same(model(store, tmp_path), undisturbed)


def test_a_driver_that_is_evicted_goes_on(
    cluster: Node, undisturbed: dgmm.GaussianMixture, store: Store, tmp_path: Path
) -> None:
    cluster.until(lambda: passed(cluster, 4))
    cluster.driver.send(signal.SIGTERM)
    template = cluster.document("Job", "dgmm")["spec"]["template"]["spec"]
    assert cluster.driver.process.wait(template["terminationGracePeriodSeconds"]) == 4
    assert events(cluster.driver)[-1]["exit_code"] == 4
    cluster.until(lambda: cluster.ended)
    assert_same(model(store, tmp_path), undisturbed)


def test_workers_and_a_scheduler_that_are_killed(
    cluster: Node, undisturbed: dgmm.GaussianMixture, store: Store, tmp_path: Path
) -> None:
    for number, pod in ((2, "dgmm-worker-0"), (4, "dgmm-scheduler-0"), (6, "dgmm-worker-1")):
        cluster.until(lambda number=number: passed(cluster, number))
        cluster.containers[pod].kill()
    cluster.until(lambda: cluster.ended)
    assert [each.exit_code for each in cluster.attempts] == [0]
    assert_same(model(store, tmp_path), undisturbed)
