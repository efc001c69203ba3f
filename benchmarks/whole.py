"""Whole default fits by the clock, from a process's start to its model; old and new in turn."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from statistics import median

import click
from dask.system import CPU_COUNT

from benchmarks import data
from benchmarks.contender import ROOT, against_option
from benchmarks.table import Cell, show
from benchmarks.timing import say

FIT = Path(__file__).with_name("onefit.py")
TARGETS = "0.5 of old; 25 passes where N/p > 20"
STAGES = ("start-up", "first pass", "start", "passes", "end")
AFTER = 60.0
"""Seconds more than the budget that EM's passes may take, once there is a model."""

NOTE = """\
Default fits to float32 rows in a Zarr store whose files are in the system's memory, each in a
process of its own, {threads} processors; seeds (random_state): {seeds}, on the same rows, medians.
"start-up" is until the plan is made, without the time of starting workers; "start" until the first
mixture has been evaluated over all rows, and with that evaluation; "end" from the last pass to the
model. "EM pass" is one in float64 over all rows, in the same process afterwards; "in passes" is the
rest without start-up, in these. "below the best": of the objective, in p / (2 N), from the best
that any fit of the case came to, median and worst. Targets: {targets}.
The machine's load (of the minute before) when each fit began: {load}."""


@dataclass(frozen=True)
class Case:
    """Rows and what is fitted to them, by threads or by so many worker processes."""

    rows: int
    n_features: int
    components: int
    covariance_model: str = "full"
    workers: int = 0

    def smaller(self, by: int) -> "Case":
        """The same with a part of the rows."""
        return Case(
            self.rows // by, self.n_features, self.components, self.covariance_model, self.workers
        )

    @property
    def name(self) -> str:
        """For people."""
        where = f", {self.workers} workers" if self.workers else ""
        shape = f"{self.rows:,} x {self.n_features}, K = {self.components}"
        return f"{shape} {self.covariance_model}{where}"


CASES = (
    Case(2_000_000, 16, 16),
    Case(8_000_000, 16, 32),
    Case(700_000, 32, 64),
    Case(1_000_000, 8, 64),
    Case(200_000, 64, 200),
    Case(100_000, 2, 5),
    Case(2_000_000, 16, 16, "diag"),
    Case(2_000_000, 16, 16, "tied"),
    Case(2_000_000, 16, 16, workers=2),
    Case(1_000_000, 8, 64, workers=2),
)
QUICK, PART = (1, 6, 9), 40
"""The cases of a quick run, and the part of their rows that it takes."""


@dataclass(frozen=True)
class Whole:
    """What became of a fit: seconds of its stages, as far as it came within ``budget`` seconds.

    ``objective`` and ``resolution`` are nan and infinity where it was given up, ``em`` where no
    pass of EM was timed.
    """

    who: str
    seed: int
    budget: float
    stages: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    objective: float = -inf
    resolution: float = inf
    em: float = inf
    stopped_by: str = ""
    version: str = ""

    @property
    def done(self) -> bool:
        """Whether there is a model."""
        return len(self.stages) == len(STAGES)

    @property
    def seconds(self) -> float:
        """From start to model."""
        return sum(self.stages.values()) if self.done else inf

    @property
    def fitting(self) -> float:
        """The same without start-up."""
        return self.seconds - self.stages["start-up"]

    @classmethod
    def of(cls, who: str, seed: int, budget: float, lines: list[str]) -> "Whole":
        """What the ``lines`` of a fit tell."""
        told = [json.loads(line) for line in lines]
        at = {each["stage"]: each for each in told}  # of the passes, the last
        steps = [each["at"] for each in told if each["stage"] == "pass"]
        evaluated = [each["at"] for each in told if each.get("evaluated")]
        ends = [steps[:1], evaluated[:1], steps[-1:] if "model" in at else []]
        ends.append([at["model"]["at"]] if "model" in at else [])
        if "planned" not in at:
            return cls(who, seed, budget)
        begun = at["planned"]["at"]
        stages = {"start-up": begun - (at["machines"]["at"] - at["imported"]["at"])}
        for stage, end in zip(STAGES[1:], ends, strict=True):
            for then in end:
                stages[stage], begun = then - begun, then
        if "model" not in at:
            return cls(who, seed, budget, stages)
        model = {name: at["model"][name] for name in ("passes", "objective", "resolution")}
        model |= {name: at["model"][name] for name in ("stopped_by", "version")}
        em = at["em"]["seconds"] if "em" in at else inf
        return cls(who, seed, budget, stages, em=em, **model)


def fit(case: Case, store: Path, who: str, root: Path, seed: int, budget: float) -> Whole:
    """Fit with the dgmm of the checkout at ``root``, for at most ``budget`` seconds."""
    words = (time.time(), store, case.components, case.covariance_model, seed, case.workers)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(FIT), *map(str, words)],
            cwd=store.parent,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=out,
            stderr=log,
            text=True,
            start_new_session=True,  # its workers end with it
        )
        try:
            process.wait(budget)
        except subprocess.TimeoutExpired:
            out.seek(0)
            if '"stage": "model"' in out.read():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(AFTER)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        log.seek(0)
        lines = [line for line in out.read().splitlines() if line.endswith("}")]
        if process.returncode not in (0, -signal.SIGKILL) or not lines:
            raise RuntimeError(f"a fit with the dgmm in {root} failed:\n{log.read()}")
        imported = Path(json.loads(lines[0])["path"])
        if root not in imported.parents:
            raise RuntimeError(f"not the dgmm in {root} was imported, but {imported}")
        return Whole.of(who, seed, budget, lines)


def fits(
    case: Case, store: Path, checkouts: dict[str, Path], seeds: int, budget: float, loads: list[str]
) -> list[Whole]:
    """Each checkout's fits in turn; one that was given up is not tried again."""
    found: list[Whole] = []
    for seed in range(seeds):
        for who, root in checkouts.items():
            if any(each.who == who and not each.done for each in found):
                continue
            loads.append(f"{os.getloadavg()[0]:.1f}")
            whole = fit(case, store, who, root, seed, budget)
            found.append(whole)
            took = f"{whole.seconds:.1f} s" if whole.done else f"given up after {budget:.0f} s"
            parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in whole.stages.items())
            say(f"{case.name}, seed {seed}, {who}: {took} ({parts}); {whole.passes} passes")
    return found


def lines(case: Case, found: list[Whole]) -> Iterator[list[Cell]]:
    """The table's lines for a case: one for each checkout."""
    best = max(each.objective for each in found)
    first = {each.seed: each for each in found if each.who == found[0].who}
    for who in dict.fromkeys(each.who for each in found):
        named: list[Cell] = [
            f"{case.rows:,} x {case.n_features}, {case.components}",
            case.covariance_model,
        ]
        named += [f"{case.workers} workers" if case.workers else "threads", who]
        own = [each for each in found if each.who == who]
        done = [each for each in own if each.done]
        if not done:
            reached = (own[0].stages.get(name) for name in STAGES)
            yield [*named, None, *reached, None, f"> {own[0].budget:.0f}", *[None] * 5]
            continue
        seconds, em = median(each.seconds for each in done), median(each.em for each in done)
        below = [(best - each.objective) / each.resolution for each in done]
        yield [
            *named,
            f"{median(1 / (2 * each.resolution) for each in done):,.0f}",
            *(median(each.stages[name] for each in done) for name in STAGES),
            f"{median(each.passes for each in done):.0f}",
            seconds,
            em if em < inf else None,
            median(each.fitting for each in done) / em if em < inf else None,
            _ratio(done, first),
            _ratio(done, first, less="start-up"),
            f"{median(below):.2g}, {max(below):.2g}",
        ]


def _ratio(done: list[Whole], first: dict[int, Whole], less: str = "") -> Cell:
    """Of whole fits, ``less`` a stage, to those that each round began with.

    Where these were given up, it is what the ratio is less than.
    """
    pairs = [(each, first[each.seed]) for each in done if each.seed in first]
    ratio = median(
        (each.seconds - each.stages.get(less, 0.0))
        / (min(other.seconds, other.budget) - other.stages.get(less, 0.0))
        for each, other in pairs
    )
    return ratio if all(other.done for _, other in pairs) else f"< {ratio:.2g}"


@click.command()
@click.option(
    "--case",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(CASES)),
    help="Only this, by its number; may be given more than once.  "
    + "; ".join(f"{number}: {case.name}" for number, case in enumerate(CASES, start=1))
    + ".",
)
@against_option
@click.option("--seeds", type=int, help="[default: 3; quick: 1]")
@click.option("--budget", default=600.0, show_default=True, help="Seconds that a fit may take.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Where the stores are, or go, and stay.  [default: they are made, and deleted]",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to which each fit is added, as one JSON object a line.",
)
@click.option("--quick", is_flag=True, help="Three cases, few rows, one seed.")
def whole(
    numbers: tuple[int, ...],
    against: Path | None,
    seeds: int | None,
    budget: float,
    directory: Path | None,
    record: Path | None,
    quick: bool,
) -> None:
    """Seconds of whole default fits, from start to model.

    By stages, beside the seconds of one pass of EM. With --against, the same by another checkout,
    in turn.

    Example: python -m benchmarks whole --case 1 --case 6 --against ../before --budget 300
    """
    seeds = seeds or (1 if quick else 3)
    chosen = [CASES[number - 1] for number in numbers or (QUICK if quick else range(1, 11))]
    chosen = [case.smaller(PART) for case in chosen] if quick else chosen
    checkouts = ({"old": against} if against else {}) | {"new": ROOT}
    loads: list[str] = []

    def table() -> Iterator[list[Cell]]:
        with tempfile.TemporaryDirectory() as scratch:
            place = directory or Path(scratch)
            place.mkdir(parents=True, exist_ok=True)
            for case in chosen:
                store = place / f"{case.rows}-{case.n_features}-{case.components}.zarr"
                data.store(store, data.mixture(case.components, case.n_features), case.rows)
                found = fits(case, store, checkouts, seeds, budget, loads)
                if record is not None:
                    _append(record, case, found)
                yield from lines(case, found)

    header = ["rows x D, K", "covariance", "on", "dgmm", "N/p", *STAGES, "passes made"]
    header += ["whole, s", "EM pass, s", "in passes"]
    header += [f"to {next(iter(checkouts))}", "without start-up"]
    show("Whole default fits, seconds", [*header, "below the best"], table())
    told = {"threads": CPU_COUNT, "seeds": seeds, "targets": TARGETS, "load": ", ".join(loads)}
    print(NOTE.format(**told) + "\n")


def _append(record: Path, case: Case, found: list[Whole]) -> None:
    """Add what was found to the file at ``record``."""
    with record.open("a") as file:
        for each in found:
            told = {**asdict(case), **asdict(each), "seconds": each.seconds, "when": time.time()}
            plain = {name: None if value in (inf, -inf) else value for name, value in told.items()}
            print(json.dumps(plain), file=file)
