"""What the first pass takes of a block of sparse rows, but for its sample: by what is stored."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from dgmm.em.moments import DataMoments
from dgmm.kernels.sparse import first_invalid_row
from dgmm.kernels.sparse_rows import SparseRows
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array


def moments(block: Block, nothing: DataMoments, wrong: tuple[str, int] | None) -> DataMoments:
    """The moments of a ``block``; ``nothing`` are those of no rows.

    ``wrong`` is what is said of weights that can't be used.  Squares are about the mean: of what is
    stored each by itself, of zeros all at once.
    """
    rows: SparseRows = block.rows  # type: ignore[assignment]
    count, holes = len(rows), first_invalid_row(block)
    if invalid := holes or wrong:
        return replace(
            nothing,
            rows=count,
            invalid_row=(block.start, invalid[0]),
            holes=holes[1] if holes else 0,
            misweighted=wrong[1] if wrong and not holes else 0,
        )
    x = rows.csr.astype(np.float64)
    weights = np.ones(count) if block.weights is None else block.weights.astype(np.float64)
    if not weights.all():
        x, weights = x[weights > 0], weights[weights > 0]
    if not x.shape[0]:
        return replace(nothing, rows=count)
    n_features, weight = x.shape[1], float(weights.sum())
    entry_weights = np.repeat(weights, np.diff(x.indptr))
    mean = np.bincount(x.indices, entry_weights * x.data, n_features) / weight
    away = x.data - mean[x.indices]
    there = np.bincount(x.indices, entry_weights, n_features).astype(np.float64, copy=False)
    if nothing.scatter.ndim == 2:
        scatter = _scatter(x, away, entry_weights, mean, there, weight)
    else:
        scatter = np.bincount(x.indices, entry_weights * away * away, n_features).astype(np.float64)
        scatter += np.maximum(weight - there, 0.0) * mean**2
    return replace(
        nothing,
        rows=count,
        weighted=x.shape[0],
        weight=weight,
        mean=mean,
        scatter=scatter,
        low=x.min(axis=0).toarray().ravel(),
        high=x.max(axis=0).toarray().ravel(),
        observed=np.full(n_features, weight),
    )


def _scatter(
    x: Any, away: Array, entry_weights: Array, mean: Array, there: Array, weight: float
) -> Array:
    """The scatter (D, D) of rows of which what is stored in ``x`` is so far ``away`` from the mean.

    ``entry_weights`` are the weights of the stored numbers, ``there`` (D,) their sums.  With b for
    what is stored, a row is away from the mean by a - m (1 - b), so products are those of a, of a
    with what is not stored, and of m where neither is: nothing of the size of the mean cancels.
    """
    a, b = (
        csr_array((data, x.indices, x.indptr), x.shape)
        for data in (away, np.ones_like(entry_weights))
    )
    aw, bw = (
        csr_array((entry_weights * each.data, x.indices, x.indptr), x.shape) for each in (a, b)
    )
    beside = np.bincount(x.indices, aw.data, x.shape[1])[:, None] - (aw.T @ b).toarray()
    across = beside * mean
    neither = weight - there[:, None] - there + (bw.T @ b).toarray()
    scatter: Array = (aw.T @ a).toarray() - across - across.T + neither * np.outer(mean, mean)
    return (scatter + scatter.T) / 2


def nbytes(rows: int, n_features: int) -> int:
    """What the temporaries of a block take beside copies of what is stored (data/sparse.py)."""
    return 8 * (12 * n_features + 2 * rows)
