"""A contender: a program in a process of its own that runs EM iterations or fits when told."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

FAREWELL = 20.0
"""Seconds that a process may take to end, once nothing more is asked of it."""

ROOT = Path(__file__).parents[1]
OTHERS = ("diag", "spherical", "tied")


@dataclass(frozen=True)
class Program:
    """A program to be measured.

    Attributes
    ----------
    name : str
        In the table.
    module : str
        Of its adaptor, in ``benchmarks.peers``.
    install : str
        What installs it.
    precisions : tuple of str
        The dtypes that it computes in.
    covariance_models : tuple of str
        The structures to compare beside full covariances.
    least : int
        The fewest iterations that it can be timed with: dgmm's last two are in double precision.
    checkout : Path
        Whose dgmm it is, where it is dgmm.
    """

    name: str
    module: str
    install: str
    precisions: tuple[str, ...] = ("float64", "float32")
    covariance_models: tuple[str, ...] = ()
    least: int = 1
    checkout: Path = ROOT


OURS = Program("dgmm", "dgmm_itself", "pip install .", least=3)
PEERS = {
    peer.name: peer
    for peer in (
        Program(
            "scikit-learn", "scikit_learn", "pip install scikit-learn", covariance_models=OTHERS
        ),
        Program(
            "onedal",
            "onedal",
            "pip install daal4py==2024.7.0 'numpy<2' 'scikit-learn<1.6' packaging pandas",
        ),
        Program("spark", "spark", "pip install pyspark pyarrow (and Java 17)", ("float64",)),
        Program("gmmx", "gmmx", "pip install gmmx"),
        Program("pomegranate", "pomegranate", "pip install pomegranate"),
    )
}

HOLED = {
    "astroml": (Program("astroml", "astroml", "pip install astroML"), "full"),
    "stepmix": (Program("stepmix", "stepmix", "pip install stepmix"), "diag"),
    "pomegranate": (PEERS["pomegranate"], "diag"),
}
"""Peers that take rows with missing values, and the covariances that they know there."""


class Unavailable(Exception):
    """A program is not installed, or can't do what is asked."""


class GivenUp(Unavailable):
    """A program took too long."""


@dataclass(frozen=True)
class Contender:
    """A program that has loaded a case; it may take ``patience`` seconds to answer.

    ``reading`` are the seconds that reading the case took it, ``starting`` all until it was ready.
    """

    program: Program
    version: str
    own_start: bool
    reading: float
    starting: float
    process: "subprocess.Popen[str]"
    patience: float

    def run(self, iterations: int, **more: int) -> dict[str, Any]:
        """Run so many iterations; what it measured."""
        return self._ask(iterations=iterations, **more)

    def whole(self, seed: int, options: dict[str, Any]) -> dict[str, Any]:
        """Fit from a start of its own; what it measured."""
        return self._ask(whole=seed, options=options)

    def _ask(self, **words: Any) -> dict[str, Any]:
        print(json.dumps(words), file=_pipe(self.process.stdin), flush=True)
        return _answer(self.process, self.patience)

    def each(self, iterations: int) -> tuple[float, str]:
        """The seconds of one iteration: a long run less a short one, which sets up as much.

        And what the long run says of itself.
        """
        short = self.run(self.program.least)
        long = self.run(self.program.least + iterations)
        done = long["iterations"] - short["iterations"]
        if done < 1:
            raise Unavailable(f"failed: it stopped after {long['iterations']} iterations")
        return (long["seconds"] - short["seconds"]) / done, long["note"]


@contextmanager
def contender(
    program: Program,
    python: str,
    place: Path,
    dtype: str,
    covariance_model: str,
    threads: int,
    patience: float,
) -> Iterator[Contender]:
    """Start ``program`` with ``python`` on the case in the directory ``place``."""
    words = (f"benchmarks.peers.{program.module}", place, dtype, covariance_model, threads)
    began = time.perf_counter()
    with (place / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [python, "-m", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "DGMM_CHECKOUT": str(program.checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        ready = _answer(process, patience)
        if "missing" in ready:
            raise Unavailable(f"missing: {program.install}")
        own_start, starting = ready["own_start"], time.perf_counter() - began
        told = (ready["version"], own_start, ready["reading"], starting)
        yield Contender(program, *told, process, patience)
    except Unavailable:
        process.kill()  # it would go on, and take processors from the next
        raise
    finally:
        _pipe(process.stdin).close()
        try:
            process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()


def interpreters(given: tuple[str, ...]) -> dict[str, str]:
    """The Python of each program, from words NAME=PATH; this one, where none is named."""
    named = dict.fromkeys([OURS.name, *PEERS, *HOLED], sys.executable)
    for word in given:
        name, sign, path = word.partition("=")
        if not sign or name not in named:
            raise click.BadParameter(f"{word!r} is not NAME=PATH, NAME one of {', '.join(named)}")
        named[name] = path
    return named


python_option = click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="NAME=PATH",
    callback=lambda context, option, words: interpreters(words),
    help="The Python in which a peer is installed.  [default: this one]",
)


against_option = click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="The root of another checkout, with its kernel built, to be compared with: the old one.",
)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _answer(process: "subprocess.Popen[str]", patience: float) -> dict[str, Any]:
    stdout = _pipe(process.stdout)
    if not select.select([stdout], [], [], patience)[0]:
        raise GivenUp(f"given up after {patience:.0f} s")
    line = stdout.readline()
    answer = json.loads(line) if line else {"failed": "the process died"}
    if "failed" in answer:
        raise Unavailable(f"failed: {' '.join(answer['failed'].split())[:100]}")
    return dict(answer)
