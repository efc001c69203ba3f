"""What a sweep brings home: values that merge by ``+``.

Statistics of a block are sums over its rows, so those of two blocks together are the field-wise
sum, and those of no rows are a zero: a commutative monoid, whose laws tests/test_laws.py checks.
Nothing else in the program knows how merging works.
"""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from dgmm.model.arrays import Array


class Mergeable(Protocol):
    """Anything that can be swept: ``+`` is associative and commutative, up to rounding."""

    def __add__(self, other: Self) -> Self: ...


@dataclass(frozen=True)
class Statistics:
    """The sufficient statistics of some rows under one mixture.

    With responsibilities r_k(x) and row weights w(x), sums over the rows of

    Attributes
    ----------
    sums : (K, P)
        w r_k T(x - center_k): counts, sums and sums of the quadratic part.
    center : (K, D)
        The points that the sums were taken about.  Statistics about different points don't add.
    objective : float
        w log sum_k pi_k N(x | k) e^(-penalty_k): what the M-step raises.
    log_likelihood : float
        w log sum_k pi_k N(x | k).
    weight : float
        w.
    rows : int
        1.
    tails : (K, 2) or None
        Where components are t distributions: w r_k E[u], and w r_k (E[log u] - E[u]).  Then the
        ``sums`` are by w r_k E[u], but for the counts.
    """

    sums: Array
    center: Array
    objective: float
    log_likelihood: float
    weight: float
    rows: int
    tails: Array | None = None

    @classmethod
    def zero(cls, center: Array, width: int, tails: bool = False) -> "Statistics":
        """The statistics of no rows."""
        none = np.zeros((len(center), 2)) if tails else None
        return cls(np.zeros((len(center), width)), center, 0.0, 0.0, 0.0, 0, none)

    def scaled(self, factor: float) -> "Statistics":
        """The statistics of the same rows with weights ``factor`` times as large."""
        if factor == 1.0:
            return self
        return Statistics(
            factor * self.sums,
            self.center,
            factor * self.objective,
            factor * self.log_likelihood,
            factor * self.weight,
            self.rows,
            None if self.tails is None else factor * self.tails,
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        if not np.array_equal(self.center, other.center):
            raise ValueError("statistics about different points can't be added")
        tails = None
        if self.tails is not None and other.tails is not None:
            tails = self.tails + other.tails
        return Statistics(
            self.sums + other.sums,
            self.center,
            self.objective + other.objective,
            self.log_likelihood + other.log_likelihood,
            self.weight + other.weight,
            self.rows + other.rows,
            tails,
        )


@dataclass(frozen=True)
class WeightedSum:
    """A weighted sum over rows, the sum of the weights, and how many rows have one."""

    value: float
    weight: float
    rows: int = 0

    def __add__(self, other: "WeightedSum") -> "WeightedSum":
        weight, rows = self.weight + other.weight, self.rows + other.rows
        return WeightedSum(self.value + other.value, weight, rows)


def nbytes(components: int, width: int, n_features: int) -> int:
    """The size of the ``Statistics`` of K components: sums (K, P) and centers (K, D)."""
    return 8 * components * (width + n_features)


T = TypeVar("T")


@dataclass(frozen=True)
class Stacked(Generic[T]):
    """Several mergeable values, merged side by side in one sweep."""

    parts: tuple[T, ...]

    def __add__(self, other: "Stacked[Any]") -> "Stacked[Any]":
        pairs = zip(self.parts, other.parts, strict=True)
        return Stacked(tuple(one + two for one, two in pairs))
