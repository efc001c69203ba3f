"""HDF5 and NetCDF files; and variables of these and of Zarr groups, each a feature."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from numpy.typing import NDArray

import dgmm
from dgmm.cli.commands import main
from dgmm.data.hdf import open_hdf

SHAPE = (40, 5, 6)
"""Times, latitudes, longitudes."""


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(np.prod(SHAPE), 2)) + 6 * rng.integers(0, 2, size=(np.prod(SHAPE), 1))
    return rows.round(2)


@pytest.fixture(scope="module")
def places(rows: NDArray[np.float64], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A NetCDF file and a Zarr group with two variables of three axes, and other things."""
    place = tmp_path_factory.mktemp("variables")
    packed = np.round(rows[:, 0] * 100).astype("i2").reshape(SHAPE)
    with h5py.File(place / "climate.nc", "w") as file:
        warm = file.create_dataset("t2m", data=packed, chunks=(10, 5, 6), compression="gzip")
        warm.attrs["scale_factor"] = np.array([0.01])
        warm.attrs["_FillValue"] = np.array([-32768], "i2")
        file.create_dataset("deep/rain", data=rows[:, 1].reshape(SHAPE), chunks=(10, 5, 6))
        file.create_dataset("lat", data=np.arange(5.0))
        file.create_dataset("names", data=np.array([b"a", b"b"]))
        file.create_dataset("table", data=rows, chunks=(300, 2))
    group = zarr.create_group(place / "climate.zarr")
    warm = group.create_array("t2m", data=packed, chunks=(10, 5, 6))
    warm.attrs.update({"scale_factor": 0.01, "_FillValue": -32768})
    group.create_array("deep/rain", data=rows[:, 1].reshape(SHAPE), chunks=(10, 5, 6))
    group.create_array("lat", data=np.arange(5.0))
    return {"nc": place / "climate.nc", "zarr": place / "climate.zarr"}


def fitted(data: object) -> dgmm.GaussianMixture:
    return dgmm.GaussianMixture(2, random_state=0).fit(data)


@pytest.mark.parametrize("form", ["nc", "zarr"])
def test_variables_of_many_axes_are_features(
    rows: NDArray[np.float64],
    places: dict[str, Path],
    clusters: Mapping[int, Client],
    tmp_path: Path,
    form: str,
) -> None:
    names = ["t2m", "deep/rain"]
    dataset = dgmm.open_dataset(places[form], columns=names, block_bytes=300 * 2 * 8)
    assert (dataset.rows, dataset.blocks, dataset.names) == (1200, 4, tuple(names))
    read = np.concatenate([dataset.block(i).rows for i in range(4)])
    np.testing.assert_allclose(read, rows, rtol=1e-14)
    for start, stop in ((0, 0), (29, 31), (0, 1200), (1199, 1200), (7, 100)):
        np.testing.assert_array_equal(dataset.source.read(start, stop), read[start:stop])
    model = fitted(dataset)
    plain = fitted(da.from_array(read, chunks=(300, 2)))
    assert model.means_.tobytes() == plain.means_.tobytes()
    with clusters[2].as_current():
        assert fitted(dataset).means_.tobytes() == plain.means_.tobytes()
    # The model finds its features by their names.
    assert model.feature_names_in_.tolist() == names
    np.testing.assert_array_equal(model.predict(places[form]).compute(), plain.predict(read))
    model.save(tmp_path / "m.dgmm")
    words = ["score", places[form], "-m", tmp_path / "m.dgmm", "--json", "--quiet"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert json.loads(done.stdout)["score"] == pytest.approx(plain.score(read), rel=1e-12)


def test_a_dataset_of_a_file_is_rows_or_weights(
    rows: NDArray[np.float64], places: dict[str, Path]
) -> None:
    expected = fitted(da.from_array(rows, chunks=(300, 2)))
    ours = fitted(dgmm.open_dataset(f"{places['nc']}::/table", block_bytes=300 * 2 * 8))
    assert ours.means_.tobytes() == expected.means_.tobytes()
    weights = dgmm.open_dataset(rows, np.ones(1200)).weights
    assert weights is not None
    with h5py.File(places["nc"].with_name("w.h5"), "w") as file:
        file.create_dataset("w", data=np.arange(1200.0))
    weighted = dgmm.open_dataset(rows, f"{places['nc'].with_name('w.h5')}::w")
    np.testing.assert_array_equal(weighted.block(0).weights, np.arange(1200.0))


def test_a_file_over_fsspec(rows: NDArray[np.float64], places: dict[str, Path]) -> None:
    there = f"simplecache::file://{places['nc']}::table"
    np.testing.assert_array_equal(dgmm.open_dataset(there).block(0).rows, rows)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "file": ("nc", {}, r"has 5 datasets; name one: .*climate\.nc::deep/rain.*columns="),
    "group": ("zarr", {}, r"name one of its 3 arrays.*columns="),
    "shapes": ("nc", {"columns": ["t2m", "lat"]}, r"lat has shape \(5,\), but .*t2m \(40, 5, 6\)"),
    "shapes, Zarr": ("zarr", {"columns": ["t2m", "lat"]}, r"lat has shape \(5,\)"),
    "texts": ("nc", {"columns": ["names"]}, r"names has dtype .S1: it is no array of numbers"),
    "name": ("nc", {"columns": ["tm2"]}, "no column 'tm2'; the nearest is t2m"),
    "name, Zarr": ("zarr", {"columns": ["tm2"]}, "no column 'tm2'; the nearest is t2m"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_features_is_told(places: dict[str, Path], case: str) -> None:
    form, how, message = REFUSED[case]
    with pytest.raises(dgmm.DataError, match=message):
        dgmm.open_dataset(places[form], **how)


def test_what_is_no_file_of_variables_is_told(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(dgmm.DataError, match="does not exist"):
        dgmm.open_dataset(tmp_path / "no.h5")
    (tmp_path / "text.nc").write_text("no table")
    with pytest.raises(dgmm.DataError, match="can't be read as an HDF5 or NetCDF-4 file"):
        dgmm.open_dataset(tmp_path / "text.nc")
    with h5py.File(tmp_path / "hollow.h5", "w") as file:
        file.create_dataset("hollow", data=h5py.Empty("f4"))
        file.create_dataset("whole", data=[1.0])
    with pytest.raises(dgmm.DataError, match="no column 'hollow'; it has whole"):
        dgmm.open_dataset(f"{tmp_path}/hollow.h5::hollow")
    with pytest.raises(dgmm.DataError, match="no column 'tabel'; the nearest is table"):
        dgmm.open_dataset(f"{places['nc']}::tabel")
    with pytest.raises(dgmm.UsageError, match="names its dataset: leave out columns"):
        dgmm.open_dataset(f"{places['nc']}::table", columns=["t2m"])
    with pytest.raises(dgmm.DataError, match="rows must be 2-D"):
        dgmm.open_dataset(f"{places['nc']}::t2m")
    with pytest.raises(dgmm.UsageError, match="which has no names of columns"):
        dgmm.open_dataset(places["zarr"] / "lat", columns=["a"])


STORED: dict[str, tuple[list[Any], str, dict[str, Any], list[float]]] = {
    "a fill of 64 bits": ([-(2**63) + 2, 7], "<i8", {"_FillValue": -(2**63) + 2}, [np.nan, 7]),
    "the largest": ([2**64 - 1, 7], "<u8", {"_FillValue": np.uint64(2**64 - 1)}, [np.nan, 7]),
    "too large a fill": ([0, 7], "<i2", {"missing_value": 1e20}, [0, 7]),
    "no such byte": ([241, 7], "u1", {"_FillValue": -9999}, [241, 7]),
    "too large a single": ([np.inf, 7], "<f4", {"_FillValue": 1e300}, [np.inf, 7]),
    "another order of bytes": ([-1, 7], ">i2", {"_Unsigned": "true"}, [65535, 7]),
    "an unsigned fill": ([-1, 7], ">i2", {"_Unsigned": "true", "_FillValue": 65535}, [np.nan, 7]),
    "a signed fill": ([-2, 7], "i1", {"_Unsigned": "true", "_FillValue": -2}, [np.nan, 7]),
}


@pytest.mark.parametrize("case", STORED)
def test_only_the_number_that_a_fill_value_is_stands_for_none(tmp_path: Path, case: str) -> None:
    stored, dtype, attributes, expected = STORED[case]
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        dataset = file.create_dataset("x", data=np.array(stored, dtype).reshape(-1, 1))
        dataset.attrs.update(attributes)
    values = dgmm.open_dataset(f"{tmp_path}/packed.h5::x").block(0).rows
    np.testing.assert_array_equal(values[:, 0].astype(float), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_chunks_that_hold_no_value_need_not_be_stored(packed: bool, tmp_path: Path) -> None:
    """Zarr leaves them out: as of a sea, where all is land."""
    path, numbers = tmp_path / "x.zarr", np.arange(40.0).reshape(20, 2)
    numbers[5:10] = np.nan
    dataset = pytest.importorskip("xarray").Dataset({"x": (("row", "column"), numbers)})
    encoding = {"chunks": (5, 2)} | ({"dtype": "i2", "_FillValue": -1} if packed else {})
    dataset.to_zarr(
        path, encoding={"x": encoding}, zarr_format=2 if packed else 3, consolidated=False
    )
    (path / ("x/1.0" if packed else "x/c/1/0")).unlink(missing_ok=True)
    np.testing.assert_array_equal(dgmm.open_dataset(path / "x").source.read(0, 20), numbers)
    with pytest.raises(dgmm.DataError, match="lacks chunk"):
        dgmm.open_dataset(path / "x", missing_chunks="error")
    if packed:
        with pytest.raises(dgmm.DataError, match="lacks chunk"):
            dgmm.open_dataset(path / "x", raw=True)


def test_files_of_other_kinds_are_told_with_what_reads_them(tmp_path: Path) -> None:
    (tmp_path / "classic.nc").write_bytes(b"CDF\x02" + bytes(100))
    with pytest.raises(dgmm.DataError, match=r"xarray\.open_dataset"):
        dgmm.open_dataset(tmp_path / "classic.nc")
    with pytest.raises(
        dgmm.DataError, match=r"pixels of an image are its rows: .*reshape\(-1, 4\)"
    ):
        dgmm.open_dataset(np.zeros((5, 6, 4)))


def test_a_variable_of_a_cube_is_told_how_it_is_taken(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "cube.zarr", mode="w")
    group.create_array("deep/t2m", shape=(2, 3, 4), dtype="f4")[:] = 1.0
    with h5py.File(tmp_path / "cube.nc", "w") as file:
        file["t2m"] = np.zeros((2, 3, 4))
    for name in ("cube.zarr/deep/t2m", "cube.nc::t2m", "cube.nc::/t2m"):
        with pytest.raises(dgmm.DataError) as refused:
            dgmm.open_dataset(f"{tmp_path}/{name}")
        asked = re.search(r"open_dataset\('(.*)', columns=\['(.*)'\]\) \(--c", str(refused.value))
        assert asked is not None
        assert dgmm.open_dataset(asked[1], columns=[asked[2]]).rows == 24


PACKED: dict[str, dict[str, Any]] = {
    "zlib": {"compression": 4},
    "shuffled": {"compression": 4, "shuffle": True},
    "with sums": {"compression": 4, "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "big-endian": {"compression": 4, "shuffle": True, "dtype": ">f4"},
    "integers": {"compression": 1, "shuffle": True, "dtype": "i2"},
}


@pytest.mark.parametrize("case", PACKED)
def test_packed_chunks_are_read_as_hdf5_reads_them(case: str, tmp_path: Path) -> None:
    """Also those at the edges, those that are not stored, and parts."""
    values = np.random.default_rng(0).normal(scale=99, size=(50, 7, 5)).astype("f4")
    path = tmp_path / "x.nc"
    with h5py.File(path, "w") as file:
        how = {"dtype": "f4", "chunks": (8, 4, 5), "fillvalue": 7} | PACKED[case]
        whole = file.create_dataset("whole", values.shape, **how)
        whole[...] = values
        file.create_dataset("holed", values.shape, **how)[:16] = values[:16]
    with h5py.File(path) as file:
        for name in ("whole", "holed"):
            source = open_hdf(f"{path}::{name}", None, True)
            assert source is not None
            for start, stop in ((0, 50), (3, 4), (7, 25), (16, 40), (49, 50)):
                np.testing.assert_array_equal(source.read(start, stop), file[name][start:stop])


def test_a_text_among_several_says_how_bytes_are_seen(tmp_path: Path) -> None:
    """NetCDF has texts in lists, even of one."""
    with h5py.File(tmp_path / "x.nc", "w") as file:
        made = file.create_dataset("x", data=np.array([[-1, 2], [3, -4]], "i1"))
        made.attrs["_Unsigned"] = np.array(["true"], h5py.string_dtype())
    rows = dgmm.open_dataset(f"{tmp_path}/x.nc::x").block(0).rows
    np.testing.assert_array_equal(rows, [[255, 2], [3, 252]])


def test_a_pattern_names_no_dataset_of_its_own(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("a", "b"):
            file.create_dataset(name, data=np.eye(3))
    with pytest.raises(dgmm.DataError, match=r"x\.h5::\* means 2 of its columns, a, b: name one"):
        dgmm.open_dataset(f"{tmp_path}/x.h5::*")


def test_a_relative_path_means_the_same_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers may have other working directories, and other files of that name in these."""
    (tmp_path / "elsewhere").mkdir()
    for number, place in ((1, tmp_path), (2, tmp_path / "elsewhere")):
        values = np.full((6, 2), float(number))
        with h5py.File(place / "x.h5", "w") as file:
            file["x"], file["a"] = values, values[:, 0]
        np.save(place / "x.npy", values)
        zarr.create_array(place / "x.zarr", data=values)
        (place / "x.csv").write_text("a,b\n" + f"{number},{number}\n" * 6)
    monkeypatch.chdir(tmp_path)
    forms = ("x.h5::x", "x.npy", "x.zarr", "x.csv")
    datasets = [*map(dgmm.open_dataset, forms), dgmm.open_dataset("x.h5", columns=["a"])]
    monkeypatch.chdir("elsewhere")
    for dataset in datasets:
        assert (pickle.loads(pickle.dumps(dataset)).block(0).rows == 1).all()
