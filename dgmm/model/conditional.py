"""What covariance matrices make of rows that were observed in part, or with errors; at once."""

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask
from dgmm.model.covariance_parameters import Expected
from dgmm.model.matrices import choleskys, triangle_inverses, unpack, upper_places


def completed(covariances: Array, sums: Array, observed: Mask) -> Array:
    """See ``Covariances.completed``; ``covariances`` are (K, D, D), or (1, D, D) for all.

    With o the observed features and m the others, x_m is S_mo S_oo^-1 x_o in the mean, and
    S_mm - S_mo S_oo^-1 S_om its covariance.
    """
    known, missing = np.flatnonzero(observed), np.flatnonzero(~observed)
    counts, n_features = sums[:, 0], len(observed)
    inner = covariances[:, known[:, None], known]
    outer = covariances[:, known[:, None], missing]
    gain = np.linalg.solve(inner, outer)  # (K, o, m)
    expand = np.zeros((len(sums), len(known), n_features))
    expand[:, np.arange(len(known)), known] = 1.0
    expand[:, :, missing] = gain
    first = (sums[:, None, 1 : 1 + len(known)] @ expand)[:, 0]
    second = expand.swapaxes(1, 2) @ unpack(sums[:, 1 + len(known) :], len(known)) @ expand
    rest = covariances[:, missing[:, None], missing] - outer.swapaxes(1, 2) @ gain
    second[:, missing[:, None], missing] += counts[:, None, None] * rest
    rows, columns = upper_places(n_features)
    return np.concatenate([sums[:, :1], first, second[:, rows, columns]], axis=1)


def deconvolved(covariances: Array, sums: Array) -> Array:
    """See ``Covariances.deconvolved``; ``covariances`` are (K, D, D), or (1, D, D) for all."""
    n_features = covariances.shape[1]
    rows, columns = upper_places(n_features)
    first = (sums[:, None, 1 : 1 + n_features] @ covariances)[:, 0]
    within = unpack(sums[:, 1 + n_features :], n_features)
    second = sums[:, :1, None] * covariances + covariances @ within @ covariances
    return np.concatenate([sums[:, :1], first, second[:, rows, columns]], axis=1)


def expected(covariances: Array, away: Array, observed: Mask, of: NDArray[np.intp]) -> Expected:
    """See ``Covariances.expected``; ``covariances`` are (K, D, D), or (1, D, D) for all.

    Where nothing is observed, a covariance is taken for the identity: so all patterns are factored
    alike, and what they have not observed is 0 in whatever follows.
    """
    n_features = observed.shape[1]
    known = observed[:, None].astype(np.float64)
    masked = covariances * (known[..., None] * known[..., None, :])
    places = np.arange(n_features)
    masked[:, :, places, places] += 1.0 - known
    shape = masked.shape
    white = triangle_inverses(choleskys(masked.reshape(-1, n_features, n_features))).reshape(shape)
    half_log_det = np.log(np.diagonal(white, axis1=2, axis2=3)).sum(axis=2)
    rows = (white[of] @ away[..., None])[..., 0]
    squares = np.sum(rows * rows, axis=2)
    log_density = half_log_det[of] - 0.5 * squares
    solved = (rows[..., None, :] @ white[of])[..., 0, :]
    filled = (solved[..., None, :] @ covariances)[..., 0, :]
    whole = np.where(observed[of, None], away, filled)

    def spread() -> Array:
        part = (white * known[..., None]) @ covariances
        rest = covariances - part.swapaxes(2, 3) @ part
        rest = rest * ((1.0 - known)[..., None] * (1.0 - known)[..., None, :])
        upper = upper_places(n_features)
        return np.asarray(rest[:, :, upper[0], upper[1]])

    return Expected(log_density, squares, whole, spread)


def drawn(
    covariances: Array, away: Array, observed: Mask, of: NDArray[np.intp], normals: Array
) -> Array:
    """See ``Covariances.drawn``; ``of`` are places among the ``covariances`` (K, D, D).

    A draw z of all features is moved by what the difference to the observed ones makes one expect.
    """
    roots = np.linalg.cholesky(covariances)
    whole = np.empty_like(away)
    for k in np.unique(of):
        whole[of == k] = normals[of == k] @ roots[k].T
    known, chosen = observed.astype(np.float64), covariances[of]
    masked = chosen * (known[:, :, None] * known[:, None])
    places = np.arange(len(roots[0]))
    masked[:, places, places] += 1.0 - known
    solved = np.linalg.solve(masked, ((away - whole) * known)[..., None])
    return np.where(observed, away, whole + (chosen @ solved)[..., 0])
