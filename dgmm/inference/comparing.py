"""How far two mixtures are from each other, by draws, with error bars.

KL(f | g) is the mean of log f - log g over draws from f.  The squared Hellinger distance is

    1 - integral sqrt(f g) = 1 - mean of 2 sqrt(f g) / (f + g)

over draws from f and g in equal parts, each of which is between 0 and 1.  Equal mixtures are at
0 exactly, with no error: their log-densities have the same bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgmm.kernels.outputs import OUTPUTS, RowOutputs
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Estimate:
    """A number that was estimated, with its standard error.

    Parameters
    ----------
    value : float
        The estimate.
    error : float
        Its standard error.

    Examples
    --------
    >>> from dgmm.inference.comparing import Estimate
    >>> Estimate(0.5, 0.01).value
    0.5
    """

    value: float
    error: float

    @classmethod
    def mean(cls, values: Array) -> "Estimate":
        """That of a mean."""
        return cls(float(values.mean()), float(values.std() / np.sqrt(len(values))))


def log_density(mixture: Mixture, rows: Array) -> Array:
    """log f of rows (n, D)."""
    log_densities: Array = RowOutputs(mixture, OUTPUTS["score"])(Block(0, rows))
    return log_densities


def divergences(
    first: Mixture, second: Mixture, draws: int, rng: Any
) -> tuple[Estimate, Estimate, Estimate]:
    """KL(first | second) and KL(second | first), in nats, and the Hellinger distance."""
    one, other = (mixture.sample(draws, rng)[0] for mixture in (first, second))
    ratios = [log_density(first, rows) - log_density(second, rows) for rows in (one, other)]
    halves = np.exp(-0.5 * np.abs(np.concatenate(ratios)))
    overlap = 2.0 * halves / (1.0 + halves * halves)  # 2 sqrt(fg) / (f + g)
    square = Estimate.mean(1.0 - overlap)
    distance = float(np.sqrt(max(square.value, 0.0)))
    error = square.error / (2 * distance) if distance > 0 else 0.0
    return Estimate.mean(ratios[0]), Estimate.mean(-ratios[1]), Estimate(distance, error)
