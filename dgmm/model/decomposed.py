"""Covariances with parts in common: volumes, shapes and axes (the eigen-decomposed family).

Each covariance is lambda_k D_k A_k D_k': volume, axes, and shape.  Each of the three may be one for
all components, E, or each component's own, V; or the shape and the axes may be none, I: the same
spread in all directions, or axes along the features.  Banfield and Raftery (1993) and Celeux and
Govaert (1995) have fourteen of these, which mclust names by three letters (Scrucca, Fop, Murphy and
Raftery, mclust 5, 2016).  Four are the plain models; the other ten are values of one class here.

Each is estimated from the sums of its ``plain`` model, the one of the same quadratic part.  So
kernels, and whatever looks at one mixture, see plain covariances.  What differs is the M-step
(axes.py, spectra.py): it makes what the rows show a member of the family, and minimises
sum_k n_k (log |S_k| + tr(S_k^-1 W_k)), with W_k the scatter of component k's rows.  ``reg`` is
added to that scatter, so it means the same as elsewhere (model/prior.py).

Coordinates are those of the plain model, too.  A step may leave the family; then it ends at what an
M-step makes of the mixture it led to.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.axes import (
    ROUGH,
    Axes,
    CommonAxes,
    CommonForm,
    FeatureAxes,
    NoAxes,
    OwnAxes,
    Shown,
)
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.decomposed_covariances import DecomposedCovariances
from dgmm.model.decomposed_estimate import DecomposedEstimate
from dgmm.model.features import Features
from dgmm.model.frame import Frame
from dgmm.model.spectra import (
    OneSpectrum,
    OwnShapes,
    OwnSpectra,
    OwnVolumes,
    Spectra,
    mean_weights,
)

THIN: Final = 1e10
"""Covariances of such a condition, all taken together, may have been raised."""

SAME: Final = 1e-12
"""How far covariances of the family may be from it by rounding, in nats for a row."""


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
        """How many parameters components have in common, and how many each has for itself."""
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
    ) -> DecomposedEstimate:
        plain = self.plain.estimate(counts, means, offsets, second, total)
        return self.estimate_from(plain, counts)

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> DecomposedEstimate:
        return self.estimate_from(self.plain.estimate_of(values, shape), np.ones(shape[0]))

    def estimate_from(
        self, plain: Estimate, counts: Array, start: Array | None = None
    ) -> DecomposedEstimate:
        """The estimate from that of the plain model, for components of so many ``counts`` (K,).

        Iterations, where it takes some, begin at ``start``.
        """
        return DecomposedEstimate(self, plain, counts, start)

    def single(self, moments: Array) -> Array:
        return self.plain.single(moments)

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return self.plain.mode_rows(degrees_of_freedom, n_features)

    def pooled(self, counts: Array, covariances: Array) -> Array:
        axes, n_features = self.axes, covariances.shape[-1]
        values = axes.values_of(self.plain.pooled(counts, covariances))
        fitted = axes.fit(Shown(values, mean_weights(counts), self.spectra, sweeps=ROUGH))
        return axes.dense_of(fitted, n_features)

    def kept(self, covariances: Array) -> Array:
        return self.plain.kept(covariances)

    def freedom(self, counts: Array) -> Array:
        return self.plain.freedom(counts)

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> DecomposedCovariances:
        return self._given(self.plain.of_precisions(precisions, shape), shape)

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> DecomposedCovariances:
        return self._given(self.plain.of_covariances(covariances, shape), shape)

    def of_variances(self, variances: Array, components: int) -> DecomposedCovariances:
        return DecomposedCovariances(self, self.plain.of_variances(variances, components))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> DecomposedCovariances:
        plain = self.plain.of_factors(covariances, precisions_cholesky, shape)
        return DecomposedCovariances(self, plain)

    def _given(self, given: Covariances, shape: tuple[int, int]) -> DecomposedCovariances:
        """Covariances of the family, very near those ``given``; these, if they are of it.

        Raises ``UsageError`` where there are none so near.  Where one is so thin that it may have
        been raised to FLOOR, which takes it out of the family, they are as they are given.
        """
        # In units where variances are about 1, as the fit to eigenvalues is beside FLOOR.
        scale = Frame.of(np.zeros(shape[1]), given.variances().mean(axis=0), self).scale
        inside = given.rescale(1.0 / scale)
        if _is_thin(inside):
            return DecomposedCovariances(self, given)
        values = self.fitted(inside.values, np.ones(shape[0]), inside.values)
        nearest = DecomposedCovariances(self, self.plain.of_covariances(values, shape))
        try:
            distance = nearest.check_near(inside)
        except np.linalg.LinAlgError as error:
            raise UsageError(
                f"what is given as covariances or precisions is of no such mixture: {error}"
            ) from error
        return DecomposedCovariances(self, given) if distance < SAME else nearest.rescale(scale)

    def fitted(self, values: Array, counts: Array, before: Array | None) -> Array:
        """The values of the family that fit the plain ``values`` best; see ``Axes.fit``."""
        return self.axes.fit(Shown(values, mean_weights(counts), self.spectra, before))


def _is_thin(covariances: Covariances) -> bool:
    """Whether a covariance has next to no spread in some direction."""
    variances = covariances.variances()
    trace = covariances.trace(np.ones(variances.shape[1]))
    return bool(variances.max() * trace.max() > THIN)


DECOMPOSED: Final = tuple(
    Decomposed(name, axes, spectra, any_scale)
    for name, axes, spectra, any_scale in (
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
