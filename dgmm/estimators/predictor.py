"""What a fitted mixture says of rows, the same for a model and for the best one of a search.

NumPy in, NumPy out; Dask in, lazy Dask out, in the same row chunks, also for a dask.dataframe;
xarray in, xarray out, on the axes of rows; for a path, a URL or a Zarr array, lazy Dask out, in the
dataset's blocks.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, overload

import dask.array as da
import numpy as np
import zarr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.data.source import Source
from dgmm.data.sources import DaskSource
from dgmm.em.criteria import Compared, score_each
from dgmm.errors import DataError, MissingNoiseWarning, UsageError
from dgmm.estimators.available import available_if, has_factors
from dgmm.estimators.notebook import Shown
from dgmm.estimators.parameters import draws_of, observation_of, random_of, threads_of
from dgmm.estimators.session import STORED, Data, open_rows
from dgmm.kernels.observation import NONE_COUNT
from dgmm.kernels.outputs import DENOISED, FILLED, OUTPUTS, Output, RowOutputs
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array
from dgmm.model.fixed import free_parameters
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

    Lazy = da.Array | zarr.Array[Any] | str | PathLike[str] | Dataset
    """Rows whose outputs are lazy Dask arrays."""

    InMemory = NDArray[Any] | Sequence[Sequence[float]]
    """Rows whose outputs are NumPy arrays."""

    AnyLabels = NDArray[np.int64] | da.Array
    AnyArray = Array | da.Array

Labels = NDArray[np.int64]
"""Numbers of components."""


class Predictor(Shown):
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
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.
        labels : (N,) or (N, K), optional
            What is known of the rows' components, for the fit, as ``fit`` has it.

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
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

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
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

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
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

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
        sample_weight : (N,), optional
            Weights of the rows, in the same forms, or one for all; by default each counts as one.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.  A
            value of infinite variance is missing.

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
        mixture, offset = model.judged()
        (total,) = sweep(score_each, Compared((mixture,), observation)).parts
        if not total.weight > 0:
            raise DataError(NONE_COUNT.format("score"))
        total = replace(total, value=total.value + offset * total.weight)
        parameters = free_parameters(model.mixture_, model.fit_info_)
        return {
            "score": total.value / total.weight,
            "aic": -2 * total.value + 2 * parameters,
            "bic": -2 * total.value + parameters * float(np.log(total.weight)),
            "judged": total.rows,
        }

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


def warn_without_noise(model: GaussianMixture, dataset: Dataset, stacklevel: int = 3) -> None:
    """Say that a model knew of errors of rows, if none are given for those of ``dataset``."""
    if dataset.noise is None and model.fit_info_.get("noise"):
        warnings.warn(
            "the model was fitted to rows with known errors, and none are given for these: they "
            "are judged as if they had none. Give noise= (--noise); zeros say that there are none",
            MissingNoiseWarning,
            stacklevel=stacklevel,
        )


def outputs_of(
    model: GaussianMixture,
    X: Data,
    output: Output,
    seed: int | None = None,
    noise: Data = None,
) -> Any:
    """What a fitted model says of each row: an array, or a lazy one."""
    dataset = open_rows(model, X, {"noise": noise}, sparse=output.judges)
    if output is DENOISED and dataset.noise is None:
        raise UsageError("denoise needs the noise of the rows")
    if not output.fills:
        warn_without_noise(model, dataset, stacklevel=4)
    wanted = model.row_outputs(output, seed, dataset.noise is not None)
    values = _of_dataset(model, X, dataset, wanted)
    if dataset.axes is None:
        return values
    return dataset.axes.put_back(values, output.name, output.by_feature, output.axes)


def _of_dataset(model: GaussianMixture, X: Data, dataset: Dataset, wanted: RowOutputs) -> Any:
    """The same for opened rows."""
    elsewhere = isinstance(X, STORED) or not dataset.source.in_process
    if dataset.lazy or (elsewhere and not isinstance(X, np.ndarray)):
        return _lazy_outputs(dataset, wanted)
    values = np.empty((dataset.rows, *wanted.columns), dtype=wanted.output.dtype)

    def fill(index: int) -> None:
        block = dataset.block(index)
        values[block.start : block.start + len(block.rows)] = wanted(block)

    with engine.one_blas_thread(), ThreadPoolExecutor(threads_of(model) or CPU_COUNT) as pool:
        list(pool.map(fill, range(dataset.blocks)))
    return values


def _lazy_outputs(dataset: Dataset, wanted: RowOutputs) -> Any:
    """The same as a Dask array: of the rows' own chunks, or of the dataset's blocks."""
    columns = wanted.columns
    chunks = (tuple(np.diff(dataset.divisions).tolist()), *((n,) for n in columns))
    meta = np.empty((0,) * (1 + len(columns)), dtype=wanted.output.dtype)
    if not isinstance(dataset.source, DaskSource):
        return da.map_blocks(_output_block, (dataset, wanted), chunks=chunks, meta=meta)
    if dataset.noise is not None:
        return _noisy_outputs(dataset.source.array, dataset, wanted, meta)
    return da.map_blocks(
        _output_chunk,
        *(dataset.source.array, wanted),
        chunks=chunks,
        drop_axis=None if columns else 1,
        new_axis=list(range(2, 1 + len(columns))) or None,
        meta=meta,
    )


def _noisy_outputs(rows: da.Array, dataset: Dataset, wanted: RowOutputs, meta: NDArray[Any]) -> Any:
    """The same of the chunks of ``rows`` with their noise."""
    source = dataset.noise
    assert source is not None
    if isinstance(source, DaskSource):
        noise = source.array
    else:
        chunks = (rows.chunks[0], *((n,) for n in source.shape[1:]))
        noise = da.map_blocks(_noise_chunk, source, chunks=chunks, dtype=source.dtype)
    starts = da.from_array(dataset.divisions[:-1], chunks=1)
    columns = dict(zip("uv", wanted.columns, strict=False))
    return da.blockwise(
        _noisy_output,
        ("n", *columns),
        *(rows, "nd", noise, "nab"[: noise.ndim], starts, "n", wanted, None),
        new_axes=columns,
        concatenate=True,
        align_arrays=False,
        meta=meta,
    )


def _noise_chunk(source: Source, block_info: dict[Any, Any]) -> NDArray[Any]:
    start, stop = block_info[None]["array-location"][0]
    return source.read(start, stop)


def _noisy_output(
    rows: NDArray[Any], noise: NDArray[Any], starts: NDArray[Any], wanted: RowOutputs
) -> NDArray[Any]:
    with engine.one_blas_thread():
        return wanted(Block(int(starts[0]) if len(starts) else 0, rows, noise=noise))


def _output_block(given: tuple[Dataset, RowOutputs], block_info: dict[Any, Any]) -> NDArray[Any]:
    dataset, wanted = given
    block = dataset.block(block_info[None]["chunk-location"][0])
    with engine.one_blas_thread():
        return wanted(block)


def _output_chunk(
    rows: NDArray[Any], wanted: RowOutputs, block_info: dict[Any, Any]
) -> NDArray[Any]:
    with engine.one_blas_thread():
        return wanted(Block(block_info[0]["array-location"][0][0], rows))
