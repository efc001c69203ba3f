"""The processes that ``--workers`` starts work for nobody else on the machine."""

import os
import pickle
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from dgmm.cli.machines import Machines

Address = tuple[str, int]

STRANGER = """
import asyncio, pickle, sys
from distributed import Client
from distributed.comm import connect
from distributed.security import Security

async def ask(address, security):
    "Whether whoever listens there answers a question."
    comm = await connect(address, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    return bool(await comm.read())

async def submit(address, security):
    async with Client(address, security=security, timeout=9, asynchronous=True) as client:
        return await client.submit(sum, [1, 2]) == 3

async def tried(way, address, security):
    try:
        return await asyncio.wait_for(way(address, security), 10)
    except (OSError, TypeError, ValueError, RuntimeError, asyncio.TimeoutError):
        return False

async def main():
    scheduler, *doors = sys.argv[1:]
    right, wrong = pickle.load(sys.stdin.buffer), [Security(), Security.temporary()]
    plain = scheduler.replace("tls:", "tcp:")
    asked = [(way, scheduler, right) for way in (ask, submit)]
    asked += [(submit, each, how) for each in (scheduler, plain) for how in wrong]
    asked += [(ask, door, how) for door in doors for how in wrong]
    print(*await asyncio.gather(*(tried(*each) for each in asked)))

asyncio.run(main())
"""
"""Another process, which asks for work to be done and for answers: with the right certificates, and
without any or with others."""


def listening(process: psutil.Process) -> set[Address]:
    """Where a process can be reached over a network."""
    found = process.net_connections(kind="tcp")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == "LISTEN"}


@pytest.fixture(scope="module")
def before() -> set[Address]:
    """What this process listened at before."""
    return listening(psutil.Process())


@pytest.fixture(scope="module")
def client(before: set[Address]) -> Iterator[Client]:
    settings = dask.config.get("distributed.scheduler.http.routes")
    with Machines(None, 1, None, 10.0).client() as client:
        assert client is not None
        yield client
    assert dask.config.get("distributed.scheduler.http.routes") == settings


@pytest.fixture(scope="module")
def addresses(client: Client, before: set[Address]) -> set[Address]:
    """What it and its workers listen at now."""
    mine = psutil.Process()
    (pid,) = client.run(os.getpid).values()
    found = listening(mine) - before
    assert found
    return found | listening(psutil.Process(pid))


def test_it_works_for_its_own(client: Client) -> None:
    assert client.submit(sum, [1, 2]).result() == 3
    assert client.scheduler.address.startswith("tls://127.0.0.1:")
    assert all(each.startswith("tls://127.0.0.1:") for each in client.scheduler_info()["workers"])


def test_a_stranger_is_refused_at_every_door(client: Client, addresses: set[Address]) -> None:
    doors = [f"{way}://{host}:{port}" for host, port in addresses for way in ("tcp", "tls")]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, client.scheduler.address, *doors],
        input=pickle.dumps(client.security),
        capture_output=True,
        timeout=300,
    )
    answers = done.stdout.decode().split()
    assert answers == ["True"] * 2 + ["False"] * (4 + 2 * len(doors)), done.stderr
    assert client.submit(sum, [3, 4]).result() == 7


PAGES = ("", "status", "health", "metrics", "info/main/workers.html", "json/counts.json")
PAGES += ("sitemap.json", "api/v1/retire_workers", "proxy/8787/127.0.0.1/status")


def shown(url: str) -> str:
    """What a page says, if there is one."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read()[:1000].decode())
    except urllib.error.HTTPError as error:
        return "" if error.code == 404 else str(error)
    except OSError:  # it does not even speak HTTP
        return ""


def test_it_shows_nothing_to_anybody(addresses: set[Address]) -> None:
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    for host, port in addresses:
        for page in PAGES:
            told = shown(f"http://{host}:{port}/{page}")
            assert told in ("", '{"paths": ["/sitemap.json"]}')  # that there is nothing else


def test_what_it_writes_is_for_nobody_else(client: Client) -> None:
    (worker,) = client.scheduler_info()["workers"].values()
    assert Path(worker["local_directory"]).stat().st_mode & 0o077 == 0
