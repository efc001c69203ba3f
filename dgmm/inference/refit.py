"""Replicates of a bootstrap that are fitted to their rows: all side by side, in the same passes.

Each begins one step from the estimates (bootstrap.py), which is nearly where it ends.  A pass gives
the sufficient statistics of each replicate's rows under its own mixture, and so its score: as for
any EM, that of the complete data, expected (Fisher's identity).  The next step is the inverse
information of all rows times that, and what the replicate's own steps have shown of its curvature
since (Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989); one
that leads to a lower likelihood is made half as long.

A replicate has converged when the step left is less than ``CLOSE`` standard errors long, in any
combination of parameters; it makes that step, too.  One that has ended is not in the next pass.  A
pass over B replicates of K components is the work of B passes of a fit.

The score of all rows at the estimates, which a penalty holds up, or which the fit was content with,
is taken off: so replicates differ from the estimates by their rows alone.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dgmm.errors import DataError
from dgmm.inference.bootstrap import Bootstrap, moved, parted
from dgmm.inference.information import Information, Query
from dgmm.inference.means import Means
from dgmm.inference.resampling import Resampling
from dgmm.inference.standard_errors import inverse
from dgmm.kernels import kernel, natural_parameters
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Observation
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model import statistics
from dgmm.model.arrays import Array
from dgmm.model.divergence import divergences, matched
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics

CLOSE: Final = 0.1

MAX_PASSES: Final = 50

PAIRS: Final = 10
"""Steps that are remembered, with how the score changed along them."""

HALVINGS: Final = 20

TILE: Final = 4 << 20
"""How many counts of rows there are at once."""


@dataclass(frozen=True)
class Resampled:
    """What mixtures are to see the rows of what replicates."""

    observation: Observation
    givens: tuple[Given, ...]
    resampling: Resampling


def resampled(block: Block, query: Resampled) -> Stacked[Statistics]:
    """The statistics of a block under each mixture, by the counts of its replicate."""
    count = len(block.rows)
    size = int(np.clip(TILE // len(query.givens), 1024, 1 << 16))
    total: Stacked[Statistics] | None = None
    for start in range(0, max(count, 1), size):
        part = block.part(slice(start, start + size))
        weights = np.ones(1) if part.weights is None else part.weights.astype(np.float64)
        counts = query.resampling.counts(part.start + np.arange(len(part.rows))).T
        totals = Stacked(
            tuple(
                query.observation.e_step(replace(part, weights=weights_of * weights), given).parts[
                    0
                ]
                for weights_of, given in zip(counts, query.givens, strict=True)
            )
        )
        total = totals if total is None else total + totals
    assert total is not None
    return total


def nbytes(query: Query) -> tuple[int, int]:
    """What a thread takes to count and judge rows, and what it finds, in bytes.

    What replicates remember is much like what is found of them.
    """
    mixture, count = query.mixture, len(query.resampling.replicates)
    width = mixture.covariance_model.centred_features.width(mixture.n_features)
    all_components = count * mixture.components
    result = statistics.nbytes(all_components, width, mixture.n_features)
    kernel_bytes = kernel.nbytes(mixture.components, width)
    return kernel_bytes + 20 * TILE + natural_parameters.nbytes(
        all_components, width
    ), 2 * PAIRS * result


def refit(sweep: Sweep, query: Query, begun: Bootstrap, measured: Information) -> Bootstrap:
    """The replicates fitted to their rows, from where the one step ``begun`` has led.

    ``measured`` is the information that the step was made of.
    """
    bread = inverse(measured.complete + measured.outer, measured)
    rest = Means.found(measured).score(query) * measured.weight
    levels = measured.drawn[:, 1] + query.frame.log_volume * measured.drawn[:, 0]
    ways = [
        _Way(query, bread, float(level), pull)
        for level, pull in zip(levels, measured.pulls, strict=True)
    ]
    passes = begun.passes
    while passes < MAX_PASSES and (active := [i for i, way in enumerate(ways) if not way.ended]):
        numbers = tuple(query.resampling.replicates[i] for i in active)
        mixtures = [ways[i].mixture() for i in active]
        wanted = Resampled(
            query.observation,
            tuple(_given(query, each) for each in mixtures),
            replace(query.resampling, replicates=numbers),
        )
        parts = sweep(resampled, wanted).parts
        for i, mixture, steps in zip(active, mixtures, parts, strict=True):
            ways[i].learn(*ways[i].seen(mixture, steps, rest))
        passes += 1
    ends = [query.frame.leave(way.mixture()) for way in ways if way.converged]
    if len(ends) < 2:
        raise DataError(
            f"of {len(ways):,} replicates {len(ends)} came to an optimum: components overlap too "
            "much, or have too few rows. Fit fewer components, or leave out refit"
        )
    estimate = begun.mixture
    aligned = [each.chosen(matched(divergences(estimate, each))) for each in ends]
    shapes = estimate.weights.shape, estimate.means.shape, estimate.covariances.values.shape
    return replace(
        begun,
        weights=np.reshape([each.weights for each in aligned], (-1, *shapes[0])),
        means=np.reshape([each.means for each in aligned], (-1, *shapes[1])),
        covariances=np.reshape([each.covariances.values for each in aligned], (-1, *shapes[2])),
        refitted=True,
        failed=len(ways) - len(ends),
        passes=passes,
    )


def _given(query: Query, mixture: Mixture) -> Given:
    """A ``mixture`` as an E-step takes it, whose sums tell its covariances by themselves."""
    centre = query.observation.centres
    natural = NaturalParameters.of(mixture, centre=centre, per_component=True)
    return Given(query.frame, (query.observation.given(natural),))


class _Way:
    """The way of one replicate, in the coordinates, seen from the estimates.

    Where it stands it has a likelihood, of its rows, and slopes of that; first, at the estimates.
    """

    def __init__(self, query: Query, bread: Array, level: float, slopes: Array) -> None:
        self._query, self._bread = query, bread
        self._here, self._level, self._slopes = np.zeros_like(slopes), level, slopes
        self._pairs: list[tuple[Array, Array]] = []
        self.ended = self.converged = False
        self._look(self._directed())

    def mixture(self) -> Mixture:
        """What is to be looked at, or has been found; raises ``LinAlgError`` if there is none."""
        mixture = self._query.mixture
        with np.errstate(over="ignore", invalid="ignore"):
            parts = moved(mixture, self._query.layout, self._place[None])
            (weights,), (means,), (values,) = parts
            if not np.isfinite(values).all():
                raise np.linalg.LinAlgError
            covariances, lost = mixture.covariance_model.estimate_of(values, means.shape).floored()
        if lost.any():
            raise np.linalg.LinAlgError
        return Mixture(weights, means, covariances)

    def seen(self, mixture: Mixture, statistics: Statistics, rest: Array) -> tuple[float, Array]:
        """The likelihood and its slopes, by the ``statistics`` of a sweep under the ``mixture``.

        These are without the ``rest`` of slopes that there is at the estimates.
        """
        query, layout = self._query, self._query.layout
        here = replace(query, mixture=mixture)
        sums = statistics.sums, statistics.center, mixture.covariance_model
        score = Means.of_sums(here, *sums, statistics.weight).score(here) * statistics.weight
        (weights,), (means,), (entries,) = parted(mixture, score[None])
        step = layout.shape(parted(mixture, self._place[None])[2][0])
        chart = layout.chart(query.mixture.covariances.values)
        turned = layout.entries(chart.slopes(step, layout.shape(entries)))
        level = statistics.log_likelihood - float(rest @ self._place)
        return level, np.concatenate([weights, means, turned]) - rest

    def learn(self, level: float, slopes: Array) -> None:
        """Go on from where it looked, which is on that ``level``; or nearer, if that is lower."""
        step, change = self._place - self._here, self._slopes - slopes
        if step @ change > 1e-9 * np.sqrt((step @ step) * (change @ change)):
            self._pairs = [*self._pairs, (step, change)][-PAIRS:]
        away = float(slopes @ self._bread @ slopes)
        if level < self._level - 1e-9 * abs(self._level) and not away < CLOSE**2:
            self._look(0.5 * step)
            return
        self._here, self._level, self._slopes = self._place, level, slopes
        self._look(self._directed())
        self.converged = away < CLOSE**2
        self.ended = self.ended or self.converged

    def _look(self, step: Array) -> None:
        """Look a ``step`` away from where it stands; or nearer, where there is no mixture."""
        for _ in range(HALVINGS):
            self._place = self._here + step
            with suppress(np.linalg.LinAlgError):
                self.mixture()
                return
            step = 0.5 * step
        self.ended = True

    def _directed(self) -> Array:
        """The inverse of the curvature times the slopes."""
        left: Array = self._slopes
        along = []
        for step, change in reversed(self._pairs):
            along.append(float(step @ left) / float(step @ change))
            left = left - along[-1] * change
        direction: Array = self._bread @ left
        for (step, change), part in zip(self._pairs, reversed(along), strict=True):
            direction = direction + step * (part - float(change @ direction) / float(step @ change))
        return direction
