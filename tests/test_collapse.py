"""Warnings of singular components: which features they name, and what they advise."""

import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgmm import DegenerateWarning, GaussianMixture, load, select
from dgmm.em.causes import Collapse
from dgmm.em.collapse import collapses
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.full import FullEstimate
from dgmm.model.mixture import Mixture

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)

NAMES = ("age", "weight_in_kg", "member")


def two(rows: int = 400) -> np.ndarray:
    """Rows (rows, 2) about two far centres, in turn."""
    return np.random.default_rng(0).normal(size=(rows, 2)) + 40 * (np.arange(rows) % 2)[:, None]


def warned(model: GaussianMixture, rows: np.ndarray, do: str = "fit") -> list[str]:
    """What DegenerateWarnings said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(model, do)(rows)
    return [str(each.message) for each in caught if each.category is DegenerateWarning]


def mixture(kind: str, components: int, **more: Any) -> GaussianMixture:
    return GaussianMixture(components, covariance_type=kind, random_state=0, **more)


def causes(model: GaussianMixture) -> list[tuple[str, list[int], list[int]]]:
    """Each cause, its components and its features."""
    told = model.fit_info_["singular_causes"]
    return [(each["cause"], each["components"], sorted(each["features"])) for each in told]


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_a_constant_column_is_named(kind: str, reg_covar: float) -> None:
    """To spherical covariances one constant column does nothing."""
    rows = np.insert(two(), 1, 0.1, axis=1)
    model = mixture(kind, 2, reg_covar=reg_covar)
    (said,) = warned(model, rows)
    assert said.startswith("components 0, 1 are singular: column 1 has one value in all rows;")
    assert said.endswith("Leave it out")
    assert causes(model) == [("constant", [0, 1], [1])]
    assert warned(mixture("spherical", 2, reg_covar=reg_covar), rows) == []


@every_structure
def test_constant_columns_only(kind: str) -> None:
    (said,) = warned(mixture(kind, 1), np.full((30, 2), 0.1))
    assert "component 0 is singular: columns 0, 1 have one value in all rows" in said
    assert said.endswith("Leave them out")


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_a_column_of_zeros_and_ones_is_named(kind: str) -> None:
    """It is the same in all rows of each component, but not in all rows."""
    rows = np.column_stack([two(), np.arange(400) % 2])
    model = mixture(kind, 2)
    (said,) = warned(model, rows)
    assert causes(model) == [("few values", [0, 1], [2])]
    assert "one of the 2 values of column 2 alone" in said
    assert "0 and 1" in said
    assert "leave such a column out, or raise reg_covar" in said
    assert warned(mixture("spherical", 2), rows) == []


def test_one_component_of_zeros_alone() -> None:
    """The other has zeros and ones, and its rank."""
    rows = np.column_stack([two(), (np.arange(400) % 4 == 1)])
    model = mixture("diag", 2)
    (said,) = warned(model, rows)
    (k,) = model.fit_info_["singular"]
    assert k == model.predict(rows[:1])[0]
    assert said.startswith(f"component {k} is singular: ")


COPIES = {
    "a copy": (lambda x: x[:, [0, 1, 0]], [0, 2]),
    "in other units, far from zero": (lambda x: x[:, [0, 1, 0]] * [1, 1, -1000] + 1e6, [0, 2]),
    "a sum": (lambda x: np.column_stack([x, x.sum(axis=1)]), [0, 1, 2]),
    "a sum among others": (
        lambda x: np.column_stack([np.cos(np.arange(len(x))), x, x @ [2.0, -1.0]]),
        [1, 2, 3],
    ),
}


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("name", COPIES)
def test_columns_that_follow_from_others_are_named(kind: str, name: str) -> None:
    """To the structures without covariances between features they do nothing."""
    make, features = COPIES[name]
    x = np.random.default_rng(1).normal(size=(400, 2))  # two centres would be a direction, too
    model = mixture(kind, 2)
    (said,) = warned(model, make(x))
    assert causes(model) == [("dependent", [0, 1], features)]
    assert f"columns {', '.join(map(str, features))} follow from each other" in said
    assert said.endswith("Leave 1 of them out")
    for other in ("diag", "spherical"):
        assert warned(mixture(other, 2), make(x)) == []


@every_structure
def test_equal_rows_are_told(kind: str) -> None:
    """Half of the rows are one and the same."""
    rows = np.concatenate([np.random.default_rng(0).normal(size=(200, 2)), np.full((200, 2), 50.0)])
    model = mixture(kind, 2)
    told = warned(model, rows)
    if COVARIANCE_MODELS[kind].needs_scatter:  # the other rows' spread is theirs, too
        assert told == []
        return
    (said,) = told
    k = int(model.predict([[50.0, 50.0]])[0])
    assert causes(model) == [("equal rows", [k], [0, 1])]
    assert f"component {k} is singular: its rows are all equal" in said
    assert "Fit fewer components, or raise reg_covar" in said


@every_structure
def test_few_distinct_rows_are_told(kind: str) -> None:
    """Two of them, twenty times each: a component for each, and none has any spread."""
    rows = np.repeat([[0.0, 0.0], [1.0, 3.0]], 20, axis=0)
    model = mixture(kind, 2)
    warned(model, rows)
    assert {each["cause"] for each in model.fit_info_["singular_causes"]} == {"equal rows"}
    assert {j for each in model.fit_info_["singular_causes"] for j in each["features"]} == {0, 1}
    assert model.fit_info_["singular"] == [0, 1]


@every_structure
def test_too_many_components_are_told(kind: str) -> None:
    """As many as there are rows."""
    rows = np.random.default_rng(3).normal(size=(6, 2)) * 10
    model = mixture(kind, 6, reg_covar=0, init_params="random_from_data", strategy="em")
    (said,) = warned(model, rows)
    assert causes(model) == [("few rows", list(range(6)), [0, 1])]
    assert "their rows, 1 at most, are too few to spread in columns 0, 1" in said
    assert "Fit fewer components" in said


def test_more_columns_than_rows() -> None:
    model = mixture("full", 1)
    (said,) = warned(model, np.random.default_rng(0).normal(size=(8, 12)))
    assert causes(model) == [("few rows", [0], list(range(12)))]
    assert "its rows, 8 at most, are too few to spread in columns" in said
    assert "and 6 more; the variance" in said


def test_rows_on_a_line_that_others_are_not_on() -> None:
    rng = np.random.default_rng(0)
    line = 60 + rng.normal(size=(200, 1)) * [1.0, 2.0, 0.0] + [0, 0, 1] * rng.normal(size=(200, 3))
    model = mixture("full", 2)
    (said,) = warned(model, np.concatenate([rng.normal(size=(200, 3)), line]))
    k = int(model.predict([[60.0, 60.0, 60.0]])[0])
    assert causes(model) == [("flat", [k], [0, 1])]
    assert "some direction of columns" in said


def test_advice_is_of_what_is_not_done_yet() -> None:
    """One row has no column to leave out; a noise component that is there needs not be given."""
    (said,) = warned(mixture("full", 1), np.array([[1.0, 2.0]]))
    assert said.endswith(
        "one row, which has no spread in columns 0, 1; the variance there is "
        "the smallest allowed. Give more rows"
    )
    few = Collapse("few values", (0,), (0,), 2)
    assert few.said().endswith("make it NaN, or give noise_component")
    assert few.said(has_noise=True).endswith("make it NaN")
    assert "rows of one of the 2 values of column 0 alone" in few.said()
    assert "rows of one value of column 0 alone" in replace(few, number=18_597).said()
    rows = np.column_stack([two(), np.arange(400) % 2])
    for noise in (False, True):
        model = mixture("full", 2, noise_component=noise)
        told = " ".join(warned(model, rows))
        assert "make it NaN" in told
        assert ("noise_component" in told) != noise


@every_structure
@pytest.mark.parametrize("do", ["partial_fit", "update", "select"])
def test_however_it_was_fitted(kind: str, do: str) -> None:
    """All give the names of the columns, where they have any."""
    pandas = pytest.importorskip("pandas")
    rows = np.column_stack([two(), np.zeros(400)])
    frame = pandas.DataFrame(rows, columns=list(NAMES))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if do == "select":
            select(frame, 2, kind, random_state=0)
        else:
            model = mixture(kind, 2).fit(frame)
            caught.clear()
            more = frame[:100]
            if do == "update":
                model.update(model.sufficient_statistics_ + model.summarize(more))
            else:
                model.partial_fit(more)
    said = [str(each.message) for each in caught if each.category is DegenerateWarning]
    expected = [] if kind == "spherical" else ["column 'member' has one value in all rows"]
    assert [each.split(": ")[1].split(";")[0] for each in said] == expected


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_an_update_that_collapses_says_why(kind: str) -> None:
    """New rows of zeros alone do nothing to a component; their statistics alone do."""
    rows = np.column_stack([two(), np.tile([0, 0, 1, 1], 100)])
    model = mixture(kind, 2)
    assert warned(model, rows) == []
    with pytest.warns(DegenerateWarning, match="few values of column 2 alone"):
        model.update(model.summarize(rows[(rows[:, 2] == 1) == (rows[:, 0] > 20)]))
    assert causes(model) == [("few values", [0, 1], [2])]


@every_structure
def test_a_reg_covar_that_is_too_large_is_told(kind: str) -> None:
    """Then no component is at fault."""
    x = np.random.default_rng(1).normal(size=(400, 2)) * [1.0, 1.0 if kind == "spherical" else 1e-9]
    model = mixture(kind, 2, reg_covar=1e-6 if kind != "spherical" else 1e6)
    (said,) = [each for each in warned(model, x) if "singular" in each]
    assert causes(model) == [("reg_covar", [0, 1], [0, 1] if kind == "spherical" else [1])]
    assert "reg_covar is more than all the variance" in said
    assert "Give a smaller reg_covar" in said


def test_a_component_that_is_all_but_flat() -> None:
    """Equal but for a little noise, of which reg_covar makes nothing."""
    rng = np.random.default_rng(0)
    thin = rng.normal(size=(200, 3)) * [1, 1, 1e-4] + 60
    model = mixture("full", 2)
    (said,) = warned(model, np.concatenate([rng.normal(size=(200, 3)), thin]))
    (k,) = model.fit_info_["singular"]
    assert causes(model) == [("flat", [k], [2])]
    assert (
        f"component {k} is singular: its rows have no spread in some direction of column 2" in said
    )


def test_a_row_far_from_all_others() -> None:
    """One component has to hold it, and then what the others vary by is lost beside it."""
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    rows[7, 1] = 1e12
    model = mixture("full", 1)
    (said,) = [each for each in warned(model, rows) if "singular" in each]
    assert causes(model) == [("far rows", [0], [1])]
    assert "rows far from most make its variance so large in column 1" in said
    assert "leave them out, or fit more components" in said


def test_the_reasons_are_kept_in_the_model_file(tmp_path: Path) -> None:
    model = mixture("full", 2)
    warned(model, np.insert(two(), 1, 0.1, axis=1))
    model.save(tmp_path / "m.dgmm")
    again = load(tmp_path / "m.dgmm")
    assert again.fit_info_["singular_causes"] == model.fit_info_["singular_causes"]


def test_what_is_merged_and_the_words_for_many() -> None:
    """Of many features the first few are named."""
    covariances = np.broadcast_to(np.diag([0.0] * 8 + [1.0]), (2, 9, 9))
    own, _ = FullEstimate(covariances).floored()
    bare = Mixture(np.array([0.5, 0.5]), np.zeros((2, 9)), own)
    (found,) = collapses(bare, [0, 1], np.array([50.0, 50.0]), np.zeros(9), 1e-3)
    assert found == Collapse("constant", (0, 1), tuple(range(8)))
    assert Collapse.of(found.record()) == found
    assert "columns 0, 1, 2, 3, 4, 5 and 2 more have one value in all rows" in found.said()
    assert "columns 'b', 'b', 'b', 'b', 'b', 'b' and 2 more" in found.said(["b"] * 9)
    one_seen = Collapse("few values", (0, 1), (0,), 1)
    assert "each has rows of one of the few values of column 0 alone" in one_seen.said()


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_thousands_of_columns_are_told_in_no_more_memory(kind: str) -> None:
    """Nothing of size D^2: for 20,000 columns that would be 3 GB."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 20_000))
    rows[:, 7_000] = 1.0
    if kind == "spherical":
        rows[20:] = rows[20]
    model = GaussianMixture(2, covariance_type=kind, means_init=rows[[0, 30]], max_iter=50)
    tracemalloc.start()
    with pytest.warns(DegenerateWarning) as caught:
        model.fit(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * rows.nbytes
    if kind == "diag":
        assert "column 7000 has one value in all rows" in str(caught[0].message)
