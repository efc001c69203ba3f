"""Outputs of each row, written block by block to a Zarr array or a table (``targets``).

Each task writes the chunks, or the file, of its own block, whole, so no two tasks touch the same
and a task that runs twice does no harm.  It all grows under a temporary name beside its own, which
it gets when complete: what has that name is always whole.  An object store can't rename, so there
it is copied in the end, its mark last: until then there is no array of that name.

What fails is removed, its mark first: a task that is still at work somewhere finds them gone
when it has written, and removes what it wrote.
"""

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from dgmm.data.dataset import Dataset
from dgmm.data.patience import Patience, patience
from dgmm.data.urls import exists, is_local, place, refuse_existing
from dgmm.errors import DataError, DgmmError
from dgmm.io.targets import Beside, Target, target_of
from dgmm.kernels.complete import NOTHING
from dgmm.kernels.outputs import RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.mixture import NOISE

log = logging.getLogger("dgmm")


@dataclass(frozen=True)
class Written:
    """The rows written, and how many belong to each component (K,); none where that isn't told.

    And how many are ``noise``, where there is a noise component; ``nothing`` is how many belong to
    none, as nothing of them was observed.  Where outputs are yes or no, ``flagged`` counts yes.
    """

    rows: int
    counts: tuple[int, ...]
    noise: int | None = None
    nothing: int = 0
    flagged: int | None = None

    def __add__(self, other: "Written") -> "Written":
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        noise = None if self.noise is None else self.noise + (other.noise or 0)
        flagged = None if self.flagged is None else self.flagged + (other.flagged or 0)
        nothing = self.nothing + other.nothing
        return Written(self.rows + other.rows, counts, noise, nothing, flagged)


def write_outputs(
    sweep: Sweep, dataset: Dataset, wanted: RowOutputs, url: str, keep: Sequence[str] = ()
) -> Written:
    """Write what is ``wanted`` of each row to what ``url`` names; what was written.

    What was at ``url`` is replaced at the end.  ``keep`` are columns of the rows' table.
    """
    target = target_of(url, keep)
    beside = Beside.of(target, dataset, wanted)
    partial = f"{url.rstrip('/')}.{uuid4().hex}.partial"
    ask = patience()
    try:
        with _written(url):
            ask(lambda: target.begin(partial, dataset, wanted))
        written = sweep(_write, _Job(target, partial, url, wanted, beside, ask))
        with _written(url):
            _rename(target, partial, url)
    except BaseException:
        _abandon(target, partial)
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


def _abandon(target: Target, partial: str) -> None:
    """Remove what there is; tells if it has to stay."""
    try:
        remove(target, partial)
    except Exception as error:
        log.warning("%s can't be removed, delete it: %s", partial, error)


def check_target(url: str, dataset: Dataset, overwrite: bool, keep: Sequence[str] = ()) -> None:
    """Raise ``DataError`` unless outputs may be put at ``url``, in place of no more than such."""
    target = target_of(url, keep)
    target.check(url, dataset)
    if not overwrite:
        refuse_existing(url)
    if not exists(url):
        return
    if not target.is_at(url):
        raise DataError(f"{url} is no {target.called} of outputs; it is not overwritten")
    mine = place(url.rstrip("/"))[1]
    for source in (dataset.source, *dataset.beside.values()):
        if f"{place(source.name.rstrip('/'))[1]}/".startswith(f"{mine}/"):
            held = "the rows themselves" if source is dataset.source else "what lies beside them"
            raise DataError(f"{url} holds {held}; choose another name")


def remove(target: Target, url: str) -> None:
    """Remove what is at ``url``, if there is anything, its mark first."""
    filesystem, path = place(url)

    def remove_local() -> None:
        with suppress(FileNotFoundError):
            os.remove(f"{path}/{target.mark}")
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
        lambda: filesystem.rm_file(f"{path}/{target.mark}"),
        lambda: keys.extend(filesystem.find(path)),
        lambda: filesystem.rm(keys) if keys else None,
    )
    filesystem.invalidate_cache(path)
    if exists(url):  # where there are directories
        remove_remote(lambda: filesystem.rm(path, recursive=True))


@dataclass(frozen=True)
class _Job:
    """What is written where, until it is whole and gets its name."""

    target: Target
    partial: str
    url: str
    wanted: RowOutputs
    beside: Beside
    patience: Patience


def _write(block: Block, job: _Job) -> Written:
    """Write one block's outputs."""
    outputs = job.wanted(block)
    with _written(job.url):
        job.patience(lambda: job.target.put(job.partial, block.start, outputs, job.beside))
        place(job.partial)[0].invalidate_cache(place(job.partial)[1])
        if not exists(f"{job.partial}/{job.target.mark}"):
            remove(job.target, job.partial)
            raise DataError(f"{job.partial} was removed")
    labels = job.wanted.output.labels
    if labels is None:
        flagged = int(np.count_nonzero(outputs)) if outputs.dtype == np.bool_ else None
        return Written(len(block.rows), (), flagged=flagged)
    found = labels(outputs, job.wanted.mixture)
    counts = np.bincount(found[found >= 0], minlength=job.wanted.mixture.components)
    noise = None
    if job.wanted.mixture.noise_component is not None:
        noise = int(np.count_nonzero(found == NOISE))
    nothing = int(np.count_nonzero(found == NOTHING))
    return Written(len(block.rows), tuple(counts.tolist()), noise, nothing)


def _rename(target: Target, partial: str, url: str) -> None:
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
    remove(target, url)
    try:
        keys = ask(lambda: filesystem.find(source))
        for key in sorted(keys, key=lambda key: key.endswith(target.mark)):
            ask(functools.partial(filesystem.copy, key, path + key[len(source) :]))
    except BaseException:
        _abandon(target, url)
        raise
    _abandon(target, partial)
