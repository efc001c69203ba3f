"""Clients of Dask clusters: which one is active, and whether it can be used here.

distributed takes long to import, and nobody has a Client who has not imported it: so it is not
imported to ask.

A Client is of no use in a process that was forked from its own: the thread that speaks for it
stayed behind, and whoever asked would wait for ever.  There it counts as closed.
"""

import os
from typing import TYPE_CHECKING

import dask

from dgmm.errors import ClusterError
from dgmm.model.lazy import loaded

if TYPE_CHECKING:
    from distributed import Client

_left_behind: set["Client"] = set()
"""The Clients of the process that this one was forked from; none of them must be deleted here, as
that would wait for an answer."""


def _forked() -> None:
    """Have Dask itself compute with threads here, not wait for the Client it was told to use."""
    for client in getattr(loaded("distributed.client", "Client"), "_instances", ()):
        client.status = "closed"
        _left_behind.add(client)
    if not _left_behind:
        return
    loaded("distributed.client", "_current_client").set(None)
    if dask.config.get("scheduler", None) == "dask.distributed":
        del dask.config.config["scheduler"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def active_client() -> "Client | None":
    """The Client that is active in this thread, if one is."""
    default_client = loaded("distributed", "default_client")
    if default_client is None:
        return None
    try:
        client: Client = default_client()
    except ValueError:
        return None
    return client


def check_synchronous(client: "Client | None" = None) -> None:
    """Raise ``ClusterError`` if ``client``, or the active one, is used within its event loop."""
    client = client or active_client()
    if client is not None and client.asynchronous:
        raise ClusterError(
            "the Client is asynchronous, and dgmm waits for results: use a Client made without "
            "asynchronous=True, or call from another thread, await asyncio.to_thread(...)"
        )


def check_open(client: "Client") -> None:
    """Raise ``ClusterError`` unless ``client`` has a cluster, and can be waited for."""
    if client in _left_behind:
        raise ClusterError(
            "the Client belongs to the process that this one was forked from, and does not work "
            "here: make one in this process, Client(address)"
        )
    check_synchronous(client)
    if client.status != "running":
        raise ClusterError("the Client is closed: there is no cluster to use")
