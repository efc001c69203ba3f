"""Who watches a fit from Python: functions that are called with what has happened.

A callback is a function of one ``Event``.  An error in one ends the fit, which leaves the model as
it was; ``KeyboardInterrupt`` ends it as Ctrl-C does, with the best mixture so far.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dgmm import engine
from dgmm.em.progress import Progress
from dgmm.engine.plan import Plan
from dgmm.errors import UsageError
from dgmm.estimators.passes import Pass, line_of

Kind = Literal["start", "samples", "pass", "end"]

SAMPLES_SECONDS: Final = 0.2
"""How often callbacks are told, at most, what is done on samples."""


@dataclass(frozen=True)
class Event:
    """What has happened in a fit or a selection.

    Parameters
    ----------
    kind : {"start", "samples", "pass", "end"}
        "start": it begins.  "samples": what is done on samples has changed; this is told now and
        then.  "pass": a pass over all rows is done.  "end": there are no more, also after an error.
    plan : Plan
        What it was planned to need; ``plan.rows`` are those of a pass.
    meter : Meter
        ``meter.rows`` counts rows as they are read, also within a pass.
    passes : int
        How many passes are done.
    numbers : dict of str to float
        What a pass brought, as far as it is known: ``score``, ``change`` and ``gap`` (what is left
        to gain, as estimated), in nats a row; ``target``, below which the gap must be;
        ``seconds_left``, ``seconds_left_at_most``; of a selection ``candidates`` and
        ``criterion``; and ``seconds``, ``seconds_on_samples`` and ``rows_per_second``.
    message : str
        The same as a line for a person.
    stage : str
        What is done on samples, such as "start 3 of 8"; "" for nothing.
    sweep : int
        In which sweep of them.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> scores = []
    >>> def keep(event):
    ...     if event.kind == "pass" and "score" in event.numbers:
    ...         scores.append(event.numbers["score"])
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = GaussianMixture(2, random_state=0, callbacks=[keep]).fit(rows)
    >>> len(scores) >= 1 and scores == sorted(scores)
    True
    """

    kind: Kind
    plan: Plan
    meter: engine.Meter
    passes: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    message: str = ""
    stage: str = ""
    sweep: int = 0


Callback = Callable[[Event], Any]

PassesOf = Callable[[Iterable[Progress]], Iterator[Pass]]
"""Makes of the progress of a run what its passes brought, one for each."""


def callbacks_of(model: Any) -> tuple[Callback, ...]:
    """The callbacks of a model, checked."""
    callbacks = model.callbacks
    if callbacks is None:
        return ()
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UsageError(
            f"callbacks must be a list of functions of an Event, not {callbacks!r:.80}; a single "
            "one goes into a list, too"
        )
    return tuple(callbacks)


def telling(
    steps: Generator[Progress, None, None],
    passes_of: PassesOf,
    callbacks: Sequence[Callback],
    plan: Plan,
    meter: engine.Meter,
) -> Generator[Progress, None, None]:
    """The ``steps`` of a run, each yielded once ``callbacks`` know of it."""
    last: list[Progress] = []

    def each() -> Iterator[Progress]:
        for step in steps:
            last[:] = [step]
            yield step

    def tell(kind: Kind, **more: Any) -> None:
        for callback in callbacks:
            callback(Event(kind, plan, meter, last[0].passes if last else 0, **more))

    with closing(steps):
        try:
            tell("start")
            with _listening(meter, lambda: tell("samples", stage=meter.stage, sweep=meter.sweep)):
                for done in passes_of(each()):
                    said = f"pass {done.number}: {line_of(done)}"
                    tell("pass", numbers=_numbers(done), message=said)
                    yield last[0]
        finally:
            tell("end")


@contextmanager
def _listening(meter: engine.Meter, tell: Callable[[], None]) -> Iterator[None]:
    """Have ``tell`` called now and then, while something is done on samples inside."""
    before, told_at, told_stage = meter.listener, -math.inf, ""

    def heard() -> None:
        nonlocal told_at, told_stage
        before()
        now = time.perf_counter()
        if (meter.stage and now - told_at >= SAMPLES_SECONDS) or (told_stage and not meter.stage):
            told_at, told_stage = now, meter.stage
            tell()

    meter.listener = heard
    try:
        yield
    finally:
        meter.listener = before


def _numbers(done: Pass) -> dict[str, float]:
    """What is known of a pass."""
    times = {"seconds": done.seconds, "seconds_on_samples": done.seconds_on_samples}
    values = {**done.numbers, **times, "rows_per_second": done.rows_per_second}
    return {name: float(value) for name, value in values.items() if value is not None}
