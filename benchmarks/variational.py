"""One iteration of the variational fit, beside scikit-learn's BayesianGaussianMixture."""

import time
import warnings
from collections.abc import Iterator
from typing import Any

import click
from numpy.typing import NDArray
from sklearn.mixture import BayesianGaussianMixture as Theirs
from threadpoolctl import threadpool_limits

from benchmarks import data
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS, Seconds, alternate
from dgmm import BayesianGaussianMixture as Ours

SHAPES = ((8, 16), (16, 16), (32, 16))
ROWS = 100_000
FEW, MANY = 2, {"dgmm": 22, "scikit-learn": 6}

NOTE = """\
Milliseconds of one iteration over {rows:,} rows, float64, of full covariances on one thread: a run
of many iterations less one of few, from the same kind of start. Both have a Dirichlet process."""


def runs(rows: NDArray[Any], components: int, name: str) -> Seconds:
    """Seconds of one iteration."""
    spent = []
    for iterations in (FEW, MANY[name]):
        more: dict[str, Any] = (
            {"strategy": "em", "n_jobs": 1, "precision": "float64"} if name == "dgmm" else {}
        )
        model = {"dgmm": Ours, "scikit-learn": Theirs}[name](
            components,
            max_iter=iterations,
            tol=0,
            init_params="random_from_data",
            random_state=0,
            **more,
        )
        began = time.perf_counter()
        model.fit(rows)
        spent.append(time.perf_counter() - began)
    return Seconds((spent[1] - spent[0]) / (MANY[name] - FEW))


def lines(rounds: int) -> Iterator[list[Cell]]:
    """A line for each shape."""
    for n_features, components in SHAPES:
        drawn = data.draw(data.mixture(components, n_features), ROWS, 1, "float64")
        named = {name: lambda name=name: runs(drawn, components, name) for name in MANY}  # noqa: B023
        timings = alternate(named, rounds, f"variational D = {n_features}")
        yield [
            f"{n_features}, {components}",
            *(1e3 * timings.seconds(name) for name in named),
            timings.ratio("scikit-learn", "dgmm"),
        ]


@click.command()
@click.option("--rounds", default=ROUNDS, show_default=True)
def variational(rounds: int) -> None:
    """An iteration of BayesianGaussianMixture, beside scikit-learn's."""
    warnings.simplefilter("ignore")  # that it did not converge
    header = ("D, K", "dgmm, ms", "scikit-learn, ms", "times")
    with threadpool_limits(1):
        show("Variational fits", header, lines(rounds), NOTE.format(rows=ROWS))
