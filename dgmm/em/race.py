"""A good start: a few seeds on a small sample, of which the likeliest wins.

The seeds are of several kinds, because none is best everywhere: breathing k-means, k-means, and
k-means++ (clustering.py).  All run EM side by side, sharing each sweep; after a few the best goes
on alone (emEM of Biernacki, Celeux and Govaert, 2003).  They are ranked by the mixture's
likelihood, which is what is wanted, not by the squared distances that k-means lowers.

What counts is how many rows a component has, not how many a parameter has: samples of twice as many
rows as parameters were enough.
"""

from typing import Final

import numpy as np

from dgmm.em.clustering import clusters
from dgmm.em.evaluate import Setting
from dgmm.em.ladder import Rung
from dgmm.em.sample import Sample
from dgmm.em.seeding import Random, cautious, labelled, mixture_of, standard, standardised
from dgmm.em.squarem import Squarem
from dgmm.em.walk import Stop, Walk
from dgmm.model.mixture import Mixture

KINDS: Final = ("breathing", "kmeans", "k-means++")

HEAT: Final = 6
"""Sweeps of all seeds before the best is chosen, and of that one after."""

SWEEPS: Final = HEAT * (len(KINDS) + 1)
"""How many sweeps of its sample a race makes."""

ROUGH: Final = Stop(1000, rough=True)
"""When walks that compete end: they are stopped before."""

EACH: Final = 100
LEAST: Final = 4000
"""Rows that seeds are made of: so many for each component, and at least."""


def race(rung: Rung, components: int, random: Random) -> Walk:
    """The walk of the likeliest mixture of so many components found on a ``rung``."""
    starts = [seeded(rung.sample, rung.setting, components, kind, random) for kind in KINDS]
    walks: list[Walk] = [Squarem.of(rung.setting, start, ROUGH) for start in starts]
    walks = sorted(rung.climb(walks, HEAT), key=objective, reverse=True)
    (walk,) = rung.climb(walks[:1], HEAT)
    return walk


def seeded(sample: Sample, setting: Setting, components: int, kind: str, random: Random) -> Mixture:
    """A first mixture (in the frame) of clusters of some of a sample's rows."""
    dims = sample.rows.shape[1]
    size = max(max(EACH, 5 * (dims + 2)) * components, LEAST)
    sample = sample.first(min(size, len(sample.keys)))
    view = standardised(sample.rows, standard(sample.rows, setting.structure))
    labels = clusters(view, sample.weights, components, kind, random)
    order = np.argsort(labels, kind="stable")  # so that a part of the rows is of few components
    drawn = labelled(labels[order], components)
    return cautious(mixture_of(sample.chosen(order), setting, drawn, components), len(labels))


def objective(walk: Walk) -> float:
    """What walks are ranked by."""
    return walk.best.objective
