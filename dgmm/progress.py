"""Progress on the terminal: a bar that lives, or plain lines where nobody watches.

Everything here goes to standard error; results go to standard output.
"""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from dgmm.engine import Meter
from dgmm.fit import Progress
from dgmm.selection import Standings


def console() -> Console:
    """Standard error, as it is now."""
    return Console(stderr=True, highlight=False)


class _MeterBar(Bar):
    """A bar whose position is a meter's, read when it is drawn."""

    def __init__(self, meter: Meter, rows: int, title: str) -> None:
        self._meter, self._rows, self._before = meter, rows, 0  # drawn while being made
        super().__init__(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=console(),
            transient=True,
        )
        self._task = self.add_task(title, total=rows, said="")

    def next(self, title: str, said: str) -> None:
        """Begin another pass."""
        self._before = self._meter.rows
        self.update(self._task, description=title, said=said, completed=0)

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self._tasks.values():
            task.completed = min(self._rows, self._meter.rows - self._before)
        yield from super().get_renderables()


@contextmanager
def sweep_bar(meter: Meter, rows: int, title: str, quiet: bool) -> Iterator[None]:
    """Show one pass over ``rows`` rows while inside."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _MeterBar(meter, rows, title):
        yield


def show_fit(
    passes: Iterable[Progress], meter: Meter, rows: int, tol: float, max_iter: int, quiet: bool
) -> Progress:
    """Run a fit to its end, showing each pass; the last progress."""
    pace = _Pace(tol, max_iter)
    if quiet:
        for last in passes:  # noqa: B007 - one at a time: a list of them would be long
            pass
        return last
    if not sys.stderr.isatty():
        for last in passes:
            print(f"pass {last.passes}: {pace.describe(last)}", file=sys.stderr, flush=True)
        return last
    with _MeterBar(meter, rows, "pass 1: survey") as bar:
        for last in passes:
            bar.next(f"pass {last.passes + 1}", pace.describe(last))
    return last


def show_selection(
    passes: Iterable[Standings], meter: Meter, rows: int, criterion: str, quiet: bool
) -> None:
    """Run a selection to its end, showing each pass."""
    if quiet or not sys.stderr.isatty():
        for last in passes:
            if not quiet:
                line = f"pass {last.passes}: {_standing(last, criterion)}"
                print(line, file=sys.stderr, flush=True)
        return
    with _MeterBar(meter, rows, "pass 1: survey") as bar:
        for last in passes:
            bar.next(f"pass {last.passes + 1}", _standing(last, criterion))


def _standing(standings: Standings, criterion: str) -> str:
    """What a pass of a selection brought, in a line."""
    if not standings.candidates:
        found = standings.found
        return f"{found.rows:,} rows x {len(found.mean)} surveyed; finding starts on a sample"
    left = sum(each.dropped is None for each in standings.candidates)
    best = standings.best
    kind = f"{best.request.components} {best.request.structure.name}"
    return f"{left} candidates left, best {kind}, {criterion} {best.value:.8g}"


class _Pace:
    """Rows per second, and a guess of the time left."""

    def __init__(self, tol: float, max_iter: int) -> None:
        self._tol, self._max_iter = tol, max_iter
        self._last = time.perf_counter()
        self._change = math.inf

    def describe(self, progress: Progress) -> str:
        """What a pass brought, in a line."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        rate = f"{progress.found.rows / max(seconds, 1e-9):,.0f} rows/s"
        if not progress.walks:
            return f"{progress.found.rows:,} rows x {len(progress.found.mean)} surveyed, {rate}"
        walk = progress.best
        said = f"score {walk.best.score:.6f}"
        if walk.trace:
            said += f", change {walk.change:.2e}"
        if math.isfinite(walk.gap):
            said += f", {walk.gap:.1e} to go"
        if walk.stop.target > 0:
            return f"{said} (stops below {walk.stop.target:.1e}), {rate}"
        left = self._iterations_left(walk.change, len(walk.trace))
        self._change = walk.change
        return f"{said}, {rate}, at most {_clock(left * seconds)} left"

    def _iterations_left(self, change: float, done: int) -> int:
        """At most; fewer if the change shrinks by a steady factor until it is below tol."""
        most = self._max_iter - done
        if not (self._tol > 0 and 0 < change < self._change < math.inf):
            return most
        ratio = change / self._change
        return max(0, min(most, 2 + math.ceil(math.log(self._tol / change) / math.log(ratio))))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
