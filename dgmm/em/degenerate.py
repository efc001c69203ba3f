"""Components that the rows alone don't hold up: which they are, by the M-step before the prior.

What ``reg_covar`` adds to a variance may be all that a component has in some direction, or more
than half.  ``reg`` is what the prior adds (model/prior.py).
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial, numbers
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

ALONE: Final = 1e-3
"""A variance below so much of what ``reg_covar`` adds is held up by that alone."""

WORTH: Final = 5.0
"""How many nats a row it is worth to an end that its likelihood has a bound, or that its components
have rows enough: more than a few rows can bring, and less than a column that tells clusters apart,
with one value in each, does."""

AMPLE: Final = 9
"""Rows are enough for a component if they are so many, and more than twice its factors, or features
where it has none.

Or as many as its own parameters, where these are fewer: as they are with up to three features."""

LOADING: Final = 0.3
"""Features with this part of a direction's largest loading are said to be in it."""

RIVAL: Final = 1.0
"""A variance below so many times what ``reg_covar`` adds is half or more of its making."""


def enough_rows(covariance_model: CovarianceModel, n_features: int) -> int:
    """How many rows a component must have, or it may be as thin as one likes: see ``AMPLE``."""
    own = n_features + covariance_model.own_parameters(n_features)
    return min(own, max(AMPLE, 2 * (covariance_model.factor_count or n_features) + 1))


def bare(state: State, context: FitContext) -> Trial:
    """The M-step without ``reg``: its components that are singular are held up by ``reg`` alone."""
    return replace(context, model=context.model.unregularised).m_step(state)


def thin(
    statistics: Statistics, context: FitContext, before: Mixture, share: float
) -> tuple[int, ...]:
    """Components that in some direction have less than ``share`` times ``reg`` for a variance.

    That is, by the M-step from these ``statistics`` before ``reg`` is added.
    """
    raw, prior = context.maximum_likelihood(statistics, before), context.model.prior
    _, means = context.model.maximised(raw, before)
    least = prior.estimate(raw, means).thinnest(prior.share(share))
    return numbers((least < 1.0) & ~context.model.kept(raw.empty))


def singular(state: State, context: FitContext) -> tuple[int, ...]:
    """Components of a state that nothing but ``reg``, or the smallest variance, holds up."""
    held = thin(state.statistics, context, state.mixture, ALONE)
    return tuple(sorted({*state.singular, *held}))


def unbounded(state: State, context: FitContext) -> tuple[int, ...]:
    """Those of the ``singular`` components that have spread in fewer directions than all rows.

    Their likelihood has no bound: a mixture that has one is not to be compared with others.  What
    is flat in all rows, a column of one value or a copy of another, is so in every mixture of the
    covariance model, and adds the same to each.
    """
    if not singular(state, context):
        return ()
    model = context.model
    raw, prior = context.maximum_likelihood(state.statistics, state.mixture), model.prior
    weights, means = model.maximised(raw, state.mixture)
    estimate, amounts = prior.estimate(raw, means), prior.share(ALONE)
    least = estimate.thinnest_apart(weights, means, amounts)
    return numbers(np.broadcast_to(least < 1.0, raw.empty.shape) & ~model.kept(raw.empty))


@dataclass(frozen=True)
class Rivals:
    """Components of whose variance ``reg`` makes half or more, and the features where it does.

    Not among them are those that are singular, which are told of on their own.
    """

    components: tuple[int, ...]
    features: tuple[int, ...]

    @classmethod
    def of(cls, state: State, context: FitContext) -> "Rivals":
        """Those of a ``state``.

        In each component the features are those with large loadings in the direction in which its
        variance is smallest beside ``reg``.
        """
        mixture = state.mixture
        rivals = {*thin(state.statistics, context, mixture, RIVAL)} - {*singular(state, context)}
        if not rivals:
            return cls((), ())
        raw, prior = context.maximum_likelihood(state.statistics, mixture), context.model.prior
        _, means = context.model.maximised(raw, mixture)
        estimate = prior.estimate(raw, means)
        loadings = estimate.thinnest_loadings(prior.share(1.0))
        loadings = np.broadcast_to(loadings, mixture.means.shape)[sorted(rivals)]
        named = np.flatnonzero((loadings > LOADING).any(axis=0))
        return cls(tuple(sorted(rivals)), tuple(named.tolist()))
