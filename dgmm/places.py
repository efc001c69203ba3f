"""Paths and URLs: where they lead, and what may be done there."""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from dgmm.errors import DataError


def place(url: str) -> tuple[Any, str]:
    """The file system and the path on it that ``url`` leads to; raises ``DataError``."""
    if _is_name(url):
        return fsspec.filesystem("file"), os.path.abspath(url)
    try:
        return fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise DataError(f"{url} can't be opened: {error}") from error


def _is_name(url: str) -> bool:
    """Whether it is a local name with a ``::`` in it, and no chain of fsspec's protocols."""
    if "::" not in url or "://" in url:
        return False
    return os.path.lexists(url) or url.partition("::")[0] not in fsspec.available_protocols()


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


def exists(url: str) -> bool:
    """Whether anything is at ``url``; raises ``DataError`` if that can't be found out."""
    filesystem, path = place(url)
    try:
        return bool(filesystem.exists(path))
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be reached: {error}") from error


def refuse_existing(url: str) -> None:
    """Raise ``DataError`` if something is at ``url`` already."""
    if exists(url):
        raise DataError(f"{url} exists; choose another name, or overwrite it (--overwrite)")


def refuse_directory(url: str) -> None:
    """Raise ``DataError`` if there is a directory where a file shall be."""
    filesystem, path = place(url)
    if is_local(filesystem) and os.path.isdir(path):
        raise DataError(f"{url} is a directory; choose another name")


def check_writable(url: str) -> None:
    """Raise ``DataError`` unless something can be made beside ``url``; leaves nothing behind."""
    filesystem, path = place(url)
    if not is_local(filesystem):
        return
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise DataError(f"{url} can't be written: there is no directory {parent}")
    probe = os.path.join(parent, f".dgmm-{uuid4().hex}")
    try:
        with open(probe, "xb"):
            pass
        os.remove(probe)
    except OSError as error:
        raise DataError(f"{url} can't be written: {error}") from error


def names(url: str) -> list[str]:
    """The names of what is in the directory at ``url``; none if there is no directory."""
    filesystem, path = place(url)
    try:
        filesystem.invalidate_cache()
        if not filesystem.isdir(path):
            return []
        found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be listed: {error}") from error
    return [each.rstrip("/").rpartition("/")[2] for each in found]


def remove(url: str) -> None:
    """Delete the file at ``url``, if it is there."""
    filesystem, path = place(url)
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be deleted: {error}") from error
