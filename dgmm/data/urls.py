"""Paths and URLs: where they lead, and what may be done there."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import fsspec

from dgmm.data.patience import patience
from dgmm.data.transient import is_transient
from dgmm.errors import DataError
from dgmm.model.extras import how_to_install

PROBE: Final = "pass-000000.dgmm.{}.partial"
"""What is written to see whether one can; a checkpoint clears away what has such a name."""

PROBE_BYTES: Final = 64 << 10

SPECIAL: Final = re.compile(r"[*?[]")
"""What makes a pattern of a path."""

R = TypeVar("R")


def place(url: str) -> tuple[Any, str]:
    """The file system and the path on it that ``url`` leads to; raises ``DataError``."""
    if _is_name(url):
        return fsspec.filesystem("file"), os.path.abspath(url)
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        absent = isinstance(error, ImportError) and url.startswith("s3")
        remedy = f": {how_to_install('s3')}" if absent else ""
        raise DataError(f"{url} can't be opened: {error}{remedy}") from error
    return filesystem, path


def _is_name(url: str) -> bool:
    """Whether it is a local name with a ``::`` in it, and no chain of fsspec's protocols."""
    if "::" not in url or "://" in url:
        return False
    return os.path.lexists(url) or url.partition("::")[0] not in fsspec.available_protocols()


def absolute(url: str) -> str:
    """The same wherever it is read: workers may have other working directories."""
    filesystem, path = place(url)
    return path if is_local(filesystem) else url


def zarr_store(url: str) -> Path | str:
    """What to give to Zarr for what is at ``url``: it takes some local names for chains, too."""
    filesystem, path = place(url)
    return Path(path) if is_local(filesystem) else url


def is_local(filesystem: Any) -> bool:
    """Whether files lie on a file system of this machine."""
    return "file" in protocols(filesystem)


def protocols(filesystem: Any) -> tuple[str, ...]:
    """The names that a file system goes by."""
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def is_pattern(path: str) -> bool:
    """Whether other paths may match a ``path``."""
    return bool(SPECIAL.search(path))


def above(path: str) -> str:
    """The directory that all is below which matches a ``path``: itself, if it is no pattern."""
    special = SPECIAL.search(path)
    return path[: special.start()].rpartition("/")[0] if special else path.rstrip("/")


def exists(url: str) -> bool:
    """Whether anything is at ``url``; raises ``DataError`` if that can't be found out."""
    filesystem, path = place(url)

    def ask() -> bool:
        try:
            os.stat(path) if is_local(filesystem) else filesystem.info(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if is_transient(error):  # what HTTP says of whatever it could not ask
                raise
            return False
        return True

    return _asked(url, "reached", ask)


def _asked(url: str, done: str, ask: Callable[[], R]) -> R:
    """What ``ask`` gives, in time; raises ``DataError`` that ``url`` can't be ``done``."""
    try:
        return patience()(ask)
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be {done}: {error}") from error


def is_same(one: str, other: str) -> bool:
    """Whether two addresses are of one place."""
    (filesystem, path), (other_filesystem, other_path) = place(one), place(other)
    if is_local(filesystem) and is_local(other_filesystem):
        return os.path.realpath(path) == os.path.realpath(other_path)
    return (protocols(filesystem), path) == (protocols(other_filesystem), other_path)


def refuse_existing(url: str) -> None:
    """Raise ``DataError`` if something is at ``url`` already."""
    if exists(url):
        raise DataError(
            f"{url} exists; choose another name, or overwrite it (overwrite=True, --overwrite)"
        )


def refuse_directory(url: str) -> None:
    """Raise ``DataError`` if there is a directory where a file shall be."""
    filesystem, path = place(url)
    if is_local(filesystem) and os.path.isdir(path):
        raise DataError(f"{url} is a directory; choose another name")


def check_writable(url: str) -> None:
    """Raise ``DataError`` unless something can be put beside ``url``; leaves nothing behind."""
    filesystem, path = place(url)
    if is_local(filesystem):
        parent = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(parent):
            raise DataError(f"{url} can't be written: there is no directory {parent}")
        path = os.path.join(parent, f".dgmm-{uuid4().hex}")
    else:
        path = f"{path.rstrip('/')}.{uuid4().hex}.partial"
    _asked(url, "written", lambda: _try(filesystem, path))


def make_directory(url: str) -> None:
    """Have a directory at ``url`` in which files can be made; raises ``DataError``."""
    filesystem, path = place(url)

    def make() -> None:
        if is_local(filesystem):
            os.makedirs(path, exist_ok=True)
        _try(filesystem, f"{path.rstrip('/')}/{PROBE.format(uuid4().hex)}")

    _asked(url, "made", make)


def check_links(url: str) -> None:
    """Raise ``DataError`` unless hard links can be made in a directory at ``url`` that is local.

    A file that is to replace no other is made by one, and not all file systems have them.
    """
    filesystem, path = place(url)

    def link() -> None:
        one, other = (os.path.join(path, PROBE.format(uuid4().hex)) for _ in range(2))
        with open(one, "xb"):
            pass
        try:
            os.link(one, other)
            os.remove(other)
        finally:
            os.remove(one)

    if is_local(filesystem):
        _asked(url, "written", link)


def _try(filesystem: Any, path: str) -> None:
    """Write a file of some size, and remove it."""
    content = bytes(PROBE_BYTES)
    if not is_local(filesystem):
        filesystem.pipe_file(path, content)
        filesystem.rm_file(path)
        return
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some file systems have room until then
    finally:
        with suppress(FileNotFoundError):
            os.remove(path)


def names(url: str) -> list[str]:
    """The names of what is in the directory at ``url``; none if there is no directory."""
    filesystem, path = place(url)

    def ask() -> list[str]:
        filesystem.invalidate_cache()
        try:
            return list(filesystem.ls(path, detail=False))
        except (FileNotFoundError, NotADirectoryError) as error:
            if is_transient(error):
                raise
            return []

    paths = (each.rstrip("/") for each in _asked(url, "listed", ask))
    itself = path.rstrip("/")
    return [each.rpartition("/")[2] for each in paths if each != itself]


def remove(url: str) -> None:
    """Delete the file at ``url``, if it is there."""
    filesystem, path = place(url)

    def ask() -> None:
        with suppress(FileNotFoundError):
            filesystem.rm_file(path)

    _asked(url, "deleted", ask)
