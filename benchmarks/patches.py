"""Patches of photographs, by the command line: from the images to a table and a figure.

The protocol of Uria, Murray and Larochelle (RNADE: the real-valued neural autoregressive
density-estimator, 2013): patches of 8 x 8 grey pixels; uniform noise in [0, 1) added to each pixel;
divided by 256; their own mean subtracted; the last pixel, which is now minus the sum of the others,
dropped.  So D = 63, and log-likelihoods compare with published ones.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import click
import numpy as np
import zarr
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks import data, machine, process
from benchmarks.billion import pass_seconds
from benchmarks.data import Array
from benchmarks.table import Cell, mebibytes, show
from benchmarks.timing import say
from dgmm import Mixture, load
from dgmm.io import models
from dgmm.model.full import FullEstimate
from dgmm.model.tails import TAILS
from dgmm.report import pictures as report

EDGE, GREYS = 8, 256
DIMS = EDGE * EDGE - 1
CHUNK_ROWS = 1 << 14
"""Rows of a chunk, of 4 MiB."""

SEEDS = {"train": 0, "test": 1}
COMPONENTS, DIRECTIONS, TILE = 10, 6, 72
"""In the figure: components, eigenvectors of each, and the pixels that a tile takes."""

PUBLISHED = {
    "one Gaussian": "96.67",
    "MADE, a mixture for each pixel": "153.71",
    "200 normals": "153.7",
    "200 t distributions": "155.3",
    "MAF on a mixture": "156.36",
}
"""By Papamakarios, Pavlakou and Murray, Masked autoregressive flow for density estimation, 2017; of
200 components by van den Oord and Schrauwen, The Student-t mixture as a natural image patch prior
with application to image compression, 2014."""

HEADER = ["model", "rows", "passes", "iterations", "start, s", "s a pass", "whole fit, s"]
HEADER += ["peak memory", "singular", "train", "test"]
NOTE = """\
Mean log-likelihoods in nats a patch, by `dgmm score`: "train" of {train:,} of the patches fitted,
"test" of {test:,} patches of other images. "start" is all outside passes of EM, and "s a pass" a
median; "singular" counts components that nothing but `reg_covar` holds up. Published: Papamakarios,
Pavlakou and Murray (2017), and of 200 components by van den Oord and Schrauwen (2014), by the same
protocol, on patches that they drew."""


@dataclass(frozen=True)
class Photographs:
    """The images of one part, "train" or "test", with a digest of them.

    ``windows``, one for each size of image, are views (images, y, x, 8, 8) of all patches.
    """

    part: str
    digest: str
    windows: tuple[NDArray[np.uint8], ...]

    @classmethod
    def read(cls, path: Path, part: str) -> "Photographs":
        """From the arrays of a ``.npz`` file whose names begin with the part's."""
        with np.load(path) as file:
            stacks = [file[name] for name in sorted(file) if name.startswith(f"{part}_")]
        if not stacks or any(each.ndim != 3 or each.dtype != np.uint8 for each in stacks):
            raise click.UsageError(f"{path} must hold {part}_*, (images, height, width) of bytes")
        digest = hashlib.sha256(b"".join(each.tobytes() for each in stacks)).hexdigest()
        view = np.lib.stride_tricks.sliding_window_view
        return cls(part, digest, tuple(view(each, (EDGE, EDGE), axis=(1, 2)) for each in stacks))

    @property
    def count(self) -> int:
        """How many patches there are."""
        return sum(math.prod(each.shape[:3]) for each in self.windows)

    def rows(self, numbers: NDArray[np.int32], noise: Array) -> NDArray[np.float32]:
        """The patches with these ``numbers`` (n,), given ``noise`` (n, 64), as rows (n, 63)."""
        pixels, first = np.empty((len(numbers), EDGE, EDGE)), 0
        for each in self.windows:
            end = first + math.prod(each.shape[:3])
            here = (numbers >= first) & (numbers < end)
            pixels[here] = each[np.unravel_index(numbers[here] - first, each.shape[:3])]
            first = end
        noisy = (pixels.reshape(noise.shape) + noise) / GREYS
        return (noisy - noisy.mean(axis=1, keepdims=True))[:, :DIMS].astype(np.float32)

    def store(self, directory: Path, rows: int) -> Path:
        """Write ``rows`` random patches to a Zarr array, unless it is there.

        All patches are shuffled, so each chunk mixes all images, and the patches of a smaller
        array are the first of a larger one.  Their numbers take 4 bytes a patch; of the patches
        themselves only a few chunks are in memory.
        """
        path, seed = directory / f"{self.part}-{rows}.zarr", SEEDS[self.part]
        about = {"images": self.digest, "seed": seed, "rows": rows}
        if path.exists():
            if dict(zarr.open_array(path, mode="r").attrs) != about:
                raise click.UsageError(f"{path} holds other patches; delete it, or change --dir")
            return path
        numbers = np.arange(self.count, dtype=np.int32)
        np.random.default_rng([seed, 0]).shuffle(numbers)

        def chunk(index: int, size: int) -> NDArray[np.float32]:
            noise = np.random.default_rng([seed, 1 + index]).random((size, EDGE * EDGE))
            return self.rows(numbers[index * CHUNK_ROWS :][:size], noise)

        data.write(path, rows, DIMS, CHUNK_ROWS, chunk, about)
        return path


def split(mixture: Mixture, components: int) -> Mixture:
    """The mixture with its heaviest components cut in two, those without weight left out.

    A component's halves lie on either side of its mean, along the leading eigenvector; mean and
    covariance of the two together are what they were.  Halves are cut again where more are asked.
    Of t distributions these are locations and scale matrices; halves keep the degrees of freedom.
    """
    while 2 * (used := np.count_nonzero(mixture.weights)) < components:
        mixture = split(mixture, 2 * used)
    heaviest = np.argsort(-mixture.weights, kind="stable")[: np.count_nonzero(mixture.weights)]
    halved = heaviest[: components - len(heaviest)]
    whole = heaviest[len(halved) :]
    dense = mixture.covariances.dense()
    values, vectors = np.linalg.eigh(dense[halved])
    away = 0.5 * np.sqrt(values[:, -1:]) * vectors[:, :, -1]
    narrower = dense[halved] - away[:, :, None] * away[:, None, :]
    means = mixture.means[halved]
    covariances = np.concatenate([dense[whole], narrower, narrower])
    raised, _ = FullEstimate(covariances).floored()
    return Mixture(
        np.concatenate([mixture.weights[whole], *2 * [mixture.weights[halved] / 2]]),
        np.concatenate([mixture.means[whole], means - away, means + away]),
        raised,
        tails=mixture.tails and mixture.tails.chosen(np.concatenate([whole, halved, halved])),
    )


def score(store: Path, model: Path) -> str:
    """The mean log-likelihood, in a process of its own."""
    say(f"scoring {store.name}")
    done = process.dgmm("score", store, "-m", model, "--json")
    return f"{json.loads(done.output)['score']:.2f}"


def line(done: process.Finished, tail: str, *scores: str) -> list[Cell]:
    """A fit's line of the table."""
    record, seconds = json.loads(done.output), pass_seconds(done)[1:]
    each = median(seconds or [0.0])  # none, if it had ended before
    return [
        f"K = {record['n_components']}" + ", t" * (tail == "student"),
        f"{record['rows']:,}",
        record["passes"],
        f"{record['iterations']}" + ("" if record["converged"] else ", not converged"),
        done.seconds - sum(seconds) - each,
        each,
        done.seconds,
        mebibytes(done.peak_bytes),
        len(record["singular"]),
        *scores,
    ]


def mosaic(means: Array, covariances: Array) -> Array:
    """The means and leading eigenvectors of components of 64 pixels: a column for each.

    Means share one scale; each eigenvector has its own.  Between the tiles is nothing, NaN.
    """
    vectors = np.linalg.eigh(covariances)[1][:, :, : -1 - DIRECTIONS : -1].transpose(2, 0, 1)
    vectors = vectors / np.abs(vectors).max(axis=2, keepdims=True)
    drawn = np.concatenate([[means / np.abs(means).max()], vectors])
    tiles = np.full((1 + DIRECTIONS, EDGE + 1, len(means), EDGE + 1), np.nan)
    tiles[:, :EDGE, :, :EDGE] = drawn.reshape(*drawn.shape[:2], EDGE, EDGE).transpose(0, 2, 1, 3)
    return tiles.reshape(len(drawn) * (EDGE + 1), -1)[:-1, :-1]


def draw(path: Path, picture: Path) -> None:
    """The components of most weight as tiles, and the objective by iteration, as a PNG file."""
    model = load(path)
    chosen = np.argsort(-model.weights_, kind="stable")[:COMPONENTS]
    whole = np.vstack([np.eye(DIMS), np.full((1, DIMS), -1.0)])  # gives back the last pixel
    covariances = whole @ model.covariances_[chosen] @ whole.T
    contrasts = GREYS * np.sqrt(np.trace(covariances, axis1=1, axis2=2)) / EDGE
    heads = zip(model.weights_[chosen], contrasts, strict=True)
    wide, high, middle = len(chosen), 1 + DIRECTIONS, (EDGE - 1) / 2
    figure = report.canvas((wide + 7) * TILE, (high + 3) * TILE)
    size = f"K = {len(model.weights_)}, {model.fit_info_['rows']:,} patches"
    note = "share, contrast in grey levels; mean; leading eigenvectors"
    report.write(figure, TILE, 0.6 * TILE, size, 9)
    report.write(figure, TILE, (high + 2.6) * TILE, note, 6.5, color=report.FAINT)
    axes = report.panel(figure, TILE, 1.6 * TILE, wide * TILE, high * TILE)
    image = mosaic(model.means_[chosen] @ whole.T, covariances)
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    places = middle + (EDGE + 1) * np.arange(max(wide, high))
    axes.set_xticks(places[:wide], [f"{share:.1%}\n± {spread:.1f}" for share, spread in heads])
    axes.set_yticks(places[:high], ["mean", *range(1, high)])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes = report.panel(figure, (wide + 2.3) * TILE, 1.6 * TILE, 4.2 * TILE, high * TILE)
    axes.plot([*model.lower_bounds_, model.lower_bound_], color=report.INK, linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration", fontsize=6.5, color=report.FAINT)
    axes.set_title("objective, nats a patch", fontsize=6.5, color=report.FAINT, loc="left")
    report.save(figure, picture)


@click.command()
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="A .npz file of train_* and test_*, each (images, height, width) of bytes.",
)
@click.option(
    "-k", "--n-components", "counts", multiple=True, type=int, help="One or more.  [default: 200]"
)
@click.option(
    "--tails",
    "tails",
    multiple=True,
    type=click.Choice(TAILS),
    help="Of components: one or both.  [default: normal]",
)
@click.option("--rows", type=int, help="Training patches.  [default: all; quick: 50000]")
@click.option("--test-rows", type=int, help="Test patches.  [default: 1000000; quick: 50000]")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(tempfile.gettempdir()) / "dgmm-benchmarks",
    help="Where patches, models and figures go, and stay; 252 bytes a patch.  "
    "[default: dgmm-benchmarks where temporary files go]",
)
@click.option("--memory", default="4GiB", show_default=True, help="What the fit is allowed.")
@click.option("--threads", type=int, help="As for dgmm fit.")
@click.option("--max-iter", type=int, help="[default: 100; quick: 5]")
@click.option("--tol", type=float, help="As for dgmm fit.")
@click.option("--reg-covar", default=0.0, show_default=True, help="As for dgmm fit.")
@click.option(
    "--split",
    "start",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Start from this model, its heaviest components cut in two where more are asked.",
)
@click.option("--quick", is_flag=True, help="50,000 patches, K = 10, 5 iterations.")
def patches(
    images: Path,
    counts: tuple[int, ...],
    tails: tuple[str, ...],
    rows: int | None,
    test_rows: int | None,
    directory: Path,
    memory: str,
    threads: int | None,
    max_iter: int | None,
    tol: float | None,
    reg_covar: float,
    start: Path | None,
    quick: bool,
) -> None:
    """Patches of photographs: a density, from the images to a figure.

    Writes patches of 8 x 8 pixels to Zarr (D = 63), unless they are there from the last time; fits
    full covariances to those of the training images by ``dgmm fit``; scores them and those of the
    test images by ``dgmm score``; and draws the components of most weight.

    Nothing is added to the variances: a flat patch has only the noise, of variance
    1 / (12 * 256^2) = 1.3e-6 a pixel and, as the last pixel is dropped, 1/64 of that along the mean
    of the others, 2e-8; the usual reg_covar of 1e-6 would drown both.  The noise itself keeps a
    component that has many more patches than 63 from collapsing; the table counts those that did.

    Example: python -m benchmarks patches --images bsds300.npz -k 1 -k 200 --rows 1_000_000
    """
    train, test = (Photographs.read(images, part) for part in SEEDS)
    rows = min(rows or (50_000 if quick else train.count), train.count)
    test_rows = min(test_rows or (50_000 if quick else 1_000_000), test.count)
    directory.mkdir(parents=True, exist_ok=True)
    machine.measure(reading=True, directory=directory)
    store, held_out = train.store(directory, rows), test.store(directory, test_rows)
    some = train.store(directory, min(rows, test_rows))
    options = ["--memory", memory, "--max-iter", max_iter or (5 if quick else 100)]
    options += ["--reg-covar", reg_covar] + ([] if tol is None else ["--tol", tol])
    options += [] if threads is None else ["--threads", threads]

    def lines() -> Iterator[list[Cell]]:
        for count, tail in product(counts or (10 if quick else 200,), tails or TAILS[:1]):
            name = directory / f"patches-{count}-{rows}{'-t' * (tail == 'student')}"
            model = name.with_suffix(".dgmm")
            passes = name.with_suffix(".passes")  # a run that is cut off goes on from there
            words = ("-k", count, "-o", model, "--overwrite", "--checkpoint", passes, "--json")
            words += ("--tails", tail, *options)
            if start is not None:
                begin = name.with_suffix(".start.dgmm")
                mixture, header, _ = models.read_model(str(start))
                told = {"record": header["record"]}
                models.write_model(str(begin), split(mixture, count), told, {}, overwrite=True)
                words += ("--start", begin)
            done = process.dgmm("fit", store, *words, tell=say)
            draw(model, name.with_suffix(".png"))
            yield line(done, tail, score(some, model), score(held_out, model))
        blanks: list[Cell] = [None] * (len(HEADER) - 2)
        yield from ([f"{who}, published", *blanks, value] for who, value in PUBLISHED.items())

    note = NOTE.format(train=min(rows, test_rows), test=test_rows)
    show(f"Patches of 8 x 8 pixels, D = {DIMS}, full, {memory} allowed", HEADER, lines(), note)
