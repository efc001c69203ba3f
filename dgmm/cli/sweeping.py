"""One pass over the rows of a command, on the machines that it asks for, with a bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dgmm.cli import progress
from dgmm.cli.machines import Machines
from dgmm.model.lazy import Late

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.kernels.sweep import Sweep

engine = Late("dgmm.engine")


@contextmanager
def sweeping(machines: Machines, dataset: Dataset, title: str, quiet: bool) -> Iterator[Sweep]:
    """What sweeps the rows of a ``dataset``, which is shown while inside."""
    meter = engine.Meter()
    with machines.client() as client, progress.sweep_bar(meter, dataset.rows, title, quiet):
        yield engine.over(dataset, client, machines.threads, meter)
