"""A start where rows are few: many mixtures at once, as one, in a few calls for all.

What a sweep over a few thousand rows costs is mostly being called: for a mixture, Python takes ten
times as long as the compiled kernel.  So those that compete for a start (race.py, split_merge.py)
lie one after the other in one ``Mixture``, whose components are those of all.  An M-step goes by
components, and so do natural parameters: only the weights, and what rows say, are of each mixture
by itself.

It is plain EM, which all can make in step, and twice as many sweeps of it as SQUAREM makes there.
Components must have nothing in common, and there must be nothing besides them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from dgmm.em.evaluate import swept_statistics
from dgmm.em.init import Random
from dgmm.em.race import seeds
from dgmm.em.solver import ranked
from dgmm.em.split_merge import FINALISTS, candidates, effort, moved_mixtures
from dgmm.em.subsamples import Subsample
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

SMALL: Final = 5_000_000
"""Rows times numbers in sums: with more, the arithmetic is what a sweep costs, and SQUAREM's sweeps
are worth more."""

ENOUGH: Final = 100
"""Seeds are made of half the rows, if these are so many for each component; else of so many."""

RACED: Final = 12
"""Sweeps of all seeds before the best is chosen, and of that one after."""

SHORT: Final = 8
LONG: Final = 16
"""Sweeps of all trials, and of the best few and the mixture itself."""


def serves(subsample: Subsample, components: int) -> bool:
    """Whether a start is found this way on a ``subsample``."""
    model, rows = subsample.context.model, subsample.sample.rows
    covariance_model, seen = model.covariance_model, model.observation
    apart = covariance_model.common_parameters(rows.shape[1]) == 0
    apart = apart and not covariance_model.along_loadings and model.prior.is_likelihood
    more = (model.noise_component, model.tails, model.fixed)
    plain = not (seen.holes or seen.deconvolves or seen.labelled)
    width = covariance_model.features.width(rows.shape[1])
    small = len(rows) * components * width <= SMALL
    return small and apart and plain and all(each is None for each in more)


def start(
    subsample: Subsample, components: int, random: Random, moves: bool
) -> tuple[Mixture, int]:
    """A first mixture, and in how many rounds ``moves`` made it better.

    The likeliest of a few seeds is taken apart for as long as that helps.
    """
    context, rows = subsample.context, len(subsample.sample.keys)
    some = subsample.sample.first(min(rows, max(rows // 2, ENOUGH * components)))
    first = seeds(some, context, components, random)
    best = Abreast.of(subsample, first).swept(RACED).best(1).swept(RACED)
    rounds, trials = effort(components)
    for helped in range(rounds * moves):
        if subsample.cost.deadline.passed:
            return best.at(0), helped
        mixture = best.at(0)
        moved = moved_mixtures(subsample, mixture, candidates(subsample, mixture, trials))
        if not moved:
            return mixture, helped
        tried = Abreast.of(subsample, moved).swept(SHORT).best(FINALISTS)
        both = best.beside(tried).swept(LONG)
        worth = subsample.resolution(mixture) / components
        if both.objectives[1:].max() - both.objectives[0] < worth:
            return both.at(0), helped
        best = both.best(1)
    return best.at(0), rounds * moves


@dataclass(frozen=True)
class Abreast:
    """S mixtures of K components each, side by side on a sample.

    Attributes
    ----------
    subsample : Subsample
    mixture : Mixture
        Of S K components; its weights sum to S.
    objectives : (S,)
        Of the mixtures before the last M-step, but for the frame's volume; -inf before the first.
    """

    subsample: Subsample
    mixture: Mixture
    objectives: Array

    @classmethod
    def of(cls, subsample: Subsample, mixtures: Sequence[Mixture]) -> Self:
        """Some ``mixtures`` of as many components each, before their first sweep."""
        return cls(subsample, _joined(mixtures), np.full(len(mixtures), -np.inf))

    def at(self, place: int) -> Mixture:
        """The mixture at a ``place``."""
        return self._chosen([place]).mixture

    def best(self, count: int) -> Self:
        """The ``count`` mixtures of the highest objective, the best first."""
        return self._chosen(ranked(self.objectives.tolist())[:count])

    def beside(self, other: Self) -> Self:
        """These mixtures, and then those of ``other``."""
        objectives = np.concatenate([self.objectives, other.objectives])
        return replace(self, mixture=_joined([self.mixture, other.mixture]), objectives=objectives)

    def swept(self, sweeps: int) -> Self:
        """The mixtures after so many ``sweeps`` of EM; after one, if time is up."""
        many = self
        single = self.subsample.context.single_bound(self.mixture) < np.inf
        for _ in range(sweeps):
            many = many._stepped(single)
            if many.subsample.cost.deadline.passed:
                break
        return many

    def _chosen(self, places: list[int]) -> Self:
        """The mixtures at ``places``, in that order."""
        size = self.mixture.components // len(self.objectives)
        own = (np.array(places)[:, None] * size + np.arange(size)).ravel()
        return replace(self, mixture=self.mixture.chosen(own), objectives=self.objectives[places])

    def _stepped(self, single: bool) -> Self:
        """The mixtures after one sweep, in ``single`` precision or in double."""
        context, count = self.subsample.context, len(self.objectives)
        naturals = context.natural(self.mixture, single).parts(count)
        found = swept_statistics(self.subsample.sweep, context, naturals)
        self.subsample.cost.swept(len(self.subsample.sample.rows) * self.mixture.components)
        together = Statistics(
            np.concatenate([each.sums for each in found]),
            np.concatenate([each.center for each in found]),
            *(0.0, 0.0, count * context.weight, count * found[0].rows),
        )
        stepped = context.m_step_of(together, self.mixture).mixture
        objectives = np.array([each.objective for each in found]) / context.weight
        weights = stepped.weights.reshape(count, -1)
        weights = (weights / weights.sum(axis=1, keepdims=True)).ravel()
        return replace(self, mixture=replace(stepped, weights=weights), objectives=objectives)


def _joined(mixtures: Sequence[Mixture]) -> Mixture:
    """One mixture of the components of all."""
    weights, means = (
        np.concatenate([getattr(each, name) for each in mixtures]) for name in ("weights", "means")
    )
    values, factors = (
        np.concatenate([getattr(each.covariances, name) for each in mixtures])
        for name in ("values", "precisions_cholesky")
    )
    covariances = mixtures[0].covariance_model.of_factors(values, factors, means.shape)
    return Mixture(weights, means, covariances)
