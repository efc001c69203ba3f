"""The options that say what to fit, and how: the parameters of ``GaussianMixture``."""

from __future__ import annotations

from itertools import chain
from typing import Final

import click

from dgmm.cli.addresses import ADDRESS
from dgmm.cli.numbers import FloatRange
from dgmm.cli.options import (
    Decorator,
    as_one,
    cache_option,
    memory_option,
    random_state_option,
    together,
)
from dgmm.em.fit_context import PRECISIONS
from dgmm.em.init import METHODS
from dgmm.em.priors import PRIORS, PriorName
from dgmm.em.starts import EFFORTS
from dgmm.em.strategies import STRATEGIES
from dgmm.em.variational_prior import VariationalPrior
from dgmm.kernels.observation import OBSERVATIONS
from dgmm.model.concentration import CONCENTRATIONS, ConcentrationType
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.tails import TAILS

n_init_option = click.option(
    "--n-init",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many starts to try; the best one is kept. They share every pass over the data, or "
    "compete on samples.",
)
missing_option = click.option(
    "--missing",
    type=click.Choice(list(OBSERVATIONS)),
    default="raise",
    show_default=True,
    help="What NaN means. marginalize: missing at random; rows count by what was observed. "
    "drop: incomplete rows are left out.",
)
prior_option = click.option(
    "--prior",
    type=click.Choice(list(PRIORS)),
    default="none",
    show_default=True,
    help="What the objective holds beside the likelihood. conjugate: Fraley and Raftery's prior, "
    "made of the data, with which no component collapses; the fit is the most probable mixture. "
    "variational: variational Bayes, with a posterior of all parameters; of -k components those "
    "that the rows don't need lose them.",
)


def _prior_of(
    prior: PriorName,
    weight_concentration_prior_type: ConcentrationType | None,
    weight_concentration_prior: float | None,
) -> PriorName | VariationalPrior:
    """The prior of these options."""
    if prior == VariationalPrior.name:
        kind = weight_concentration_prior_type or "dirichlet_process"
        return VariationalPrior(kind, weight_concentration_prior)
    if weight_concentration_prior_type is not None or weight_concentration_prior is not None:
        raise click.UsageError("--weight-concentration-... goes with --prior variational")
    return prior


prior_options = as_one(
    "prior",
    _prior_of,
    ["prior", "weight_concentration_prior_type", "weight_concentration_prior"],
    prior_option,
    click.option(
        "--weight-concentration-prior-type",
        type=click.Choice(list(CONCENTRATIONS)),
        help="How weights are made, with --prior variational.  [default: dirichlet_process]",
    ),
    click.option(
        "--weight-concentration-prior",
        type=FloatRange(min=0, min_open=True),
        help="The concentration of the weights, with --prior variational; with less, fewer "
        "components are used.  [default: 1 / K]",
    ),
)


def _noise(context: click.Context, option: click.Parameter, text: str | None) -> bool | float:
    """Whether there is a noise component, or its first weight."""
    if text is None:
        return False
    if text == "auto":
        return True
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no weight. Put the option last, or write --noise-component=auto"
        ) from error


noise_options = together(
    click.option(
        "--noise-component",
        is_flag=False,
        flag_value="auto",
        callback=_noise,
        metavar="[WEIGHT]",
        help="One more component, of constant density, for rows that are of no cluster: their "
        "label is -1. WEIGHT, between 0 and 1, is what it begins with; without it several compete.",
    ),
    click.option(
        "--noise-volume",
        type=FloatRange(min=0, min_open=True),
        metavar="VOLUME",
        help="One over the density of the noise component.  [default: the volume of the box of the "
        "rows]",
    ),
)
effort_option = click.option(
    "--effort",
    type=click.Choice(list(EFFORTS)),
    default="auto",
    show_default=True,
    help="How much work on samples the search for a start may take. low: one start. auto: "
    "about as much as 12 passes over the data, until a start can't be bettered. high: as much as "
    "60, and four starts at least, until four can't be bettered.",
)
strategy_option = click.option(
    "--strategy",
    type=click.Choice(list(STRATEGIES)),
    default="auto",
    show_default=True,
    help="auto: as few passes as possible, with a start fitted to a sample. em: textbook EM.",
)


def _dof(context: click.Context, option: click.Parameter, text: str | None) -> float | str | None:
    """Degrees of freedom, or that all components have the same."""
    if text is None or text == "common":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no number, and not 'common'") from error


tails_options = together(
    click.option(
        "--tails",
        type=click.Choice(list(TAILS)),
        default="normal",
        show_default=True,
        help="student: components are t distributions, in which rows far away count for little.",
    ),
    click.option(
        "--dof",
        callback=_dof,
        metavar="NU",
        help="Their degrees of freedom, or common: one is estimated for all.  [default: one is "
        "estimated for each component]",
    ),
)
FITTING: Final[dict[tuple[str, ...], Decorator]] = {
    ("init_params",): click.option(
        "--init-params",
        type=click.Choice(["auto", *METHODS]),
        default="auto",
        show_default=True,
        help="How to find a start, on a sample of the rows. auto: several methods compete.",
    ),
    ("effort",): effort_option,
    ("strategy",): strategy_option,
    ("random_state",): random_state_option("The seed of all random choices."),
    ("tol",): click.option(
        "--tol",
        type=FloatRange(min=0),
        help="Stop when a pass changes the objective (a mean over the rows) by less than this.  "
        "[default: 1e-3 with --strategy em; auto stops by --resolution]",
    ),
    ("resolution",): click.option(
        "--resolution",
        type=FloatRange(min=0),
        default=0.1,
        show_default=True,
        help="Stop when the objective could grow, as estimated, by less than this fraction of "
        "p / (2 N), which N rows can't tell from chance for p parameters; --strategy auto only.",
    ),
    ("max_iter",): click.option(
        "--max-iter",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        help="The most iterations; each is a pass over the data.",
    ),
    ("max_seconds",): click.option(
        "--max-seconds",
        type=FloatRange(min=0),
        metavar="SECONDS",
        help="Stop after this time, when the pass under way is done, and write the best model so "
        "far (exit code 0). With --checkpoint, the same command continues from there.",
    ),
    ("reg_covar",): click.option(
        "--reg-covar",
        type=FloatRange(min=0),
        help="A number to add to all variances, in the data's units squared.  [default: 1e-6 of "
        "each feature's variance]",
    ),
    ("prior",): prior_options,
    ("missing",): missing_option,
    ("noise_component", "noise_volume"): noise_options,
    ("tails", "dof"): tails_options,
    ("precision",): click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="auto: early passes multiply in float32 where a bound on the error allows that; the "
        "result is in float64 either way.",
    ),
    ("checkpoint",): click.option(
        "--checkpoint",
        type=ADDRESS,
        metavar="PATH",
        help="A directory where the state after each pass is saved. The same command, run again, "
        "continues from there.",
    ),
    ("resume",): click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Continue from the checkpoint, or delete it and begin anew.",
    ),
    ("memory",): memory_option,
    ("cache",): cache_option,
}
"""Options that say how to fit, by what ``GaussianMixture`` calls them."""


def fitting_but(*without: str) -> Decorator:
    """The options of ``FITTING`` as one parameter ``params``, but for those of these names."""
    kept = {names: option for names, option in FITTING.items() if not {*names} & {*without}}
    return as_one("params", dict, [*chain(*kept)], *kept.values())


fitting_options = fitting_but()
n_factors_option = click.option(
    "--n-factors",
    type=click.IntRange(min=1),
    metavar="Q",
    help="How many factors each component has, below the number of features.",
)
n_components_option = click.option(
    "-k",
    "--n-components",
    type=click.IntRange(min=1),
    required=True,
    metavar="K",
    help="How many components.",
)
covariance_type_option = click.option(
    "--covariance-type",
    type=click.Choice(list(COVARIANCE_TYPES)),
    default="full",
    show_default=True,
    metavar="TYPE",
    help="full: any covariance for each component. tied: one for all. diag: uncorrelated "
    "features. spherical: also the same variance for all features. Or one of mclust's fourteen "
    "(EII, VII, EEI, VEI, EVI, VVI, EEE, VEE, EVE, VVE, EEV, VEV, EVV, VVV): volumes, shapes "
    "and axes are equal (E), varying (V) or none (I). For many features, "
    "with --n-factors: factor, that is a few factors, and noise in each feature; factor-tied: "
    "the same noise in all components; ppca: the same in all features.",
)
model_options = together(
    n_components_option, covariance_type_option, n_factors_option, n_init_option
)
