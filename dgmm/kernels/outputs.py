"""What a mixture says of each row: its component, responsibilities, or log-density."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels.kernel import describe_invalid_row, log_sum_exp, tile_rows, tiles
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Frame, Mixture


def _labels(log_joint: Array, common: Array | float) -> NDArray[Any]:
    labels: NDArray[np.int64] = log_joint.argmax(axis=0)
    return labels


def _proba(log_joint: Array, common: Array | float) -> NDArray[Any]:
    return log_sum_exp(log_joint)[1].T


def _score(log_joint: Array, common: Array | float) -> NDArray[Any]:
    return log_sum_exp(log_joint)[0] + common


def _same(labels: NDArray[Any]) -> NDArray[Any]:
    return labels


def _likeliest(responsibilities: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(responsibilities.argmax(axis=1))


@dataclass(frozen=True)
class Output:
    """One kind of per-row output: from log-densities (K, n) to an array of n rows.

    ``labels`` says of such an array which component each row belongs to, where it tells.
    """

    of: Callable[[Array, Array | float], NDArray[Any]]
    dtype: type[np.generic]
    per_component: bool = False
    labels: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    def columns(self, components: int) -> tuple[int, ...]:
        """The shape of one row's output."""
        return (components,) if self.per_component else ()


OutputKind = Literal["labels", "proba", "score"]
"""The names of ``OUTPUTS``."""

OUTPUTS: Final[dict[OutputKind, Output]] = {
    "labels": Output(_labels, np.int64, labels=_same),
    "proba": Output(_proba, np.float64, per_component=True, labels=_likeliest),
    "score": Output(_score, np.float64),
}


def row_outputs(
    rows: NDArray[Any], mixture: Mixture, kind: OutputKind, start: int = 0
) -> NDArray[Any]:
    """What ``mixture`` (of the data) says of each row of ``rows`` (n, D).

    ``kind`` is a key of ``OUTPUTS``: the most probable component (n,), each component's
    responsibility (n, K), or the log-density (n,).  ``start`` numbers the first row in errors.
    Raises ``DataError`` on NaN or infinity.
    """
    block = Block(start, rows)
    if invalid_row := describe_invalid_row(block):
        raise DataError(invalid_row)
    output = OUTPUTS[kind]
    frame = Frame.of(*mixture.moments(), mixture.covariance_model)
    natural = NaturalParameters.of(frame.enter(mixture))
    width = natural.features.width(mixture.n_features)
    size = tile_rows(width + 2 * mixture.components)
    buffer = np.empty((width, size))
    outputs = np.empty((len(rows), *output.columns(mixture.components)), dtype=output.dtype)
    for chosen, x in tiles(block, frame, size):
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = natural.eta @ natural.features.of(x, buffer[:, : x.shape[1]])
            natural.correct(log_joint, x)
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError("the rows are too far from the model: their log-densities overflow")
        outputs[chosen] = output.of(log_joint, natural.common(x) - frame.log_volume)
    return outputs
