"""What is known of a mixture: parameters that are held at the values a fit begins with.

Each of a component's weight, mean and covariance may be held by itself.  The M-step of the others
is that of the likelihood with these as constants: the free weights, and that of noise, share what
the fixed ones leave, in proportion to their counts; and the covariance of a component whose mean is
held is the scatter about that mean.  (So it is in extreme deconvolution: Bovy, Hogg and Roweis,
2011.)

Whatever makes a mixture from another ``hold``s what is fixed, so the values go from mixture to
mixture as they are, bit by bit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array, Mask
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Fixed:
    """The components whose ``weights``, ``means`` and ``covariances`` are held, (K,) each.

    Where all components have one covariance, that is held for all or for none.
    """

    weights: Mask
    means: Mask
    covariances: Mask

    @classmethod
    def of(cls, components: int, **numbers: Iterable[int]) -> "Fixed":
        """Of so many components; those whose ``numbers`` are given for a part are held."""
        masks = {name: np.zeros(components, bool) for name in PARTS}
        for name, held in numbers.items():
            masks[name][list(held)] = True
        return cls(**masks)

    @property
    def any(self) -> bool:
        """Whether anything is held."""
        return bool((self.weights | self.means | self.covariances).any())

    def hold(self, mixture: Mixture, at: Mixture) -> Mixture:
        """The ``mixture`` with what is fixed as it is ``at`` another."""
        means = np.where(self.means[:, None], at.means, mixture.means)
        covariances = mixture.covariances.held(self.covariances, at.covariances)
        result = replace(mixture, means=means, covariances=covariances)
        if (noise := mixture.noise_component) is None:
            return replace(result, weights=self.shared(mixture.weights, at.weights))
        *weights, even = self.shared(mixture.all_weights, np.append(at.weights, noise.weight))
        return replace(result, weights=np.array(weights), noise_component=noise.weighing(even))

    def shared(self, weights: Array, at: Array) -> Array:
        """The ``weights`` (K,), or with noise (K + 1,), with those fixed as they are ``at`` others.

        The free ones are what is left, in their proportions; where they are all 0, in those of the
        others.
        """
        if not self.weights.any():
            return weights
        free = np.append(~self.weights, np.ones(len(weights) - len(self.weights), bool))
        left = max(0.0, 1.0 - float(at[~free].sum()))
        shares = weights if weights[free].sum() > 0 else at
        total = float(shares[free].sum())
        return np.where(free, shares * (left / total if total > 0 else 0.0), at)

    def parameters(
        self, covariance_model: CovarianceModel, n_features: int, noise: bool = False
    ) -> int:
        """How many of the parameters of such a mixture, perhaps with ``noise``, are not free."""
        weights = len(self.weights) + noise
        free = weights - int(self.weights.sum())
        count = weights - 1 - max(0, free - 1) + n_features * int(self.means.sum())
        if self.covariances.all():
            return count + covariance_model.free_parameters(len(self.covariances), n_features)
        return count + covariance_model.own_parameters(n_features) * int(self.covariances.sum())

    def parameters_of(self, mixture: Mixture) -> int:
        """How many of the parameters of a ``mixture`` are not free."""
        noise = mixture.noise_component is not None
        return self.parameters(mixture.covariance_model, mixture.n_features, noise)

    def chosen(self, components: NDArray[np.intp]) -> "Fixed":
        """What is held of these components, in that order."""
        return Fixed(*(getattr(self, name)[components] for name in PARTS))

    def record(self) -> dict[str, list[int]]:
        """The components of which something is held, by what that is, as JSON has it."""
        return {name: np.flatnonzero(getattr(self, name)).tolist() for name in PARTS}


def free_parameters(mixture: Mixture, info: dict[str, Any]) -> int:
    """How many parameters of a ``mixture`` are free, by the record ``info`` of its fit."""
    fixed = Fixed.of(mixture.components, **info.get("fixed", {}))
    return mixture.free_parameters - fixed.parameters_of(mixture)


PARTS: Final = tuple(each.name for each in fields(Fixed))
"""What can be held: "weights", "means", "covariances"."""


@dataclass(frozen=True, eq=False)
class Held:
    """What is ``fixed``, and at what values: those of a mixture ``at`` (of the data)."""

    fixed: Fixed
    at: Mixture

    def hold(self, mixture: Mixture) -> Mixture:
        """The ``mixture`` of the data with these values."""
        return self.fixed.hold(mixture, self.at)

    def within(self, frame: Frame, mixture: Mixture) -> Mixture:
        """The ``mixture`` of rows in a ``frame`` with these values."""
        return self.fixed.hold(mixture, frame.enter(self.at))
