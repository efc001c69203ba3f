"""What kind of thing some data are, known by the names of their types and of those these come from.

So no library is imported to ask: one may not be installed, others take long to import, and nothing
of a library can be here before whoever made it has imported that.
"""

from typing import Any


def type_names(data: Any) -> list[str]:
    """The types that ``data`` is of, each by its package and name."""
    return [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(data).__mro__]


def is_dask_array(data: Any) -> bool:
    """Whether ``data`` is an array of Dask."""
    return "dask.Array" in type_names(data)


def is_dask_frame(data: Any) -> bool:
    """Whether ``data`` is a frame of dask.dataframe, and no column of one."""
    lazy = {"dask.FrameBase", "dask_expr.FrameBase"}.intersection(type_names(data))
    return bool(lazy) and hasattr(data, "columns") and data.ndim == 2


def is_zarr_array(data: Any) -> bool:
    """Whether ``data`` is an array of Zarr, opened."""
    return "zarr.Array" in type_names(data)


def is_zarr_group(data: Any) -> bool:
    """Whether ``data`` is a group of Zarr, opened."""
    return "zarr.Group" in type_names(data)


def has_axes(data: Any) -> bool:
    """Whether ``data`` is a DataArray or a Dataset of xarray."""
    return bool({"xarray.DataArray", "xarray.Dataset"}.intersection(type_names(data)))
