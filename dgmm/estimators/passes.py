"""What the passes of a fit or a selection bring, as numbers and as a line for a person."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dgmm.em.progress import Progress
from dgmm.em.solver import RunState

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
"""The numbers that a pass may have, by name, each with its meaning."""


@dataclass(frozen=True)
class Pass:
    """What a pass over the data brought.

    Attributes
    ----------
    number : int
        How many passes the fit has made, with those before it was resumed.
    rows : int
        How many rows the pass read; 0 for the state that a resumed fit begins with.
    seconds : float
        How long the pass took, without the work on samples since the pass before.
    said : str
        The state of the fit, as a line for a person.
    numbers : dict
        Some of ``NUMBERS``, by name; None for a number that isn't known.
    seconds_on_samples : float
        How long work on samples took since the pass before.
    seeking : bool
        Whether starts are searched for, on samples, before the next pass.
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


APART: Final = 1e-3
"""Where a score is further from the objective, it is told that changes are of this."""


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
            said += f", best {kind}, {criterion} {figure(best.value)}"
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
    """How many passes are left: at most, and as a guess.

    The guess assumes that the gap (or the change, with ``tol``) shrinks by the same factor in each
    pass from now on as in the last one.
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
    score, objective = run.best.score, run.best.objective
    said = f"score {score:.6f}"
    if abs(objective - score) > APART:
        said = f"objective {objective:.6f} ({said})"
    if run.trace:
        said += f", change {run.change:.2e}"
    if math.isfinite(run.gap_upper):
        said += f", {run.gap_upper:.1e} to go"
    if run.stop.target > 0:
        said += f" (stops below {run.stop.target:.1e})"
    if (guess := numbers["seconds_left"]) is not None:
        said += f", about {clock(guess)} left"
    elif (most := numbers["seconds_left_at_most"]) is not None and not run.stop.target:
        said += f", at most {clock(most)} left"
    return said


def clock(seconds: float) -> str:
    """Seconds as minutes and hours."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def line_of(done: Pass) -> str:
    """A pass as a line for a person, with its pace."""
    said, rate = done.said, done.rows_per_second
    if rate is not None:
        said += f", {rate:,.0f} rows/s"
    if done.seconds_on_samples >= TOLD_SECONDS:
        said += f"; {done.seconds_on_samples:.1f} s on samples"
    return said + "; next, a search for starts on samples" * done.seeking


def figure(value: float) -> str:
    """A criterion, so that candidates that differ by what matters look different."""
    return f"{value:.3f}" if 1e5 <= abs(value) < 1e15 else f"{value:.8g}"
