"""What splitting a component brings: EM with two components on some of its rows alone.

It is done for all components at once, from three cuts: along the longest axis, along the axis of
lowest kurtosis (where two clusters show), and between the inner and the outer rows.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.init import pieces
from dgmm.em.sample import Sample
from dgmm.em.subsamples import Subsample
from dgmm.kernels.kernel import log_sum_exp
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import natural_form
from dgmm.model.full import FULL
from dgmm.model.matrices import choleskys, precision_products
from dgmm.model.mixture import Mixture
from dgmm.model.sharing import batches, shared_out

MOST_HELD: Final = 1 << 26
"""Numbers that splits may hold."""

SOME: Final = 0.02
"""Rows of a smaller share in a component tell nothing of it."""

EACH: Final = 400
"""Rows of each component that show how it splits: so many, or 16 (D + 1) if that is more."""

TOGETHER: Final = 1 << 20
PART: Final = 1 << 17
"""Numbers in the features of rows of components that are split at a time, by all threads and by
each."""

FEATURES: Final = FULL.features
"""Of the rows of a component, whatever the covariance model."""

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
    each = max(most, 1) * _width(n_features)

    def split(some: NDArray[np.intp]) -> list[Split]:
        rows = sample.rows[places[some].ravel()]
        x = subsample.context.frame.rows(rows, np.empty(rows.shape[::-1])).T
        away = x.reshape(len(some), most, n_features) - mixture.means[some, None]
        whitened = away @ whiten[some]
        whitened[responsibilities[some] == 0] = 0.0
        return _split(mixture, some, whitened, responsibilities[some], roots)

    for together in batches(len(chosen), TOGETHER // each):
        own = chosen[together]
        parts = [own[part] for part in batches(len(own), PART // each)]
        splits += chain.from_iterable(shared_out(split, parts, STEPS * len(own) * each))
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
    cuts = np.stack(_cuts(rows, responsibilities, heavy), axis=1)
    two = _halved(covariance_model, rows, responsibilities, cuts)
    which = two.level.argmax(axis=1).tolist()
    penalty = 0.5 * (n_features + 1 + covariance_model.own_parameters(n_features))
    splits: list[Split] = []
    for at, (k, best) in enumerate(zip(chosen.tolist(), which, strict=True)):
        gain = (two.level[at, best] - level[at] - 0.5 * penalty / heavy[at]) * mixture.weights[k]
        if np.isfinite(gain):
            means = mixture.means[k] + (middle[at] + two.means[at, best]) @ roots[k].T
            covariances = roots[k] @ two.covariances[at, best] @ roots[k].T
            splits.append((float(gain), k, Halves(two.weights[at, best], means, covariances)))
    return splits


def _members(
    subsample: Subsample, sample: Sample, mixture: Mixture, most: int
) -> tuple[NDArray[np.intp], Array]:
    """Places (K, m) of rows of each component, and its shares (K, m) in them; 0 for none.

    Weights are seen beside their mean, for rows are counted here.
    """
    count, weights = mixture.components, sample.weights / sample.weights.mean()

    def members(chosen: slice) -> list[tuple[NDArray[np.intp], Array]]:
        part = sample.rows[chosen]
        x = subsample.context.frame.rows(part, np.empty(part.shape[::-1]))
        found = []
        for shares in log_sum_exp(mixture.log_joints(x))[1][:count]:
            some = np.flatnonzero(shares > SOME)[:most]
            found.append((chosen.start + some, shares[some] * weights[chosen][some]))
        return found

    parts = list(pieces(len(sample.rows), count))
    numbers = len(sample.rows) * count * mixture.n_features
    by_part = shared_out(members, parts, numbers)
    places, responsibilities = np.zeros((count, most), np.intp), np.zeros((count, most))
    filled = 0
    for k, own in enumerate(zip(*by_part, strict=True)):
        place, share = (np.concatenate(each)[:most] for each in zip(*own, strict=True))
        places[k, : len(place)], responsibilities[k, : len(place)] = place, share
        filled = max(filled, len(place))
    return places[:, :filled], responsibilities[:, :filled]


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
    """For each of B components and C cuts: log-likelihood (B, C), weights (B, C, 2), and so on."""

    level: Array
    weights: Array
    means: Array
    covariances: Array


def _halved(
    covariance_model: CovarianceModel, rows: Array, responsibilities: Array, cuts: NDArray[np.bool_]
) -> _Halved:
    """EM with two components on ``rows`` (B, m, D), which have unit variances, from ``cuts``.

    These are (B, C, m).  As if (D + 1) / 2 rows more of each half had unit variances: few rows look
    flatter than they are.  So all is in products with the features of rows, exactly enough.
    """
    (count, ways, most), n_features = cuts.shape, rows.shape[2]
    more, total = 0.5 * (n_features + 1), responsibilities.sum(axis=1)[:, None, None]
    seen = np.empty((count, FEATURES.width(n_features), most))
    for each, out in zip(rows, seen, strict=True):
        FEATURES.of(each.T, out)
    shares = np.stack([cuts, ~cuts], axis=2) * responsibilities[:, None, None]
    enough = np.ones((count, ways), bool)
    for _ in range(STEPS):
        sums = shares.reshape(count, 2 * ways, most) @ seen.swapaxes(1, 2)
        sums = sums.reshape(count, ways, 2, -1)
        heavy = sums[..., 0]
        enough &= heavy.min(axis=2) >= n_features + 2
        heavy = np.maximum(heavy, 1e-9)
        means = sums[..., 1 : 1 + n_features] / heavy[..., None]
        covariances = _pooled(covariance_model, sums, heavy, means, more)
        lower = choleskys(covariances)  # some may be singular but for rounding
        inverse = np.linalg.inv(lower)
        precisions = inverse.swapaxes(1, 2) @ inverse
        volume = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        places = means.reshape(-1, n_features)
        linear = (precisions @ places[:, :, None])[:, :, 0]
        constants = np.log(heavy / total).ravel() - volume
        eta = natural_form(constants, places, linear, precision_products(precisions))
        joint = eta.reshape(count, 2 * ways, -1) @ seen
        joint = joint.reshape(count, ways, 2, most)
        norm, shares = np.logaddexp(joint[:, :, 0], joint[:, :, 1]), joint
        level = (norm * responsibilities[:, None]).sum(axis=2) / total[:, 0]
        shares -= norm[:, :, None]
        np.exp(shares, out=shares)
        shares *= responsibilities[:, None, None]
    weights = heavy / heavy.sum(axis=2, keepdims=True)
    level = np.where(enough & np.isfinite(level), level, -np.inf)
    shape = (count, ways, 2, n_features, n_features)
    return _Halved(level, weights, means, covariances.reshape(shape))


def _pooled(
    covariance_model: CovarianceModel, sums: Array, heavy: Array, means: Array, more: float
) -> Array:
    """The covariances (B C 2, D, D) that ``sums`` (B, C, 2, P) come to, about ``means``."""
    n_features = means.shape[-1]
    second = sums[..., 1 + n_features :].reshape(heavy.size, -1)
    scatter = FEATURES.matrices(second, n_features).reshape(*means.shape, n_features)
    scatter = scatter - heavy[..., None, None] * means[..., :, None] * means[..., None, :]
    full = (scatter + more * np.eye(n_features)) / (heavy + more)[..., None, None]
    pairs = heavy.reshape(-1, 2), full.reshape(-1, 2, n_features, n_features)
    shape = (heavy.size, n_features, n_features)
    return np.broadcast_to(covariance_model.pooled(*pairs), pairs[1].shape).reshape(shape)


def nbytes(components: int, n_features: int) -> int:
    """What a round takes at most, for splits; nothing where it is not ``affordable``."""
    return 8 * _numbers(components, n_features) * affordable(components, n_features)


def _width(n_features: int) -> int:
    """How many numbers of a row there are: its features, and what each cut makes of it."""
    return FEATURES.width(n_features) + 12


def _numbers(components: int, n_features: int) -> int:
    """How many numbers a round holds at most, for splits."""
    rows, width = components * _most(n_features), _width(n_features)
    dense = 4 * components * n_features * n_features
    return 2 * rows + dense + 4 * max(_most(n_features) * width, min(rows * width, TOGETHER))


def affordable(components: int, n_features: int) -> bool:
    """Whether that is little enough: of thousands of features it is not."""
    return _numbers(components, n_features) <= MOST_HELD
