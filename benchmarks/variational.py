"""One iteration of the variational fit, beside scikit-learn's BayesianGaussianMixture."""

import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import click
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from sklearn.mixture import BayesianGaussianMixture as Theirs

from benchmarks import data
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS, Seconds, alternate
from dgmm import BayesianGaussianMixture as Ours

SHAPES = ((8, 16), (16, 16), (32, 16))
ROWS = 200_000
FEW = 2
MODELS: dict[str, tuple[type, int, dict[str, Any]]] = {
    "dgmm": (Ours, 32, {"strategy": "em"}),
    "scikit-learn": (Theirs, 6, {}),
}
"""The class of each, how many iterations a long run has, and what else it is given."""

NOTE = """\
Milliseconds of one iteration over {rows:,} rows, full covariances, on all {threads} processors: a
run of many iterations less one of few. Both have a Dirichlet process, and begin at random rows."""


def iteration(rows: NDArray[Any], components: int, name: str) -> Seconds:
    """Seconds of one iteration."""
    made, many, more = MODELS[name]
    spent = []
    for iterations in (FEW, many):
        model = made(
            n_components=components,
            max_iter=iterations,
            tol=0,
            init_params="random_from_data",
            random_state=0,
            **more,
        )
        began = time.perf_counter()
        model.fit(rows)
        spent.append(time.perf_counter() - began)
    return Seconds((spent[1] - spent[0]) / (many - FEW))


def lines(rounds: int) -> Iterator[list[Cell]]:
    """A line for each shape and type of rows."""
    for n_features, components in SHAPES:
        for dtype in ("float64", "float32"):
            drawn = data.draw(data.mixture(components, n_features), ROWS, 1, dtype)
            named = {name: partial(iteration, drawn, components, name) for name in MODELS}
            timings = alternate(named, rounds, f"variational D = {n_features}, {dtype}")
            yield [
                f"{n_features}, {components}",
                dtype,
                *(1e3 * timings.seconds(name) for name in named),
                timings.ratio("scikit-learn", "dgmm"),
            ]


@click.command()
@click.option("--rounds", default=ROUNDS, show_default=True)
def variational(rounds: int) -> None:
    """An iteration of BayesianGaussianMixture, beside scikit-learn's."""
    warnings.simplefilter("ignore")  # that it did not converge
    header = ("D, K", "rows", "dgmm, ms", "scikit-learn, ms", "times")
    note = NOTE.format(rows=ROWS, threads=CPU_COUNT)
    show("Variational fits", header, lines(rounds), note)
