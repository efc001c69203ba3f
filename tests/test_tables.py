"""Tables: Parquet and Arrow files as rows and weights, by their columns' names."""

import csv
import decimal
import itertools
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from numpy.typing import NDArray

import dgmm
from dgmm import engine
from dgmm.cli.commands import main
from dgmm.data import dataset as datasets
from dgmm.data.columns import chosen
from dgmm.data.tables import open_table
from dgmm.estimators.row_outputs import row_outputs_of
from dgmm.io.output import write_outputs
from dgmm.io.targets import Beside, ParquetTarget, ZarrTarget
from dgmm.kernels.outputs import OUTPUTS

NAMES = ("a", "b", "c")


RANGES = [(0, 0), (0, 3000), (499, 501), (1250, 1251), (2999, 3000)]


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 3)) + 6 * rng.integers(0, 2, size=(3000, 1))


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float64]:
    return np.random.default_rng(1).uniform(0.5, 2, 3000)


@pytest.fixture(scope="module")
def table(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> pa.Table:
    columns = {name: rows[:, j] for j, name in enumerate(NAMES)}
    return pa.table({"id": [f"row {i}" for i in range(len(rows))], **columns, "w": weights})


@pytest.fixture(scope="module")
def parquet(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "rows.parquet"
    pq.write_table(table, path, row_group_size=500)
    return path


def fitted(data: object, weights: object = None, **how: object) -> dgmm.GaussianMixture:
    return dgmm.GaussianMixture(2, random_state=0, **how).fit(data, sample_weight=weights)  # type: ignore[arg-type]


def same(one: dgmm.GaussianMixture, other: dgmm.GaussianMixture) -> bool:
    return one.means_.tobytes() == other.means_.tobytes() and (
        one.covariances_.tobytes() == other.covariances_.tobytes()
    )


@pytest.mark.parametrize("form", ["parquet", "directory", "pattern", "partitions", "arrow"])
def test_a_table_gives_the_bits_of_an_array_in_the_same_blocks(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    table: pa.Table,
    parquet: Path,
    tmp_path: Path,
    form: str,
) -> None:
    path = parquet
    if form in ("directory", "pattern", "partitions"):
        path = tmp_path / "rows.parquet"
        for i in range(3):
            part = path / (f"year={i}" if form == "partitions" else "") / f"part-{i}.parquet"
            part.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(1000 * i, 1000), part, row_group_size=500)
        (path / "_SUCCESS").write_text("")
        (path / "_notes.parquet").write_text("no part of the table")
    if form == "arrow":
        path = tmp_path / "rows.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=500)
    named = str(path / "*.parquet") if form == "pattern" else str(path)
    block_bytes = 500 * 3 * 8
    columns = list(NAMES)
    weight = (
        str(path) + "::w" if form in ("parquet", "arrow", "directory", "partitions") else weights
    )
    ours = dgmm.open_dataset(named, weight, columns=columns, block_bytes=block_bytes)
    assert (ours.rows, ours.n_features, ours.blocks, ours.names) == (3000, 3, 6, NAMES)
    plain = dgmm.open_dataset(da.from_array(rows, chunks=(500, 3)), weights)
    assert same(fitted(ours), fitted(plain))


def test_clusters_give_the_same_bits(parquet: Path, clusters: Mapping[int, Client]) -> None:
    dataset = dgmm.open_dataset(parquet, columns=["a:c"], block_bytes=500 * 3 * 8)
    here = fitted(dataset)
    with clusters[2].as_current():
        there = fitted(dataset)
    assert same(here, there)
    assert there.feature_names_in_.tolist() == list(NAMES)


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_any_rows_can_be_read(
    rows: NDArray[np.float64], parquet: Path, start: int, stop: int
) -> None:
    source = open_table(str(parquet), ["c", "a"])
    assert source is not None
    assert np.array_equal(source.read(start, stop), rows[start:stop, [2, 0]])


def test_numbers_of_all_kinds_become_floats_and_nulls_nan(tmp_path: Path) -> None:
    kinds = {
        "int8": pa.array([1, None, -3], pa.int8()),
        "uint64": pa.array([1, 2, None], pa.uint64()),
        "single": pa.array([1.5, None, float("nan")], pa.float32()),
        "decimal": pa.array(
            [decimal.Decimal("1.25"), None, decimal.Decimal("-2")], pa.decimal128(9, 2)
        ),
    }
    for ending, write in ((".parquet", pq.write_table), (".feather", pa.feather.write_feather)):
        write(pa.table(kinds), tmp_path / f"kinds{ending}")
        dataset = dgmm.open_dataset(tmp_path / f"kinds{ending}")
        expected = [[1, 1, 1.5, 1.25], [np.nan, 2, np.nan, np.nan], [-3, np.nan, np.nan, -2]]
        assert dataset.source.dtype == np.float64
        assert np.array_equal(dataset.block(0).rows, expected, equal_nan=True)
    single = dgmm.open_dataset(tmp_path / "kinds.parquet", columns=["single"])
    assert single.source.dtype == np.float32


def test_nulls_are_missing_values(rows: NDArray[np.float64], tmp_path: Path) -> None:
    holes = np.random.default_rng(2).random(rows.shape) < 0.1
    columns = {n: pa.array(rows[:, j], mask=holes[:, j]) for j, n in enumerate(NAMES)}
    pq.write_table(pa.table(columns), tmp_path / "holes.parquet", row_group_size=500)
    with pytest.raises(dgmm.DataError, match=r"rows with NaN or infinity: 8\d\d of 3,000"):
        fitted(tmp_path / "holes.parquet")
    ours = fitted(tmp_path / "holes.parquet", missing="marginalize")
    expected = fitted(np.where(holes, np.nan, rows), missing="marginalize")
    assert ours.fit_info_["incomplete"] == holes.any(axis=1).sum()
    assert np.allclose(ours.means_, expected.means_, rtol=1e-9)


def test_names_go_from_the_table_to_the_model_and_back(
    rows: NDArray[np.float64], table: pa.Table, parquet: Path, tmp_path: Path
) -> None:
    dgmm_file = tmp_path / "model.dgmm"
    fitted(dgmm.open_dataset(parquet, columns=list(NAMES))).save(dgmm_file)
    model = dgmm.load(dgmm_file)
    assert model.feature_names_in_.tolist() == list(NAMES)
    # Other columns, in another order, and more of them: the model takes its own.
    pq.write_table(table.select(["w", "c", "id", "b", "a"]), tmp_path / "other.parquet")
    expected = model.mixture_
    labels = model.predict(tmp_path / "other.parquet").compute()
    assert np.array_equal(
        labels,
        dgmm.GaussianMixture.from_parameters(
            expected.weights, expected.means, model.covariances_
        ).predict(rows),
    )
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(dgmm.open_dataset(parquet, columns=["c", "b", "a"]))
    pq.write_table(table.select(["a", "b"]), tmp_path / "fewer.parquet")
    with pytest.raises(dgmm.DataError, match="has no column 'c'; it has a, b"):
        model.predict(tmp_path / "fewer.parquet")


def test_the_command_line_takes_tables(parquet: Path, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    model, labels = tmp_path / "model.dgmm", tmp_path / "labels.zarr"
    how = ("--columns", "!id,!w", "--sample-weight", f"{parquet}::w", "--random-state", 0)
    run("fit", parquet, "-k", 2, *how, "-o", model, "--quiet")
    plan = json.loads(run("plan", parquet, "-k", 2, "--columns", "a:c", "--json"))
    assert plan["rows"] == 3000
    assert plan["n_features"] == 3
    counted = json.loads(run("predict", parquet, "-m", model, "-o", labels, "--json", "--quiet"))
    assert sum(counted["rows_of_components"]) == 3000
    assert "score" in run("score", parquet, "-m", model, "--quiet")
    refused = CliRunner().invoke(main, ["plan", str(parquet), "-k", "2"])
    assert refused.exit_code != 0
    assert "id (string)" in refused.output


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["b", "a"], "b a"),
        (["band_*"], "band_1 band_2 band_10"),
        (["a:band_1"], "a b band_1"),
        ([":b"], "id a b"),
        (["band_2:"], "band_2 band_10 !odd"),
        (["!id", "!!odd", "!band_*"], "a b"),
        (["a:band_10", "!b"], "a band_1 band_2 band_10"),
        (["!odd"], "!odd"),
        (None, "id a b band_1 band_2 band_10 !odd"),
    ],
)
def test_columns_are_named_in_many_ways(wanted: list[str] | None, expected: str) -> None:
    names = ["id", "a", "b", "band_1", "band_2", "band_10", "!odd"]
    assert chosen(names, wanted, "t") == tuple(expected.split())


def test_names_may_have_colons_and_commas() -> None:
    names = ["id", "band:1", "band:2", "tip, usd", "last"]
    assert chosen(names, ["band:1:band:2"], "t") == ("band:1", "band:2")
    assert chosen(names, ["band:2:"], "t") == ("band:2", "tip, usd", "last")
    assert chosen(names, ["band:2", "tip? usd"], "t") == ("band:2", "tip, usd")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a", "lenght"], "no column 'lenght'; the nearest is length"),
        (["zzz"], "no column 'zzz'; it has a, length, flag, when, kind"),
        (["length:a"], "has 'a' before 'length': ask for a:length"),
        (["!*"], "leave no column"),
        (["a", "flag"], r"flag \(bool\).*numbers are in a, length"),
        (["when"], r"when \(timestamp"),
        (["kind"], r"kind \(dictionary"),
    ],
)
def test_columns_that_cannot_be_read_are_told(
    tmp_path: Path, columns: list[str], message: str
) -> None:
    table = pa.table(
        {
            "a": [1.0, 2.0],
            "length": [1, 2],
            "flag": [True, False],
            "when": pa.array([0, 1], pa.timestamp("s")),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(dgmm.DataError, match=message):
        dgmm.open_dataset(tmp_path / "t.parquet", columns=columns)


def test_what_is_no_table_is_told(tmp_path: Path, table: pa.Table) -> None:
    with pytest.raises(dgmm.DataError, match="does not exist"):
        dgmm.open_dataset(tmp_path / "nothing.parquet")
    (tmp_path / "empty.parquet").mkdir()
    with pytest.raises(dgmm.DataError, match="has no file whose name ends in"):
        dgmm.open_dataset(tmp_path / "empty.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(dgmm.DataError, match="can't be read as Parquet"):
        dgmm.open_dataset(tmp_path / "text.parquet")
    (tmp_path / "text.arrow").write_text("no table")
    with pytest.raises(dgmm.DataError, match="can't be read as an Arrow file"):
        dgmm.open_dataset(tmp_path / "text.arrow")
    with pytest.raises(dgmm.UsageError, match=r"columns .* are of a table"):
        dgmm.open_dataset(np.zeros((3, 2)), columns=["a"])
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(dgmm.DataError, match="has no rows"):
        dgmm.open_dataset(tmp_path / "none.parquet", columns=["a"])
    pq.write_table(table.select(["a"]), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["1", "2"]}), tmp_path / "2.parquet")
    with pytest.raises(dgmm.DataError, match=r"column 'a' is string in .*2.parquet, but double in"):
        dgmm.open_dataset(tmp_path / "[12].parquet")


def test_a_file_that_changed_is_told(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table.select(NAMES), path, row_group_size=500)
    dataset = dgmm.open_dataset(path)
    pq.write_table(table.select(NAMES), path, row_group_size=400)
    with pytest.raises(dgmm.DataError, match="has changed since it was opened"):
        dataset.block(0)


@pytest.mark.parametrize("kind", ["labels", "proba", "score"])
def test_outputs_are_tables_with_columns_of_the_rows(
    table: pa.Table, parquet: Path, tmp_path: Path, kind: str
) -> None:
    model = tmp_path / "model.dgmm"
    ours = fitted(dgmm.open_dataset(parquet, columns=list(NAMES)))
    ours.save(model)
    target = tmp_path / "out.parquet"
    words = ["predict", parquet, "-m", model, "-o", target, "--keep", "id,a:b", "--kind", kind]

    done = CliRunner().invoke(main, [*map(str, words), "--quiet", "--workers", "2"])
    assert done.exit_code == 0, done.output
    found = pq.read_table(target)
    assert found.column("id").to_pylist() == table.column("id").to_pylist()
    assert found.column("b").equals(table.column("b"))
    answers = {"labels": ours.predict, "proba": ours.predict_proba, "score": ours.score_samples}
    expected = np.asarray(answers[kind](table.select(NAMES).to_pandas()))
    names = {"labels": ["label"], "proba": ["proba_0", "proba_1"], "score": ["score"]}[kind]
    assert found.column_names == ["id", "a", "b", *names]
    written = np.column_stack([found.column(name).to_numpy() for name in names])
    np.testing.assert_allclose(written, expected.reshape(len(written), -1), rtol=1e-12)
    # What was written is a table of rows, too; and it is replaced, or not, as a whole.
    assert dgmm.open_dataset(target, columns=["a", "b"]).rows == 3000
    again = CliRunner().invoke(main, [*map(str, words), "--quiet"])
    assert again.exit_code == 3
    assert "exists" in again.output
    assert CliRunner().invoke(main, [*map(str, words), "--quiet", "--overwrite"]).exit_code == 0
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_outputs_are_lines_of_text(
    table: pa.Table, tmp_path: Path, ending: str, delimiter: str
) -> None:
    """With the same digits, whatever texts hold, and no cell where there is no value."""
    texts = ['a "b", c', "two\nlines", "", None, "\t", "é"]
    rows = table.select(NAMES).append_column("text", pa.array(texts * (len(table) // 6)))
    parquet, model, target = (
        tmp_path / f"{name}" for name in ("rows.parquet", "model.dgmm", f"out.{ending}")
    )
    pq.write_table(rows, parquet, row_group_size=500)
    ours = fitted(dgmm.open_dataset(parquet, columns=list(NAMES)))
    ours.save(model)
    words = ["predict", parquet, "-m", model, "-o", target, "--keep", "text,a", "--kind", "proba"]
    for more in ((), ("--overwrite",)):
        done = CliRunner().invoke(main, [*map(str, words), "--quiet", *more])
        assert done.exit_code == 0, done.output
    with open(target, newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file, delimiter=delimiter)
    assert head == ["text", "a", "proba_0", "proba_1"]
    assert [line[0] for line in lines] == [text or "" for text in rows.column("text").to_pylist()]
    numbers = np.array([[float(cell) for cell in line[1:]] for line in lines])
    expected = np.column_stack([rows.column("a"), ours.predict_proba(rows.select(NAMES))])
    np.testing.assert_allclose(numbers, expected, rtol=1e-12)
    again = dgmm.open_dataset(target, columns=["a", "proba_1"])
    assert (np.asarray(again.block(0).rows) == numbers[: len(again.block(0).rows), [0, 2]]).all()


def test_the_probability_of_noise_is_called_so(parquet: Path, tmp_path: Path) -> None:
    model, target = tmp_path / "model.dgmm", tmp_path / "out.parquet"
    rows = dgmm.open_dataset(parquet, columns=list(NAMES))
    asked = dgmm.GaussianMixture(2, noise_component=0.1, random_state=0, resolution=1)
    asked.fit(rows).save(model)
    words = ["predict", parquet, "-m", model, "-o", target, "--kind", "proba", "--quiet"]
    assert CliRunner().invoke(main, [*map(str, words)]).exit_code == 0
    assert pq.read_table(target).column_names == ["proba_0", "proba_1", "proba_noise"]


def test_what_can_not_be_kept_is_told(parquet: Path, tmp_path: Path) -> None:
    model, rows = tmp_path / "model.dgmm", tmp_path / "rows.npy"
    fitted(dgmm.open_dataset(parquet, columns=list(NAMES))).save(model)
    np.save(rows, np.zeros((10, 3)))
    refused = {
        (parquet, "out.zarr", "id"): "columns are kept in a table; call",
        (parquet, "out.parquet", "idd"): "no column 'idd'; the nearest is id",
        (rows, "out.parquet", "id"): "is no table, whose columns have names",
        (parquet, "out.xlsx", "id"): "reads like a .xlsx file",
    }
    for (data, name, keep), message in refused.items():
        words = ["predict", data, "-m", model, "-o", tmp_path / name, "--keep", keep, "--quiet"]
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code in (2, 3)
        assert message in " ".join(done.output.split())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.dgmm", "rows.npy"]
    (tmp_path / "other.parquet").mkdir()
    words = ["predict", parquet, "-m", model, "-o", tmp_path / "other.parquet", "--overwrite"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 3
    assert "is no table of Parquet files of outputs" in " ".join(done.output.split())


def test_deviations_have_the_names_of_the_features(parquet: Path, tmp_path: Path) -> None:
    model, target = tmp_path / "model.dgmm", tmp_path / "why.parquet"
    fitted(dgmm.open_dataset(parquet, columns=["c", "a"])).save(model)
    words = ["predict", parquet, "-m", model, "-o", target, "--kind", "deviations", "--quiet"]
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    assert pq.read_table(target).column_names == ["deviation_c", "deviation_a"]


def test_a_directory_of_parquet_is_a_table_whatever_it_is_called(
    table: pa.Table, tmp_path: Path
) -> None:
    """Files below it, or below directories such as ``year=2020``; but not what is no table."""
    flat, deep, other = (tmp_path / name for name in ("trips", "years", "other"))
    for place, part in ((flat, table[:2000]), (flat, table[2000:]), (deep / "year=2020", table)):
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, place / f"{len(part)}-rows.parquet")
    other.mkdir()
    (other / "notes.txt").write_text("no rows")
    assert dgmm.open_dataset(flat, columns=["a", "b"]).rows == 3000
    assert dgmm.open_dataset(f"{deep}/", columns=["a", "year"]).names == ("a", "year")
    model = fitted(dgmm.open_dataset(flat, columns=["a", "b"]))
    assert model.predict(str(flat)).shape == (3000,)  # the model takes its own columns
    with pytest.raises(dgmm.DataError, match=r"is no Zarr array or group"):
        dgmm.open_dataset(other)


def test_several_paths_are_one_table_by_a_pattern(parquet: Path, tmp_path: Path) -> None:
    paths = [parquet, parquet]
    with pytest.raises(dgmm.DataError, match=r"a list of paths.*pattern such as trips/\*\.parquet"):
        fitted(paths)
    with pytest.raises(dgmm.DataError, match="a list of paths"):
        dgmm.open_dataset([str(each) for each in paths], columns=["a"])
    words = ["fit", *map(str, paths), "-k", "2", "-o", str(tmp_path / "m.dgmm")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "a pattern of files stands in quotes" in " ".join(done.output.split())


def test_filled_in_rows_are_a_table_with_their_names(
    rows: NDArray[np.float64], tmp_path: Path
) -> None:
    holes = np.random.default_rng(3).random(rows.shape) < 0.1
    columns = {n: pa.array(rows[:, j], mask=holes[:, j]) for j, n in enumerate(NAMES)}
    pq.write_table(pa.table(columns), tmp_path / "holes.parquet", row_group_size=500)
    model = fitted(tmp_path / "holes.parquet", missing="marginalize")
    model.save(tmp_path / "model.dgmm")
    words = ["impute", "holes.parquet", "-m", "model.dgmm", "-o", "filled.parquet", "--quiet"]
    paths = [str(tmp_path / word) if "." in word else word for word in words]
    assert CliRunner().invoke(main, paths).exit_code == 0
    filled = dgmm.open_dataset(tmp_path / "filled.parquet")
    assert filled.names == NAMES
    expected = model.impute(pa.table(columns).to_pandas())
    np.testing.assert_allclose(filled.source.read(0, 3000), expected, rtol=1e-12)


def test_features_of_other_names_are_told(parquet: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.dgmm"
    fitted(dgmm.open_dataset(parquet, columns=list(NAMES))).save(model)
    words = ["score", parquet, "-m", model, "--columns", "b,a,c", "--quiet"]
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 3
    assert "feature names should match those that were passed during fit: a, b, c" in done.output


def test_columns_of_one_name_are_told(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([float(i)]) for i in range(3)], names=["a", "a", "b"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(dgmm.DataError, match="several columns called a"):
        dgmm.open_dataset(tmp_path / "twice.parquet")
    source = open_table(str(tmp_path / "twice.parquet"), ["b"])
    assert source is not None
    assert source.read(0, 1) == 2
    with pytest.raises(dgmm.DataError, match="several columns called a"):
        source.known(["a"])


def test_a_table_that_is_opened_again_is_read_again(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "rows.parquet"
    for number in (1.0, 2.0):
        pq.write_table(pa.table({"a": np.full(10, number)}), path)
        assert dgmm.open_dataset(path).block(0).rows[0, 0] == number


def test_files_without_rows_need_no_types(tmp_path: Path, rows: NDArray[np.float64]) -> None:
    (tmp_path / "rows.parquet").mkdir()
    empty = pa.table({"b": pa.array([], pa.null()), "a": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "rows.parquet/0.parquet")
    pq.write_table(
        pa.table({"a": rows[:, 0], "b": rows[:, 1]}), tmp_path / "rows.parquet/1.parquet"
    )
    pq.write_table(empty.select(["a"]), tmp_path / "rows.parquet/2.parquet")
    dataset = dgmm.open_dataset(tmp_path / "rows.parquet")
    assert dataset.names == ("a", "b")
    np.testing.assert_array_equal(dataset.block(0).rows, rows[:, :2])


def test_a_file_is_taken_by_its_name_whatever_is_in_it(tmp_path: Path) -> None:
    for name, number in (("rows[1]", 1.0), ("rows1", 2.0)):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"{name}.parquet")
        assert dgmm.open_dataset(tmp_path / f"{name}.parquet").block(0).rows[0, 0] == number


def test_what_is_kept_is_in_all_files_under_names_of_its_own(
    parquet: Path, table: pa.Table, tmp_path: Path
) -> None:
    fitted(dgmm.open_dataset(parquet, columns=list(NAMES))).save(tmp_path / "model.dgmm")

    def refused(command: str, data: Path, keep: str) -> str:
        words = [command, data, "-m", tmp_path / "model.dgmm", "-o", tmp_path / "out.parquet"]
        done = CliRunner().invoke(main, [*map(str, words), "--keep", keep, "--quiet"])
        assert done.exit_code == 3
        assert not list(tmp_path.glob("out*"))
        return " ".join(done.output.split())

    message = "--keep: what is written has columns called a, b already; keep others, such as a key"
    assert message in refused("impute", parquet, "id,a:b")
    (tmp_path / "rows.parquet").mkdir()
    pq.write_table(table, tmp_path / "rows.parquet/1.parquet")
    pq.write_table(table.select(NAMES), tmp_path / "rows.parquet/2.parquet")
    assert "has no column 'id'" in refused("predict", tmp_path / "rows.parquet", "id")


def test_noise_is_that_of_the_columns_by_their_names(
    rows: NDArray[np.float64], parquet: Path, tmp_path: Path
) -> None:
    noise = pa.table({"id": ["x"] * 3000, "a": np.full(3000, 0.1), "b": np.full(3000, 0.2)})
    pq.write_table(noise, tmp_path / "noise.parquet")
    dataset = dgmm.open_dataset(parquet, columns=["b", "a"], noise=tmp_path / "noise.parquet")
    assert dataset.noise is not None
    np.testing.assert_array_equal(dataset.noise.read(0, 1), [[0.2, 0.1]])
    errors = noise.select(["a", "b"]).rename_columns(["a_error", "b_error"])
    pq.write_table(errors, tmp_path / "noise.parquet")
    dataset = dgmm.open_dataset(parquet, columns=["b", "a"], noise=tmp_path / "noise.parquet")
    assert dataset.noise is not None
    np.testing.assert_array_equal(dataset.noise.read(0, 1), [[0.1, 0.2]])
    # Where one is called otherwise, the order of all is in doubt.
    pq.write_table(noise.select(["a", "b"]).rename_columns(["a", "e"]), tmp_path / "noise.parquet")
    with pytest.raises(dgmm.DataError, match=r"noise: .* has no column 'b'.* or all of them other"):
        dgmm.open_dataset(parquet, columns=["b", "a"], noise=tmp_path / "noise.parquet")
    # Frames are as they are given: they must agree.
    frame = pa.table({"b": rows[:, 1], "a": rows[:, 0]}).to_pandas()
    other = noise.select(["a", "b"])
    for given, errors in ((frame, other.to_pandas()), (pa.Table.from_pandas(frame), other)):
        for door in (dgmm.GaussianMixture(2).fit, dgmm.open_dataset):
            with pytest.raises(dgmm.DataError, match="the noise are a, b, those of the rows b, a"):
                door(given, noise=errors)


def test_the_index_of_pandas_is_no_feature_unless_asked_for(tmp_path: Path) -> None:
    """As row names of a text are not: pandas writes it where it is no range, as of chosen rows."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 6.0, 5.0]})
    forms = {
        "unnamed": frame.sort_values("a", key=lambda each: each % 3),
        "named": frame.set_index(pd.Index([7, 9, 8], name="id")),
    }
    for name, each in forms.items():
        path = tmp_path / f"{name}.parquet"
        each.to_parquet(path)
        pyarrow.feather.write_feather(pa.Table.from_pandas(each), tmp_path / f"{name}.feather")
        for stored in (path, path.with_suffix(".feather")):
            dataset = dgmm.open_dataset(stored)
            assert dataset.names == ("a", "b")
            np.testing.assert_array_equal(dataset.block(0).rows, each)
            assert dgmm.open_dataset(stored, columns=["!b"]).names == ("a",)
        in_memory = pa.Table.from_pandas(each)
        assert dgmm.open_dataset(in_memory).names == ("a", "b")
        model = dgmm.GaussianMixture(1).fit(in_memory)
        assert model.feature_names_in_.tolist() == ["a", "b"]
        np.testing.assert_array_equal(model.predict(in_memory), model.predict(path))
    asked = dgmm.open_dataset(tmp_path / "named.parquet", columns=["id", "a"])
    np.testing.assert_array_equal(asked.block(0).rows[:, 0], [7, 9, 8])
    frame[[]].set_index(frame["a"]).to_parquet(tmp_path / "alone.parquet")  # there is nothing else
    assert dgmm.open_dataset(tmp_path / "alone.parquet").names == ("a",)


def test_a_vector_is_one_column(parquet: Path, table: pa.Table) -> None:
    vector = open_table(f"{parquet}::w")
    assert vector is not None
    assert vector.shape == (3000,)
    for meant in ("[aw]", "a:w", "!id"):
        with pytest.raises(dgmm.DataError, match=r"::.* means . of its columns, a, .*: name one$"):
            dgmm.open_dataset(parquet, f"{parquet}::{meant}", columns=["a", "b"])


def test_directories_above_a_pattern_may_be_hidden(table: pa.Table, tmp_path: Path) -> None:
    for below in ("one", "_two"):
        (tmp_path / ".cache" / "_work" / below).mkdir(parents=True)
        pq.write_table(table, tmp_path / ".cache" / "_work" / below / "rows.parquet")
    assert dgmm.open_dataset(tmp_path / ".cache/_work/o*/*.parquet", columns=["a"]).rows == 3000
    # What is hidden below the pattern's own directory stays so.
    assert dgmm.open_dataset(tmp_path / ".cache/_work/*/*.parquet", columns=["a"]).rows == 3000


def test_outputs_of_uneven_blocks_are_written_by_one_task_a_chunk(
    rows: NDArray[np.float64], table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write to one chunk at once would each read it first, and one of them lose."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 1)
    cuts = np.sort(np.random.default_rng(3).choice(np.arange(1, 3000), 40, replace=False))
    with pq.ParquetWriter(tmp_path / "rows.parquet", table.select(NAMES).schema) as writer:
        for start, stop in itertools.pairwise([0, *map(int, cuts), 3000]):
            writer.write_table(table.select(NAMES).slice(start, stop - start))
    ours = fitted(pd.DataFrame(rows, columns=NAMES))
    ours.save(tmp_path / "model.dgmm")
    starts: list[int] = []
    put = ZarrTarget.put

    def noted(self: ZarrTarget, url: str, start: int, *rest: Any) -> None:
        starts.append(start)
        put(self, url, start, *rest)

    monkeypatch.setattr(ZarrTarget, "put", noted)
    words = ["predict", tmp_path / "rows.parquet", "-m", tmp_path / "model.dgmm", "--quiet", "-o"]
    for target in ("labels.zarr", "labels.npy"):
        done = CliRunner().invoke(main, [*map(str, words), str(tmp_path / target)])
        assert done.exit_code == 0, done.output
    chunk = zarr.open_array(tmp_path / "labels.zarr").chunks[0]
    assert len(starts) > 20
    assert {start % chunk for start in starts} == {0}
    labels = ours.predict(pd.DataFrame(rows, columns=NAMES))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "labels.zarr")[:], labels)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels)


def test_a_part_of_a_table_of_outputs_is_whole_whoever_writes_it_again(
    parquet: Path, tmp_path: Path
) -> None:
    """Late tasks are done by others, too: what is there when all is done must stay as it is."""
    target, outputs = ParquetTarget(), np.arange(20_000.0)
    ours = fitted(dgmm.open_dataset(parquet, columns=list(NAMES)))
    wanted = row_outputs_of(ours, OUTPUTS["score"])
    target.begin(
        str(tmp_path / "out.parquet"), dgmm.open_dataset(parquet, columns=list(NAMES)), wanted
    )
    put = partial(target.put, str(tmp_path / "out.parquet"), 0, outputs, Beside(("score",)))
    put()
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(lambda: [put() for _ in range(100)])
        while not again.done():
            found = pq.read_table(tmp_path / "out.parquet/part-000000000000000.parquet")
            np.testing.assert_array_equal(found.column("score"), outputs)
        again.result()


def test_outputs_to_a_relative_path_are_where_the_driver_is(
    parquet: Path, tmp_path: Path, clusters: Mapping[int, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, dataset = clusters[2], dgmm.open_dataset(parquet, columns=list(NAMES), block_bytes=1)
    wanted = row_outputs_of(fitted(dataset), OUTPUTS["labels"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    (there,) = set(client.run(os.getcwd).values())
    client.run(os.chdir, str(tmp_path / "elsewhere"))
    try:
        for name in ("labels.zarr", "labels.parquet", "labels.csv"):
            write_outputs(engine.over(dataset, client), dataset, wanted, name)
    finally:
        client.run(os.chdir, there)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *("elsewhere", "labels.csv", "labels.parquet", "labels.zarr")
    ]
    labels = zarr.open_array(tmp_path / "labels.zarr")[:]
    np.testing.assert_array_equal(pq.read_table("labels.parquet").column("label"), labels)
    assert dgmm.open_dataset("labels.csv").rows == len(labels) == 3000
