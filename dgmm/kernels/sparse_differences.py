"""Where a component of sparse rows is narrow: differences from its mean, of few features.

A component that has a feature's mean many of its standard deviations from 0 (of one row, say, or in
a column where nothing is 0) would lose digits by products (sparse.py): terms of size m^2 / sigma^2
cancel there.  Of those features, and only there, the numbers of a block's rows are made dense, a
tile at a time, and differences from the mean are taken, as for dense rows.  Each component has its
own such features: what it costs is their number for each row, as products cost K for each number
that is stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array
from dgmm.model.frame import Frame

TERMS: Final = 1e6
"""How large the terms of a log-density may be together that cancel: they cost 1e-10 of it."""

TERM: Final = 100.0
"""How large one may be in any case: of a mean some five standard deviations from 0."""

DENSE_NUMBERS: Final = 1 << 18
"""How many numbers a tile of dense rows has, about."""


@dataclass(frozen=True)
class Own:
    """The features of component ``k`` that are made dense.

    Attributes
    ----------
    k : int
    columns : (H,)
        Which of the D.
    places : (H,)
        Which of all that are made dense.
    mean, center : (H,)
        In the frame: what the log-density is about, and the sums.
    linear, square : (H,)
        What a difference from the mean, and its square, count for in the log-density.
    """

    k: int
    columns: NDArray[np.intp]
    places: NDArray[np.intp]
    mean: Array
    center: Array
    linear: Array
    square: Array


@dataclass(frozen=True)
class Differences:
    """All that components need of dense numbers: of the features ``columns`` (H,), each its own."""

    columns: NDArray[np.intp]
    every: tuple[Own, ...]

    @classmethod
    def of(
        cls, dense: NDArray[np.bool_], means: Array, center: Array, linear: Array, square: Array
    ) -> "Differences":
        """By which are ``dense`` (K, D); the others (K, D) as in ``Own``."""
        columns = np.flatnonzero(dense.any(axis=0))
        every = []
        for k in np.flatnonzero(dense.any(axis=1)):
            own = np.flatnonzero(dense[k])
            taken = (each[k, own] for each in (means, center, linear, square))
            every.append(Own(int(k), own, np.searchsorted(columns, own), *taken))
        return cls(columns, tuple(every))

    def _tiles(self, rows: Any, frame: Frame) -> Iterator[tuple[slice, Array]]:
        """The numbers (H, n) of those features in the frame, for rows (n, D), a tile at a time."""
        chosen = rows[:, self.columns]
        alone = Frame(frame.shift[self.columns], frame.scale[self.columns])
        size = max(1, DENSE_NUMBERS // len(self.columns))
        for start in range(0, chosen.shape[0], size):
            tile = slice(start, start + size)
            dense = chosen[tile].toarray()
            yield tile, alone.rows(dense, np.empty(dense.shape[::-1]))

    def add_log_joint(self, joint: Array, rows: Any, frame: Frame) -> None:
        """Add to ``joint`` L (n, K) what these features make of ``rows`` (n, D)."""
        if not self.every:
            return
        for tile, x in self._tiles(rows, frame):
            for own in self.every:
                away = x[own.places] - own.mean[:, None]
                joint[tile, own.k] += own.linear @ away + own.square @ (away * away)

    @property
    def nothing(self) -> list[Array]:
        """The sums (2, H) of no rows, for each component that has some."""
        return [np.zeros((2, len(own.columns))) for own in self.every]

    def add_sums(self, sums: list[Array], shares: Array, rows: Any, frame: Frame) -> None:
        """Add to ``sums`` those of differences and their squares, by ``shares`` (K, n)."""
        if not self.every:
            return
        for tile, x in self._tiles(rows, frame):
            for own, each in zip(self.every, sums, strict=True):
                away = x[own.places] - own.center[:, None]
                each[0] += away @ shares[own.k, tile]
                each[1] += (away * away) @ shares[own.k, tile]


def too_large(size: Array, live: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which terms (K, D) of log-densities may not cancel, by their ``size``, of ``live`` (K,)."""
    large: NDArray[np.bool_] = size > max(TERMS / size.shape[1], TERM)
    return large & live[:, None]
