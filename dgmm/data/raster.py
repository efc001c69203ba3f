"""GeoTIFF files: each pixel is a row, each band a feature.

A file is opened for each read: what GDAL has open is of one thread.  Pixels go along the lines, the
first line first, and blocks are whole lines.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import chosen
from dgmm.data.memory import memory
from dgmm.data.source import Source
from dgmm.data.transient import is_transient
from dgmm.data.urls import absolute, exists, is_local, place
from dgmm.errors import DataError, DgmmError
from dgmm.model.extras import require
from dgmm.model.lazy import Late

rasterio = Late("rasterio")

ENDINGS: Final = (".tif", ".tiff")

CACHE_MIB: Final = 32
"""How much GDAL keeps of what it has decoded; by itself it would take a share of the machine."""


class RasterSource(Source):
    """Some bands of a raster; where there is no data, NaN."""

    def __init__(
        self, url: str, raster: Any, names: Sequence[str], bands: Sequence[int], raw: bool
    ) -> None:
        self.name, self.names, self._url = url, tuple(names), absolute(url)
        self.size = raster.height, raster.width
        self.shape = (raster.height * raster.width, len(bands))
        self._bands = list(bands)
        self._lines = max(lines for lines, _ in raster.block_shapes)
        self._scales = np.array([raster.scales[band - 1] for band in bands])
        self._offsets = np.array([raster.offsets[band - 1] for band in bands])
        self._scaled = not raw and bool(np.any(self._scales != 1) or np.any(self._offsets != 0))
        whole = rasterio.enums.MaskFlags.all_valid
        self._holes = not raw and any(whole not in raster.mask_flag_enums[b - 1] for b in bands)
        self._stored = np.result_type(*(raster.dtypes[band - 1] for band in bands))
        floats = np.dtype(np.float32 if self._stored == np.float32 else np.float64)
        self.dtype = floats if self._holes and not self._scaled else self._stored
        if self._scaled:
            self.dtype = np.dtype(np.float64)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        return self.dtype if self._scaled else self._stored

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(self._lines * self.size[1], block_bytes)

    def nbytes(self, rows: int) -> int:
        # The rows; the bands as they are read, whole lines of them; which pixels have data.
        lines = -(-rows // self.size[1]) + 1
        read: int = lines * self.size[1] * (self.row_bytes + self.shape[1])
        return rows * self.row_bytes + read + (CACHE_MIB << 20)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        width = self.size[1]
        first, last = start // width, -(-stop // width)
        lines = rasterio.windows.Window(0, first, width, last - first)
        try:
            with opened(self._url) as raster:
                if (raster.height, raster.width) != self.size:
                    raise DataError(
                        f"{self.name} has changed since it was opened: it has {raster.height} x "
                        f"{raster.width} pixels, not {self.size[0]} x {self.size[1]}"
                    )
                bands = raster.read(self._bands, window=lines, masked=self._holes)
        except DgmmError:
            raise
        except (OSError, rasterio.errors.RasterioError) as error:
            if is_transient(error):
                raise
            raise DataError(f"{self.name} can't be read: {error}") from error
        skipped = start - first * width
        taken = bands.reshape(len(self._bands), -1)[:, skipped : skipped + stop - start]
        rows = memory.array((stop - start, len(self._bands)), self.dtype)
        rows[...] = np.ma.getdata(taken).T
        if self._scaled:
            rows *= self._scales
            rows += self._offsets
        if self._holes:
            rows[np.ma.getmaskarray(taken).T] = np.nan
        return rows


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The raster at ``url``, while inside."""
    filesystem, path = place(url)
    where = {} if is_local(filesystem) else {"opener": filesystem}
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MIB), rasterio.open(path, **where) as raster:
        yield raster


def is_raster(url: str) -> bool:
    """Whether a GeoTIFF file is meant by ``url``."""
    return url.lower().endswith(ENDINGS)


def check_raster_installed(url: str) -> None:
    """Raise ``UsageError`` if the library of rasters is not installed."""
    require("geotiff", f"{url}: a GeoTIFF file", "rasterio")


def open_raster(url: str, columns: Sequence[str] | None, raw: bool) -> Source | None:
    """The bands of the raster at ``url``, or some ``columns`` of them; None if it is none.

    A band is called by its description, or else ``band_1`` and so on.  One that says which pixels
    have data (alpha) is a feature only by its name.
    """
    if not is_raster(url):
        return None
    check_raster_installed(url)
    if not exists(url):
        raise DataError(f"{url} does not exist")
    try:
        with opened(url) as raster:
            names = band_names(raster)
            alpha = rasterio.enums.ColorInterp.alpha
            usual = [
                name for name, c in zip(names, raster.colorinterp, strict=True) if c != alpha
            ] or names
            wanted = chosen(names, columns, url, usual)
            return RasterSource(url, raster, wanted, [1 + names.index(n) for n in wanted], raw)
    except DgmmError:
        raise
    except Exception as error:  # each file system has errors of its own
        if is_transient(error):
            raise
        raise DataError(f"{url} can't be read as a GeoTIFF file: {error}") from error


def band_names(raster: Any) -> list[str]:
    """What the bands are called: by their descriptions, if each has one of its own."""
    said = [str(each or "") for each in raster.descriptions]
    if all(said) and len(set(said)) == len(said):
        return said
    return [f"band_{number}" for number in raster.indexes]
