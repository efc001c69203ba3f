"""The arithmetic of a block where components are factor analysers (model/factor.py).

With d = x - mu_k and, in each component, factors expected to be z = G' d, (q,)::

    L = c - 1/2 sum_j d_j^2 / psi_j + 1/2 sum_f (1 + s_f) z_f^2      (K, n)
    R = w softmax(L)                                                 (K, n)
    S = R . [1, d, d^2, d z']                                        (K, 1 + D + D + D q)

That is 4 K D q flops a row and 8 K D, in five matrix products for all components together: of rows
about 0 in the frame, [x, x^2] with what is linear and square in L, x with all G, and the same two
for the sums, which are moved to the means once a block.

**Cancellation.**  In L and S terms of size (|x| + |mu|)^2 / psi cancel, and so do those of the
factors.  Where that would cost more than ``TOLERANCE`` by u sum_j (|mu_j| + 3 sigma_j)^2 / psi_j, a
component is seen by itself: L is from x - mu, by a root of the precision, in which nothing cancels
(``Covariances.whiten``), and so are its sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.kernel import normalise
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.rounding import TOLERANCE
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.factor_covariances import FactorCovariances
from dgmm.model.features import SQUARES, Features
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

TILE_BYTES: Final = 8 << 20
"""What a tile's temporaries take, about."""

WIDE: Final = 3.0
"""How many standard deviations from its mean a component's rows are taken to be."""


def tile_rows(components: int, n_features: int, n_factors: int) -> int:
    """How many rows a tile has."""
    numbers = 3 * n_features + 2 * components * (1 + n_factors)
    return int(np.clip(TILE_BYTES // (8 * numbers) // 64 * 64, 64, 2048))


def covariances_of(mixture: Mixture) -> FactorCovariances:
    """A mixture's covariances, which are those of factor analysers."""
    assert isinstance(mixture.covariances, FactorCovariances)
    return mixture.covariances


def products_error(mixture: Mixture) -> Array:
    """The bound (K,) above on what products about 0 cost."""
    own = covariances_of(mixture)
    psi = own.noise
    along = own.precisions_cholesky[:, :, 1:] * psi[:, :, None]
    variances = psi + np.sum(along * along, axis=2)
    size = np.abs(mixture.means) + WIDE * np.sqrt(variances)
    bound: Array = 0.5 * float(np.finfo(np.float64).eps) * np.sum(size * size / psi, axis=1)
    return bound


@dataclass(frozen=True)
class Written:
    """A mixture (in the frame) as the products want it; K components, and noise if there is some.

    Attributes
    ----------
    linear : (K, 2 D)
        The coefficients of [x, x^2] in L.
    level : (K,)
        What L is at 0, but for the factors.
    directions : (K q, D)
        G'.
    offsets : (K, q)
        G' mu.
    roots : (K, q)
        sqrt((1 + s) / 2).
    apart : tuple of int
        The components that are seen by themselves.
    """

    natural: NaturalParameters
    linear: Array
    level: Array
    directions: Array
    offsets: Array
    roots: Array
    apart: tuple[int, ...]

    @classmethod
    def of(cls, natural: NaturalParameters) -> Self:
        """From the ``natural`` parameters of a mixture of factor analysers."""
        mixture = natural.mixture
        own, means = covariances_of(mixture), mixture.means
        inverse, directions = own.inverse_noise, own.directions
        linear = np.concatenate([inverse * means, -0.5 * inverse], axis=1)
        level = natural.constants[: len(means)] - 0.5 * np.sum(inverse * means * means, axis=1)
        far = products_error(mixture) > TOLERANCE
        return cls(
            natural,
            linear,
            level,
            np.ascontiguousarray(directions.swapaxes(1, 2)).reshape(-1, means.shape[1]),
            np.matmul(means[:, None], directions)[:, 0],
            np.sqrt((1 + own.spreads) / 2),
            tuple(np.flatnonzero(far).tolist()),
        )

    def log_joint(self, seen: Array) -> tuple[Array, Array]:
        """L (K, n), or with noise (K + 1, n), and z (K, q, n), for [x, x^2] ``seen`` (2 D, n)."""
        natural, (count, q) = self.natural, self.offsets.shape
        x = seen[: len(seen) // 2]
        joint = np.empty((len(natural.constants), x.shape[1]))
        np.matmul(self.linear, seen, out=joint[:count])
        joint[:count] += self.level[:, None]
        factors = (self.directions @ x).reshape(count, q, -1)
        factors -= self.offsets[:, :, None]
        scaled = factors * self.roots[:, :, None]
        joint[:count] += np.einsum("kqn,kqn->kn", scaled, scaled)
        for k in self.apart:
            joint[k] = natural.mixture.log_joint(k, x) - natural.penalty[k]
            away = x - natural.mixture.means[k][:, None]
            factors[k] = self.directions[k * q : (k + 1) * q] @ away
        if natural.mixture.noise_component is not None:
            joint[-1] = natural.constants[-1]
        return joint, factors


def grouped(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The statistics of a block under each of some mixtures of factor analysers."""
    return [_under(block, frame, Written.of(natural)) for natural in naturals]


def _under(block: Block, frame: Frame, written: Written) -> Statistics:
    """The statistics under one mixture."""
    natural, (count, q) = written.natural, written.offsets.shape
    n_features, size = len(frame.shift), tile_rows(count, len(frame.shift), q)
    sums = np.zeros((len(natural.constants), 1 + 2 * n_features))
    along, totals, level = np.zeros((count * q, n_features)), np.zeros((count, q)), np.zeros(2)
    for start in range(0, len(block.rows), size):
        part = block.part(slice(start, min(start + size, len(block.rows))))
        weights = None if part.weights is None else part.weights.astype(np.float64)
        seen = _seen(part, frame, weights)
        x = seen[:n_features]
        joint, factors = written.log_joint(seen)
        log_norm, log_plain, responsibilities = normalise(joint, natural.penalty)
        if weights is not None:
            responsibilities *= weights
            log_norm, log_plain = log_norm * weights, log_plain * weights
        level += log_norm.sum(), log_plain.sum()
        factors *= responsibilities[:count, None]
        product, moved = responsibilities @ seen.T, factors.reshape(count * q, -1) @ x.T
        for k in written.apart:
            away = x - natural.center[k][:, None]
            product[k] = np.concatenate([away, away * away]) @ responsibilities[k]
            moved[k * q : (k + 1) * q] = factors[k] @ away.T
        sums[:, 0] += responsibilities.sum(axis=1)
        sums[:, 1:] += product
        totals += factors.sum(axis=2)
        along += moved
    weight = float(len(block.rows) if block.weights is None else block.weights.sum(dtype=float))
    return Statistics(
        _about_means(sums, along.reshape(count, q, -1), totals, written),
        *(natural.center, float(level[0]), float(level[1]), weight, len(block.rows)),
    )


def _seen(part: Block, frame: Frame, weights: Array | None) -> Array:
    """[x, x^2] of rows, (2 D, n); those that count for nothing are 0."""
    n_features = len(frame.shift)
    seen = np.empty((2 * n_features, len(part.rows)))
    x = frame.rows(part.rows, seen[:n_features])
    if weights is not None:
        x[:, weights == 0] = 0.0
    np.multiply(x, x, out=seen[n_features:])
    return seen


def _about_means(sums: Array, along: Array, totals: Array, written: Written) -> Array:
    """Sums (K, P) about the means, with noise (K + 1, P).

    From ``sums`` of 1, x and x^2, and those ``along`` (K, q, D) loadings; ``totals`` (K, q) are of
    the factors.  Those of components that are seen by themselves are about their means.
    """
    count = len(along)
    by = written.natural.center.copy()
    by[list(written.apart)] = 0.0
    moved = SQUARES.shifted(sums, by)
    own = along.swapaxes(1, 2) - by[:count, :, None] * totals[:, None]
    beside = np.zeros((len(sums), own[0].size))
    beside[:count] = own.reshape(count, -1)
    return np.concatenate([moved, beside], axis=1)


def log_joints(natural: NaturalParameters, size: int) -> Callable[[Array], Array]:
    """Log-densities (K, n), with noise (K + 1, n), of rows ``x`` (D, n), not more than ``size``."""
    written = Written.of(natural)
    buffer = np.empty((2 * natural.mixture.n_features, size))

    def judged(x: Array) -> Array:
        seen = buffer[:, : x.shape[1]]
        seen[: len(x)] = x
        np.multiply(x, x, out=seen[len(x) :])
        return written.log_joint(seen)[0]

    return judged


def scores(x: Array, mixture: Mixture, labels: NDArray[np.int64]) -> Array:
    """The factors (n, q) that rows ``x`` (D, n) are expected to have in components ``labels`` (n,).

    By what of each was observed, where NaN is what is missing; NaN for rows of no component.
    """
    own, parts = covariances_of(mixture), mixture.covariances.factor_parts()
    assert parts is not None
    count = own.directions.shape[2]
    found = np.full((x.shape[1], count), np.nan)
    for k in np.unique(labels[labels >= 0]):
        some = np.flatnonzero(labels == k)
        away = x[:, some] - mixture.means[k][:, None]
        holes = np.isnan(away)
        away[holes] = 0.0
        found[some] = away.T @ own.directions[k]
        if len(lacking := np.flatnonzero(holes.any(axis=0))):
            along = own.precisions_cholesky[k, :, 1:]
            products = (along[:, :, None] * parts[0][k][:, None]).reshape(len(x), -1)
            seen = (~holes[:, lacking]).T.astype(np.float64)
            second = (seen @ products).reshape(-1, count, count) + np.eye(count)
            first = away[:, lacking].T @ along
            found[some[lacking]] = np.linalg.solve(second, first[:, :, None])[:, :, 0]
    return found
