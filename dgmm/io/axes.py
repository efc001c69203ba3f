"""The axes that rows lie on, and what is said of them: coordinates, bounds, grid mappings (CF).

The rows come from a file, or from a Zarr group whose arrays have named axes, as xarray writes them.
What says something of their axes is read as it is stored, with all attributes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import zarr

from dgmm.data.auxiliary import Variable
from dgmm.data.dataset import Dataset
from dgmm.data.hdf import is_hdf
from dgmm.data.packed import number
from dgmm.data.source import Grid
from dgmm.data.stored import attributes, axes_of
from dgmm.data.urls import place, zarr_store
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.lazy import Late

h5netcdf = Late("h5netcdf")

CARRIED: Final = ("coordinates", "grid_mapping")
"""Attributes of a feature that are true of what is said of it."""


class StoredVariable(Protocol):
    """A variable as h5netcdf has it."""

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
class _OfGroup:
    """An array of a Zarr group as such a variable."""

    array: "zarr.Array[Any]"

    @property
    def dimensions(self) -> tuple[str, ...]:
        return axes_of(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    @property
    def attrs(self) -> dict[str, Any]:
        said, dtype = attributes(self.array), self.dtype
        said.pop("_ARRAY_DIMENSIONS", None)
        if "_FillValue" in said and dtype.kind in "iuf":
            said["_FillValue"] = dtype.type(number(said["_FillValue"], dtype))
        return _writable(said)

    def __getitem__(self, where: Any) -> Any:
        return self.array[where]


@dataclass(frozen=True)
class Axes:
    """The axes of rows.

    Attributes
    ----------
    sizes : dict
        How long they are, by their names.
    variables : dict
        What says something of them, by name.
    said : dict
        Attributes of a feature that are true of outputs.
    of_file : dict
        Attributes of the file or the group.
    """

    sizes: dict[str, int]
    variables: dict[str, StoredVariable]
    said: dict[str, Any]
    of_file: dict[str, Any]

    def new(self, name: str) -> str:
        """The ``name`` of another axis, or one made of it that none has."""
        while name in self.sizes or name in self.variables:
            name += "_"
        return name


@contextmanager
def axes_of_rows(dataset: Dataset) -> Iterator[Axes]:
    """The axes that the rows of a dataset lie on, while inside; one called row if none are told."""
    grid = dataset.source.grid
    if grid is None:
        yield Axes({"row": dataset.rows}, {}, {}, {})
    elif is_hdf(grid.url):
        with opened(grid.url) as file:
            feature = file[grid.path]
            yield _axes_of(feature, lambda name: _looked_up(feature._parent, name), file.attrs)
    else:
        yield _axes_of_group(grid)


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The NetCDF or HDF5 file at ``url``, while inside."""
    filesystem, path = place(url)
    with filesystem.open(path, "rb") as file, h5netcdf.File(file, "r", phony_dims="sort") as read:
        yield read


def _axes_of_group(grid: Grid) -> Axes:
    """The axes of an array of a Zarr group."""
    path, _, name = grid.path.rpartition("/")
    group = zarr.open_group(zarr_store(grid.url), path=path or None, mode="r")

    def look_up(name: str) -> _OfGroup | None:
        node = group.get(name)
        whole = isinstance(node, zarr.Array) and len(axes_of(node)) == node.ndim
        return _OfGroup(node) if whole and isinstance(node, zarr.Array) else None

    feature = look_up(name)
    assert feature is not None  # it was found when the rows were opened
    return _axes_of(feature, look_up, _writable(group.attrs.asdict()))


def _writable(attributes: Any) -> dict[str, Any]:
    """Those attributes that a file can have: numbers, texts and lists of either."""
    kinds = {name: np.asarray(value).dtype.kind for name, value in attributes.items()}
    return {name: value for name, value in attributes.items() if kinds[name] in "iufU"}


def _axes_of(
    feature: StoredVariable, look_up: Callable[[str], StoredVariable | None], of_file: Any
) -> Axes:
    """The axes of a ``feature``; ``look_up`` finds what is of a name, if something is."""
    axes = _about(feature, look_up)
    said = {
        each: feature.attrs[each]
        for each in CARRIED
        if each in feature.attrs and _names(feature, each) <= set(axes)
    }
    sizes = dict(zip(feature.dimensions, feature.shape, strict=True))
    return Axes(sizes, axes, said, dict(of_file))


def _names(variable: Any, attribute: str) -> set[str]:
    return set(Variable((), {attribute: variable.attrs[attribute]}).names)


def _about(
    feature: StoredVariable, look_up: Callable[[str], StoredVariable | None]
) -> dict[str, StoredVariable]:
    """The variables that say something of the axes of a feature, and of what says so, by names."""
    about: dict[str, StoredVariable] = {}
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


def meanings(wanted: RowOutputs, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Attributes of outputs: the numbers of components are flags (CF 3.5)."""
    if wanted.output.name != "labels":
        return {}
    components = range(wanted.mixture.components)
    noise = wanted.mixture.noise_component is not None
    values = [*[-1] * noise, *components]
    words = [*["noise"] * noise, *(f"component_{k}" for k in components)]
    return {"flag_values": np.array(values, dtype), "flag_meanings": " ".join(words)}


def variables_of(wanted: RowOutputs, names: tuple[str, ...]) -> tuple[str, ...]:
    """A variable for each of the ``names`` of columns; none where one of more axes has them all."""
    apart = wanted.output.by_feature or len(names) == 1 or bool(wanted.output.names)
    return names if apart else ()


def whole_name(wanted: RowOutputs) -> str:
    """What a variable is called that has all columns of outputs."""
    return wanted.output.name.removesuffix("s")
