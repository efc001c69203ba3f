"""First mixtures, found on a sample of the rows.

The sample is uniform over the whole dataset and lies in memory, so scikit-learn's own k-means
serves.  When the sample holds every row (100 000, or fewer with more than 40 features), the start
by a method that is named is the very one that scikit-learn's ``GaussianMixture`` makes
from the same ``random_state``.

There, k-means works on the rows as they are, up to shift: like scikit-learn's, it sees a feature of
large spread first.  Starts of our own see ``standardised`` rows, whatever the units.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from dgmm.em.fit_context import FitContext
from dgmm.em.moments import DataMoments
from dgmm.em.sample import Sample
from dgmm.kernels import filling
from dgmm.kernels.kernel import tile_rows
from dgmm.kernels.natural_parameters import Given
from dgmm.kernels.observation import Marginal
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.covariance import COVARIANCE_MODELS, CovarianceType
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.lazy import Late
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Statistics

cluster, metrics = Late("sklearn.cluster"), Late("sklearn.metrics")
exceptions = Late("sklearn.exceptions")

Random = np.random.RandomState

QUANTUM: Final = 2.0**36
"""What standardised rows are multiples of is one over it."""


FILLED_FULL: Final = 100
"""Up to so many features, values are filled in as others of the same row make them likely."""

FILLED_ROWS: Final = 2000
FILLED_SWEEPS: Final = 12
"""Of EM, over so many rows, for the distribution that values are drawn from."""

FILLED_STEP: Final = 2.0**-20
"""What is filled in is a multiple of, in standard deviations."""


@dataclass(frozen=True)
class Drawn:
    """How a method shares out the rows of a sample.

    ``responsibilities`` yields, for consecutive rows, some components (m,) and their
    responsibilities (m, n), which are 0 in others; ``labels`` (n,) are the components of rows that
    belong to one alone; ``center`` (K, D) are points near the means to come, in the frame.
    """

    responsibilities: Iterator[tuple[slice, NDArray[np.intp], Array]]
    labels: NDArray[Any] | None = None
    center: Array | None = None


def sample_seed(random: Random) -> int:
    """A seed for the sample's hash, taking nothing from the stream that the starts use."""
    return int(copy.deepcopy(random).randint(np.iinfo(np.int32).max))


def representative(moments: DataMoments, kernel: str = "numpy") -> Sample:
    """The first pass's sample, with weights that make it stand for all rows.

    ``kernel`` is what fills in what they lack.
    """
    if moments.known:
        moments = replace(moments, sample=_with_known(moments.sample, moments.known))
    sample = _filled(moments, kernel)
    if len(sample.numbers) < moments.weighted:  # drawn in proportion to the weights
        return replace(sample, weights=np.ones_like(sample.weights))
    return sample


def _with_known(sample: Sample, known: Sequence[Sample]) -> Sample:
    """A ``sample`` with the rows that are ``known`` to be of each component.

    They come before all others, so that each part of the sample has them.
    """
    numbers = np.concatenate([each.numbers for each in known])
    rest = sample.chosen(np.flatnonzero(~np.isin(sample.numbers, numbers)))
    most = len(rest.numbers) + len(numbers)
    for each in (each for each in known if len(each.numbers)):
        first = replace(each, size=most, keys=-1 / (1 + each.keys))
        rest = replace(rest, size=most) + first
    return replace(rest, size=max(sample.size, most))


def _filled(moments: DataMoments, kernel: str) -> Sample:
    """The first pass's sample, with what rows lack drawn from one normal distribution.

    For starts alone: whatever sweeps over the sample sees its rows as they were given.
    """
    sample = moments.sample
    holes = np.isnan(sample.rows)
    if not holes.any():
        return sample
    kind: CovarianceType = "full" if len(moments.mean) <= FILLED_FULL else "diag"
    observation = Marginal(kernel)
    context = FitContext.of(moments, COVARIANCE_MODELS[kind], None, observation)
    mean = ((moments.mean - context.frame.shift) / context.frame.scale)[None]
    variances = moments.variance / context.frame.scale**2 + context.model.prior.reg
    mixture = Mixture(np.ones(1), mean, context.model.covariance_model.of_variances(variances, 1))
    some = sample.first(FILLED_ROWS)
    block = Block(0, some.rows, some.weights)
    for _ in range(FILLED_SWEEPS):
        given = Given(context.frame, (observation.given(context.natural(mixture)),))
        (statistics,) = observation.e_step(block, given).parts
        mixture = context.m_step_of(statistics, mixture).mixture
    rows = filling.draw(sample.rows, context.frame, mixture.means[0], mixture.covariances, seed=0)
    centre, spread = moments.robust_centre, np.sqrt(moments.robust_variance)
    step = np.where(spread > 0, spread, 1.0) * FILLED_STEP
    for j, missing in enumerate(holes.T):  # so it is the same in all units
        rows[missing, j] = centre[j] + step[j] * np.round((rows[missing, j] - centre[j]) / step[j])
    return replace(sample, rows=rows, filled=holes)


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own that clustering calls.

    Finding them takes as long as a fit to a few hundred rows.
    """
    _ = cluster.KMeans  # they are loaded with it
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Cluster on one thread inside: k-means adds in the order in which threads arrive.

    Fewer clusters than asked for is told by the fit, which names the components.
    """
    with _libraries().limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        yield


def draw(sample: Sample, components: int, method: str, random: Random) -> Drawn:
    """Shares of a sample's rows in so many components, by a ``method`` of ``METHODS``."""
    with one_thread():
        return METHODS[method](sample, components, random)


def seed(
    sample: Sample, context: FitContext, components: int, method: str, random: Random
) -> Mixture:
    """A first mixture (in the frame), by a ``method`` of ``METHODS``: scikit-learn's, if it can be.

    That is of rows in their own units.
    """
    return mixture_of(sample, context, draw(sample, components, method, random), components)


def seeded(
    sample: Sample, context: FitContext, components: int, method: str, random: Random
) -> Mixture:
    """A first mixture (in the frame), by a ``method`` that sees the rows ``standardised``."""
    scaled = replace(
        sample,
        rows=standardised(sample.rows, standard(sample.rows, context.model.covariance_model)),
    )
    return mixture_of(sample, context, draw(scaled, components, method, random), components)


def standard(rows: Array, covariance_model: CovarianceModel) -> Frame:
    """Where and how far the features of ``rows`` (n, D) spread, for clustering them.

    Exactly, not to a power of two; and by rows that are not far out, for one of them must not make
    all others alike: from the median, the mean square with the outermost 2.5 % on each side drawn
    in.  That of all, where it is 0.  A ``covariance_model`` may have one scale for all.
    """
    middle = np.median(rows, axis=0)
    away = rows - middle
    size = np.abs(away).max(axis=0)
    size = np.where(size > 0, size, 1.0)  # squares neither overflow nor underflow
    near = away / size
    drawn_in = np.clip(near, *np.quantile(near, [0.025, 0.975], axis=0))
    spread = np.mean(drawn_in**2, axis=0)
    spread = size * np.sqrt(np.where(spread > 0, spread, np.mean(near**2, axis=0)))
    top = spread.max()
    spread = covariance_model.scales(spread, top * np.sqrt(np.mean((spread / (top or 1.0)) ** 2)))
    return Frame(middle, np.where(spread > 0, spread, 1.0))


def standardised(rows: Array, frame: Frame) -> Array:
    """``rows`` (n, D) in the ``standard`` frame, the same numbers whatever their units.

    They are rounded far above rounding: so distances that are equal are equal in all units.
    """
    scaled = frame.rows(rows, np.empty(rows.shape[::-1]))
    return np.ascontiguousarray((np.round(scaled * QUANTUM) / QUANTUM).T)


def mixture_of(sample: Sample, context: FitContext, drawn: Drawn, components: int) -> Mixture:
    """The mixture (in the frame) that an M-step makes of the shares ``drawn``."""
    covariance_model, n_features = context.model.covariance_model, sample.rows.shape[1]
    features = covariance_model.centred_features
    x = context.frame.rows(sample.rows, np.empty((n_features, len(sample.rows))))
    center = np.zeros((components, n_features)) if drawn.center is None else drawn.center
    if drawn.labels is not None:
        order = np.argsort(drawn.labels, kind="stable")
        there, begins = np.unique(drawn.labels[order], return_index=True)
        for k, own in zip(there, np.split(order, begins[1:]), strict=True):
            center[k] = x[:, own].mean(axis=1)
    sums = np.zeros((components, features.width(n_features)))
    for chosen, present, responsibilities in drawn.responsibilities:
        for k, own in zip(present, responsibilities, strict=True):
            some = own > 0
            moved = x[:, chosen][:, some] - center[k][:, None]
            seen = features.of(moved, np.empty((sums.shape[1], moved.shape[1])))
            sums[k] += seen @ (own * sample.weights[chosen])[some]
    weight = float(sample.weights.sum())
    nothing = Mixture(
        np.full(components, 1 / components),
        np.zeros((components, n_features)),
        covariance_model.of_variances(np.ones(n_features), components),
    )
    statistics = Statistics(sums, center, 0.0, 0.0, weight, len(sample.rows))
    mixture = context.m_step_of(statistics, nothing).mixture

    def members(k: int) -> tuple[Array, Array]:
        chosen = slice(None) if drawn.labels is None else drawn.labels == k
        return x[:, chosen] - mixture.means[k][:, None], sample.weights[chosen]

    return replace(mixture, covariances=mixture.covariances.begun(members))


def cautious(mixture: Mixture, rows: int) -> Mixture:
    """The mixture found on so many rows, with each covariance drawn towards their mean.

    As if D more rows of each component had shown that: a component of few rows sees them as flatter
    than they are, and from such a start EM may narrow it until it collapses.  After Fraley and
    Raftery, Bayesian regularization for normal mixture estimation (2007).
    """
    drawn = mixture.covariances.drawn_together(mixture.weights, rows)
    return replace(mixture, covariances=drawn)


def pieces(rows: int, components: int) -> Iterator[slice]:
    """Places of consecutive rows, few enough for arrays (K, n) to fit the cache."""
    size = tile_rows(components)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def labelled(labels: NDArray[Any], components: int) -> Drawn:
    """Each row belongs to the component that its label (n,) names."""

    def responsibilities() -> Iterator[tuple[slice, NDArray[np.intp], Array]]:
        for chosen in pieces(len(labels), components):
            present = np.unique(labels[chosen])
            belongs = labels[chosen] == present[:, None]
            yield chosen, present.astype(np.intp), belongs.astype(np.float64)

    return Drawn(responsibilities(), labels)


def _nearest(sample: Sample, components: int, seeds: NDArray[Any]) -> Drawn:
    """Each row belongs to the nearest of the ``seeds``, rows given by their places."""
    centre = sample.rows.mean(axis=0)
    labels = metrics.pairwise_distances_argmin(sample.rows - centre, sample.rows[seeds] - centre)
    return labelled(labels, components)


def _kmeans(sample: Sample, components: int, random: Random) -> Drawn:
    weights = None if (sample.weights == 1).all() else sample.weights
    kmeans = cluster.KMeans(components, n_init=1, random_state=random)
    return labelled(kmeans.fit(sample.rows, sample_weight=weights).labels_, components)


def _kmeans_plus_plus(sample: Sample, components: int, random: Random) -> Drawn:
    _, seeds = cluster.kmeans_plusplus(
        sample.rows, components, sample_weight=sample.weights, random_state=random
    )
    return _nearest(sample, components, seeds)


def _random(sample: Sample, components: int, random: Random) -> Drawn:
    def responsibilities() -> Iterator[tuple[slice, NDArray[np.intp], Array]]:
        for chosen in pieces(len(sample.rows), components):
            drawn = random.uniform(size=(chosen.stop - chosen.start, components))
            yield chosen, np.arange(components), (drawn / drawn.sum(axis=1, keepdims=True)).T

    return Drawn(responsibilities())


def _random_from_data(sample: Sample, components: int, random: Random) -> Drawn:
    seeds = random.choice(len(sample.rows), size=components, replace=False)
    return _nearest(sample, components, seeds)


InitParams = Literal["auto", "kmeans", "k-means++", "random", "random_from_data"]
"""The names of ``METHODS``, and "auto"."""

METHODS: Final[dict[str, Callable[[Sample, int, Random], Drawn]]] = {
    "kmeans": _kmeans,
    "k-means++": _kmeans_plus_plus,
    "random": _random,
    "random_from_data": _random_from_data,
}
