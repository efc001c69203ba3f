"""The covariances of a mixture whose components have parts in common (decomposed.py).

They are plain covariances that are known to be of a family, and answer as the plain ones do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask
from dgmm.model.convolved import Convolved
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_parameters import Covariances, Expected

if TYPE_CHECKING:  # which imports this
    from dgmm.model.decomposed import Decomposed

NEAR: Final = 1e-6
"""How far covariances that are given may be from some of the family, in nats for a row."""


@dataclass(frozen=True, eq=False)
class DecomposedCovariances(Covariances):
    """Covariances of the family; ``plain`` has them as those of the plain model."""

    family: "Decomposed"
    plain: Covariances

    @property
    def values(self) -> Array:  # type: ignore[override]
        return self.plain.values

    @property
    def precisions_cholesky(self) -> Array:  # type: ignore[override]
        return self.plain.precisions_cholesky

    @property
    def model(self) -> "Decomposed":
        return self.family

    def dense(self) -> Array:
        return self.plain.dense()

    def variances(self) -> Array:
        return self.plain.variances()

    def precisions(self) -> Array:
        return self.plain.precisions()

    def factors(self) -> Array:
        return self.plain.factors()

    def natural(self, means: Array, constants: Array) -> Array:
        return self.plain.natural(means, constants)

    def quadratic(self) -> Array:
        return self.plain.quadratic()

    def half_log_det(self) -> Array:
        return self.plain.half_log_det()

    def trace(self, weights: Array) -> Array:
        return self.plain.trace(weights)

    def max_eigenvalue_bound(self) -> Array:
        return self.plain.max_eigenvalue_bound()

    def whiten(self, k: int, x: Array) -> Array:
        return self.plain.whiten(k, x)

    def whitened(self, vectors: Array) -> Array:
        return self.plain.whitened(vectors)

    def coloured(self, white: Array) -> Array:
        return self.plain.coloured(white)

    def whitened_trace(self, estimate: Estimate) -> Array:
        return self.plain.whitened_trace(estimate)

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        return self.plain.coordinates(other, roots)

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> Estimate:
        plain = self.plain.at(place, roots, live, like)
        weights = np.where(live, roots * roots, 0.0)
        return self.family.estimate_from(plain, weights, like.values)

    def rescale(self, scale: Array) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.plain.rescale(scale))

    def drawn_together(self, weights: Array, rows: int) -> Covariances:
        drawn = self.plain.drawn_together(weights, rows).values
        plain = self.family.plain.estimate_of(drawn, self._shape)
        return self.family.estimate_from(plain, weights, self.values).floored()[0]

    def alone(self, features: Sequence[int] | NDArray[np.intp]) -> Covariances | None:
        return self.plain.alone(features)

    def among(self, features: NDArray[np.intp]) -> Covariances:
        return self.plain.among(features)

    def chosen(self, components: NDArray[np.intp]) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.plain.chosen(components))

    def held(self, fixed: Mask, at: Covariances) -> Covariances:
        return at if fixed.all() else self

    def completed(self, sums: Array, observed: Mask) -> Array:
        return self.plain.completed(sums, observed)

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        return self.plain.expected(away, observed, of)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        return self.plain.convolved(noise, observed)

    def times(self, vectors: Array) -> Array:
        return self.plain.times(vectors)

    def deconvolved(self, sums: Array) -> Array:
        return self.plain.deconvolved(sums)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return self.plain.drawn(away, observed, of, normals)

    @property
    def bare(self) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.plain.bare)

    def check(self, spread: Array) -> None:
        # What was raised to FLOOR is not of the family, nor need it be.
        self.plain.check(spread)

    @property
    def _shape(self) -> tuple[int, int]:
        components, n_features = self.variances().shape
        return components, n_features

    def check_near(self, given: Covariances) -> float:
        """How far plain covariances ``given`` are from these, in nats for a row.

        Raises ``LinAlgError`` unless they are ``NEAR``.
        """
        estimate = self.family.plain.estimate_of(given.values, self._shape)
        half = 0.5 * (self.whitened_trace(estimate) - self._shape[1])
        distance = float(np.max(np.abs(half - self.half_log_det() + given.half_log_det())))
        if not distance <= NEAR:
            raise np.linalg.LinAlgError(
                f"they are not {self.family.name} covariances, and the nearest that are cost "
                f"{distance:.3g} nats for a row"
            )
        return distance
