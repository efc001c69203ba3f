"""How sure parameters are, as estimators tell it (dgmm/inference/standard_errors.py)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.em.prior_spec import NoPrior
from dgmm.engine.room import check_room
from dgmm.errors import DataError, UsageError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.parameters import observation_of, prior_of, threads_of
from dgmm.estimators.rows import Data, open_rows
from dgmm.inference import bootstrap, information, standard_errors
from dgmm.inference import refit as refitting
from dgmm.inference.bootstrap import Bootstrap
from dgmm.inference.resampling import Resampling
from dgmm.inference.standard_errors import KINDS, ErrorKind, StandardErrors
from dgmm.kernels.sweep import Sweep
from dgmm.model.choice import choose

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Uncertainty(Fitted):
    """The methods that tell how sure parameters are."""

    def standard_errors(
        self,
        X: Data,
        sample_weight: Data = None,
        kind: ErrorKind = "observed",
        sweep: Sweep | None = None,
    ) -> StandardErrors:
        """Estimate the standard errors of all parameters, in one pass over the rows fitted to.

        They are those of maximum likelihood: of the components as they are numbered, at an optimum.
        They say nothing of how sure the number of components is, nor of other optima; for weights
        near 0, or components that overlap a lot, they are too small.

        Parameters
        ----------
        X : rows (N, D)
            Those that the model was fitted to, in any form that ``fit`` takes.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms.  They count as repetitions; for weights by which
            rows were sampled, take ``kind="sandwich"``.
        kind : {"observed", "empirical", "sandwich"}, default="observed"
            By what: the second derivatives of the log-likelihood; the outer products of the rows'
            scores; or both, which holds for a model that is only near the truth, too.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        StandardErrors
            In the shapes of ``weights_``, ``means_`` and ``covariances_``.

        Raises
        ------
        UsageError
            For a noise component, heavy tails, priors, fixed parameters, known errors or labels of
            rows, other covariance types than the four plain ones, and models of more than 1,200
            free parameters.
        DataError
            If the rows can't be used, or don't tell all parameters.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> errors = model.standard_errors(rows)
        >>> errors.weights.round(3).tolist()
        [0.022, 0.022]
        """
        model = self._fitted
        choose("kind", kind, KINDS)
        dataset = _rows(model, X, sample_weight)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        observation = observation_of(model)
        with _comparing(model, dataset):
            return standard_errors.standard_errors(sweep, model.mixture_, observation, kind)

    def bootstrap(
        self,
        X: Data,
        sample_weight: Data = None,
        n_replicates: int = 1000,
        refit: bool = False,
        random_state: int = 0,
        sweep: Sweep | None = None,
    ) -> Bootstrap:
        """Estimate the parameters as of other rows of the same kind, many times over.

        In a replicate each row counts as often as a Poisson variate says, which is made from its
        number: so replicates are the same whatever the blocks, engines and workers.  All are one
        step of Newton's method from the estimates, by the information of all rows, and take one
        pass together [1]_.

        Parameters
        ----------
        X : rows (N, D)
            Those that the model was fitted to, in any form that ``fit`` takes.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms.  A row is drawn with its weight, as is right for
            weights by which rows were sampled.
        n_replicates : int, default=1000
            How many replicates; 100 do for errors.  Replicate b is the same however many there are.
        refit : bool, default=False
            Whether each is fitted to its rows, to the optimum next to the estimates: a few more
            passes, each the work of one of a fit with ``n_replicates`` times as many components.
        random_state : int, default=0
            The seed of the variates.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        Bootstrap
            The replicates, in the order of the model's components; their errors and intervals.

        Raises
        ------
        UsageError
            For what ``standard_errors`` is not told of, and parameters that can't be.
        DataError
            If the rows can't be used, or don't tell all parameters.
        PlanError
            If it would take more memory than there is, which the number of rows does not add to.

        References
        ----------
        .. [1] A. C. Davison and D. V. Hinkley, "Bootstrap methods and their application", 1997.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> found = model.bootstrap(rows)
        >>> found.standard_errors().weights.round(2).tolist()
        [0.02, 0.02]
        >>> low, high = found.intervals(0.95).weights
        >>> bool((low < model.weights_).all() and (model.weights_ < high).all())
        True
        """
        model = self._fitted
        for name, value, least in (
            ("n_replicates", n_replicates, 2),
            ("random_state", random_state, 0),
        ):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not least <= value < 1 << 32:
                raise UsageError(f"{name} must be an integer of at least {least}, not {value!r}")
        dataset = _rows(model, X, sample_weight)
        resampling = Resampling.first(int(n_replicates), int(random_state))
        asked = standard_errors.query_of(model.mixture_, observation_of(model), resampling)
        threads = threads_of(model)
        for working, result in (information.nbytes(asked), *([refitting.nbytes(asked)] * refit)):
            remedy = "ask for fewer replicates"
            check_room(dataset, threads, model.memory, working, result, remedy)
        sweep = sweep or engine.over(dataset, threads=threads)
        with engine.one_blas_thread(), _comparing(model, dataset):
            begun, found = bootstrap.bootstrap(sweep, model.mixture_, asked)
            if not refit:
                return begun
            fitted = refitting.refit(sweep, asked, begun, found)
        if fitted.failed:
            warnings.warn(
                f"{fitted.failed:,} of {n_replicates:,} replicates came to no optimum near the "
                "estimates, and are left out: errors may be too small",
                ConvergenceWarning,
                stacklevel=2,
            )
        return fitted


@contextmanager
def _comparing(model: GaussianMixture, dataset: Dataset) -> Iterator[None]:
    """Where rows don't tell the parameters, also say so if they are not as many as in the fit."""
    try:
        yield
    except standard_errors.InformationError as error:
        fitted = model.fit_info_.get("rows")
        if fitted in (None, dataset.rows):
            raise
        raise DataError(
            f"{error}. The model was fitted to {fitted:,} rows, and these are {dataset.rows:,}: "
            "give the rows of the fit, by the same where (--where) if it had one"
        ) from error


def _rows(model: GaussianMixture, X: Data, sample_weight: Data) -> Dataset:
    """The rows by which the errors of a ``model`` are told, if they are."""
    check(model)
    dataset = open_rows(model, X, {"weights": sample_weight})
    check_rows(dataset)
    return dataset


def check(model: GaussianMixture) -> None:
    """Raise ``UsageError`` for models whose standard errors are not told."""
    if (prior := prior_name(model)) is not None:
        raise UsageError(
            "standard errors are those of maximum likelihood: they are not told of a model with "
            f"prior={prior!r}"
        )
    if model.fit_info_.get("fixed"):
        raise UsageError("standard errors are not told of models with fixed parameters")
    check_fit(model)
    standard_errors.check(model.mixture_)


def prior_name(model: GaussianMixture) -> str | None:
    """What prior a model asks for, or was fitted with; None if there is none."""
    if (asked := prior_of(model).name) != NoPrior.name:
        return asked
    had: str = (model.fit_info_.get("prior") or {}).get("name", NoPrior.kind)
    return None if had == NoPrior.kind else had


def check_fit(model: GaussianMixture, what: str = "standard errors are") -> None:
    """Raise ``UsageError`` for models whose fit knew of errors or labels of rows."""
    for name, told in (("noise", "known errors (noise)"), ("labelled", "labels")):
        if model.fit_info_.get(name):
            raise UsageError(f"{what} not told of a model that was fitted to rows with {told}")


def check_rows(dataset: Dataset, what: str = "standard errors are") -> None:
    """Raise ``UsageError`` for rows with known errors or labels."""
    for name, told in (("noise", dataset.noise), ("labels", dataset.labels)):
        if told is not None:
            raise UsageError(f"{what} not told by rows with {name}: leave that out")
