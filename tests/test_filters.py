"""Filters: the rows of a table that meet a condition, as pandas finds them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from distributed import Client

import dgmm
from dgmm.cli.commands import main
from dgmm.data.parquet import ParquetSource

N = 1_200
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "id": [f"row {i}" for i in range(N)],
        "city": RNG.choice(["Oslo", "Bergen", "Bodø"], N),
        "fare": RNG.normal(size=N) + 6.0 * (np.arange(N) % 2),
        "tip, usd": np.where(RNG.random(N) < 0.2, np.nan, RNG.normal(size=N)),
        "year": np.arange(N) // 300 + 2020,  # sorted: statistics tell row groups apart
        "w": RNG.uniform(0.5, 2, N),
    }
)
FRAME["when"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(N), "h")
FARE, TIP, CITY, YEAR = FRAME["fare"], FRAME["tip, usd"], FRAME["city"], FRAME["year"]
known = TIP.notna()

MEETS: dict[str, Any] = {
    "fare > 2": FARE > 2,
    "0 <= fare < 6": (FARE >= 0) & (FARE < 6),
    "2 < fare": FARE > 2,
    "`tip, usd` > 0 and city == 'Oslo'": (TIP > 0) & (CITY == "Oslo"),
    "not `tip, usd` > 0": known & ~(TIP > 0),  # what is missing meets neither
    "`tip, usd` != 0": known,
    "`tip, usd` is null": ~known,
    "not `tip, usd` is not null": ~known,
    "`tip, usd` > 0 or fare > 6": (TIP > 0) | (FARE > 6),
    "fare > `tip, usd`": FARE > TIP,
    'city in ["Oslo", "Bodø"] and year not in (2021, 2022)': CITY.isin(["Oslo", "Bodø"])
    & ~YEAR.isin([2021, 2022]),
    "year >= 2022.5": YEAR > 2022,
    "when >= '2026-02-01' and fare > -1e3": FRAME["when"] >= "2026-02-01",
}


def parquet(at: Path, frame: pd.DataFrame = FRAME) -> str:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    # A category, and NaN that are nulls in one half of the rows only.
    city = table.schema.get_field_index("city")
    table = table.set_column(city, "city", table.column("city").dictionary_encode())
    halves = table[: N // 2], pa.Table.from_pandas(frame[N // 2 :], table.schema, safe=False)
    for i, half in enumerate(halves):
        (at / "t.parquet").mkdir(exist_ok=True)
        pq.write_table(half, at / f"t.parquet/{i}.parquet", row_group_size=100)
    return str(at / "t.parquet")


def partitions(at: Path) -> str:
    for year, part in FRAME.groupby("year"):
        place = at / f"t.parquet/year={year}"
        place.mkdir(parents=True)
        part.drop(columns="year").to_parquet(place / "part.parquet", row_group_size=100)
    return str(at / "t.parquet")


def arrow(at: Path) -> str:
    pa.feather.write_feather(FRAME, str(at / "t.arrow"), chunksize=100)
    return str(at / "t.arrow")


def text(at: Path) -> str:
    FRAME.to_csv(at / "t.csv")
    return str(at / "t.csv")


FORMS: dict[str, Callable[[Path], str]] = {
    "Parquet": parquet,
    "partitions": partitions,
    "Arrow": arrow,
    "CSV": text,
}


@pytest.fixture(scope="module", params=FORMS)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return FORMS[request.param](tmp_path_factory.mktemp("filters"))


@pytest.mark.parametrize("where", MEETS)
def test_those_rows_are_read_that_meet_a_filter(table: str, where: str) -> None:
    expected = FRAME[np.asarray(MEETS[where])]
    dataset = dgmm.open_dataset(
        table, f"{table}::w", columns=["fare", "tip, usd"], where=where, block_bytes=2_000
    )
    assert dataset.rows == len(expected)
    found = [dataset.block(index) for index in range(dataset.blocks)]
    rows = np.concatenate([block.rows for block in found])
    np.testing.assert_allclose(rows, expected[["fare", "tip, usd"]], rtol=1e-15)
    weights = np.concatenate([block.weights for block in found])
    np.testing.assert_allclose(weights, expected["w"], rtol=1e-15)


def test_a_filter_gives_the_bits_of_the_same_rows_in_the_same_blocks(
    tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    meets = np.asarray(FARE > -0.5)
    sizes = meets.reshape(12, 100).sum(axis=1)
    plain = da.from_array(FRAME[["fare", "year"]].to_numpy(float)[meets], chunks=(tuple(sizes), 2))
    expected = dgmm.GaussianMixture(2, random_state=0).fit(plain)
    rows = dgmm.open_dataset(
        parquet(tmp_path), columns=["fare", "year"], where="fare > -0.5", block_bytes=1
    )
    assert rows.blocks == 12
    assert "where fare > -0.5>" in repr(rows)
    assert dgmm.GaussianMixture(2, random_state=0).fit(rows).means_.tobytes() == (
        expected.means_.tobytes()
    )
    with clusters[2].as_current():
        spread = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    assert spread.means_.tobytes() == expected.means_.tobytes()


@pytest.mark.parametrize(
    ("where", "read"),
    [
        ("year == 2023", 3),  # of twelve row groups
        ("year == 2023 and `tip, usd` > 0", 3),
        ("not year < 2023", 3),
        ("`tip, usd` is null", 12),
    ],
)
def test_row_groups_are_skipped_by_their_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, read: int
) -> None:
    path, seen = parquet(tmp_path), set()
    columns = ParquetSource._columns

    def spy(self: ParquetSource, part: Any, names: Any) -> Any:
        seen.add((part.path, part.index))
        return columns(self, part, names)

    monkeypatch.setattr(ParquetSource, "_columns", spy)
    dgmm.open_dataset(path, columns=["fare"], where=where)
    assert len(seen) == read


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("fair > 2", "where 'fair > 2': .* has no column 'fair'; the nearest is fare"),
        ("city > 2", "can't be asked of .*, of which city is"),
        ("fare == 'much'", "can't be asked of .*, of which fare is double"),
        ("when > 'soon'", "can't be asked of .*soon"),
        ("fare", "where 'fare' is double, and neither true nor false"),
        ("fare = 2", "can't be read.*a filter compares columns"),
        ("fare > 1 AND fare < 2", "can't be read.* and, or, not are in small letters"),
        ("fare + 1 > 2", "'fare [+] 1' is not understood"),
        ("__import__('os').system('x') == 1", "'__import__' is not understood|no column"),
        ("fare == null", "ask for null by: is null, is not null"),
        ("1 > 2", "names no column"),
        ("fare > 1e9", "no row of .* meets the filter 'fare > 1e9'"),
        ("", "can't be read"),
    ],
)
def test_what_can_not_be_asked_is_told(tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises((dgmm.DataError, dgmm.UsageError), match=message):
        dgmm.open_dataset(parquet(tmp_path), columns=["fare"], where=where)


def test_what_has_rows_of_its_own_is_told(tmp_path: Path) -> None:
    path, other = parquet(tmp_path), tmp_path / "w.npy"
    np.save(other, FRAME["w"].to_numpy())
    with pytest.raises(dgmm.UsageError, match=r"weights .*w.npy: rows of .*t.parquet are taken by"):
        dgmm.open_dataset(path, other, columns=["fare"], where="fare > 2")
    with pytest.raises(dgmm.UsageError, match="which is no table in files"):
        dgmm.open_dataset(FRAME, columns=["fare"], where="fare > 2")
    with pytest.raises(dgmm.DataError, match="weights must be one number a row"):
        dgmm.open_dataset(path, FRAME["w"].to_numpy(), columns=["fare"], where="fare > 2")
    dataset = dgmm.open_dataset(path, 2.0, columns=["fare"], where="fare > 2")
    low = dataset.rows // 2
    parquet(tmp_path, FRAME.assign(fare=FARE + 1))
    with pytest.raises(
        dgmm.DataError, match=r"has changed since it was opened: .* meet the filter"
    ):
        dataset.source.read(low, low + 1)


def test_every_command_takes_a_filter(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    meets = np.asarray((FARE > -1) & (CITY == "Oslo"))
    asked = ["--where", "fare > -1 and city == 'Oslo'", "--quiet"]

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(main, [each.replace("@", f"{tmp_path}/") for each in words])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words else " ".join(done.output.split())

    how = ["--columns", "fare,year", "--sample-weight", f"{path}::w", "-k", "2"]
    fit = ["fit", path, *how, "-o", "@m.dgmm", "--checkpoint", "@kept", "--overwrite"]
    assert run(*fit, *asked, "--json")["rows"] == meets.sum()
    assert "where is None, was fare > -1 and" in run(*fit, "--quiet", code=3)
    assert run("score", path, "-m", "@m.dgmm", *asked, "--json")["rows"] == meets.sum()
    labelled = ["predict", path, "-m", "@m.dgmm", "-o", "@labels.parquet", "--keep", "id,when"]
    run(*labelled, *asked)
    found = pd.read_parquet(tmp_path / "labels.parquet")
    assert found["id"].tolist() == FRAME["id"][meets].tolist()
    rows = dgmm.load(tmp_path / "m.dgmm").predict(FRAME.loc[meets, ["fare", "year"]])
    assert found["label"].tolist() == rows.tolist()


def test_a_time_with_a_zone_is_compared_with_such(tmp_path: Path) -> None:
    hours = pa.array(np.arange(48).astype("datetime64[h]").astype("datetime64[us]"))
    table = pa.table({"x": np.arange(48.0), "when": hours.cast(pa.timestamp("us", "UTC"))})
    pq.write_table(table, tmp_path / "hours.parquet")
    for time, rows in (("1970-01-02T00:00Z", 24), ("1970-01-02T00:00+02:00", 26)):
        opened = dgmm.open_dataset(
            tmp_path / "hours.parquet", columns=["x"], where=f"when >= '{time}'"
        )
        assert opened.rows == rows
    with pytest.raises(dgmm.DataError, match=r"A time has its zone here, as in '.*Z'$"):
        dgmm.open_dataset(tmp_path / "hours.parquet", columns=["x"], where="when > '1970-01-02'")
