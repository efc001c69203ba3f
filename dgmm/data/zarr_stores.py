"""How arrays and groups of Zarr become sources, opened already or at an address."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from dgmm.data.auxiliary import auxiliary, features
from dgmm.data.columns import no_columns
from dgmm.data.missing_chunks import Absence
from dgmm.data.packed import unpacked
from dgmm.data.patience import patience
from dgmm.data.reading import Reading
from dgmm.data.source import Grid, Source
from dgmm.data.sparse import PARTS, SparseGroupSource, shape_of
from dgmm.data.stored import attributes, axes_of, variable_of
from dgmm.data.urls import exists, is_local, place, zarr_store
from dgmm.data.variables import VariablesSource
from dgmm.data.zarr_source import ZarrSource, absence_of
from dgmm.errors import DataError


def has_group(path: str) -> bool:
    """Whether a group of Zarr is at ``path``."""
    try:
        return isinstance(zarr.open(zarr_store(path), mode="r"), zarr.Group)
    except Exception:  # which is told when it is opened
        return False


def of_array(array: "zarr.Array[Any]", name: str, reading: Reading) -> Source:
    """The values of an array."""
    absence = absence_of(array, reading.absence, reading.raw)
    return unpacked(ZarrSource(array, name, absence), attributes(array), reading.raw)


def of_group(group: "zarr.Group", path: str, reading: Reading) -> Source:
    """Arrays of a group as features, each of which has a value a row."""
    columns = reading.columns
    arrays = {
        name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)
    }
    if columns is None and (sparse := _compressed_rows(group, arrays, path, reading.absence)):
        return sparse
    variables = {name: variable_of(arrays[name]) for name in sorted(arrays)}
    whole = dict(group.attrs)
    if columns is None or not arrays:
        others = auxiliary(variables, whole)
        # What is most often meant comes first.
        raise DataError(_name_an_array(sorted(variables, key=others.__contains__), path))
    names = features(variables, columns, path, whole)
    parts = [of_array(arrays[each], f"{path.rstrip('/')}/{each}", reading) for each in names]
    source = VariablesSource(path, names, parts)
    if axes_of(arrays[names[0]]):
        source.grid = Grid(path, names[0], arrays[names[0]].shape)
    return source


def _compressed_rows(
    group: "zarr.Group", arrays: Mapping[str, "zarr.Array[Any]"], path: str, absence: Absence
) -> Source | None:
    """The sparse rows that the ``arrays`` of a group are; None if they are none."""
    if not arrays.keys() >= set(PARTS):
        return None
    stored = np.asarray(arrays["shape"][:]) if "shape" in arrays else None
    shape = shape_of(dict(group.attrs), stored)
    if shape is None:
        return None
    parts = {
        each: ZarrSource(arrays[each], f"{path.rstrip('/')}/{each}", absence) for each in PARTS
    }
    return SparseGroupSource(parts, shape, path)


def open_zarr(path: str, reading: Reading) -> Source:
    """What is at an address, which is no other file."""
    local = is_local(place(path)[0])
    try:  # before asking whether it exists: not every store can tell that of a directory
        opened = patience()(lambda: zarr.open(zarr_store(path), mode="r"))
    except FileNotFoundError as error:
        if not exists(path):
            raise DataError(f"{path} does not exist") from error
        one_file = local and os.path.isfile(place(path)[1])
        remedy = (
            "call it by such a name, if that is what it is"
            if one_file
            else "a directory of Parquet files is read by a pattern, "
            f"{path.rstrip('/')}/**/*.parquet"
        )
        raise DataError(
            f"{path} is no Zarr array or group, and its name does not end as that of a .npy or "
            ".npz file or of a table does (.parquet, .arrow, .feather, .csv, .tsv) or of HDF5 or "
            f"NetCDF (.h5, .nc) or GeoTIFF (.tif); {remedy}"
        ) from error
    except Exception as error:  # each file system has errors of its own
        spoilt = local or isinstance(error, ValueError | KeyError | TypeError)
        attempt = "opened as Zarr" if spoilt else "reached"
        raise DataError(f"{path} can't be {attempt}: {error}") from error
    if isinstance(opened, zarr.Group):
        return of_group(opened, path, reading)
    if reading.columns is not None:
        raise no_columns(path, reading.columns)
    return of_array(opened, path, reading)


def _name_an_array(arrays: Sequence[str], path: str) -> str:
    if not arrays:
        return f"{path} is a Zarr group without arrays, or in a store that does not list them"
    listed = ", ".join(f"{path.rstrip('/')}/{name}" for name in arrays[:10])
    return (
        f"{path} is a Zarr group; name one of its {len(arrays)} arrays: {listed}; or say "
        "which of them are the features, a value of each a row, by open_dataset(path, "
        "columns=[...]) (--columns)"
    )
