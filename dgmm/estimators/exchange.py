"""Models made of parameters, JSON or scikit-learn's models; and models of scikit-learn of ours."""

from abc import abstractmethod
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from dgmm.errors import UsageError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.given_values import mixture_of, with_given_tails
from dgmm.estimators.judging import judged
from dgmm.estimators.record import become
from dgmm.io import plain
from dgmm.model.covariance import COVARIANCE_MODELS, CovarianceType
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture

mixture = Late("sklearn.mixture")

SHARED: Final = (
    *("n_components", "covariance_type", "max_iter", "n_init", "random_state", "warm_start"),
    *("weights_init", "means_init", "precisions_init"),
)
"""Parameters that have the same meaning in both."""


class Exchange(Fitted):
    """The methods that make a model without a fit, and a model of scikit-learn of ours."""

    @abstractmethod
    def __init__(self, n_components: int = 1, **params: Any) -> None:
        """What ``GaussianMixture`` takes."""

    @classmethod
    def from_parameters(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike | None = None,
        *,
        precisions: ArrayLike | None = None,
        covariance_type: CovarianceType = "full",
        **params: Any,
    ) -> Self:
        """A fitted model of given parameters.

        It predicts, scores, draws samples and is saved as any other model; with
        ``warm_start=True`` a fit begins there.  It has seen no rows: it has no
        ``sufficient_statistics_``, and its ``lower_bound_`` is minus infinity.

        Parameters
        ----------
        weights : array-like (K,)
            The components' weights, which sum to 1.
        means : array-like (K, D)
            The components' means.
        covariances, precisions : array-like
            One of the two, not both: (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical; with
            ``n_factors`` covariances (K, D, 1 + q), the noise variances and beside them loadings.
        covariance_type : str, default="full"
            What the covariances may be, as in ``GaussianMixture``.  Those that have parts in common
            must be given so, but for rounding.
        **params
            Other parameters of ``GaussianMixture``.  With ``tails="student"``, ``dof`` is a number,
            or one for each component, and the ``covariances`` are the scale matrices.

        Raises
        ------
        UsageError
            If they can't be the parameters of a mixture, or if a noise component is asked for,
            whose box they don't tell.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[0.0], [9.0]], [[1.0], [4.0]], covariance_type="diag"
        ... )
        >>> model.predict([[1.0], [8.0]])
        array([0, 1])
        """
        count = params.get("n_factors")
        mixture = mixture_of(covariance_type, weights, means, covariances, precisions, count)
        model: Any = cls(mixture.components, covariance_type=covariance_type, **params)
        become(model, **given(with_given_tails(model, mixture)))
        return cast(Self, model)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make a model of parameters as ``to_json`` writes them.

        Parameters
        ----------
        text : str
            The JSON.

        Returns
        -------
        GaussianMixture
            A fitted model; with ``warm_start=True`` a fit begins there.

        Raises
        ------
        ModelFileError
            If these are no parameters of a mixture.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.5]], [[[1.0]]])
        >>> GaussianMixture.from_json(model.to_json()).means_.tolist()
        [[0.5]]
        """
        mixture, names = plain.loads(text)
        kind: Any = mixture.covariance_model.name
        model = cls(
            mixture.components,
            covariance_type=kind,
            n_factors=mixture.covariance_model.factor_count,
            noise_component=mixture.noise_component is not None,
            tails="normal" if mixture.tails is None else "student",
        )
        named = {} if names is None else {"feature_names_in_": np.array(names, dtype=object)}
        become(model, **given(mixture), **named)
        return model

    @classmethod
    def from_sklearn(cls, model: Any) -> Self:
        """Make a model of a fitted mixture of scikit-learn.

        Parameters
        ----------
        model : sklearn.mixture.GaussianMixture or BayesianGaussianMixture
            Fitted.  Of a Bayesian one, the means of its posterior are taken.

        Returns
        -------
        GaussianMixture
            A fitted model of its parameters; with ``warm_start=True`` a fit begins there.

        Raises
        ------
        UsageError
            If it is not fitted.

        Examples
        --------
        >>> import numpy as np, sklearn.mixture
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> theirs = sklearn.mixture.GaussianMixture(2, random_state=0).fit(rows)
        >>> ours = GaussianMixture.from_sklearn(theirs)
        >>> bool(np.allclose(ours.score_samples(rows), theirs.score_samples(rows)))
        True
        """
        needed = ("weights_", "means_", "covariances_")
        missing = [name for name in needed if not hasattr(model, name)]
        if missing:
            raise UsageError(
                f"a fitted mixture of scikit-learn has weights_, means_ and covariances_; this "
                f"{type(model).__name__} has no {', '.join(missing)}"
            )
        covariances = np.asarray(model.covariances_, dtype=np.float64)
        kind = COVARIANCE_MODELS.get(model.covariance_type)
        if kind is not None and kind.correlates:  # of float32 symmetric but for rounding
            covariances = (covariances + covariances.swapaxes(-1, -2)) / 2
        result: Any = cls.from_parameters(
            model.weights_ / np.sum(model.weights_),
            model.means_,
            covariances,
            covariance_type=model.covariance_type,
            random_state=model.random_state,
        )
        if hasattr(model, "feature_names_in_"):
            result.feature_names_in_ = np.array(model.feature_names_in_)
        return cast(Self, result)

    def to_sklearn(self) -> Any:
        """Make a mixture of scikit-learn that says the same of rows.

        Returns
        -------
        sklearn.mixture.GaussianMixture
            Fitted: it predicts, scores and draws as this model does, in memory.

        Raises
        ------
        UsageError
            If the model has what scikit-learn has not: a noise component, heavy tails, factors, or
            a variational posterior.
        NotFittedError
            Before the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> model.to_sklearn().predict(rows).tolist() == model.predict(rows).tolist()
        True
        """
        model = self._fitted
        fitted = model.mixture_
        if fitted.noise_component is not None or fitted.tails is not None:
            raise UsageError(
                "scikit-learn has no mixtures with a noise component or heavy tails: there is none "
                "that says the same"
            )
        if judged(model)[0] is not fitted:
            raise UsageError(
                "scikit-learn's GaussianMixture has no posterior, and there is none that says the "
                "same as a variational fit; GaussianMixture.from_json(model.to_json()) is a plain "
                "mixture of the same labels, which has one"
            )
        if fitted.covariance_model.along_loadings:
            raise UsageError(
                "scikit-learn has no mixtures with "
                f"covariance_type={fitted.covariance_model.name!r}; "
                'one of "full" has their component_covariances_'
            )
        params = {name: getattr(model, name) for name in SHARED}
        params["covariance_type"] = fitted.covariance_model.plain.name
        result = mixture.GaussianMixture(**params)
        for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
            setattr(result, name, np.array(getattr(model, name)))
        for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
            setattr(result, name, getattr(model, name))
        if hasattr(model, "feature_names_in_"):
            result.feature_names_in_ = model.feature_names_in_.copy()
        return result


def given(mixture: Mixture) -> dict[str, Any]:
    """What a model has that was made of a ``mixture``, without a fit."""
    return {
        "mixture_": mixture,
        "converged_": False,
        "n_iter_": 0,
        "lower_bounds_": [],
        "lower_bound_": -np.inf,
        "fit_info_": {"strategy": "given", "empty": [], "singular": []},
        "n_features_in_": mixture.n_features,
    }
