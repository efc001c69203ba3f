"""The E-step of rows with known errors: extreme deconvolution.

Bovy, Hogg and Roweis, Extreme deconvolution: inferring complete distribution functions from noisy,
heterogeneous and incomplete observations, 2011.  With x a row as it was seen, N the covariance of
its error, v the row without error, T = S_k + N and u = T^-1 (x - mu_k), as far as x was observed::

    log joint     log pi_k + log N(x | mu_k, T) - penalty_k
    v - mu_k      S u                                                  expected
    its square    the expected v - mu_k times itself, and S - S T^-1 S

What is summed are u and u u' - T^-1, which the component's covariance turns into the sums of v,
once for all rows.  That is exact however small or large noise is; a value that is missing is one
without a row and a column in T.

**A noise component** knows no errors: its density is that of the row as it was seen, which EM
leaves as it is, so the errors are of the normal components alone.

**Rows with the same noise** share T and its factor; where they are many, they are rows without
noise under T (alike.py).  Rows without any are rows as any others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels import alike
from dgmm.kernels.kernel import TOO_FAR, describe_invalid_row, log_sum_exp, normalise
from dgmm.kernels.natural_parameters import EStep, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.convolved import Convolved
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics

NUMBERS: Final = 1 << 18
"""How many numbers a batch of rows has in an array."""


def nbytes(rows: int, row_bytes: int, n_features: int, components: int) -> int:
    """What ``e_step`` takes beside what rows with holes do, in bytes: copies, and a batch."""
    copies = rows * (2 * row_bytes + 2 * n_features)
    batch = max(NUMBERS, components * n_features**2)
    return copies + 12 * 8 * batch + 8 * 8 * components * (n_features + 3) ** 2


def variances_of(noise: NDArray[Any]) -> NDArray[Any]:
    """The variances (n, D) of ``noise``, variances or covariances of errors."""
    return noise if noise.ndim == 2 else np.diagonal(noise, axis1=1, axis2=2)


def masked(block: Block) -> Block:
    """The block with NaN for what has infinite noise: it is missing."""
    assert block.noise is not None
    unknown = np.isinf(variances_of(block.noise))
    if not unknown.any():
        return block
    real = block.rows.dtype if block.rows.dtype.kind == "f" else np.dtype(np.float64)
    return replace(block, rows=np.where(unknown, np.nan, block.rows.astype(real)))


def e_step(
    block: Block, given: Given, quiet: EStep, noisy: EStep, complete: EStep
) -> Stacked[Statistics]:
    """The statistics of a block of rows with noise.

    ``quiet`` is the E-step of rows without noise, that may have holes; ``complete`` that of those
    without; ``noisy`` that of rows with noise.  Rows without any value, or without weight, count
    for nothing.
    """
    block = masked(block)
    assert block.noise is not None
    complete_rows, loud = _complete_and_noisy(block.rows, variances_of(block.noise))
    if not loud.any():
        return quiet(replace(block, noise=None), given)
    total = quiet(replace(block.taken(np.flatnonzero(~loud)), noise=None), given)
    if block.weights is not None:
        loud &= block.weights > 0
    mixtures = [each.mixture for each in given.naturals]
    wider = all(each.noise_component is None for each in mixtures)  # else T is not all there is
    for places in alike.same_noise(block, loud & complete_rows) if wider else ():
        total += alike.e_step(block.taken(places), given, complete)
        loud[places] = False
    if not loud.any():
        return total
    of_noisy = noisy(block if loud.all() else block.taken(np.flatnonzero(loud)), given)
    if not all(np.isfinite(each.objective) for each in of_noisy.parts):
        raise DataError(describe_invalid_row(block, missing=True) or TOO_FAR)
    return total + of_noisy


def _complete_and_noisy(
    rows: NDArray[Any], variances: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows (n,) are complete, and which have noise in what of them was observed."""
    ones = np.ones(rows.shape[1], rows.dtype if rows.dtype.kind == "f" else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum is faster than a look at each row
        complete = np.isfinite(rows @ ones)
    if not complete.all():
        complete = ~np.isnan(rows).any(axis=1)
    if complete.all() and variances.all():
        return complete, complete
    heard = np.where(np.isnan(rows), 0, variances) != 0
    return complete, heard.any(axis=1)


def noisy(block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of rows that all have noise, a value each, and weight; by NumPy."""
    return Stacked(tuple(_under(block, given.frame, each) for each in given.naturals))


def _under(block: Block, frame: Frame, natural: NaturalParameters) -> Statistics:
    """The same under one mixture."""
    features, n_features = natural.features, len(frame.shift)
    covariances, components = natural.mixture.covariances, natural.mixture.components
    total = Statistics.zero(natural.center, features.width(n_features))
    for batch in judge(block, frame, natural.mixture):
        log_joint = batch.log_joint - natural.penalty[:, None] + frame.log_volume
        log_norm, log_plain, responsibilities = normalise(log_joint, natural.penalty)
        weights = np.ones(len(batch.of))
        if block.weights is not None:
            weights = block.weights[batch.rows].astype(np.float64)
        responsibilities = responsibilities * weights
        sums = np.zeros_like(total.sums)
        sums[:, 0] = responsibilities.sum(axis=1)  # all there is of a noise component
        buffer = np.empty((sums.shape[1], len(weights)))
        counts = np.zeros((components, batch.kinds))
        for k, shares in enumerate(responsibilities[:components]):
            sums[k] = features.of(batch.pull[:, k].T, buffer) @ shares
            np.add.at(counts[k], batch.of, shares)
        sums[:components, 1 + n_features :] -= batch.convolved.inverse_sums(features, counts)
        objective, plain = float(log_norm @ weights), float(log_plain @ weights)
        center, count = natural.center, len(weights)
        total += Statistics(sums, center, objective, plain, float(weights.sum()), count)
    of_components, of_noise = np.split(total.sums, [components])
    sums = np.concatenate([covariances.deconvolved(of_components), of_noise])
    return replace(total, sums=sums)


@dataclass(frozen=True)
class Batch:
    """What the components of a mixture say of rows with noise.

    Attributes
    ----------
    rows : slice
        Their places.
    of : (n,)
        Which of the kinds of noise each has.
    kinds : int
        How many kinds there are.
    log_joint : (K, n) or (K + 1, n)
        log pi_k and the log-density of what was observed, in the units of the data; of a noise
        component, which knows no errors, last.
    pull : (n, K, D)
        u, in the frame.
    convolved : Convolved
        T of each kind.
    """

    rows: slice
    of: NDArray[np.intp]
    kinds: int
    log_joint: Array
    pull: Array
    convolved: Convolved


def judge(block: Block, frame: Frame, mixture: Mixture) -> Iterator[Batch]:
    """What a ``mixture`` in the ``frame`` says of the rows of a block, a batch at a time."""
    assert block.noise is not None
    size = mixture.components * mixture.n_features**2
    most = max(1, NUMBERS // size)
    unit = 0.5 * np.log(2 * np.pi) + np.log(frame.scale)
    for start in range(0, len(block.rows), most):
        chosen = slice(start, min(start + most, len(block.rows)))
        rows, noise = block.rows[chosen], block.noise[chosen].astype(np.float64)
        observed = ~np.isnan(rows)
        of, first = _kinds(observed, noise)
        noise_in_frame = _in_frame(noise[first], observed[first], frame)
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            x = frame.rows(rows, np.empty((mixture.n_features, len(rows)))).T
            away = np.where(observed[:, None], x[:, None] - mixture.means, 0.0)
            convolved = mixture.covariances.convolved(noise_in_frame, observed[first])
            density, pull = convolved.solved(away, of)
            log_joint = density.T + mixture.log_weights[:, None] - observed @ unit
        if (even := mixture.noise_component) is not None:
            same = even.log_joint_of(observed) - observed @ np.log(frame.scale)
            log_joint[~np.isfinite(log_joint)] = -np.inf  # a row too far from them is noise
            log_joint = np.concatenate([log_joint, same[None]])
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        yield Batch(chosen, of, len(first), log_joint, pull, convolved)


def _kinds(observed: NDArray[np.bool_], noise: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the kinds of noise and holes each row has (n,), and a row of each kind (M,)."""
    n = len(noise)
    whole = np.concatenate([noise.reshape(n, -1), observed], axis=1)
    keys = np.ascontiguousarray(whole).view(np.dtype((np.void, 8 * whole.shape[1]))).ravel()
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    return of.reshape(-1), first


def _in_frame(noise: Array, observed: NDArray[np.bool_], frame: Frame) -> Array:
    """The noise of rows in the ``frame``, 0 where nothing is ``observed``."""
    if noise.ndim == 2:
        return np.where(observed, noise, 0.0) / frame.scale / frame.scale
    both = observed[:, :, None] & observed[:, None, :]
    return np.where(both, noise, 0.0) / frame.scale[:, None] / frame.scale


def denoise(block: Block, mixture: Mixture, frame: Frame) -> Array:
    """What is expected of the rows of a block (n, D) without errors; ``mixture`` in the data."""
    inside, noise = frame.enter(mixture), block.noise
    assert noise is not None
    means = np.empty(block.rows.shape)
    for batch in judge(block, frame, inside):
        shares = log_sum_exp(batch.log_joint.copy())[1]
        of_components = inside.means + inside.covariances.times(batch.pull)
        means[batch.rows] = np.einsum("kn,nkd->nd", shares[: inside.components], of_components)
        if (even := inside.noise_component) is not None:  # a row of noise is as it was observed
            rows = frame.rows(block.rows[batch.rows], np.empty(of_components.shape[::2][::-1])).T
            as_seen = np.where(np.isnan(rows), even.low + even.extent / 2, rows)
            means[batch.rows] += shares[-1][:, None] * as_seen
    known = ~np.isnan(block.rows) & (variances_of(noise) == 0)
    return np.where(known, block.rows, means * frame.scale + frame.shift)
