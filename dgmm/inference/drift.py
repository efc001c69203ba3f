"""Whether rows are still like those that a model was fitted to: a score test, in one pass.

With s_i the score of a row under the model (information.py), s the mean of tonight's N rows, s0
that of the N0 rows of the fit, which their sufficient statistics tell, and J the mean of
(s_i - s0) (s_i - s0)', the difference d = s - s0 has, as long as nothing changed, the covariance
J (1/N + 1/N0), whether or not the model is the truth, and however far the fit was from its optimum.
A test that took s0 for 0 and N0 for infinite would raise a false alarm in many quiet nights: the
parameters were estimated, too.

    T = d' (J - d d')^-1 d / (1/N + 1/N0)

is Hotelling's; it is compared with an F distribution, which for many rows is chi-squared by p, the
number of free parameters.  The same holds for any of the scores: those of one component's weight,
its mean, or its covariance say what has changed.

**Effects.**  With many rows any change is significant.  So there is what a change amounts to: half
of d' J^-1 d is about what a refit would gain, in nats a row; means have moved by so many standard
deviations of their component, spreads by a ratio; and the mean log-density is another.

References: Rao, Large sample tests of statistical hypotheses concerning several parameters, 1948;
Hotelling, The generalization of Student's ratio, 1931.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from dgmm.errors import DataError
from dgmm.inference.information import Information, Query, information
from dgmm.inference.means import Means
from dgmm.kernels.sweep import Sweep
from dgmm.model.arrays import Array
from dgmm.model.lazy import Late

special = Late("scipy.special")

FEWEST: Final = 20
"""So many rows for each parameter there must be."""

WIDE: Final = 30.0
"""Log-densities that deviate by so many times as much as those of normal rows do so by a few."""

FEW: Final = 5.0
"""m rows that make all of a mean make its error the mean over the root of m; this is a root."""


@dataclass(frozen=True)
class Test:
    """A test that nothing changed.

    Parameters
    ----------
    statistic : float
        What is compared with an F distribution: Hotelling's statistic, scaled.
    degrees : int
        Of freedom, the other being the number of rows less these.
    p_value : float
        The probability of so large a statistic if nothing changed.
    effect : float
        What a change of the parameters amounts to, in nats a row: about what a refit would gain.

    Examples
    --------
    >>> from dgmm.inference.drift import Test
    >>> Test(9.0, 2, 0.0001, 0.05).degrees
    2
    """

    statistic: float
    degrees: int
    p_value: float
    effect: float


@dataclass(frozen=True)
class ComponentDrift:
    """What changed of one component.

    Parameters
    ----------
    weight, mean, covariance : Test
        That its weight, mean or covariance is what it was.  The test of covariances that components
        share is of all of them.
    weight_before, weight_now : float
        Its share of the rows.
    moved : float
        How far the rows' mean is from where it was, in standard deviations of the component.
    spread : tuple of float
        The standard deviation of each feature, by what it was: in all components, or of all
        features, where these share one.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
    >>> found = model.drift(np.random.default_rng(0).normal(0.5, 1, size=(900, 1)))
    >>> round(found.components[0].moved, 1)
    0.5
    """

    weight: Test
    mean: Test
    covariance: Test
    weight_before: float
    weight_now: float
    moved: float
    spread: tuple[float, ...]


@dataclass(frozen=True)
class Drift:
    """How rows differ from those that a model was fitted to; ``GaussianMixture.drift`` tells it.

    Parameters
    ----------
    test : Test
        Of all parameters together.
    components : tuple of ComponentDrift
        What changed of each.
    score, score_error : float
        The mean log-density of the rows, in nats, and its standard error.
    score_before : float or None
        That of the rows of the fit, if it is known.
    rows : int
        How many rows counted.
    weight, weight_before : float
        Their weight, and that of the rows of the fit; infinite if parameters were given.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> random = np.random.default_rng(0)
    >>> model = GaussianMixture(random_state=0).fit(random.normal(size=(2000, 2)))
    >>> quiet = model.drift(random.normal(size=(2000, 2)))
    >>> moved = model.drift(random.normal(0.2, 1, size=(2000, 2)))
    >>> quiet.beyond(0.001), moved.beyond(0.001), moved.beyond(0.001, effect=1.0)
    (False, True, False)
    """

    test: Test
    components: tuple[ComponentDrift, ...]
    score: float
    score_error: float
    score_before: float | None
    rows: int
    weight: float
    weight_before: float

    def beyond(self, level: float, effect: float = 0.0) -> bool:
        """Whether to raise an alarm.

        Parameters
        ----------
        level : float
            How often a false alarm may be raised: in this share of nights without a change.
        effect : float, default=0.0
            What a change must amount to, in nats a row.

        Returns
        -------
        bool
            Whether the test of all parameters is below the level, and its effect so large.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> model.drift(np.random.default_rng(0).normal(size=(900, 1)) + 1).beyond(0.01)
        True
        """
        return self.test.p_value < level and self.test.effect >= effect

    @property
    def by_few(self) -> bool:
        """Whether a few rows, far from all components, make the score what it is.

        Their scores are most of the covariance that the tests go by, so that these see little else:
        not even these rows.

        Returns
        -------
        bool
            Whether log-densities vary far more than those of normal rows, by no more than some 25.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(900, 1))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> model.drift(rows + 1).by_few
        False
        """
        if self.score_before is None:
            return False
        normal = np.sqrt(len(self.components[0].spread) / 2)  # the deviation of a row's log-density
        fell = self.score_before - self.score
        wide = self.score_error * np.sqrt(self.weight) > WIDE * normal
        return bool(wide and 0 < fell < FEW * self.score_error)

    def record(self) -> dict[str, Any]:
        """It as JSON has it.

        Returns
        -------
        dict
            Its attributes, by name; an infinite weight is None.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> model.drift(np.random.default_rng(0).normal(size=(900, 1))).record()["rows"]
        900
        """
        known = np.isfinite(self.weight_before)
        return {**asdict(self), "weight_before": self.weight_before if known else None}


def drift(sweep: Sweep, query: Query, before: Means, level: float | None) -> Drift:
    """How rows differ from those ``before``, whose mean log-density is ``level``, in one sweep."""
    measured = sweep(information, query)
    free = query.mixture.free_parameters
    if measured.weight <= 0 or measured.rows < FEWEST * free:
        raise DataError(
            f"{measured.rows:,} rows are too few to say whether {free} parameters changed: give at "
            f"least {FEWEST} for each, {FEWEST * free:,}"
        )
    now, scores = Means.found(measured), _Scores.of(query, measured, before)
    unit = np.eye(len(measured.outer))
    mean, square = measured.levels / measured.weight
    with np.errstate(invalid="ignore", divide="ignore"):  # of no rows, or of holes
        ratios = np.sqrt(now.variances(query) / before.variances(query))
    return Drift(
        scores.test(unit),
        tuple(
            _component(query, k, scores, now, before, tuple(ratio))
            for k, ratio in enumerate(ratios.tolist())
        ),
        float(mean),
        float(np.sqrt(max(square - mean * mean, 0.0) / measured.weight)),
        level,
        measured.rows,
        measured.weight,
        before.weight,
    )


def _component(
    query: Query,
    k: int,
    scores: "_Scores",
    now: Means,
    before: Means,
    spread: tuple[float, ...],
) -> ComponentDrift:
    mixture, q = query.mixture, len(query.layout.rows)
    rest, width = mixture.components - 1, mixture.n_features
    unit = np.eye(len(scores.difference))
    of_weight = unit[[k]] if k < rest else -unit[:rest].sum(axis=0, keepdims=True)
    of_mean = unit[rest + k * width : rest + (k + 1) * width]
    of_component = query.layout.own[k * q : (k + 1) * q].any(axis=0)
    of_covariance = unit[rest + mixture.means.size :][of_component]
    (there, _), (was, _) = (each.moments(query, k) for each in (now, before))
    white = mixture.covariances.whiten(k, (there - was)[:, None])
    return ComponentDrift(
        scores.test(of_weight),
        scores.test(of_mean),
        scores.test(of_covariance),
        float(before.shares[k]),
        float(now.shares[k]),
        float(np.sqrt(np.sum(white * white))),
        spread,
    )


@dataclass(frozen=True)
class _Scores:
    """The difference of mean scores (p,), the second moment about those before, and the rows."""

    difference: Array
    second: Array
    weight: float
    rows: float

    @classmethod
    def of(cls, query: Query, measured: Information, before: Means) -> "_Scores":
        s, s0 = Means.found(measured).score(query), before.score(query)
        second = measured.outer / measured.weight
        second = second - np.outer(s, s0) - np.outer(s0, s) + np.outer(s0, s0)
        among = 1.0 / (1.0 / measured.weight + 1.0 / before.weight)
        return cls(s - s0, second, among, measured.rows)

    def test(self, slopes: Array) -> Test:
        """The test of some combinations (m, p) of the scores."""
        difference, second = slopes @ self.difference, slopes @ self.second @ slopes.T
        scale = np.sqrt(np.maximum(np.diagonal(second), 0.0))
        live = scale > 0
        if not live.any():
            return Test(0.0, 0, 1.0, 0.0)
        scale, difference = scale[live], difference[live] / scale[live]
        values, vectors = np.linalg.eigh(second[np.ix_(live, live)] / scale[:, None] / scale)
        known = values > len(values) * 1e-13 * values[-1]
        along = (vectors[:, known].T @ difference) / np.sqrt(values[known])
        degrees, share = int(known.sum()), float(along @ along)  # d' (J + d d')^-1 d, below 1
        ratio = share / max(1.0 - share, 1e-300)
        statistic = self.weight * ratio * (self.rows - degrees) / (degrees * self.rows)
        p_value = float(special.fdtrc(degrees, self.rows - degrees, statistic))
        return Test(statistic, degrees, p_value, 0.5 * share)
