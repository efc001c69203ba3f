"""What deploy/ holds is what Kubernetes, the Dask operator and the runbook's reader expect."""

import copy
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import distribution
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import yaml
import zarr
from click.testing import CliRunner
from dask.utils import parse_bytes
from distributed.cli import dask_scheduler, dask_worker

from dgmm import errors
from dgmm.cli.base import LATER
from dgmm.cli.changing import DRIFTED
from dgmm.cli.commands import main

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
OVERLAYS = ("plain", "operator", "daskjob")
APPLIED = (*(f"overlays/{name}" for name in OVERLAYS), "cluster", "cert-manager", "nightly")
VERSIONS = ("1.31", "1.34")
ROLES = {"driver", "scheduler", "worker"}
COMPONENT = "app.kubernetes.io/component"
CONFIG_MAP = "dgmm-settings"
CRDS = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"

RUNBOOK = (DEPLOY / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]

TOOL = {"kubectl": ["kubectl", "kustomize"], "kustomize": ["kustomize", "build"]}
FOUND = next((words for name, words in TOOL.items() if shutil.which(name)), None)
renders = pytest.mark.skipif(FOUND is None, reason="kubectl or kustomize is needed, to render YAML")
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed")

Document = dict[str, Any]


def render(place: Path) -> list[Document]:
    """What ``kubectl apply -k`` would send."""
    assert FOUND is not None
    done = subprocess.run([*FOUND, str(place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def rendered(name: str) -> list[Document]:
    return render(DEPLOY / name)


def overlay(name: str) -> list[Document]:
    return rendered(f"overlays/{name}")


def named(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """The one document of that kind, or of that kind and name."""
    (found,) = (
        each
        for each in documents
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    )
    return found


def at(value: Any, path: str) -> Any:
    """What is in ``value`` at a path such as ``spec/containers/0``."""
    for key in path.split("/"):
        value = value[int(key) if isinstance(value, list) else key]
    return value


ABSENT = object()


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy with something else, or nothing, at ``path``."""
    value = copy.deepcopy(value)
    *parents, last = path.split("/")
    inner = at(value, "/".join(parents)) if parents else value
    key = int(last) if isinstance(inner, list) else last
    if new is ABSENT:
        del inner[key]
    else:
        inner[key] = new
    return value


@dataclass(frozen=True)
class Pod:
    """A pod as somebody will start it."""

    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Document
    replicas: int

    @property
    def role(self) -> str:
        return self.labels[COMPONENT]

    @property
    def container(self) -> Document:
        (only,) = self.spec["containers"]
        assert "initContainers" not in self.spec
        return dict(only)


POD_PATHS = {
    "Deployment": {"spec/template": "spec/replicas"},
    "Job": {"spec/template": None},
    "DaskCluster": {"spec/scheduler": None, "spec/worker": "spec/worker/replicas"},
    "DaskJob": {
        "spec/job": None,
        "spec/cluster/spec/scheduler": None,
        "spec/cluster/spec/worker": "spec/cluster/spec/worker/replicas",
    },
}
"""Where a kind has its pods, and how many of each."""


def pods(documents: list[Document]) -> dict[str, Pod]:
    """The pods of ``documents`` by role."""
    found = {}
    for document in documents:
        for path, replicas in POD_PATHS.get(document["kind"], {}).items():
            template = at(document, path)
            metadata = template["metadata"]
            pod = Pod(
                metadata["labels"],
                metadata.get("annotations", {}),
                template["spec"],
                1 if replicas is None else at(document, replicas),
            )
            assert pod.role not in found
            found[pod.role] = pod
    assert set(found) == ROLES
    return found


def environment(documents: list[Document], pod: Pod) -> dict[str, str]:
    """A container's environment, without what comes from Secrets or differs from pod to pod."""
    found: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        if "configMapRef" in source:
            found |= named(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each.get("value", "") for each in pod.container["env"]}


def command(documents: list[Document], role: str) -> list[str]:
    """A container's command, with its variables put in as Kubernetes does."""
    pod = pods(documents)[role]
    variables = environment(documents, pod)
    return [
        re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word)
        for word in pod.container["command"]
    ]


# Schemas


def closed(schema: Any) -> Any:
    """A CRD's schema as JSON Schema, which refuses what the API server would drop in silence."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["properties"] = {key: closed(each) for key, each in schema["properties"].items()}
        made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    if schema.get("nullable") is True:
        made = {"anyOf": [made, {"type": "null"}]}
    return made


@cache
def dask_validator(kind: str) -> jsonschema.Draft202012Validator:
    """Of the Dask operator's own schema of a kind, which its wheel has."""
    path = distribution("dask-kubernetes").locate_file(f"{CRDS}/{kind.lower()}.yaml")
    (version,) = yaml.load(Path(str(path)).read_text(), yaml.CSafeLoader)["spec"]["versions"]
    return jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def validate(document: Document, version: str) -> None:
    if document["apiVersion"] == "kubernetes.dask.org/v1":
        own = {key: each for key, each in document.items() if key not in ("apiVersion", "kind")}
        assert set(own.pop("metadata")) <= {"name", "labels", "annotations"}
        dask_validator(document["kind"]).validate(own)
    else:
        kubernetes_validate.validate(document, version, strict=True)


INVALID = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


@renders
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [each for each in APPLIED if each != "cert-manager"])
def test_every_manifest_is_valid(name: str, version: str) -> None:
    documents = rendered(name)
    assert documents
    for document in documents:
        validate(document, version)


@renders
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "kind", "path", "value"),
    [
        ("plain", "Job", "spec/backOffLimit", 6),
        ("plain", "Job", "spec/template/spec/containers/0/resources/limit", {}),
        ("plain", "Job", "spec/podFailurePolicy/rules/0/onExitCodes/values", ["three"]),
        ("plain", "Service", "spec/ports/0/port", "8786"),
        ("plain", "NetworkPolicy", "spec/ingress/0/form", []),
        ("plain", "NetworkPolicy", "spec/egress/0/from", []),
        ("plain", "PodDisruptionBudget", "spec/selector", "app=dgmm"),
        ("plain", "ConfigMap", "data/WORKERS", 4),
        ("operator", "DaskCluster", "spec/worker/replicas", "two"),
        ("operator", "DaskCluster", "spec/idle", 300),
        ("operator", "DaskCluster", "spec/scheduler/service", ABSENT),
        ("operator", "DaskCluster", "spec/scheduler/service/ports/0/targetPort", 8786),
        ("operator", "DaskCluster", "spec/worker/spec/containers/0/resources/limits/cpu", 2),
        ("operator", "DaskCluster", "spec/worker/spec/hostUsers", False),  # newer than its CRD
        ("daskjob", "DaskJob", "spec/backoffLimit", 6),
        ("daskjob", "DaskJob", "spec/job/spec/containers/0/name", ABSENT),
        ("daskjob", "DaskJob", "spec/job/spec/containers/0/resources/claims", []),
        ("daskjob", "DaskJob", "spec/cluster/worker", {}),
    ],
)
def test_a_broken_manifest_is_not_valid(
    name: str, kind: str, path: str, value: Any, version: str
) -> None:
    document = next(each for each in overlay(name) if each["kind"] == kind)
    validate(document, version)
    with pytest.raises(INVALID):
        validate(changed(document, path, value), version)


def test_a_schema_is_closed() -> None:
    schema = closed(
        {
            "properties": {
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"properties": {}, "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "none": {"type": "string", "nullable": True},
            }
        }
    )
    for good in (
        *({"port": 1}, {"port": "http"}, {"free": {"any": 1}}),
        *({"map": {"any": "text"}}, {"none": None}, {"none": "text"}),
    ):
        jsonschema.validate(good, schema)
    for bad in ({"port": 1.5}, {"other": 1}, {"map": {"any": 1}}, {"none": 1}, {"map": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


# Pod Security, level "restricted": https://kubernetes.io/docs/concepts/security/pod-security-standards

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"),
    *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
PROFILES = {"RuntimeDefault", "Localhost"}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def hosts(container: Document) -> Iterator[str]:
    """The hosts that a container's probes and hooks name."""
    hooks = container.get("lifecycle", {})
    asked = [container.get(f"{each}Probe", {}) for each in ("liveness", "readiness", "startup")]
    for each in (*asked, hooks.get("postStart", {}), hooks.get("preStop", {})):
        yield from (each.get(way, {}).get("host", "") for way in ("httpGet", "tcpSocket"))


def violations(spec: Document, annotations: dict[str, str]) -> set[str]:
    """The rules of the restricted level that a pod breaks."""
    pod = spec.get("securityContext", {})
    kinds = ("initContainers", "containers", "ephemeralContainers")
    containers = [each for kind in kinds for each in spec.get(kind, [])]
    own = [each.get("securityContext", {}) for each in containers]
    every = [pod, *own]

    def effective(name: str) -> list[Any]:
        """What holds for each container: its own value, else the pod's."""
        return [each.get(name, pod.get(name)) for each in own]

    volumes = [set(each) - {"name"} for each in spec.get("volumes", [])]
    rules = {
        "host namespaces": not any(
            spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")
        ),
        "privileged": not any(each.get("privileged") for each in own),
        "host process": not any(
            each.get("windowsOptions", {}).get("hostProcess") for each in every
        ),
        "capabilities": all(
            "ALL" in each.get("capabilities", {}).get("drop", [])
            and set(each["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}
            for each in own
        ),
        "volumes": all(len(each) == 1 and each <= VOLUMES for each in volumes),
        "host ports": not any(
            port.get("hostPort") for each in containers for port in each.get("ports", [])
        ),
        "hosts of probes": not any(host for each in containers for host in hosts(each)),
        "AppArmor": all(
            each.get("appArmorProfile", {}).get("type", "RuntimeDefault") in PROFILES
            for each in every
        )
        and all(
            value == "runtime/default" or value.startswith("localhost/")
            for name, value in annotations.items()
            if name.startswith(APPARMOR)
        ),
        "SELinux": all(
            options.get("type", "") in SELINUX_TYPES
            and not options.get("user")
            and not options.get("role")
            for options in (each.get("seLinuxOptions", {}) for each in every)
        ),
        "/proc": all(each.get("procMount", "Default") == "Default" for each in own),
        "sysctls": all(each["name"] in SYSCTLS for each in pod.get("sysctls", [])),
        "seccomp": all(
            (each or {}).get("type") in PROFILES for each in effective("seccompProfile")
        ),
        "privilege escalation": all(each.get("allowPrivilegeEscalation") is False for each in own),
        "root": all(each is True for each in effective("runAsNonRoot"))
        and all(each.get("runAsUser") != 0 for each in every),
    }
    return {rule for rule, kept in rules.items() if not kept}


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_restricted(name: str) -> None:
    for pod in pods(overlay(name)).values():
        assert violations(pod.spec, pod.annotations) == set()


CONTEXT = "containers/0/securityContext"


@renders
@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("host namespaces", "hostNetwork", True),
        ("host namespaces", "hostPID", True),
        ("host namespaces", "hostIPC", True),
        ("privileged", f"{CONTEXT}/privileged", True),
        ("host process", "securityContext/windowsOptions", {"hostProcess": True}),
        ("host process", f"{CONTEXT}/windowsOptions", {"hostProcess": True}),
        ("capabilities", f"{CONTEXT}/capabilities", ABSENT),
        ("capabilities", f"{CONTEXT}/capabilities/drop", ["NET_RAW"]),
        ("capabilities", f"{CONTEXT}/capabilities/add", ["SYS_PTRACE"]),
        ("volumes", "volumes/0", {"name": "tmp", "hostPath": {"path": "/"}}),
        ("volumes", "volumes/0", {"name": "tmp", "nfs": {"server": "a", "path": "/"}}),
        ("host ports", "containers/0/ports", [{"containerPort": 8786, "hostPort": 8786}]),
        ("hosts of probes", "containers/0/startupProbe", {"httpGet": {"host": "10.0.0.1"}}),
        ("hosts of probes", "containers/0/lifecycle", {"preStop": {"tcpSocket": {"host": "a"}}}),
        ("AppArmor", "securityContext/appArmorProfile", {"type": "Unconfined"}),
        ("AppArmor", f"{CONTEXT}/appArmorProfile", {"type": "Unconfined"}),
        ("SELinux", f"{CONTEXT}/seLinuxOptions", {"type": "spc_t"}),
        ("SELinux", "securityContext/seLinuxOptions", {"user": "root"}),
        ("SELinux", "securityContext/seLinuxOptions", {"role": "sysadm_r"}),
        ("/proc", f"{CONTEXT}/procMount", "Unmasked"),
        ("sysctls", "securityContext/sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        ("seccomp", "securityContext/seccompProfile", ABSENT),
        ("seccomp", "securityContext/seccompProfile/type", "Unconfined"),
        ("seccomp", f"{CONTEXT}/seccompProfile", {"type": "Unconfined"}),
        ("privilege escalation", f"{CONTEXT}/allowPrivilegeEscalation", ABSENT),
        ("privilege escalation", f"{CONTEXT}/allowPrivilegeEscalation", True),
        ("root", "securityContext/runAsNonRoot", ABSENT),
        ("root", f"{CONTEXT}/runAsNonRoot", False),
        ("root", f"{CONTEXT}/runAsUser", 0),
        ("root", "securityContext/runAsUser", 0),
    ],
)
def test_a_pod_that_breaks_a_rule_is_not_restricted(rule: str, path: str, value: Any) -> None:
    pod = pods(overlay("plain"))["worker"]
    assert violations(changed(pod.spec, path, value), {}) == {rule}


@renders
def test_other_containers_and_annotations_are_looked_at_too() -> None:
    spec = pods(overlay("plain"))["worker"].spec
    for kind in ("initContainers", "ephemeralContainers"):
        broken = violations({**spec, kind: [{"name": "other"}]}, {})
        assert broken == {"capabilities", "privilege escalation"}
    assert violations(spec, {f"{APPARMOR}worker": "unconfined"}) == {"AppArmor"}
    assert violations(spec, {f"{APPARMOR}worker": "runtime/default"}) == set()


# One source


@renders
def test_the_pods_are_the_same_in_all_overlays() -> None:
    plain = pods(overlay("plain"))
    assert pods(overlay("operator")) == plain
    assert pods(overlay("daskjob")) == plain
    service = named(overlay("plain"), "Service")["spec"]
    assert named(overlay("operator"), "DaskCluster")["spec"]["scheduler"]["service"] == service
    cluster = named(overlay("daskjob"), "DaskJob")["spec"]["cluster"]["spec"]
    assert cluster["scheduler"]["service"] == service


@renders
def test_who_starts_what() -> None:
    kinds = {
        name: {each["kind"] for each in overlay(name)} & {*POD_PATHS, "Service"}
        for name in OVERLAYS
    }
    assert kinds == {
        "plain": {"Deployment", "Service", "Job"},
        "operator": {"DaskCluster", "Job"},
        "daskjob": {"DaskJob"},
    }
    for name in OVERLAYS:  # the operator names things after these
        owners = [each for each in overlay(name) if each["kind"] in ("DaskCluster", "DaskJob")]
        assert {each["metadata"]["name"] for each in owners} <= {"dgmm"}


def put(settings: dict[str, str], place: Path) -> None:
    """Edit settings.env as a person would."""
    text = (place / "base/settings.env").read_text()
    for name, value in settings.items():
        text, found = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, name
    (place / "base/settings.env").write_text(text)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of deploy/, to be changed."""
    return Path(shutil.copytree(DEPLOY, tmp_path / "deploy"))


SETTINGS = {
    "DATA": "s3://other/rows.zarr",
    "DGMM_FIT_N_COMPONENTS": "7",
    "WORKERS": "11",
    "WORKER_THREADS": "3",
    "WORKER_CPU": "5",
    "WORKER_MEMORY": "9Gi",
    "WORKER_MEMORY_LIMIT": "8765432198",
    "DRIVER_CPU": "6",
    "DRIVER_MEMORY": "1408Mi",
    "SCHEDULER_MEMORY": "1152Mi",
}


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_are_in_one_place(place: Path, name: str) -> None:
    before = overlay(name)
    put(SETTINGS, place)
    documents = render(place / "overlays" / name)
    for document in documents:
        validate(document, VERSIONS[0])
    found = pods(documents)
    for role, sizes in {
        "worker": {"cpu": "5", "memory": "9Gi"},
        "driver": {"cpu": "6", "memory": "1408Mi"},
        "scheduler": {"cpu": "1", "memory": "1152Mi"},
    }.items():
        resources = found[role].container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {each: resources["limits"][each] for each in sizes} == sizes
    assert found["worker"].replicas == 11
    assert {"--nthreads=3", "--memory-limit=8765432198"} <= set(command(documents, "worker"))
    assert "s3://other/rows.zarr" in command(documents, "driver")
    assert environment(documents, found["driver"])["DGMM_FIT_N_COMPONENTS"] == "7"
    # New settings have a new name, so Deployments start new pods for them.
    names = {
        each["metadata"]["name"]
        for each in (named(before, "ConfigMap"), named(documents, "ConfigMap"))
    }
    assert len(names) == 2
    assert all(each.startswith(f"{CONFIG_MAP}-") for each in names)


@renders
def test_every_setting_is_used() -> None:
    """An option of ``dgmm fit``, a variable of a command, a field, or Amazon's."""
    data = named(overlay("plain"), "ConfigMap")["data"]
    options = {f"DGMM_FIT_{each.name.upper()}" for each in main.commands["fit"].params}
    commands = {
        name
        for pod in pods(overlay("plain")).values()
        for word in pod.container["command"]
        for name in re.findall(r"\$\((\w+)\)", word)
    }
    copied = yaml.safe_load((DEPLOY / "base/settings-to-fields.yaml").read_text())
    fields = {each["source"]["fieldPath"].removeprefix("data.") for each in copied}
    amazon = {name for name in data if name.startswith("AWS_")}
    assert set(data) <= options | commands | fields | amazon
    offered = re.findall(r"^# (\w+)=", (DEPLOY / "base/settings.env").read_text(), re.MULTILINE)
    assert all(name.startswith("AWS_") for name in offered)
    assert commands <= {*data, "POD_NAME"}
    others = {"DGMM_FIT_OUTPUT", "DGMM_FIT_CHECKPOINT", "DGMM_FIT_OVERWRITE"}
    assert set(data) == set(SETTINGS) | others | amazon
    memory = parse_bytes(data["WORKER_MEMORY"])
    assert 0.5 * memory < int(data["WORKER_MEMORY_LIMIT"]) <= 0.95 * memory


# What it means


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_commands_are_real(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is understood by the program it calls, with the environment it gets."""
    documents = overlay(name)
    for variable, value in environment(documents, pods(documents)["driver"]).items():
        monkeypatch.setenv(variable, value)
    dgmm, fit, *words = command(documents, "driver")
    assert (dgmm, fit) == ("dgmm", "fit")
    fitted = main.commands["fit"].make_context("fit", [*words], auto_envvar_prefix="DGMM_FIT")
    assert fitted.params["data"] == "s3://bucket/rows.zarr"
    assert fitted.params["n_components"] == 16
    assert fitted.params["output"] == "s3://bucket/model.dgmm"
    assert fitted.params["checkpoint"] == "s3://bucket/passes"
    assert fitted.params["overwrite"] is True
    address = "tls://dgmm-scheduler:8786"
    assert f"--scheduler={address}" in words
    dask, scheduler, *words = command(documents, "scheduler")
    assert (dask, scheduler) == ("dask", "scheduler")
    asked = dask_scheduler.main.make_context("scheduler", words).params
    assert (asked["protocol"], asked["port"]) == ("tls", "8786")
    assert asked["dashboard_address"] == "127.0.0.1:8787"
    dask, worker, *words = command(documents, "worker")
    assert (dask, worker) == ("dask", "worker")
    asked = dask_worker.main.make_context("worker", words).params
    assert asked["scheduler"] == address
    assert asked["dashboard_address"] == "127.0.0.1:8788"
    assert asked["nthreads"] == 2
    assert "--name=$(POD_NAME)" in pods(documents)["worker"].container["command"]
    (named_after,) = (
        each for each in pods(documents)["worker"].container["env"] if each["name"] == "POD_NAME"
    )
    assert named_after["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod(name: str) -> None:
    """TLS, no rights in the cluster, a root that can't be written, and room beside it."""
    documents = overlay(name)
    images = set()
    for pod in pods(documents).values():
        variables = environment(documents, pod)
        tls = "DASK_DISTRIBUTED__COMM__"
        assert variables[f"{tls}REQUIRE_ENCRYPTION"] == "True"
        assert variables[f"{tls}TLS__CA_FILE"] == "/tls/ca.crt"
        for party in ("SCHEDULER", "WORKER", "CLIENT"):
            assert variables[f"{tls}TLS__{party}__CERT"] == "/tls/tls.crt"
            assert variables[f"{tls}TLS__{party}__KEY"] == "/tls/tls.key"
        assert pod.spec["serviceAccountName"] == "dgmm"
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
        assert pod.spec["securityContext"]["runAsUser"] == 10001
        container = pod.container
        images.add(container["image"])
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        mounts = {each["name"]: each for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in pod.spec["volumes"]}
        assert set(mounts) == set(volumes)
        assert {each["mountPath"] for each in mounts.values()} == {"/tmp", "/scratch", "/tls"}
        assert mounts["tls"]["readOnly"] is True
        assert volumes["tls"]["secret"] == {"secretName": "dgmm-tls", "defaultMode": 0o440}
        assert pod.spec["securityContext"]["fsGroup"] == 10001  # or the key can't be read
        room = sum(
            parse_bytes(each["emptyDir"]["sizeLimit"])
            for each in volumes.values()
            if "emptyDir" in each
        )
        assert 0 < room < parse_bytes(container["resources"]["limits"]["ephemeral-storage"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert images == {"dgmm:0.1.0"}
    account = named(documents, "ServiceAccount")
    assert account["metadata"]["name"] == "dgmm"
    assert account["automountServiceAccountToken"] is False


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_secrets_are_named_and_never_written(name: str) -> None:
    documents = overlay(name)
    assert "Secret" not in {each["kind"] for each in documents}
    keys = [*named(documents, "ConfigMap")["data"]]
    for pod in pods(documents).values():
        keys += [each["name"] for each in pod.container["env"] if "value" in each]
    assert not [each for each in keys if re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", each)]
    holders = {
        role
        for role, pod in pods(documents).items()
        for each in pod.container.get("envFrom", [])
        if each.get("secretRef") == {"name": "dgmm-store", "optional": True}
    }
    assert holders == {"driver", "worker"}  # a scheduler reads no bucket


def exit_codes() -> set[int]:
    """All that dgmm's errors end with."""
    found, todo = set(), [errors.DgmmError]
    while todo:
        each = todo.pop()
        found.add(each.exit_code)
        todo += each.__subclasses__()
    return found


@renders
@pytest.mark.parametrize("name", ["plain", "operator"])
def test_the_job_knows_the_exit_codes(name: str) -> None:
    job = named(overlay(name), "Job")["spec"]
    fatal, disruption = job["podFailurePolicy"]["rules"]
    hopeless = exit_codes() - {errors.DgmmError.exit_code, LATER}
    assert fatal == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": "driver",
            "operator": "In",
            "values": sorted(hopeless),
        },
    }
    assert disruption == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    for text, more in (
        ((ROOT / "docs/guide/command-line.md").read_text(), {DRIFTED}),
        ((DEPLOY / "README.md").read_text().partition("\n## Each night\n")[0], set()),
    ):
        told = {int(code) for code in re.findall(r"^\| (\d) \|", text, re.MULTILINE)}
        assert told == exit_codes() | {0, 4} | more  # done; interrupted: tried again
    assert job["backoffLimit"] == 6
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy needs it
    grace = job["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace < 3600 < job["ttlSecondsAfterFinished"] < job["activeDeadlineSeconds"]


@renders
def test_a_daskjob_is_started_once() -> None:
    assert pods(overlay("daskjob"))["driver"].spec["restartPolicy"] == "Never"
    for role in ("scheduler", "worker"):  # the operator makes Deployments of them
        assert "restartPolicy" not in pods(overlay("daskjob"))[role].spec


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_workers_may_go_and_the_others_stay(name: str) -> None:
    documents = overlay(name)
    found = pods(documents)
    priorities = {
        each["metadata"]["name"]: each["value"]
        for each in rendered("cluster")
        if each["kind"] == "PriorityClass"
    }
    assert -10 < priorities["dgmm-worker"] < priorities["dgmm-coordinator"]
    for role, pod in found.items():
        works = role == "worker"
        wanted = "dgmm-worker" if works else "dgmm-coordinator"
        assert pod.spec["priorityClassName"] == wanted
        assert ("tolerations" in pod.spec) == works
        budgets = [
            each["spec"]
            for each in documents
            if each["kind"] == "PodDisruptionBudget"
            and selects(each["spec"]["selector"], pod.labels)
        ]
        assert [each["minAvailable"] for each in budgets] == ([] if works else [1])
        assert all(each["unhealthyPodEvictionPolicy"] == "AlwaysAllow" for each in budgets)
    spot = {each["key"] for each in found["worker"].spec["tolerations"]}
    assert spot == {
        "cloud.google.com/gke-spot",
        "kubernetes.azure.com/scalesetpriority",
        "dgmm-spot",
    }
    graces = {role: pod.spec["terminationGracePeriodSeconds"] for role, pod in found.items()}
    assert graces["worker"] < 30 <= graces["scheduler"] <= graces["driver"]


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_do_not_kill_who_is_busy(name: str) -> None:
    for role, pod in pods(overlay(name)).items():
        probes = {key: each for key, each in pod.container.items() if key.endswith("Probe")}
        assert set(probes) == (
            {"livenessProbe", "readinessProbe"} if role == "scheduler" else set()
        )
        for probe in probes.values():  # the dashboard is on loopback
            assert probe["exec"]["command"][0] == "python"
    probe = pods(overlay(name))["scheduler"].container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


# Who may reach whom


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector selects ``labels``."""
    operators = {
        "In": lambda each: labels.get(each["key"]) in each["values"],
        "NotIn": lambda each: labels.get(each["key"]) not in each["values"],
        "Exists": lambda each: each["key"] in labels,
        "DoesNotExist": lambda each: each["key"] not in labels,
    }
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        operators[each["operator"]](each) for each in selector.get("matchExpressions", [])
    )


@dataclass(frozen=True)
class Peer:
    """Somebody who connects, or is connected to: a pod, or what has just an address."""

    labels: dict[str, str]
    here: bool = True
    namespace: dict[str, str] = field(default_factory=dict)
    address: str | None = None

    def is_one_of(self, group: Document) -> bool:
        assert set(group) <= {"podSelector", "namespaceSelector"} or set(group) == {"ipBlock"}
        if "ipBlock" in group:
            assert set(group["ipBlock"]) == {"cidr"}
            block = ip_network(group["ipBlock"]["cidr"])
            return self.address is not None and ip_address(self.address) in block
        if "namespaceSelector" in group:
            near = selects(group["namespaceSelector"], self.namespace)
        else:
            near = self.here
        pod = self.address is None
        return pod and near and selects(group.get("podSelector", {}), self.labels)


def allowed(
    policies: list[Document],
    way: str,
    own: dict[str, str],
    peer: Peer,
    port: int,
    protocol: str = "TCP",
) -> bool:
    """Whether NetworkPolicies let a pod with the labels ``own`` and ``peer`` connect.

    ``way`` is "Ingress" from the peer, "Egress" to it.
    """
    assert all(set(each["policyTypes"]) <= {"Ingress", "Egress"} for each in policies)
    mine = [
        each
        for each in policies
        if selects(each["podSelector"], own) and way in each["policyTypes"]
    ]
    side = {"Ingress": "from", "Egress": "to"}[way]
    assert all(set(rule) <= {side, "ports"} for each in mine for rule in each[way.lower()])
    return not mine or any(
        (side not in rule or any(peer.is_one_of(group) for group in rule[side]))
        and (
            "ports" not in rule
            or (port, protocol)
            in [(each["port"], each.get("protocol", "TCP")) for each in rule["ports"]]
        )
        for each in mine
        for rule in each[way.lower()]
    )


def admitted(policies: list[Document], target: dict[str, str], peer: Peer, port: int) -> bool:
    """Whether they let ``peer`` connect to a pod with the labels ``target``."""
    return allowed(policies, "Ingress", target, peer, port)


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_only_the_jobs_own_pods_are_admitted(name: str) -> None:
    documents = overlay(name)
    policies = [each["spec"] for each in documents if each["kind"] == "NetworkPolicy"]
    labels = {role: pod.labels for role, pod in pods(documents).items()}
    peers = {role: Peer(each) for role, each in labels.items()}
    peers |= {
        "stranger": Peer({}),
        "another app's worker": Peer({COMPONENT: "worker", "app.kubernetes.io/name": "other"}),
        "a worker elsewhere": Peer(labels["worker"], here=False),
        "a scraper": Peer({}, here=False, namespace={"dgmm-metrics": "allowed"}),
        "a scraper not allowed": Peer({}, here=False, namespace={"dgmm-metrics": "no"}),
    }
    ports = (8786, 8787, 8788, 9090, 40123)
    admits = {
        (source, target, port)
        for source, peer in peers.items()
        for target in ROLES
        for port in ports
        if admitted(policies, labels[target], peer, port)
    }
    assert admits == {
        ("driver", "scheduler", 8786),
        ("worker", "scheduler", 8786),
        *(("worker", "worker", port) for port in ports),
        *(("scheduler", "worker", port) for port in ports),
        ("a scraper", "driver", 9090),
    }
    open_to_all: list[Document] = []
    assert admitted(open_to_all, labels["worker"], peers["stranger"], 8786)


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_reach_each_other_names_and_a_store_and_nobody_else(name: str) -> None:
    documents = overlay(name)
    policies = [each["spec"] for each in documents if each["kind"] == "NetworkPolicy"]
    labels = {role: pod.labels for role, pod in pods(documents).items()}
    system = {"kubernetes.io/metadata.name": "kube-system"}
    peers = {role: Peer(each) for role, each in labels.items()}
    peers |= {
        "stranger": Peer({}),
        "another app's worker": Peer({COMPONENT: "worker", "app.kubernetes.io/name": "other"}),
        "a scheduler elsewhere": Peer(labels["scheduler"], here=False),
        "names": Peer({"k8s-app": "kube-dns"}, here=False, namespace=system),
        "the node's names": Peer({}, address="169.254.20.10"),
        "the machine's rights": Peer({}, address="169.254.169.254"),
        "store": Peer({}, address="52.95.154.8"),
    }
    ports = (53, 80, 443, 8786, 8787, 9090, 40123)
    reaches = {
        (role, to, port, protocol)
        for role in ROLES
        for to, peer in peers.items()
        for port in ports
        for protocol in ("TCP", "UDP")
        if allowed(policies, "Egress", labels[role], peer, port, protocol)
    }
    lookups = ("names", "the node's names", "the machine's rights")  # of one kind of address
    assert reaches == {
        ("driver", "scheduler", 8786, "TCP"),
        ("worker", "scheduler", 8786, "TCP"),
        *(
            (role, "worker", port, each)
            for role in ("worker", "scheduler")
            for port in ports
            for each in ("TCP", "UDP")
        ),
        *((role, to, 443, "TCP") for role in ("driver", "worker") for to in peers),
        *((role, to, 53, each) for role in ROLES for to in lookups for each in ("TCP", "UDP")),
    }
    # What one side may reach, the other lets in, as far as it is a pod of these.
    for role, to, port, protocol in reaches:
        if to in ROLES and port != 443:
            assert allowed(policies, "Ingress", labels[to], peers[role], port, protocol)


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_service_finds_the_scheduler_and_nobody_else(name: str) -> None:
    service = named(overlay("plain"), "Service")  # the others' is the same
    assert service["metadata"]["name"] == "dgmm-scheduler"
    chosen = {
        role
        for role, pod in pods(overlay(name)).items()
        if service["spec"]["selector"].items() <= pod.labels.items()
    }
    assert chosen == {"scheduler"}
    (port,) = service["spec"]["ports"]
    (inner,) = pods(overlay(name))["scheduler"].container["ports"]
    assert (port["port"], port["targetPort"]) == (inner["containerPort"], inner["name"])
    assert port["name"] == "tcp-comm"  # as the operator asks for it
    for each in overlay(name):
        if each["kind"] == "Deployment":
            assert selects(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])


@renders
@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_operator_makes_of_it(version: str) -> None:
    """Its own functions, on our documents: valid, restricted, and found by Service and policies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not ours
        controller = import_module("dask_kubernetes.operator.controller.controller")
    documents = overlay("daskjob")
    job = named(documents, "DaskJob")
    cluster, common = job["spec"]["cluster"]["spec"], job["metadata"]["labels"]
    labels = {role: common | pod.labels for role, pod in pods(documents).items()}
    scheduler, worker = cluster["scheduler"], copy.deepcopy(cluster["worker"])
    made = {
        "service": controller.build_scheduler_service_spec(
            "dgmm", scheduler["service"], {}, labels["scheduler"]
        ),
        "scheduler": controller.build_scheduler_deployment_spec(
            "dgmm", scheduler["spec"], {}, labels["scheduler"]
        ),
        "worker": controller.build_worker_deployment_spec(
            *("dgmm-default", "space", "dgmm", "0123456789"), worker["spec"], {}, labels["worker"]
        ),
        "driver": controller.build_job_pod_spec(
            *("dgmm", "dgmm", "space"), job["spec"]["job"]["spec"], {}, labels["driver"]
        ),
    }
    for each in made.values():
        validate(each, version)
    assert made["service"]["metadata"]["name"] == "dgmm-scheduler"
    assert made["scheduler"]["metadata"]["name"] == "dgmm-scheduler"
    assert made["driver"]["metadata"]["name"] in RUNBOOK
    started = {role: made[role]["spec"]["template"] for role in ("scheduler", "worker")}
    started["driver"] = made["driver"]
    for role, pod in pods(documents).items():
        there = started[role]
        assert pod.labels.items() <= there["metadata"]["labels"].items()
        assert violations(there["spec"], {}) == set()
        # It adds an address without TLS to the environment; the command's own goes first.
        added = there["spec"]["containers"][0]["env"][len(pod.container["env"]) :]
        assert {each["name"] for each in added} <= {"DASK_WORKER_NAME", "DASK_SCHEDULER_ADDRESS"}
        assert there["spec"]["containers"][0]["command"] == pod.container["command"]


@renders
def test_the_certificates_of_cert_manager() -> None:
    found = {(each["kind"], each["metadata"]["name"]): each for each in rendered("cert-manager")}
    leaf = found["Certificate", "dgmm-tls"]["spec"]
    assert leaf["secretName"] == "dgmm-tls"
    assert set(leaf["usages"]) >= {"server auth", "client auth"}
    assert leaf["dnsNames"] == [named(overlay("plain"), "Service")["metadata"]["name"]]
    issuer = found["Issuer", leaf["issuerRef"]["name"]]["spec"]
    authority = found["Certificate", "dgmm-ca"]["spec"]
    assert authority["isCA"] is True
    assert issuer == {"ca": {"secretName": authority["secretName"]}}
    assert found["Issuer", authority["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}


# The runbook


def lines(start: str) -> list[list[str]]:
    """The commands that begin so, in words, as far as the first redirection."""
    found = [line.split(" >")[0] for line in LINES if line.startswith(start + " ")]
    assert found
    return [shlex.split(line) for line in found]


def shell(script: str, cwd: Path, **variables: str) -> None:
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_runbook_uses_what_is_checked_here() -> None:
    assert {line.split()[0] for line in LINES} == {
        *("kubectl", "dgmm", "openssl", "sed", "docker", "printf", "rm"),
        "IMAGE=registry.example.com/team/dgmm",
    }
    for path in re.findall(r"\bdeploy/[\w./-]+", RUNBOOK):
        assert (ROOT / path.rstrip(".")).exists(), path
    for path in re.findall(r"\]\((?!http)([^)]+)\)", RUNBOOK):
        assert (DEPLOY / path).exists(), path


@renders
def test_the_runbook_applies_what_is_there() -> None:
    paths = {words[words.index("-k") + 1] for words in lines("kubectl") if "-k" in words}
    applied = {"deploy/cluster", "deploy/cert-manager", "deploy/overlays/plain", "deploy/nightly"}
    assert paths == applied
    for path in paths:
        assert rendered(path.removeprefix("deploy/"))
    for name in OVERLAYS:
        assert f"| `{name}` |" in RUNBOOK


@renders
def test_the_runbook_names_objects_that_exist() -> None:
    """``kind/name``, or ``kind name``."""
    known = {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for name in APPLIED
        for each in rendered(name)
    }
    kinds = {each.split("/")[0] for each in known}
    commands = lines("kubectl")
    asked = {word for words in commands for word in words if word.split("/")[0] in kinds}
    asked = {word for word in asked if "/" in word} | {
        f"{first}/{second}"
        for words in commands
        for first, second in pairwise(words)
        if first in kinds and not second.startswith("-")
    }
    asked |= set(re.findall(rf"\b(?:{'|'.join(kinds)})/dgmm[\w-]*", RUNBOOK))
    assert {"job/dgmm", "deployment/dgmm-scheduler", "daskcluster/dgmm"} <= asked
    assert asked <= known
    secrets = {words[4] for words in lines("kubectl create secret")}
    assert secrets == {"dgmm-store", "dgmm-tls"}


@renders
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_runbooks_labels_select_pods(name: str) -> None:
    asked = [words[words.index("-l") + 1] for words in lines("kubectl") if "-l" in words]
    assert len(asked) >= 3
    for each in asked:
        key, value = each.split("=")
        assert any(pod.labels[key] == value for pod in pods(overlay(name)).values()), each


@renders
def test_the_runbook_forwards_ports_that_are_served() -> None:
    found = pods(overlay("plain"))
    served = {
        "deployment/dgmm-scheduler": found["scheduler"].container["command"],
        "job/dgmm": found["driver"].container["command"],
    }
    asked = {words[2]: words[3] for words in lines("kubectl port-forward")}
    assert set(asked) == set(served)
    for target, port in asked.items():
        assert any(re.search(rf"[:=]{port}$", word) for word in served[target])
        assert f"http://localhost:{port}/" in RUNBOOK
    (scraped,) = found["driver"].container["ports"]
    assert found["driver"].annotations["prometheus.io/port"] == str(scraped["containerPort"])
    assert asked["job/dgmm"] == str(scraped["containerPort"])
    label = lines("kubectl label namespace monitoring")[0][-1]
    policies = [each["spec"] for each in overlay("plain") if each["kind"] == "NetworkPolicy"]
    scraper = Peer({}, here=False, namespace=dict([label.split("=")]))
    assert admitted(policies, found["driver"].labels, scraper, scraped["containerPort"])


def test_the_runbooks_dgmm_is_real() -> None:
    commands = {words[1]: words[2:] for words in lines("dgmm")}
    assert set(commands) == {"plan", "show"}
    for name, words in commands.items():
        assert isinstance(main.commands[name].make_context(name, words), click.Context)


@renders
def test_the_runbook_names_the_image(place: Path) -> None:
    (naming,) = (block for block in BLOCKS if "IMAGE=" in block)
    script = [line for line in naming.splitlines() if not line.startswith("docker")]
    shell("\n".join(script), place.parent)
    for name in OVERLAYS:
        found = pods(render(place / "overlays" / name)).values()
        assert {pod.container["image"] for pod in found} == {"registry.example.com/team/dgmm:0.1.0"}


@renders
def test_the_runbook_plans(place: Path) -> None:
    """What ``dgmm plan`` prints takes the place of what is in settings.env; twice, too."""
    zarr.save_array(place.parent / "rows.zarr", np.ones((1000, 4), "f4"))
    (planning,) = (block for block in BLOCKS if "dgmm plan" in block)
    sed, plan = planning.splitlines()
    words = shlex.split(plan.split(" >>")[0])[1:]
    words[1] = str(place.parent / "rows.zarr")
    settings = place / "base/settings.env"
    for _ in range(2):
        shell(sed, place.parent)
        assert "WORKERS" not in settings.read_text()
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        settings.write_text(settings.read_text() + done.stdout)
    documents = render(place / "overlays/plain")
    before = named(overlay("plain"), "ConfigMap")["data"]
    assert set(named(documents, "ConfigMap")["data"]) == set(before)
    worker = pods(documents)["worker"]
    assert (worker.replicas, worker.container["resources"]["limits"]["cpu"]) == (4, "2")
    limit = int(named(documents, "ConfigMap")["data"]["WORKER_MEMORY_LIMIT"])
    assert limit < parse_bytes(worker.container["resources"]["limits"]["memory"])


def certify(place: Path) -> Path:
    """What the runbook's commands make."""
    (making,) = (block for block in BLOCKS if "openssl" in block)
    kept = [line for line in making.splitlines() if not line.startswith(("kubectl", "rm"))]
    shell("\n".join(kept), place)
    return place


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"))


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Both sides' handshake, to its end, in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(down, up, server_hostname="dgmm-scheduler"),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(10):
        for side in tuple(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    assert not sides


def context(place: Path, purpose: ssl.Purpose, certified: bool = True) -> ssl.SSLContext:
    """As strict as Python can be."""
    made = ssl.create_default_context(purpose, cafile=str(place / "ca.crt"))
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if certified:
        made.load_cert_chain(place / "tls.crt", place / "tls.key")
    return made


@openssl
def test_the_runbooks_certificates_serve_both_sides(certificates: Path, tmp_path: Path) -> None:
    server = context(certificates, ssl.Purpose.CLIENT_AUTH)
    handshake(server, context(certificates, ssl.Purpose.SERVER_AUTH))
    with pytest.raises(ssl.SSLError, match="did not return a certificate"):
        handshake(server, context(certificates, ssl.Purpose.SERVER_AUTH, certified=False))
    with pytest.raises(ssl.SSLError, match="verify failed"):
        handshake(server, context(certify(tmp_path), ssl.Purpose.SERVER_AUTH))
    (secret,) = (words for words in lines("kubectl create secret") if "dgmm-tls" in words)
    given = {word.removeprefix("--from-file=") for word in secret if word.startswith("--from-file")}
    assert given == {"ca.crt", "tls.crt", "tls.key"}
    assert all((certificates / each).exists() for each in given)


@openssl
@renders
def test_the_scheduler_answers_its_probe(certificates: Path) -> None:
    """Its command, environment and probe are those of the manifest; ports are free ones."""
    documents = overlay("plain")
    scheduler = pods(documents)["scheduler"]
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = {"8786": str(one.getsockname()[1]), "8787": str(other.getsockname()[1])}

    def moved(text: str) -> str:
        return re.sub(r"\b878[67]\b", lambda found: ports[found[0]], text)

    variables = {
        name: value.replace("/tls/", f"{certificates}/")
        for name, value in environment(documents, scheduler).items()
    }
    probe = scheduler.container["livenessProbe"]["exec"]["command"]
    asks = [sys.executable, *map(moved, probe[1:])]
    words = [moved(word) for word in command(documents, "scheduler")]
    assert words[0] == "dask"
    assert subprocess.run(asks, capture_output=True).returncode != 0
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while subprocess.run(asks, capture_output=True).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)
    finally:
        process.terminate()
        told = process.communicate(timeout=60)[1]
    assert re.search(r"Scheduler at: +tls://", told), told
