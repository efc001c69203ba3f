"""The prior: what the objective holds beside the likelihood of the rows.

**Regularised maximum likelihood.**  Adding e to the diagonal of each covariance, as ``reg_covar``
does, is the exact M-step not of the likelihood, but of the likelihood with each component's density
multiplied by exp(-e tr(Sigma_k^-1) / 2).  So that is the objective, and it never falls; the plain
log-likelihood is summed beside it.
"""

from dataclasses import dataclass

import numpy as np

from dgmm.model.arrays import FLOOR, Array
from dgmm.model.covariance_model import Covariances, Estimate, Mask
from dgmm.model.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Regularised:
    """Each component's log-density is lowered by reg . diag(Sigma_k^-1) / 2.

    Attributes
    ----------
    reg : (D,)
        What that adds to the diagonal of each covariance, in the frame.
    """

    reg: Array

    def penalties(self, mixture: Mixture) -> Array:
        """By how much the objective lowers each component's log-density, (K,)."""
        return np.broadcast_to(0.5 * mixture.covariances.trace(self.reg), (mixture.components,))

    def covariances(
        self, estimate: Estimate, empty: Mask, before: Covariances
    ) -> tuple[Covariances, Mask]:
        """The M-step's covariances, and which had to be raised to FLOOR, (K,) or (1,).

        ``estimate`` is that of maximum likelihood; a component that is ``empty`` (K,) keeps what
        covariance of its own it had ``before``.
        """
        return estimate.regularised(self.reg, empty, before)

    def share(self, share: float) -> Array:
        """The variances (D,) below which an estimate is less than a ``share`` of what is added."""
        return np.maximum(share * self.reg, FLOOR)

    @property
    def none(self) -> "Regularised":
        """The prior of maximum likelihood, which adds nothing."""
        return Regularised(np.zeros_like(self.reg))
