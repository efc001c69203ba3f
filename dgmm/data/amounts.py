"""Amounts of memory: what a process may take, and what would be too much to load."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import psutil
from dask.utils import format_bytes, parse_bytes

from dgmm.errors import PlanError, UsageError

USABLE: Final = 0.7
"""The share of a worker's memory to plan for: Dask starts to spill at 70 % of it."""

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux tells what the processes of a container may take..."""

CGROUP_LIMITS: Final = (
    *("memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes"),
    *("memory.max", "memory.high", "memory.low"),
)
"""...in files of its control groups' two versions, as far as there are limits."""

Amount = str | int | None
"""Bytes, or text such as "2GiB"; None for 70 % of what this process has."""


def memory_bytes(text: str | int) -> int:
    """An amount of memory in bytes; raises ``UsageError`` unless it is one."""
    try:
        size = parse_bytes(text)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{text!r} is no amount of memory; try 2GiB or 500MB") from error
    if size <= 0:
        raise UsageError(f"the memory must be positive, not {text!r}")
    return int(size)


@cache
def memory_limit() -> int:
    """What this process has, in bytes: this machine's memory, or what a container is allowed of it.

    It is what Dask's workers go by (``distributed.system``), which takes long to import.
    """
    limits: list[int] = [psutil.virtual_memory().total]
    for name in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file; or it says "max"
            limits.append(int((CGROUPS / name).read_text()))
    if hasattr(psutil, "RLIMIT_RSS"):
        limits.append(psutil.Process().rlimit(psutil.RLIMIT_RSS)[1])
    return min(limit for limit in limits if limit > 0)


def check_room(name: str, size: int, memory: Amount) -> None:
    """Raise ``PlanError`` if ``size`` bytes more would be more than this process may take."""
    limit = int(memory_limit() * USABLE) if memory is None else memory_bytes(memory)
    used = psutil.Process().memory_info().rss
    if used + size > limit:
        raise PlanError(
            f"{name} would have to be loaded whole, {format_bytes(size)} beside the "
            f"{format_bytes(used)} that this process takes, and it may take "
            f"{format_bytes(limit)}. Give a dask.array (such as dask.array.from_array makes of it) "
            "or a Zarr array, which are read block by block; or allow more memory"
        )
