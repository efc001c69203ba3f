"""Factor analysers: each component is a few factors, and noise of its own in each feature.

A component's rows are x = mu + L z + e, with q standard normal factors z and independent noise e of
variances psi: so its covariance is L L' + diag(psi), and its parameters grow with D q, not with D^2
(Ghahramani and Hinton, The EM algorithm for mixtures of factor analyzers, 1996; with one psi for
all features, Tipping and Bishop, Mixtures of probabilistic principal component analysers, 1999).

**No matrix is D x D.**  L is told apart from its rotations by L' diag(psi)^-1 L being diagonal,
with s_1 >= s_2 >= ... on it.  Then, with B = diag(psi)^-1 L,

    (L L' + diag(psi))^-1 = diag(psi)^-1 - B diag(1 / (1 + s)) B'            (Woodbury)
    log |L L' + diag(psi)| = sum_j log psi_j + sum_f log(1 + s_f)            (determinant lemma)
    E[z | x] = diag(1 / (1 + s)) B' (x - mu) = G' (x - mu)

**The M-step.**  Given how rows are shared out, what counts is the covariance S of a component's
rows about their mean.  Of that, sums hold the diagonal and S G, along the loadings they were taken
with: (x - mu) (G' (x - mu))', D q numbers.  That is what one step of EM for one factor analyser
needs (Rubin and Thayer, EM algorithms for ML factor analysis, 1982), with factors of any
covariance E, which L takes in afterwards: where rows tell their factors well, EM hardly changes how
long L is otherwise (Liu, Rubin and Wu, Parameter expansion to accelerate EM: the PX-EM algorithm,
1998):

    E = G' S G + diag(1 / (1 + s))
    L <- S G E^-1/2
    psi <- diag(S - L L')

It raises the expected log-likelihood, so the whole is a generalised EM, whose objective never
falls.  What ``reg_covar`` adds to S takes part as if it were rows.

**Coordinates** have the identity for information of such a step: psi^-1/2 times a change of L, but
for 1 / sqrt(1 + l_f l_g / 2) of that in what is along L, with l^2 = s.

**Noise variances** are at or above what ``reg_covar`` adds, and above rounding: they may go to 0
while the covariance stays sound (a Heywood case), and EM creeps there.  That is the exact M-step
under the constraint, as psi is a maximum in each feature by itself.

**Free parameters** are D q - q (q - 1) / 2 of L, which may turn, and those of psi; but no more than
any covariances have: with many factors for the features, several L and psi make the same (Drton,
Sturmfels and Sullivant, Algebraic factor analysis: tetrads, pentads and beyond, 2007, theorem 2).
"""

from dataclasses import dataclass

import numpy as np

from dgmm.errors import UsageError
from dgmm.model.arrays import EXACT, Array
from dgmm.model.covariance_estimate import Estimate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.factor_covariances import FactorCovariances
from dgmm.model.factor_estimate import FactorEstimate
from dgmm.model.factor_noise import NoiseVariances
from dgmm.model.features import Projections
from dgmm.model.loadings import canonical, packed


@dataclass(frozen=True)
class Factor(CovarianceModel):
    """L L' + diag(psi), with so many ``n_factors`` for columns of L.

    Covariances are arrays (K, D, 1 + q): psi, and L beside it.
    """

    noise: NoiseVariances
    n_factors: int

    correlates = True
    has_priors = False
    along_loadings = True

    @property
    def couples(self) -> bool:  # type: ignore[override]
        return self.noise.common(1) > 0

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.noise.name

    def sized(self, n_factors: int | None) -> "Factor":
        if n_factors is None:
            raise UsageError(f"covariance_type={self.name!r} wants n_factors: how many there are")
        whole = isinstance(n_factors, int | np.integer) and not isinstance(n_factors, bool)
        if not whole or n_factors < 1:
            raise UsageError(f"n_factors must be an integer of at least 1, not {n_factors!r}")
        return Factor(self.noise, int(n_factors))

    @property
    def factor_count(self) -> int:
        return self.n_factors

    def check_features(self, n_features: int) -> None:
        if self.n_factors >= n_features:
            raise UsageError(
                f"n_factors is {self.n_factors}, and must be below the number of features, "
                f'{n_features}: covariance_type="full" has no fewer parameters'
            )

    @property
    def features(self) -> Projections:  # type: ignore[override]
        return Projections(self.n_factors)

    @property
    def centred_features(self) -> Projections:  # type: ignore[override]
        return Projections(self.n_factors)

    def own_parameters(self, n_features: int) -> int:
        count = min(self.n_factors, n_features)  # more say no more of some features of many
        free = n_features * count - count * (count - 1) // 2
        return min(free + self.noise.own(n_features), _of_any(n_features))

    def common_parameters(self, n_features: int) -> int:
        return self.noise.common(n_features)

    def free_parameters(self, components: int, n_features: int) -> int:
        count = super().free_parameters(components, n_features)
        return min(count, components * _of_any(n_features))

    def shape(self, components: int, n_features: int) -> tuple[int, ...]:
        return components, n_features, 1 + self.n_factors

    def scales(self, each: Array, together: float) -> Array:
        return self.noise.scales(each, together)

    def estimate(
        self, counts: Array, means: Array, offsets: Array, second: Array, total: Array | None
    ) -> Estimate:
        start = self.of_variances(np.ones(means.shape[1]), len(means))
        return start.estimated(counts, means, offsets, second, total)

    def estimate_of(self, values: Array, shape: tuple[int, int]) -> "FactorEstimate":
        return FactorEstimate(self, values)

    def single(self, moments: Array) -> Array:
        variances = moments if moments.ndim == 1 else np.diagonal(moments)
        return packed(variances[None], self._none((1, len(variances))))

    def mode_rows(self, degrees_of_freedom: float, n_features: int) -> tuple[float, float]:
        return degrees_of_freedom + 2, 1.0

    def pooled(self, counts: Array, covariances: Array) -> Array:
        return covariances

    def freedom(self, counts: Array) -> Array:
        return counts - 1

    def of_precisions(self, precisions: Array, shape: tuple[int, int]) -> "FactorCovariances":
        if not np.all(precisions[:, :, 0] > 0):
            raise np.linalg.LinAlgError("a precision of noise is not positive")
        psi = 1 / precisions[:, :, 0]
        return self._given(psi, precisions[:, :, 1:] * psi[:, :, None])

    def of_covariances(self, covariances: Array, shape: tuple[int, int]) -> "FactorCovariances":
        if not np.all(covariances[:, :, 0] > 0):
            raise np.linalg.LinAlgError("a noise variance is not positive")
        return self._given(covariances[:, :, 0], covariances[:, :, 1:])

    def of_variances(self, variances: Array, components: int) -> "FactorCovariances":
        psi = np.tile(variances, (components, 1))
        psi = self.noise.pooled(psi, np.ones(components))
        return self.made(psi, self._none(psi.shape))

    def of_factors(
        self, covariances: Array, precisions_cholesky: Array, shape: tuple[int, int]
    ) -> "FactorCovariances":
        return FactorCovariances(self, covariances, precisions_cholesky)

    def made(self, psi: Array, loadings: Array) -> "FactorCovariances":
        """The covariances of noise ``psi`` (K, D) and ``loadings`` (K, D, q), rotated as above."""
        return self._of(psi, canonical(psi, loadings))

    def _given(self, psi: Array, loadings: Array) -> "FactorCovariances":
        """The same, to the last bit where the loadings are rotated so already, but for signs.

        Raises ``UsageError`` if noise variances differ that are one here.
        """
        one = self.noise.pooled(psi, np.ones(len(psi)))
        if not (np.abs(psi - one) <= EXACT * one).all():
            raise UsageError(
                f"noise variances of covariance_type={self.name!r} are the same {self.noise.same}, "
                "and those given are not"
            )
        turned, root = canonical(psi, loadings), np.sqrt(psi)[:, :, None]
        along = np.sum((turned / root) * (loadings / root), axis=1, keepdims=True)
        off = (np.where(along < 0, -turned, turned) - loadings) / root
        size = np.abs(loadings / root).max(axis=1, keepdims=True)  # of each factor by itself
        near = np.abs(off) <= EXACT * size
        return self._of(psi, loadings if near.all() else turned)

    def _of(self, psi: Array, turned: Array) -> "FactorCovariances":
        """The same of loadings that are rotated so."""
        factors = packed(1 / np.sqrt(psi), turned / psi[:, :, None])
        return FactorCovariances(self, packed(psi, turned), factors)

    def _none(self, shape: tuple[int, ...]) -> Array:
        """No loadings."""
        return np.zeros((*shape, self.n_factors))


def _of_any(n_features: int) -> int:
    """How many free parameters any covariance has."""
    return n_features * (n_features + 1) // 2
