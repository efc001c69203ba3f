"""The mixture that a fitted model judges rows by."""

from typing import TYPE_CHECKING

from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def judged(model: "GaussianMixture") -> tuple[Mixture, float]:
    """The mixture that rows are judged by, and what is added to its log-densities, in nats.

    These are ``mixture_`` and 0.  With a variational posterior the weights are less, by what its
    spread takes from each component, and those of components without rows are 0.
    """
    statistics = vars(model).get("sufficient_statistics_")
    if statistics is None:
        return model.mixture_, 0.0
    prior = statistics.prior.of_weight(statistics.weight)
    mixture, offset = prior.judged(model.mixture_, statistics.weight / statistics.rows)
    return mixture, offset
