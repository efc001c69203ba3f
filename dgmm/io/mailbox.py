"""Mailboxes: directories, here or in buckets, where a site and who leads a fit leave files.

A file is a question or the answer to it, and has a format of ``dgmm.io.storage``: checked, whole or
not at all, and unable to execute code.  Questions have numbers, so whoever comes back after a crash
reads what is there, and goes on.  Nobody listens on a port: a site needs to reach its mailbox only.

::

    question-0000.dgmm   answer-0000.dgmm    about the start
    question-0001.dgmm   answer-0001.dgmm    a model, and the sums of a site's rows under it
    ...
    fitted.dgmm                              the end: the model
    failed-0003.dgmm                         instead of an answer
    refused.dgmm                             instead of another question: who leads ended the fit
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dgmm.data import urls
from dgmm.errors import DataError
from dgmm.io import storage

FAILURE: Final = "dgmm-failure"

END: Final = "fitted.dgmm"

REFUSED: Final = "refused.dgmm"

WAITS: Final = (0.05, 2.0)
"""Seconds between two looks into a mailbox, at first and at most."""


class MailboxError(DataError):
    """A mailbox is of another fit, or its site failed; mended, all goes on as the others stand."""


class NoAnswerError(MailboxError):
    """The other side said nothing in time; it may later."""

    is_transient = True


def _waited(look: Callable[[], bool], timeout: float) -> bool:
    """Whether ``look`` came to see something in so many seconds."""
    until, wait = time.monotonic() + timeout, WAITS[0]
    while not look():
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(wait, left))
        wait = min(1.5 * wait, WAITS[1])
    return True


@dataclass(frozen=True)
class Mailbox:
    """One site's mailbox, at a path or URL: by that name messages call the site."""

    url: str

    def at(self, kind: str, number: int) -> str:
        """Where a "question", an "answer" or a "failed" of this number lies."""
        return f"{self._base}/{kind}-{number:04d}.dgmm"

    @property
    def end(self) -> str:
        """Where the fitted model lies at the end."""
        return f"{self._base}/{END}"

    @property
    def _base(self) -> str:
        return self.url.rstrip("/")

    def names(self) -> set[str]:
        """What lies in it."""
        return set(urls.names(self.url))

    def fail(self, number: int, error: Exception) -> None:
        """Tell of what kind an ``error`` is, and no more: its text may tell of rows."""
        _tell(self.at("failed", number), error)

    def refuse(self, error: Exception) -> None:
        """Tell a site that waits of what kind the ``error`` is that ended the fit, and no more.

        Its text may tell of other sites.
        """
        _tell(self._refusal, error)

    def begin(self) -> None:
        """Forget that a fit was refused: it begins again."""
        urls.remove(self._refusal)

    @property
    def _refusal(self) -> str:
        return f"{self._base}/{REFUSED}"

    def questions(self, timeout: float) -> Iterator[int]:
        """The numbers of the questions without an answer, as they come, until the end.

        Raises ``DataError`` if none comes for so many seconds, or the fit is refused meanwhile.
        """
        self.begin()
        while True:
            found: list[int] = []
            ended = refused = False

            def look() -> bool:
                nonlocal found, ended, refused
                names = self.names()
                ended, refused = END in names, REFUSED in names
                asked, answered = _numbers(names, "question"), _numbers(names, "answer")
                found = sorted(asked - answered)
                return ended or refused or bool(found)

            if not _waited(look, timeout):
                raise NoAnswerError(
                    f"nothing was asked in {self.url} for {timeout:g} s: see whether dgmm federate "
                    "runs with this mailbox, and then start again; answers given are kept"
                )
            if ended:
                return
            if refused:
                raise DataError(
                    f"who leads the fit of {self.url} ended it ({_told(self._refusal)}): what "
                    "dgmm federate says itself tells more. Mend that, and start both again"
                )
            for number in found:
                urls.remove(self.at("failed", number))
                yield number


def _tell(url: str, error: Exception) -> None:
    """Have a file at ``url`` tell of what kind an ``error`` is."""
    storage.write(url, FAILURE, {}, {"error": type(error).__name__}, overwrite=True)


def _told(url: str) -> str:
    """Of what kind an error was, as a file tells."""
    return str(storage.read(url, FAILURE)[1].get("error"))


def _numbers(names: set[str], kind: str) -> set[int]:
    """The numbers of the files of a ``kind``."""
    matches = (re.fullmatch(rf"{kind}-([0-9]{{4,}})\.dgmm", each) for each in names)
    return {int(match[1]) for match in matches if match}


def wait_for_answers(sites: Mapping[str, Mailbox], number: int, timeout: float) -> None:
    """Wait until all ``sites`` have answered question ``number``.

    Raises ``DataError`` that names those that failed, or that did not answer in so many seconds.
    """
    left, failed = dict(sites), dict[str, str]()

    def look() -> bool:
        for name, mailbox in sites.items():
            if name not in left:
                continue
            names = mailbox.names()
            if number in _numbers(names, "answer"):
                del left[name]
            elif number in _numbers(names, "failed"):
                failed[name] = _told(mailbox.at("failed", number))
        return not left or bool(failed)

    answered = _waited(look, timeout)
    again = "Mend that, start the site again and then this: it goes on from there"
    for name, error in failed.items():
        raise MailboxError(
            f"site {name} failed at question {number} ({error}): what it says itself tells more. "
            f"{again}"
        )
    if not answered:
        raise NoAnswerError(
            f"no answer to question {number} in {timeout:g} s from {', '.join(left)}. {again}"
        )


def post(mailbox: Mailbox, url: str, write: Callable[[], None], same: Callable[[], bool]) -> None:
    """``write`` what is to lie in a ``mailbox`` at ``url``, unless the ``same`` is there.

    Raises ``DataError`` if something else is there: of another fit.
    """
    if not urls.exists(url):
        write()
    elif not same():
        raise MailboxError(
            f"{mailbox.url} holds the rounds of another fit: {url} is not what this one would put "
            "there. Take an empty mailbox for each fit"
        )
