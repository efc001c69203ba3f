"""Work that is not on rows, done by the workers of a cluster: many calls of one function.

It goes by way of a sweep, whose rows are the numbers of the calls.  So what is known of clusters
(workers that die, that are slow, or that can't do what others can) holds for it, too.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from dgmm.data.array_sources import ArraySource
from dgmm.data.dataset import Dataset
from dgmm.engine.cluster import Cluster
from dgmm.engine.meter import Meter
from dgmm.kernels.sweep import Block, Sweep

A = TypeVar("A")
G = TypeVar("G")
T = TypeVar("T")


@dataclass(frozen=True)
class Results(Generic[T]):
    """What calls returned, in the order of their numbers."""

    values: tuple[T, ...]

    def __add__(self, other: "Results[T]") -> "Results[T]":
        return Results(self.values + other.values)


@dataclass(frozen=True)
class Elsewhere:
    """The workers that a ``cluster`` sweeps with.

    Attributes
    ----------
    cluster : Cluster
    room : int
        How many bytes a call may take: what a thread of a worker has for blocks of rows.
    in_memory : callable
        The sweep over rows in a worker's memory by the thread of a call.
    """

    cluster: Cluster
    room: int
    in_memory: Callable[..., Sweep]

    def __call__(self, fn: Callable[[A, G], T], given: G, items: Sequence[A]) -> tuple[T, ...]:
        """Call ``fn(item, given)`` for each of the ``items``; what it returned, in their order."""
        numbers = np.arange(len(items), dtype=np.float64)[:, None]
        dataset = Dataset(ArraySource(numbers), None, np.arange(len(items) + 1))
        with closing(Cluster(dataset, self.cluster.client, Meter())) as sweep:
            return sweep(partial(_call, fn, tuple(items)), given).values


def _call(fn: Callable[[A, G], T], items: Sequence[A], block: Block, given: G) -> Results[Any]:
    """The worker's part: the call whose number is the only row of the ``block``."""
    return Results((fn(items[block.start], given),))
