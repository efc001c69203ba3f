"""Zarr arrays that are read without Zarr: the same rows, and Zarr's own errors."""

import pickle
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, GZip, Zstd
from numcodecs import Delta as Filter
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

from dgmm.data.direct import Direct
from dgmm.data.memory import Memory
from dgmm.data.missing_chunks import MISSING_CHUNKS
from dgmm.data.zarr_source import ZarrSource
from dgmm.errors import DataError

SIMPLE: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "default": {},
    "zstd": {"compressors": ZstdCodec(level=3, checksum=True)},
    "blosc": {"compressors": BloscCodec(cname="lz4")},
    "format 2": {"zarr_format": 2, "compressors": None},
    "format 2, zstd": {"zarr_format": 2, "compressors": Zstd()},
    "format 2, blosc": {"zarr_format": 2, "compressors": Blosc()},
    "other names": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}

OTHER: dict[str, dict[str, Any]] = {
    "gzip": {"compressors": GzipCodec()},
    "two codecs": {"compressors": [ZstdCodec(), GzipCodec()]},
    "turned": {"filters": TransposeCodec(order=(1, 0))},
    "shards": {"shards": (34, 3)},
    "columns apart": {"chunks": (17, 2)},
    "big end first": {"dtype": ">f8"},
    "format 2, gzip": {"zarr_format": 2, "compressors": GZip()},
    "format 2, filter": {"zarr_format": 2, "filters": [Filter(dtype="f8")], "dtype": "f8"},
    "format 2, columns first": {"zarr_format": 2, "order": "F"},
}

VALUES = np.random.default_rng(0).normal(size=(100, 3)) * 50


def made(place: Path, values: np.ndarray = VALUES, **options: Any) -> "zarr.Array[Any]":
    """An array of ``values`` in chunks of 17 rows, the last of which is cut short."""
    told = {"chunks": (17, *values.shape[1:]), "dtype": "f4"} | options
    array = zarr.create_array(place / "rows.zarr", shape=values.shape, **told)
    array[:] = values
    return array


def check(array: "zarr.Array[Any]") -> None:
    """Any rows are those that Zarr reads."""
    source = ZarrSource(array, "rows", MISSING_CHUNKS["error"])
    for start, stop in (
        (0, 100),
        (0, 17),
        (34, 68),
        (5, 6),
        (16, 18),
        (90, 100),
        (99, 100),
        (7, 7),
    ):
        rows = source.read(start, stop)
        assert_array_equal(rows, array[start:stop], strict=True)
        assert rows.flags.c_contiguous or array.metadata.zarr_format == 2
    assert_array_equal(pickle.loads(pickle.dumps(source)).read(3, 50), array[3:50])


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_arrays_are_read_directly(name: str, tmp_path: Path) -> None:
    array = made(tmp_path, **SIMPLE[name])
    direct = Direct.of(array)
    assert direct is not None
    assert_array_equal(direct.read(0, 100), array[:], strict=True)
    check(array)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f2", "f8"])
@pytest.mark.parametrize("options", [SIMPLE["plain"], SIMPLE["default"]])
def test_numbers_of_all_kinds_and_weights(
    dtype: str, options: dict[str, Any], tmp_path: Path
) -> None:
    array = made(tmp_path, np.abs(VALUES[:, 0]), dtype=dtype, **options)
    assert Direct.of(array) is not None
    check(array)


def test_chunks_may_end_with_any_byte(tmp_path: Path) -> None:
    values = np.arange(256).repeat(17).astype("u1")
    array = made(tmp_path, values, dtype="u1", config={"write_empty_chunks": True})
    direct = Direct.of(array)
    assert direct is not None
    assert_array_equal(direct.read(0, len(values)), values)


@pytest.mark.parametrize("name", OTHER)
def test_others_are_left_to_zarr(name: str, tmp_path: Path) -> None:
    array = made(tmp_path, **OTHER[name])
    assert Direct.of(array) is None
    check(array)


def test_stores_elsewhere_are_left_to_zarr(tmp_path: Path) -> None:
    held = zarr.create_array(zarr.storage.MemoryStore(), data=VALUES)
    assert Direct.of(held) is None
    remote = zarr.open_array(made(tmp_path).store_path.store.root.as_uri(), mode="r")
    assert Direct.of(remote) is None or isinstance(remote.store, zarr.storage.LocalStore)


@pytest.mark.parametrize("name", ["plain", "default", "blosc"])
def test_what_is_not_as_expected_is_left_to_zarr(name: str, tmp_path: Path) -> None:
    """A chunk that is not stored, is cut short, is noise, or holds fewer numbers."""
    array = made(tmp_path, **SIMPLE[name])
    direct = Direct.of(array)
    assert direct is not None
    fewer = made(tmp_path / "fewer", VALUES[:16], **SIMPLE[name] | {"chunks": (16, 3)})
    chunk = tmp_path / "rows.zarr" / "c" / "2" / "0"
    good = chunk.read_bytes()
    short = Path(fewer.store.root, "c", "0", "0").read_bytes()
    for bad in (b"", good[:-1], good[: len(good) // 2], b"noise" * 9, short):
        chunk.write_bytes(bad)
        assert direct.read(30, 60) is None
        if name != "blosc":  # of which Zarr reads what there is, and beyond its end
            with pytest.raises(Exception):  # noqa: B017  whatever Zarr makes of it
                ZarrSource(array, "rows", MISSING_CHUNKS["error"]).read(30, 60)
        assert_array_equal(direct.read(0, 34), VALUES[:34].astype("f4"))
    chunk.unlink()
    assert direct.read(30, 60) is None
    filled = ZarrSource(array, "rows", MISSING_CHUNKS["fill"])
    assert_array_equal(filled.read(34, 51), np.zeros((17, 3)))
    with pytest.raises(DataError, match="has lost chunk 'c/2/0'"):
        ZarrSource(array, "rows", MISSING_CHUNKS["error"]).read(30, 60)


def test_memory_is_used_again_when_nothing_needs_it(tmp_path: Path) -> None:
    array = made(tmp_path)
    direct = Direct.of(array)
    assert direct is not None
    first, other = direct.read(0, 34), direct.read(17, 51)
    assert first is not None
    assert other is not None
    part = first[3:5]
    address = first.ctypes.data
    del first
    kept = direct.read(51, 85)
    assert kept is not None
    assert kept.ctypes.data != address  # a part of it is in use
    assert_array_equal(part, array[3:5])
    del part
    again = direct.read(34, 68)
    assert again is not None
    assert again.ctypes.data == address
    assert_array_equal(again, array[34:68])
    assert_array_equal(other, array[17:51])
    assert_array_equal(kept, array[51:85])


def test_memory_does_not_grow_with_blocks_of_many_sizes() -> None:
    """Such as those of a text have: of about one size there are as many as were in use."""
    memory, alive = Memory(), deque[NDArray[np.uint8]]()
    sizes = np.random.default_rng(0).integers(1, 1 << 16, 500)
    for i, size in enumerate(map(int, sizes)):
        if len(alive) == 3:
            alive.popleft()
        alive.append(memory.take(size))
        assert alive[-1].shape == (size,)
        alive[-1][:] = i % 256
        assert [set(each.tolist()) for each in alive] == [
            {j % 256} for j in range(max(0, i - 2), i + 1)
        ]
    alive.clear()
    buffers = [each for free in memory._free.values() for each in free]
    assert sum(map(len, buffers)) <= 2 * 3 * sizes.max()


def test_memory_of_rows_stays_while_that_of_weights_is_made() -> None:
    memory = Memory()
    memory.take(1 << 20)
    weights = memory.take(1 << 17)
    assert len(memory._free[1 << 20]) == 1
    del weights
    memory.take(1 << 21)
    assert len(memory._free[1 << 20]) == 0  # but what is about as large, or smaller, is let go
    assert len(memory._free[1 << 17]) == 1
