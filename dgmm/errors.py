"""What can go wrong, and the exit code each error gives the command line.

::

    DgmmError                 exit code 1
      UsageError              2   what was asked for cannot be (also a ValueError)
        ClusterError          2   the address or the workers of a Dask cluster won't do
          ClusterLostError    2   no Dask cluster is there in time, or it was lost; try again
      DataError               3   what was found cannot be used (also a ValueError)
        BlockError            3   a block of rows could not be read or computed; says which
        ModelFileError        3   a model file is missing, damaged or from the future
        CheckpointError       3   a checkpoint is of another fit, damaged, or another driver's
      PlanError               3   the run would not fit in the memory it may use

    DgmmWarning
      DegenerateWarning           components are empty, singular, or as narrow as reg_covar
      ObjectiveFellWarning        an iteration lowered the objective by more than rounding explains

Where a store that can't be reached is the cause, or a cluster, waiting may help: ``is_transient``.
A fit that did not converge is no error: it is scikit-learn's ``ConvergenceWarning``.
"""

import errno
import socket
import ssl
import sys
from collections.abc import Iterator
from http.client import IncompleteRead
from typing import Any, Final


class DgmmError(Exception):
    """Any error dgmm raises on purpose."""

    exit_code = 1

    is_transient: bool | None = None
    """Whether the same may work later, where whoever raised it knew; its causes may be lost."""


class UsageError(DgmmError, ValueError):
    """What was asked for cannot be."""

    exit_code = 2


class ClusterError(UsageError):
    """The Dask cluster asked for is none, or its workers don't have what is needed."""


class ClusterLostError(ClusterError):
    """No Dask cluster is there in time, or it was lost during a pass and did not come back."""

    is_transient = True


class DataError(DgmmError, ValueError):
    """What was found cannot be used."""

    exit_code = 3


class BlockError(DataError):
    """A block of rows could not be read or computed; the message names it, the cause is kept.

    Attributes
    ----------
    block : int, optional
        The block's number, where it is one that another worker may be able to read or write.
    worker : str, optional
        The address of the worker that could not.
    """

    block: int | None = None
    worker: str | None = None


class ModelFileError(DataError):
    """A model file is missing, damaged, or newer than this version of dgmm."""


class CheckpointError(DataError):
    """A checkpoint is of another fit, damaged, or being written by another driver."""


class PlanError(DgmmError):
    """The run would not fit in the memory it may use."""

    exit_code = 3


AWAY: Final = frozenset(
    getattr(errno, name)
    for name in (
        *(
            "EAGAIN",
            "EBUSY",
            "EINTR",
            "EIO",
            "EREMOTEIO",
            "ENOBUFS",
            "ESTALE",
            "ETIMEDOUT",
            "EPIPE",
        ),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ESHUTDOWN", "ENOLINK", "ECOMM", "EPROTO"),
    )
    if hasattr(errno, name)
) | {
    getattr(socket, name)
    for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_NODATA", "EAI_NONAME", "EAI_SYSTEM")
    if hasattr(socket, name)
}
"""The numbers of errors that a store, a mount or a network gives while it is away."""

ABSENT: Final = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
REFUSED: Final = (*ABSENT, PermissionError)
"""Errors that stay, though they may come without a number."""

CUT_SHORT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""What of TLS is the connection's doing; a certificate that is refused stays so."""

LATER: Final = frozenset(
    {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529, 599}
)
"""HTTP's status codes that ask for patience; others from 400 on are final."""

BUSY: Final = frozenset(
    {
        *("InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"),
        *("RequestTimeoutException", "Throttling", "ThrottlingException", "ThrottledException"),
        *("RequestThrottled", "RequestLimitExceeded", "BandwidthLimitExceeded"),
        *("TooManyRequestsException", "ConditionalRequestConflict", "PriorRequestNotComplete"),
    }
)
"""What S3 calls the same, with whatever status: an error may come after a 200, too."""

CUT_OFF: Final = {
    "aiohttp": ("ClientConnectionError", "ClientPayloadError"),
    "botocore.exceptions": ("ConnectionError", "HTTPClientError", "ResponseParserError"),
    "requests.exceptions": ("ConnectionError", "ChunkedEncodingError", "Timeout"),
    "urllib3.exceptions": ("ProtocolError", "TimeoutError"),
}
"""Errors of connections that carry neither a number nor a status, by the libraries they are of."""


def is_transient(error: BaseException) -> bool:
    """Whether the same may work later: a cluster or a store was not there, or did not answer.

    Goes by what an error is: what it says of itself, HTTP's status, what it was raised from, its
    number, and what was being handled when it was raised, in this order.  Errors that say nothing
    of the kind are no reason to wait.
    """
    return bool(_verdict(error, 0))


def elsewhere(error: BaseException) -> bool:
    """Whether the same may work on another machine: it was about files, or a connection."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) < 20:
        causes.append(cause)
    return is_transient(error) or any(isinstance(each, OSError) for each in causes)


def _verdict(error: BaseException | None, depth: int) -> bool | None:
    """Whether it may pass; None where nothing says so, or says no."""
    if error is None or depth > 20:  # a ring of errors can be made
        return None
    if isinstance(error, BaseExceptionGroup):
        found = {_verdict(each, depth + 1) for each in error.exceptions}
        return False if False in found else True in found or None
    before = None if error.__suppress_context__ else error.__context__
    for verdict in (
        getattr(error, "passing", None) if isinstance(error, DgmmError) else None,
        _by_status(error),
        _verdict(error.__cause__, depth + 1),
        _by_number(error),
        _verdict(before, depth + 1),
    ):
        if verdict is not None:
            return verdict
    return True if isinstance(error, tuple(_cut_off())) else None


def _by_status(error: BaseException) -> bool | None:
    """By HTTP's status, wherever libraries keep it, or by S3's word for it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and str(response.get("Error", {}).get("Code")) in BUSY:
        return True
    for each in _statuses(error, response):
        text = str(getattr(each, "value", each))
        if text.isdecimal() and 400 <= int(text) < 600:
            return int(text) in LATER
    return None


def _statuses(error: BaseException, response: Any) -> Iterator[Any]:
    """What may be a status, one after the other: some libraries warn of their older names."""
    if isinstance(response, dict):  # botocore
        yield response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status", "status_code", "code"):  # aiohttp, azure, gcsfs and urllib
        yield getattr(error, name, None)
    for name in ("status_code", "status"):  # requests
        yield getattr(response, name, None)


def _by_number(error: BaseException) -> bool | None:
    """By the system's number of an error, or by what Python makes of it."""
    if isinstance(error, REFUSED):
        return False
    if isinstance(error, ssl.SSLError):  # its numbers are OpenSSL's
        return isinstance(error, CUT_SHORT)
    if isinstance(error, TimeoutError | ConnectionError | IncompleteRead):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in AWAY
    return None


def _cut_off() -> Iterator[type[BaseException]]:
    """The classes of ``CUT_OFF``, of libraries that are in use: no other's errors can come."""
    for module, names in CUT_OFF.items():
        for name in names:
            if found := getattr(sys.modules.get(module), name, None):
                yield found


class DgmmWarning(UserWarning):
    """Any warning dgmm gives on purpose."""


class DegenerateWarning(DgmmWarning):
    """Components are empty, singular, or as narrow as reg_covar; the message names them."""


class ObjectiveFellWarning(DgmmWarning):
    """An iteration lowered the objective by more than rounding explains."""
