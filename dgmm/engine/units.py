"""Units: the parts of a block that threads share.

A block is what is read at once, whatever is done with its rows: 8 MiB of them may be milliseconds
of work, or seconds.  So where a sweep's ``given`` says how many products a row takes
(``row_products``), blocks are taken in units: so many that there are ``UNITS`` in all, none longer
than ``MOST_SECONDS``, and none so short that sharing it out would cost more than it brings.

How large they are depends on the number of rows and on those products alone, never on the threads;
their results are added up in their order, which makes that of the block.  So the bits are the same
on any engine.
"""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Final, TypeVar

from dgmm.data.source import even_divisions
from dgmm.kernels.sweep import Block
from dgmm.model.statistics import Mergeable

G = TypeVar("G")
T = TypeVar("T", bound=Mergeable)

UNITS: Final = 128
"""How many there are at least, where there is work for so many."""

PRODUCT_SECONDS: Final = 0.12e-9
"""What a product takes about, in double precision on one thread (benchmarks, kernel)."""

LEAST_SECONDS: Final = 2e-3
"""The shortest worth sharing out: a thread takes 50 us to be told of one."""

MOST_SECONDS: Final = 50e-3

LEAST_ROWS: Final = 8192
"""With fewer, what is done once for each call shows: above all, what may be left out of an E-step
is found by the first few hundred rows, which takes 3 % of so many."""


def unit_rows(rows: int, given: Any) -> int:
    """About how many rows make a unit, of so many ``rows`` in all; all, if ``given`` does not say.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> unit_rows(2_000_000, SimpleNamespace(row_products=40 * 345))
    15625
    """
    seconds = getattr(given, "row_products", 0.0) * PRODUCT_SECONDS
    if not seconds:
        return max(1, rows)
    share = max(-(-rows // UNITS), LEAST_SECONDS / seconds)
    return max(LEAST_ROWS, int(min(share, MOST_SECONDS / seconds)))


def units(rows: int, unit: int) -> list[slice]:
    """A block of so many ``rows`` in even units of about ``unit``, of ``LEAST_ROWS`` or more."""
    if not rows:
        return [slice(0, 0)]
    count = max(1, min(round(rows / unit), rows // LEAST_ROWS))
    cuts = even_divisions(rows, -(-rows // count))
    return [slice(int(start), int(stop)) for start, stop in pairwise(cuts)]


def in_units(fn: Callable[[Block, G], T], block: Block, given: G, unit: int) -> T:
    """What ``fn`` says of a block, a unit at a time."""
    chosen = units(len(block.rows), unit)
    if len(chosen) == 1:
        return fn(block, given)
    return reduce(add, (fn(block.part(each), given) for each in chosen))
