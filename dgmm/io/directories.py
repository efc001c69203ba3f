"""Directories that get their name when they are whole, by a mark: a file of theirs that is last."""

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from dgmm.data.patience import patience
from dgmm.data.urls import exists, is_local, place

log = logging.getLogger("dgmm")


def abandon(url: str, mark: str) -> None:
    """Remove what there is; tells if it has to stay."""
    try:
        remove(url, mark)
    except Exception as error:
        log.warning("%s can't be removed, delete it: %s", url, error)


def remove(url: str, mark: str) -> None:
    """Remove what is at ``url``, if there is anything, its ``mark`` first."""
    filesystem, path = place(url)

    def remove_local() -> None:
        with suppress(FileNotFoundError):
            os.remove(f"{path}/{mark}")
        for _ in range(20):  # others may be writing to it still, or removing it, too
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.lexists(path):
                return
            time.sleep(0.05)
        shutil.rmtree(path)

    def remove_remote(*steps: Callable[[], Any]) -> None:
        for step in steps:  # each by itself: all at once would seldom succeed on a bad day
            with suppress(FileNotFoundError):
                patience()(step)

    if is_local(filesystem):
        patience()(remove_local)
        return
    filesystem.invalidate_cache(path)
    keys: list[str] = []
    remove_remote(
        lambda: filesystem.rm_file(f"{path}/{mark}"),
        lambda: keys.extend(filesystem.find(path)),
        lambda: filesystem.rm(keys) if keys else None,
    )
    filesystem.invalidate_cache(path)
    if exists(url):  # where there are directories
        remove_remote(lambda: filesystem.rm(path, recursive=True))


def rename(partial: str, url: str, mark: str) -> None:
    """Give what is at ``partial`` the name ``url``, in place of what is there."""
    filesystem, source = place(partial)
    _, path = place(url.rstrip("/"))
    if is_local(filesystem):
        aside = f"{path}.{uuid4().hex}.old"
        if os.path.exists(path):
            os.rename(path, aside)
        try:
            os.rename(source, path)
        except OSError:
            if os.path.exists(aside):
                os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
        return
    # An object store can't rename: copy, and last of all the mark that makes it whole.
    ask = patience()
    remove(url, mark)
    try:
        keys = ask(lambda: filesystem.find(source))
        for key in sorted(keys, key=lambda key: key == f"{source.rstrip('/')}/{mark}"):
            ask(functools.partial(filesystem.copy, key, path + key[len(source) :]))
    except BaseException:
        abandon(url, mark)
        raise
    abandon(partial, mark)
