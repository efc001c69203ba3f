"""Rows of a block, those that have the same holes together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import missing


def by_holes(rows: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """The places of ``rows`` (n, D) with the same holes (NaN), and which features these have."""
    holes = np.isnan(rows)
    words = missing.packed(holes)
    partly = words.any(axis=1)
    if not partly.all():
        yield np.flatnonzero(~partly), np.ones(rows.shape[1], bool)
    for pattern in missing.patterns(holes, words, np.flatnonzero(partly)):
        yield pattern.rows, pattern.observed
