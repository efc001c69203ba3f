"""What a fitted mixture says of rows, the same for a model and for the best one of a search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from dgmm.data.dataset import Dataset
from dgmm.errors import UsageError
from dgmm.estimators.available import available_if, has_factors
from dgmm.estimators.criteria import Criteria
from dgmm.estimators.notebook import NotebookView
from dgmm.estimators.parameters import draws_of, random_of
from dgmm.estimators.row_outputs import outputs_of
from dgmm.estimators.rows import Data
from dgmm.kernels.outputs import DENOISED, FILLED, OUTPUTS
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    Lazy = da.Array | zarr.Array[Any] | str | PathLike[str] | Dataset
    """Rows whose outputs are lazy Dask arrays."""

    InMemory = NDArray[Any] | Sequence[Sequence[float]]
    """Rows whose outputs are NumPy arrays."""

    AnyLabels = NDArray[np.int64] | da.Array
    AnyArray = Array | da.Array

Labels = NDArray[np.int64]
"""Numbers of components."""


class Predictor(Criteria, NotebookView):
    """The methods that need a fitted mixture and rows."""

    @abstractmethod
    def fit(
        self,
        X: Data,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Self:
        """Fit to rows."""

    @overload
    def fit_predict(
        self,
        X: Lazy,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> da.Array: ...
    @overload
    def fit_predict(
        self,
        X: InMemory,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Labels: ...
    @overload
    def fit_predict(
        self,
        X: object,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> AnyLabels: ...
    def fit_predict(
        self,
        X: Data,
        y: None = None,
        sample_weight: Data = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Any:
        """Fit to ``X`` and give the component of each row, (N,).

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
        fitted = self.fit(X, sample_weight=sample_weight, noise=noise, labels=labels)
        return fitted.predict(X, noise=noise)

    @overload
    def predict(self, X: Lazy, noise: Data = None) -> da.Array: ...
    @overload
    def predict(self, X: InMemory, noise: Data = None) -> Labels: ...
    @overload
    def predict(self, X: object, noise: Data = None) -> AnyLabels: ...
    def predict(self, X: Data, noise: Data = None) -> Any:
        """The most probable component of each row of ``X``, (N,).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

        Returns
        -------
        array (N,) of int
            The number of a component, from 0, or -1 for noise; a Dask array where the rows are
            lazy.  Unless ``missing`` is "raise", incomplete rows are judged by what of them was
            observed: with "drop", too; -2 is a row of which nothing was.

        Raises
        ------
        DataError
            If the rows can't be used, or have other features than those of the fit.

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
        return outputs_of(self._fitted, X, OUTPUTS["labels"], noise=noise)

    @overload
    def predict_proba(self, X: Lazy, noise: Data = None) -> da.Array: ...
    @overload
    def predict_proba(self, X: InMemory, noise: Data = None) -> Array: ...
    @overload
    def predict_proba(self, X: object, noise: Data = None) -> AnyArray: ...
    def predict_proba(self, X: Data, noise: Data = None) -> Any:
        """The probability of each component for each row of ``X``, (N, K) or (N, K + 1).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

        Returns
        -------
        array (N, K) or (N, K + 1)
            With a noise component, the last column is that of noise.  Rows sum to 1, or are NaN
            where nothing was observed; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            If the rows can't be used, or have other features than those of the fit.

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
        return outputs_of(self._fitted, X, OUTPUTS["proba"], noise=noise)

    @overload
    def score_samples(self, X: Lazy, noise: Data = None) -> da.Array: ...
    @overload
    def score_samples(self, X: InMemory, noise: Data = None) -> Array: ...
    @overload
    def score_samples(self, X: object, noise: Data = None) -> AnyArray: ...
    def score_samples(self, X: Data, noise: Data = None) -> Any:
        """The log-density of each row of ``X``, (N,), in nats.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

        Returns
        -------
        array (N,)
            In nats, of what was observed, NaN where nothing was; a Dask array where the rows are
            lazy.

        Raises
        ------
        DataError
            If the rows can't be used, or have other features than those of the fit.

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
        return outputs_of(self._fitted, X, OUTPUTS["score"], noise=noise)

    @available_if(has_factors)
    def transform(self, X: Data) -> Any:
        """The factors of each row of ``X`` in its most probable component, (N, q).

        They are what component k expects of them: diag(1 / (1 + s)) L' diag(psi)^-1 (x - mu), with
        s the diagonal of L' diag(psi)^-1 L.  Where ``covariance_type`` is "factor", "factor-tied"
        or "ppca"; the factors of different components have nothing to do with each other, and
        ``predict`` says whose they are.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.

        Returns
        -------
        array (N, q)
            Each is standard normal where the model holds; NaN for rows that are noise, or of which
            nothing was observed; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            If the rows can't be used, or have other features than those of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(500, 1)) @ [[3.0, 2.0, 1.0, 2.0]] + rng.normal(size=(500, 4))
        >>> model = GaussianMixture(covariance_type="factor", n_factors=1, random_state=0)
        >>> model.fit(rows).transform(rows).shape
        (500, 1)
        """
        return outputs_of(self._fitted, X, OUTPUTS["factors"])

    @overload
    def impute(self, X: Lazy, sample: bool = False) -> da.Array: ...
    @overload
    def impute(self, X: InMemory, sample: bool = False) -> Array: ...
    @overload
    def impute(self, X: object, sample: bool = False) -> AnyArray: ...
    def impute(self, X: Data, sample: bool = False) -> Any:
        """The rows of ``X`` with what they lack, (N, D).

        Conditional means are the best guesses, and less spread out than what they stand for;
        draws are as spread out.  They depend on ``random_state`` and on the number of the row, not
        on how rows are cut into blocks (Little and Rubin, Statistical Analysis with Missing Data,
        2002, chapter 4).

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame; NaN is what is
            missing, whatever ``missing`` was in the fit.
        sample : bool, default=False
            Whether to draw from the conditional distribution, in place of taking its mean.

        Returns
        -------
        array (N, D)
            What was observed is as it was; a Dask array where the rows are lazy.

        Raises
        ------
        DataError
            For rows of other features than those of the fit, or that hold infinity.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]
        ... )
        >>> model.impute([[4.0, np.nan], [np.nan, np.nan]]).tolist()
        [[4.0, 2.0], [0.0, 0.0]]
        """
        model = self._fitted
        return outputs_of(model, X, FILLED, draws_of(model) if sample else None)

    @overload
    def denoise(self, X: Lazy, noise: Data) -> da.Array: ...
    @overload
    def denoise(self, X: InMemory, noise: Data) -> Array: ...
    @overload
    def denoise(self, X: object, noise: Data) -> AnyArray: ...
    def denoise(self, X: Data, noise: Data) -> Any:
        """The rows of ``X`` as they are expected to be without their errors, (N, D).

        These are the means of the true rows, given what was seen of them (Bovy, Hogg and Roweis,
        Extreme deconvolution, 2011, equation 11).  They are less spread out than the true rows.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame; NaN is what is
            missing, whatever ``missing`` was in the fit.
        noise : (N, D) or (N, D, D)
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

        Returns
        -------
        array (N, D)
            Values without errors are as they were, what is missing is filled in; a Dask array where
            the rows or their noise are lazy.

        Raises
        ------
        DataError
            For rows of other features than those of the fit, or that hold infinity, or noise that
            no errors can have.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]
        ... )
        >>> noise = [[0.0, np.inf], [1.0, np.inf]]
        >>> model.denoise([[4.0, 0.0], [4.0, 0.0]], noise=noise).round(9).tolist()
        [[4.0, 2.0], [2.0, 1.0]]
        """
        return outputs_of(self._fitted, X, DENOISED, noise=noise)

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows (n_samples, D) and their components (n_samples,), grouped by component.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.

        Returns
        -------
        rows : array (n_samples, D)
            In the units of the rows fitted to.
        components : array (n_samples,) of int
            The component that each row is drawn from; -1 is noise, drawn from its box.

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
        model = self._fitted
        if n_samples < 1:
            raise UsageError(f"Invalid value for 'n_samples': {n_samples}. It must be at least 1")
        mixture: Mixture = model.mixture_
        return mixture.sample(n_samples, random_of(model))
