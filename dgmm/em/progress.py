"""Where a run stands: its candidates, of which a fit has one, and what they have come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dgmm.em.degenerate import unbounded
from dgmm.em.fit_context import FitContext
from dgmm.em.moments import DataMoments
from dgmm.em.solver import RunState, best_of
from dgmm.em.spec import FitSpec
from dgmm.em.starts import look
from dgmm.em.subsamples import Samples
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Candidate:
    """One of the mixtures to choose from, or the only one, as far as it has come.

    Attributes
    ----------
    spec : FitSpec
    context : FitContext
    runs : tuple of RunState
        From its starts; empty before they are made.
    value : float
        Its criterion as it stands; infinity if unknown.
    dropped : int or None
        After how many sweeps it left.
    refits : int
        How often it was fitted again because a component was singular.
    """

    spec: FitSpec
    context: FitContext
    runs: tuple[RunState, ...] = ()
    value: float = np.inf
    dropped: int | None = None
    refits: int = 0

    @property
    def run(self) -> RunState:
        """The best run."""
        return best_of(self.runs)

    @property
    def unbounded(self) -> tuple[int, ...]:
        """The best run's components whose likelihood has no bound."""
        return unbounded(self.run.best, self.context)

    @property
    def running(self) -> bool:
        """Whether it has a trial for the next sweep."""
        return self.dropped is None and any(run.trial is not None for run in self.runs)

    @property
    def mixture(self) -> Mixture:
        """Of the data."""
        mixture = self.context.frame.leave(self.run.best.mixture)
        return mixture if self.spec.held is None else self.spec.held.hold(mixture)

    def begun(
        self, spec: FitSpec, moments: DataMoments, samples: Samples, title: str
    ) -> "Candidate":
        """The candidate with the runs of a ``spec``, too, before their first sweep.

        What is done for them on samples is told under a ``title``.
        """
        with samples.cost.stage(title):
            runs = spec.strategy.begin(moments, self.context, spec, samples)
        return replace(self, runs=(*self.runs, *runs))


def all_begun(
    candidates: Sequence[Candidate],
    specs: Sequence[FitSpec],
    moments: DataMoments,
    samples: Samples,
    titles: Sequence[str],
) -> tuple[Candidate, ...]:
    """The ``candidates`` with the runs of their ``specs``, as ``Candidate.begun`` has it.

    Their starts are looked for together: there may be many machines.
    """
    shape, sampled = (moments.weighted, len(moments.mean)), len(moments.sample.keys)
    searches = {}
    for at, (candidate, spec) in enumerate(zip(candidates, specs, strict=True)):
        search = spec.strategy.search(candidate.context, spec, shape, sampled)
        if search is not None:
            searches[at] = replace(search, title=titles[at])
    starts = dict(zip(searches, look(list(searches.values()), samples), strict=True))
    ready = [replace(spec, starts=tuple(starts.get(at, ()))) for at, spec in enumerate(specs)]
    return tuple(
        candidate.begun(spec, moments, samples, title)
        for candidate, spec, title in zip(candidates, ready, titles, strict=True)
    )


@dataclass(frozen=True)
class Progress:
    """Where a fit or a selection stands after a sweep.

    Attributes
    ----------
    passes : int
        Sweeps so far.
    moments : DataMoments
    candidates : tuple of Candidate
        Empty after the first sweep; of a fit, there is one.
    densities : int
        Rows of the sample evaluated so far, times components.
    rounds : int
        Sweeps of all that run, so far.
    due : bool
        Whether criteria are to be measured next.
    resumed : bool
        Whether it goes on from here, and no sweep was made to get here.
    seconds_on_samples : float
        That work on samples took so far, since it was resumed.
    starts_seconds : float
        Of these, what looking for starts after the first took.
    seeking : bool
        Whether starts are looked for on samples next.
    """

    passes: int
    moments: DataMoments
    candidates: tuple[Candidate, ...] = ()
    densities: int = 0
    rounds: int = 0
    due: bool = False
    resumed: bool = False
    seconds_on_samples: float = 0.0
    starts_seconds: float = 0.0
    seeking: bool = False

    @property
    def running(self) -> bool:
        """Whether any candidate has a trial for the next sweep."""
        return any(candidate.running for candidate in self.candidates)

    @property
    def best(self) -> Candidate:
        """The candidate with the lowest criterion of those that stayed and can be compared."""
        return min(comparable(self.candidates), key=lambda candidate: candidate.value)

    @property
    def run(self) -> RunState:
        """The best run of the best candidate."""
        return self.best.run

    @property
    def mixture(self) -> Mixture:
        """The best mixture, of the data."""
        return self.best.mixture


@dataclass(frozen=True)
class Stopped:
    """Where a fit or a selection stopped that is to go on.

    Attributes
    ----------
    passes : int
    moments : DataMoments
    random : RandomState
        The generator as it was after the first pass.
    restored : callable
        What the candidates, which have not begun, and ``densities``, ``rounds`` and ``due`` were
        then: takes the candidates and the samples that their runs refer to.
    """

    passes: int
    moments: DataMoments
    random: np.random.RandomState
    restored: Callable[[Sequence[Candidate], Samples], Progress]


def comparable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that stayed that have no singular component; all, if all have."""
    stayed = [candidate for candidate in candidates if candidate.dropped is None]
    if len(stayed) == 1:
        return stayed
    return [candidate for candidate in stayed if not candidate.unbounded] or stayed
