"""The default fit by the clock, against the textbook's: seconds to the same objective, and ends."""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import click
from dask.system import CPU_COUNT
from sklearn.exceptions import ConvergenceWarning

from benchmarks.families import FAMILIES, LABEL, Problem, problem, sized, spans
from benchmarks.table import Cell, percent, show
from dgmm import GaussianMixture
from dgmm.em.degenerate import unbounded
from dgmm.errors import DegenerateWarning

STILL = 0.1
"""EM stands still when, at its pace, all iterations that are left would gain less, in p / (2 N)."""

LEAST, WINDOW = 100, 20
"""The iterations that EM has in any case; its pace is that of so many, or of the last quarter."""

PATIENCE = 2.0, 20.0
"""EM has so many times the seconds of "auto" in any case, and is given up after so many."""

TAIL = 300
"""EM's iterations from the end of "auto", to see whether that was an optimum."""

GOOD = "at least EM's"

NOTE = """\
One fit each to rows in memory, float64, {threads} threads; seeds: {seeds}, of the rows and of
random_state. "auto" is the default fit; EM is strategy="em", tol=0, of at most {most:,} iterations.
"auto / EM": seconds of "auto" to its end, over those of EM until its objective is that of this end
less p / (2 N); 0 where EM does not come there. {given_up}
"{good}": the objective of "auto" at its end is at least EM's best, less p / (2 N). Else EM's best
has a singular component, whose likelihood has no bound; or {tail} iterations of EM from the end of
"auto" gain more than p / (2 N), a plateau; or that is another optimum. "to EM's best": from there
to the end of "auto", in p / (2 N), median and worst; above 0, "auto" is better."""
GIVEN_UP = f"""\
EM is given up, but not within {LEAST} iterations and {PATIENCE[0]:.0f} times the seconds of "auto",
where at its pace all iterations that are left would gain less than {STILL} p / (2 N), or would not
bring it there, or, once there, not p / (2 N) beyond the end of "auto"; and after {PATIENCE[1]:.0f}
times these seconds."""
NEVER_GIVEN_UP = "EM makes all its iterations."


@dataclass(frozen=True)
class Duel:
    """One fit of "auto" and one of EM; objectives in p / (2 N).

    Attributes
    ----------
    shape : (N, D, K)
    seconds, end : float
        Of "auto".
    passes, sampled : float
        Of "auto", over all rows and on samples.
    converged : bool
        Whether "auto" is.
    iterations : int
        Of EM.
    there : float or None
        The seconds of EM to the end of "auto", if it came there.
    best : float
        EM's best.
    verdict : str
    """

    shape: tuple[int, int, int]
    seconds: float
    end: float
    passes: int
    sampled: float
    converged: bool
    iterations: int
    there: float | None
    best: float
    verdict: str

    @property
    def ratio(self) -> float:
        """Of seconds."""
        return 0.0 if self.there is None else self.seconds / self.there

    def __str__(self) -> str:
        there = "not there" if self.there is None else f"there after {self.there:.2f} s"
        passes = f"{self.passes} passes, {self.sampled:.1f} on samples"
        ended = f"{passes}{'' if self.converged else ', not converged'}"
        return (
            f"auto {self.seconds:.2f} s ({ended}); EM {there}, {self.iterations} iterations: "
            f"{self.ratio:.2f}; to EM's best {self.end - self.best:+.2f}, {self.verdict}"
        )


def duel(made: Problem, seed: int, most: int, to_the_end: bool = False) -> Duel:
    """Fit both; EM ``to_the_end`` of its iterations, or until it is given up."""
    unit = made.resolution
    model = partial(
        GaussianMixture, made.components, covariance_type=made.covariance_model, random_state=seed
    )
    auto = model()
    began = time.perf_counter()
    auto.fit(made.rows)
    seconds = time.perf_counter() - began
    end = auto.lower_bound_ / unit
    reached: list[float] = []
    there = None
    textbook = model(strategy="em", tol=0, max_iter=most)
    began = time.perf_counter()
    for progress in textbook.fit_passes(made.rows):
        took = time.perf_counter() - began
        if not progress.candidates:
            continue
        run = progress.run
        reached.append(run.best.objective / unit)
        if there is None and reached[-1] >= end - 1:
            there = took
        least, longest = (patience * seconds for patience in PATIENCE)
        early = to_the_end or len(reached) <= LEAST or took < least
        if not early and (took > longest or _over(reached, most, end)):
            break
    singular = bool(unbounded(run.best, run.context))
    best = max(reached)
    info = auto.fit_info_
    return Duel(
        shape=made.shape,
        seconds=seconds,
        end=end,
        passes=info["passes"],
        sampled=info["sample_passes"],
        converged=auto.converged_,
        iterations=len(reached) - 1,
        there=there,
        best=best,
        verdict=GOOD if end >= best - 1 else _why(made, auto, singular),
    )


def _over(reached: Sequence[float], most: int, end: float) -> bool:
    """Whether it is settled, at EM's pace, where it goes."""
    made = len(reached) - 1
    window = max(WINDOW, made // 4)
    left = (reached[-1] - reached[-1 - window]) / window * (most - made)
    goal = end - 1 if reached[-1] < end - 1 else end + 1
    return left < STILL or reached[-1] + left < goal


def _why(made: Problem, auto: GaussianMixture, singular: bool) -> str:
    """Why EM's best is better."""
    if singular:
        return "EM's is singular"
    onward = GaussianMixture(
        made.components,
        covariance_type=made.covariance_model,
        strategy="em",
        tol=0,
        max_iter=TAIL,
        weights_init=auto.weights_,
        means_init=auto.means_,
        precisions_init=auto.precisions_,
        precision="float64",
    ).fit(made.rows)
    gain = (onward.lower_bound_ - auto.lower_bound_) / made.resolution
    return "plateau" if gain > 1 else "another optimum"


def line(label: Sequence[Cell], duels: Sequence[Duel]) -> list[Cell]:
    """The table's line for some duels."""
    ratios = [each.ratio for each in duels]
    there = [each.there for each in duels if each.there is not None]
    above = [each.end - each.best for each in duels]
    verdicts = Counter(each.verdict for each in duels)
    good = verdicts.pop(GOOD, 0)
    return [
        *label,
        median(each.seconds for each in duels),
        f"{median(each.passes for each in duels):.0f}, "
        f"{median(each.sampled for each in duels):.3g}",
        f"{sum(not each.converged for each in duels)}",
        f"{median(there):.2g} ({len(there)} of {len(duels)})" if there else "never",
        median(ratios),
        max(ratios),
        f"{good} of {len(duels)}, {percent(good / len(duels))}",
        f"{median(above):+.2g}, {min(above):+.2g}",
        ", ".join(f"{count} {why}" for why, count in verdicts.items()) or None,
    ]


@click.command()
@click.option(
    "--rows", multiple=True, type=float, help="May be given more often.  [default: 1e4 and 1e5]"
)
@click.option("--seeds", type=int, help="[default: 10; quick: 2]")
@click.option(
    "--family",
    "families",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help="May be given more often.  [default: all]",
)
@click.option(
    "--iterations", default=1500, show_default=True, help="How many EM may take.", metavar="N"
)
@click.option("--to-the-end", is_flag=True, help="EM is never given up: hours.")
@click.option("--quick", is_flag=True, help="1e4 rows, two seeds.")
def clock(
    rows: tuple[float, ...],
    seeds: int | None,
    families: tuple[str, ...],
    iterations: int,
    to_the_end: bool,
    quick: bool,
) -> None:
    """Seconds of the default fit over seconds of EM to the same objective.

    And whether it ends where EM ends, or higher. For each family of rows, size and seed; each fit
    is told on standard error.

    Example: python -m benchmarks clock --family nested --rows 1e6 --seeds 3
    """
    for each in (ConvergenceWarning, DegenerateWarning):
        warnings.simplefilter("ignore", each)
    seeds = seeds or (2 if quick else 10)
    counts = [int(each) for each in rows] or ([10**4] if quick else [10**4, 10**5])
    duel(problem("few columns", 2000, 0), 0, LEAST)  # what is done once in a process
    all_of: list[Duel] = []

    def lines() -> Iterator[list[Cell]]:
        for family, count in sized(families or FAMILIES, counts):
            duels = []
            for seed in range(seeds):
                one = duel(problem(family, count, seed), seed, iterations, to_the_end)
                n, d, k = one.shape
                print(f"{family}, {n:,} x {d}, K = {k}, seed {seed}: {one}", file=sys.stderr)
                duels.append(one)
            all_of.extend(duels)
            yield line([family, *spans([each.shape for each in duels])], duels)
        yield line(["all", *spans([each.shape for each in all_of])], all_of)

    note = NOTE.format(
        **{"threads": CPU_COUNT, "seeds": seeds, "most": iterations, "good": GOOD, "tail": TAIL},
        given_up=NEVER_GIVEN_UP if to_the_end else GIVEN_UP,
    )
    header = ["auto, s", "passes, on samples", "not converged", "EM, s", "auto / EM, median"]
    header += ["worst", GOOD, "to EM's best", "the others"]
    show("The default fit against EM, by the clock", [*LABEL, *header], lines(), note)
