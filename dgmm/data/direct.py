"""Chunks of a local Zarr array, read and decoded straight into their place.

Zarr reads and decodes each chunk into memory of its own, in threads of its own, so memory would
creep up over the first hundreds of blocks (memory.py).  Here the thread that wants a block does all
of it, and memory of a block that nobody needs any more is the next one's.

Only simple arrays can be read so: in a local directory, of native numbers, whole rows in a chunk,
not compressed or by a codec that decodes into memory it is given.  For all others there is Zarr;
and so there is where anything is not as expected, so that errors are Zarr's, too.
"""

import math
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.memory import memory


def _anything(stored: NDArray[np.uint8], size: int) -> bool:
    return True


def _as_blosc_says(stored: NDArray[np.uint8], size: int) -> bool:
    """Whether there is all that its header tells: it would read on, beyond the end."""
    _, decoded, _, encoded = stored[:16].view("<u4")
    return bool(decoded == size and encoded == len(stored))


CODECS: Final = {"zstd": _anything, "blosc": _as_blosc_says}
"""Those of numcodecs that decode into memory they are given, and what to see first."""

MARKS: Final = (0x5A, 0xA5)
"""What a place ends with before a chunk is decoded to it: a chunk that is short leaves both."""


class _Scratch(threading.local):
    """What a thread works in, kept from chunk to chunk: a file's bytes, and those of a chunk."""

    def __init__(self) -> None:
        self.stored = self.decoded = np.empty(0, np.uint8)


_scratch = _Scratch()


def _at_least(buffer: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return buffer if len(buffer) >= size else np.empty(size, np.uint8)


@dataclass(frozen=True)
class Direct:
    """A Zarr array whose chunks can be read so.

    Attributes
    ----------
    place : Path
        Of the array's directory.
    metadata
        The array's, which knows the names of chunks.
    chunk, columns : int, tuple of int
        Rows of a chunk, and the shape of a row.
    dtype : dtype
    codec : numcodecs codec or None
    """

    place: Path
    metadata: Any
    chunk: int
    columns: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: Any

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "Direct | None":
        """That of ``array``, if there is one."""
        metadata, dtype = array.metadata, np.dtype(array.dtype)
        whole = not array.shards and array.ndim and array.chunks[1:] == array.shape[1:]
        plain = dtype.kind in "iuf" and dtype.isnative and all(array.shape)
        if type(array.store) is not zarr.storage.LocalStore or not whole or not plain:
            return None
        named = FORMATS[metadata.zarr_format](metadata)
        if named is None or (named and named not in CODECS):
            return None
        codec = numcodecs.get_codec({"id": named}) if named else None
        place = Path(array.store.root, array.path)
        return cls(place, metadata, array.chunks[0], array.shape[1:], dtype, codec)

    def read(self, start: int, stop: int) -> NDArray[Any] | None:
        """Rows ``start`` to ``stop``; None if Zarr should see to it."""
        if start == stop:
            return None
        buffer = memory.take((stop - start) * self._row)
        rows = buffer.view(self.dtype).reshape(stop - start, *self.columns)
        try:
            for index in range(start // self.chunk, -(-stop // self.chunk)):
                first = index * self.chunk
                low, high = max(start, first), min(stop, first + self.chunk)
                place = buffer[(low - start) * self._row : (high - start) * self._row]
                name = self.metadata.encode_chunk_key((index, *[0] * len(self.columns)))
                with open(self.place / name, "rb", buffering=0) as file:
                    self._read(file, low - first, place)
        except Exception:
            return None
        return rows

    @property
    def _row(self) -> int:
        """The bytes of a row."""
        return self.dtype.itemsize * math.prod(self.columns)

    def _read(self, file: BinaryIO, skipped: int, place: NDArray[np.uint8]) -> None:
        """The rows of a chunk, but for those ``skipped``, to ``place``."""
        size, stored, skipped = self.chunk * self._row, file.seek(0, 2), skipped * self._row
        if self.codec is None:
            file.seek(skipped)
            _expect(stored, size)
            _fill(file, place)
            return
        file.seek(0)
        _scratch.stored = _at_least(_scratch.stored, stored)
        encoded, whole = _scratch.stored[:stored], place
        _fill(file, encoded)
        if not CODECS[self.codec.codec_id](encoded, size):
            raise ValueError("a chunk is not what its header says")
        if len(place) < size:
            _scratch.decoded = _at_least(_scratch.decoded, size)
            whole = _scratch.decoded[:size]
        for mark in MARKS:
            whole[-1] = mark
            self.codec.decode(encoded, whole)
            if whole[-1] != mark:
                break
        else:
            raise ValueError("a chunk is too short")
        if whole is not place:
            place[:] = whole[skipped : skipped + len(place)]


def _fill(file: BinaryIO, place: NDArray[np.uint8]) -> None:
    """Read as many bytes as ``place`` has."""
    done = 0
    while done < len(place):
        count = file.readinto(place[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("a file is too short")
        done += count


def _expect(size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"a chunk has {size} bytes, not {expected}")


def _format_2(metadata: Any) -> str | None:
    """The name of the codec, "" if there is none; None if there is more to it."""
    if metadata.order != "C" or metadata.filters:
        return None
    return "" if metadata.compressor is None else getattr(metadata.compressor, "codec_id", None)


def _format_3(metadata: Any) -> str | None:
    """The same for the other format."""
    numbers, *codecs = [codec.to_dict() for codec in metadata.codecs]
    endian = numbers.get("configuration", {}).get("endian", sys.byteorder)
    if numbers["name"] != "bytes" or endian != sys.byteorder or len(codecs) > 1:
        return None
    return str(codecs[0]["name"]) if codecs else ""


FORMATS: Final = {2: _format_2, 3: _format_3}
"""By the number of Zarr's format."""
