"""What users say of priors: values that become a ``Prior`` when the first pass is done.

A prior that is made of the data is made once, of the moments of all rows: model files and
statistics hold what it became, so that rows that are added later meet the same prior.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from dgmm.em.first_pass import DataMoments
from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.choice import choose
from dgmm.model.concentration import CONCENTRATIONS, ConcentrationType
from dgmm.model.conjugate import Conjugate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Frame
from dgmm.model.prior import Prior, Regularised
from dgmm.model.variational import Variational


class PriorSpec(ABC):
    """What a fit is asked to hold beside the likelihood.

    Attributes
    ----------
    name : str
        What files and fingerprints call it.
    kind : str
        The name of the ``Prior`` that it becomes.
    is_density : bool
        Whether it is a density of the parameters, so that EM's step is a gradient of the objective.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    is_density: ClassVar[bool] = True

    def needs_covariance(self, covariance_model: CovarianceModel) -> bool:
        """Whether the covariances of all rows, between features, must be known."""
        return False

    @abstractmethod
    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        """Raise ``UsageError`` unless it can be a prior of such covariances."""

    def unit(self, weight: float) -> float:
        """What ``tol`` is times, as objectives are means over rows of this ``weight``."""
        return 1.0

    @abstractmethod
    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        """The prior in the ``frame``, for rows of these ``moments``; ``reg`` is (D,), there."""

    def record(self) -> dict[str, Any]:
        """What a file or a fingerprint says of it: numbers, texts and lists."""
        return {"name": self.name}

    @staticmethod
    def parse(record: dict[str, Any]) -> "PriorSpec":
        """What ``record`` was made of; raises ``ValueError`` or ``TypeError`` if of nothing."""
        own = dict(record)
        name = own.pop("name", None)
        if name not in PRIORS:
            raise ValueError(f"there is no prior {name!r:.40}")
        made: PriorSpec = PRIORS[name](**own)
        return made


@dataclass(frozen=True)
class NoPrior(PriorSpec):
    """Maximum likelihood, regularised."""

    name: ClassVar[str] = "none"
    kind: ClassVar[str] = Regularised.name

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        pass

    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        return Regularised(reg)


NO_PRIOR: Final = NoPrior()


@dataclass(frozen=True, eq=False)
class ConjugatePrior(PriorSpec):
    """A conjugate prior for ``GaussianMixture(prior=...)``: the fit is the most probable mixture.

    Covariances have an inverse Wishart density, means given these a normal one, and weights a
    Dirichlet one.  Beside many rows it changes little; a component of few rows can't collapse.
    What is not given is made of the data as Fraley and Raftery [1]_ do, from the mean and the
    covariance of all rows (with N - 1), and does not depend on units.

    Parameters
    ----------
    weight_concentration : float, default=1
        alpha >= 1: each component has alpha - 1 rows more.
    mean_precision : float, default=0.01
        kappa >= 0: each mean is drawn to ``mean`` as by so many rows there.
    mean : array-like (D,), optional
        Where means are drawn to; by default the mean of the data.
    degrees_of_freedom : float, optional
        nu, of the inverse Wishart density; by default D + 2.
    scale : array-like, optional
        Lambda, its scale: (D, D) for "full" and "tied" covariances, (D,) for "diag", a number for
        "spherical".  By default the covariance of the data over K^(2/D), or their variances, or the
        mean of these.  (mclust takes that mean for diagonal covariances, too, so that its answer
        depends on units.)
    covariance, rows : array-like, float, optional
        Instead of ``scale`` and ``degrees_of_freedom``, both: a covariance that each component's is
        drawn to, in the same shape, and how many rows it counts as.

    See Also
    --------
    ConjugatePrior.shrinkage : Draws covariances to a given one, and nothing else.

    Notes
    -----
    With n rows of mean xbar and scatter W about it, a full covariance is
    (Lambda + W + kappa n / (n + kappa) (xbar - m)(xbar - m)') / (n + nu + D + 2), without mean
    prior (kappa = 0) over n + nu + D + 1.  A diagonal or spherical one has an inverse gamma density
    of shape nu / 2 and scale Lambda / 2 for each variance.  ``dgmm.model.conjugate`` has the rest.
    What is added to the objective is the logarithm of the density, but for constants, over N.

    References
    ----------
    .. [1] C. Fraley and A. E. Raftery, "Bayesian regularization for normal mixture estimation and
       model-based clustering", Journal of Classification 24, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import ConjugatePrior, GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(20, 5))
    >>> model = GaussianMixture(4, prior=ConjugatePrior(), random_state=0).fit(rows)
    >>> model.fit_info_["singular"]
    []
    """

    weight_concentration: float = 1.0
    mean_precision: float = 0.01
    mean: ArrayLike | None = None
    degrees_of_freedom: float | None = None
    scale: ArrayLike | None = None
    covariance: ArrayLike | None = None
    rows: float | None = None

    name: ClassVar[str] = "conjugate"
    kind: ClassVar[str] = Conjugate.name

    @classmethod
    def shrinkage(cls, covariance: ArrayLike, rows: float) -> "ConjugatePrior":
        """A prior that draws covariances to a given one, as so many rows of it, and nothing else.

        Parameters
        ----------
        covariance : array-like
            (D, D) for "full" and "tied" covariances, (D,) for "diag", a number for "spherical".
        rows : float
            How many rows it counts as; with 0 the fit is that of maximum likelihood.

        Returns
        -------
        ConjugatePrior
            With that ``covariance`` and ``rows``, and ``mean_precision`` 0.

        Examples
        --------
        >>> from dgmm import ConjugatePrior, GaussianMixture
        >>> prior = ConjugatePrior.shrinkage([[2.0]], rows=2)
        >>> GaussianMixture(prior=prior, reg_covar=0).fit([[1.0], [3.0]]).covariances_
        array([[[1.5]]])
        """
        return cls(mean_precision=0.0, covariance=covariance, rows=rows)

    def needs_covariance(self, covariance_model: CovarianceModel) -> bool:
        return self.scale is None and self.covariance is None and covariance_model.correlates

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        self._number("weight_concentration", 1.0)
        self._number("mean_precision", 0.0)
        if self.mean is not None:
            _array("mean", self.mean, (n_features,))
        if (self.covariance is None) != (self.rows is None):
            raise UsageError("a ConjugatePrior wants covariance and rows together, or neither")
        if self.covariance is not None:
            if self.scale is not None or self.degrees_of_freedom is not None:
                raise UsageError(
                    "a ConjugatePrior wants either covariance and rows, or scale and "
                    "degrees_of_freedom"
                )
            self._number("rows", 0.0)
            _positive("covariance", self.covariance, covariance_model, n_features)
            return
        if self.degrees_of_freedom is not None:
            self._number("degrees_of_freedom", 0.0)
        if self.scale is not None:
            _positive("scale", self.scale, covariance_model, n_features)

    def _number(self, name: str, least: float) -> None:
        value = getattr(self, name)
        if not (_is_number(value) and least <= value < np.inf):
            raise UsageError(
                f"{name} of a ConjugatePrior must be a number of at least {least:g}, not {value!r}"
            )

    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        n_features = len(moments.mean)
        mean = moments.mean if self.mean is None else _array("mean", self.mean, (n_features,))
        if self.covariance is not None and self.rows is not None:
            rows = float(self.rows)
            target = _positive("covariance", self.covariance, covariance_model, n_features)
            scatter = rows * target
        else:
            freedom = self.degrees_of_freedom
            freedom = n_features + 2.0 if freedom is None else float(freedom)
            rows, over = covariance_model.mode_rows(freedom, n_features)
            scale = (
                covariance_model.single(covariance_of(moments)) / components ** (2 / n_features)
                if self.scale is None
                else _positive("scale", self.scale, covariance_model, n_features)
            )
            scatter = scale / over
        estimate = covariance_model.estimate_of(scatter, (1, n_features))
        return Conjugate(
            reg,
            covariance_model,
            moments.weight,
            float(self.weight_concentration),
            (mean - frame.shift) / frame.scale,
            float(self.mean_precision),
            estimate.rescaled(1.0 / frame.scale),
            rows,
            frame.log_volume,
        )

    def record(self) -> dict[str, Any]:
        plain = {name: _plain(value) for name, value in asdict(self).items()}
        return {"name": self.name, **plain}


@dataclass(frozen=True, eq=False)
class VariationalPrior(PriorSpec):
    """What ``BayesianGaussianMixture`` holds beside the likelihood; its parameters, as there."""

    weight_concentration_prior_type: ConcentrationType = "dirichlet_process"
    weight_concentration_prior: float | None = None
    mean_precision_prior: float | None = None
    mean_prior: ArrayLike | None = None
    degrees_of_freedom_prior: float | None = None
    covariance_prior: ArrayLike | None = None

    name: ClassVar[str] = "variational"
    kind: ClassVar[str] = Variational.name
    is_density: ClassVar[bool] = False

    def unit(self, weight: float) -> float:
        return 1.0 / weight

    def needs_covariance(self, covariance_model: CovarianceModel) -> bool:
        return self.covariance_prior is None and covariance_model.correlates

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        choose(
            "weight_concentration_prior_type", self.weight_concentration_prior_type, CONCENTRATIONS
        )
        for name in ("weight_concentration_prior", "mean_precision_prior"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < np.inf):
                raise UsageError(f"{name} must be a number above 0, not {value!r}")
        freedom = self.degrees_of_freedom_prior
        if freedom is not None and not (_is_number(freedom) and n_features - 1 < freedom < np.inf):
            told = f"{freedom:.3f}" if _is_number(freedom) else repr(freedom)
            raise UsageError(
                "The parameter 'degrees_of_freedom_prior' should be greater than "
                f"{n_features - 1}, but got {told}."
            )
        if self.mean_prior is not None:
            _array("mean_prior", self.mean_prior, (n_features,))
        if self.covariance_prior is not None:
            _positive("covariance_prior", self.covariance_prior, covariance_model, n_features)

    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        n_features = len(moments.mean)
        value, freedom = self.weight_concentration_prior, self.degrees_of_freedom_prior
        precision, mean = self.mean_precision_prior, self.mean_prior
        scatter = (
            covariance_model.single(covariance_of(moments))
            if self.covariance_prior is None
            else _positive("covariance_prior", self.covariance_prior, covariance_model, n_features)
        )
        centre = moments.mean if mean is None else _array("mean_prior", mean, (n_features,))
        kind = CONCENTRATIONS[self.weight_concentration_prior_type]
        return Variational(
            reg,
            covariance_model,
            moments.weight,
            kind(1.0 / components if value is None else float(value)),
            (centre - frame.shift) / frame.scale,
            1.0 if precision is None else float(precision),
            float(n_features) if freedom is None else float(freedom),
            covariance_model.estimate_of(scatter, (1, n_features)).rescaled(1.0 / frame.scale),
        )

    def record(self) -> dict[str, Any]:
        plain = {name: _plain(value) for name, value in asdict(self).items()}
        return {"name": self.name, **plain}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if value is None or isinstance(value, str):
        return value
    return np.asarray(value, dtype=np.float64).tolist()


def covariance_of(moments: DataMoments) -> Array:
    """The covariance (D, D) of all rows, with N - 1, or the variances (D,) if that is not known.

    A feature without variance has that of ``reg_covar``'s unit, so that a prior made of it holds
    up.
    """
    found = moments.scatter / moments.weight if moments.scatter.ndim == 2 else moments.variance
    found = found * (moments.weight / (moments.weight - 1) if moments.weight > 1 else 1.0)
    variances = np.diagonal(found) if found.ndim == 2 else found
    flat = np.where(variances > 0, 0.0, 1e-6)
    made: Array = found + (np.diag(flat) if found.ndim == 2 else flat)
    return made


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A parameter as float64 of the right shape."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} of a prior must be numbers: {error}") from error
    if array.shape != shape:
        raise UsageError(f"{name} of a prior must have shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{name} of a prior holds NaN or infinity")
    return array


def _positive(
    name: str, value: ArrayLike, covariance_model: CovarianceModel, n_features: int
) -> Array:
    """One covariance in ``shape(1, D)``, positive definite, from that in its own shape."""
    shape = covariance_model.shape(1, n_features)
    own = shape if covariance_model.sharing(2) > 1 else shape[1:]
    array = _array(name, value, own).reshape(shape)
    try:
        covariance_model.of_covariances(array, (1, n_features))
    except np.linalg.LinAlgError as error:
        raise UsageError(f"{name} of a prior must be positive definite: {error}") from error
    return array


PriorName = Literal["none", "conjugate", "variational"]
"""The names of ``PRIORS``."""

PRIORS: Final[dict[str, type[NoPrior] | type[ConjugatePrior] | type[VariationalPrior]]] = {
    each.name: each for each in (NoPrior, ConjugatePrior, VariationalPrior)
}
"""What ``prior`` may be, by name."""
