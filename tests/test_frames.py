"""Tables in memory and variables of open files: read block by block, by the names of columns."""

import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from dgmm import DataError, GaussianMixture, PlanError, UsageError, open_dataset
from dgmm.data.columns import check_numbers

NAMES = ["a", "b", "c"]
ROWS = np.random.default_rng(0).normal(size=(600, 3)) + 6.0 * (np.arange(600) % 2)[:, None]
HOLES = np.random.default_rng(1).random(ROWS.shape) < 0.1
HOLED = np.where(HOLES, np.nan, ROWS)


def polars() -> Any:
    return pytest.importorskip("polars")


def arrow(rows: NDArray[Any], **more: Any) -> pa.Table:
    """With a column of single precision, so that they have several types, and with nulls."""
    types = [pa.float64(), pa.float32(), pa.float64()]
    columns = {
        name: pa.array(rows[:, j], types[j], mask=np.isnan(rows[:, j]))
        for j, name in enumerate(NAMES)
    }
    return pa.table(columns | more)


class Stream:
    """A table that gives a stream of Arrow and nothing else, as one of DuckDB does."""

    def __init__(self, rows: NDArray[Any], **more: Any) -> None:
        self._table = arrow(rows, **more)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Interchange:
    """A table of the dataframe interchange protocol and nothing else."""

    def __init__(self, rows: NDArray[Any], **more: Any) -> None:
        self._table = arrow(rows, **more)

    def __dataframe__(self, *how: Any, **named: Any) -> Any:
        return self._table.__dataframe__(*how, **named)


FRAMES: dict[str, Callable[..., Any]] = {
    "pandas": lambda rows, **more: arrow(rows, **more).to_pandas(),
    "pandas, nullable": lambda rows, **more: arrow(rows, **more).to_pandas().convert_dtypes(),
    "pandas over Arrow": lambda rows, **more: arrow(rows, **more).to_pandas(
        types_mapper=pd.ArrowDtype
    ),
    "polars": lambda rows, **more: polars().from_arrow(arrow(rows, **more)),
    "Arrow": arrow,
    "Arrow, a batch": lambda rows, **more: arrow(rows, **more).to_batches()[0],
    "Arrow stream": Stream,
    "interchange": Interchange,
}


def same(one: GaussianMixture, other: GaussianMixture) -> bool:
    return one.means_.tobytes() == other.means_.tobytes() and (
        one.covariances_.tobytes() == other.covariances_.tobytes()
    )


@pytest.mark.parametrize("form", FRAMES)
def test_a_table_in_memory_gives_the_bits_of_its_array(form: str) -> None:
    numbers = HOLED.copy()
    numbers[:, 1] = numbers[:, 1].astype("f4")
    frame = FRAMES[form](HOLED)
    read = open_dataset(frame)
    assert read.names == tuple(NAMES)
    assert read.source.dtype == np.float64
    np.testing.assert_array_equal(read.block(0).rows, numbers)
    np.testing.assert_array_equal(read.source.read(17, 19), numbers[17:19])

    fit = GaussianMixture(2, random_state=0, missing="marginalize")
    model, plain = fit.fit(frame), GaussianMixture(**fit.get_params()).fit(numbers)
    assert same(model, plain)
    assert model.feature_names_in_.tolist() == NAMES
    assert isinstance(model.predict(frame), np.ndarray)
    np.testing.assert_array_equal(model.predict(frame), plain.predict(numbers))


@pytest.mark.parametrize("form", [*FRAMES, "Dask"])
def test_columns_that_are_no_numbers_are_named_or_left_out(form: str) -> None:
    more = {"kind": pa.array(["x", "y"] * 300), "paid": pa.array([True, False] * 300)}
    make = FRAMES.get(form, lambda *a, **k: dd.from_pandas(FRAMES["pandas"](*a, **k), 1))
    frame = make(ROWS, **more)
    with pytest.raises(DataError, match=r"kind \(.*\), paid \(.*numbers are in a, b, c$") as told:
        open_dataset(frame)
    assert "(open_dataset(data, columns=['!kind', '!paid']), --columns '!kind,!paid')" in str(
        told.value
    )
    with pytest.raises((DataError, ValueError), match="kind"):
        GaussianMixture().fit(frame)
    chosen = open_dataset(frame, columns=["c", "a"])
    np.testing.assert_array_equal(chosen.block(0).rows, ROWS[:, [2, 0]])
    assert GaussianMixture().fit(chosen).feature_names_in_.tolist() == ["c", "a"]
    with pytest.raises(DataError, match=r"has no column 'kinds'; the nearest is kind"):
        open_dataset(frame, columns=["kinds"])


def test_what_is_wrong_with_a_column_of_a_dask_frame_names_it() -> None:
    """Rows to judge, with errors or without, and what the first pass finds."""
    frame = pd.DataFrame(ROWS, columns=NAMES)
    noise = pd.DataFrame(np.ones_like(ROWS), columns=NAMES)
    model = GaussianMixture(2, random_state=0).fit(frame)
    frame.loc[17, "b"], noise.loc[18, "c"] = np.inf, -1.0
    lazy, lazy_noise = (dd.from_pandas(each, 2) for each in (frame, noise))
    with pytest.raises(DataError, match="inf at row 17, column 'b'"):
        model.predict(lazy).compute()
    with pytest.raises(DataError, match="inf at row 17, column 'b'"):
        model.predict_proba(lazy, noise=lazy_noise).compute()
    frame["b"] = 1.0
    with pytest.raises(DataError, match=r"-1\.0 at row 18, column 'c'"):
        model.predict(dd.from_pandas(frame, 2), noise=lazy_noise).compute()
    for value, params, said in (
        (np.nan, {"missing": "marginalize"}, "column 'b' has no value in any row"),
        (1.0, {"noise_component": True}, "column 'b' has one value in all rows, so the box"),
        (1e-170 * ROWS[:, 0], {}, "too small: column 'b' ranges"),
    ):
        with pytest.raises(DataError, match=said):
            GaussianMixture(2, **params).fit(dd.from_pandas(frame.assign(b=value), 2))


IDS = 2**60 + np.arange(len(ROWS))
"""Of which float64 holds every 256th."""


def test_integers_that_would_come_out_equal_are_refused_wherever_they_lie(tmp_path: Path) -> None:
    """And those that are rounded by far less than they differ are let pass."""
    dated = 1_700_000_000_000_000_000 + 3_600_000_000_000 * np.arange(len(ROWS))  # hours, in ns
    frame = pd.DataFrame({"a": ROWS[:, 0], "id": IDS, "time": dated})
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    group = zarr.create_group(tmp_path / "rows.zarr")
    for name in frame:
        group.create_array(name, data=frame[name].to_numpy())
    for data in (
        frame,
        frame.astype({"id": "UInt64"}),
        pa.Table.from_pandas(frame),
        dd.from_pandas(frame, 2),
        xr.Dataset({name: ("row", frame[name].to_numpy()) for name in frame}),
        tmp_path / "rows.parquet",
        tmp_path / "rows.csv",
        tmp_path / "rows.zarr",
    ):
        dataset = open_dataset(data, columns=["time", "id"])
        assert tuple(dataset.source.integers) == (0, 1)
        with pytest.raises(DataError, match=r"column 'id' has integers .* multiples of 256 there"):
            GaussianMixture(2).fit(dataset)
        dataset = open_dataset(data, columns=["a", "time"])
        assert tuple(dataset.source.integers) == (1,)
        assert GaussianMixture(1).fit(dataset).converged_
    for path in packed(tmp_path):  # whose integers are read as float64, for there are holes
        dataset = open_dataset(path, columns=["id"] if path.suffix in (".zarr", ".nc") else None)
        with pytest.raises(DataError, match=r"has integers .* multiples of 256 there"):
            GaussianMixture(1, missing="marginalize").fit(dataset)
    for data in (IDS[:, None], da.from_array(IDS[:, None])):
        with pytest.raises(DataError, match="column 0 has integers"):
            GaussianMixture(1).fit(data)
        GaussianMixture(1).fit(data - 2**60)
    objects = pd.DataFrame({"a": ROWS[:, 0], "b": [Decimal(n) for n in range(len(ROWS))]})
    with pytest.raises(DataError, match=r"b \(object\) .* astype\(float\)"):
        GaussianMixture(1).fit(objects)
    wide = pa.table({"id": pa.array([Decimal(int(n)) for n in IDS])})
    with pytest.raises(DataError, match="column 'id' has integers"):
        GaussianMixture(1).fit(wide)
    model = GaussianMixture(1).fit(IDS[:, None] - 2**60)  # rows that are added, too
    for learn in (model.partial_fit, model.summarize):
        with pytest.raises(DataError, match="column 0 has integers"):
            learn(IDS[:, None])
    assert model.summarize(IDS[:9, None] - 2**60).mean.tolist() == [4.0]


def packed(place: Path) -> list[Path]:
    """Files and a store of ``IDS`` of which one number stands for none."""
    fill = {"_FillValue": -1}
    zarr.create_group(place / "packed.zarr").create_array("id", data=IDS, attributes=fill)
    zarr.create_array(place / "packed.zarr/both", data=IDS[:, None], attributes=fill)
    with h5py.File(place / "packed.nc", "w") as file:
        file.create_dataset("id", data=IDS).attrs.update(fill)
    rasterio = pytest.importorskip("rasterio")
    image = {"width": 20, "height": 30, "count": 1, "dtype": "int64", "nodata": -1}
    where = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
    with rasterio.open(place / "packed.tif", "w", transform=where, **image) as raster:
        raster.write(IDS.reshape(1, 30, 20))
    return [place / name for name in ("packed.zarr", "packed.zarr/both", "packed.nc", "packed.tif")]


def test_decimals_of_a_dask_frame_are_numbers() -> None:
    fares = pa.array([Decimal("1.25"), None, Decimal("2.50")])
    frame = pa.table({"fare": fares, "n": [1, 2, 4]}).to_pandas(types_mapper=pd.ArrowDtype)
    rows = open_dataset(dd.from_pandas(frame, 1)).block(0).rows
    np.testing.assert_array_equal(rows, [[1.25, 1.0], [np.nan, 2.0], [2.5, 4.0]])


def test_a_frame_of_booleans_is_an_array_of_them_and_narrow_floats_stay_so() -> None:
    masks = np.stack([ROWS[:, 0] < 3, ROWS[:, 0] > 3], axis=1)
    for frame in (pd.DataFrame(masks), pa.table({"0": masks[:, 0], "1": masks[:, 1]})):
        model = GaussianMixture(2, random_state=0).fit(ROWS, labels=frame)
        assert (model.means_[0] < model.means_[1]).all()
    narrow = pd.DataFrame(ROWS.astype("f4"), columns=NAMES)
    for each in (narrow, pa.Table.from_pandas(narrow)):
        assert open_dataset(each).source.dtype == np.float32


def test_sparse_columns_of_pandas_are_numbers() -> None:
    counts = np.arange(12).reshape(6, 2) % 3
    for dtype in ("int64", "uint8", "float32"):
        frame = pd.DataFrame(counts, columns=["a", "b"]).astype(pd.SparseDtype(dtype, 0))
        for given in (frame, frame.assign(c=0.5), dd.from_pandas(frame, 1)):
            rows = open_dataset(given).block(0).rows
            np.testing.assert_array_equal(rows[:, :2], counts)


def test_columns_without_names_and_of_one_name() -> None:
    numbered = pd.DataFrame({0: ROWS[:, 0], 1: ROWS[:, 1].astype("f4")})
    assert not hasattr(GaussianMixture().fit(numbered), "feature_names_in_")
    with pytest.raises(UsageError, match="columns have no names"):
        open_dataset(numbered, columns=["0"])
    twice = pa.table([ROWS[:, 0], ROWS[:, 1]], names=["a", "a"])
    with pytest.raises(DataError, match="several columns called a"):
        open_dataset(twice)
    for frame in (twice, twice.to_pandas(), dd.from_pandas(twice.to_pandas(), 1)):
        for door in (GaussianMixture().fit, open_dataset):
            with pytest.raises(DataError, match="several columns called a: give each"):
                door(frame)
    bands = xr.DataArray(ROWS, dims=("row", "band"), coords={"band": ["a", "a", "b"]})
    for wanted in (None, ["a"]):
        with pytest.raises(DataError, match="DataArray has several columns called a: give each"):
            open_dataset(bands, columns=wanted)
    assert open_dataset(bands, columns=["b"]).names == ("b",)
    many = {f"x{j}": (float, True) for j in range(12)} | {"city": (str, False)}
    with pytest.raises(DataError, match=r"numbers are in x0, .*x9 and 2 more$"):
        check_numbers("the frame", many, list(many))


def test_weights_by_the_name_of_a_column_are_told_how() -> None:
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    message = r"weights: w does not exist. A column of a frame .* frame\['w'\], .*parquet::w$"
    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(frame, sample_weight="w")


def test_a_stream_is_taken_only_while_there_is_room() -> None:
    for form in (Stream, Interchange):
        with pytest.raises(PlanError, match=rf"a {form.__name__} would have to be loaded whole"):
            open_dataset(form(ROWS), memory="1MB")


def test_a_question_of_polars_is_no_table() -> None:
    with pytest.raises(DataError, match="LazyFrame of polars is a question"):
        open_dataset(polars().DataFrame({"a": [1.0]}).lazy())


class Exported:
    """An array that shares memory by DLPack and by nothing else."""

    def __init__(self, array: NDArray[Any], device: tuple[int, int] = (1, 0)) -> None:
        self._array, self._device = array, device
        self.shape, self.dtype = array.shape, array.dtype

    def __dlpack__(self, **how: Any) -> Any:
        if self._device != (1, 0):
            raise BufferError("there is no way from here")
        return self._array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


def test_arrays_that_share_memory_by_dlpack() -> None:
    model = GaussianMixture(2, random_state=0)
    assert same(model.fit(Exported(ROWS)), GaussianMixture(2, random_state=0).fit(ROWS))
    assert isinstance(model.predict(Exported(ROWS)), np.ndarray)
    with pytest.raises(DataError, match="Exported can't be read by DLPack: there is no way"):
        open_dataset(Exported(ROWS, (2, 0)))
    with pytest.raises(PlanError, match="Exported would have to be loaded"):
        open_dataset(Exported(ROWS, (2, 0)), memory="1MB")


def test_datasets_of_h5py_are_read_block_by_block(tmp_path: Path) -> None:
    """By their addresses where they can; as what they stand for, unless raw."""
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/rows", data=ROWS, chunks=(50, 3))
        packed = file.create_dataset("packed", data=np.arange(6, dtype="i2").reshape(3, 2))
        packed.attrs.update({"scale_factor": 0.5, "_FillValue": np.int16(5)})
        own = open_dataset(file["group/rows"], block_bytes=1200)  # open for writing
        assert own.in_process
        assert own.blocks == 12
        np.testing.assert_array_equal(own.block(3).rows, ROWS[150:200])
    with h5py.File(path) as file:
        rows = open_dataset(file["group/rows"])
        assert not rows.in_process
        assert open_dataset(file["packed"], raw=True).block(0).rows.tolist()[2] == [4, 5]
        values = open_dataset(file["packed"]).block(0).rows
        np.testing.assert_array_equal(values, [[0, 0.5], [1, 1.5], [2, np.nan]])
        with pytest.raises(UsageError, match="a Dataset, which has no names of columns"):
            open_dataset(file["packed"], columns=["a"])
        model = GaussianMixture(2, random_state=0).fit(file["group/rows"])
        labels = model.predict(file["group/rows"])
        named = open_dataset(f"{path}::group/rows")  # while it is open in this process
        np.testing.assert_array_equal(named.block(0).rows, ROWS)
    np.testing.assert_array_equal(labels, model.predict(ROWS))


@pytest.mark.parametrize("library", ["netCDF4", "h5netcdf.legacyapi"])
def test_variables_of_open_netcdf_files(library: str, tmp_path: Path) -> None:
    dataset = pytest.importorskip(library).Dataset
    stored = np.random.default_rng(3).integers(0, 99, (200, 3), dtype="i2")
    with dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("row", 200)
        file.createDimension("column", 3)
        variable = file.createVariable("x", "i2", ("row", "column"), fill_value=7)
        variable.scale_factor = 0.5
        if library == "netCDF4":
            variable.set_auto_maskandscale(False)
        variable[:] = stored
    with dataset(tmp_path / "x.nc") as file:
        read = open_dataset(file.variables["x"])
        assert read.in_process
        expected = np.where(stored == 7, np.nan, stored * 0.5)
        np.testing.assert_array_equal(read.block(0).rows, expected)
        model = GaussianMixture(2, random_state=0, missing="marginalize").fit(file.variables["x"])
        assert model.predict(file.variables["x"]).shape == (200,)


def test_what_lies_beside_a_frame_in_another_order_is_refused() -> None:
    """Rows are taken by their places, so that an index of the same names elsewhere is a slip."""
    frame = pd.DataFrame(ROWS, index=[f"row {i}" for i in range(len(ROWS))])
    beside = pd.Series(np.arange(len(ROWS)) % 2, index=frame.index)
    model = GaussianMixture(2, random_state=0).fit(frame, labels=beside, sample_weight=beside + 1)
    turned = beside[::-1]
    for given in ({"labels": turned}, {"sample_weight": turned}, {"noise": frame[::-1] ** 2}):
        with pytest.raises(DataError, match="have the index of the rows in another order"):
            GaussianMixture(2).fit(frame, **given)
    with pytest.raises(DataError, match="another order"):
        open_dataset(frame, turned)
    again = GaussianMixture(2, random_state=0)  # an index of its own says nothing of an order
    again.fit(frame, labels=beside.reset_index(drop=True), sample_weight=beside + 1)
    np.testing.assert_array_equal(again.means_, model.means_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_columns_put_together_one_by_one_are_not_copied() -> None:
    frame = pd.DataFrame({"x0": np.arange(100_000.0)})
    for j in range(1, 10):
        frame[f"x{j}"] = np.random.default_rng(j).normal(size=len(frame))
    whole = frame.copy()  # which brings them together
    tracemalloc.start()
    try:
        dataset = open_dataset(frame)
        for index in range(dataset.blocks):
            rows = dataset.block(index).rows
            start, stop = dataset.row_range(index)
            np.testing.assert_array_equal(rows, whole.iloc[start:stop])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dataset.blocks > 5
    assert most < frame.size * 8
    fits = [GaussianMixture(2, random_state=0, max_iter=2).fit(each) for each in (frame, whole)]
    assert same(*fits)
