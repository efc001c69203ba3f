"""Outputs of each row, written to a Zarr array block by block.

Each task writes the chunks of its own block, whole, so no two tasks touch the same chunk and a
task that runs twice does no harm.  The array grows under a temporary name beside its own, which
it gets when complete: an array of that name is always whole.  An object store can't rename, so
there it is copied in the end, its metadata last: until then there is no array of that name.

What fails is removed, its metadata first: a task that is still at work somewhere finds them gone
when it has written, and removes what it wrote.
"""

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from uuid import uuid4

import numpy as np
import zarr

from dgmm.data.dataset import Dataset
from dgmm.data.patience import Patience, patience
from dgmm.data.urls import exists, is_local, place, refuse_existing, zarr_store
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.kernels.outputs import NOTHING, RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.mixture import NOISE

METADATA: Final = "zarr.json"
"""What makes an array of what is stored beside it."""

OTHERS: Final = (".npy", ".npz", ".csv", ".parquet", ".h5", ".hdf5", ".nc", ".zip")
"""How the names of files end that are no Zarr arrays."""

log = logging.getLogger("dgmm")


@dataclass(frozen=True)
class Written:
    """The rows written, and how many belong to each component (K,); none where that isn't told.

    And how many are ``noise``, where there is a noise component; ``nothing`` is how many belong to
    none, as nothing of them was observed.
    """

    rows: int
    counts: tuple[int, ...]
    noise: int | None = None
    nothing: int = 0

    def __add__(self, other: "Written") -> "Written":
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        noise = None if self.noise is None else self.noise + (other.noise or 0)
        return Written(self.rows + other.rows, counts, noise, self.nothing + other.nothing)


def write_outputs(sweep: Sweep, dataset: Dataset, wanted: RowOutputs, url: str) -> Written:
    """Write what is ``wanted`` of each row to a new Zarr array at ``url``; what was written.

    What was at ``url`` is replaced at the end.
    """
    columns = wanted.columns
    partial = f"{url.rstrip('/')}.{uuid4().hex}.partial"
    ask = patience()

    def make() -> None:
        zarr.create_array(
            zarr_store(partial),
            shape=(dataset.rows, *columns),
            chunks=(dataset.block_rows, *columns),
            dtype=wanted.output.dtype,
            attributes={"dgmm": {"kind": wanted.output.name, "of": dataset.source.name}},
            overwrite=True,
        )

    try:
        with _written(url):
            ask(make)
        written = sweep(_write, _Job(partial, url, wanted, ask))
        with _written(url):
            _rename(partial, url)
    except BaseException:
        _abandon(partial)
        raise
    return written


@contextmanager
def _written(url: str) -> Iterator[None]:
    """What goes wrong within is that ``url`` can't be written."""
    try:
        yield
    except DgmmError:
        raise
    except Exception as error:  # each store has errors of its own
        raise DataError(f"{url} can't be written: {error}") from error


def _abandon(partial: str) -> None:
    """Remove what there is of an array; tells if it has to stay."""
    try:
        remove(partial)
    except Exception as error:
        log.warning("%s can't be removed, delete it: %s", partial, error)


def check_name(url: str) -> None:
    """Raise ``UsageError`` for the name of a file of another kind than what is written."""
    suffix = PurePosixPath(url.rstrip("/")).suffix.lower()
    if suffix in OTHERS:
        raise UsageError(
            f"{url} reads like a {suffix} file, and what is written is a Zarr array: call it "
            f"{url.rstrip('/')[: -len(suffix)]}.zarr, say"
        )


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
    mine = place(url.rstrip("/"))[1]
    for source in (dataset.source, *dataset.beside.values()):
        if f"{place(source.name.rstrip('/'))[1]}/".startswith(f"{mine}/"):
            held = "the rows themselves" if source is dataset.source else "what lies beside them"
            raise DataError(f"{url} holds {held}; choose another name")


def remove(url: str) -> None:
    """Remove the array at ``url``, if there is one, its metadata first."""
    filesystem, path = place(url)

    def remove_local() -> None:
        with suppress(FileNotFoundError):
            os.remove(f"{path}/{METADATA}")
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
        lambda: filesystem.rm_file(f"{path}/{METADATA}"),
        lambda: keys.extend(filesystem.find(path)),
        lambda: filesystem.rm(keys) if keys else None,
    )
    filesystem.invalidate_cache(path)
    if exists(url):  # where there are directories
        remove_remote(lambda: filesystem.rm(path, recursive=True))


@dataclass(frozen=True)
class _Job:
    """What is written where, until it is whole and gets its name."""

    partial: str
    url: str
    wanted: RowOutputs
    patience: Patience


def _write(block: Block, job: _Job) -> Written:
    """Write one block's outputs."""
    stop = block.start + len(block.rows)
    outputs = job.wanted(block)

    def write() -> None:
        array: Any = zarr.open_array(zarr_store(job.partial), mode="r+")
        array[block.start : stop] = outputs

    with _written(job.url):
        job.patience(write)
        place(job.partial)[0].invalidate_cache(place(job.partial)[1])
        if not exists(f"{job.partial}/{METADATA}"):
            remove(job.partial)
            raise DataError(f"{job.partial} was removed")
    labels = job.wanted.output.labels
    if labels is None:
        return Written(len(block.rows), ())
    found = labels(outputs, job.wanted.mixture)
    counts = np.bincount(found[found >= 0], minlength=job.wanted.mixture.components)
    noise = None
    if job.wanted.mixture.noise_component is not None:
        noise = int(np.count_nonzero(found == NOISE))
    nothing = int(np.count_nonzero(found == NOTHING))
    return Written(len(block.rows), tuple(counts.tolist()), noise, nothing)


def _rename(partial: str, url: str) -> None:
    filesystem, source = place(partial)
    _, target = place(url.rstrip("/"))
    if is_local(filesystem):
        aside = f"{target}.{uuid4().hex}.old"
        if os.path.exists(target):
            os.rename(target, aside)
        try:
            os.rename(source, target)
        except OSError:
            if os.path.exists(aside):
                os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
        return
    # An object store can't rename: copy, and last of all the metadata that makes it an array.
    ask = patience()
    remove(url)
    try:
        keys = ask(lambda: filesystem.find(source))
        for key in sorted(keys, key=lambda key: key.endswith(METADATA)):
            ask(functools.partial(filesystem.copy, key, target + key[len(source) :]))
    except BaseException:
        _abandon(url)
        raise
    _abandon(partial)
