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

**Leaving out.**  With hundreds of features nearly every row is of one component, or of few.  Where
that is so in a tile, a component's sums are over its own rows, gathered: those of a responsibility
above ``OMITTED`` over K, as in the compiled kernel.  And a component that is seen by itself is seen
so on the rows that may be its own: products say which these cannot be, for what rounding costs
there is far less than what a row must lack.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.factor_sums import Sums
from dgmm.kernels.kernel import normalise
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.rounding import OMITTED, TOLERANCE
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.factor_covariances import FactorCovariances
from dgmm.model.features import Features
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

TILE_BYTES: Final = 8 << 20
"""What a tile's temporaries take, about."""

WIDE: Final = 3.0
"""How many standard deviations from its mean a component's rows are taken to be."""

FAR: Final = 40.0
"""A row is not of a component that lacks so many nats beside the best: its share is below 2^-57."""

GATHERED: Final = 0.125
"""Of at most so many of a tile's pairs of row and component, sums are over gathered rows."""


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
    covariances = covariances_of(mixture)
    psi = covariances.noise
    along = covariances.precisions_cholesky[:, :, 1:] * psi[:, :, None]
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
    inverse : (A, D)
        1 / psi of those.
    slack : (A,)
        The largest error of their L by products is ``unit`` (x'x / psi + this) in these units.
    unit : float
    """

    natural: NaturalParameters
    linear: Array
    level: Array
    directions: Array
    offsets: Array
    roots: Array
    apart: tuple[int, ...]
    inverse: Array
    slack: Array
    unit: float

    @classmethod
    def of(cls, natural: NaturalParameters) -> Self:
        """From the ``natural`` parameters of a mixture of factor analysers."""
        mixture = natural.mixture
        covariances, means = covariances_of(mixture), mixture.means
        inverse, directions = covariances.inverse_noise, covariances.directions
        linear = np.concatenate([inverse * means, -0.5 * inverse], axis=1)
        level = natural.constants[: len(means)] - 0.5 * np.sum(inverse * means * means, axis=1)
        apart = np.flatnonzero(products_error(mixture) > TOLERANCE)
        # Each of the 2 D + q terms of L, and each of D in a factor, adds u times its size at most;
        # all terms together are 2 (1 + q) times the sum of (x^2 + mu^2) / psi at most.
        terms = 4 * means.shape[1] * (2 + covariances.structure.n_factors)
        return cls(
            natural,
            linear,
            level,
            np.ascontiguousarray(directions.swapaxes(1, 2)).reshape(-1, means.shape[1]),
            np.matmul(means[:, None], directions)[:, 0],
            np.sqrt((1 + covariances.spreads) / 2),
            tuple(apart.tolist()),
            inverse[apart],
            np.sum(inverse[apart] * means[apart] ** 2, axis=1),
            terms * float(np.finfo(np.float64).eps),
        )

    def log_joint(self, features: Array) -> tuple[Array, Array]:
        """L (K, n), with noise (K + 1, n), and z (K, q, n), for ``features`` [x, x^2] (2 D, n)."""
        natural, (count, q) = self.natural, self.offsets.shape
        x = features[: len(features) // 2]
        joint = np.empty((len(natural.constants), x.shape[1]))
        np.matmul(self.linear, features, out=joint[:count])
        joint[:count] += self.level[:, None]
        factors = (self.directions @ x).reshape(count, q, -1)
        factors -= self.offsets[:, :, None]
        scaled = factors * self.roots[:, :, None]
        joint[:count] += np.einsum("kqn,kqn->kn", scaled, scaled)
        if natural.mixture.noise_component is not None:
            joint[-1] = natural.constants[-1]
        for k, some in self._near(joint, features[len(x) :]):
            x_near = x[:, some]
            joint[k, some] = natural.mixture.log_joint(k, x_near) - natural.penalty[k]
            away = x_near - natural.mixture.means[k][:, None]
            factors[k][:, some] = self.directions[k * q : (k + 1) * q] @ away
        return joint, factors

    @property
    def about(self) -> Array:
        """What sums of each component are about, (K, D): its mean, if it is seen by itself."""
        about = np.zeros_like(self.natural.mixture.means)
        about[list(self.apart)] = self.natural.mixture.means[list(self.apart)]
        return about

    def _near(self, joint: Array, squares: Array) -> list[tuple[int, NDArray[np.intp]]]:
        """The components that are seen by themselves, each with the rows that may be its own.

        L (K, n) is what products made of it, of rows whose ``squares`` (D, n) are known.
        """
        if not self.apart:
            return []
        apart = list(self.apart)
        error = self.inverse @ squares
        error += self.slack[:, None]
        error *= self.unit
        best = joint.max(axis=0)
        best -= error.max(axis=0)  # at least
        with np.errstate(invalid="ignore"):  # where a row is no number, or too large: it is seen
            gone = joint[apart] + error < best - FAR
        return [(k, np.flatnonzero(~far)) for k, far in zip(apart, gone, strict=True)]


def grouped(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The statistics of a block under each of some mixtures of factor analysers."""
    return [_under(block, frame, Written.of(natural)) for natural in naturals]


def _under(block: Block, frame: Frame, written: Written) -> Statistics:
    """The statistics under one mixture."""
    natural, (count, q) = written.natural, written.offsets.shape
    n_features, size = len(frame.shift), tile_rows(count, len(frame.shift), q)
    sums = Sums.zero(len(natural.constants), count, q, n_features)
    level, by = np.zeros(2), written.about
    for start in range(0, len(block.rows), size):
        part = block.part(slice(start, min(start + size, len(block.rows))))
        weights = None if part.weights is None else part.weights.astype(np.float64)
        features = _seen(part, frame, weights)
        joint, factors = written.log_joint(features)
        log_norm, log_plain, responsibilities = normalise(joint, natural.penalty)
        matter = responsibilities[:count] > OMITTED[False] / count
        if weights is not None:
            responsibilities *= weights
            log_norm, log_plain = log_norm * weights, log_plain * weights
        level += log_norm.sum(), log_plain.sum()
        np.add(sums.counts, responsibilities.sum(axis=1), out=sums.counts)
        dense = np.count_nonzero(matter) > GATHERED * matter.size
        alone = written.apart if dense else range(count)
        if dense:
            sums.add(features, responsibilities, factors, list(written.apart))
        if alone:
            rows = features[:n_features].T.copy()
            for k in alone:
                near = np.flatnonzero(matter[k])
                sums.add_rows(k, rows[near] - by[k], responsibilities[k, near], factors[k][:, near])
    return Statistics(
        sums.about_means(natural.center, list(written.apart)),
        *(natural.center, float(level[0]), float(level[1]), block.weight, len(block.rows)),
    )


def _seen(part: Block, frame: Frame, weights: Array | None) -> Array:
    """[x, x^2] of rows, (2 D, n); those that count for nothing are 0."""
    n_features = len(frame.shift)
    features = np.empty((2 * n_features, len(part.rows)))
    x = frame.rows(part.rows, features[:n_features])
    if weights is not None:
        x[:, weights == 0] = 0.0
    np.multiply(x, x, out=features[n_features:])
    return features


def log_joints(natural: NaturalParameters, size: int) -> Callable[[Array], Array]:
    """Log-densities (K, n), with noise (K + 1, n), of rows ``x`` (D, n), not more than ``size``."""
    written = Written.of(natural)
    buffer = np.empty((2 * natural.mixture.n_features, size))

    def judged(x: Array) -> Array:
        features = buffer[:, : x.shape[1]]
        features[: len(x)] = x
        np.multiply(x, x, out=features[len(x) :])
        return written.log_joint(features)[0]

    return judged


def scores(x: Array, mixture: Mixture, labels: NDArray[np.int64]) -> Array:
    """The factors (n, q) that rows ``x`` (D, n) are expected to have in components ``labels`` (n,).

    By what of each was observed, where NaN is what is missing; NaN for rows of no component.
    """
    covariances, parts = covariances_of(mixture), mixture.covariances.factor_parts()
    assert parts is not None
    count = covariances.directions.shape[2]
    factors = np.full((x.shape[1], count), np.nan)
    for k in np.unique(labels[labels >= 0]):
        some = np.flatnonzero(labels == k)
        away = x[:, some] - mixture.means[k][:, None]
        holes = np.isnan(away)
        away[holes] = 0.0
        factors[some] = away.T @ covariances.directions[k]
        if len(lacking := np.flatnonzero(holes.any(axis=0))):
            along = covariances.precisions_cholesky[k, :, 1:]
            products = (along[:, :, None] * parts[0][k][:, None]).reshape(len(x), -1)
            observed = (~holes[:, lacking]).T.astype(np.float64)
            second = (observed @ products).reshape(-1, count, count) + np.eye(count)
            first = away[:, lacking].T @ along
            factors[some[lacking]] = np.linalg.solve(second, first[:, :, None])[:, :, 0]
    return factors
