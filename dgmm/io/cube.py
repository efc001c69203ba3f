"""Outputs of rows that lie on several axes, as a Zarr group on the same, with their coordinates.

xarray opens it.  Rows go along the last axis first, and a block is whole places of the first: so
each task writes whole chunks of its own, as it does of a plain array.
"""

import base64
import math
import struct
import warnings
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.dataset import Dataset
from dgmm.data.hdf import is_hdf
from dgmm.data.urls import zarr_store
from dgmm.io.axes import (
    StoredVariable,
    axes_of_rows,
    meanings,
    variables_of,
    whole_name,
)
from dgmm.io.files import cast, no_value, slabs, stored_type
from dgmm.io.targets import MARK, Beside, ZarrTarget
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.extras import require


class CubeTarget(ZarrTarget):
    """A Zarr group: a variable of outputs, or several, and what says something of their axes."""

    called = "Zarr group"

    def check(self, url: str, dataset: Dataset) -> None:
        super().check(url, dataset)
        grid = dataset.source.grid
        if grid is not None and is_hdf(grid.url):
            require("hdf5", f"{url}: the axes of {grid.url}", "h5netcdf")

    def begin(self, url: str, dataset: Dataset, wanted: RowOutputs) -> None:
        dtype = stored_type(wanted)
        with axes_of_rows(dataset) as axes:
            names = variables_of(wanted, Beside.of(self, dataset, wanted).names)
            kind = {"kind": wanted.output.name, "of": dataset.source.name, "apart": list(names)}
            said = {**_plain(axes.of_file), MARK: kind}
            group = zarr.create_group(zarr_store(url), attributes=said, overwrite=True)
            for name, variable in axes.variables.items():
                _copy(variable, group, name)
            dims, shape = tuple(axes.sizes), tuple(axes.sizes.values())
            tail = () if names else wanted.columns
            more = tuple(map(axes.new, wanted.output.axes[: len(tail)]))
            along = dataset.block_rows // math.prod(shape[1:])
            for name in names or (whole_name(wanted),):
                group.create_array(
                    name,
                    shape=(*shape, *tail),
                    chunks=(along, *shape[1:], *tail),
                    dtype=dtype,
                    fill_value=no_value(dtype),
                    dimension_names=(*dims, *more),
                    attributes={
                        **_plain(axes.said | meanings(wanted, dtype)),
                        **_filled(no_value(dtype), dtype),
                    },
                )
            with warnings.catch_warnings():  # that version 3 of Zarr's format has no word of it yet
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(zarr_store(url))  # xarray warns of groups without

    def put(self, url: str, start: int, outputs: NDArray[Any], beside: Beside) -> None:
        group: Any = zarr.open_group(zarr_store(url), mode="r+")
        said: Any = group.attrs[MARK]
        apart = said["apart"]
        for j, name in enumerate(apart or [said["kind"].removesuffix("s")]):
            array = group[name].with_config({"write_empty_chunks": True})
            values = outputs.reshape(len(outputs), -1)[:, j] if apart else outputs
            inner = array.shape[1:]
            rows = math.prod(inner) // math.prod(values.shape[1:])  # of a place of the first axis
            first = start // rows
            array[first : first + len(outputs) // rows] = cast(
                values.reshape(-1, *inner), array.dtype
            )


def _copy(variable: StoredVariable, group: "zarr.Group", name: str) -> None:
    """Copy a variable, a slab at a time, with what is said of it.

    NetCDF may have texts as characters along an axis of their own: Zarr has them whole.
    """
    dtype: Any = np.dtype(variable.dtype)
    text = dtype.kind in "OSUT"
    shape, dims = variable.shape, variable.dimensions
    if dtype == "S1" and shape:
        shape, dims = shape[:-1], dims[:-1]
    attributes = dict(variable.attrs)
    fill = attributes.pop("_FillValue", None)
    array: Any = group.create_array(
        name,
        shape=shape,
        dtype=str if text else dtype.newbyteorder("="),
        dimension_names=dims,
        attributes=_plain(attributes) | ({} if text else _filled(fill, dtype)),
    )
    parts = slabs(shape, dtype.itemsize) if shape else [(..., 0, 1)]
    for where, _, _ in parts:
        values = variable[where]
        array[where] = _texts(values) if text else values


def _texts(given: Any) -> NDArray[Any]:
    """Texts as Zarr takes them, of such or of bytes; single ones are joined along the last axis."""
    values: NDArray[Any] = np.asarray(given)
    if values.dtype == "S1" and values.ndim:
        values = np.ascontiguousarray(values).view(f"S{values.shape[-1]}")[..., 0]
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values.astype(object)


def _filled(fill: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """The attribute that says what stands for no value, as xarray writes it."""
    if fill is None:
        return {}
    if dtype.kind == "f":
        return {"_FillValue": base64.b64encode(struct.pack("<d", fill)).decode()}
    return {"_FillValue": int(fill)}


def _plain(attributes: Any) -> dict[str, Any]:
    """Attributes as JSON has them; what it has no word for is left out."""
    plain = {name: np.asarray(value) for name, value in attributes.items()}
    return {
        name: value.tolist()
        for name, value in plain.items()
        if value.dtype.kind in "iuU" or (value.dtype.kind == "f" and np.isfinite(value).all())
    }
