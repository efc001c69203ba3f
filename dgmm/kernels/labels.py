"""Rows of which it is known what components they may be of.

Labels (n,) name one component each, from 0; -1, or NaN, says that nothing is known.  Or they are a
mask (n, K): which components each row may be of.  A row counts with the log-density that the
components it may be of have together, and its responsibilities in the others are 0: that is
semi-supervised EM (Nigam, McCallum, Thrun and Mitchell, Text classification from labeled and
unlabeled documents using EM, 2000; Ambroise and Govaert, EM algorithm for partially known labels,
2000).

Rows of a block that may be of the same components are a group.  The free ones go to the E-step as
they are, and each other group with the natural parameters of its components alone, whose sums are
put in their places.  So no E-step need know of labels.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.natural_parameters import EStep, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array, Mask
from dgmm.model.statistics import Stacked, Statistics

FREE: Final = -1
"""The label of a row of which nothing is known."""


def nbytes(rows: int, row_bytes: int) -> int:
    """What ``e_step`` takes: copies of rows, and the order of their labels, in bytes."""
    return rows * (2 * row_bytes + 3 * 8)


def codes(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Labels (n,) as integers: those of NaN are ``FREE``."""
    if labels.dtype.kind == "f":
        labels = np.where(np.isnan(labels), FREE, labels)
    return labels.astype(np.int64)


def allowed(labels: NDArray[Any], components: int) -> Mask:
    """Which of so many components each row may be of, (n, K).

    A mask says nothing of noise, if that is one more: a row may be of it that may be of all others.
    """
    if labels.ndim == 2:
        may = labels != 0
        more = np.repeat(may.all(axis=1, keepdims=True), components - may.shape[1], axis=1)
        return np.concatenate([may, more], axis=1)
    label = codes(labels)[:, None]
    return np.asarray((label == np.arange(components)) | (label == FREE))


def tally(labels: NDArray[Any], components: int) -> Array:
    """How many rows may be of each of so many components, and are of that alone: (2, K)."""
    label = sole(labels)
    known = np.bincount(label[label != FREE], minlength=components)
    if labels.ndim == 2:
        return np.stack([(labels != 0).sum(axis=0), known]).astype(np.float64)
    return np.stack([known + np.count_nonzero(label == FREE), known]).astype(np.float64)


def sole(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The component that each row (n,) is known to be of; ``FREE`` where it may be of several."""
    if labels.ndim == 1:
        return codes(labels)
    mask = labels != 0
    return np.where(mask.sum(axis=1) == 1, mask.argmax(axis=1), FREE)


def first_invalid_label(block: Block, components: int) -> tuple[str, int] | None:
    """Name the block's first row whose label can't be used, and count such rows, if there are."""
    labels = block.labels
    if labels is None:
        return None
    if labels.ndim == 2:
        with np.errstate(invalid="ignore"):
            wrong = ~((labels == 0) | (labels == 1)).all(axis=1)
        barred = ~wrong & ~(labels != 0).any(axis=1)
        bad = wrong | barred
        if not bad.any():
            return None
        row = int(bad.argmax())
        if barred[row]:
            message = f"row {block.start + row} may be of no component by its labels"
        else:
            message = (
                f"labels of shape (N, K) must be true or false: not so row {block.start + row}"
            )
        return message, int(bad.sum())
    with np.errstate(invalid="ignore"):
        good = (labels == np.floor(labels)) & (labels >= FREE) & (labels < components)
    bad = ~(good | (np.isnan(labels) if labels.dtype.kind == "f" else False))
    if not bad.any():
        return None
    row = int(bad.argmax())
    message = (
        f"labels must be components, from 0 to {components - 1}, or -1 where nothing is known: "
        f"{labels[row]} at row {block.start + row}"
    )
    return message, int(bad.sum())


def e_step(block: Block, given: Given, free: EStep) -> Stacked[Statistics]:
    """The statistics of a block whose rows have labels; ``free`` is the E-step of free rows."""
    assert block.labels is not None
    plain = replace(block, labels=None)
    total: Stacked[Statistics] | None = None
    for components, places in groups(block.labels):
        some = plain if len(places) == len(block.rows) else plain.taken(places)
        if components is None:
            statistics = free(some, given)
        else:
            naturals = tuple(each.chosen(components) for each in given.naturals)
            parts = free(some, replace(given, naturals=naturals)).parts
            pairs = zip(parts, given.naturals, strict=True)
            statistics = Stacked(tuple(_placed(one, natural, components) for one, natural in pairs))
        total = statistics if total is None else total + statistics
    return free(plain, given) if total is None else total


def groups(
    labels: NDArray[Any],
) -> Iterator[tuple[NDArray[np.intp] | None, NDArray[np.intp]]]:
    """The components that rows may be of, None for all, and the places of these rows."""
    masks = labels.ndim == 2
    distinct, of = np.unique(_packed(labels) if masks else codes(labels), return_inverse=True)
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(np.bincount(of, minlength=len(distinct)))
    for places in np.split(order, ends[:-1]) if len(order) else []:
        first = labels[places[0]]
        if masks:
            yield None if (first != 0).all() else np.flatnonzero(first), places
        else:
            code = int(codes(labels[places[:1]])[0])
            yield None if code == FREE else np.array([code]), places


def _packed(mask: NDArray[Any]) -> NDArray[Any]:
    """The rows of a ``mask`` (n, K), as values that can be compared."""
    bits = np.packbits(mask != 0, axis=1)
    return bits.view(np.dtype((np.void, bits.shape[1])))[:, 0]


def _placed(
    statistics: Statistics, natural: NaturalParameters, components: NDArray[np.intp]
) -> Statistics:
    """Statistics of some ``components``, as those of all."""
    count = len(natural.center)

    def spread(values: Array) -> Array:
        whole: Array = np.zeros((count, values.shape[1]))
        whole[components] = values
        return whole

    tails = None if statistics.tails is None else spread(statistics.tails)
    return replace(statistics, sums=spread(statistics.sums), center=natural.center, tails=tails)
