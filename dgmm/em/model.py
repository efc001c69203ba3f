"""The model that is fitted: a covariance model, a prior and an observation model; and its M-step.

The three are orthogonal.  The observation model says how a block of rows becomes expected sums, the
covariance model what these sums say of the covariances, the prior what the objective holds besides.

**Noise** (model/noise_component.py) is beside the components: its weight is its only parameter.
Tied covariances go by the weights of the components among themselves.

A component whose weight falls below rounding of the total becomes **empty**: its weight becomes 0,
and its mean and covariance stay as they were.  A component whose covariance loses its rank is
**singular**, at ``FLOOR``.  A trial and a state name both.  Neither lowers the objective, with one
exception: where a singular component keeps rows that weigh less than rounding of the total.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.observation import Observation
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import Fixed
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.prior import MaximumLikelihood, Prior
from dgmm.model.statistics import Statistics
from dgmm.model.tails import TailsSpec


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
    fixed : Fixed or None
        What every mixture has as the start had it.
    noise_component : NoiseComponent or None
        In the frame, with the weight that it begins with.
    tails : TailsSpec or None
        Where components are t distributions.
    """

    covariance_model: CovarianceModel
    prior: Prior
    observation: Observation
    fixed: Fixed | None = None
    noise_component: NoiseComponent | None = None
    tails: TailsSpec | None = None

    @property
    def unregularised(self) -> "Model":
        """The same without what ``reg_covar`` adds."""
        return replace(self, prior=self.prior.unregularised)

    def begun(self, mixture: Mixture, weight: float | None = None) -> Mixture:
        """A ``mixture`` of normal components, with the noise or the tails that this model has.

        Noise begins with that ``weight``.
        """
        if self.tails is not None:
            return replace(mixture, tails=self.tails.begun(mixture.components))
        noise = self.noise_component
        if noise is None:
            return mixture
        noise = noise if weight is None else noise.weighing(weight)
        total = mixture.weights.sum() or 1.0  # all rows may be noise
        weights = mixture.weights / total * (1 - noise.weight)
        return replace(mixture, weights=weights, noise_component=noise)

    def natural(self, mixture: Mixture, spread: float, single: bool = False) -> NaturalParameters:
        """A ``mixture`` as its kernel sees it; the rest as in ``NaturalParameters.of``."""
        return NaturalParameters.of(
            mixture,
            self.penalties(mixture),
            spread,
            self.observation.centres,
            single,
            per_component=self.observation.holes,
        )

    def penalties(self, mixture: Mixture) -> Array:
        """By how much the objective lowers each component's log-density, (K,).

        Covariances that are held need nothing to hold them up.
        """
        penalties = self.prior.penalties(mixture)
        return penalties if self.fixed is None else np.where(self.fixed.covariances, 0.0, penalties)

    def hold(self, mixture: Mixture, at: Mixture) -> Mixture:
        """The ``mixture`` with what is fixed as it is ``at`` another."""
        return mixture if self.fixed is None else self.fixed.hold(mixture, at)

    def free_parameters(self, mixture: Mixture) -> int:
        """How many parameters of a ``mixture`` are free."""
        count = mixture.free_parameters
        if self.fixed is None:
            return count
        return count - self.fixed.parameters_of(mixture)

    def maximum_likelihood(
        self, statistics: Statistics, total: Array | None, before: Mixture
    ) -> MaximumLikelihood:
        """What ``statistics`` under the mixture ``before`` say.

        ``total`` (D, D) is the scatter of all rows about 0, where the covariance model needs it.
        """
        n_features, components = before.n_features, before.components
        sums, noise = statistics.sums[:components], float(statistics.sums[components:, 0].sum())
        counts = sums[:, 0]
        empty = counts <= np.finfo(np.float64).eps * statistics.weight
        weights = np.where(empty, 0.0, counts)
        if statistics.tails is not None:
            return self._of_tails(statistics, statistics.tails, before, weights)
        divisors = np.where(empty, 1.0, counts)
        offsets = sums[:, 1 : 1 + n_features] / divisors[:, None]
        means = np.where(empty[:, None], before.means, statistics.center[:components] + offsets)
        second = sums[:, 1 + n_features :]
        estimate = before.covariances.estimated(weights, means, offsets, second, total)
        return MaximumLikelihood(weights, means, estimate, empty, noise)

    def _of_tails(
        self, statistics: Statistics, tails: Array, before: Mixture, weights: Array
    ) -> MaximumLikelihood:
        """The same where components are t distributions: sums are weighted by E[u]."""
        n_features, empty = before.n_features, weights == 0
        moved = np.concatenate([tails[:, :1], statistics.sums[:, 1:]], axis=1)
        offsets = moved[:, 1 : 1 + n_features] / np.where(empty, 1.0, tails[:, 0])[:, None]
        means = np.where(empty[:, None], before.means, statistics.center + offsets)
        about = self.covariance_model.centred_features.shifted(moved, offsets)
        second, none = about[:, 1 + n_features :], np.zeros_like(offsets)
        estimate = self.covariance_model.estimate(weights, means, none, second, None)
        return MaximumLikelihood(weights, means, estimate, empty)

    def maximised(self, mle: MaximumLikelihood, before: Mixture) -> tuple[Array, Array]:
        """The M-step's weights (K,) and means (K, D), after the mixture ``before``.

        Weights are those of normal components among themselves; where there is noise, what is fixed
        of them is not held yet.
        """
        weights, means = self.prior.weights(mle), self.prior.means(mle)
        if self.fixed is None:
            return weights, means
        held = np.where(self.fixed.means[:, None], before.means, means)
        if before.noise_component is not None:
            return weights, held
        return self.fixed.shared(weights, before.weights), held

    def kept(self, empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which components have the covariances they had: those ``empty`` (K,), or held there."""
        return empty if self.fixed is None else empty | self.fixed.covariances

    def m_step(self, statistics: Statistics, total: Array | None, before: Mixture) -> Trial:
        """The mixture that maximises the expected objective; arguments as above."""
        mle = self.maximum_likelihood(statistics, total, before)
        weights, means = self.maximised(mle, before)
        covariances, singular = self.prior.covariances(mle, means, before.covariances)
        degenerate = np.broadcast_to(singular, len(means))
        mixture = Mixture(weights, means, covariances)
        if before.noise_component is not None:
            share, noise_share = self.prior.shares(mle)
            noise, weights = before.noise_component.weighing(noise_share), weights * share
            mixture = replace(mixture, weights=weights, noise_component=noise)
        if before.tails is not None and statistics.tails is not None:
            tails = before.tails.updated(mle.weights, statistics.tails[:, 1])
            mixture = replace(mixture, tails=tails)
        lacking = mle.empty & (not self.prior.prunes)
        if self.fixed is None:
            return Trial(mixture, numbers(lacking), numbers(degenerate))
        empty = lacking & ~self.fixed.weights
        lost = degenerate & ~self.fixed.covariances
        return Trial(self.hold(mixture, before), numbers(empty), numbers(lost))


def numbers(flags: NDArray[np.bool_]) -> tuple[int, ...]:
    """The numbers of the components that ``flags`` (K,) name."""
    return tuple(np.flatnonzero(flags).tolist())
