"""The options that several commands share."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from dgmm.cli import progress
from dgmm.cli.addresses import ADDRESS
from dgmm.cli.machines import Machines
from dgmm.cli.numbers import FloatRange
from dgmm.cli.progress import LOGS, Watch
from dgmm.kernels.observation import OBSERVATIONS
from dgmm.model.extras import require
from dgmm.model.lazy import Late

metrics = Late("dgmm.cli.metrics")


@dataclass(frozen=True)
class ProgressDisplay:
    """How passes are shown."""

    log: str
    metrics_port: tuple[str, int] | None
    quiet: bool

    @contextmanager
    def watches(self) -> Iterator[list[Watch]]:
        """All who watch the passes, while inside."""
        watch = progress.silent if self.quiet else LOGS[self.log].watch
        if self.metrics_port is None:
            yield [watch]
            return
        require("metrics", "--metrics-port", "prometheus_client")
        with metrics.served(self.metrics_port) as served:
            yield [served, watch]


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def as_one(
    name: str, make: Callable[..., Any], names: Iterable[str], *options: Decorator
) -> Decorator:
    """Several options as one parameter ``name``: what ``make`` makes of their ``names`` values."""

    def apply(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def gathered(**given: Any) -> None:
            value = make(**{option: given.pop(option) for option in names})
            command(**given, **{name: value})

        return together(*options)(gathered)

    return apply


class ListOption(click.Option):
    """An option that has a list with commas between; where it is given again, the list goes on."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        self.multiple = True  # the parser keeps all that is given; elsewhere it is one text
        super().add_to_parser(parser, ctx)
        self.multiple = False

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        given = opts.get(str(self.name))
        whole = {**opts, str(self.name): ",".join(given)} if isinstance(given, list) else opts
        return super().consume_value(ctx, whole)


def names_of(context: object, option: object, names: str | None) -> list[str] | None:
    """The names in a list with commas between them; names in double quotes may have some, too."""
    return next(csv.reader([names], skipinitialspace=True)) if names else None


def output_option(help: str, required: bool = True) -> Decorator:
    """Where what a command makes goes."""
    return click.option(
        "-o", "--output", required=required, type=ADDRESS, metavar="PATH", help=help
    )


def random_state_option(help: str) -> Decorator:
    """The seed of a command's draws."""
    return click.option(
        "--random-state",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        metavar="SEED",
        help=help,
    )


data_argument = click.argument("data", type=ADDRESS)
data_if_any_argument = click.argument("data", type=ADDRESS, required=False)
model_argument = click.argument("model", type=ADDRESS)
json_option = click.option("--json", is_flag=True, help="Print one JSON object on standard output.")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing output.")
reading_options = as_one(
    "reading",
    dict,
    ["missing_chunks", "raw", "columns", "where"],
    click.option(
        "--missing-chunks",
        type=click.Choice(["auto", "error", "late", "fill"]),
        default="auto",
        show_default=True,
        help="What a Zarr chunk that isn't stored means. error: it was lost, and a list of all "
        "chunks is made first. late: it was lost, which is found when it is read. fill: it holds "
        "the fill value. auto: fill where that stands for no value (NaN, _FillValue), else error.",
    ),
    click.option(
        "--raw",
        is_flag=True,
        help="Take numbers as they are stored, even if attributes (scale_factor, _FillValue and "
        "the like) say that they stand for other values.",
    ),
    click.option(
        "--columns",
        cls=ListOption,
        metavar="NAMES",
        callback=names_of,
        help="Which columns of a table (Parquet, Arrow, CSV), or variables of a Zarr group or an "
        "HDF5 or NetCDF file, are the features, as a,b,c: names, patterns (band_*), ranges of "
        "neighbours (red:nir); after a !, what to leave out.  A name with a comma stands in "
        "double quotes: 'a,\"b, c\"'.  [default: all; those of the model]",
    ),
    click.option(
        "--where",
        metavar="FILTER",
        help='Which rows of a table (Parquet, Arrow, CSV) are taken, as "tip > 0 and city == '
        "'Oslo'\": comparisons of columns, in [1, 2], is null, and, or, not.  A name with spaces "
        "stands in backticks.  What is missing meets no comparison.  Columns of the same table "
        "(--sample-weight DATA::name) are of the same rows.  [default: all rows]",
    ),
)
"""The options of ``open_dataset``, by name."""

sample_weight_option = click.option(
    "--sample-weight",
    type=ADDRESS,
    metavar="DATA",
    help="Weights of the rows: a path or URL, as for DATA, of an array with one number a row.",
)
NOISE_HELP = (
    "Known errors of the rows: a path or URL, as for DATA, of their variances, of DATA's shape, or "
    "of their covariances, a matrix a row."
)
noise_option = click.option("--noise", type=ADDRESS, metavar="DATA", help=NOISE_HELP)
labels_option = click.option(
    "--labels",
    type=ADDRESS,
    metavar="DATA",
    help="What components rows may be of: a path or URL, as for DATA, of the number of one for "
    "each row, -1 where that isn't known; or of which of the K components each may be of.",
)
model_option = click.option(
    "-m",
    "--model",
    required=True,
    type=ADDRESS,
    metavar="PATH",
    help="A model file: a path or URL.",
)
memory_option = click.option(
    "--memory",
    metavar="SIZE",
    help="How much memory each worker process may use, such as 2GiB.  [default: 70 % of what it "
    "has]",
)
cache_option = click.option(
    "--cache",
    metavar="SIZE",
    default="auto",
    show_default=True,
    help="How much of the rows each worker process keeps in memory between passes: a size such as "
    "2GiB, none, or auto for all that --memory leaves free.",
)
machine_options = as_one(
    "machines",
    Machines,
    [each.name for each in fields(Machines)],
    click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster at ADDRESS."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Start N worker processes on this machine.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many threads to use; with --workers, of each worker.  [default: one for each "
        "processor; one with --workers]",
    ),
    click.option(
        "--connect-timeout",
        type=FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the scheduler to answer. The first worker has at least 60 "
        "seconds.",
    ),
)
judged_option = click.option(
    "--missing",
    type=click.Choice(list(OBSERVATIONS)),
    help="What NaN means.  [default: what it meant in the fit]",
)


def _address(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    """9090, or HOST:9090."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not like 9090 or 127.0.0.1:9090")
    return host.strip("[]") or "127.0.0.1", int(port)


display_options = as_one(
    "display",
    ProgressDisplay,
    [each.name for each in fields(ProgressDisplay)],
    click.option(
        "--log",
        type=click.Choice(list(LOGS)),
        default="auto",
        show_default=True,
        help="How to show progress on standard error. auto: a bar in a terminal, else text. text: "
        "a line for each pass. json: a JSON object for each pass, warning and error, one a line.",
    ),
    click.option(
        "--metrics-port",
        callback=_address,
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus at PORT during the fit, to this machine only; with HOST "
        "0.0.0.0, to every machine that can reach this one.",
    ),
    quiet_option,
)
