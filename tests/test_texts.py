"""Text files of columns, archives of NumPy, and what directories and files of a table say."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import dgmm
from dgmm import DataError, GaussianMixture, PlanError, UsageError, open_dataset
from dgmm.cli.commands import main
from dgmm.data import delimited

ROWS = np.random.default_rng(0).normal(size=(900, 3)).round(6)
ROWS[::2] += 6
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"])


def rows_of(dataset: dgmm.Dataset) -> NDArray[np.float64]:
    return np.vstack([dataset.block(index).rows for index in range(dataset.blocks)])


WRITTEN: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "pandas": lambda frame, path: frame.to_csv(path),  # with row names, in a column of no name
    "R": lambda frame, path: frame.to_csv(path, na_rep="NA", quoting=2, lineterminator="\r\n"),
    "with semicolons": lambda frame, path: frame.to_csv(path, sep=";", decimal=",", index=False),
    "with tabs": lambda frame, path: frame.to_csv(path, sep="\t", index=False),
    "with a mark of Unicode": lambda frame, path: frame.to_csv(path, encoding="utf-8-sig"),
    "no break at the end": lambda frame, path: path.write_text(frame.to_csv(index=False)[:-1]),
    "empty lines": lambda frame, path: path.write_text(
        "\n\n" + frame.to_csv(index=False).replace("\n", "\n\n", 40)
    ),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_text_is_read_by_parts(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts in quotes may have breaks, separators and quotes in them."""
    monkeypatch.setattr(delimited, "PART_BYTES", 3000)
    frame = FRAME.copy()
    frame.iloc[::7, 1] = np.nan
    frame["said"] = np.where(np.arange(900) % 3, "plain", 'one, "two";\n\n three')
    WRITTEN[form](frame, tmp_path / "rows.csv")
    dataset = open_dataset(tmp_path / "rows.csv", columns=["!said"], block_bytes=1)
    assert dataset.names == ("a", "b", "c")
    assert dataset.blocks > 9
    np.testing.assert_array_equal(rows_of(dataset), frame[["a", "b", "c"]])
    np.testing.assert_array_equal(dataset.source.read(17, 400), frame[["a", "b", "c"]][17:400])


def test_a_text_gives_the_bits_of_an_array(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    for i in range(3):
        FRAME[300 * i : 300 * i + 300].to_csv(tmp_path / f"rows.csv/{i}.csv", index=False)
    dataset = open_dataset(tmp_path / "rows.csv", f"{tmp_path}/rows.csv::a", columns=["b", "c"])
    assert dataset.rows == 900
    assert dataset.weights is not None
    assert dataset.weights.read(899, 900).tolist() == [ROWS[899, 0]]
    model = GaussianMixture(2, random_state=0).fit(tmp_path / "rows.csv")
    plain = GaussianMixture(2, random_state=0).fit(ROWS)
    assert model.means_.tobytes() == plain.means_.tobytes()
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]


def test_the_command_line_keeps_what_a_text_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PART_BYTES", 5000)
    path = tmp_path / "rows.csv"
    named = FRAME.rename(columns={"c": "c, sort of"})
    named.assign(id=[f"row {i}" for i in range(900)], n=range(900)).to_csv(path, index=False)

    def run(*words: object) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    columns = ("--columns", 'a,"c, sort of"')
    run("fit", path, "-k", 2, *columns, "-o", tmp_path / "m.dgmm", "--quiet")
    keep = ("--keep", 'id,"c, sort of",n', "-o", tmp_path / "labels.parquet")
    run("predict", path, "-m", tmp_path / "m.dgmm", *keep, "--quiet")
    labels = pq.read_table(tmp_path / "labels.parquet").to_pandas()
    assert list(labels) == ["id", "c, sort of", "n", "label"]
    assert labels["id"][899] == "row 899"
    assert labels["n"].tolist() == list(range(900))
    expected = dgmm.load(tmp_path / "m.dgmm").predict(named[["a", "c, sort of"]])
    np.testing.assert_array_equal(labels["label"], expected)


BAD = {
    "a text among numbers": ("a,b\n1,2\nx,3\n", r"a \(string\) of .* numbers are in b"),
    "numbers for names": ("1,2\n3,4\n", r"first line of .* has numbers alone \(1, 2"),
    "a short line": ("a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
    "nothing": ("", "no line with the names of columns"),
    "names alone": ("a,b\n", "has no rows"),
    "a quote that is not closed": ('a,b\n1,"5\n2,4\n', "from byte 4 on it is one line: a quote"),
    "one name twice": ("a,a\n1,2\n", "several columns called a"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_text_that_can_not_be_read_is_told(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "x.csv")


def test_a_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"codec can't decode .*Write it in UTF-8$"):
        open_dataset(tmp_path / "x.csv")


def test_what_is_found_when_a_text_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PART_BYTES", 100)
    lines = ["a,b"] + ["1.5,2"] * 100
    (tmp_path / "x.csv").write_text("\n".join([*lines, "2.5,oh"]))
    dataset = open_dataset(tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"lines from byte .* column 'b': .*invalid value 'oh'"):
        dataset.block(dataset.blocks - 1)
    (tmp_path / "x.csv").write_text("\n".join(lines[:-3]))
    with pytest.raises(DataError, match="has changed since it was opened"):
        dataset.block(dataset.blocks - 1)
    (tmp_path / "y.csv").write_text("b,a\n1,2\n")
    with pytest.raises(DataError, match="has other columns than"):
        open_dataset(tmp_path / "[xy].csv")
    (tmp_path / "z.csv.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="compressed as a whole"):
        open_dataset(tmp_path / "z.csv.gz")


def test_names_may_end_in_capitals(tmp_path: Path) -> None:
    """As some programs write them; outputs may, too, and are read again."""
    FRAME.to_csv(tmp_path / "ROWS.CSV", index=False)
    FRAME.to_csv(tmp_path / "ROWS.TSV", index=False, sep="\t")
    (tmp_path / "TABLE.PARQUET").mkdir()
    pq.write_table(pa.Table.from_pandas(FRAME), tmp_path / "TABLE.PARQUET/PART.PARQUET")
    (tmp_path / "plain").mkdir()
    pq.write_table(pa.Table.from_pandas(FRAME), tmp_path / "plain/PART.PARQUET")
    with open(tmp_path / "ROWS.NPZ", "wb") as file:
        np.savez(file, rows=ROWS)
    with open(tmp_path / "ROWS.NPY", "wb") as file:
        np.save(file, ROWS)
    with h5py.File(tmp_path / "ROWS.H5", "w") as made:
        made["rows"] = ROWS
    for name in ("ROWS.CSV", "ROWS.TSV", "TABLE.PARQUET", "plain", "ROWS.NPY", "ROWS.H5::rows"):
        dataset = open_dataset(tmp_path / name, f"{tmp_path}/ROWS.CSV::a")
        np.testing.assert_array_equal(rows_of(dataset), ROWS)
        assert dataset.weights is not None
        np.testing.assert_array_equal(dataset.weights.read(0, 900), ROWS[:, 0])
    np.testing.assert_array_equal(rows_of(open_dataset(f"{tmp_path}/ROWS.NPZ::rows")), ROWS)
    with pytest.raises(UsageError, match="compressed as a whole"):
        open_dataset(tmp_path / "ROWS.CSV.GZ")


@pytest.mark.parametrize("place", ["_made", ".hidden", "plain"])
def test_a_pattern_finds_files_wherever_they_lie(place: str, tmp_path: Path) -> None:
    """Names that begin so are left out below the place of a pattern, and not above it."""
    table = pa.Table.from_pandas(FRAME)
    for name in ("1.parquet", "_note.parquet", "2.parquet/a.parquet", "2.parquet/.b.parquet"):
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    dataset = open_dataset(tmp_path / place / "*.parquet")
    np.testing.assert_array_equal(rows_of(dataset), [*ROWS, *ROWS])


def test_archives_of_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", ROWS)
    np.savez(tmp_path / "two.npz", rows=np.asfortranarray(ROWS), weights=np.ones(900))
    np.savez_compressed(tmp_path / "packed.npz", ROWS)
    for name in ("one.npz", "two.npz::rows", "packed.npz"):
        dataset = open_dataset(f"{tmp_path}/{name}", f"{tmp_path}/two.npz::weights")
        assert dataset.in_process == (name == "packed.npz")
        np.testing.assert_array_equal(rows_of(dataset), ROWS)
        np.testing.assert_array_equal(dataset.source.read(5, 9), ROWS[5:9])
    with pytest.raises(DataError, match=r"has 2 arrays; name one of them: .*two.npz::rows"):
        open_dataset(tmp_path / "two.npz")
    with pytest.raises(DataError, match=r"no array 'x': .*two.npz::rows"):
        open_dataset(f"{tmp_path}/two.npz::x")
    with pytest.raises(PlanError, match=r"packed.npz would have to be loaded whole"):
        open_dataset(tmp_path / "packed.npz", memory="1MB")
    with pytest.raises(UsageError, match="no names of columns"):
        open_dataset(tmp_path / "one.npz", columns=["a"])
    np.savez(tmp_path / "objects.npz", np.array([{}, None]))
    (tmp_path / "no.npz").write_text("no archive")
    for name in ("objects.npz", "no.npz"):
        with pytest.raises(DataError, match="can't be read as an archive of NumPy"):
            open_dataset(tmp_path / name)


def test_directories_say_columns_that_are_features_only_by_name(tmp_path: Path) -> None:
    for year in (2020, 2021):
        for place in ("a b", "__HIVE_DEFAULT_PARTITION__"):
            path = tmp_path / f"x.parquet/year={year}/place={place.replace(' ', '%20')}"
            os.makedirs(path)
            pq.write_table(pa.table({"a": [1.0, 2], "b": [3.0, 4]}), path / "0.parquet")
    dataset = open_dataset(tmp_path / "x.parquet")
    assert dataset.names == ("a", "b")
    assert open_dataset(tmp_path / "x.parquet", columns=["!a"]).names == ("b",)
    years = open_dataset(tmp_path / "x.parquet", columns=["year", "a"]).block(0).rows
    assert years[:, 0].tolist() == [2020] * 4 + [2021] * 4
    assert years[:, 1].tolist() == [1, 2] * 4
    assert open_dataset(tmp_path / "x.parquet/year=*/*/*.parquet", columns=["year"]).rows == 8
    with pytest.raises(DataError, match=r"place \(string\)"):
        open_dataset(tmp_path / "x.parquet", columns=["place"])
    kept = dataset.source.table(1, 4, ("place", "year", "b"))  # type: ignore[attr-defined]
    assert kept.to_pydict() == {"place": [None, "a b", "a b"], "year": [2020] * 3, "b": [4, 3, 4]}


def test_numbers_of_several_types_in_files_of_one_table(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    for i, values in enumerate(([1, 2], [0.5, None], pa.array([7], pa.float32()))):
        pq.write_table(pa.table({"a": values}), tmp_path / f"x.parquet/{i}.parquet")
    dataset = open_dataset(tmp_path / "x.parquet")
    np.testing.assert_array_equal(rows_of(dataset)[:, 0], [1, 2, 0.5, np.nan, 7])
    kept = dataset.source.table(0, 5, ("a",))  # type: ignore[attr-defined]
    assert kept.column("a").to_pylist() == [1, 2, 0.5, None, 7]


def test_columns_of_integers_may_have_fractions_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PART_BYTES", 100)
    lines = ["a,n", *(f"{i}.5,{i}" for i in range(60)), "60.5,0.25", "61.5,1e3", "62.5,"]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    dataset = open_dataset(tmp_path / "x.csv", block_bytes=1)
    assert dataset.blocks > 3
    expected = np.array([*range(60), 0.25, 1000.0, np.nan])
    np.testing.assert_array_equal(rows_of(dataset)[:, 1], expected)
    assert open_dataset(tmp_path / "x.csv", columns=["n"], where="a < 40").rows == 40
    with pytest.raises(DataError, match=r"not of one type: .* write them as 1\.0"):
        open_dataset(tmp_path / "x.csv", where="n > 2.5")
    (tmp_path / "y.csv").write_text("a,n\n1,0.5\n")  # in another file, too
    np.testing.assert_array_equal(rows_of(open_dataset(f"{tmp_path}/*.csv"))[-1], [1.0, 0.5])


def test_outputs_never_replace_a_file_of_the_rows(tmp_path: Path) -> None:
    """Whatever names it: any text may be replaced by one, as it does not say whose it is."""
    (tmp_path / "rows.csv").mkdir()
    for name in ("one", "two"):
        FRAME.to_csv(tmp_path / f"rows.csv/{name}.csv", index=False)
    (tmp_path / "link.csv").symlink_to(tmp_path / "rows.csv/one.csv")
    text = (tmp_path / "rows.csv/two.csv").read_bytes()
    GaussianMixture(2, random_state=0).fit(FRAME).save(tmp_path / "m.dgmm")
    rows = ("rows.csv", "rows.csv/*.csv", "rows.csv/two.csv", "link.csv")
    targets = ("rows.csv/two.csv", "rows.csv/two.csv", "rows.csv/two.csv", "rows.csv/one.csv")
    for data, target in zip(rows, targets, strict=True):
        words = ["predict", tmp_path / data, "-m", tmp_path / "m.dgmm", "-o", tmp_path / target]
        done = CliRunner().invoke(main, [*map(str, words), "--overwrite", "--quiet"])
        assert done.exit_code == 3
        assert "holds the rows themselves" in " ".join(done.output.split())
    assert (tmp_path / "rows.csv/two.csv").read_bytes() == text
    assert (tmp_path / "rows.csv/one.csv").read_bytes() == text
