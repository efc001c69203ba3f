"""The frame that numbers are kept in.

Sums of squares of rows far from zero, or of columns of very different size, lose the digits that
matter.  So all arithmetic happens on ``(x - shift) / scale``, with the shift near the data's mean
and the scale near its spread.  The scale is a power of two: dividing by it, and taking a mixture
into the frame and out again, rounds nothing but the means.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel

if TYPE_CHECKING:  # which imports this
    from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Frame:
    """The coordinates ``(x - shift) / scale`` that all arithmetic happens in; both are (D,)."""

    shift: Array
    scale: Array

    @classmethod
    def of(cls, mean: Array, variance: Array, covariance_model: CovarianceModel) -> "Frame":
        """The frame for rows of this ``mean`` (D,) and ``variance`` (D,)."""
        variance = covariance_model.scales(variance, variance.mean())
        spread = np.sqrt(np.where(variance > 0, variance, 1.0))
        return cls(mean, np.exp2(np.round(np.log2(spread))))

    @property
    def log_volume(self) -> float:
        """log of the volume of the frame's unit cube: densities in the frame exceed by it."""
        return float(np.log(self.scale).sum())

    def rows(self, x: NDArray[Any], out: Array) -> Array:
        """Write rows ``x`` (n, D) of any real dtype to ``out`` (D, n), in the frame."""
        np.subtract(x.T, self.shift[:, None], out=out, casting="unsafe")
        out /= self.scale[:, None]
        return out

    def enter(self, mixture: "Mixture") -> "Mixture":
        """The mixture of the data, as a mixture of rows in the frame."""
        means = (mixture.means - self.shift) / self.scale
        noise = mixture.noise_component
        noise = noise and noise.moved(-self.shift / self.scale, 1.0 / self.scale)
        covariances = mixture.covariances.rescale(1.0 / self.scale)
        return replace(mixture, means=means, covariances=covariances, noise_component=noise)

    def leave(self, mixture: "Mixture") -> "Mixture":
        """The mixture of rows in the frame, as a mixture of the data."""
        means = mixture.means * self.scale + self.shift
        noise = mixture.noise_component and mixture.noise_component.moved(self.shift, self.scale)
        covariances = mixture.covariances.rescale(self.scale)
        return replace(mixture, means=means, covariances=covariances, noise_component=noise)
