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
