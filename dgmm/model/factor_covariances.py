"""The covariances of factor analysers, by Woodbury's identity (factor.py)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import EXACT, FLOOR, Array, Mask, finite, picked, positive
from dgmm.model.convolved import Convolved
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_parameters import Covariances, Expected
from dgmm.model.factor_estimate import NOT_WITH, AlongLoadings, FactorEstimate, FactorSums
from dgmm.model.loadings import beside, packed, principal

if TYPE_CHECKING:  # which imports this
    from dgmm.model.factor import Factor

WIDE: Final = 100.0
"""A feature of less than so many times the variance that ``reg_covar`` adds tells nothing."""


@dataclass(frozen=True, eq=False)
class FactorCovariances(Covariances):
    """``values`` hold psi and L, ``precisions_cholesky`` psi^-1/2 and B, (K, D, 1 + q) each."""

    structure: "Factor"
    values: Array
    precisions_cholesky: Array

    @property
    def model(self) -> "Factor":
        return self.structure

    @property
    def noise(self) -> Array:
        """psi, (K, D)."""
        noise: Array = self.precisions_cholesky[:, :, 0] ** -2.0
        return noise

    @property
    def inverse_noise(self) -> Array:
        """1 / psi, (K, D)."""
        inverse: Array = self.precisions_cholesky[:, :, 0] ** 2
        return inverse

    @property
    def loadings(self) -> Array:
        """L, (K, D, q)."""
        return self.values[:, :, 1:]

    @property
    def spreads(self) -> Array:
        """s, the diagonal of L' diag(psi)^-1 L, (K, q)."""
        spreads: Array = np.sum(
            (self.precisions_cholesky[:, :, 1:] / self.precisions_cholesky[:, :, :1]) ** 2, axis=1
        )
        return spreads

    @property
    def directions(self) -> Array:
        """G, (K, D, q): of a row d from the mean the factors are expected to be G' d."""
        return self.precisions_cholesky[:, :, 1:] / (1 + self.spreads)[:, None]

    def dense(self) -> Array:
        dense = self.values[:, :, 1:] @ self.values[:, :, 1:].swapaxes(1, 2)
        places = np.arange(dense.shape[1])
        dense[:, places, places] += self.values[:, :, 0]
        return dense

    def variances(self) -> Array:
        variances: Array = self.values[:, :, 0] + np.sum(self.loadings**2, axis=2)
        return variances

    def precisions(self) -> Array:
        return packed(self.inverse_noise, self.precisions_cholesky[:, :, 1:])

    def factors(self) -> Array:
        return self.precisions_cholesky

    def natural(self, means: Array, constants: Array) -> Array:
        raise NotImplementedError("sums along loadings are about the means")

    def quadratic(self) -> Array:
        squares = -0.5 * self.inverse_noise
        along = 0.5 * self.precisions_cholesky[:, :, 1:]  # (1 + s) G
        return np.concatenate([squares, along.reshape(len(along), -1)], axis=1)

    def half_log_det(self) -> Array:
        half: Array = np.log(self.precisions_cholesky[:, :, 0]).sum(axis=1)
        half -= 0.5 * np.log1p(self.spreads).sum(axis=1)
        return half

    def trace(self, weights: Array) -> Array:
        trace: Array = np.sum(np.maximum(self._diagonal(), 0.0) * weights, axis=1)
        return trace

    def _diagonal(self) -> Array:
        """Those of the precisions, (K, D)."""
        along = self.precisions_cholesky[:, :, 1:]
        diagonal: Array = self.inverse_noise - np.sum(along * self.directions, axis=2)
        return diagonal

    def max_eigenvalue_bound(self) -> Array:
        bound: Array = self.inverse_noise.max(axis=1)
        return bound

    def whiten(self, k: int, x: Array) -> Array:
        white, along, shrink = self._whitening(k, x)
        return white - along @ (shrink * (along.T @ white))

    def _whitening(self, k: int, x: Array) -> tuple[Array, Array, Array]:
        """psi^-1/2 x (D, n), psi^-1/2 L (D, q), and what that takes of it (q, 1).

        The symmetric root of the precision between psi^-1/2 on both sides, I - W diag(g) W' for
        W = psi^-1/2 L, has g = (1 - 1 / sqrt(1 + s)) / s.
        """
        factors = self.precisions_cholesky[k]
        along = factors[:, 1:] / factors[:, :1]
        spread = np.sum(along * along, axis=0)
        root = np.sqrt(1 + spread)
        return factors[:, :1] * x, along, (1 / (root * (1 + root)))[:, None]

    def whitened(self, vectors: Array) -> Array:
        white = vectors * self.precisions_cholesky[:, :, 0]
        along, root = self._along()
        shrink = 1 / (root * (1 + root))
        return white - beside(along, shrink, white)

    def coloured(self, white: Array) -> Array:
        along, root = self._along()
        return (white + beside(along, 1 / (1 + root), white)) / self.precisions_cholesky[:, :, 0]

    def _along(self) -> tuple[Array, Array]:
        """psi^-1/2 L (K, D, q), and sqrt(1 + s) (K, q)."""
        along = self.precisions_cholesky[:, :, 1:] / self.precisions_cholesky[:, :, :1]
        return along, np.sqrt(1 + np.sum(along * along, axis=1))

    def whitened_trace(self, estimate: Estimate) -> Array:
        assert isinstance(estimate, AlongLoadings)
        whole = np.sum(estimate.variances() * self.inverse_noise, axis=1)
        within = np.sum(
            self.precisions_cholesky[:, :, 1:] * estimate.along(self.directions), (1, 2)
        )
        trace: Array = whole - within
        return trace

    def drawn_rows(self, k: int, normals: Array) -> Array:
        _, along, _ = self._whitening(k, normals.T)
        root = np.sqrt(1 + np.sum(along * along, axis=0))
        white: Array = normals + (normals @ along / (1 + root)) @ along.T
        return white / self.precisions_cholesky[k, :, 0]

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        psi, count = self.values[:, :, :1], len(self.values)
        loadings, other_loadings = self.values[:, :, 1:], other.values[:, :, 1:]
        root = np.sqrt(psi)
        left, _, right = np.linalg.svd((other_loadings / root).swapaxes(1, 2) @ (loadings / root))
        turned = other_loadings @ (left @ right)  # as near to this rotation as can be (Procrustes)
        moved = self._scaled((turned - loadings) / root, inverse=False) * roots[:, None, None]
        scale = self.structure.noise.information(psi.shape[1], roots)
        logs = np.log(other.values[:, :, 0] / psi[:, :, 0]) * scale
        return np.concatenate([logs, moved.reshape(count, -1)], axis=1)

    def _scaled(self, moved: Array, inverse: bool) -> Array:
        """Changes of psi^-1/2 L (K, D, q) with the part along L in its scale, or from there."""
        along, _ = self._along()
        sizes = np.sqrt(np.sum(along * along, axis=1))
        unit = along / np.where(sizes > 0, sizes, 1.0)[:, None]
        scale = 1 / np.sqrt(1 + 0.5 * sizes[:, :, None] * sizes[:, None])
        inner = unit.swapaxes(1, 2) @ moved
        scaled: Array = moved + unit @ (inner * ((1 / scale if inverse else scale) - 1))
        return scaled

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "FactorEstimate":
        psi, loadings = self.values[:, :, 0], self.values[:, :, 1:]
        count, n_features = psi.shape
        coordinates = place.reshape(count, -1)
        scale = self.structure.noise.information(n_features, roots)
        logs = self.structure.noise.given(psi, coordinates[:, :n_features] / scale, live)
        moved = coordinates[:, n_features:].reshape(loadings.shape) / roots[:, None, None]
        moved = self._scaled(moved, inverse=True)
        loadings = loadings + moved * np.sqrt(psi)[:, :, None]
        loadings = np.where(live[:, None, None], loadings, like.values[:, :, 1:])
        with np.errstate(over="ignore"):
            values = packed(psi * np.exp(logs), loadings)
        return FactorEstimate(self.structure, finite(values))

    def rescale(self, scale: Array) -> "FactorCovariances":
        scales = scale[:, None] * np.where(
            np.arange(1 + self.structure.n_factors), 1, scale[:, None]
        )
        factors = self.precisions_cholesky / scale[:, None]
        return FactorCovariances(self.structure, self.values * scales, factors)

    def drawn_together(self, weights: Array, rows: int) -> "FactorCovariances":
        # As if q + 1 more rows had the mean of the variances, and nothing in common.
        counts, more = (rows * weights).reshape(-1, 1), 1 + self.structure.n_factors
        mean = self.structure.noise.pooled((weights @ self.variances())[None], np.ones(1))
        psi = (counts * self.values[:, :, 0] + more * mean) / (counts + more)
        psi = self.structure.noise.pooled(psi, weights)
        loadings = self.loadings * np.sqrt(counts / (counts + more))[:, :, None]
        return self.structure.made(psi, loadings)

    def narrowed(self, features: NDArray[np.intp]) -> "FactorCovariances":
        return self.among(features)

    def among(self, features: NDArray[np.intp]) -> "FactorCovariances":
        values = self.values[:, features]
        return self.structure.made(values[:, :, 0], values[:, :, 1:])

    def chosen(self, components: NDArray[np.intp]) -> "FactorCovariances":
        return FactorCovariances(
            self.structure,
            picked(self.values, components),
            self.precisions_cholesky[components],
        )

    def held(self, fixed: Mask, at: Covariances) -> "FactorCovariances":
        kept = fixed.reshape(-1, 1, 1)
        values = np.where(kept, at.values, self.values)
        factors = np.where(kept, at.precisions_cholesky, self.precisions_cholesky)
        return FactorCovariances(self.structure, values, factors)

    def estimated(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "FactorSums":
        n_features, shape = means.shape[1], (*means.shape, self.structure.n_factors)
        mean = second / positive(counts)[:, None]
        sums = FactorSums(self, counts, mean[:, :n_features], mean[:, n_features:].reshape(shape))
        return sums.less(offsets)

    def begun(self, members: Callable[[int], tuple[Array, Array]]) -> "FactorCovariances":
        """Those of principal components of each component's rows, scaled by ``variances``.

        ``members`` gives some rows (D, n) of a component about their mean, and weights (n,).
        """
        variances = self.variances()
        parts = [
            principal(*members(k), variance, self.structure.n_factors)
            for k, variance in enumerate(variances)
        ]
        psi, loadings = (np.stack(each) for each in zip(*parts, strict=True))
        return self.structure.made(self.structure.noise.pooled(psi, np.ones(len(psi))), loadings)

    def noiseless(self, reg: Array, counts: Array) -> Mask:
        rows = self.structure.noise.seen_by(counts)[:, None]
        share = self.values[:, :, 0] * self._diagonal()  # of what other features don't tell
        noisy = share > np.sqrt(2 / np.maximum(rows, 1.0))  # its standard error, near 0
        return ~noisy & (self.variances() > WIDE * np.maximum(reg, FLOOR))

    def factor_parts(self) -> tuple[Array, Array]:
        return self.loadings, self.values[:, :, 0]

    def completed(self, sums: Array, observed: Mask) -> Array:
        raise NotImplementedError(NOT_WITH.format(self.structure.name, "holes"))

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        # What is not observed says nothing of the factors, and is expected to be L z.
        count, q = len(self.values), self.structure.n_factors
        along, known = self.precisions_cholesky[:, :, 1:], observed.astype(np.float64)
        products = (along[:, :, :, None] * self.loadings[:, :, None]).reshape(count, -1, q * q)
        second = (known @ products).reshape(count, -1, q, q).swapaxes(0, 1) + np.eye(q)
        half = np.log(self.precisions_cholesky[:, :, 0]) @ known.T
        half = half.T - 0.5 * np.linalg.slogdet(second)[1]
        pull = np.matmul(away[:, :, None], along)[:, :, 0]
        factors = np.linalg.solve(second[of], pull[..., None])[..., 0]
        squares = np.sum(away * away * self.inverse_noise, axis=2) - np.sum(pull * factors, axis=2)
        filled = np.matmul(self.loadings, factors[..., None])[..., 0]
        completed = np.where(observed[of, None], away, filled)
        return Expected(half[of] - 0.5 * squares, squares, completed, self._no_spread)

    def _no_spread(self) -> Array:
        raise NotImplementedError(NOT_WITH.format(self.structure.name, "holes"))

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        raise NotImplementedError(NOT_WITH.format(self.structure.name, "known errors"))

    def times(self, vectors: Array) -> Array:
        inner = np.sum(vectors[..., None] * self.loadings, axis=-2)
        along: Array = np.sum(self.loadings * inner[..., None, :], axis=-1)
        return vectors * self.values[:, :, 0] + along

    def deconvolved(self, sums: Array) -> Array:
        raise NotImplementedError(NOT_WITH.format(self.structure.name, "known errors"))

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        # A draw of all, moved by what is expected of how far that is from what was observed.
        rows = np.empty_like(away)
        for k in np.unique(of):
            some, component = of == k, self.chosen(np.array([k]))
            free = self.drawn_rows(int(k), normals[some])
            off = np.where(observed[some], away[some] - free, 0.0)[:, None]
            moved = component.expected(off, observed[some], np.arange(len(off))).away[:, 0]
            rows[some] = np.where(observed[some], away[some], free + moved)
        return rows

    @property
    def bare(self) -> "FactorCovariances":
        return FactorCovariances(self.structure, self.values[:0], self.precisions_cholesky)

    def check(self, spread: Array) -> None:
        psi, root = self.values[:, :, 0], self.precisions_cholesky[:, :, 0]
        if not (psi.min() > 0 and root.min() > 0):
            raise np.linalg.LinAlgError("a noise variance or a factor is not positive")
        if not np.abs(root * psi * root - 1).max() <= EXACT:
            raise np.linalg.LinAlgError("the factors don't invert the noise variances")
        along = self.loadings / np.sqrt(psi)[:, :, None]
        expected, size = self._along()[0], np.maximum(1.0, np.abs(along).max())
        if not np.abs(along - expected).max() <= EXACT * size:
            raise np.linalg.LinAlgError("the factors are not those of the loadings")
        square = along.swapaxes(1, 2) @ along
        square[:, np.arange(square.shape[1]), np.arange(square.shape[1])] = 0.0
        if not np.abs(square).max(initial=0.0) <= EXACT * size**2:
            raise np.linalg.LinAlgError("the loadings are not in the rotation they should be in")
