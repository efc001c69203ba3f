"""What is added up under mixtures of factor analysers (factor.py): all rows of a tile, or a few."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from dgmm.model.arrays import Array
from dgmm.model.features import SQUARES


@dataclass(frozen=True)
class Sums:
    """What is added up over a block; about 0, or the means of components seen by themselves.

    Attributes
    ----------
    counts : (K,)
        Of responsibilities; with noise (K + 1), here and below, of which this alone is used.
    plain : (K, 2 D)
        Of x and x^2.
    factors : (K, q)
        Of z.
    along : (K, q, D)
        Of z x'.
    """

    counts: Array
    plain: Array
    factors: Array
    along: Array

    @classmethod
    def zero(cls, rows: int, components: int, n_factors: int, n_features: int) -> Self:
        """Those of no rows."""
        return cls(
            np.zeros(rows),
            np.zeros((rows, 2 * n_features)),
            np.zeros((components, n_factors)),
            np.zeros((components, n_factors, n_features)),
        )

    def add(self, features: Array, shares: Array, factors: Array, others: list[int]) -> None:
        """Add a tile of ``features`` [x, x^2] (2 D, n) to all components but some ``others``.

        ``shares`` are R (K, n), and ``factors`` z (K, q, n).
        """
        count, q, n_features = self.along.shape
        weighted = factors * shares[:count, None]
        weighted[others] = 0.0
        product = shares @ features.T
        product[others] = 0.0
        moved = weighted.reshape(count * q, -1) @ features[:n_features].T
        np.add(self.plain, product, out=self.plain)
        np.add(self.factors, weighted.sum(axis=2), out=self.factors)
        np.add(self.along, moved.reshape(self.along.shape), out=self.along)

    def add_rows(self, k: int, away: Array, shares: Array, factors: Array) -> None:
        """Add rows ``away`` (m, D) to component ``k``, with ``shares`` (m,) and z (q, m)."""
        if not len(shares):
            return
        weighted, n_features = factors * shares, away.shape[1]
        self.factors[k] += weighted.sum(axis=1)
        self.along[k] += weighted @ away
        self.plain[k, :n_features] += shares @ away
        self.plain[k, n_features:] += shares @ (away * away)

    def about_means(self, center: Array, apart: list[int]) -> Array:
        """The sums (K, P) about the points ``center`` (K, D), where those ``apart`` are already."""
        count = len(self.along)
        by = center.copy()
        by[apart] = 0.0
        moved = SQUARES.shifted(np.column_stack([self.counts, self.plain]), by)
        along = self.along.swapaxes(1, 2) - by[:count, :, None] * self.factors[:, None]
        beside = np.zeros((len(moved), along[0].size))
        beside[:count] = along.reshape(count, -1)
        return np.concatenate([moved, beside], axis=1)
