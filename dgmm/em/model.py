"""The model that is fitted: a covariance model, a prior and an observation model; and its M-step.

The three are orthogonal.  The observation model says how a block of rows becomes expected sums, the
covariance model what these say of the covariances, the prior what the objective holds besides.

A component whose weight falls below rounding of the total becomes **empty**: its weight becomes 0,
and its mean and covariance stay as they were.  A component whose covariance loses its rank is
**singular**, at ``FLOOR``.  Neither lowers the objective; a trial and a state name them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.observation import Observation
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture
from dgmm.model.prior import MaximumLikelihood, Prior
from dgmm.model.statistics import Statistics


@dataclass(frozen=True)
class Trial:
    """A mixture to be evaluated, and which of its components degenerated when it was made.

    ``bound`` is what single precision may do to its objective; infinity asks for double.
    """

    mixture: Mixture
    empty: tuple[int, ...] = ()
    singular: tuple[int, ...] = ()
    bound: float = np.inf


@dataclass(frozen=True)
class Model:
    """What is fitted, whatever the rows.

    Attributes
    ----------
    covariance_model : CovarianceModel
    prior : Prior
    observation : Observation
    """

    covariance_model: CovarianceModel
    prior: Prior
    observation: Observation

    @property
    def unregularised(self) -> "Model":
        """The same without what ``reg_covar`` adds."""
        return replace(self, prior=self.prior.unregularised)

    def natural(self, mixture: Mixture, spread: float, single: bool = False) -> NaturalParameters:
        """A ``mixture`` as its kernel sees it; ``spread`` and ``single`` as there."""
        penalties = self.prior.penalties(mixture)
        seen = self.observation
        return NaturalParameters.of(
            mixture, penalties, spread, seen.centres, single, per_component=seen.holes
        )

    def maximum_likelihood(
        self, statistics: Statistics, total: Array | None, before: Mixture
    ) -> MaximumLikelihood:
        """What ``statistics`` under the mixture ``before`` say.

        ``total`` (D, D) is the scatter of all rows about 0, where the covariance model needs it.
        """
        n_features, counts = before.n_features, statistics.sums[:, 0]
        empty = counts <= np.finfo(np.float64).eps * statistics.weight
        weights = np.where(empty, 0.0, counts)
        divisors = np.where(empty, 1.0, counts)
        offsets = statistics.sums[:, 1 : 1 + n_features] / divisors[:, None]
        means = np.where(empty[:, None], before.means, statistics.center + offsets)
        second = statistics.sums[:, 1 + n_features :]
        estimate = self.covariance_model.estimate(weights, means, offsets, second, total)
        return MaximumLikelihood(weights, means, estimate, empty)

    def m_step(self, statistics: Statistics, total: Array | None, before: Mixture) -> Trial:
        """The mixture that maximises the expected objective; arguments as above."""
        found = self.maximum_likelihood(statistics, total, before)
        weights, means = self.prior.weights(found), self.prior.means(found)
        covariances, singular = self.prior.covariances(found, means, before.covariances)
        every = np.broadcast_to(singular, len(means))
        return Trial(Mixture(weights, means, covariances), numbers(found.empty), numbers(every))


def numbers(flags: NDArray[np.bool_]) -> tuple[int, ...]:
    """The numbers of the components that ``flags`` (K,) name."""
    return tuple(np.flatnonzero(flags).tolist())
