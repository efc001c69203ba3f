"""What a mixture expects of some features of a row, given what is known of the others.

Given x_o, the targets t of component k are normal, with mean mu_t + S_to S_oo^-1 (x_o - mu_o) and
covariance S_tt - S_to S_oo^-1 S_ot, and the component has the weight pi_k N(x_o | k), divided by
the sum of all (Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3; Ghahramani and
Jordan, Supervised learning from incomplete data via an EM approach, 1994).  Weights are taken in
the log domain: a row far from all components is of the nearest, not of none.

The conditional distribution is a mixture again, often with two branches: its mean may be where no
row is.  So quantiles are those of that mixture, found by its distribution function, and not those
of a normal distribution with its mean and variance.

Rows with the same holes among what is known share gains and covariances; what is not observed of a
row is left out of o.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dgmm.errors import DataError, UsageError
from dgmm.inference.holes import by_holes
from dgmm.kernels.kernel import TOO_FAR, log_sum_exp, tile_rows
from dgmm.kernels.outputs import Output, RowOutputs, check_rows
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

ROUNDS: Final = 200
"""More than bisection of any bracket of doubles takes, one round in three."""


@dataclass(frozen=True)
class Conditional:
    """What a mixture says of T targets of rows that have the same features.

    Attributes
    ----------
    weights : (K, n)
        Of the components, for each row.
    means : (K, n, T)
    covariances : (K, T, T)
        The same for all rows.
    """

    weights: Array
    means: Array
    covariances: Array

    def mean(self) -> Array:
        """The means of the mixtures, (n, T)."""
        return np.asarray(np.einsum("kn,knt->nt", self.weights, self.means))

    def covariance(self) -> Array:
        """The covariances of the mixtures, (n, T, T): within components, and between them."""
        away = self.means - self.mean()
        within = np.einsum("kn,ktu->ntu", self.weights, self.covariances)
        return np.asarray(within + np.einsum("kn,knt,knu->ntu", self.weights, away, away))

    def quantiles(self, levels: Sequence[float]) -> Array:
        """The quantiles of each target by itself, (n, T, Q)."""
        spread = np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))  # (K, T)
        by_level = [
            [quantile(self.weights, self.means[:, :, t], spread[:, t, None], p) for p in levels]
            for t in range(spread.shape[1])
        ]
        quantiles: Array = np.array(by_level).transpose(2, 0, 1)
        return quantiles


def quantile(weights: Array, means: Array, spread: Array, level: float) -> Array:
    """The quantiles (n,) of n mixtures of K normal distributions of one feature.

    ``weights`` and ``means`` are (K, n), standard deviations ``spread`` (K, 1).  It lies between
    the components' own; Newton's steps that leave the bracket, and one round in three, bisect it.
    """
    if level > 0.5:  # the upper tail is the lower one of what is mirrored, and loses no digits
        return np.negative(quantile(weights, -means, spread, 1.0 - level))
    of_components = means + spread * ndtri(level)
    low = np.where(weights > 0, of_components, np.inf).min(axis=0)
    high = np.where(weights > 0, of_components, -np.inf).max(axis=0)
    x: Array = np.sum(weights * of_components, axis=0)
    for turn in range(ROUNDS):
        z = (x - means) / spread
        excess = np.sum(weights * ndtr(z), axis=0) - level
        density = np.sum(weights * np.exp(-0.5 * z * z) / spread, axis=0) / np.sqrt(2 * np.pi)
        low, high = np.where(excess > 0, low, x), np.where(excess > 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = x - excess / density
        near = 2 * np.spacing(1.0) * (np.abs(x) + spread.min())
        done = (np.abs(step - x) <= near) | (high - low <= near)
        if done.all():
            break
        inside = (step > low) & (step < high) & (turn % 3 < 2)
        x = np.where(done, x, np.where(inside, step, 0.5 * (low + high)))
    return x


class Answer(ABC):
    """What is told of the conditional distribution of T targets."""

    name: ClassVar[str]
    axes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def shape(self, targets: int) -> tuple[int, ...]:
        """The shape of what is told of one row."""

    @abstractmethod
    def of(self, conditional: Conditional, shift: Array, scale: Array) -> Array:
        """What is told of rows, in the units of the data, from a frame of this shift and scale."""

    @abstractmethod
    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """What columns of a table with it are called, for targets of these names."""


@dataclass(frozen=True)
class Mean(Answer):
    """The mean, (n, T)."""

    name: ClassVar[str] = "mean"
    axes: ClassVar[tuple[str, ...]] = ("target",)

    def shape(self, targets: int) -> tuple[int, ...]:
        return (targets,)

    def of(self, conditional: Conditional, shift: Array, scale: Array) -> Array:
        return conditional.mean() * scale + shift

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names)


@dataclass(frozen=True)
class Covariance(Answer):
    """The covariance, (n, T, T)."""

    name: ClassVar[str] = "covariance"
    axes: ClassVar[tuple[str, ...]] = ("target", "other")

    def shape(self, targets: int) -> tuple[int, ...]:
        return (targets, targets)

    def of(self, conditional: Conditional, shift: Array, scale: Array) -> Array:
        return conditional.covariance() * (scale[:, None] * scale)

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{one}_{other}" for one in names for other in names)


@dataclass(frozen=True)
class Quantiles(Answer):
    """Quantiles of each target, (n, T, Q)."""

    levels: tuple[float, ...]

    name: ClassVar[str] = "quantiles"
    axes: ClassVar[tuple[str, ...]] = ("target", "quantile")

    def shape(self, targets: int) -> tuple[int, ...]:
        return (targets, len(self.levels))

    def of(self, conditional: Conditional, shift: Array, scale: Array) -> Array:
        return conditional.quantiles(self.levels) * scale[:, None] + shift[:, None]

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name}_{level:g}" for name in names for level in self.levels)


AnswerKind = Literal["mean", "covariance", "quantiles"]
"""The names of ``ANSWERS``."""

ANSWERS: Final[dict[AnswerKind, Callable[[tuple[float, ...]], Answer]]] = {
    "mean": lambda levels: Mean(),
    "covariance": lambda levels: Covariance(),
    "quantiles": Quantiles,
}
"""What can be told, by levels of quantiles."""


@dataclass(frozen=True)
class Regression:
    """What is told of targets of the rows of a block, which have the known features alone.

    Attributes
    ----------
    mixture : Mixture
        Of the data: of all features.
    known, targets : tuple of int
        The numbers of features: those of the rows, in their order, and those that are asked for.
    answer : Answer
    """

    mixture: Mixture
    known: tuple[int, ...]
    targets: tuple[int, ...]
    answer: Answer

    def __call__(self, block: Block, wanted: RowOutputs) -> NDArray[Any]:
        """What is told of each row; NaN among them is what is not known."""
        check_rows(block, refuses=False)
        frame = Frame.of(*self.mixture.moments_of_components(), self.mixture.covariance_model)
        inside, targets = frame.enter(self.mixture), np.array(self.targets)
        count, most = len(targets), len(self.targets) + len(self.known)
        answers = np.empty((len(block.rows), *self.answer.shape(count)))
        size = tile_rows(3 * inside.components * max(count * count, most))
        for places, observed in by_holes(block.rows):
            observed_places = np.array(self.known)[observed]
            conditioner = Conditioner.of(inside, observed_places, targets)
            for start in range(0, len(places), size):
                chosen = places[start : start + size]
                rows = block.rows[chosen][:, observed].astype(np.float64)
                x = (rows - frame.shift[observed_places]) / frame.scale[observed_places]
                answers[chosen] = self.answer.of(
                    conditioner(x), frame.shift[targets], frame.scale[targets]
                )
        return answers


@dataclass(frozen=True)
class Conditioner:
    """A mixture, ready to be conditioned on rows that have the same features.

    Attributes
    ----------
    known : Mixture or None
        Of these features; none if there are none.
    own : Mixture
        Of the targets.
    gains : (K, T, o)
    covariances : (K, T, T)
    """

    known: Mixture | None
    own: Mixture
    gains: Array
    covariances: Array

    @classmethod
    def of(
        cls, mixture: Mixture, known: NDArray[np.intp], targets: NDArray[np.intp]
    ) -> "Conditioner":
        """For rows that have the ``known`` features."""
        dense = mixture.covariances.dense()
        within = dense[:, targets[:, None], targets]
        cross = dense[:, targets[:, None], known]
        inner = dense[:, known[:, None], known]
        gains = np.linalg.solve(inner, cross.swapaxes(1, 2)).swapaxes(1, 2)
        left = within - gains @ cross.swapaxes(1, 2)
        left = np.asarray(0.5 * (left + left.swapaxes(1, 2)), dtype=np.float64)
        place = np.arange(len(targets))  # what is all but known has no variance below rounding's
        least = np.spacing(1.0) * within[:, place, place]
        left[:, place, place] = np.maximum(left[:, place, place], least)
        of_known = mixture.among(known) if len(known) else None
        return cls(of_known, mixture.among(targets), np.asarray(gains, dtype=np.float64), left)

    def __call__(self, x: Array) -> Conditional:
        """What is said of rows (n, o)."""
        if self.known is None:
            log_joint = np.repeat(self.own.log_weights[:, None], len(x), axis=1)
            return Conditional(
                log_sum_exp(log_joint)[1],
                np.repeat(self.own.means[:, None], len(x), axis=1),
                self.covariances,
            )
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = self.known.log_joints(x.T)
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        away = x - self.known.means[:, None]
        means = self.own.means[:, None] + away @ self.gains.swapaxes(1, 2)
        return Conditional(log_sum_exp(log_joint)[1], means, self.covariances)


def check_regressed(mixture: Mixture, method: str) -> None:
    """Raise ``UsageError`` if a ``mixture`` has more than normal components."""
    if mixture.noise_component is not None:
        raise UsageError(
            f"{method} of a mixture with a noise component is not told: a row that is noise has "
            "targets anywhere in its box. model.condition takes the noise into account"
        )
    if mixture.tails is not None:
        raise UsageError(
            f'{method} of a mixture with tails="student" is not told; model.condition tells the '
            "conditional distribution of one row"
        )


def regression(
    mixture: Mixture,
    known: Sequence[int],
    targets: Sequence[int],
    answer: Answer,
    names: Sequence[str],
) -> Output:
    """The output that tells of targets, whose names are given, by the known features of rows."""
    return Output(
        answer.name,
        Regression(mixture, tuple(known), tuple(targets), answer),
        np.float64,
        _Shape(answer.shape(len(targets))),
        names=answer.columns(names),
        axes=answer.axes,
    )


@dataclass(frozen=True)
class _Shape:
    """The shape of one row's output, whatever the mixture."""

    shape: tuple[int, ...]

    def __call__(self, mixture: Mixture) -> tuple[int, ...]:
        return self.shape
