"""``dgmm`` and its commands: ``fit``, ``select``, ``predict`` and so on.

Results go to standard output, progress and warnings to standard error.
"""

from __future__ import annotations

import click

import dgmm
from dgmm.cli.codes import ALARM, ENVIRONMENT
from dgmm.cli.group import Commands
from dgmm.kernels import compiled

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
    message=f"%(prog)s %(version)s, {compiled.described(compiled.preferred())} kernel",
    allow_from_autoenv=False,
)
def main() -> None:
    """``dgmm``."""
