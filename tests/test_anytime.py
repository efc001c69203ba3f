"""Fits that end early, by the clock or by Ctrl-C, with the best mixture so far."""

import _thread
import itertools
import json
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture, MixtureSearch, load
from dgmm.cli.commands import main
from dgmm.em.criteria import CRITERIA

ENDLESS: dict[str, Any] = {"strategy": "em", "tol": 0, "max_iter": 10**6, "precision": "float64"}
"""EM that goes on for ever."""


def rows(count: int = 900, apart: float = 1.5) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(size=(count, 2)) + apart * np.eye(3)[rng.integers(3, size=count)][:, :2]


def assert_evaluated(model: GaussianMixture, passes: int, why: str) -> None:
    """It has a score of its own mixture, after so many passes, and says that it is cut short."""
    info = model.fit_info_
    assert (info["passes"], info["stopped_by"], model.converged_) == (passes, why, False)
    assert info["score"] == pytest.approx(model.score(rows()), rel=1e-9)
    assert model.n_iter_ == len(model.lower_bounds_) == passes - 2


@pytest.mark.parametrize("how", [{}, {"n_init": 3}, {"strategy": "em"}])
def test_without_any_time_a_first_mixture_is_evaluated(how: dict[str, Any], tmp_path: Path) -> None:
    model = GaussianMixture(3, random_state=0, max_seconds=0, precision="float64", **how)
    with pytest.warns(ConvergenceWarning, match="is not known yet. Raise max_seconds") as told:
        model.fit(rows())
    assert len(told) == 1
    assert_evaluated(model, 2, "max_seconds")
    assert model.fit_info_["estimated_gap"] is None
    model.save(tmp_path / "m.dgmm")
    assert load(tmp_path / "m.dgmm").fit_info_ == model.fit_info_


@pytest.mark.parametrize("count", [900, 40_000])
def test_enough_time_changes_no_bit(count: int) -> None:
    some = rows(count, apart=6)
    one = GaussianMixture(3, random_state=0).fit(some)
    other = GaussianMixture(3, random_state=0, max_seconds=1e6).fit(some)
    np.testing.assert_array_equal(one.means_, other.means_)
    assert one.lower_bounds_ == other.lower_bounds_
    assert one.fit_info_["stopped_by"] == other.fit_info_["stopped_by"] != "max_seconds"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_is_left_is_the_best_so_far() -> None:
    model = GaussianMixture(3, random_state=0, max_seconds=0.2, **ENDLESS)
    for step in model.fit_passes(rows()):
        if step.passes == 5:  # on a slow machine it has ended before
            time.sleep(0.2)
    assert_evaluated(model, step.passes, "max_seconds")
    whole = GaussianMixture(3, random_state=0, **{**ENDLESS, "max_iter": model.n_iter_})
    whole.fit(rows())
    np.testing.assert_array_equal(model.means_, whole.means_)
    assert model.lower_bounds_ == whole.lower_bounds_


def test_with_a_checkpoint_the_same_fit_goes_on(tmp_path: Path) -> None:
    settings = {"random_state": 0, "strategy": "em", "tol": 1e-5, "precision": "float64"}
    model = GaussianMixture(3, checkpoint=tmp_path / "passes", max_seconds=0, **settings)
    for passes in (2, 3, 4):  # one more each time
        with pytest.warns(ConvergenceWarning):
            model.fit(rows())
        assert_evaluated(model, passes, "max_seconds")
    model.set_params(max_seconds=None).fit(rows())
    whole = GaussianMixture(3, **settings).fit(rows())
    np.testing.assert_array_equal(model.means_, whole.means_)
    assert model.lower_bounds_ == whole.lower_bounds_
    assert model.converged_


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_selection_ends_in_time_with_all_criteria_known(criterion: str) -> None:
    search = MixtureSearch(
        GaussianMixture(random_state=0, max_seconds=0), n_components=(2, 3), criterion=criterion
    )
    with pytest.warns(ConvergenceWarning, match="Raise max_seconds"):
        search.fit(rows())
    assert search.passes_ == 2 + (CRITERIA[criterion].measure is not None)
    values = [each[criterion] for each in search.results_]
    assert search.best_index_ == np.argmin(values)
    assert np.isfinite(values).all()


def test_ctrl_c_leaves_the_best_so_far() -> None:
    read = itertools.count()

    def look(block: np.ndarray) -> np.ndarray:
        if next(read) == 3 * 5 + 1:  # in the sixth pass
            _thread.interrupt_main()  # as Ctrl-C does
        return block

    blocks = da.from_array(rows(), chunks=(300, 2)).map_blocks(look, dtype=float)
    model = GaussianMixture(3, random_state=0, cache="none", **ENDLESS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(blocks)
    assert_evaluated(model, model.fit_info_["passes"], "interrupted")
    assert model.fit_info_["passes"] >= 4
    model.set_params(warm_start=True, max_iter=3)
    with pytest.warns(ConvergenceWarning):
        assert model.fit(rows()).lower_bounds_[0] == model.lower_bounds_[0]


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("command", [("fit", "-k", "3"), ("select", "-k", "2,3")])
def test_by_the_command_line(command: tuple[str, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows())
    name, *size = command
    where = [str(tmp_path / "rows.npy"), *size, "-o", str(tmp_path / "m.dgmm")]
    done = CliRunner().invoke(main, [name, *where, "--max-seconds", "0"])
    assert done.exit_code == 0
    assert "no, after 0 iterations, max_seconds" in done.stdout
    assert "Raise max_seconds" in done.stderr
    again = CliRunner().invoke(main, [name, *where, "--max-seconds", "0", "--overwrite", "--json"])
    assert json.loads(again.stdout)["stopped_by"] == "max_seconds"


@pytest.mark.parametrize("given", [-1, float("nan"), "5"])
def test_seconds_of_no_meaning_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="max_seconds must be a number of at least 0"):
        GaussianMixture(max_seconds=given).fit(rows())
