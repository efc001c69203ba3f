"""Starts where rows are few: many of several kinds go on side by side, and the best sound one wins.

The likelihood of a few hundred rows has dozens of optima, and no kind of start leads to the best of
them everywhere; but each is cheap.  So there are hundreds.  Some are the trees of hierarchical
clustering, cut (as mclust begins: Fraley and Raftery, How many clusters? Which clustering method?,
1998; agglomeration.py), equal parts along the longest axis, and k-means; most are rows given to the
nearest of K seeds, drawn at random or as k-means++ draws them.  Half of each kind see features of
spread 1, half principal components of spread 1.

**The tournament.**  All run EM, the worse leave, the rest run on, and so on (emEM of Biernacki,
Celeux and Govaert, 2003); the last few go to their ends by SQUAREM.  Until then EM is in plain
NumPy, for all starts at once: what a sweep over a few hundred rows costs is mostly being called.

**Sound ends.**  Where components collapse onto few rows, or onto rows that are tied, the likelihood
has no bound, and the best of many starts would be the one that found that first.  So an end is
*sound* only if none of its components is empty or singular but for ``reg_covar`` (evaluate.py).
A component of hardly more rows than features can be as thin as one likes without being singular:
the spurious optima that many starts find in rows without any clusters (McLachlan and Peel, Finite
mixture models, 2000, section 3.10).  So an end is *full* only if its components all have more
than twice as many rows as features, or as many as parameters of their own.  Either is worth
``WORTH`` in the objective: more than a few rows can bring, and less than a column that tells the
clusters apart, with one value in each, does.

**Noise.**  Where there is a noise component, each start leaves out the most isolated rows: one of
the shares of them that noise may begin with (isolation.py).

**Units.**  Starts see rows exactly standardised, and rounded far above rounding: the same numbers
whatever the units of the features, and so the same start.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from dgmm.em.agglomeration import agglomerated, group_count
from dgmm.em.degenerate import ALONE, unbounded
from dgmm.em.init import Drawn, Random, mixture_of, one_thread, standard, standardised
from dgmm.em.isolation import isolated, isolation
from dgmm.em.solver import RunState, StopRule
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.kernels.natural_parameters import LOWEST
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.full import FULL
from dgmm.model.lazy import Late
from dgmm.model.matrices import flat_directions
from dgmm.model.mixture import Mixture

cluster = Late("sklearn.cluster")

STARTS: Final = 256
"""How many starts there are at most, unless more are asked for."""

EACH: Final = 64
"""How many there are for each component but the first, where they are cheap."""

STILL: Final = 1e-3
"""A sweep that brings no mixture more than this part of the resolution is the last."""

LEAST: Final = 24
"""How many there must be: with fewer, a race on a sample is the better use of the time.

Eleven at most are not drawn."""

WORK: Final = 5e7
"""How many densities of about ten features all may cost: a third of a second."""

SWEEPS: Final = (12, 40, 120)
"""Of all, of a quarter, and of ``FEW``."""

FEW: Final = 8

ITERATIONS: Final = 300
"""Of a finalist, at most."""

FINALISTS: Final = 3
"""How many, of different objectives, go to their ends."""

TREE_ROWS: Final = 1000
"""How many rows hierarchical clustering sees: its costs grow as their square."""

LINKAGES: Final = ("ward", "average", "complete")
PLAIN: Final = 3
"""With more features than that there are trees by determinants, too (agglomeration.py)."""

KMEANS: Final = 2
"""Runs of k-means on each view of the rows."""

CAUTION: Final = 4
"""For how many sweeps covariances are drawn together, as in ``seeding.cautious``."""

WORTH: Final = 5.0
"""How many nats a row it is worth to be sound, or full."""

SINGULAR: Final = 1e-10
"""A variance below this, without ``reg_covar``, where the features' is 1, is none."""

AMPLE: Final = 9
"""Rows are enough for a component if they are so many, and more than twice the features.

Or as many as its own parameters, where these are fewer: as they are with up to three features."""

LOST: Final = 1e-6
"""Components of fewer rows are empty."""

TOGETHER: Final = 1 << 18
"""Log-densities in memory at a time."""

FEATURES: Final = FULL.features
"""Of the sums: covariance models differ only in what is made of them."""

Labels = NDArray[np.int64]
"""The component (n,) that each row belongs to; -1 for none."""


def affordable(components: int, rows: int, n_features: int) -> int:
    """How many starts so many rows are cheap enough for; 0 if for too few to be of use."""
    if components == 1:
        return 0
    sweep = components * (rows * (FEATURES.width(n_features) + 16) / 32 + 2 * n_features**3)
    count = int((WORK / sweep - SWEEPS[2] * FEW) / (SWEEPS[0] + SWEEPS[1] / 4))
    return min(count, STARTS, EACH * (components - 1)) if count >= LEAST else 0


def scouted(
    subsample: Subsample, components: int, count: int, random: Random
) -> tuple[RunState, int]:
    """The best end of so many starts on a ``subsample``, and how many different ones were met."""
    with one_thread():
        field = _Field.of(subsample)
        labels, shares = field.without_isolated(_labels(field, components, count, random))
        many = _labelled(field, labels, components, shares)
        many = _run(field, many, CAUTION, field.rows.shape[1])
        many = _run(field, many, SWEEPS[0] - CAUTION)
        many = _run(field, _best(field, many, count // 4), SWEEPS[1])
        many = _ended(field, _best(field, many))
        resolution = field.resolution(components)
        different = _different(many.objective, resolution / 10)
        starts = _next(field, many.at(np.array(different)))
    stop = StopRule(ITERATIONS, target=resolution / 100)
    # Where single precision is left depends on its bound, and that on the units.
    exact = replace(subsample.context, precision="float64")
    finalists = [Squarem().init(exact, start, stop) for start in starts]
    ends: list[RunState] = []
    for first in range(0, len(finalists), FINALISTS):  # more than the first few if none is sound
        ends += subsample.refine(finalists[first : first + FINALISTS])
        best = max(ends, key=lambda run: _worth(field, run))
        if _is_sound(best) and field.are_full(best.best.mixture.weights):
            break
    return best, len(different)


def _ended(field: "_Field", many: "_Many") -> "_Many":
    """The best few near their ends; the next few, as long as none of these is sound and full."""
    for first in range(0, len(many.objective), FEW):
        places = np.arange(first, min(first + FEW, len(many.objective)))
        few = _best(field, _run(field, many.at(places), SWEEPS[2]))
        if (_are_sound(field, few) & field.are_full(few.weights)).any():
            break
    return few


def _is_sound(run: RunState) -> bool:
    """Whether a run's end has no component that is empty or has a likelihood without a bound."""
    return not run.best.empty and not unbounded(run.best, run.context)


def _worth(field: "_Field", run: RunState) -> float:
    """What runs go by at their ends: the objective, and the worth of being sound and full."""
    full = bool(field.are_full(run.best.mixture.weights))
    return run.best.objective + WORTH * (_is_sound(run) + full)


@dataclass(frozen=True)
class _Field:
    """Rows for EM with many mixtures at once, in the ``standard`` frame.

    Attributes
    ----------
    subsample : Subsample
    rows, weights : (n, D), (n,)
    features : (P, n)
        T(x) in ``FEATURES``.
    reg : (D,)
        The context's.
    flat : (D, D)
        Projects on directions in which no rows have spread.
    noise : float or None
        The log-density of noise, if there is a noise component.
    isolated : (m, n)
        Which rows are left out for each share of them that may be noise.
    shares : (m,)
        The weights that noise has then.
    """

    subsample: Subsample
    rows: Array
    weights: Array
    features: Array
    reg: Array
    flat: Array
    noise: float | None = None
    isolated: NDArray[np.bool_] | None = None
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, subsample: Subsample) -> Self:
        """The rows of a ``subsample``."""
        sample, context = subsample.sample, subsample.context
        frame = standard(sample.rows, context.model.covariance_model)
        rows = standardised(sample.rows, frame)
        features = FEATURES.of(rows.T, np.empty((FEATURES.width(rows.shape[1]), len(rows))))
        reg = context.model.prior.reg * (context.frame.scale / frame.scale) ** 2
        total = np.cov(rows.T, aweights=sample.weights, ddof=0).reshape(len(reg), len(reg))
        least = np.maximum(ALONE * reg, SINGULAR)
        flat = np.linalg.qr(flat_directions(context.model.covariance_model.kept(total), least))[0]
        field = cls(subsample, rows, sample.weights, features, reg, flat @ flat.T)
        if (noise := context.model.noise_component) is None:
            return field
        units = float(np.log(context.frame.scale / frame.scale).sum())
        away = isolation(sample.rows, context.model.covariance_model)
        gone = [isolated(away, sample.weights, each, 1) for each in context.left_out]
        return replace(
            field,
            noise=noise.log_density - units,
            isolated=np.array(gone),
            shares=context.left_out,
        )

    def without_isolated(self, labels: Labels) -> tuple[Labels, Array]:
        """The ``labels`` (S, n) without isolated rows, and the weights (S,) that noise begins with.

        Starts have the shares of what may be noise by turns.
        """
        if self.isolated is None:
            return labels, np.zeros(len(labels))
        turn = np.arange(len(labels)) % len(self.shares)
        return np.where(self.isolated[turn], -1, labels), np.array(self.shares)[turn]

    @property
    def covariance_model(self) -> CovarianceModel:
        """Of the mixtures."""
        return self.subsample.context.model.covariance_model

    def are_full(self, weights: Array) -> NDArray[np.bool_]:
        """Whether all components, by their ``weights`` (..., K), have rows enough."""
        n_features = self.rows.shape[1]
        own = n_features + self.covariance_model.own_parameters(n_features)
        own = min(own, max(2 * n_features + 1, AMPLE))
        enough: NDArray[np.bool_] = weights.min(axis=-1) * len(self.rows) > own - 0.5
        return enough

    def resolution(self, components: int) -> float:
        """p / (2 n)."""
        rows, n_features = self.rows.shape
        covariances = self.covariance_model.free_parameters(components, n_features)
        free = covariances + components * (n_features + 1) - 1 + (self.noise is not None)
        return float(free / (2 * rows))


@dataclass(frozen=True)
class _Many:
    """S mixtures of K components, in the ``standard`` frame.

    Attributes
    ----------
    weights, means : (S, K), (S, K, D)
    covariances : (S, K, D, D) or (S, 1, D, D)
        Without ``reg``.
    objective : (S,)
        Of the mixtures that they came from.
    noise : (S,)
        The weights of noise; 0 if there is no noise component.
    """

    weights: Array
    means: Array
    covariances: Array
    objective: Array
    noise: Array

    def at(self, places: NDArray[np.intp]) -> Self:
        """Those at ``places``."""
        return replace(
            self, **{each.name: getattr(self, each.name)[places] for each in fields(self)}
        )


def _m_step(field: _Field, sums: Array, objective: Array, noise: Array) -> _Many:
    """From ``sums`` (S, K, P), where the weight of ``noise`` (S,) was found, too.

    Not by ``Model.m_step``, nor E-steps by ``evaluate``: calls for each of so many starts would
    take most of the time.
    """
    count, components, width = sums.shape
    n_features = field.rows.shape[1]
    counts = np.maximum(sums[:, :, 0], 1e-12 * field.weights.sum())
    means = sums[:, :, 1 : 1 + n_features] / counts[:, :, None]
    flat, second = (
        means.reshape(-1, n_features),
        sums[:, :, 1 + n_features :].reshape(-1, width - 1 - n_features),
    )
    full = FULL.estimate(counts.ravel(), flat, flat, second, None).values
    pooled = field.covariance_model.pooled(
        counts, full.reshape(count, components, n_features, n_features)
    )
    whole = counts.sum(axis=1, keepdims=True) + noise[:, None]
    return _Many(counts / whole, means, pooled, objective, noise / whole[:, 0])


def _groups(count: int, size: int) -> Iterator[slice]:
    """So many starts in groups, where each has arrays of this ``size``."""
    some = max(1, TOGETHER // size)
    return (slice(start, min(start + some, count)) for start in range(0, count, some))


def _labelled(field: _Field, labels: NDArray[np.int64], components: int, shares: Array) -> _Many:
    """The mixtures where each row belongs to the component that its label (S, n) names.

    Noise has ``shares`` (S,) of all.
    """
    every = np.arange(components)[:, None]
    sums = [
        ((labels[some, None] == every) * field.weights) @ field.features.T
        for some in _groups(len(labels), components * len(field.rows))
    ]
    found = np.concatenate(sums)
    noise = found[:, :, 0].sum(axis=1) * shares / (1 - shares)
    return _m_step(field, found, np.full(len(labels), -np.inf), noise)


def _natural(field: _Field, many: _Many) -> Array:
    """eta (S, K, P), less penalties: see ``Covariances.natural``; that of noise is last."""
    (count, components), n_features = many.weights.shape, field.rows.shape[1]
    covariances = field.covariance_model.kept(many.covariances + np.diag(field.reg))
    values, vectors = np.linalg.eigh(covariances)
    # Sums of squares about 0 say nothing of a variance that is as small as their rounding.
    values = np.maximum(values, 1e-14 * _rounded(many)[:, :, None])
    precisions = (vectors / values[..., None, :]) @ vectors.swapaxes(2, 3)
    penalty = 0.5 * np.diagonal(precisions, axis1=2, axis2=3) @ field.reg
    half_log_det = -0.5 * np.log(values).sum(axis=2)
    linear = (precisions @ many.means[..., None])[..., 0]
    square = 0.5 * np.sum(many.means * linear, axis=2)
    constants = np.log(many.weights) - 0.5 * n_features * np.log(2 * np.pi)
    rows, columns = np.triu_indices(n_features)
    eta = np.empty((count, components, FEATURES.width(n_features)))
    eta[:, :, 0] = np.maximum(constants + half_log_det - penalty - square, LOWEST[0])
    eta[:, :, 1 : 1 + n_features] = linear
    eta[:, :, 1 + n_features :] = precisions[..., rows, columns] * np.where(
        rows == columns, -0.5, -1.0
    )
    if field.noise is None:
        return eta
    even = np.zeros((count, 1, eta.shape[2]))
    even[:, 0, 0] = np.log(np.maximum(many.noise, np.finfo(np.float64).tiny)) + field.noise
    return np.concatenate([eta, even], axis=1)


def _shared(field: _Field, eta: Array) -> tuple[Array, Array]:
    """Responsibilities (S, K, n) under ``eta`` (S, K, P), and objectives (S,)."""
    joint = eta @ field.features
    top = joint.max(axis=1)
    joint -= top[:, None]
    np.exp(joint, out=joint)
    norm = joint.sum(axis=1)
    joint /= norm[:, None]
    return joint, (top + np.log(norm)) @ field.weights / field.weights.sum()


def _stepped(field: _Field, many: _Many, drawn: int = 0) -> _Many:
    """One EM step further; from covariances ``drawn`` towards their mean by so many rows."""
    if drawn:
        weights = many.weights[:, :, None, None]
        if field.noise is not None:
            weights = weights / weights.sum(axis=1, keepdims=True)
        mean = (weights * many.covariances).sum(axis=1, keepdims=True)
        seen = len(field.rows) * weights
        mixed = (seen * many.covariances + drawn * mean) / (seen + drawn)
        many = replace(many, covariances=mixed)
    eta = _natural(field, many)
    sums, objective = np.empty_like(eta), np.empty(len(eta))
    for some in _groups(len(eta), eta.shape[1] * len(field.rows)):
        responsibilities, objective[some] = _shared(field, eta[some])
        responsibilities *= field.weights
        sums[some] = responsibilities @ field.features.T
    count = many.weights.shape[1]
    return _m_step(field, sums[:, :count], objective, sums[:, count:, 0].sum(axis=1))


def _next(field: _Field, many: _Many) -> list[Mixture]:
    """What comes after each of ``many``, in the context's frame."""
    mixtures, count, context = [], many.weights.shape[1], field.subsample.context
    for eta in _natural(field, many):
        (responsibilities,), _ = _shared(field, eta[None])
        drawn = Drawn(iter([(slice(0, len(field.rows)), responsibilities[:count])]))
        found = mixture_of(field.subsample.sample, context, drawn, count)
        noise = responsibilities[count:].sum(axis=0) @ field.weights / field.weights.sum()
        mixtures.append(context.model.begun(found, float(noise)))
    return mixtures


def _run(field: _Field, many: _Many, sweeps: int, drawn: int = 0) -> _Many:
    """So many EM steps further, or until none gains."""
    least = STILL * field.resolution(many.means.shape[1])
    for _ in range(sweeps):
        before, many = many.objective, _stepped(field, many, drawn)
        field.subsample.cost.densities += many.weights.size * len(field.rows)
        if np.abs(many.objective - before).max() < least:
            break
    return many


def _best(field: _Field, many: _Many, most: int | None = None) -> _Many:
    """The best, and so many at most: by their objectives, and what it is worth to be sound."""
    worth = WORTH * (_are_sound(field, many) + field.are_full(many.weights).astype(np.float64))
    return many.at(np.argsort(-(many.objective + worth), kind="stable")[:most])


def _are_sound(field: _Field, many: _Many) -> NDArray[np.bool_]:
    """Which of ``many`` have no component that is empty or singular, (S,)."""
    spread = many.covariances - ALONE * np.diag(field.reg)
    bare = np.linalg.eigvalsh(spread + 2 * field.flat)[:, :, 0]
    sound = (bare > SINGULAR * _rounded(many)).all(axis=1)
    kept: NDArray[np.bool_] = sound & (many.weights.min(axis=1) * len(field.rows) > LOST)
    return kept


def _rounded(many: _Many) -> Array:
    """To what rounding of their sums about 0 is in proportion in variances, (S, 1)."""
    sums: Array = 1 + np.sum(many.means**2, axis=2).max(axis=1, keepdims=True)
    return sums


def _different(objectives: Array, apart: float) -> list[int]:
    """The places of objectives (S,) that are not within ``apart`` of an earlier one."""
    kept: list[int] = []
    for place, each in enumerate(objectives):
        if all(abs(each - objectives[other]) > apart for other in kept):
            kept.append(place)
    return kept


def _labels(field: _Field, components: int, count: int, random: Random) -> NDArray[np.int64]:
    """The labels (S, n) of so many starts of all kinds."""
    views = _views(field.rows)
    found = [_parts(views[-1], components)]
    found += [labels for view in views for labels in _trees(view, components, random)]
    found += [labels for view in views for labels in _clusters(field, view, components, random)]
    each = -(-(count - len(found)) // (2 * len(views)))
    draws = [
        _seeded(field, view, components, spread, each, random)
        for view in views
        for spread in (False, True)
    ]
    return np.concatenate([np.stack(found), *draws])[:count]


def _views(rows: Array) -> list[Array]:
    """The rows, and their principal components of variance 1, the longest last."""
    away = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(away.T @ away / len(rows))
    some = values > 1e-8 * values[-1]
    if rows.shape[1] == 1 or not some.any():
        return [rows]
    return [rows, away @ (vectors[:, some] / np.sqrt(values[some]))]


def _parts(view: Array, components: int) -> Labels:
    """Parts of as many rows each along the last axis."""
    rank = np.empty(len(view), np.int64)
    rank[np.argsort(view[:, -1], kind="stable")] = np.arange(len(view))
    return rank * components // len(view)


def _trees(view: Array, components: int, random: Random) -> Iterator[Labels]:
    """Trees of rows, cut; rows beyond ``TREE_ROWS`` drawn belong nowhere."""
    some = np.arange(len(view))
    if len(view) > TREE_ROWS:
        some = np.sort(random.choice(len(view), TREE_ROWS, replace=False))
    distances = pdist(view[some])
    for method in LINKAGES:
        labels = np.full(len(view), -1)
        labels[some] = fcluster(linkage(distances, method), components, "maxclust") - 1
        yield labels
    n_features = view.shape[1]
    if n_features > PLAIN:
        labels = np.full(len(view), -1)
        count = group_count(components, n_features)
        groups = fcluster(linkage(distances, "ward"), count, "maxclust") - 1
        labels[some] = agglomerated(view[some], groups.astype(np.int64), components)
        yield labels


def _clusters(field: _Field, view: Array, components: int, random: Random) -> Iterator[Labels]:
    """By k-means."""
    for _ in range(KMEANS):
        kmeans = cluster.KMeans(components, n_init=1, random_state=random)
        yield kmeans.fit(view, sample_weight=field.weights).labels_.astype(np.int64)


def _seeded(
    field: _Field, view: Array, components: int, spread: bool, count: int, random: Random
) -> NDArray[np.int64]:
    """Labels (S, n) of the nearest of K seeds, drawn at random, or ``spread`` as by k-means++."""
    starts = np.arange(count)
    labels = np.zeros((count, len(view)), np.int64)
    near = np.ones((count, len(view)))
    size = np.sum(view**2, axis=1)
    for k in range(components):
        sums = np.cumsum((near if spread else 1.0) * field.weights * np.ones_like(near), axis=1)
        drawn = random.uniform(size=count) * sums[:, -1]
        seeds = np.minimum((sums <= drawn[:, None]).sum(axis=1), len(view) - 1)
        away = np.maximum(size + size[seeds, None] - 2 * view[seeds] @ view.T, 0.0)
        away[starts, seeds] = 0.0
        closer = away < near if k else np.ones_like(away, bool)
        labels[closer], near = k, np.where(closer, away, near)
    return labels
