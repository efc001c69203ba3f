"""The pictures of a report, each with the words that say what it shows."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dgmm.inference.drift import Drift
from dgmm.inference.merging import LEVELS, Merging
from dgmm.inference.overview import CERTAINTIES, Overview
from dgmm.kernels.outputs import row_outputs
from dgmm.model.mixture import Mixture
from dgmm.report import pictures

DRAWN: Final = 20
"""So many components are drawn: the heaviest."""

TEXT: Final = "#4a515b"
"""Of axes: darker than ``FAINT``, which is hard to read."""

LEGIBLE: Final = 0.6
"""Of a picture's own size: then figures on axes are still 9 pixels high."""

LONGEST: Final = 24
"""More letters of a feature's name have no room."""


@dataclass(frozen=True)
class Drawing:
    """A picture for a page: a PNG as a data URL, what it shows in words, and its caption.

    Below its ``least`` width, in pixels of a page, what is written in it can't be read.
    """

    url: str
    alt: str
    caption: str
    least: int


def short(name: str) -> str:
    """A feature's name as axes have it: not longer than there is room, and no formula."""
    cut = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return cut.replace("$", r"\$")


def drawing(figure: Figure, alt: str, caption: str) -> Drawing:
    """A figure as a page has it."""
    url = f"data:image/png;base64,{b64encode(pictures.png(figure)).decode()}"
    return Drawing(url, alt, caption, round(LEGIBLE * figure.get_figwidth() * pictures.DPI))


def _axes(axes: Axes) -> None:
    axes.set_facecolor(pictures.PAPER)
    axes.tick_params(length=2.5, width=0.6, color=TEXT, labelcolor=TEXT, labelsize=7)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color=TEXT)


def side(count: int) -> int:
    """How wide and high a picture of the pairs of so many features is, in pixels."""
    return max(420, min(1300, 240 * count + 60))


def pairs(
    mixture: Mixture,
    names: Sequence[str],
    features: Sequence[int],
    ends: np.ndarray,
    *,
    overview: Overview | None,
) -> Drawing:
    """Features one by one and in pairs; see ``draw_pairs``."""
    figure = pictures.canvas(side(len(features)), side(len(features)))
    draw_pairs(figure, mixture, names, features, ends, overview=overview)
    return drawing(figure, *_words(mixture, names, features, _heaviest(mixture), overview))


def _heaviest(mixture: Mixture) -> NDArray[np.intp]:
    """The components that are drawn."""
    return np.argsort(-mixture.weights, kind="stable")[:DRAWN]


def draw_pairs(
    figure: Figure,
    mixture: Mixture,
    names: Sequence[str],
    features: Sequence[int],
    ends: np.ndarray,
    *,
    overview: Overview | None,
) -> NDArray[Any]:
    """Draw features one by one on the diagonal, and in pairs below it, with the rows seen.

    ``ends`` (m, B + 1) are the bins of the features.  Returns the axes (m, m).
    """
    count = len(features)
    figure.set_layout_engine("constrained")
    grid: NDArray[Any] = figure.subplots(count, count, squeeze=False)
    heaviest = _heaviest(mixture)
    drawn = mixture.without_noise.chosen(heaviest)
    for i in range(count):
        for j in range(count):
            axes = grid[i, j]
            if j > i:
                axes.set_axis_off()
                continue
            _axes(axes)
            axes.tick_params(labelbottom=i == count - 1, labelleft=j == 0 and i > 0)
            if i == j:
                _draw_single(axes, mixture, features[i], ends[i], overview)
            else:
                pair = features[j], features[i]
                if overview is not None:
                    pictures.density(axes, _counts(overview, *pair), ends[j], ends[i])
                pictures.ellipses(axes, drawn, pair, [f"C{k % 10}" for k in heaviest])
                _number(axes, drawn, heaviest, pair)
                axes.set_ylim(ends[i][0], ends[i][-1])
            axes.set_xlim(ends[j][0], ends[j][-1])
            axes.locator_params(nbins=4)
            if i == count - 1:
                axes.set_xlabel(short(names[features[j]]), fontsize=8, color=pictures.INK)
            if j == 0 and i > 0:
                axes.set_ylabel(short(names[features[i]]), fontsize=8, color=pictures.INK)
    return grid


def _counts(overview: Overview, across: int, up: int) -> NDArray[Any]:
    """How many rows are in each bin of two features."""
    first, second = overview.features.index(across), overview.features.index(up)
    return overview.pair(first, second) if first < second else overview.pair(second, first).T


def _words(
    mixture: Mixture,
    names: Sequence[str],
    features: Sequence[int],
    heaviest: np.ndarray,
    overview: Overview | None,
) -> tuple[str, str]:
    """What a picture of pairs shows, and its caption."""
    called = ", ".join(short(names[j]) for j in features)
    rows = "" if overview is None else f" over the density of {overview.rows:,} rows, in grey"
    share = mixture.weights[heaviest].sum()
    which = "all" if len(heaviest) == mixture.components else f"the {len(heaviest)} heaviest"
    where = "; ".join(
        f"component {k} at "
        + ", ".join(f"{short(names[j])} {mixture.means[k, j]:.4g}" for j in features[:3])
        for k in heaviest[:5]
    )
    alt = f"Pair plot of {called}: {which} of {mixture.components} components{rows}. {where}."
    caption = (
        f"Ellipses are one and two standard deviations from the means of {which} of the "
        f"{mixture.components} components ({share:.0%} of the weight){rows}. On the diagonal, the "
        "density of each feature by itself: the line is the model"
    )
    return alt, caption + (", the steps are the rows." if overview is not None else ".")


def _draw_single(
    axes: Axes, mixture: Mixture, feature: int, ends: np.ndarray, overview: Overview | None
) -> None:
    if overview is not None:
        place = overview.features.index(feature)
        known = max(1, overview.rows - int(overview.missing[place]))
        heights = overview.singles[place] / (known * np.diff(ends))
        axes.stairs(heights, ends, fill=True, color="#c6c8cb")
    x = np.linspace(ends[0], ends[-1], 400)
    density = np.exp(row_outputs(x[:, None], mixture.marginal((feature,)), "score"))
    axes.plot(x, density, color=pictures.INK, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])


def _number(axes: Axes, drawn: Mixture, numbers: np.ndarray, features: tuple[int, int]) -> None:
    """The components' numbers at their means: colours alone don't tell them."""
    for k, (x, y) in zip(numbers, drawn.means[:, list(features)], strict=True):
        axes.text(
            x,
            y,
            str(k),
            fontsize=6,
            ha="center",
            va="center",
            color=pictures.INK,
            clip_on=True,
            zorder=5,
        )


def path(objectives: Sequence[float]) -> Drawing:
    """The objective at the beginning of each iteration, and at the end."""
    figure = pictures.canvas(960, 420)
    figure.set_layout_engine("constrained")
    draw_path(figure.subplots(), objectives)
    first, last, count = objectives[0], objectives[-1], len(objectives) - 1
    words = f"from {first:.9g} to {last:.9g} nats a row in {count} iteration{'s' * (count != 1)}"
    alt = f"Line: the objective of the fit goes {words}."
    return drawing(figure, alt, f"The objective, over all rows, went {words}.")


def draw_path(axes: Axes, objectives: Sequence[float]) -> None:
    """Draw the objective at the beginning of each iteration, and at the end."""
    _axes(axes)
    axes.plot(range(len(objectives)), objectives, "o-", color="C0", markersize=4, linewidth=1.2)
    axes.set_xlabel("iterations done", fontsize=8, color=pictures.INK)
    axes.set_ylabel("objective, nats a row", fontsize=8, color=pictures.INK)
    axes.ticklabel_format(useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_levels(axes: Axes, merging: Merging) -> None:
    """Draw the levels of a tree by the number of groups, with a ring where it is cut."""
    _axes(axes)
    groups = np.arange(1, len(merging.levels) + 1)
    axes.plot(groups, merging.levels, "o-", color="C0", markersize=4, linewidth=1.2)
    axes.plot([merging.cut], [merging.levels[merging.cut - 1]], markersize=11, **pictures.RING)
    axes.set_xlabel("groups", fontsize=8, color=pictures.INK)
    axes.set_ylabel(LEVELS[merging.criterion], fontsize=8, color=pictures.INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def certainty(overview: Overview) -> Drawing:
    """How many rows have labels of each certainty."""
    figure = pictures.canvas(960, 420)
    figure.set_layout_engine("constrained")
    draw_certainty(figure.subplots(), overview)
    counts = overview.certainty.sum(axis=0)
    known = max(1, int(counts.sum()))
    sure, unsure = counts[-1] / known, counts[: CERTAINTIES // 2].sum() / known
    words = f"{sure:.1%} of the rows have 0.95 or more, and {unsure:.1%} less than 0.5"
    return drawing(figure, f"Histogram of the certainty of labels: {words}.", words + ".")


def draw_certainty(axes: Axes, overview: Overview) -> None:
    """Draw how many rows have labels of each certainty."""
    _axes(axes)
    counts = overview.certainty.sum(axis=0)
    known = max(1, int(counts.sum()))
    axes.stairs(100 * counts / known, np.linspace(0, 1, CERTAINTIES + 1), fill=True, color="C0")
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        "probability of a row's most probable component", fontsize=8, color=pictures.INK
    )
    axes.set_ylabel("rows, %", fontsize=8, color=pictures.INK)


def changes(drift: Drift) -> Drawing:
    """What changed of the components: of all, or of those that were heaviest."""
    before = np.array([each.weight_before for each in drift.components])
    shown = np.sort(np.argsort(-before, kind="stable")[:DRAWN])
    figure = pictures.canvas(960, 160 + 36 * len(shown))
    figure.set_layout_engine("constrained")
    weights, moves = figure.subplots(1, 2, sharey=True)
    draw_changes(weights, moves, drift, shown)
    now = np.array([each.weight_now for each in drift.components])
    moved = np.array([each.moved for each in drift.components])
    k, m = int(np.argmax(np.abs(now - before))), int(np.nanargmax(np.append(moved, 0.0)))
    words = f"the weight of component {k} went from {before[k]:.4f} to {now[k]:.4f}"
    if m < len(moved):
        words += f", and the mean of component {m} moved by {moved[m]:.3g} standard deviations"
    which = "all" if len(shown) == len(before) else f"the {len(shown)} heaviest of {len(before)}"
    return drawing(
        figure,
        f"Two charts by component: weights before and now, and how far means moved. Most: {words}.",
        f"Of {which} components: weights before (rings) and now (dots), and how far means have "
        f"moved. The largest changes of all: {words}.",
    )


def draw_changes(weights: Axes, moves: Axes, drift: Drift, shown: NDArray[np.intp]) -> None:
    """Draw the weights of components before and now, and how far their means have moved."""
    each = [drift.components[k] for k in shown]
    places = np.arange(len(each))
    before, now = ([getattr(one, name) for one in each] for name in ("weight_before", "weight_now"))
    weights.hlines(places, before, now, color="C0", linewidth=1.2)
    weights.plot(before, places, "o", color="C0", markerfacecolor=pictures.PAPER, markersize=6)
    weights.plot(now, places, "o", color="C0", markersize=6)
    moves.barh(places, [one.moved for one in each], color="C0", height=0.5)
    words = ("weight", "mean moved, standard deviations")
    for axes, said in zip((weights, moves), words, strict=True):
        _axes(axes)
        axes.set_xlabel(said, fontsize=8, color=pictures.INK)
        axes.set_xlim(0, 1.06 * axes.get_xlim()[1])
    weights.set_yticks(places, [str(k) for k in shown])
    weights.set_ylabel("component", fontsize=8, color=pictures.INK)
    weights.invert_yaxis()
