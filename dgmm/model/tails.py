"""Heavy tails: components that are multivariate t distributions.

Peel and McLachlan, Robust mixture modelling using the t distribution, 2000.  A t distribution of nu
degrees of freedom, location mu and scale matrix S is a normal one whose precision each row
multiplies by a number u of its own, which is gamma distributed: shape and rate nu / 2.  With the
squared distance d = (x - mu)' S^-1 (x - mu) of a row of D features,

    log density   log C - (nu + D) / 2 log(1 + d / nu) - log |S| / 2
    C             Gamma((nu + D) / 2) / Gamma(nu / 2) / (nu pi)^(D / 2)
    E[u]          (nu + D) / (nu + d)
    E[log u]      log E[u] + psi((nu + D) / 2) - log((nu + D) / 2)

So a row far away counts for little.  The M-step's location is the mean by r E[u], its scale the sum
of r E[u] (x - mu)(x - mu)' over the sum of r, and nu is where

    log(nu / 2) - psi(nu / 2) + 1 + sum r (E[log u] - E[u]) / sum r = 0

The left side falls as nu grows: it has one root, or none but infinity, which is the normal.

**Limits.**  Degrees of freedom stay between ``LEAST`` and ``MOST``; the M-step within these limits
is exact, too.  At the first a component has tails that are heavier than data have: rows that lie on
a point, or many scales in one.  At the last it is normal, as far as rows can tell.  Being at either
is told.

Of features that were observed the distribution is a t again, of the same nu: everything above holds
with these features, and their number for D.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
from scipy.special import betaln, gammaln, polygamma, psi

from dgmm.model.arrays import Array

Tails = Literal["normal", "student"]
"""The members of ``TAILS``."""

TAILS: Final = ("normal", "student")
"""What components may be."""

LEAST: Final = 0.1
MOST: Final = 200.0
"""Between which degrees of freedom are estimated."""

FIRST: Final = 5.0
"""The degrees of freedom that a fit begins with, if they are not given."""

HALVINGS: Final = 60
"""How often the interval of a root is halved: to the last digit."""

FAR: Final = 2.0
"""By how much the logarithm of degrees of freedom may change in an extrapolation."""


@dataclass(frozen=True)
class DofRule(ABC):
    """What is estimated of the degrees of freedom.  ``RULES`` has the members.

    Attributes
    ----------
    name : str
    """

    name: ClassVar[str]

    @abstractmethod
    def free(self, components: int) -> int:
        """How many numbers are free."""

    @abstractmethod
    def estimate(self, counts: Array, evidence: Array, before: Array) -> Array:
        """The M-step's (K,): ``evidence`` is sum r (E[log u] - E[u]), ``counts`` sum r, (K,) each.

        A component without rows has what it had ``before``.
        """

    @abstractmethod
    def free_of(self, of_each: Array) -> Array:
        """The free ones of numbers ``of_each`` (K,) component, where equal ones are one."""

    @abstractmethod
    def spread(self, values: Array, components: int) -> Array:
        """The number (K,) of each component, from the free ones."""


@dataclass(frozen=True)
class Each(DofRule):
    """Each component has its own."""

    name = "each"

    def free(self, components: int) -> int:
        return components

    def estimate(self, counts: Array, evidence: Array, before: Array) -> Array:
        live = counts > 0
        mean = np.where(live, evidence, -1.0) / np.where(live, counts, 1.0)
        return np.where(live, root(mean), before)

    def free_of(self, of_each: Array) -> Array:
        return of_each

    def spread(self, values: Array, components: int) -> Array:
        return values


@dataclass(frozen=True)
class Common(DofRule):
    """All components have the same."""

    name = "common"

    def free(self, components: int) -> int:
        return 1

    def estimate(self, counts: Array, evidence: Array, before: Array) -> Array:
        if not counts.sum() > 0:
            return before
        return np.full(len(counts), root(np.atleast_1d(evidence.sum() / counts.sum()))[0])

    def free_of(self, of_each: Array) -> Array:
        return of_each[:1]

    def spread(self, values: Array, components: int) -> Array:
        return np.repeat(values, components)


@dataclass(frozen=True)
class Given(DofRule):
    """They are given."""

    name = "given"

    def free(self, components: int) -> int:
        return 0

    def estimate(self, counts: Array, evidence: Array, before: Array) -> Array:
        return before

    def free_of(self, of_each: Array) -> Array:
        return of_each[:0]

    def spread(self, values: Array, components: int) -> Array:
        return np.empty(0)


RULES: Final[dict[str, DofRule]] = {each.name: each for each in (Each(), Common(), Given())}
"""What may be estimated, by name."""


def root(mean: Array) -> Array:
    """Where log(nu / 2) - psi(nu / 2) + 1 + ``mean`` (M,) is 0, within the limits, (M,)."""
    low, high = (np.full(mean.shape, np.log(each)) for each in (LEAST, MOST))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        half = np.exp(middle) / 2
        above = np.log(half) - psi(half) + 1 + mean > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    result = np.exp((low + high) / 2)
    ends = np.where(result > MOST * (1 - 1e-9), MOST, result)
    return np.where(result < LEAST * (1 + 1e-9), LEAST, ends)


@dataclass(frozen=True)
class Latent:
    """What is expected of each row's own u, under each component.

    Attributes
    ----------
    scale : (K, n)
        E[u].
    evidence : (K, n)
        E[log u] - E[u].
    """

    scale: Array
    evidence: Array

    def sums(self, responsibilities: Array) -> Array:
        """Over the rows, by responsibilities (K, n): (K, 2)."""
        parts = [np.einsum("kn,kn->k", responsibilities, each) for each in self.parts]
        return np.stack(parts, axis=1)

    @property
    def parts(self) -> tuple[Array, Array]:
        """Both."""
        return self.scale, self.evidence


@dataclass(frozen=True, eq=False)
class StudentTails:
    """The degrees of freedom of K components that are t distributions.

    Attributes
    ----------
    dof : (K,)
    rule : DofRule
        What of them is estimated.
    """

    dof: Array
    rule: DofRule

    def log_constant(self, n_features: Any) -> Array:
        """log C, for D features: (K,), or (..., K) for (..., 1) of them."""
        half = np.asarray(n_features) / 2
        unit: Array = gammaln(half) - betaln(self.dof / 2, half)
        return np.where(half > 0, unit - half * np.log(self.dof * np.pi), 0.0)

    def log_density(self, squares: Array, n_features: Any) -> Array:
        """What a distance adds to log C: for d (..., K), and D or (..., 1) features."""
        log_density: Array = -(self.dof + n_features) / 2 * np.log1p(squares / self.dof)
        return log_density

    def latent(self, log_density: Array, n_features: Any) -> Latent:
        """What is expected of u, where ``log_density`` is what that gave; both transposed."""
        count = self.dof + n_features
        away = np.maximum(-2 * log_density / count, 0.0)
        log_scale = np.log(count / self.dof) - away
        scale = np.exp(log_scale)
        evidence = log_scale + psi(count / 2) - np.log(count / 2) - scale
        return Latent(scale.T, evidence.T)

    def updated(self, counts: Array, evidence: Array) -> "StudentTails":
        """The M-step's, from ``counts`` (K,) and ``evidence`` (K,) as in ``DofRule.estimate``."""
        return replace(self, dof=self.rule.estimate(counts, evidence, self.dof))

    def check(self) -> None:
        """Raise ``ValueError`` unless the degrees of freedom are above 0."""
        if not ((self.dof > 0) & np.isfinite(self.dof)).all():
            raise ValueError("its degrees of freedom are none")

    @property
    def limits(self) -> dict[str, list[int]]:
        """The components whose degrees of freedom are the ``least`` and the ``most`` there are."""
        free = self.rule.free(len(self.dof)) > 0
        ends = {"least": self.dof <= LEAST, "most": self.dof >= MOST}
        return {name: np.flatnonzero(free & each).tolist() for name, each in ends.items()}

    def chosen(self, components: Any) -> "StudentTails":
        """Those of these components."""
        return replace(self, dof=self.dof[components])

    @property
    def spreads(self) -> Array:
        """Variances over those of the scale matrices, (K,): infinity for up to 2."""
        finite = self.dof > 2
        return np.where(finite, self.dof / np.where(finite, self.dof - 2, 1.0), np.inf)

    def coordinates(self, seen_from: "StudentTails", weights: Array) -> Array:
        """Logarithms of the free ones, scaled as complete data know them at ``seen_from``."""
        logs = np.log(self.dof) - np.log(seen_from.dof)
        return self.rule.free_of(logs) * self._roots(seen_from, weights)

    def at(self, place: Array, seen_from: "StudentTails", weights: Array) -> "StudentTails":
        """Those with such coordinates, no further than ``FAR`` from these, and in the limits."""
        roots = self._roots(seen_from, weights)
        logs = self.rule.free_of(np.log(seen_from.dof)) + place / np.where(roots > 0, roots, 1.0)
        known = self.rule.free_of(np.log(self.dof))
        moved = np.where(roots > 0, known + np.clip(logs - known, -FAR, FAR), known)
        moved = np.clip(moved, np.log(LEAST), np.log(MOST))
        free = self.rule.spread(np.exp(moved), len(self.dof))
        return replace(self, dof=free if len(free) else self.dof)

    def _roots(self, seen_from: "StudentTails", weights: Array) -> Array:
        """The roots of the information that complete data have on the logarithms of free ones."""
        dof = seen_from.dof
        known = dof * dof * (polygamma(1, dof / 2) / 4 - 1 / (2 * dof))
        information = self.rule.free_of(weights * known)
        if len(information) == 1:
            information = np.atleast_1d(np.sum(weights * known))
        roots: Array = np.sqrt(np.maximum(information, 0.0))
        return roots


@dataclass(frozen=True)
class TailsSpec:
    """What is asked of the tails.

    Attributes
    ----------
    rule : DofRule
    dof : float or tuple of float
        What they are, or begin with: all, or each.
    """

    rule: DofRule
    dof: float | tuple[float, ...] = FIRST

    def begun(self, components: int) -> StudentTails:
        """The first tails of so many components."""
        return StudentTails(np.full(components, self.dof, np.float64), self.rule)

    def going_on(self, tails: StudentTails) -> "TailsSpec":
        """The same that begins at these ``tails``, but for what is given."""
        if self.rule == RULES["given"]:
            return self
        return replace(self, dof=tuple(tails.dof.tolist()))
