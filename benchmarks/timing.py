"""Alternating timings, and figures taken within a round.

A shared machine is faster in one minute than in the next.  So what is compared runs in turn, round
after round; a figure, such as a ratio, is worked out within each round, and the median over the
rounds is what is told.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROUNDS = 5
"""The fewest rounds that a figure is told from; fewer are named in the table."""

Timed = Callable[[], object]
"""Something to time."""


class Seconds(float):
    """What a run that was timed brings home, if not all that it does counts."""


@dataclass(frozen=True)
class Timings:
    """The seconds of everything that was timed, one dict for each round."""

    rounds: tuple[dict[str, float], ...]

    def seconds(self, name: str) -> float:
        """The median time of ``name``."""
        return median(each[name] for each in self.rounds)

    def figure(self, of: Callable[[dict[str, float]], float]) -> float:
        """The median of what ``of`` makes of a round's times."""
        return median(map(of, self.rounds))

    def ratio(self, over: str, under: str) -> float:
        """The median of the rounds' ratios."""
        return self.figure(lambda seconds: seconds[over] / seconds[under])


def seconds_of(timed: Timed) -> float:
    """The time of one run."""
    began = time.perf_counter()
    own = timed()
    return own if isinstance(own, Seconds) else time.perf_counter() - began


def alternate(
    named: Mapping[str, Timed],
    rounds: int = ROUNDS,
    title: str = "",
    budget: float = float("inf"),
) -> Timings:
    """Time everything in turn, ``rounds`` times, or as often as ``budget`` seconds allow."""
    began, done = time.perf_counter(), []
    for number in range(1, rounds + 1):
        say(f"{title}: round {number} of {rounds}")
        seconds = {}
        for name, timed in named.items():
            seconds[name] = seconds_of(timed)
        done.append(seconds)
        if (time.perf_counter() - began) * (number + 1) / number > budget:
            break
    return Timings(tuple(done))


def say(line: str) -> None:
    """Progress, on standard error: on a terminal each line takes the place of the last."""
    terminal = sys.stderr.isatty()
    print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr)
    sys.stderr.flush()
