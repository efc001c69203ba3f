"""Peak memory of whole ``dgmm fit`` processes against what ``dgmm plan`` said."""

import json
import tempfile
from pathlib import Path

import click

from benchmarks import data, process
from benchmarks.table import Cell, mebibytes, percent, show
from benchmarks.timing import say

DIMS, COMPONENTS = 8, 16
SIZES = (1_000_000, 10_000_000, 50_000_000)
CACHES = ("none", "auto")

NOTE = """\
"plan" is the peak that `dgmm plan` gives, "measured" the most memory that the process of `dgmm fit`
had at once; the target is that it stays under the plan, and that without a cache it does not grow
with the rows: the largest measured there is {flat:.2f} times the smallest."""


def line(
    store: Path, rows: int, cache: str, memory: str, iterations: int
) -> tuple[list[Cell], int]:
    """The table's line for a store, and the peak."""
    say(f"memory: {rows:,} rows, cache {cache}")
    options = ("-k", COMPONENTS, "--memory", memory, "--cache", cache, "--json")
    plan = json.loads(process.dgmm("plan", store, *options).output)
    output = store.with_suffix(f".{cache}.dgmm")
    words = ("-o", output, "--max-iter", iterations, "--quiet")
    done = process.dgmm("fit", store, *options, *words)
    planned, record = plan["peak_bytes"], json.loads(done.output)
    cells: list[Cell] = [
        f"{rows:,}",
        mebibytes(plan["pass_bytes"]),
        cache,
        percent(record["cached"]),
        mebibytes(planned),
        mebibytes(done.peak_bytes),
        percent(done.peak_bytes / planned),
        record["seconds"] / record["passes"],
    ]
    return cells, done.peak_bytes


@click.command()
@click.option(
    "--rows",
    "sizes",
    multiple=True,
    type=int,
    help="One or more times.  [default: 1, 10 and 50 million]",
)
@click.option("--memory", default="1GiB", show_default=True, help="What the fit is allowed.")
@click.option("--iterations", default=2, show_default=True, help="Of each fit.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the stores go.")
@click.option("--quick", is_flag=True, help="A hundredth of the rows.")
def memory(
    sizes: tuple[int, ...], memory: str, iterations: int, directory: Path | None, quick: bool
) -> None:
    """Peak memory of fits against the plan.

    Whole processes of ``dgmm fit`` on more and more rows, with and without a cache.

    Example: python -m benchmarks memory --memory 700MiB
    """
    sizes = sizes or tuple(size // 100 if quick else size for size in SIZES)
    lines, peaks = [], []
    with tempfile.TemporaryDirectory(dir=directory) as place:
        for rows in sizes:
            store = Path(place) / f"{rows}.zarr"
            data.store(store, data.mixture(COMPONENTS, DIMS), rows)
            for cache in CACHES:
                cells, peak = line(store, rows, cache, memory, iterations)
                lines.append(cells)
                peaks += [peak] if cache == "none" else []
    show(
        f"Peak memory, K = {COMPONENTS} full, {DIMS} columns of float32, {memory} allowed",
        ["rows", "rows take", "cache", "cached", "plan", "measured", "of the plan", "s per pass"],
        lines,
        NOTE.format(flat=max(peaks) / min(peaks)),
    )
