"""The observed information of a sample of rows, in the coordinates of squarem.py.

By Louis (Finding the observed information matrix when using the EM algorithm, 1982): with s_k the
score of one row's complete data if it came from component k, r_k its responsibility, and s the mean
of s_k by r_k,

    I = I_c - E[sum_k r_k s_k s_k'] + E[s s']

and I_c, the information of the complete data, is the identity in these coordinates at an M-step's
end.  Where rows say little, an eigenvalue is near 0, and EM needs one over it iterations there.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.em.sample import Sample
from dgmm.kernels.kernel import log_sum_exp
from dgmm.kernels.labels import allowed
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

PART: Final = 1 << 21
"""Scores in memory at a time."""


def is_known(covariance_model: CovarianceModel, n_features: int) -> bool:
    """Whether mixtures of such covariances have an ``Information``."""
    return covariance_model.scores(np.zeros((n_features, 1))) is not None


def _scores(mixture: Mixture, white: Array) -> Array:
    scores = mixture.covariance_model.scores(white)
    assert scores is not None
    return scores


def _of_rows(mixture: Mixture, x: Array, width: int) -> tuple[Array, Array]:
    """Complete-data scores (K, width, n) of rows ``x`` (D, n), and log joints, noise's the last.

    A component's scores begin with that of its weight, and those of its mean.
    """
    count, n_features = mixture.means.shape
    scores = np.empty((count, width, x.shape[1]))
    joint = np.empty((len(mixture.all_weights), x.shape[1]))
    for k in range(count):
        white = mixture.covariances.whiten(k, x - mixture.means[k][:, None])
        scores[k, 0] = 1.0
        scores[k, 1 : 1 + n_features] = white
        scores[k, 1 + n_features :] = _scores(mixture, white)
        joint[k] = mixture.constants[k] - 0.5 * (white * white).sum(axis=0)
    if mixture.noise_component is not None:
        joint[count] = mixture.noise_component.log_joint
    return scores, joint


def _places(mixture: Mixture, width: int, size: int) -> NDArray[np.intp]:
    """Where coordinates stand in the sums over rows: all weights, all means, all covariances."""
    count, n_features = mixture.means.shape
    order = np.arange(count * width).reshape(count, width)
    parts = (
        order[:, 0],
        np.arange(count * width, size),
        order[:, 1 : 1 + n_features].ravel(),
        order[:, 1 + n_features :].ravel(),
    )
    return np.concatenate(parts)


@dataclass(frozen=True)
class Information:
    """The information at ``origin``: eigenvalues (M,) and eigenvectors (M, M)."""

    origin: Mixture
    values: Array
    vectors: Array

    @classmethod
    def of(cls, sample: Sample, frame: Frame, mixture: Mixture) -> Self:
        """Of the rows of a ``sample`` at a ``mixture`` for whose covariances it ``is_known``."""
        count, n_features = mixture.means.shape
        roots = np.sqrt(mixture.all_weights)
        safes = np.where(roots > 0, roots, 1.0)
        root, safe = roots[:count], safes[:count]
        width = 1 + n_features + len(_scores(mixture, np.zeros((n_features, 1))))
        size = count * width + len(roots) - count  # noise has a weight, and no more
        whole, blocks = np.zeros((size,) * 2), np.zeros((count, width, width))
        step = max(64, PART // (count * width))
        for start in range(0, len(sample.rows), step):
            rows, weights = sample.rows[start : start + step], sample.weights[start : start + step]
            x = frame.rows(rows, np.empty(rows.shape[::-1]))
            scores, joint = _of_rows(mixture, x, width)
            if sample.labels is not None:
                may = allowed(sample.labels[start : start + step], len(roots))
                joint[~may.T] = -np.inf
            every = log_sum_exp(joint)[1]
            responsibilities = every[:count]
            weighted = responsibilities * weights
            blocks += (scores * weighted[:, None]) @ scores.swapaxes(1, 2)
            scores *= (responsibilities / safe[:, None])[:, None]
            scores[:, 0] -= root[:, None]
            flat = scores.reshape(count * width, -1)
            if len(roots) > count:
                flat = np.vstack([flat, every[count:] / safes[count] - roots[count]])
            whole += (flat * weights) @ flat.T
        total = sample.weights.sum()
        whole /= total
        for k in range(count):
            inside = slice(k * width + 1, (k + 1) * width)
            part = blocks[k, 1:, 1:] / total / max(mixture.weights[k], 1e-300)
            whole[inside, inside] += np.eye(width - 1) - part
        places = _places(mixture, width, size)
        whole = whole[np.ix_(places, places)]
        # Only differences of log-weights count.
        whole[: len(roots), : len(roots)] += np.outer(roots, roots)
        values, vectors = np.linalg.eigh(whole)
        return cls(mixture, values, vectors)

    def solve(self, vector: Array, floor: float) -> Array:
        """The inverse times a ``vector`` (M,), with eigenvalues no nearer to 0 than ``floor``."""
        size = np.maximum(np.abs(self.values), floor)
        solved: Array = self.vectors @ ((self.vectors.T @ vector) / size)
        return solved
