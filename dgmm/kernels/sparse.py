"""The arithmetic of a block of sparse rows: what is 0 costs nothing.

Rows are taken in a frame, x = (v - shift) / scale, where nothing is 0.  So they are shifted only in
thought: with y = v / scale, as sparse as v, and a = shift / scale,

    L = eta . T(y - a) = eta' . T(y)          and          S of T(y - a) from S of T(y)

where both are linear in T(y) = [1, y, quadratic part].  A pass takes two products of y with (D, K)
matrices, and as many of its squares: 8 K multiplications for each number that is stored, whatever
D.

**Cancellation.**  In L terms of size (|m| + |y|)^2 / sigma^2 cancel, for means m from 0, which is
little where most of a feature is 0: its mean is then far less than its spread.  Where it is not,
differences from the mean are taken (sparse_differences.py).  Where a quadratic part is no sum over
features, a block's rows are made dense, a tile at a time: right, at the cost of D.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels import kernel
from dgmm.kernels.kernel import TOO_FAR, log_sum_exp, normalise, remedy, tile_rows
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.rounding import Away, rounding_error_bound
from dgmm.kernels.sparse_differences import DENSE_NUMBERS, Differences, too_large
from dgmm.kernels.sparse_rows import SparseRows, squared
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import ROUNDING, Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics

WIDE: Final = 3.0
"""How many standard deviations from its mean a component's rows are taken to be."""


@dataclass(frozen=True)
class Quadratic:
    """The quadratic part of features of a row as a sum over its numbers y_j.

    Attributes
    ----------
    spread : callable
        From coefficients (K, Q) to those of each y_j^2, (K, D).
    gathered : callable
        From sums (K, D) of y_j^2 to those of the quadratic part, (K, Q).
    """

    spread: Callable[[Array, int], Array]
    gathered: Callable[[Array], Array]


QUADRATIC: Final[dict[str, Quadratic | None]] = {
    "squares": Quadratic(lambda own, n_features: own, lambda sums: sums),
    "length": Quadratic(
        lambda own, n_features: np.repeat(own, n_features, axis=1),
        lambda sums: sums.sum(axis=1, keepdims=True),
    ),
    "linear": None,
}
"""By the names of features; those that are not here have other parts."""


@dataclass(frozen=True)
class Shifted:
    """Natural parameters of y: L = constants + linear . y + squares . y^2 + differences.

    Attributes
    ----------
    constants : (K,)
    linear : (D, K)
    squares : (D, K) or None
    about : (K, D)
        Where the sums of y are to be taken about; 0 where they are of differences.
    differences : Differences
        What cancels nothing, of features whose entries above are 0.
    """

    constants: Array
    linear: Array
    squares: Array | None
    about: Array
    differences: Differences

    @classmethod
    def of(cls, natural: NaturalParameters, frame: Frame) -> "Shifted | None":
        """From those of x; None where that can't be.

        A feature costs a unit of rounding of (|m_j| / sigma_j + 3)^2 / 2 at most, with m the means
        as y sees them.
        """
        features, eta, mixture = natural.features, natural.eta, natural.mixture
        if natural.includes_common or features.name not in QUADRATIC or mixture.tails is not None:
            return None
        by, n_features = frame.shift / frame.scale, len(frame.shift)
        linear, quadratic = eta[:, 1 : 1 + n_features], QUADRATIC[features.name]
        inside = np.zeros_like(linear)
        inside[: mixture.components] = mixture.means
        live = mixture.all_weights > 0
        if quadratic is None:
            size = np.abs(linear) * (np.abs(inside + by) + np.abs(by) + WIDE)
            dense, squares, none = too_large(size, live), None, np.broadcast_to(0.0, linear.shape)
            differences = Differences.of(dense, none, natural.center, linear, none)
            linear = np.where(dense, 0.0, linear)
            constants = eta[:, 0] - linear @ by
        else:
            squares = quadratic.spread(eta[:, 1 + n_features :], n_features)
            means = inside + by
            linear = -2 * squares * means
            dense = too_large((np.sqrt(np.abs(linear * means)) + WIDE) ** 2, live)
            none = np.broadcast_to(0.0, linear.shape)
            differences = Differences.of(dense, inside, natural.center, none, squares)
            linear, squares = np.where(dense, 0.0, linear), np.where(dense, 0.0, squares)
            constants = natural.constants - 0.5 * np.sum(linear * means, axis=1)
        about = np.where(dense, 0.0, natural.center + by)
        turned = None if squares is None else np.ascontiguousarray(squares.T)
        return cls(constants, np.ascontiguousarray(linear.T), turned, about, differences)

    def log_joint(self, y: Any, x: Any, frame: Frame) -> Array:
        """L (K, n) of sparse rows ``x`` (n, D) of the data, which are ``y`` scaled."""
        joint: Array = y @ self.linear
        if self.squares is not None:
            joint += squared(y) @ self.squares
        joint += self.constants
        self.differences.add_log_joint(joint, x, frame)
        return np.ascontiguousarray(joint.T)


def e_step(block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of a block under each mixture; of dense rows as by NumPy."""
    if not isinstance(block.rows, SparseRows):
        return kernel.e_step(block, given)
    return Stacked(tuple(_under(block, given.frame, natural) for natural in given.naturals))


def _under(block: Block, frame: Frame, natural: NaturalParameters) -> Statistics:
    """The statistics under one mixture."""
    shifted = Shifted.of(natural, frame)
    if shifted is None:
        tiles = (kernel.e_step(part, Given(frame, (natural,))) for part in _dense_tiles(block))
        return reduce(add, tiles).parts[0]
    n_features, count = len(frame.shift), len(natural.eta)
    counts, sums, apart = np.zeros(count), np.zeros((2, count, n_features)), shifted.differences
    quadratic, levels = QUADRATIC[natural.features.name], np.zeros(2)
    near = apart.nothing
    for part in _tiles(block, count):
        x = _weighted(part)
        y = x.scaled(1.0 / frame.scale)
        log_joint = shifted.log_joint(y, x.csr, frame)
        log_norm, log_plain, shares = normalise(log_joint, natural.penalty)
        if part.weights is not None:
            weights = part.weights.astype(np.float64)
            shares *= weights
            log_norm, log_plain = log_norm * weights, log_plain * weights
        levels += log_norm.sum(), log_plain.sum()
        counts += shares.sum(axis=1)
        transposed = np.ascontiguousarray(shares.T)
        sums[0] += (y.T @ transposed).T
        if quadratic is not None:
            sums[1] += (squared(y).T @ transposed).T
        apart.add_sums(near, shares, x.csr, frame)
    if not np.isfinite(levels).all():
        raise DataError(describe_invalid_row(block) or TOO_FAR)
    for of, far in zip(apart.every, near, strict=True):
        sums[:, of.k, of.columns] = far
    second = np.empty((count, 0)) if quadratic is None else quadratic.gathered(sums[1])
    whole = np.concatenate([counts[:, None], sums[0], second], axis=1)
    moved = natural.features.shifted(whole, shifted.about)
    return Statistics(
        *(moved, natural.center, float(levels[0]), float(levels[1]), block.weight, len(block.rows))
    )


def row_outputs(kind: str, block: Block, frame: Frame, mixture: Mixture) -> NDArray[Any] | None:
    """What a ``mixture`` (in the frame) says of each row; of dense rows NumPy is to say it."""
    if not isinstance(block.rows, SparseRows):
        return None
    if message := describe_invalid_row(block):
        raise DataError(message)
    natural = NaturalParameters.of(mixture)
    shifted, parts = Shifted.of(natural, frame), list[NDArray[Any]]()
    if natural.features.name == "linear" and kind == "score":
        shifted = None  # which wants what all components have in common
    tiles = _dense_tiles(block) if shifted is None else _tiles(block, len(natural.eta))
    for part in tiles:
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            joint = _dense_joint(natural, frame, part) if shifted is None else None
            if shifted is not None:
                rows: SparseRows = part.rows
                joint = shifted.log_joint(rows.scaled(1.0 / frame.scale), rows.csr, frame)
        assert joint is not None
        if not np.isfinite(joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        parts.append(JUDGED[kind](joint))
    return np.concatenate(parts)


def _dense_joint(natural: NaturalParameters, frame: Frame, part: Block) -> Array:
    """L (K, n) of few dense rows, by differences from the means."""
    x = frame.rows(part.rows, np.empty(part.rows.shape[::-1]))
    mixture = natural.mixture
    joint = np.empty((len(natural.eta), x.shape[1]))
    for k in range(mixture.components):
        joint[k] = mixture.log_joint(k, x)
    if mixture.noise_component is not None:
        joint[-1] = natural.constants[-1]
    return joint


JUDGED: Final[dict[str, Callable[[Array], NDArray[Any]]]] = {
    "labels": lambda joint: joint.argmax(axis=0),
    "proba": lambda joint: log_sum_exp(joint)[1].T,
    "score": lambda joint: log_sum_exp(joint)[0],
}
"""By the names of outputs: what is said by log-densities."""


def _weighted(part: Block) -> SparseRows:
    """The rows, where those without weight are 0, whatever they hold."""
    rows: SparseRows = part.rows  # type: ignore[assignment]
    if part.weights is None or part.weights.all():
        return rows
    csr = rows.csr.copy()
    csr.data[np.repeat(part.weights == 0, np.diff(csr.indptr))] = 0
    return SparseRows(csr)


def _tiles(block: Block, components: int) -> Iterator[Block]:
    """Parts of a block: their log-densities fit the cache, or are no more than their sums."""
    size = max(tile_rows(4 * components), block.rows.shape[1])
    return (block.part(slice(at, at + size)) for at in range(0, len(block.rows), size))


def _dense_tiles(block: Block) -> Iterator[Block]:
    """Parts of a block, of dense rows."""
    size = max(1, DENSE_NUMBERS // block.rows.shape[1])
    for at in range(0, max(1, len(block.rows)), size):
        part = block.part(slice(at, at + size))
        yield replace(part, rows=part.rows.dense())  # type: ignore[attr-defined]


def error_bound(mixture: Mixture, away: Away, unit: float) -> Array:
    """As ``rounding_error_bound``; in single precision nothing is computed."""
    bound = rounding_error_bound(mixture, away, unit)
    return np.full_like(bound, np.inf) if unit > ROUNDING else bound


def first_invalid_row(block: Block) -> tuple[str, int] | None:
    """Name the block's first row that holds NaN or infinity, and count such rows, if there are."""
    rows: SparseRows = block.rows  # type: ignore[assignment]
    places = np.flatnonzero(~np.isfinite(rows.csr.data))
    if not len(places):
        return None
    of = np.searchsorted(rows.csr.indptr, places, side="right") - 1
    value, column = rows.csr.data[places[0]], rows.csr.indices[places[0]]
    where = f"{value} at row {block.start + of[0]}, {block.column(column)}"
    return f"NaN or infinity in the rows: {where}", len(np.unique(of))


def describe_invalid_row(block: Block) -> str | None:
    """What is wrong with a block that holds NaN or infinity; None if it doesn't."""
    if (invalid := first_invalid_row(block)) is None:
        return None
    name, count = invalid
    return f"{name}; such rows among these {len(block.rows):,}: {count:,}. {remedy(name)}"
