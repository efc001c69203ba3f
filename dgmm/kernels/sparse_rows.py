"""Sparse rows as a block holds them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dgmm.model.arrays import Array


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Rows (n, D) of which what is not 0 is stored, in the place of an array's.

    Attributes
    ----------
    csr : scipy.sparse.csr_array
        In canonical form: each row's columns are sorted, and none is there twice.
    """

    csr: Any

    @classmethod
    def of(
        cls,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[Any],
        shape: tuple[int, int],
    ) -> "SparseRows":
        """From the arrays of compressed rows, which are copied where they are not canonical."""
        return cls(canonical(scipy.sparse.csr_array((data, indices, indptr), shape=shape)))

    def __len__(self) -> int:
        return int(self.csr.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        rows, columns = self.csr.shape
        return int(rows), int(columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self.csr.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        """What is stored."""
        return int(self.csr.data.nbytes + self.csr.indices.nbytes + self.csr.indptr.nbytes)

    def __getitem__(self, chosen: slice) -> "SparseRows":
        return SparseRows(self.csr[chosen])

    def take(
        self, places: NDArray[np.intp], axis: int = 0, out: None = None, mode: str = "raise"
    ) -> NDArray[Any]:
        """Some rows, dense: ``numpy.take`` asks for it so."""
        taken: NDArray[Any] = self.csr[places].toarray()
        return taken

    def dense(self) -> NDArray[Any]:
        """All rows as an array (n, D)."""
        array: NDArray[Any] = self.csr.toarray()
        return array

    def scaled(self, by: Array) -> Any:
        """The rows times ``by`` (D,), in double precision; a copy."""
        csr = self.csr
        data = csr.data.astype(np.float64) * by[csr.indices]
        return scipy.sparse.csr_array((data, csr.indices, csr.indptr), shape=csr.shape)


def canonical(csr: Any) -> Any:
    """Compressed rows with sorted columns, none twice; a copy where they are not so."""
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def stored(rows: Any) -> tuple[NDArray[Any], ...]:
    """The arrays that hold the ``rows`` of a block, sparse or not."""
    if not isinstance(rows, SparseRows):
        return (rows,)
    return rows.csr.data, rows.csr.indices, rows.csr.indptr


def squared(csr: Any) -> Any:
    """The squares of the numbers of compressed rows, where they are."""
    return scipy.sparse.csr_array((csr.data * csr.data, csr.indices, csr.indptr), shape=csr.shape)
