"""``compare``: how far two models are from each other, and which components moved."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.estimators.alignment import align, check_names, model_of
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.predictor import Predictor
from dgmm.inference.comparing import Estimate, divergences
from dgmm.inference.standard_errors import StandardErrors
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Comparison:
    """How two models differ; ``compare`` tells it.

    Parameters
    ----------
    divergence, divergence_back : Estimate
        The relative entropy of the first from the second, and of the second from the first, in
        nats a row, each with its standard error: what is lost where rows are of the one, and are
        described by the other.
    hellinger : Estimate
        The Hellinger distance: 0 if both are equal, 1 if nothing overlaps.
    order : array (K,) of int, or None
        Component ``order[k]`` of the second is component k of the first; None if they have
        different numbers of components.
    weights : array (K,), or None
        By how much each weight changed, from the first to the second.
    moved : array (K,), or None
        How far each mean moved, in standard deviations of the first's component.
    weights_in_errors, means_in_errors : array (K,), (K, D), or None
        The changes of weights and means by their standard errors, if these were given.

    Examples
    --------
    >>> from dgmm import GaussianMixture, compare
    >>> first = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> other = GaussianMixture.from_parameters([0.4, 0.6], [[9.5], [0.0]], [[[1.0]], [[1.0]]])
    >>> found = compare(first, other)
    >>> found.order.tolist(), found.moved.round(3).tolist(), found.weights.round(3).tolist()
    ([1, 0], [0.0, 0.5], [0.1, -0.1])
    """

    divergence: Estimate
    divergence_back: Estimate
    hellinger: Estimate
    order: NDArray[np.intp] | None = None
    weights: Array | None = None
    moved: Array | None = None
    weights_in_errors: Array | None = None
    means_in_errors: Array | None = None

    def record(self) -> dict[str, Any]:
        """It as JSON has it.

        Returns
        -------
        dict
            Its attributes, by name.

        Examples
        --------
        >>> from dgmm import GaussianMixture, compare
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> compare(model, model).record()["divergence"]
        {'value': 0.0, 'error': 0.0}
        """
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }


def compare(
    model: GaussianMixture | Predictor | Mixture,
    other: GaussianMixture | Predictor | Mixture,
    errors: StandardErrors | None = None,
    other_errors: StandardErrors | None = None,
    n_samples: int = 100_000,
    random_state: int = 0,
) -> Comparison:
    """Tell how far two models are from each other, and which components moved.

    Parameters
    ----------
    model : GaussianMixture, MixtureSearch or Mixture
        The fitted model that is the first.
    other : GaussianMixture, MixtureSearch or Mixture
        A model of as many features.
    errors, other_errors : StandardErrors, optional
        Those of the two models; with one of them the other's parameters are taken for known.
    n_samples : int, default=100_000
        How many rows are drawn from each, for the divergences.
    random_state : int, default=0
        The seed of the draws.

    Returns
    -------
    Comparison
        The divergences with their errors, and what changed where components match (``align``).

    Raises
    ------
    UsageError
        If the two have different numbers of features, or features of other names, or are no models.
    NotFittedError
        If one is not fitted yet.

    Examples
    --------
    >>> from dgmm import GaussianMixture, compare
    >>> first = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
    >>> other = GaussianMixture.from_parameters([1.0], [[1.0]], [[[1.0]]])
    >>> found = compare(first, other)              # exactly 1 / 2
    >>> abs(found.divergence.value - 0.5) < 3 * found.divergence.error < 0.02
    True
    """
    (first, mixture), (second, other_mixture) = model_of(model), model_of(other)
    if mixture.n_features != other_mixture.n_features:
        raise UsageError(
            f"models can be compared that have as many features: one has {mixture.n_features}, the "
            f"other {other_mixture.n_features}"
        )
    check_names(first, second)
    if not isinstance(n_samples, int | np.integer) or n_samples < 100:
        raise UsageError(f"n_samples must be at least 100, not {n_samples!r:.40}")
    distances = divergences(
        mixture, other_mixture, int(n_samples), np.random.default_rng(random_state)
    )
    if mixture.components != other_mixture.components:
        if errors is not None or other_errors is not None:
            raise UsageError("errors are compared of models with as many components")
        return Comparison(*distances)
    order = align(mixture, other_mixture).order
    matched = other_mixture.chosen(order)
    steps = matched.means - mixture.means
    white = [mixture.covariances.whiten(k, step[:, None]) for k, step in enumerate(steps)]
    moved = np.array([np.sqrt(np.sum(each * each)) for each in white])
    weights = matched.weights - mixture.weights
    in_order = np.arange(len(order))
    both = (errors, in_order), (other_errors, order)
    known = [(of_one, places) for of_one, places in both if of_one]
    if not known:
        return Comparison(*distances, order, weights, moved)
    of_weights = np.sqrt(sum(of_one.weights[places] ** 2 for of_one, places in known))
    of_means = np.sqrt(sum(of_one.means[places] ** 2 for of_one, places in known))
    with np.errstate(divide="ignore", invalid="ignore"):  # a single weight is 1, with no error
        ratios = weights / of_weights, steps / of_means
    return Comparison(*distances, order, weights, moved, *ratios)
