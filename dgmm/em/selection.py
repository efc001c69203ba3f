"""Choosing a mixture: many candidates fitted side by side, in the sweeps of one fit (fit.py).

A candidate is a number of components and a covariance model.  After each sweep those leave that are
not expected to win any more: one whose criterion, if it gained ``OPTIMISM`` times what it is
estimated to have left to gain (``CAUTION`` times, if no samples showed it the way), would still be
worse than another's is already.  What is left at the end are fitted models; the best needs no
refit.

**Singular components.**  A component on rows that have no spread in some direction, such as rows
with ties, has a likelihood without a bound: what it comes to is up to ``reg_covar``.  A candidate
with such a component is not comparable.  So it is fitted again from other starts, ``REFITS`` times
at most, and if it stays singular, it is left out of the ranking, unless all are.  Candidates that
were dropped for the sake of one that turned out so come back.

**Criteria** (criteria.py): those that are not a formula of the likelihood are measured by sweeps of
their own, after the first, second, fourth, eighth ... sweep of the candidates, to drop the losers,
and after the last.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import RandomState

from dgmm.em.criteria import Compared, Criterion
from dgmm.em.holdout import HELD, Counted
from dgmm.em.moments import DataMoments
from dgmm.em.progress import Candidate, all_begun, comparable
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Samples
from dgmm.model.statistics import WeightedSum

OPTIMISM: Final = 2.0
CAUTION: Final = 10.0
"""How many times its estimate a gain may turn out to be, after fits to subsamples and without."""

REFITS: Final = 2
"""How often a candidate with a singular component is fitted again."""


Candidates = tuple[Candidate, ...]


class Choice(ABC):
    """What is to be chosen of the candidates, and by what."""

    __slots__ = ()

    @property
    @abstractmethod
    def held(self) -> float | None:
        """The share of the rows that is held out; None if all are fitted to."""

    @property
    @abstractmethod
    def measures(self) -> bool:
        """Whether candidates are judged by sweeps of their own."""

    @abstractmethod
    def title(self, spec: FitSpec) -> str:
        """What work on samples for one of the candidates is called; nothing for the only one."""

    @abstractmethod
    def is_due(self, rounds: int, candidates: Candidates) -> bool:
        """Whether such a sweep comes next, after so many ``rounds`` of all that run."""

    @abstractmethod
    def judged(self, sweep: Counted, candidates: Candidates, weight: float) -> Candidates:
        """Candidates with their criteria, without those that can't win any more."""

    @abstractmethod
    def again(
        self, candidates: Candidates, moments: DataMoments, samples: Samples, seed: int
    ) -> Candidates:
        """Candidates none of which runs, with what else is to be tried."""


@dataclass(frozen=True)
class Single(Choice):
    """A fit: there is one candidate, and it stays, however it ends."""

    @property
    def held(self) -> float | None:
        return None

    @property
    def measures(self) -> bool:
        return False

    def title(self, spec: FitSpec) -> str:
        return ""

    def is_due(self, rounds: int, candidates: Candidates) -> bool:
        return False

    def judged(self, sweep: Counted, candidates: Candidates, weight: float) -> Candidates:
        return candidates

    def again(
        self, candidates: Candidates, moments: DataMoments, samples: Samples, seed: int
    ) -> Candidates:
        return candidates


@dataclass(frozen=True)
class Selection(Choice):
    """The best of the candidates by a ``criterion``.

    Attributes
    ----------
    criterion : Criterion
    share : float
        Of the rows: is held out, if the criterion wants that.
    """

    criterion: Criterion
    share: float = HELD

    @property
    def held(self) -> float | None:
        return self.share if self.criterion.holds_out else None

    @property
    def measures(self) -> bool:
        return self.criterion.measure is not None

    def title(self, spec: FitSpec) -> str:
        return title(spec)

    def is_due(self, rounds: int, candidates: Candidates) -> bool:
        ended = not any(candidate.running for candidate in candidates)
        return self.measures and (rounds.bit_count() == 1 or ended)

    def judged(self, sweep: Counted, candidates: Candidates, weight: float) -> Candidates:
        valued = _valued(sweep, self.criterion, candidates, weight)
        return _dropped(self.criterion, valued, weight, sweep.passes)

    def again(
        self, candidates: Candidates, moments: DataMoments, samples: Samples, seed: int
    ) -> Candidates:
        with samples.cost.timed():
            tried = _refitted(candidates, moments, samples, seed)
        return _revived(self.criterion, tried, moments.weight)


def title(spec: FitSpec) -> str:
    """What a candidate is called."""
    return f"{spec.components} components, {spec.covariance_model.name}"


def _refitted(
    candidates: Candidates, moments: DataMoments, samples: Samples, seed: int
) -> Candidates:
    """Candidates with more runs, from other starts, where all that they have ended singular."""
    again = [at for at, candidate in enumerate(candidates) if _can_be_refitted(candidate)]
    refitted = [replace(candidates[at], refits=candidates[at].refits + 1) for at in again]
    specs = [
        replace(
            candidate.spec, random=RandomState((seed, candidate.spec.components, candidate.refits))
        )
        for candidate in refitted
    ]
    begun = all_begun(refitted, specs, moments, samples, [title(spec) for spec in specs])
    now = dict(zip(again, begun, strict=True))
    return tuple(now.get(at, candidate) for at, candidate in enumerate(candidates))


def _can_be_refitted(candidate: Candidate) -> bool:
    """Whether all that it has ended singular, and other starts may be tried."""
    if candidate.spec.given or candidate.dropped is not None or candidate.refits == REFITS:
        return False
    return bool(candidate.unbounded)


def _revived(criterion: Criterion, candidates: Candidates, weight: float) -> Candidates:
    """Candidates with those back that were dropped for one that turned out to be singular."""
    stayed = [candidate for candidate in candidates if candidate.dropped is None]
    if any(candidate.running for candidate in stayed):
        return candidates
    # A cured one has a new value.
    if not any(candidate.unbounded or candidate.refits for candidate in stayed):
        return candidates
    best = min((candidate.value for candidate in stayed if not candidate.unbounded), default=np.inf)
    return tuple(
        replace(candidate, dropped=None, refits=candidate.refits + 1)
        if candidate.dropped is not None
        and candidate.refits < REFITS
        and not candidate.unbounded
        and _attainable(criterion, candidate, weight) < best
        else candidate
        for candidate in candidates
    )


def _valued(
    sweep: Counted, criterion: Criterion, candidates: Candidates, weight: float
) -> Candidates:
    """Candidates with their criteria, measured where that is needed."""
    alive = [i for i, candidate in enumerate(candidates) if candidate.dropped is None]
    measured: list[WeightedSum | None] = [None] * len(alive)
    if criterion.measure is not None:
        mixtures = tuple(candidates[i].mixture for i in alive)
        compared = Compared(mixtures, candidates[0].context.model.observation)
        measured = list(sweep(criterion.measure, compared, held=True).parts)
    valued = list(candidates)
    for i, measure in zip(alive, measured, strict=True):
        best = candidates[i].run.best
        parameters = candidates[i].context.model.free_parameters(best.mixture)
        value = criterion.value(best, parameters, weight, measure)
        valued[i] = replace(candidates[i], value=value)
    return tuple(valued)


def _dropped(
    criterion: Criterion, candidates: Candidates, weight: float, passes: int
) -> Candidates:
    """Candidates without those that run and are not expected to win any more."""
    best = min(candidate.value for candidate in comparable(candidates))
    return tuple(
        replace(candidate, dropped=passes)
        if candidate.running and _attainable(criterion, candidate, weight) > best
        else candidate
        for candidate in candidates
    )


def _attainable(criterion: Criterion, candidate: Candidate, weight: float) -> float:
    """The criterion that a candidate may still get to."""
    run = candidate.run
    gain = (OPTIMISM if run.starts else CAUTION) * run.gap_estimate
    return candidate.value - criterion.worth(gain, weight)
