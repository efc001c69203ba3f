"""Starts of variational fits, whose posteriors have many optima, too: k-means, and random rows."""

from dataclasses import replace
from typing import Final

import numpy as np

from dgmm.em.first_mixtures import first_mixtures
from dgmm.em.fit_context import FitContext
from dgmm.em.scouts import affordable
from dgmm.em.solver import RunState, StopRule, ranked
from dgmm.em.spec import FitSpec
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import ABREAST, Samples, Subsample
from dgmm.model.mixture import Mixture

RACEABLE: Final = 5
"""With fewer rows for each free parameter there is no race, and no larger part of the sample."""

POSTERIOR: Final = 0.1
"""How much nearer its end a variational posterior is to be: components lose their rows slowly."""

POSTERIORS: Final = {"low": 0, "auto": 7, "high": 31}
"""Starts at random rows on the way to one, where rows are few, by ``effort``."""

POSTERIOR_SWEEPS: Final = 300
"""Sweeps of a sample at most, on the way to a variational posterior."""

RACE_PART: Final = 8
RACE_SWEEPS: Final = 100
"""Where rows are many they race on this part of a sample, for so many sweeps at most: what that
costs is a third of what the sample's own sweeps do, at most."""


def from_posteriors(
    context: FitContext, spec: FitSpec, samples: Samples, stop: StopRule
) -> list[RunState]:
    """The run from the best of starts whose posteriors a sample led to.

    Posteriors have many optima, as likelihoods have: where nobody named a start or how many, random
    rows compete with k-means.  Where rows are many they race on a part of the sample first.

    Its components are in the order of their weights: where these are broken off a stick, the bound
    is higher with the large ones first.
    """
    starts = first_mixtures(context, spec, samples, ours=True)
    whole = len(samples.sample.keys)
    more, rows = _more_posteriors(context, spec, whole)
    if more:
        others = replace(spec, init_params="random_from_data", n_init=more)
        starts += first_mixtures(context, others, samples, ours=True)
    if more and rows < whole:
        starts = _raced(samples.part(rows, context), starts, stop)
    subsample = samples.subsample(whole, context)
    stop = replace(stop, target=POSTERIOR * stop.target)
    near = replace(stop, max_iter=POSTERIOR_SWEEPS)
    with subsample.stage():
        runs = subsample.refine(
            [Squarem().init(subsample.context, start, near) for start in starts]
        )
    best = runs[ranked(run.best.objective for run in runs)[0]].best.mixture
    if not spec.observation.labelled:  # else components have names
        best = best.chosen(np.argsort(-best.weights, kind="stable"))
    return [Squarem().init(context, best, stop)]


def _more_posteriors(context: FitContext, spec: FitSpec, sampled: int) -> tuple[int, int]:
    """How many starts at random rows there may be beside the first, and on how many rows.

    There are none where a part of the sample has too few rows to tell them apart.
    """
    named = spec.init_params != "auto" or spec.observation.labelled or spec.n_init > 1
    n_features, more = len(context.frame.shift), 0 if named else POSTERIORS[spec.effort]
    if affordable(spec.components, sampled, n_features):
        return more, sampled
    rows = sampled // RACE_PART
    return more if rows >= RACEABLE * spec.parameters(n_features) else 0, rows


def _raced(part: Subsample, starts: list[Mixture], stop: StopRule) -> list[Mixture]:
    """The first of ``starts``, and where the best others lead on a ``part`` of the sample.

    They are those that are better there than the first, which the whole sample may yet prefer.
    """
    resolution = part.resolution(starts[0])
    near = replace(stop, max_iter=RACE_SWEEPS, target=POSTERIOR * resolution)
    with part.stage():
        runs = part.refine([Squarem().init(part.context, start, near) for start in starts])
    ends = [run.best for run in runs]
    kept, least = [ends[0]], POSTERIOR * POSTERIOR * resolution
    for place in ranked(end.objective for end in ends):
        better = ends[place].objective - ends[0].objective > least
        if better and all(abs(ends[place].objective - each.objective) > least for each in kept):
            kept.append(ends[place])
    return [starts[0], *(end.mixture for end in kept[1:ABREAST])]
