"""Pictures: what they show where."""

from dgmm.report import pictures


def test_a_notebook_shows_a_picture_by_itself() -> None:
    """Also where nobody has asked pyplot for anything: a figure of its own has its own image."""
    assert pictures.canvas(60, 40)._repr_png_().startswith(b"\x89PNG")


def test_large_criteria_leave_the_title_in_place() -> None:
    results = [
        {
            "n_components": k,
            "covariance_type": "full",
            "bic": value,
            "unbounded": [],
            "dropped_after": None,
        }
        for k, value in ((1, 5.1e7), (2, 3.2e7), (3, 3.1e7))
    ]
    figure = pictures.criteria_figure(results, "bic")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    height = figure.get_size_inches()[1] * figure.dpi
    title = axes.get_title(loc="left")
    assert title.endswith("bic 31000000")
    (drawn,) = [each for each in axes.get_children() if getattr(each, "get_text", str)() == title]
    assert drawn.get_window_extent().y1 <= height
    assert [each.get_text() for each in axes.get_yticklabels()][-2] == "20,000,000"
    assert axes.yaxis.get_tightbbox().x0 >= 0


def test_the_best_of_a_search_is_the_one_that_was_chosen() -> None:
    """And not one with an unbounded component, whose criterion is as low as ``reg_covar`` is."""
    marked = [[], [], [2], [0, 3]]
    values = [300.0, 200.0, 100.0, -1000.0]
    results = [
        {
            "n_components": k,
            "covariance_type": "full",
            "bic": value,
            "unbounded": unbounded,
            "dropped_after": None,
        }
        for k, (value, unbounded) in enumerate(zip(values, marked, strict=True), 1)
    ]
    (axes,) = pictures.criteria_figure(results, "bic").axes
    assert axes.get_title(loc="left") == "2 components, full: bic 200"
    line, *_ = axes.lines
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata().tolist() == [100, 0]
    said = [each.get_text() for each in axes.get_legend().get_texts()]
    assert said == ["full", "the best: 2, full", "not drawn, as unbounded: 2"]
    (axes,) = pictures.criteria_figure(results[2:], "bic").axes  # all have one
    assert axes.get_title(loc="left") == "4 components, full: bic -1000"
