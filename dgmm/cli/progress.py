"""What a command tells while it works, on standard error; results go to standard output.

A fit is a generator, and what its passes bring is told by those who take them from it: each is a
function that takes passes, tells of them, and hands them on, so any number can stand in a row.

JSON lines are made by three lines of our own (``_say_json``): what is told are records with fields,
not messages of loggers, to which a formatter of ``logging`` would have to turn them first.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from dgmm.cli import tables
from dgmm.em.progress import Progress
from dgmm.em.solver import RunState

if TYPE_CHECKING:  # not to be loaded for a usage error
    from dgmm.engine import Meter
    from dgmm.engine.plan import Plan

NUMBERS: Final = {
    "score": "Mean log-likelihood of the rows, per unit weight.",
    "change": "How much the last pass raised the objective, a mean over the rows.",
    "gap": "How much the objective could still grow, as estimated.",
    "target": "The fit stops when the gap is below it.",
    "candidates": "Mixtures that can still win.",
    "criterion": "The best candidate's criterion.",
    "seconds_left": "A guess: if the gap goes on shrinking as in the last pass.",
    "seconds_left_at_most": "Until --max-iter, if each pass takes as long as the last.",
}
"""What a pass may tell, by name."""


@dataclass(frozen=True)
class Pass:
    """What a pass over the data brought.

    Attributes
    ----------
    number : int
        Of the fit's passes, with those before it was resumed.
    rows : int
        Rows swept for it; none where a fit goes on, and first tells where it stands.
    seconds : float
        Without those of the work on samples since the pass before.
    said : str
        For a person, in a line.
    numbers : dict
        Some of ``NUMBERS``; None where one isn't known.
    seconds_on_samples : float
        Since the pass before.
    seeking : bool
        Whether starts are looked for on samples before the next.
    """

    number: int
    rows: int
    seconds: float
    said: str
    numbers: dict[str, float | None]
    seconds_on_samples: float = 0.0
    seeking: bool = False

    @property
    def rows_per_second(self) -> float | None:
        return self.rows / max(self.seconds, 1e-9) if self.rows else None


TOLD_SECONDS: Final = 0.1
"""Work on samples that took less is not worth a word."""

STARTED: Final = (
    *("rows", "n_features", "n_components", "engine", "workers", "threads"),
    *("tasks", "peak_bytes", "limit_bytes", "cached"),
)
"""What of its plan a fit tells when it starts."""

STAGE_SECONDS = 5.0
"""How often plain lines and JSON say what is done on samples, where that takes long."""

Watch = Callable[[Iterator[Pass], "Plan", "Meter"], Iterator[Pass]]
"""Takes passes, as planned and while a meter counts their rows, tells of them, hands them on."""


def run(passes: Iterator[Pass], planned: Plan, meter: Meter, *watches: Watch) -> None:
    """Take all ``passes``, under the eyes of all ``watches``."""
    for watch in watches:
        passes = watch(passes, planned, meter)
    deque(passes, maxlen=0)


def of_fit(steps: Iterable[Progress]) -> Iterator[Pass]:
    """A fit's passes."""
    before: RunState | None = None
    for step, rows, seconds, sampling in _timed(steps):
        if not step.candidates:
            yield Pass(step.passes, rows, seconds, _described(step), {}, seeking=step.seeking)
            continue
        run = step.run
        lasts = seconds + sampling * (before is not None)  # starts are looked for once
        most, guess = _passes_left(step, before)
        numbers = {
            "score": run.best.score,
            "change": _known(run.change),
            "gap": _known(run.gap_upper),
            "target": run.stop.target or None,
            "seconds_left": lasts * guess if rows and guess is not None else None,
            "seconds_left_at_most": lasts * most if rows else None,
        }
        yield Pass(step.passes, rows, seconds, _said(run, numbers), numbers, sampling)
        before = run


def of_selection(steps: Iterable[Progress], criterion: str) -> Iterator[Pass]:
    """The passes of a selection by ``criterion``."""
    for step, rows, seconds, sampling in _timed(steps):
        if not step.candidates:
            yield Pass(step.passes, rows, seconds, _described(step), {}, seeking=step.seeking)
            continue
        left = sum(each.dropped is None for each in step.candidates)
        best = step.best
        kind = f"{best.spec.components} {best.spec.covariance_model.name}"
        said = f"{left} candidate{'s' * (left != 1)} left"
        if math.isfinite(best.value):
            said += f", best {kind}, {criterion} {tables.figure(best.value)}"
        score = best.run.best.score
        numbers = {"score": score, "candidates": left, "criterion": _known(best.value)}
        yield Pass(step.passes, rows, seconds, said, numbers, sampling)


def _timed(steps: Iterable[Progress]) -> Iterator[tuple[Progress, int, float, float]]:
    """Each step with the rows swept for it, and the seconds that took, and those on samples."""
    last, passes, sampled = time.perf_counter(), 0, 0.0
    for step in steps:
        now = time.perf_counter()
        sweeps = 0 if step.resumed else step.passes - passes
        sampling = step.seconds_on_samples - sampled
        yield step, sweeps * step.moments.rows, max(0.0, now - last - sampling), sampling
        last, passes, sampled = now, step.passes, step.seconds_on_samples


def _passes_left(step: Progress, before: RunState | None) -> tuple[int, int | None]:
    """How many passes are to come: at most, and a guess.

    The guess is that what the fit stops by shrinks by the factor of the last pass from now on.
    """
    running = [run for run in step.best.runs if run.trial is not None]
    if not running:
        return 0, 0
    most = max(run.stop.max_iter - len(run.trace) for run in running)
    if before is None:
        return most, None
    run = step.run
    for goal, now, was in (
        (run.stop.target, run.gap_upper, before.gap_upper),
        (run.stop.tol, abs(run.change), abs(before.change)),
    ):
        if 0 < goal < now < was < math.inf:
            return most, min(most, 1 + math.ceil(math.log(goal / now) / math.log(now / was)))
    return most, None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _described(step: Progress) -> str:
    return f"{step.moments.rows:,} rows x {len(step.moments.mean)} read"


def _said(run: RunState, numbers: dict[str, float | None]) -> str:
    said = f"score {run.best.score:.6f}"
    if run.trace:
        said += f", change {run.change:.2e}"
    if math.isfinite(run.gap_upper):
        said += f", {run.gap_upper:.1e} to go"
    if run.stop.target > 0:
        said += f" (stops below {run.stop.target:.1e})"
    if (guess := numbers["seconds_left"]) is not None:
        said += f", about {_clock(guess)} left"
    elif (most := numbers["seconds_left_at_most"]) is not None and not run.stop.target:
        said += f", at most {_clock(most)} left"
    return said


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _with_rate(done: Pass) -> str:
    said, rate = done.said, done.rows_per_second
    if rate is not None:
        said += f", {rate:,.0f} rows/s"
    if done.seconds_on_samples >= TOLD_SECONDS:
        said += f"; {done.seconds_on_samples:.1f} s on samples"
    return said + "; next, a search for starts on samples" * done.seeking


def silent(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """Tell nothing."""
    return passes


def _stage(meter: Meter) -> str:
    """What is done on samples."""
    return meter.stage + f", sweep {meter.sweep}" * (meter.sweep > 0)


def _say_stage(meter: Meter) -> None:
    click.echo(f"on samples: {_stage(meter)}", err=True)


def _say_stage_json(meter: Meter) -> None:
    _say_json("samples", stage=meter.stage, sweep=meter.sweep)


def _now_and_then(meter: Meter, say: Callable[[Meter], None]) -> Callable[[], None]:
    """A listener of a ``meter`` that says what is done on samples, where that takes long."""
    last = math.inf

    def heard() -> None:
        nonlocal last
        now = time.perf_counter()
        if not meter.stage:
            last = math.inf
        elif last == math.inf:
            last = now
        elif now - last >= STAGE_SECONDS:
            last = now
            say(meter)

    return heard


def _lines(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """A line for each pass."""
    meter.listener = _now_and_then(meter, _say_stage)
    for done in passes:
        click.echo(f"pass {done.number}: {_with_rate(done)}", err=True)
        yield done


def _live(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """A bar that lives, or lines where nobody watches."""
    if not sys.stderr.isatty():
        yield from _lines(passes, planned, meter)
        return
    with _MeterBar(meter, planned.rows, "pass 1: moments and sample") as bar:
        for done in passes:
            bar.next(f"pass {done.number + 1}", _with_rate(done))
            yield done


def _objects(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """A JSON object for each pass, and one before the first."""
    plan = {name: getattr(planned, name) for name in STARTED}
    _say_json("start", data=planned.source, **plan)
    meter.listener = _now_and_then(meter, _say_stage_json)
    for done in passes:
        swept = {"pass": done.number, "rows": done.rows, "seconds": done.seconds}
        rates = {"rows_per_second": done.rows_per_second}
        sampling = {"seconds_on_samples": done.seconds_on_samples}
        _say_json("pass", **swept, **sampling, **rates, **done.numbers)
        yield done


SENTENCES: Final = {
    "log": "{}",
    "warning": "Warning: {}",
    "error": "Error: {}",
    "interrupted": "Interrupted: {}.",
}
"""The events that are news to a person."""


def _say_text(event: str, message: str = "", /, **more: Any) -> None:
    if event in SENTENCES:
        click.echo(SENTENCES[event].format(message), err=True)


def _say_json(event: str, message: str = "", /, **more: Any) -> None:
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = {"event": event, "time": when, **({"message": message} if message else {}), **more}
    click.echo(json.dumps(record, allow_nan=False), err=True)


@dataclass(frozen=True)
class Log:
    """How a command tells what happens.

    Attributes
    ----------
    say : callable
        Tells of an event, with a message for a person and what more a machine may want.
    watch : Watch
        Tells of passes.
    alone : bool
        Whether nobody else may write to standard error.
    """

    say: Callable[..., None]
    watch: Watch
    alone: bool = False


LOGS: Final = {
    "auto": Log(_say_text, _live),
    "text": Log(_say_text, _lines),
    "json": Log(_say_json, _objects, alone=True),
}


class _MeterBar(Bar):
    """A bar whose position is a meter's, read when it is drawn, and below it what was said last."""

    def __init__(self, meter: Meter, rows: int, title: str) -> None:
        self._meter, self._rows, self._before = meter, rows, 0  # drawn while being made
        self._said = ""
        super().__init__(
            TextColumn("[bold]{task.description}[/]{task.fields[where]}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self.add_task(title, total=rows, where="")

    def next(self, title: str, said: str) -> None:
        """Begin another pass, or what is to be done on samples before it."""
        self._before, self._said = self._meter.rows, said
        self.update(self._task, description=title, completed=0)

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self._tasks.values():
            task.completed = min(self._rows, self._meter.rows - self._before)
            task.fields["where"] = f", on samples: {_stage(self._meter)}" * bool(self._meter.stage)
        yield from super().get_renderables()
        if self._said:
            yield Text(self._said, overflow="fold")


@contextmanager
def sweep_bar(meter: Meter, rows: int, title: str, quiet: bool) -> Iterator[None]:
    """Show one pass over ``rows`` rows while inside."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _MeterBar(meter, rows, title):
        yield
