"""What outputs of rows are written to: a Zarr array, a table of Parquet files, or a file.

Each says how it is begun, how rows are put in it, and which of its files is its mark: what is there
when all is, and is removed first.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.dataset import Dataset
from dgmm.data.table_source import TableSource, check_installed
from dgmm.data.urls import place, zarr_store
from dgmm.errors import DataError, UsageError
from dgmm.io import storage
from dgmm.io.directories import rename
from dgmm.kernels.outputs import RowOutputs
from dgmm.model.lazy import Late

pyarrow, parquet = Late("pyarrow"), Late("pyarrow.parquet")


MARK: Final = "dgmm"
"""The attribute that outputs have, of a Zarr array or group or of a file."""


@dataclass(frozen=True)
class Target(ABC):
    """What outputs are written to, whole or not at all.

    Attributes
    ----------
    keep : tuple of str
        Columns of the rows' table that are written beside the outputs, where this is a table.
    """

    keep: tuple[str, ...] = ()

    called: ClassVar[str]
    mark: ClassVar[str]
    is_table: ClassVar[bool] = False

    def check(self, url: str, dataset: Dataset) -> None:
        """Raise ``DataError`` or ``UsageError`` unless outputs for a dataset can be kept so."""
        if not self.keep:
            return
        if not self.is_table:
            raise UsageError(
                f"--keep {','.join(self.keep)}: columns are kept in a table; call {url} something "
                ".parquet or .csv"
            )
        if not isinstance(dataset.source, TableSource):
            raise UsageError(f"--keep: {dataset.source.name} is no table, whose columns have names")

    def blocks_of(self, dataset: Dataset) -> Dataset:
        """The rows of a dataset in blocks whose outputs tasks can put here, side by side."""
        return dataset

    @abstractmethod
    def is_at(self, url: str) -> bool:
        """Whether what is at ``url`` is a target of this kind."""

    @abstractmethod
    def begin(self, url: str, dataset: Dataset, wanted: RowOutputs) -> None:
        """Make an empty target at ``url`` for what is wanted of the rows of a dataset."""

    @abstractmethod
    def put(self, url: str, start: int, outputs: NDArray[Any], beside: "Beside") -> None:
        """Put outputs of the rows from ``start`` on in their place; doing so again does no harm."""

    def publish(
        self, partial: str, url: str, dataset: Dataset, wanted: RowOutputs, beside: "Beside"
    ) -> None:
        """Have at ``url``, in one go, what was put to ``partial``, which is gone then."""
        rename(partial, url, self.mark)


@dataclass(frozen=True)
class Beside:
    """What a table has beside outputs: their names, and columns of the rows.

    Attributes
    ----------
    names : tuple of str
        Of the columns of outputs.
    source : TableSource or None
        Where columns are kept from.
    columns : tuple of str
        Which.
    """

    names: tuple[str, ...] = ()
    source: TableSource | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Target, dataset: Dataset, wanted: RowOutputs) -> "Beside":
        """What a ``target`` has beside what is wanted of the rows of a dataset."""
        name = wanted.output.name.removesuffix("s")
        names: tuple[str, ...] = (name,)
        if wanted.columns:
            names = tuple(f"{name}_{k}" for k in range(wanted.columns[0]))
            if wanted.has_noise:
                names = (*names[:-1], f"{name}_noise")
            if wanted.output.by_feature and dataset.names:
                names = tuple(f"{name}_{feature}" for feature in dataset.names)
            if wanted.output.fills:
                names = dataset.names or tuple(f"x{j}" for j in range(dataset.n_features))
        names = wanted.output.names or names
        if not target.keep:
            return cls(names)
        if not isinstance(dataset.source, TableSource):
            raise UsageError(f"--keep: {dataset.source.name} is no table, whose columns have names")
        kept = dataset.source.known(target.keep)
        if twice := set(kept) & set(names):
            raise DataError(
                f"--keep: what is written has columns called {', '.join(sorted(twice))} already; "
                "keep others, such as a key by which both tables can be joined"
            )
        return cls(names, dataset.source, kept)


class ZarrTarget(Target):
    """A Zarr array, whose chunks are the outputs of a block."""

    called = "Zarr array"
    mark = "zarr.json"

    def blocks_of(self, dataset: Dataset) -> Dataset:
        return dataset.evenly()  # of two tasks that write to one chunk one would lose

    def is_at(self, url: str) -> bool:
        try:
            there = zarr.open(zarr_store(url), mode="r")
        except (OSError, ValueError):
            return False
        return isinstance(there, zarr.Array) or MARK in there.attrs

    def begin(self, url: str, dataset: Dataset, wanted: RowOutputs) -> None:
        columns = wanted.columns
        zarr.create_array(
            zarr_store(url),
            shape=(dataset.rows, *columns),
            chunks=(dataset.block_rows, *columns),
            dtype=wanted.output.dtype,
            attributes={MARK: {"kind": wanted.output.name, "of": dataset.source.name}},
            overwrite=True,
        )

    def put(self, url: str, start: int, outputs: NDArray[Any], beside: Beside) -> None:
        array: Any = zarr.open_array(zarr_store(url), mode="r+")
        array = array.with_config({"write_empty_chunks": True})  # what isn't stored reads as lost
        array[start : start + len(outputs)] = outputs


class ParquetTarget(Target):
    """A directory of Parquet files, one a block, in the order of the rows; as Dask and Spark do."""

    called = "table of Parquet files"
    mark = "_dgmm.json"  # no part of the table, by the underscore
    is_table = True

    def check(self, url: str, dataset: Dataset) -> None:
        check_installed(url)
        super().check(url, dataset)

    def is_at(self, url: str) -> bool:
        filesystem, path = place(url)
        return bool(filesystem.exists(f"{path}/{self.mark}"))

    def begin(self, url: str, dataset: Dataset, wanted: RowOutputs) -> None:
        filesystem, path = place(url)
        filesystem.makedirs(path, exist_ok=True)
        said = {"kind": wanted.output.name, "of": dataset.source.name, "rows": dataset.rows}
        filesystem.pipe_file(f"{path}/{self.mark}", json.dumps(said).encode())

    def put(self, url: str, start: int, outputs: NDArray[Any], beside: Beside) -> None:
        columns = np.asarray(outputs).reshape(len(outputs), -1)
        columns_out = {name: pyarrow.array(columns[:, j]) for j, name in enumerate(beside.names)}
        if beside.source is not None:
            kept = beside.source.table(start, start + len(outputs), beside.columns)
            columns_out = {name: kept.column(name) for name in kept.column_names} | columns_out
        written = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(columns_out), written)
        # In one go: a task that is late, and is killed, does no harm to what another has put there.
        storage.put(f"{url}/part-{start:015d}.parquet", memoryview(written.getvalue()))
