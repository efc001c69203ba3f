"""How a fitted model learns from more rows: their statistics, and an M-step from these.

``sufficient_statistics`` has the mathematics, ``incremental`` the checks and the step itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from dgmm import engine
from dgmm.em.columns import Columns
from dgmm.errors import UsageError
from dgmm.estimators import incremental, private
from dgmm.estimators.available import NO_SUMS, adds_up, available_if
from dgmm.estimators.parameters import observation_of, threads_of
from dgmm.estimators.predictor import Predictor
from dgmm.estimators.record import become, warn_of_degenerate
from dgmm.estimators.row_outputs import warn_without_noise
from dgmm.estimators.rows import Data, open_rows
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.inference.privacy import Privacy
from dgmm.kernels import choice
from dgmm.kernels.sweep import Sweep

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class PartialFit(Predictor):
    """The methods that learn from more rows without those seen before."""

    @available_if(adds_up)
    def partial_fit(
        self,
        X: Data,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Self:
        """Learn from more rows: a step of incremental EM, in one pass over them.

        The statistics of the new rows are added to ``sufficient_statistics_``, those of all rows
        seen before, and an M-step is taken.  Earlier rows are not read again, so they keep the
        responsibilities they had; ``dgmm.estimators.sufficient_statistics`` says what is exact in
        that and what is not.  ``lower_bound_`` becomes a lower bound of the objective for all rows
        seen, and ``lower_bounds_`` holds its value before the M-step.  For a model that is not
        fitted yet, this is ``fit``.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight, noise, labels : optional
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
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.partial_fit([[1.0, 3], [10, 9]]).sufficient_statistics_.rows
        202
        """
        if not hasattr(self, "mixture_"):
            return self.fit(X, sample_weight=sample_weight, noise=noise, labels=labels)
        more = self.summarize(X, sample_weight, noise=noise, labels=labels)
        return self.update(_statistics_of(self._fitted) + more)

    def summarize(
        self,
        X: Data,
        sample_weight: Data = None,
        sweep: Sweep | None = None,
        noise: Data = None,
        labels: Data = None,
        privacy: Privacy | None = None,
    ) -> SufficientStatistics:
        """Compute the statistics of ``X`` under the fitted mixture, in one pass; nothing is fitted.

        Statistics from different sites add up, can be saved, and are given to ``update``.  So many
        sites can fit one mixture together; each round is an EM iteration over the rows of all.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise, labels : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.
        privacy : Privacy, optional
            Draw rows in, and add noise to the sums that hides any one of them.

        Returns
        -------
        SufficientStatistics
            The statistics of these rows; ``+`` adds up those of several sites.  With ``privacy``
            they are near those, and the number of rows is a guess, too.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used.

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
        model = self._fitted
        mixture = model.mixture_
        dataset = open_rows(model, X, {"weights": sample_weight, "noise": noise, "labels": labels})
        warn_without_noise(model, dataset)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        reference = replace(_statistics_of(model), observation=observation_of(model))
        beside = dataset.noise is not None, dataset.labels is not None
        if privacy is None:
            found = reference.summarize(sweep, mixture, choice.chosen(), *beside)
            columns = Columns(vars(model).get("feature_names_in_"), dataset.source.integers)
            columns.check_rounding(found.mean, reference.frame.scale)
            return found
        noisy = mixture.noise_component is not None
        private.check_private(model.missing, noisy, any(beside) or dataset.weights is not None)
        radius = privacy.radius(dataset.n_features)
        exact = reference.summarize(sweep, mixture, choice.chosen(), radius=radius)
        return private.hidden(exact, reference.frame.enter(mixture), privacy)

    def update(self, statistics: SufficientStatistics | Mapping[str, SufficientStatistics]) -> Self:
        """Take the M-step from ``statistics``, which become ``sufficient_statistics_``.

        ``fit_info_`` is then the record of that step.

        Parameters
        ----------
        statistics : SufficientStatistics, or a mapping of str to these
            Statistics under this model, or under one that descends from the same fit.  Or those of
            several sites by their names, which are added up: all must be under this very model.

        Returns
        -------
        self
            The fitted model.

        Raises
        ------
        UsageError
            If the statistics do not descend from this model's fit.
        DataError
            If the likelihood would not be finite, or a site is refused by name: its statistics are
            under another model, or those of another site.  The model is then as it was before.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.update(model.summarize(rows)).sufficient_statistics_.rows
        200
        >>> sites = {"north": model.summarize(rows[:90]), "south": model.summarize(rows[90:])}
        >>> model.update(sites).sufficient_statistics_.rows
        200
        """
        model = self._fitted
        reference = _statistics_of(model)
        if isinstance(statistics, Mapping):
            statistics = incremental.together(model, reference, statistics)
        incremental.check_descends(model, reference, statistics)
        step = incremental.step(model.mixture_, statistics)
        names = getattr(model, "feature_names_in_", None)
        noise = model.mixture_.noise_component
        warn_of_degenerate(
            step["fit_info_"], names, model.reg_covar, noise is not None, stacklevel=3
        )
        become(model, **step, n_iter_=model.n_iter_ + 1)
        return self


def _statistics_of(model: GaussianMixture) -> SufficientStatistics:
    """The model's ``sufficient_statistics_``; raises ``UsageError`` if it has none."""
    if not hasattr(model, "sufficient_statistics_"):
        if model.mixture_.covariance_model.along_loadings:
            raise UsageError(NO_SUMS.format(f"covariance_type={model.covariance_type!r}"))
        raise UsageError(
            NO_SUMS.format('tails="student"')
            if model.mixture_.tails is not None
            else "this model was saved without the statistics of its rows, or made of given "
            "parameters; fit it first (with warm_start=True the fit begins here)"
        )
    statistics: SufficientStatistics = model.sufficient_statistics_
    return statistics
