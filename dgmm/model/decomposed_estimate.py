"""What rows show of covariances with parts in common (decomposed.py): the M-step of these."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dgmm.model.arrays import Array, Mask
from dgmm.model.axes import Shown
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.decomposed_covariances import DecomposedCovariances
from dgmm.model.spectra import mean_weights

if TYPE_CHECKING:  # which imports this
    from dgmm.model.decomposed import Decomposed


@dataclass(frozen=True, eq=False)
class DecomposedEstimate(Estimate):
    """What rows of so many ``counts`` (K,) show; ``plain`` has it for the plain model.

    What is estimated is the nearest in the family; where that takes iterations, these begin at
    ``start``.
    """

    family: "Decomposed"
    plain: Estimate
    counts: Array
    start: Array | None = None

    @property
    def values(self) -> Array:  # type: ignore[override]
        return self.plain.values

    def variances(self) -> Array:
        return self.plain.variances()

    def _with(self, plain: Estimate) -> "DecomposedEstimate":
        return DecomposedEstimate(self.family, plain, self.counts, self.start)

    def about(self, counts: Array, offsets: Array) -> "DecomposedEstimate":
        return self._with(self.plain.about(counts, offsets))

    def raised(self, amounts: Array) -> "DecomposedEstimate":
        return self._with(self.plain.raised(amounts))

    def rescaled(self, scale: Array) -> "DecomposedEstimate":
        return self._with(self.plain.rescaled(scale))

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "DecomposedEstimate":
        return self._with(self.plain.combined(counts, scatter, rows, weights, away))

    def _fitted(self, values: Array, start: Array | None) -> Estimate:
        """The nearest of the family to ``values``, as a plain estimate."""
        family = self.family
        fitted = family.fitted(values, self.counts, start)
        return family.plain.estimate_of(fitted, self._shape)

    def _floored(self, values: Array, start: Array | None) -> tuple[Covariances, Mask]:
        """The same as plain covariances at or above FLOOR, and which had to be raised."""
        family, weights = self.family, mean_weights(self.counts)
        shown = Shown(values, weights, family.spectra, start)
        return family.axes.covariances(shown, self._shape)

    @property
    def _shape(self) -> tuple[int, int]:
        components, n_features = self.plain.variances().shape
        return components, n_features

    def floored(self) -> tuple[DecomposedCovariances, Mask]:
        plain, singular = self._floored(self.values, self.start)
        return DecomposedCovariances(self.family, plain), singular

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[Covariances, Mask]:
        raised = self.plain.raised(amounts).values
        # An empty component weighs nothing, and keeps what is its own.
        kept = empty.reshape(-1, *[1] * (raised.ndim - 1))
        values = np.where(kept, before.values, raised)
        plain, singular = self._floored(values, before.values)
        shown = self.family.plain.estimate_of(values, self._shape)
        if self._loss(before, shown) < self._loss(plain, shown):  # rounding, of what is very thin
            return before, singular & ~empty
        return DecomposedCovariances(self.family, plain), singular & ~empty

    def _loss(self, covariances: Covariances, shown: Estimate) -> float:
        """What the M-step minimises: its value at ``covariances``, for what rows have ``shown``."""
        of_components = 0.5 * covariances.whitened_trace(shown) - covariances.half_log_det()
        return float(mean_weights(self.counts) @ of_components)

    def thinnest(self, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest(amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest_apart(weights, means, amounts)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest_loadings(amounts)
