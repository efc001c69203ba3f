"""The sweep for the statistics of rows that no first pass has seen.

It checks the rows as it goes, and takes all sums about the components' means.
"""

from dataclasses import dataclass, replace

import numpy as np

from dgmm.em.first_pass import check_row_weights
from dgmm.em.fit import WEIGHTS
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Model
from dgmm.errors import DataError
from dgmm.kernels.kernel import describe_invalid_row
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import NONE_COUNT, Observation
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics


def natural_of(mixture: Mixture, model: Model) -> NaturalParameters:
    """A ``mixture`` as kernels see it, all components centred: rows to come may lie anywhere."""
    penalties = model.penalties(mixture)
    return NaturalParameters.of(mixture, penalties, centre=True, per_component=True)


@dataclass(frozen=True)
class _Query:
    """What each task of the sweep is given.

    Rows further than the ``radius`` from the origin of the frame, in it, are drawn in to there.
    """

    observation: Observation
    given: Given
    radius: float | None


def summarized(
    sweep: Sweep, observation: Observation, given: Given, radius: float | None
) -> Statistics:
    """The statistics of all rows, under the one mixture of ``given``.

    Raises ``DataError`` if a row can't be used, or the weights don't add up to a usable number.
    """
    (statistics,) = sweep(_e_step, _Query(observation, given, radius)).parts
    if statistics.weight == 0:
        raise DataError(NONE_COUNT.format("learn from"))
    check_weight(statistics.weight)
    return statistics


def check_weight(weight: float) -> None:
    """Raise ``DataError`` unless a sum of weights can be divided by."""
    if not WEIGHTS[0] < weight < WEIGHTS[1]:
        raise DataError(f"the weights sum to {weight:.3g}; rescale them")


def with_products(statistics: Statistics, context: FitContext) -> Statistics:
    """The ``statistics`` with sums of products for each component, which tied ones do not have.

    The products of all rows are shared out among the components: to a tied covariance nothing but
    their total matters.
    """
    center, sums = statistics.center, statistics.sums
    n_features = center.shape[1]
    if sums.shape[1] == context.model.covariance_model.centred_features.width(n_features):
        return statistics
    assert context.total is not None
    counts, cross = sums[:, :1], sums[:, 1:].T @ center
    within = context.total - cross - cross.T - (center.T @ (counts * center))
    upper = within[np.triu_indices(n_features)]
    return replace(statistics, sums=np.concatenate([sums, counts / counts.sum() * upper], axis=1))


def _e_step(block: Block, query: _Query) -> Stacked[Statistics]:
    """The statistics of a block, whose rows are checked first."""
    check_row_weights(block)
    if invalid_row := describe_invalid_row(block, not query.observation.refuses):
        raise DataError(invalid_row)
    if (unusable := query.observation.invalid(block).first) is not None:
        raise DataError(unusable)
    if query.radius is not None:
        block = _drawn_in(block, query.given.frame, query.radius)
    return query.observation.e_step(block, query.given)


@np.errstate(over="ignore")
def _drawn_in(block: Block, frame: Frame, radius: float) -> Block:
    """The rows no further than a ``radius`` from the origin of the ``frame``, in it."""
    away = (block.rows - frame.shift) / frame.scale
    most = np.abs(away).max(axis=1)
    near = away / np.where(most > 0, most, 1.0)[:, None]  # squares don't overflow
    length = most * np.sqrt(np.sum(near**2, axis=1))
    far = length > radius
    if not far.any():
        return block
    rows = np.array(block.rows, dtype=np.float64)
    rows[far] = frame.shift + frame.scale * away[far] * (radius / length[far])[:, None]
    return replace(block, rows=rows)
