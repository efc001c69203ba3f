"""Starts where rows have labels: component k begins at the rows that are known to be of it.

A start is k-means in which rows stay where their labels say (Basu, Banerjee and Mooney,
Semi-supervised clustering by seeding, 2002): centres begin at the means of the rows known to be of
each component, those of the other components at rows drawn far from these, as k-means++ draws them.
Where there are such components, several starts race.  Nothing is taken apart, as that would change
which component is which.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em import isolation
from dgmm.em.fit_context import FitContext
from dgmm.em.init import Random, cautious, labelled, mixture_of, standard, standardised
from dgmm.em.race import EACH, LEAST, ROUGH, SWEEPS_PER_ROUND, objective
from dgmm.em.sample import Sample
from dgmm.em.solver import ranked
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Subsample
from dgmm.kernels.labels import FREE, allowed, sole
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

TRIES: Final = 8
"""How many starts race, and k-means of each, where components are to be found of which no row is
known."""

LLOYD: Final = 30
"""Iterations of k-means at most."""


def found(subsample: Subsample, components: int, random: Random) -> Mixture:
    """A start (in the frame) on a ``subsample`` whose rows have labels."""
    sample, context = subsample.sample, subsample.context
    assert sample.labels is not None
    settled = len(np.unique(sole(sample.labels)[sole(sample.labels) != FREE])) == components
    tries = 1 if settled else TRIES
    starts = [_with_noise(sample, context, components, random) for _ in range(tries)]
    if settled:
        return starts[0]
    runs = [Squarem().init(context, start, ROUGH) for start in starts]
    runs = subsample.refine(runs, SWEEPS_PER_ROUND)
    return runs[ranked(map(objective, runs))[0]].best.mixture


def several(subsample: Subsample, components: int, wanted: int, random: Random) -> list[Mixture]:
    """As many starts as are ``wanted``."""
    return subsample.cost.several(wanted, lambda: found(subsample, components, random))


def _with_noise(sample: Sample, context: FitContext, components: int, random: Random) -> Mixture:
    """A first mixture, with noise if that is wanted."""
    return isolation.start(
        sample, context, components, lambda seen: seeded(seen, context, components, random)
    )


def seeded(sample: Sample, context: FitContext, components: int, random: Random) -> Mixture:
    """A first mixture (in the frame) of clusters of some of a sample's rows, which have labels."""
    n_features = sample.rows.shape[1]
    size = max(max(EACH, 5 * (n_features + 2)) * components, LEAST)
    sample = sample.first(min(size, len(sample.keys)))
    assert sample.labels is not None
    view = standardised(sample.rows, standard(sample.rows, context.model.covariance_model))
    known, may = sole(sample.labels), allowed(sample.labels, components)
    tries = 1 if len(np.unique(known[known != FREE])) == components else TRIES
    clusterings = [_clusters(view, sample.weights, known, may, random) for _ in range(tries)]
    _, labels = min(clusterings, key=lambda each: each[0])
    order = np.argsort(labels, kind="stable")
    drawn = labelled(labels[order], components)
    return cautious(mixture_of(sample.chosen(order), context, drawn, components), len(labels))


def _clusters(
    rows: Array,
    weights: Array,
    known: NDArray[np.int64],
    may: NDArray[np.bool_],
    random: Random,
) -> tuple[float, NDArray[np.int64]]:
    """The error, and the cluster (n,) of each of ``rows`` (n, D), one that it ``may`` (n, K) be of.

    ``known`` (n,) are the components that rows are known to be of, ``FREE`` where that isn't known.
    """
    centres = _seeds(rows, weights, known, may, random)
    labels, error = np.full(len(rows), -1), np.inf
    for _ in range(LLOYD):
        away = _away(rows, centres, may)
        nearest, error = away.argmin(axis=1), float(weights @ away.min(axis=1))
        if (nearest == labels).all():
            break
        labels = nearest
        for k in np.unique(labels):
            inside = labels == k
            centres[k] = np.average(rows[inside], axis=0, weights=weights[inside])
    return error, labels


def _seeds(
    rows: Array,
    weights: Array,
    known: NDArray[np.int64],
    may: NDArray[np.bool_],
    random: Random,
) -> Array:
    """First centres (K, D): means of rows that are known, and rows far from these."""
    components = may.shape[1]
    centres, there = np.zeros((components, rows.shape[1])), np.zeros(components, bool)
    for k in np.unique(known[known != FREE]):
        inside = known == k
        centres[k], there[k] = np.average(rows[inside], axis=0, weights=weights[inside]), True
    for k in np.flatnonzero(~there):
        chances = np.where(may[:, k] & (known == FREE), weights, 0.0)
        if not chances.any():  # of none of the sample
            chances = weights
        if there.any():
            away = _away(rows, centres[there], np.ones((len(rows), int(there.sum())), bool))
            far = chances * away.min(axis=1)
            chances = far if far.any() else chances
        centres[k] = rows[random.choice(len(rows), p=chances / chances.sum())]
        there[k] = True
    return centres


def _away(rows: Array, centres: Array, may: NDArray[np.bool_]) -> Array:
    """The squared distances (n, K) of rows from centres; infinity where a row may not be."""
    square = (rows * rows).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
    away = np.maximum(square - 2 * rows @ centres.T, 0.0)
    return np.where(may, away, np.inf)
