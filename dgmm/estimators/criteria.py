"""How well a fitted mixture fits rows: their mean log-likelihood, and information criteria."""

from __future__ import annotations

import math
from dataclasses import replace

from dgmm import engine
from dgmm.em.criteria import Compared, score_each
from dgmm.errors import DataError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.judging import judged
from dgmm.estimators.parameters import observation_of, threads_of
from dgmm.estimators.row_outputs import warn_without_noise
from dgmm.estimators.rows import Data, open_rows
from dgmm.kernels.observation import NONE_COUNT
from dgmm.kernels.sweep import Sweep
from dgmm.model.fixed import free_parameters


class Criteria(Fitted):
    """The methods that judge a fitted mixture by rows, in one pass over them."""

    def score(
        self, X: Data, y: None = None, sample_weight: Data = None, noise: Data = None
    ) -> float:
        """The mean log-likelihood of the rows of ``X``, in nats, weighted if asked.

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
        float
            In nats a row, per unit of weight.

        Raises
        ------
        DataError
            If the rows can't be used.

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
        return self.criteria(X, sample_weight, noise=noise)["score"]

    def bic(self, X: Data, sample_weight: Data = None, noise: Data = None) -> float:
        """The Bayesian information criterion of the model for ``X``; lower is better.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.

        Returns
        -------
        float
            -2 L + p log N, for p free parameters, in nats.

        Raises
        ------
        DataError
            If the rows can't be used.

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
        return self.criteria(X, sample_weight, noise=noise)["bic"]

    def aic(self, X: Data, sample_weight: Data = None, noise: Data = None) -> float:
        """Akaike's information criterion of the model for ``X``; lower is better.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.

        Returns
        -------
        float
            -2 L + 2 p, for p free parameters, in nats.

        Raises
        ------
        DataError
            If the rows can't be used.

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
        return self.criteria(X, sample_weight, noise=noise)["aic"]

    def criteria(
        self,
        X: Data,
        sample_weight: Data = None,
        sweep: Sweep | None = None,
        noise: Data = None,
    ) -> dict[str, float]:
        """``score``, ``aic`` and ``bic`` of ``X`` in one pass, and of how many rows.

        The weights count as numbers of rows.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        dict
            The three by name; and ``judged``, how many rows have a weight and a value.

        Raises
        ------
        DataError
            If the rows can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> sorted(model.criteria(rows))
        ['aic', 'bic', 'judged', 'score']
        """
        model = self._fitted
        beside = {"weights": sample_weight, "noise": noise}
        dataset = open_rows(model, X, beside, sparse=True)
        warn_without_noise(model, dataset)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        observation = observation_of(model, dataset.noise is not None)
        mixture, offset = judged(model)
        (total,) = sweep(score_each, Compared((mixture,), observation)).parts
        if not total.weight > 0:
            raise DataError(NONE_COUNT.format("score"))
        total = replace(total, value=total.value + offset * total.weight)
        parameters = free_parameters(model.mixture_, model.fit_info_)
        deviance, weight = -2 * float(total.value), float(total.weight)
        return {
            "score": float(total.value) / weight,
            "aic": deviance + 2 * parameters,
            "bic": deviance + parameters * math.log(weight),
            "judged": total.rows,
        }
