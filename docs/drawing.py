"""The pictures that the build makes: of the first page, and of pages whose code saves some.

They lie in docs/_made, where pages find them by the names that the code gives them.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pages
from matplotlib.figure import Figure
from PIL import Image

from dgmm.cli import demo
from dgmm.report import pictures

DOCS = Path(__file__).parent
MADE = DOCS / "_made"
BENCHMARKS = DOCS.parent / "benchmarks" / "README.md"


def with_pictures() -> list[Path]:
    """Pages whose code saves pictures."""
    return [page for page in sorted(DOCS.glob("**/*.md")) if pages.SAVED.search(page.read_text())]


def draw_pages() -> Iterator[str]:
    """Run each page with pictures, and keep these; yield what is not as a page shows it."""
    for page in with_pictures():
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            try:
                pages.run(page)
            except AssertionError as error:
                yield str(error)
            for picture in pages.SAVED.findall(page.read_text()):
                shutil.copy(picture, MADE / picture)


def draw_demo(to: Path, width: int = 1600) -> None:
    """Run ``dgmm demo``, and keep its picture as a JPEG so many pixels wide."""
    with tempfile.TemporaryDirectory() as place:
        for _ in demo.run(place):
            pass
        with Image.open(Path(place) / demo.PICTURE) as image:
            height = round(image.height * width / image.width)
            small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            small.save(to, quality=82, optimize=True, progressive=True)


def passes_of_the_billion() -> tuple[list[float], list[float], float]:
    """When each pass over a billion rows ended, what was left to gain, and what is noise for them.

    As the record in benchmarks/README.md has it.  The first pass has no mixture yet.
    """
    text = BENCHMARKS.read_text()
    lines = re.findall(r"^ +([\d.]+) s  pass \d+: (?:.*?([\d.e-]+) to go)?", text, re.M)
    (resolution,) = re.findall(r'"rows": 1000000000,.*?"resolution": ([\d.e-]+)', text, re.DOTALL)
    seconds = [float(second) for second, _ in lines]
    gaps = [float(gap) for _, gap in lines if gap]
    return seconds, gaps, float(resolution)


def billion() -> Figure:
    """A billion rows: what is left to gain after each pass, against minutes."""
    seconds, gaps, resolution = passes_of_the_billion()
    minutes = np.array(seconds) / 60
    figure = pictures.canvas(960, 520)
    axes = pictures.panel(figure, 130, 40, 790, 380)
    for start, end in zip([0, *minutes[:-1]], minutes, strict=True):
        axes.axvspan(start, end, color="C0", alpha=0.06 if start else 0.14, linewidth=0)
        axes.axvline(end, color=pictures.FAINT, linewidth=0.5)
    axes.axhline(resolution / 10, color="C3", linewidth=1, linestyle="--")
    axes.plot(minutes[1:], gaps, "o-", color="C0", markersize=5, linewidth=1.3)
    axes.set_yscale("log")
    axes.set(xlim=(0, minutes[-1] * 1.02), ylim=(min(gaps) / 4, max(gaps) * 6))
    style = {"fontsize": 7.5, "color": pictures.INK}
    axes.set_xlabel("minutes since the start", **style)
    axes.set_ylabel("log-likelihood left to gain, nats a row", **style)
    first = (
        "the first pass, from the disk:\nranges, spread, a sample;\nthen the start, on the sample"
    )
    axes.text(minutes[0] / 2, max(gaps), first, ha="center", va="center", **style)
    stop = "here it stops: a tenth of what chance gains with so many rows"
    axes.text(0.2, resolution / 10 * 1.4, stop, fontsize=7, color="C3")
    for number, (x, y) in enumerate(zip(minutes[1:], gaps, strict=True), 2):
        axes.annotate(
            f"pass {number}", (x, y), (-6, -11), textcoords="offset points", ha="right", **style
        )
    return figure


def draw_first_page() -> None:
    """Draw the pictures of the first page."""
    draw_demo(MADE / "demo.jpg")
    pictures.save(billion(), MADE / "billion.png")


def quiet(gallery_conf: dict[str, Any], fname: str) -> None:
    """Set matplotlib's style before each script of the gallery."""
    matplotlib.rcParams.update(
        {
            "axes.edgecolor": pictures.FAINT,
            "axes.labelcolor": pictures.INK,
            "axes.facecolor": pictures.PAPER,
            "axes.linewidth": 0.7,
            "axes.titlesize": 10,
            "figure.facecolor": pictures.PAPER,
            "savefig.facecolor": pictures.PAPER,
            "font.size": 9,
            "legend.frameon": False,
            "xtick.color": pictures.FAINT,
            "ytick.color": pictures.FAINT,
        }
    )
