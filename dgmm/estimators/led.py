"""The leading side of a federated fit: its start, its solver, and the question of each round."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from dgmm import engine
from dgmm.em.columns import Columns
from dgmm.em.evaluate import State
from dgmm.em.fit import check
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.em.moments import DataMoments
from dgmm.em.sample import Sample
from dgmm.em.solver import RunState
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Samples
from dgmm.errors import DataError
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.given_values import begun
from dgmm.estimators.record import become
from dgmm.estimators.site_summary import Summary
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.inference import merging
from dgmm.inference.regression import quantile
from dgmm.model.mixture import Mixture, full_mixture
from dgmm.model.statistics import Statistics

LEVELS: Final = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Of eleven rows at these quantiles the 10 %, 50 % and 90 % quantiles are those."""

NOT_SENT: Final = {
    **dict.fromkeys(("weights_init", "means_init", "precisions_init", "max_seconds")),
    **dict.fromkeys(("n_jobs", "memory", "callbacks")),
    **{"warm_start": False, "cache": "auto", "verbose": 0},
}
"""The parameters that sites don't get: those of the start, which they see, and of machines."""


@dataclass(frozen=True)
class Led:
    """What stays the same while rounds are led.

    Attributes
    ----------
    spec : FitSpec
    context : FitContext
    run : RunState
        Before the first round.
    moments : DataMoments
        Of all sites together.
    names : (D,) or None
        Of the features.
    model : GaussianMixture
        What sites are asked with, but for the mixture.
    """

    spec: FitSpec
    context: FitContext
    run: RunState
    moments: DataMoments
    names: NDArray[Any] | None
    model: GaussianMixture

    @classmethod
    def of(cls, model: GaussianMixture, spec: FitSpec, summaries: Sequence[Summary]) -> "Led":
        """What the sites' ``summaries`` come to; raises ``DataError`` if there is no fit."""
        moments = reduce(add, (summary.moments for summary in summaries))
        told = summaries[0].names
        check(moments, [spec], Columns(told))
        context = FitContext.of(
            *(
                _of_most(summaries, moments),
                spec.covariance_model,
                spec.reg_covar,
                spec.observation,
            ),
            prior=spec.prior,
            components=spec.components,
        )
        # Sums that come from sites have each component's own quadratic part.
        context = replace(context, total=None, moments=None, probe=None)
        spec = begun(spec, model, len(moments.mean))
        if not spec.given:
            start = context.frame.leave(_start(summaries, context, spec.components))
            spec = replace(
                spec,
                weights=start.weights,
                means=start.means,
                precisions=start.covariances.precisions(),
            )
        samples = Samples(moments.sample, moments.weighted, engine.in_memory_sweep)
        (run,) = spec.strategy.begin(moments, context, spec, samples)
        names = None if told is None else np.asarray(told, dtype=object)
        return cls(spec, context, run, moments, names, _asking(model, run, context, moments, names))

    def asking(self, mixture: Mixture) -> GaussianMixture:
        """The model that a round asks about, with a ``mixture`` of the data."""
        question = copy(self.model)
        become(question, mixture_=mixture)
        return question

    def state(self, trial: Trial, total: SufficientStatistics, mixture: Mixture) -> State:
        """What the statistics of all sites say of a ``trial``, a ``mixture`` of the data."""
        statistics = Statistics(total.sums, total.center, 0.0, 0.0, total.weight, total.rows)
        objective = total.bound(mixture)
        score = objective - self.context.model.prior.log_density(trial.mixture)
        return State(trial.mixture, statistics, objective, score, trial.empty, trial.singular)


def _asking(
    model: GaussianMixture,
    run: RunState,
    context: FitContext,
    moments: DataMoments,
    names: NDArray[Any] | None,
) -> GaussianMixture:
    """What sites are asked with: a model whose statistics are what its start expects of the rows.

    They say in what frame and under what prior sums are to be taken, and nothing of any site.
    """
    assert run.trial is not None
    start = run.trial.mixture
    expected = State(start, _expected(start, context, moments), 0.0, 0.0)
    question: GaussianMixture = clone(model).set_params(**NOT_SENT)
    become(
        question,
        mixture_=context.frame.leave(start),
        sufficient_statistics_=SufficientStatistics.of(expected, context),
        converged_=False,
        n_iter_=0,
        lower_bounds_=[],
        lower_bound_=0.0,
        fit_info_={},
        n_features_in_=start.n_features,
        feature_names_in_=names,
    )
    return question


def _expected(mixture: Mixture, context: FitContext, moments: DataMoments) -> Statistics:
    """The statistics that a ``mixture`` (in the frame) expects of all rows."""
    counts = moments.weight * mixture.weights
    second = counts[:, None, None] * mixture.covariances.dense()
    square = context.model.covariance_model.centred_features.of_matrices(second)
    sums = np.concatenate([counts[:, None], np.zeros_like(mixture.means), square], axis=1)
    return Statistics(sums, mixture.means, 0.0, 0.0, moments.weight, moments.rows)


def _together(summaries: Sequence[Summary]) -> Mixture:
    """The mixtures of all sites side by side, each with the weight of its rows."""
    weights = np.concatenate(
        [summary.moments.weight * summary.mixture.weights for summary in summaries]
    )
    means = np.concatenate([summary.mixture.means for summary in summaries])
    dense = np.concatenate([summary.mixture.covariances.dense() for summary in summaries])
    live = weights > 0
    return full_mixture(weights[live] / weights.sum(), means[live], dense[live], None)


def _of_most(summaries: Sequence[Summary], moments: DataMoments) -> DataMoments:
    """The ``moments`` of all rows, with a sample that has the quantiles of the sites' mixtures.

    So they know a few rows far away from most, about as in one place.  Where most rows have one
    value, components are as wide as sites make them, and tell no quantiles.
    """
    mixture = _together(summaries)
    weights, spread = mixture.weights[:, None], np.sqrt(mixture.variances)
    rows = np.array(
        [
            [
                quantile(weights, mean[:, None], deviation[:, None], level)[0]
                for mean, deviation in zip(mixture.means.T, spread.T, strict=True)
            ]
            for level in LEVELS
        ]
    )
    narrow = (
        sum(summary.moments.weight * summary.narrow for summary in summaries) > 0.5 * moments.weight
    )
    rows[:, narrow] = moments.mean[narrow]
    count, ones = len(LEVELS), np.ones(len(LEVELS))
    return replace(moments, sample=Sample(count, ones, np.arange(count), rows, ones))


def _start(summaries: Sequence[Summary], context: FitContext, components: int) -> Mixture:
    """The first mixture (in the frame): of those of all sites, reduced to so many components.

    Raises ``DataError`` if they have fewer together.
    """
    mixture = _together(summaries)
    if mixture.components < components:
        raise DataError(
            f"the sites' own fits have {mixture.components} components together, fewer than "
            f"{components}: fit fewer, or give a start"
        )
    groups = merging.merge_without_rows(mixture, "runnalls").groups(components)
    less = context.frame.enter(merging.reduced(mixture, groups))
    moments = reduce(add, (summary.moments for summary in summaries))
    covariance_model, n_features = context.model.covariance_model, less.n_features
    before = replace(
        less, covariances=covariance_model.of_variances(np.ones(n_features), components)
    )
    return context.m_step_of(_expected(less, context, moments), before).mixture
