"""What rows say of each component, a unit of weight: by their information, or by their sums."""

from dataclasses import dataclass

import numpy as np

from dgmm.inference.information import Asked, Information
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
    def known(cls, asked: Asked) -> "Means":
        """Those that the mixture itself expects."""
        mixture, layout = asked.mixture, asked.layout
        precisions = np.linalg.inv(mixture.covariances.dense())
        sums = np.zeros((mixture.components, mixture.n_features + len(layout.rows)))
        shares = mixture.weights
        return cls(shares, sums, shares[:, None, None] * precisions, np.inf)

    @classmethod
    def found(cls, found: Information) -> "Means":
        """Those of rows."""
        weight = found.weight
        return cls(found.counts / weight, found.sums / weight, found.precisions / weight, weight)

    @classmethod
    def of_moments(
        cls, asked: Asked, shares: Array, offsets: Array, within: Array, weight: float
    ) -> "Means":
        """Those of rows with such means (K, D), away from the mixture's, and covariances."""
        precisions = np.linalg.inv(asked.mixture.covariances.dense())
        second = within + offsets[:, :, None] * offsets[:, None, :]
        first = (precisions @ offsets[:, :, None])[:, :, 0]
        entries = precisions @ second @ precisions - precisions
        i, j = asked.layout.rows, asked.layout.columns
        own = entries[:, i, j] * np.where(i == j, 0.5, 1.0)
        sums = shares[:, None] * np.concatenate([first, own], axis=1)
        return cls(shares, sums, shares[:, None, None] * precisions, weight)

    @classmethod
    def of_sums(
        cls, asked: Asked, sums: Array, center: Array, model: CovarianceModel, weight: float
    ) -> "Means":
        """Those of rows by ``Statistics.sums`` (K, P) about ``center``, in its centred features."""
        means, covariances = asked.mixture.means, asked.mixture.covariances
        counts, width = sums[:, 0], means.shape[1]
        some = np.maximum(counts, np.finfo(np.float64).tiny)
        offsets = sums[:, 1 : 1 + width] / some[:, None]  # of the center
        found = center + offsets
        own = model.estimate(counts, found, offsets, sums[:, 1 + width :], None)
        empty = counts <= 0
        away = np.where(empty[:, None], 0.0, found - means)
        within = np.where(empty[:, None, None], covariances.dense(), asked.layout.dense(own.values))
        return cls.of_moments(asked, counts / weight, away, within, weight)

    def score(self, asked: Asked) -> Array:
        """The mean score (p,), in the coordinates."""
        width = asked.mixture.n_features
        first = (self.shares - asked.mixture.weights * self.shares.sum())[:-1]
        entries = self.sums[:, width:].reshape(-1) @ asked.layout.own
        return np.concatenate([first, self.sums[:, :width].reshape(-1), entries])

    def moments(self, asked: Asked, k: int) -> tuple[Array, Array]:
        """How far a component's rows are from its mean, (D,), and their variances (D,)."""
        share, width, layout = self.shares[k], asked.mixture.n_features, asked.layout
        if share <= 0:
            return np.full(width, np.nan), np.full(width, np.nan)
        spread = np.linalg.pinv(self.precisions[k] / share, hermitian=True)
        offset = spread @ self.sums[k, :width] / share
        half = np.zeros((width, width))
        half[layout.rows, layout.columns] = self.sums[k, width:] / share
        second = spread + spread @ (half + half.T) @ spread
        return offset, np.diagonal(second) - offset * offset
