"""EM a row at a time, in plain float64: what is known is held, and rows may have holes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.model.fixed import Fixed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """Weights (K,), means (K, D) and covariances (K, D, D); the weight of noise."""

    weights: Array
    means: Array
    covariances: Array
    noise: float = 0.0


@dataclass(frozen=True)
class Sums:
    """Over rows, weighted: r, r E[x], r E[xx'], the weight, and the objective with penalties.

    And what is noise.
    """

    counts: Array
    first: Array
    second: Array
    weight: float
    objective: float
    noise: float = 0.0


@dataclass(frozen=True)
class Pattern:
    """What components (K) say of rows that have the same values: (K,), (K, D, D)."""

    constants: Array
    inverses: Array
    gains: Array
    extra: Array

    @classmethod
    def of(cls, seen: NDArray[np.bool_], covariances: Array) -> "Pattern":
        """Of rows with the values ``seen`` (D,)."""
        inverses = np.zeros_like(covariances)
        o = np.ix_(seen, seen)
        for inverse, own in zip(inverses, covariances, strict=True):
            inverse[o] = np.linalg.inv(own[o])
        gains = covariances @ inverses
        log_det = [np.linalg.slogdet(2 * np.pi * own[o])[1] for own in covariances]
        extra = covariances - gains @ covariances
        extra[:, seen], extra[:, :, seen] = 0.0, 0.0
        return cls(-0.5 * np.array(log_det), inverses, gains, extra)


def sums_of(
    rows: Array,
    weights: Array,
    at: Parameters,
    penalty: Array,
    allowed: NDArray[np.bool_],
    log_density: float = -np.inf,
) -> Sums:
    """The E-step (Ghahramani and Jordan, 1994); each row may be of ``allowed`` (n, K) components.

    Noise has a ``log_density``; a row that may be of all components may be noise.
    Rows without any value count for nothing.
    """
    k, d = at.means.shape
    counts, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    objective = total = noise = 0.0
    known: dict[bytes, Pattern] = {}
    for row, weight, may in zip(rows, weights, allowed, strict=True):
        seen = ~np.isnan(row)
        if not seen.any() or weight == 0:
            continue
        if seen.tobytes() not in known:
            known[seen.tobytes()] = Pattern.of(seen, at.covariances)
        own = known[seen.tobytes()]
        away = np.where(seen, row - at.means, 0.0)
        joint = own.constants - penalty - 0.5 * np.einsum("ki,kij,kj->k", away, own.inverses, away)
        live = may & (at.weights > 0)
        joint[live] += np.log(at.weights[live])
        joint[~live] = -np.inf
        even = log_density + np.log(at.noise) if at.noise > 0 and may.all() else -np.inf
        norm = np.logaddexp.reduce([*joint, even])
        noise += weight * np.exp(even - norm)
        objective += weight * norm
        total += weight
        shares = weight * np.exp(joint - norm)
        x = at.means + np.einsum("kij,kj->ki", own.gains, away)
        counts += shares
        first += shares[:, None] * x
        second += shares[:, None, None] * (x[:, :, None] * x[:, None, :] + own.extra)
    return Sums(counts, first, second, total, objective, noise)


def maximised(sums: Sums, before: Parameters, kind: str, reg: float, fixed: Fixed) -> Parameters:
    """The M-step: what is not fixed."""
    d = before.means.shape[1]
    safe = np.where(sums.counts > 0, sums.counts, 1.0)
    free = ~fixed.weights
    weights, left = before.weights.copy(), 1 - before.weights[fixed.weights].sum()
    shared = sums.counts[free].sum() + sums.noise
    if free.any():
        weights[free] = left * sums.counts[free] / shared
    means = np.where(fixed.means[:, None], before.means, sums.first / safe[:, None])
    cross = means[:, :, None] * sums.first[:, None]
    scatter = sums.second - cross - cross.swapaxes(1, 2)
    scatter += sums.counts[:, None, None] * means[:, :, None] * means[:, None]
    if kind == "tied":
        within = np.broadcast_to(scatter.sum(axis=0) / sums.counts.sum(), scatter.shape)
    else:
        within = scatter / safe[:, None, None]
    if kind == "diag":
        within = within * np.eye(d)
    if kind == "spherical":
        within = np.trace(within, axis1=1, axis2=2)[:, None, None] * np.eye(d) / d
    held = fixed.covariances[:, None, None]
    covariances = np.where(held, before.covariances, within + reg * np.eye(d))
    noise = left * sums.noise / shared if sums.noise else 0.0
    return Parameters(weights, means, covariances, noise)


def em(
    rows: Array,
    weights: Array,
    start: Parameters,
    kind: str,
    reg: float,
    steps: int,
    fixed: Fixed | None = None,
    allowed: NDArray[np.bool_] | None = None,
    log_density: float = -np.inf,
) -> tuple[Parameters, list[float]]:
    """The parameters after so many iterations, and the objective before each and at the end."""
    k = len(start.weights)
    fixed = Fixed.of(k) if fixed is None else fixed
    allowed = np.ones((len(rows), k), bool) if allowed is None else allowed
    at, trace = start, []
    for step in range(steps + 1):
        traces = np.trace(np.linalg.inv(at.covariances), axis1=1, axis2=2)
        penalty = np.where(fixed.covariances, 0.0, 0.5 * reg * traces)
        sums = sums_of(rows, weights, at, penalty, allowed, log_density)
        trace.append(sums.objective / sums.weight)
        if step < steps:
            at = maximised(sums, at, kind, reg, fixed)
    return at, trace


def shaped(kind: str, counts: Array, scatters: Array) -> Array:
    """The maximum-likelihood covariances (K, D, D) of a plain type, from scatters (K, D, D)."""
    full = scatters / counts[:, None, None]
    if kind == "tied":
        full = np.broadcast_to(scatters.sum(axis=0) / counts.sum(), full.shape)
    if kind in ("diag", "spherical"):
        full = np.stack([np.diag(np.diag(each)) for each in full])
    if kind == "spherical":
        full = np.stack([np.trace(each) / len(each) * np.eye(len(each)) for each in full])
    return full
