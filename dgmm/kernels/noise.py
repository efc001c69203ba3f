"""Known errors of rows: variances (n, D) or covariances (n, D, D), and which of them can't be used.

An infinite variance says that nothing is known of a value: its covariances with others don't count.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array

TOGETHER: Final = 1024
"""Covariances that are looked at together."""


def first_invalid_noise(block: Block) -> tuple[str, int] | None:
    """Name the block's first row whose noise can't be used, and count such rows, if there are."""
    if block.noise is None:
        return None
    noise = block.noise
    if noise.dtype.kind != "f":
        noise = noise.astype(np.float64)
    pairs = noise.ndim == 3
    variances = np.diagonal(noise, axis1=1, axis2=2) if pairs else noise
    with np.errstate(invalid="ignore"):
        bad = ~(variances >= 0)
    wrong = np.asarray(bad.any(axis=1))
    if pairs:
        usable = np.flatnonzero(~wrong)
        for places in np.split(usable, range(TOGETHER, len(usable), TOGETHER)):
            wrong[places] = ~_are_covariances(noise[places])
    if not wrong.any():
        return None
    row = int(wrong.argmax())
    if bad[row].any():
        column = int(bad[row].argmax())
        value = f"{variances[row, column]} at row {block.start + row}, {block.column(column)}"
        name = f"variances of noise must be numbers of at least 0, or infinite: {value}"
    else:
        name = (
            "covariances of noise must be symmetric, positive semidefinite and finite, but for "
            f"those of an infinite variance: that of row {block.start + row} is not"
        )
    return name, int(wrong.sum())


def _are_covariances(noise: Array) -> NDArray[np.bool_]:
    """Which of ``noise`` (n, D, D), with diagonals of at least 0, are covariances (n,)."""
    slack = np.sqrt(np.finfo(noise.dtype).eps)
    variances = np.diagonal(noise, axis1=1, axis2=2)
    known = np.isfinite(variances)
    scale = np.sqrt(np.where(known & (variances > 0), variances, 1.0))
    both = known[:, :, None] & known[:, None, :]
    with np.errstate(over="ignore", invalid="ignore"):
        within = np.where(both, noise, 0.0) / scale[:, :, None] / scale[:, None, :]
        finite = np.isfinite(within).all(axis=(1, 2))
        within[~finite] = 0.0
        symmetric = np.abs(within - within.swapaxes(1, 2)).max(axis=(1, 2)) <= slack
    places = np.arange(noise.shape[1])
    within[:, places, places] += slack
    try:
        np.linalg.cholesky(within)  # far faster than eigenvalues
        definite = np.ones(len(noise), np.bool_)
    except np.linalg.LinAlgError:
        definite = np.linalg.eigvalsh(within)[:, 0] >= 0
    return np.asarray(finite & symmetric & definite)
