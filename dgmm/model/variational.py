"""Variational Bayes: a posterior of all parameters, in the form of a mixture.

The posterior of each component is normal-Wishart, with D features, n_k the weight of its rows,
xbar_k their mean, S_k their covariance, and a 0 for the prior's (Bishop, Pattern Recognition and
Machine Learning, 2006, section 10.2; C is what scikit-learn calls ``covariances_``),

    beta_k = beta_0 + n_k           m_k = (beta_0 m_0 + n_k xbar_k) / beta_k
    nu_k   = nu_0 + n_k             C_k = (C_0 + n_k S_k + n_k beta_0 / beta_k d_k d_k') / nu_k

with d_k = xbar_k - m_0 and E[precision] = C_k^-1, and concentration.py has that of the weights.
Now all of it follows from n_k, m_k and C_k.  So the posterior is a ``Mixture`` of weights n_k / N,
means m_k and covariances C_k, beside rows of a known weight N; the E-step is that of the mixture,
with constants of its own for each component,

    E log pi_k + (sum_{i<D} psi((nu_k - i) / 2) + D log 2 - D log nu_k) / 2 - D / (2 beta_k)

in the place of log(n_k / N): their difference is a penalty.  The objective is the evidence's lower
bound, with the divergences of the posterior from the prior for ``log_density``.  Each M-step is the
exact optimum, so the bound never falls.  Where values are missing the same holds: the penalty is
that of all features, as E log|precision| - log|C^-1| is.

**Other covariances** than full ones are posteriors with one restriction more: a Wishart density
whose scale is diagonal, or a multiple of the identity, or the same for all components, with nu =
nu_0 + N / K.  The formulas of scikit-learn are the optimum under these, and the bound is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.special import digamma, gammaln

from dgmm.model.arrays import Array, Mask
from dgmm.model.concentration import CONCENTRATIONS, Concentration
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.mixture import Mixture
from dgmm.model.prior import MaximumLikelihood, Prior, Roots, numbers_of, of_shape

LEAST: Final = 1e-100
"""The smallest weight of a component, so that it stays: rows may come back to it."""

FEW: Final = 0.5
"""A component of fewer rows is not used."""


@dataclass(frozen=True, eq=False)
class Variational(Prior):
    """The prior of a variational posterior, in the frame.

    Attributes
    ----------
    reg : (D,)
    covariance_model : CovarianceModel
    weight : float
        N, of all rows.
    concentration : Concentration
    mean : (D,)
        m_0.
    mean_precision, degrees_of_freedom : float
        beta_0 and nu_0.
    scatter : Estimate
        C_0, of one component.
    """

    name = "variational"
    prunes = True

    reg: Array
    covariance_model: CovarianceModel
    weight: float
    concentration: Concentration
    mean: Array
    mean_precision: float
    degrees_of_freedom: float
    scatter: Estimate

    def penalties(self, mixture: Mixture) -> Array:
        penalties: Array = super().penalties(mixture) - self._log_weights(mixture)
        return penalties + np.log(np.maximum(mixture.weights, LEAST))

    def log_density(self, mixture: Mixture) -> float:
        counts, covariances = self.counts(mixture), mixture.covariances
        n_features, freedom = mixture.n_features, self.freedom(counts)
        ratio = self.mean_precision / (self.mean_precision + counts)
        white = covariances.whitened(mixture.means - self.mean)
        means = n_features * (ratio - 1 - np.log(ratio)).sum()
        means += self.mean_precision * np.sum(white * white)
        log_det = 2 * covariances.half_log_det() - n_features * np.log(freedom)
        trace = covariances.whitened_trace(self.scatter)
        wishart = _log_norm(freedom, log_det, n_features) - self.log_norm
        wishart += (
            0.5 * (freedom - self.degrees_of_freedom) * (_digammas(freedom, n_features) + log_det)
        )
        wishart += 0.5 * (trace - freedom * n_features)
        divergence = (
            self.concentration.divergence(counts) + 0.5 * float(means) + float(wishart.sum())
        )
        return -divergence / self.weight

    def weights(self, mle: MaximumLikelihood) -> Array:
        counts = np.maximum(mle.weights / mle.weights.sum(), LEAST)
        weights: Array = counts / counts.sum()
        return weights

    def means(self, mle: MaximumLikelihood) -> Array:
        counts = self._counts(mle)[:, None]
        share = counts / (counts + self.mean_precision)
        means: Array = self.mean + share * (mle.means - self.mean)
        return means

    def estimate(self, mle: MaximumLikelihood, means: Array) -> Estimate:
        return self._combined(mle, mle.about(means), means)

    def covariances(
        self, mle: MaximumLikelihood, means: Array, before: Covariances
    ) -> tuple[Covariances, Mask]:
        return self._combined(mle, mle.about(means).raised(self.reg), means).floored()

    def roots(self, mixture: Mixture) -> Roots:
        counts, components = self.counts(mixture), mixture.components
        more = self.concentration.value, self.mean_precision, self.degrees_of_freedom
        weights, means, covariances = (np.sqrt((counts + each) / self.weight) for each in more)
        common = 1.0
        if self.covariance_model.sharing(components) > 1:
            common = float(np.sqrt(1.0 + components * self.degrees_of_freedom / self.weight))
        return Roots(weights, means, covariances, common)

    @property
    def unregularised(self) -> "Variational":
        return replace(self, reg=np.zeros_like(self.reg))

    def of_weight(self, weight: float) -> "Variational":
        return replace(self, weight=weight)

    def judged(self, mixture: Mixture, row: float) -> tuple[Mixture, float]:
        logs, used = self._log_weights(mixture), ~self.unused(mixture, row)
        top = logs[used].max()
        shares = np.where(used, np.exp(logs - top), 0.0)
        total = float(shares.sum())
        return replace(mixture, weights=shares / total), float(top + np.log(total))

    def unused(self, mixture: Mixture, row: float) -> Mask:
        few = self.counts(mixture) < FEW * row
        unused: Mask = few & (mixture.weights < mixture.weights.max())
        return unused

    def counts(self, mixture: Mixture) -> Array:
        """n_k, (K,)."""
        return self.weight * mixture.weights

    def freedom(self, counts: Array) -> Array:
        """nu_k, (K,)."""
        shared = self.covariance_model.sharing(len(counts)) > 1
        more = np.full(len(counts), counts.mean()) if shared else counts
        return self.degrees_of_freedom + more

    @property
    def log_norm(self) -> float:
        """The logarithm of the norm of one precision's Wishart prior, as a density."""
        half: Array = self.scatter.floored()[0].half_log_det()
        freedom, n_features = np.array([self.degrees_of_freedom]), len(self.mean)
        return float(_log_norm(freedom, 2 * half[:1], n_features)[0])

    def numbers(self) -> dict[str, float | str]:
        names = ("weight", "mean_precision", "degrees_of_freedom")
        return {
            "name": self.name,
            "weight_concentration_prior_type": self.concentration.name,
            "weight_concentration": self.concentration.value,
            **{each: getattr(self, each) for each in names},
        }

    def arrays(self) -> dict[str, Array]:
        return {"prior_mean": self.mean, "prior_scatter": self.scatter.values}

    @classmethod
    def parse(
        cls,
        numbers: dict[str, Any],
        arrays: Mapping[str, Array],
        covariance_model: CovarianceModel,
        n_features: int,
    ) -> "Variational":
        tiny = float(np.finfo(np.float64).tiny)
        names = ("weight", "weight_concentration", "mean_precision", "degrees_of_freedom")
        parsed = numbers_of(numbers, dict.fromkeys(names, tiny))
        kind = CONCENTRATIONS[numbers["weight_concentration_prior_type"]]
        scatter = of_shape(arrays, "prior_scatter", covariance_model.shape(1, n_features))
        return cls(
            arrays["reg"],
            covariance_model,
            parsed["weight"],
            kind(parsed["weight_concentration"]),
            of_shape(arrays, "prior_mean", (n_features,)),
            parsed["mean_precision"],
            parsed["degrees_of_freedom"],
            covariance_model.estimate_of(scatter, (1, n_features)),
        )

    def _log_weights(self, mixture: Mixture) -> Array:
        """The constants (K,) of the E-step, beside log N(x | m_k, C_k)."""
        counts, n_features = self.counts(mixture), mixture.n_features
        freedom = self.freedom(counts)
        spread = _digammas(freedom, n_features) - n_features * np.log(freedom)
        spread -= n_features / (self.mean_precision + counts)
        logs: Array = self.concentration.log_weights(counts) + 0.5 * spread
        return logs

    def _counts(self, mle: MaximumLikelihood) -> Array:
        """n_k (K,), of all rows: estimates may be of a part of them."""
        counts: Array = mle.weights * (self.weight / mle.weights.sum())
        return counts

    def _combined(self, mle: MaximumLikelihood, estimate: Estimate, means: Array) -> Estimate:
        components, n_features = means.shape
        times = self.covariance_model.sharing(components)
        scatter = self.covariance_model.estimate_of(times * self.scatter.values, (1, n_features))
        weights = np.full(components, self.mean_precision)
        rows = times * self.degrees_of_freedom
        return estimate.combined(self._counts(mle), scatter, rows, weights, means - self.mean)


def _digammas(freedom: Array, n_features: int) -> Array:
    """E log|precision| of Wishart densities of scale 1, (K,): sum psi((nu - i) / 2) + D log 2."""
    total = np.full(len(freedom), n_features * np.log(2.0))
    for i in range(n_features):
        total += digamma(0.5 * (freedom - i))
    return total


def _log_norm(freedom: Array, log_det: Array, n_features: int) -> Array:
    """log B (K,) of Wishart densities whose scales have these ``log_det``, but for pi's part."""
    norm: Array = -0.5 * freedom * (log_det + n_features * np.log(2.0))
    for i in range(n_features):
        norm -= gammaln(0.5 * (freedom - i))
    return norm
