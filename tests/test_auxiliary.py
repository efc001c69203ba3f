"""Variables that say something of others are no features, unless asked for by their names."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import dgmm
from dgmm.data.auxiliary import Variable, auxiliary

RNG = np.random.default_rng(0)
SHAPE = (4, 3, 5)
LATITUDES = RNG.normal(size=SHAPE[1:])


def cube() -> xr.Dataset:
    """As models and satellites have them: two variables, and what is said of them."""
    variables = {
        "t2m": (("time", "y", "x"), RNG.normal(size=SHAPE)),
        "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        "height": ((), 2.0),
        "rain": (("time", "y", "x"), RNG.normal(size=SHAPE)),
        "time_bnds": (("time", "nv"), np.arange(8.0).reshape(4, 2)),
        "area": (("y", "x"), np.ones(SHAPE[1:])),
    }
    made = xr.Dataset(variables, coords={"time": ("time", np.arange(4.0), {"bounds": "time_bnds"})})
    made = made.assign_coords(lat=(("y", "x"), LATITUDES))
    for name in ("t2m", "rain"):
        made[name].attrs |= {"cell_measures": "area: area", "units": "K"}
        made[name].encoding["grid_mapping"] = "crs"
    return made


@pytest.mark.parametrize("form", ["xarray", "nc", "zarr", "zarr 2", "opened", "all"])
def test_what_is_said_of_variables_is_no_feature(form: str, tmp_path: Path) -> None:
    dataset = cube()
    data: object = dataset
    if form in ("nc", "opened", "all"):
        pytest.importorskip("h5netcdf")
        data = tmp_path / "cube.nc"
        dataset.to_netcdf(data, engine="h5netcdf")
        if form != "nc":
            data = xr.open_dataset(data, decode_coords="all" if form == "all" else True)
    elif form.startswith("zarr"):
        data = tmp_path / "cube.zarr"
        dataset.to_zarr(data, zarr_format=2 if form == "zarr 2" else 3, consolidated=False)
    left_out = [["!crs"]] if form != "all" else []  # where they are coordinates already
    left_out += [["!lat"]] if form in ("nc", "zarr") else []
    for columns in (["*"], ["t*", "r*"], *left_out):
        opened = dgmm.open_dataset(data, columns=columns)
        assert sorted(opened.names or ()) == ["rain", "t2m"], columns
        assert opened.rows == 60
    if isinstance(data, xr.Dataset):
        assert dgmm.open_dataset(data).names == ("t2m", "rain")
        with_area = dgmm.open_dataset(data.reset_coords(), columns=["t2m", "area", "lat"])
        np.testing.assert_array_equal(
            with_area.block(0).rows[:, 2].reshape(SHAPE)[1], LATITUDES, strict=True
        )
        return
    with pytest.raises(dgmm.DataError, match=r"crs has shape \(\)"):  # as asked for
        dgmm.open_dataset(data, columns=["t2m", "crs"])
    with pytest.raises(dgmm.DataError, match=r"name one.*(::|/)rain, \S+(::|/)t2m, "):
        dgmm.open_dataset(data)


def test_variables_are_named_as_the_conventions_have_it() -> None:
    plain = {name: Variable((3,), {}) for name in ("crs", "x", "y", "area", "a/t", "a/crs", "ps")}
    naming = {
        "extended": ({"grid_mapping": "crs: x y"}, {"crs", "x", "y"}),
        "measures": ({"cell_measures": "area: area volume: nothing"}, {"area"}),
        "bytes": ({"bounds": b"x"}, {"x"}),
        "arrays": ({"bounds": np.array(["y"], dtype=object)}, {"y"}),
        "formulas": ({"formula_terms": "p0: ps"}, set()),
        "numbers": ({"coordinates": 3}, set()),
    }
    for said, expected in naming.values():
        assert auxiliary({**plain, "t": Variable((3,), said)}, {}) == expected
    near = {**plain, "a/t": Variable((3,), {"grid_mapping": "crs", "coordinates": "/x"})}
    assert auxiliary(near, {}) == {"a/crs", "x"}
    assert auxiliary(plain, {"coordinates": "y"}) == {"y"}
    assert auxiliary({"x": Variable((3,), {}, is_axis=True)}, {}) == set()  # there is no other


def test_texts_among_variables_are_refused_by_name(tmp_path: Path) -> None:
    dataset = cube().assign(station=("x", list("abcde")))
    with pytest.raises(dgmm.DataError, match=r"station of the Dataset .*columns=\['!station'\]"):
        dgmm.open_dataset(dataset)
    assert dgmm.open_dataset(dataset, columns=["!station"]).names == ("t2m", "rain")
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=2)
    for name, values in (("a", np.zeros(3)), ("flag", np.array(["x", "y", "z"]))):
        group.create_array(name, data=values)
    with pytest.raises(dgmm.DataError, match=r"flag has dtype .*leave flag out"):
        dgmm.open_dataset(tmp_path / "g.zarr", columns=["*"])
