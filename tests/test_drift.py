"""Drift and comparing: against formulas, false alarms, power, and where nothing changed."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from scipy import stats

import dgmm
from dgmm import DgmmWarning, engine
from dgmm.cli.commands import main
from dgmm.inference.layouts import LAYOUTS


def night(rows: int, seed: int, share: float = 0.5, moved: float = 0.0, spread: float = 1.0) -> Any:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, 2)) @ np.array([[1.0, 0.4], [0, 0.7]])
    one = rng.random(rows) < share
    found[one] = found[one] * spread + [5 + moved, 2]
    return found


def fitted(rows: Any, kind: str = "full", **more: Any) -> dgmm.GaussianMixture:
    starts = [[0.0, 0.0], [5.0, 2.0]]
    model = dgmm.GaussianMixture(2, covariance_type=kind, means_init=starts, n_jobs=1, **more)
    return model.set_params(random_state=0).fit(rows)


def test_a_row_that_hides_all_others_is_told() -> None:
    """All rows moved by a deviation; beside one that is a billion away no test sees that."""
    model, moved = fitted(night(3000, 0)), night(3000, 1) + 1
    assert not model.drift(moved).by_few
    moved[7] = 1e9
    with pytest.warns(DgmmWarning, match="a few rows, very far"):
        found = model.drift(moved)
    assert found.by_few
    assert found.components[1].mean.p_value > 0.001


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_rows_of_the_fit_have_not_drifted(kind: str) -> None:
    """Their statistics tell their scores, whatever the fit's end; so does the file."""
    rows = night(3000, 0) * [1e5, 1e-3] if kind in ("full", "diag") else night(3000, 0)
    weights = np.random.default_rng(1).integers(0, 3, len(rows)).astype(float)
    model = dgmm.GaussianMixture(3, covariance_type=kind, random_state=0, reg_covar=0, max_iter=3)
    with pytest.warns(match="did not converge"):
        model.set_params(strategy="em", tol=1e-12).fit(rows, sample_weight=weights)
    found = model.drift(rows, sample_weight=weights)
    assert found.test.statistic < 1e-9
    assert found.test.p_value > 0.999
    assert found.score == pytest.approx(found.score_before, rel=1e-9)
    assert found.weight == pytest.approx(found.weight_before)
    for each in found.components:
        assert (each.weight_now, each.moved) == pytest.approx((each.weight_before, 0), abs=1e-6)
        assert each.spread == pytest.approx((1, 1), abs=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_it_is_hotellings_test_of_the_scores(known: bool) -> None:
    """One normal of one feature: scores x - m and ((x - m)^2 - 1) / 2, in units of sigma."""
    rng = np.random.default_rng(0)
    rows, old = rng.normal(0.1, 1.1, size=(400, 1)), rng.normal(size=(300, 1))
    model = dgmm.GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
    if not known:
        model = dgmm.GaussianMixture(reg_covar=0).fit(old)
    x = (rows[:, 0] - model.means_[0, 0]) / np.sqrt(model.covariances_[0, 0, 0])
    scores = np.stack([x, (x * x - 1) / 2], axis=1)
    mean, cov = scores.mean(axis=0), np.cov(scores.T, bias=True)
    among = 400.0 if known else 1 / (1 / 400 + 1 / 300)
    f = among * mean @ np.linalg.solve(cov, mean) * (400 - 2) / (2 * 400)
    found = model.drift(rows)
    assert found.test.statistic == pytest.approx(f, rel=1e-6)
    assert found.test.p_value == pytest.approx(stats.f.sf(f, 2, 398), rel=1e-6)
    assert found.test.degrees == 2
    own = found.components[0]
    assert own.moved == pytest.approx(abs(x.mean()), rel=1e-6)
    assert own.spread[0] == pytest.approx(x.std(), rel=1e-6)
    assert own.mean.statistic == pytest.approx(among * x.mean() ** 2 / x.var() * 399 / 400)
    doubled = model.drift(np.concatenate([rows, rows]))
    assert doubled.test.effect == pytest.approx(found.test.effect)
    if known:
        assert doubled.test.statistic == pytest.approx(2 * found.test.statistic, rel=0.01)


def test_quiet_nights_raise_as_many_alarms_as_the_level_says() -> None:
    """200 nights against models of as many rows: 5 % is 10, and 2 to 19 but for 1 in 500 times.

    If the fit's rows were not counted, a fifth of the nights or more would raise one.
    """
    alarms = 0
    for seed in range(20):
        model = fitted(night(1500, 1000 + seed), strategy="em", tol=1e-4)
        found = [model.drift(night(1500, 10 * seed + i)) for i in range(10)]
        alarms += sum(each.beyond(0.05) for each in found)
    assert 2 <= alarms <= 19


def test_each_kind_of_change_is_found_and_named() -> None:
    model = fitted(night(4000, 0))
    heavier = int(model.means_[:, 0].argmax())
    changes = {"weight": {"share": 0.56}, "mean": {"moved": 0.2}, "covariance": {"spread": 1.15}}
    for kind, change in changes.items():
        found = model.drift(night(4000, 1, **change))
        assert found.beyond(0.001)
        assert not found.beyond(0.001, effect=0.1)
        values = {name: getattr(found.components[heavier], name).p_value for name in changes}
        assert values[kind] < 1e-4
        assert min(values[name] for name in changes if name != kind) > 1e-3
    moved = model.drift(night(40_000, 1, moved=0.2)).components[heavier].moved
    assert moved == pytest.approx(0.2 / np.sqrt(model.covariances_[heavier][0, 0]), rel=0.3)


def test_a_component_that_is_gone_is_an_alarm() -> None:
    model = fitted(night(4000, 0))
    found = model.drift(night(4000, 1, share=0.0))
    assert found.test.p_value < 1e-200
    assert found.components[int(model.means_[:, 0].argmax())].weight_now < 0.01


def test_the_same_bits_on_a_cluster(clusters: Mapping[int, Client], tmp_path: Path) -> None:
    rows = night(20_000, 0)
    rows[::7, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(64 << 10)
    model = fitted(night(2000, 1)).set_params(missing="marginalize")
    assert model.drift(dataset) == model.drift(dataset, sweep=engine.over(dataset, clusters[2]))


def test_what_is_held_is_no_change_but_can_change() -> None:
    """Scores of rows are compared with those of the fit, which are not 0 where a mean is held."""
    held = dict(means_init=[[1.0, 1.0]], fixed="means", random_state=0)
    model = dgmm.GaussianMixture(1, **held).fit(night(3000, 0, share=0.0))
    assert model.drift(night(3000, 1, share=0.0)).test.p_value > 0.001
    assert model.drift(night(3000, 1, share=0.0) + 0.2).components[0].mean.p_value < 1e-6


@pytest.mark.filterwarnings("ignore:.*as good as normal:dgmm.DegenerateWarning")
def test_what_makes_no_sense_is_refused() -> None:
    model = fitted(night(2000, 0))
    with pytest.raises(dgmm.DataError, match="too few"):
        model.drift(night(100, 1))
    labelled = deepcopy(model)
    labelled.fit_info_["labelled"] = 9
    with pytest.raises(dgmm.UsageError, match="fitted to rows with labels"):
        labelled.drift(night(2000, 1))
    prior = dgmm.GaussianMixture(2, prior="conjugate", random_state=0).fit(night(500, 0))
    with pytest.raises(dgmm.UsageError, match="prior='conjugate'"):
        prior.drift(night(2000, 1))
    with pytest.raises(dgmm.UsageError, match="heavy tails"):
        dgmm.GaussianMixture(2, tails="student").fit(night(500, 0)).drift(night(9, 1))


def test_divergences_of_known_mixtures() -> None:
    """Of normals: KL in closed form, and Hellinger's distance; of themselves, exactly 0."""
    one = dgmm.GaussianMixture.from_parameters([1.0], [[0.0, 0]], [np.eye(2)])
    two = dgmm.GaussianMixture.from_parameters([1.0], [[1.0, 0]], [np.diag([2.0, 1])])
    found = dgmm.compare(one, two)
    expected = (
        0.5 * (0.5 + 0.5 + np.log(2) - 1),
        0.5 * (2 + 1 - np.log(2) - 1),
        np.sqrt(1 - 2**0.25 / np.sqrt(1.5) * np.exp(-1 / 12)),
    )
    told = found.divergence, found.divergence_back, found.hellinger
    for each, value in zip(told, expected, strict=True):
        assert abs(each.value - value) < 4 * each.error < 0.03
    model = fitted(night(3000, 0))
    same = dgmm.compare(model, deepcopy(model))
    assert same.hellinger.value == same.divergence.value == same.divergence_back.value == 0
    assert same.divergence.error == 0
    errors = model.standard_errors(night(3000, 0))
    other = fitted(night(3000, 1, moved=0.5))
    moved = dgmm.compare(model, other, errors, other.standard_errors(night(3000, 1, moved=0.5)))
    assert moved.order.tolist() == [0, 1]
    assert moved.means_in_errors is not None
    far = np.abs(moved.means_in_errors)
    assert far[1, 0] > 8
    assert max(far[0]) < 4
    assert dgmm.compare(model, one).order is None
    with pytest.raises(dgmm.UsageError, match="as many features"):
        dgmm.compare(model, model.marginal([0]))
    away = dgmm.GaussianMixture.from_parameters([1.0], [[1e5, 0]], [np.eye(2)])
    assert dgmm.compare(one, away).hellinger.value == 1.0


def test_models_of_other_features_are_not_compared() -> None:
    names = ("km", "fare"), ("fare", "km"), None
    models = []
    for each in names:
        model = dgmm.GaussianMixture.from_parameters([1.0], [[0.0, 1]], [np.eye(2)])
        if each:
            model.feature_names_in_ = np.array(each, dtype=object)
        models.append(model)
    for of_both in (dgmm.compare, dgmm.align):
        with pytest.raises(dgmm.UsageError, match="one has km, fare, the other fare, km"):
            of_both(models[0], models[1])
        of_both(models[0], models[2])


def test_the_commands(tmp_path: Path) -> None:
    model = fitted(night(2000, 0))
    model.save(tmp_path / "model.dgmm")
    fitted(night(2000, 1)).save(tmp_path / "other.dgmm")
    for name, rows in (("quiet", night(2000, 2)), ("moved", night(2000, 3, moved=1))):
        np.save(tmp_path / f"{name}.npy", rows)

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, [*words, "-m", str(tmp_path / "model.dgmm"), "--quiet"])

    quiet, moved = (str(tmp_path / f"{name}.npy") for name in ("quiet", "moved"))
    alarm = ("--level", "0.001")
    told = run("drift", moved, *alarm, "--json")
    assert told.exit_code == 5, told.output
    record = json.loads(told.output)
    assert record["drifted"] is True
    assert record["test"]["p_value"] == pytest.approx(model.drift(np.load(moved)).test.p_value)
    assert [run("drift", quiet, *alarm).exit_code, run("drift", moved).exit_code] == [0, 0]
    assert run("drift", moved, *alarm, "--effect", "9").exit_code == 0
    assert "mean moved" in run("drift", moved).output
    page = tmp_path / "night.html"
    assert run("drift", moved, *alarm, "--html", str(page)).exit_code == 5
    text = page.read_text()
    assert "Drifted." in text
    assert "mean moved (sd)" in text
    assert 'alt="Two charts by component: weights' in text
    assert "http" not in text
    assert "<script" not in text
    assert run("drift", quiet, "--html", str(page)).exit_code == 3  # it is there
    assert run("drift", quiet, *alarm, "--html", str(page), "--overwrite").exit_code == 0
    assert "no more than is allowed" in page.read_text()
    ends = [str(tmp_path / f"{name}.dgmm") for name in ("model", "other")]
    told = CliRunner().invoke(main, ["compare", *ends, "--json"])
    assert json.loads(told.output)["order"] == [0, 1]
    assert "Hellinger" in CliRunner().invoke(main, ["compare", *ends]).output
    files = []
    for name, seed in (("model", 0), ("other", 1)):
        np.save(rows := tmp_path / f"{name}.npy", night(2000, seed))
        words = ["errors", str(rows), "-m", str(tmp_path / f"{name}.dgmm"), "--json", "--quiet"]
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(CliRunner().invoke(main, words).output)
    given = ["--errors", str(files[0]), "--other-errors", str(files[1])]
    record = json.loads(CliRunner().invoke(main, ["compare", *ends, *given, "--json"]).output)
    own, theirs = (json.loads(each.read_text())["weights"] for each in files)
    np.testing.assert_allclose(
        record["weights_in_errors"], record["weights"] / np.hypot(own, theirs)
    )
    assert "x1: mean" in CliRunner().invoke(main, ["compare", *ends, *given]).output
    swapped = CliRunner().invoke(main, ["compare", *ends, "--errors", str(files[1])])
    assert swapped.exit_code == 3
    assert "the errors of another model" in swapped.output
