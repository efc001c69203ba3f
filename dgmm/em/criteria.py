"""By what fitted mixtures are compared.

All are to be minimised; s is the mean log-likelihood of N rows, p the number of free
parameters:

- bic, -2 N s + p log N (Schwarz, Estimating the dimension of a model, 1978);
- aic, -2 N s + 2 p (Akaike, 1974);
- icl, bic plus twice the entropy of the responsibilities, so that components that overlap count
  for less (Biernacki, Celeux and Govaert, Assessing a mixture model for clustering with the
  integrated completed likelihood, 2000);
- heldout, minus the mean log-likelihood of one row in ten, chosen by a hash of its number, which
  the fit does not see; of few rows, at least one.

The last two need sweeps of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from dgmm.em.evaluate import State
from dgmm.em.first_pass import check_row_weights
from dgmm.errors import DataError
from dgmm.kernels.labels import allowed
from dgmm.kernels.observation import COMPLETE, Marginal, Observation
from dgmm.kernels.outputs import OUTPUTS, OutputKind, RowOutputs, check_rows
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, WeightedSum


@dataclass(frozen=True)
class Compared:
    """Mixtures of the data, and what NaN means in its rows."""

    mixtures: tuple[Mixture, ...]
    observation: Observation = COMPLETE


def score_each(block: Block, compared: Compared) -> Stacked[WeightedSum]:
    """The weighted sum of a block's log-densities under each mixture."""
    return _each(block, compared, "score", np.asarray)


def entropy_each(block: Block, compared: Compared) -> Stacked[WeightedSum]:
    """The weighted sum of the entropies of a block's responsibilities under each mixture.

    A row with a label has none in the components that it can't be of.
    """

    def entropy(responsibilities: Array) -> Array:
        if block.labels is not None:
            may = allowed(block.labels, responsibilities.shape[1])
            responsibilities = np.where(may, responsibilities, 0.0)
            total = responsibilities.sum(axis=1, keepdims=True)
            responsibilities /= np.where(total > 0, total, 1.0)
        return _entropy(responsibilities)

    return _each(block, compared, "proba", entropy)


def _entropy(responsibilities: Array) -> Array:
    logs = np.log(np.where(responsibilities > 0, responsibilities, 1.0))
    entropy: Array = -np.sum(responsibilities * logs, axis=1)
    return entropy


def _each(
    block: Block, compared: Compared, kind: OutputKind, of: Callable[[Array], Array]
) -> Stacked[WeightedSum]:
    """The weighted sum of what ``of`` makes of an output of the rows that count."""
    observation = compared.observation
    check_row_weights(block)
    if observation.deconvolves:
        check_rows(block, observation.refuses)
    block = observation.counted(block).block
    seen = Marginal() if observation.holes else observation  # what can't be used has been told
    wanted = (RowOutputs(each, OUTPUTS[kind], seen) for each in compared.mixtures)
    return Stacked(tuple(_total(block, of(each(block))) for each in wanted))


def _total(block: Block, values: Any) -> WeightedSum:
    if block.weights is None:
        return WeightedSum(float(values.sum()), float(len(values)), len(values))
    weights = block.weights.astype(np.float64)
    used = weights > 0
    value, weight = float(values[used] @ weights[used]), float(weights.sum())
    return WeightedSum(value, weight, int(used.sum()))


@dataclass(frozen=True)
class Criterion:
    """What to choose by; lower is better.

    Attributes
    ----------
    penalty : callable
        From p and the weight N: what is added to -2 N s.
    measure : callable or None
        What must be swept besides, given mixtures of the data.
    holds_out : bool
        Whether that is swept over the rows held out, and is all there is.
    """

    penalty: Callable[[int, float], float]
    measure: Callable[[Block, Compared], Stacked[WeightedSum]] | None = None
    holds_out: bool = False

    def value(
        self, state: State, parameters: int, weight: float, measured: WeightedSum | None
    ) -> float:
        """The criterion for a state of so many ``parameters``, with what was ``measured`` of it."""
        if self.holds_out:
            if measured is not None and not measured.weight > 0:
                raise DataError(
                    "none of the rows held out has any weight: too few have for that criterion"
                )
            return np.inf if measured is None else -measured.value / measured.weight
        extra = 0.0 if measured is None else 2 * measured.value
        plain = -2 * weight * state.score
        return plain + self.penalty(parameters, weight) + extra

    def worth(self, gain: float, weight: float) -> float:
        """By how much it falls when s grows by ``gain``."""
        return gain if self.holds_out else 2 * weight * gain


def _schwarz(parameters: int, weight: float) -> float:
    return parameters * float(np.log(weight))


def _akaike(parameters: int, weight: float) -> float:
    return 2.0 * parameters


CriterionName = Literal["bic", "aic", "icl", "heldout"]
"""The names of ``CRITERIA``."""

CRITERIA: Final = {
    "bic": Criterion(_schwarz),
    "aic": Criterion(_akaike),
    "icl": Criterion(_schwarz, entropy_each),
    "heldout": Criterion(_akaike, score_each, holds_out=True),
}
