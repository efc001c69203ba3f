"""Outputs of the pixels of a raster as one, with its place on earth; written by lines."""

import json
from typing import Any, Final

import numpy as np

from dgmm.data import raster
from dgmm.data.dataset import Dataset
from dgmm.data.raster import RasterSource, check_raster_installed
from dgmm.errors import UsageError
from dgmm.io.files import FileTarget, cast, no_value, row_size, stored_type
from dgmm.io.targets import Beside
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.lazy import Late

rasterio = Late("rasterio")

STRIP_BYTES: Final = 8 << 20
"""How much of all bands is compressed, and written, at once."""

TAG: Final = "dgmm"


class GeoTiffTarget(FileTarget):
    """A GeoTIFF file, a band for each column of outputs."""

    called = "GeoTIFF file"

    def check(self, url: str, dataset: Dataset) -> None:
        super().check(url, dataset)
        check_raster_installed(url)
        if not isinstance(dataset.source, RasterSource):
            raise UsageError(
                f"{url}: a GeoTIFF file is written of one, and {dataset.source.name} is none; "
                "call it something .zarr"
            )

    def is_at(self, url: str) -> bool:
        try:
            with raster.opened(url) as file:
                return TAG in file.tags()
        except (OSError, rasterio.errors.RasterioError):
            return False

    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        try:
            self._write(path, array, dataset.source, wanted, beside)
        except rasterio.errors.RasterioError as error:  # which says to look at what it came of
            raise OSError(f"GDAL: {error.__cause__ or error}") from error

    def _write(
        self, path: str, array: Any, source: Any, wanted: RowOutputs, beside: Beside
    ) -> None:
        assert isinstance(source, RasterSource)
        (height, width), count, dtype = source.size, row_size(array), stored_type(wanted)
        lines = min(height, max(1, STRIP_BYTES // (width * count * dtype.itemsize)))
        place, rpcs = _place_of(source)
        with (
            rasterio.Env(GDAL_CACHEMAX=raster.CACHE_MIB),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=count,
                dtype=dtype,
                nodata=no_value(dtype),
                blockysize=lines,
                compress="deflate",
                interleave="band",
                bigtiff="if_safer",
                **place,
            ) as written,
        ):
            if rpcs is not None:
                written.rpcs = rpcs
            written.descriptions = beside.names
            written.update_tags(
                **{TAG: json.dumps({"kind": wanted.output.name, "of": source.name})}
            )
            for first in range(0, height, lines):
                last = min(height, first + lines)
                rows = cast(array[first * width : last * width], dtype).reshape(-1, count)
                bands = np.ascontiguousarray(rows.T).reshape(count, last - first, width)
                window = rasterio.windows.Window(0, first, width, last - first)
                written.write(bands, window=window)


def _place_of(source: RasterSource) -> tuple[dict[str, Any], Any]:
    """Where on earth a raster lies, by the names that rasterio has for it; and its RPCs, if any."""
    with raster.opened(source.name) as image:
        points, points_crs = image.gcps
        place = {"crs": image.crs, "transform": image.transform}
        return {"gcps": points, "crs": points_crs} if points else place, image.rpcs
