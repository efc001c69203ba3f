"""What splitting a component brings: EM with two components on some of its rows alone.

It is done for all components at once, from three cuts: along the longest axis, along the axis of
lowest kurtosis (where two clusters show), and between the inner and the outer rows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.init import pieces
from dgmm.em.sample import Sample
from dgmm.em.subsamples import Subsample
from dgmm.kernels.kernel import log_sum_exp
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.matrices import choleskys
from dgmm.model.mixture import Mixture

MOST_HELD: Final = 1 << 26
"""Numbers that splits may hold."""

SOME: Final = 0.02
"""Rows of a smaller share in a component tell nothing of it."""

EACH: Final = 400
"""Rows of each component that show how it splits: so many, or 16 (D + 1) if that is more."""

TOGETHER: Final = 1 << 20
"""Numbers in the rows of components that are split at a time."""

STEPS: Final = 8
"""EM steps with two components."""


@dataclass(frozen=True)
class Halves:
    """Two components in the place of one: weights (2,), means (2, D), covariances (2, D, D)."""

    weights: Array
    means: Array
    covariances: Array


Split = tuple[float, int, Halves]
"""By how much a split may raise the objective, of which component, and into what."""


def splits_of(subsample: Subsample, mixture: Mixture, live: NDArray[np.intp]) -> list[Split]:
    """What splitting each of the ``live`` components brings, and into what."""
    n_features, dense = mixture.n_features, mixture.covariances.dense()
    scale = _spread(mixture, dense)
    values, axes = np.linalg.eigh(dense / scale[:, None] / scale)
    size = np.sqrt(np.maximum(values, 1e-300))[:, None, :]
    roots, whiten = scale[:, None] * axes * size, axes / size / scale[:, None]
    most = _most(n_features)
    sample = subsample.sample.first(min(len(subsample.sample.keys), 3 * most * mixture.components))
    places, responsibilities = _members(subsample, sample, mixture, most)
    splits, chosen = list[Split](), live[responsibilities.sum(axis=1)[live] > 2 * n_features + 8]
    most = places.shape[1]
    step = max(1, TOGETHER // (max(most, 1) * n_features))
    for first in range(0, len(chosen), step):
        some = chosen[first : first + step]
        rows = sample.rows[places[some].ravel()]
        x = subsample.context.frame.rows(rows, np.empty(rows.shape[::-1])).T
        whitened = (x.reshape(len(some), most, n_features) - mixture.means[some, None]) @ whiten[
            some
        ]
        whitened[responsibilities[some] == 0] = 0.0
        splits += _split(mixture, some, whitened, responsibilities[some], roots)
    return splits


def _most(n_features: int) -> int:
    """How many rows of a component show how it splits."""
    return max(EACH, 16 * (n_features + 1))


def _spread(mixture: Mixture, dense: Array) -> Array:
    """The features' standard deviations (D,): axes must not depend on units.

    1 where the covariance model has one unit.
    """
    weights = mixture.own_weights
    away = mixture.means - weights @ mixture.means
    spread: Array = np.sqrt(weights @ (np.diagonal(dense, 0, 1, 2) + away**2))
    return mixture.covariance_model.scales(spread, 1.0)


def _split(
    mixture: Mixture, chosen: NDArray[np.intp], rows: Array, responsibilities: Array, roots: Array
) -> list[Split]:
    """The same for those ``chosen`` (B,), whose ``rows`` (B, m, D) have unit variances.

    Times ``roots`` (K, D, D) they are differences from means.
    """
    n_features, covariance_model = mixture.n_features, mixture.covariance_model
    heavy = responsibilities.sum(axis=1)
    middle = (responsibilities[:, None] @ rows)[:, 0] / heavy[:, None]
    rows = rows - middle[:, None]
    alone = (rows * responsibilities[:, :, None]).swapaxes(1, 2) @ rows / heavy[:, None, None]
    alone = covariance_model.kept(alone) + 1e-9 * np.eye(n_features)
    level = -0.5 * np.linalg.slogdet(alone)[1] - 0.5 * n_features
    halves = [
        _halved(covariance_model, rows, responsibilities, cut)
        for cut in _cuts(rows, responsibilities, heavy)
    ]
    which = np.argmax([each.level for each in halves], axis=0)
    penalty = 0.5 * (n_features + 1 + covariance_model.own_parameters(n_features))
    splits: list[Split] = []
    for at, (k, best) in enumerate(zip(chosen.tolist(), which.tolist(), strict=True)):
        two = halves[best]
        gain = (two.level[at] - level[at] - 0.5 * penalty / heavy[at]) * mixture.weights[k]
        if np.isfinite(gain):
            means = mixture.means[k] + (middle[at] + two.means[at]) @ roots[k].T
            covariances = roots[k] @ two.covariances[at] @ roots[k].T
            splits.append((float(gain), k, Halves(two.weights[at], means, covariances)))
    return splits


def _members(
    subsample: Subsample, sample: Sample, mixture: Mixture, most: int
) -> tuple[NDArray[np.intp], Array]:
    """Places (K, m) of rows of each component, and its shares (K, m) in them; 0 for none.

    Weights are seen beside their mean, for rows are counted here.
    """
    count, weights = mixture.components, sample.weights / sample.weights.mean()
    places, responsibilities = np.zeros((count, most), np.intp), np.zeros((count, most))
    filled = np.zeros(count, np.int64)
    for chosen in pieces(len(sample.rows), count):
        part = sample.rows[chosen]
        x = subsample.context.frame.rows(part, np.empty(part.shape[::-1]))
        of_part = log_sum_exp(mixture.log_joints(x))[1]
        for k in np.flatnonzero(filled < most).tolist():
            some = np.flatnonzero(of_part[k] > SOME)[: most - filled[k]]
            put = slice(filled[k], filled[k] + len(some))
            places[k, put] = chosen.start + some
            responsibilities[k, put] = of_part[k, some] * weights[chosen][some]
            filled[k] = put.stop
    most = int(filled.max())
    return places[:, :most], responsibilities[:, :most]


def _cuts(rows: Array, responsibilities: Array, heavy: Array) -> list[NDArray[np.bool_]]:
    """Ways to cut ``rows`` (B, m, D) in two, each (B, m); the last axis is the longest."""
    divisions = [rows[:, :, -1] > 0]
    squares = rows * rows
    if rows.shape[2] > 1:
        second = (responsibilities[:, None] @ squares)[:, 0] / heavy[:, None]
        fourth = (responsibilities[:, None] @ (squares * squares))[:, 0] / heavy[:, None]
        axis = (fourth / np.maximum(second, 1e-12) ** 2).argmin(axis=1)
        divisions.append(np.take_along_axis(rows, axis[:, None, None], 2)[:, :, 0] > 0)
    size = squares.sum(axis=2)
    ordered = np.sort(np.where(responsibilities > 0, size, np.inf), axis=1)
    half = np.count_nonzero(responsibilities, axis=1) // 2
    divisions.append(size > np.take_along_axis(ordered, half[:, None], 1))
    return divisions


@dataclass(frozen=True)
class _Halved:
    """For each of B components: log-likelihood (B,), weights (B, 2), means, covariances."""

    level: Array
    weights: Array
    means: Array
    covariances: Array


def _halved(
    covariance_model: CovarianceModel, rows: Array, responsibilities: Array, cut: NDArray[np.bool_]
) -> _Halved:
    """EM with two components on ``rows`` (B, m, D), which have unit variances, from a ``cut``.

    As if (D + 1) / 2 rows more of each half had unit variances: few rows look flatter than they
    are.
    """
    count, _, n_features = rows.shape
    more = 0.5 * (n_features + 1)
    total = responsibilities.sum(axis=1)
    shares = np.stack([cut, ~cut], axis=1) * responsibilities[:, None]
    enough = np.ones(count, bool)
    for _ in range(STEPS):
        heavy = shares.sum(axis=2)
        enough &= heavy.min(axis=1) >= n_features + 2
        heavy = np.maximum(heavy, 1e-9)
        means = shares @ rows / heavy[:, :, None]
        away = rows[:, None] - means[:, :, None]
        scatter = (away * shares[..., None]).swapaxes(2, 3) @ away
        full = (scatter + more * np.eye(n_features)) / (heavy + more)[..., None, None]
        covariances = np.broadcast_to(covariance_model.pooled(heavy, full), full.shape)
        lower = choleskys(covariances)  # some may be singular but for rounding
        white = away @ np.linalg.inv(lower).swapaxes(2, 3)
        volume = np.log(np.diagonal(lower, axis1=2, axis2=3)).sum(axis=2)
        joint = np.log(heavy / total[:, None]) - volume
        joint = joint[:, :, None] - 0.5 * np.einsum("bkmd,bkmd->bkm", white, white)
        top = joint.max(axis=1)
        joint = np.exp(joint - top[:, None])
        norm = joint.sum(axis=1)
        level = ((top + np.log(norm)) * responsibilities).sum(axis=1) / total
        shares = joint * (responsibilities / norm)[:, None]
    weights = heavy / heavy.sum(axis=1, keepdims=True)
    level = np.where(enough & np.isfinite(level), level, -np.inf)
    return _Halved(level, weights, means, covariances)


def nbytes(components: int, n_features: int) -> int:
    """What a round takes at most, for splits; nothing where it is not ``affordable``."""
    return 8 * _numbers(components, n_features) * affordable(components, n_features)


def _numbers(components: int, n_features: int) -> int:
    """How many numbers a round holds at most, for splits."""
    rows = components * _most(n_features)
    dense = 4 * components * n_features * n_features
    return (
        2 * rows
        + dense
        + 16 * max(_most(n_features) * n_features, min(rows * n_features, TOGETHER))
    )


def affordable(components: int, n_features: int) -> bool:
    """Whether that is little enough: of thousands of features it is not."""
    return _numbers(components, n_features) <= MOST_HELD
