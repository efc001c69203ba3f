"""``MixtureSearch`` and ``select``: the best of many mixtures, in the passes of about one fit."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Self

import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from dgmm import engine
from dgmm.dataset import Dataset
from dgmm.errors import UsageError
from dgmm.estimator import Data, GaussianMixture
from dgmm.fit import Progress, Request
from dgmm.plan import Plan
from dgmm.seeding import sample_seed
from dgmm.selection import CRITERIA, Candidate, Standings
from dgmm.selection import select as run


class MixtureSearch(MetaEstimatorMixin, BaseEstimator):
    """Fit mixtures of several sizes and structures side by side, and keep the best.

    All candidates share every pass over the data, and those that can't win any more leave early
    (``dgmm.selection``).  Afterwards it is used like ``sklearn.model_selection.GridSearchCV``.

    Parameters
    ----------
    estimator : GaussianMixture, optional
        Whose other parameters all candidates have.  Its checkpoint is one of the whole search.
    n_components : int or iterable of int, default=range(1, 11)
    covariance_type : str or iterable of str, default="full"
    criterion : {"bic", "aic", "icl", "heldout"}, default="bic"
        What is minimised; "heldout" is minus the mean log-likelihood of one row in ten, which is
        not fitted to.

    Attributes
    ----------
    best_estimator_ : GaussianMixture
        The best candidate, fitted; it was not fitted again.
    best_params_ : dict
    best_index_ : int
    best_score_ : float
        Minus its criterion.
    results_ : list of dict
        For each candidate: n_components, covariance_type, parameters, score, the criterion as it
        stood last, iterations, the components that are singular (a candidate with such is not
        chosen if there are others: ``dgmm.selection``), and after which pass it was dropped (None
        for those that stayed).
    cv_results_ : dict
        The same as scikit-learn's searches have it.
    passes_ : int
        Over all rows.
    """

    def __init__(
        self,
        estimator: GaussianMixture | None = None,
        *,
        n_components: int | Iterable[int] = range(1, 11),
        covariance_type: str | Iterable[str] = "full",
        criterion: str = "bic",
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.criterion = criterion

    def fit(self, X: Data, y: None = None, sample_weight: Data = None) -> Self:
        """Choose a mixture for rows ``X`` (N, D); raises what ``GaussianMixture.fit`` does."""
        for _ in self.fit_passes(X, sample_weight):
            pass
        return self

    def fit_passes(
        self,
        X: Data,
        sample_weight: Data = None,
        client: Client | None = None,
        meter: engine.Meter | None = None,
        planned: Plan | None = None,
    ) -> Iterator[Standings]:
        """Choose, yielding after every pass of all candidates; when exhausted, this is fitted.

        The parameters are those of ``GaussianMixture.fit_passes``.
        """
        if self.criterion not in CRITERIA:
            named = ", ".join(map(repr, CRITERIA))
            raise UsageError(f"criterion must be one of {named}, not {self.criterion!r}")
        models = self._models()
        dataset, requests = _prepared(models, X, sample_weight)
        client = client or engine.active_client()
        template = self._template
        planned = planned or _planned(template, dataset, requests, client)
        planned.check()
        began = time.perf_counter()
        weighted = dataset.weights is not None
        questions = [each.question(dataset.rows, dataset.dims, weighted) for each in requests]
        question = max(questions, key=lambda each: each.sample)
        question = replace(question, pairs=any(each.pairs for each in questions))
        swept = engine.over(dataset, client, template._threads, meter, planned.cache_bytes)
        kept = template._checkpoint(
            dataset,
            requests[0],
            components=[each.components for each in requests],
            covariance_type=[each.structure.name for each in requests],
            criterion=self.criterion,
        )
        resumed = None if kept is None else kept.resume()
        if resumed is not None:  # by chance, if random_state is None
            question = replace(question, seed=sample_seed(resumed.random))
        with closing(swept) as sweep:
            criterion = CRITERIA[self.criterion]
            standings = run(sweep, requests, question, template._nearby, criterion, resumed)
            for last in engine.each_on_one_blas_thread(standings):
                if kept is not None and (resumed is None or last.passes > resumed.passes):
                    kept.save(last, requests[0].random)
                yield last
        self._keep(last, models, planned, time.perf_counter() - began)
        self.best_estimator_._warn(max(walk.fell for walk in last.best.walks))

    def plan(self, X: Data, sample_weight: Data = None, client: Client | None = None) -> Plan:
        """What ``fit`` would need for ``X``, worked out without fitting."""
        models = self._models()
        dataset, requests = _prepared(models, X, sample_weight)
        return _planned(self._template, dataset, requests, client or engine.active_client())

    @property
    def _template(self) -> GaussianMixture:
        return GaussianMixture() if self.estimator is None else self.estimator

    def _models(self) -> list[GaussianMixture]:
        """The candidates, not yet fitted."""
        kinds = self.covariance_type
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        counts = self.n_components
        counts = [counts] if isinstance(counts, int | np.integer) else list(counts)
        if not kinds or not counts:
            raise UsageError("there is nothing to choose from: no n_components or covariance_type")
        template = clone(self._template).set_params(checkpoint=None)  # that is the search's
        return [
            clone(template).set_params(n_components=count, covariance_type=kind)
            for kind in kinds
            for count in counts
        ]

    def _keep(
        self, last: Standings, models: list[GaussianMixture], planned: Plan, seconds: float
    ) -> None:
        self.best_index_ = last.candidates.index(last.best)
        best, model = last.best, models[self.best_index_]
        progress = Progress(last.passes, last.found, best.setting, best.walks, last.nearby)
        model._keep(progress, planned, seconds)
        if hasattr(models[0], "feature_names_in_"):  # only that one saw the names
            model.feature_names_in_ = models[0].feature_names_in_
        self.best_estimator_ = model
        self.best_params_ = {
            "n_components": model.n_components,
            "covariance_type": model.covariance_type,
        }
        self.best_score_ = -best.value
        self.passes_ = last.passes
        self.results_ = [_record(each, self.criterion) for each in last.candidates]
        self.n_features_in_ = model.n_features_in_
        values = np.array([each.value for each in last.candidates])
        singular = np.array([bool(each["singular"]) for each in self.results_])
        self.cv_results_ = {
            "params": [
                {name: record[name] for name in self.best_params_} for record in self.results_
            ],
            "param_n_components": np.array([each["n_components"] for each in self.results_]),
            "param_covariance_type": np.array([each["covariance_type"] for each in self.results_]),
            "mean_test_score": -values,
            "rank_test_score": np.lexsort((values, singular)).argsort() + 1,
        }

    def predict(self, X: Data) -> Any:
        """The most probable component of each row under the best mixture, (N,)."""
        return self._best.predict(X)

    def predict_proba(self, X: Data) -> Any:
        """The probability of each component for each row under the best mixture, (N, K)."""
        return self._best.predict_proba(X)

    def score_samples(self, X: Data) -> Any:
        """The log-density of each row under the best mixture, (N,), in nats."""
        return self._best.score_samples(X)

    def score(self, X: Data, y: None = None) -> float:
        """The mean log-likelihood of rows under the best mixture, in nats."""
        return self._best.score(X)

    @property
    def _best(self) -> GaussianMixture:
        check_is_fitted(self)
        return self.best_estimator_


def select(
    X: Data,
    n_components: int | Iterable[int] = range(1, 11),
    covariance_type: str | Iterable[str] = "full",
    criterion: str = "bic",
    sample_weight: Data = None,
    **parameters: Any,
) -> MixtureSearch:
    """The best mixture for rows ``X`` (N, D): a fitted ``MixtureSearch``.

    ``parameters`` are those of ``GaussianMixture`` that all candidates have.

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
        n_components=n_components,
        covariance_type=covariance_type,
        criterion=criterion,
    )
    return search.fit(X, sample_weight=sample_weight)


def _prepared(
    models: list[GaussianMixture], X: Data, sample_weight: Data
) -> tuple[Dataset, list[Request]]:
    """What is to be fitted to what, both checked as far as that needs no pass."""
    dataset, first = models[0]._prepare(X, sample_weight)
    return dataset, [first, *(model._prepare(dataset, None)[1] for model in models[1:])]


def _planned(
    template: GaussianMixture, dataset: Dataset, requests: list[Request], client: Client | None
) -> Plan:
    """The plan of all ``requests`` side by side."""
    return template._planned(dataset, _together(requests, dataset.dims), client)


def _together(requests: list[Request], dims: int) -> Request:
    """A request that needs the memory of all ``requests`` together."""
    widest = max(requests, key=lambda each: each.structure.centred.width(dims))
    total = sum(each.components * each.n_init for each in requests)
    return replace(widest, components=total, n_init=1)


def _record(candidate: Candidate, criterion: str) -> dict[str, Any]:
    best = candidate.walk.best
    return {
        "n_components": best.mixture.components,
        "covariance_type": best.mixture.structure.name,
        "parameters": best.mixture.free_parameters,
        "score": best.score,
        criterion: candidate.value,
        "iterations": len(candidate.walk.trace),
        "singular": list(candidate.singular),
        "dropped_after": candidate.dropped,
    }
