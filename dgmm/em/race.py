"""A good start: a few seeds on a small sample, of which the likeliest wins.

The seeds are of several kinds, because none is best everywhere: breathing k-means, k-means, and
k-means++ (clustering.py).  All run EM side by side, sharing each sweep; after a few the best goes
on alone (emEM of Biernacki, Celeux and Govaert, 2003).  They are ranked by the mixture's
likelihood, which is what is wanted, not by the squared distances that k-means lowers.

What counts is how many rows a component has, not how many a parameter has: samples of twice as many
rows as parameters were enough.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from dgmm.em.clustering import clusters
from dgmm.em.degenerate import WORTH, unbounded
from dgmm.em.fit_context import FitContext
from dgmm.em.init import Random, cautious, labelled, mixture_of, standard, standardised
from dgmm.em.isolation import views
from dgmm.em.sample import Sample
from dgmm.em.solver import RunState, StopRule, ranked
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.model.mixture import Mixture

KINDS: Final = ("breathing", "kmeans", "k-means++")

SWEEPS_PER_ROUND: Final = 6
"""Sweeps of all seeds before the best is chosen, and of that one after."""

SWEEPS: Final = SWEEPS_PER_ROUND * (len(KINDS) + 1)
"""How many sweeps of its sample a race makes."""

ROUGH: Final = StopRule(1000, rough=True)
"""When runs that compete end: they are stopped before."""

EACH: Final = 100
LEAST: Final = 4000
"""Rows that seeds are made of: so many for each component, and at least."""


def race(subsample: Subsample, components: int, random: Random) -> RunState:
    """The run of the likeliest mixture of so many components found on a ``subsample``."""
    context = subsample.context
    starts = [
        context.model.begun(seed, view.weight)
        for view in views(subsample.sample, context, components)
        for seed in seeds(view.sample, context, components, random)
    ]
    runs = [Squarem().init(subsample.context, start, ROUGH) for start in starts]
    runs = subsample.refine(runs, SWEEPS_PER_ROUND)
    first = ranked(map(objective, runs))[0]
    (run,) = subsample.refine([runs[first]], SWEEPS_PER_ROUND)
    return run


def seeded(
    sample: Sample, context: FitContext, components: int, kind: str, random: Random
) -> Mixture:
    """A first mixture (in the frame) of clusters of some of a sample's rows."""
    (mixture,) = seeds(sample, context, components, random, (kind,))
    return mixture


def seeds(
    sample: Sample,
    context: FitContext,
    components: int,
    random: Random,
    kinds: Sequence[str] = KINDS,
) -> list[Mixture]:
    """First mixtures (in the frame), one of each of ``kinds``, of some of a sample's rows."""
    n_features = sample.rows.shape[1]
    size = max(max(EACH, 5 * (n_features + 2)) * components, LEAST)
    sample = sample.first(min(size, len(sample.keys)))
    view = standardised(sample.rows, standard(sample.rows, context.model.covariance_model))
    found = []
    for kind in kinds:
        labels = clusters(view, sample.weights, components, kind, random)
        order = np.argsort(labels, kind="stable")  # so that a part of the rows is of few components
        drawn = labelled(labels[order], components)
        made = mixture_of(sample.chosen(order), context, drawn, components)
        found.append(cautious(made, len(labels)))
    return found


def objective(run: RunState) -> float:
    """What runs are ranked by.

    With heavy tails one whose likelihood has no bound, as a component is on a row or two far away,
    is ranked below the others.
    """
    best = run.best
    astray = run.context.model.tails is not None and unbounded(best, run.context)
    return best.objective - WORTH * bool(astray)
