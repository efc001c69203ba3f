"""``GaussianMixture``: the scikit-learn face.

NumPy in, NumPy out; Dask in, lazy Dask out, in the same row chunks, also for what is lazy by way of
Dask (DataArray, dask.dataframe); for a path, a URL or a Zarr array, lazy Dask out, in the dataset's
blocks.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any, Self

import dask.array as da
import numpy as np
import sklearn.cluster
import sklearn.metrics  # noqa: F401
import zarr
from dask.system import CPU_COUNT
from distributed import Client
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from dgmm import engine
from dgmm.data import forms
from dgmm.data.dataset import DaskSource, Dataset, open_dataset
from dgmm.em.collapse import Collapse, column_names, component_names
from dgmm.em.criteria import score_each
from dgmm.em.deadline import Deadline
from dgmm.em.evaluate import PRECISIONS, Rivals, bare, singular
from dgmm.em.fit import STRATEGIES, Progress, Request, fit, given_mixture
from dgmm.em.ladder import Nearby
from dgmm.em.seeding import METHODS
from dgmm.em.starts import EFFORTS
from dgmm.engine.plan import Plan, plan
from dgmm.engine.pods import Pods, pods
from dgmm.errors import (
    DataError,
    DegenerateWarning,
    ModelFileError,
    ObjectiveFellWarning,
    UsageError,
)
from dgmm.estimators.record import check_record, collapsed_of, what_is_left
from dgmm.estimators.summary import Summary
from dgmm.io import models
from dgmm.io.checkpoint import Checkpoint, fingerprint
from dgmm.kernels import native
from dgmm.kernels.answers import ANSWERS, answer
from dgmm.kernels.sweep import Sweep
from dgmm.model.covariance import STRUCTURES
from dgmm.model.mixture import Mixture
from dgmm.model.structure import Array

Data = Any
"""Rows (N, D): an array-like, ``dask.array``, ``zarr.Array``, path, URL or ``Dataset``; or a lazy
frame: a DataArray of xarray, a DataFrame of Dask."""

STORED = (str, PathLike, da.Array, zarr.Array, zarr.Group, np.memmap, np.ma.MaskedArray, Dataset)


@dataclass(frozen=True)
class Task:
    """What is to be fitted to what: checked, as far as that needs no pass.

    Attributes
    ----------
    dataset : Dataset
    request : Request
    names : (D,) or None
        What the features are called.
    """

    dataset: Dataset
    request: Request
    names: NDArray[Any] | None


def _parameter(name: str, of: Callable[[Mixture], Array], told: str) -> Any:
    """An attribute that shows a part of ``mixture_``, which is all that there is to be changed."""

    def get(self: "GaussianMixture") -> Array:
        if "mixture_" not in vars(self):
            kind = type(self).__name__
            raise AttributeError(f"{kind!r} object has no attribute {name!r}: it is not fitted yet")
        return _read_only(of(self.mixture_))

    def refuse(self: "GaussianMixture", *_: Any) -> None:
        raise AttributeError(
            f"{name} shows a part of the fitted mixture and can't be set: the rest would not "
            "follow. GaussianMixture.from_parameters(weights, means, covariances) makes a model of "
            "other parameters, and with warm_start=True a fit goes on from there"
        )

    return property(get, refuse, refuse, told)


def _read_only(array: Array) -> Array:
    """The same numbers, not to be written to."""
    seen = array.view()
    seen.flags.writeable = False
    return seen


class GaussianMixture(DensityMixin, BaseEstimator):
    """A mixture of normal distributions, fitted by EM to data of any size.

    Parameters and attributes are those of ``sklearn.mixture.GaussianMixture`` with the same
    meaning, but for what is said here.  A fit succeeds, or leaves the model as it was; one that
    Ctrl-C interrupts leaves the best mixture so far, if there is one, and raises the interrupt.

    Parameters
    ----------
    n_components : int, default=1
        K, the number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        See ``dgmm.model.covariance``.
    strategy : {"auto", "em"}, default="auto"
        "em" is EM, step by step.  "auto" gets to the same kind of optimum in a few passes: it
        finds a start on a sample, climbs to larger samples, and goes on over all rows in long
        steps; given starting values, it begins there (``dgmm.em.fit``).
    tol : float, optional
        Stop when an iteration changes the objective by less.  By default "em" has 1e-3, and "auto"
        stops by ``resolution``.
    resolution : float, default=0.1
        "auto" stops when the objective could grow, as estimated, by less than this fraction of
        p / (2 N): what so many rows can't tell from nothing, for p free parameters.
    reg_covar : float, optional
        Added to the variances, with the penalty in the objective that makes this an exact M-step
        (``dgmm.kernels.kernel``), so the objective never falls.  A number is in the data's units
        squared, as in scikit-learn.  By default it is 1e-6 of each feature's variance (of most
        rows, where a few far away decide the variance), so that units don't matter.
    max_iter : int, default=100
        0 gives the start itself, and its objective.
    max_seconds : float, optional
        After so many seconds from the call of ``fit`` it ends with the best mixture so far, as soon
        as the pass under way is done, and one at least that evaluates a mixture: ``converged_`` is
        False, and a ``ConvergenceWarning`` says what is left to gain, as far as that is known.  It
        may have been evaluated in single precision (``fit_info_["single_bound"]``).  With a
        ``checkpoint``, the same fit goes on from there, for as long again.
    n_init : int, default=1
        Starts, of which the best is kept.  They share every reading of the data, or compete on
        samples, where ``effort`` may add some; over all rows, where these are few, hundreds.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, default="auto"
        How a start is found, on a uniform sample of the rows.  "auto" is "kmeans" for "em" and for
        samples too small for more, and else a race of several kinds (``dgmm.em.race``), or, where
        rows are few, a tournament of hundreds (``dgmm.em.scouts``).  Starts see standardised
        features, so that their units do not matter, but for a method that is named with "em": it
        sees them as they are, as scikit-learn's does.
        "k-means++" and "random_from_data" give each row to the nearest of the rows they choose.
    effort : {"low", "auto", "high"}, default="auto"
        How much work on samples the search for a start may be: one start, or as many as are worth
        about 12 or 60 passes over all rows, where the first shows that others may lead elsewhere
        (``dgmm.em.starts``).  "auto" strategy only.
    weights_init, means_init, precisions_init : array-like, optional
        Starting values, (K,), (K, D) and in the shape of the covariances.
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start the next fit from this one's result.
    verbose : int, default=0
        Print a line for each pass.
    n_jobs : int, optional
        Threads of this process; by default, or for -1, all its processors.  Not used on a cluster.
    memory : str or int, optional
        What a worker process may take, such as "2GiB"; by default 70 % of what it has.  A fit that
        would take more is refused, and so are rows of a kind that must be loaded whole.
    cache : {"auto", "none"}, str or int, default="auto"
        How much of the rows a worker process keeps in memory between passes: a size, or what
        ``memory`` leaves free.
    precision : {"auto", "float64"}, default="auto"
        "auto" uses single precision in early passes, as long as a bound shows it to be good enough
        (``dgmm.em.walk``); the last passes, and so the results, are in double precision either way.
    checkpoint : str or PathLike, optional
        A directory, at a path or URL, where each pass leaves what it reached; a fit of the same
        settings to the same rows that finds it there goes on from it (``dgmm.io.checkpoint``).
        Each fit wants one of its own: in a cross-validation, say, leave it out.
    resume : bool, default=True
        False begins anew, in place of what ``checkpoint`` holds.

    Attributes
    ----------
    weights_ : (K,)
    means_ : (K, D)
    covariances_, precisions_, precisions_cholesky_ : in the shape of the covariances
        (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.  All of these show parts of
        ``mixture_`` and are read-only; ``from_parameters`` makes a model of given ones.
    converged_ : bool
    n_iter_ : int
        Iterations of the best start: passes over all rows, but for the first two.
    lower_bounds_ : list of float
        The objective (mean over the rows) at the start of each iteration of the best start.
    lower_bound_ : float
        The objective of the fitted parameters themselves; up to rounding (that of single precision
        is at most ``fit_info_["single_bound"]``) not less than any of ``lower_bounds_``.
    n_features_in_ : int
        D.
    feature_names_in_ : (D,)
        Where the rows fitted to had names for all features, texts.
    summary_ : Summary
        The statistics of all rows seen, for ``partial_fit``; of a model of given parameters there
        are none.
    mixture_ : Mixture
        The parameters as one value, with ``marginal`` and ``conditional``.
    plan_ : Plan
        What the fit was planned to need.
    fit_info_ : dict
        The record of the fit: strategy, rows, weight, passes over all rows, the work on samples
        in ``sample_passes`` as large as those, how many ``starts`` competed on samples and to how
        many ``optima`` of these they led, rejected steps, why it stopped, by how much the objective
        could still grow as ``estimated_gap`` and its statistical resolution, seconds (of this
        process, where a fit was resumed) and of these ``seconds_on_samples``, score, engine, share
        of the rows kept in memory, kernel, passes in single precision and the bound on what that
        does to the objective, components that degenerated, and in ``collapses`` why some lost rank
        and which features have no spread in them.  ``starts_gain`` is what the starts after the
        first brought: by how much the best end lies above that of the first, in p / (2 N), on the
        smallest sample that all went on to; 0 if both are at one optimum, None where starts did not
        compete so.  ``starts_seconds`` is what looking for those took, in this process.

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
        covariance_type: str = "full",
        strategy: str = "auto",
        tol: float | None = None,
        resolution: float = 0.1,
        reg_covar: float | None = None,
        max_iter: int = 100,
        max_seconds: float | None = None,
        n_init: int = 1,
        init_params: str = "auto",
        effort: str = "auto",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        n_jobs: int | None = None,
        memory: str | int | None = None,
        cache: str | int = "auto",
        precision: str = "auto",
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = True,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.strategy = strategy
        self.tol = tol
        self.resolution = resolution
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.n_init = n_init
        self.init_params = init_params
        self.effort = effort
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.memory = memory
        self.cache = cache
        self.precision = precision
        self.checkpoint = checkpoint
        self.resume = resume

    weights_ = _parameter("weights_", lambda own: own.weights, "The components' weights, (K,).")
    means_ = _parameter("means_", lambda own: own.means, "The components' means, (K, D).")
    covariances_ = _parameter(
        "covariances_", lambda own: own.covariances, "The covariances, in the structure's shape."
    )
    precisions_cholesky_ = _parameter(
        "precisions_cholesky_", lambda own: own.factors, "C with precision C C', upper triangular."
    )
    precisions_ = _parameter(
        "precisions_", lambda own: own.structure.precisions(own.factors), "The inverse covariances."
    )

    @classmethod
    def from_parameters(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike | None = None,
        *,
        precisions: ArrayLike | None = None,
        covariance_type: str = "full",
        **params: Any,
    ) -> Self:
        """A fitted model of given parameters.

        It predicts, scores, draws samples and is saved as any other; with ``warm_start=True`` a fit
        begins there.  It has seen no rows: it has no ``summary_``, and its ``lower_bound_`` is
        minus infinity.

        Parameters
        ----------
        weights : (K,)
            They sum to 1.
        means : (K, D)
            The components' means.
        covariances, precisions : in the shape of the covariances
            One of the two: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
        covariance_type : str, default="full"
            As in the constructor.
        **params
            Any other parameters of the model.

        Raises
        ------
        UsageError
            If they are no parameters of a mixture.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0], [9.0]], [[1.0], [4.0]], covariance_type="diag"
        ... )
        >>> model.predict([[1.0], [8.0]])
        array([0, 1])
        """
        structure = _choose("covariance_type", covariance_type, STRUCTURES)
        if (covariances is None) == (precisions is None):
            raise UsageError("give either covariances or precisions, one of the two")
        shape = np.shape(means)
        if len(shape) != 2 or 0 in shape:
            raise UsageError(f"means must have shape (components, features), not {shape}")
        of, given = (
            ("covariances", covariances) if precisions is None else ("precisions", precisions)
        )
        matrices = _numbers(of, given, structure.shape(*shape))
        own_weights = _numbers("weights", weights, shape[:1])
        _check_weights("weights", own_weights)
        try:
            make = Mixture.of_covariances if precisions is None else Mixture.of
            own_means = _numbers("means", means, shape)
            mixture = make(structure, own_weights / own_weights.sum(), own_means, matrices)
        except np.linalg.LinAlgError as error:
            raise UsageError(f"{of} must be symmetric positive definite: {error}") from error
        model = cls(shape[0], covariance_type=covariance_type, **params)
        model._become(
            mixture_=mixture,
            converged_=False,
            n_iter_=0,
            lower_bounds_=[],
            lower_bound_=-np.inf,
            fit_info_={"strategy": "given", "vanished": [], "collapsed": []},
            n_features_in_=mixture.dims,
        )
        return model

    def fit(self, X: Data, y: None = None, sample_weight: Data = None) -> Self:
        """Fit to rows.

        Whatever is raised, the model is as it was before, but at a ``KeyboardInterrupt``.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        UsageError, DataError
            Both ``ValueError``: for parameters and rows that can't be used.
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
        for progress in self._passes(X, sample_weight, keep=True):
            if self.verbose:
                print(describe(progress))
        return self

    def fit_predict(self, X: Data, y: None = None, sample_weight: Data = None) -> Any:
        """Fit to ``X`` and give the component of each row, (N,).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        array (N,) of int
            The component of each row; a Dask array where the rows are lazy.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> labels = GaussianMixture(2, random_state=0).fit_predict(rows)
        >>> len(set(labels[:100])), len(set(labels[100:]))
        (1, 1)
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def fit_passes(
        self,
        X: Data,
        sample_weight: Data = None,
        client: Client | None = None,
        meter: engine.Meter | None = None,
        planned: Plan | None = None,
    ) -> Iterator[Progress]:
        """Fit, a pass at a time; when exhausted, this is fitted.

        Until then, and for good if it never is, this is what it was before.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.
        meter : Meter, optional
            Counts the rows swept, also within a pass.
        planned : Plan, optional
            What ``plan`` gave, if it was asked.

        Returns
        -------
        iterator of Progress
            Where the fit stands, after every pass over the data.

        Raises
        ------
        UsageError, DataError
            Both ``ValueError``: for parameters and rows that can't be used.
        PlanError
            If the fit would not fit in memory.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0)
        >>> passes = [each.passes for each in model.fit_passes(rows)]
        >>> model.converged_
        True
        """
        return self._passes(X, sample_weight, client, meter, planned)

    def _passes(
        self,
        X: Data,
        sample_weight: Data = None,
        client: Client | None = None,
        meter: engine.Meter | None = None,
        planned: Plan | None = None,
        keep: bool = False,
    ) -> Iterator[Progress]:
        """``fit_passes``; to ``keep`` is to become the best so far when interrupted."""
        task = self._prepare(X, sample_weight)
        dataset, request = task.dataset, task.request
        client = client or engine.active_client()
        if planned is None:
            planned = self._planned(dataset, request, client)
        planned.check()
        meter = meter or engine.Meter()
        began = time.perf_counter()
        question = request.question(dataset.rows, dataset.dims, dataset.weights is not None)
        engine_ = engine.over(dataset, client, self._threads, meter, planned.cache_bytes)
        kept = self._checkpoint(dataset, request)
        resumed = None if kept is None else kept.resume()
        progress: Progress | None = None
        try:
            with closing(engine_) as sweep:
                passes = fit(sweep, request, question, self._nearby, resumed, meter.tell)
                for progress in engine.each_on_one_blas_thread(passes):
                    if kept is not None and (resumed is None or progress.passes > resumed.passes):
                        kept.save(progress, request.random)
                    yield progress
        except KeyboardInterrupt:
            if keep and progress is not None and progress.walks:
                cut = time.perf_counter() - began, task.names, "interrupted"
                self._become(**self._found(progress, planned, *cut))
            raise
        assert progress is not None
        fitted = self._found(progress, planned, time.perf_counter() - began, task.names)
        self._warn(fitted, max(walk.fell for walk in progress.walks))
        self._become(**fitted)

    def partial_fit(self, X: Data, y: None = None, sample_weight: Data = None) -> Self:
        """Learn from more rows: a step of incremental EM, in one pass over them.

        Adds their statistics to ``summary_``, those of all rows seen before, and takes an M-step.
        No row is read again, so earlier ones keep the responsibilities they had;
        ``dgmm.estimators.summary`` says what is exact in that and what is not.  ``lower_bound_``
        becomes a lower bound of the objective for all rows seen, and ``lower_bounds_`` holds it
        from before the M-step.  If this is not fitted yet, it is ``fit``.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        DataError
            For rows that can't be used; then nothing has changed.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.partial_fit([[1.0, 3], [10, 9]]).summary_.rows
        202
        """
        if not hasattr(self, "mixture_"):
            return self.fit(X, sample_weight=sample_weight)
        return self.update(self._seen() + self.summarize(X, sample_weight))

    def summarize(self, X: Data, sample_weight: Data = None, sweep: Sweep | None = None) -> Summary:
        """The statistics of rows ``X`` under the fitted mixture, in one pass; nothing is fitted.

        Those of rows at different sites add up, can be saved, and go to ``update``: so many sites
        can fit one mixture together, each round an EM iteration over the rows of all.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would.

        Returns
        -------
        Summary
            Statistics of the rows; those of several sites add up by ``+``.

        Raises
        ------
        UsageError, DataError
            For parameters and rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> both = model.summarize(rows[:2]) + model.summarize(rows[2:])
        >>> both.rows
        200
        """
        check_is_fitted(self)
        dataset = self._dataset(X, sample_weight)
        sweep = sweep or engine.over(dataset, threads=self._threads)
        return self._seen().summarize(sweep, self.mixture_, native.chosen())

    def update(self, summary: Summary) -> Self:
        """Take the M-step from a ``summary``, which becomes ``summary_``.

        ``fit_info_`` then tells of that step.

        Parameters
        ----------
        summary : Summary
            Of statistics under this model, or one that descends from the same fit.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        UsageError
            If it does not descend from this model's fit.
        DataError
            If no finite likelihood comes of it.  Whatever is raised, nothing has changed.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.update(model.summarize(rows)).summary_.rows
        200
        """
        check_is_fitted(self)
        own = self._seen()
        if not isinstance(summary, Summary):
            raise UsageError(f"update wants a Summary, not {type(summary).__name__}")
        if why := own.differs(summary):
            raise UsageError(f"the summary does not descend from this model: {why}")
        settled = (self.n_components, self.covariance_type, self.reg_covar)
        shared = (len(own.sums), own.structure.name, own.reg_covar)
        if settled != shared:
            raise UsageError(
                f"n_components, covariance_type and reg_covar were {shared} in the fit and are "
                f"{settled} now; rows can only be added under the same"
            )
        with engine.one_blas_thread():
            trial = summary.improve(self.mixture_)
            bare = summary.bare(self.mixture_)
            held = summary.held(self.mixture_)
            before, after = (summary.bound(each) for each in (self.mixture_, trial.mixture))
        if not np.isfinite(after):
            raise DataError("these rows and those before have no finite likelihood; rescale them")
        fit_info = {
            "strategy": "incremental",
            "rows": summary.rows,
            "weight": summary.weight,
            "objective_before": before if np.isfinite(before) else None,
            "objective": after,
            "kernel": native.described(native.chosen()),
            "vanished": list(trial.vanished),
            **collapsed_of(
                sorted({*trial.collapsed, *held}),
                replace(bare, mixture=summary.frame.enter(bare.mixture)),
                summary.sums[:, 0] * (summary.rows / summary.weight),
                summary.reg,
            ),
        }
        names = getattr(self, "feature_names_in_", None)
        self._warn_of_degenerate(fit_info, names, stacklevel=3)
        self._become(
            mixture_=trial.mixture,
            summary_=summary,
            lower_bounds_=[before],
            lower_bound_=after,
            n_iter_=self.n_iter_ + 1,
            converged_=False,
            fit_info_=fit_info,
        )
        return self

    def _seen(self) -> Summary:
        """``summary_``, which there must be."""
        if not hasattr(self, "summary_"):
            raise UsageError(
                "this model was saved without the statistics of its rows, or made of given "
                "parameters; fit it first (with warm_start=True the fit begins here)"
            )
        return self.summary_

    def plan(self, X: Data, sample_weight: Data = None, client: Client | None = None) -> Plan:
        """What ``fit`` would need for ``X``, worked out without fitting.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.

        Returns
        -------
        Plan
            Blocks, tasks, bytes read and memory.

        Raises
        ------
        UsageError, DataError
            For parameters and rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> GaussianMixture(2).plan(rows).rows
        200
        """
        task = self._prepare(X, sample_weight)
        client = client or engine.active_client()
        return self._planned(task.dataset, task.request, client)

    def _planned(self, dataset: Dataset, request: Request, client: Client | None) -> Plan:
        kept = self.checkpoint is not None
        return plan(dataset, request, client, self._threads, self.memory, self.cache, kept)

    def pods(self, X: Data, workers: int, threads: int, sample_weight: Data = None) -> Pods:
        """What to ask of Kubernetes for a fit to rows on a cluster of its own.

        The model's ``memory`` is what a worker's container has, if that is settled.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        workers : int
            How many pods.
        threads : int
            Of each.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        Pods
            Memory of the containers, in bytes, and the plan.

        Raises
        ------
        UsageError, DataError
            For parameters and rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.eye(6)
        >>> GaussianMixture(2).pods(rows, workers=4, threads=2).plan.workers
        4
        """
        task = self._prepare(X, sample_weight)
        return pods(task.dataset, task.request, workers, threads, self.memory, self.cache)

    def _checkpoint(self, dataset: Dataset, request: Request, **other: Any) -> Checkpoint | None:
        """Where passes are kept, if anywhere; empty if the fit shall not go on from there.

        ``other`` is what tells it from that of a fit of ``request``.
        """
        if self.checkpoint is None:
            return None
        of = fingerprint(dataset, request, self.random_state, **other)
        checkpoint = Checkpoint(str(self.checkpoint), of)
        checkpoint.prepare()
        if not self.resume:
            checkpoint.discard()
        return checkpoint

    @property
    def _nearby(self) -> Nearby:
        """How to sweep over samples."""
        return partial(engine.nearby, threads=self._threads)

    @property
    def _threads(self) -> int | None:
        return CPU_COUNT if self.n_jobs == -1 else self.n_jobs

    def _prepare(self, X: Data, sample_weight: Data) -> Task:
        """What is to be fitted to what; nothing of this changes."""
        request = self._request()
        seen = copy(self)  # which is told what the rows are like, as scikit-learn has it
        seen.__dict__.pop("feature_names_in_", None)
        dataset = seen._dataset(X, sample_weight, reset=True)
        if dataset.rows < request.components:
            raise DataError(
                f"Expected n_samples >= n_components but got n_components = "
                f"{request.components}, n_samples = {dataset.rows}"
            )
        names = vars(seen).get("feature_names_in_")
        return Task(dataset, self._start_from(request, dataset), names)

    def _request(self) -> Request:
        """The parameters, checked."""
        structure = _choose("covariance_type", self.covariance_type, STRUCTURES)
        _choose("init_params", self.init_params, {"auto": None, **METHODS})
        _choose("effort", self.effort, EFFORTS)
        counts = [("n_components", 1), ("max_iter", 0), ("n_init", 1)]
        if self.n_jobs is not None and self.n_jobs != -1:
            counts.append(("n_jobs", 1))
        for name, least in counts:
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name} must be an integer of at least {least}, not {value!r}")
        for name in ("tol", "reg_covar", "max_seconds", "resolution"):
            value = getattr(self, name)
            if name != "resolution" and value is None:
                continue
            if not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
                raise UsageError(f"{name} must be a number of at least 0, not {value!r}")
        return Request(
            structure=structure,
            components=int(self.n_components),
            strategy=_choose("strategy", self.strategy, {name: name for name in STRATEGIES}),
            tol=None if self.tol is None else float(self.tol),
            resolution=float(self.resolution),
            reg_covar=None if self.reg_covar is None else float(self.reg_covar),
            max_iter=int(self.max_iter),
            n_init=int(self.n_init),
            init_params=self.init_params,
            effort=self.effort,
            kernel=native.chosen(),
            precision=_choose("precision", self.precision, {name: name for name in PRECISIONS}),
            random=self._random(),
            deadline=Deadline.after(self.max_seconds),
        )

    def _random(self) -> Any:
        try:
            return check_random_state(self.random_state)
        except ValueError as error:
            raise UsageError(
                f"random_state must be None, a RandomState or an integer from 0 to 2^32 - 1, not "
                f"{self.random_state!r}"
            ) from error

    def _dataset(self, X: Data, sample_weight: Data = None, reset: bool = False) -> Dataset:
        """Open ``X``, which must have the fitted width, unless ``reset`` sets that."""
        named = forms.columns(X)
        X = forms.unwrapped(X, self.memory)
        if named is not None:
            validate_data(self, named, reset=reset, skip_check_array=True)
        elif not isinstance(X, STORED):
            forms.check_loadable(X, self.memory)
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype="numeric",
                ensure_2d=False,
                allow_nd=True,
                ensure_all_finite=False,
                ensure_min_samples=0,
                ensure_min_features=0,
            )
        dataset = open_dataset(X, sample_weight, memory=self.memory)
        if not reset and dataset.dims != self.n_features_in_:
            raise DataError(
                f"X has {dataset.dims} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return dataset

    def _start_from(self, request: Request, dataset: Dataset) -> Request:
        """The request with the given or warm starting values, checked."""
        components, dims = request.components, dataset.dims
        if self.warm_start and hasattr(self, "mixture_"):
            fitted = self.mixture_
            if fitted.structure is not request.structure:
                raise UsageError(
                    f"warm_start goes on from {fitted.structure.name!r} covariances; "
                    f"covariance_type is {self.covariance_type!r}"
                )
            if fitted.means.shape != (components, dims):
                raise UsageError(
                    f"warm_start goes on from {fitted.components} components of {fitted.dims} "
                    f"features; n_components is {components} and X has {dims} features"
                )
            return replace(
                request,
                n_init=1,
                weights=fitted.weights,
                means=fitted.means,
                precisions=fitted.structure.precisions(fitted.factors),
                before=self.lower_bounds_[-1] if self.lower_bounds_ else None,
            )
        shape = request.structure.shape(components, dims)
        weights = _given("weights_init", self.weights_init, (components,))
        means = _given("means_init", self.means_init, (components, dims))
        precisions = _given("precisions_init", self.precisions_init, shape)
        if weights is not None:
            _check_weights("weights_init", weights)
        if precisions is not None:  # refused now, not after the first pass
            uniform, zeros = np.full(components, 1 / components), np.zeros((components, dims))
            given_mixture(request.structure, uniform, zeros, precisions)
        return replace(request, weights=weights, means=means, precisions=precisions)

    def _found(
        self,
        progress: Progress,
        planned: Plan,
        seconds: float,
        names: NDArray[Any] | None,
        cut: str = "max_seconds",
    ) -> dict[str, Any]:
        """The attributes of the fitted model, by name; ``cut`` is why, if it is not at its end."""
        with engine.one_blas_thread():
            return self._record(progress, planned, seconds, names, cut)

    def _record(
        self,
        progress: Progress,
        planned: Plan,
        seconds: float,
        names: NDArray[Any] | None,
        cut: str,
    ) -> dict[str, Any]:
        walk, found = progress.best, progress.found
        best = walk.best
        alone = bare(best.statistics, walk.setting, best.mixture)
        rivals = Rivals.of(best, walk.setting)
        gain, resolution = walk.starts_gain, best.mixture.free_parameters / (2 * found.weighted)
        return {
            "mixture_": progress.mixture,
            "summary_": Summary.of(best, walk.setting),
            "converged_": walk.converged,
            "n_iter_": len(walk.trace),
            "lower_bounds_": list(walk.trace),
            "lower_bound_": best.objective,
            "plan_": planned,
            "n_features_in_": best.mixture.dims,
            "feature_names_in_": names,
            "fit_info_": {
                "strategy": self.strategy,
                "rows": found.rows,
                "weight": found.weight,
                "passes": progress.passes,
                "sample_passes": progress.nearby / (found.rows * best.mixture.components),
                "starts": walk.starts,
                "optima": walk.optima,
                "starts_gain": gain if gain is None else gain / resolution,
                "starts_seconds": progress.starts_seconds,
                "rejected": walk.rejected,
                "stopped_by": walk.reason if walk.trial is None else cut,
                "estimated_gap": walk.gap if np.isfinite(walk.gap) else None,
                "resolution": resolution,
                "seconds": seconds,
                "seconds_on_samples": progress.seconds_on_samples,
                "score": best.score,
                "objective": best.objective,
                "engine": planned.engine,
                "cached": planned.cached,
                "kernel": native.described(progress.setting.kernel),
                "single_passes": walk.singles,
                "single_bound": walk.bound,
                "vanished": list(best.vanished),
                **collapsed_of(
                    singular(best, walk.setting),
                    alone,
                    best.statistics.sums[:, 0] * (found.weighted / found.weight),
                    walk.setting.reg,
                    (found.sample, progress.mixture),
                ),
                "rivalled": {
                    "components": list(rivals.components),
                    "features": list(rivals.features),
                },
                "reg_covar": (walk.setting.reg * walk.setting.frame.scale**2).tolist(),
            },
        }

    def _become(self, **fitted: Any) -> None:
        """Take on these attributes; ``feature_names_in_`` of None is none.

        It is one step, so whatever interrupts it finds the old model whole, or the new one.
        """
        if "mixture_" in fitted:
            fitted["mixture_"] = _frozen(fitted["mixture_"])
        state = {**vars(self), **fitted}
        if state.get("feature_names_in_") is None:
            state.pop("feature_names_in_", None)
        self.__dict__ = state

    def _warn_of_degenerate(
        self, fit_info: dict[str, Any], names: NDArray[Any] | None, stacklevel: int
    ) -> None:
        vanished: list[int] = fit_info["vanished"]
        called = None if names is None else [str(each) for each in names]
        said = [Collapse.of(each).said(called) for each in fit_info["collapses"]]
        if vanished:
            have = "have" if len(vanished) > 1 else "has"
            said.append(
                f"{component_names(vanished)} {have} lost all weight; mean and covariance are the "
                "last it had. Fit fewer components"
            )
        rivals = fit_info.get("rivalled", {"components": [], "features": []})
        if rivals["components"]:
            given = "its default" if self.reg_covar is None else f"{self.reg_covar:g}"
            said.append(
                f"reg_covar ({given}) makes half or more of the variance of "
                f"{column_names(tuple(rivals['features']), called)} in "
                f"{component_names(rivals['components'])}: these are narrower than it is good for. "
                "Give a smaller reg_covar"
            )
        for each in said:
            warnings.warn(each, DegenerateWarning, stacklevel=stacklevel)

    def _warn(self, fitted: dict[str, Any], fell: float) -> None:
        """Tell what is wrong with what was ``fitted``, before it is taken on.

        So where warnings are errors, a fit that warns leaves the model as it was.
        """
        self._warn_of_degenerate(fitted["fit_info_"], fitted["feature_names_in_"], stacklevel=5)
        if fell > 0:
            warnings.warn(
                f"the objective fell by {fell:.3g} in an iteration, more than rounding explains; "
                "check the scale of the columns, or raise reg_covar",
                ObjectiveFellWarning,
                stacklevel=4,
            )
        late = fitted["fit_info_"]["stopped_by"] == "max_seconds"
        if not fitted["converged_"] and (self.max_iter or late):
            goal = "resolution" if self.strategy == "auto" and self.tol is None else "tol"
            warnings.warn(
                f"not converged after {fitted['n_iter_']} iterations: {what_is_left(fitted)}. "
                f"Raise {'max_seconds' if late else 'max_iter'} or {goal}",
                ConvergenceWarning,
                stacklevel=4,
            )

    def predict(self, X: Data) -> Any:
        """The most probable component of each row of ``X``, (N,).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N,) of int
            The number of a component, from 0; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            For rows of other features than those of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.predict([[0.0, 0], [9, 8], [9, 9]]).tolist() in ([0, 1, 1], [1, 0, 0])
        True
        """
        return self._answer(X, "labels")

    def predict_proba(self, X: Data) -> Any:
        """The probability of each component for each row of ``X``, (N, K).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N, K)
            Rows sum to 1; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            For rows of other features than those of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.predict_proba(rows).shape
        (200, 2)
        """
        return self._answer(X, "proba")

    def score_samples(self, X: Data) -> Any:
        """The log-density of each row of ``X``, (N,), in nats.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N,)
            In nats; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            For rows of other features than those of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.score_samples(rows).shape
        (200,)
        """
        return self._answer(X, "score")

    def _answer(self, X: Data, what: str) -> Any:
        check_is_fitted(self)
        dataset = self._dataset(X)
        kind = ANSWERS[what]
        columns = kind.columns(self.mixture_.components)
        if dataset.lazy or (isinstance(X, STORED) and not isinstance(X, np.memmap)):
            lengths = tuple(np.diff(dataset.cuts).tolist())
            given = (dataset, self.mixture_, what)
            meta = np.empty((0,) * (1 + len(columns)), dtype=kind.dtype)
            if not isinstance(dataset.source, DaskSource):
                return da.map_blocks(
                    _answer_block, given, chunks=(lengths, *((c,) for c in columns)), meta=meta
                )
            return dataset.source.array.map_blocks(
                _answer_chunk,
                self.mixture_,
                what,
                chunks=(lengths, *((c,) for c in columns)),
                drop_axis=None if columns else 1,
                meta=meta,
            )
        answers = np.empty((dataset.rows, *columns), dtype=kind.dtype)

        def fill(index: int) -> None:
            block = dataset.block(index)
            stop = block.start + len(block.rows)
            answers[block.start : stop] = answer(block.rows, self.mixture_, what, block.start)

        with engine.one_blas_thread(), ThreadPoolExecutor(self._threads or CPU_COUNT) as pool:
            list(pool.map(fill, range(dataset.blocks)))
        return answers

    def score(self, X: Data, y: None = None, sample_weight: Data = None) -> float:
        """The mean log-likelihood of the rows of ``X``, in nats, weighted if asked.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        float
            In nats a row, per unit of weight.

        Raises
        ------
        DataError
            For rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> bool(np.isclose(model.score(rows), model.score_samples(rows).mean()))
        True
        """
        return self.criteria(X, sample_weight)["score"]

    def bic(self, X: Data, sample_weight: Data = None) -> float:
        """The Bayesian information criterion of the model for ``X``; lower is better.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        float
            -2 L + p log N, for p free parameters, in nats.

        Raises
        ------
        DataError
            For rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> p = model.mixture_.free_parameters
        >>> bool(np.isclose(model.bic(rows) - model.aic(rows), p * (np.log(200) - 2)))
        True
        """
        return self.criteria(X, sample_weight)["bic"]

    def aic(self, X: Data, sample_weight: Data = None) -> float:
        """Akaike's information criterion of the model for ``X``; lower is better.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.

        Returns
        -------
        float
            -2 L + 2 p, for p free parameters, in nats.

        Raises
        ------
        DataError
            For rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> two_l = 2 * 200 * model.score(rows)
        >>> bool(np.isclose(model.aic(rows), 2 * model.mixture_.free_parameters - two_l))
        True
        """
        return self.criteria(X, sample_weight)["aic"]

    def criteria(
        self, X: Data, sample_weight: Data = None, sweep: Sweep | None = None
    ) -> dict[str, float]:
        """``score``, ``aic`` and ``bic`` of ``X`` in one pass.

        The weights count as numbers of rows.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight : (N,), optional
            Of the rows, in the same forms; by default each counts as one.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would.

        Returns
        -------
        dict
            The three by name.

        Raises
        ------
        DataError
            For rows that can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> sorted(model.criteria(rows))
        ['aic', 'bic', 'score']
        """
        check_is_fitted(self)
        dataset = self._dataset(X, sample_weight)
        sweep = sweep or engine.over(dataset, threads=self._threads)
        (total,) = sweep(score_each, (self.mixture_,)).parts
        if not total.weight > 0:
            raise DataError("all weights are zero: there is nothing to score")
        parameters = self.mixture_.free_parameters
        return {
            "score": total.value / total.weight,
            "aic": -2 * total.value + 2 * parameters,
            "bic": -2 * total.value + parameters * float(np.log(total.weight)),
        }

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows (n_samples, D) and their components (n_samples,), grouped by component.

        Parameters
        ----------
        n_samples : int, default=1
            How many.

        Returns
        -------
        rows : array (n_samples, D)
            In the units of the rows fitted to.
        components : array (n_samples,) of int
            Where each row is from.

        Raises
        ------
        ValueError
            If ``n_samples`` is less than 1.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> drawn, components = model.sample(5)
        >>> drawn.shape, components.shape
        ((5, 2), (5,))
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise UsageError(f"n_samples must be at least 1, not {n_samples}")
        return self.mixture_.sample(n_samples, self._random())

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the fitted model to a path or URL; see ``dgmm.io.storage`` for the format.

        Parameters
        ----------
        path : str or PathLike
            A path or URL.
        overwrite : bool, default=False
            Whether to replace what is there.

        Raises
        ------
        DataError
            If something is there already, unless ``overwrite``.

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
        plain = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params().items()
            if name not in ("checkpoint", "max_seconds", "resume")  # of that fit alone
        }
        params = {
            name: value
            for name, value in plain.items()
            if isinstance(value, str | int | float | bool) or value is None
        }
        record = {
            "params": params,
            "converged": bool(self.converged_),
            "n_iter": self.n_iter_,
            "lower_bound": self.lower_bound_,
            "lower_bounds": self.lower_bounds_,
            "fit_info": self.fit_info_,
            "feature_names": list(getattr(self, "feature_names_in_", [])) or None,
        }
        header, arrays = {"record": record}, {}
        if hasattr(self, "summary_"):
            header["summary"], arrays = self.summary_.record(), self.summary_.arrays()
        models.write_model(str(path), self.mixture_, header, arrays, overwrite)


def load(path: str | PathLike[str]) -> GaussianMixture:
    """The fitted model in a file.

    Parameters
    ----------
    path : str or PathLike
        A path or URL.

    Returns
    -------
    GaussianMixture
        As it was saved.

    Raises
    ------
    ModelFileError
        If there is no model file, or one that can't be used.

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
    mixture, header, arrays = models.read_model(str(path))
    record = header["record"]
    model = GaussianMixture()
    try:
        summary = Summary.parse(arrays, header) if "summary" in header else None
        model.set_params(**record["params"])
        check_record(record, mixture, summary)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is no usable model file: {error}") from error
    except KeyError as error:
        raise ModelFileError(f"{path}: the record of the fit lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path}: the record of the fit can't be used: {error}") from error
    model.set_params(n_components=mixture.components, covariance_type=mixture.structure.name)
    names = record["feature_names"]
    model._become(
        mixture_=mixture,
        converged_=record["converged"],
        n_iter_=record["n_iter"],
        lower_bound_=record["lower_bound"],
        lower_bounds_=record["lower_bounds"],
        fit_info_=record["fit_info"],
        n_features_in_=mixture.dims,
        feature_names_in_=np.array(names, dtype=object) if names else None,
        **({} if summary is None else {"summary_": summary}),
    )
    return model


def _frozen(mixture: Mixture) -> Mixture:
    """The same mixture, in arrays that can't be written to: its parts belong together."""
    parts = (mixture.weights, mixture.means, mixture.covariances, mixture.factors)
    return Mixture(mixture.structure, *map(_read_only, parts))


def describe(progress: Progress) -> str:
    """One line about a pass."""
    if not progress.walks:
        found = progress.found
        return f"pass 1: surveyed {found.rows} rows of {len(found.mean)} features"
    walk = progress.best
    line = f"pass {progress.passes}: iteration {len(walk.trace)}"
    line += f", objective {walk.best.objective:.8g}"
    return line + (f", change {walk.change:.2e}" if walk.trace else "")


def _answer_block(given: tuple[Dataset, Mixture, str], block_info: dict[Any, Any]) -> NDArray[Any]:
    dataset, mixture, what = given
    block = dataset.block(block_info[None]["chunk-location"][0])
    with engine.one_blas_thread():
        return answer(block.rows, mixture, what, block.start)


def _answer_chunk(
    rows: NDArray[Any], mixture: Mixture, what: str, block_info: dict[Any, Any]
) -> NDArray[Any]:
    with engine.one_blas_thread():
        return answer(rows, mixture, what, block_info[0]["array-location"][0][0])


def _choose(name: str, value: Any, family: dict[str, Any]) -> Any:
    if not isinstance(value, str) or value not in family:
        raise UsageError(f"{name} must be one of {', '.join(map(repr, family))}, not {value!r}")
    return family[value]


def _check_weights(name: str, weights: Array) -> None:
    if weights.min() < 0 or not np.isclose(weights.sum(), 1.0):
        raise UsageError(
            f"{name} must be at least 0 and sum to 1; the least is {weights.min():.6g}, and they "
            f"sum to {weights.sum():.6g}"
        )


def _given(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Starting values as float64 of the right shape, if there are any."""
    return None if value is None else _numbers(name, value, shape)


def _numbers(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Parameters as float64 of the right shape."""
    try:
        array = np.array(forms.unwrapped(value))
        if array.dtype.kind == "c":
            raise UsageError(f"{name} must be real numbers, not {array.dtype}")
        array = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} must be numbers: {error}") from error
    if array.shape != shape:
        raise UsageError(f"{name} must have shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds NaN or infinity")
    return array
