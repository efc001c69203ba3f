"""Arrays with named axes, of xarray: one axis holds the features, the others hold the rows.

What is lazy stays so.  The rows of an array over Dask go chunk by chunk, not along its last axis
first: so nothing is moved, and what is said of rows goes back to where they were.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dgmm.data.amounts import Amount, check_room
from dgmm.data.auxiliary import Variable, features
from dgmm.data.columns import chosen, once
from dgmm.data.kinds import has_axes, is_dask_array
from dgmm.data.packed import Packing
from dgmm.data.source import is_long
from dgmm.errors import DataError, UsageError
from dgmm.model.lazy import Late

da = Late("dask.array")

FEATURES: Final = ("feature", "features", "band", "bands", "variable", "channel")
"""What an axis of features is called, where nobody says and there are more than two."""


@dataclass(frozen=True)
class NamedAxes:
    """Rows with the axes that they come from.

    Attributes
    ----------
    rows : array (N, D)
        Of NumPy or Dask.
    names : tuple of str, or None
        Of the features.
    template : DataArray
        The first feature: its axes are those of rows.
    axis : str
        What the axis of features is called.
    features : DataArray or None
        The coordinate of the features.
    long : tuple of int, or None
        Which features are integers of 8 bytes, where the type of the rows does not tell.
    """

    rows: Any
    names: tuple[str, ...] | None
    template: Any
    axis: str
    features: Any
    long: tuple[int, ...] | None = None

    def put_back(
        self, outputs: Any, name: str, of_features: bool, axes: Sequence[str] = ("component",)
    ) -> Any:
        """An array of xarray of what is said of rows, (N,) or (N, ...), on the axes of rows.

        The other ``axes`` are called so, unless they are that of features.
        """
        dims, coords = list(self.template.dims), dict(self.template.coords)
        shape, tail = self.template.shape, outputs.shape[1:]
        if tail:
            dims += (
                [self.axis] if of_features else [_free(each, dims) for each in axes[: len(tail)]]
            )
            if of_features and self.features is not None:
                coords[self.axis] = self.features
        if self.template.chunks is not None and len(shape) > 1:  # rows went chunk by chunk
            chunks = (*self.template.chunks, *((size,) for size in tail))
            outputs = da.reshape_blockwise(outputs, (*shape, *tail), chunks=chunks)
        else:
            outputs = outputs.reshape((*shape, *tail))
        array = type(self.template)
        return array(outputs, dims=dims, coords=coords, name=name)

    def beside(self, values: Any) -> Any:
        """Values on the axes of rows, such as weights, in the order of the rows."""
        dims = self.template.dims
        if _lies_on_some(values, dims):
            others = {dim: self.template.sizes[dim] for dim in dims if dim not in values.dims}
            values = values.expand_dims(others)
        elif not has_axes(values) or (not hasattr(values, "data_vars") and values.ndim < 2):
            return self._in_order(values)
        tail = (self.axis,) if self.axis in values.sizes else ()
        if hasattr(values, "data_vars") or set(values.dims) != {*dims, *tail}:
            raise DataError(
                f"what lies beside rows on the axes {', '.join(map(str, dims))} must be a "
                f"DataArray on the same axes, not a {type(values).__name__} on "
                f"{', '.join(map(str, values.sizes))}"
            )
        values = values.transpose(*dims, *tail)
        if values.shape[: len(dims)] != self.template.shape:
            raise DataError(
                f"what lies beside rows must have their shape, {self.template.shape}; the "
                f"DataArray has shape {values.shape}"
            )
        self._check_places(values)
        if self.template.chunks is not None:
            chunks = dict(zip(dims, self.template.chunks, strict=True))
            values = values.chunk({**chunks, **dict.fromkeys(tail, -1)})
        elif values.chunks is not None:  # rows go along the last axis first: so must these
            values = values.chunk(dict.fromkeys((*dims[1:], *tail), -1))
        return _flat(array_of(values), (-1, *values.shape[len(dims) :]))

    def _in_order(self, values: Any) -> Any:
        """Values that go along the last axis of the rows first, in the order of the rows."""
        chunks, shape = self.template.chunks, self.template.shape
        if chunks is None or max(map(len, chunks[1:]), default=1) <= 1:
            return values  # the rows are in that order
        values = getattr(values, "data", values) if has_axes(values) else values
        array = values if is_dask_array(values) else _in_memory(values)
        if array is None or any(map(math.isnan, array.shape)):
            dims = ", ".join(map(str, self.template.dims))
            raise DataError(
                f"the rows go chunk by chunk along the axes {dims}: what lies beside them must be "
                "a DataArray on these, or an array in memory or of Dask, not a "
                f"{type(values).__name__}"
            )
        if array.shape[:1] != (math.prod(shape),):
            return values  # for the door to refuse
        tail = array.shape[1:]
        array = da.asarray(array).reshape(*shape, *tail)
        return _flat(array.rechunk((*chunks, *((n,) for n in tail))), (-1, *tail))

    def _check_places(self, values: Any) -> None:
        """Raise ``DataError`` if coordinates say that values lie elsewhere, or in another order."""
        indexes: dict[Any, Any] = dict(self.template.indexes)
        if self.names is not None:
            indexes[self.axis] = self.names
        for dim, index in values.indexes.items():
            if dim in indexes and list(index) != list(indexes[dim]):
                raise DataError(
                    f"what lies beside rows has other coordinates on the axis {dim} than they, or "
                    f"the same in another order: select theirs, or drop its own, "
                    f"drop_vars({dim!r}), if it is in their order"
                )


def _lies_on_some(values: Any, dims: Sequence[Hashable]) -> bool:
    """Whether ``values`` are a DataArray on some of the axes ``dims``, which is so on all."""
    if not has_axes(values) or hasattr(values, "data_vars"):
        return False
    return 0 < values.ndim < len(dims) and set(values.dims) <= set(dims)


def _in_memory(values: Any) -> Any:
    """The array of numbers in memory that ``values`` are; None if they are none."""
    plain = isinstance(values, np.ndarray) and not isinstance(values, np.ma.MaskedArray)
    if plain or isinstance(values, list | tuple):
        return np.asarray(values)
    return values.to_numpy() if hasattr(values, "to_numpy") else None


def _free(name: str, taken: Sequence[Hashable]) -> str:
    """The ``name``, or one made of it that is not ``taken``."""
    while name in taken:
        name += "_"
    return name


def of_axes(
    data: Any, features_dim: str | None, columns: Sequence[str] | None, memory: Amount = None
) -> NamedAxes:
    """The rows of a DataArray or a Dataset of xarray; the parameters are ``open_dataset``'s.

    The variables of a Dataset are features; one of fewer axes is repeated along the others.  Raises
    ``DataError`` if it can't be told which axis holds the features, or which axes the rows, and
    ``PlanError`` if there is no room for the copy that is made of what is in memory.
    """
    if hasattr(data, "data_vars"):
        whole, axis = _of_variables(data, features_dim, columns, memory)
        kinds = [data[name].dtype for name in whole.indexes[axis]]
        long = tuple(j for j, kind in enumerate(kinds) if is_long(kind))
        return replace(_of_axes(whole, axis, None, memory), long=long)
    axis = features_dim if features_dim is not None else _axis(data)
    if axis not in data.dims:
        raise UsageError(
            f"features_dim={axis!r} is no axis of {_called(data)}: it has "
            f"{', '.join(map(str, data.dims))}"
        )
    return _of_axes(data, axis, columns, memory)


def _of_axes(data: Any, axis: str, columns: Sequence[str] | None, memory: Amount) -> NamedAxes:
    index = data.indexes.get(axis)
    names = None if index is None else tuple(index)
    if names is not None and not all(isinstance(name, str) for name in names):
        names = None
    if columns is not None and names is None:
        raise UsageError(
            f"columns {list(columns)}: the axis {axis} of {_called(data)} has no names"
        )
    if names is not None:
        all_names = names
        names = once(_called(data), all_names, chosen(all_names, columns, _called(data)))
        data = data.isel({axis: [all_names.index(name) for name in names]}) if columns else data
    data = data.transpose(..., axis)
    values = array_of(data)
    template = data.isel({axis: 0}, drop=True)
    if is_dask_array(values):
        values = values.rechunk({values.ndim - 1: -1})
        template = template.copy(data=values[..., 0])
    elif isinstance(values, np.ndarray) and not values.flags.c_contiguous:  # which is copied
        check_room(f"a copy of {_called(data)}, its features last,", values.nbytes, memory)
        nothing = np.broadcast_to(np.zeros((), values.dtype), template.shape)
        template = template.copy(data=nothing)  # only its axes are asked for
    features = data.coords.get(axis)
    rows = _flat(values, (-1, data.sizes[axis]))
    return NamedAxes(rows, names, template, axis, features)


def _of_variables(
    data: Any, features_dim: str | None, columns: Sequence[str] | None, memory: Amount
) -> tuple[Any, str]:
    """The variables of a Dataset along an axis of features."""
    axis = features_dim or FEATURES[0]
    if axis in data.dims:
        raise UsageError(
            f"{axis!r} is an axis of the Dataset already, and its variables are to be features: "
            "say another name for that, features_dim=..., or give one of its variables"
        )
    names = _names_of_features(data, columns)
    widest = max(names, key=lambda name: data[name].ndim)
    for name in names:
        if data[name].dtype.kind not in "biuf":
            raise DataError(
                f"{name} of the Dataset has dtype {data[name].dtype}: it is no array of real "
                f"numbers; leave it out, open_dataset(data, columns=['!{name}'])"
            )
        _check_numbers(data[name])
        if not set(data[name].dims) <= set(data[widest].dims):
            raise DataError(
                f"{name} has the axes {', '.join(map(str, data[name].dims))}, and {widest} "
                f"{', '.join(map(str, data[widest].dims))}: features must lie on the axes of one "
                f"of them, or on some of these; leave {name} out, or the others"
            )
    variables = data[list(names)].map(_unloaded)
    if all(variables[name].chunks is None for name in names):  # they are copied
        itemsize = np.result_type(*(data[name].dtype for name in names)).itemsize
        check_room("a copy of the Dataset", data[widest].size * len(names) * itemsize, memory)
    return variables.to_dataarray(axis), axis


def _names_of_features(data: Any, columns: Sequence[str] | None) -> tuple[str, ...]:
    """Which variables of a Dataset are features."""
    # What was read from a file is in the encoding, or an attribute, as xarray was told to decode.
    said = {str(name): {**each.encoding, **each.attrs} for name, each in data.variables.items()}
    variables = {name: Variable(data[name].shape, said[name]) for name in map(str, data.data_vars)}
    # Coordinates are no features, and may name variables; as may the Dataset itself.
    others = [{**data.encoding, **data.attrs}, *(said[str(name)] for name in data.coords)]
    named = " ".join(name for each in others for name in Variable((), each).names)
    return features(variables, columns, "the Dataset", {"coordinates": named})


def _axis(data: Any) -> str:
    """The axis of features, where nobody says which."""
    known = [dim for dim in data.dims if dim in FEATURES]
    if len(known) == 1:
        return str(known[0])
    if data.ndim == 2:
        return str(data.dims[1])
    if data.ndim < 2:
        raise DataError(
            f"rows must be 2-D, (rows, features); {_called(data)} has shape {data.shape}"
        )
    dims = ", ".join(map(str, data.dims))
    likely = "time" if "time" in data.dims else str(data.dims[-1])
    raise DataError(
        f"{_called(data)} has the axes {dims}: say which of them holds the features, "
        f"open_dataset(data, features_dim={likely!r}); or, if each of its values is a "
        f"row of one feature, give a Dataset, data.to_dataset(name={data.name or 'x'!r})"
    )


def _called(data: Any) -> str:
    return f"the {type(data).__name__} {getattr(data, 'name', None) or ''}".rstrip()


def _check_numbers(data: Any) -> None:
    """Raise ``DataError`` if its attributes say that its numbers are not the values."""
    if data.dtype.kind not in "biuf":
        raise DataError(f"{_called(data)} has dtype {data.dtype}: it is no array of real numbers")
    if Packing.of(_called(data), data.attrs, data.dtype) is not None:
        raise DataError(
            f"{_called(data)} has attributes that say that its numbers ({data.dtype}) stand for "
            "other values: decode it (xarray.decode_cf; for a raster, open_rasterio(..., "
            "masked=True)), or give its .data to have them as they are"
        )


def array_of(data: Any) -> Any:
    """The array in a DataArray: of Dask, or in memory; what is in a file, in chunks of Dask."""
    _check_numbers(data)
    return _unloaded(data).data


def _unloaded(data: Any) -> Any:
    """The same; what is in a file, and would be loaded whole, in chunks of Dask."""
    variable = getattr(data, "variable", data)
    if data.chunks is not None or getattr(variable, "_in_memory", False):
        return data
    return data.chunk(data.encoding.get("preferred_chunks", "auto"))


def _flat(values: Any, shape: tuple[int, ...]) -> Any:
    """Values of which the axes of rows are one."""
    if not is_dask_array(values):
        return np.asarray(values).reshape(shape)
    if values.ndim < len(shape):  # one row, which has no axes
        return values.reshape(shape)
    rows = math.prod(values.shape[: values.ndim - len(shape) + 1])
    whole = (rows, *values.shape[values.ndim - len(shape) + 1 :])
    return values if values.shape == whole else da.reshape_blockwise(values, whole)
