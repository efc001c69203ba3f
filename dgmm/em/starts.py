"""Where a fit begins, and what finding that may cost.

Starts are found on a small part of the sample: by a race of seeds (race.py), whose winner is taken
apart where that helps (split_merge.py).  Where it helped, the likelihood has many optima, and other
starts may lead to better ones: then there are several, as many as the effort allows.

**The budget** is planned like memory, from the numbers of rows, features and components alone: so
it does not depend on how busy a machine is, and the same fit finds the same start.  It is in
passes: how many passes over all rows the same arithmetic would be.
"""

from dataclasses import dataclass
from typing import Final, Literal

from dgmm.em import isolation, quasi_newton, race, split_merge
from dgmm.em.init import Random, seeded
from dgmm.em.subsamples import MANY_SWEEPS, Subsample
from dgmm.model.mixture import Mixture

Effort = Literal["low", "auto", "high"]
"""The names of ``EFFORTS``."""

EFFORTS: Final = {"low": (0.0, 1), "auto": (12.0, 4), "high": (60.0, 32)}
"""How many passes over all rows the starts that nobody asked for may be worth, about, and how many
there may be: twice as many where there are fewer than ``FEW`` parameters."""

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

ROUNDS: Final = 2
"""How many rounds of splitting and merging a start takes, about."""

TOP: Final = 8
"""The largest subsample is this part of all rows, if the sample has so many."""

TOLD: Final = 40_000
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
    """

    rows: int
    starts: int
    subsamples: tuple[int, ...]
    passes: float

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
        rows = min(max(min(count // SHARE, PLENTY), least), max(count // TOP, 1), sampled)
        each = (race.SWEEPS + ROUNDS * split_merge.SWEEPS) * (rows * components + SWEPT)
        worth, most = EFFORTS[effort]
        starts = int(worth * count * components / each)
        most = min(most if parameters >= FEW else 2 * most, ROOM // quasi_newton.nbytes(parameters))
        starts = wanted if named or components == 1 else max(wanted, 1, min(starts, most))
        top = min(sampled, max(count // TOP, rows))
        subsamples = tuple(each for each in (top // 2, top) if each > 1.5 * rows)
        if starts > 1 and not subsamples:
            subsamples = (top,)
        refined = sum(MANY_SWEEPS * (subsample * components + SWEPT) for subsample in subsamples)
        work = starts * each * (not named) + refined
        return cls(rows, starts, subsamples, work / (count * components))


def found(
    subsample: Subsample, components: int, parameters: int, random: Random
) -> tuple[Mixture, bool]:
    """A start found on a ``subsample``, and whether taking it apart had made it better."""
    run, helped = race.race(subsample, components, random), 0
    n_features = subsample.sample.rows.shape[1]
    if len(subsample.sample.keys) >= parameters and split_merge.affordable(components, n_features):
        run, helped = split_merge.taken_apart(subsample, run)
    # Splits are found as if components were normal: with heavy tails they tell less.
    rugged = helped > 0 or (subsample.context.model.tails is not None and components > 1)
    return run.best.mixture, rugged


def several(
    subsample: Subsample,
    budget: Budget,
    components: int,
    parameters: int,
    wanted: int,
    random: Random,
) -> list[Mixture]:
    """Starts within the ``budget``; as many as are ``wanted`` where one can't be bettered."""
    starts, most = list[Mixture](), budget.starts
    while len(starts) < most and not (starts and subsample.cost.deadline.passed):
        with subsample.cost.start(len(starts) + 1, most):
            start, rugged = found(subsample, components, parameters, random)
        starts.append(start)
        most = most if rugged else min(most, max(wanted, len(starts)))
    return starts


def named(
    subsample: Subsample, components: int, method: str, wanted: int, random: Random
) -> list[Mixture]:
    """Starts on a ``subsample`` by a ``method`` of ``seeding.METHODS``."""
    starts = list[Mixture]()
    while len(starts) < wanted:
        with subsample.cost.start(len(starts) + 1, wanted):
            starts.append(_named(subsample, components, method, random))
    return starts


def _named(subsample: Subsample, components: int, method: str, random: Random) -> Mixture:
    sample, context = subsample.sample, subsample.context
    return isolation.start(
        sample, context, components, lambda seen: seeded(seen, context, components, method, random)
    )


def rows_told(shape: tuple[int, int], parameters: int, top: int) -> int:
    """How many rows the information is to be taken from; 0 where that costs too much.

    Of many ``parameters`` its small eigenvalues are too rough to be of use.
    """
    told = min(top, max(SOME * parameters, min(6 * shape[0] // parameters, TOLD)))
    cheap = told * parameters <= 8 * shape[0] and parameters <= PARAMETERS
    return told if cheap and told >= SOME * parameters else 0
