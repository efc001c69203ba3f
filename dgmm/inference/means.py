"""What rows say of each component, a unit of weight: by their information, or by their sums."""

from dataclasses import dataclass

import numpy as np

from dgmm.inference.information import Information, Query
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel


@dataclass(frozen=True)
class Means:
    """What rows say of each component, a unit of weight.

    Attributes
    ----------
    shares : (K,)
        Means of r_k.
    sums : (K, D + Q)
        Of r_k times the scores of the component's own mean and entries of its covariance.
    precisions : (K, D, D)
        Of r_k P_k.
    weight : float
        Of all rows; infinite where parameters are taken for known.
    """

    shares: Array
    sums: Array
    precisions: Array
    weight: float

    @classmethod
    def known(cls, query: Query) -> "Means":
        """What the mixture itself expects of rows."""
        mixture, layout = query.mixture, query.layout
        precisions = np.linalg.inv(mixture.covariances.dense())
        sums = np.zeros((mixture.components, mixture.n_features + len(layout.rows)))
        shares = mixture.weights
        return cls(shares, sums, shares[:, None, None] * precisions, np.inf)

    @classmethod
    def found(cls, measured: Information) -> "Means":
        """What rows say whose information was ``measured``."""
        weight = measured.weight
        return cls(
            measured.counts / weight, measured.sums / weight, measured.precisions / weight, weight
        )

    @classmethod
    def of_moments(
        cls, query: Query, shares: Array, offsets: Array, within: Array, weight: float
    ) -> "Means":
        """What rows say whose means are ``offsets`` (K, D) from the mixture's.

        Their covariances about these means are ``within`` (K, D, D).
        """
        precisions = np.linalg.inv(query.mixture.covariances.dense())
        second = within + offsets[:, :, None] * offsets[:, None, :]
        first = (precisions @ offsets[:, :, None])[:, :, 0]
        entries = precisions @ second @ precisions - precisions
        i, j = query.layout.rows, query.layout.columns
        in_layout = entries[:, i, j] * np.where(i == j, 0.5, 1.0)
        sums = shares[:, None] * np.concatenate([first, in_layout], axis=1)
        return cls(shares, sums, shares[:, None, None] * precisions, weight)

    @classmethod
    def of_sums(
        cls, query: Query, sums: Array, center: Array, model: CovarianceModel, weight: float
    ) -> "Means":
        """What rows say whose ``Statistics.sums`` (K, P) are about ``center``.

        They are sums of the ``model``'s centred features.
        """
        means, covariances = query.mixture.means, query.mixture.covariances
        counts, width = sums[:, 0], means.shape[1]
        some = np.maximum(counts, np.finfo(np.float64).tiny)
        offsets = sums[:, 1 : 1 + width] / some[:, None]  # of the center
        row_means = center + offsets
        estimate = model.estimate(counts, row_means, offsets, sums[:, 1 + width :], None)
        empty = counts <= 0
        away = np.where(empty[:, None], 0.0, row_means - means)
        within = np.where(
            empty[:, None, None], covariances.dense(), query.layout.dense(estimate.values)
        )
        return cls.of_moments(query, counts / weight, away, within, weight)

    def score(self, query: Query) -> Array:
        """The mean score (p,), in the coordinates."""
        width = query.mixture.n_features
        first = (self.shares - query.mixture.weights * self.shares.sum())[:-1]
        entries = self.sums[:, width:].reshape(-1) @ query.layout.own
        return np.concatenate([first, self.sums[:, :width].reshape(-1), entries])

    def moments(self, query: Query, k: int) -> tuple[Array, Array]:
        """How far a component's rows are from its mean, (D,), and their variances (D,)."""
        share, width, layout = self.shares[k], query.mixture.n_features, query.layout
        if share <= 0:
            return np.full(width, np.nan), np.full(width, np.nan)
        spread = np.linalg.pinv(self.precisions[k] / share, hermitian=True)
        offset = spread @ self.sums[k, :width] / share
        half = np.zeros((width, width))
        half[layout.rows, layout.columns] = self.sums[k, width:] / share
        second = spread + spread @ (half + half.T) @ spread
        return offset, np.diagonal(second) - offset * offset

    def variances(self, query: Query) -> Array:
        """The variances (K, D) of components' rows, pooled where covariances are shared."""
        own = np.stack([self.moments(query, k)[1] for k in range(len(self.shares))])
        known = ~np.isnan(own)  # NaN is of no rows
        dense = np.where(known, own, 0.0)[:, :, None] * np.eye(own.shape[1])
        pooled = query.mixture.covariance_model.pooled(self.shares, dense)
        return np.where(known, np.diagonal(pooled, axis1=1, axis2=2), np.nan)
