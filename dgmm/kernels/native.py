"""The compiled kernel: what is handed to it, and what it hands back.

``e_step`` computes what ``kernel.e_step`` does, where all components are centred: with
the differences x - mu_k of a tile in the cache, a component's log-densities take one triangular
product, its sums another, and both run in registers at the speed of the processor.  So it needs
no bound on cancellation, shares no features between components, and holds no Python lock.

Of many components with full covariances, those that contribute nothing to a row are left out
(_native_skipping.h), decided by the block's content alone.

With tied covariances, rows are whitened once; what is left are distances to K points.

Compiled code checks the type, shape and layout of each array that it is given: ``ValueError`` names
one that is not as it has to be.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import psi

from dgmm.errors import UsageError
from dgmm.kernels import compiled as built
from dgmm.kernels import kernel, natural_parameters
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.rounding import Away
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.arrays import Array
from dgmm.model.features import Features, Length, Linear, Products, Squares
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics

compiled, failure = built.module, built.failure
"""The compiled part, or why it was not imported."""

VARIANT = 0
"""Which of ``compiled.variants()`` is used: the first is the widest that the processor has."""

SKIPS = True
"""Whether what contributes nothing may be left out; see _native_skipping.h."""

PIECE: Final = 1 << 14
"""Rows that are copied at a time."""

DRAWN: Final = 1 << 16
"""Row numbers that are hashed at a time."""

UNUSABLE: Final = -1
"""What compiled code returns of rows that it can't use."""


class _Scratch(threading.local):
    """What a thread works in, kept from block to block: the system clears fresh memory first.

    ``tile`` is what compiled code asked for, ``rows`` a copy of a piece's, both in bytes.
    """

    def __init__(self) -> None:
        self.tile = self.rows = np.empty(0, np.uint8)
        self.numbers = np.empty(DRAWN, np.int64)


scratch = _Scratch()


def run(name: str, *args: Any) -> int:
    """Call compiled code, with as much memory for its tiles as it wants; what it returns."""
    if compiled is None:
        raise UsageError(
            "the fit uses the compiled kernel, which this process lacks; build it everywhere, or "
            "set DGMM_KERNEL=numpy where the fit is started"
        )
    while (wanted := getattr(compiled, name)(VARIANT, *args, scratch.tile)) > 0:
        scratch.tile = np.empty(wanted, np.uint8)
    return int(wanted)


def e_step(block: Block, given: Given) -> Stacked[Statistics]:
    """The statistics of a block under each mixture; all components are centred."""
    heavy = {natural.mixture.tails is not None for natural in given.naturals}
    if is_wide(given) or len(heavy) > 1:
        return kernel.e_step(block, given)
    return tree_sum(kernel.by_features(_grouped, piece, given) for piece in pieces(block))


def is_wide(given: Given) -> bool:
    """Whether penalties are so far apart that e^ of their differences would be nothing."""
    return any(
        np.ptp(natural.penalty) > natural_parameters.WIDE[natural.single]
        for natural in given.naturals
    )


def centred_error(mixture: Mixture, away: Away, unit: float) -> Array:
    """The bound (K,) on the error of log-densities by differences; see ``Kernel.error_bound``.

    In each feature j, x, mu and d = x - mu are rounded: d is off by u (|x_j| + |mu_j| + |d_j|),
    with |x_j| at most |mu_j| + |d_j|, and C'd by C' times that, and by the rounding of its own
    product, sqrt(D) u |C'||d|.  With a the length of all that, |C'd|^2 / 2 is off by
    |C'd| a + a^2 / 2, and by the rounding of its sum.  Errors of different features have no sign in
    common: squares add.
    """
    root = np.sqrt(mixture.n_features)
    size = 2 * np.abs(mixture.means) + (2 + root) * np.sqrt(away.squares)
    a = unit * np.sqrt(mixture.covariances.trace(size * size))
    error: Array = a * np.sqrt(away.lengths) + a * a / 2 + unit * root * away.lengths
    return error


def _each(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The statistics under mixtures whose components have each a factor of their own."""
    cut = [factors(natural.mixture) for natural in naturals]
    means = [natural.center for natural in naturals]
    return _statistics(block, frame, features, naturals, means, cut, np.empty(0))


def factors(mixture: Mixture) -> Array:
    """Each component's factor (K, ...); that of noise, which is as likely everywhere, is 0."""
    values = mixture.covariances.factors()
    if mixture.noise_component is None:
        return values
    return np.concatenate([values, np.zeros_like(values[:1])])


def _whitened(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The same where all share one, each mixture's with sums of C'(x - mu) turned back."""
    return [_whitened_under(block, frame, features, natural) for natural in naturals]


def _whitened_under(
    block: Block, frame: Frame, features: Features, natural: NaturalParameters
) -> Statistics:
    factor, ones = natural.mixture.covariances.precisions_cholesky, np.ones(len(natural.center))
    means = natural.center @ factor
    (whitened,) = _statistics(block, frame, features, [natural], [means], [ones], factor)
    whitened.sums[:, 1:] = solve_triangular(factor, whitened.sums[:, 1:].T, trans="T").T
    return whitened


@dataclass(frozen=True)
class Layout:
    """How compiled code is handed mixtures: the number of the features there, and by what.

    ``pairs`` says whether products of features are among them, ``whitens`` whether all components
    share the factor by which rows are whitened.
    """

    code: int
    group: kernel.Group
    pairs: bool = False
    whitens: bool = False


LAYOUTS: Final[dict[Features, Layout]] = {
    Products(): Layout(0, _each, pairs=True),
    Squares(): Layout(1, _each),
    Length(): Layout(2, _each),
    Linear(): Layout(3, _whitened, whitens=True),
}
"""The features that _native.c knows."""


def _grouped(
    block: Block, frame: Frame, features: Features, naturals: list[NaturalParameters]
) -> list[Statistics]:
    """The statistics of a block under mixtures of the same features."""
    return LAYOUTS[features].group(block, frame, features, naturals)


@dataclass(frozen=True)
class _Handed:
    """Mixtures of the same features as compiled code reads them: their K components in a row.

    Attributes
    ----------
    features : Features
    means, factors, constants : (K, D), (K, ...), (K,)
        As in ``NaturalParameters``, in single precision or in double.
    ends : (M,)
        One past the last component of each mixture.
    penalty : (K,)
    whiten : (D, D) or (0,)
        What whitens rows, where it does not lie in the factors.
    tails : (K, 5) or None
        See ``tail_constants``.
    """

    features: Features
    means: NDArray[Any]
    factors: NDArray[Any]
    constants: NDArray[Any]
    ends: NDArray[np.int64]
    penalty: Array
    whiten: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.float32))
    tails: Array | None = None

    def e_step(self, rows: NDArray[Any], weights: NDArray[Any] | None, frame: Frame) -> "_Found":
        """What ``rows`` (n, D) with these ``weights`` (n,) say."""
        width, count = self.features.width(rows.shape[1]), len(self.ends)
        sums, latent = np.zeros((len(self.means), width)), np.zeros((len(self.means), 2))
        found = _Found(sums, np.zeros(count), np.zeros(count), latent)
        starts = np.append(0, self.ends[:-1])
        run(
            "e_step" if self.tails is None else "e_step_tails",
            LAYOUTS[self.features].code,
            rows.dtype == np.float32,
            self.means.dtype == np.float32,
            SKIPS,
            width,
            self.factors[0].size,
            rows,
            np.empty(0) if weights is None else in_order(weights),
            *(in_order(frame.shift), in_order(frame.scale), self.whiten),
            *(self.means, self.factors, self.constants, self.penalty),
            np.maximum.reduceat(self.penalty, starts),
            self.ends,
            *(found.sums, found.objective, found.plain),
            *(() if self.tails is None else (self.tails, found.latent)),
        )
        return found


@dataclass(frozen=True)
class _Found:
    """Sums (K, P), objectives and log-likelihoods (M,), and of t distributions (K, 2)."""

    sums: Array
    objective: Array
    plain: Array
    latent: Array


def e_steps(
    rows: Array, weights: Array, means: Array, factors: Array, constants: Array
) -> tuple[Array, Array]:
    """The E-steps of S mixtures with full covariances on the same few rows, in single precision.

    ``means`` (S, K, D), ``factors`` (S, K, D, D) and ``constants`` (S, K) are those of
    ``NaturalParameters``.  Sums (S, K, P), each about its mean, and objectives (S,).
    """
    count, components, n_features = means.shape
    handed = _Handed(
        Products(),
        in_order(means.reshape(-1, n_features), np.float32),
        in_order(factors.reshape(-1, n_features, n_features), np.float32),
        in_order(constants.ravel(), np.float32),
        np.arange(1, count + 1) * components,
        np.zeros(count * components),
    )
    found = handed.e_step(rows, weights, Frame(np.zeros(n_features), np.ones(n_features)))
    return found.sums.reshape(count, components, -1), found.objective


def _statistics(
    block: Block,
    frame: Frame,
    features: Features,
    naturals: list[NaturalParameters],
    means: list[Array],
    factors: list[Array],
    whiten: Array,
) -> list[Statistics]:
    """The statistics of a block, by the ``means`` and ``factors`` of each of some mixtures."""
    ends = np.cumsum([len(natural.center) for natural in naturals], dtype=np.int64)
    real = np.float32 if naturals[0].single else np.float64
    tails = [each for natural in naturals if (each := tail_constants(natural)) is not None]
    constants = [natural.constants * (not tails) for natural in naturals]
    found = _Handed(
        features,
        _joined(means, real),
        _joined(factors, real),
        _joined(constants, real),
        ends,
        _joined([natural.penalty for natural in naturals]),
        in_order(whiten, real),
        _joined(tails) if tails else None,
    ).e_step(block.rows, block.weights, frame)
    sums, latent = found.sums, found.latent
    if tails:  # counts are by responsibilities alone
        latent[:, 0], sums[:, 0] = sums[:, 0].copy(), latent[:, 0].copy()
    levels = zip(found.objective.tolist(), found.plain.tolist(), strict=True)
    parts = zip(np.split(sums, ends[:-1]), np.split(latent, ends[:-1]), strict=True)
    return [
        Statistics(
            *(part, natural.center, *level, block.weight, len(block.rows)),
            tails=own if tails else None,
        )
        for natural, level, (part, own) in zip(naturals, levels, parts, strict=True)
    ]


def tail_constants(natural: NaturalParameters) -> Array | None:
    """What compiled code is told of t distributions, (K, 5); None where components are normal."""
    if (tails := natural.mixture.tails) is None:
        return None
    count = (tails.dof + natural.mixture.n_features) / 2
    scale = np.log(2 * count / tails.dof)
    return np.stack([1 / tails.dof, natural.constants, count, scale, psi(count) - np.log(count)], 1)


def nbytes(components: int, width: int) -> int:
    """What the parameters (K, P) take as ``_statistics`` joins them, and the sums beside them."""
    return 2 * 8 * components * width


FEWEST: Final = (24, 16)
"""With fewer features, or fewer components in a mixture, nothing is left out; as in _native.c."""


def nbytes_of_few(mixtures: int, components: int, n_features: int, width: int) -> int:
    """What is made of such parameters where rows are of few of the components each.

    These are factors, whose vectors hold zeros besides, a mean and a direction for each component.
    """
    full = width > 1 + 2 * n_features
    tried = full and n_features >= FEWEST[0] and components >= FEWEST[1]
    return 2 * 8 * mixtures * components * width * tried


def pieces(block: Block) -> Iterator[Block]:
    """The block with rows as the compiled code reads them: in pieces, where they must be copied.

    Each copy takes the last one's place.
    """
    rows = block.rows
    if rows.dtype in (np.float32, np.float64) and rows.flags.carray:
        yield block
        return
    dtype = np.float32 if rows.dtype == np.float32 else np.float64
    for start in range(0, max(1, len(rows)), PIECE):
        part = rows[start : start + PIECE]
        size = part.size * np.dtype(dtype).itemsize
        if len(scratch.rows) < size:
            scratch.rows = np.empty(size, np.uint8)
        copy = scratch.rows[:size].view(dtype).reshape(part.shape)
        np.copyto(copy, part, casting="unsafe")
        yield replace(block.part(slice(start, start + PIECE)), rows=copy)


def in_order(array: NDArray[Any], dtype: type[np.floating[Any]] = np.float64) -> NDArray[Any]:
    """An array as compiled code reads it; what came by the network may lie at any address."""
    return np.require(array, dtype, ["C", "A"])


def _joined(arrays: list[Array], dtype: type[np.floating[Any]] = np.float64) -> NDArray[Any]:
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return in_order(joined, dtype)
