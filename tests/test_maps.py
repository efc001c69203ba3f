"""Rasters and cubes in, rasters and cubes out: on the same axes, at the same place on earth."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import dgmm
import dgmm.data.dataset as datasets
from dgmm.cli.commands import main
from dgmm.data.raster import RasterSource
from dgmm.io import files, geotiff, netcdf

rasterio = pytest.importorskip("rasterio")

# Of rasterio itself, by what it is built on.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

HEIGHT, WIDTH = 30, 50
RNG = np.random.default_rng(0)
KINDS = (np.arange(HEIGHT)[:, None] // 10 + np.arange(WIDTH) // 25) % 2
BANDS = (1000 * (1 + KINDS) + RNG.normal(0, 50, (3, HEIGHT, WIDTH))).astype("uint16")
BANDS[:, :3, :7] = 0  # no data
PLACE: dict[str, Any] = {
    "crs": "EPSG:32633",
    "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6),
}


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*words, "--quiet"] if words[0] != "show" else [*words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "image.tif"
    profile = {"height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", blockysize=4, **profile, **PLACE) as made:
        made.write(BANDS)
        made.descriptions = ("red", "green", "nir")
    run("fit", str(path), "-k", "2", "--missing", "drop", "-o", f"{path.parent}/m.dgmm")
    return path


def test_a_raster_is_read_as_rioxarray_reads_it(image: Path, tmp_path: Path) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    there = rioxarray.open_rasterio(image, masked=True)
    dataset = dgmm.open_dataset(image, block_bytes=3000)
    assert dataset.blocks > 3
    assert dataset.names == ("red", "green", "nir")
    rows = np.concatenate([dataset.block(i).rows for i in range(dataset.blocks)])
    np.testing.assert_array_equal(rows, there.values.reshape(3, -1).T)
    np.testing.assert_array_equal(dataset.source.read(17, 141), rows[17:141])
    chosen = dgmm.open_dataset(image, columns=["nir", "red"])
    np.testing.assert_array_equal(chosen.block(0).rows, rows[:, [2, 0]])
    raw = dgmm.open_dataset(image, raw=True)
    assert raw.source.dtype == np.uint16

    scaled = tmp_path / "scaled.tif"
    with (
        rasterio.open(image) as own,
        rasterio.open(scaled, "w", **{**own.profile, "count": 4, "nodata": None}) as made,
    ):
        colors = rasterio.enums.ColorInterp
        made.colorinterp = [*[colors.gray] * 3, colors.alpha]
        made.write(np.concatenate([BANDS, 65535 * (BANDS[:1] > 0)]).astype("uint16"))
        made.scales, made.offsets = (0.5, 0.5, 0.5, 1), (1, 2, 3, 0)
    found = dgmm.open_dataset(scaled)
    assert found.names == ("band_1", "band_2", "band_3")  # not which pixels have data
    np.testing.assert_array_equal(found.block(0).rows, rows * 0.5 + np.array([1, 2, 3]))


def test_labels_of_a_raster_are_one_at_its_place(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geotiff, "STRIP_BYTES", 1000)  # several strips, of whole lines
    words = [str(image), "-m", f"{image.parent}/m.dgmm", "-o"]
    for kind in ("labels", "proba", "score"):
        run("predict", *words, f"{tmp_path}/{kind}.tif", "--kind", kind)
    model = dgmm.load(image.parent / "m.dgmm")
    expected = np.asarray(model.predict(image)).reshape(HEIGHT, WIDTH)
    with rasterio.open(tmp_path / "labels.tif") as made:
        assert (made.crs, made.transform) == (PLACE["crs"], PLACE["transform"])
        assert (made.dtypes, made.nodata) == (("int16",), -2)
        np.testing.assert_array_equal(made.read(1), expected)
        assert (expected == -2).sum() == 21
    agree = np.mean((expected == expected[4, 0]) == (KINDS[4, 0] == KINDS))
    assert agree > 0.98
    with rasterio.open(tmp_path / "proba.tif") as made:
        assert made.descriptions == ("proba_0", "proba_1")
        proba = np.asarray(model.predict_proba(image)).T.reshape(2, HEIGHT, WIDTH)
        np.testing.assert_array_equal(made.read(), proba)
        assert np.isnan(made.nodata)
    assert {each.name for each in tmp_path.iterdir()} == {
        "labels.tif",
        "proba.tif",
        "score.tif",
    }
    run("predict", *words, f"{tmp_path}/labels.tif", code=3)
    run("predict", *words, f"{tmp_path}/labels.tif", "--overwrite")
    assert "overwritten" in run("predict", *words, str(image), "--overwrite", code=3)
    np.save(tmp_path / "rows.npy", np.zeros((9, 3)))
    told = run(*("predict", f"{tmp_path}/rows.npy", *words[1:], f"{tmp_path}/x.tif"), code=2)
    assert "a GeoTIFF file is written of one" in told


@pytest.mark.parametrize("thrown", [KeyboardInterrupt, OSError])
def test_a_file_is_there_whole_or_not_at_all(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thrown: type[BaseException]
) -> None:
    """Where the file itself is half-written when it ends, and where rows are."""
    words = ["predict", str(image), "-m", f"{image.parent}/m.dgmm", "-o", f"{tmp_path}/x.tif"]
    read = RasterSource.read

    def fail(*_: Any) -> Any:
        raise thrown("no more")

    for where, name in ((geotiff, "cast"), (RasterSource, "read")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            assert CliRunner().invoke(main, words).exit_code
        assert list(tmp_path.iterdir()) == []
    assert RasterSource.read is read
    run(*words)


@pytest.mark.parametrize(("ending", "module"), [("tif", geotiff), ("nc", netcdf)])
def test_a_process_that_is_killed_leaves_no_file_half_written(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, module: ModuleType
) -> None:
    """The file there was stays as it was, until another is whole."""
    monkeypatch.setattr(geotiff, "STRIP_BYTES", 1000)
    monkeypatch.setattr(files, "SLAB_BYTES", 1000)
    words = [str(image), "-m", f"{image.parent}/m.dgmm", "-o", f"{tmp_path}/x.{ending}"]
    run("predict", *words)
    before = (tmp_path / f"x.{ending}").read_bytes()
    cast, written = module.cast, []

    def die(*given: Any) -> Any:
        written.append(given)
        if len(written) == 2:  # after one strip
            os.kill(os.getpid(), signal.SIGKILL)
        return cast(*given)

    child = os.fork()
    if not child:
        module.cast = die
        CliRunner().invoke(main, ["predict", *words, "--kind", "score", "--overwrite"])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (half,) = tmp_path.glob("*.partial/whole.*")
    assert half.stat().st_size
    assert (tmp_path / f"x.{ending}").read_bytes() == before
    run("predict", *words, "--kind", "score", "--overwrite")
    assert (tmp_path / f"x.{ending}").read_bytes() != before


SHORT_OF_ROOM = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20)); "
    "from dgmm.__main__ import main; main()"
)
"""A file may have 3 MiB: the chunks of a Zarr array do, and a file made of them does not."""


@pytest.mark.parametrize("ending", ["tif", "nc", "csv", "npy"])
def test_a_file_that_finds_no_room_is_told(tmp_path: Path, ending: str) -> None:
    """And the process ends in good order: HDF5 crashes where it can't close a file."""
    bands, rows = RNG.normal(size=(4, 600, 1000)), str(tmp_path / "rows.tif")
    with rasterio.open(
        rows, "w", driver="GTiff", height=600, width=1000, count=4, dtype="float64", **PLACE
    ) as made:
        made.write(bands)
    model = dgmm.GaussianMixture.from_parameters([1.0], np.zeros((1, 4)), [np.eye(4)])
    model.save(tmp_path / "m.dgmm")
    words = [rows, "-m", f"{tmp_path}/m.dgmm", "-o", f"{tmp_path}/x.{ending}", "--kind", "score"]
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_ROOM, "predict", *words, "--quiet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert f"x.{ending} can't be written" in done.stderr
    assert "previous exception" not in done.stderr
    assert list(tmp_path.glob("x.*")) == []


CUBE = xr.Dataset(
    {
        "t2m": (
            ("time", "lat", "lon"),
            280 + 20 * RNG.integers(0, 2, (5, 6, 7)) + RNG.random((5, 6, 7)),
        ),
        "rain": (("time", "lat", "lon"), RNG.random((5, 6, 7))),
        "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        "time_bounds": (("time", "side"), np.arange(10.0).reshape(5, 2)),
    },
    coords={
        "time": ("time", np.arange(5), {"units": "days since 2020-01-01", "bounds": "time_bounds"}),
        "lat": ("lat", np.linspace(-50, 50, 6), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(7.0)),
        "area": (("lat", "lon"), np.arange(42.0).reshape(6, 7), {"units": "m2"}),
        "zone": ("lat", list("abcdef")),
    },
    attrs={"title": "a cube"},
)
for name in ("t2m", "rain"):
    CUBE[name].attrs["grid_mapping"] = "crs"
CUBE["t2m"][:, 2, 3] = np.nan
CUBE["rain"][0, 2, 3] = np.nan  # and so nothing there


def test_labels_of_a_cube_have_its_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SLAB_BYTES", 100)  # several slabs, on several axes
    CUBE.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    model = dgmm.GaussianMixture(2, missing="drop", random_state=0)
    rows = dgmm.open_dataset(tmp_path / "cube.nc", columns=["t2m", "rain"])
    model.fit(rows).save(tmp_path / "m.dgmm")
    words = ["predict", f"{tmp_path}/cube.nc", "-m", f"{tmp_path}/m.dgmm", "-o"]
    run(*words, f"{tmp_path}/labels.nc")
    run(*words, f"{tmp_path}/proba.nc", "--kind", "proba")
    opened = xr.open_dataset(tmp_path / "cube.nc", engine="h5netcdf", decode_coords="all")
    whole = dgmm.GaussianMixture(2, missing="drop", random_state=0).fit(opened[["t2m", "rain"]])
    expected = model.predict(opened[["t2m", "rain"]])
    assert whole.n_features_in_ == 2

    with xr.open_dataset(tmp_path / "labels.nc", engine="h5netcdf", mask_and_scale=False) as plain:
        assert plain["label"].dtype == np.int16
        assert plain["label"].attrs["flag_meanings"] == "component_0 component_1"
        np.testing.assert_array_equal(plain["label"], expected)
    with xr.open_dataset(tmp_path / "labels.nc", engine="h5netcdf", decode_coords="all") as made:
        assert made.attrs["title"] == "a cube"
        for each in (made, opened):
            each.attrs.clear()
        xr.testing.assert_identical(made.coords.to_dataset(), opened.coords.to_dataset())
        np.testing.assert_array_equal(made["label"], expected.where(expected >= 0))
        assert int(made["label"].isnull().sum()) == 1
    with xr.open_dataset(tmp_path / "proba.nc", engine="h5netcdf") as made:
        assert made["proba"].dims == ("time", "lat", "lon", "component")
        np.testing.assert_array_equal(made["proba"], model.predict_proba(opened[["t2m", "rain"]]))
    run(
        *("impute", f"{tmp_path}/cube.nc", "-m", f"{tmp_path}/m.dgmm", "-o"),
        f"{tmp_path}/whole.nc",
    )
    with xr.open_dataset(tmp_path / "whole.nc", engine="h5netcdf") as made:
        assert not made["t2m"].isnull().any()
        seen = CUBE["rain"].notnull().values
        np.testing.assert_array_equal(made["rain"].values[seen], CUBE["rain"].values[seen])
    assert len(list(tmp_path.iterdir())) == 5
    run(*("impute", f"{tmp_path}/cube.nc", "-m", f"{tmp_path}/m.dgmm", "-o"), f"{tmp_path}/w.zarr")
    with xr.open_dataset(tmp_path / "whole.nc", engine="h5netcdf", decode_coords="all") as whole:
        made = xr.open_zarr(tmp_path / "w.zarr", decode_coords="all")
        xr.testing.assert_equal(made.compute(), whole)


@pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_labels_of_a_cube_in_a_store_have_its_axes(
    tmp_path: Path, zarr_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is said of them, and names of places, whatever else the store holds."""
    cube = CUBE.assign_coords(station=("lat", [f"é{i}" for i in range(CUBE.sizes["lat"])]))
    cube = cube.assign_attrs(title="a cube", history=["made", "moved"], nested={"a": 1})
    chunks = {name: {"chunks": (2, 6, 7)} for name in ("t2m", "rain")}
    cube.to_zarr(
        tmp_path / "cube.zarr", zarr_format=zarr_format, consolidated=False, encoding=chunks
    )
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 1)  # several blocks, of two times or one
    rows = dgmm.open_dataset(tmp_path / "cube.zarr", columns=["t2m", "rain"])
    model = dgmm.GaussianMixture(2, missing="drop", random_state=0).fit(rows)
    model.save(tmp_path / "m.dgmm")
    words = ["predict", f"{tmp_path}/cube.zarr", "-m", f"{tmp_path}/m.dgmm", "-o"]
    run(*words, f"{tmp_path}/labels.nc")
    run(*words, f"{tmp_path}/proba.nc", "--kind", "proba")
    opened = xr.open_zarr(tmp_path / "cube.zarr", decode_coords="all", consolidated=False)
    expected = model.predict(opened[["t2m", "rain"]])
    with xr.open_dataset(tmp_path / "labels.nc", engine="h5netcdf", decode_coords="all") as made:
        assert made.attrs["title"] == "a cube"
        assert list(made.attrs["history"]) == ["made", "moved"]
        xr.testing.assert_equal(made.coords.to_dataset(), opened.coords.to_dataset().compute())
        np.testing.assert_array_equal(made["label"], expected.where(expected >= 0))
        for name in ("lat", "crs"):
            assert made[name].attrs.keys() == opened[name].attrs.keys()
    with xr.open_dataset(tmp_path / "proba.nc", engine="h5netcdf") as made:
        assert made["proba"].dims == ("time", "lat", "lon", "component")

    run(*words, f"{tmp_path}/labels.zarr")
    run(*words, f"{tmp_path}/proba.zarr", "--kind", "proba")
    made = xr.open_zarr(tmp_path / "labels.zarr", decode_coords="all")
    assert made.attrs["title"] == "a cube"
    opened.attrs.clear()
    made.attrs.clear()
    xr.testing.assert_identical(made.coords.to_dataset(), opened.coords.to_dataset())
    made_labels = made["label"].values
    np.testing.assert_array_equal(made_labels, expected.where(expected >= 0))
    assert made["label"].attrs["flag_meanings"] == "component_0 component_1"
    assert made["label"].encoding["chunks"] == (2, 6, 7)
    made = xr.open_zarr(tmp_path / "proba.zarr")
    assert made["proba"].dims == ("time", "lat", "lon", "component")
    np.testing.assert_array_equal(made["proba"], model.predict_proba(opened[["t2m", "rain"]]))
    assert "overwritten" in run(*words, words[1], "--overwrite", code=3)
    run(*words, f"{tmp_path}/labels.zarr", "--overwrite")
    # They are a value a row, too, where a fit is to know them.
    of_rows = dgmm.open_dataset(
        *(tmp_path / "cube.zarr",), columns=["t2m"], labels=tmp_path / "labels.zarr" / "label"
    ).labels
    assert of_rows is not None
    np.testing.assert_array_equal(of_rows.read(3, 200), made_labels.ravel()[3:200])


def test_labels_of_any_rows_may_be_a_file(tmp_path: Path) -> None:
    rows = RNG.normal(size=(100, 2)) + 6 * (np.arange(100) % 2)[:, None]
    np.save(tmp_path / "rows.npy", rows)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    model.save(tmp_path / "m.dgmm")
    words = ["predict", f"{tmp_path}/rows.npy", "-m", f"{tmp_path}/m.dgmm", "--kind"]
    run(*words, "proba", "-o", f"{tmp_path}/proba.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), model.predict_proba(rows))
    run(*words, "labels", "-o", f"{tmp_path}/labels.nc")
    with xr.open_dataset(tmp_path / "labels.nc", engine="h5netcdf") as made:
        assert made["label"].dims == ("row",)
        np.testing.assert_array_equal(made["label"], model.predict(rows))


def test_labels_that_are_all_zero_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zarr leaves out chunks of its fill value, and what isn't stored reads as lost."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100 * 16)
    rows = RNG.normal(size=(300, 2)) + 9 * (np.arange(300) // 200)[:, None]
    np.save(tmp_path / "rows.npy", rows)
    dgmm.GaussianMixture(2, random_state=0).fit(rows).save(tmp_path / "m.dgmm")
    words = [f"{tmp_path}/rows.npy", "-m", f"{tmp_path}/m.dgmm", "-o", f"{tmp_path}/labels.zarr"]
    run("predict", *words)
    labels = dgmm.open_dataset(rows, labels=tmp_path / "labels.zarr").labels
    assert labels is not None
    assert set(np.unique(labels.read(0, 100))) < {0, 1}


def test_a_coordinate_of_characters_is_kept(tmp_path: Path) -> None:
    """With what stands for none of them, as NetCDF has it."""
    with h5netcdf.File(tmp_path / "cube.nc", "w") as file:
        file.dimensions = {"y": 10, "x": 6, "letter": 3}
        for name in ("a", "b"):
            variable = file.create_variable(name, ("y", "x"), data=RNG.normal(size=(10, 6)))
            variable.attrs["coordinates"] = "station"
        names = np.array([*"abcde", "ö1"]).astype(object)
        letters = np.array([each.encode() for each in names], "S3").view("S1").reshape(6, 3)
        file.create_variable("station", ("x", "letter"), fillvalue=b"\0", data=letters)
    dataset = dgmm.open_dataset(tmp_path / "cube.nc", columns=["a", "b"])
    dgmm.GaussianMixture(2, random_state=0).fit(dataset).save(tmp_path / "m.dgmm")
    words = ["predict", f"{tmp_path}/cube.nc", "--columns", "a,b", "-m", f"{tmp_path}/m.dgmm"]
    for name, opened in (("labels.zarr", xr.open_zarr), ("labels.nc", xr.open_dataset)):
        run(*words, "-o", f"{tmp_path}/{name}")
        with opened(tmp_path / name) as made:
            assert made["label"].dims == ("y", "x")
            stations = made["station"].values
            if name == "labels.zarr":
                assert made["station"].dims == ("x",)
                assert stations.tolist() == names.tolist()
            else:
                assert [each.decode() for each in stations] == names.tolist()
