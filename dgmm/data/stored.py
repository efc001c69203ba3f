"""What a Zarr array says of itself: which of its chunks are stored, and what its numbers mean."""

import asyncio
import math
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from dgmm.data.auxiliary import Variable
from dgmm.data.transient import is_transient
from dgmm.errors import DataError, DgmmError

Place = tuple[int, ...]
"""Where a chunk or a shard stands in its grid; or its shape."""

Stored = NDArray[np.bool_] | None
"""Which chunks a shard has; None for a chunk that is no shard."""

GONE: Final = (404, 410)
"""What a server answers if there is nothing."""

SHARDING: Final = "sharding_indexed"

FEW_SHARDS: Final = 1000
"""How many shards are asked which chunks they have when an array is opened: as many as one request
lists in an object store."""

TOGETHER: Final = 1000
"""How many questions are asked at once."""

EMPTY: Final = 2**64 - 1
"""The offset and length, in a shard's index, of a chunk that isn't stored."""


def of_this_process(array: "zarr.Array[Any]") -> "zarr.Array[Any]":
    """The array, opened again if its connections are of the process that this was forked from.

    Whoever used those would wait for a thread that stayed there.
    """
    store = array.store
    if not isinstance(store, zarr.storage.FsspecStore):
        return array
    if getattr(store.fs, "_pid", os.getpid()) == os.getpid():
        return array
    again: zarr.Array[Any] = pickle.loads(pickle.dumps(array))
    return again


def attributes(array: "zarr.Array[Any]") -> dict[str, Any]:
    """What is said of an array's numbers."""
    said = dict(array.attrs)
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in said:
        # In this format xarray has no attribute for it, and takes an array's own fill value.
        said |= {} if array.fill_value is None else {"_FillValue": array.fill_value}
    return said


def variable_of(array: "zarr.Array[Any]") -> Variable:
    """What is known of an array among others of its group."""
    return Variable(array.shape, dict(array.attrs), axes_of(array) == (array.basename,))


def axes_of(array: "zarr.Array[Any]") -> tuple[str, ...]:
    """The names of an array's axes; none, unless all have one."""
    named = getattr(array.metadata, "dimension_names", None)  # of format 3; xarray's of format 2:
    axes: Any = named or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return tuple(axes) if all(axes) else ()


class Chunks:
    """The chunks of an array, in shards or not: which of them are stored.

    What is stored under one key is a unit: a shard, or a chunk where there are no shards.
    """

    def __init__(self, array: "zarr.Array[Any]", name: str) -> None:
        self._array, self._name = array, name

    @property
    def unit(self) -> Place:
        """The shape of a unit."""
        return self._array.shards or self._array.chunks

    @property
    def _grid(self) -> list[range]:
        """Where units stand along each axis."""
        pairs = zip(self._array.shape, self.unit, strict=True)
        return [range(-(-size // step)) for size, step in pairs]

    @property
    def _node(self) -> str:
        """What the array's keys begin with in its store."""
        return f"{self._array.path}/" if self._array.path else ""

    def _key(self, unit: Place) -> str:
        return self._node + self._array.metadata.encode_chunk_key(unit)

    def check_all(self) -> None:
        """Raise ``DataError`` unless all chunks are stored, as far as one listing tells.

        What is in shards is not listed.  Where they are few, each is asked; where they are many, a
        chunk that one lacks is found when it is read.
        """
        try:
            gone, within = sync(self._missing())
        except DgmmError:
            raise
        except Exception as error:  # each store has errors of its own
            raise DataError(f"{self._name} can't be reached: {error}") from error
        lost = gone if gone.count else within
        if not lost.count:
            return
        raise DataError(
            f"{self._name} lacks {lost.first} ({lost.expected - lost.count} of {lost.expected} are "
            f"stored). Restore it; or, if chunks were left out because they hold only the fill "
            f"value {self._array.fill_value}, say so with missing_chunks='fill' "
            "(--missing-chunks fill)"
        )

    def check_read(self, rows: NDArray[Any], start: int) -> None:
        """Raise ``DataError`` if a chunk of ``rows`` is gone: Zarr reads that as the fill value."""
        fill = 0 if self._array.fill_value is None else self._array.fill_value  # as Zarr does
        chunk, unit = self._array.chunks, self.unit
        doubtful: dict[Place, None] = {}
        for place in _places(chunk, (start, start + len(rows)), rows.shape[1:]):
            first = place[0] * chunk[0] - start
            columns = (
                slice(at * n, at * n + n) for at, n in zip(place[1:], chunk[1:], strict=True)
            )
            part = rows[max(0, first) : first + chunk[0], *columns]
            if part.size and _all_equal(part.flat[0], fill) and _all_equal(part, fill):
                at = zip(place, chunk, unit, strict=True)
                doubtful[tuple(index * n // step for index, n, step in at)] = None
        if not doubtful:
            return
        if isinstance(self._array.store, zarr.storage.FsspecStore):
            self._array.store.fs.invalidate_cache()  # it would tell what was there at first
        gone, within = sync(self._sought(list(doubtful)))
        if gone.count or within.count:
            lost = gone.first or within.first
            raise DataError(f"{self._name} has lost {lost} since it was opened, or never had it")

    def name_spoilt(self, start: int, stop: int, error: Exception) -> None:
        """Raise ``DataError`` that names the chunk for which reading these rows gave an ``error``.

        Nothing is done if that may pass, or if each chunk can be read by itself.
        """
        if is_transient(error):
            return
        sizes = list(zip(self._array.chunks, self._array.shape, strict=True))
        for place in _places(self._array.chunks, (start, stop), self._array.shape[1:]):
            both = zip(place, sizes, strict=True)
            try:
                self._array[tuple(slice(at * n, min(at * n + n, end)) for at, (n, end) in both)]
            except Exception as cause:  # each codec has errors of its own
                if is_transient(cause):
                    return
                raise DataError(
                    f"{self._called_within(place)} of {self._name} can't be decoded "
                    f"({type(cause).__name__}: {cause}). Restore it; or delete it and say "
                    "missing_chunks='fill' (--missing-chunks fill), and its rows hold the fill "
                    f"value {self._array.fill_value}"
                ) from cause

    async def _missing(self) -> tuple["_Lost", "_Lost"]:
        """What isn't stored: units, and chunks within them."""
        grid = self._grid
        stored = np.zeros([len(axis) for axis in grid], dtype=np.bool_)  # and no list of all keys
        if not await self._listed(stored):
            return await self._sought(product(*grid))
        absent = np.flatnonzero(~stored)
        gone = _Lost("", len(absent), stored.size)
        if len(absent):
            first = np.unravel_index(absent[0], stored.shape)
            gone = replace(gone, first=self._called(tuple(map(int, first))))
        elif self._sharded and stored.size <= FEW_SHARDS:
            return await self._sought(product(*grid))
        return gone, _Lost()

    async def _listed(self, stored: NDArray[np.bool_]) -> bool:
        """Note which units are ``stored``; gives whether the store says what is in it."""
        known = False
        try:
            async for key in self._array.store.list_prefix(self._node):
                name = key.removeprefix(self._node)
                known = known or name in ("zarr.json", ".zarray")
                place = tuple(map(int, re.findall(r"\d+", name)))
                if len(place) != stored.ndim or self._key(place) != key:
                    continue
                if all(at < size for at, size in zip(place, stored.shape, strict=True)):
                    stored[place] = True
        except (FileNotFoundError, PermissionError, NotImplementedError):
            return False
        return known

    async def _sought(self, units: Iterable[Place]) -> tuple["_Lost", "_Lost"]:
        """What of ``units`` isn't stored, and chunks within them, by asking for each."""
        index = _ShardIndex.of(self._array, self._name) if self._sharded else None

        async def look(unit: Place) -> tuple[bool, Stored]:
            key = self._key(unit)
            if index is not None:
                stored = await index.read(self._array.store, key)
                return stored is not None, stored
            try:
                return await self._array.store.getsize(key) > 0, None
            except FileNotFoundError as error:
                if is_transient(error) or getattr(error.__cause__, "status", GONE[0]) not in GONE:
                    raise  # so fsspec tells whatever goes wrong over HTTP
                return False, None

        gone, within, left = _Lost(), _Lost(), iter(units)
        while some := list(islice(left, TOGETHER)):
            looks = await asyncio.gather(*map(look, some))
            for unit, (exists, stored) in zip(some, looks, strict=True):
                gone += _Lost("" if exists else self._called(unit), not exists, 1)
                if stored is not None:
                    within += self._within(unit, stored)
        return gone, within

    def _called(self, unit: Place) -> str:
        return f"chunk {self._key(unit).removeprefix(self._node)!r}"

    def _called_within(self, place: Place) -> str:
        """What a chunk is called that may be in a shard."""
        if self._array.shards is None:
            return self._called(place)
        counts = [n // size for n, size in zip(self.unit, self._array.chunks, strict=True)]
        both = list(zip(place, counts, strict=True))
        shard = self._called(tuple(at // n for at, n in both)).removeprefix("chunk ")
        return f"chunk {tuple(at % n for at, n in both)} of shard {shard}"

    def _within(self, unit: Place, stored: NDArray[np.bool_]) -> "_Lost":
        """What a shard lacks; chunks beyond the array's end are not stored."""
        edges = zip(self._array.shape, self.unit, self._array.chunks, unit, strict=True)
        counts = (-(-min(step, n - at * step) // size) for n, step, size, at in edges)
        inside = stored[tuple(map(slice, counts))]
        if inside.all():
            return _Lost("", 0, inside.size)
        place = tuple(map(int, np.argwhere(~inside)[0]))
        shard = self._key(unit).removeprefix(self._node)
        return _Lost(f"chunk {place} of shard {shard!r}", int(np.sum(~inside)), inside.size)

    @property
    def _sharded(self) -> bool:
        """Whether units have chunks within, in whatever way."""
        return any(codec.get("name") == SHARDING for codec in _codecs(self._array))


@dataclass(frozen=True)
class _Lost:
    """The first that isn't stored, how many aren't, and how many should be."""

    first: str = ""
    count: int = 0
    expected: int = 0

    def __add__(self, other: "_Lost") -> "_Lost":
        expected = self.expected + other.expected
        return _Lost(self.first or other.first, self.count + other.count, expected)


@dataclass(frozen=True)
class _ShardIndex:
    """How to read which chunks a shard has: a table of offsets and lengths at one of its ends.

    ``shape`` is how many chunks it has along each axis; ``dtype`` is of the table's numbers, after
    which there are ``extra`` bytes of a checksum; ``first`` says at which end it is.
    """

    shape: Place
    dtype: np.dtype[Any]
    extra: int
    first: bool

    @classmethod
    def of(cls, array: "zarr.Array[Any]", name: str) -> "_ShardIndex":
        """That of the shards of ``array``.

        Raises ``DataError`` for shards in shards, or in other codecs, and for tables that are
        encoded as no one does.
        """
        codecs = _codecs(array)
        inner = codecs[0].get("configuration", {})
        table = [codec["name"] for codec in inner.get("index_codecs", ())]
        nested = any(codec["name"] == SHARDING for codec in inner.get("codecs", ()))
        if array.shards is None or nested or table not in (["bytes"], ["bytes", "crc32c"]):
            raise DataError(
                f"{name} has shards of a kind in which chunks that are not stored can't be told; "
                "if those hold only the fill value, say so with missing_chunks='fill' "
                "(--missing-chunks fill)"
            )
        shape = tuple(n // size for n, size in zip(array.shards, array.chunks, strict=True))
        endian = inner["index_codecs"][0]["configuration"]["endian"]
        dtype = np.dtype({"little": "<u8", "big": ">u8"}[endian])
        return cls(shape, dtype, 4 * (len(table) - 1), inner.get("index_location") == "start")

    async def read(self, store: Any, key: str) -> Stored:
        """Which chunks a shard has; None if it isn't there, or is cut short."""
        size = 16 * math.prod(self.shape)
        whole = size + self.extra
        wanted = RangeByteRequest(0, whole) if self.first else SuffixByteRequest(whole)
        received = await store.get(key, default_buffer_prototype(), wanted)
        if received is None or len(received) < whole:
            return None
        content = received.to_bytes()  # more than was wanted, where servers ignore that
        content = content[:size] if self.first else content[-whole:][:size]
        offsets: NDArray[Any] = np.frombuffer(content, self.dtype)[::2].reshape(self.shape)
        stored: NDArray[np.bool_] = offsets != EMPTY
        return stored


def _codecs(array: "zarr.Array[Any]") -> list[dict[str, Any]]:
    """The codecs of an array of format 3, as they are written; format 2 has none."""
    return [codec.to_dict() for codec in getattr(array.metadata, "codecs", ())]


def _places(chunk: Place, row_range: tuple[int, int], columns: Place) -> Iterator[Place]:
    """Where the chunks stand that hold rows of a ``row_range``."""
    rows = range(row_range[0] // chunk[0], -(-row_range[1] // chunk[0]))
    across = (range(-(-n // size)) for n, size in zip(columns, chunk[1:], strict=True))
    return product(rows, *across)


def _all_equal(values: NDArray[Any], fill: Any) -> bool:
    return bool(np.all((values == fill) | ((values != values) & (fill != fill))))
