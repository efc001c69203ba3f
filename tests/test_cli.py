"""The command line, as a person uses it: with real files, and once as a process of its own."""

import contextlib
import fcntl
import json
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import processes
import pytest
import zarr
from click.testing import CliRunner, Result
from sklearn.mixture import GaussianMixture as Reference

import dgmm
from dgmm import engine
from dgmm.cli import tables
from dgmm.cli.commands import main
from dgmm.cli.records import dumps
from dgmm.data.opening import open_dataset
from dgmm.estimators import passes, telling
from dgmm.estimators.passes import figure
from dgmm.estimators.row_outputs import row_outputs_of
from dgmm.io.output import Written, write_outputs
from dgmm.kernels.outputs import OUTPUTS

COMMANDS = (
    *("fit", "select", "update", "predict", "impute", "denoise", "score"),
    *("show", "plan", "demo"),
)


def run(*words: object, cwd: Path, **env: str) -> Result:
    before = os.getcwd()
    os.chdir(cwd)
    try:
        result = CliRunner().invoke(main, list(map(str, words)), env={"COLUMNS": "100", **env})
    finally:
        os.chdir(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def store(tmp_path: Path, blobs: np.ndarray) -> Path:
    """A directory with rows.zarr, rows.npy and weights.npy."""
    array = zarr.create_array(
        tmp_path / "rows.zarr", shape=blobs.shape, chunks=(500, 3), dtype="f8"
    )
    array[:] = blobs
    np.save(tmp_path / "rows.npy", blobs)
    np.save(tmp_path / "weights.npy", np.linspace(0, 2, len(blobs)))
    return tmp_path


@pytest.fixture
def model(store: Path, blobs: np.ndarray) -> Path:
    fitted = dgmm.GaussianMixture(4, random_state=0).fit(blobs)
    fitted.save(store / "model.dgmm")
    return store / "model.dgmm"


def test_fit_show_score_predict(store: Path, blobs: np.ndarray) -> None:
    options = ("--json", "--strategy", "em", "--precision", "float64", "--init-params", "kmeans")
    done = run("fit", "rows.zarr", "-k", 4, "-o", "model.dgmm", *options, cwd=store)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == 3000
    assert told["passes"] == told["iterations"] + 2
    lines = done.stderr.splitlines()
    assert len(lines) == told["passes"]
    assert all("rows/s" in line for line in lines)
    assert all("score" in line and "left" in line for line in lines[1:])

    reference = Reference(4, random_state=0).fit(blobs)
    fitted = dgmm.load(store / "model.dgmm")
    np.testing.assert_allclose(fitted.means_, reference.means_, rtol=1e-5, atol=1e-5)

    shown = run("show", "model.dgmm", cwd=store)
    assert shown.exit_code == 0
    assert "component" in shown.stdout
    shown = json.loads(run("show", "model.dgmm", "--json", cwd=store).stdout)
    np.testing.assert_array_equal(shown["means"], fitted.means_)

    scored = run("score", "rows.npy", "-m", "model.dgmm", "--json", cwd=store)
    assert json.loads(scored.stdout)["score"] == pytest.approx(fitted.score(blobs), abs=1e-12)

    expected = {
        "labels": fitted.predict(blobs),
        "proba": fitted.predict_proba(blobs),
        "score": fitted.score_samples(blobs),
    }
    for what, values in expected.items():
        out = f"{what}.zarr"
        done = run("predict", "rows.zarr", "-m", "model.dgmm", "-o", out, "--kind", what, cwd=store)
        assert done.exit_code == 0, done.stderr
        written = zarr.open_array(store / out, mode="r")
        np.testing.assert_allclose(written[:], values, rtol=1e-12, atol=1e-12)
        assert written.shape[0] == 3000
        again = ("predict", "rows.zarr", "-m", "model.dgmm", "-o", out, "--overwrite", "--json")
        told = json.loads(run(*again, "--kind", what, cwd=store).stdout)
        counts = np.bincount(fitted.predict(blobs), minlength=4)
        assert told["rows_of_components"] == (None if what == "score" else counts.tolist())
        for k in range(4):
            assert (f"│ {k}         │  {counts[k]} │" in done.stdout) == (what != "score")


def test_update_learns_from_more_rows(store: Path, model: Path, blobs: np.ndarray) -> None:
    more = blobs[:700] + 0.1
    np.save(store / "more.npy", more)
    command = ("update", "more.npy", "-m", "model.dgmm", "-o", "model.dgmm")
    refused = run(*command, cwd=store)
    assert refused.exit_code == 3
    expected = dgmm.load(model).partial_fit(more)
    done = run(*command, "--overwrite", "--json", cwd=store)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["strategy"], told["rows"]) == ("incremental", 3700)
    np.testing.assert_array_equal(dgmm.load(model).means_, expected.means_)
    assert [told["objective_before"]] == expected.lower_bounds_
    assert told["objective"] == expected.lower_bound_ > told["objective_before"]
    shown = run("show", "model.dgmm", cwd=store).stdout
    assert f"{expected.lower_bound_:.9g} nats a row, a lower bound for all rows seen" in shown
    assert f"{expected.lower_bounds_[0]:.9g}, with the parameters from before" in shown


@pytest.mark.parametrize(
    "options",
    [
        ("--covariance-type", "tied", "--init-params", "random_from_data", "--n-init", "3"),
        ("--covariance-type", "diag", "--sample-weight", "weights.npy", "--random-state", "5"),
        ("--covariance-type", "spherical", "--threads", "1", "--memory", "4GiB", "--tol", "1e-5"),
        ("--workers", "2", "--max-iter", "200", "--reg-covar", "1e-4", "--strategy", "em"),
        ("--resolution", "0.5", "--random-state", "2"),
    ],
)
def test_fit_options(store: Path, blobs: np.ndarray, options: tuple[str, ...]) -> None:
    environment = dict(os.environ)
    done = run("fit", "rows.zarr", "-k", 3, "-o", "m.dgmm", "--quiet", *options, cwd=store)
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert dict(os.environ) == environment
    given = dict(zip(options[::2], options[1::2], strict=True))
    weights = np.load(store / given["--sample-weight"]) if "--sample-weight" in given else None
    direct = dgmm.GaussianMixture(
        3,
        covariance_type=given.get("--covariance-type", "full"),
        strategy=given.get("--strategy", "auto"),
        init_params=given.get("--init-params", "auto"),
        n_init=int(given.get("--n-init", 1)),
        random_state=int(given.get("--random-state", 0)),
        tol=float(given["--tol"]) if "--tol" in given else None,
        resolution=float(given.get("--resolution", 0.1)),
        max_iter=int(given.get("--max-iter", 100)),
        reg_covar=float(given["--reg-covar"]) if "--reg-covar" in given else None,
    ).fit(str(store / "rows.zarr"), sample_weight=weights)
    np.testing.assert_array_equal(dgmm.load(store / "m.dgmm").means_, direct.means_)


def test_counts_of_blocks_add_up(tmp_path: Path, blobs: np.ndarray) -> None:
    """A component that no row of a block is in is counted there, too."""
    fitted = dgmm.GaussianMixture(4, random_state=0).fit(blobs)
    labels = fitted.predict(blobs)
    rows = blobs[np.argsort(labels)]
    dataset = open_dataset(rows, block_bytes=8 * 3 * 300)
    assert dataset.blocks > 4
    written = write_outputs(
        engine.over(dataset),
        dataset,
        row_outputs_of(fitted, OUTPUTS["labels"]),
        str(tmp_path / "l.zarr"),
    )
    assert written == Written(3000, tuple(np.bincount(labels).tolist()))


LONG = [f"the_{j}th_column_of_a_very_long_name_[bold]_without_spaces" for j in range(30)]


def wide_model(path: Path) -> dgmm.GaussianMixture:
    """Of 30 features with long names and means that have many digits."""
    pandas = pytest.importorskip("pandas")
    rows = np.random.default_rng(0).normal(size=(300, 30)) - 23456789.123
    rows[::2] *= 1.00001
    model = dgmm.GaussianMixture(2, covariance_type="diag", random_state=0)
    model.fit(pandas.DataFrame(rows, columns=LONG)).save(path)
    return model


def test_long_names_are_folded_between_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(["component", "flipper_length_mm: mean ± sd", "w" * 30], [["0", "1 ± 2", "3"]])
    lines = capsys.readouterr().out.splitlines()[1:4]
    middle = [line.split("┃")[2].strip() for line in lines]
    assert middle == ["flipper_", "length_mm:", "mean ± sd"]
    assert [line.split("┃")[3].strip() for line in lines] == ["w" * 10] * 3


def told_whole(means: np.ndarray, text: str) -> bool:
    """Whether each of ``means`` is there, to a hundredth."""
    told = np.array(re.findall(r"-\d+\.\d+(?= ±)", text), dtype=float)
    return all(np.abs(told - mean).min() < 0.006 for mean in means.ravel())


@pytest.mark.parametrize("columns", [80, 30])
def test_show_keeps_figures_whole(tmp_path: Path, columns: int) -> None:
    model = wide_model(tmp_path / "m.dgmm")
    shown = run("show", "m.dgmm", cwd=tmp_path, COLUMNS=str(columns))
    assert "…" not in shown.stdout
    assert told_whole(model.means_, shown.stdout)
    for sd in np.sqrt(model.covariances_).ravel():
        assert f"± {sd:.4g} " in shown.stdout
    table = shown.stdout[shown.stdout.index("┏") :]
    assert columns < 80 or max(map(len, table.splitlines())) <= 80
    letters = "".join(re.findall(r"\w|\[|\]", table))
    assert all(name[-12:] in letters or name[:20] in letters for name in LONG)


def test_show_in_a_terminal_of_80_columns(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "m.dgmm")
    code, drawn = in_a_terminal("show", "m.dgmm", cwd=tmp_path, columns=80)
    assert code == 0
    assert "…" not in drawn
    assert told_whole(model.means_, drawn)
    assert max(len(line) for line in drawn.splitlines() if "│" in line) <= 80


def test_show_some_features_and_covariances(tmp_path: Path) -> None:
    names = ["area", "girth", "height", "weight"]
    values = np.random.default_rng(0).normal(size=(2, 4, 9))
    covariances = values @ values.swapaxes(1, 2)
    model = dgmm.GaussianMixture.from_parameters([0.25, 0.75], values[:, :, 0], covariances)
    model.feature_names_in_ = np.array(names, dtype=object)
    model.save(tmp_path / "m.dgmm")
    asked = ("show", "m.dgmm", "--features", 'height, "*th",!weight', "--covariances")
    shown = run(*asked, cwd=tmp_path, COLUMNS="80").stdout
    heads = [line for line in shown.splitlines() if "component" in line or "feature" in line]
    assert "height:" in shown
    assert "girth:" in shown
    assert "area" not in shown
    assert "weight:" not in shown
    assert [line for line in heads if line.startswith("component")] == [
        "component 1, weight 0.7500: covariances",
        "component 0, weight 0.2500: covariances",
    ]
    assert f" {covariances[1, 1, 2]:.5g} " in shown
    wide = run("show", "m.dgmm", "--wide", cwd=tmp_path, COLUMNS="40").stdout
    assert wide.count("┏") == 1
    assert "weight:" in wide
    failed = run("show", "m.dgmm", "--features", "hight", cwd=tmp_path)
    assert (failed.exit_code, "no column 'hight'; the nearest" in failed.stderr) == (
        3,
        True,
    )
    assert failed.stdout == ""
    kinds = {"tied": covariances[0], "diag": np.ones((2, 4))}
    for kind, own in kinds.items():
        one = dgmm.GaussianMixture.from_parameters(
            [0.25, 0.75], values[:, :, 0], own, covariance_type=kind
        )
        one.save(tmp_path / f"{kind}.dgmm")
    tied = run("show", "tied.dgmm", "--covariances", cwd=tmp_path).stdout
    assert "all components: covariances" in tied
    assert (
        "No feature goes with another"
        in run("show", "diag.dgmm", "--covariances", cwd=tmp_path).stdout
    )


def in_a_terminal(*words: str, cwd: Path, columns: int) -> tuple[int, str]:
    """The exit code, and all that is drawn, without control sequences."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    env |= {"TERM": "xterm"}
    with processes.start(*words, cwd=cwd, env=env, stdout=slave, stderr=slave) as process:
        os.close(slave)
        drawn = b""
        with contextlib.suppress(OSError):
            while piece := os.read(master, 4096):
                drawn += piece
    os.close(master)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())


def test_select_keeps_figures_whole_and_tells_the_edge(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(900, 2)) + 30 * (np.arange(900) % 3)[:, None]
    np.save(tmp_path / "rows.npy", rows)
    select = ("select", "rows.npy", "-o", "m.dgmm", "--overwrite", "-k")
    for sizes, edge, message in (
        ("1..3", "most", "the best has 3 components, the most that were tried: try more (-k 3..6)"),
        ("3,5", "fewest", "3 components, the fewest that were tried: try fewer (-k 1..3)"),
        ("2..4", None, None),
        ("3", None, None),
    ):
        told = json.loads(run(*select, sizes, "--json", cwd=tmp_path).stdout)
        assert told["n_components"] == 3
        assert told["at_edge"] == edge
        shown = run(*select, sizes, cwd=tmp_path, COLUMNS="80").stdout
        assert "…" not in shown
        assert (message or "components") in shown
        assert ("were tried" in shown) == (edge is not None)
        for each in told["candidates"]:
            assert f" {each['bic']:.8g} " in shown
    assert "covariance" not in shown  # as all have one type
    both = run(*select, "3", "--covariance-type", "full,diag", cwd=tmp_path).stdout
    assert all(f"│ {each} " in both for each in ("full", "diag"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-23456789.123, "-23456789.123"), (813893.3644, "813893.364"), (2.5, "2.5"), (np.inf, "inf")],
)
def test_criteria_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert figure(value) == shown


@pytest.mark.parametrize(
    ("mean", "spread", "shown"),
    [
        (-23456789.123, 0.5, "-23456789.123 ± 0.5"),
        (-23456789.123, 5000.0, "-23456789 ± 5000"),
        (12.3456789, 1e-20, "12.3456789 ± 1e-20"),
        (0.0, 1.0, "0 ± 1"),
        (1.23456, 0.0, "1.235 ± 0"),
        (1.23456e-9, 1e-3, "1.235e-09 ± 0.001"),
    ],
)
def test_means_have_the_digits_that_their_spread_tells(
    mean: float, spread: float, shown: str
) -> None:
    assert telling.mean_and_spread(mean, spread) == shown


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_a_fit_begins_at_the_degrees_of_freedom_of_a_model(store: Path) -> None:
    tails = ("-k", 2, "--tails", "student", "--strategy", "em", "--quiet", "--overwrite")
    words = ("fit", "rows.zarr", *tails, "--max-iter")
    done = run(*words, 3, "-o", "t.dgmm", cwd=store)
    assert done.exit_code == 0, done.stderr
    before = dgmm.load(store / "t.dgmm")
    assert np.abs(before.dof_ - 5).min() > 0.1  # 5 is what they begin at without a model
    assert run(*words, 1, "-o", "next.dgmm", "--start", "t.dgmm", cwd=store).exit_code == 0
    after = dgmm.load(store / "next.dgmm")
    assert after.lower_bounds_[0] == pytest.approx(before.lower_bound_, abs=1e-12)
    options = ("--start", "t.dgmm", "--dof", 3)
    assert run(*words, 1, "-o", "next.dgmm", *options, cwd=store).exit_code == 0
    assert (dgmm.load(store / "next.dgmm").dof_ == 3).all()


def test_a_fit_begins_at_a_model(store: Path, model: Path) -> None:
    words = ("fit", "rows.zarr", "-o", "m.dgmm", "--quiet", "--start", model)
    options = ("--strategy", "em", "--precision", "float64")
    done = run(*words, "-k", 4, *options, cwd=store)
    assert done.exit_code == 0, done.stderr
    before, after = dgmm.load(model), dgmm.load(store / "m.dgmm")
    assert after.lower_bounds_[0] == pytest.approx(before.lower_bound_, abs=1e-12)
    for options, code, message in (
        (("-k", 3), 2, "has 4 components and full covariances"),
        (("-k", 4, "--covariance-type", "diag"), 2, "not 4 components and diag"),
        (("-k", 4, "--init-params", "random"), 2, "leave out --init-params"),
        (("-k", 4, "--n-init", 2), 2, "leave out --init-params and --n-init"),
        (("-k", 4, "--start", "rows.npy"), 3, "rows.npy is no"),
        (("-k", 4, "--random-state", "-1"), 2, "-1 is not in the range"),
    ):
        refused = run(*words, *options, "--overwrite", cwd=store)
        assert refused.exit_code == code
        assert message in refused.stderr
    (store / "rows.csv").write_text("a,b,c\n1,2,3\n2,2,2\n")
    one = dgmm.GaussianMixture.from_parameters([1.0], np.zeros((1, 2)), [np.eye(2)])
    one.feature_names_in_ = np.array(["a", "b"], dtype=object)
    one.save(store / "ab.dgmm")
    words = ("fit", "rows.csv", "-k", 1, "-o", "n.dgmm", "--start", "ab.dgmm")
    refused = run(*words, "--columns", "b,c", cwd=store)
    assert refused.exit_code == 2
    assert "--start: ab.dgmm is a model of the features a, b; the rows have b, c" in refused.stderr


def test_plan(store: Path) -> None:
    planned = json.loads(run("plan", "rows.zarr", "-k", 16, "--json", cwd=store).stdout)
    assert planned["rows"] == 3000
    assert planned["pass_bytes"] == 3000 * 3 * 8
    assert planned["base_bytes"] < planned["peak_bytes"] <= planned["limit_bytes"]
    (store / ("long" * 30)).symlink_to(store / "rows.zarr")
    shown = run("plan", "long" * 30, "-k", 16, cwd=store, COLUMNS="80")
    assert f"  {'long' * 30}\n" in shown.stdout
    workers = ("--workers", 2, "--threads", 3, "--json")
    there = json.loads(run("plan", "rows.zarr", "-k", 16, *workers, cwd=store).stdout)
    assert (there["engine"], there["workers"], there["threads"]) == ("distributed", 2, 3)
    for word in (
        "blocks",
        "tasks per pass",
        "size of the rows in memory",
        "peak memory per worker",
    ):
        assert word in shown.stdout
    starts = {}
    zarr.create_array(store / "many.zarr", shape=(1 << 26, 3), chunks=(1 << 20, 3), dtype="f4")
    many = ("many.zarr", "--missing-chunks", "fill", "-k", 16, "--json")
    for words in (("--effort", "low"), ("--effort", "high"), ("--strategy", "em")):
        done = run("plan", *many, *words, cwd=store)
        starts[words[1]] = json.loads(done.stdout)["starts"]
    assert starts["em"] == 0
    assert starts["low"] < starts["high"]


def test_records_are_json_whatever_the_numbers() -> None:
    """Of criteria that no candidate has, too: RFC 8259 has no NaN and no Infinity."""
    record = {"a": [math.inf, {"b": np.float64("nan")}, (1.5, -math.inf)], "c": "inf", "d": True}
    told = json.loads(dumps(record), parse_constant=pytest.fail)
    assert told == {"a": [None, {"b": None}, [1.5, None]], "c": "inf", "d": True}


def _group(path: Path) -> None:
    group = zarr.create_group(path / "group.zarr")
    group.create_array("train/rows", shape=(5, 2), dtype="f8")
    group.create_array("test", shape=(5, 2), dtype="f8")


def _rows(name: str, values: object) -> object:
    def make(path: Path) -> None:
        np.save(path / name, np.asarray(values))

    return make


def _zarr(path: Path, rows: int = 1000, compressors: object = "auto") -> "zarr.Array":
    array = zarr.create_array(
        path / "bad.zarr", shape=(rows, 2), chunks=(100, 2), dtype="f8", compressors=compressors
    )
    array[:] = np.random.default_rng(0).normal(size=(rows, 2))
    return array


def _nan(path: Path) -> None:
    array = _zarr(path)
    array[777, 1] = np.nan
    array[778, 0] = np.inf


def _lost_chunk(path: Path) -> None:
    _zarr(path)
    (path / "bad.zarr" / "c" / "3" / "0").unlink()


def _short_chunk(path: Path) -> None:
    _zarr(path)
    chunk = path / "bad.zarr" / "c" / "3" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])


def _nothing(path: Path) -> None:
    pass


def _plain_directory(path: Path) -> None:
    (path / "folder").mkdir()
    (path / "folder" / "note.txt").write_text("no rows here")


FIT = ("fit", "rows.npy", "-k", 3, "-o", "out.dgmm")
BAD = ("fit", "bad.npy", "-k", 3, "-o", "out.dgmm")
BAD_ZARR = ("fit", "bad.zarr", "-k", 3, "-o", "out.dgmm")
WEIGHTS = (*FIT, "--sample-weight", "bad.npy")

ERRORS = {
    "1-D": (_rows("bad.npy", np.ones(9)), BAD, 3, "2-D"),
    "3-D": (_rows("bad.npy", np.ones((9, 2, 2))), BAD, 3, "2-D"),
    "zero rows": (_rows("bad.npy", np.ones((0, 2))), BAD, 3, "no rows"),
    "zero columns": (_rows("bad.npy", np.ones((5, 0))), BAD, 3, "no columns"),
    "fewer rows than components": (_rows("bad.npy", np.ones((2, 2))), BAD, 3, "n_samples = 2"),
    "NaN": (_nan, BAD_ZARR, 3, "nan at row 777, column 1"),
    "infinity": (
        _rows("bad.npy", np.where(np.arange(30).reshape(10, 3) == 14, -np.inf, 1.0)),
        BAD,
        3,
        "-inf at row 4, column 2",
    ),
    "complex": (_rows("bad.npy", np.ones((9, 2), "c16")), BAD, 3, "Complex"),
    "text": (_rows("bad.npy", np.full((9, 2), "a")), BAD, 3, "real numbers"),
    "too few weights": (_rows("bad.npy", np.ones(7)), WEIGHTS, 3, "(3000,)"),
    "negative weight": (
        _rows("bad.npy", np.where(np.arange(3000) == 5, -1.0, 1.0)),
        WEIGHTS,
        3,
        "-1.0 at row 5",
    ),
    "NaN weight": (
        _rows("bad.npy", np.where(np.arange(3000) == 5, np.nan, 1.0)),
        WEIGHTS,
        3,
        "nan at row 5",
    ),
    "all weights zero": (_rows("bad.npy", np.zeros(3000)), WEIGHTS, 3, "all weights are zero"),
    "K below 1": (_nothing, ("fit", "rows.npy", "-k", 0, "-o", "out.dgmm"), 2, "x>=1"),
    "unknown covariance": (_nothing, (*FIT, "--covariance-type", "round"), 2, "'round'"),
    "unknown init": (_nothing, (*FIT, "--init-params", "luck"), 2, "'luck'"),
    "negative tol": (_nothing, (*FIT, "--tol", "-1"), 2, "x>=0"),
    "NaN for an alarm": (
        _nothing,
        ("drift", "rows.npy", "-m", "model.dgmm", "--level", "0.1", "--effect", "nan"),
        2,
        "'--effect': 'nan' is no number",
    ),
    "NaN for a time": (_nothing, ("join", "rows.npy", "box", "--timeout", "nan"), 2, "no number"),
    "standard input": (
        _nothing,
        ("fit", "-", "-k", 3, "-o", "out.dgmm"),
        2,
        "'DATA': '-' can't be read or written",
    ),
    "standard output": (_nothing, (*FIT[:-1], "-"), 2, "give a path or a URL"),
    "no such path": (_nothing, ("fit", "no.zarr", "-k", 3, "-o", "out.dgmm"), 3, "does not exist"),
    "no Zarr store": (
        _plain_directory,
        ("fit", "folder", "-k", 3, "-o", "out.dgmm"),
        3,
        "no Zarr array or group, and its name does not end",
    ),
    "a group": (
        _group,
        ("fit", "group.zarr", "-k", 3, "-o", "out.dgmm"),
        3,
        "group.zarr/test, group.zarr/train/rows",
    ),
    "missing chunk": (_lost_chunk, BAD_ZARR, 3, "lacks chunk 'c/3/0' (9 of 10"),
    "truncated chunk": (_short_chunk, BAD_ZARR, 3, "rows 0 to 1000 (block 0) of bad.zarr"),
    "truncated npy": (
        lambda path: (path / "bad.npy").write_bytes((path / "rows.npy").read_bytes()[:999]),
        BAD,
        3,
        "can't be read as a .npy file",
    ),
    "output exists": (
        lambda path: (path / "there.dgmm").write_text("mine"),
        ("fit", "rows.npy", "-k", 3, "-o", "there.dgmm"),
        3,
        "exists",
    ),
    "output not writable": (
        _nothing,
        ("fit", "rows.npy", "-k", 3, "-o", "rows.npy/out.dgmm"),
        3,
        "can't be written",
    ),
    "no directory for the output": (
        _nothing,
        ("fit", "rows.npy", "-k", 3, "-o", "nowhere/out.dgmm"),
        3,
        "no directory",
    ),
    "no cluster": (
        _nothing,
        (*FIT, "--scheduler", "tcp://127.0.0.1:9", "--connect-timeout", "1"),
        4,
        "no Dask scheduler answered at tcp://127.0.0.1:9 within 1 s",
    ),
    "no cluster yet": (
        _nothing,
        (*FIT, "--scheduler", "tcp://127.0.0.1:9", "--connect-timeout", "1", "--checkpoint", "p"),
        4,
        "no Dask scheduler answered",
    ),
    "no address": (_nothing, (*FIT, "--scheduler", "somewhere"), 2, "try tcp://host:8786"),
    "two kinds of cluster": (
        _nothing,
        (*FIT, "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"),
        2,
        "exclude",
    ),
    "a plan that does not fit": (_nothing, (*FIT, "--memory", "100MiB"), 3, "100.00 MiB"),
    "no amount of memory": (_nothing, (*FIT, "--memory", "much"), 2, "'much'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_clear_and_leave_nothing_behind(store: Path, case: str) -> None:
    make, words, code, message = ERRORS[case]
    make(store)
    before = sorted(store.rglob("*"))
    done = run(*words, "--json", cwd=store)
    assert done.exit_code == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(store.rglob("*")) == before
    if case == "output exists":
        assert (store / "there.dgmm").read_text() == "mine"


PREDICT = ("predict", "rows.npy", "-m", "model.dgmm", "-o", "out.zarr")

MODEL_ERRORS = {
    "other width": (
        _rows("bad.npy", np.ones((9, 2))),
        ("predict", "bad.npy", "-m", "model.dgmm", "-o", "out.zarr"),
        "2 features; model.dgmm was fitted to 3",
    ),
    "no model": (_nothing, (*PREDICT[:3], "no.dgmm", *PREDICT[4:]), "no.dgmm does not exist"),
    "no model file": (_nothing, (*PREDICT[:3], "rows.npy", *PREDICT[4:]), "no usable model file"),
    "output exists": (
        lambda path: (path / "out.zarr").mkdir(),
        PREDICT,
        "out.zarr exists",
    ),
    "NaN": (
        _rows("bad.npy", np.where(np.arange(30).reshape(10, 3) == 14, np.nan, 1.0)),
        ("predict", "bad.npy", "-m", "model.dgmm", "-o", "out.zarr"),
        "nan at row 4, column 2",
    ),
}


@pytest.mark.parametrize("case", MODEL_ERRORS)
def test_predict_errors(store: Path, model: Path, case: str) -> None:
    make, words, message = MODEL_ERRORS[case]
    make(store)
    before = sorted(store.rglob("*"))
    done = run(*words, cwd=store)
    assert done.exit_code == 3, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(store.rglob("*")) == before


def test_overwrite(store: Path, model: Path) -> None:
    done = run("fit", "rows.zarr", "-k", 2, "-o", "model.dgmm", "--overwrite", cwd=store)
    assert done.exit_code == 0, done.stderr
    assert dgmm.load(model).n_components == 2
    for _ in range(2):
        done = run(
            "predict", "rows.zarr", "-m", "model.dgmm", "-o", "l.zarr", "--overwrite", cwd=store
        )
        assert done.exit_code == 0, done.stderr
    assert set(zarr.open_array(store / "l.zarr", mode="r")[:]) == {0, 1}
    assert not list(store.glob("*.partial")) + list(store.glob("*.old"))


@pytest.mark.parametrize("command", ["fit", "score", "predict"])
def test_in_a_terminal(store: Path, model: Path, command: str) -> None:
    """A bar is drawn, on a pseudo-terminal; standard output is not touched."""
    words = {
        "fit": ("fit", "rows.zarr", "-k", "3", "-o", "new.dgmm", "--json"),
        "score": ("score", "rows.zarr", "-m", "model.dgmm", "--json"),
        "predict": ("predict", "rows.zarr", "-m", "model.dgmm", "-o", "l.zarr", "--json"),
    }[command]
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    pipe = subprocess.PIPE
    with processes.start(*words, cwd=store, env=env, stdout=pipe, stderr=slave) as process:
        os.close(slave)
        printed = process.stdout.read()
    drawn = b""
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that nobody writes any more
        while piece := os.read(master, 4096):
            drawn += piece
    os.close(master)
    assert process.returncode == 0, drawn.decode()
    assert json.loads(printed)
    assert {"fit": b"moments and sample", "score": b"score", "predict": b"predict"}[
        command
    ] in drawn
    assert b"Traceback" not in drawn


def test_ctrl_c(store: Path) -> None:
    """It ends with 130, says so, and leaves nothing."""
    before = sorted(store.rglob("*"))
    words = (*FIT[:3], "20", *FIT[4:], "--tol=0", "--max-iter=99999")
    with processes.start(*words, cwd=store) as process:
        process.stderr.readline()  # the first pass is done
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130, told
    assert "Interrupted: nothing was written" in told
    assert "Traceback" not in told
    assert sorted(store.rglob("*")) == before


@pytest.mark.filterwarnings("ignore::dgmm.DegenerateWarning")
def test_progress_has_what_changes_where_that_is_not_the_score(blobs: np.ndarray) -> None:
    for reg_covar, begins in ((1e-9, "score -"), (5.0, "objective -")):
        model = dgmm.GaussianMixture(1, reg_covar=reg_covar)
        *_, last = passes.of_fit(model.fit_passes(blobs))
        assert last.said.startswith(begins)
        assert "score -" in last.said


SIGNALLED = """
import os, signal, sys, threading
import zarr.core.sync as loops
def told(of, name, when):
    was = getattr(of, name)
    def now(*args, **named):
        if when(*args):
            os.kill(os.getpid(), signal.SIGTERM)
        return was(*args, **named)
    setattr(of, name, now)
def let_go(waiting):
    waiting._lock.release()
    if threading.current_thread() is threading.main_thread():
        os.kill(os.getpid(), signal.SIGTERM)
when = sys.argv.pop(1)
if when == "a loop starts":
    told(threading.Thread, "start", lambda thread: thread.name == "zarr_io")
elif when == "a lock is let go":
    threading.Condition._release_save = let_go
else:
    told(loops, "wait", lambda *_: True)
from dgmm.cli.commands import main
main()
"""


@pytest.mark.parametrize("when", ["a loop starts", "a loop is asked", "a lock is let go"])
def test_a_signal_where_something_is_half_done(store: Path, when: str) -> None:
    """The event loop of Zarr, a question to it, a wait: it says nothing at the end."""
    with processes.start(
        when, "fit", "rows.zarr", *FIT[2:], cwd=store, script=SIGNALLED
    ) as process:
        told = process.stderr.read()
    assert process.returncode == 143
    assert told == "Interrupted: nothing was written.\n"


def test_ctrl_c_while_it_is_loaded(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from dgmm.__main__ import main; sys.meta_path.insert(0, "
        "type('', (), {'find_spec': lambda *_: signal.raise_signal(2)})); main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_only_arrays_are_replaced(store: Path, model: Path) -> None:
    (store / "folder").mkdir()
    (store / "folder" / "precious.txt").write_text("mine")
    (store / "plain").write_text("mine")
    predict = ("predict", "rows.zarr", "-m", "model.dgmm", "--overwrite", "-o")
    for target, message in (
        ("folder", "no Zarr array"),
        ("plain", "no Zarr array"),
        ("rows.zarr", "holds the rows themselves"),
    ):
        done = run(*predict, target, cwd=store)
        assert done.exit_code == 3
        assert message in done.stderr
    done = run("fit", "rows.zarr", "-k", 2, "-o", "folder", "--overwrite", cwd=store)
    assert done.exit_code == 3
    assert "is a directory" in done.stderr
    done = run("fit", "rows.zarr", "-k", 2, "-o", "rows.npy", "--overwrite", cwd=store)
    assert done.exit_code == 3
    assert "no model file; it is not overwritten" in done.stderr
    before = {each: (store / each).read_bytes() for each in ("rows.npy", "model.dgmm")}
    (store / "link").symlink_to("rows.npy")
    for target in (*before, "link"):
        for words in (
            ("report", "model.dgmm", "rows.npy", "-o", target),
            ("drift", "rows.npy", "-m", "model.dgmm", "--html", target),
        ):
            done = run(*words, "--overwrite", cwd=store)
            assert (done.exit_code, "is what is read here" in done.stderr) == (3, True)
    assert {each: (store / each).read_bytes() for each in before} == before
    both = ("fit", "rows.zarr", "-k", 2, "-o", "both", "--checkpoint", "./both")
    done = run(*both, cwd=store)
    assert (done.exit_code, "both can't be both" in done.stderr) == (2, True)
    assert not (store / "both").exists()
    assert (store / "folder" / "precious.txt").read_text() == "mine"
    assert zarr.open_array(store / "rows.zarr", mode="r").shape == (3000, 3)


def test_one_component(store: Path) -> None:
    """The change is 0 at once: no time left to guess."""
    for covariance in ("full", "tied", "diag", "spherical"):
        name = f"{covariance}.dgmm"
        done = run(
            "fit", "rows.zarr", "-k", 1, "--covariance-type", covariance, "-o", name, cwd=store
        )
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "rows.npy", "-k", 2, "-o", "nope://m.dgmm"),
        ("fit", "nope://rows.zarr", "-k", 2, "-o", "m.dgmm"),
        ("score", "rows.npy", "-m", "nope://m.dgmm"),
    ],
)
def test_unknown_protocols(store: Path, words: tuple[object, ...]) -> None:
    done = run(*words, cwd=store)
    assert done.exit_code == 3
    assert "nope" in done.stderr


@pytest.mark.filterwarnings("ignore::dgmm.DegenerateWarning")  # many rows are the fill value
def test_missing_fill(store: Path) -> None:
    _lost_chunk(store)
    done = run(*BAD_ZARR, "--missing-chunks", "fill", cwd=store)
    assert done.exit_code == 0, done.stderr


def test_a_process_of_its_own(store: Path) -> None:
    """Standard output is one JSON object; progress and warnings go to standard error."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dgmm",
            *map(str, FIT),
            "--strategy",
            "em",
            "--max-iter",
            "1",
            "--json",
        ],
        cwd=store,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["iterations"] == 1
    assert "did not converge" in done.stderr
    assert "Traceback" not in done.stderr
    process = processes.start(*FIT, cwd=store)
    _, told = process.communicate()
    assert process.returncode == 3
    said = "choose another name, or overwrite it (overwrite=True, --overwrite)"
    assert told == f"Error: out.dgmm exists; {said}\n"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_options_from_the_environment(store: Path) -> None:
    """What is on the command line goes first; an empty variable is none."""
    given = {
        "DGMM_FIT_N_COMPONENTS": "3",
        "DGMM_FIT_OUTPUT": "m.dgmm",
        "DGMM_FIT_STRATEGY": "em",
        "DGMM_FIT_TOL": "0",
        "DGMM_FIT_MAX_ITER": "3",
        "DGMM_FIT_JSON": "true",
        "DGMM_FIT_SAMPLE_WEIGHT": "",
        "DGMM_FIT_CHECKPOINT": "passes",
        "DGMM_FIT_RESUME": "false",
        "DGMM_KERNEL": "numpy",  # is no option
        "DGMM_VERSION": "true",  # nor is this
    }
    done = run("fit", "rows.zarr", cwd=store, **given)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["iterations"] == 3
    refused = run("fit", "rows.zarr", cwd=store, **given)
    assert refused.exit_code == 3
    assert "m.dgmm exists" in refused.stderr
    for resume in ("false", "true"):
        done = run(
            *("fit", "rows.zarr", "--max-iter", 3),
            cwd=store,
            **{
                **given,
                "DGMM_FIT_OVERWRITE": "yes",
                "DGMM_FIT_MAX_ITER": "9",
                "DGMM_FIT_RESUME": resume,
            },
        )
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["iterations"] == 3
        assert ("continuing after pass 5" in done.stderr) == (resume == "true")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DGMM_FIT_MAX_ITER", "many", "DGMM_FIT_MAX_ITER in the environment: 'many' is not"),
        ("DGMM_FIT_OVERWRITE", "perhaps", "DGMM_FIT_OVERWRITE in the environment: 'perhaps'"),
        ("DGMM_FIT_MAXITER", "9", "DGMM_FIT_MAXITER in the environment names no option of"),
        ("DGMM_FIT_DATA", "rows.npy", "DGMM_FIT_DATA in the environment names no option of"),
    ],
)
def test_wrong_variables_are_named(store: Path, name: str, value: str, message: str) -> None:
    done = run(*FIT, cwd=store, **{name: value})
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (store / "out.dgmm").exists()
    assert run("plan", "rows.npy", "-k", 3, cwd=store, **{name: value}).exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(tmp_path: Path, command: str) -> None:
    shown = run(command, "--help", cwd=tmp_path)
    assert shown.exit_code == 0
    assert "Exit codes" in shown.stdout or command == "demo"
    assert command in run("--help", cwd=tmp_path).stdout
    assert "\\b" not in shown.stdout
    assert "DGMM_FIT_MAX_ITER" in run("--help", cwd=tmp_path).stdout


def test_version(tmp_path: Path) -> None:
    assert dgmm.__version__ in run("--version", cwd=tmp_path).stdout


@pytest.mark.parametrize("how", [{}, {"missing": "drop"}, {"fixed": "means"}])
def test_a_fit_tells_its_criteria(tmp_path: Path, how: dict[str, str]) -> None:
    """They are those of its rows, as ``criteria`` finds them in a pass of its own."""
    rows = np.random.default_rng(0).normal(size=(400, 2)) + [[0, 0], [5, 5]] * 200
    rows[0, 0] = np.nan if "missing" in how else 0.0
    starts = {"means_init": [[0, 0], [5, 5]]} if "fixed" in how else {}
    weights = np.linspace(0.5, 1.5, 400)
    model = dgmm.GaussianMixture(2, random_state=0, **how, **starts)
    model.fit(rows, sample_weight=weights).save(tmp_path / "m.dgmm")
    kept = ~np.isnan(rows[:, 0])
    expected = model.criteria(rows[kept], weights[kept])
    done = CliRunner().invoke(main, ["show", str(tmp_path / "m.dgmm"), "--json"])
    told = json.loads(done.stdout)
    for name in ("aic", "bic"):
        np.testing.assert_allclose(told[name], expected[name], rtol=1e-9)
    total = expected["score"] * weights[kept].sum()
    np.testing.assert_allclose(told["log_likelihood"], total, rtol=1e-9)
    assert told["parameters"] == round((told["aic"] + 2 * total) / 2)
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "m.dgmm")]).output
    assert f"{told['bic']:.8g}" in shown


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    means = np.zeros((3000, 40))
    dgmm.GaussianMixture.from_parameters(
        np.full(3000, 1 / 3000), means, np.ones(3000), covariance_type="spherical"
    ).save(tmp_path / "m.dgmm")
    words = ["show", "m.dgmm", "--json"]
    with processes.start(*words, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
