"""A uniform sample of the rows, the same however they are cut into blocks.

It is the rows with the smallest keys, where a row's key is an exponential variate made
from a hash of its absolute number (and divided by its weight: Efraimidis and Spirakis, Weighted
random sampling with a reservoir, 2006).  So it is uniform, mergeable, and the same however the
rows are cut into blocks.

The hash is our own: NumPy's Philox, one counter for all rows, takes 4 ns a row, which is a fifth of
what this takes in NumPy, but twelve times what its compiled twin takes (kernels/_native.c).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.sweep import BESIDE, Block
from dgmm.model.arrays import Array

OTHERS: Final = tuple(name for name in BESIDE if name != "weights")
"""What may lie beside rows, but for weights, which those of a sample always have."""


@dataclass(frozen=True)
class Sample:
    """At most ``size`` rows.

    Attributes
    ----------
    size : int
    keys, numbers, weights : (n,)
    rows : (n, D)
    filled : (n, D) or None
        Which of the values were missing, and are filled in.
    noise : (n, D), (n, D, D) or None
    labels : (n,), (n, K) or None
        As in ``Block``.
    """

    size: int
    keys: Array
    numbers: NDArray[np.int64]
    rows: Array
    weights: Array
    filled: NDArray[np.bool_] | None = None
    noise: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None

    @property
    def others(self) -> dict[str, NDArray[Any]]:
        """What there is of ``OTHERS``, by name."""
        return {name: each for name in OTHERS if (each := getattr(self, name)) is not None}

    @property
    def given(self) -> Block:
        """The rows as they were given, with NaN for what is filled in, and what lies beside them.

        Without weights, if all are 1.
        """
        rows = self.rows if self.filled is None else np.where(self.filled, np.nan, self.rows)
        others: dict[str, Any] = self.others
        return Block(0, rows, None if (self.weights == 1).all() else self.weights, **others)

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            self.size,
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weights, other.weights]),
            **_joined(self.others, other.others),
        ).smallest()

    def first(self, size: int) -> "Sample":
        """The ``size`` rows with the smallest keys: a sample of the same kind.

        Where weights differ, a row is drawn with probability 1 - exp(-w t), t the smallest key left
        out, and then stands for w over that (Horvitz and Thompson, A generalization of sampling
        without replacement from a finite universe, 1952).
        """
        if size >= len(self.keys):
            return replace(self, size=size)
        sample = replace(self, size=size).smallest()
        weights = sample.weights
        if (weights == weights[0]).all():
            return sample
        out = np.partition(self.keys, size)[size]
        return replace(sample, weights=weights / -np.expm1(-weights * out))

    def head(self, size: int) -> "Sample":
        """Enough of it that ``first`` gives the same of this as of all, up to ``size`` rows."""
        return replace(self, size=size + 1).smallest()

    def smallest(self) -> "Sample":
        """The rows with the ``size`` smallest keys, by row number."""
        smallest = self
        if len(self.keys) > self.size:
            smallest = self.chosen(np.sort(np.argpartition(self.keys, self.size - 1)[: self.size]))
        if (np.diff(smallest.numbers) < 0).any():  # seldom: blocks come in order
            smallest = smallest.chosen(np.argsort(smallest.numbers, kind="stable"))
        return smallest

    def chosen(self, order: NDArray[np.int64]) -> "Sample":
        """The rows at these places, in that order."""
        filled = None if self.filled is None else self.filled[order]
        return Sample(
            self.size,
            self.keys[order],
            self.numbers[order],
            np.take(self.rows, order, axis=0),  # far faster than [order]
            self.weights[order],
            filled,
            **{name: np.take(each, order, axis=0) for name, each in self.others.items()},
        )


def _joined(
    some: dict[str, NDArray[Any]], more: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """What lies beside the rows of two samples; one without rows may lack it."""
    both = {**some, **more}
    shared = some.keys() & more.keys()
    return both | {name: np.concatenate([some[name], more[name]]) for name in shared}


def nbytes(rows: int, n_features: int, beside: int = 0) -> int:
    """The size of a ``Sample`` of so many rows, with so many numbers of ``OTHERS`` for each."""
    return 8 * rows * (n_features + beside + 3)


def smallest_keys(
    keys: list[Array], numbers: list[NDArray[np.int64]], size: int
) -> tuple[list[Array], list[NDArray[np.int64]]]:
    """The ``size`` smallest of all ``keys``, with their numbers, in one array each."""
    key, number = np.concatenate(keys), np.concatenate(numbers)
    if len(key) > size:
        kept = np.sort(np.argpartition(key, size - 1)[:size])
        key, number = key[kept], number[kept]
    return [key], [number]


def least_hash(largest: float) -> int:
    """The least hash that may lead to a key, before weights, below ``largest``."""
    return max(0, int(math.exp(-largest) * (1 - 1e-14) * 2.0**53) - 2)  # rounding is less


def numbers_drawn(start: int, count: int, seed: int, least: int) -> NDArray[np.int64]:
    """Of ``count`` row numbers from ``start`` on, those whose hash is at least ``least``."""
    numbers = np.arange(start, start + count, dtype=np.int64)
    return numbers[(random_bits(numbers, seed) >> np.uint64(11)) >= np.uint64(least)]


def uniform(numbers: NDArray[np.int64], seed: int) -> Array:
    """A uniform variate in (0, 1) for each row number, from its hash."""
    bits = random_bits(numbers, seed) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53 + 2.0**-54


def random_bits(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """64 random bits for each row number: splitmix64 (Steele, Lea, Flood 2014)."""
    z = numbers.astype(np.uint64) + np.uint64(1) + _mix(np.array([seed], dtype=np.uint64))
    return _mix(z * np.uint64(0x9E3779B97F4A7C15))


def _mix(z: NDArray[Any]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
