"""Starts where rows may be noise, or far in heavy tails: without the rows most isolated.

They are found on a sample without the rows that are most isolated: those whose distance to the
``NEIGHBOUR``-th nearest of the sample's rows is largest, in ``standardised`` features (after Byers
and Raftery, Nearest-neighbor clutter removal for estimating features in spatial point processes,
1998).  How many are noise nobody knows.  So there are starts without a few of them, and without
many; they compete by their likelihood, as all starts do.  Where a first weight is given, so many
are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.fit_context import FitContext
from dgmm.em.init import standard, standardised
from dgmm.em.sample import Sample
from dgmm.em.solver import ranked
from dgmm.kernels.labels import FREE, sole
from dgmm.kernels.natural_parameters import Given
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture

neighbors = Late("sklearn.neighbors")

NEIGHBOUR: Final = 10
"""How far this one is says how isolated a row is."""

MOST: Final = 8000
"""Among so many rows at most."""


@dataclass(frozen=True)
class View:
    """A sample without the rows that may be noise, and the weight that noise has then."""

    sample: Sample
    weight: float | None = None


def views(sample: Sample, context: FitContext, components: int) -> list[View]:
    """The ``sample`` without isolated rows, for each share that the context may leave out.

    It is the sample as it is, where the context leaves nothing out.
    """
    if not context.left_out:
        return [View(sample)]
    sample = sample.first(min(max(MOST, 4 * components), len(sample.keys)))
    away = isolation(sample.rows, context.model.covariance_model)
    if sample.labels is not None:  # what is known to be of a component is no noise
        away = np.where(sole(sample.labels) == FREE, away, 0.0)
    parts = []
    for share in context.left_out:
        kept = np.flatnonzero(~isolated(away, sample.weights, share, components))
        parts.append(View(replace(sample.chosen(kept), size=len(kept)), share))
    return parts


def start(
    sample: Sample, context: FitContext, components: int, make: Callable[[Sample], Mixture]
) -> Mixture:
    """What ``make`` makes of the ``sample``: the likeliest of the ``views``, with noise."""
    starts = [
        context.model.begun(make(view.sample), view.weight)
        for view in views(sample, context, components)
    ]
    if len(starts) == 1:
        return starts[0]
    looked_at = sample.first(min(MOST, len(sample.keys)))
    block, observation = looked_at.given, context.model.observation
    naturals = tuple(observation.given(context.natural(each)) for each in starts)
    swept = observation.e_step(block, Given(context.frame, naturals))
    weight = looked_at.weights.sum()
    return starts[ranked(each.objective / weight for each in swept.parts)[0]]


def isolation(rows: Array, covariance_model: CovarianceModel) -> Array:
    """How far each of ``rows`` (n, D) is from its neighbours, (n,)."""
    scaled = standardised(rows, standard(rows, covariance_model))
    count = min(NEIGHBOUR, len(rows) - 1)
    if count < 1:
        return np.zeros(len(rows))
    nearest = neighbors.NearestNeighbors(n_neighbors=count, n_jobs=1).fit(scaled)
    away: Array = nearest.kneighbors()[0][:, -1]
    return away


def isolated(away: Array, weights: Array, share: float, components: int) -> NDArray[np.bool_]:
    """The most isolated rows (n,), of this ``share`` of all weight; not so many that few are left.

    ``away`` (n,) says how isolated each is.
    """
    order = np.argsort(-away, kind="stable")
    gone = np.cumsum(weights[order]) <= share * weights.sum()
    gone[max(0, len(away) - 2 * components) :] = False
    chosen = np.zeros(len(away), np.bool_)
    chosen[order[gone]] = True
    return chosen
