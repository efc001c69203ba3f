"""``MixtureSearch`` and ``select``: the best of many mixtures, in the passes of about one fit."""

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from dgmm.em.criteria import CriterionName
from dgmm.em.progress import Progress
from dgmm.errors import UsageError
from dgmm.estimators import search_results
from dgmm.estimators.exports import Exports
from dgmm.estimators.fits import Fits, fit_session, session_of
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.inference import Inference
from dgmm.estimators.predictor import Predictor
from dgmm.estimators.record import become, fitted, warn_of
from dgmm.estimators.rows import Data
from dgmm.estimators.session import Session, selecting
from dgmm.estimators.sparse import takes_sparse
from dgmm.model.covariance import COVARIANCE_TYPES, CovarianceType

if TYPE_CHECKING:
    from distributed import Client

SIZES: Final = tuple(range(1, 11))
"""How many components are tried unless told."""


class MixtureSearch(
    Fits, Predictor, Inference, Exports, MetaEstimatorMixin, DensityMixin, BaseEstimator
):
    """Fit mixtures of several sizes and covariance types side by side, and keep the best.

    All candidates share every pass over the data, and those that can no longer win are dropped
    (``dgmm.em.selection``).  A fitted search is used like ``sklearn.model_selection.GridSearchCV``.
    A fit that fails leaves the search as it was.

    Parameters
    ----------
    estimator : GaussianMixture, optional
        The model whose other parameters all candidates have.  Its ``checkpoint`` is that of the
        whole search, and its ``callbacks`` watch all of it.
    n_components : int or collection of int, default=(1, 2, ..., 10)
        The numbers of components to choose from.
    covariance_type : str or collection of str, default="full"
        The covariance types to choose from.
    n_factors : int or collection of int, optional
        The numbers of factors to choose from, for covariance types that have any.
    criterion : {"bic", "aic", "icl", "heldout"}, default="bic"
        What to minimise.  "heldout" is minus the mean log-likelihood of one row in ten (at least
        one row), which the candidates are not fitted to.

    Attributes
    ----------
    best_estimator_ : GaussianMixture
        The best candidate, fitted; it is not fitted again.
    best_params_ : dict
        Its ``n_components`` and ``covariance_type``, and ``n_factors`` where it has any.
    best_index_ : int
        Its number in ``results_``.
    best_score_ : float
        Minus its criterion.
    results_ : list of dict
        For each candidate: ``n_components``, ``covariance_type``, ``n_factors`` where there are
        any, the number of free ``parameters``, its ``score``, the last value of the criterion, by
        its name, and the number of ``iterations``.  ``unbounded`` lists components that are
        singular where all rows together are not, so that the likelihood has no bound; a candidate
        with such a component is chosen only if all have one (``dgmm.em.selection``).
        ``dropped_after`` is the pass after which it was dropped, or None.
    at_edge_ : {"fewest", "most"} or None
        Whether the best candidate has the fewest or the most components that were tried, so that
        there may be a better one beyond these.
    cv_results_ : dict
        The results in the form of scikit-learn's searches.
    n_features_in_, feature_names_in_
        As in ``GaussianMixture``.
    passes_ : int
        How many passes over all rows it took.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture, MixtureSearch
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> rows[100:] += 9
    >>> search = MixtureSearch(GaussianMixture(random_state=0), n_components=[1, 2]).fit(rows)
    >>> search.best_params_
    {'n_components': 2, 'covariance_type': 'full'}
    """

    def __init__(
        self,
        estimator: GaussianMixture | None = None,
        *,
        n_components: int | Collection[int] = SIZES,
        covariance_type: CovarianceType | Collection[CovarianceType] = "full",
        n_factors: int | Collection[int] | None = None,
        criterion: CriterionName = "bic",
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.n_factors = n_factors
        self.criterion = criterion

    def fit(
        self,
        X: Data,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Self:
        """Choose a mixture for rows.

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
            The fitted search.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used; both are a ``ValueError``.
        PlanError
            If the candidates would not fit in memory.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture, MixtureSearch
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> search = MixtureSearch(GaussianMixture(random_state=0), n_components=[1, 2])
        >>> search = search.fit(rows)
        >>> search.best_params_
        {'n_components': 2, 'covariance_type': 'full'}
        """
        for _ in fit_session(self, session_of(self, X, sample_weight, noise=noise, labels=labels)):
            pass
        return self

    def _session(
        self, X: Data, sample_weight: Data, client: "Client | None", noise: Data, labels: Data
    ) -> Session:
        return selecting(self._models(), self.criterion, X, sample_weight, client, noise, labels)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        try:
            models = self._models()
        except UsageError:  # told by ``fit``
            models = []
        tags.input_tags.sparse = bool(models) and all(map(takes_sparse, models))
        return tags

    @property
    def _template(self) -> GaussianMixture:
        return GaussianMixture() if self.estimator is None else self.estimator

    def _models(self) -> list[GaussianMixture]:
        """The candidates, not yet fitted."""
        kinds, counts = self.covariance_type, self.n_components
        kinds = [kinds] if isinstance(kinds, str) else _each("covariance_type", kinds)
        counts = [counts] if isinstance(counts, int | np.integer) else _each("n_components", counts)
        if not kinds or not counts:
            raise UsageError("there is nothing to choose from: no n_components or covariance_type")
        sizes = [
            (kind, factors)
            for kind in kinds
            for factors in (self._factors() if _has_factors(kind) else [None])
        ]
        if self.n_factors is not None and all(factors is None for _, factors in sizes):
            raise UsageError(
                f"n_factors={self.n_factors!r} is of no use: no covariance_type has factors"
            )
        return [
            clone(self._template).set_params(
                n_components=count, covariance_type=kind, n_factors=factors
            )
            for kind, factors in sizes
            for count in counts
        ]

    def _factors(self) -> list[Any]:
        """The numbers of factors to choose from."""
        given = self._template.n_factors if self.n_factors is None else self.n_factors
        whole = given is None or isinstance(given, int | np.integer)
        return [given] if whole else _each("n_factors", given)

    def _keep(self, last: Progress, session: Session, seconds: float) -> None:
        """Take on what was chosen, in one step; see ``GaussianMixture``."""
        best, index = last.best, last.candidates.index(last.best)
        attributes = fitted(last, session, seconds)
        warn_of(attributes, best, stacklevel=5)
        names = [each.covariance_type for each in self._models()]
        results = search_results.records(last.candidates, names, self.criterion)
        search_results.warn_of_left_out(results, self.criterion, best.value, stacklevel=5)
        params = search_results.params(results[index])
        changed = {"n_factors": None, **params, "checkpoint": None}  # that is the search's
        model = clone(self._template).set_params(**changed)
        become(model, **attributes)
        become(
            self,
            best_index_=index,
            best_estimator_=model,
            best_params_=params,
            best_score_=-best.value,
            passes_=last.passes,
            results_=results,
            at_edge_=search_results.edge(results, index),
            feature_names_in_=session.names,
            n_features_in_=model.n_features_in_,
            cv_results_=search_results.cv_results(results, self.criterion),
        )

    def mclust_bic(self) -> dict[str, dict[int, float]]:
        """The BIC of all candidates as mclust writes it: 2 L - p log N, larger is better.

        Returns
        -------
        dict
            Of each covariance type, by name, and each number of components.  What was dropped on
            the way has what it had come to; NaN, mclust's NA, where a component is unbounded.

        Raises
        ------
        UsageError
            If the criterion is another one.
        NotFittedError
            If the search has not been fitted.

        Examples
        --------
        >>> from dgmm import select
        >>> rows = [[0.0], [1.0], [2.0], [3.0]]
        >>> table = select(rows, 1, ["EII", "VVV"], random_state=0).mclust_bic()
        >>> list(table), round(table["VVV"][1], 4)
        (['EII', 'VVV'], -15.0167)
        """
        check_is_fitted(self)
        if self.criterion != "bic":
            raise UsageError(f"the search was by {self.criterion}: mclust's sign is of the bic")
        return search_results.mclust_table(self.results_)

    @property
    def _fitted(self) -> GaussianMixture:
        check_is_fitted(self)
        best: GaussianMixture = self.best_estimator_
        return best


def select(
    X: Data,
    n_components: int | Iterable[int] = SIZES,
    covariance_type: CovarianceType | Iterable[CovarianceType] = "full",
    criterion: CriterionName = "bic",
    sample_weight: Data = None,
    noise: Data = None,
    labels: Data = None,
    n_factors: int | Iterable[int] | None = None,
    **parameters: Any,
) -> MixtureSearch:
    """Choose a number of components and a covariance type, all candidates side by side.

    Parameters
    ----------
    X : rows (N, D)
        Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
    n_components : int or iterable of int, default=1 to 10
        The sizes to choose from.
    covariance_type : str or iterable of str, default="full"
        The covariance types to choose from.
    criterion : {"bic", "aic", "icl", "heldout"}, default="bic"
        The criterion to minimise.
    sample_weight : (N,), optional
        Weights of the rows, in the same forms, or one for all; by default each counts as one.
    noise : (N, D) or (N, D, D), optional
        Known errors of the rows, in the same forms: their variances, or their covariances.  A
        value of infinite variance is missing.
    labels : (N,) or (N, K), optional
        What components rows may be of, in the same forms: the number of one, or -1 (or NaN) where
        that isn't known; or which of the K components each may be of.
    n_factors : int or iterable of int, optional
        The numbers of factors to choose from, for covariance types that have any.
    **parameters
        Other parameters of ``GaussianMixture``, the same for all candidates.

    Returns
    -------
    MixtureSearch
        The fitted search; ``best_estimator_`` is the best model.

    Raises
    ------
    UsageError, DataError
        If a parameter or the rows can't be used; both are a ``ValueError``.
    PlanError
        If the candidates would not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import select
    >>> rows = np.random.default_rng(0).normal(size=(2000, 2)) + [[0, 0], [9, 9]] * 1000
    >>> select(rows, range(1, 5), random_state=0).best_params_
    {'n_components': 2, 'covariance_type': 'full'}
    """
    search = MixtureSearch(
        GaussianMixture(**parameters),
        n_components=_several(n_components),
        covariance_type=_several(covariance_type),
        n_factors=_several(n_factors),
        criterion=criterion,
    )
    return search.fit(X, sample_weight=sample_weight, noise=noise, labels=labels)


def _each(name: str, given: Any) -> list[Any]:
    """The members of a collection; those of an iterator would be there but once."""
    if isinstance(given, Iterator) or not isinstance(given, Iterable):
        raise UsageError(f"{name} must be one, or a list or tuple of several, not {given!r:.80}")
    return list(given)


def _several(given: Any) -> Any:
    """What can be gone through more than once."""
    return tuple(given) if isinstance(given, Iterator) else given


def _has_factors(kind: Any) -> bool:
    """Whether covariances of a type have factors; not if there is no such type."""
    known = COVARIANCE_TYPES.get(kind) if isinstance(kind, str) else None
    return known is not None and known.factor_count is not None
