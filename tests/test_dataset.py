"""Rows and weights of every form, read back block by block, and refused when they can't be used."""

import json
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import pytest
import zarr

from dgmm import BlockError, DataError, GaussianMixture, UsageError, open_dataset
from dgmm.data.array_sources import ArraySource, NpySource

RNG = np.random.default_rng(11)
ROWS = RNG.normal(size=(103, 3)).round(3)
WEIGHTS = RNG.uniform(0.5, 2.0, size=103)

Make = Callable[[Path, np.ndarray], Any]


def spoilt_copy(array: np.ndarray) -> np.ndarray:
    """An array of twice the size in each dimension, with ``array`` in every second place."""
    wide = np.full([2 * size for size in array.shape], 7, dtype=array.dtype)
    wide[tuple(slice(None, None, 2) for _ in array.shape)] = array
    return wide


def strided(_: Path, array: np.ndarray) -> np.ndarray:
    return spoilt_copy(array)[tuple(slice(None, None, 2) for _ in array.shape)]


def backwards(_: Path, array: np.ndarray) -> np.ndarray:
    return array[::-1].copy()[::-1]


def npy(path: Path, array: np.ndarray) -> str:
    np.save(path / "array.npy", array)
    return str(path / "array.npy")


def npy_fortran(path: Path, array: np.ndarray) -> Path:
    np.save(path / "array.npy", np.asfortranarray(array))
    return path / "array.npy"


def mapped(path: Path, array: np.ndarray) -> np.ndarray:
    return np.load(npy(path, array), mmap_mode="r")


def mapped_fortran(path: Path, array: np.ndarray) -> np.ndarray:
    return np.load(npy_fortran(path, array), mmap_mode="r")


def mapped_part(path: Path, array: np.ndarray) -> np.ndarray:
    return np.load(npy(path, np.concatenate([array[:5], array])), mmap_mode="r")[5:]


def mapped_backwards(path: Path, array: np.ndarray) -> np.ndarray:
    return np.load(npy(path, array[::-1].copy()), mmap_mode="r")[::-1]


def mapped_other_dtype(path: Path, array: np.ndarray) -> np.ndarray:
    bits = array.view(f"u{array.dtype.itemsize}")
    return np.load(npy(path, bits), mmap_mode="r").view(array.dtype)


def mapped_private(path: Path, array: np.ndarray) -> np.ndarray:
    changed = np.load(npy(path, np.zeros_like(array)), mmap_mode="c")
    changed[:] = array  # in memory only: the file keeps its zeros
    return changed


def mapped_raw(path: Path, array: np.ndarray) -> np.ndarray:
    made = np.memmap(path / "raw.npy", mode="w+", dtype=array.dtype, shape=array.shape)
    made[:] = array
    return made


def chunked(_: Path, array: np.ndarray) -> da.Array:
    return da.from_array(array, chunks=(20, *array.shape[1:]))


def uneven(_: Path, array: np.ndarray) -> da.Array:
    return da.from_array(array, chunks=((1, 50, 30, 22), *[(size,) for size in array.shape[1:]]))


def column_chunks(_: Path, array: np.ndarray) -> da.Array:
    return da.from_array(array, chunks=tuple([20, *[1 for _ in array.shape[1:]]]))


def computed(_: Path, array: np.ndarray) -> da.Array:
    half = len(array) // 2
    parts = [da.from_array(part, chunks=17) for part in (array[:half], array[half:])]
    return da.concatenate([part.map_blocks(np.copy) for part in parts]).rechunk(
        (31, -1)[: array.ndim]
    )


def filtered(_: Path, array: np.ndarray) -> da.Array:
    marks = np.arange(2 * len(array)) % 2 == 1
    doubled = np.repeat(array, 2, axis=0)
    return da.from_array(doubled, chunks=(30, *array.shape[1:]))[da.from_array(marks, chunks=30)]


def with_empty_chunks(_: Path, array: np.ndarray) -> da.Array:
    # The chunks of the filler keep no row, so the first, a middle and the last one are empty.
    filler = np.zeros((20, *array.shape[1:]), dtype=array.dtype)
    parts = [(filler, 0), (array[:40], 1), (filler, 0), (array[40:], 1), (filler, 0)]
    rows = da.concatenate([da.from_array(part, chunks=part.shape) for part, _ in parts])
    keep = da.concatenate([da.full(len(part), bool(on), chunks=len(part)) for part, on in parts])
    return rows[keep]


ZARR: dict[str, dict[str, Any]] = {
    "v3": {"compressors": None},
    "v3-compressed": {},
    "v3-fortran": {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    "v3-sharded": {"shards": 40},
    "v3-sharded-plain": {"shards": 40, "compressors": None},
    "v3-other-keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v2": {"zarr_format": 2, "compressors": None},
    "v2-no-fill-value": {"zarr_format": 2, "fill_value": None},
    "v2-compressed": {"zarr_format": 2},
    "v2-nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2-fortran": {"zarr_format": 2, "order": "F"},
    "column-chunks": {"columns": 2},
    "column-shards": {"columns": 1, "shards": 40, "shard_columns": 2},
}


def put(store: Any, array: np.ndarray, layout: str, name: str | None = None) -> zarr.Array:
    """Write ``array`` as Zarr, in chunks of 20 rows."""
    options = dict(ZARR[layout])
    columns, shard_columns = options.pop("columns", None), options.pop("shard_columns", None)
    if array.ndim == 1 and layout == "v3-fortran":
        options.pop("filters")
    options["chunks"] = (20, *(columns or size for size in array.shape[1:]))
    if "shards" in options:
        options["shards"] = (
            options["shards"],
            *(shard_columns or size for size in array.shape[1:]),
        )
    made = zarr.create_array(store, name=name, shape=array.shape, dtype=array.dtype, **options)
    made[:] = array
    return made


def zarr_at(layout: str) -> Make:
    def make(path: Path, array: np.ndarray) -> str:
        put(str(path / "store.zarr"), array, layout)
        return str(path / "store.zarr")

    return make


def zarr_path(path: Path, array: np.ndarray) -> Path:
    return Path(zarr_at("v3-compressed")(path, array))


def zarr_file_url(path: Path, array: np.ndarray) -> str:
    return "file://" + zarr_at("v3-compressed")(path, array)


def zarr_in_group(path: Path, array: np.ndarray) -> str:
    zarr.open_group(str(path / "store.zarr"), mode="w")
    put(str(path / "store.zarr"), array, "v3-sharded", "outer/inner/array")
    put(str(path / "store.zarr"), array[:7], "v3-compressed", "outer/inner/array2")
    return str(path / "store.zarr" / "outer" / "inner" / "array")


def zarr_in_old_group(path: Path, array: np.ndarray) -> str:
    zarr.open_group(str(path / "store.zarr"), mode="w", zarr_format=2)
    put(str(path / "store.zarr"), array, "v2-compressed", "group/array")
    return str(path / "store.zarr" / "group" / "array")


def zarr_member(path: Path, array: np.ndarray) -> zarr.Array:
    zarr_in_group(path, array)
    member = zarr.open_group(str(path / "store.zarr"), mode="r")["outer/inner/array"]
    assert isinstance(member, zarr.Array)
    return member


def zarr_memory_url(_: Path, array: np.ndarray) -> str:
    url = f"memory://{uuid4().hex}/store.zarr"
    put(url, array, "v3-sharded")
    return url


def zarr_memory(_: Path, array: np.ndarray) -> zarr.Array:
    return put(zarr.storage.MemoryStore(), array, "v3-compressed")


def zarr_zip(path: Path, array: np.ndarray) -> zarr.Array:
    with zarr.storage.ZipStore(path / "store.zip", mode="w") as store:
        put(store, array, "v3-compressed")
    return zarr.open_array(zarr.storage.ZipStore(path / "store.zip", mode="r"))


def dask_from_zarr(path: Path, array: np.ndarray) -> da.Array:
    return da.from_zarr(zarr_at("v3-sharded")(path, array))


FORMS: dict[str, Make] = {
    "numpy": lambda _, array: array,
    "fortran": lambda _, array: np.asfortranarray(array),
    "strided": strided,
    "backwards": backwards,
    "read-only": lambda _, array: np.broadcast_to(array, (1, *array.shape))[0],
    "list": lambda _, array: array.tolist(),
    "npy": npy,
    "npy-fortran": npy_fortran,
    "memmap": mapped,
    "memmap-fortran": mapped_fortran,
    "memmap-part": mapped_part,
    "memmap-backwards": mapped_backwards,
    "memmap-other-dtype": mapped_other_dtype,
    "memmap-private": mapped_private,
    "memmap-raw": mapped_raw,
    "dask": chunked,
    "dask-uneven": uneven,
    "dask-column-chunks": column_chunks,
    "dask-computed": computed,
    "dask-filtered": filtered,
    "dask-empty-chunks": with_empty_chunks,
    "dask-from-zarr": dask_from_zarr,
    **{f"zarr-{layout}": zarr_at(layout) for layout in ZARR},
    "zarr-path": zarr_path,
    "zarr-file-url": zarr_file_url,
    "zarr-in-group": zarr_in_group,
    "zarr-in-old-group": zarr_in_old_group,
    "zarr-member": zarr_member,
    "zarr-memory-url": zarr_memory_url,
    "zarr-memory": zarr_memory,
    "zarr-zip": zarr_zip,
}

DTYPES = ["f2", "f4", "f8", ">f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@pytest.mark.parametrize("form", FORMS)
def test_blocks_hold_the_rows_and_weights(tmp_path: Path, form: str) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "weights").mkdir()
    rows = FORMS[form](tmp_path / "rows", ROWS)
    weights = FORMS[form](tmp_path / "weights", WEIGHTS)

    dataset = open_dataset(rows, weights, block_bytes=500)

    assert (dataset.rows, dataset.n_features) == ROWS.shape
    assert dataset.divisions[0] == 0
    assert dataset.divisions[-1] == len(ROWS)
    assert dataset.blocks == len(dataset.divisions) - 1 > 1
    for index in range(dataset.blocks):
        start, stop = dataset.row_range(index)
        block = dataset.block(index)
        assert block.start == start
        np.testing.assert_array_equal(block.rows, ROWS[start:stop], strict=True)
        np.testing.assert_array_equal(block.weights, WEIGHTS[start:stop], strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_weights_goes_with_every_kind_of_rows(tmp_path: Path, form: str) -> None:
    (tmp_path / "weights").mkdir()
    weights = FORMS[form](tmp_path / "weights", WEIGHTS)
    for kind in ("numpy", "npy", "dask-empty-chunks", "zarr-v3-sharded"):
        (tmp_path / kind).mkdir()
        rows = FORMS[kind](tmp_path / kind, ROWS)

        dataset = open_dataset(rows, weights, block_bytes=500)

        assert dataset.divisions.tolist() == open_dataset(rows, block_bytes=500).divisions.tolist()
        found = [dataset.block(index) for index in range(dataset.blocks)]
        assert [len(block.weights) for block in found] == np.diff(dataset.divisions).tolist()
        np.testing.assert_array_equal(np.concatenate([block.weights for block in found]), WEIGHTS)
        np.testing.assert_array_equal(np.concatenate([block.rows for block in found]), ROWS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["numpy", "npy-fortran", "memmap", "dask", "zarr-v3", "zarr-v2"])
def test_a_fit_sees_the_numbers_not_their_dtype(tmp_path: Path, form: str, dtype: str) -> None:
    rows = (ROWS * 10).clip(0, 100).astype(dtype)
    (tmp_path / "same").mkdir()
    given = FORMS[form](tmp_path, rows)

    found = np.concatenate([block.rows for block in blocks(given)])
    model = GaussianMixture(random_state=0).fit(given)

    np.testing.assert_array_equal(found, rows)
    assert found.dtype == rows.dtype.newbyteorder("=")  # joining them loses the byte order
    same = GaussianMixture(random_state=0).fit(FORMS[form](tmp_path / "same", rows.astype("f8")))
    assert model.means_.tobytes() == same.means_.tobytes()
    assert model.covariances_.tobytes() == same.covariances_.tobytes()


def blocks(data: Any, **options: Any) -> Iterator[Any]:
    dataset = open_dataset(data, **options)
    return (dataset.block(index) for index in range(dataset.blocks))


def test_a_list_is_fitted_as_its_array(tmp_path: Path) -> None:
    listed = GaussianMixture(2, random_state=0).fit(ROWS.tolist(), sample_weight=WEIGHTS.tolist())
    plain = GaussianMixture(2, random_state=0).fit(ROWS, sample_weight=WEIGHTS)

    assert listed.means_.tobytes() == plain.means_.tobytes()
    assert listed.predict(ROWS.tolist()).tolist() == plain.predict(ROWS).tolist()


@pytest.mark.parametrize("block_bytes", [1, 500, 960, 2000, 1 << 20])
@pytest.mark.parametrize("layout", ZARR)
def test_zarr_is_cut_at_chunks_or_shards(tmp_path: Path, layout: str, block_bytes: int) -> None:
    unit = 40 if "shard" in layout else 20

    dataset = open_dataset(zarr_at(layout)(tmp_path, ROWS), block_bytes=block_bytes)

    sizes = np.diff(dataset.divisions)
    fits = max(1, block_bytes // (unit * 3 * 8)) * unit
    assert (dataset.divisions[:-1] % unit == 0).all()
    assert (sizes[:-1] == fits).all()
    assert 0 < sizes[-1] <= fits
    assert dataset.divisions[-1] == len(ROWS)


@pytest.mark.parametrize("block_bytes", [1, 24, 500, 1 << 20])
@pytest.mark.parametrize("form", ["numpy", "npy", "memmap"])
def test_a_plain_array_is_cut_by_size(tmp_path: Path, form: str, block_bytes: int) -> None:
    dataset = open_dataset(FORMS[form](tmp_path, ROWS), block_bytes=block_bytes)

    rows = max(1, block_bytes // 24)
    assert dataset.divisions.tolist() == [*range(0, len(ROWS), rows), len(ROWS)]


def test_even_cuts_travel_as_a_rule(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((99_999, 1), dtype="i1"))
    dataset = open_dataset(tmp_path / "rows.npy", block_bytes=2)
    assert dataset.blocks == 50_000
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).divisions, dataset.divisions)


@pytest.mark.parametrize("form", ["dask", "dask-uneven", "dask-empty-chunks"])
def test_what_was_sent_has_the_same_cuts(tmp_path: Path, form: str) -> None:
    dataset = open_dataset(FORMS[form](tmp_path, ROWS))
    assert pickle.loads(pickle.dumps(dataset)).divisions.tolist() == dataset.divisions.tolist()


@pytest.mark.parametrize("form", ["dask", "dask-uneven", "dask-empty-chunks"])
def test_a_dask_array_is_cut_at_its_chunks(tmp_path: Path, form: str) -> None:
    given = FORMS[form](tmp_path, ROWS)
    counts = [len(given.blocks[i].compute()) for i in range(given.numblocks[0])]

    assert np.diff(open_dataset(given, block_bytes=1).divisions).tolist() == counts


def test_blocks_depend_on_the_storage_and_on_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clusters: Mapping[int, Any]
) -> None:
    path = zarr_at("v3-sharded")(tmp_path, ROWS)
    member = zarr.open_array(path, mode="r")
    expected = open_dataset(path, block_bytes=2000).divisions.tolist()

    other = {
        "a Path": open_dataset(Path(path), block_bytes=2000),
        "a URL": open_dataset("file://" + path, block_bytes=2000),
        "the array": open_dataset(member, block_bytes=2000),
        "weighted": open_dataset(path, WEIGHTS, block_bytes=2000),
        "weights in chunks": open_dataset(path, chunked(tmp_path, WEIGHTS), block_bytes=2000),
        "a relative path": open_dataset(os.path.relpath(path), block_bytes=2000),
    }
    with clusters[2].as_current(), zarr.config.set({"threading.max_workers": 1}):
        other["on a cluster"] = open_dataset(path, block_bytes=2000)

    assert {name: dataset.divisions.tolist() for name, dataset in other.items()} == {
        name: expected for name in other
    }
    model = GaussianMixture(random_state=0, n_jobs=3, max_iter=2, tol=10.0)
    assert model.fit(path).plan_.blocks == open_dataset(path).blocks


@pytest.mark.parametrize(
    ("form", "here"),
    [
        ("numpy", True),
        ("memmap-part", True),
        ("zarr-memory", True),
        ("zarr-memory-url", True),
        ("npy", False),
        ("memmap", False),
        ("dask", False),
        ("zarr-v3", False),
        ("zarr-zip", False),
    ],
)
def test_a_dataset_knows_whether_other_processes_can_read_it(
    tmp_path: Path, form: str, here: bool
) -> None:
    dataset = open_dataset(FORMS[form](tmp_path, ROWS))

    assert dataset.in_process is here
    assert open_dataset(dataset.source, WEIGHTS).in_process is True
    if not here:
        there = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(there.block(0).rows, dataset.block(0).rows)


def test_a_mapped_file_is_read_afresh_unless_it_is_a_view(tmp_path: Path) -> None:
    assert isinstance(open_dataset(mapped(tmp_path, ROWS)).source, NpySource)
    assert isinstance(open_dataset(mapped_part(tmp_path, ROWS)).source, ArraySource)


@pytest.mark.parametrize("change", ["fewer rows", "another type"])
def test_a_mapped_file_that_changed_is_told(tmp_path: Path, change: str) -> None:
    changed = {"fewer rows": ROWS[:-1], "another type": ROWS.astype("f4")}[change]
    for path, write in ((tmp_path / "rows.npy", np.save), (tmp_path / "rows.npz", np.savez)):
        write(path, ROWS)
        dataset = open_dataset(path)
        np.testing.assert_array_equal(dataset.block(0).rows, ROWS[: len(dataset.block(0).rows)])
        write(path, changed)
        with pytest.raises(DataError, match=r"rows\.np[yz] has changed since it was opened"):
            dataset.block(0)
    np.savez(path, a_longer_name=ROWS, arr_0=ROWS)  # it begins elsewhere now
    with pytest.raises(DataError, match=r"rows\.npz has changed since it was opened"):
        dataset.block(0)


def test_opening_changes_no_argument(tmp_path: Path) -> None:
    lazy, lazy_weights = filtered(tmp_path, ROWS), filtered(tmp_path, WEIGHTS)
    chunks, weight_chunks = str(lazy.chunks), str(lazy_weights.chunks)
    rows, weights = ROWS.copy(), WEIGHTS.copy()

    open_dataset(lazy, lazy_weights)
    GaussianMixture(2, random_state=0).fit(rows, sample_weight=weights)

    assert str(lazy.chunks) == chunks
    assert str(lazy_weights.chunks) == weight_chunks
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(weights, WEIGHTS)


def test_reading_dask_blocks_in_several_threads_leaves_dask_as_it_was() -> None:
    began, first_done = [threading.Event(), threading.Event()], threading.Event()

    def overlap(chunk: np.ndarray, block_info: Any = None) -> np.ndarray:
        if not len(chunk):
            return chunk
        index = block_info[0]["chunk-location"][0]
        began[index].set()
        assert (first_done if index else began[1]).wait(10)
        return chunk

    lazy = da.from_array(ROWS[:40], chunks=(20, 3)).map_blocks(overlap, meta=ROWS[:0])
    dataset = open_dataset(lazy)
    readers = [threading.Thread(target=dataset.block, args=(index,)) for index in range(2)]

    with dask.config.set(scheduler="threads"):
        readers[0].start()
        assert began[0].wait(10)
        readers[1].start()
        readers[0].join()
        first_done.set()
        readers[1].join()

        assert dask.config.get("scheduler") == "threads"


# What can't be used is refused at the door, in words.


def empty_directory(path: Path) -> str:
    (path / "plain" / "sub").mkdir(parents=True)
    return str(path / "plain")


def group_of_three(path: Path) -> str:
    zarr.open_group(str(path / "store.zarr"), mode="w")
    for name in ("rows", "deep/er/rows", "weights"):
        put(str(path / "store.zarr"), ROWS, "v3", name)
    return str(path / "store.zarr")


def text_file(path: Path) -> str:
    (path / "rows.txt").write_text("1 2 3")
    return str(path / "rows.txt")


def with_metadata(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        store = zarr_at("v3")(path, ROWS)
        file = Path(store) / "zarr.json"
        metadata = json.loads(file.read_text())
        change(metadata)
        file.write_text(json.dumps(metadata))
        return store

    return make


def bad_json(path: Path) -> str:
    store = zarr_at("v3")(path, ROWS)
    (Path(store) / "zarr.json").write_text("{not json")
    return store


def npy_cut(length: int) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        file = npy(path, ROWS)
        os.truncate(file, length)
        return file

    return make


def npy_of(array: Any, **options: Any) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        np.save(path / "rows.npy", array, **options)
        return str(path / "rows.npy")

    return make


def npy_that_is_a_zip(path: Path) -> str:
    with zipfile.ZipFile(path / "rows.npy", "w") as archive:
        archive.writestr("rows", "1 2 3")
    return str(path / "rows.npy")


def zarr_of(array: np.ndarray, **options: Any) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        chunks = tuple(max(1, size) for size in array.shape)
        made = zarr.create_array(
            str(path / "store.zarr"),
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunks,
            config={"write_empty_chunks": True},
            **options,
        )
        made[...] = array
        return str(path / "store.zarr")

    return make


def always(value: Any) -> Callable[[Path], Any]:
    return lambda _: value


COMPLEX = ROWS * 1j
TEXT = ROWS.astype("U6")
OBJECTS = np.array([[1, "a"], [2, None]], dtype=object)

REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such path": (lambda p: p / "none.zarr", r"none\.zarr does not exist"),
    "no such npy": (lambda p: str(p / "none.npy"), r"none\.npy does not exist"),
    "no such array": (lambda p: group_of_three(p) + "/row", r"store\.zarr/row does not exist"),
    "no such memory": (always("memory://none/store.zarr"), r"memory://none/store\.zarr does not"),
    "no such protocol": (always("nope://bucket/store.zarr"), r"nope://bucket/store\.zarr.*nope"),
    "plain directory": (
        empty_directory,
        r"plain is no Zarr array or group, and its name does not end",
    ),
    "text file": (text_file, r"rows\.txt is no Zarr array or group, and its name does not end"),
    "group": (group_of_three, r"3 arrays: \S+/deep/er/rows, \S+zarr/rows, \S+zarr/weights; or say"),
    "group object": (
        lambda p: zarr.open_group(group_of_three(p), mode="r"),
        r"3 arrays: \S+/deep/er/rows, \S+zarr/rows, \S+zarr/weights; or say",
    ),
    "inner group": (
        lambda p: group_of_three(p) + "/deep",
        r"1 arrays: \S+zarr/deep/er/rows; or say",
    ),
    "empty group": (
        lambda p: zarr.open_group(str(p / "g.zarr"), mode="w") and str(p / "g.zarr"),
        r"g\.zarr is a Zarr group without arrays",
    ),
    "bad metadata": (bad_json, r"store\.zarr can't be opened as Zarr: .*JSON|store\.zarr.*quotes"),
    "metadata without shape": (with_metadata(lambda m: m.pop("shape")), r"opened as Zarr.*shape"),
    "unknown codec": (
        with_metadata(lambda m: m.update(codecs=[{"name": "nope"}])),
        r"opened as Zarr.*nope",
    ),
    "future Zarr": (with_metadata(lambda m: m.update(zarr_format=4)), r"opened as Zarr.*4"),
    "npy cut in its rows": (npy_cut(300), r"array\.npy can't be read as a \.npy file"),
    "npy cut in its header": (npy_cut(60), r"array\.npy can't be read as a \.npy file"),
    "empty npy": (npy_cut(0), r"array\.npy can't be read as a \.npy file"),
    "npy that is a zip": (npy_that_is_a_zip, r"rows\.npy can't be read as a \.npy file"),
    "npy of objects": (npy_of(OBJECTS), r"rows\.npy can't be read as a \.npy file"),
    "npy of records": (npy_of(np.zeros(3, "f4,i4")), r"2-D|real numbers"),
    "1-D": (always(ROWS[:, 0]), r"rows must be 2-D.*\(103,\).*reshape"),
    "1-D npy": (npy_of(ROWS[:, 0]), r"rows must be 2-D.*rows\.npy has shape \(103,\)"),
    "1-D Dask": (lambda p: chunked(p, ROWS[:, 0]), r"rows must be 2-D.*\(103,\)"),
    "1-D Zarr": (zarr_of(ROWS[:, 0]), r"rows must be 2-D.*store\.zarr has shape \(103,\)"),
    "3-D": (always(ROWS[None]), r"rows must be 2-D.*\(1, 103, 3\)"),
    "3-D Dask": (always(da.zeros((4, 3, 2))), r"rows must be 2-D.*\(4, 3, 2\)"),
    "3-D Zarr": (zarr_of(ROWS[None]), r"rows must be 2-D.*store\.zarr has shape \(1, 103, 3\)"),
    "0-D": (always(np.float64(3)), r"rows must be 2-D"),
    "0-D Zarr": (zarr_of(np.ones(())), r"rows must be 2-D.*store\.zarr has shape \(\)"),
    "nothing": (always(None), r"rows must be 2-D"),
    "no rows": (always(ROWS[:0]), r"no rows.*0 sample\(s\).*\(0, 3\)"),
    "no rows in npy": (npy_of(ROWS[:0]), r"rows\.npy has no rows"),
    "no rows in Dask": (always(da.zeros((0, 3))), r"has no rows"),
    "no rows left in Dask": (always(da.ones((9, 3))[da.zeros(9) > 1]), r"has no rows"),
    "no rows in Zarr": (zarr_of(ROWS[:0]), r"store\.zarr has no rows"),
    "no columns": (always(ROWS[:, :0]), r"no columns.*0 feature\(s\).*\(103, 0\)"),
    "no columns in npy": (npy_of(ROWS[:, :0]), r"rows\.npy has no columns"),
    "no columns in Dask": (always(da.zeros((9, 0))), r"has no columns"),
    "no columns in Zarr": (zarr_of(ROWS[:, :0]), r"store\.zarr has no columns"),
    "complex": (always(COMPLEX), r"Complex data not supported.*complex128"),
    "complex npy": (npy_of(COMPLEX), r"Complex data not supported.*rows\.npy is complex128"),
    "complex Dask": (always(da.from_array(COMPLEX)), r"Complex data not supported"),
    "complex Zarr": (zarr_of(COMPLEX), r"Complex data not supported.*store\.zarr is complex128"),
    "objects": (always(OBJECTS), r"rows must be real numbers.*object"),
    "Dask of objects": (
        always(da.from_array(OBJECTS, chunks=2)),
        r"rows must be real numbers.*object",
    ),
    "text": (always(TEXT), r"rows must be real numbers.*<U6"),
    "npy of text": (npy_of(TEXT), r"rows must be real numbers.*rows\.npy has dtype <U6"),
    "Dask of text": (always(da.from_array(TEXT)), r"rows must be real numbers.*<U6"),
    "Zarr of text": (zarr_of(TEXT, zarr_format=2), r"rows must be real numbers.*<U6"),
    "dates": (always(np.zeros((3, 2), "M8[s]")), r"rows must be real numbers.*datetime64"),
    "records": (always(np.zeros((3, 2), "f4,i4")), r"rows must be real numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_rows_is_refused(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    given = make(tmp_path)

    with pytest.raises(DataError, match=message):
        open_dataset(given)


@pytest.mark.parametrize("url", ["memory://rows.npy", "memory://some/rows.npy"])
def test_a_npy_file_must_be_local(url: str) -> None:
    with fsspec.open(url, "wb") as file:
        np.save(file, ROWS)
    with pytest.raises(UsageError, match=re.escape(url) + r".*local.*Zarr"):
        open_dataset(url)


@pytest.mark.parametrize("given", [OBJECTS, TEXT, COMPLEX, ROWS[:, 0], ROWS[:0], ROWS[:, :0]])
def test_the_estimator_refuses_arrays_with_a_value_error(given: np.ndarray) -> None:
    with pytest.raises(ValueError):
        GaussianMixture().fit(given)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:-1], r"shape \(103,\).*has shape \(102,\)"),
        (np.append(WEIGHTS, 1.0), r"shape \(103,\).*has shape \(104,\)"),
        (WEIGHTS[:, None], r"shape \(103,\).*has shape \(103, 1\)"),
        (WEIGHTS[None], r"shape \(103,\).*has shape \(1, 103\)"),
        (ROWS, r"shape \(103,\).*has shape \(103, 3\)"),
        (da.from_array(WEIGHTS[:-1], chunks=20), r"shape \(103,\).*has shape \(102,\)"),
        (filtered(Path(), WEIGHTS[:-1]), r"shape \(103,\).*has shape \(102,\)"),
        (WEIGHTS * 1j, r"Complex data not supported"),
        (WEIGHTS.astype("U5"), r"weights must be real numbers.*<U5"),
        (WEIGHTS.astype(object), r"weights must be real numbers.*object"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["numpy", "dask-uneven", "zarr-v3"])
def test_weights_that_are_not_a_number_a_row_are_refused(
    tmp_path: Path, form: str, weights: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(FORMS[form](tmp_path, ROWS), sample_weight=weights)


def chunk_files(store: str) -> list[Path]:
    """The files of a local store's chunks or shards, in order."""
    files = [file for file in Path(store).rglob("*") if file.is_file()]
    names = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
    return sorted(file for file in files if file.name not in names)


@pytest.mark.parametrize("layout", ZARR)
def test_a_lost_chunk_is_named_unless_it_means_the_fill_value(tmp_path: Path, layout: str) -> None:
    store = zarr_at(layout)(tmp_path, ROWS)
    files = chunk_files(store)
    lost = files[len(files) // 2]
    lost.unlink()
    key = lost.relative_to(store).as_posix()
    counts = f"{len(files) - 1} of {len(files)} are stored"

    for given in (store, zarr.open_array(store, mode="r")):
        with pytest.raises(DataError, match=f"store.zarr lacks chunk '{re.escape(key)}'.*{counts}"):
            GaussianMixture().fit(given)

    found = np.concatenate([block.rows for block in blocks(store, missing_chunks="fill")])
    kept = found == ROWS
    assert (found[~kept] == 0).all()
    per_file = found.size / len(files)
    assert 0 < (~kept).sum() <= 3 * per_file
    model = GaussianMixture(random_state=0).fit(open_dataset(store, missing_chunks="fill"))
    np.testing.assert_allclose(model.means_[0], found.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("layout", ZARR)
def test_each_chunk_that_is_lost_once_opened_is_named(tmp_path: Path, layout: str) -> None:
    """Deleted, or cut to nothing, whichever of the rows and columns it holds."""
    store = zarr_at(layout)(tmp_path, ROWS)
    dataset = open_dataset(store, block_bytes=1)
    for file in chunk_files(store):
        key, content = file.relative_to(store).as_posix(), file.read_bytes()
        file.unlink()
        with pytest.raises(DataError, match=f"has lost chunk '{re.escape(key)}' since it was open"):
            dataset.source.read(0, len(ROWS))
        file.write_bytes(b"")
        with pytest.raises((DataError, ValueError, RuntimeError)):
            dataset.source.read(0, len(ROWS))
        file.write_bytes(content)
    read = np.concatenate([dataset.block(index).rows for index in range(dataset.blocks)])
    np.testing.assert_array_equal(read, ROWS)


@pytest.mark.parametrize("layout", ["v3", "column-chunks", "column-shards"])
def test_stored_chunks_may_hold_the_fill_value(tmp_path: Path, layout: str) -> None:
    rows = ROWS.copy()
    rows[15:70, 0] = 0.0
    rows[30:50] = 0.0
    array = put(str(tmp_path / "store.zarr"), rows, layout)
    array.with_config({"write_empty_chunks": True})[:] = rows
    dataset = open_dataset(str(tmp_path / "store.zarr"))
    for start, stop in ((0, len(rows)), (35, 36), (19, 61), (40, 40)):
        np.testing.assert_array_equal(dataset.source.read(start, stop), rows[start:stop])


def test_a_lost_chunk_of_an_array_in_a_group_is_named(tmp_path: Path) -> None:
    path = zarr_in_group(tmp_path, ROWS)
    (Path(path) / "c" / "1" / "0").unlink()

    with pytest.raises(DataError, match=r"inner/array lacks chunk 'c/1/0' \(2 of 3 are stored\)"):
        open_dataset(path)


def test_a_lost_chunk_of_the_weights_is_named(tmp_path: Path) -> None:
    weights = zarr_at("v3")(tmp_path, WEIGHTS)
    (Path(weights) / "c" / "2").unlink()

    with pytest.raises(DataError, match=r"store\.zarr lacks chunk 'c/2' \(5 of 6 are stored\)"):
        open_dataset(ROWS, weights)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("layout", ZARR)
def test_a_truncated_chunk_is_never_taken_for_rows(
    tmp_path: Path, layout: str, kept: float
) -> None:
    store = zarr_at(layout)(tmp_path, ROWS)
    file = chunk_files(store)[1]
    os.truncate(file, int(kept * file.stat().st_size))

    with pytest.raises(DataError) as caught:
        GaussianMixture().fit(store)

    # A file that says of itself that it is cut is found by the task that reads it.
    if isinstance(caught.value, BlockError):
        assert f"rows 0 to {len(ROWS)}" in str(caught.value)
        assert caught.value.__cause__ is not None
    else:
        assert file.relative_to(store).as_posix() in str(caught.value)
    assert store in str(caught.value)


def test_a_block_that_can_not_be_read_is_named_among_many(tmp_path: Path) -> None:
    store = zarr_at("v3-compressed")(tmp_path, ROWS)
    file = chunk_files(store)[3]
    os.truncate(file, 10)

    with pytest.raises(BlockError, match=r"rows 60 to 80 \(block 3\) of " + re.escape(store)):
        GaussianMixture().fit(open_dataset(store, block_bytes=1))


NOT_FINITE = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("form", ["numpy", "npy", "dask", "dask-empty-chunks", "zarr-v3"])
def test_the_first_row_that_is_not_finite_is_named(tmp_path: Path, form: str, value: str) -> None:
    rows = ROWS.copy()
    rows[90, 0] = rows[61, 2] = rows[61, 1] = rows[62, 0] = NOT_FINITE[value]
    given = FORMS[form](tmp_path, rows)

    with pytest.raises(DataError, match=rf"NaN or infinity.*: {value} at row 61, column 1; "):
        GaussianMixture(random_state=0).fit(given)
    with pytest.raises(DataError, match=rf"NaN or infinity.*: {value} at row 61, column 1; "):
        GaussianMixture(random_state=0).fit(open_dataset(given, block_bytes=1))


def test_answers_name_the_first_row_that_is_not_finite(tmp_path: Path) -> None:
    model = GaussianMixture(2, random_state=0).fit(ROWS)
    rows = ROWS.copy()
    rows[61, 2] = np.nan
    for form in ("numpy", "npy", "dask", "zarr-v3"):
        (tmp_path / form).mkdir()
        given = FORMS[form](tmp_path / form, rows)
        with pytest.raises(DataError, match=r"nan at row 61, column 2"):
            np.asarray(model.predict(given))
        with pytest.raises(DataError, match=r"nan at row 61, column 2"):
            model.score(given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("form", ["numpy", "npy", "dask", "zarr-v3"])
def test_the_first_weight_that_can_not_be_used_is_named(
    tmp_path: Path, form: str, value: float
) -> None:
    weights = WEIGHTS.copy()
    weights[[44, 70]] = value
    given = FORMS[form](tmp_path, weights)

    with pytest.raises(DataError, match=rf"weights must be .*not negative: {value} at row 44; "):
        GaussianMixture().fit(ROWS, sample_weight=given)
    with pytest.raises(DataError, match=rf"weights must be .*not negative: {value} at row 44; "):
        GaussianMixture().fit(open_dataset(ROWS, given, block_bytes=1))


@pytest.mark.parametrize("dtype", ["f8", "i4", "?"])
def test_weights_that_are_all_zero_are_refused(dtype: str) -> None:
    with pytest.raises(DataError, match="all weights are zero"):
        GaussianMixture().fit(ROWS, sample_weight=np.zeros(len(ROWS), dtype))


def test_rows_of_weight_zero_may_hold_what_is_finite_only() -> None:
    rows, weights = ROWS.copy(), WEIGHTS.copy()
    weights[50] = 0.0
    rows[50] = 1e6
    without = GaussianMixture(random_state=0).fit(
        np.delete(rows, 50, axis=0), sample_weight=np.delete(weights, 50)
    )
    model = GaussianMixture(random_state=0).fit(rows, sample_weight=weights)
    np.testing.assert_allclose(model.means_, without.means_, rtol=1e-12)
    np.testing.assert_allclose(model.covariances_, without.covariances_, rtol=1e-12)

    rows[50, 1] = np.nan
    with pytest.raises(DataError, match="nan at row 50, column 1"):
        GaussianMixture().fit(rows, sample_weight=weights)


def test_missing_chunks_are_one_of_four(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "rows.zarr", data=np.zeros((4, 2)))
    with pytest.raises(
        UsageError, match=r"missing_chunks .* 'auto', 'error', 'late', 'fill', not 'nan'"
    ):
        open_dataset(tmp_path / "rows.zarr", missing_chunks="nan")


def test_a_dataset_and_a_plan_say_what_they_are() -> None:
    frame = pd.DataFrame(np.zeros((1000, 2)), columns=["km", "fare"])
    shown = repr(open_dataset(frame, sample_weight=np.ones(1000)))
    assert shown.startswith(
        "<Dataset: 1,000 rows of 2 features (km, fare), with weights, in 1 block;"
    )
    wide = repr(open_dataset(pd.DataFrame(np.zeros((9, 8))).add_prefix("x")))
    assert "(x0, x1, x2, x3, x4, x5, ...)" in wide
    told = str(GaussianMixture(2).plan(frame)).splitlines()
    assert told[1].split("  ")[-1].strip() == "1,000 x 2"
