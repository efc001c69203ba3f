"""Arrays of xarray: axes of rows and of features, in memory and lazy; labels on the rows' axes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

import dgmm
from dgmm.data.dataset import Dataset

BANDS = ["red", "green", "nir"]
SIZES = {"band": 3, "y": 20, "x": 30}


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    """An image of three bands, the first axis, with coordinates."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 20, 30)) + 7 * (np.arange(30) > 14)
    coords = {"band": BANDS, "y": np.arange(20) * 10.0, "x": ("x", np.arange(30), {"units": "m"})}
    return xr.DataArray(values, dims=tuple(SIZES), coords=coords, name="image")


def model_of(data: Any, **how: Any) -> dgmm.GaussianMixture:
    return dgmm.GaussianMixture(2, random_state=0).fit(data, **how)


def rows_of(cube: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(cube.transpose("y", "x", "band").values.reshape(-1, 3))


def test_an_image_gives_an_image_of_labels(cube: xr.DataArray) -> None:
    model = model_of(cube)
    plain = model_of(rows_of(cube))
    assert model.means_.tobytes() == plain.means_.tobytes()
    assert model.feature_names_in_.tolist() == BANDS
    labels = model.predict(cube)
    assert isinstance(labels, xr.DataArray)
    assert labels.dims == ("y", "x")
    xr.testing.assert_equal(labels.coords["x"], cube.coords["x"])
    assert "band" not in labels.coords
    np.testing.assert_array_equal(labels.values.ravel(), plain.predict(rows_of(cube)))
    proba = model.predict_proba(cube)
    assert proba.dims == ("y", "x", "component")
    np.testing.assert_array_equal(proba.values.reshape(-1, 2), plain.predict_proba(rows_of(cube)))
    scores = model.score_samples(cube)
    assert (scores.dims, scores.name) == (("y", "x"), "score")
    assert model.score(cube) == pytest.approx(float(scores.mean()), rel=1e-12)


CHUNKS: list[dict[str, Any]] = [
    {"band": 1, "y": 7, "x": 11},
    {"band": 3, "y": 20, "x": 5},
    {"band": (2, 1), "y": 4, "x": 30},
]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_lazy_images_stay_lazy_and_in_their_chunks(
    cube: xr.DataArray, chunks: dict[str, Any], clusters: Mapping[int, Client]
) -> None:
    lazy = cube.chunk(chunks)
    model = model_of(lazy)
    np.testing.assert_allclose(
        np.sort(model.means_, axis=0), np.sort(model_of(cube).means_, axis=0), rtol=1e-9
    )
    with clusters[2].as_current():
        assert model_of(lazy).means_.tobytes() == model.means_.tobytes()
    for output in ("predict", "predict_proba", "score_samples"):
        found = getattr(model, output)(lazy)
        assert isinstance(found.data, da.Array)
        assert found.chunks[:2] == lazy.chunks[1:]
        expected = getattr(model, output)(cube)
        xr.testing.assert_allclose(found.compute(), expected, rtol=1e-12)


def test_what_a_cube_lacks_is_filled_in_where_it_was(cube: xr.DataArray) -> None:
    holes = cube.where(np.random.default_rng(1).random(cube.shape) > 0.1)
    model = dgmm.GaussianMixture(2, random_state=0, missing="marginalize").fit(holes)
    for given in (holes, holes.chunk({"y": 6})):
        filled = model.impute(given)
        assert filled.dims == ("y", "x", "band")
        assert filled.coords["band"].values.tolist() == BANDS
        seen = filled.transpose(*cube.dims).values[holes.notnull().values]
        np.testing.assert_array_equal(seen, cube.values[holes.notnull().values])
        assert bool(filled.notnull().all())


@pytest.mark.parametrize("lazy", [False, True])
def test_weights_lie_on_the_axes_of_rows(cube: xr.DataArray, lazy: bool) -> None:
    weights = (1 + cube.isel(band=0, drop=True) ** 2).transpose("x", "y")
    given = cube.chunk({"y": 6, "x": 8}) if lazy else cube
    ours = model_of(given, sample_weight=weights.chunk({"x": 9}) if lazy else weights)
    plain = model_of(rows_of(cube), sample_weight=weights.transpose("y", "x").values.ravel())
    np.testing.assert_allclose(
        np.sort(ours.means_, axis=0), np.sort(plain.means_, axis=0), rtol=1e-9
    )
    with pytest.raises(dgmm.DataError, match="on the axes y, x must be a DataArray on the same"):
        model_of(given, sample_weight=weights.rename(x="time"))
    with pytest.raises(dgmm.DataError, match="not a Dataset on"):
        model_of(given, sample_weight=weights.to_dataset(name="w"))
    turned = weights.sortby("x", ascending=False)
    with pytest.raises(dgmm.DataError, match="other coordinates on the axis x than they"):
        model_of(given, sample_weight=turned)
    again = model_of(given, sample_weight=turned.sortby("x").drop_vars("x"))
    np.testing.assert_allclose(again.means_, ours.means_, rtol=1e-9)


def test_values_without_axes_lie_beside_rows_in_their_order(cube: xr.DataArray) -> None:
    weights = np.arange(600.0)
    for given in (cube, cube.chunk({"y": 7})):
        dataset = dgmm.open_dataset(given, weights)
        assert dataset.weights is not None
        read = np.concatenate([dataset.block(i).rows for i in range(dataset.blocks)])
        np.testing.assert_array_equal(read, rows_of(cube))
        np.testing.assert_array_equal(dataset.weights.read(0, 600), weights)
    scattered, first = cube.chunk({"y": 7, "x": 11}), np.abs(rows_of(cube))[:, 0]
    forms = (first, first.tolist(), pd.Series(first), da.from_array(first, chunks=77))
    for beside in (*forms, xr.DataArray(first, dims="row")):
        dataset = dgmm.open_dataset(scattered, beside, noise=np.abs(rows_of(cube)))
        assert dataset.weights is not None
        assert dataset.noise is not None
        for block in map(dataset.block, range(dataset.blocks)):
            np.testing.assert_array_equal(block.weights, np.abs(block.rows[:, 0]))
            np.testing.assert_array_equal(block.noise, np.abs(block.rows))
    unknown = da.from_array(first)[da.from_array(first) > 1]
    for beside in ("weights.npy", np.ma.array(first), unknown):
        with pytest.raises(dgmm.DataError, match="chunk by chunk along the axes y, x: what lies"):
            dgmm.open_dataset(scattered, beside)
    with pytest.raises(dgmm.DataError, match="weights must be one number a row"):
        dgmm.open_dataset(scattered, first[1:])


def test_weights_on_some_axes_are_the_same_along_the_others(cube: xr.DataArray) -> None:
    weights = xr.DataArray(np.cos(np.arange(20.0) / 20), dims="y", coords={"y": cube["y"]})
    every = np.repeat(weights.values, 30)
    for given in (cube, cube.chunk({"y": 7, "x": 11})):
        found = model_of(given, sample_weight=weights)
        expected = model_of(given, sample_weight=every)
        assert found.means_.tobytes() == expected.means_.tobytes()
    with pytest.raises(dgmm.DataError, match="other coordinates on the axis y"):
        model_of(cube, sample_weight=weights.assign_coords(y=weights["y"] + 1))


def test_lazy_values_lie_beside_rows_in_memory(cube: xr.DataArray) -> None:
    weights = np.abs(cube.isel(band=0, drop=True)).chunk({"y": 6, "x": 8})
    noise = np.abs(cube).chunk({"band": 2, "y": 6, "x": 8})
    block = dgmm.open_dataset(cube, weights, noise=noise).block(0)
    np.testing.assert_array_equal(block.weights, weights.values.ravel())
    np.testing.assert_array_equal(block.noise, rows_of(noise))
    # What is said of an opened array, or of one with lazy noise, is lazy, and where its rows are.
    model = model_of(cube)
    for found in (model.predict(dgmm.open_dataset(cube)), model.predict(cube, noise=0 * noise)):
        assert isinstance(found.data, da.Array)
        xr.testing.assert_equal(found.compute(), model.predict(cube))


def test_an_axis_of_rows_may_be_called_component(cube: xr.DataArray) -> None:
    named = cube.rename(y="component")
    assert model_of(named).predict_proba(named).dims == ("component", "x", "component_")


def test_noise_has_the_features_of_the_rows(cube: xr.DataArray) -> None:
    noise = 0.1 * xr.ones_like(cube)
    assert dgmm.open_dataset(cube, noise=noise).noise is not None
    with pytest.raises(dgmm.DataError, match="other coordinates on the axis band than they"):
        dgmm.open_dataset(cube, noise=noise.isel(band=[2, 1, 0]))


def test_variables_of_a_dataset_are_features(cube: xr.DataArray, tmp_path: Path) -> None:
    dataset = cube.to_dataset("band").assign(name=("y", [f"row {i}" for i in range(20)]))
    with pytest.raises(dgmm.DataError, match=r"name of the Dataset has dtype .*: it is no array"):
        model_of(dataset)
    model = model_of(dgmm.open_dataset(dataset, columns=BANDS))
    assert model.means_.tobytes() == model_of(cube).means_.tobytes()
    assert model.feature_names_in_.tolist() == BANDS
    labels = model.predict(dataset)  # which takes its features by their names
    xr.testing.assert_equal(labels, model.predict(cube))
    dataset[BANDS].to_zarr(
        tmp_path / "bands.zarr", zarr_format=2, encoding={"red": {"chunks": (5, 30)}}
    )
    for chunks in (None, {}):
        stored = xr.open_zarr(tmp_path / "bands.zarr", chunks=chunks)
        assert dgmm.open_dataset(stored).lazy  # and not loaded whole
        np.testing.assert_array_equal(model.predict(stored).values, labels.values)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_pixel_is_a_row(cube: xr.DataArray, lazy: bool) -> None:
    model, pixel = model_of(cube), cube.isel(y=3, x=4)
    proba = model.predict_proba(cube).values[3, 4]
    for given in (pixel.to_dataset("band"), pixel):
        if given is pixel:
            given = dgmm.open_dataset(pixel.chunk() if lazy else pixel, features_dim="band")
        else:
            given = given.chunk() if lazy else given
        found = model.predict_proba(given)
        assert (found.dims, found.coords["x"]) == (("component",), cube.coords["x"][4])
        np.testing.assert_allclose(found.values, proba, rtol=1e-12)
        assert model.predict(given).shape == ()


def test_variables_lie_on_the_axes_of_one_of_them(cube: xr.DataArray) -> None:
    dataset = cube.to_dataset("band").assign(height=cube["y"].drop_vars("y") * 1.0)
    rows = np.column_stack([rows_of(cube), np.repeat(np.arange(20) * 10.0, 30)])
    np.testing.assert_array_equal(dgmm.open_dataset(dataset).block(0).rows, rows)
    bounds = xr.DataArray(np.zeros((20, 2)), dims=("y", "bounds"))
    with pytest.raises(dgmm.DataError, match=r"y_bounds has the axes y, bounds, and .* y, x: feat"):
        dgmm.open_dataset(dataset.assign(y_bounds=bounds))


def test_two_axes_are_rows_and_features_unless_said_otherwise(cube: xr.DataArray) -> None:
    flat = cube.stack(pixel=("y", "x"))
    for given in (flat.transpose("pixel", "band"), flat):
        labels = model_of(given).predict(given)
        assert labels.dims == ("pixel",)
    named = flat.rename(band="sensor").transpose("sensor", "pixel").reset_index("pixel")
    opened = dgmm.open_dataset(named, features_dim="sensor")
    assert isinstance(opened, Dataset)
    assert (opened.rows, opened.n_features, opened.names) == (600, 3, tuple(BANDS))
    assert model_of(opened).predict(opened).dims == ("pixel",)


def test_axes_that_can_not_be_told_are_asked_for(cube: xr.DataArray) -> None:
    with pytest.raises(dgmm.DataError, match=r"axes t, y, x: say which.*features_dim='x'"):
        model_of(cube.rename(band="t"))
    with pytest.raises(dgmm.DataError, match="features_dim='time'"):
        dgmm.open_dataset(xr.DataArray(np.zeros((3, 4, 5)), dims=("time", "lat", "lon")))
    with pytest.raises(dgmm.UsageError, match="features_dim='z' is no axis of the DataArray image"):
        dgmm.open_dataset(cube, features_dim="z")
    with pytest.raises(dgmm.UsageError, match="features_dim='z' is an axis of an array of xarray"):
        dgmm.open_dataset(np.zeros((3, 2)), features_dim="z")
    with pytest.raises(dgmm.DataError, match="rows must be 2-D"):
        model_of(cube[0, 0])
    packed = cube.assign_attrs(scale_factor=0.1)
    with pytest.raises(dgmm.DataError, match="stand for other values: decode it"):
        model_of(packed)
    model = model_of(cube)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(cube.assign_coords(band=["red", "nir", "green"]))


def test_what_is_in_memory_is_copied_only_if_there_is_room(cube: xr.DataArray) -> None:
    """Where features come first, or are variables; others are taken as they are."""
    last = cube.transpose("y", "x", "band")
    last = last.copy(data=np.ascontiguousarray(last))
    assert dgmm.open_dataset(last, memory="1MB").rows == 600
    for data in (cube, cube.to_dataset("band")):
        kind = type(data).__name__
        with pytest.raises(dgmm.PlanError, match=rf"a copy of the {kind}.* would have to be load"):
            dgmm.open_dataset(data, memory="1MB")
        with pytest.raises(dgmm.PlanError, match=rf"a copy of the {kind}"):
            dgmm.GaussianMixture(2, memory="1MB").fit(data)
        chunked = data.chunk({"y": 5})
        assert dgmm.open_dataset(chunked, memory="1MB").rows == 600
