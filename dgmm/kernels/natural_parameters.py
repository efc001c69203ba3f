"""Natural parameters: a mixture as kernels see it.

With L = eta . T(x) and S = R . T(x)' as in kernel.py.

A component whose bound on rounding is too large is centred (rounding.py): its log-density is
computed from x - mu_k, and its sums are taken about mu_k (``NaturalParameters.center``).

**A noise component** is one more row of it: without a linear or quadratic part, with the constant
log pi - log V, no penalty, and sums about 0, of which the M-step needs the count alone.  What tied
components have in common it has not: so then each has its own quadratic part.

**The penalty** is by how much the prior lowers a component's log-density (model/prior.py); the
plain log-likelihood, without it, is summed beside the objective.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels.rounding import TOLERANCE, Away, rounding_error_bound
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.features import Features
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics
from dgmm.model.tails import Latent

LOWEST: Final = (-1e300, -1e30)
"""Log-densities that are as good as minus infinity, in double and single precision."""

WIDE: Final = (600.0, 60.0)
"""Penalties further apart than this are beyond the range of exp, in double and single precision."""

EXPONENTIAL: Final = 20
"""As many products take as long as an exponential, and what else a component takes of a row."""


@dataclass(frozen=True)
class NaturalParameters:
    """A mixture (in the frame) written for the kernel.

    Attributes
    ----------
    features : Features
        T, of width P: of the mixture's covariance model, or its centred ones.
    eta : (K, P)
        The natural parameters; the rows of centred components are not used.  With noise, here and
        below it is (K + 1).
    constants : (K,)
        Log-densities at the means, less penalties; without weight, as low as can be borne.
    centred : tuple of int
        The components to treat by differences from their means.
    center : (K, D)
        Where sums are taken about: 0, or the mean of a centred component.
    penalty : (K,)
        By how much ``constants`` are lowered.
    includes_common : bool
        Whether the log-densities hold ``Covariances.common``, or it is added afterwards.
    single : bool
        Whether the products are in single precision; sums over tiles never are.
    """

    mixture: Mixture
    features: Features
    eta: Array
    constants: Array
    centred: tuple[int, ...]
    center: Array
    penalty: Array
    includes_common: bool
    single: bool = False

    @classmethod
    def of(
        cls,
        mixture: Mixture,
        penalty: Array | None = None,
        spread: float | None = None,
        centre: bool = False,
        single: bool = False,
        per_component: bool = False,
    ) -> "NaturalParameters":
        """Those of a ``mixture``.

        ``penalty`` (K,) lowers log-densities.  ``spread`` is rho (rounding.py).  ``centre`` asks
        that all components are centred, and not those alone that need it; ``per_component``, that
        each has a quadratic part of its own, even if they are tied.  ``single`` is the attribute.
        """
        covariance_model, n_features = mixture.covariance_model, mixture.n_features
        penalty = np.zeros(mixture.components) if penalty is None else penalty
        spread = np.sqrt(n_features) if spread is None else spread
        constants = np.maximum(mixture.constants - penalty, LOWEST[single])
        unfit = np.ones(mixture.components, bool)
        if not centre or covariance_model.features != covariance_model.centred_features:
            unit = float(np.finfo(np.float64).eps)
            bound = rounding_error_bound(mixture, Away.expected(mixture), unit, spread)
            unfit = (bound > TOLERANCE) & (mixture.weights > 0)
        noise, student = mixture.noise_component, mixture.tails is not None
        features = (
            covariance_model.centred_features
            if per_component or student or noise is not None or unfit.any()
            else covariance_model.features
        )
        includes_common = centre or student or features != covariance_model.features
        includes_common = includes_common or covariance_model.along_loadings
        if includes_common:
            unfit = np.ones_like(unfit)
            eta = np.zeros((mixture.components, features.width(n_features)))
        else:
            eta = mixture.covariances.natural(mixture.means, constants)
        center = np.where(unfit[:, None], mixture.means, 0.0)
        centred = tuple(np.flatnonzero(unfit).tolist())
        if noise is not None:
            constants = np.append(constants, max(noise.log_joint, LOWEST[single]))
            eta, center, penalty = (_with_zeros(each) for each in (eta, center, penalty))
            eta[-1, 0] = constants[-1]
        return cls(
            *(mixture, features, eta, constants, centred, center, penalty, includes_common, single)
        )

    @property
    def bare(self) -> "NaturalParameters":
        """What an E-step needs of it: without covariances, nor natural parameters not used."""
        mixture = replace(self.mixture, covariances=self.mixture.covariances.bare)
        return replace(
            self, mixture=mixture, eta=self.eta[:, :0] if self.includes_common else self.eta
        )

    def chosen(self, components: NDArray[np.intp]) -> "NaturalParameters":
        """Those of some components, without noise; log-densities and centers stay what they are."""
        centred = np.isin(components, self.centred)
        mixture = replace(self.mixture.chosen(components), noise_component=None)
        return replace(
            self,
            mixture=mixture,
            eta=self.eta[components],
            constants=self.constants[components],
            centred=tuple(np.flatnonzero(centred).tolist()),
            center=self.center[components],
            penalty=self.penalty[components],
        )

    def parts(self, count: int) -> list["NaturalParameters"]:
        """Those of ``count`` mixtures of as many components each, which lie in one, without noise.

        Log-densities and centers stay what they are.
        """
        size, centred = len(self.center) // count, np.zeros(len(self.center), bool)
        centred[list(self.centred)] = True
        places, parts = np.arange(len(self.center)), []
        for first in range(0, len(self.center), size):
            chosen = slice(first, first + size)
            mixture = Mixture(
                self.mixture.weights[chosen],
                self.mixture.means[chosen],
                self.mixture.covariances.chosen(places[chosen]),
            )
            part = replace(
                self,
                mixture=mixture,
                eta=self.eta[chosen],
                constants=self.constants[chosen],
                centred=tuple(np.flatnonzero(centred[chosen]).tolist()),
                center=self.center[chosen],
                penalty=self.penalty[chosen],
            )
            parts.append(part)
        return parts

    def inner_product(self, sums: Array, center: Array) -> float:
        """sum_k sums_k . eta_k, for ``sums`` (K, P) of T(x - center_k)."""
        mixture = self.mixture
        constants, noisy = self.constants, 0.0
        if mixture.noise_component is not None:
            noisy = float(constants[-1] * sums[-1, 0])
            constants, sums, center = constants[:-1], sums[:-1], center[:-1]
        return self._of_components(constants, sums, center) + noisy

    def _of_components(self, constants: Array, sums: Array, center: Array) -> float:
        """The same of the normal components."""
        mixture, n_features = self.mixture, self.mixture.n_features
        if self.features != mixture.covariance_model.centred_features:
            eta = mixture.covariances.natural(mixture.means, constants)
            return float(np.sum(eta * self.features.shifted(sums, -center)))
        eta = np.zeros_like(sums)  # about its mean, a log-density has no linear part
        eta[:, 0] = constants
        eta[:, 1 + n_features :] = mixture.covariances.quadratic()
        return float(np.sum(eta * self.features.shifted(sums, mixture.means - center)))

    def correct(self, log_joint: Array, x: Array) -> None:
        """Overwrite the centred rows of ``log_joint`` (K, n), and noise, for rows ``x`` (D, n)."""
        for k in self.centred:
            log_joint[k] = self.mixture.log_joint(k, x) - self.penalty[k]
        if self.mixture.noise_component is not None:
            log_joint[-1] = self.constants[-1]

    def latent(self, log_joint: Array) -> Latent | None:
        """What rows' own precisions are by ``log_joint`` (K, n); None where all are normal."""
        if (tails := self.mixture.tails) is None:
            return None
        density = (log_joint - self.constants[:, None]).T
        return tails.latent(density, self.mixture.n_features)

    def common(self, x: Array) -> Array | float:
        """What the log-densities of all components hold beyond ``eta . T(x)``."""
        if self.includes_common:
            return 0.0
        return self.mixture.covariances.common(x)

    def common_sum(self, total: Array | None) -> float:
        """The sum of ``common`` over all rows; ``total`` as in ``Covariances.common_sum``."""
        if self.includes_common:
            return 0.0
        return self.mixture.covariances.common_sum(total)


def _with_zeros(values: Array) -> Array:
    """``values`` (K, ...) and a row of zeros."""
    return np.concatenate([values, np.zeros_like(values[:1])])


def nbytes(components: int, width: int) -> int:
    """What ``Given`` takes: factors of precisions, and eta, of K components; and as it arrives."""
    return 3 * 8 * components * width


@dataclass(frozen=True)
class Given:
    """What an E-step sweep is given: the frame, and mixtures in it."""

    frame: Frame
    naturals: tuple[NaturalParameters, ...]

    @property
    def row_products(self) -> float:
        """How many products a row takes about; see ``Sweep``."""
        n_features = len(self.frame.shift)
        widths = ((len(each.center), each.features.width(n_features)) for each in self.naturals)
        return float(sum(components * (width + EXPONENTIAL) for components, width in widths))


EStep = Callable[[Block, Given], Stacked[Statistics]]
"""The statistics of a block under each mixture."""
