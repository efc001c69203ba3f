"""Outputs of rows as variables of a NetCDF file, on the axes of the rows, with their coordinates.

The rows come from a file, or from a Zarr group whose arrays have named axes, as xarray writes them.

What says something of the axes of rows by the CF conventions (coordinates, bounds, grid mappings)
comes along as it is stored, with all attributes.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from dgmm.data.auxiliary import Variable
from dgmm.data.dataset import Dataset
from dgmm.data.hdf import is_hdf
from dgmm.data.source import Grid
from dgmm.data.urls import place, zarr_store
from dgmm.io.files import FileTarget, cast, no_value, row_size, slabs, stored_type
from dgmm.io.targets import Beside
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.extras import require
from dgmm.model.lazy import Late

h5netcdf, h5py, xarray = Late("h5netcdf"), Late("h5py"), Late("xarray")

MARK: Final = "dgmm"
"""The attribute that files of outputs have."""

CARRIED: Final = ("coordinates", "grid_mapping")
"""Attributes of a feature that are true of what is said of it."""


class _Variable(Protocol):
    """A variable of a file, as h5netcdf has it."""

    @property
    def dimensions(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def attrs(self) -> Any: ...

    def __getitem__(self, where: Any) -> Any: ...


@dataclass(frozen=True)
class _OfStore:
    """A variable of a Zarr group, as xarray opens it: as it is stored, not decoded."""

    variable: Any

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self.variable.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> Any:
        dtype = np.dtype(self.variable.dtype)
        if dtype.kind in "OUT":
            return h5py.string_dtype()
        return np.dtype(np.int8) if dtype.kind == "b" else dtype  # NetCDF has no yes and no

    @property
    def attrs(self) -> dict[str, Any]:
        return _writable(self.variable.attrs)

    def __getitem__(self, where: Any) -> Any:
        values = self.variable[where].values
        return values.astype(object) if values.dtype.kind in "UT" else values.astype(self.dtype)


@dataclass(frozen=True)
class _Axes:
    """The axes of rows: their names and sizes, and what is said of them."""

    sizes: dict[str, int]
    variables: dict[str, _Variable]
    said: dict[str, Any]
    of_file: dict[str, Any]


class NetCdfTarget(FileTarget):
    """A NetCDF-4 file."""

    called = "NetCDF file"

    def check(self, url: str, dataset: Dataset) -> None:
        super().check(url, dataset)
        require("hdf5", f"{url}: writing NetCDF", "h5netcdf")
        grid = dataset.source.grid
        if grid is not None and not is_hdf(grid.url):
            require("xarray", f"{url}: the axes of {grid.url}", "xarray")

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
    elif is_hdf(grid.url):
        with _opened(grid.url) as file:
            feature = file[grid.path]
            yield _axes_of(feature, lambda name: _looked_up(feature._parent, name), file.attrs)
    else:
        yield _axes_of_store(grid)


def _axes_of_store(grid: Grid) -> _Axes:
    """The axes of an array of a Zarr group."""
    group, _, name = grid.path.rpartition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that its metadata are not consolidated
        opened = xarray.open_zarr(
            zarr_store(grid.url), group=group or None, decode_cf=False, chunks=None
        )

    def look_up(name: str) -> _OfStore | None:
        return _OfStore(opened.variables[name]) if name in opened.variables else None

    feature = look_up(name)
    assert feature is not None  # it was found when the rows were opened
    return _axes_of(feature, look_up, _writable(opened.attrs))


def _writable(attributes: Any) -> dict[str, Any]:
    """Those attributes that a NetCDF file can have: numbers, texts and lists of either."""
    kinds = {name: np.asarray(value).dtype.kind for name, value in attributes.items()}
    return {name: value for name, value in attributes.items() if kinds[name] in "iufU"}


def _axes_of(feature: _Variable, look_up: Callable[[str], _Variable | None], of_file: Any) -> _Axes:
    """The axes of a ``feature``; ``look_up`` finds what is of a name, if something is."""
    axes = _about(feature, look_up)
    said = {
        each: feature.attrs[each]
        for each in CARRIED
        if each in feature.attrs and _names(feature, each) <= set(axes)
    }
    sizes = dict(zip(feature.dimensions, feature.shape, strict=True))
    return _Axes(sizes, axes, said, dict(of_file))


def _names(variable: Any, attribute: str) -> set[str]:
    return set(Variable((), {attribute: variable.attrs[attribute]}).names)


def _about(feature: _Variable, look_up: Callable[[str], _Variable | None]) -> dict[str, _Variable]:
    """The variables that say something of the axes of a feature, and of what says so, by names."""
    about: dict[str, _Variable] = {}
    sought = [*feature.dimensions, *Variable((), feature.attrs).names]
    while sought:
        name = sought.pop(0)
        variable = look_up(name)
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
