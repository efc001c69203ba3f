"""Which target the ending of a name asks for."""

from collections.abc import Sequence
from typing import Final

from dgmm.data.source import Grid
from dgmm.errors import UsageError
from dgmm.io.cube import CubeTarget
from dgmm.io.delimited import CsvTarget
from dgmm.io.files import NpyTarget
from dgmm.io.geotiff import GeoTiffTarget
from dgmm.io.netcdf import NetCdfTarget
from dgmm.io.targets import ParquetTarget, Target, ZarrTarget

TARGETS: Final[dict[tuple[str, ...], type[Target]]] = {
    (".parquet", ".parq", ".pq"): ParquetTarget,
    (".csv", ".tsv"): CsvTarget,
    (".npy",): NpyTarget,
    (".nc", ".nc4"): NetCdfTarget,
    (".tif", ".tiff"): GeoTiffTarget,
}
"""By the endings of names; all others are of Zarr arrays, or groups."""

OTHERS: Final = (".npz", ".h5", ".hdf5", ".zip", ".gz", ".feather", ".arrow", ".json", ".xlsx")
"""The endings of files of kinds that can't be written."""


def target_of(url: str, keep: Sequence[str] = (), grid: Grid | None = None) -> Target:
    """What the name at ``url`` asks for; raises ``UsageError`` if that can't be written.

    The rows lie on a ``grid``, if they do.
    """
    name = url.rstrip("/").lower()
    for ending in OTHERS:
        if name.endswith(ending):
            raise UsageError(
                f"{url} reads like a {ending} file, and what is written is a Zarr array, a table "
                "of Parquet files, or a CSV, .npy, NetCDF (.nc) or GeoTIFF (.tif) file: call it "
                f"{url.rstrip('/')[: -len(ending)]}.zarr, say, or .parquet"
            )
    for endings, target in TARGETS.items():
        if name.endswith(endings):
            return target(tuple(keep))
    cube = grid is not None and len(grid.shape) > 1
    return (CubeTarget if cube else ZarrTarget)(tuple(keep))
