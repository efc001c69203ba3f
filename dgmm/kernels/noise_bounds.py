"""Bounds on what components say of rows with errors, so that few need a factor of their own.

A row and a component need a factor of T = S_k + N, which takes D^3 / 6 products.  A bound on their
density takes D^2: ``_native_noisy.h`` has the formulas; here is what they need of the components,
and of a block's rows together.  A component whose bound is lost beside another's density is not
factored.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.model.arrays import Array
from dgmm.model.matrices import choleskys, triangle_inverses

ROWS: Final = 256
"""So many rows show how large their noise is; fewer have no bounds."""

CONDITION: Final = 1e8
"""Beyond, the rounding of a bound may not be small beside the slack that it has."""

SLACK: Final = 1e-3
"""What is added to bounds, far more than they may miss by rounding."""

TINY: Final = 1e-290
"""A variance of which there is a logarithm, and that is nothing beside any that has an inverse."""


@dataclass(frozen=True)
class NoiseBounds:
    """What bounds take; no bounds if there are no numbers.

    Attributes
    ----------
    white : (K, D, D)
        Upper triangles C, of which C C' is the inverse of M = S_k + N_0.
    middle : (D,)
        N_0, about as large as the noise of most rows.
    slopes : (K, D)
        Of the tangent of log |T| at N_0, in log(N + s).
    under : (D,)
        s, variances below those of all components: S_k - s is a covariance.
    ceilings : (K,)
        What bounds hold beside what depends on rows.
    cuts : (K,)
        How far below another's log-density a bound is, where a component is lost.
    """

    white: Array
    middle: Array
    slopes: Array
    under: Array
    ceilings: Array
    cuts: Array

    @classmethod
    def none(cls) -> "NoiseBounds":
        """No bounds: all components are asked about all rows."""
        return cls(*(np.empty(shape) for shape in (0, 0, (0, 0), 0, 0, 0)))

    @classmethod
    def of(
        cls,
        covariances: Array,
        noise: Array,
        constants: Array,
        cuts: Array,
    ) -> "NoiseBounds":
        """Those of ``covariances`` (K, D, D) for rows with variances like ``noise`` (n, D).

        ``constants`` (K,) are of the log-densities; all is in the frame.
        """
        places = np.arange(covariances.shape[1])
        under = _under(covariances)
        known = np.isfinite(noise)
        logs = np.log(np.where(known, noise, 0.0) + under)
        counts = np.maximum(known.sum(axis=0), 1)
        logs = np.where(known, logs, 0.0).sum(axis=0) / counts
        middle = np.maximum(np.exp(logs) - under, 0.0)
        logs = np.log(middle + under)
        whole = covariances.copy()
        whole[:, places, places] += middle
        variances = whole[:, places, places]
        lower = choleskys(whole)
        white = triangle_inverses(lower).swapaxes(1, 2)
        precisions = np.sum(white * white, axis=2)
        slopes = (middle + under) * precisions
        half_log_det = np.log(lower[:, places, places]).sum(axis=1)
        ceilings = constants - half_log_det + 0.5 * slopes @ logs + SLACK
        condition = len(places) * (variances * precisions).max(axis=1)
        usable = np.isfinite(ceilings) & (condition < CONDITION)
        ceilings = np.where(usable, ceilings, np.inf)
        white = np.where(usable[:, None, None], white, 0.0)
        slopes = np.where(usable[:, None], slopes, 0.0)
        return cls(white, middle, slopes, under, ceilings, cuts)


def _under(covariances: Array) -> Array:
    """Variances s (D,), so that no ``covariances`` (K, D, D) less s has an eigenvalue below 0.

    With C^-1 as the correlations of S^-1, whose largest eigenvalue is D at most, S is
    diag(S^-1)^-1/2 C diag(S^-1)^-1/2, and not below diag(S^-1)^-1 / D.
    """
    n_features = covariances.shape[1]
    white = triangle_inverses(choleskys(covariances))
    precisions = np.sum(white * white, axis=1)
    with np.errstate(invalid="ignore"):
        most = np.nan_to_num(precisions, nan=np.inf).max(axis=0)
    under: Array = np.maximum(0.99 / (n_features * most), TINY)
    return under
