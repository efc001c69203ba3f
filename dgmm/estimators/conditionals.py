"""What estimators tell of some features, given others (dgmm/inference/regression.py)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.data.dataset import Dataset
from dgmm.data.forms import column_names, columns
from dgmm.errors import DataError, UsageError
from dgmm.estimators.exchange import given
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.judging import judged
from dgmm.estimators.record import become
from dgmm.estimators.row_outputs import outputs_of
from dgmm.estimators.rows import Data
from dgmm.inference.regression import ANSWERS, AnswerKind, check_regressed, regression
from dgmm.kernels.observation import Marginal
from dgmm.kernels.outputs import Output
from dgmm.model.choice import choose
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture

    Feature = Hashable
    """A feature: its number from 0, or its name, where features have names."""

gaussian_mixture = Late("dgmm.estimators.gaussian_mixture")

KEPT = ("missing", "tails", "random_state", "n_jobs", "memory", "cache")
"""The parameters that models of fewer features have from the model that they were made of."""


class Conditionals(Fitted):
    """The methods that make models of fewer features, and predict features from others."""

    def marginal(self, features: Sequence[Feature]) -> GaussianMixture:
        """The model of some features alone, whatever the others are.

        Parameters
        ----------
        features : sequence of int or str
            Their numbers from 0, or their names, in the order that they are to have.

        Returns
        -------
        GaussianMixture
            A model in its own right, of the same covariance type where its parts are of that, too;
            it has seen no rows.

        Raises
        ------
        UsageError
            If there is no such feature, or one is there twice.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0, 0], [8, 4]], [[1.0, 1], [1, 4]], covariance_type="diag"
        ... )
        >>> model.marginal([1]).means_.tolist()
        [[0.0], [4.0]]
        """
        model = self._fitted
        places = places_of(model, features)
        return model_of(model, judged(model)[0].among(np.array(places)), places)

    def condition(self, values: Mapping[Feature, float]) -> GaussianMixture:
        """The model of the other features, where some have known ``values``.

        Parameters
        ----------
        values : dict
            Values of features, by their numbers from 0 or their names.

        Returns
        -------
        GaussianMixture
            A model in its own right, with full covariances; it has seen no rows.

        Raises
        ------
        UsageError
            If there is no such feature, no other is left, or a value is no number.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]
        ... )
        >>> given = model.condition({0: 4.0})
        >>> given.means_.tolist(), given.covariances_.tolist()
        ([[2.0]], [[[0.75]]])
        """
        model = self._fitted
        if not isinstance(values, Mapping):
            raise UsageError(f"values must be a dict, of features and values, not {values!r:.40}")
        places = places_of(model, list(values))
        free = [j for j in range(model.n_features_in_) if j not in places]
        if not free:
            raise UsageError("all features have values: there is nothing left to tell of")
        point = np.array([_number(value) for value in values.values()])
        return model_of(model, judged(model)[0].conditional(places, point), free)

    def regress(
        self,
        X: Data,
        targets: Sequence[Feature],
        kind: AnswerKind = "mean",
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    ) -> Any:
        """Predict the ``targets`` of rows from all other features, in one pass.

        Each row has a mixture of the targets, given what is known of it: this tells its mean, its
        covariance, or its quantiles, which are those of the mixture, not of a normal distribution.

        Parameters
        ----------
        X : rows (N, D - T)
            The features that are no targets, in their order: array-like, Dask or Zarr array, path,
            URL, ``Dataset``, or a lazy frame.  NaN is what is not known of a row, whatever
            ``missing`` was in the fit.
        targets : sequence of int or str
            The T features to predict: their numbers from 0 among all features, or their names.
        kind : {"mean", "covariance", "quantiles"}, default="mean"
            What to tell.
        quantiles : sequence of float
            The Q levels of "quantiles", above 0 and below 1.

        Returns
        -------
        array (N, T), (N, T, T) or (N, T, Q)
            The mean; the covariance; the quantiles of each target by itself.  A Dask array where
            the rows are lazy.

        Raises
        ------
        UsageError
            If there is no such feature, for a model with a noise component or heavy tails, or for
            rows with known errors.
        DataError
            If the rows can't be used.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]
        ... )
        >>> model.regress([[4.0], [float("nan")]], targets=[1]).tolist()
        [[2.0], [0.0]]
        >>> model.regress([[4.0]], [1], kind="quantiles", quantiles=[0.5]).round(9).tolist()
        [[[2.0]]]
        """
        known, output = regression_of(self._fitted, targets, kind, quantiles)
        check_plain(X)
        _refuse_targets(X, self._fitted, targets)
        return outputs_of(known, X, output)


def regression_of(
    model: GaussianMixture, targets: Sequence[Feature], kind: str, quantiles: Iterable[float]
) -> tuple[GaussianMixture, Output]:
    """The model of the features that are no targets, and the output of rows of these."""
    mixture = judged(model)[0]
    check_regressed(mixture, "regress")
    places = places_of(model, targets)
    known = [j for j in range(model.n_features_in_) if j not in places]
    if not known:
        raise UsageError("all features are targets: none is left to predict them from")
    levels = tuple(_number(quantile) for quantile in quantiles)
    if not levels or not all(0 < level < 1 for level in levels):
        raise UsageError(f"quantiles must be above 0 and below 1, not {quantiles!r:.60}")
    answer = choose("kind", kind, ANSWERS)(levels)
    names = vars(model).get("feature_names_in_")
    called = [str(j if names is None else names[j]) for j in places]
    predictor = model_of(model, mixture.among(np.array(known)), known)
    predictor.set_params(missing=Marginal.name)
    return predictor, regression(mixture, known, places, answer, called)


def check_plain(X: Data) -> None:
    """Raise ``UsageError`` if rows have anything beside them that a regression does not use."""
    if isinstance(X, Dataset) and X.noise is not None:
        raise UsageError("regress knows of no errors of rows (noise): give rows without them")


def _refuse_targets(X: Data, model: GaussianMixture, targets: Sequence[Feature]) -> None:
    """Raise ``DataError`` if a frame of rows has columns of the ``targets``, as one of all has."""
    frame, names = columns(X), vars(model).get("feature_names_in_")
    if frame is None or names is None:
        return
    held = {names[j] for j in places_of(model, targets)}.intersection(column_names(frame))
    if held:
        raise DataError(
            f"the rows have columns of targets, {', '.join(sorted(map(str, held)))}: leave these "
            "out of the rows that they are predicted from"
        )


def model_of(model: GaussianMixture, mixture: Mixture, places: Sequence[int]) -> GaussianMixture:
    """A model of a ``mixture`` of some of the features of another, those at ``places``."""
    params = {name: getattr(model, name) for name in KEPT}
    result: GaussianMixture = gaussian_mixture.GaussianMixture(
        mixture.components,
        covariance_type=mixture.covariance_model.name,
        n_factors=mixture.covariance_model.factor_count,
        noise_component=mixture.noise_component is not None,
        **params,
    )
    names = vars(model).get("feature_names_in_")
    kept_names = None if names is None else np.asarray(names, dtype=object)[list(places)]
    become(result, **given(mixture), feature_names_in_=kept_names)
    return result


def places_of(model: GaussianMixture, features: Sequence[Feature]) -> list[int]:
    """The numbers of features that are given by number or name."""
    if isinstance(features, str | int) or not isinstance(features, Iterable):
        raise UsageError(f"features must be a list of names or numbers, not {features!r:.40}")
    names = list(vars(model).get("feature_names_in_", ()))
    places = [_place(feature, names, model.n_features_in_) for feature in features]
    if not places:
        raise UsageError("give one feature at least")
    if len(set(places)) < len(places):
        raise UsageError(f"a feature is named twice among {list(features)!r:.60}")
    return places


def _place(feature: Any, names: list[Any], count: int) -> int:
    if feature in names:
        return names.index(feature)
    number = isinstance(feature, int | np.integer) and not isinstance(feature, bool)
    if number and -count <= feature < count:
        return int(feature) % count
    known = f"they are called {', '.join(map(str, names))}" if names else "they have no names"
    raise UsageError(f"there is no feature {feature!r}: there are {count}, from 0, and {known}")


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise UsageError(f"{value!r:.40} is no number")
    return number
