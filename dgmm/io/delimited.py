"""Outputs of rows in one file of text: a line for each row, below one of names.

Numbers are written with as many digits as it takes to read the same number again.
"""

import csv
from typing import Any

import numpy as np

from dgmm.data.dataset import Dataset
from dgmm.data.urls import place
from dgmm.io.files import FileTarget, row_size, slabs
from dgmm.io.targets import Beside
from dgmm.kernels.outputs import RowOutputs


class CsvTarget(FileTarget):
    """A file of values between commas, or between tabs where its name ends in ``.tsv``."""

    called = "file of text"
    is_table = True

    def is_at(self, url: str) -> bool:
        filesystem, path = place(url)
        return bool(filesystem.isfile(path))

    def write(
        self, path: str, array: Any, dataset: Dataset, wanted: RowOutputs, beside: Beside
    ) -> None:
        delimiter = "\t" if path.lower().endswith(".tsv") else ","
        with open(path, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            lines.writerow([*beside.columns, *beside.names])
            for start in range(0, dataset.rows, dataset.block_rows):
                stop = min(start + dataset.block_rows, dataset.rows)
                kept = None
                if beside.source is not None:
                    kept = beside.source.table(start, stop, beside.columns)
                for _, first, last in slabs(
                    (stop - start,), array.dtype.itemsize * row_size(array)
                ):
                    columns = _columns(array[start + first : start + last])
                    if kept is not None:
                        part = kept.slice(first, last - first).select(beside.columns)
                        columns = [*(column.to_pylist() for column in part.columns), *columns]
                    lines.writerows(zip(*columns, strict=True))


def _columns(outputs: Any) -> list[list[Any]]:
    """The columns of outputs (n, ...); a cell without a value is empty."""
    columns = np.asarray(outputs).reshape(len(outputs), -1).T
    if columns.dtype.kind != "f" or not np.isnan(columns).any():
        return [column.tolist() for column in columns]
    return [[None if cell != cell else cell for cell in column.tolist()] for column in columns]
