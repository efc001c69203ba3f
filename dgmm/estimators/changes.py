"""Whether rows are still like those of the fit, as estimators tell it (dgmm/inference/drift.py)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dgmm import engine
from dgmm.errors import DgmmWarning, UsageError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.parameters import observation_of, threads_of
from dgmm.estimators.rows import Data, open_rows
from dgmm.estimators.uncertainty import check_fit, check_rows, prior_name
from dgmm.inference import drift, standard_errors
from dgmm.inference.drift import Drift
from dgmm.inference.information import Query
from dgmm.inference.means import Means
from dgmm.kernels.sweep import Sweep
from dgmm.model.frame import Frame

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Changes(Fitted):
    """The methods that compare rows with those that a model was fitted to."""

    def drift(self, X: Data, sample_weight: Data = None, sweep: Sweep | None = None) -> Drift:
        """Test, in one pass and without a fit, whether rows are like those of the fit.

        It is a score test of all parameters, and of each component's weight, mean and covariance;
        it does not take the model for the truth, and knows that the parameters were estimated.
        Beside the tests stand effects, as with many rows any change is significant.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame: rows that the
            model was not fitted to.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms; they count as repetitions.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        Drift
            The tests and the effects.

        Raises
        ------
        UsageError
            For a noise component, heavy tails, priors, known errors or labels of rows, other
            covariance types than the four plain ones, and models of more than 1,200 free
            parameters.
        DataError
            If the rows can't be used, or are fewer than 20 for each free parameter.

        Warns
        -----
        DgmmWarning
            If a few rows, very far from all components, hide what else changed.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> random = np.random.default_rng(0)
        >>> rows = random.normal(size=(4000, 2))
        >>> rows[:2000] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> tonight = random.normal(size=(4000, 2))
        >>> tonight[:2600] += 9
        >>> found = model.drift(tonight)
        >>> found.test.p_value < 1e-9, round(max(each.weight_now for each in found.components), 2)
        (True, 0.65)
        """
        model = self._fitted
        check(model)
        dataset = open_rows(model, X, {"weights": sample_weight})
        check_rows(dataset, "drift is")
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        mixture, statistics = model.mixture_, vars(model).get("sufficient_statistics_")
        mean, variance = mixture.moments_of_components()
        frame_of_mixture = Frame.of(mean, variance, mixture.covariance_model)
        frame = frame_of_mixture if statistics is None else statistics.frame
        query = Query(frame.enter(mixture), frame, observation_of(model))
        before = Means.known(query)
        if statistics is not None:
            sums = statistics.sums, statistics.center, statistics.covariance_model
            before = Means.of_sums(query, *sums, statistics.weight)
        level = model.fit_info_.get("score")
        found = drift.drift(sweep, query, before, level)
        if found.by_few:
            warnings.warn(
                "a few rows, very far from all components, make nearly all of the score, and the "
                "tests see little beside them, nor them: look at these rows (outliers, "
                "find_threshold; dgmm predict --kind outliers), and ask again without them",
                DgmmWarning,
                stacklevel=2,
            )
        return found


def check(model: GaussianMixture) -> None:
    """Raise ``UsageError`` for models by which drift is not told."""
    if (prior := prior_name(model)) is not None:
        raise UsageError(f"drift is not told by a model with prior={prior!r}")
    check_fit(model, "drift is")
    standard_errors.check(model.mixture_, "drift is")
