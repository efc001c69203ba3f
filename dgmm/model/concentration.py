"""The posterior of a variational mixture's weights: Dirichlet, or by breaking a stick.

With n_k the weight of each component's rows, K components, and psi the digamma function:

**Dirichlet.**  Concentrations a_k = a_0 + n_k, and E log pi_k = psi(a_k) - psi(sum a).

**Dirichlet process**, cut off at K (Blei and Jordan, Variational inference for Dirichlet process
mixtures, 2006): pi_k = v_k prod_{j<k} (1 - v_j), each v_k with a beta density of a_k = 1 + n_k and
b_k = a_0 + sum_{j>k} n_j.  As in scikit-learn, components stay in their order, and the last v_K is
not set to 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from scipy.special import betaln, digamma, gammaln

from dgmm.model.arrays import Array


@dataclass(frozen=True)
class Concentration(ABC):
    """A prior of weights.

    Attributes
    ----------
    value : float
        a_0 > 0.
    """

    value: float

    name: ClassVar[str]

    @abstractmethod
    def parameters(self, counts: Array) -> Any:
        """The posterior's, as scikit-learn has them, for n_k ``counts`` (K,)."""

    @abstractmethod
    def log_weights(self, counts: Array) -> Array:
        """E log pi_k, (K,)."""

    @abstractmethod
    def weights(self, counts: Array) -> Array:
        """E pi_k, (K,), scaled to sum to 1."""

    @abstractmethod
    def divergence(self, counts: Array) -> float:
        """The Kullback-Leibler divergence of the posterior from the prior."""

    @abstractmethod
    def log_norm(self, components: int) -> float:
        """The logarithm of what makes the prior of so many weights a density."""


@dataclass(frozen=True)
class Dirichlet(Concentration):
    """A Dirichlet density."""

    name = "dirichlet_distribution"

    def parameters(self, counts: Array) -> Array:
        return self.value + counts

    def log_weights(self, counts: Array) -> Array:
        posterior = self.value + counts
        logs: Array = digamma(posterior) - digamma(posterior.sum())
        return logs

    def weights(self, counts: Array) -> Array:
        posterior = self.value + counts
        weights: Array = posterior / posterior.sum()
        return weights

    def divergence(self, counts: Array) -> float:
        posterior = self.value + counts
        norm = gammaln(posterior.sum()) - gammaln(posterior).sum()
        return float(norm - self.log_norm(len(posterior)) + counts @ self.log_weights(counts))

    def log_norm(self, components: int) -> float:
        return float(gammaln(components * self.value) - components * gammaln(self.value))


@dataclass(frozen=True)
class Sticks(Concentration):
    """A Dirichlet process that is cut off."""

    name = "dirichlet_process"

    def parameters(self, counts: Array) -> tuple[Array, Array]:
        after = np.append(np.cumsum(counts[:0:-1])[::-1], 0.0)
        return 1.0 + counts, self.value + after

    def _logs(self, counts: Array) -> tuple[Array, Array]:
        """E log v_k and E log (1 - v_k), (K,) each."""
        a, b = self.parameters(counts)
        both = digamma(a + b)
        return digamma(a) - both, digamma(b) - both

    def log_weights(self, counts: Array) -> Array:
        taken, left = self._logs(counts)
        logs: Array = taken + np.append(0.0, np.cumsum(left)[:-1])
        return logs

    def weights(self, counts: Array) -> Array:
        a, b = self.parameters(counts)
        weights = a / (a + b) * np.append(1.0, np.cumprod(b / (a + b))[:-1])
        scaled: Array = weights / weights.sum()
        return scaled

    def divergence(self, counts: Array) -> float:
        a, b = self.parameters(counts)
        taken, left = self._logs(counts)
        norm = -betaln(a, b).sum() - self.log_norm(len(a))
        return float(norm + (a - 1) @ taken + (b - self.value) @ left)

    def log_norm(self, components: int) -> float:
        return float(-components * betaln(1.0, self.value))


ConcentrationType = Literal["dirichlet_process", "dirichlet_distribution"]
"""The names of ``CONCENTRATIONS``."""

CONCENTRATIONS: Final[dict[str, type[Concentration]]] = {
    each.name: each for each in (Sticks, Dirichlet)
}
