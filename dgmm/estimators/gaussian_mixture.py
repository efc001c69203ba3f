"""``GaussianMixture``: the scikit-learn face."""

import time
from collections.abc import Sequence
from contextlib import closing
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from dgmm import engine
from dgmm.em.fit_context import Precision
from dgmm.em.init import InitParams
from dgmm.em.prior_spec import PriorSpec
from dgmm.em.priors import PriorName
from dgmm.em.progress import Progress
from dgmm.em.starts import Effort
from dgmm.em.strategies import StrategyName
from dgmm.estimators import saved
from dgmm.estimators.callbacks import Callback
from dgmm.estimators.exchange import Exchange
from dgmm.estimators.exports import Exports
from dgmm.estimators.fits import Fits, fit_session, session_of
from dgmm.estimators.fitted_parameters import FittedParameters
from dgmm.estimators.inference import Inference
from dgmm.estimators.partial_fit import PartialFit
from dgmm.estimators.record import become, fitted, warn_of
from dgmm.estimators.rows import Data
from dgmm.estimators.session import Session, fitting
from dgmm.estimators.sparse import takes_sparse
from dgmm.kernels.observation import Complete, Missing
from dgmm.model.covariance import CovarianceType
from dgmm.model.tails import Tails

if TYPE_CHECKING:
    from distributed import Client


class GaussianMixture(
    FittedParameters,
    Fits,
    PartialFit,
    Inference,
    Exchange,
    Exports,
    DensityMixin,
    BaseEstimator,
):
    """A mixture of normal distributions, fitted by EM to data of any size.

    Parameters and attributes are those of ``sklearn.mixture.GaussianMixture``, with the same
    meaning where nothing else is said here.  A fit that fails leaves the model as it was.  A fit
    that Ctrl-C interrupts leaves the best mixture so far, if there is one, and raises
    ``KeyboardInterrupt``.  Names such as ``dgmm.em.starts`` below are modules, whose own text, in
    the sources, says how it is done.

    Parameters
    ----------
    n_components : int, default=1
        K, the number of components.
    covariance_type : str, default="full"
        "full": any covariance for each component.  "tied": one covariance for all.  "diag":
        uncorrelated features.  "spherical": also the same variance for all features.  Or one of
        mclust's fourteen (``dgmm.model.decomposed``): EII, VII, EEI, VEI, EVI, VVI, EEE, VEE, EVE,
        VVE, EEV, VEV, EVV, VVV.  The letters say of volumes, shapes and axes whether they are equal
        (E) for all components or vary (V), or that there are none (I).  VII is "spherical", VVI
        "diag", EEE "tied" and VVV "full".  For many features, "factor": L L' + diag(psi) with
        ``n_factors`` columns of L, the same with one psi for all components, "factor-tied", or for
        all features of a component, "ppca" (``dgmm.model.factor``; Ghahramani and Hinton, 1996).
    n_factors : int, optional
        q, how many factors each component has, below D; for these three alone.
    strategy : {"auto", "em"}, default="auto"
        "em" is textbook EM.  "auto" reaches the same kind of optimum in a few passes: it finds a
        start on a sample, improves it on larger samples, and then takes quasi-Newton steps over all
        rows (``dgmm.em.strategies``).  With given starting values it begins at these.
    tol : float, optional
        Stop when an iteration changes the objective by less than this.  By default it is 1e-3 for
        "em", and "auto" stops by ``resolution`` instead.
    resolution : float, default=0.1
        "auto" stops when the objective could grow, as estimated, by less than this fraction of
        p / (2 N), for p free parameters: the gain that a fit to N rows owes to chance.
    reg_covar : float, optional
        A number to add to the variances, in the data's units squared, as in scikit-learn.  The
        objective has the penalty that makes this an exact M-step (``dgmm.kernels.kernel``), so it
        never falls.  By default it is 1e-6 of each feature's variance (of the variance of most
        rows, where a few rows far away make up nearly all of it), so that units don't matter.
    prior : ConjugatePrior or {"none", "conjugate", "variational"}, optional
        What the objective holds beside the likelihood.  With a ``ConjugatePrior`` ("conjugate" is
        one with its defaults) the fit is the most probable mixture (MAP), and no component
        collapses; ``score``, ``bic`` and ``aic`` stay those of the likelihood.  "variational" is
        the fit of a ``BayesianGaussianMixture``, which has more to say of it.
    missing : {"raise", "marginalize", "drop"}, default="raise"
        What NaN means, or a masked value. "raise": incomplete rows are an error. "marginalize":
        the value is missing at random; a row is judged by what of it was observed, and counts as
        what each component expects of the rest (Ghahramani and Jordan, 1994), exactly, for every
        covariance type without factors. Rows without any value count for nothing. "drop":
        incomplete rows are left out, and counted.
    noise_component : bool or float, default=False
        Whether there is one more component, of constant density, for rows that are of no cluster
        (``dgmm.model.noise_component``).  A number between 0 and 1 is the weight that it begins
        with; with True several compete.  Such rows have the label -1, and the last column of
        ``predict_proba``, number K, is of noise.
    noise_volume : float, optional
        One over that density, in the data's units; by default the volume of the box between the
        least and the largest value of each feature.  The density does not end at the box: rows far
        away are noise.
    tails : {"normal", "student"}, default="normal"
        "student": components are multivariate t distributions, in which rows far away count for
        little (``dgmm.model.tails``; Peel and McLachlan, Robust mixture modelling using the t
        distribution, 2000).
    dof : None, "common" or float, default=None
        The degrees of freedom of these: estimated for each component, one for all, or given; the
        fewer, the heavier the tails.  Estimates are between 0.1 and 200, which is as good as
        normal; a component at a limit is told (``fit_info_["dof_at_limit"]``).
    max_iter : int, default=100
        The most iterations.  0 gives the start itself, and its objective.
    max_seconds : float, optional
        After so many seconds from the call of ``fit``, end with the best mixture so far as soon as
        the pass under way is done.  At least one mixture is evaluated.  ``converged_`` is False,
        and a ``ConvergenceWarning`` says how much is left to gain, as far as that is known.  The
        last pass may be in single precision (``fit_info_["float32_bound"]``).  With a
        ``checkpoint``, the same fit continues from there, for as long again.
    n_init : int, default=1
        How many starts to try; the best one is kept.  They share every pass over the data, or
        compete on samples, where ``effort`` may add more.  Where rows are few, hundreds of starts
        compete over all rows.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, default="auto"
        How a start is found, on a uniform sample of the rows.  "auto" is "kmeans" for "em" and for
        small samples; else several methods compete on a sample (``dgmm.em.race``), or, where rows
        are few, hundreds of starts on all rows (``dgmm.em.scouts``; dozens of factors and heavy
        tails: ``dgmm.em.knockout``).  Starts see standardised features, so that units don't matter;
        but a method that is named together with "em" sees features in their units, as in
        scikit-learn.  "k-means++" and "random_from_data" give each row to the nearest of the rows
        they choose.
    effort : {"low", "auto", "high"}, default="auto"
        How much work on samples the search for a start may take, with the "auto" strategy.  "low":
        one start.  "auto": about as much as 12 passes over all rows, until a start can't be
        bettered.  "high": as much as 60, and four starts at least, until four can't be bettered
        (``dgmm.em.starts``).  Where rows are few, starts over all of them are as many with each.
    weights_init : array-like (K,), optional
        Weights to start from.
    means_init : array-like (K, D), optional
        Means to start from.  Component k of the fit is the one that began at mean k; what else is
        needed of it, if nobody gives that, comes of rows near that mean.
    precisions_init : array-like, optional
        Inverse covariances to start from: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
    fixed : str, list of str, or dict, optional
        What is held at its starting values: "weights", "means", "covariances", or several of them.
        A dict says of which components: ``{"means": [0, 2], "covariances": True}``.  Each part is
        held by itself: a weight only if "weights" names it, and then free weights share the rest.
        Values are those of ``weights_init``, ``means_init``, ``precisions_init`` or, with
        ``warm_start``, of the last fit, exactly.  A tied covariance is held for all components or
        none.  ``reg_covar`` adds nothing to what is held, and ``bic`` and ``aic`` count free
        parameters alone.  "auto" is SQUAREM over all rows here.
    random_state : int, RandomState or None, default=None
        The seed of all random choices, or where to draw them from.
    warm_start : bool, default=False
        Whether the next fit begins at the result of this one.
    verbose : int, default=0
        If not 0, print a line for each pass.
    callbacks : list of callable, optional
        Functions that are called with an ``Event`` when a fit begins, after each pass, now and then
        while something is done on samples, and at the end.  ``ProgressBar()`` is one.
    n_jobs : int, optional
        How many threads of this process to use; by default, or for -1, one for each processor.  It
        has no effect on a cluster.
    memory : str or int, optional
        How much memory a worker process may use: bytes, or a text such as "2GiB"; by default 70 %
        of what it has.  A fit that needs more is refused, and so are rows that must be loaded whole
        and need more.
    cache : {"auto", "none"}, str or int, default="auto"
        How much of the rows a worker process keeps in memory between passes: a size such as
        "2GiB", "none", or "auto" for all that ``memory`` leaves free.
    precision : {"auto", "float64"}, default="auto"
        "auto" computes early passes in single precision where a bound on the error allows that
        (``dgmm.em.solver``).  The last passes, and so the results, are always in double precision.
    checkpoint : str or PathLike, optional
        A directory, at a path or URL, where the state after each pass is saved.  A fit with the
        same settings to the same rows continues from there (``dgmm.io.checkpoint``).  Each fit
        needs a checkpoint of its own; in a cross-validation, say, leave it out.
    resume : bool, default=True
        Whether to continue from ``checkpoint``; False deletes it and begins anew.

    Attributes
    ----------
    weights_ : array (K,)
        The components' weights, which sum to 1, with ``noise_weight_`` if there is noise.
    means_ : array (K, D)
        The components' means.
    covariances_, precisions_, precisions_cholesky_ : array
        The covariances, their inverses, and upper triangular C with precision C C': (K, D, D) full,
        (D, D) tied, (K, D) diag, (K,) spherical.  With factors they are no matrices but (K, D,
        1 + q): psi and L; 1 / psi and B = diag(psi)^-1 L; psi^-1/2 and B.  These, ``weights_`` and
        ``means_`` are read-only parts of ``mixture_``; ``from_parameters`` makes a model of given
        parameters.
    loadings_ : array (K, D, q)
        L of each component, where there are factors: in the rotation in which L' diag(psi)^-1 L is
        diagonal, and descends.
    noise_variance_ : array (K, D)
        psi of each component, where there are factors.
    noise_weight_, noise_log_density_ : float
        The weight of the noise component, and the logarithm of its density; 0 and minus infinity
        if there is none.  ``mixture_.noise_component`` has the box.
    dof_ : array (K,)
        The components' degrees of freedom: infinity where they are normal.
    component_covariances_ : array (K, D, D)
        The components' own covariances.  With ``tails="student"`` ``covariances_`` are the scale
        matrices, and these are nu / (nu - 2) times them: infinite for nu up to 2.
    mixture_ : Mixture
        The parameters as one value, with ``marginal`` and ``conditional``.
    converged_ : bool
        Whether the fit stopped by ``resolution`` or ``tol``.
    n_iter_ : int
        Iterations of the best start: passes over all rows, without the first two.
    lower_bounds_ : list of float
        The objective (mean over the rows) at the beginning of each iteration of the best start.
    lower_bound_ : float
        The objective of the fitted parameters.  Up to rounding (in single precision, up to
        ``fit_info_["float32_bound"]``) it is not less than any of ``lower_bounds_``.
    n_features_in_ : int
        The number of features, D.
    feature_names_in_ : array (D,) of str
        The names of the features, if the rows had names for all of them.
    sufficient_statistics_ : SufficientStatistics
        The statistics of all rows seen, for ``partial_fit``.  A model of given parameters has none,
        nor has one of heavy tails.
    plan_ : Plan
        What the fit was planned to need.
    fit_info_ : dict
        The record of the fit.

        - ``strategy``, ``rows``, ``weight``, ``engine``, ``kernel``: what was fitted, and how;
          ``cached`` is the share of the rows that stayed in memory between passes.
        - ``passes``: passes over all rows; ``sample_passes``: the work on samples, as so many
          passes; ``seconds``, of this process if the fit was resumed; ``seconds_on_samples`` of
          these on samples.
        - ``stopped_by``: why the fit stopped; ``estimated_gap``: how much the objective could still
          grow, as estimated; ``resolution``: p / (2 N); ``rejected``: steps that were not taken.
        - ``score``, ``objective``: of the fitted parameters; ``float32_passes``: how many passes
          were in single precision; ``float32_bound``: the bound on its effect on the objective;
          ``omitted_bound``: that of leaving out components which contribute nothing to a row.
        - ``starts``: how many starts competed on samples; ``optima``: how many optima they led to;
          ``starts_gain``: how much better the best result is than that of the first start, in
          units of p / (2 N), on the smallest sample that all reached (0 if both are one optimum,
          None if no starts competed); ``starts_seconds``: the time of the starts after the first,
          in this process.
        - ``empty``: the components without weight; ``singular``: those whose variance in some
          direction is ``reg_covar`` or rounding alone; ``singular_causes``: why, and which features
          have no spread there; ``rivalled``: where ``reg_covar`` is half or more of the variance.
        - ``noiseless``: the components and features whose variance is of factors alone.
        - ``fixed``: the components whose weights, means and covariances were held; empty if none.
        - ``unused``: components of a variational posterior with less than half a row.
        - ``prior``: the numbers of the prior: for a conjugate one the weight of the rows that it
          stands beside, its ``concentration`` and ``mean_precision``, and as how many ``rows`` it
          counts for a covariance.
        - ``noise``: whether the rows had known errors; ``labelled``: of how many rows it was known
          what component they are of.
        - ``dof_at_limit``: with ``tails="student"``, the components whose degrees of freedom are at
          the least or the most there are.
        - ``reg_covar``: what was added to each feature's variance, in the data's units squared.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> rows[100:] += 9
    >>> model = GaussianMixture(2, random_state=0).fit(rows)
    >>> model.means_[model.predict([[0.0, 0], [9, 9]])].round(1)
    array([[-0.1,  0.1],
           [ 8.9,  8.9]])
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        n_factors: int | None = None,
        strategy: StrategyName = "auto",
        tol: float | None = None,
        resolution: float = 0.1,
        reg_covar: float | None = None,
        prior: PriorSpec | PriorName | None = None,
        missing: Missing = "raise",
        noise_component: bool | float = False,
        noise_volume: float | None = None,
        tails: Tails = "normal",
        dof: float | Literal["common"] | None = None,
        max_iter: int = 100,
        max_seconds: float | None = None,
        n_init: int = 1,
        init_params: InitParams = "auto",
        effort: Effort = "auto",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        fixed: Any = None,
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
        self.n_factors = n_factors
        self.strategy = strategy
        self.tol = tol
        self.resolution = resolution
        self.reg_covar = reg_covar
        self.prior = prior
        self.missing = missing
        self.noise_component = noise_component
        self.noise_volume = noise_volume
        self.tails = tails
        self.dof = dof
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.n_init = n_init
        self.init_params = init_params
        self.effort = effort
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.fixed = fixed
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

        If an error is raised, the model is as it was before; see ``KeyboardInterrupt`` for the one
        exception.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.
        labels : (N,) or (N, K), optional
            What components rows may be of, in the same forms: the number of one, or -1 (or NaN)
            where that isn't known; or which of the K components each may be of.

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
        KeyboardInterrupt
            At Ctrl-C; the model then has the best mixture so far, if one was evaluated, and
            ``fit_info_["stopped_by"]`` is "interrupted".

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> sorted(abs(model.means_[:, 0].round(0)).tolist())
        [0.0, 9.0]
        """
        session = session_of(self, X, sample_weight, noise=noise, labels=labels)
        last, began = None, time.perf_counter()
        try:
            with engine.one_blas_thread(), closing(fit_session(self, session)) as passes:
                for last in passes:
                    if self.verbose:
                        print(describe(last))
        except KeyboardInterrupt:
            if last is not None and last.candidates:
                seconds = time.perf_counter() - began
                become(self, **fitted(last, session, seconds, "interrupted"))
            raise
        return self

    def _session(
        self, X: Data, sample_weight: Data, client: "Client | None", noise: Data, labels: Data
    ) -> Session:
        return fitting(self, X, sample_weight, client, noise, labels)

    def _keep(self, last: Progress, session: Session, seconds: float) -> None:
        attributes = fitted(last, session, seconds)
        warn_of(attributes, last.best, stacklevel=5)
        become(self, **attributes)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != Complete.name
        tags.input_tags.sparse = takes_sparse(self)
        return tags

    @property
    def _fitted(self) -> "GaussianMixture":
        check_is_fitted(self)
        return self

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the fitted model to a path or URL; see ``dgmm.io.storage`` for the format.

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
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> import dgmm, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     model.save(f"{place}/model.dgmm")
        ...     again = dgmm.load(f"{place}/model.dgmm")
        >>> bool((again.means_ == model.means_).all())
        True
        """
        check_is_fitted(self)
        saved.write(self, str(path), overwrite)


def load(path: str | PathLike[str]) -> GaussianMixture:
    """Load a fitted model from a file.

    Parameters
    ----------
    path : str or PathLike
        A path or URL.

    Returns
    -------
    GaussianMixture
        The model as it was saved.

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
    model = GaussianMixture()
    saved.read_into(model, str(path))
    return model


def describe(progress: Progress) -> str:
    """One line about a pass."""
    if not progress.candidates:
        moments = progress.moments
        return f"pass 1: read {moments.rows} rows of {len(moments.mean)} features"
    run = progress.run
    line = f"pass {progress.passes}: iteration {len(run.trace)}"
    line += f", objective {run.best.objective:.8g}"
    return line + (f", change {run.change:.2e}" if run.trace else "")
