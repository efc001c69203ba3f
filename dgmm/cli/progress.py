"""What a command prints while it works, on standard error; results go to standard output.

A fit is a generator of passes.  A watch is a function that takes passes, shows them, and yields
them again, so any number of watches can stand in a row.

JSON lines are made by three lines of our own (``_say_json``): an event is a record with fields, and
to use a formatter of ``logging`` each event would first have to become a message of a logger.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from dgmm.cli.records import dumps
from dgmm.model.lazy import Late

if TYPE_CHECKING:  # not to be loaded for a usage error
    from dgmm.engine import Meter
    from dgmm.engine.plan import Plan
    from dgmm.estimators.passes import Pass

told = Late("dgmm.estimators.passes")

STARTED: Final = (
    *("rows", "n_features", "n_components", "engine", "workers", "threads"),
    *("tasks", "peak_bytes", "limit_bytes", "cached"),
)
"""The fields of the plan that the first event of a fit has."""

STAGE_SECONDS = 5.0
"""How often plain lines and JSON say what is done on samples, while that takes long."""

Watch = Callable[[Iterator["Pass"], "Plan", "Meter"], Iterator["Pass"]]
"""Takes the passes of a plan, whose rows a meter counts; shows them, and yields them again."""


def run(passes: Iterator[Pass], planned: Plan, meter: Meter, *watches: Watch) -> None:
    """Run through all ``passes``, which all ``watches`` see."""
    for watch in watches:
        passes = watch(passes, planned, meter)
    deque(passes, maxlen=0)


def silent(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """Show nothing."""
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
        click.echo(f"pass {done.number}: {told.line_of(done)}", err=True)
        yield done


def _live(passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
    """A bar that lives, or lines where nobody watches."""
    if not sys.stderr.isatty():
        yield from _lines(passes, planned, meter)
        return
    with _MeterBar(meter, planned.rows, "pass 1: moments and sample") as bar:
        for done in passes:
            bar.next(f"pass {done.number + 1}", told.line_of(done))
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
    click.echo(dumps(record), err=True)


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
    """A bar whose position is a meter's, read when it is drawn, and below it what was said last.

    While something is done on samples the bar goes to and fro, and that has a time of its own.
    """

    def __init__(self, meter: Meter, rows: int, title: str) -> None:
        self._meter, self._rows, self._before = meter, rows, 0  # drawn while being made
        self._title, self._said, self._stage = title, "", ""
        self._began = self._since = time.perf_counter()
        super().__init__(
            TextColumn("[bold]{task.description}[/]", table_column=Column(ratio=1)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[times]}", table_column=Column(no_wrap=True)),
            console=Console(stderr=True, highlight=False),
            transient=True,
            expand=True,
        )
        self._task = self.add_task(title, total=rows, times="")

    def next(self, title: str, said: str) -> None:
        """Begin another pass, or what is to be done on samples before it."""
        self._before, self._said, self._title = self._meter.rows, said, title
        self._since = time.perf_counter()

    def get_renderables(self) -> Iterator[RenderableType]:
        now, stage = time.perf_counter(), _stage(self._meter) if self._meter.stage else ""
        if bool(stage) != bool(self._stage):
            self._since = now
        self._stage = stage
        for task in self._tasks.values():
            task.description = f"on samples: {stage}" if stage else self._title
            task.total = None if stage else self._rows
            task.completed = min(self._rows, self._meter.rows - self._before)
            for_pass, in_all = told.clock(now - self._since), told.clock(now - self._began)
            task.fields["times"] = f"{for_pass} of {in_all}"
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
