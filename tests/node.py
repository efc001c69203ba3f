"""This machine as a node of a cluster: it runs the pods of manifests, as containers.

Each pod has a network address of its own on a bridge, each container the image's files, read-only
where the manifest says so, processes of its own, no capabilities, and its memory limit.  Of
Kubernetes' controllers there is what a fit needs: a Deployment starts again what ended, and a Job
goes by its policy for failures.  Needs root, and Debian's packages iproute2 and util-linux.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

Document = dict[str, Any]

BRIDGE, NETWORK = "dgmm0", "10.86.0"
HOST, SERVICE, FIRST = f"{NETWORK}.1", f"{NETWORK}.2", 10
"""The addresses of this machine, of the Service, and where those of the pods begin."""

PREFIX = f"dgmm{os.getpid()}-"
"""Of the names that this process gives to networks and limits."""

SAME_CARD = "02:00:0a:56:00:02"
"""Of whoever has the Service's address: nobody notices that it is another pod."""

MEMORY, LIMIT = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
"""Where the kernel limits memory, and the file that says to how much: control groups."""

if not MEMORY.is_dir():  # version 2 of them
    MEMORY, LIMIT = MEMORY.parent, "memory.max"

KERNEL = {"proc": "proc", "sysfs": "sys"}
"""What the kernel tells, and where."""

UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def run(*words: object) -> None:
    """Run a command that must work."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@dataclass
class Container:
    """A running container of a pod.

    Attributes
    ----------
    pod, address : str
    process : Popen
        The program that started it, which ends when it ends.
    log : Path
        What it wrote to standard output and standard error.
    name : str
        Of its network and its memory limit.
    killed : bool
        By ``kill``.
    """

    pod: str
    address: str
    process: Any
    log: Path
    name: str
    killed: bool = False

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        code = self.process.poll()
        return 137 if self.killed and code is not None else code

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def send(self, number: int) -> None:
        """Send a signal to its first process, as the kubelet does."""
        for first in psutil.Process(self.process.pid).children():
            os.kill(first.pid, number)

    def kill(self) -> None:
        """End all of its processes at once."""
        while self.process.poll() is None:  # the first of them may not be there yet
            self.killed = True
            with suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        """End it, and give back what it had."""
        self.kill()
        run("ip", "netns", "del", self.name)
        with suppress(OSError):  # busy for as long as the kernel takes to forget its processes
            (MEMORY / self.name).rmdir()


@dataclass
class Node:
    """Where pods run.

    Attributes
    ----------
    root : Path
        The image's files.
    image : dict
        The image's configuration: environment and working directory.
    place : Path
        For volumes and logs.
    documents : list of dict
        The manifests applied: Deployments, a Job, a Service, ConfigMaps.
    secrets : dict of dict
        Secrets by name: values by key.
    containers : dict of Container
        Those of Deployments, by the names of their pods.
    attempts : list of Container
        Those of the Job, one after the other.
    failed : bool
        Whether the Job is given up.
    starts : int
        How many containers there have been.
    """

    root: Path
    image: Document
    place: Path
    documents: list[Document] = field(default_factory=list)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    attempts: list[Container] = field(default_factory=list)
    failed: bool = False
    starts: int = 0

    def document(self, kind: str, name: str) -> Document:
        found = (each for each in self.documents if each["kind"] == kind)
        return next(each for each in found if each["metadata"]["name"] == name)

    def tend(self) -> None:
        """What the controllers do from time to time."""
        for each in self.documents:
            if each["kind"] == "Deployment":
                for number in range(each["spec"]["replicas"]):
                    name = f"{each['metadata']['name']}-{number}"
                    if name in self.containers:
                        if self.containers[name].exit_code is None:
                            continue
                        self.containers.pop(name).close()
                    self.containers[name] = self.start(name, each["spec"]["template"])
            if each["kind"] == "Job":
                self._tend_job(each["spec"])

    def _tend_job(self, job: Document) -> None:
        """Start the Job's pod, again unless it did its work or its policy says no."""
        codes = [each.exit_code for each in self.attempts]
        if self.failed or (codes and codes[-1] in (None, 0)):
            return
        rules = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
        fatal = {code for rule in rules for code in rule["onExitCodes"]["values"]}
        assert all(rule["action"] == "FailJob" for rule in rules)
        if codes and (codes[-1] in fatal or len(codes) > job["backoffLimit"]):
            self.failed = True
            return
        self.attempts.append(self.start(f"dgmm-{len(codes)}", job["template"]))

    @property
    def driver(self) -> Container:
        """The Job's last pod."""
        return self.attempts[-1]

    @property
    def ended(self) -> bool:
        return self.failed or (bool(self.attempts) and self.driver.exit_code == 0)

    def until(self, happened: Callable[[], object], seconds: float = 300) -> None:
        """Let the controllers do their work until something ``happened``."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, self.story()
            self.tend()
            time.sleep(0.2)

    def story(self) -> str:
        """The last lines of all pods."""
        every = [*self.attempts, *self.containers.values()]
        return "\n".join(f"{each.pod}: {line}" for each in every for line in each.lines()[-12:])

    def close_job(self) -> None:
        """End the Job's pods, so that it begins anew; what serves it goes on."""
        for each in self.attempts:
            each.close()
        self.attempts, self.failed = [], False

    def close(self) -> None:
        self.close_job()
        for each in self.containers.values():
            each.close()
        self.containers = {}

    # ------------------------------------------------------------ a container

    def start(self, pod: str, template: Document, command: list[str] | None = None) -> Container:
        """Start a pod's container, or another ``command`` in its place."""
        spec = template["spec"]
        (container,) = spec["containers"]
        self.starts += 1
        name = f"{PREFIX}{self.starts}"
        here, address = self.place / f"{self.starts}-{pod}", f"{NETWORK}.{FIRST + self.starts}"
        known = self._environment(container, pod)
        words = [_expanded(word, known) for word in command or container["command"]]
        script = _script(self, spec, here, self._mounts(spec, here), known)
        selector, labels = self.service["spec"]["selector"], template["metadata"]["labels"]
        _connect(name, address, serves=selector.items() <= labels.items())
        cgroup = _limited(name, container["resources"]["limits"]["memory"])
        log = here / "log"
        log.touch()
        apart = ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork"]
        process = subprocess.Popen(
            [*apart, "sh", "-euc", f"exec > {log} 2>&1\n{script}", "sh", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())) and None,
        )
        return Container(pod, address, process, log, name)

    @property
    def service(self) -> Document:
        return next(each for each in self.documents if each["kind"] == "Service")

    def _environment(self, container: Document, pod: str) -> dict[str, str]:
        """The environment of a container, as the kubelet makes it."""
        known = dict(each.split("=", 1) for each in self.image["Env"])
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                known |= self.document("ConfigMap", source["configMapRef"]["name"])["data"]
            else:
                known |= self.secrets.get(source["secretRef"]["name"], {})
        for each in container.get("env", []):
            known[each["name"]] = each.get("value", pod)  # or metadata.name, from a fieldRef
        return known

    def _mounts(self, spec: Document, here: Path) -> dict[str, Path]:
        """What is mounted where; its directories are made."""
        (container,) = spec["containers"]
        user, group = spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]
        volumes = {each["name"]: each for each in spec["volumes"]}
        mounts = {}
        for mount in container["volumeMounts"]:
            volume, source = volumes[mount["name"]], here / mount["name"]
            source.mkdir(parents=True)
            os.chown(source, user, group)
            if "secret" in volume:
                for name, value in self.secrets[volume["secret"]["secretName"]].items():
                    (source / name).write_text(value)
                    (source / name).chmod(volume["secret"]["defaultMode"])
                    os.chown(source / name, 0, group)
            mounts[mount["mountPath"]] = source
        hosts = here / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{SERVICE} {self.service['metadata']['name']}\n")
        mounts["/etc/hosts"] = hosts
        return mounts


def _expanded(word: str, known: Mapping[str, str]) -> str:
    """$(NAME), as in the command of a container."""
    for name, value in known.items():
        word = word.replace(f"$({name})", value)
    return word


def _script(
    node: Node, spec: Document, here: Path, mounts: Mapping[str, Path], known: Mapping[str, str]
) -> str:
    """Shell words that make the container's files and become its user, and run "$@" there."""
    (container,) = spec["containers"]
    files, allowed = here / "files", container["securityContext"]
    files.mkdir()
    lines = ["mount --make-rprivate /", f"mount --bind {node.root} {files}"]
    if allowed["readOnlyRootFilesystem"]:
        lines.append(f"mount -o remount,bind,ro {files}")
    lines += [f"mount -t {kind} {kind} {files}/{at}" for kind, at in KERNEL.items()]
    lines.append(f"mount --rbind /dev {files}/dev")
    for target, source in mounts.items():
        if source.is_dir():
            Path(f"{node.root}{target}").mkdir(exist_ok=True)
        lines.append(f"mount --bind {source} {files}{target}")
    user = ["--reuid", str(spec["securityContext"]["runAsUser"])]
    user += ["--regid", str(spec["securityContext"]["runAsGroup"])]
    user += ["--groups", str(spec["securityContext"]["fsGroup"])]
    assert allowed["capabilities"]["drop"] == ["ALL"]
    user += ["--inh-caps=-all", "--bounding-set=-all"]
    user += ["--no-new-privs"] * (not allowed["allowPrivilegeEscalation"])
    environment = [f"{name}={value}" for name, value in known.items()]
    become = ["chroot", str(files), "setpriv", *user]
    become += ["env", "-i", "-C", node.image["WorkingDir"], *environment]
    return "\n".join([*lines, f'exec {shlex.join(become)} "$@"'])


def _connect(name: str, address: str, serves: bool) -> None:
    """A network of a pod's own, on the bridge."""
    run("ip", "netns", "add", name)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "link", "set", name, "master", BRIDGE, "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    if serves:
        run("ip", "-n", name, "link", "set", "eth0", "address", SAME_CARD)
        run("ip", "-n", name, "addr", "add", f"{SERVICE}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        run("ip", "-n", name, "link", "set", device, "up")
    run("ip", "-n", name, "route", "add", "default", "via", HOST)


def _limited(name: str, memory: str) -> Path:
    """The control group of processes that together may take so much ``memory``."""
    cgroup = MEMORY / name
    cgroup.mkdir(exist_ok=True)
    number, unit = memory[:-2], memory[-2:]
    (cgroup / LIMIT).write_text(str(int(number) * UNITS[unit]))
    return cgroup


@contextmanager
def bridge() -> Iterator[None]:
    """What connects pods with each other and with this machine."""
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)  # of a run that was killed
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        run("ip", "addr", "add", f"{HOST}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        yield
    finally:
        run("ip", "link", "del", BRIDGE)
        names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        for line in names.splitlines():
            if line.startswith(PREFIX):
                run("ip", "netns", "del", line.split()[0])
