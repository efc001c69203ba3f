"""A billion rows on one machine, by the command line."""

import json
import re
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

import click
import numpy as np

from benchmarks import data, machine, process
from benchmarks.table import Cell, mebibytes, show
from benchmarks.timing import say
from dgmm.kernels.outputs import row_outputs
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.mixture import Mixture

DIMS, COMPONENTS = 8, 16
PASS = re.compile(r"pass \d+:")


def pass_seconds(done: process.Finished) -> list[float]:
    """The seconds of each pass but the first, the first pass, from when its line came."""
    return [after - before for before, after in pairwise(t for t, x in done.lines if PASS.match(x))]


def true_score(known: data.Known, rows: int) -> float:
    """The mean log-density of fresh rows under the mixture that all rows were drawn from."""
    full = COVARIANCE_MODELS["full"]
    mixture = Mixture.of_covariances(full, known.weights, known.means, known.covariances)
    return float(np.mean(row_outputs(data.draw(known, rows, 0), mixture, "score")))


def fit(store: Path, memory: str, cache: str, max_iter: int) -> process.Finished:
    """Fit, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        return process.dgmm(
            *("fit", store, "-k", COMPONENTS, "-o", Path(place) / "model.dgmm", "--json"),
            *("--memory", memory, "--cache", cache, "--max-iter", max_iter),
            tell=say,
        )


@click.command()
@click.option("--rows", type=int, help="[default: 1000000000; quick: 2000000]")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(tempfile.gettempdir()) / "dgmm-benchmarks",
    help="Where the store is, or goes, and stays; 32 GB for a billion rows.  "
    "[default: dgmm-benchmarks where temporary files go]",
)
@click.option("--memory", default="2GiB", show_default=True, help="What the fit is allowed.")
@click.option("--cache", default="auto", show_default=True, help="As for dgmm fit.")
@click.option("--max-iter", default=100, show_default=True)
@click.option("--quick", is_flag=True, help="Two million rows.")
def billion(
    rows: int | None, directory: Path, memory: str, cache: str, max_iter: int, quick: bool
) -> None:
    """A billion rows x 8 in Zarr, within 2 GiB.

    Writes the rows, float32 of a known mixture, unless they are there from the last time; then fits
    16 full components by ``dgmm fit``, and prints its time per pass, its peak memory and its whole
    record.

    Example: python -m benchmarks billion --rows 100_000_000 --dir /data
    """
    rows = rows or (2_000_000 if quick else 1_000_000_000)
    directory.mkdir(parents=True, exist_ok=True)
    known, store = data.mixture(COMPONENTS, DIMS), directory / f"{rows}.zarr"
    size = data.store(store, known, rows)
    machine.measure(reading=True, directory=directory)
    options = ("-k", COMPONENTS, "--memory", memory, "--cache", cache)
    plan = json.loads(process.dgmm("plan", store, *options, "--json").output)
    done = fit(store, memory, cache, max_iter)
    record, passes = json.loads(done.output), pass_seconds(done)
    lines: list[list[Cell]] = [
        ["rows", f"{rows:,} x {DIMS} float32"],
        ["in Zarr", f"{size / 1e9:.3g} GB of {rows * DIMS * 4 / 1e9:.3g} GB"],
        ["passes", f"{record['passes']}, {record['float32_passes']} in single precision"],
        ["seconds per EM pass, median", median(passes)],
        ["slowest EM pass, seconds", max(passes)],
        ["rows a second", rows / median(passes)],
        ["the whole fit, seconds", done.seconds],
        ["peak memory", mebibytes(done.peak_bytes)],
        ["the plan's", f"{mebibytes(plan['peak_bytes'])}, {memory} allowed"],
        ["score", f"{record['score']:.6f}"],
        ["the true mixture's score", f"{true_score(known, 1 << 20):.6f} of 1,048,576 fresh rows"],
    ]
    show(f"{rows:,} rows, K = {COMPONENTS} full", ["what", "measured"], lines)
    told = "\n".join(f"{seconds:8.1f} s  {text}" for seconds, text in done.lines)
    print(f"The record:\n\n```json\n{json.dumps(record, indent=1)}\n```\n\n```\n{told}\n```")
