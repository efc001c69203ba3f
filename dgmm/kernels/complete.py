"""What a mixture says of each of complete rows, by the compiled kernel or by NumPy.

Centred components (natural_parameters.py) cancel nothing, so the compiled kernel asks of no bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels import factor
from dgmm.kernels.choice import WAYS
from dgmm.kernels.kernel import TOO_FAR, log_sum_exp, tile_rows, tiles
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import NOISE, Mixture

NOTHING: Final = -2
"""The label of a row of which nothing was observed; ``NOISE`` is -1."""


def named(places: NDArray[Any], mixture: Mixture) -> NDArray[Any]:
    """Labels, from places among the components: after the last is noise."""
    return np.where(places == mixture.components, NOISE, places)


@dataclass(frozen=True)
class Judge:
    """An output of rows that their log-densities tell.

    Attributes
    ----------
    name : str
        Of the output.
    of : callable
        From log-densities (K, n), or (K + 1, n) with noise, which it may overwrite, to an array of
        n.
    finish : callable
        From such an array, what all log-densities lacked, and the mixture, to the output.
    nothing : float
        What is said of a row of which nothing was observed.
    """

    name: str
    of: Callable[[Array], NDArray[Any]]
    finish: Callable[[NDArray[Any], Array | float, Mixture], NDArray[Any]]
    nothing: float

    def __call__(self, log_joint: Array, common: Array | float, mixture: Mixture) -> NDArray[Any]:
        """The output by log-densities."""
        return self.finish(self.of(log_joint), common, mixture)


@dataclass(frozen=True)
class Inside:
    """A mixture in a frame of its own, by which rows are judged there.

    Attributes
    ----------
    kernel : str
        A key of ``choice.WAYS``.
    frame : Frame
    mixture : Mixture
        In the frame.
    offset : float
        What is added to log-densities of the data.
    """

    kernel: str
    frame: Frame
    mixture: Mixture
    offset: float

    @classmethod
    def of(cls, kernel: str, mixture: Mixture, offset: float) -> "Inside":
        """The one of a ``mixture`` of the data, whose moments make the frame."""
        frame = Frame.of(*mixture.moments_of_components(), mixture.covariance_model)
        return cls(kernel, frame, frame.enter(mixture), offset)

    @property
    def added(self) -> float:
        """What is added to log-densities of the frame, to have those of the data."""
        return self.offset - self.frame.log_volume


def kernel_outputs(judge: Judge, block: Block, inside: Inside) -> NDArray[Any] | None:
    """What the kernel says of complete rows by itself; None where NumPy is to say it."""
    kernel = WAYS[inside.kernel]
    outputs = kernel.row_outputs(judge.name, block, inside.frame, inside.mixture)
    return None if outputs is None else judge.finish(outputs, inside.added, inside.mixture)


def write(judge: Judge, block: Block, inside: Inside, outputs: NDArray[Any]) -> None:
    """Write what is said of complete rows to ``outputs``."""
    from_kernel = kernel_outputs(judge, block, inside)
    if from_kernel is not None:
        outputs[...] = from_kernel
        return
    natural = NaturalParameters.of(inside.mixture)
    size = tile_rows(natural.features.width(inside.mixture.n_features) + 2 * len(natural.eta))
    log_joints = ALONG.get(natural.features.name, _by_products)(natural, size)
    for chosen, x in tiles(block, inside.frame, size):
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = log_joints(x)
        if inside.mixture.noise_component is not None:  # a row too far from the others is noise
            log_joint[~np.isfinite(log_joint)] = -np.inf
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError(TOO_FAR)
        outputs[chosen] = judge(log_joint, natural.common(x) + inside.added, inside.mixture)


def _by_products(natural: NaturalParameters, size: int) -> Callable[[Array], Array]:
    """Log-densities (K, n) of rows (D, n), not more than ``size``, by natural parameters."""
    buffer = np.empty((natural.features.width(natural.mixture.n_features), size))

    def log_joints(x: Array) -> Array:
        log_joint: Array = natural.eta @ natural.features.of(x, buffer[:, : x.shape[1]])
        natural.correct(log_joint, x)
        return log_joint

    return log_joints


ALONG: Final[dict[str, Callable[[NaturalParameters, int], Callable[[Array], Array]]]] = {
    "projections": factor.log_joints
}
"""How rows are judged whose sums have an arithmetic of their own, by the name of the features."""


def _labels(log_joint: Array) -> NDArray[Any]:
    places: NDArray[np.int64] = log_joint.argmax(axis=0)
    return places


def _proba(log_joint: Array) -> NDArray[Any]:
    return log_sum_exp(log_joint)[1].T


def _score(log_joint: Array) -> NDArray[Any]:
    return log_sum_exp(log_joint)[0]


def _both(log_joint: Array) -> NDArray[Any]:
    log_norm, responsibilities = log_sum_exp(log_joint)
    return np.column_stack([log_norm, responsibilities.T])


def _named_of(places: NDArray[Any], common: Array | float, mixture: Mixture) -> NDArray[Any]:
    return named(places, mixture)


def _as_it_is(
    responsibilities: NDArray[Any], common: Array | float, mixture: Mixture
) -> NDArray[Any]:
    return responsibilities


def _whole(log_norm: NDArray[Any], common: Array | float, mixture: Mixture) -> NDArray[Any]:
    whole: Array = log_norm + common
    return whole


def _first_whole(found: NDArray[Any], common: Array | float, mixture: Mixture) -> NDArray[Any]:
    found[:, 0] += common
    return found


LABELS: Final = Judge("labels", _labels, _named_of, NOTHING)
PROBA: Final = Judge("proba", _proba, _as_it_is, np.nan)
SCORE: Final = Judge("score", _score, _whole, np.nan)
BOTH: Final = Judge("both", _both, _first_whole, np.nan)
"""The score, and then the probabilities, by one look at each row."""
