"""Whether a pass that is none of a fit has the memory it needs, on the machines there are."""

from dask.utils import format_bytes

from dgmm.data.amounts import USABLE, memory_bytes
from dgmm.data.clients import active_client
from dgmm.data.dataset import Dataset
from dgmm.engine.plan import SLACK
from dgmm.engine.resources import resources
from dgmm.engine.threads import results_alive
from dgmm.errors import PlanError


def check_room(
    dataset: Dataset,
    threads: int | None,
    memory: str | int | None,
    working: int,
    result: int,
    remedy: str,
) -> None:
    """Raise ``PlanError`` if a worker process would take more than it may.

    Each thread takes ``working`` bytes beside blocks of rows, what it finds in one takes
    ``result``; ``memory`` is what a process may take.  None of it grows with the number of rows.
    """
    on = resources(dataset, active_client(), threads)
    limit = int(on.available * USABLE) if memory is None else memory_bytes(memory)
    alive = results_alive(dataset.blocks, on.threads)
    peak = on.base + SLACK + on.threads * (dataset.nbytes + working) + alive * result
    if peak > limit:
        raise PlanError(
            f"this would take up to {format_bytes(peak)} in each worker process, but may take "
            f"{format_bytes(limit)}. It is {format_bytes(on.base)} to begin with, "
            f"{format_bytes(dataset.nbytes + working)} for each of {on.threads} threads, and "
            f"{format_bytes(alive * result)} for what they find. To change that, {remedy}, use "
            "fewer threads, or allow more memory"
        )
