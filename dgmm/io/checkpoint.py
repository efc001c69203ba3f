"""Checkpoints: a fit that is killed goes on where it was, and ends with the same bits.

So does a selection: a fit is one with one candidate, and their files are of one kind.

A checkpoint is a directory, local or at a URL, of immutable files, one for each pass::

    pass-000001.dgmm     the first pass, its sample, the state of the random numbers; kept for good
    pass-000005.dgmm     the candidates' runs after pass 5; the last ``KEPT`` are kept
    pass-000006.dgmm

Each is a file of ``storage``: checked by a digest, unable to execute code, and durable, with its
name, before the next pass begins.  So whatever is killed at whatever moment, the newest file that
can be read is a state of the fit, and no more than the pass under way is lost.

**What is in it.**  A run is a frozen value, and so are its parts: they are written as they are,
field by field (``codec.py``).  What follows from the first pass is not written but made again.

**The same fit.**  Each file says what is being fitted to what (``fingerprint``): settings, the
shape, blocks and type of the rows, and a digest of some of them.  With anything else a fit refuses
to go on, and says what differs.

**One writer.**  A pass's file is made only if the one before is the newest and it isn't there yet,
in one step (a hard link; on object stores, a conditional PUT).  Of two drivers the slower one finds
it there, and ends.

**What is left.**  A driver that is killed while it writes leaves ``pass-000006.dgmm.*.partial``.
Once there is a pass 6, whoever was writing that comes too late, so the next driver deletes it.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import inf
from typing import Any, Final

import numpy as np

from dgmm.data import urls
from dgmm.data.dataset import Dataset
from dgmm.data.transient import is_transient
from dgmm.em.moments import DataMoments
from dgmm.em.progress import Candidate, Progress, Stopped
from dgmm.em.sample import nbytes as sample_nbytes
from dgmm.em.solver import RunState
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Samples
from dgmm.errors import CheckpointError, DataError, ModelFileError
from dgmm.io import storage
from dgmm.io.codec import Known, decode, encode
from dgmm.io.storage import Arrays
from dgmm.kernels import choice
from dgmm.kernels.sparse_rows import stored
from dgmm.kernels.sweep import BESIDE
from dgmm.model.fixed import Held

FORMAT: Final = "dgmm-checkpoint"
KEPT: Final = 3
"""How many of the newest passes stay, beside the first."""

NAME: Final = re.compile(r"pass-(\d{6})\.dgmm")
PARTIAL: Final = re.compile(NAME.pattern + r"\.[0-9a-f]{32}\.partial")
"""What ``storage`` calls a file while it is written."""

LOOKED_AT: Final = 3
"""How many blocks of the rows the fingerprint reads."""

CONTENT: Final = {
    "content": "other values in the rows, or beside them",
    "blocks": "the rows are in other blocks",
}
"""What differs, where digests are all that is known of it."""

BEGIN: Final = "Choose another checkpoint, or start over (resume=False, --no-resume)"

COUNTS: Final = ("densities", "rounds", "due")
"""What is kept of ``Progress``, beside the candidates."""

log = logging.getLogger("dgmm")

Fingerprint = dict[str, Any]


def fingerprint(dataset: Dataset, spec: FitSpec, seed: Any, **other: Any) -> Fingerprint:
    """What is fitted to what.  ``seed`` is ``random_state`` as it was given.

    ``other`` has what is other than in ``spec``, or more.
    """
    given = {"weights": spec.weights, "means": spec.means, "precisions": spec.precisions}
    plain = {
        name: getattr(spec, name)
        for name in (
            *("components", "tol", "resolution", "reg_covar"),
            *("max_iter", "n_init", "init_params", "effort", "precision"),
        )
    }
    blocks = sorted({round(part) for part in np.linspace(0, dataset.blocks - 1, LOOKED_AT)})
    return {
        "dgmm": version("dgmm"),
        "covariance_type": spec.covariance_model.name,
        "n_factors": spec.covariance_model.factor_count,
        "strategy": spec.strategy.name,
        **plain,
        "random_state": int(seed) if isinstance(seed, int | np.integer) else None,
        **{f"{name}_init": _digest(array) for name, array in given.items()},
        "fixed": None if spec.held is None else _held(spec.held),
        "missing": spec.observation.name,
        "prior": spec.prior.record(),
        "tails": spec.tails and [spec.tails.rule.name, spec.tails.dof],
        "noise_component": spec.noise and [spec.noise.weight, spec.noise.volume],
        "kernel": choice.described(spec.kernel),
        "rows": [dataset.rows, dataset.n_features],
        "dtype": str(dataset.source.dtype),
        "where": dataset.source.where,
        "blocks": _digest(dataset.divisions),
        "sample_weight": dataset.weights is not None,
        **{name: list(each.shape[1:]) for name, each in dataset.beside.items() if each.shape[1:]},
        "content": [
            _digest(part)
            for index in blocks
            for block in [dataset.block(index)]
            for part in (*stored(block.rows), *(getattr(block, name) for name in BESIDE))
        ],
        **other,
    }


def _digest(array: Any) -> str | None:
    if array is None:
        return None
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]


def writing_nbytes(dataset: Dataset, spec: FitSpec) -> int:
    """What writing passes takes: the first, which holds the sample, takes most.

    It is its file in a buffer, as it is sent, and in parts of that.
    """
    rows, n_features = dataset.rows, dataset.n_features
    first_pass_spec = spec.first_pass_spec(*dataset.layout)
    sample = sample_nbytes(first_pass_spec.kept(rows), n_features, first_pass_spec.beside)
    scatter = 8 * n_features * (n_features if first_pass_spec.pairs else 1)
    return 3 * (sample + scatter) * 9 // 8  # a buffer has room to grow


class Checkpoint:
    """The checkpoint of one fit or selection.

    ``resume`` says where it stands, ``save`` what was reached; both raise ``CheckpointError``.
    """

    def __init__(self, url: str, of: Fingerprint) -> None:
        self._url, self._of = url.rstrip("/"), json.loads(json.dumps(of))
        self._newest = 0
        self._damaged: set[int] = set()

    def prepare(self) -> None:
        """Have a place for it, where files can be made, before there is anything to lose."""
        try:
            urls.make_directory(self._url)
            urls.check_links(self._url)
        except DataError as error:
            raise CheckpointError(
                f"there can be no checkpoint at {self._url}: {error.__cause__ or error}. Name a "
                "directory, or a URL, where this process may make files (here by hard links, which "
                "some file systems lack), and that has room"
            ) from error

    def resume(self) -> Stopped | None:
        """Where the fit or the selection stopped; None if it has not begun.

        Raises ``CheckpointError`` if it is of another fit, or if its first file is not whole.
        """
        numbers = self._numbers()
        if not numbers:
            return None
        try:
            first, start = self._read(1)
        except CheckpointError as error:
            if is_transient(error):
                raise
            raise CheckpointError(f"{error}. {BEGIN}, as nothing goes on without it") from error
        self._refuse_others(start)
        moments: DataMoments = decode(DataMoments, start.get("moments"), first)
        random = _random(first, start)
        newest, header, arrays = 1, start, first
        for number in sorted(numbers - {1}, reverse=True):
            try:
                arrays, header = self._read(number)
            except CheckpointError as error:
                if is_transient(error):  # it could not be read, whole or not
                    raise
                log.warning("a checkpoint is skipped: %s", error)
                self._damaged.add(number)  # it stays until there is a better one
                continue
            self._refuse_others(header)
            newest = number
            break
        self._newest = newest
        self._remove_partials(self._newest)
        log.info("continuing after pass %d, from %s", self._newest, self._url)
        restored = partial(_restored, newest, moments, header, arrays)
        return Stopped(newest, moments, random, restored)

    def save(self, progress: Progress, random: Any = None) -> None:
        """Write what a pass has reached; ``random`` is the generator, after the first pass."""
        arrays: Arrays = {}
        if progress.candidates:
            header = _kept(progress, arrays)
        else:
            name, keys, *numbers = random.get_state()
            header = {"moments": encode(progress.moments, arrays), "random": [name, *numbers]}
            arrays["random"] = keys
        numbers = self._fence()
        number = progress.passes
        if number in self._damaged:
            urls.remove(self._name(number))
            self._damaged.remove(number)
        try:
            storage.create(self._name(number), FORMAT, arrays, {"of": self._of, **header})
        except FileExistsError as error:
            raise self._fenced(number) from error
        except DataError:
            self._fence()  # whoever reached this pass has deleted what was written of it here
            raise
        self._newest = number
        for old in sorted(numbers - {1})[: -(KEPT - 1)]:
            urls.remove(self._name(old))
        self._remove_partials(number)

    def discard(self) -> None:
        """Delete what there is, the first pass last, so that what is left is never half."""
        for number in sorted(self._numbers(), reverse=True):
            urls.remove(self._name(number))
        self._remove_partials()

    def _remove_partials(self, number: float = inf) -> None:
        """Delete what drivers left half of passes up to ``number``: they are there by now."""
        for name in urls.names(self._url):
            match = PARTIAL.fullmatch(name)
            if match and int(match[1]) <= number:
                urls.remove(f"{self._url}/{name}")

    def _fence(self) -> set[int]:
        """The passes that there are; raises ``CheckpointError`` if another driver made one."""
        numbers = self._numbers() - self._damaged
        if max(numbers, default=0) != self._newest:
            raise self._fenced(max(numbers, default=0))
        return numbers

    def _fenced(self, number: int) -> CheckpointError:
        return CheckpointError(
            f"another driver writes to {self._url}: it has reached pass {number}, this one "
            f"comes from pass {self._newest}. Let one of them finish"
        )

    def _name(self, number: int) -> str:
        return f"{self._url}/pass-{number:06d}.dgmm"

    def _numbers(self) -> set[int]:
        """The passes that there are files of."""
        matches = (NAME.fullmatch(name) for name in urls.names(self._url))
        return {int(match[1]) for match in matches if match}

    def _read(self, number: int) -> tuple[Arrays, dict[str, Any]]:
        try:
            return storage.read(self._name(number), FORMAT)
        except ModelFileError as error:
            raise CheckpointError(str(error)) from error

    def _refuse_others(self, header: dict[str, Any]) -> None:
        saved = header.get("of")
        if not isinstance(saved, dict):
            raise CheckpointError(f"{self._url} does not say what it is a checkpoint of")
        unlike = [name for name in self._of if saved.get(name) != self._of[name]]
        if unlike:
            differences = ", ".join(
                CONTENT[name]
                if name in CONTENT
                else f"{name} is {self._of[name]}, was {saved.get(name)}"
                for name in unlike
            )
            ends = set(unlike) <= {"max_iter", "tol", "resolution"} and "criterion" not in self._of
            hint = "; a new fit can begin at its model (--start, warm_start)" * ends
            raise CheckpointError(
                f"{self._url} is the checkpoint of another fit: {differences}. Run that one, "
                f"choose another checkpoint, or start over (resume=False, --no-resume){hint}"
            )


def _kept(progress: Progress, arrays: Arrays) -> dict[str, Any]:
    """What is kept of candidates that have begun, by name; its arrays go to ``arrays``."""
    candidates = [
        encode((each.runs, each.value, each.dropped, each.refits), arrays)
        for each in progress.candidates
    ]
    counts = {name: getattr(progress, name) for name in COUNTS}
    return {"candidates": candidates, **counts}


def _restored(
    passes: int,
    moments: DataMoments,
    header: dict[str, Any],
    arrays: Arrays,
    entrants: Sequence[Candidate],
    samples: Samples,
) -> Progress:
    """The progress that ``_kept`` was given; ``entrants`` are the candidates before they begin.

    Raises ``CheckpointError`` if it can't be that.
    """
    counts = decode(tuple[int, int, bool], [header.get(name) for name in COUNTS], arrays)
    if min(counts[:2]) < 0 or counts[1] == 0:
        raise CheckpointError(f"a checkpoint says {counts[:2]} for {COUNTS[:2]}: no such counts")
    stored = header.get("candidates")
    if not isinstance(stored, list) or len(stored) != len(entrants):
        raise CheckpointError("a checkpoint holds other candidates; start over with resume=False")
    both = zip(entrants, stored, strict=True)
    candidates = tuple(_candidate(each, one, arrays, samples) for each, one in both)
    if all(each.dropped is not None for each in candidates):
        raise CheckpointError("a checkpoint says that all candidates were dropped")
    return Progress(passes, moments, candidates, *counts)


def _candidate(entrant: Candidate, stored: Any, arrays: Arrays, samples: Samples) -> Candidate:
    """An ``entrant`` as far as it had come."""
    spec = entrant.spec
    known = Known(entrant.context, samples, spec.strategy.solvers)
    kind = tuple[tuple[RunState, ...], float, int | None, int]
    runs, value, dropped, refits = decode(kind, stored, arrays, known)
    if not runs:
        raise CheckpointError("a checkpoint holds no runs; start over with resume=False")
    for run in runs:
        mixture = run.best.mixture
        if (mixture.components, mixture.covariance_model) != (
            spec.components,
            spec.covariance_model,
        ):
            raise CheckpointError("a checkpoint holds candidates in another order")
    return replace(entrant, runs=runs, value=value, dropped=dropped, refits=refits)


def _held(held: Held) -> dict[str, Any]:
    """What is fixed, and at what values."""
    at = held.at
    values = (at.weights, at.means, at.covariances.values)
    return {**held.fixed.record(), "values": [_digest(each) for each in values]}


def _random(arrays: Arrays, header: dict[str, Any]) -> np.random.RandomState:
    """The generator whose state a first pass's file holds."""
    random = np.random.RandomState()
    try:
        name, *numbers = header["random"]
        random.set_state((name, arrays["random"], *numbers))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint has no state of random numbers: {error}") from error
    return random
