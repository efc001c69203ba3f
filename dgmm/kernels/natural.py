"""Natural parameters: a mixture as kernels see it, and what products with it do to digits.

With L = eta . T(x) and S = R . T(x)' as in kernel.py.

**When the products are not exact enough.**  In L, terms of size (|x| + |mu|)^2 |P| cancel down to
a log-density; in the M-step the same happens to S.  With unit round-off u the error is about
sqrt(P) u (rho + |mu_k|)^2 |P_k|, with rho the root mean square of |x| in the frame (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, sections 3.1 and 2.8).  A component whose
bound exceeds ``TOLERANCE`` is centred: its log-density is computed from x - mu_k, and its sums are
taken about mu_k (``Form.about``), which cancels nothing.  A component a thousand times narrower
than the data is centred; ordinary ones never are.

**In single precision** the same holds with a larger u, and half the time is saved.  So long as the
bound stays under ``SINGLE_TOLERANCE`` a form may ask for it (evaluate.py decides): the products of
a tile are then single, what is added up over tiles never is.

**The penalty.**  Adding e to the diagonal of each covariance, as ``reg_covar`` does, is the exact
M-step not of the likelihood, but of the likelihood with each component's density multiplied by
exp(-e tr(Sigma_k^-1) / 2).  So that is the objective here, and it never falls; the plain
log-likelihood is summed beside it.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dgmm.model.mixture import Frame, Mixture
from dgmm.model.statistics import Statistics
from dgmm.model.structure import Array, Structure

TOLERANCE: Final = 1e-9

SINGLE_TOLERANCE: Final = 1e-3

LOWEST: Final = (-1e300, -1e30)
"""Log-densities that are as good as minus infinity, in double and single precision."""

WIDE: Final = (600.0, 60.0)
"""Penalties further apart than this are beyond the range of exp, in double and single precision."""


@dataclass(frozen=True)
class Away:
    """How a component's rows lie about its mean, in the mean square over its responsibilities.

    Attributes
    ----------
    squares : (K, D)
        Of d_j = x_j - mu_kj.
    lengths : (K,)
        Of |C_k'd|: D where the rows are as the component expects them.
    """

    squares: Array
    lengths: Array

    @classmethod
    def expected(cls, mixture: Mixture) -> "Away":
        """As the mixture's components expect them."""
        return cls(mixture.variances, np.full(mixture.components, float(mixture.dims)))

    @classmethod
    def found(cls, mixture: Mixture, covariances: Array, offsets: Array) -> "Away":
        """Of rows of these ``covariances`` about means (K, D) that are ``offsets`` from mu."""
        structure, components, dims = mixture.structure, mixture.components, mixture.dims
        squares = structure.variances(covariances, components, dims) + offsets**2
        lengths = structure.whitened_trace(mixture.factors, covariances, dims)
        moved = np.sum(structure.whitened(mixture.factors, offsets) ** 2, axis=1)
        return cls(np.maximum(squares, 0.0), np.maximum(lengths + moved, 0.0))


def product_noise(mixture: Mixture, away: Away, unit: float, spread: float = 0.0) -> Array:
    """The bound (K,) above on the error of log-densities by products; ``unit`` is u.

    A component's own rows have |x| up to |mu| + |d|; ``spread`` is that of all rows, rho.
    """
    structure = mixture.structure
    centre = np.linalg.norm(mixture.means, axis=1)
    size = centre + np.maximum(centre + np.sqrt(away.squares.sum(axis=1)), spread)
    width = structure.width(mixture.dims)
    return np.sqrt(width) * unit * size**2 * structure.stiffness(mixture.factors)


def penalties(mixture: Mixture, reg: Array) -> Array:
    """reg . diag(Sigma_k^-1) / 2, (K,), for ``reg`` (D,)."""
    trace = mixture.structure.trace(mixture.factors, reg)
    return np.broadcast_to(0.5 * trace, (mixture.components,))


def natural(mixture: Mixture, constants: Array) -> Array:
    """eta (K, P), for log-densities ``constants`` (K,) at the means."""
    structure, dims = mixture.structure, mixture.dims
    eta = np.empty((mixture.components, structure.width(dims)))
    linear = structure.solve(mixture.factors, mixture.means)
    eta[:, 0] = constants - 0.5 * np.sum(mixture.means * linear, axis=1)
    eta[:, 1 : 1 + dims] = linear
    eta[:, 1 + dims :] = structure.quadratic(mixture.factors)
    return eta


@dataclass(frozen=True)
class Form:
    """A mixture (in the frame) written for the kernel.

    Attributes
    ----------
    layout : Structure
        Decides T, of width P; the mixture's own structure unless that can't be centred.
    eta : (K, P)
        The natural parameters; the rows of centred components are not used.
    constants : (K,)
        Log-densities at the means, less penalties; without weight, as low as can be borne.
    centred : tuple of int
        The components to treat by differences from their means.
    about : (K, D)
        Where sums are taken about: 0, or the mean of a centred component.
    penalty : (K,)
        reg . diag(Sigma_k^-1) / 2.
    whole : bool
        Whether the log-densities hold ``Structure.common``, or it is added afterwards.
    single : bool
        Whether the products are in single precision; sums over tiles never are.
    """

    mixture: Mixture
    layout: Structure
    eta: Array
    constants: Array
    centred: tuple[int, ...]
    about: Array
    penalty: Array
    whole: bool
    single: bool = False

    @classmethod
    def of(
        cls,
        mixture: Mixture,
        reg: Array | None = None,
        spread: float | None = None,
        centre: bool = False,
        single: bool = False,
        apart: bool = False,
    ) -> "Form":
        """Write ``mixture``.

        ``reg`` (D,) is added to covariances, ``spread`` is rho above; ``centre`` all components,
        or those that need it; ``single`` as the attribute; ``apart`` asks for the quadratic part
        of each component, even if they are tied.
        """
        structure, dims = mixture.structure, mixture.dims
        reg = np.zeros(dims) if reg is None else reg
        spread = np.sqrt(dims) if spread is None else spread
        penalty = penalties(mixture, reg)
        constants = np.maximum(mixture.constants - penalty, LOWEST[single])
        unit = float(np.finfo(np.float64).eps)
        bound = product_noise(mixture, Away.expected(mixture), unit, spread)
        unfit = (bound > TOLERANCE) & (mixture.weights > 0)
        layout = structure.centred if apart or unfit.any() else structure
        whole = centre or layout is not structure
        if whole:
            unfit = np.ones_like(unfit)
        eta = np.zeros((mixture.components, layout.width(dims)))
        if not whole:
            eta = natural(mixture, constants)
        about = np.where(unfit[:, None], mixture.means, 0.0)
        centred = tuple(np.flatnonzero(unfit).tolist())
        return cls(mixture, layout, eta, constants, centred, about, penalty, whole, single)

    @property
    def bare(self) -> "Form":
        """What an E-step needs of it: without covariances, nor natural parameters not used."""
        mixture = replace(self.mixture, covariances=self.mixture.covariances[:0])
        return replace(self, mixture=mixture, eta=self.eta[:, :0] if self.whole else self.eta)

    def pairing(self, sums: Array, about: Array) -> float:
        """sum_k sums_k . eta_k, for ``sums`` (K, P) of T(x - about_k)."""
        mixture, dims = self.mixture, self.mixture.dims
        if self.layout.shared:
            return float(np.sum(natural(mixture, self.constants) * self.layout.moved(sums, -about)))
        eta = np.zeros_like(sums)  # about its mean, a log-density has no linear part
        eta[:, 0] = self.constants
        shape = self.layout.shape(mixture.components, dims)
        eta[:, 1 + dims :] = self.layout.quadratic(np.broadcast_to(mixture.factors, shape))
        return float(np.sum(eta * self.layout.moved(sums, mixture.means - about)))

    def correct(self, log_joint: Array, x: Array) -> None:
        """Overwrite the centred rows of ``log_joint`` (K, n), for rows ``x`` (D, n)."""
        for k in self.centred:
            log_joint[k] = self.mixture.log_joint(k, x) - self.penalty[k]

    def common(self, x: Array) -> Array | float:
        """What the log-densities of all components hold beyond ``eta . T(x)``."""
        if self.whole:
            return 0.0
        return self.mixture.structure.common(self.mixture.factors, x)

    def common_sum(self, total: Array | None) -> float:
        """The sum of ``common`` over all rows; ``total`` as in ``Structure.common_sum``."""
        if self.whole:
            return 0.0
        return self.mixture.structure.common_sum(self.mixture.factors, total)


@dataclass(frozen=True)
class Anchor:
    """Statistics to be added to those of some rows, as if there were more, or fewer, rows.

    With c_k their sums, the objective grows by sum_k c_k . eta_k: linear in eta, so the M-step
    from the joint statistics still raises it (the inequality that EM rests on holds for the rows'
    own part, and with equality for a linear one).

    Attributes
    ----------
    layout : Structure
        Of the sums.
    sums, about : (K, P), (K, D)
        As in ``Statistics``.
    total : (D, D) or None
        The scatter about 0 of the rows that there would be more, where the structure needs it.
    """

    layout: Structure
    sums: Array
    about: Array
    total: Array | None = None

    def linear(self, form: Form) -> float:
        """sum_k c_k . eta_k under ``form``."""
        found = form.pairing(self.sums, self.about)
        if form.whole and self.total is not None:
            found += form.mixture.structure.common_sum(form.mixture.factors, self.total)
        return found

    def join(self, statistics: Statistics, form: Form) -> Statistics:
        """The joint statistics, with their objective under ``form``: minus infinity if unknown."""
        if form.layout is not self.layout:
            return replace(statistics, objective=-np.inf, log_likelihood=-np.inf)
        sums = self.layout.moved(self.sums, form.about - self.about)
        linear = self.linear(form)
        return replace(
            statistics,
            sums=statistics.sums + sums,
            objective=statistics.objective + linear,
            log_likelihood=statistics.log_likelihood + linear + float(sums[:, 0] @ form.penalty),
        )


@dataclass(frozen=True)
class Given:
    """What an E-step sweep is given: the frame, and mixtures in it."""

    frame: Frame
    forms: tuple[Form, ...]
