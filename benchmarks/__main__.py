"""The command line: ``python -m benchmarks NAME``."""

import os
from copy import copy
from functools import wraps
from typing import Any

import click

from benchmarks.against import peers
from benchmarks.billion import billion
from benchmarks.clock import clock
from benchmarks.coverage import coverage
from benchmarks.decisions import decisions
from benchmarks.first import first
from benchmarks.forms import forms
from benchmarks.holding import holding
from benchmarks.incomplete import incomplete
from benchmarks.kernel import kernel
from benchmarks.memory import memory
from benchmarks.passes import passes
from benchmarks.patches import patches
from benchmarks.published import table as published
from benchmarks.reach import reach
from benchmarks.replicates import replicates
from benchmarks.scale import scale
from benchmarks.sizes import sizes
from benchmarks.skipping import skipping
from benchmarks.strain import strain
from benchmarks.stream import stream
from benchmarks.thousand import thousand
from benchmarks.threads import threads
from benchmarks.torture import torture
from benchmarks.variational import variational
from benchmarks.whole import whole
from dgmm.kernels import choice

HELP = """\
Measure dgmm against this machine and against its peers.

Each prints Markdown tables on standard output, and progress on standard error. What is compared
runs in turn, at least five times; figures are medians over these rounds. All data are seeded,
and synthetic but for photographs. benchmarks/README.md says how to read the tables, and how to
install the peers.

\b
Start here:
  python -m benchmarks kernel --quick     is it built well? half a minute
  python -m benchmarks stream             does reading hide behind computing?
  python -m benchmarks peers --scale 0.1  against scikit-learn and others
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--allow-numpy",
    is_flag=True,
    help="Measure the NumPy kernel where there is no other.",
)
def main(allow_numpy: bool) -> None:
    """``python -m benchmarks``."""
    if allow_numpy:
        os.environ.setdefault("DGMM_KERNEL", choice.preferred())  # for all processes


def asked_for(command: click.Command) -> click.Command:
    """The command; it refuses to measure the NumPy kernel where nobody asked for it."""
    measure = command.callback
    assert measure is not None

    @wraps(measure)
    def checked(**options: Any) -> Any:
        if choice.preferred() == "numpy" and not os.environ.get("DGMM_KERNEL"):
            raise click.UsageError(
                f"this would measure the NumPy kernel. {choice.without()}. To measure it all the "
                "same: python -m benchmarks --allow-numpy ..."
            )
        return measure(**options)

    same = copy(command)
    same.callback = checked
    return same


for command in (
    *(kernel, incomplete, first, stream, forms, memory, scale, passes, clock, whole, reach, peers),
    *(
        threads,
        skipping,
        billion,
        strain,
        thousand,
        patches,
        sizes,
        torture,
        published,
        variational,
    ),
    *(coverage, decisions, replicates, holding, variational),
):
    main.add_command(asked_for(command))

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
