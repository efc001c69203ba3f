"""Kinds of rows to fit mixtures to, each of any size and seeded, and real tables.

Each function makes rows (N, D) and says how many components are fitted to them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn import datasets

from benchmarks import data
from dgmm.model.covariance import COVARIANCE_MODELS

Rows = NDArray[Any]
Rng = np.random.Generator
DIMS, COMPONENTS = 6, 12
"""Of the families where nothing else is said."""

PATCH = 4
"""The side of a patch of a photograph."""


class Problem(NamedTuple):
    """Rows (N, D), and what is fitted to them."""

    rows: Rows
    components: int
    covariance_model: str = "full"

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, D and K."""
        return *self.rows.shape, self.components

    @property
    def resolution(self) -> float:
        """p / (2 N)."""
        count, n_features = self.rows.shape
        free = COVARIANCE_MODELS[self.covariance_model].free_parameters(self.components, n_features)
        return (free + self.components * n_features + self.components - 1) / (2 * count)


def overlapping(rng: Rng, count: int, dtype: str) -> Problem:
    """Normal components that overlap."""
    mixture, rows = rng.integers(1 << 32, size=2).tolist()
    known = data.mixture(COMPONENTS, DIMS, mixture)
    return Problem(data.draw(known, count, rows, dtype), COMPONENTS)


def heavy(rng: Rng, count: int, dtype: str) -> Problem:
    """Multivariate t with 5 degrees of freedom around each centre."""
    centres = (3 * rng.normal(size=(COMPONENTS, DIMS))).astype(dtype)
    rows = rng.standard_normal((count, DIMS), dtype=np.dtype(dtype))
    rows *= np.sqrt(5 / rng.chisquare(5, size=(count, 1))).astype(dtype)
    rows += centres[rng.integers(COMPONENTS, size=count)]
    return Problem(rows, COMPONENTS)


def curved(rng: Rng, count: int, dtype: str) -> Problem:
    """Normal rows, bent: of no such mixture."""
    rows = rng.standard_normal((count, DIMS), dtype=np.dtype(dtype))
    rows[:, 1] += 0.8 * rows[:, 0] ** 2
    rows[:, 3] += 1.5 * np.sin(2 * rows[:, 2])
    return Problem(rows, COMPONENTS)


def few_columns(rng: Rng, count: int, dtype: str) -> Problem:
    """One to three columns, two to ten components: flat, where they overlap."""
    n_features, components = int(rng.integers(1, 4)), int(rng.integers(2, 11))
    known = data.mixture(components, n_features, int(rng.integers(1 << 32)))
    return Problem(data.draw(known, count, int(rng.integers(1 << 32)), dtype), components)


def unbalanced(rng: Rng, count: int, dtype: str) -> Problem:
    """Weights down to 1e-4, or to ten rows a column, if that is more."""
    known = data.mixture(8, 4, int(rng.integers(1 << 32)))
    weights = np.geomspace(1.0, 1e-4, 8)
    weights = np.maximum(weights / weights.sum(), 10 * 4 / count)
    known = known._replace(weights=weights / weights.sum(), means=2 * known.means)
    return Problem(data.draw(known, count, int(rng.integers(1 << 32)), dtype), 8)


def concentric(rng: Rng, count: int, dtype: str) -> Problem:
    """Components around one centre, each twice as wide as the next."""
    widths = 2.0 ** -np.arange(5)
    axes = np.linalg.qr(rng.normal(size=(5, 4, 4)))[0] * rng.uniform(0.7, 1.4, size=(5, 1, 4))
    known = data.Known(np.full(5, 0.2), np.zeros((5, 4)), axes * widths[:, None, None])
    return Problem(data.draw(known, count, int(rng.integers(1 << 32)), dtype), 5)


def nested(rng: Rng, count: int, dtype: str) -> Problem:
    """Narrow components within a wide one."""
    known = data.mixture(9, 3, int(rng.integers(1 << 32)))
    roots, weights = known.roots.copy(), np.full(9, 0.7 / 8)
    roots[0], weights[0] = 4 * np.eye(3), 0.3
    means = np.where(np.arange(9)[:, None] > 0, 1.5 * known.means, 0.0)
    known = data.Known(weights, means, roots)
    return Problem(data.draw(known, count, int(rng.integers(1 << 32)), dtype), 9)


def uniform(rng: Rng, count: int, dtype: str) -> Problem:
    """Rows that are uniform in a cube: many mixtures are about as good."""
    return Problem(rng.random((count, 3), dtype=np.dtype(dtype)), 8)


def too_many(rng: Rng, count: int, dtype: str) -> Problem:
    """Half as many components again as there are."""
    mixture, rows = rng.integers(1 << 32, size=2).tolist()
    return Problem(data.draw(data.mixture(8, DIMS, mixture), count, rows, dtype), COMPONENTS)


def pixels(rng: Rng, count: int, dtype: str) -> Problem:
    """Colours of photographs, and a bit of noise: without it, there would be ties."""
    colours = np.concatenate([each.reshape(-1, 3) for each in _photographs()])
    return Problem(_some(rng, colours, count, dtype), 10)


def patches(rng: Rng, count: int, dtype: str) -> Problem:
    """Grey patches of photographs, and the same noise."""
    greys = (each.mean(axis=2) for each in _photographs())
    windows = [sliding_window_view(each, (PATCH, PATCH)) for each in greys]
    rows = np.concatenate([each.reshape(-1, PATCH * PATCH) for each in windows])
    return Problem(_some(rng, rows, count, dtype), 8)


@cache
def _photographs() -> tuple[Rows, ...]:
    return tuple(datasets.load_sample_images().images)


def _some(rng: Rng, rows: Rows, count: int, dtype: str) -> Rows:
    """So many of the ``rows``, or all, with noise as wide as a step of their values."""
    chosen = rows[rng.choice(len(rows), min(count, len(rows)), replace=False)]
    return (chosen + rng.random(chosen.shape)).astype(dtype)


def iris(rng: Rng, count: int, dtype: str) -> Problem:
    """150 flowers x 4 of three kinds."""
    return Problem(datasets.load_iris().data.astype(dtype), 3)


def wine(rng: Rng, count: int, dtype: str) -> Problem:
    """178 wines x 13 of three kinds."""
    return Problem(datasets.load_wine().data.astype(dtype), 3, "diag")


def cancer(rng: Rng, count: int, dtype: str) -> Problem:
    """569 cells x 30 of two kinds."""
    return Problem(datasets.load_breast_cancer().data.astype(dtype), 2, "diag")


Family = Callable[[Rng, int, str], Problem]

TABLES: dict[str, Family] = {"iris": iris, "wine": wine, "cancer": cancer}
"""Those of a size of their own, whatever is asked for."""

FAMILIES: dict[str, Family] = {
    "overlapping": overlapping,
    "heavy tails": heavy,
    "curved": curved,
    "few columns": few_columns,
    "unbalanced": unbalanced,
    "concentric": concentric,
    "nested": nested,
    "uniform": uniform,
    "too many": too_many,
    "pixels": pixels,
    "patches": patches,
    **TABLES,
}


def problem(family: str, count: int, seed: int) -> Problem:
    """The rows of a ``family``: float32 where there are ten million."""
    dtype = "float64" if count < 10**7 else "float32"
    return FAMILIES[family](np.random.default_rng(seed), count, dtype)


def sized(families: Iterable[str], counts: Sequence[int]) -> list[tuple[str, int]]:
    """The families with each of the sizes, but tables with their own alone."""
    return [(each, n) for each in families for n in (counts[:1] if each in TABLES else counts)]


LABEL = ("rows are", "N", "D", "K")
"""What a table's line begins with: the family and ``spans``."""


def spans(shapes: Sequence[tuple[int, int, int]]) -> list[str]:
    """N, D and K, from the least to the most."""
    values = [sorted(set(each)) for each in zip(*shapes, strict=True)]
    return [f"{each[0]:,}" + f" to {each[-1]:,}" * (len(each) > 1) for each in values]
