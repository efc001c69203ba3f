"""First mixtures as they are asked for: by given values, by a named method, or by labels."""

from dataclasses import replace

import numpy as np

from dgmm.em import init, isolation, labelled, race
from dgmm.em.fit_context import FitContext
from dgmm.em.sample import Sample
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Samples
from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.divergence import matched
from dgmm.model.mixture import Mixture


def first_mixtures(
    context: FitContext,
    spec: FitSpec,
    samples: Samples,
    ours: bool = False,
) -> list[Mixture]:
    """As many first mixtures as are asked for; see ``_first``."""
    starts = samples.cost.several(spec.n_init, lambda: _first(samples.sample, context, spec, ours))
    if spec.held is None:
        return starts
    return [spec.held.within(context.frame, start) for start in starts]


def _first(sample: Sample, context: FitContext, spec: FitSpec, ours: bool = False) -> Mixture:
    """One first mixture (in the frame): what is given of it, the rest by ``init_params``.

    A method that is named sees the rows as scikit-learn's would, in their own units, unless the
    start is ``ours``; what nobody named must not depend on units.
    """
    weights, means, precisions = spec.weights, spec.means, spec.precisions
    if weights is not None and means is not None and precisions is not None:
        given = given_mixture(spec.covariance_model, weights, means, precisions)
        return context.model.begun(context.frame.enter(given))
    unnamed = spec.init_params == "auto"
    method = "kmeans" if unnamed else spec.init_params
    by_method = init.seeded if ours or unnamed else init.seed
    make = race.seeded if ours and unnamed else by_method
    make = _labelled_start if sample.labels is not None else make

    def one(rows: Sample) -> Mixture:
        """The first mixture from these ``rows``, but for what is given."""
        seed = context.frame.leave(make(rows, context, spec.components, method, spec.random))
        if means is not None and (ours or unnamed) and sample.labels is None:
            seed = _in_order_of(means, seed, context)
        first_weights = seed.weights if weights is None else weights
        first_means = seed.means if means is None else means
        if precisions is None:
            return context.frame.enter(replace(seed, weights=first_weights, means=first_means))
        first = given_mixture(spec.covariance_model, first_weights, first_means, precisions)
        return context.frame.enter(first)

    return isolation.start(sample, context, spec.components, one)


def _labelled_start(
    sample: Sample, context: FitContext, components: int, method: str, random: init.Random
) -> Mixture:
    """By labels, whatever the ``method``."""
    return labelled.seeded(sample, context, components, random)


def _in_order_of(means: Array, seed: Mixture, context: FitContext) -> Mixture:
    """The ``seed`` with its components in the order of the nearest ``means`` (K, D).

    So what is not given of a component comes of rows that are near its mean.
    """
    distances = [np.sum(((mean - seed.means) / context.frame.scale) ** 2, axis=1) for mean in means]
    return seed.chosen(matched(np.stack(distances)))


def given_mixture(
    covariance_model: CovarianceModel, weights: Array, means: Array, precisions: Array
) -> Mixture:
    """A mixture from given parameters; raises ``UsageError`` unless they make one."""
    try:
        return Mixture.of(covariance_model, weights / weights.sum(), means, precisions)
    except np.linalg.LinAlgError as error:
        matrices = covariance_model.shape(1, 2)[-2:] == (2, 2)
        raise UsageError(
            f"The parameter '{covariance_model.name} precision' should be "
            f"{'symmetric, positive-definite' if matrices else 'positive'}: {error}"
        ) from error
