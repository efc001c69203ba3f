"""Stores that are away for the moment, and how long to wait for them.

Whatever is read from a store or written to one, rows, checkpoints, models and outputs, is asked for
again where the error says that it may pass (``is_transient``): after pauses that grow, for as
long as Dask's configuration value ``dgmm.store-seconds`` says, counted from the first failure.
Then the error is told.  Other errors are told at once.

So all that is asked for must do no harm when done twice: an answer may be lost on its way back.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import dask

from dgmm.data.transient import is_transient

STORE_SECONDS: Final = 60
"""How long to ask again; see ``patience``."""

FIRST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 5.0
"""The first pause, and the longest."""

WARNED_SECONDS: Final = 2
"""After how long of that to tell of it."""

log = logging.getLogger("dgmm")


class _Waiting(threading.local):
    """Where a thread is: inside of a call, when that first failed, and whether that was told."""

    inside = False
    since = 0.0
    warned = False


_waiting = _Waiting()

R = TypeVar("R")


@dataclass(frozen=True)
class Patience:
    """How long a store is asked again, and after which pauses.

    Attributes
    ----------
    seconds : float
        From the first failure on; an attempt that has begun by then is not cut off.
    first, most : float
        The first pause at most, and the longest; each is twice the one before.  A pause is cut by
        up to a half, by chance, so that not all who wait come back at once.
    """

    seconds: float = STORE_SECONDS
    first: float = FIRST_SECONDS
    most: float = MOST_SECONDS

    def __call__(self, ask: Callable[[], R], pause: Callable[[float], Any] = time.sleep) -> R:
        """What ``ask`` gives, as soon as it does; ``pause`` may say that it is not wanted any more.

        Raises what ``ask`` raises, if that won't pass, or did not in time: calls within each other
        have that time together.
        """
        if _waiting.inside:
            return self._wait(ask, pause)
        _waiting.inside, _waiting.since, _waiting.warned = True, 0.0, False
        try:
            return self._wait(ask, pause)
        finally:
            _waiting.inside = False

    def _wait(self, ask: Callable[[], R], pause: Callable[[float], Any]) -> R:
        longest = self.first
        while True:
            try:
                return ask()
            except Exception as error:
                now = time.monotonic()
                _waiting.since = _waiting.since or now
                left = _waiting.since + self.seconds - now
                if left <= 0 or not is_transient(error):
                    raise
                if now - _waiting.since > WARNED_SECONDS and not _waiting.warned:
                    log.warning("a store is away, asked again for %.0f s: %s", left, error)
                    _waiting.warned = True
                chance = random.SystemRandom().uniform(0.5, 1)  # no generator that a fit could see
                if pause(min(left, longest * chance)):
                    raise
                longest = min(2 * longest, self.most)


def patience() -> Patience:
    """As Dask's configuration says, ``dgmm.store-seconds``."""
    seconds = float(dask.config.get("dgmm.store-seconds", STORE_SECONDS))
    return Patience(seconds, FIRST_SECONDS, MOST_SECONDS)
