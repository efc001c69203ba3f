"""Why a row is odd: how far it is from each component, and by which features.

The distance to component k is that of Mahalanobis, the square root of (x - mu)' P (x - mu).  A
feature's deviation is how far its value is from what the other features of the row make one
expect of it, in standard deviations: (P (x - mu))_j / sqrt(P_jj), by the row's most probable
component.  So one wrong value stands out, also where each value by itself is an ordinary one.

Both are of what was observed of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.inference.holes import by_holes
from dgmm.kernels.kernel import tile_rows
from dgmm.kernels.outputs import FEATURE, Output, RowOutputs, each_feature
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class _Seen:
    """Rows of a block with the same holes.

    Attributes
    ----------
    mixture : Mixture
        Of what was observed of them, in the frame.
    places : (n,)
    observed : (D,)
    x : (n, o)
        In the frame.
    """

    mixture: Mixture
    places: NDArray[np.intp]
    observed: NDArray[np.bool_]
    x: Array


def _seen(block: Block, wanted: RowOutputs) -> Iterator[_Seen]:
    """The rows of a block of which anything was observed, a tile at a time."""
    wanted.check(block)
    if block.noise is not None:
        raise UsageError(f"{wanted.output.name} are not told of rows with known errors (noise)")
    mixture = wanted.mixture
    frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
    inside = frame.enter(mixture)
    size = tile_rows(mixture.components * (mixture.n_features + 2))
    for places, observed in by_holes(block.rows):
        if not observed.any():
            continue
        known = np.flatnonzero(observed)
        part, marginal = Frame(frame.shift[known], frame.scale[known]), inside.among(known)
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            rows = block.rows[chosen][:, observed]
            yield _Seen(marginal, chosen, observed, part.rows(rows, np.empty(rows.shape[::-1])).T)


def _distances(block: Block, wanted: RowOutputs) -> NDArray[Any]:
    distances = np.full((len(block.rows), wanted.mixture.components), np.nan)
    for part in _seen(block, wanted):
        for k, mean in enumerate(part.mixture.means):
            white = part.mixture.covariances.whiten(k, (part.x - mean).T)
            distances[part.places, k] = np.sqrt(np.sum(white * white, axis=0))
    return distances


def _deviations(block: Block, wanted: RowOutputs) -> NDArray[Any]:
    deviations = np.full(block.rows.shape, np.nan)
    for part in _seen(block, wanted):
        likeliest = part.mixture.log_joints(part.x.T)[: part.mixture.components].argmax(axis=0)
        precisions = np.linalg.inv(part.mixture.covariances.dense())
        for k in np.unique(likeliest):
            of_component = likeliest == k
            away = (part.x[of_component] - part.mixture.means[k]) @ precisions[k]
            places = np.ix_(part.places[of_component], np.flatnonzero(part.observed))
            deviations[places] = away / np.sqrt(np.diagonal(precisions[k]))
    return deviations


def _each_component(mixture: Mixture) -> tuple[int, ...]:
    return (mixture.components,)


DISTANCES: Final = Output("distances", _distances, np.float64, _each_component)
"""The distance of a row to each component."""

DEVIATIONS: Final = Output("deviations", _deviations, np.float64, each_feature, axes=FEATURE)
"""How far each feature of a row is from what the others make one expect, in deviations."""
