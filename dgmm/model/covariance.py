"""The plain covariance models, and all that users can name.

A Gaussian mixture is an exponential family: with the features T(x) = [1, x, quadratic part] of a
row, ``log pi_k + log N(x | k) = T(x) . eta_k``.  A covariance model says what the quadratic part
is, how a covariance is estimated from sums of it, and how a covariance is inverted.

=========  ======================  =================  ===================  ==============
model      quadratic part, Q wide  covariances        precision factors C  P = 1 + D + Q
=========  ======================  =================  ===================  ==============
full       x_i x_j, i <= j         (K, D, D)          (K, D, D)            1+D+D(D+1)/2
diag       x_i^2                   (K, D)             (K, D)               1+2D
spherical  |x|^2                   (K,)               (K,)                 2+D
tied       none                    (D, D)             (D, D)               1+D
=========  ======================  =================  ===================  ==============

The precision is ``C C'`` with C upper triangular, as scikit-learn's ``precisions_cholesky_``.

Tied has no quadratic part because it is the same for all components: it cancels in the
responsibilities, and what it adds to the log-likelihood follows from the total scatter of the
rows, which never changes and is summed once, in the first sweep (``common`` and ``total``).

Ten more have volumes, shapes or axes in common (decomposed.py); they are seen as full, diagonal or
spherical ones, and differ in their M-steps.

**Rank.**  A component may collapse onto fewer rows than it has features, and its likelihood then
grows without bound.  Every covariance model keeps all variances at or above ``FLOOR`` (in the
frame, where a feature's spread is about 1) by raising smaller eigenvalues to it.  That is the exact
M-step of the likelihood maximised under the constraint "no variance below FLOOR", because

    argmax_S  -log|S| - tr(S^-1 M)   subject to   S >= FLOOR I

keeps the eigenvectors of M and clips its eigenvalues; so the objective still never falls.

A matrix of large eigenvalues holds none much smaller than their rounding, D u times the largest.
So a component that is far wider than the frame has that for its own floor; it counts as collapsed
at it, as the eigenvalue that was there is only rounding.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.decomposed import DECOMPOSED
from dgmm.model.diagonal import DIAGONAL
from dgmm.model.factor import Factor
from dgmm.model.factor_noise import CommonNoise, EachNoise, IsotropicNoise
from dgmm.model.full import FULL
from dgmm.model.spherical import SPHERICAL
from dgmm.model.tied import TIED

PlainCovarianceType = Literal["full", "tied", "diag", "spherical"]
"""The names of ``COVARIANCE_MODELS``."""

FactorCovarianceType = Literal["factor", "factor-tied", "ppca"]
"""The names of covariances with factors."""

_OfVariances = Literal["EII", "VII", "EEI", "VEI", "EVI", "VVI"]
_OfMatrices = Literal["EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"]
CovarianceType = Literal[PlainCovarianceType, _OfVariances, _OfMatrices, FactorCovarianceType]
"""The names of ``COVARIANCE_TYPES``."""

COVARIANCE_MODELS: Final[dict[str, CovarianceModel]] = {
    each.name: each for each in (FULL, TIED, DIAGONAL, SPHERICAL)
}
"""The four, by name."""

ALIASES: Final[dict[str, CovarianceModel]] = {
    "VII": SPHERICAL,
    "VVI": DIAGONAL,
    "EEE": TIED,
    "VVV": FULL,
}
"""What mclust calls the four."""

_MCLUST = {**{each.name: each for each in DECOMPOSED}, **ALIASES}

COVARIANCE_TYPES: Final[dict[str, CovarianceModel]] = {
    **COVARIANCE_MODELS,
    **{name: _MCLUST[name] for name in (*get_args(_OfVariances), *get_args(_OfMatrices))},
    **{each.name: Factor(each, 1) for each in (EachNoise(), CommonNoise(), IsotropicNoise())},
}
"""What ``covariance_type`` may be, by name; ``CovarianceModel.sized`` says of how many factors."""


def described(result: Mapping[str, Any]) -> str:
    """The covariance type of a candidate of a search, with how many factors it has, if any."""
    count = result.get("n_factors")
    return str(result["covariance_type"]) + ("" if count is None else f", {count} factors")
