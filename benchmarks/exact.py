"""EM in sixty digits, with the standard library's decimal numbers: the truth to compare with.

Dense and obvious, about each component's own mean; slow, and for few rows.  Arrays hold objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any, Protocol

import numpy as np

DIGITS = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")

Array = Any

exp, log, root, size = (
    np.frompyfunc(f, 1, 1) for f in (Decimal.exp, Decimal.ln, Decimal.sqrt, abs)
)


@dataclass(frozen=True)
class Parameters:
    """Weights (K,), means (K, D) and covariances (K, D, D) or (K, D), and the score if it is known.

    The score is the mean log-likelihood.
    """

    weights: Array
    means: Array
    covariances: Array
    score: Any = None

    @property
    def finite(self) -> bool:
        """Whether all are numbers."""
        every = (self.weights, self.means, self.covariances, self.score or 0.0)
        return all(np.isfinite(np.asarray(each, float)).all() for each in every)

    @property
    def stored(self) -> "Parameters":
        """The same in double precision."""
        every = (self.weights, self.means, self.covariances)
        return Parameters(*(each.astype(np.float64) for each in every))

    def part(self, components: Sequence[int], columns: Sequence[int]) -> "Parameters":
        """The parameters of some components, weighted anew, and of some columns; without score."""
        weights = self.weights.take(components)
        means = self.means.take(components, 0).take(columns, 1)
        covariances = self.covariances.take(components, 0)
        for axis in range(1, covariances.ndim):
            covariances = covariances.take(columns, axis)
        return Parameters(weights / weights.sum(), means, covariances)


class Shape(Protocol):
    """What differs between structures; ``lower`` is the Cholesky factor L of one covariance."""

    def spread(self, away: Array, shares: Array) -> Array:
        """The covariance of rows ``away`` (n, D) from their mean."""

    def lower(self, covariance: Array) -> Array:
        """L."""

    def white(self, lower: Array, away: Array) -> Array:
        """L^-1 x for each x of ``away`` (n, D)."""

    def half_log_det(self, lower: Array) -> Any:
        """log |L|."""

    def strain(self, lower: Array, covariance: Array) -> Array:
        """L^-1 S L^-T - I for a covariance S."""


class Full:
    """Covariances (D, D)."""

    def spread(self, away: Array, shares: Array) -> Array:
        return (away * shares[:, None]).T @ away / shares.sum()

    def lower(self, covariance: Array) -> Array:
        found = np.zeros_like(covariance)
        for i in range(len(found)):
            for j in range(i + 1):
                rest = covariance[i, j] - found[i, :j] @ found[j, :j]
                found[i, j] = rest.sqrt() if i == j else rest / found[j, j]
        return found

    def white(self, lower: Array, away: Array) -> Array:
        found = np.zeros_like(away)
        for i in range(len(lower)):
            found[:, i] = (away[:, i] - found[:, :i] @ lower[i, :i]) / lower[i, i]
        return found

    def half_log_det(self, lower: Array) -> Any:
        return log(np.diagonal(lower)).sum()

    def strain(self, lower: Array, covariance: Array) -> Array:
        return self.white(lower, self.white(lower, covariance).T) - np.eye(len(lower), dtype=int)


class Diagonal:
    """Variances (D,)."""

    def spread(self, away: Array, shares: Array) -> Array:
        return (away * away).T @ shares / shares.sum()

    def lower(self, covariance: Array) -> Array:
        return root(covariance)

    def white(self, lower: Array, away: Array) -> Array:
        return away / lower

    def half_log_det(self, lower: Array) -> Any:
        return log(lower).sum()

    def strain(self, lower: Array, covariance: Array) -> Array:
        return covariance / (lower * lower) - 1


SHAPES: dict[str, Shape] = {"full": Full(), "diag": Diagonal()}


def exact(array: Array) -> Array:
    """The same numbers, as decimals."""
    return np.frompyfunc(lambda number: Decimal(float(number)), 1, 1)(array)


def in_sixty_digits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function's decimals hold sixty digits."""

    def wide(*args: Any) -> Any:
        with localcontext(DIGITS):
            return function(*args)

    return wide


@in_sixty_digits
def em(
    kind: str, rows: Array, row_weights: Array, start: Parameters, iterations: int
) -> Parameters:
    """The parameters after so many iterations from ``start``, and their score."""
    shape, x, w = SHAPES[kind], exact(rows), exact(row_weights)
    now = Parameters(exact(start.weights), exact(start.means), exact(start.covariances))
    for _ in range(iterations):
        joint = np.stack([_density(shape, x, *each) for each in _components(now)])
        shares = joint / joint.sum(axis=0) * w
        counts = shares.sum(axis=1)
        means = (shares @ x) / counts[:, None]
        pairs = zip(means, shares, strict=True)
        spreads = np.stack([shape.spread(x - mean, share) for mean, share in pairs])
        now = Parameters(counts / counts.sum(), means, spreads)
    joint = np.stack([_density(shape, x, *each) for each in _components(now)])
    score = (w * log(joint.sum(axis=0))).sum() / w.sum()
    return Parameters(now.weights, now.means, now.covariances, score)


def _components(mixture: Parameters) -> Any:
    return zip(mixture.weights, mixture.means, mixture.covariances, strict=True)


def _density(shape: Shape, x: Array, weight: Any, mean: Array, covariance: Array) -> Array:
    """Weight times density of each row, (n,)."""
    lower = shape.lower(covariance)
    white = shape.white(lower, x - mean)
    constant = log(weight) - shape.half_log_det(lower) - x.shape[1] * (2 * PI).ln() / 2
    return exp(constant - (white * white).sum(axis=1) / 2)


@in_sixty_digits
def error(kind: str, found: Parameters, right: Parameters) -> float:
    """The largest error of a parameter.

    Of a weight relative to it; of means and covariances in units of the component's own spread,
    which in its narrowest direction is a small one.
    """
    shape, worst = SHAPES[kind], Decimal(0)
    ours = Parameters(exact(found.weights), exact(found.means), exact(found.covariances))
    pairs = zip(_components(ours), _components(right), strict=True)
    for (weight, mean, covariance), (true_weight, true_mean, true_covariance) in pairs:
        lower = shape.lower(true_covariance)
        moved = shape.white(lower, (mean - true_mean)[None])
        strain = shape.strain(lower, covariance)
        worst = max(worst, abs(weight / true_weight - 1), size(moved).max(), size(strain).max())
    return float(worst)
