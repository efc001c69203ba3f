"""What a mixture says of each row: its component, log-density, what it lacks, and the like.

A row of which nothing was observed is of no component: its label is ``NOTHING``, and its other
outputs are NaN.  A row that is noise has the label ``NOISE``; the probability of that is the last.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError, UsageError
from dgmm.kernels import factor, filling, missing, noisy
from dgmm.kernels.choice import SPARSE
from dgmm.kernels.complete import (
    BOTH,
    LABELS,
    NOTHING,
    PROBA,
    SCORE,
    Inside,
    Judge,
    kernel_outputs,
    named,
    write,
)
from dgmm.kernels.kernel import describe_invalid_row, tile_rows, tiles
from dgmm.kernels.noise import first_invalid_noise
from dgmm.kernels.observation import COMPLETE, Marginal, Observation
from dgmm.kernels.sparse_rows import SparseRows
from dgmm.kernels.sweep import Block
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

NOT_SPARSE: Final = (
    "{} are not told of sparse rows, nor is anything where they have known errors (noise=): make "
    "dense ones of some of them (toarray)"
)

FEATURE: Final = ("feature",)
"""The axes of what says something of each feature."""

COMPONENT: Final = ("component",)
"""The axes of what says something of each component, and of noise, last, if there is any."""


@dataclass(frozen=True)
class Output:
    """One kind of output for each row.

    Attributes
    ----------
    name : str
    of : callable
        From a block of n rows and a ``RowOutputs`` to an array of n.
    dtype : type
    columns : callable
        From a mixture to the shape of one row's output.
    labels : callable or None
        What says of such an array, given the mixture, which component each row belongs to, where it
        tells.
    fills : bool
        Whether it is there to fill in NaN.
    judges : bool
        Whether it is told by log-densities alone; then rows may be sparse.
    names : tuple of str
        Of its columns in a table, if it has names of its own.
    axes : tuple of str
        What the axes of one row's output are called.
    """

    name: str
    of: Callable[[Block, "RowOutputs"], NDArray[Any]]
    dtype: type[np.generic]
    columns: Callable[[Mixture], tuple[int, ...]]
    labels: Callable[[NDArray[Any], Mixture], NDArray[Any]] | None = None
    fills: bool = False
    judges: bool = False
    names: tuple[str, ...] = ()
    axes: tuple[str, ...] = COMPONENT

    @property
    def by_feature(self) -> bool:
        """Whether a row's output is a number for each feature."""
        return self.axes == FEATURE


@dataclass(frozen=True)
class RowOutputs:
    """What is wanted of each row of a block: a function of the block.

    Attributes
    ----------
    mixture : Mixture
        Of the data.
    output : Output
    observation : Observation
        Whether rows may hold NaN.
    seed : int or None
        Of draws, where what rows lack is drawn.
    offset : float
        What is added to log-densities.
    """

    mixture: Mixture
    output: Output
    observation: Observation = COMPLETE
    seed: int | None = None
    offset: float = 0.0

    @property
    def columns(self) -> tuple[int, ...]:
        """The shape of one row's output."""
        return self.output.columns(self.mixture)

    @property
    def has_noise(self) -> bool:
        """Whether the last column is of noise."""
        by_component = self.output.axes == COMPONENT
        return by_component and self.columns == (self.mixture.components + 1,)

    def __call__(self, block: Block) -> NDArray[Any]:
        """The outputs of a block's rows; raises ``DataError`` for one that can't be used."""
        if isinstance(block.rows, SparseRows) and not (self.output.judges and block.noise is None):
            raise UsageError(NOT_SPARSE.format(self.output.name))
        return self.output.of(block, self)

    def check(self, block: Block) -> None:
        """Raise ``DataError`` if one of a block's rows can't be used."""
        check_rows(block, self.observation.refuses and not self.output.fills)


def check_rows(block: Block, refuses: bool) -> None:
    """Raise ``DataError`` if a row or its noise can't be used; NaN can't where that ``refuses``."""
    if invalid_row := describe_invalid_row(block, not refuses):
        raise DataError(invalid_row)
    if invalid_noise := first_invalid_noise(block):
        raise DataError(invalid_noise[0])


def _judged(judge: Judge, block: Block, wanted: RowOutputs) -> NDArray[Any]:
    """What a ``judge`` says of each of a block's rows."""
    rows, mixture = block.rows, wanted.mixture
    kernel = SPARSE if isinstance(rows, SparseRows) else wanted.observation.kernel
    inside = Inside.of(kernel, mixture, wanted.offset)
    plain = kernel == SPARSE or not wanted.observation.holes  # whose rows are looked at anyway
    if block.noise is None and plain:
        from_kernel = kernel_outputs(judge, block, inside)
        if from_kernel is not None:
            return from_kernel
    wanted.check(block)
    outputs = np.full((len(rows), *wanted.columns), judge.nothing, wanted.output.dtype)
    if block.noise is not None:
        _of_noisy(judge, block, inside, outputs)
        return outputs
    holes = np.isnan(rows)
    words = missing.packed(holes)
    incomplete = words.any(axis=1)
    if not incomplete.any():
        write(judge, block, inside, outputs)
        return outputs
    chosen = np.flatnonzero(~incomplete)
    part = outputs[chosen]
    write(judge, Block(block.start, np.take(rows, chosen, axis=0)), inside, part)
    outputs[chosen] = part
    patterns = missing.patterns(holes, words, np.flatnonzero(incomplete))
    observed = (pattern for pattern in patterns if pattern.observed.any())
    for judged in missing.judge(rows, observed, inside.frame, inside.mixture):
        outputs[judged.rows] = judge(judged.log_joint, wanted.offset, mixture)
    return outputs


def _of_noisy(judge: Judge, block: Block, inside: Inside, outputs: NDArray[Any]) -> None:
    """Write what a ``judge`` says of rows with noise that have any value."""
    block = noisy.masked(block)
    observed = np.flatnonzero(~np.isnan(block.rows).all(axis=1))
    for batch in noisy.judge(block.taken(observed), inside.frame, inside.mixture):
        outputs[observed[batch.rows]] = judge(batch.log_joint, inside.offset, inside.mixture)


def _denoised(block: Block, wanted: RowOutputs) -> NDArray[Any]:
    wanted.check(block)
    if block.noise is None:
        raise DataError("to denoise rows, their noise must be given")
    mixture = wanted.mixture
    frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
    return noisy.denoise(noisy.masked(block), mixture, frame)


def _filled(block: Block, wanted: RowOutputs) -> NDArray[Any]:
    wanted.check(block)
    return filling.fill(block.rows, wanted.mixture, wanted.seed, block.start)


def _factors(block: Block, wanted: RowOutputs) -> NDArray[Any]:
    if block.noise is not None:
        raise UsageError("factors are not told of rows with known errors (noise=)")
    labels = _judged(LABELS, block, replace(wanted, output=OUTPUTS["labels"]))
    inside = Inside.of(wanted.observation.kernel, wanted.mixture, 0.0)
    factors, size = np.empty((len(block.rows), *wanted.columns)), tile_rows(3 * block.rows.shape[1])
    for chosen, x in tiles(block, inside.frame, size):
        factors[chosen] = factor.scores(x, inside.mixture, labels[chosen])
    return factors


def as_they_are(labels: NDArray[Any], mixture: Mixture) -> NDArray[Any]:
    """Of outputs that are ``labels``: these."""
    return labels


def _likeliest(responsibilities: NDArray[Any], mixture: Mixture) -> NDArray[Any]:
    empty = np.isnan(responsibilities[:, 0])
    return np.where(empty, NOTHING, named(responsibilities.argmax(axis=1), mixture))


def one_number(mixture: Mixture) -> tuple[int, ...]:
    """The shape of one number for each row."""
    return ()


def _each_component(mixture: Mixture) -> tuple[int, ...]:
    return mixture.all_weights.shape


def _score_and_each(mixture: Mixture) -> tuple[int, ...]:
    return (1 + len(mixture.all_weights),)


def each_feature(mixture: Mixture) -> tuple[int, ...]:
    """The shape of a number for each feature of each row."""
    return (mixture.n_features,)


def _each_factor(mixture: Mixture) -> tuple[int, ...]:
    count = mixture.covariance_model.factor_count
    if count is None:
        raise UsageError(f"{mixture.covariance_model.name!r} covariances have no factors")
    return (count,)


OutputKind = Literal["labels", "proba", "score", "factors"]
"""The names of ``OUTPUTS``."""

OUTPUTS: Final[dict[OutputKind, Output]] = {
    "labels": Output(
        "labels", partial(_judged, LABELS), np.int64, one_number, labels=as_they_are, judges=True
    ),
    "proba": Output(
        "proba",
        partial(_judged, PROBA),
        np.float64,
        _each_component,
        labels=_likeliest,
        judges=True,
    ),
    "score": Output("score", partial(_judged, SCORE), np.float64, one_number, judges=True),
    "factors": Output("factors", _factors, np.float64, _each_factor, axes=("factor",)),
}

JUDGED: Final = Output("judgements", partial(_judged, BOTH), np.float64, _score_and_each)
"""The log-density and the responsibilities, side by side, by one look at each row."""

FILLED: Final = Output("filled", _filled, np.float64, each_feature, fills=True, axes=FEATURE)
"""The rows, with what they lack."""

DENOISED: Final = Output("denoised", _denoised, np.float64, each_feature, fills=True, axes=FEATURE)
"""The rows as they are expected to be without their errors."""


def row_outputs(
    rows: NDArray[Any], mixture: Mixture, kind: OutputKind, noise: NDArray[Any] | None = None
) -> NDArray[Any]:
    """What ``mixture`` (of the data) says of each of ``rows`` (n, D), which may hold NaN.

    Their ``noise`` is as in ``Block``.

    ``kind`` is a key of ``OUTPUTS``: the most probable component (n,), each component's
    responsibility (n, K), with noise (n, K + 1), the log-density (n,), or the factors (n, q) in the
    most probable component.
    """
    return RowOutputs(mixture, OUTPUTS[kind], Marginal())(Block(0, rows, noise=noise))
