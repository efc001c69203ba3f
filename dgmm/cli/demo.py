"""The demonstration: two photographs, each described by a mixture of normal distributions.

Each pixel is a row of five features: its colour, and where it is.  Colours are CIE L*a*b*, in
which distances are about as large as they look; places are in units of which a photograph is
``PLACE_UNITS`` wide, so that a start is looked for by colour more than by place.

The photographs would fit in memory, but everything is done as if they didn't: the rows are stored
in chunks, and the fit, the labels and the histogram read one chunk at a time.
"""

import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import zarr
from dask.utils import format_bytes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from dgmm.data import urls
from dgmm.data.dataset import Dataset
from dgmm.data.opening import open_dataset
from dgmm.errors import DataError, DegenerateWarning
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.model.arrays import Array
from dgmm.report import pictures as report

FEATURES: Final = ("L*", "a*", "b*", "x", "y")
PLACE_UNITS: Final = 50
CHUNK_LINES: Final = 16
"""A chunk of rows is so many lines of a photograph."""

COMPONENTS: Final = 20
MEMORY: Final = "1GiB"
PICTURE: Final = "demo.png"
PLANE: Final = (FEATURES.index("b*"), FEATURES.index("L*"))
"""The features that the mixture is drawn in: blue to yellow, and dark to light."""

TO_XYZ: Final = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
"""From linear sRGB, relative to the white D65, to CIE XYZ (IEC 61966-2-1, unrounded)."""

WHITE: Final = TO_XYZ.sum(axis=1)

EDGES: Final = (np.arange(-128.0, 129.0), np.arange(0.0, 102.0))
"""The bins of b* and L*, a unit each; white, at 100, has its own."""


@dataclass(frozen=True)
class Photograph:
    """A photograph that comes with scikit-learn, both under the licence CC BY 2.0."""

    name: str
    title: str
    author: str


PHOTOGRAPHS: Final = (
    Photograph("china", "Summer Palace", "danielbuechele"),
    Photograph("flower", "Dahlia", "vultilion"),
)


@dataclass(frozen=True)
class Files:
    """Where a photograph's rows, model and labels are."""

    rows: Path
    model: Path
    labels: Path

    @classmethod
    def of(cls, photograph: Photograph, directory: Path) -> "Files":
        """Their places in ``directory``."""
        name = photograph.name
        return cls(
            rows=directory / f"{name}.zarr",
            model=directory / f"{name}.dgmm",
            labels=directory / f"{name}-labels.zarr",
        )


@dataclass(frozen=True)
class Result:
    """What the picture shows of one photograph.

    Attributes
    ----------
    photograph : Photograph
    image : (height, width, 3)
        Bytes.
    model : GaussianMixture
    labels : (height, width)
        The component of each pixel.
    counts : (256, 101)
        How many pixels have each b* and L*.
    """

    photograph: Photograph
    image: NDArray[np.uint8]
    model: GaussianMixture
    labels: NDArray[np.int64]
    counts: NDArray[Any]


def run(directory: str | PathLike[str], overwrite: bool = False) -> Iterator[str]:
    """Run the demonstration in ``directory``, a step at a time; yields a line about each step.

    Leaves each photograph's rows, model and labels, and one picture.  Raises ``DataError`` at
    once if files of an earlier run are there, unless ``overwrite``.
    """
    place = Path(directory)
    prepare(place, overwrite)
    return steps(place)


def prepare(directory: Path, overwrite: bool) -> None:
    """Make ``directory``, and clear it of an earlier run's files or raise ``DataError``."""
    written = [directory / PICTURE]
    for photograph in PHOTOGRAPHS:
        files = Files.of(photograph, directory)
        written += [files.rows, files.model, files.labels]
    existing = [path for path in written if path.exists()]
    if existing and not overwrite:
        raise DataError(
            f"{existing[0]} exists; choose another directory, or overwrite it (--overwrite)"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{directory} can't be made: {error}") from error
    urls.check_writable(str(directory / PICTURE))
    for path in existing:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def steps(directory: Path) -> Iterator[str]:
    """The demonstration itself, in a ``directory`` that is ready."""
    results = []
    for photograph in PHOTOGRAPHS:
        name, files = photograph.name, Files.of(photograph, directory)
        image = load_sample_image(f"{name}.jpg")
        height, width, _ = image.shape
        write_rows(files.rows, image)
        dataset = open_dataset(files.rows, block_bytes=1)  # a block a chunk, not several
        yield (
            f"{name}: stored {dataset.rows:,} rows of {', '.join(FEATURES)} "
            f"in {dataset.blocks} chunks: {files.rows}"
        )
        model = fit(dataset)
        model.save(files.model)
        yield f"{name}: {described(model)}: {files.model}"
        model.predict(dataset).to_zarr(str(files.labels))
        labels = zarr.open_array(files.labels, mode="r")
        yield f"{name}: labelled each pixel, in {labels.nchunks} chunks: {files.labels}"
        drawn = np.asarray(labels[:]).reshape(height, width)
        results.append(Result(photograph, image, model, drawn, histogram(files.rows)))
    report.save(draw(results), directory / PICTURE)
    yield f"drew photographs, segmentations and mixtures: {directory / PICTURE}"


def write_rows(path: Path, image: NDArray[np.uint8]) -> None:
    """Store the pixels of an image (height, width, 3) as rows (height * width, 5), in chunks."""
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width] * (PLACE_UNITS / width)
    rows = np.dstack([lab(image / 255), x, y]).reshape(-1, len(FEATURES)).astype(np.float32)
    chunk = (CHUNK_LINES * width, len(FEATURES))
    stored = zarr.create_array(path, shape=rows.shape, chunks=chunk, dtype=rows.dtype)
    stored[:] = rows


def fit(dataset: Dataset) -> GaussianMixture:
    """The mixture of one photograph's pixels.

    ``reg_covar`` is about the variance that rounding colours to 8 bits leaves: a component narrower
    than that would describe the rounding.
    """
    model = GaussianMixture(COMPONENTS, reg_covar=0.01, random_state=1, memory=MEMORY)
    with warnings.catch_warnings():  # greys are such components, and that is what it is for
        warnings.simplefilter("ignore", DegenerateWarning)
        return model.fit(dataset)


def described(model: GaussianMixture) -> str:
    """How the fit went."""
    plan, info = model.plan_, model.fit_info_
    ended = "converged" if model.converged_ else "stopped"
    return (
        f"fitted {plan.n_components} components to {plan.blocks} blocks, planned to take up to "
        f"{format_bytes(plan.peak_bytes)} of {format_bytes(plan.limit_bytes)}; {ended} in "
        f"{info['passes']} passes, {info['seconds']:.1f} s, score {info['score']:.4f}"
    )


def histogram(path: Path) -> NDArray[Any]:
    """How many of the rows at ``path`` have each b* and L*, (256, 101); read by chunks."""
    rows = da.from_zarr(str(path))
    counts, _, _ = da.histogram2d(rows[:, PLANE[0]], rows[:, PLANE[1]], bins=EDGES)
    return np.asarray(counts)


def lab(colours: Array) -> Array:
    """sRGB colours (..., 3), from 0 to 1, in CIE L*a*b* (IEC 61966-2-1; CIE 15:2004, 8.2.1)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def srgb(colours: Array) -> Array:
    """The inverse of ``lab``; what no screen shows is clipped."""
    lightness, a, b = np.moveaxis(colours, -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    t = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip((t * WHITE) @ np.linalg.inv(TO_XYZ).T, 0, 1)
    shown: Array = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return shown


# The picture, in pixels.  Photographs are drawn in their own size.
MARGIN: Final = 64
GAP: Final = 36
HEAD: Final = 200
FOOT: Final = 124
"""Below each photograph: its caption, the palette, the ticks and the name of the axis."""
PLANE_WIDTH: Final = 490
KEY: Final = 10


def draw(results: Sequence[Result]) -> Figure:
    """For each photograph a line of panels: itself, its segmentation, its mixture."""
    height, width, _ = results[0].image.shape
    lefts = (MARGIN, MARGIN + width + GAP, MARGIN + 2 * (width + GAP) + 64)
    across = lefts[2] + PLANE_WIDTH + 22 + KEY + 34 + MARGIN
    figure = report.canvas(across, HEAD + len(results) * (height + FOOT))
    _draw_head(figure, lefts, results[0].model)
    for number, result in enumerate(results):
        top = HEAD + number * (height + FOOT)
        colours = srgb(result.model.means_[:, :3])
        report.picture(report.panel(figure, lefts[0], top, width, height), result.image)
        segments = report.panel(figure, lefts[1], top, width, height)
        report.picture(segments, colours[result.labels])
        strip = report.panel(figure, lefts[1], top + height + 12, width, 26)
        report.palette(strip, result.model.weights_, colours)
        plane = report.panel(figure, lefts[2], top, PLANE_WIDTH, height)
        scale = report.panel(figure, lefts[2] + PLANE_WIDTH + 22, top + 22, KEY, height - 22)
        _draw_plane(plane, scale, result, colours)
        caption = top + height + 32
        credit = f"photograph by {result.photograph.author}, CC BY 2.0"
        report.write(figure, lefts[0], caption, result.photograph.title, 8, weight="bold")
        report.write(figure, lefts[0], caption + 25, credit, 7, color=report.FAINT)
        legend = "the components, dark to light, each as wide as its weight"
        report.write(figure, lefts[1], caption + 30, legend, 7, color=report.FAINT)
    return figure


def _draw_head(figure: Figure, lefts: Sequence[float], model: GaussianMixture) -> None:
    plan = model.plan_
    about = (
        f"Each pixel is a row of five features, colour {', '.join(FEATURES[:3])} and place x, y. "
        f"EM reads each photograph's {plan.rows:,} rows from Zarr in {plan.blocks} blocks and "
        f"describes them by {plan.n_components} normal distributions."
    )
    report.write(figure, lefts[0], 86, "Two photographs, two mixtures", 18, weight="bold")
    report.write(figure, lefts[0], 124, about, 8.5, color=report.FAINT)
    heads = (
        "The photograph",
        "Each pixel in its component's mean colour",
        "The components, 1σ and 2σ, over all colours",
    )
    for left, head in zip(lefts, heads, strict=True):
        report.write(figure, left, HEAD - 14, head, 8, weight="bold")


def _draw_plane(axes: Axes, scale: Axes, result: Result, colours: Array) -> None:
    shaded = report.density(axes, result.counts, *EDGES)
    report.key(scale, shaded, "pixels")
    report.ellipses(axes, result.model.mixture_, PLANE, colours)
    low, high = -4.0, 104.0
    height = len(result.image)
    half = (high - low) * PLANE_WIDTH / height / 2  # one unit is as long on both axes
    axes.set(xlim=(17 - half, 17 + half), ylim=(low, high))
    label: dict[str, Any] = {"fontsize": 7, "color": report.FAINT}
    axes.set_xlabel("b*   blue to yellow", labelpad=3, **label)
    axes.set_ylabel("L*   dark to light", labelpad=3, **label)
