"""How many components? One selection against separate fits of every size, by the command line."""

import json
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
each."""


def bic(store: Path, model: Path) -> float:
    """Of a model, by a pass over the rows that counts for none."""
    return float(json.loads(process.dgmm("score", store, "-m", model, "--json").output)["bic"])


@click.command()
@click.option("--rows", type=int, help="[default: 1000000; quick: 20000]")
@click.option("--largest", type=int, help="Sizes are from 2 to this.  [default: 32; quick: 14]")
@click.option("--quick", is_flag=True, help="20,000 rows, 2 to 14 components.")
def sizes(rows: int | None, largest: int | None, quick: bool) -> None:
    """How often a selection reads the data, and whether it picks what separate fits pick.

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
        chosen, passes, level = record["components"], record["passes"], bic(store, model)
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
    note = NOTE.format(rows=rows, dims=DIMS, components=COMPONENTS)
    show(f"From 2 to {largest} components, full", HEADER, lines, note)
