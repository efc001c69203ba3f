"""Zarr arrays that are not what they seem: holes in shards, packed numbers, bare stores."""

import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec

import dgmm
from dgmm import DataError, GaussianMixture, open_dataset
from dgmm.cli.commands import main

RNG = np.random.default_rng(3)
ROWS = RNG.normal(50.0, 1.0, size=(103, 3))


def read(data: Any, **options: Any) -> np.ndarray:
    """All rows of ``data``."""
    dataset = open_dataset(data, **options)
    return np.concatenate([dataset.block(index).rows for index in range(dataset.blocks)])


def put(store: Any, rows: np.ndarray = ROWS, **options: Any) -> zarr.Array:
    """Store ``rows`` in chunks of 20."""
    options = {"chunks": (20, *rows.shape[1:])[: rows.ndim], **options}
    made = zarr.create_array(store, shape=rows.shape, dtype=rows.dtype, **options)
    made[...] = rows
    return made


# Chunks within shards.

SHARDS: dict[str, dict[str, Any]] = {
    "index at the end": {"shards": {"shape": (40, 3), "index_location": "end"}},
    "index at the start": {"shards": {"shape": (40, 3), "index_location": "start"}},
    "columns apart": {"chunks": (20, 1), "shards": (40, 2)},
    "uncompressed": {"shards": (40, 3), "compressors": None},
    "one shard": {"shards": (120, 3)},
    "big-endian index": {
        "serializer": ShardingCodec(
            chunk_shape=(20, 3), index_codecs=[BytesCodec(endian="big"), Crc32cCodec()]
        ),
        "chunks": (40, 3),
        "compressors": None,
    },
    "index without checksum": {
        "serializer": ShardingCodec(chunk_shape=(20, 3), index_codecs=[BytesCodec()]),
        "chunks": (40, 3),
        "compressors": None,
    },
}


@pytest.mark.parametrize("layout", SHARDS)
@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_chunk_that_a_shard_lacks_is_named_unless_it_means_the_fill_value(
    tmp_path: Path, layout: str, place: str
) -> None:
    """Zarr would read it as zeros."""
    store: Any = tmp_path / "rows.zarr" if place == "file" else zarr.storage.MemoryStore()
    holed = ROWS.copy()
    holed[20:40] = 0.0
    made = put(store, holed, **SHARDS[layout])
    given = zarr.open_array(store, mode="r")
    lost = 3 if layout == "columns apart" else 1
    expected = 18 if layout == "columns apart" else 6

    message = rf"lacks chunk \(1, 0\) of shard 'c/0/0' \({expected - lost} of {expected} are stored"
    with pytest.raises(DataError, match=message + r".*missing_chunks='fill'"):
        GaussianMixture().fit(given)
    np.testing.assert_array_equal(read(given, missing_chunks="fill"), holed)

    made[:] = ROWS
    np.testing.assert_array_equal(read(given), ROWS)


@pytest.mark.parametrize("layout", SHARDS)
def test_a_chunk_that_a_shard_loses_once_opened_is_named(tmp_path: Path, layout: str) -> None:
    made = put(tmp_path / "rows.zarr", **SHARDS[layout])
    dataset = open_dataset(tmp_path / "rows.zarr")

    made[100:] = 0.0
    with pytest.raises(DataError, match=r"has lost chunk .* of shard .* since it was open"):
        dataset.source.read(80, 103)
    np.testing.assert_array_equal(dataset.source.read(0, 40), ROWS[:40])


class Counted(zarr.storage.WrapperStore[Any]):
    """A store that counts what it is asked."""

    asked: ClassVar[Counter[str]] = Counter()

    async def get(self, key: str, *others: Any, **options: Any) -> Any:
        if key.startswith("c/"):
            self.asked["get"] += 1
        return await self._store.get(key, *others, **options)

    async def getsize(self, key: str) -> int:
        self.asked["size"] += 1
        return int(await self._store.getsize(key))

    def list_prefix(self, prefix: str) -> Any:
        self.asked["list"] += 1
        return self._store.list_prefix(prefix)


@pytest.mark.parametrize("shards", [None, (2, 3)])
@pytest.mark.parametrize("missing", ["error", "late", "fill"])
def test_no_more_is_asked_than_one_list(
    tmp_path: Path, shards: Any, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards aren't asked, if there are many; what they lack is found when it is read."""
    monkeypatch.setattr("dgmm.data.stored.FEW_SHARDS", 51)
    holed = ROWS.copy()
    holed[[50, 88]] = 0.0
    inner = zarr.storage.LocalStore(tmp_path / "rows.zarr")
    zarr.create_array(inner, data=holed, chunks=(1, 3), shards=shards)
    monkeypatch.setattr(Counted, "asked", Counter())
    given = zarr.open_array(Counted(inner), mode="r")
    if missing == "error" and shards is None:
        with pytest.raises(DataError, match=r"lacks chunk 'c/50/0' \(101 of 103 are stored"):
            open_dataset(given)
    else:
        dataset = open_dataset(given, missing_chunks=missing)
        assert Counted.asked == ({"list": 1} if missing == "error" else {})
        np.testing.assert_array_equal(dataset.source.read(0, 50), ROWS[:50])
        if missing == "fill":
            np.testing.assert_array_equal(dataset.source.read(0, 103), holed)
        else:
            named = "'c/88/0'" if shards is None else r"\(0, 0\) of shard 'c/44/0'"
            with pytest.raises(DataError, match=rf"has lost chunk {named} .* or never had it"):
                dataset.source.read(60, 103)
    assert Counted.asked["list"] == (missing == "error")


@pytest.mark.parametrize("layout", SHARDS)
def test_chunks_stored_in_shards_may_hold_the_fill_value(tmp_path: Path, layout: str) -> None:
    rows = ROWS.copy()
    rows[15:70] = 0.0
    made = put(tmp_path / "rows.zarr", rows, **SHARDS[layout])
    made.with_config({"write_empty_chunks": True})[:] = rows

    np.testing.assert_array_equal(read(tmp_path / "rows.zarr"), rows)
    np.testing.assert_array_equal(open_dataset(made).source.read(35, 36), rows[35:36])


@pytest.mark.parametrize("shards", [None, (40, 3)])
def test_a_chunk_that_can_not_be_decoded_is_named_by_its_key(tmp_path: Path, shards: Any) -> None:
    """So that a person can restore it, or delete it, which the message says how to go on from."""
    put(tmp_path / "rows.zarr", shards=shards, compressors=GzipCodec())
    path = tmp_path / "rows.zarr" / ("c/3/0" if shards is None else "c/1/0")
    spoilt = bytearray(path.read_bytes())
    spoilt[len(spoilt) * 2 // 3] ^= 255
    path.write_bytes(bytes(spoilt))
    named = "'c/3/0'" if shards is None else r"\(1, 0\) of shard 'c/1/0'"
    told = rf"chunk {named} of .*rows.zarr can't be decoded \(.*--missing-chunks fill"
    with pytest.raises(DataError, match=told):
        GaussianMixture(1).fit(tmp_path / "rows.zarr")
    if shards is None:
        path.unlink()
        filled = read(tmp_path / "rows.zarr", missing_chunks="fill")
        np.testing.assert_array_equal(filled[60:80], 0.0)


def test_the_end_of_a_shard_beyond_the_rows_need_not_be_stored(tmp_path: Path) -> None:
    rows = ROWS[:81]  # of the last shard, one row
    put(tmp_path / "rows.zarr", rows, shards=(40, 3))

    np.testing.assert_array_equal(read(tmp_path / "rows.zarr"), rows)


def test_weights_in_shards_are_checked_too(tmp_path: Path) -> None:
    weights = np.where(np.arange(103) < 20, 0.0, 1.0)
    put(tmp_path / "weights.zarr", weights, shards=(40,))

    with pytest.raises(DataError, match=r"weights\.zarr lacks chunk \(0,\) of shard 'c/0'"):
        open_dataset(ROWS, tmp_path / "weights.zarr")


@pytest.mark.filterwarnings("ignore:Combining a .sharding_indexed. codec")
@pytest.mark.parametrize(
    "codecs",
    [
        {"serializer": ShardingCodec(chunk_shape=(20, 3)), "compressors": GzipCodec()},
        {
            "serializer": ShardingCodec(
                chunk_shape=(20, 3), codecs=[ShardingCodec(chunk_shape=(10, 3))]
            ),
            "compressors": None,
        },
    ],
    ids=["compressed", "nested"],
)
def test_shards_that_can_not_be_looked_into_are_refused(tmp_path: Path, codecs: Any) -> None:
    put(tmp_path / "rows.zarr", chunks=(40, 3), **codecs)

    with pytest.raises(
        DataError, match=r"shards of a kind .* can't be told.*missing_chunks='fill'"
    ):
        open_dataset(tmp_path / "rows.zarr")
    np.testing.assert_array_equal(read(tmp_path / "rows.zarr", missing_chunks="fill"), ROWS)


# What attributes say of the numbers.

HARMLESS: list[dict[str, Any]] = [
    {"scale_factor": 1.0, "add_offset": 0.0},
    {"scale_factor": 1, "add_offset": [0]},
    {"_FillValue": "NaN", "missing_value": ["NaN", "nan"]},
    {"units": "K", "scale": 2.0, "valid_range": [0, 1]},
]
Values = Callable[[np.ndarray], Any]
PACKED: list[tuple[str, dict[str, Any], Values]] = [
    ("f8", {"scale_factor": 0.01}, lambda rows: 0.01 * rows),
    ("f8", {"add_offset": [273.15]}, lambda rows: rows + 273.15),
    ("f8", {"scale_factor": "0.1"}, lambda rows: 0.1 * rows),
    ("f4", {"_FillValue": -2.0}, lambda rows: np.where(rows == -2, np.nan, rows)),
    ("f4", {"_FillValue": "AAAAAAAAAMA="}, lambda rows: np.where(rows == -2, np.nan, rows)),
    ("i2", {"_FillValue": -2}, lambda rows: np.where(rows == -2, np.nan, rows)),
    ("i2", {"missing_value": [-1, -2]}, lambda r: np.where((r == -1) | (r == -2), np.nan, r)),
    ("i1", {"_Unsigned": "true"}, lambda rows: rows % 256),
    ("u1", {"_Unsigned": "false"}, lambda rows: (rows + 128.0) % 256 - 128),
    (
        "i1",
        {"_Unsigned": "true", "_FillValue": -1},
        lambda rows: np.where(rows == -1, np.nan, rows % 256),
    ),
    (
        "i2",
        {"_FillValue": 0, "scale_factor": 2, "add_offset": 1},
        lambda rows: np.where(rows == 0, np.nan, 2.0 * rows + 1),
    ),
]


@pytest.mark.parametrize("attributes", HARMLESS)
def test_attributes_that_change_no_number_are_let_pass(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    put(tmp_path / "rows.zarr", attributes=attributes)

    np.testing.assert_array_equal(read(tmp_path / "rows.zarr"), ROWS)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("dtype", "attributes", "values"), PACKED)
def test_packed_numbers_are_read_as_the_values_they_stand_for(
    tmp_path: Path, zarr_format: Any, dtype: str, attributes: dict[str, Any], values: Values
) -> None:
    rows = np.random.default_rng(0).integers(-3, 4, size=(103, 3)).astype(dtype)
    path = tmp_path / "rows.zarr"
    made = put(path, rows, attributes=attributes, zarr_format=zarr_format)

    for given in (path, made):
        expected = np.asarray(values(rows.astype(np.float64)), np.float64)
        np.testing.assert_allclose(read(given), expected, rtol=1e-15)
        assert open_dataset(given).source.dtype == ("f4" if dtype == "f4" else "f8")
        np.testing.assert_array_equal(read(given, raw=True), rows)


@pytest.mark.parametrize("value", [{"value": 1}, "much", None])
def test_attributes_that_are_no_numbers_are_refused(tmp_path: Path, value: Any) -> None:
    put(tmp_path / "rows.zarr", attributes={"scale_factor": value})

    if value is not None:
        with pytest.raises(DataError, match=r"attribute scale_factor=.* is no number.*raw=True"):
            open_dataset(tmp_path / "rows.zarr")
    np.testing.assert_array_equal(read(tmp_path / "rows.zarr", raw=True), ROWS)


@pytest.mark.parametrize("attribute", ["scale_factor", "add_offset"])
@pytest.mark.parametrize("values", [[0.1, 0.2, 0.3], []])
def test_attributes_that_are_not_one_number_are_refused(
    tmp_path: Path, attribute: str, values: list[float]
) -> None:
    put(tmp_path / "rows.zarr", attributes={attribute: values})

    message = rf"has {len(values)} numbers in the attribute {attribute}, .*raw=True"
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "rows.zarr")
    np.testing.assert_array_equal(read(tmp_path / "rows.zarr", raw=True), ROWS)


def test_packed_weights_are_decoded(tmp_path: Path) -> None:
    put(tmp_path / "weights.zarr", np.ones(103), attributes={"scale_factor": 0.5})

    packed = open_dataset(ROWS, tmp_path / "weights.zarr")
    np.testing.assert_array_equal(packed.block(0).weights, np.full(103, 0.5))
    raw = open_dataset(ROWS, tmp_path / "weights.zarr", raw=True)
    np.testing.assert_array_equal(raw.block(0).weights, np.ones(103))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_what_xarray_packs_is_read_as_it_decodes_it(tmp_path: Path, zarr_format: Any) -> None:
    """In format 2 its fill value is the array's own; in format 3, an attribute, encoded if NaN."""
    values = ROWS.round(1)
    values[5, 1] = np.nan
    packed = {"scale_factor": 0.1, "dtype": "i2", "_FillValue": -9999}
    filled = {"dtype": "i2", "_FillValue": -9999}
    sizes = ("row", "feature")
    variables = {"plain": (sizes, ROWS), "packed": (sizes, values), "filled": (sizes, values)}
    path = tmp_path / "rows.zarr"
    xr.Dataset(variables).to_zarr(
        path, zarr_format=zarr_format, encoding={"packed": packed, "filled": filled}
    )

    np.testing.assert_array_equal(read(path / "plain"), ROWS)
    for name in ("packed", "filled"):
        expected = xr.open_zarr(path)[name].values
        np.testing.assert_allclose(read(path / name), expected, rtol=1e-6)
        with pytest.raises(DataError, match=r"nan at row 5, column 1; .*: 1 of 103"):
            GaussianMixture().fit(path / name)
    assert read(path / "packed", raw=True)[5, 1] == -9999

    decoded = xr.open_zarr(path)
    np.testing.assert_allclose(read(decoded["packed"]), values, rtol=1e-12)
    with pytest.raises(DataError, match=r"nan at row 5, column 1; .*: 1 of 103"):
        GaussianMixture().fit(decoded["packed"])
    undecoded = xr.open_zarr(path, mask_and_scale=False)
    with pytest.raises(DataError, match=r"DataArray packed has .*decode_cf.*\.data"):
        GaussianMixture().fit(undecoded["packed"])
    assert read(undecoded["packed"].data)[5, 1] == -9999


def test_the_command_line_takes_raw_numbers_if_told(tmp_path: Path) -> None:
    put(tmp_path / "rows.zarr", attributes={"scale_factor": 0.5})
    words = ["fit", f"{tmp_path}/rows.zarr", "-k", "1", "-o", f"{tmp_path}/m.dgmm", "--quiet"]

    for raw, factor in (([], 0.5), (["--raw"], 1.0)):
        assert CliRunner().invoke(main, [*words, *raw, "--overwrite"]).exit_code == 0
        means = dgmm.load(tmp_path / "m.dgmm").means_[0]
        np.testing.assert_allclose(means, factor * ROWS.mean(axis=0))
    words = ["score", f"{tmp_path}/rows.zarr", "-m", f"{tmp_path}/m.dgmm", "--quiet", "--json"]
    scores = [
        CliRunner().invoke(main, words, env=env).stdout for env in ({}, {"DGMM_SCORE_RAW": "1"})
    ]
    assert scores[0] != scores[1]


# What can't be rows is told before what isn't stored.


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((9, 2, 2), "f8", r"rows must be 2-D.*\(9, 2, 2\)"),
        ((9,), "f8", r"rows must be 2-D.*\(9,\)"),
        ((9, 2), "c16", "Complex data not supported"),
        ((0, 2), "f8", "has no rows"),
    ],
)
def test_what_can_not_be_rows_is_told_before_what_is_not_stored(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, message: str
) -> None:
    chunks = tuple(max(1, size) for size in shape)
    empty = zarr.create_array(tmp_path / "rows.zarr", shape=shape, chunks=chunks, dtype=dtype)

    with pytest.raises(DataError, match=message):
        open_dataset(empty)
    if shape == (9, 2, 2):
        with pytest.raises(DataError, match=r"weights must be one number a row.*\(9, 2, 2\)"):
            open_dataset(ROWS[:9], empty)


# Stores that say no more than what is at an address.


class Bare(http.server.SimpleHTTPRequestHandler):
    """Serves files, and lists no directory."""

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/closed"))

    def send_head(self) -> Any:
        if self.path.startswith("/closed/") and "/c/1/" in self.path:
            return self.send_error(403)
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[str]:
    handler = partial(Bare, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zarr_format": 2},
        {"shards": (40, 3)},
        {"shards": {"shape": (40, 3), "index_location": "start"}},
    ],
    ids=["chunks", "format 2", "shards", "index at the start"],
)
def test_a_store_that_lists_nothing_is_read(
    tmp_path: Path, bare: str, options: dict[str, Any]
) -> None:
    put(tmp_path / "rows.zarr", **options)
    np.testing.assert_array_equal(read(f"{bare}/rows.zarr"), ROWS)

    holed = ROWS.copy()
    holed[20:40] = 0.0
    zarr.open_array(tmp_path / "rows.zarr", mode="r+")[:] = holed
    with pytest.raises(DataError, match=r"lacks chunk \S+.* \(5 of 6 are stored\)"):
        open_dataset(f"{bare}/rows.zarr")
    np.testing.assert_array_equal(read(f"{bare}/rows.zarr", missing_chunks="fill"), holed)


def test_what_a_store_that_lists_nothing_does_not_hold_is_told(tmp_path: Path, bare: str) -> None:
    with pytest.raises(DataError, match=r"none\.zarr does not exist"):
        open_dataset(f"{bare}/none.zarr")
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    made = group.create_array("rows", shape=ROWS.shape, chunks=(20, 3), dtype="f8")
    made[:] = ROWS
    with pytest.raises(DataError, match="without arrays, or in a store that does not list them"):
        open_dataset(f"{bare}/group.zarr")
    np.testing.assert_array_equal(read(f"{bare}/group.zarr/rows"), ROWS)


def test_a_store_that_does_not_answer_for_a_chunk_has_not_lost_it(
    tmp_path: Path, bare: str
) -> None:
    put(tmp_path / "rows.zarr")

    with pytest.raises(DataError, match=r"rows\.zarr can't be reached: .*c/1/0"):
        open_dataset(f"{bare}/closed/rows.zarr")


# Local names that look like chains of protocols.


def relative(path: Path, name: str) -> str:
    return name


def absolute(path: Path, name: str) -> str:
    return str(path / name)


@pytest.mark.parametrize("name", ["2024::rows", "zip::rows", "simplecache::rows"])
@pytest.mark.parametrize("way", [relative, absolute])
def test_local_names_may_have_colons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: Callable[[Path, str], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / f"{name}.zarr")
    np.save(tmp_path / f"{name}.npy", ROWS)

    np.testing.assert_array_equal(read(way(tmp_path, f"{name}.zarr")), ROWS)
    np.testing.assert_array_equal(read(way(tmp_path, f"{name}.npy")), ROWS)


def test_outputs_may_have_colons_in_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a::rows.zarr")
    model = ["-m", "a::model.dgmm"]
    fit = ["fit", "a::rows.zarr", "-k", "1", "-o", "a::model.dgmm", "--checkpoint", "a::passes"]
    predict = ["predict", "a::rows.zarr", *model, "-o", "a::labels.zarr"]
    for words in (fit, predict, [*predict, "--overwrite"], ["score", "a::rows.zarr", *model]):
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    labels = da.from_zarr(zarr.open_array(tmp_path / "a::labels.zarr", mode="r"))
    np.testing.assert_array_equal(labels, np.zeros(103, int))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a::rows.zarr", "a::model.dgmm", "a::passes", "a::labels.zarr"]
    )


def test_chains_of_protocols_stay_chains(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "rows.zip", mode="w") as store:
        put(store)

    np.testing.assert_array_equal(read(f"zip::file://{tmp_path}/rows.zip"), ROWS)
    with pytest.raises(DataError, match=r"no::rows\.zarr does not exist"):
        open_dataset("no::rows.zarr")
