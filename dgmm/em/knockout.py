"""Starts where rows are few, of models that scouts don't know: heavy tails, and factors.

Three dozen seeds run EM on all rows; the worse leave, the rest run on, and so on (emEM of
Biernacki, Celeux and Govaert, 2003).  Most are rows given to the nearest of K rows drawn as
k-means++ draws them, as no one start leads to the best optimum everywhere.  The last few go to
their ends where these are what is wanted (finals.py); what is a start for more rows is the best.

They go by their likelihood.  But one that has no bound, as a component is on a row or two, is
ranked below the others, and so is one of a component that hardly has rows enough for its shape.
"""

from typing import Final

import numpy as np

from dgmm.em.expectation_maximization import EM
from dgmm.em.finals import best_end, different, worth
from dgmm.em.init import Random
from dgmm.em.isolation import views
from dgmm.em.race import KINDS, ROUGH, seeds
from dgmm.em.solver import RunState, ranked
from dgmm.em.subsamples import Subsample
from dgmm.model import statistics
from dgmm.model.covariance_model import CovarianceModel

ROWS: Final = 5000
"""Rows at most."""

MOST: Final = 36
LEAST: Final = 9
"""How many seeds there are, or so many as ``WORK`` allows; with fewer, a race will do as well."""

WORK: Final = 3e7
"""Seeds times rows times the numbers that a mixture has."""

ROUNDS: Final = ((8, 12), (12, 6), (40, 4))
"""How many sweeps there are, and how many of ``MOST`` seeds go on after them."""

HELD: Final = 16
"""How many times its statistics the run of a seed takes, with its mixtures, at most."""

FINAL: Final = 40
"""How many sweeps there are of each of the last few on its way to its end, about."""


def tries(
    covariance_model: CovarianceModel, student: bool, components: int, shape: tuple[int, int]
) -> int:
    """How many seeds are to run on rows of that ``shape``; 0 if that is not done there.

    It is for factors, and where components are t distributions.
    """
    rows, n_features = shape
    unknown = student or covariance_model.along_loadings
    if components == 1 or rows > ROWS or not unknown:
        return 0
    own = 1 + n_features + covariance_model.own_parameters(n_features)
    count = int(min(MOST, WORK / (rows * components * own)))
    return count if count >= LEAST else 0


def passes(count: int) -> int:
    """How many sweeps of one mixture so many seeds make, and the finals of the last."""
    sweeps, beside = 0, count
    for each, left in ROUNDS:
        sweeps += each * beside
        beside = min(left * _times(count), beside)
    return sweeps + FINAL * beside


def nbytes(covariance_model: CovarianceModel, components: int, n_features: int, count: int) -> int:
    """What the runs of so many seeds take, side by side."""
    width = covariance_model.centred_features.width(n_features)
    return HELD * count * statistics.nbytes(components, width, n_features)


def _times(count: int) -> int:
    """How many times ``MOST`` seeds these are."""
    return max(1, count // MOST)


def leading(subsample: Subsample, components: int, count: int, random: Random) -> list[RunState]:
    """The last few of so many seeds, the best first.

    Each share of rows that may be noise has some of them.
    """
    context, parts = subsample.context, views(subsample.sample, subsample.context, components)
    kinds = (*KINDS, *["k-means++"] * (count // len(parts) - len(KINDS)))
    mixtures = [
        context.model.begun(seed, view.weight)
        for view in parts
        for seed in seeds(view.sample, context, components, random, kinds)
    ]
    for sweeps, left in ROUNDS:
        runs = [EM().init(context, each, ROUGH) for each in mixtures]
        runs = subsample.refine(runs, sweeps)
        best = [runs[place] for place in ranked(map(worth, runs))[: left * _times(count)]]
        mixtures = [run.best.mixture for run in best]
    return best


def best_of_seeds(
    subsample: Subsample, components: int, count: int, random: Random
) -> tuple[RunState, int]:
    """The best end of so many seeds on a ``subsample``, and how many different ones led."""
    runs = leading(subsample, components, count, random)
    apart = subsample.resolution(runs[0].best.mixture) / 10
    places = different(np.array([run.best.objective for run in runs]), apart)
    return best_end(subsample, [[runs[place].best.mixture for place in places]]), len(places)
