"""Where a fit begins, and what finding that may cost.

Starts are found on a small part of the sample: by a race of seeds (race.py), whose winner is taken
apart where that helps (split_merge.py); where rows are few, in few calls for all (abreast.py), and
of factors and heavy tails by many seeds (knockout.py).  Where it helped, the likelihood has many
optima, and other starts may lead to better ones: then there are several, as many as the effort
allows.  High effort does not trust the first start that can't be bettered.

**The budget** is planned like memory, from the numbers of rows, features and components alone: so
it does not depend on how busy a machine is, and the same fit finds the same start.  It is in
passes: how many passes over all rows the same arithmetic would be.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dgmm.em import abreast, isolation, knockout, quasi_newton, race, sample, split_merge, splits
from dgmm.em.cost import Cost
from dgmm.em.deadline import Deadline
from dgmm.em.fit_context import FitContext
from dgmm.em.init import Random, seeded
from dgmm.em.sample import Sample
from dgmm.em.subsamples import MANY_SWEEPS, Elsewhere, InMemorySweep, Samples, Subsample
from dgmm.model.mixture import Mixture

Effort = Literal["low", "auto", "high"]
"""The names of ``EFFORTS``."""

EFFORTS: Final = {"low": (0.0, 1, 1), "auto": (12.0, 4, 1), "high": (60.0, 32, 4)}
"""How many passes over all rows the starts that nobody asked for may be worth, about; how many
there may be: twice as many where there are fewer than ``FEW`` parameters; and how many there are in
any case, and are enough if they can't be bettered."""

FEW: Final = 500
ROOM: Final = 512 << 20
"""What the runs from all starts may take, in bytes."""

SWEPT: Final = 150_000
"""What a sweep costs however few the rows, in rows times components."""

LEAST: Final = 5000
EACH: Final = 30
SHARE: Final = 50
PLENTY: Final = 100_000
SOME: Final = 20
"""Starts are found on so many rows at least; for each component, ``EACH`` (D + 1); of all rows, one
in ``SHARE``, as far as ``PLENTY`` goes; and for each free parameter, ``SOME``, as far as a 16th of
all rows goes."""

FEWER: Final = 2
"""``LEAST`` holds up to this part of all rows; else they are no more than the largest subsample."""

COPIES: Final = 3
"""Of the rows that a start is looked for on: what was sent, a part of it, and that in the frame."""

ROUNDS: Final = 2
"""How many rounds of splitting and merging a start takes, about."""

TOP: Final = 8
"""The largest subsample is this part of all rows, if the sample has so many."""

INFORMING: Final = 40_000
"""Rows at most that the information is taken from."""

PARAMETERS: Final = 150
"""How many parameters at most it is taken for."""


@dataclass(frozen=True)
class Budget:
    """What finding a start may cost.

    Attributes
    ----------
    rows : int
        How many rows starts are found on.
    starts : int
        How many there are at most.
    subsamples : tuple of int
        On how many rows they go on from there.
    passes : float
        How many passes over all rows that is worth, about.
    smooth : int
        How many starts that can't be bettered are enough.
    """

    rows: int
    starts: int
    subsamples: tuple[int, ...]
    passes: float
    smooth: int = 1

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        components: int,
        parameters: int,
        sampled: int,
        effort: str,
        wanted: int = 1,
        named: bool = False,
    ) -> "Budget":
        """For rows of that ``shape``, of which so many are ``sampled``; ``wanted`` starts at least.

        A start by a method that is ``named`` is one, unless more are wanted.
        """
        count, n_features = shape
        least = max(
            EACH * (n_features + 1) * components, LEAST, min(SOME * parameters, count // 16)
        )
        few = max(count // TOP, min(LEAST, count // FEWER), 1)
        rows = min(max(min(count // SHARE, PLENTY), least), few, sampled)
        each = (race.SWEEPS + ROUNDS * split_merge.SWEEPS) * (rows * components + SWEPT)
        worth, most, smooth = EFFORTS[effort]
        starts = max(int(worth * count * components / each), smooth)
        most = min(most if parameters >= FEW else 2 * most, ROOM // quasi_newton.nbytes(parameters))
        starts = wanted if named or components == 1 else max(wanted, min(starts, max(most, 1)))
        top = min(sampled, max(count // TOP, rows))
        subsamples = tuple(each for each in (top // 2, top) if each > 1.5 * rows)
        if starts > 1 and not subsamples:
            subsamples = (top,)
        refined = sum(MANY_SWEEPS * (subsample * components + SWEPT) for subsample in subsamples)
        work = starts * each * (not named) + refined
        return cls(rows, starts, subsamples, work / (count * components), smooth)


@dataclass(frozen=True)
class Found:
    """A start, and whether taking it apart had made it better; what finding it took."""

    mixture: Mixture
    rugged: bool
    densities: int = 0


@dataclass(frozen=True)
class Search:
    """What is to be looked for: starts within a budget, on a sample.

    Attributes
    ----------
    context : FitContext
    components, parameters : int
    budget : Budget
    wanted : int
        How many starts there are at least, even where one can't be bettered.
    random : RandomState
        Stays as it is.
    title : str
        What the search is called.
    """

    context: FitContext
    components: int
    parameters: int
    budget: Budget
    wanted: int
    random: Random
    title: str = ""

    def found(self, subsample: Subsample, number: int) -> Found:
        """The start of that ``number``, from 0 on, on a ``subsample``."""
        before, random = subsample.cost.densities, deepcopy(self.random)
        if number:
            random = Random(random.randint(np.iinfo(np.int32).max, size=number)[-1])
        n_features, rows = subsample.sample.rows.shape[1], len(subsample.sample.keys)
        parted = not subsample.context.model.covariance_model.along_loadings
        parted = parted and splits.affordable(self.components, n_features)
        parted = parted and rows >= self.parameters
        if abreast.serves(subsample, self.components):
            mixture, helped = abreast.start(subsample, self.components, random, parted)
        else:
            mixture, helped = self._raced(subsample, random, parted)
        # Splits are found as if components were normal: with heavy tails they tell less.
        heavy = subsample.context.model.tails is not None
        rugged = helped > 0 or (heavy and self.components > 1)
        return Found(mixture, rugged, subsample.cost.densities - before)

    def _raced(self, subsample: Subsample, random: Random, parted: bool) -> tuple[Mixture, int]:
        """The winner of a race, taken apart, and in how many rounds that helped."""
        model, (rows, n_features) = subsample.context.model, subsample.sample.rows.shape
        student, shape = model.tails is not None, (rows, n_features)
        if count := knockout.tries(model.covariance_model, student, self.components, shape):
            run = knockout.leading(subsample, self.components, count, random)[0]
        else:
            run = race.race(subsample, self.components, random)
        helped = 0
        if parted:
            run, helped = split_merge.taken_apart(subsample, run)
        return run.best.mixture, helped

    def ended(self, found: Sequence[Found]) -> bool:
        """Whether no more starts are wanted: enough can't be bettered, or all are there."""
        budget = self.budget
        smooth = [at for at, each in enumerate(found, 1) if not each.rugged][: budget.smooth]
        most = max(self.wanted, smooth[-1]) if len(smooth) == budget.smooth else budget.starts
        return len(found) >= min(most, budget.starts)

    def nbytes(self, n_features: int, beside: int) -> int:
        """What finding a start takes where nothing is held of the sample, on the high side."""
        rows = sample.nbytes(self.budget.rows, n_features, beside)
        if self.context.model.covariance_model.along_loadings:
            return COPIES * rows
        return COPIES * rows + splits.nbytes(self.components, n_features)


def look(searches: Sequence[Search], samples: Samples) -> list[list[Mixture]]:
    """The starts that each of ``searches`` finds; by the workers of a cluster where there are."""
    workers = samples.elsewhere
    if workers is None or not _fit_in(searches, samples.sample, workers.room):
        found = [_here(search, samples) for search in searches]
    else:
        found = _elsewhere(searches, samples, workers)
    return [[each.mixture for each in own] for own in found]


def _fit_in(searches: Sequence[Search], sample: Sample, room: int) -> bool:
    """Whether there is ``room`` for each start."""
    others = sum(each[0].size for each in sample.others.values())
    n_features = sample.rows.shape[1]
    return all(each.nbytes(n_features, others) <= room for each in searches)


def _here(search: Search, samples: Samples) -> list[Found]:
    """The starts of a ``search``, found one after the other."""
    subsample, found = samples.part(search.budget.rows, search.context), list[Found]()
    cost = subsample.cost
    with cost.stage(search.title):
        while not (search.ended(found) or (found and cost.deadline.passed)):
            with cost.start(len(found) + 1, search.budget.starts):
                found.append(search.found(subsample, len(found)))
    return found


Place = tuple[int, int]
"""A start that is looked for: the number of its search, and its own there."""


@dataclass(frozen=True)
class _Given:
    """What workers are given who look for starts: enough of the sample, and the searches."""

    sample: Sample
    searches: tuple[Search, ...]
    in_memory: InMemorySweep
    seconds: float


def _elsewhere(
    searches: Sequence[Search], samples: Samples, workers: Elsewhere
) -> list[list[Found]]:
    """The starts of all ``searches``, found side by side by the workers of a cluster.

    The first of each shows whether there is a need for others.  The only one is found here, by all
    threads.
    """
    cost, rows = samples.cost, max((each.budget.rows for each in searches), default=0)
    head, in_memory = samples.sample.head(rows), workers.in_memory
    given = _Given(head, tuple(searches), in_memory, cost.deadline.seconds)

    def found(places: list[Place]) -> dict[Place, Found]:
        """These starts; those that take long are begun first."""
        places = sorted(places, key=lambda place: -searches[place[0]].components)
        with cost.stage(f"{len(places)} starts on the cluster"):
            results = workers(_start, given, places) if places else ()
        for each in results:
            cost.swept(each.densities)
        return dict(zip(places, results, strict=True))

    starts = [list[Found]() for _ in searches]
    if len(searches) == 1:
        (only,) = searches
        subsample = samples.part(only.budget.rows, only.context)
        with cost.stage(only.title), cost.start(1, only.budget.starts):
            starts = [[only.found(subsample, 0)]]
    else:
        first = found([(at, 0) for at in range(len(searches))])
        starts = [[first[at, 0]] for at in range(len(searches))]
    more = [
        (at, number)
        for at, search in enumerate(searches)
        if not search.ended(starts[at])
        for number in range(1, search.budget.starts)
    ]
    if cost.deadline.passed or not more:
        return starts
    with cost.others():
        rest = found(more)
    for at, number in more:
        if not searches[at].ended(starts[at]):
            starts[at].append(rest[at, number])
    return starts


def _start(place: Place, given: _Given) -> Found:
    """A worker's part: one start."""
    at, number = place
    search = given.searches[at]
    cost = Cost(deadline=Deadline.after(given.seconds))
    part = given.sample.first(search.budget.rows)
    return search.found(Subsample.of(part, search.context, given.in_memory, cost), number)


def named(
    subsample: Subsample, components: int, method: str, wanted: int, random: Random
) -> list[Mixture]:
    """Starts on a ``subsample`` by a ``method`` of ``init.METHODS``."""
    return subsample.cost.several(wanted, lambda: _named(subsample, components, method, random))


def _named(subsample: Subsample, components: int, method: str, random: Random) -> Mixture:
    sample, context = subsample.sample, subsample.context
    return isolation.start(
        sample, context, components, lambda seen: seeded(seen, context, components, method, random)
    )


def information_rows(shape: tuple[int, int], parameters: int, top: int) -> int:
    """How many rows the information is to be taken from; 0 where that costs too much.

    Of many ``parameters`` its small eigenvalues are too rough to be of use.
    """
    rows = min(top, max(SOME * parameters, min(6 * shape[0] // parameters, INFORMING)))
    cheap = rows * parameters <= 8 * shape[0] and parameters <= PARAMETERS
    return rows if cheap and rows >= SOME * parameters else 0
