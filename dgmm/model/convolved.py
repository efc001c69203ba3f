"""Covariances of what is seen with errors: S_k + N_i, of a component and the noise of some rows.

A value that is missing is one of infinite noise: S + N without its row and column.  So it has no
part in log-densities, in (S + N)^-1, nor in what comes of that.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array
from dgmm.model.features import Features
from dgmm.model.matrices import choleskys, triangle_inverses


class Convolved(ABC):
    """S_k + N_m of K components and M kinds of noise, each with features that are observed."""

    @abstractmethod
    def solved(self, away: Array, of: NDArray[np.intp]) -> tuple[Array, Array]:
        """Log-densities (n, K), but for the constant, and (S + N)^-1 d (n, K, D).

        ``away`` (n, K, D) are d, how far rows are from the means, and 0 where nothing is observed;
        ``of`` (n,) says which kind of noise each row has.
        """

    @abstractmethod
    def inverse_sums(self, features: Features, weights: Array) -> Array:
        """The quadratic part (K, Q) of sum_m w_km (S_k + N_m)^-1, for ``weights`` (K, M)."""


@dataclass(frozen=True)
class Variances(Convolved):
    """Of uncorrelated features with uncorrelated errors.

    Attributes
    ----------
    inverse : (M, K, D)
        One over S + N; 0 where nothing is observed.
    """

    inverse: Array

    @classmethod
    def of(cls, variances: Array, noise: Array, observed: NDArray[np.bool_]) -> "Variances":
        """From ``variances`` (K, D) and ``noise`` (M, D) of what is ``observed`` (M, D)."""
        return cls(observed[:, None] / (variances + noise[:, None]))

    def solved(self, away: Array, of: NDArray[np.intp]) -> tuple[Array, Array]:
        logs = np.log(np.where(self.inverse > 0, self.inverse, 1.0)).sum(axis=2)
        pull = self.inverse[of] * away
        return 0.5 * (logs[of] - np.sum(pull * away, axis=2)), pull

    def inverse_sums(self, features: Features, weights: Array) -> Array:
        total = np.einsum("km,mkd->kd", weights, self.inverse)
        return features.of_variances(total)


@dataclass(frozen=True)
class Matrices(Convolved):
    """Of any covariances.

    Attributes
    ----------
    white : (M, K, D, D) or (M, 1, D, D)
        The inverses of Cholesky factors of S + N; 0 where nothing is observed.
    half_log_det : (M, K) or (M, 1)
        Of (S + N)^-1.
    """

    white: Array
    half_log_det: Array

    @classmethod
    def of(cls, covariances: Array, noise: Array, observed: NDArray[np.bool_]) -> "Matrices":
        """From ``covariances`` (K, D, D), or (1, D, D) for all; the rest is as in ``Variances``.

        ``noise`` may be (M, D, D).  Where nothing is observed, S + N is taken for the identity: so
        all are factored alike.
        """
        n_features = observed.shape[1]
        both = (observed[:, :, None] & observed[:, None, :])[:, None]
        whole = np.where(both, covariances, 0.0)
        places = np.arange(n_features)
        if noise.ndim == 2:
            whole[:, :, places, places] += noise[:, None]
        else:
            whole += noise[:, None]
        whole[:, :, places, places] += ~observed[:, None]
        lower = choleskys(whole.reshape(-1, n_features, n_features))
        white = triangle_inverses(lower).reshape(whole.shape)
        half_log_det = np.log(np.diagonal(white, axis1=2, axis2=3)).sum(axis=2)
        return cls(white * both, half_log_det)

    def solved(self, away: Array, of: NDArray[np.intp]) -> tuple[Array, Array]:
        whitened = (self.white[of] @ away[..., None])[..., 0]
        density = self.half_log_det[of] - 0.5 * np.sum(whitened * whitened, axis=2)
        return density, (whitened[..., None, :] @ self.white[of])[..., 0, :]

    def inverse_sums(self, features: Features, weights: Array) -> Array:
        roots = np.sqrt(weights).T[:, :, None, None]
        tall = (self.white * roots).swapaxes(0, 1)
        tall = tall.reshape(len(tall), -1, tall.shape[3])  # the factors of a component stacked
        return features.of_matrices(tall.swapaxes(1, 2) @ tall)
