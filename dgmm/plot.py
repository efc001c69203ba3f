"""Pictures of mixtures, on matplotlib's axes: ``dgmm.plot``.

Each function draws on the axes it is given, or else on the current ones, and returns them: so
titles, limits and colours can be changed afterwards, and pictures stand beside others.  Rows come
as an ``Overview``, which counts any number of them in one pass (``model.overview(X)``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dgmm.errors import UsageError
from dgmm.estimators.conditionals import places_of
from dgmm.estimators.judging import judged
from dgmm.estimators.telling import names_of
from dgmm.inference.overview import SHOWN, Overview, edges_of, most_telling
from dgmm.model.arrays import Array
from dgmm.model.lazy import Late
from dgmm.report.installed import check_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dgmm.estimators.conditionals import Feature
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.estimators.search import MixtureSearch
    from dgmm.inference.merging import Merging

pyplot, pictures = Late("matplotlib.pyplot"), Late("dgmm.report.pictures")
figures = Late("dgmm.report.figures")

__all__ = ["ellipses", "merging", "pairs", "path", "selection", "uncertainty"]


def ellipses(
    model: GaussianMixture,
    features: tuple[Feature, Feature] = (0, 1),
    ax: Axes | None = None,
    levels: Sequence[float] = (1.0, 2.0),
    colors: Sequence[Any] | Array | None = None,
) -> Axes:
    """Draw each component's ellipses in the plane of two features.

    An ellipse of level s is where the component's density of the two features has fallen by
    exp(-s^2 / 2) from its peak: s standard deviations from the mean in every direction.  Lines of
    heavy components are thicker.

    Parameters
    ----------
    model : GaussianMixture
        A fitted model, or a search.
    features : (int or str, int or str), default=(0, 1)
        The horizontal and the vertical one.
    ax : matplotlib Axes, optional
        Where to draw; by default on the current axes.
    levels : sequence of float, default=(1.0, 2.0)
        In standard deviations.
    colors : K colours, optional
        One for each component; by default matplotlib's, in turn.

    Returns
    -------
    matplotlib Axes
        Where it was drawn.

    Raises
    ------
    UsageError
        For features that are not there, for other than K colours, or where matplotlib is not
        installed.

    Examples
    --------
    >>> import dgmm
    >>> model = dgmm.GaussianMixture.from_parameters(
    ...     [0.4, 0.6], [[0.0, 0.0], [5.0, 2.0]], [[[1.0, 0.5], [0.5, 1.0]]] * 2
    ... )
    >>> axes = dgmm.plot.ellipses(model)
    >>> len(axes.patches)                                # the first level is tinted, too
    6
    """
    axes = _axes(ax)
    fitted = model._fitted
    across, up = places_of(fitted, features)
    mixture = fitted.mixture_.without_noise
    if colors is None:
        colors = [f"C{k % 10}" for k in range(mixture.components)]
    if len(colors) != mixture.components:
        raise UsageError(f"{len(colors)} colors are given for {mixture.components} components")
    pictures.ellipses(axes, mixture, (across, up), colors, levels)
    names = names_of(fitted)
    axes.set_xlabel(figures.short(names[across]))
    axes.set_ylabel(figures.short(names[up]))
    return axes


def pairs(
    model: GaussianMixture,
    seen: Overview | None = None,
    features: Sequence[Feature] | None = None,
    figure: Figure | None = None,
) -> NDArray[Any]:
    """Draw features by themselves on a diagonal, and in pairs below it, over the density of rows.

    Parameters
    ----------
    model : GaussianMixture
        A fitted model, or a search.
    seen : Overview, optional
        The rows, as ``model.overview(X)`` counts them.
    features : sequence of int or str, optional
        Those that are drawn; by default those of ``seen``, or the 6 that tell most of components.
    figure : matplotlib Figure, optional
        Where to draw; by default a new one.

    Returns
    -------
    array (m, m) of matplotlib Axes
        Row by row; those above the diagonal are not drawn on.

    Raises
    ------
    UsageError
        For features that are not there or were not counted, or where matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rows = np.random.default_rng(0).normal(size=(500, 3))
    >>> model = dgmm.GaussianMixture(random_state=0).fit(rows)
    >>> dgmm.plot.pairs(model, model.overview(rows), features=[0, 2]).shape
    (2, 2)
    """
    check_pictures()
    fitted = model._fitted
    mixture, _ = judged(fitted)
    if features is not None:
        places = list(places_of(fitted, features))
    else:
        places = list(most_telling(mixture, SHOWN) if seen is None else seen.features)
    if seen is not None and not set(places) <= set(seen.features):
        names = names_of(fitted)
        missing = ", ".join(names[j] for j in places if j not in seen.features)
        raise UsageError(
            f"the rows were not counted by {missing}: ask for that by overview(X, features=[...])"
        )
    ends = edges_of(mixture, places)
    if seen is not None:
        ends = seen.edges[[seen.features.index(j) for j in places]]
    if figure is None:
        size = figures.side(len(places)) / pictures.DPI
        figure = pyplot.figure(figsize=(size, size))
    axes: NDArray[Any] = figures.draw_pairs(
        figure, mixture, names_of(fitted), places, ends, overview=seen
    )
    return axes


def path(model: GaussianMixture, ax: Axes | None = None) -> Axes:
    """Draw the objective at the beginning of each iteration of a fit, and at its end.

    Parameters
    ----------
    model : GaussianMixture
        A fitted model, or a search.
    ax : matplotlib Axes, optional
        Where to draw; by default on the current axes.

    Returns
    -------
    matplotlib Axes
        Where it was drawn.

    Raises
    ------
    UsageError
        Where matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rows = np.random.default_rng(0).normal(size=(500, 3))
    >>> axes = dgmm.plot.path(dgmm.GaussianMixture(random_state=0).fit(rows))
    >>> axes.get_ylabel()
    'objective, nats a row'
    """
    axes, fitted = _axes(ax), model._fitted
    figures.draw_path(axes, [*fitted.lower_bounds_, fitted.lower_bound_])
    return axes


def selection(search: MixtureSearch, ax: Axes | None = None) -> Axes:
    """Draw the criterion of each candidate of a search: a line for each covariance type.

    A candidate stands at its number of components, as high as its criterion is above the best
    one's, which has a ring.  Candidates that were dropped on the way are hollow, and those with an
    unbounded component, which can't be compared, are not drawn, unless all have one.

    Parameters
    ----------
    search : MixtureSearch
        A fitted one.
    ax : matplotlib Axes, optional
        Where to draw; by default on the current axes.

    Returns
    -------
    matplotlib Axes
        Where it was drawn.

    Raises
    ------
    UsageError
        Where matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rows = np.random.default_rng(0).normal(size=(500, 1))
    >>> axes = dgmm.plot.selection(dgmm.select(rows, [1, 2], random_state=0))
    >>> axes.get_xlabel()
    'components'
    """
    axes = _axes(ax)
    _ = search._fitted
    pictures.draw_criteria(axes, search.results_, search.criterion)
    return axes


def merging(found: Merging, ax: Axes | None = None) -> Axes:
    """Draw what is left at each number of groups of a tree: by it one sees where to cut.

    Parameters
    ----------
    found : Merging
        The tree, as ``model.merge(X)`` makes it.
    ax : matplotlib Axes, optional
        Where to draw; by default on the current axes.

    Returns
    -------
    matplotlib Axes
        Where it was drawn: the levels at 1, 2, ... K groups, with a ring at the cut.

    Raises
    ------
    UsageError
        Where matplotlib is not installed.

    References
    ----------
    Baudry, Raftery, Celeux, Lo and Gottardo (2010). Combining mixture components for clustering.
    Journal of Computational and Graphical Statistics 19, 332-353.

    Examples
    --------
    >>> import dgmm
    >>> model = dgmm.GaussianMixture.from_parameters(
    ...     [0.3, 0.3, 0.4], [[0.0], [1.0], [9.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
    ... )
    >>> dgmm.plot.merging(model.merge(criterion="runnalls")).get_xlabel()
    'groups'
    """
    axes = _axes(ax)
    figures.draw_levels(axes, found)
    return axes


def uncertainty(seen: Overview, ax: Axes | None = None) -> Axes:
    """Draw how many rows have labels of each certainty: the probability of that component.

    Parameters
    ----------
    seen : Overview
        The rows, as ``model.overview(X)`` counts them.
    ax : matplotlib Axes, optional
        Where to draw; by default on the current axes.

    Returns
    -------
    matplotlib Axes
        Where it was drawn.

    Raises
    ------
    UsageError
        Where matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rows = np.random.default_rng(0).normal(size=(500, 1))
    >>> model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    >>> dgmm.plot.uncertainty(model.overview(rows)).get_ylabel()
    'rows, %'
    """
    axes = _axes(ax)
    figures.draw_certainty(axes, seen)
    return axes


def _axes(ax: Axes | None) -> Axes:
    """The axes to draw on: those given, or the current ones."""
    check_pictures()
    axes: Axes = pyplot.gca() if ax is None else ax
    return axes
