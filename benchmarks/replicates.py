"""What a bootstrap costs, in passes of a fit of as many components, and against so many fits."""

import time
from typing import Any

import click
import numpy as np

from benchmarks.data import draw, mixture
from benchmarks.table import percent, show
from benchmarks.timing import say
from dgmm import GaussianMixture, engine
from dgmm.inference.standard_errors import query_of
from dgmm.kernels import choice
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import COMPLETE, Complete, Observation
from dgmm.kernels.sweep import Block
from dgmm.model.statistics import Stacked, Statistics

FITS = 3
"""Fits to resampled rows, whose mean stands for each of so many as there are replicates."""


def _e_step(block: Block, given: tuple[Observation, Given]) -> Stacked[Statistics]:
    observation, own = given
    return observation.e_step(block, own)


def _seconds(work: Any) -> tuple[float, Any]:
    """The processor time of some ``work``, of all threads, and what it brings."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of 8 features.")
@click.option("-k", "--components", default=8, show_default=True, help="Components.")
@click.option("--replicates", default=100, show_default=True, help="Replicates.")
def replicates(rows: int, components: int, replicates: int) -> None:
    """What a bootstrap costs, in processor time."""
    known = mixture(components, 8)
    x = draw(known, rows, 0)
    say("fitting")
    fit, model = _seconds(lambda: GaussianMixture(components, random_state=0).fit(x))
    rng, own = np.random.default_rng(0), {"weights_init": model.weights_}
    own |= {"means_init": model.means_, "precisions_init": model.precisions_}
    again, _ = _seconds(
        lambda: [
            GaussianMixture(components, **own).fit(x, sample_weight=rng.poisson(1.0, rows))
            for _ in range(FITS)
        ]
    )
    asked = query_of(model.mixture_, COMPLETE)
    kernel = Complete(choice.chosen())
    natural = kernel.given(NaturalParameters.of(asked.mixture))
    sweep = engine.in_memory_sweep(x)
    many = kernel, Given(asked.frame, (natural,) * replicates)
    say("passes")
    one_pass, _ = _seconds(lambda: sweep(_e_step, many))
    timed = {
        "standard errors": lambda: model.standard_errors(x),
        "replicates, a step each": lambda: model.bootstrap(x, n_replicates=replicates),
        "replicates, fitted": lambda: model.bootstrap(x, n_replicates=replicates, refit=True),
    }
    lines = []
    for name, work in timed.items():
        say(name)
        seconds, found = _seconds(work)
        passes = getattr(found, "passes", 1)
        shares = [percent(seconds / (replicates * each)) for each in (fit, again / FITS)]
        lines.append((name, passes, seconds, seconds / one_pass, *shares))
    show(
        f"{replicates} replicates, {rows:,} x 8, K = {components}",
        (
            "what",
            "passes",
            "processor s",
            "in passes of all",
            "of fits",
            "of fits from the estimates",
        ),
        lines,
        f"A pass of all is an E-step over {replicates} mixtures: {one_pass:.3g} s. A fit took "
        f"{fit:.3g} s, one to resampled rows that begins at the estimates {again / FITS:.3g} s.",
    )
