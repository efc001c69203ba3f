"""Rows that all have the same noise: rows without noise, of components with wider covariances.

Surveys often have few kinds of errors.  Rows of one kind share T = S_k + N of each component.  So
the kernel of rows without noise takes them under T, and of their sums of d and d d' about the means
comes what ``Covariances.deconvolved`` wants, once for all: T^-1 sum d, and T^-1 (sum d d') T^-1
less as many T^-1.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.natural_parameters import LOWEST, EStep, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.diagonal import DIAGONAL
from dgmm.model.frame import Frame
from dgmm.model.full import FULL
from dgmm.model.matrices import unpack
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics

MANY: Final = 1024
"""From so many rows on, those with the same noise are taken together."""

SOME: Final = 1024
"""So many rows show whether any have the same noise."""


def same_noise(block: Block, complete: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Places of rows that are ``complete`` (n,) and have the same noise, if they are many."""
    places = np.flatnonzero(complete)
    if block.noise is None or len(places) < MANY:
        return
    flat = block.noise.reshape(len(block.noise), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        keys = (flat @ np.sqrt(np.arange(2.0, 2.0 + flat.shape[1])))[places]
    some = keys[:: max(1, len(keys) // SOME)]
    if len(np.unique(some)) == len(some):  # so no kind has many
        return
    _, of, counts = np.unique(keys, return_inverse=True, return_counts=True)
    for kind in np.flatnonzero(counts >= MANY):
        alike = places[of.reshape(-1) == kind]
        alike = alike[(flat[alike] == flat[alike[0]]).all(axis=1)]
        if len(alike) >= MANY:
            yield alike


def e_step(block: Block, given: Given, complete: EStep) -> Stacked[Statistics]:
    """The statistics of complete rows that all have the noise of the first.

    ``complete`` is the E-step of rows without noise.
    """
    assert block.noise is not None
    frame, noise = given.frame, block.noise[0].astype(np.float64)
    scales = frame.scale if noise.ndim == 1 else frame.scale[:, None]
    noise = noise / scales / frame.scale
    wider = tuple(_wider(each, noise) for each in given.naturals)
    statistics = complete(replace(block, noise=None), Given(frame, wider))
    triples = zip(statistics.parts, given.naturals, wider, strict=True)
    return Stacked(tuple(_deconvolved(*each, frame) for each in triples))


def _wider(natural: NaturalParameters, noise: Array) -> NaturalParameters:
    """The natural parameters of components with the ``noise``, (D,) or (D, D), beside their own."""
    mixture = natural.mixture
    if mixture.covariances.alone(range(1)) is not None and noise.ndim == 1:  # none are correlated
        covariances = DIAGONAL.of_covariances(mixture.variances + noise, mixture.means.shape)
        wide = Mixture(mixture.weights, mixture.means, covariances)
    else:
        dense = mixture.covariances.dense() + (noise if noise.ndim == 2 else np.diag(noise))
        wide = Mixture.of_covariances(FULL, mixture.weights, mixture.means, dense)
    plain = NaturalParameters.of(wide, centre=True, per_component=True)
    constants = np.maximum(plain.constants - natural.penalty, LOWEST[False])
    return replace(plain, constants=constants, penalty=natural.penalty)


def _deconvolved(
    statistics: Statistics, natural: NaturalParameters, wider: NaturalParameters, frame: Frame
) -> Statistics:
    """Statistics of rows under ``wider`` components, as those of rows without errors."""
    features, n_features = natural.features, len(frame.shift)
    precisions = wider.mixture.covariances.precisions()
    counts, first = statistics.sums[:, :1], statistics.sums[:, 1 : 1 + n_features]
    second = statistics.sums[:, 1 + n_features :]
    if precisions.ndim == 2:
        pull = precisions * first
        within = features.of_variances(precisions * (precisions * second - counts))
    else:
        pull = (precisions @ first[:, :, None])[:, :, 0]
        square = precisions @ unpack(second, n_features) @ precisions
        within = features.of_matrices(square - counts[:, :, None] * precisions)
    dual = np.concatenate([counts, pull, within], axis=1)
    sums = natural.mixture.covariances.deconvolved(dual)
    return replace(statistics, sums=sums, center=natural.center)
