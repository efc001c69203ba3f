"""The free coordinates of covariances: which entries there are, and which are one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.inference.charts import Chart, Matrices, Variances
from dgmm.model.arrays import Array

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Layout:
    """The free coordinates of the covariances of K components.

    Attributes
    ----------
    rows, columns : (Q,)
        The entries of one component's covariance that may be other than 0.
    own : (K Q, q)
        What each entry of each component is, by the coordinates.
    shape : callable
        From the coordinates (q,) to the covariances' own shape.
    dense : callable
        From the covariances in their own shape to all of them, (K, D, D).
    entries : callable
        From the covariances in their own shape to the coordinates (q,).
    chart : type
        How covariances of that shape are moved (charts.py).
    """

    rows: Places
    columns: Places
    own: Array
    shape: Callable[[Array], Array]
    dense: Callable[[Array], Array]
    entries: Callable[[Array], Array]
    chart: type[Chart]

    def gathered(self, entries: Array) -> Array:
        """From scores of all entries (n, K Q) those of the coordinates (n, q)."""
        if self.own.shape[0] == self.own.shape[1]:  # each entry is a coordinate
            return entries
        return entries @ self.own


def _full(components: int, n_features: int) -> Layout:
    rows, columns = np.triu_indices(n_features)
    own = np.eye(components * len(rows))
    return Layout(
        rows,
        columns,
        own,
        lambda each: _symmetric(each.reshape(components, -1)),
        lambda values: values,
        lambda values: values[:, rows, columns].ravel(),
        Matrices,
    )


def _tied(components: int, n_features: int) -> Layout:
    rows, columns = np.triu_indices(n_features)
    own = np.tile(np.eye(len(rows)), (components, 1))
    every = (components, n_features, n_features)
    return Layout(
        rows,
        columns,
        own,
        lambda each: _symmetric(each[None])[0],
        lambda values: np.broadcast_to(values, every),
        lambda values: values[rows, columns],
        Matrices,
    )


def _diagonal(components: int, n_features: int) -> Layout:
    place = np.arange(n_features)
    own = np.eye(components * n_features)
    one = np.eye(n_features)
    return Layout(
        place,
        place,
        own,
        lambda each: each.reshape(components, -1),
        lambda values: values[:, :, None] * one,
        np.ravel,
        Variances,
    )


def _spherical(components: int, n_features: int) -> Layout:
    place = np.arange(n_features)
    own: Array = np.repeat(np.eye(components), n_features, axis=0)
    one = np.eye(n_features)
    return Layout(
        place,
        place,
        own,
        np.asarray,
        lambda values: values[:, None, None] * one,
        np.asarray,
        Variances,
    )


LAYOUTS: Final[dict[str, Callable[[int, int], Layout]]] = {
    "full": _full,
    "tied": _tied,
    "diag": _diagonal,
    "spherical": _spherical,
}
"""By the name of a covariance model."""


def _symmetric(upper: Array) -> Array:
    """Symmetric matrices (K, D, D) of their entries j <= l, (K, Q)."""
    size = int(np.sqrt(2 * upper.shape[1]))
    rows, columns = np.triu_indices(size)
    whole = np.empty((len(upper), size, size))
    whole[:, rows, columns] = whole[:, columns, rows] = upper
    return whole
