"""Drawing a mixture: ellipses, densities, palettes, pictures.

Every function draws one thing on axes it is given.  matplotlib's objects are used directly, never
pyplot, so nothing here is global: drawing works in threads, and changes nobody's settings.

Sizes are pixels of the image that is saved.  A picture drawn on a panel of its own size shows each
of its pixels as one pixel, without resampling.
"""

from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from dgmm.model.arrays import Array
from dgmm.model.covariance import described
from dgmm.model.mixture import Mixture

DPI: Final = 160
PAPER: Final = "#f6f4ee"
INK: Final = "#23282f"
FAINT: Final = "#7b828c"
SHADES: Final = LinearSegmentedColormap.from_list(
    "shades", ["#e6e3dc", "#c6c8cb", "#949ca7", "#5d6777", "#2f3645"]
)
"""For counts: from little more than the paper to ink."""


@final
class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not pyplot is in use there."""

    def _repr_png_(self) -> bytes:
        return png(self)


def canvas(width: int, height: int) -> Figure:
    """A blank figure of ``width`` by ``height`` pixels."""
    figure = Picture(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the top left corner, with quiet frame and ticks."""
    across, down = figure.get_size_inches() * figure.dpi
    axes = figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )
    axes.set_facecolor(PAPER)
    _quiet_ticks(axes)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color=FAINT)
    return axes


def _quiet_ticks(axes: Axes) -> None:
    axes.tick_params(length=2.5, width=0.6, color=FAINT, labelcolor=FAINT, labelsize=6.5)


def write(figure: Figure, left: float, top: float, text: str, size: float, **style: Any) -> Text:
    """Text whose baseline starts at a place given in pixels from the top left corner."""
    across, down = figure.get_size_inches() * figure.dpi
    return figure.text(left / across, 1 - top / down, text, fontsize=size, **{"color": INK} | style)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write the figure to a ``.png`` file."""
    Path(path).write_bytes(png(figure))


def picture(axes: Axes, image: NDArray[Any]) -> None:
    """An image (height, width, 3), bytes or numbers from 0 to 1, filling the axes."""
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.set_axis_off()


def palette(axes: Axes, weights: Array, colours: Array) -> None:
    """A strip of the components' ``colours`` (K, 3), dark to light, as wide as ``weights`` (K,)."""
    order = np.argsort(colours @ [0.2126, 0.7152, 0.0722], kind="stable")
    ends = np.cumsum(weights[order])
    axes.barh(0, weights[order], left=ends - weights[order], height=1, color=colours[order])
    axes.set(xlim=(0, ends[-1]), ylim=(-0.5, 0.5))
    axes.set_axis_off()


def density(axes: Axes, counts: NDArray[Any], x_edges: Array, y_edges: Array) -> QuadMesh:
    """Counts (a, b) of rows in bins with edges (a + 1,) and (b + 1,), shaded on a log scale.

    Counts rather than rows, so that any number of rows can be drawn: they are what
    ``numpy.histogram2d`` and ``dask.array.histogram2d`` give.  Empty bins stay blank.
    """
    filled = np.ma.masked_less_equal(counts.T, 0)
    norm = LogNorm(1, max(10.0, float(counts.max())))
    return axes.pcolormesh(x_edges, y_edges, filled, norm=norm, cmap=SHADES, rasterized=True)


def key(axes: Axes, shaded: QuadMesh, label: str) -> None:
    """The scale of a ``density`` on axes of its own, upright, numbers on the right."""
    axes.figure.colorbar(shaded, cax=axes)
    axes.set_title(label, fontsize=6.5, color=FAINT, loc="left", pad=4)
    axes.minorticks_off()
    _quiet_ticks(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)


def ellipses(
    axes: Axes,
    mixture: Mixture,
    features: tuple[int, int],
    colours: Sequence[Any] | Array,
    levels: Sequence[float] = (1.0, 2.0),
) -> list[Ellipse]:
    """Each component's ellipses in the plane of two ``features``.

    An ellipse of level s is where the component's marginal density of the two features has
    fallen by exp(-s^2 / 2) from its peak: the points s standard deviations from the mean,
    in every direction.

    Parameters
    ----------
    axes : Axes
        Limits that nobody has set widen until all ellipses show.
    mixture : Mixture
        Of any structure and any number of features, at least two.
    features : (int, int)
        The horizontal and the vertical one.
    colours : K colours
        One for each component.
    levels : sequence of float
        The outlines get thinner from one to the next; the first's inside is tinted.

    Returns
    -------
    list of Ellipse
        K times the number of levels; the level changes fastest.
    """
    plane = mixture.marginal(features)
    lines = 0.5 + 1.1 * np.sqrt(plane.weights / plane.weights.max())
    sizes = np.linalg.slogdet(plane.covariances.dense())[1] / 2  # no determinant in some units
    areas = np.exp(sizes - sizes.max())
    drawn = []
    for k in range(plane.components):
        width, height, angle = ellipse_axes(plane.covariances.dense()[k])
        for rank, level in enumerate(levels):
            line = lines[k] / (1 + 0.6 * rank)
            outline = Ellipse(
                plane.means[k],
                level * width,
                level * height,
                angle=angle,
                facecolor="none",  # the halo's effect would paint it twice
                edgecolor=colours[k],
                linewidth=line,
                zorder=2 + 1 / (1 + level**2 * areas[k]),  # small ones above large ones
                path_effects=[withStroke(linewidth=line + 0.9, foreground=PAPER, alpha=0.7)],
            )
            if rank == 0:
                axes.add_patch(_tint(outline))
            axes.add_patch(outline)
            drawn.append(outline)
    axes.autoscale_view()
    return drawn


def _tint(outline: Ellipse) -> Ellipse:
    tint = Ellipse(outline.center, outline.width, outline.height, angle=outline.angle)
    tint.set(facecolor=outline.get_edgecolor(), alpha=0.55, zorder=outline.get_zorder())
    return tint


def ellipse_axes(covariance: Array) -> tuple[float, float, float]:
    """The ellipse of level 1 of a ``covariance`` (2, 2): two diameters and an angle.

    The diameters are twice the roots of the eigenvalues, the larger one first; the angle is that
    of the first, in degrees from the horizontal.
    """
    variances, directions = np.linalg.eigh(covariance)
    shorter, longer = 2 * np.sqrt(variances)
    x, y = directions[:, 1]
    return float(longer), float(shorter), float(np.degrees(np.arctan2(y, x)))


Results = Sequence[dict[str, Any]]
"""The ``results_`` of a ``MixtureSearch``."""

RING: Final[dict[str, Any]] = {
    "marker": "o",
    "linestyle": "none",
    "markerfacecolor": "none",
    "markeredgecolor": INK,
}


def draw_criteria(axes: Axes, results: Results, criterion: str) -> None:
    """Draw the criterion of each candidate of a search: a line for each covariance type.

    A candidate stands at its number of components, as high as its criterion is above the best
    one's.  Candidates that were dropped are hollow: their criterion would have become somewhat
    better.  The best one has a ring, a line down to its number, and its name.  Candidates with an
    unbounded component can't be compared, and are not drawn, unless all have one.
    """
    count = len(results)
    results = [each for each in results if not each["unbounded"]] or results
    best = min(results, key=lambda each: np.nan_to_num(float(each[criterion]), nan=np.inf))
    least = float(best[criterion])
    for kind in dict.fromkeys(map(described, results)):
        of_kind = [each for each in results if described(each) == kind]
        _draw_kind(axes, kind, of_kind, criterion, least)
    size = best["n_components"]
    axes.plot([size], [0.0], markersize=11, label=f"the best: {size}, {described(best)}", **RING)
    axes.axvline(size, color=INK, linewidth=0.6, linestyle=":")
    if any(each["dropped_after"] is not None for each in results):
        axes.plot([], [], markersize=4, label="dropped on the way", **RING)
    if len(results) < count:
        axes.plot([], [], " ", label=f"not drawn, as unbounded: {count - len(results)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))  # no power of ten in a corner
    title = f"{best['n_components']} components, {described(best)}: {criterion} {least:.8g}"
    axes.set_title(title, color=INK, fontsize=8, loc="left")
    axes.set_xlabel("components", color=INK, fontsize=7)
    axes.set_ylabel(f"{criterion} above the best", color=INK, fontsize=7)
    axes.legend(frameon=False, fontsize=7, labelcolor=INK)


def _draw_kind(axes: Axes, kind: str, results: Results, criterion: str, least: float) -> None:
    """The candidates of one covariance type, as a line with dots; those dropped are hollow."""

    def points(some: Results) -> tuple[list[Any], list[Any]]:
        return [each["n_components"] for each in some], [each[criterion] - least for each in some]

    ordered = sorted(results, key=lambda each: int(each["n_components"]))
    (line,) = axes.plot(*points(ordered), linewidth=1, label=kind)
    color = line.get_color()
    for dropped, face in ((False, color), (True, PAPER)):
        some = [each for each in ordered if (each["dropped_after"] is not None) == dropped]
        axes.plot(*points(some), "o", markersize=4, markerfacecolor=face, markeredgecolor=color)


def criteria_figure(results: Results, criterion: str) -> Figure:
    """A picture of a search; see ``draw_criteria``."""
    figure = canvas(960, 600)
    draw_criteria(panel(figure, 130, 40, 790, 470), results, criterion)
    return figure
