"""EM for many mixtures at once, where rows are few.

What a sweep over a few hundred rows costs is mostly being called, so all mixtures are in the same
few calls: of NumPy, or of the compiled kernel where single precision will do.  Not by
``Model.m_step``, nor E-steps by ``evaluate``: calls for each of hundreds would take most of the
time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.em.degenerate import ALONE
from dgmm.em.init import Drawn, mixture_of, standard, standardised
from dgmm.em.isolation import isolated, isolation
from dgmm.em.labellings import Labels
from dgmm.em.subsamples import Subsample
from dgmm.kernels import choice, native
from dgmm.kernels.natural_parameters import LOWEST
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.full import FULL
from dgmm.model.matrices import choleskys, factors_along, flat_directions, triangle_inverses
from dgmm.model.mixture import Mixture

SINGULAR: Final = 1e-10
"""A variance below this, without ``reg_covar``, where the features' is 1, is none."""

STILL: Final = 1e-3
"""A sweep that brings no mixture more than this part of the resolution is the last."""

TOGETHER: Final = 1 << 18
"""Log-densities in memory at a time."""

FEATURES: Final = FULL.features
"""Of the sums: covariance models differ only in what is made of them."""


@dataclass(frozen=True)
class Field:
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

    def resolution(self, components: int) -> float:
        """p / (2 n)."""
        rows, n_features = self.rows.shape
        covariances = self.covariance_model.free_parameters(components, n_features)
        free = covariances + components * (n_features + 1) - 1 + (self.noise is not None)
        return float(free / (2 * rows))


@dataclass(frozen=True)
class Many:
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


def _m_step(field: Field, sums: Array, center: Array, objective: Array, noise: Array) -> Many:
    """From ``sums`` (S, K, P) about ``center`` (S, K, D), with the weight of ``noise`` (S,)."""
    count, components, width = sums.shape
    n_features = field.rows.shape[1]
    counts = np.maximum(sums[:, :, 0], 1e-12 * field.weights.sum())
    offsets = sums[:, :, 1 : 1 + n_features] / counts[:, :, None]
    flat, second = (
        offsets.reshape(-1, n_features),
        sums[:, :, 1 + n_features :].reshape(-1, width - 1 - n_features),
    )
    full = FULL.estimate(counts.ravel(), flat, flat, second, None).values
    pooled = field.covariance_model.pooled(
        counts, full.reshape(count, components, n_features, n_features)
    )
    whole = counts.sum(axis=1, keepdims=True) + noise[:, None]
    return Many(counts / whole, center + offsets, pooled, objective, noise / whole[:, 0])


def _groups(count: int, size: int) -> Iterator[slice]:
    """So many starts in groups, where each has arrays of this ``size``."""
    some = max(1, TOGETHER // size)
    return (slice(start, min(start + some, count)) for start in range(0, count, some))


def labelled(field: Field, labels: NDArray[np.int64], components: int, shares: Array) -> Many:
    """The mixtures where each row belongs to the component that its label (S, n) names.

    Noise has ``shares`` (S,) of all.
    """
    every = np.arange(components)[:, None]
    sums = [
        ((labels[some, None] == every) * field.weights) @ field.features.T
        for some in _groups(len(labels), components * len(field.rows))
    ]
    totals = np.concatenate(sums)
    noise = totals[:, :, 0].sum(axis=1) * shares / (1 - shares)
    center = np.zeros((len(labels), components, field.rows.shape[1]))
    return _m_step(field, totals, center, np.full(len(labels), -np.inf), noise)


def _factors(field: Field, many: Many) -> tuple[Array, Array]:
    """Factors (S, K, D, D) of precisions, and log-densities at means, less penalties, (S, K)."""
    (count, components), n_features = many.weights.shape, field.rows.shape[1]
    covariances = field.covariance_model.kept(many.covariances + np.diag(field.reg))
    # Sums of squares about 0 say nothing of a variance that is as small as their rounding.
    floor = 1e-14 * rounded(many)[:, :, None, None] * np.eye(n_features)
    covariances = (covariances + floor).reshape(-1, n_features, n_features)
    lower = choleskys(covariances)
    factors = np.ascontiguousarray(triangle_inverses(lower).swapaxes(1, 2))
    if len(lost := np.flatnonzero(~np.isfinite(factors).all(axis=(1, 2)))):
        values, vectors = np.linalg.eigh(covariances[lost])
        factors[lost] = factors_along(vectors, np.maximum(values, 1e-14))
    factors = factors.reshape(count, -1, n_features, n_features)
    penalty = 0.5 * np.sum(factors * factors, axis=3) @ field.reg
    half_log_det = np.log(np.diagonal(factors, axis1=2, axis2=3)).sum(axis=2)
    constants = np.log(many.weights) - 0.5 * n_features * np.log(2 * np.pi)
    shape = (count, components, n_features, n_features)
    return np.broadcast_to(factors, shape), constants + half_log_det - penalty


def _natural(field: Field, many: Many, factors: Array, constants: Array) -> Array:
    """eta (S, K, P), less penalties: see ``Covariances.natural``; that of noise is last."""
    (count, components), n_features = many.weights.shape, field.rows.shape[1]
    precisions = factors @ factors.swapaxes(2, 3)
    linear = (precisions @ many.means[..., None])[..., 0]
    square = 0.5 * np.sum(many.means * linear, axis=2)
    rows, columns = np.triu_indices(n_features)
    eta = np.empty((count, components, FEATURES.width(n_features)))
    eta[:, :, 0] = np.maximum(constants - square, LOWEST[0])
    eta[:, :, 1 : 1 + n_features] = linear
    eta[:, :, 1 + n_features :] = precisions[..., rows, columns] * np.where(
        rows == columns, -0.5, -1.0
    )
    if field.noise is None:
        return eta
    even = np.zeros((count, 1, eta.shape[2]))
    even[:, 0, 0] = _log_noise(field, many)
    return np.concatenate([eta, even], axis=1)


def _log_noise(field: Field, many: Many) -> Array:
    """The weighted log-density (S,) of noise."""
    log: Array = np.log(np.maximum(many.noise, np.finfo(np.float64).tiny)) + field.noise
    return log


def _shared(field: Field, eta: Array) -> tuple[Array, Array]:
    """Responsibilities (S, K, n) under ``eta`` (S, K, P), and objectives (S,)."""
    joint = eta @ field.features
    top = joint.max(axis=1)
    joint -= top[:, None]
    np.exp(joint, out=joint)
    norm = joint.sum(axis=1)
    joint /= norm[:, None]
    return joint, (top + np.log(norm)) @ field.weights / field.weights.sum()


def stepped(field: Field, many: Many, drawn: int = 0, rough: bool = False) -> Many:
    """One EM step further; from covariances ``drawn`` towards their mean by so many rows.

    A ``rough`` E-step is the compiled kernel's in single precision, where there is one.
    """
    if drawn:
        weights = many.weights[:, :, None, None]
        if field.noise is not None:
            weights = weights / weights.sum(axis=1, keepdims=True)
        mean = (weights * many.covariances).sum(axis=1, keepdims=True)
        counts = len(field.rows) * weights
        mixed = (counts * many.covariances + drawn * mean) / (counts + drawn)
        many = replace(many, covariances=mixed)
    e_step = _rough_e_step if rough and choice.preferred() == "native" else _e_step
    sums, center, objective = e_step(field, many)
    count = many.weights.shape[1]
    return _m_step(field, sums[:, :count], center, objective, sums[:, count:, 0].sum(axis=1))


def _e_step(field: Field, many: Many) -> tuple[Array, Array, Array]:
    """Sums (S, K, P), and of noise, about what (S, K, D); and objectives (S,)."""
    eta = _natural(field, many, *_factors(field, many))
    sums, objective = np.empty_like(eta), np.empty(len(eta))
    for some in _groups(len(eta), eta.shape[1] * len(field.rows)):
        responsibilities, objective[some] = _shared(field, eta[some])
        responsibilities *= field.weights
        sums[some] = responsibilities @ field.features.T
    return sums, np.zeros_like(many.means), objective


def _rough_e_step(field: Field, many: Many) -> tuple[Array, Array, Array]:
    """The same by the compiled kernel, in single precision."""
    factors, constants = _factors(field, many)
    means = many.means
    if field.noise is not None:  # as likely everywhere
        factors, means = (
            np.concatenate([each, np.zeros_like(each[:, :1])], axis=1) for each in (factors, means)
        )
        constants = np.concatenate([constants, _log_noise(field, many)[:, None]], axis=1)
    constants = np.maximum(constants, LOWEST[True])
    found = [
        native.e_steps(field.rows, field.weights, means[some], factors[some], constants[some])
        for some in _groups(len(means), means.shape[1] * len(field.rows))
    ]
    sums, objective = (np.concatenate(each) for each in zip(*found, strict=True))
    return sums, many.means, objective / field.weights.sum()


def following(field: Field, many: Many) -> list[Mixture]:
    """What comes after each of ``many``, in the context's frame."""
    mixtures, count, context = [], many.weights.shape[1], field.subsample.context
    for eta in _natural(field, many, *_factors(field, many)):
        (responsibilities,), _ = _shared(field, eta[None])
        whole = slice(0, len(field.rows))
        drawn = Drawn(iter([(whole, np.arange(count), responsibilities[:count])]))
        mixture = mixture_of(field.subsample.sample, context, drawn, count)
        noise = responsibilities[count:].sum(axis=0) @ field.weights / field.weights.sum()
        mixtures.append(context.model.begun(mixture, float(noise)))
    return mixtures


def advanced(field: Field, many: Many, sweeps: int, drawn: int = 0, rough: bool = False) -> Many:
    """So many EM steps further, or until none gains."""
    least = STILL * field.resolution(many.means.shape[1])
    for _ in range(sweeps):
        before, many = many.objective, stepped(field, many, drawn, rough)
        field.subsample.cost.densities += many.weights.size * len(field.rows)
        if np.abs(many.objective - before).max() < least:
            break
    return many


def rounded(many: Many) -> Array:
    """To what rounding of their sums about 0 is in proportion in variances, (S, 1)."""
    sums: Array = 1 + np.sum(many.means**2, axis=2).max(axis=1, keepdims=True)
    return sums
