"""Which rows are odd, as estimators tell it (dgmm/inference/odd_rows.py)."""

from __future__ import annotations

from typing import Any, Self

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.errors import UsageError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.parameters import threads_of
from dgmm.estimators.record import become
from dgmm.estimators.row_outputs import outputs_of, row_outputs_of, warn_without_noise
from dgmm.estimators.rows import Data, open_rows
from dgmm.inference import odd_rows, oddness
from dgmm.inference.odd_rows import Threshold
from dgmm.kernels.outputs import OUTPUTS, Output
from dgmm.kernels.sweep import Sweep


class OddRows(Fitted):
    """The methods that find thresholds of the log-density, and the rows below."""

    @property
    def threshold_(self) -> Threshold:
        """The threshold that was kept; there is no such attribute before ``keep_threshold``."""
        kept = vars(self._fitted).get("threshold_")
        if kept is None:
            raise AttributeError(
                f"this {type(self).__name__} keeps no threshold: see keep_threshold"
            )
        threshold: Threshold = kept
        return threshold

    def find_threshold(
        self, X: Data, rate: float, noise: Data = None, sweep: Sweep | None = None
    ) -> Threshold:
        """Find the log-density below which a share ``rate`` of the rows of ``X`` lies.

        It is that of one of the rows, exact in double precision, as a sort of all would find it,
        in two to four passes.  Rows strictly below it are odd: never more than ``rate`` times the
        number of rows, rounded down, and fewer where rows tie.  Rows are counted, not weighted;
        rows of which nothing was observed don't count.  Rows with holes are judged by what was
        observed, and log-densities of fewer features are of another size: a threshold says most of
        rows with the same features.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        rate : float
            The share of rows that are to be odd, above 0 and below 1.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        Threshold
            The log-density, and how many of how many rows are below; the model stays as it is.

        Raises
        ------
        UsageError
            For a rate that is no share, or rows with weights.
        DataError
            If the rows can't be used, or the rate is less than one of them.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(1000, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> found = model.find_threshold(rows, rate=0.01)
        >>> bool(found.log_density == np.sort(model.score_samples(rows))[10]), found.flagged
        (True, 10)
        """
        model = self._fitted
        dataset = open_rows(model, X, {"noise": noise})
        if dataset.weights is not None:
            raise UsageError("a threshold counts rows, each as one: give rows without weights")
        warn_without_noise(model, dataset)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        wanted = row_outputs_of(model, OUTPUTS["score"], noise=dataset.noise is not None)
        return odd_rows.find(sweep, wanted, rate)

    def keep_threshold(self, threshold: Threshold | None) -> Self:
        """Keep a threshold in the model, as ``threshold_``, and in its file.

        Another fit or update drops it, as densities are others then.

        Parameters
        ----------
        threshold : Threshold or None
            Of ``find_threshold``; none is kept after None.

        Returns
        -------
        self
            The model.

        Raises
        ------
        UsageError
            If it is no ``Threshold``.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(1000, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> model = model.keep_threshold(model.find_threshold(rows, rate=0.01))
        >>> model.outliers([[0.0, 0.0], [9.0, 9.0]]).tolist()
        [False, True]
        """
        if not isinstance(threshold, Threshold | None):
            raise UsageError(
                f"keep_threshold needs what find_threshold gives, not {threshold!r:.40}"
            )
        become(self._fitted, threshold_=threshold)
        return self

    def outliers(self, X: Data, rate: float | None = None, noise: Data = None) -> Any:
        """Whether each row of ``X`` is odd, (N,): its log-density is below a threshold.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        rate : float, optional
            The share of the rows of ``X`` that are odd, by ``find_threshold``; by default the
            threshold is the one that was kept, ``threshold_``.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.

        Returns
        -------
        array (N,) of bool
            A Dask array where the rows are lazy.  A row of which nothing was observed is not odd.

        Raises
        ------
        UsageError
            If no ``rate`` is given and no threshold was kept.
        DataError
            If the rows can't be used, or the rate is less than one of them.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(1000, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> int(model.outliers(rows, rate=0.01).sum())
        10
        """
        model = self._fitted
        if rate is not None:
            threshold = self.find_threshold(X, rate, noise)
        elif (kept := vars(model).get("threshold_")) is not None:
            threshold = kept
        else:
            raise UsageError(
                "which rows are odd? Give rate=, the share of these rows that are; or keep a "
                "threshold of other rows: model.keep_threshold(model.find_threshold(rows, rate))"
            )
        return outputs_of(model, X, odd_rows.outliers_below(threshold.log_density), noise=noise)

    def distances(self, X: Data) -> Any:
        """The Mahalanobis distance of each row of ``X`` to each component, (N, K).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N, K)
            In standard deviations, of what was observed of a row, NaN where nothing was; for heavy
            tails, by the scale matrices.  A Dask array where the rows are lazy.

        Raises
        ------
        UsageError
            For rows with known errors.
        DataError
            If the rows can't be used.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> model.distances([[3.0, 4.0]]).tolist()
        [[5.0, 5.0]]
        """
        return self._outputs(X, oddness.DISTANCES)

    def deviations(self, X: Data) -> Any:
        """How far each feature of a row is from what its other features make one expect, (N, D).

        This tells by which features a row is odd: a wrong value stands out, also where each value
        by itself is an ordinary one.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N, D)
            The differences, in standard deviations of the feature where the others are known, by
            the row's most probable component; NaN where nothing was observed.  A Dask array where
            the rows are lazy.

        Raises
        ------
        UsageError
            For rows with known errors.
        DataError
            If the rows can't be used.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [1.0], [[0.0, 0, 0]], [[[1.0, 0.96, 0], [0.96, 1, 0], [0, 0, 1]]]
        ... )
        >>> model.deviations([[1.0, -1.0, 1.0]]).round(1).tolist()
        [[7.0, -7.0, 1.0]]
        """
        return self._outputs(X, oddness.DEVIATIONS)

    def _outputs(self, X: Data, output: Output) -> Any:
        """An output of rows without known errors."""
        if isinstance(X, Dataset) and X.noise is not None:
            raise UsageError(f"{output.name} are not told of rows with known errors (noise)")
        return outputs_of(self._fitted, X, output)
