"""What rounding does to log-densities that are computed by products with natural parameters.

With L = eta . T(x) and S = R . T(x)' as in kernel.py.

**When the products are not exact enough.**  In L, terms of size (|x| + |mu|)^2 |P| cancel down to
a log-density; in the M-step the same happens to S.  With unit round-off u the error is about
sqrt(P) u (rho + |mu_k|)^2 |P_k|, with rho the root mean square of |x| in the frame (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, sections 3.1 and 2.8).  A component whose
bound exceeds ``TOLERANCE`` is centred: its log-density is computed from x - mu_k, and its sums are
taken about mu_k (``NaturalParameters.center``), which cancels nothing.  A component a thousand
times narrower than the data is centred; ordinary ones never are.

**In single precision** the same holds with a larger u, and half the time is saved.  It may be used
so long as the bound stays under ``SINGLE_TOLERANCE`` (em/fit_context.py decides).  Then the
products of a tile are single; what is added up over tiles never is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.model.arrays import Array
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.mixture import Mixture

TOLERANCE: Final = 1e-9
"""The error of a component's log-densities, in nats, beyond which it is centred."""

SINGLE_TOLERANCE: Final = 1e-3
"""The error, in nats, beyond which single precision is not used."""

OMITTED: Final = (2.0**-54, 2.0**-25)
"""How much less a row's log-likelihood may be, in double and single precision, for components that
are left out of it (_native_skipping.h): half a unit of rounding of sum_k e^L.  So much of the rows'
weight, over K, may be lacking in a component's sums."""


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
        return cls(mixture.variances, np.full(mixture.components, float(mixture.n_features)))

    @classmethod
    def measured(cls, mixture: Mixture, estimate: Estimate, offsets: Array) -> "Away":
        """Of rows of such covariances about means (K, D) that are ``offsets`` from mu."""
        squares = estimate.variances() + offsets**2
        lengths = mixture.covariances.whitened_trace(estimate)
        moved = np.sum(mixture.covariances.whitened(offsets) ** 2, axis=1)
        return cls(np.maximum(squares, 0.0), np.maximum(lengths + moved, 0.0))


def rounding_error_bound(mixture: Mixture, away: Away, unit: float, spread: float = 0.0) -> Array:
    """The bound (K,) above on the error of log-densities by products; ``unit`` is u.

    A component's own rows have |x| up to |mu| + |d|; ``spread`` is that of all rows, rho.
    """
    centre = np.linalg.norm(mixture.means, axis=1)
    size = centre + np.maximum(centre + np.sqrt(away.squares.sum(axis=1)), spread)
    width = mixture.covariance_model.features.width(mixture.n_features)
    stiffest = mixture.covariances.max_eigenvalue_bound()
    error: Array = np.sqrt(width) * unit * size**2 * stiffest
    return error
