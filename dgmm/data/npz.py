"""Archives of NumPy: an array by ``file.npz::name``, or the only one of ``file.npz``.

``numpy.savez`` stores arrays as they are, and rows of these are read where they lie in the file.
What ``savez_compressed`` writes has to be decompressed whole, if there is room for it.
"""

import re
import zipfile
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.amounts import Amount, check_room
from dgmm.data.source import Source
from dgmm.data.urls import exists, is_local, place
from dgmm.errors import DataError, UsageError

ARRAY: Final = re.compile(r"(?P<archive>.*\.npz)(?:::(?P<name>.+))?", re.IGNORECASE | re.DOTALL)
"""An archive, and the name of an array in it if one is said."""

LOCAL_HEADER: Final = 30
"""How long what stands before a member's name is, in a zip file; at 26, the lengths of the two."""


class NpzSource(Source):
    """An array that is stored in a zip file as it is."""

    def __init__(self, name: str, path: str, place: int) -> None:
        self.name, self._path, self._place = name, path, place
        self._header, self._offset = self._found()
        self.shape, fortran, self.dtype = self._header
        self._order: Any = "F" if fortran else "C"

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(1, block_bytes)

    def _found(self) -> tuple[tuple[Any, bool, Any], int]:
        """What the file says of the array now, and where its numbers begin."""
        with open(self._path, "rb") as file:
            file.seek(self._place)
            return _header(file), file.tell()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        try:
            same = self._found() == (self._header, self._offset)
        except ValueError:  # there is something else
            same = False
        if not same:
            raise DataError(f"{self.name} has changed since it was opened")
        # Mapped afresh each time: pages of a map that stays would count as memory in use.
        mapped: np.memmap[Any, Any] = np.memmap(
            self._path, self.dtype, "r", self._offset, self.shape, self._order
        )
        return np.array(mapped[start:stop])


def is_npy(url: str) -> bool:
    """Whether a file of one array is meant by ``url``."""
    return url.lower().endswith(".npy")


def named_array(url: str) -> tuple[str, str | None] | None:
    """The archive and the name of an array in it that ``url`` says; None if it is no archive."""
    match = ARRAY.fullmatch(url)
    return (match["archive"], match["name"]) if match else None


def open_npz(url: str, memory: Amount) -> Source | NDArray[Any] | None:
    """The array that ``url`` says: its source, or itself where it was compressed; None if none."""
    named = named_array(url)
    if named is None:
        return None
    where, name = named
    filesystem, path = place(where)
    if not exists(where):
        raise DataError(f"{where} does not exist")
    if not is_local(filesystem):
        raise UsageError(f"{url}: .npz files are read from local paths; remote data as Zarr")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
            member = _chosen(where, name, members)
            if member.compress_type == zipfile.ZIP_STORED:
                return _stored(url, path, member)
            check_room(url, member.file_size, memory)
            with archive.open(member) as file:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} can't be read as an archive of NumPy: {error}") from error


def _chosen(url: str, name: str | None, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    names = [each.filename.removesuffix(".npy") for each in members]
    if name is None and len(names) == 1:
        return members[0]
    if name in names:
        return members[names.index(name)]
    listed = ", ".join(f"{url}::{each}" for each in names[:10])
    said = "name one of them" if name is None else f"it has no array {name!r}"
    raise DataError(f"{url} has {len(names)} arrays; {said}: {listed}")


def _stored(url: str, path: str, member: zipfile.ZipInfo) -> Source:
    """The array of a ``member`` that is not compressed."""
    with open(path, "rb") as file:
        file.seek(member.header_offset + LOCAL_HEADER - 4)
        lengths = np.frombuffer(file.read(4), "<u2")
        source = NpzSource(url, path, file.tell() + int(lengths.sum()))
    if source.dtype.hasobject:
        raise ValueError("its values are objects of Python")
    return source


def _header(file: BinaryIO) -> tuple[Any, bool, Any]:
    major, _ = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if major not in read:
        raise ValueError(f"version {major} of NumPy's format is not known")
    header: tuple[Any, bool, Any] = read[major](file)
    return header
