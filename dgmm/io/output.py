"""Outputs of each row, written block by block to what a name asks for (``endings``).

Each task writes the chunks, or the file, of its own block, whole, so no two tasks touch the same
and a task that runs twice does no harm.  It all grows under a temporary name beside its own, which
it gets when complete: what has that name is always whole.  An object store can't rename, so there
it is copied in the end, its mark last: until then there is no array of that name.  What is one
file is made of a Zarr array when that is whole, and gets its name in one go.

What fails is removed, its mark first: a task that is still at work somewhere finds them gone
when it has written, and removes what it wrote.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import numpy as np

from dgmm.data.dataset import Dataset
from dgmm.data.patience import Patience, patience
from dgmm.data.urls import absolute, exists, is_local, place, refuse_existing
from dgmm.errors import DataError, DgmmError
from dgmm.io import directories
from dgmm.io.endings import target_of
from dgmm.io.targets import Beside, Target
from dgmm.kernels.complete import NOTHING
from dgmm.kernels.outputs import RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.mixture import NOISE


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


def blocks_for(url: str, dataset: Dataset) -> Dataset:
    """The rows of a dataset in the blocks in which what is at ``url`` can be written."""
    return target_of(url, grid=dataset.source.grid).blocks_of(dataset)


def write_outputs(
    sweep: Sweep, dataset: Dataset, wanted: RowOutputs, url: str, keep: Sequence[str] = ()
) -> Written:
    """Write what is ``wanted`` of each row to what ``url`` names; what was written.

    The ``sweep`` is over the ``dataset``, in the blocks of ``blocks_for``.  What was at ``url`` is
    replaced at the end.  ``keep`` are columns of the rows' table.
    """
    target = target_of(url, keep, dataset.source.grid)
    beside = Beside.of(target, dataset, wanted)
    partial = f"{absolute(url).rstrip('/')}.{uuid4().hex}.partial"
    ask = patience()
    try:
        with _written(url):
            ask(lambda: target.begin(partial, dataset, wanted))
        written = sweep(_write, _Job(target, partial, url, wanted, beside, ask))
        with _written(url):
            target.publish(partial, url, dataset, wanted, beside)
    except BaseException:
        directories.abandon(partial, target.mark)
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


def check_target(url: str, dataset: Dataset, overwrite: bool, keep: Sequence[str] = ()) -> None:
    """Raise ``DataError`` unless outputs may be put at ``url``, in place of no more than such."""
    target = target_of(url, keep, dataset.source.grid)
    target.check(url, dataset)
    if not overwrite:
        refuse_existing(url)
    if not exists(url):
        return
    if not target.is_at(url):
        raise DataError(f"{url} is no {target.called} of outputs; it is not overwritten")
    filesystem, path = place(url.rstrip("/"))
    real = os.path.realpath if is_local(filesystem) else str  # whatever links lead there
    for source in (dataset.source, *dataset.beside.values()):
        paths = map(real, (place(source.name.rstrip("/"))[1], *source.paths))
        if any(f"{each}/".startswith(f"{real(path)}/") for each in paths):
            held = "the rows themselves" if source is dataset.source else "what lies beside them"
            raise DataError(f"{url} holds {held}; choose another name")


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
            directories.remove(job.partial, job.target.mark)
            raise DataError(f"{job.partial} was removed")
    labels = job.wanted.output.labels
    if labels is None:
        flagged = int(np.count_nonzero(outputs)) if outputs.dtype == np.bool_ else None
        return Written(len(block.rows), (), flagged=flagged)
    named = labels(outputs, job.wanted.mixture)
    counts = np.bincount(named[named >= 0], minlength=job.wanted.mixture.components)
    noise = None
    if job.wanted.mixture.noise_component is not None:
        noise = int(np.count_nonzero(named == NOISE))
    nothing = int(np.count_nonzero(named == NOTHING))
    return Written(len(block.rows), tuple(counts.tolist()), noise, nothing)
