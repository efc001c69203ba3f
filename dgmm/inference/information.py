"""The information that rows have of a mixture's parameters, in one pass.

With s_i the score of row i (the gradient of its log-density), there are the outer products of the
scores, and what makes minus the second derivatives of the log-likelihood of them (Louis, Finding
the observed information matrix when using the EM algorithm, 1982).  With S_ik the score of a row
that is known to be of component k,

    H = sum_i w_i (sum_k r_ik (I_ik - S_ik S_ik') + s_i s_i'),    s_i = sum_k r_ik S_ik

where I_ik, minus the second derivatives of log pi_k + log N(x_i | k), adds up over rows by their
first and second moments.

**Coordinates.**  The weights are softmax(a), with a_K = 0; means are themselves; of a covariance,
its entries i <= j, or those on its diagonal where others are 0.  For u = P (x - mu),

    d log N / d mu = u        d log N / d S_ij = u_i u_j - P_ij, halved where i = j

Components that share covariances, or features that do, have the sums of these.  A row with holes
has P of what was observed, and 0 elsewhere.

**Replicates** of a bootstrap (resampling.py) are further sums of the same scores: by how much each
would have moved their sum, had its rows been seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.em.first_pass import check_row_weights
from dgmm.errors import DataError
from dgmm.inference.holes import by_holes
from dgmm.inference.layouts import LAYOUTS, Layout
from dgmm.inference.resampling import NOTHING, Resampling
from dgmm.kernels.kernel import TOO_FAR, log_sum_exp, tile_rows
from dgmm.kernels.observation import Observation
from dgmm.kernels.outputs import check_rows
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Query:
    """What a sweep for information is given: the mixture (in the frame) and how rows count."""

    mixture: Mixture
    frame: Frame
    observation: Observation
    resampling: Resampling = NOTHING

    @property
    def layout(self) -> Layout:
        """The coordinates of the covariances."""
        mixture = self.mixture
        return LAYOUTS[mixture.covariance_model.name](mixture.components, mixture.n_features)


@dataclass(frozen=True)
class Information:
    """Sums over rows, with p coordinates.

    Attributes
    ----------
    outer, squared : (p, p)
        w s s' and w^2 s s'.
    complete : (p, p)
        w r_k (I_k - S_k S_k').
    counts : (K,)
        w r_k.
    sums : (K, D + Q)
        w r_k S_k, of each component's own mean and entries.
    precisions : (K, D, D)
        w r_k P_k.
    levels : (2,)
        w log p and w (log p)^2, p the density of the data.
    pulls : (B, p)
        (c - 1) w s, with c how often a row counts in each of B replicates.
    drawn : (B, 2)
        c w and c w log p.
    weight : float
    rows : int
    """

    outer: Array
    squared: Array
    complete: Array
    counts: Array
    sums: Array
    precisions: Array
    levels: Array
    pulls: Array
    drawn: Array
    weight: float
    rows: int

    @classmethod
    def zero(cls, query: Query) -> "Information":
        """That of no rows."""
        (components, width), layout = query.mixture.means.shape, query.layout
        count = components - 1 + components * width + layout.own.shape[1]
        outer, squared, complete = np.zeros((3, count, count))
        sums = np.zeros((components, width + len(layout.rows)))
        precisions, levels = np.zeros((components, width, width)), np.zeros(2)
        of_components = np.zeros(components), sums, precisions, levels
        replicates = len(query.resampling.replicates)
        pulls, drawn = np.zeros((replicates, count)), np.zeros((replicates, 2))
        return cls(outer, squared, complete, *of_components, pulls, drawn, 0.0, 0)

    def __add__(self, other: "Information") -> "Information":
        names = (each.name for each in fields(self))
        return Information(*(getattr(self, name) + getattr(other, name) for name in names))


def information(block: Block, query: Query) -> Information:
    """The information of a block's rows."""
    check_row_weights(block)
    check_rows(block, query.observation.refuses)
    block = query.observation.counted(block).block
    weights = np.ones(len(block.rows))
    if block.weights is not None:
        weights = block.weights.astype(np.float64)
    total = Information.zero(query)
    size = rows_of(query)
    for places, observed in by_holes(block.rows):
        chosen = places[weights[places] > 0]
        if not len(chosen) or not observed.any():
            continue
        part = _Part.of(query, observed)
        tiles = (chosen[start : start + size] for start in range(0, len(chosen), size))
        rows = (
            (block.rows[tile][:, observed], weights[tile], block.start + tile) for tile in tiles
        )
        total += part.total(rows, Information.zero(query))
    return total


def numbers_of(query: Query) -> int:
    """How many numbers a row has while it is looked at, at most."""
    layout, means = query.layout, query.mixture.means.size
    count = query.mixture.components - 1 + means + int(layout.own.shape[1])
    return 2 * count + 3 * (len(layout.own) + means) + len(query.resampling.replicates)


def rows_of(query: Query) -> int:
    """How many rows a tile has: products of pairs of coordinates are worth more than the cache."""
    return max(tile_rows(numbers_of(query)), 512)


def nbytes(query: Query) -> tuple[int, int]:
    """What a thread takes for its tiles, and what it finds, in bytes."""
    nothing = Information.zero(query)
    result = sum(getattr(each, "nbytes", 8) for each in vars(nothing).values())
    return 2 * 8 * numbers_of(query) * rows_of(query) + 3 * result, result


@dataclass(frozen=True)
class _Part:
    """What the information of rows with the same holes is computed by.

    Attributes
    ----------
    seen : Mixture
        Of the observed features, in their frame.
    frame : Frame
    observed : (D,)
    precisions : (K, D, D)
        0 where nothing was observed.
    layout : Layout
    resampling : Resampling
    """

    seen: Mixture
    frame: Frame
    observed: NDArray[np.bool_]
    precisions: Array
    layout: Layout
    resampling: Resampling

    @classmethod
    def of(cls, query: Query, observed: NDArray[np.bool_]) -> "_Part":
        places = np.flatnonzero(observed)
        mixture = query.mixture.among(places)
        precisions = np.zeros((len(mixture.means), len(observed), len(observed)))
        precisions[:, places[:, None], places] = np.linalg.inv(mixture.covariances.dense())
        frame = Frame(query.frame.shift[places], query.frame.scale[places])
        return cls(mixture, frame, observed, precisions, query.layout, query.resampling)

    def total(
        self,
        tiles: Iterable[tuple[NDArray[Any], Array, NDArray[np.int64]]],
        nothing: Information,
    ) -> Information:
        """The information of tiles of rows (n, o) with weights (n,) and numbers (n,)."""
        (components, q), none = nothing.sums.shape, np.zeros(())
        products = np.zeros((components, q, q))
        outer, squared = np.zeros((2, *nothing.outer.shape))
        total = replace(nothing, outer=none, squared=none, complete=none)
        for rows, weights, numbers in tiles:
            level, r, scores = self._judged(rows)
            in_coordinates = self._in_coordinates(r, r[:, :, None] * scores)
            counts = self.resampling.counts(numbers).T.astype(np.float64)
            # A product of a matrix with itself takes half the time.
            rooted = in_coordinates * np.sqrt(weights)[:, None]
            in_coordinates *= weights[:, None]
            r *= weights
            product = rooted.T @ rooted
            outer += product
            squared += product if (weights == 1).all() else in_coordinates.T @ in_coordinates
            total += Information(
                outer=none,
                squared=none,
                complete=none,
                counts=r.sum(axis=1),
                sums=(r[:, None] @ scores)[:, 0],
                precisions=nothing.precisions,
                levels=np.array([level @ weights, level * level @ weights]),
                pulls=(counts - 1) @ in_coordinates,
                drawn=counts @ np.stack([weights, level * weights], axis=1),
                weight=float(weights.sum()),
                rows=len(rows),
            )
            products += (scores * r[:, :, None]).swapaxes(1, 2) @ scores
        precisions = total.counts[:, None, None] * self.precisions
        complete = self._complete(total.counts, total.sums, products)
        return replace(
            total, outer=outer, squared=squared, complete=complete, precisions=precisions
        )

    def _judged(self, rows: NDArray[Any]) -> tuple[Array, Array, Array]:
        """Log-densities (n,) of rows (n, o), their responsibilities (K, n), and ``_scores``."""
        x = self.frame.rows(rows, np.empty(rows.shape[::-1])).T
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = self.seen.log_joints(x.T)
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        level, r = log_sum_exp(log_joint)
        return level - self.frame.log_volume, r, self._scores(x)

    def _scores(self, x: Array) -> Array:
        """The scores (K, n, D + Q) of each component's own mean and entries of its covariance."""
        away = np.zeros((len(self.precisions), len(x), len(self.observed)))
        away[:, :, self.observed] = x - self.seen.means[:, None]
        u = away @ self.precisions
        i, j = self.layout.rows, self.layout.columns
        second = u[:, :, i] * u[:, :, j] - self.precisions[:, None, i, j]
        second *= np.where(i == j, 0.5, 1.0)
        return np.concatenate([u, second], axis=2)

    def _in_coordinates(self, r: Array, scores: Array) -> Array:
        """The scores (n, p) of the free coordinates, from those of each component, by r (K, n)."""
        width = len(self.observed)
        first = (r - self.seen.weights[:, None])[:-1].T
        means = scores[:, :, :width].transpose(1, 0, 2).reshape(r.shape[1], -1)
        entries = scores[:, :, width:].transpose(1, 0, 2).reshape(r.shape[1], -1)
        return np.concatenate([first, means, self.layout.gathered(entries)], axis=1)

    def _complete(self, counts: Array, sums: Array, products: Array) -> Array:
        """sum r (I - S S') of all components, (p, p), from sums of r, r S and r S S'."""
        components, q = sums.shape
        begin, width, weights = components - 1, len(self.observed), self.seen.weights
        whole = np.zeros((begin + components * q,) * 2)
        apart = np.eye(components) - weights  # e_k - pi, a row each
        inner = np.diag(weights) - np.outer(weights, weights)
        outer = apart.T @ (counts[:, None] * apart)
        whole[:begin, :begin] = (counts.sum() * inner - outer)[:begin, :begin]
        for k in range(components):
            at = slice(begin + k * q, begin + (k + 1) * q)
            second = self._second(k, counts[k], sums[k], products[k, :width, :width])
            whole[at, at] = second - products[k]
            cross = -np.outer(apart[k, :begin], sums[k])
            whole[:begin, at], whole[at, :begin] = cross, cross.T
        to = self._to_coordinates(q)
        return np.asarray(to.T @ whole @ to)

    def _second(self, k: int, count: float, sums: Array, moments: Array) -> Array:
        """Minus the second derivatives of sum r log N(x | k), (D + Q, D + Q).

        ``moments`` are sum r u u'.
        """
        width, precision = len(self.observed), self.precisions[k]
        i, j = self.layout.rows, self.layout.columns
        place, many = np.arange(len(i)), (len(i), width * width)
        basis = np.zeros((len(i), width, width))  # E_a
        basis[place, i, j] = basis[place, j, i] = 1.0
        turned = precision @ basis
        second = np.zeros((width + len(i),) * 2)
        second[:width, :width] = count * precision
        second[:width, width:] = (turned @ sums[:width]).T
        second[width:, :width] = second[:width, width:].T
        # The trace of A B is the inner product of A' and B.
        by_moments = (precision @ basis).reshape(many) @ (basis @ moments).reshape(many).T
        twice = turned.swapaxes(1, 2).reshape(many) @ turned.reshape(many).T
        second[width:, width:] = by_moments - 0.5 * count * twice
        return second

    def _to_coordinates(self, q: int) -> Array:
        """From the coordinates to weights, means and entries, component by component."""
        components, width = len(self.seen.means), len(self.observed)
        begin, means = components - 1, components * width
        to = np.zeros((begin + components * q, begin + means + self.layout.own.shape[1]))
        to[:begin, :begin] = np.eye(begin)
        for k in range(components):
            at = begin + k * q
            to[at : at + width, begin + k * width : begin + (k + 1) * width] = np.eye(width)
            to_entries = self.layout.own[k * (q - width) : (k + 1) * (q - width)]
            to[at + width : at + q, begin + means :] = to_entries
        return to
