"""Covariances with parts in common: volumes, shapes and axes (the eigen-decomposed family).

Each covariance is lambda_k D_k A_k D_k': volume, axes, and shape.  Each of the three may be one for
all components, E, or each component's own, V; or the shape and the axes may be none, I: the same
spread in all directions, or axes along the features.  Banfield and Raftery (1993) and Celeux and
Govaert (1995) have fourteen of these, which mclust names by three letters (Scrucca, Fop, Murphy and
Raftery, mclust 5, 2016).  Four are the plain models; the other ten are values of one class here.

Each is estimated from what a ``plain`` model is estimated from, that of the same quadratic part: so
kernels, and whatever looks at one mixture, see plain covariances.  What is different is the M-step
(axes.py, spectra.py): what the rows show, made to be of the family.  It minimises sum_k n_k (log
|S_k| + tr(S_k^-1 W_k)), with W_k the rows' own scatter and ``reg`` added to it: so ``reg`` means
the same as elsewhere (model/prior.py).

Coordinates are those of the plain model, too.  A step may leave the family; what it leads to is
made to be of it as an M-step would be, and that is where the step ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.model.arrays import Array, Mask
from dgmm.model.axes import ROUGH, Axes, CommonAxes, CommonForm, FeatureAxes, NoAxes, OwnAxes
from dgmm.model.convolved import Convolved
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances, Expected
from dgmm.model.features import Features
from dgmm.model.spectra import (
    OneSpectrum,
    OwnShapes,
    OwnSpectra,
    OwnVolumes,
    Spectra,
    mean_weights,
)

NEAR: Final = 1e-6
"""How far covariances that are given may be from some of the family, in nats for a row."""

THIN: Final = 1e10
"""Covariances of such a condition, all taken together, may have been raised."""

SAME: Final = 1e-12
"""So near they are of it, but for rounding."""


@dataclass(frozen=True)
class Decomposed(CovarianceModel):
    """Covariances of such ``axes`` and ``spectra``.

    Attributes
    ----------
    any_scale : bool
        Whether features may be scaled each by its own number.
    """

    name: str  # type: ignore[misc]
    axes: Axes
    spectra: Spectra
    any_scale: bool

    couples = True
    has_priors = False

    @property
    def plain(self) -> CovarianceModel:
        return self.axes.plain

    @property
    def features(self) -> Features:  # type: ignore[override]
        return self.plain.features

    @property
    def centred_features(self) -> Features:  # type: ignore[override]
        return self.plain.centred_features

    @property
    def correlates(self) -> bool:  # type: ignore[override]
        return self.plain.correlates

    def _parameters(self, n_features: int) -> tuple[int, int]:
        """Those that components have in common, and each of its own."""
        common, own = self.axes.parameters(n_features)
        more = self.spectra.parameters(self.axes.directions(n_features))
        return common + more[0], own + more[1]

    def own_parameters(self, n_features: int) -> int:
        return self._parameters(n_features)[1]

    def common_parameters(self, n_features: int) -> int:
        return self._parameters(n_features)[0]

    def coordinates(self, components: int, n_features: int) -> int:
        return self.plain.coordinates(components, n_features)

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return self.plain.shape(components, n_features)

    def scales(self, each: Array, together: float) -> Array:
        return each if self.any_scale else np.full_like(each, together)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> "DecomposedEstimate":
        own = self.plain.estimate(counts, means, offsets, second, total)
        return DecomposedEstimate(self, own, counts)

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "DecomposedEstimate":
        return DecomposedEstimate(self, self.plain.estimate_of(values, shape), np.ones(shape[0]))

    def single(self, moments: Array) -> Array:
        return self.plain.single(moments)

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return self.plain.mode_rows(degrees_of_freedom, n_features)

    def pooled(self, counts: Array, covariances: Array) -> Array:
        axes, n_features = self.axes, covariances.shape[-1]
        seen = axes.values_of(self.plain.pooled(counts, covariances))
        return axes.dense_of(
            axes.fit(seen, mean_weights(counts), self.spectra, sweeps=ROUGH), n_features
        )

    def kept(self, covariances: Array) -> Array:
        return self.plain.kept(covariances)

    def freedom(self, counts: Array) -> Array:
        return self.plain.freedom(counts)

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "DecomposedCovariances":
        return self._given(self.plain.of_precisions(precisions, shape), shape)

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "DecomposedCovariances":
        return self._given(self.plain.of_covariances(covariances, shape), shape)

    def of_variances(self, variances: Array, components: int) -> "DecomposedCovariances":
        return DecomposedCovariances(self, self.plain.of_variances(variances, components))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "DecomposedCovariances":
        own = self.plain.of_factors(covariances, precisions_cholesky, shape)
        return DecomposedCovariances(self, own)

    def _given(self, own: Covariances, shape: tuple[int, int]) -> "DecomposedCovariances":
        """Covariances of the family, very near those given; these, if they are of it."""
        values = self.fitted(own.values, np.ones(shape[0]), own.values)
        found = DecomposedCovariances(self, self.plain.of_covariances(values, shape))
        if _is_thin(own):
            return found
        try:
            apart = found.check_near(self.plain.estimate_of(own.values, shape), own)
        except np.linalg.LinAlgError as error:
            raise UsageError(
                f"what is given as covariances or precisions is of no such mixture: {error}"
            ) from error
        return DecomposedCovariances(self, own) if apart < SAME else found

    def fitted(self, values: Array, counts: Array, before: Array | None) -> Array:
        """The best values for plain ones that rows show; see ``Axes.fit``."""
        return self.axes.fit(values, mean_weights(counts), self.spectra, before)


def _is_thin(own: Covariances) -> bool:
    """Whether a covariance has next to no spread in some direction.

    Then it may have been raised to FLOOR, which takes it out of the family.
    """
    trace = own.trace(np.ones(own.variances().shape[1]))
    return bool(own.variances().max() * trace.max() > THIN)


@dataclass(frozen=True, eq=False)
class DecomposedCovariances(Covariances):
    """Covariances of the family; ``own`` has them as plain ones."""

    family: Decomposed
    own: Covariances

    @property
    def values(self) -> Array:  # type: ignore[override]
        return self.own.values

    @property
    def precisions_cholesky(self) -> Array:  # type: ignore[override]
        return self.own.precisions_cholesky

    @property
    def model(self) -> Decomposed:
        return self.family

    def dense(self) -> Array:
        return self.own.dense()

    def variances(self) -> Array:
        return self.own.variances()

    def precisions(self) -> Array:
        return self.own.precisions()

    def factors(self) -> Array:
        return self.own.factors()

    def natural(self, means: Array, constants: Array) -> Array:
        return self.own.natural(means, constants)

    def quadratic(self) -> Array:
        return self.own.quadratic()

    def half_log_det(self) -> Array:
        return self.own.half_log_det()

    def trace(self, weights: Array) -> Array:
        return self.own.trace(weights)

    def max_eigenvalue_bound(self) -> Array:
        return self.own.max_eigenvalue_bound()

    def whiten(self, k: int, x: Array) -> Array:
        return self.own.whiten(k, x)

    def whitened(self, vectors: Array) -> Array:
        return self.own.whitened(vectors)

    def coloured(self, white: Array) -> Array:
        return self.own.coloured(white)

    def whitened_trace(self, estimate: Estimate) -> Array:
        return self.own.whitened_trace(estimate)

    def coordinates(self, other: Covariances, roots: Array) -> Array:
        return self.own.coordinates(other, roots)

    def at(self, place: Array, roots: Array, live: Mask, like: Covariances) -> "DecomposedEstimate":
        own = self.own.at(place, roots, live, like)
        weights = np.where(live, roots * roots, 0.0)
        return DecomposedEstimate(self.family, own, weights, like.values)

    def rescale(self, scale: Array) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.own.rescale(scale))

    def drawn_together(self, weights: Array, rows: int) -> Covariances:
        drawn = self.own.drawn_together(weights, rows).values
        own = self.family.plain.estimate_of(drawn, self._shape)
        return DecomposedEstimate(self.family, own, weights, self.values).floored()[0]

    def alone(self, features: Sequence[int] | NDArray[np.intp]) -> Covariances | None:
        return self.own.alone(features)

    def among(self, features: NDArray[np.intp]) -> Covariances:
        return self.own.among(features)

    def chosen(self, components: NDArray[np.intp]) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.own.chosen(components))

    def held(self, fixed: Mask, at: Covariances) -> Covariances:
        return at if fixed.all() else self

    def completed(self, sums: Array, observed: Mask) -> Array:
        return self.own.completed(sums, observed)

    def expected(self, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
        return self.own.expected(away, observed, of)

    def convolved(self, noise: Array, observed: Mask) -> Convolved:
        return self.own.convolved(noise, observed)

    def times(self, vectors: Array) -> Array:
        return self.own.times(vectors)

    def deconvolved(self, sums: Array) -> Array:
        return self.own.deconvolved(sums)

    def drawn(self, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array) -> Array:
        return self.own.drawn(away, observed, of, normals)

    @property
    def bare(self) -> "DecomposedCovariances":
        return DecomposedCovariances(self.family, self.own.bare)

    def check(self, spread: Array) -> None:
        # What was raised to FLOOR is not of the family, nor need it be.
        self.own.check(spread)

    @property
    def _shape(self) -> tuple[int, int]:
        components, n_features = self.variances().shape
        return components, n_features

    def check_near(self, given: Estimate, own: Covariances) -> float:
        """How far covariances ``given``, which ``own`` has, too, are from these.

        Raises ``LinAlgError`` unless they are ``NEAR``.
        """
        half = 0.5 * (self.whitened_trace(given) - self._shape[1])
        apart = float(np.max(np.abs(half - self.half_log_det() + own.half_log_det())))
        if not apart <= NEAR:
            raise np.linalg.LinAlgError(
                f"they are not {self.family.name} covariances, and the nearest that are cost "
                f"{apart:.3g} nats for a row"
            )
        return apart


@dataclass(frozen=True, eq=False)
class DecomposedEstimate(Estimate):
    """What rows of so many ``counts`` (K,) show; ``own`` has it as plain covariances.

    What is estimated is what is nearest in the family; an iteration begins at ``start``.
    """

    family: Decomposed
    own: Estimate
    counts: Array
    start: Array | None = None

    @property
    def values(self) -> Array:  # type: ignore[override]
        return self.own.values

    def variances(self) -> Array:
        return self.own.variances()

    def _with(self, own: Estimate) -> "DecomposedEstimate":
        return DecomposedEstimate(self.family, own, self.counts, self.start)

    def about(self, counts: Array, offsets: Array) -> "DecomposedEstimate":
        return self._with(self.own.about(counts, offsets))

    def raised(self, amounts: Array) -> "DecomposedEstimate":
        return self._with(self.own.raised(amounts))

    def rescaled(self, scale: Array) -> "DecomposedEstimate":
        return self._with(self.own.rescaled(scale))

    def combined(
        self, counts: Array, scatter: Estimate, rows: float, weights: Array, away: Array
    ) -> "DecomposedEstimate":
        return self._with(self.own.combined(counts, scatter, rows, weights, away))

    def _fitted(self, values: Array, start: Array | None) -> Estimate:
        """The nearest of the family to ``values``, as a plain estimate."""
        family = self.family
        fitted = family.fitted(values, self.counts, start)
        return family.plain.estimate_of(fitted, self._shape)

    def _found(self, values: Array, start: Array | None) -> tuple[Covariances, Mask]:
        """The same as plain covariances at or above FLOOR, and which had to be raised."""
        family, weights = self.family, mean_weights(self.counts)
        return family.axes.covariances(values, weights, family.spectra, start, self._shape)

    @property
    def _shape(self) -> tuple[int, int]:
        components, n_features = self.own.variances().shape
        return components, n_features

    def floored(self) -> tuple[DecomposedCovariances, Mask]:
        own, lost = self._found(self.values, self.start)
        return DecomposedCovariances(self.family, own), lost

    def regularised(
        self, amounts: Array, empty: Mask, before: Covariances
    ) -> tuple[Covariances, Mask]:
        raised = self.own.raised(amounts).values
        # An empty component weighs nothing; what it has of its own is what it had.
        kept = empty.reshape(-1, *[1] * (raised.ndim - 1))
        values = np.where(kept, before.values, raised)
        own, lost = self._found(values, before.values)
        seen = self.family.plain.estimate_of(values, self._shape)
        if self._level(before, seen) < self._level(own, seen):  # rounding, of what is very thin
            return before, lost & ~empty
        return DecomposedCovariances(self.family, own), lost & ~empty

    def _level(self, covariances: Covariances, seen: Estimate) -> float:
        """What the M-step minimises, at these ``covariances``, of what is ``seen``."""
        each = 0.5 * covariances.whitened_trace(seen) - covariances.half_log_det()
        return float(mean_weights(self.counts) @ each)

    def thinnest(self, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest(amounts)

    def thinnest_apart(self, weights: Array, means: Array, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest_apart(weights, means, amounts)

    def thinnest_loadings(self, amounts: Array) -> Array:
        return self._fitted(self.values, None).thinnest_loadings(amounts)


DECOMPOSED: Final = tuple(
    Decomposed(*each)
    for each in (
        ("EII", NoAxes(), OneSpectrum(), False),
        ("EEI", FeatureAxes(), OneSpectrum(), True),
        ("VEI", FeatureAxes(), OwnVolumes(), True),
        ("EVI", FeatureAxes(), OwnShapes(), True),
        ("VEE", CommonForm(), OwnVolumes(), True),
        ("EVE", CommonAxes(), OwnShapes(), False),
        ("VVE", CommonAxes(), OwnSpectra(), False),
        ("EEV", OwnAxes(), OneSpectrum(), False),
        ("VEV", OwnAxes(), OwnVolumes(), False),
        ("EVV", OwnAxes(), OwnShapes(), True),
    )
)
"""The ten that are not plain."""
