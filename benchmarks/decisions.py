"""What decisions rest on: how often drift is found, exact thresholds, and memory of regressions."""

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from distributed import Client, LocalCluster
from numpy.typing import NDArray

from benchmarks import process
from benchmarks.data import draw, mixture
from benchmarks.table import Cell, mebibytes, percent, show
from benchmarks.timing import say
from dgmm import GaussianMixture, engine, open_dataset

MODELS, NIGHTS, ROWS = 20, 10, 5000
LEVEL: Final = 0.01
STARTS = [[0.0, 0.0], [5.0, 2.0]]

CHANGES: Final[dict[str, tuple[dict[str, float], ...]]] = {
    "nothing": ({},),
    "a weight: 0.5 to 0.51, 0.53, 0.55": tuple({"share": each} for each in (0.51, 0.53, 0.55)),
    "a mean: by 0.03, 0.1, 0.2": tuple({"moved": each} for each in (0.03, 0.1, 0.2)),
    "a covariance: by 3 %, 10 %, 20 %": tuple(
        {"spread": each} for each in np.sqrt([1.03, 1.1, 1.2])
    ),
}
"""What changed, a little, more and much; means in deviations of about 1."""

RATES: Final = (1e-4, 1e-2, 0.5)


def night(
    rows: int, seed: int, share: float = 0.5, moved: float = 0.0, spread: float = 1.0
) -> NDArray[Any]:
    """Rows of two components; a ``share`` of them is of the one that may have moved."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, 2)) @ np.array([[1.0, 0.4], [0, 0.7]])
    one = rng.random(rows) < share
    found[one] = found[one] * spread + [5 + moved, 2]
    return found


@click.command()
@click.option("--rows", default=10_000_000, show_default=True, help="Rows of thresholds.")
def decisions(rows: int) -> None:
    """Drift that is found, thresholds against a sort, and memory of regressions."""
    _drift()
    with tempfile.TemporaryDirectory() as place:
        model = GaussianMixture.from_parameters(*_parts())
        model.save(f"{place}/model.dgmm")
        _write(Path(place, "whole.npy"), rows, 8)
        _thresholds(model, f"{place}/whole.npy")
        lines = [_regressed(place, each) for each in (rows // 10, rows)]
        show("one of 8 features from the others, K = 8", ("rows", "size", "measured", "s"), lines)


def _drift() -> None:
    """How many nights of a change raise an alarm."""
    alarms = {name: [0] * len(sizes) for name, sizes in CHANGES.items()}
    for number in range(MODELS):
        say(f"model {number + 1} of {MODELS}")
        model = GaussianMixture(2, means_init=STARTS, n_jobs=1, random_state=0)
        model.fit(night(ROWS, 1000 + number))
        for name, sizes in CHANGES.items():
            for place, change in enumerate(sizes):
                for i in range(NIGHTS):
                    found = model.drift(night(ROWS, NIGHTS * number + i, **change))
                    alarms[name][place] += found.beyond(LEVEL)
    nights = MODELS * NIGHTS
    lines = [
        (name, ", ".join(percent(each / nights) for each in found))
        for name, found in alarms.items()
    ]
    show(
        f"drift, {nights} nights of {ROWS:,} rows, level {LEVEL:.0%}",
        ("what changed", "nights with an alarm"),
        lines,
        f"Each of {MODELS} models was fitted to {ROWS:,} rows, and has {NIGHTS} nights.",
    )


def _parts() -> tuple[Any, Any, Any]:
    known = mixture(8, 8)
    return known.weights, known.means, known.roots @ known.roots.swapaxes(1, 2)


def _write(at: Path, rows: int, features: int) -> None:
    """A file of the first ``features`` of rows that have 8."""
    known, piece = mixture(8, 8), 500_000
    array = np.lib.format.open_memmap(at, "w+", np.float64, (rows, features))
    for seed, start in enumerate(range(0, rows, piece)):
        say(f"rows {start:,} of {rows:,}")
        some = draw(known, min(piece, rows - start), seed)
        array[start : start + piece] = some[:, :features]


def _thresholds(model: GaussianMixture, path: str) -> None:
    """Thresholds by threads and by workers, against a sort of all log-densities."""
    dataset = open_dataset(path)
    say("sorting")
    scores = np.sort(np.asarray(model.score_samples(np.load(path, mmap_mode="r"))))
    lines = []
    two = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with two, Client(two) as client:
        for rate in RATES:
            say(f"rate {rate:g}")
            here = model.find_threshold(dataset, rate)
            there = model.find_threshold(dataset, rate, sweep=engine.over(dataset, client))
            same = here.log_density == scores[round(rate * len(scores))]
            lines.append((f"{rate:g}", here.log_density.hex(), _yes(same), _yes(here == there)))
    show(
        f"thresholds, {len(scores):,} x 8, K = 8",
        ("rate", "log-density", "that of a sort", "the same bits by two workers"),
        lines,
    )


def _regressed(place: str, rows: int) -> tuple[Cell, ...]:
    """The most memory of a process that predicts one feature of rows from the others."""
    at = f"{place}/{rows}"
    _write(Path(f"{at}.npy"), rows, 7)
    say(f"{rows:,} rows")
    words = ["regress", f"{at}.npy", "-m", f"{place}/model.dgmm", "--targets", "7", "--quiet"]
    found = process.measured([sys.executable, "-m", "dgmm", *words, "-o", f"{at}.zarr"])
    return rows, mebibytes(rows * 56), mebibytes(found.peak_bytes), found.seconds


def _yes(so: bool) -> str:
    return "yes" if so else "no"
