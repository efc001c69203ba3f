"""EM iterations of dgmm and of its peers, in turn, from the same start."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from dask.system import CPU_COUNT

from benchmarks import machine
from benchmarks.contender import OTHERS, PEERS, python_option
from benchmarks.match import SCORED_ITERATIONS, Manner, matches, measure, write
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS

CASES = ((1_000_000, 8, 16), (1_000_000, 32, 16), (200_000, 64, 64))

NOTE = """\
Seconds of one EM iteration on {threads} threads: a long run less a short one, by the iterations
between them, so that setting up does not count. Ratios are medians over the rounds, in each of
which dgmm and the peer took turns. A score is the mean log-likelihood of the first 100,000 rows
after {scored} iterations from the same start with reg_covar = 0; "own start" where the peer takes
none. dgmm's float32 is precision="auto": the iterations that are timed are in single precision, as
far as "dgmm" says."""


@click.command()
@click.option(
    "--peer",
    "names",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="Only this one; may be given more than once.",
)
@click.option(
    "--case",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(CASES)),
    help="Only this: 1 is 1M x 8, K = 16; 2 is 1M x 32, K = 16; 3 is 200k x 64, K = 64.",
)
@click.option("--scale", type=float, help="Of the numbers of rows.  [default: 1; quick: 0.1]")
@python_option
@click.option("--threads", default=CPU_COUNT, show_default="all processors")
@click.option("--rounds", default=ROUNDS, show_default=True, help="In which they take turns.")
@click.option("--seconds", default=2.0, show_default=True, help="What is timed takes about that.")
@click.option(
    "--budget",
    default=300.0,
    show_default=True,
    help="Seconds: no more rounds that would go beyond, and no single run.",
)
@click.option("--full-only", is_flag=True, help="No diag, spherical and tied covariances.")
@click.option("--quick", is_flag=True, help="The first case, few rows and iterations.")
def peers(
    names: tuple[str, ...],
    numbers: tuple[int, ...],
    scale: float | None,
    pythons: dict[str, str],
    threads: int,
    rounds: int,
    seconds: float,
    budget: float,
    full_only: bool,
    quick: bool,
) -> None:
    """An EM iteration of dgmm against one of each peer.

    From the same start, in turn. Each runs in a process of its own. A peer that is not installed is
    named as missing, with what installs it; it may be in an environment of its own.

    Example: python -m benchmarks peers --case 1 --python onedal=envs/onedal/bin/python
    """
    scale, seconds = scale or (0.1 if quick else 1.0), 0.2 if quick else seconds
    manner = Manner(pythons, threads, rounds, seconds, budget)
    chosen = [PEERS[name] for name in names or PEERS]
    machine.measure()
    numbers = numbers or tuple(range(1, 2 if quick else len(CASES) + 1))

    def lines() -> Iterator[list[Cell]]:
        for rows, n_features, components in (CASES[number - 1] for number in numbers):
            case = (round(rows * scale), n_features, components)
            with tempfile.TemporaryDirectory() as place:
                write(Path(place), case)
                for match in matches(case, chosen, () if full_only else OTHERS):
                    yield measure(Path(place), match, manner)

    header = ["rows x D, K", "covariance", "precision", "peer", "peer, s", "dgmm, s", "ratio"]
    note = NOTE.format(threads=threads, scored=SCORED_ITERATIONS)
    header += ["target", "rounds", "peer's score", "dgmm's score", "dgmm"]
    show("One EM iteration against peers", header, lines(), note)
