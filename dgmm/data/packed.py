"""Packed numbers: attributes of an array that say which values its numbers stand for.

They are those of the CF conventions (2.5.1 and 8.1) and of NetCDF (users' guide, appendix A):
``scale_factor``, ``add_offset``, ``_FillValue``, ``missing_value`` and ``_Unsigned``.  A number
that stands for none is NaN.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.auxiliary import text_of
from dgmm.data.memory import memory
from dgmm.data.source import Source
from dgmm.errors import DataError

ATTRIBUTES: Final = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")
"""Those that are read."""


@dataclass(frozen=True)
class Packing:
    """How numbers become values: times ``scale`` plus ``offset``.

    Attributes
    ----------
    scale, offset : float
    missing : tuple of int or float
        Which numbers stand for no value, as they are stored.
    seen_as : dtype
        What the stored numbers are taken for.
    """

    scale: float
    offset: float
    missing: tuple[int | float, ...]
    seen_as: np.dtype[Any]

    @classmethod
    def of(cls, name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> "Packing | None":
        """What ``attributes`` of numbers of a ``dtype`` say; None if the numbers are the values.

        Raises ``DataError`` for an attribute that can't be understood.
        """
        if dtype.kind not in "iuf":
            return None

        def numbers(attribute: str, default: list[int | float]) -> list[int | float]:
            value = attributes.get(attribute)
            if value is None:
                return default
            try:
                several = value if isinstance(value, list | tuple | np.ndarray) else [value]
                return [number(each, dtype) for each in np.ravel(np.asarray(several, object))]
            except (TypeError, ValueError, struct.error):
                raise DataError(
                    f"{name} has the attribute {attribute}={value!r:.40}, which is no number; say "
                    "raw=True (--raw) to have the numbers as they are stored"
                ) from None

        def single(attribute: str, default: float) -> int | float:
            several = numbers(attribute, [default])
            if len(several) != 1:
                raise DataError(
                    f"{name} has {len(several)} numbers in the attribute {attribute}, which is to "
                    "have one for all; say raw=True (--raw) to have the numbers as they are stored"
                )
            return several[0]

        seen_as = _unsigned(attributes.get("_Unsigned"), dtype)
        missing = [*numbers("_FillValue", []), *numbers("missing_value", [])]
        scale, offset = single("scale_factor", 1.0), single("add_offset", 0.0)
        gone = tuple(sorted({each for one in missing for each in _as_stored(one, dtype)}))
        plain = (scale, offset, gone, seen_as) == (1.0, 0.0, (), dtype)
        return None if plain else cls(scale, offset, gone, seen_as)

    def values_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The type of the values of numbers of a ``dtype``: single where nothing is computed."""
        same = (self.scale, self.offset) == (1.0, 0.0) and dtype.kind == "f"
        return np.dtype(np.float32 if same and dtype.itemsize <= 4 else np.float64)

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The values that ``stored`` numbers stand for, with NaN where there is none."""
        numbers = stored.view(self.seen_as)
        values = memory.array(numbers.shape, self.values_dtype(stored.dtype))
        values[...] = numbers
        if (self.scale, self.offset) != (1.0, 0.0):
            values *= self.scale
            values += self.offset
        for each in self.missing:
            values[stored == stored.dtype.type(each)] = np.nan
        return values


class PackedSource(Source):
    """The values of a source of packed numbers."""

    def __init__(self, source: Source, packing: Packing) -> None:
        self.name, self.shape = source.name, source.shape
        self.dtype = packing.values_dtype(source.dtype)
        self.in_process, self.paths = source.in_process, source.paths
        self._source, self._packing = source, packing

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        return self._packing.seen_as if self._packing.scale == 1.0 else self.dtype

    def check_whole(self) -> None:
        self._source.check_whole()

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        larger = max(1, self.dtype.itemsize // self._source.dtype.itemsize)
        return self._source.divisions(block_bytes // larger)

    def nbytes(self, rows: int) -> int:
        # And of the values: themselves, and which of them are none.
        return self._source.nbytes(rows) + rows * (self.row_bytes + self.row_bytes // 4)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._packing.values(self._source.read(start, stop))


def unpacked(source: Source, attributes: Mapping[str, Any], raw: bool = False) -> Source:
    """The values of a ``source`` whose array has ``attributes``; if ``raw``, its numbers."""
    packing = None if raw else Packing.of(source.name, attributes, source.dtype)
    return source if packing is None else PackedSource(source, packing)


def number(value: Any, dtype: np.dtype[Any]) -> int | float:
    """A number; xarray writes one that JSON has no word for as base64 of its bytes."""
    if isinstance(value, int | np.integer):
        return int(value)  # of 64 bits, which a float can't hold
    try:
        return float(value)
    except ValueError:
        if dtype.kind != "f":
            raise
    number: float = struct.unpack("<d", base64.b64decode(value, validate=True))[0]
    return number


def _as_stored(number: int | float, dtype: np.dtype[Any]) -> list[int | float]:
    """The number of a ``dtype`` that a ``number`` of an attribute is; none if there is none such.

    Those of unsigned bytes may be given as signed ones, and the other way round.
    """
    if np.isnan(number):
        return []
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = float(np.float64(number).astype(dtype))
        return [] if np.isinf(stored) and not np.isinf(number) else [stored]
    bits = 8 * dtype.itemsize
    if np.isinf(number) or number != int(number) or not -(1 << bits - 1) <= number < 1 << bits:
        return []
    pattern = int(number) % (1 << bits)
    signed = dtype.kind == "i" and pattern >= 1 << bits - 1
    return [pattern - (1 << bits) if signed else pattern]


def _unsigned(said: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What numbers of a ``dtype`` are to be taken for, if they are integers."""
    if said is None or dtype.kind not in "iu":
        return dtype
    word = (text_of(said) or str(said)).lower()
    kind = {"true": "u", "false": "i"}.get(word, dtype.kind)
    return np.dtype(dtype.str[0] + kind + dtype.str[2:])
