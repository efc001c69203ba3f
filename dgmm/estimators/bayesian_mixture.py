"""``BayesianGaussianMixture``: the scikit-learn face of variational Bayes.

It holds a ``GaussianMixture`` whose prior is variational (``dgmm.model.variational``), and shows of
it what scikit-learn's class of this name shows.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Self

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from dgmm import engine
from dgmm.em.fit_context import Precision
from dgmm.em.init import InitParams
from dgmm.em.progress import Progress
from dgmm.em.strategies import StrategyName
from dgmm.em.variational_prior import VariationalPrior
from dgmm.engine.plan import Plan
from dgmm.errors import UsageError
from dgmm.estimators import gaussian_mixture
from dgmm.estimators.callbacks import Callback
from dgmm.estimators.exports import Exports
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.inference import Inference
from dgmm.estimators.parameters import prior_of
from dgmm.estimators.posterior_parameters import PosteriorParameters
from dgmm.estimators.predictor import Predictor
from dgmm.estimators.rows import Data
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.kernels.observation import Missing
from dgmm.model.concentration import ConcentrationType
from dgmm.model.covariance import PlainCovarianceType

if TYPE_CHECKING:
    from distributed import Client

PRIOR: Final = (
    *("weight_concentration_prior_type", "weight_concentration_prior", "mean_precision_prior"),
    *("mean_prior", "degrees_of_freedom_prior", "covariance_prior"),
)
"""The parameters that say what the prior is."""


class BayesianGaussianMixture(
    PosteriorParameters, Predictor, Inference, Exports, DensityMixin, BaseEstimator
):
    """A variational Bayesian mixture of normal distributions, fitted to data of any size.

    Parameters and attributes are those of ``sklearn.mixture.BayesianGaussianMixture``, with the
    same meaning where nothing else is said here, and those of ``GaussianMixture`` that say how and
    where to fit.  Components that the rows don't need lose them: ``n_components`` is the most there
    may be.  With ``strategy="em"`` it equals scikit-learn's, from the same start, iteration by
    iteration (with ``reg_covar=0`` and ``precision="float64"``).

    Parameters
    ----------
    n_components : int, default=1
        K, the most components there may be.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        As in ``GaussianMixture``.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
        How weights are made, by default "dirichlet_process" (stick-breaking).
    weight_concentration_prior : float, optional
        The concentration of the weights; by default 1 / K.  With less, fewer components are used.
    mean_precision_prior : float, optional
        How many rows the prior of a mean counts as; by default 1.
    mean_prior : array-like (D,), optional
        Where it is; by default the mean of the data.
    degrees_of_freedom_prior : float, optional
        How many rows the prior of a covariance counts as, more than D - 1; by default D.
    covariance_prior : array-like, optional
        That times the prior's mean covariance, roughly: (D, D) for "full" and "tied", (D,) for
        "diag", a number for "spherical"; by default the covariance of the data (with N - 1), the
        variances of the features, or the mean of these.  Where rows may have holes, the default is
        of the variances alone.
    strategy : {"auto", "em"}, default="auto"
        "em": the iterations of scikit-learn.  "auto": accelerated by SQUAREM, from where a sample
        leads, with the components in the order of their weights there.
    tol : float, optional
        Stop when an iteration changes the bound, a sum over the rows, by less than this.  By
        default 1e-3 for "em"; "auto" stops by ``resolution``.
    resolution : float, default=0.1
        "auto" stops when the bound could grow, as estimated, by less than a tenth of this
        fraction of p / (2 N): components lose their last rows slowly.
    reg_covar : float, optional
        As in ``GaussianMixture``.
    missing : {"raise", "marginalize", "drop"}, default="raise"
        What NaN means, as in ``GaussianMixture``; then the default priors are of what was observed,
        without covariances between features.
    max_iter : int, default=100
        The most iterations.
    max_seconds : float, optional
        As in ``GaussianMixture``.
    n_init : int, default=1
        How many starts to try; the one with the best bound is kept, on a sample with "auto". With
        1, and no start named, eight compete all the same: where rows are many, on a part of it.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, default="auto"
        How a start is found, on a uniform sample of the rows.
    random_state : int, RandomState or None, default=None
        The seed of all random choices, or where to draw them from.
    warm_start : bool, default=False
        Whether the next fit begins at the result of this one.
    verbose, callbacks, n_jobs, memory, cache, precision, checkpoint, resume
        As in ``GaussianMixture``.

    Attributes
    ----------
    weights_ : array (K,)
        The means of the components' weights.
    means_ : array (K, D)
        The means of the components' means.
    covariances_, precisions_, precisions_cholesky_ : array
        The inverse of each precision's mean, and so on, in the shapes of ``GaussianMixture``.
    weight_concentration_ : array (K,) or tuple of two
        The concentrations of the posterior, or (a, b) of the beta densities of the sticks.
    mean_precision_, degrees_of_freedom_ : array (K,)
        beta and nu of the posterior; nu is one number for "tied".
    weight_concentration_prior_, mean_precision_prior_, degrees_of_freedom_prior_ : float
        What the prior was.
    mean_prior_, covariance_prior_ : array
        What the prior was.
    lower_bound_ : float
        The bound, as scikit-learn has it: of all rows together, without constants.  It is that of
        the fitted posterior, and so not below what scikit-learn gives for it, which is from before
        the last look at the rows.
    lower_bounds_ : list of float
        The same at the beginning of each iteration.
    converged_, n_iter_, n_features_in_, feature_names_in_, plan_, fit_info_, mixture_
        As in ``GaussianMixture``; the weights of ``mixture_`` are the shares of the rows, and
        ``fit_info_["unused"]`` names the components with less than half a row, which predictions
        leave out.
    model_ : GaussianMixture
        The fitted mixture; it has all that is needed to continue.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import BayesianGaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(400, 2))
    >>> rows[200:] += 9
    >>> model = BayesianGaussianMixture(6, random_state=0, max_iter=1000).fit(rows)
    >>> int((model.weights_ > 0.01).sum())
    2
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: PlainCovarianceType = "full",
        weight_concentration_prior_type: ConcentrationType = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        strategy: StrategyName = "auto",
        tol: float | None = None,
        resolution: float = 0.1,
        reg_covar: float | None = None,
        missing: Missing = "raise",
        max_iter: int = 100,
        max_seconds: float | None = None,
        n_init: int = 1,
        init_params: InitParams = "auto",
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        callbacks: Sequence[Callback] | None = None,
        n_jobs: int | None = None,
        memory: str | int | None = None,
        cache: str | int = "auto",
        precision: Precision = "auto",
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = True,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.strategy = strategy
        self.tol = tol
        self.resolution = resolution
        self.reg_covar = reg_covar
        self.missing = missing
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.callbacks = callbacks
        self.n_jobs = n_jobs
        self.memory = memory
        self.cache = cache
        self.precision = precision
        self.checkpoint = checkpoint
        self.resume = resume

    def fit(
        self,
        X: Data,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Self:
        """Fit to rows.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            What is known of the errors of each row: variances, or covariances.
        labels : None
            A variational fit has no component that a label could name: others are refused.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used; both are a ``ValueError``.
        PlanError
            If the fit would not fit in memory.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> BayesianGaussianMixture(2, random_state=0).fit(rows).means_.shape
        (2, 2)
        """
        model = self._model()
        before = vars(model).get("mixture_")
        try:
            model.fit(X, sample_weight=sample_weight, noise=noise, labels=labels)
        finally:  # at Ctrl-C it has the best mixture so far
            if vars(model).get("mixture_") is not before:
                self.model_ = model
        return self

    def fit_passes(
        self,
        X: Data,
        sample_weight: Data = None,
        client: "Client | None" = None,
        meter: engine.Meter | None = None,
        noise: Data = None,
    ) -> Generator[Progress, None, None]:
        """Fit, a pass at a time, as ``GaussianMixture.fit_passes`` does.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.
        meter : Meter, optional
            Counts the rows that are read, also within a pass.

        Yields
        ------
        Progress
            The state of the fit after each pass over the data.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used; both are a ``ValueError``.
        PlanError
            If the fit would not fit in memory.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = BayesianGaussianMixture(2, random_state=0)
        >>> passes = [each.passes for each in model.fit_passes(rows)]
        >>> model.converged_
        True
        """
        model = self._model()
        with closing(model.fit_passes(X, sample_weight, client, meter, noise)) as passes:
            yield from passes
        self.model_ = model

    def partial_fit(
        self, X: Data, y: None = None, sample_weight: Data = None, noise: Data = None
    ) -> Self:
        """Learn from more rows, in one pass over them, as ``GaussianMixture.partial_fit`` does.

        It is memoized variational Bayes (Hughes and Sudderth, 2013): the bound for all rows seen
        does not fall.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        DataError
            If the rows can't be used; the model is then as it was before.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = BayesianGaussianMixture(2, random_state=0).fit(rows)
        >>> model.partial_fit(rows[:5]).model_.sufficient_statistics_.rows
        205
        """
        if not hasattr(self, "model_"):
            return self.fit(X, sample_weight=sample_weight, noise=noise)
        self._same_prior().partial_fit(X, sample_weight=sample_weight, noise=noise)
        return self

    def update(self, statistics: SufficientStatistics) -> Self:
        """Take the M-step from ``statistics``, as ``GaussianMixture.update`` does.

        Parameters
        ----------
        statistics : SufficientStatistics
            Statistics under this model, or under one that descends from the same fit.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        UsageError
            If the statistics do not descend from this model's fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = BayesianGaussianMixture(2, random_state=0).fit(rows)
        >>> model.update(model.summarize(rows)).model_.sufficient_statistics_.rows
        200
        """
        self._same_prior().update(statistics)
        return self

    def summarize(
        self, X: Data, sample_weight: Data = None, noise: Data = None
    ) -> SufficientStatistics:
        """Compute the statistics of ``X`` under the posterior, in one pass; nothing is fitted.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.

        Returns
        -------
        SufficientStatistics
            The statistics of these rows; ``+`` adds up those of several sites.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> BayesianGaussianMixture(2, random_state=0).fit(rows).summarize(rows[:9]).rows
        9
        """
        return self._fitted.summarize(X, sample_weight, noise=noise)

    def plan(
        self,
        X: Data,
        sample_weight: Data = None,
        client: "Client | None" = None,
        noise: Data = None,
    ) -> Plan:
        """Work out what ``fit`` would need for ``X``, without fitting.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.

        Returns
        -------
        Plan
            Blocks, tasks, bytes read and memory.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import BayesianGaussianMixture
        >>> BayesianGaussianMixture(2).plan(np.eye(6)).rows
        6
        """
        return self._model().plan(X, sample_weight, client, noise)

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the fitted model to a path or URL; ``dgmm.load`` reads it.

        Parameters
        ----------
        path : str or PathLike
            A path or URL.
        overwrite : bool, default=False
            Whether to replace a file that is there.

        Raises
        ------
        DataError
            If a file is there already, unless ``overwrite``; or if it can't be written.

        Examples
        --------
        >>> import numpy as np, tempfile, dgmm
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = dgmm.BayesianGaussianMixture(2, random_state=0).fit(rows)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     model.save(f"{place}/model.dgmm")
        ...     again = dgmm.load(f"{place}/model.dgmm")
        >>> bool((again.means_ == model.means_).all())
        True
        """
        self._fitted.save(path, overwrite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags

    @property
    def _fitted(self) -> GaussianMixture:
        check_is_fitted(self)
        self.model_.set_params(**self._split()[0])
        return self.model_

    def _split(self) -> tuple[dict[str, Any], VariationalPrior]:
        """The parameters of the mixture, and the prior that the others ask for."""
        params = self.get_params(deep=False)
        return params, VariationalPrior(**{name: params.pop(name) for name in PRIOR})

    def _same_prior(self) -> GaussianMixture:
        """The fitted model; raises ``UsageError`` if another prior is asked for now."""
        model = self._fitted
        then, now = prior_of(model).record(), self._split()[1].record()
        if changed := [name for name in PRIOR if then[name] != now[name]]:
            name = changed[0]
            raise UsageError(
                f"{name} was {then[name]!r:.40} in the fit and is {now[name]!r:.40} now; rows can "
                "only be added under the same prior"
            )
        return model

    def _model(self) -> GaussianMixture:
        """A mixture to be fitted, by the same parameters; it goes on from the last, if asked to."""
        params, prior = self._split()
        model = GaussianMixture(**params, prior=prior)
        if self.warm_start and hasattr(self, "model_"):
            model.__dict__ = {**vars(self.model_), **vars(model)}
        return model


def load(path: str | PathLike[str]) -> GaussianMixture | BayesianGaussianMixture:
    """Load a fitted model from a file.

    Parameters
    ----------
    path : str or PathLike
        A path or URL.

    Returns
    -------
    GaussianMixture or BayesianGaussianMixture
        The model as it was saved; a variational posterior is a ``BayesianGaussianMixture``,
        whichever of the two was saved.

    Raises
    ------
    ModelFileError
        If there is no model file, or it can't be used.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> rows[100:] += 9
    >>> model = GaussianMixture(2, random_state=0).fit(rows)
    >>> import dgmm, tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     model.save(f"{place}/model.dgmm")
    ...     dgmm.load(f"{place}/model.dgmm").n_components
    2
    """
    model = gaussian_mixture.load(path)
    prior = prior_of(model)
    posterior = hasattr(model, "sufficient_statistics_")  # which is shown by them
    if not isinstance(prior, VariationalPrior) or not posterior:
        return model
    bayesian = BayesianGaussianMixture()
    given = model.get_params(deep=False)
    params = {name: given[name] for name in bayesian.get_params(deep=False) if name in given}
    bayesian.set_params(**params, **{name: getattr(prior, name) for name in PRIOR})
    bayesian.model_ = model
    return bayesian
