"""The arithmetic of one block of rows: two matrix products and the softmax between them.

For a tile of rows small enough for the cache, with features T(x) of width P
(model/covariance.py)::

    L = eta . T(x)          (K, n)   log pi_k + log N(x | k) - penalty_k
    R = w softmax(L)        (K, n)   responsibilities times row weights
    S = R . T(x)'           (K, P)   what the M-step needs

Several mixtures at once are only more rows of eta.  Responsibilities live in a tile and nowhere
else.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from dgmm.errors import DataError
from dgmm.kernels.natural_parameters import WIDE, Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.features import Features
from dgmm.model.frame import Frame
from dgmm.model.lazy import Late
from dgmm.model.statistics import Stacked, Statistics

_factor = Late("dgmm.kernels.factor")

TILE_BYTES: Final = 2 << 20


def tile_rows(numbers_per_row: int) -> int:
    """How many rows a tile has, so that its temporaries stay in the cache; a multiple of 64."""
    return int(np.clip(TILE_BYTES // (8 * numbers_per_row) // 64 * 64, 192, 4096))


def nbytes(components: int, width: int) -> int:
    """What the temporaries of a tile take at most, for features (P, n) and K components.

    The compiled kernel's take less.
    """
    numbers = width + 2 * components  # a row's features, log-densities and responsibilities
    return 3 * max(TILE_BYTES, 8 * numbers * tile_rows(numbers))


def tiles(block: Block, frame: Frame, size: int) -> Iterator[tuple[slice, Array]]:
    """The block's rows in the frame, (D, n) each, with where they stand in the block.

    The array is a buffer that the next tile overwrites.
    """
    buffer = np.empty((block.rows.shape[1], size))
    for start in range(0, len(block.rows), size):
        chosen = slice(start, min(start + size, len(block.rows)))
        rows = block.rows[chosen]
        yield chosen, frame.rows(rows, buffer[:, : len(rows)])


def log_sum_exp(log_joint: Array) -> tuple[Array, Array]:
    """log sum_k exp L (n,), and softmax of L (K, n), which overwrites ``log_joint`` L (K, n)."""
    top = log_joint.max(axis=0)
    log_joint -= top
    np.exp(log_joint, out=log_joint)
    norm = log_joint.sum(axis=0)
    log_joint /= norm
    return top + np.log(norm), log_joint


Group = Callable[[Block, Frame, Features, list[NaturalParameters]], list[Statistics]]
"""The statistics of a block under mixtures of the same features and precision."""


ALONG: Final[dict[str, Group]] = {"projections": lambda *of: _factor.grouped(*of)}
"""What sums features, by their name, that have an arithmetic of their own."""


def e_step(block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of a block under each mixture."""
    return by_features(_of_either, block, given)


def by_features(group: Group, block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of a block under each mixture, those of the same features together."""
    kinds = {(natural.features, natural.single): None for natural in given.naturals}
    sums: dict[int, Statistics] = {}
    for features, single in kinds:
        chosen = [
            i for i, f in enumerate(given.naturals) if f.features == features and f.single is single
        ]
        naturals = [given.naturals[i] for i in chosen]
        part, scale = _narrowed(block) if single else (block, 1.0)
        grouped = ALONG.get(features.name, group)
        results = grouped(part, given.frame, features, naturals)
        sums |= zip(chosen, [each.scaled(scale) for each in results], strict=True)
    parts = tuple(sums[i] for i in range(len(given.naturals)))
    # Of t distributions the logarithm of what is no number may be one: their sums tell.
    heavy = [part.sums for part in parts if part.tails is not None]
    finite = [np.isfinite(part.objective) for part in parts]
    if not all(finite) or not all(np.isfinite(own).all() for own in heavy):
        raise DataError(describe_invalid_row(block) or "the log-likelihood of these rows overflows")
    return Stacked(parts)


def _narrowed(block: Block) -> tuple[Block, float]:
    """The block with weights in the range of single precision, and what they were divided by."""
    top = 0.0 if block.weights is None else float(block.weights.max(initial=0.0))
    if block.weights is None or not 0.0 < top < np.inf:
        return block, 1.0
    scale = float(np.exp2(np.ceil(np.log2(top))))  # a power of two: no digit is lost
    return replace(block, weights=block.weights / scale), scale


def _of_either(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The statistics of a block under mixtures of the same features, of normal components or t."""
    if any(natural.mixture.tails is not None for natural in naturals):
        return [_of_tails(block, frame, features, natural) for natural in naturals]
    return _e_step_of(block, frame, features, naturals)


def _of_tails(
    block: Block, frame: Frame, features: Features, natural: NaturalParameters
) -> Statistics:
    """The statistics where components are t distributions (model/tails.py), all centred."""
    count, width = len(natural.eta), features.width(block.rows.shape[1])
    size = tile_rows(width + 4 * count)
    total = Statistics.zero(natural.center, width, tails=True)
    for chosen, x in tiles(block, frame, size):
        n = x.shape[1]
        weights = np.ones(n)
        if block.weights is not None:
            weights = block.weights[chosen].astype(np.float64)
            x[:, weights == 0] = 0.0
        log_joint = np.empty((count, n))
        natural.correct(log_joint, x)
        latent = natural.latent(log_joint)
        assert latent is not None
        log_norm, log_plain, responsibilities = normalise(log_joint, natural.penalty)
        responsibilities *= weights
        sums, buffer = np.empty((count, width)), np.empty((width, n))
        for k, weighted in enumerate(responsibilities * latent.scale):
            sums[k] = features.of(x - natural.center[k][:, None], buffer) @ weighted
        sums[:, 0] = responsibilities.sum(axis=1)
        level = float(log_norm @ weights), float(log_plain @ weights)
        tails = latent.sums(responsibilities)
        total += Statistics(sums, natural.center, *level, float(weights.sum()), n, tails)
    return total


def _e_step_of(
    block: Block,
    frame: Frame,
    features: Features,
    naturals: list[NaturalParameters],
) -> list[Statistics]:
    """The statistics of a block under mixtures of the same features."""
    width = features.width(block.rows.shape[1])
    real = np.float32 if naturals[0].single else np.float64
    eta, segments = _joined(naturals, width)
    size = tile_rows(width + 2 * len(eta))
    buffer, joint = np.empty((width, size), real), np.empty((len(eta), size), real)
    sums, levels = np.zeros((len(eta), width)), np.zeros((len(naturals), 2))
    for chosen, x in tiles(block, frame, size):
        n = x.shape[1]
        weights = None if block.weights is None else block.weights[chosen].astype(np.float64)
        if weights is not None:
            x[:, weights == 0] = 0.0  # whatever such a row holds is as if absent
        terms = features.of(x.astype(real, copy=False), buffer[:, :n])
        log_joint = np.matmul(eta, terms, out=joint[:, :n])
        centred: list[tuple[int, Array]] = []  # the sums of centred components
        for i, (natural, segment) in enumerate(zip(naturals, segments, strict=True)):
            responsibilities = log_joint[segment]
            levels[i] += _share_out(natural, responsibilities, x, weights)
            for k in natural.centred:
                moved = features.of(x - natural.center[k][:, None], np.empty((width, n)))
                centred.append((segment.start + k, moved @ responsibilities[k]))
        product = log_joint @ terms.T
        for row, value in centred:
            product[row] = value
        sums += product
    pairs = [(float(objective), float(plain)) for objective, plain in levels]
    return [
        Statistics(sums[segment], natural.center, *level, block.weight, len(block.rows))
        for natural, segment, level in zip(naturals, segments, pairs, strict=True)
    ]


def _share_out(
    natural: NaturalParameters, log_joint: Array, x: Array, weights: Array | None
) -> tuple[float, float]:
    """Overwrite ``log_joint`` (K, n) of rows ``x`` (D, n) by responsibilities times ``weights``.

    What is returned are the rows' objective and log-likelihood.
    """
    natural.correct(log_joint, x)
    log_norm, log_plain, responsibilities = normalise(log_joint, natural.penalty)
    if weights is not None:
        responsibilities *= weights
        log_norm, log_plain = log_norm * weights, log_plain * weights
    return float(log_norm.sum(dtype=np.float64)), float(log_plain.sum(dtype=np.float64))


def _joined(naturals: list[NaturalParameters], width: int) -> tuple[Array, list[slice]]:
    """The natural parameters of all components, of the precision they share; where each's are."""
    ends = np.cumsum([len(natural.eta) for natural in naturals])
    segments = [
        slice(int(end) - len(f.eta), int(end)) for f, end in zip(naturals, ends, strict=True)
    ]
    real = np.float32 if naturals[0].single else np.float64
    eta = np.zeros((int(ends[-1]), width), real)
    for natural, segment in zip(naturals, segments, strict=True):
        if not natural.includes_common:
            eta[segment] = natural.eta
    return eta, segments


def normalise(log_joint: Array, penalty: Array) -> tuple[Array, Array, Array]:
    """log sum_k e^L_k (n,), the same without penalties (n,), and the softmax of L (K, n).

    The softmax overwrites L.
    """
    most = penalty.max()
    if most - penalty.min() > WIDE[log_joint.dtype == np.float32]:
        log_plain = log_sum_exp(log_joint + penalty[:, None])[0]
        return log_sum_exp(log_joint)[0], log_plain, log_joint
    log_norm, responsibilities = log_sum_exp(log_joint)
    if most == 0.0:
        return log_norm, log_norm, responsibilities
    return (
        log_norm,
        log_norm + most + np.log(np.exp(penalty - most) @ responsibilities),
        responsibilities,
    )


TOO_FAR: Final = "the rows are too far from the model: their log-densities overflow"

REMEDY: Final = (
    'If NaN is a value that is missing, missing="marginalize" judges rows by what was observed, '
    'and missing="drop" leaves incomplete rows out (--missing; for a fitted model, '
    "set_params(missing=...)); infinity can't be used"
)
"""What to do about NaN."""

INFINITE: Final = (
    "Infinity can't be used: leave such rows out, or make NaN of it, if it stands for a value that "
    'is missing, and say what NaN means (missing="marginalize" or "drop", --missing)'
)
"""What to do about infinity, where it comes first."""


INFINITY: Final = "infinity"
"""What a row that can't be used holds, where NaN is known to be a value that is missing."""

NO_VALUE: Final = (
    "Infinity can't be used: leave such rows out, or make NaN of it, if it stands for a value that "
    "is missing"
)
"""What to do about infinity there."""


def remedy(name: str) -> str:
    """What to do about a row that can't be used and has such a ``name``."""
    if name.startswith(INFINITY):
        return NO_VALUE
    return INFINITE if re.match(r"NaN or infinity in the rows: -?inf ", name) else REMEDY


def first_invalid_row(block: Block, missing: bool = False) -> tuple[str, int] | None:
    """Name the block's first row that holds NaN or infinity, and count such rows, if there are.

    NaN may be ``missing``: then it is no reason.
    """
    finite = np.isfinite(block.rows)
    if missing:
        finite |= np.isnan(block.rows)
    if finite.all():
        return None
    bad = ~finite.all(axis=1)
    row = int(bad.argmax())
    column = int((~finite[row]).argmax())
    value = block.rows[row, column]
    where = f"{value} at row {block.start + row}, {block.column(column)}"
    return f"{INFINITY if missing else 'NaN or infinity'} in the rows: {where}", int(bad.sum())


def describe_invalid_row(block: Block, missing: bool = False) -> str | None:
    """What is wrong with a block that holds NaN or infinity, and what to do; None if it doesn't."""
    if (invalid := first_invalid_row(block, missing)) is None:
        return None
    name, count = invalid
    return f"{name}; such rows among these {len(block.rows):,}: {count:,}. {remedy(name)}"
