"""What ``dgmm show`` prints of components: tables of means and spreads, and of covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from dgmm.cli import tables
from dgmm.data.columns import chosen
from dgmm.estimators.telling import heaviest_first, mean_and_spread, names_of

if TYPE_CHECKING:
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.model.mixture import Mixture

MOST_FEATURES = 100
"""How many features tables have, unless they are asked for."""


@dataclass(frozen=True)
class Wanted:
    """What of the components is to be shown.

    Attributes
    ----------
    features : list of str or None
        Names, patterns and ranges; None for the first ones.
    covariances : bool
        Whether a table of each component's covariances, too.
    wide : bool
        Whether a table is one, however wide, instead of several one under another.
    """

    features: list[str] | None = None
    covariances: bool = False
    wide: bool = False


def features_shown(model: GaussianMixture, wanted: Wanted) -> list[str]:
    """Which features tables are to have; raises ``DataError`` if there is no such feature."""
    names = names_of(model)
    if wanted.features is None:
        return names[: None if wanted.wide else MOST_FEATURES]
    return list(chosen(names, wanted.features, "the model"))


def show_components(model: GaussianMixture, wanted: Wanted) -> None:
    """A table of the components, the heaviest first: weights, means and standard deviations."""
    mixture, names, some = model.mixture_, names_of(model), features_shown(model, wanted)
    place = {name: j for j, name in enumerate(names)}
    places = np.array([place[name] for name in some])
    _show_means(mixture, places, some, wanted.wide)
    if wanted.covariances:
        _show_covariances(mixture, places, some, wanted.wide)
    if wanted.features is None and len(some) < len(names):
        click.echo(
            f"and {len(names) - len(some)} more features: --features names those to show, --wide "
            "and --json show all"
        )


def _show_means(mixture: Mixture, places: NDArray[np.intp], names: list[str], wide: bool) -> None:
    spread, student = np.sqrt(mixture.variances), mixture.tails is not None
    rows = []
    for k in heaviest_first(mixture):
        pairs = zip(mixture.means[k, places], spread[k, places], strict=True)
        cells = [mean_and_spread(float(mean), float(sd)) for mean, sd in pairs]
        dof = [f"{mixture.dof[k]:.3g}"] if student else []
        rows.append((str(k), f"{mixture.weights[k]:.4f}", *dof, *cells))
    if (noise := mixture.noise_component) is not None:
        ends = zip(noise.low[places], noise.high[places], strict=True)
        box = [f"{low:.4g} to {high:.4g}" for low, high in ends]
        rows.append(("noise", f"{noise.weight:.4f}", *box))
    means = "location ± scale" if student else "mean ± sd"
    heads = ("component", "weight", *["dof"] * student, *(f"{each}: {means}" for each in names))
    tables.show(heads, rows, keep=2, wide=wide)


def _show_covariances(
    mixture: Mixture, places: NDArray[np.intp], names: list[str], wide: bool
) -> None:
    """A table for each component, or one for all that share theirs."""
    covariances = mixture.among(places).covariances
    if covariances.alone(np.arange(1)) is not None:
        click.echo(
            "No feature goes with another: the squares of the spreads above are all there is"
        )
        return
    kind = "scale matrix" if mixture.tails is not None else "covariances"
    order = heaviest_first(mixture)
    dense = covariances.dense()
    if (dense == dense[0]).all() and len(dense) > 1:
        titles = [(order[0], f"all components: {kind}")]
    else:
        titles = [(k, f"component {k}, weight {mixture.weights[k]:.4f}: {kind}") for k in order]
    for k, title in titles:
        click.echo(f"\n{title}")
        cells = [
            (name, *(f"{value:.5g}" for value in row))
            for name, row in zip(names, dense[k], strict=True)
        ]
        tables.show(("feature", *names), cells, wide=wide)
