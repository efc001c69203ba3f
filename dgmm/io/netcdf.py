"""Outputs of rows as variables of a NetCDF file, on the axes of the rows, with their coordinates.

What says something of the axes of rows by the CF conventions (coordinates, bounds, grid mappings)
comes along as it is stored, with all attributes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dgmm.data.auxiliary import Variable
from dgmm.data.dataset import Dataset
from dgmm.data.urls import place
from dgmm.io.files import FileTarget, cast, no_value, row_size, slabs, stored_type
from dgmm.io.targets import Beside
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.extras import require
from dgmm.model.lazy import Late

h5netcdf = Late("h5netcdf")

MARK: Final = "dgmm"
"""The attribute that files of outputs have."""

CARRIED: Final = ("coordinates", "grid_mapping")
"""Attributes of a feature that are true of what is said of it."""


@dataclass(frozen=True)
class _Axes:
    """The axes of rows: their names and sizes, and what is said of them."""

    sizes: dict[str, int]
    variables: dict[str, Any]
    said: dict[str, Any]
    of_file: dict[str, Any]


class NetCdfTarget(FileTarget):
    """A NetCDF-4 file."""

    called = "NetCDF file"

    def check(self, url: str, dataset: Dataset) -> None:
        super().check(url, dataset)
        require("hdf5", f"{url}: writing NetCDF", "h5netcdf")

    def is_at(self, url: str) -> bool:
        try:
            with _opened(url) as file:
                return MARK in file.attrs
        except (OSError, ValueError):
            return False

    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        with _axes(dataset) as axes, h5netcdf.File(path, "w") as file:
            file.attrs.update({**axes.of_file, MARK: wanted.output.name})
            for dim, size in axes.sizes.items():
                file.dimensions[dim] = size
            for name, variable in axes.variables.items():
                _copy(variable, file, name)
            names = beside.names
            apart = wanted.output.by_feature or len(names) == 1 or bool(wanted.output.names)
            _put(file, array, axes, wanted, names if apart else ())


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    filesystem, path = place(url)
    with filesystem.open(path, "rb") as file, h5netcdf.File(file, "r", phony_dims="sort") as opened:
        yield opened


@contextmanager
def _axes(dataset: Dataset) -> Iterator[_Axes]:
    """The axes that the rows of a dataset lie on, while inside; one called row if none are told."""
    grid = dataset.source.grid
    if grid is None:
        yield _Axes({"row": dataset.rows}, {}, {}, {})
        return
    with _opened(grid.url) as file:
        feature = file[grid.path]
        group = feature._parent
        axes = _about(group, feature, feature.dimensions)
        said = {
            each: feature.attrs[each]
            for each in CARRIED
            if each in feature.attrs and _names(feature, each) <= set(axes)
        }
        sizes = dict(zip(feature.dimensions, feature.shape, strict=True))
        yield _Axes(sizes, axes, said, dict(file.attrs))


def _names(variable: Any, attribute: str) -> set[str]:
    return set(Variable((), {attribute: variable.attrs[attribute]}).names)


def _about(group: Any, feature: Any, dims: tuple[str, ...]) -> dict[str, Any]:
    """The variables that say something of the axes of a feature, and of what says so, by names."""
    about: dict[str, Any] = {}
    sought = [*dims, *Variable((), feature.attrs).names]
    while sought:
        name = sought.pop(0)
        variable = _looked_up(group, name)
        if variable is None or name in about or "/" in name:
            continue
        about[name] = variable
        sought += Variable((), variable.attrs).names
    return about


def _looked_up(group: Any, name: str) -> Any:
    """The variable of that name in a group, or in one above it (CF 2.7); None if there is none."""
    while group is not None:
        if name in group.variables:
            return group.variables[name]
        group = None if group.name == "/" else group.parent
    return None


def _copy(variable: Any, file: Any, name: str) -> None:
    """Copy a variable, a slab at a time, with what is said of it."""
    for dim, size in zip(variable.dimensions, variable.shape, strict=True):
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    dtype, fill = variable.dtype, variable.attrs.get("_FillValue")
    copy = file.create_variable(name, variable.dimensions, dtype, fillvalue=fill)
    for attribute, value in variable.attrs.items():
        if attribute != "_FillValue":
            copy.attrs[attribute] = value
    if not variable.shape:
        copy[...] = variable[...]
        return
    for where, _, _ in slabs(variable.shape, np.dtype(dtype).itemsize):
        copy[where] = variable[where]


def _put(file: Any, array: Any, axes: _Axes, wanted: RowOutputs, names: tuple[str, ...]) -> None:
    """Write outputs (N, ...): a variable for each of ``names``, or one of more axes."""
    dtype = stored_type(wanted)
    dims, shape = tuple(axes.sizes), tuple(axes.sizes.values())
    tail: tuple[int, ...] = () if names else array.shape[1:]
    for called, size in zip(wanted.output.axes, tail, strict=False):
        while called in file.dimensions:
            called += "_"
        file.dimensions[called] = size
        dims += (called,)
    cell = dtype.itemsize * row_size(array)
    parts = list(slabs(shape, cell))
    first = parts[0][0]
    chunks = (*(1 for _ in first[:-1]), first[-1].stop - first[-1].start, *shape[len(first) :])
    variables = [
        file.create_variable(
            name,
            dims,
            dtype,
            fillvalue=no_value(dtype),
            chunks=(*chunks, *tail),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        for name in names or (wanted.output.name.removesuffix("s"),)
    ]
    for each in variables:
        each.attrs.update({**_said(wanted, dtype), **axes.said})
    for where, start, stop in parts:
        rows = cast(array[start:stop], dtype).reshape(stop - start, -1)
        inner = (-1, *shape[len(where) :])
        if not names:
            variables[0][where] = rows.reshape(*inner, *tail)
            continue
        for j, each in enumerate(variables):
            each[where] = rows[:, j].reshape(inner)


def _said(wanted: RowOutputs, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Attributes of outputs: the numbers of components are flags (CF 3.5)."""
    if wanted.output.name != "labels":
        return {}
    components = range(wanted.mixture.components)
    noise = wanted.mixture.noise_component is not None
    values = [*[-1] * noise, *components]
    meanings = [*["noise"] * noise, *(f"component_{k}" for k in components)]
    return {"flag_values": np.array(values, dtype), "flag_meanings": " ".join(meanings)}
