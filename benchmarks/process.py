"""Run a command and measure the most memory that it had."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ``ru_maxrss``."""

MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("peak", usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command from a small process: the peak of a child counts its parent's when it was made."""


@dataclass(frozen=True)
class Finished:
    """What a command left.

    Attributes
    ----------
    output : str
        Its standard output.
    peak_bytes, seconds : int, float
        The most memory it had at once, and its time.
    lines : tuple of (float, str)
        The lines on its standard error, with the seconds from its start.
    """

    output: str
    peak_bytes: int
    seconds: float
    lines: tuple[tuple[float, str], ...]


def measured(command: list[str], tell: Callable[[str], None] = lambda line: None) -> Finished:
    """Run ``command``, handing each line of its standard error to ``tell`` as it comes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURED, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append((time.perf_counter() - began, line.rstrip()))
        if not line.startswith("peak "):
            tell(line.rstrip())
    output = process.stdout.read()
    if process.wait():
        told = "\n".join(line for _, line in lines)
        raise RuntimeError(f"{' '.join(command)} failed:\n{told}")
    peak = int(lines.pop()[1].split()[1]) * UNIT
    return Finished(output, peak, time.perf_counter() - began, tuple(lines))


def dgmm(*words: object, tell: Callable[[str], None] = lambda line: None) -> Finished:
    """Run ``dgmm`` with these words on its command line."""
    return measured([sys.executable, "-m", "dgmm", *map(str, words)], tell)
