"""``MixtureSearch`` and ``select``: the best of many mixtures, in the passes of about one fit."""

import warnings
from collections.abc import Collection, Iterator
from typing import Any, Final, Self

from distributed import Client
from sklearn.base import BaseEstimator, DensityMixin, MetaEstimatorMixin

from dgmm import engine
from dgmm.errors import DegenerateWarning
from dgmm.estimator import Data, GaussianMixture
from dgmm.plan import Plan
from dgmm.selection import CRITERIA, Candidate, Standings

SIZES: Final = tuple(range(1, 11))
"""How many components are tried unless told."""


class MixtureSearch(MetaEstimatorMixin, DensityMixin, BaseEstimator):
    """Fit mixtures of several sizes and structures side by side, and keep the best.

    All candidates share every pass over the data, and those that can't win any more leave early
    (``dgmm.selection``).  Afterwards it is used like ``sklearn.model_selection.GridSearchCV``.  A
    fit succeeds, or leaves the search as it was.

    Parameters
    ----------
    estimator : GaussianMixture, optional
        Whose other parameters all candidates have.  Its checkpoint is one of the whole search.
    n_components : int or collection of int, default=(1, 2, ..., 10)
    covariance_type : str or collection of str, default="full"
    criterion : {"bic", "aic", "icl", "heldout"}, default="bic"
        What is minimised; "heldout" is minus the mean log-likelihood of one row in ten, and of one
        at least, which is not fitted to.

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
    at_edge_ : {"fewest", "most"} or None
        Whether the best has as many components as the smallest or the largest candidate, so that
        the range may hide a better one.
    cv_results_ : dict
        The same as scikit-learn's searches have it.
    n_features_in_, feature_names_in_
        As in ``GaussianMixture``.
    passes_ : int
        Over all rows.
    """

    def __init__(
        self,
        estimator: GaussianMixture | None = None,
        *,
        n_components: int | Collection[int] = SIZES,
        covariance_type: str | Collection[str] = "full",
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
            named = [f"{each['n_components']} {each['covariance_type']}" for each in better[:6]]
        warnings.warn(
            f"left out of the choice, though their {criterion} is lower: {', '.join(named)}"
            f"{' and others' * (len(better) > 6)}. Each has a component that nothing but reg_covar "
            "holds up, so that how likely it is depends on that alone. Such a component is of rows "
            "with ties, or of a few rows far from all others: see results_, or leave those out",
            DegenerateWarning,
            stacklevel=5,
        )


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
