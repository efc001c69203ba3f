"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from dgmm.cli import progress
from dgmm.cli.machines import Machines
from dgmm.cli.progress import LOGS, Watch
from dgmm.em.evaluate import PRECISIONS
from dgmm.em.fit import STRATEGIES
from dgmm.em.init import METHODS
from dgmm.em.starts import EFFORTS
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.lazy import Late

metrics = Late("dgmm.cli.metrics")


@dataclass(frozen=True)
class Shown:
    """How passes are shown."""

    log: str
    metrics_port: tuple[str, int] | None
    quiet: bool

    @contextmanager
    def watches(self) -> Iterator[list[Watch]]:
        """All who watch the passes, while inside."""
        with metrics.served(self.metrics_port) as served:
            yield [served, progress.silent if self.quiet else LOGS[self.log].watch]


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _as_one(
    name: str, make: Callable[..., Any], names: Iterable[str], *options: Decorator
) -> Decorator:
    """Several options as one parameter ``name``: what ``make`` makes of their ``names`` values."""

    def apply(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def gathered(**given: Any) -> None:
            made = make(**{option: given.pop(option) for option in names})
            command(**given, **{name: made})

        return _together(*options)(gathered)

    return apply


data_argument = click.argument("data")
json_option = click.option("--json", is_flag=True, help="Print one JSON object on standard output.")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
reading_options = _as_one(
    "reading",
    dict,
    ["missing_chunks", "raw"],
    click.option(
        "--missing-chunks",
        type=click.Choice(["error", "late", "fill"]),
        default="error",
        show_default=True,
        help="What a Zarr chunk that isn't stored means: an accident (late: told when it is read, "
        "which spares a list of all), or the fill value.",
    ),
    click.option(
        "--raw",
        is_flag=True,
        help="Take a Zarr array's numbers as they are, if its attributes (scale_factor, _FillValue "
        "and the like) say that they stand for other values.",
    ),
)
"""What ``open_dataset`` is told, by name."""

sample_weight_option = click.option(
    "--sample-weight",
    metavar="DATA",
    help="A weight for each row: a path or URL like DATA, shape (N,).",
)
model_option = click.option(
    "-m", "--model", required=True, metavar="PATH", help="A model file: a path or URL."
)
memory_option = click.option(
    "--memory",
    metavar="SIZE",
    help="What each worker process may take, such as 2GiB.  [default: 70 % of what it has]",
)
cache_option = click.option(
    "--cache",
    metavar="SIZE",
    default="auto",
    show_default=True,
    help="What each worker process keeps of the rows between passes: a size, none, or auto for "
    "what the memory leaves free.",
)
machine_options = _as_one(
    "machines",
    Machines,
    [each.name for each in fields(Machines)],
    click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster at ADDRESS."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Use N worker processes of this machine.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads of this process, without a cluster.  [default: all processors]",
    ),
    click.option(
        "--connect-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the scheduler; and for a first worker, 60 at least.",
    ),
)
n_init_option = click.option(
    "--n-init",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Starts, of which the best is kept; they share every pass, or compete on samples.",
)
FITTING = (
    *("init_params", "effort", "strategy", "random_state", "tol", "resolution", "max_iter"),
    *("max_seconds", "reg_covar", "precision", "checkpoint", "resume", "memory", "cache"),
)
"""Options that say how to fit, as ``GaussianMixture`` calls them."""

fitting_options = _as_one(
    "how",
    dict,
    FITTING,
    click.option(
        "--init-params",
        type=click.Choice(["auto", *METHODS]),
        default="auto",
        show_default=True,
        help="How to find a start, on a sample of the rows; auto: a race of several.",
    ),
    click.option(
        "--effort",
        type=click.Choice(list(EFFORTS)),
        default="auto",
        show_default=True,
        help="How much work on samples may go into finding a start: one, or as many as are worth "
        "about 12 or 60 passes, where others may lead to a better optimum.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(list(STRATEGIES)),
        default="auto",
        show_default=True,
        help="auto: a few passes, by way of a sample; em: the textbook's algorithm.",
    ),
    click.option(
        "--random-state",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="The seed of all random choices.",
    ),
    click.option(
        "--tol",
        type=click.FloatRange(min=0),
        help="Stop when a pass changes the objective, a mean over the rows, by less.  "
        "[default: 1e-3 for em; auto goes by --resolution]",
    ),
    click.option(
        "--resolution",
        type=click.FloatRange(min=0),
        default=0.1,
        show_default=True,
        help="auto: stop when the estimated gain left is below this fraction of p / (2 N), what N "
        "rows can tell about p parameters.",
    ),
    click.option("--max-iter", type=click.IntRange(min=0), default=100, show_default=True),
    click.option(
        "--max-seconds",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="End with the best so far at the end of the pass that is under way then, with exit "
        "code 0; with --checkpoint, the same command goes on.",
    ),
    click.option(
        "--reg-covar",
        type=click.FloatRange(min=0),
        help="Added to the variances, in the data's units squared.  [default: 1e-6 of each "
        "feature's variance]",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="auto: single in early passes, where a bound shows it to be good enough.",
    ),
    click.option(
        "--checkpoint",
        metavar="PATH",
        help="A directory where each pass leaves what it reached; the same command goes on from "
        "there.",
    ),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on from the checkpoint, or begin anew in its place.",
    ),
    memory_option,
    cache_option,
)
model_options = _together(
    click.option(
        "-k",
        "--n-components",
        type=click.IntRange(min=1),
        required=True,
        metavar="K",
        help="How many components.",
    ),
    click.option(
        "--covariance-type",
        type=click.Choice(list(COVARIANCE_MODELS)),
        default="full",
        show_default=True,
        help="What the components' covariances may be.",
    ),
    n_init_option,
)


def _address(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    """9090, or HOST:9090."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not like 9090 or 127.0.0.1:9090")
    return host.strip("[]") or "127.0.0.1", int(port)


shown_options = _as_one(
    "shown",
    Shown,
    [each.name for each in fields(Shown)],
    click.option(
        "--log",
        type=click.Choice(list(LOGS)),
        default="auto",
        show_default=True,
        help="What standard error gets. auto: a bar in a terminal, else text, a line for each "
        "pass; json: one JSON object a line, for each pass and whatever else happens.",
    ),
    click.option(
        "--metrics-port",
        callback=_address,
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus at PORT while it runs, to this machine only unless HOST "
        "says where: 0.0.0.0 is for all who can reach it.",
    ),
    quiet_option,
)
