"""How many components? One selection against separate fits of every size, and scikit-learn's."""

import json
import sys
import tempfile
from pathlib import Path

import click

from benchmarks import data, process
from benchmarks.table import Cell, show
from benchmarks.timing import say

COMPONENTS, DIMS = 12, 8

HEADER = ["", "reads of the data", "seconds", "chosen", "its BIC", "reads, of one fit's"]
NOTE = """\
{rows:,} rows x {dims} of a known mixture of {components} components. "one fit" is of the size that
the selection chose; "separate fits" are of all sizes, and choose by their own BIC. A whole process
each, from the store. "scikit-learn" fits all sizes in one process, with its defaults, to rows that
it reads once, of the store's dtype; its reads are iterations, without those of k-means. It is given
up after {budget:.0f} s, and then says which sizes it had done."""


def bic(store: Path, model: Path) -> float:
    """Of a model, by a pass over the rows that counts for none."""
    return float(json.loads(process.dgmm("score", store, "-m", model, "--json").output)["bic"])


def grid(store: Path, largest: int, budget: float) -> list[Cell]:
    """The line of scikit-learn."""
    words = ["-m", "benchmarks.grid", str(store), str(largest), str(budget)]
    done = process.measured([sys.executable, *words], say)
    told = json.loads(done.output)
    who, iterations = "scikit-learn", told["iterations"]
    if "chosen" not in told:
        upto = f"given up; done up to K = {told['sizes'] + 1}" if told["sizes"] else "given up"
        return [who, iterations, f"> {budget:.0f}", upto, None, None]
    return [who, iterations, done.seconds, f"K = {told['chosen']}", f"{told['bic']:.1f}", None]


@click.command()
@click.option("--rows", type=int, help="[default: 1000000; quick: 20000]")
@click.option("--largest", type=int, help="Sizes are from 2 to this.  [default: 32; quick: 14]")
@click.option(
    "--budget", default=300.0, show_default=True, help="Seconds that scikit-learn's grid may take."
)
@click.option("--quick", is_flag=True, help="20,000 rows, 2 to 14 components.")
def sizes(rows: int | None, largest: int | None, budget: float, quick: bool) -> None:
    """How often a selection reads the data, and whether it picks what separate fits pick.

    Beside it scikit-learn's grid over the same sizes.

    Example: python -m benchmarks sizes --rows 100_000
    """
    rows, largest = rows or (20_000 if quick else 1_000_000), largest or (14 if quick else 32)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        store, model = place / "rows.zarr", place / "model.dgmm"
        data.store(store, data.mixture(COMPONENTS, DIMS), rows)

        def run(*words: object) -> tuple[dict[str, int], float]:
            done = process.dgmm(*words, "-o", model, "--overwrite", "--json", tell=say)
            return json.loads(done.output), done.seconds

        record, seconds = run("select", store, "-k", f"2..{largest}")
        chosen, passes, level = record["n_components"], record["passes"], bic(store, model)
        fits: dict[int, tuple[float, int, float]] = {}
        for count in range(2, largest + 1):
            fitted, took = run("fit", store, "-k", count)
            fits[count] = bic(store, model), fitted["passes"], took
        best = min(fits, key=lambda count: fits[count][0])
        one = fits[chosen]
        every = sum(each[1] for each in fits.values()), sum(each[2] for each in fits.values())
        found: list[tuple[str, int, float, int, float]] = [
            ("dgmm select", passes, seconds, chosen, level),
            ("one fit", one[1], one[2], chosen, one[0]),
            ("separate fits", *every, best, fits[best][0]),
        ]
        lines: list[list[Cell]] = [
            [who, reads, took, f"K = {count}", f"{value:.1f}", reads / one[1]]
            for who, reads, took, count, value in found
        ]
        lines.append(grid(store, largest, budget))
    note = NOTE.format(rows=rows, dims=DIMS, components=COMPONENTS, budget=budget)
    show(f"From 2 to {largest} components, full", HEADER, lines, note)
