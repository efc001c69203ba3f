"""The conjugate prior, as users ask for it."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dgmm.em.moments import DataMoments
from dgmm.em.prior_spec import (
    PriorSpec,
    covariance_of,
    is_number,
    of_numbers,
    plain,
    positive_definite,
)
from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.conjugate import Conjugate
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.prior import Prior


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
        depends on units.)  Where rows may have holes or known errors, features are not seen
        together in all of them, and the default is the diagonal matrix of the variances.
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
        """Whether the covariances of all rows, between features, must be known.

        Parameters
        ----------
        covariance_model : CovarianceModel
            Of the components.

        Returns
        -------
        bool
            If so, the first pass sums products of features.

        Examples
        --------
        >>> from dgmm import ConjugatePrior
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> prior = ConjugatePrior()
        >>> [prior.needs_covariance(COVARIANCE_MODELS[kind]) for kind in ("full", "diag")]
        [True, False]
        """
        return self.scale is None and self.covariance is None and covariance_model.correlates

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        """See that it can be a prior of such covariances.

        Parameters
        ----------
        covariance_model : CovarianceModel
            Of the components.
        n_features : int
            The number of features, D.

        Raises
        ------
        UsageError
            If it can't.

        Examples
        --------
        >>> from dgmm import ConjugatePrior
        >>> from dgmm.model.covariance import COVARIANCE_MODELS
        >>> ConjugatePrior(mean=[0.0, 0.0]).check(COVARIANCE_MODELS["full"], 2)
        """
        self._number("weight_concentration", 1.0)
        self._number("mean_precision", 0.0)
        if self.mean is not None:
            of_numbers("mean", self.mean, (n_features,))
        if (self.covariance is None) != (self.rows is None):
            raise UsageError("a ConjugatePrior wants covariance and rows together, or neither")
        if self.covariance is not None:
            if self.scale is not None or self.degrees_of_freedom is not None:
                raise UsageError(
                    "a ConjugatePrior wants either covariance and rows, or scale and "
                    "degrees_of_freedom"
                )
            self._number("rows", 0.0)
            positive_definite("covariance", self.covariance, covariance_model, n_features)
            return
        if self.degrees_of_freedom is not None:
            self._number("degrees_of_freedom", 0.0)
        if self.scale is not None:
            positive_definite("scale", self.scale, covariance_model, n_features)

    def _number(self, name: str, least: float) -> None:
        value = getattr(self, name)
        if not (is_number(value) and least <= value < np.inf):
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
        """The prior in the frame of a fit, for its rows.

        Parameters
        ----------
        moments : DataMoments
            What the first pass found of the rows.
        frame : Frame
            The frame of the fit.
        reg : array (D,)
            What is added to variances, in the frame.
        covariance_model : CovarianceModel
            Of the components.
        components : int
            The number of components, K.

        Returns
        -------
        Prior
            With all numbers that were not given.

        Examples
        --------
        >>> from dgmm import ConjugatePrior, GaussianMixture
        >>> model = GaussianMixture(prior=ConjugatePrior()).fit([[0.0], [2.0], [4.0]])
        >>> model.sufficient_statistics_.prior.rows
        5.0
        """
        n_features = len(moments.mean)
        mean = moments.mean if self.mean is None else of_numbers("mean", self.mean, (n_features,))
        if self.covariance is not None and self.rows is not None:
            rows = float(self.rows)
            target = positive_definite("covariance", self.covariance, covariance_model, n_features)
            scatter = rows * target
        else:
            freedom = self.degrees_of_freedom
            freedom = n_features + 2.0 if freedom is None else float(freedom)
            rows, over = covariance_model.mode_rows(freedom, n_features)
            scale = (
                covariance_model.single(covariance_of(moments)) / components ** (2 / n_features)
                if self.scale is None
                else positive_definite("scale", self.scale, covariance_model, n_features)
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

    def changed(self, prior: Prior, frame: Frame) -> str:
        """Which number that was given another prior has not, but for rounding.

        Parameters
        ----------
        prior : Prior
            What a fit was made with.
        frame : Frame
            The frame that it is in.

        Returns
        -------
        str
            Its name; "" if there is none.  What was not given is the data's own, whatever it is.

        Examples
        --------
        >>> from dgmm import ConjugatePrior, GaussianMixture
        >>> model = GaussianMixture(prior=ConjugatePrior()).fit([[0.0], [2.0], [4.0]])
        >>> found = model.sufficient_statistics_
        >>> ConjugatePrior(mean_precision=1.0).changed(found.prior, found.frame)
        'mean_precision'
        """
        if not isinstance(prior, Conjugate):
            return "prior"
        model, n_features = prior.covariance_model, len(frame.shift)
        self.check(model, n_features)
        scatter, name = None, "scale"
        if self.covariance is not None and self.rows is not None:
            name, rows = "covariance", float(self.rows)
            scatter = rows * positive_definite(name, self.covariance, model, n_features)
        else:
            freedom = self.degrees_of_freedom
            freedom = n_features + 2.0 if freedom is None else float(freedom)
            rows, over = model.mode_rows(freedom, n_features)
            if self.scale is not None:
                scatter = positive_definite(name, self.scale, model, n_features) / over
        given: list[tuple[str, ArrayLike, ArrayLike]] = [
            ("weight_concentration", self.weight_concentration, prior.concentration),
            ("mean_precision", self.mean_precision, prior.mean_precision),
            ("rows" if name == "covariance" else "degrees_of_freedom", rows, prior.rows),
        ]
        if self.mean is not None:
            mean = of_numbers("mean", self.mean, (n_features,))
            given += [("mean", (mean - frame.shift) / frame.scale, prior.mean)]
        if scatter is not None:
            there = model.estimate_of(scatter, (1, n_features)).rescaled(1.0 / frame.scale)
            given += [(name, there.values, prior.scatter.values)]
        for told, asked, was in given:
            if not np.allclose(asked, was, rtol=0, atol=1e-9 * np.abs(was).max()):
                return told
        return ""

    def record(self) -> dict[str, Any]:
        """What a file or a fingerprint says of it.

        Returns
        -------
        dict
            The parameters by name, as numbers, texts and lists.

        Examples
        --------
        >>> from dgmm import ConjugatePrior
        >>> ConjugatePrior().record()["mean_precision"]
        0.01
        """
        values = {name: plain(value) for name, value in asdict(self).items()}
        return {"name": self.name, **values}
