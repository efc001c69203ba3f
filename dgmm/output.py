"""Answers about each row, written to a Zarr array block by block.

Each task writes the chunks of its own block, whole, so no two tasks touch the same chunk and a
task that runs twice does no harm.  The array grows under a temporary name beside its own, which
it gets when complete: an array of that name is always whole.  An object store can't rename, so
there it is copied in the end, its metadata last: until then there is no array of that name.
"""

import os
import shutil
from contextlib import suppress
from typing import Any
from uuid import uuid4

import zarr

from dgmm.dataset import Dataset
from dgmm.errors import DataError
from dgmm.kernel import ANSWERS, answer
from dgmm.mixture import Mixture
from dgmm.places import exists, is_local, place, refuse_existing, zarr_store
from dgmm.statistics import Total
from dgmm.sweep import Block, Sweep


def write_answers(sweep: Sweep, dataset: Dataset, mixture: Mixture, what: str, url: str) -> int:
    """Write what ``mixture`` says of each row to a new Zarr array at ``url``; the rows written.

    ``what`` is a key of ``kernel.ANSWERS``.  What was at ``url`` is replaced at the end.
    """
    kind = ANSWERS[what]
    columns = kind.columns(mixture.components)
    partial = f"{url.rstrip('/')}.{uuid4().hex}.partial"
    try:
        zarr.create_array(
            zarr_store(partial),
            shape=(dataset.rows, *columns),
            chunks=(dataset.block_rows, *columns),
            dtype=kind.dtype,
            attributes={"dgmm": {"what": what, "of": dataset.source.name}},
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{url} can't be written: {error}") from error
    try:
        written = sweep(_write, (partial, mixture, what))
        _rename(partial, url)
    except BaseException:
        remove(partial)
        raise
    return int(written.weight)


def check_target(url: str, dataset: Dataset, overwrite: bool) -> None:
    """Raise ``DataError`` unless an array may be put at ``url``, in place of no more than one."""
    if not overwrite:
        refuse_existing(url)
    if not exists(url):
        return
    try:
        zarr.open_array(zarr_store(url), mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{url} is no Zarr array; it is not overwritten") from error
    mine, rows = (place(name.rstrip("/"))[1] for name in (url, dataset.source.name))
    if f"{rows}/".startswith(f"{mine}/"):
        raise DataError(f"{url} holds the rows themselves; choose another name")


def remove(url: str) -> None:
    """Remove the array at ``url``, if there is one."""
    filesystem, path = place(url)
    with suppress(FileNotFoundError):
        filesystem.rm(path, recursive=True)


def _write(block: Block, given: tuple[str, Mixture, str]) -> Total:
    """Write one block's answers."""
    url, mixture, what = given
    stop = block.start + len(block.rows)
    answers = answer(block.rows, mixture, what, block.start)
    array: Any = zarr.open_array(zarr_store(url), mode="r+")
    array[block.start : stop] = answers
    return Total(0.0, float(len(block.rows)))


def _rename(partial: str, url: str) -> None:
    filesystem, source = place(partial)
    _, target = place(url.rstrip("/"))
    if is_local(filesystem):
        aside = f"{target}.{uuid4().hex}.old"
        if os.path.exists(target):
            os.rename(target, aside)
        os.rename(source, target)
        shutil.rmtree(aside, ignore_errors=True)
        return
    # An object store can't rename: copy, and last of all the metadata that makes it an array.
    remove(url)
    try:
        for key in sorted(filesystem.find(source), key=lambda key: key.endswith("zarr.json")):
            filesystem.copy(key, target + key[len(source) :])
    except BaseException:
        remove(url)
        raise
    remove(partial)
