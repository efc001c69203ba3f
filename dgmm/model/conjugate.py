"""The conjugate prior: normal-inverse-Wishart for means and covariances, Dirichlet for weights.

With P_k the precisions, D features, and the parts that depend on the parameters alone,

    log p = sum_k  (alpha - 1) log pi_k
                 + (r + c) / 2 log|P_k| - tr(Lambda P_k) / 2
                 - kappa / 2 (mu_k - m)' P_k (mu_k - m)

with c = 1 if kappa > 0, else 0: the density of a mean holds a half log|P_k|.  Whatever the
covariance model, such a prior is r rows of scatter Lambda for each covariance, and kappa rows at m
for each mean; where components share a covariance there is one (r, Lambda) for all of them.  With
n_k, xbar_k and S_k what maximum likelihood says, the M-step is (Fraley and Raftery, Bayesian
regularization for normal mixture estimation and model-based clustering, 2007)

    pi_k  = (n_k + alpha - 1) / (N + K (alpha - 1))
    mu_k  = (n_k xbar_k + kappa m) / (n_k + kappa),  d_k = xbar_k - m
    Sigma_k = (n_k S_k + Lambda + kappa n_k / (n_k + kappa) d_k d_k') / (n_k + r + c)

It is written for any mu_k below, for whoever holds means fixed: then S_k is about that mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dgmm.model.arrays import Array, Mask
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.mixture import Mixture
from dgmm.model.prior import MaximumLikelihood, Prior, Roots, numbers_of, of_shape


@dataclass(frozen=True, eq=False)
class Conjugate(Prior):
    """Conjugate for every component alike, in the frame.

    Attributes
    ----------
    reg : (D,)
    weight : float
        N, of all rows.
    concentration : float
        alpha.
    mean : (D,)
        m.
    mean_precision : float
        kappa.
    scatter : Estimate
        Lambda, of one component.
    rows : float
        r.
    volume : float
        The logarithm of the frame's unit cube, so that ``log_density`` is that of the data.
    covariance_model : CovarianceModel
    """

    name: ClassVar[str] = "conjugate"

    reg: Array
    covariance_model: CovarianceModel
    weight: float
    concentration: float
    mean: Array
    mean_precision: float
    scatter: Estimate
    rows: float
    volume: float = 0.0

    def log_density(self, mixture: Mixture) -> float:
        covariances, rows = mixture.covariances, self._rows(mixture.components)
        halves = covariances.half_log_det() - self.volume
        logs = rows * halves - 0.5 * covariances.whitened_trace(self.scatter)
        white = covariances.whitened(mixture.means - self.mean)
        total = float(logs.sum()) - 0.5 * self.mean_precision * float(np.sum(white * white))
        if self.concentration != 1.0:
            total += (self.concentration - 1) * float(mixture.log_weights.sum())
        return total / self.weight

    def weights(self, mle: MaximumLikelihood) -> Array:
        counts = self._counts(mle) + (self.concentration - 1)
        weights: Array = counts / (counts.sum() or 1.0)  # all rows may be noise
        return weights

    def shares(self, mle: MaximumLikelihood) -> tuple[float, float]:
        counts = self._counts(mle) + (self.concentration - 1)
        whole = self.weight + len(counts) * (self.concentration - 1)
        noise = mle.noise * (self.weight / mle.total)
        return float(counts.sum() / whole), float(noise / whole)  # 1 less the first may be below 0

    def means(self, mle: MaximumLikelihood) -> Array:
        if not self.mean_precision:
            return mle.means
        counts = self._counts(mle)[:, None]
        share = counts / (counts + self.mean_precision)
        means: Array = self.mean + share * (mle.means - self.mean)
        return means

    def estimate(self, mle: MaximumLikelihood, means: Array) -> Estimate:
        return self._combined(mle, mle.about(means), means)

    def covariances(
        self, mle: MaximumLikelihood, means: Array, before: Covariances
    ) -> tuple[Covariances, Mask]:
        estimate = self._combined(mle, mle.about(means).raised(self.reg), means)
        unknown = mle.empty & (self.rows + (self.mean_precision > 0) == 0)
        return estimate.regularised(np.zeros_like(self.reg), unknown, before)

    def roots(self, mixture: Mixture) -> Roots:
        components, more = mixture.components, self.concentration - 1
        counts = mixture.weights * (self.weight + components * more)
        rows, own = counts - more, self._rows(components)
        parts = (counts, rows + self.mean_precision, rows + own)
        weights, means, covariances = (
            np.sqrt(np.maximum(each, 0.0) / self.weight) for each in parts
        )
        common = 1.0
        if self.covariance_model.sharing(components) > 1:
            common = float(np.sqrt(1.0 + own / self.weight))
        return Roots(weights, means, covariances, common)

    @property
    def unregularised(self) -> "Conjugate":
        return replace(self, reg=np.zeros_like(self.reg))

    def of_weight(self, weight: float) -> "Conjugate":
        return replace(self, weight=weight)

    def numbers(self) -> dict[str, float | str]:
        names = ("weight", "concentration", "mean_precision", "rows", "volume")
        return {"name": self.name, **{each: getattr(self, each) for each in names}}

    def arrays(self) -> dict[str, Array]:
        return {"prior_mean": self.mean, "prior_scatter": self.scatter.values}

    @classmethod
    def parse(
        cls,
        numbers: dict[str, Any],
        arrays: Mapping[str, Array],
        covariance_model: CovarianceModel,
        n_features: int,
    ) -> "Conjugate":
        least = {"weight": 0.0, "concentration": 1.0, "mean_precision": 0.0, "rows": 0.0}
        parsed = numbers_of(numbers, {**least, "volume": -np.inf})
        shape = covariance_model.shape(1, n_features)
        scatter = of_shape(arrays, "prior_scatter", shape)
        mean = of_shape(arrays, "prior_mean", (n_features,))
        estimate = covariance_model.estimate_of(scatter, (1, n_features))
        return cls(arrays["reg"], covariance_model, mean=mean, scatter=estimate, **parsed)

    def _counts(self, mle: MaximumLikelihood) -> Array:
        """How many of all rows the components have, (K,): estimates may be of a part of them."""
        counts: Array = mle.weights * (self.weight / mle.total)
        return counts

    def _rows(self, components: int) -> float:
        """r + c, of a covariance that each of so many components has, or all share."""
        return self.rows + (self.mean_precision > 0) * self.covariance_model.sharing(components)

    def _combined(self, mle: MaximumLikelihood, estimate: Estimate, means: Array) -> Estimate:
        counts, rows = self._counts(mle), self._rows(len(means))
        weights = np.full(len(means), self.mean_precision)
        return estimate.combined(counts, self.scatter, rows, weights, means - self.mean)
