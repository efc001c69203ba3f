"""Settings for Kubernetes: what is printed, and that real processes keep within it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import processes
import psutil
import pytest
import zarr
from dask.utils import parse_bytes

from dgmm import GaussianMixture, UsageError
from dgmm.engine.kubernetes import NANNY, OF_CONTAINER, Pods
from dgmm.estimators.fits import session_of

MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command from a small process: the peak of a child counts its parent's when it was made."""


def dgmm(*words: object, cwd: Path, code: int = 0) -> Any:
    process = processes.start(*words, cwd=cwd, stdout=subprocess.PIPE)
    printed, told = process.communicate()
    assert process.returncode == code, told
    return subprocess.CompletedProcess(words, code, printed, told)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 000 rows x 24 in 40 chunks of 1 MB."""
    place = tmp_path_factory.mktemp("pods")
    rng = np.random.default_rng(0)
    rows = zarr.create_array(
        place / "rows.zarr", shape=(400_000, 24), chunks=(10_000, 24), dtype="f4"
    )
    for first in range(0, 400_000, 100_000):
        centres = 2 * rng.integers(-2, 3, size=(100_000, 1))
        rows[first : first + 100_000] = rng.normal(size=(100_000, 24)) + centres
    return place


def test_settings_are_lines_or_an_object(place: Path) -> None:
    words = ("plan", "rows.zarr", "-k", 8, "--workers", 2, "--threads", 1, "--kubernetes")
    printed = dgmm(*words, cwd=place)
    lines = [line for line in printed.stdout.splitlines() if not line.startswith("#")]
    settings = dict(line.split("=") for line in lines)
    assert list(settings) == [
        *("WORKERS", "WORKER_THREADS", "WORKER_CPU", "WORKER_MEMORY", "WORKER_MEMORY_LIMIT"),
        *("DRIVER_CPU", "DRIVER_MEMORY", "SCHEDULER_MEMORY"),
    ]
    assert (settings["WORKERS"], settings["WORKER_THREADS"]) == ("2", "1")
    assert "rows.zarr: 400,000 rows x 24" in printed.stdout
    assert printed.stderr == ""
    as_object = json.loads(dgmm(*words, "--json", cwd=place).stdout)
    assert {name: str(value) for name, value in as_object.items()} == settings


def test_too_few_tasks_too_little_memory_and_no_cluster(place: Path) -> None:
    words = ("plan", "rows.zarr", "-k", 8, "--kubernetes")
    assert "tasks for 80 threads" in dgmm(*words, "--workers", 40, cwd=place).stderr
    refused = dgmm(*words, "--memory", "512Mi", cwd=place, code=3)
    assert "in each worker process" in refused.stderr
    assert refused.stdout == ""
    refused = dgmm(*words, "--scheduler", "tcp://127.0.0.1:9", cwd=place, code=2)
    assert "leave out --scheduler" in refused.stderr


def pods_of(place: Path, memory: str | int | None, threads: int) -> Pods:
    return session_of(GaussianMixture(8, memory=memory), str(place / "rows.zarr")).pods(2, threads)


@pytest.mark.parametrize("memory", [None, "3GiB", "16Gi"])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_worker_is_within_its_limit_and_that_within_the_container(
    place: Path, memory: str | None, threads: int
) -> None:
    pods = pods_of(place, memory, threads)
    pods.plan.check()
    assert pods.plan.peak_bytes <= 0.7 * pods.limit
    assert pods.limit <= min(pods.worker - NANNY, OF_CONTAINER * pods.worker)
    assert pods.worker % (128 << 20) == 0
    if memory is not None:
        assert pods.worker == parse_bytes(memory)
        assert pods.plan.cached > 0
    assert pods.keeping >= pods.worker or pods.plan.cached == 1
    roomy = pods_of(place, pods.keeping, threads)
    assert roomy.plan.cached == 1


def test_no_memory_at_all(place: Path) -> None:
    with pytest.raises(UsageError, match="no amount"):
        pods_of(place, "lots", 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*words: str, cwd: Path) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
        cwd=cwd,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def peak(process: psutil.Process) -> int:
    """The most memory it has had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@pytest.mark.memory
def test_real_processes_keep_within_their_containers(place: Path, tmp_path: Path) -> None:
    """A scheduler, two workers with their nannies and a driver that writes checkpoints."""
    words = ("rows.zarr", "-k", 12)
    machines = ("--workers", 2, "--threads", 2, "--memory", "3GiB", "--kubernetes", "--json")
    settings = json.loads(dgmm("plan", *words, *machines, cwd=place).stdout)
    address = f"tcp://127.0.0.1:{free_port()}"
    listen = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    worker = (
        *("worker", address, *listen, "--nthreads", str(settings["WORKER_THREADS"])),
        *("--memory-limit", str(settings["WORKER_MEMORY_LIMIT"])),
        *("--local-directory", str(tmp_path), "--death-timeout", "60"),
    )
    scheduler = ("scheduler", "--port", address.rsplit(":")[-1], *listen)
    with (
        running(*scheduler, cwd=tmp_path) as scheduling,
        running(*worker, cwd=tmp_path) as one,
        running(*worker, cwd=tmp_path) as another,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-c", MEASURED, sys.executable, "-m", "dgmm", "fit"),
                *(*map(str, words), "-o", str(tmp_path / "m.dgmm"), "--json", "--quiet"),
                *("--checkpoint", str(tmp_path / "passes"), "--max-iter", "4"),
                *("--scheduler", address, "--connect-timeout", "60"),
            ],
            cwd=place,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told, driver = done.stdout.splitlines()
        for nanny in (one, another):
            inside = [nanny, *nanny.children(recursive=True)]
            taken = sum(map(peak, inside))
            assert taken < parse_bytes(settings["WORKER_MEMORY"])
            assert max(map(peak, inside)) < 0.7 * settings["WORKER_MEMORY_LIMIT"]
            assert taken - max(map(peak, inside)) < NANNY
        assert peak(scheduling) < parse_bytes(settings["SCHEDULER_MEMORY"])
    assert int(driver) * 1024 < parse_bytes(settings["DRIVER_MEMORY"])
    assert json.loads(told)["cached"] > 0
