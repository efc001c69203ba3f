"""Sums of rows with noise that hides any one row, made such that they may be those of rows.

What is done once the noise is there takes nothing from privacy: it sees no row.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from dgmm.errors import UsageError
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.inference.privacy import LENGTH, Privacy, with_noise
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

SEEN: Final = 2.0
"""A component of fewer rows than so many standard deviations of the noise stays what it was."""

THIN: Final = 0.05
"""No variance falls below so much of what the model has: noise may take all of it, and more."""


def check_private(model_missing: str, noisy: bool, beside: bool) -> None:
    """Raise ``UsageError`` unless a row's part of the sums has a bound."""
    if beside:
        raise UsageError(
            "privacy= goes by rows that count 1 each: leave out weights, errors and labels"
        )
    if model_missing != "raise" or noisy:
        raise UsageError(
            'privacy= goes with complete rows and normal components alone: missing="raise", and no '
            "noise component"
        )


def hidden(exact: SufficientStatistics, mixture: Mixture, privacy: Privacy) -> SufficientStatistics:
    """The ``exact`` statistics, of rows that were drawn in, with noise.

    The ``mixture`` (in the frame) is the one that they were taken under.
    """
    features = exact.covariance_model.centred_features
    count, n_features = exact.center.shape
    radius = privacy.radius(n_features)
    widths = (1, n_features, features.quadratic_width(n_features))
    row = np.repeat([1.0, radius, radius**2], widths)
    sums = features.shifted(exact.sums, -exact.center)  # about 0, where a row's part has a bound
    units = np.append(np.tile(row, count), np.log(count))
    drawn = with_noise(np.append(sums.ravel(), exact.entropy), units, privacy)
    noise = LENGTH * privacy.noise_multiplier
    sums = _possible(drawn[:-1].reshape(sums.shape), exact, mixture, radius, noise)
    weight = float(sums[:, 0].sum())
    return replace(
        exact,
        sums=sums,
        center=mixture.means,
        entropy=float(np.clip(drawn[-1], 0.0, weight * np.log(count))),
        weight=weight,
        rows=max(1, round(weight)),
    )


def _possible(
    sums: Array, exact: SufficientStatistics, mixture: Mixture, radius: float, noise: float
) -> Array:
    """Sums (K, P) about the means that may be those of rows, near ``sums`` about 0."""
    features, n_features = exact.covariance_model.centred_features, mixture.n_features
    dense = mixture.covariances.dense()
    cleaned = np.empty_like(sums)
    for k, (row, covariance) in enumerate(zip(sums, dense, strict=True)):
        weight, offset, second = row[0], np.zeros(n_features), covariance
        if weight >= SEEN * noise:
            mean = row[1 : 1 + n_features] / weight
            mean = mean * min(1.0, radius / max(float(np.linalg.norm(mean)), 1e-300))
            about = features.shifted(row[None], mean[None])[:, 1 + n_features :] / weight
            second = _no_thinner(features.matrices(about, n_features)[0], covariance)
            offset = mean - mixture.means[k]
        else:  # what there is of it is noise
            weight = max(weight, THIN * noise)
        square = features.of_matrices(weight * (second + np.outer(offset, offset))[None])[0]
        cleaned[k] = np.concatenate([[weight], weight * offset, square])
    return cleaned


def _no_thinner(second: Array, covariance: Array) -> Array:
    """The matrix ``second`` (D, D), no variance of which is far below that of ``covariance``."""
    root = np.linalg.cholesky(covariance)
    half = np.linalg.solve(root, second)
    values, vectors = np.linalg.eigh(np.linalg.solve(root, half.T))
    back = root @ vectors
    matrix: Array = (back * np.maximum(values, THIN)) @ back.T
    return matrix
