"""How sure parameters are, as estimators tell it (dgmm/inference/standard_errors.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.em.prior_spec import NoPrior
from dgmm.errors import UsageError
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.parameters import observation_of, prior_of, threads_of
from dgmm.estimators.session import Data, open_rows
from dgmm.inference import standard_errors
from dgmm.inference.standard_errors import KINDS, ErrorKind, StandardErrors
from dgmm.kernels.sweep import Sweep
from dgmm.model.choice import choose

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Uncertainty(Fitted):
    """The methods that tell how sure parameters are."""

    def standard_errors(
        self,
        X: Data,
        sample_weight: Data = None,
        kind: ErrorKind = "observed",
        sweep: Sweep | None = None,
    ) -> StandardErrors:
        """Estimate the standard errors of all parameters, in one pass over the rows fitted to.

        They are those of maximum likelihood: of the components as they are numbered, at an optimum.
        They say nothing of how sure the number of components is, nor of other optima; for weights
        near 0, or components that overlap a lot, they are too small.

        Parameters
        ----------
        X : rows (N, D)
            Those that the model was fitted to, in any form that ``fit`` takes.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms.  They count as repetitions; for weights by which
            rows were sampled, take ``kind="sandwich"``.
        kind : {"observed", "empirical", "sandwich"}, default="observed"
            By what: the second derivatives of the log-likelihood; the outer products of the rows'
            scores; or both, which holds for a model that is only near the truth, too.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        StandardErrors
            In the shapes of ``weights_``, ``means_`` and ``covariances_``.

        Raises
        ------
        UsageError
            For a noise component, heavy tails, priors, fixed parameters, known errors or labels of
            rows, other covariance types than the four plain ones, and models of more than 1,200
            free parameters.
        DataError
            If the rows can't be used, or don't tell all parameters.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(400, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> errors = model.standard_errors(rows)
        >>> errors.weights.round(3).tolist()
        [0.022, 0.022]
        """
        model = self._fitted
        check(model)
        choose("kind", kind, KINDS)
        dataset = open_rows(model, X, {"weights": sample_weight})
        check_rows(dataset)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        observation = observation_of(model)
        return standard_errors.standard_errors(sweep, model.mixture_, observation, kind)


def check(model: GaussianMixture) -> None:
    """Raise ``UsageError`` for models whose standard errors are not told."""
    if prior_of(model).name != NoPrior.name:
        raise UsageError(
            "standard errors are those of maximum likelihood: they are not told of a model with "
            f"prior={prior_of(model).name!r}"
        )
    if model.fit_info_.get("fixed"):
        raise UsageError("standard errors are not told of models with fixed parameters")
    standard_errors.check(model.mixture_)


def check_rows(dataset: Dataset, what: str = "standard errors are") -> None:
    """Raise ``UsageError`` for rows with known errors or labels."""
    for name, told in (("noise", dataset.noise), ("labels", dataset.labels)):
        if told is not None:
            raise UsageError(f"{what} not told by rows with {name}: leave that out")
