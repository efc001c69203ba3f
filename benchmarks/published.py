"""What mclust's documentation prints for R's small data sets, and what the default reaches."""

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

import dgmm
from benchmarks.table import Cell, show
from benchmarks.timing import say

VARIABLE: Final = "DGMM_PUBLISHED"
NEARBY: Final = Path(__file__).parents[1].parent / "shared" / "data" / "published.npz"
"""Where the data may be: in a file that the variable names, or beside the repository."""

BIC: Final[dict[tuple[str, str], dict[int, float]]] = {
    ("galaxies", "full"): {3: -441.6122, 4: -443.3997, 5: -446.3497},
    ("acidity", "tied"): {2: -392.0723},
    ("faithful", "full"): dict(
        enumerate((-2607.623, -2322.192, -2349.696, -2351.493, -2379.388, -2387.016), 1)
    ),
    ("faithful", "tied"): dict(
        enumerate((-2607.623, -2325.220, -2314.316, -2331.223, -2360.659, -2347.352), 1)
    ),
    ("faithful", "diag"): dict(
        enumerate((-3055.835, -2346.065, -2342.366, -2343.486, -2351.017, -2373.469), 1)
    ),
    ("faithful", "spherical"): dict(
        enumerate((-4024.721, -3458.305, -3336.598, -3242.826, -3129.080, -3038.171), 1)
    ),
    ("diabetes", "full"): {3: -4734.561},
    ("iris", "full"): dict(enumerate((-829.9782, -574.0178, -580.8396, -630.6000, -676.6061), 1)),
    ("iris", "tied"): dict(enumerate((-688.0972, -632.9647, -646.0258, -604.8131, -609.8543), 2)),
    ("iris", "diag"): dict(enumerate((-1522.1202, -857.5515, -744.6382, -751.0198, -711.4502), 1)),
    ("iris", "spherical"): dict(
        enumerate((-1804.0854, -1012.2352, -853.8144, -812.6048, -742.6083, -705.7811), 1)
    ),
}
"""2 L - p log N as mclust prints it, by data, structure and number of components.

Its names for the structures are VVV, EEE, VVI and VII; of one feature V and E.
"""

BEST: Final = {
    "galaxies": ("full", 3),
    "acidity": ("tied", 2),
    "faithful": ("tied", 3),
    "iris": ("full", 2),
    "diabetes": ("full", 3),
}
"""What mclust chooses of these structures, with up to nine components."""

TOLERANCE: Final = 0.05
"""By how much ours may be below: mclust adds nothing to covariances, and that costs so much."""

COVARIANCE_MODELS: Final = ("full", "tied", "diag", "spherical")

HEADER = ["data", "structure", "K", "published", "lowest", "highest", "short", "ms"]
NOTE = f"""\
BIC as 2 L - p log N: larger is better. "short": of {{seeds}} seeds, how many end more than
{TOLERANCE} below the published; "ms": of one fit, the median."""
CHOSEN = ["data", "published best", "chosen", "by", "its BIC", "seconds"]
CHOSEN_NOTE = """\
`select` over the four structures with 1 to 9 components, by BIC; "by": how many of the seeds."""


def published() -> Path | None:
    """Where the data are, if they are."""
    place = Path(os.environ.get(VARIABLE) or NEARBY)
    return place if place.is_file() else None


def read(place: Path) -> dict[str, NDArray[np.float64]]:
    """The data sets (N, D) by name."""
    with np.load(place) as file:
        return {name: file[name].reshape(len(file[name]), -1) for name in file}


def reached(rows: NDArray[Any], covariance_model: str, components: int, seed: int) -> float:
    """The BIC that the default strategy reaches."""
    model = dgmm.GaussianMixture(components, covariance_type=covariance_model, random_state=seed)
    return -float(model.fit(rows).bic(rows))


def _fits(data: dict[str, NDArray[Any]], seeds: int) -> Iterator[list[Cell]]:
    for (name, covariance_model), sizes in BIC.items():
        for components, told in sizes.items():
            found, took = [], []
            for seed in range(seeds):
                say(f"{name}, {covariance_model}, {components} components, seed {seed}")
                began = time.perf_counter()
                found.append(reached(data[name], covariance_model, components, seed))
                took.append(1000 * (time.perf_counter() - began))
            short = sum(each < told - TOLERANCE for each in found)
            values = [f"{each:.3f}" for each in (told, min(found), max(found))]
            yield [name, covariance_model, components, *values, short, float(np.median(took))]


def _choices(data: dict[str, NDArray[Any]], seeds: int) -> Iterator[list[Cell]]:
    for name, best in BEST.items():
        found: dict[tuple[str, int], list[float]] = {}
        took = []
        for seed in range(seeds):
            say(f"select: {name}, seed {seed}")
            began = time.perf_counter()
            search = dgmm.select(
                data[name], range(1, 10), list(COVARIANCE_MODELS), random_state=seed
            )
            took.append(time.perf_counter() - began)
            model = search.best_estimator_
            key = model.covariance_type, model.n_components
            found.setdefault(key, []).append(-float(model.bic(data[name])))
        for chosen, values in found.items():
            told = [f"{kind}, {count}" for kind, count in (best, chosen)]
            yield [
                *(name, *told, f"{len(values)} of {seeds}"),
                *(f"{np.median(values):.3f}", float(np.median(took))),
            ]


@click.command("published")
@click.option("--data", "place", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", default=5, show_default=True, help="Of the fits.")
@click.option("--choices", default=14, show_default=True, help="Seeds of selections, or 0.")
def table(place: Path | None, seeds: int, choices: int) -> None:
    """R's small data sets: the default against what mclust prints, and what `select` chooses.

    The data are not part of the repository: a file .npz with arrays galaxies, acidity, faithful,
    iris and diabetes, named by --data or DGMM_PUBLISHED.

    Example: python -m benchmarks published --data published.npz --choices 0
    """
    place = place or published()
    if place is None:
        raise click.UsageError(f"no data: name their file by --data or {VARIABLE}")
    data = read(place)
    warnings.simplefilter("ignore", dgmm.DegenerateWarning)
    show("Published optima", HEADER, _fits(data, seeds), NOTE.format(seeds=seeds))
    if choices:
        show("Published choices", CHOSEN, _choices(data, choices), CHOSEN_NOTE)
