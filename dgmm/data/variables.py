"""Arrays of one shape as the features of rows: each has a value of every row.

They may have several axes, such as time, latitude and longitude; rows then go along the last first.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.memory import memory
from dgmm.data.source import Source, is_long
from dgmm.errors import DataError


class VariablesSource(Source):
    """Several arrays of one shape, each a column."""

    def __init__(self, name: str, names: Sequence[str], sources: Sequence[Source]) -> None:
        first = sources[0]
        for called, each in zip(names, sources, strict=True):
            if each.dtype.kind not in "biuf":
                raise DataError(
                    f"{each.name} has dtype {each.dtype}: it is no array of numbers; "
                    f"leave {called} out"
                )
            if each.shape != first.shape:
                raise DataError(
                    f"{each.name} has shape {each.shape}, but {first.name} {first.shape}: features "
                    f"must have one shape; leave {called} out, or the others"
                )
        if not first.shape:
            raise DataError(f"{first.name} is one number, no array of rows")
        self.name = name
        self.names: tuple[str, ...] | None = tuple(names)
        self.shape: tuple[int, ...] = (math.prod(first.shape), len(sources))
        self.dtype = np.result_type(*(each.dtype for each in sources))
        self.long = tuple(j for j, each in enumerate(sources) if is_long(each.stored_dtype))
        self.in_process = any(each.in_process for each in sources)
        self._sources, self._inner = tuple(sources), math.prod(first.shape[1:])

    def check_whole(self) -> None:
        for each in self._sources:
            each.check_whole()

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        share = block_bytes * self._sources[0].row_bytes // max(1, self._inner * self.row_bytes)
        return self._sources[0].divisions(share) * max(1, self._inner)

    def nbytes(self, rows: int) -> int:
        along = -(-rows // max(1, self._inner)) + 1  # and parts of two more at the ends
        return rows * self.row_bytes + max(each.nbytes(along) for each in self._sources)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        rows = memory.array((stop - start, len(self._sources)), self.dtype)
        if start == stop:
            return rows
        first, last = start // self._inner, -(-stop // self._inner)
        skipped = start - first * self._inner
        for j, each in enumerate(self._sources):
            values = each.read(first, last).reshape(-1)
            rows[:, j] = values[skipped : skipped + len(rows)]
        return rows


class FlatSource(VariablesSource):
    """An array of several axes as a value a row."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.name, [source.name], [source])
        self.shape, self.names = self.shape[:1], None

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return super().read(start, stop)[:, 0]
