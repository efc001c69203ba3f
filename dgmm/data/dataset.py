"""A dataset: rows, and what lies beside them, such as their weights, cut into blocks.

A source (``source``) knows where an array lies and reads any of its rows; a dataset says which
rows belong together in a block.

Blocks depend on how the rows are stored and on nothing else: whole Zarr chunks (or shards) of
about ``BLOCK_BYTES`` together, whole Dask chunks, or as many rows of a plain array.  That is what
makes a result independent of the machines it was computed on.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.array_sources import DaskSource
from dgmm.data.axes import NamedAxes
from dgmm.data.patience import Patience, patience
from dgmm.data.source import Source, even_divisions
from dgmm.kernels.sweep import BESIDE, Block
from dgmm.model.lazy import lazy

BLOCK_BYTES: Final = 8 << 20


NAMED: Final = 6
"""So many names of features are shown."""


@dataclass(frozen=True, repr=False)
class Dataset:
    """Rows (N, D) and what lies beside them, cut into blocks; ``open_dataset`` makes one.

    Parameters
    ----------
    source : Source
        Where the rows lie.
    weights : Source or None
        Where their weights lie; None if each row counts as one.
    divisions : array (B + 1,) of int
        The row numbers at which blocks start and end.
    patience : Patience
        How long a store that is away is asked again, here and on workers.
    noise : Source or None
        Where the variances (N, D) or covariances (N, D, D) of the rows' errors lie.
    labels : Source or None
        Where it lies what components rows may be of, (N,) or (N, K).
    axes : NamedAxes or None
        The axes that the rows of an array of xarray come from.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import open_dataset
    >>> dataset = open_dataset(np.zeros((1000, 3)))
    >>> dataset.rows, dataset.n_features, dataset.blocks
    (1000, 3, 1)
    """

    source: Source
    weights: Source | None
    divisions: NDArray[np.int64]
    patience: Patience = field(default_factory=patience)
    noise: Source | None = None
    labels: Source | None = None
    axes: NamedAxes | None = None

    def __repr__(self) -> str:
        shown = list(self.names or ())[:NAMED]
        more = ["..."] * (len(self.names or ()) > NAMED)
        named = f" ({', '.join([*shown, *more])})" * bool(shown)
        beside = "".join(f", with {name}" for name in self.beside)
        where = "" if self.source.where is None else f" where {self.source.where}"
        return (
            f"<Dataset: {self.rows:,} rows of {self.n_features} features{named}{beside}, in "
            f"{self.blocks:,} block{'s' * (self.blocks != 1)}; {self.source.name}{where}>"
        )

    @property
    def rows(self) -> int:
        """The number of rows, N."""
        return self.source.shape[0]

    @property
    def n_features(self) -> int:
        """The number of features, D."""
        return self.source.shape[1]

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the features are called, (D,), if they have names."""
        return self.source.names if self.axes is None else self.axes.names

    @property
    def blocks(self) -> int:
        """The number of blocks, B."""
        return len(self.divisions) - 1

    @lazy
    def block_rows(self) -> int:
        """The rows of the largest block."""
        return int(np.diff(self.divisions).max())

    @property
    def beside(self) -> dict[str, Source]:
        """What lies beside the rows, by its name of ``BESIDE``."""
        return {name: each for name in BESIDE if (each := getattr(self, name)) is not None}

    @property
    def layout(self) -> tuple[int, int, bool, int]:
        """N, D, whether there are weights, and how many numbers else lie beside a row."""
        others = [each for name, each in self.beside.items() if name != "weights"]
        numbers = sum(math.prod(each.shape[1:]) for each in others)
        return self.rows, self.n_features, self.weights is not None, numbers

    @property
    def _sources(self) -> list[Source]:
        return [self.source, *self.beside.values()]

    @property
    def row_bytes(self) -> int:
        """What is read for one row."""
        return sum(source.row_bytes for source in self._sources)

    @property
    def read_bytes(self) -> int:
        """The memory that reading the largest block takes."""
        return sum(source.nbytes(self.block_rows) for source in self._sources)

    @property
    def block_bytes(self) -> int:
        """The size of the largest block."""
        return self.block_rows * self.row_bytes

    @property
    def nbytes(self) -> int:
        """What a thread takes: the block that it computes on, while it reads the next one."""
        return self.read_bytes + min(self.read_bytes, self.block_bytes)

    @property
    def in_process(self) -> bool:
        """Whether only this process can read it."""
        return any(source.in_process for source in self._sources)

    @property
    def lazy(self) -> bool:
        """Whether blocks are computed through a Dask graph."""
        return any(isinstance(source, DaskSource) for source in self._sources)

    def __getstate__(self) -> dict[str, Any]:
        """Even cuts travel as a rule: there may be a million, and each sweep sends them.

        The axes that rows come from stay here.
        """
        rows, step = self.divisions[-1], self.divisions[1] - self.divisions[0]
        even = np.array_equal(self.divisions, even_divisions(rows, step)) if step else False
        cut = (int(rows), int(step)) if even else self.divisions
        return {**vars(self), "divisions": cut, "axes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        divisions = state["divisions"]
        if isinstance(divisions, tuple):
            divisions = even_divisions(*divisions)
        vars(self).update(state | {"divisions": divisions})

    def row_range(self, index: int) -> tuple[int, int]:
        """Which rows a block holds.

        Parameters
        ----------
        index : int
            The number of the block, from 0 to B - 1.

        Returns
        -------
        start, stop : int
            The number of the block's first row, and one past that of its last row.

        Raises
        ------
        IndexError
            If there is no such block.

        Examples
        --------
        >>> import dask.array as da
        >>> from dgmm import open_dataset
        >>> open_dataset(da.zeros((1000, 3), chunks=(400, 3))).row_range(2)
        (800, 1000)
        """
        return int(self.divisions[index]), int(self.divisions[index + 1])

    def rechunk(self, block_bytes: int) -> "Dataset":
        """The same rows in other blocks.

        Parameters
        ----------
        block_bytes : int
            About how large a block is to be, in bytes.  A block is at least one chunk of a Zarr
            array; the blocks of a Dask array are its chunks, whatever is asked.

        Returns
        -------
        Dataset
            The rows and what lies beside them, in these blocks.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from dgmm import open_dataset
        >>> with tempfile.TemporaryDirectory() as place:
        ...     np.save(f"{place}/rows.npy", np.zeros((1000, 3)))
        ...     dataset = open_dataset(f"{place}/rows.npy")
        >>> dataset.blocks, dataset.rechunk(6_000).blocks
        (1, 4)
        """
        return replace(cut(self.source, self.beside, block_bytes), axes=self.axes)

    def evenly(self) -> "Dataset":
        """The same rows in blocks of one number of rows, but for the last, as Zarr's chunks are.

        So what is stored together may be in two blocks, and is read twice: the rows of a table come
        by its parts, which may have any numbers of rows.

        Returns
        -------
        Dataset
            The rows and what lies beside them, in blocks as large as the largest was.

        Examples
        --------
        >>> import dask.array as da
        >>> from dgmm import open_dataset
        >>> dataset = open_dataset(da.zeros((1000, 3), chunks=((300, 500, 200), (3,))))
        >>> dataset.evenly().divisions.tolist()
        [0, 500, 1000]
        """
        divisions = even_divisions(self.rows, self.block_rows)
        if np.array_equal(divisions, self.divisions):
            return self
        beside: dict[str, Any] = {
            name: _cut_at(each, divisions) for name, each in self.beside.items()
        }
        return replace(self, source=_cut_at(self.source, divisions), divisions=divisions, **beside)

    def block(self, index: int, pause: Callable[[float], Any] = time.sleep) -> Block:
        """Read a block.

        Parameters
        ----------
        index : int
            The number of the block, from 0 to B - 1.
        pause : callable, default=time.sleep
            Called with a number of seconds while the store is away: it waits so long, and gives
            True to wait no longer.

        Returns
        -------
        Block
            The number of the first row as ``start``, the ``rows`` (n, D), and what lies beside
            them: their ``weights`` (n,), or None.

        Raises
        ------
        DataError
            If chunks that were there have disappeared.
        OSError
            If the store stays away for longer than ``patience`` says.

        Examples
        --------
        >>> import dask.array as da
        >>> from dgmm import open_dataset
        >>> block = open_dataset(da.zeros((1000, 3), chunks=(400, 3))).block(2)
        >>> block.start, block.rows.shape
        (800, (200, 3))
        """
        return self.patience(partial(self._read, index), pause)

    def _read(self, index: int) -> Block:
        start, stop = self.row_range(index)
        beside = {name: each.read(start, stop) for name, each in self.beside.items()}
        return Block(start, self.source.read(start, stop), names=self.names, **beside)


def cut(source: Source, beside: Mapping[str, Source], block_bytes: int) -> Dataset:
    """Rows and what lies beside them, in blocks of about so many bytes: only noise counts."""
    row_bytes = source.row_bytes
    whole = row_bytes + sum(each.row_bytes for name, each in beside.items() if name == "noise")
    divisions = source.divisions(block_bytes * row_bytes // whole)
    cut: dict[str, Any] = {name: _cut_at(each, divisions) for name, each in beside.items()}
    return Dataset(source, cut.pop("weights", None), divisions, **cut)


def _cut_at(source: Source, divisions: NDArray[np.int64]) -> Source:
    """The same ``source``, of which blocks between these ``divisions`` can be read."""
    return source.rechunk(divisions) if isinstance(source, DaskSource) else source
