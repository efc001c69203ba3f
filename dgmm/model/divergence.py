"""How far components are from each other: divergences of weighted normal distributions.

For weights p, q > 0 the Jeffreys divergence of p N_k and q N_l is the integral of their difference
times the logarithm of their ratio,

    (p - q) log(p / q) + p KL(N_k | N_l) + q KL(N_l | N_k)

It is at least 0, and 0 if the two are equal; units don't matter.  By the log-sum inequality, its
sum over pairs that match the components of two mixtures is an upper bound of the Jeffreys
divergence of the mixtures (Do, Fast approximation of Kullback-Leibler distance for dependence trees
and hidden Markov models, 2003): the best match is that of the least such bound.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture

optimize = Late("scipy.optimize")

LEAST: Final = 1e-12
"""A weight below this counts as this: that of an empty component is 0."""


def divergences(first: Mixture, second: Mixture) -> Array:
    """The divergences (K, L) of the components of ``first`` (K) from those of ``second`` (L)."""
    one, other = (np.maximum(each.weights, LEAST) for each in (first, second))
    ratio = np.log(one)[:, None] - np.log(other)
    total = (one[:, None] - other) * ratio
    total += one[:, None] * _relative(first, second) + other * _relative(second, first).T
    least: Array = np.maximum(total, 0.0)
    return least


def _relative(first: Mixture, second: Mixture) -> Array:
    """The relative entropies KL(N_k | N_l), (K, L), of the components of ``first``."""
    second_half = np.broadcast_to(second.covariances.half_log_det(), (second.components,))
    first_half = np.broadcast_to(first.covariances.half_log_det(), (first.components,))
    relative = np.empty((first.components, second.components))
    for j in range(second.components):
        each = second.covariances
        white = each.whiten(j, (first.means - second.means[j]).T)
        relative[:, j] = 0.5 * (_spreads(first, second, j) - first.n_features)
        relative[:, j] += 0.5 * np.sum(white * white, axis=0) + first_half - second_half[j]
    return relative


def _spreads(first: Mixture, second: Mixture, j: int) -> Array:
    """The traces (K,) of P S_k: S_k the covariances of ``first``, P the other's precision ``j``."""
    one, two = first.covariances, second.covariances
    features = np.arange(first.n_features)
    if one.alone(features) is not None and two.alone(features) is not None:
        precision = two.chosen(np.array([j]))
        return np.array([precision.trace(each)[0] for each in one.variances()])
    spreads = []
    for k in range(first.components):
        white = two.whiten(j, one.chosen(np.array([k])).dense()[0])
        spreads.append(np.trace(two.whiten(j, white.T)))
    return np.array(spreads)


def matched(costs: Array) -> NDArray[np.intp]:
    """The column to match with each row of ``costs`` (K, K), so that the sum of costs is least."""
    _, columns = optimize.linear_sum_assignment(costs)
    order: NDArray[np.intp] = columns
    return order
