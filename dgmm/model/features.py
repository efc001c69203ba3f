"""Features: what of a row the sufficient statistics sum, T(x) = [1, x, quadratic part]."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from dgmm.model.arrays import Array
from dgmm.model.matrices import unpack, upper_places


@dataclass(frozen=True)
class Features(ABC):
    """The features T of a row: P of them, of which the quadratic part has Q = P - 1 - D."""

    name: ClassVar[str]

    @abstractmethod
    def quadratic_width(self, n_features: int) -> int:
        """Q, for ``n_features`` = D columns."""

    @abstractmethod
    def square(self, x: Array, out: Array) -> None:
        """Write the quadratic part of ``x`` (D, n) to ``out`` (Q, n)."""

    @abstractmethod
    def cross(self, x: Array, y: Array) -> Array:
        """What ``square`` of (D, n) ``x + y`` has beyond those of each: (Q, n), bilinear."""

    @abstractmethod
    def length(self, n_features: int) -> Array:
        """The coefficients (Q,) with which the quadratic part makes |x|^2; none if it can't."""

    @abstractmethod
    def of_matrices(self, second: Array) -> Array:
        """The quadratic part (K, Q) of sums of x x', symmetric matrices ``second`` (K, D, D)."""

    @abstractmethod
    def matrices(self, quadratic: Array, n_features: int) -> Array:
        """Symmetric matrices (K, D, D) that have this quadratic part (K, Q), and no more."""

    def of_variances(self, second: Array) -> Array:
        """The same of diagonal matrices, by their diagonals (K, D)."""
        return self.of_matrices(second[:, :, None] * np.eye(second.shape[1]))

    def width(self, n_features: int) -> int:
        """P, for ``n_features`` = D columns."""
        return 1 + n_features + self.quadratic_width(n_features)

    def of(self, x: Array, out: Array) -> Array:
        """Write T(x) to ``out`` (P, n) for ``x`` (D, n), a row a column, and return it."""
        n_features = len(x)
        out[0] = 1.0
        out[1 : 1 + n_features] = x
        self.square(x, out[1 + n_features :])
        return out

    def shifted(self, sums: Array, by: Array) -> Array:
        """Sums (K, P) of T(x - by_k), from ``sums`` (K, P) of T(x); ``by`` is (K, D)."""
        n_features = by.shape[1]
        counts, first, second = sums[:, :1], sums[:, 1 : 1 + n_features], sums[:, 1 + n_features :]
        both, alone = self.cross(first.T, by.T).T, self.cross(by.T, by.T).T / 2
        return np.concatenate([counts, first - counts * by, second - both + counts * alone], axis=1)


@dataclass(frozen=True)
class Products(Features):
    """The products x_i x_j of all pairs i <= j."""

    name = "products"

    def quadratic_width(self, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    def square(self, x: Array, out: Array) -> None:
        at = 0
        for i in range(len(x)):
            np.multiply(x[i], x[i:], out=out[at : at + len(x) - i])
            at += len(x) - i

    def cross(self, x: Array, y: Array) -> Array:
        rows, columns = upper_places(len(x))
        return x[rows] * y[columns] + x[columns] * y[rows]

    def length(self, n_features: int) -> Array:
        rows, columns = upper_places(n_features)
        length: Array = (rows == columns).astype(np.float64)
        return length

    def of_matrices(self, second: Array) -> Array:
        rows, columns = upper_places(second.shape[1])
        return second[:, rows, columns]

    def matrices(self, quadratic: Array, n_features: int) -> Array:
        return unpack(quadratic, n_features)


@dataclass(frozen=True)
class Squares(Features):
    """The square x_j^2 of each column."""

    name = "squares"

    def quadratic_width(self, n_features: int) -> int:
        return n_features

    def square(self, x: Array, out: Array) -> None:
        np.multiply(x, x, out=out)

    def cross(self, x: Array, y: Array) -> Array:
        return 2 * x * y

    def length(self, n_features: int) -> Array:
        return np.ones(n_features)

    def of_matrices(self, second: Array) -> Array:
        return np.diagonal(second, axis1=1, axis2=2)

    def matrices(self, quadratic: Array, n_features: int) -> Array:
        return quadratic[:, :, None] * np.eye(n_features)

    def of_variances(self, second: Array) -> Array:
        return second


@dataclass(frozen=True)
class Length(Features):
    """The squared length |x|^2."""

    name = "length"

    def quadratic_width(self, n_features: int) -> int:
        return 1

    def square(self, x: Array, out: Array) -> None:
        np.sum(x * x, axis=0, out=out[0])

    def cross(self, x: Array, y: Array) -> Array:
        cross: Array = 2 * np.sum(x * y, axis=0, keepdims=True)
        return cross

    def length(self, n_features: int) -> Array:
        return np.ones(1)

    def of_matrices(self, second: Array) -> Array:
        length: Array = np.trace(second, axis1=1, axis2=2)[:, None]
        return length

    def matrices(self, quadratic: Array, n_features: int) -> Array:
        return quadratic[:, :, None] / n_features * np.eye(n_features)

    def of_variances(self, second: Array) -> Array:
        length: Array = second.sum(axis=1, keepdims=True)
        return length


@dataclass(frozen=True)
class Linear(Features):
    """No quadratic part."""

    name = "linear"

    def quadratic_width(self, n_features: int) -> int:
        return 0

    def square(self, x: Array, out: Array) -> None:
        pass

    def cross(self, x: Array, y: Array) -> Array:
        return np.empty((0, x.shape[1]))

    def length(self, n_features: int) -> Array:
        return np.empty(0)

    def of_matrices(self, second: Array) -> Array:
        return np.empty((len(second), 0))

    def matrices(self, quadratic: Array, n_features: int) -> Array:
        return np.zeros((len(quadratic), n_features, n_features))


@dataclass(frozen=True)
class Projections(Features):
    """The square of each column, and x (G_k' x)' for directions G_k (D, q) of each component.

    What the directions are, only the mixture knows that sums are taken under; here they are 0, and
    sums about other points are of 1, x and the squares alone.
    """

    n_factors: int

    name = "projections"

    def quadratic_width(self, n_features: int) -> int:
        return n_features * (1 + self.n_factors)

    def square(self, x: Array, out: Array) -> None:
        np.multiply(x, x, out=out[: len(x)])
        out[len(x) :] = 0.0

    def cross(self, x: Array, y: Array) -> Array:
        return SQUARES.cross(x, y)

    def length(self, n_features: int) -> Array:
        return SQUARES.length(n_features)

    def of_matrices(self, second: Array) -> Array:
        along = np.zeros((len(second), second.shape[1] * self.n_factors))
        return np.concatenate([SQUARES.of_matrices(second), along], axis=1)

    def matrices(self, quadratic: Array, n_features: int) -> Array:
        return SQUARES.matrices(quadratic[:, :n_features], n_features)

    def shifted(self, sums: Array, by: Array) -> Array:
        return SQUARES.shifted(sums[:, : SQUARES.width(by.shape[1])], by)


SQUARES: Final = Squares()
