"""``dgmm.plot``: on the axes that are given, with names, and with clear words where it can't."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import dgmm
from dgmm import plot


@pytest.fixture(scope="module")
def model() -> dgmm.GaussianMixture:
    made = dgmm.GaussianMixture.from_parameters(
        [0.3, 0.7], [[0.0, 0.0, 0.0], [5.0, 4.0, 1.0]], [np.eye(3), np.diag([1.0, 4.0, 9.0])]
    )
    made.feature_names_in_ = np.array(["a", "b", "$c"], dtype=object)
    return made


ROWS = np.random.default_rng(0).normal(size=(300, 3)) + 5 * (np.arange(300) % 2)[:, None]
TABLE = pd.DataFrame(ROWS, columns=["a", "b", "$c"])


def test_ellipses_are_where_components_are(model: dgmm.GaussianMixture) -> None:
    axes = Figure().subplots()
    assert plot.ellipses(model, ("b", "a"), ax=axes, levels=[2.0], colors=["red", "blue"]) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("b", "a")
    outline = axes.patches[-1]
    assert (tuple(outline.center), outline.width, outline.height) == ((4.0, 5.0), 8.0, 4.0)
    assert plot.ellipses(model, (0, 2), ax=Figure().subplots()).get_ylabel() == r"\$c"
    with pytest.raises(dgmm.UsageError, match="nothing"):
        plot.ellipses(model, ("a", "nothing"), ax=axes)
    with pytest.raises(dgmm.UsageError, match="1 colors are given for 2 components"):
        plot.ellipses(model, colors=["red"], ax=axes)


def test_small_ellipses_are_above_large_ones_in_any_units() -> None:
    for unit in (1e-90, 1.0, 1e90):
        covariances = unit**2 * np.array([np.eye(2), 9 * np.eye(2)])
        model = dgmm.GaussianMixture.from_parameters([0.5, 0.5], np.zeros((2, 2)), covariances)
        patches = plot.ellipses(model, ax=Figure().subplots(), levels=[1.0]).patches
        _, small, _, large = (each.get_zorder() for each in patches)
        assert (small, large) == (pytest.approx(2 + 1 / (1 + 1 / 9)), pytest.approx(2.5))


def test_pairs_show_the_rows_that_were_counted(model: dgmm.GaussianMixture) -> None:
    """In any order of features."""
    seen = model.overview(TABLE)
    figure = Figure()
    grid = plot.pairs(model, seen, ["$c", "a"], figure=figure)
    assert list(figure.axes) == grid.ravel().tolist()
    (shaded,) = grid[1, 0].collections
    expected, *_ = np.histogram2d(ROWS[:, 2], ROWS[:, 0], bins=(seen.edges[2], seen.edges[0]))
    np.testing.assert_array_equal(shaded.get_array().filled(0), expected.T)
    with pytest.raises(dgmm.UsageError, match="not counted by b"):
        plot.pairs(model, model.overview(TABLE, features=["a"]), ["a", "b"], figure=Figure())


def test_paths_selections_and_certainty() -> None:
    search = dgmm.select(ROWS, [1, 2], random_state=0)
    axes = Figure().subplots()
    assert plot.selection(search, axes) is axes
    assert "2 components" in axes.get_title(loc="left")
    (line,) = plot.path(search, Figure().subplots()).lines
    best = search.best_estimator_
    assert line.get_ydata().tolist() == [*best.lower_bounds_, best.lower_bound_]
    tree = search.merge(ROWS)
    line, ring = plot.merging(tree, Figure().subplots()).lines
    assert line.get_ydata().tolist() == tree.levels.tolist()
    assert ring.get_xdata() == [tree.cut]
    (steps,) = plot.uncertainty(search.overview(ROWS), Figure().subplots()).patches
    assert steps.get_data().values.sum() == pytest.approx(100)


def test_without_matplotlib_it_is_told(
    model: dgmm.GaussianMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgmm.model.extras.find_spec", lambda name: None)
    with pytest.raises(dgmm.UsageError, match="matplotlib and pillow, which are not installed"):
        plot.ellipses(model)
