"""Which errors may pass: a cluster or a store was not there, or did not answer.

Errors are known by their types, numbers and HTTP status, never by what they say.
"""

import errno
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import IncompleteRead
from typing import Any, Final

from dgmm.errors import DgmmError

AWAY: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "EREMOTEIO", "ENOBUFS", "ESTALE", "ETIMEDOUT"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
        *("EHOSTDOWN", "EHOSTUNREACH", "EPIPE", "ENOTCONN", "ESHUTDOWN", "ENOLINK", "ECOMM"),
        "EPROTO",
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

Types = tuple[type[BaseException], ...]

CONNECTIONS: Final[dict[str, Callable[[Any], Types]]] = {
    "aiohttp": lambda of: (of.ClientConnectionError, of.ClientPayloadError),
    "asyncio.exceptions": lambda of: (of.IncompleteReadError,),
    "botocore.exceptions": lambda of: (
        *(of.ConnectionError, of.HTTPClientError),
        of.CredentialRetrievalError,  # who hands out rights to the store did not
    ),
    "botocore.parsers": lambda of: (of.ResponseParserError,),
    "distributed.comm": lambda of: (of.CommClosedError,),
    "google.auth.exceptions": lambda of: (of.TransportError,),  # gcsfs
    "requests.exceptions": lambda of: (of.ConnectionError, of.ChunkedEncodingError, of.Timeout),
    "urllib3.exceptions": lambda of: (of.ProtocolError, of.TimeoutError),
}
"""Errors of connections that carry neither a number nor a status: types, by their modules.

Only modules that are loaded are asked: no error of another can come."""


def is_transient(error: BaseException) -> bool:
    """Whether the same may work later: a cluster or a store was not there, or did not answer.

    Goes by what an error is: what it says of itself, HTTP's status, what it was raised from, its
    number, and what was being handled when it was raised, in this order.  Errors that say nothing
    of the kind are no reason to wait.
    """
    return bool(_verdict(error, 0))


def may_work_elsewhere(error: BaseException) -> bool:
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
        verdicts = {_verdict(each, depth + 1) for each in error.exceptions}
        return False if False in verdicts else True in verdicts or None
    before = None if error.__suppress_context__ else error.__context__
    for verdict in (
        error.is_transient if isinstance(error, DgmmError) else None,
        _by_status(error),
        _verdict(error.__cause__, depth + 1),
        _by_number(error),
        _verdict(before, depth + 1),
    ):
        if verdict is not None:
            return verdict
    return True if _is_of_a_connection(error) else None


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


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether it is one of ``CONNECTIONS``."""
    for name, types in CONNECTIONS.items():
        with suppress(AttributeError):  # of a module that another thread is loading
            if name in sys.modules and isinstance(error, types(sys.modules[name])):
                return True
    return False
