"""The command line: ``python -m benchmarks NAME``."""

import click

from benchmarks.against import peers
from benchmarks.billion import billion
from benchmarks.clock import clock
from benchmarks.first import first
from benchmarks.kernel import kernel
from benchmarks.memory import memory
from benchmarks.passes import passes
from benchmarks.patches import patches
from benchmarks.published import table as published
from benchmarks.scale import scale
from benchmarks.sizes import sizes
from benchmarks.strain import strain
from benchmarks.stream import stream
from benchmarks.thousand import thousand
from benchmarks.torture import torture
from benchmarks.whole import whole

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
def main() -> None:
    """``python -m benchmarks``."""


for command in (
    *(kernel, first, stream, memory, scale, passes, clock, whole, peers),
    *(billion, strain, thousand, patches, sizes, torture, published),
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
