"""How often intervals of 95 % hold the truth: by the information, the sandwich and the bootstrap.

Many data sets are drawn from a known mixture, and a model is fitted to each from where the truth
is, so that what is told is about the errors, not about finding an optimum.  Where rows are not from
a mixture of normal distributions, the truth is what a fit to very many rows comes to.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from benchmarks.table import show
from benchmarks.timing import say
from dgmm import DataError, GaussianMixture, align
from dgmm.model.mixture import Mixture

REPLICATES, REFITTED = 1000, 200
MANY = 1_000_000
PARTS = ("weights", "means", "covariances")

WAYS = ("observed", "sandwich", "percentile", "basic", "refitted, percentile", "refitted, basic")


@dataclass(frozen=True)
class Case:
    """Two components of a feature each."""

    title: str
    rows: int
    weight: float
    mean: float
    draw: Callable[[Any, int], Any] = lambda rng, count: rng.standard_normal(count)

    def drawn(self, seed: int, rows: int) -> Any:
        """Rows (n, 1): the first component is about 0, the other about ``mean``, and wider."""
        rng = np.random.default_rng([seed, rows])
        second = rng.random(rows) < self.weight
        values = self.draw(rng, rows)
        return np.where(second, self.mean + np.sqrt(1.5) * values, values)[:, None]

    def fitted(self, rows: Any, begin: Mixture) -> GaussianMixture:
        """A model fitted to ``rows``, from where ``begin`` is."""
        model = GaussianMixture(
            2,
            covariance_type="diag",
            weights_init=begin.weights,
            means_init=begin.means,
            precisions_init=1 / begin.covariances.values,
            resolution=1e-3,
            max_iter=2000,
            n_jobs=1,
        )
        return align(begin, model.fit(rows)).model

    def truth(self) -> Mixture:
        """What a fit to very many rows comes to."""
        begin = GaussianMixture.from_parameters(
            [1 - self.weight, self.weight],
            [[0.0], [self.mean]],
            [[1.0], [1.5]],
            covariance_type="diag",
        )
        rows = np.concatenate([self.drawn(seed, MANY) for seed in range(4)])
        return self.fitted(rows, begin.mixture_).mixture_


def heavy(rng: Any, count: int) -> Any:
    """Variates of a t distribution of 5 degrees of freedom, of variance 1."""
    return rng.standard_t(5, count) * np.sqrt(0.6)


CASES = (
    Case("apart", 400, 0.4, 5.0),
    Case("apart, t rows", 400, 0.4, 8.0, heavy),
    Case("20 rows of 400", 400, 0.05, 8.0),
    Case("overlapping", 400, 0.4, 2.5),
    Case("overlapping, 4,000 rows", 4000, 0.4, 2.5),
)


@click.command()
@click.option("--sets", default=500, show_default=True, help="How many data sets of each case.")
@click.option("--refit/--no-refit", default=True, help="Replicates that are fitted, too.")
def coverage(sets: int, refit: bool) -> None:
    """How often intervals of 95 % hold the truth."""
    for case in CASES:
        held, refused, failed = _counts(case, sets, refit)
        title = f"{case.title}: {sets} data sets of {case.rows:,} rows"
        note = f"Refused: {refused} data sets. Replicates without an optimum: {failed}."
        show(title, ("by", *PARTS), _lines(held, sets - refused), note)


def _lines(held: Counter[tuple[str, str]], sets: int) -> list[tuple[str, ...]]:
    """The shares in percent, of two components each."""
    return [
        (way, *(f"{100 * held[way, part] / (2 * sets):.1f}" for part in PARTS))
        for way in WAYS
        if any(held[way, part] for part in PARTS)
    ]


def _counts(case: Case, sets: int, refit: bool) -> tuple[Counter[tuple[str, str]], int, int]:
    truth = case.truth()
    values = {
        "weights": truth.weights,
        "means": truth.means,
        "covariances": truth.covariances.values,
    }
    held: Counter[tuple[str, str]] = Counter()
    refused = failed = 0
    for seed in range(sets):
        rows = case.drawn(100 + seed, case.rows)
        model = case.fitted(rows, truth)
        try:
            ends = _ends(model, rows, refit)
        except DataError:
            refused += 1
            continue
        failed += ends.pop("failed", 0)
        for (way, part), (low, high) in ends.items():
            held[way, part] += int(((low <= values[part]) & (values[part] <= high)).sum())
        say(f"{case.title}: {seed + 1} of {sets}")
    return held, refused, failed


def _ends(model: GaussianMixture, rows: Any, refit: bool) -> dict[Any, Any]:
    """The ends of the intervals of each way and part."""
    own = model.weights_, model.means_, model.covariances_
    ends: dict[Any, Any] = {}
    for kind in ("observed", "sandwich"):
        errors = model.standard_errors(rows, kind=kind)
        for part, estimate in zip(PARTS, own, strict=True):
            away = 1.96 * getattr(errors, part)
            ends[kind, part] = estimate - away, estimate + away
    found = [("", model.bootstrap(rows, n_replicates=REPLICATES))]
    if refit:
        found.append(("refitted, ", model.bootstrap(rows, n_replicates=REFITTED, refit=True)))
        ends["failed"] = found[1][1].failed
    for title, replicates in found:
        for kind in ("percentile", "basic"):
            intervals = replicates.intervals(kind=kind)
            ends |= {(title + kind, part): tuple(getattr(intervals, part)) for part in PARTS}
    return ends
