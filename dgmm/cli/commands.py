"""``dgmm`` and its commands: ``fit``, ``select``, ``predict`` and so on.

Results go to standard output, progress and warnings to standard error.
"""

from __future__ import annotations

import click

import dgmm
from dgmm.cli.base import ENVIRONMENT, Commands
from dgmm.cli.changing import ALARM, compare, drift
from dgmm.cli.deciding import threshold
from dgmm.cli.exporting import export
from dgmm.cli.federating import federate, join, summarize
from dgmm.cli.fitting import fit, select
from dgmm.cli.grouping import merge, reduce
from dgmm.cli.planning import demo, plan
from dgmm.cli.predicting import denoise, impute, predict
from dgmm.cli.regressing import regress
from dgmm.cli.reporting import report
from dgmm.cli.uncertainty import errors
from dgmm.cli.using import score, show, update
from dgmm.kernels import choice

HELP = """\
Fit Gaussian mixtures to data that does not fit in memory.

DATA is a path or URL: store.zarr, store.zarr/group/array, rows.npy,
s3://bucket/store.zarr; or a table: trips.parquet, 'trips/*.parquet', trips.csv,
trips.feather; or a dataset in a file: climate.nc::t2m, file.h5::/group/name.

\b
Start here:
  dgmm demo                                     fit two photographs
  dgmm plan rows.zarr -k 16                     what will a fit need?
  dgmm fit rows.zarr -k 16 -o model.dgmm        fit 16 components
  dgmm predict rows.zarr -m model.dgmm -o labels.zarr
  dgmm select rows.zarr -k 2..32 -o best.dgmm   how many components?
"""


@click.group(
    cls=Commands,
    help=HELP,
    epilog=f"{ENVIRONMENT}\n{ALARM}",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DGMM"},
)
@click.version_option(
    dgmm.__version__,
    prog_name="dgmm",
    message=f"%(prog)s %(version)s, {choice.described(choice.preferred())} kernel",
    allow_from_autoenv=False,
)
def main() -> None:
    """``dgmm``."""


for command in (
    *(fit, select, predict, impute, denoise, regress, threshold, errors, score, update),
    *(merge, reduce, drift, compare),
    *(summarize, federate, join),
    *(show, report, export, plan, demo),
):
    main.add_command(command)
