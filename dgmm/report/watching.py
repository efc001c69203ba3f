"""``ProgressBar``: a fit to be watched, in a notebook or a terminal.

In a notebook it is a little HTML, made anew a few times a second by a thread, as a pass over many
rows takes long; elsewhere a line is written for each pass, and in a terminal what goes on is the
last line.
"""

import html
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dgmm.estimators.callbacks import Event
from dgmm.estimators.passes import clock
from dgmm.model.lazy import Late

shown = Late("IPython.display")

SECONDS: Final = 0.3
"""How often what goes on is shown."""


class ProgressBar:
    """A callback that shows how far a fit is: a bar in a notebook, lines elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture, ProgressBar
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = GaussianMixture(2, callbacks=[ProgressBar()], random_state=0)
    >>> model = model.fit(rows)                                     # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._run: _Run | None = None

    def __call__(self, event: Event) -> None:
        """Show an event.

        Parameters
        ----------
        event : Event
            What has happened.
        """
        if event.kind == "start":
            self._run = _Run(_notebook() if in_notebook() else _terminal())
        if self._run is not None:
            self._run.happened(event)
            self._run = None if event.kind == "end" else self._run

    def __deepcopy__(self, memo: Any) -> "ProgressBar":
        return ProgressBar()  # what one shows belongs to one fit

    def __reduce__(self) -> Any:
        return ProgressBar, ()

    def __repr__(self) -> str:
        return "ProgressBar()"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


@dataclass(frozen=True)
class Standing:
    """Where a fit stands.

    Attributes
    ----------
    doing : str
        What goes on.
    said : str
        What the last pass brought.
    share : float
        How much of a pass is done.
    seconds : float
        Since the fit began.
    new, over : bool
        Whether a pass was just done, and whether there are no more.
    """

    doing: str
    said: str
    share: float
    seconds: float
    new: bool
    over: bool


Show = Callable[[Standing], None]


class _Run:
    """What is shown of one fit: at its events, and between them by a thread."""

    def __init__(self, show: Show) -> None:
        self._show, self._began = show, time.perf_counter()
        self._passes, self._before, self._said = 0, 0, ""
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def happened(self, event: Event) -> None:
        """Show an event; the first begins the thread, and the last ends it."""
        if event.kind == "start":
            self._thread = threading.Thread(
                target=self._watch, args=(event,), name="dgmm-progress", daemon=True
            )
            self._thread.start()
        if event.kind == "pass":
            self._passes, self._said = event.passes, event.message
            self._before = event.meter.rows
            self._now(event, new=True)
        if event.kind == "end":
            self._over.set()
            if self._thread is not None:
                self._thread.join()
            self._now(event)

    def _watch(self, event: Event) -> None:
        while not self._over.wait(SECONDS):
            self._now(event)

    def _now(self, event: Event, new: bool = False) -> None:
        meter, over, passes = event.meter, self._over.is_set(), self._passes
        doing = f"pass {passes + 1}"
        if meter.stage:
            doing = f"on samples: {meter.stage}" + f", sweep {meter.sweep}" * (meter.sweep > 0)
        if over:
            doing = f"{passes} pass{'es' * (passes != 1)} in"
        share = (
            1.0
            if over and passes
            else min(1.0, (meter.rows - self._before) / max(1, event.plan.rows))
        )
        with self._lock:
            seconds = time.perf_counter() - self._began
            self._show(Standing(doing, self._said, share, seconds, new, over))


HTML: Final = (
    '<div style="font-family: monospace"><progress max="1" value="{share:.3f}" '
    'style="width: 16em"></progress> {doing} {clock}<br>{said}</div>'
)


def _notebook() -> Show:
    """Shows it in the output of a cell, in one place."""
    place: Any = None

    def show(now: Standing) -> None:
        nonlocal place
        doing, said, took = html.escape(now.doing), html.escape(now.said), clock(now.seconds)
        forms = {
            "text/html": HTML.format(share=now.share, doing=doing, said=said, clock=took),
            "text/plain": f"{now.doing} {took}\n{now.said}",
        }
        if place is None:
            place = shown.display(forms, raw=True, display_id=True)
        else:
            place.update(forms, raw=True)

    return show


BAR: Final = 24
"""How many characters a bar has."""


def _terminal() -> Show:
    """Writes a line for each pass to standard error, and in a terminal what goes on below it."""
    out = sys.stderr
    live = out.isatty()

    def show(now: Standing) -> None:
        if live:
            out.write("\r\x1b[K")
        if now.new:
            out.write(f"{now.said}\n")
        if live and not now.over:
            done = round(BAR * now.share)
            bar = "━" * done + " " * (BAR - done)
            out.write(f"{now.doing} {bar} {clock(now.seconds)}"[:79])
        out.flush()

    return show
