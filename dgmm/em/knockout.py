"""Starts where rows are few, of models that scouts don't know: heavy tails, and factors.

Two dozen seeds run EM on all rows; the worse leave, the rest run on, and so on (emEM of
Biernacki, Celeux and Govaert, 2003).  Most are rows given to the nearest of K rows drawn as
k-means++ draws them, as no one start leads to the best optimum everywhere.

They go by their likelihood.  But one that has no bound, as a component is on a row or two, is
ranked below the others, and so is one of a component that hardly has rows enough for its shape.
"""

from typing import Final

from dgmm.em.degenerate import WORTH, enough_rows, unbounded
from dgmm.em.expectation_maximization import EM
from dgmm.em.init import Random
from dgmm.em.isolation import views
from dgmm.em.race import KINDS, ROUGH, seeds
from dgmm.em.solver import RunState, ranked
from dgmm.em.subsamples import Subsample

ROWS: Final = 5000
"""Rows at most."""

MOST: Final = 24
LEAST: Final = 6
"""How many seeds there are, or so many as ``WORK`` allows; with fewer, a race will do as well."""

WORK: Final = 2e7
"""Seeds times rows times the numbers that a mixture has."""

ROUNDS: Final = ((8, 8), (12, 4), (40, 1))
"""How many sweeps there are, and how many seeds go on after them."""


def tries(subsample: Subsample, components: int) -> int:
    """How many seeds are to run on a ``subsample``; 0 if that is not done there."""
    rows, model = subsample.sample.rows, subsample.context.model
    unknown = model.tails is not None or model.covariance_model.along_loadings
    if components == 1 or len(rows) > ROWS or not unknown:
        return 0
    own = 1 + rows.shape[1] + model.covariance_model.own_parameters(rows.shape[1])
    count = int(min(MOST, WORK / (len(rows) * components * own)))
    return count if count >= LEAST else 0


def survivor(subsample: Subsample, components: int, count: int, random: Random) -> RunState:
    """The run of the best of so many seeds; each share of rows that may be noise has some."""
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
        best = [runs[place] for place in ranked(map(_worth, runs))[:left]]
        mixtures = [run.best.mixture for run in best]
    return best[0]


def _worth(run: RunState) -> float:
    """What runs are ranked by."""
    best = run.best
    enough = enough_rows(run.context.model.covariance_model, best.mixture.n_features)
    full = bool(best.mixture.weights.min() * best.statistics.rows > enough - 0.5)
    return best.objective + WORTH * (full + (not unbounded(best, run.context)))
