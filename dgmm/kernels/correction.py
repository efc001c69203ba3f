"""Statistics that stand for rows which a sweep does not see."""

from dataclasses import dataclass, replace

import numpy as np

from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.model.arrays import Array
from dgmm.model.features import Features
from dgmm.model.statistics import Statistics


@dataclass(frozen=True)
class StatisticsCorrection:
    """Statistics to be added to those of some rows, as if there were more, or fewer, rows.

    With c_k their sums, the objective grows by sum_k c_k . eta_k: linear in eta, so the M-step
    from the joint statistics still raises it (the inequality that EM rests on holds for the rows'
    own part, and with equality for a linear one).

    Attributes
    ----------
    features : Features
        Of the sums.
    sums, center : (K, P), (K, D)
        As in ``Statistics``.
    total : (D, D) or None
        The scatter about 0 of the rows that there would be more, where the covariance model needs
        it.
    share : float
        Of all rows: how many are added to those of a sweep, which stand for all.
    """

    features: Features
    sums: Array
    center: Array
    total: Array | None = None
    share: float = 0.0

    def linear(self, natural: NaturalParameters) -> float:
        """sum_k c_k . eta_k under ``natural``."""
        gain = natural.inner_product(self.sums, self.center)
        if natural.includes_common and self.total is not None:
            gain += natural.mixture.covariances.common_sum(self.total)
        return gain

    def join(self, statistics: Statistics, natural: NaturalParameters) -> Statistics:
        """The joint statistics, with their objective under ``natural``; minus infinity: unknown."""
        if natural.features != self.features:
            return replace(statistics, objective=-np.inf, log_likelihood=-np.inf)
        sums = self.features.shifted(self.sums, natural.center - self.center)
        linear = self.linear(natural)
        return replace(
            statistics,
            sums=statistics.sums + sums,
            objective=statistics.objective + linear,
            log_likelihood=statistics.log_likelihood + linear + float(sums[:, 0] @ natural.penalty),
        )
