"""What rows lack, filled in: conditional means, or draws.

Little and Rubin, Statistical Analysis with Missing Data, 2002, chapter 4.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtri

from dgmm.kernels.kernel import log_sum_exp
from dgmm.kernels.missing import NUMBERS, Judged, judge, packed, patterns
from dgmm.model.arrays import Array
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

FILLED: Final = 4096
"""Rows that are filled in at a time."""


def fill(rows: NDArray[Any], mixture: Mixture, seed: int | None = None, start: int = 0) -> Array:
    """``rows`` (n, D) with what they lack: conditional means, or draws.

    Draws are those of a ``seed``, and of each row's number, from ``start`` on: they don't depend on
    how rows are cut into blocks.  A row is of one component, drawn by how likely each is to have
    made what was observed; what it lacks is drawn from there, given what was observed.
    """
    filled = rows.astype(np.float64)
    frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
    inside = frame.enter(mixture)
    for first in range(0, len(rows), FILLED):
        part = slice(first, first + FILLED)
        holes = np.isnan(rows[part])
        words = packed(holes)
        uniforms = None
        if seed is not None:  # of t distributions one more: the row's own precision
            width = holes.shape[1] + (mixture.tails is not None)
            uniforms = _uniforms(seed, start + first, len(holes), width)
        for judged in judge(
            rows[part], patterns(holes, words, np.flatnonzero(words.any(axis=1))), frame, inside
        ):
            shares = log_sum_exp(judged.log_joint.copy())[1]
            if uniforms is None:
                of_components = shares[: inside.components]
                values = np.einsum("kn,nkd->nd", of_components, inside.means + judged.away)
                if (noise := inside.noise_component) is not None:
                    values += shares[-1][:, None] * (noise.low + noise.extent / 2)
            else:
                observed = ~holes[judged.rows]
                values = _drawn(shares, judged, observed, inside, uniforms[judged.rows])
            values = values * frame.scale + frame.shift
            here = filled[part]
            here[judged.rows] = np.where(holes[judged.rows], values, here[judged.rows])
    return filled


def _uniforms(seed: int, start: int, rows: int, n_features: int) -> Array:
    """Uniform variates (n, D + 1) in (0, 1) for rows from number ``start`` on.

    Philox is a function of a counter (Salmon and others, Parallel random numbers: as easy as 1, 2,
    3, 2011), of which each row has a part of its own; there are four numbers for each count.
    """
    counts = -(-(n_features + 1) // 4)
    stream = np.random.Philox(key=seed, counter=start * counts)
    numbers = stream.random_raw(rows * counts * 4).reshape(rows, -1)[:, : n_features + 1]
    return np.asarray((numbers >> np.uint64(11)) * 2.0**-53 + 2.0**-54, np.float64)


def _drawn(
    shares: Array, judged: Judged, observed: NDArray[np.bool_], mixture: Mixture, uniforms: Array
) -> Array:
    """Rows (n, D) in the frame: of one component each, as it may have been."""
    ends = np.cumsum(shares, axis=0)
    of = (uniforms[:, 0] * ends[-1] > ends).sum(axis=0)
    even, noise = of == mixture.components, mixture.noise_component
    of = np.where(even, 0, of)
    away = np.where(observed, judged.away[np.arange(len(of)), of], 0.0)
    normals = ndtri(uniforms[:, 1 : 1 + mixture.n_features])
    if mixture.tails is not None and judged.latent is not None:
        count = mixture.tails.dof[of] + observed.sum(axis=1)
        chi2 = 2 * gammaincinv(count / 2, uniforms[:, -1])
        normals /= np.sqrt(chi2 * judged.latent.scale[of, np.arange(len(of))] / count)[:, None]
    drawn = mixture.covariances.drawn(away, observed, of, normals)
    values = np.asarray(mixture.means[of] + drawn)
    if noise is None:
        return values
    return np.where(even[:, None], noise.low + noise.extent * uniforms[:, 1:], values)


def draw(
    rows: NDArray[Any], frame: Frame, mean: Array, covariances: Covariances, seed: int
) -> Array:
    """``rows`` (n, D) with what they lack drawn from one normal distribution in the ``frame``."""
    filled, n_features = rows.astype(np.float64), rows.shape[1]
    size = max(1, NUMBERS // n_features**2)
    for start in range(0, len(rows), size):
        part = filled[start : start + size]
        holes = np.isnan(part)
        x = frame.rows(part, np.empty(part.shape[::-1])).T
        normals = ndtri(_uniforms(seed, start, *part.shape)[:, 1:])
        away = np.where(holes, 0.0, x - mean)
        of = np.zeros(len(part), np.intp)
        drawn = mean + covariances.drawn(away, ~holes, of, normals)
        part[holes] = (drawn * frame.scale + frame.shift)[holes]
    return filled
