"""Help in sections: many options stand under headings that say what for."""

from itertools import chain
from typing import Final

import click

OPTIONS: Final = {
    "The mixture": (
        *("covariance_type", "n_factors", "tails", "dof", "noise_component", "noise_volume"),
        *("prior", "weight_concentration_prior_type", "weight_concentration_prior", "reg_covar"),
    ),
    "The rows": (
        *(
            "columns",
            "where",
            "sample_weight",
            "missing",
            "noise",
            "labels",
            "raw",
            "missing_chunks",
        ),
    ),
    "Where it starts": ("init_params", "n_init", "effort", "start", "fixed", "random_state"),
    "How long it runs": (
        *("strategy", "resolution", "tol", "max_iter", "max_seconds", "precision"),
        *("checkpoint", "resume"),
    ),
    "Privacy": ("epsilon", "delta", "rounds", "clip"),
    "The machines": ("threads", "workers", "scheduler", "connect_timeout", "memory", "cache"),
    "What it tells": ("overwrite", "json", "quiet", "log", "metrics_port"),
}
"""The names of options by the heading that they stand under.

All others come first, and so does what a command can't do without.
"""

NEEDED: Final = {"Where it starts": "effort"}
"""An option that a command has if it has what a heading is about: other draws have seeds, too."""

FEW: Final = 8
"""So many options need no headings."""

FIRST: Final = "Options"

Record = tuple[str, str]
"""A name, and what is said about it."""


def write_options(command: click.Command, context: click.Context, to: click.HelpFormatter) -> None:
    """Write what a ``command`` says about its options."""
    options = {
        str(each.name): each
        for each in command.get_params(context)
        if isinstance(each, click.Option)
    }
    few = len(options) <= FEW
    sorted_in = (
        {}
        if few
        else {
            heading: [name for name in names if name in options and not options[name].required]
            for heading, names in OPTIONS.items()
            if heading not in NEEDED or NEEDED[heading] in options
        }
    )
    rest = [name for name in options if name not in chain(*sorted_in.values())]
    for heading, names in {FIRST: rest, **sorted_in}.items():
        _write(heading, [options[name].get_help_record(context) for name in names], to)


def _write(heading: str, records: list[Record | None], to: click.HelpFormatter) -> None:
    """Write ``records``, but for those that are hidden, if there are any."""
    shown = [each for each in records if each]
    if shown:
        with to.section(heading):
            to.write_dl(shown)
