"""The log-density below which a given share of all rows lies, exact, out of core.

A number in double precision is a key of 64 bits that sorts as the number does.  A sweep counts the
rows by the high 16 bits of their keys, which tells the bin of the one that is wanted, and how many
rows lie below that bin.  Then the rows of the bin alone are looked at: counted by their next 16
bits, or, once they are few, brought home and sorted.  Counts are integers and a sorted list has one
order, so the answer is the same to the last bit whatever the number of workers; it is a log-density
of one of the rows, as a sort of all rows would find it.

**The rule.**  Of N rows that have a log-density, a rate r asks for m = r N rows, rounded down (r is
taken as the decimal number that it reads as: 0.29 of 100 rows are 29).  The threshold is the
log-density of the row after these m in order, and the rows strictly below it are odd: never more
than m, and fewer where rows tie with it.  scikit-learn's outlier detectors compare so, too.
"""

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError, UsageError
from dgmm.kernels.outputs import OUTPUTS, Output, RowOutputs, one_number
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.arrays import Array

DIGIT: Final = 16
"""How many bits of a key a sweep tells."""

BITS: Final = 64

FEW: Final = 1 << 17
"""So many keys are brought home: a megabyte."""

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Threshold:
    """A log-density below which rows are odd, and what it was found from.

    Parameters
    ----------
    log_density : float
        Rows whose log-density is below are odd; in nats.
    rate : float
        The share of rows that was asked for.
    flagged : int
        How many of the rows are below: at most ``rate`` times ``rows``, and fewer where rows tie.
    rows : int
        The rows that have a log-density.
    nothing : int
        The rows of which nothing was observed; they are not among ``rows``, and never odd.

    Examples
    --------
    >>> from dgmm import GaussianMixture
    >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
    >>> found = model.find_threshold([[0.0], [1.0], [2.0], [3.0]], rate=0.25)
    >>> round(found.log_density, 3), found.flagged, found.rows
    (-2.919, 1, 4)
    """

    log_density: float
    rate: float
    flagged: int
    rows: int
    nothing: int = 0

    def record(self) -> dict[str, Any]:
        """It as JSON has it.

        Returns
        -------
        dict
            Its attributes, by name.

        Examples
        --------
        >>> from dgmm import Threshold
        >>> Threshold(-9.5, 0.1, 10, 100).record()["flagged"]
        10
        """
        return asdict(self)

    @classmethod
    def of(cls, record: Any) -> "Threshold":
        """The one of a ``record``.

        Parameters
        ----------
        record : dict
            Of ``Threshold.record``.

        Returns
        -------
        Threshold
            As it was.

        Raises
        ------
        ValueError
            If the record is of no threshold.

        Examples
        --------
        >>> from dgmm import Threshold
        >>> Threshold.of(Threshold(-9.5, 0.1, 10, 100).record())
        Threshold(log_density=-9.5, rate=0.1, flagged=10, rows=100, nothing=0)
        """
        kinds = {name: (float, int) if kind is float else (int,) for name, kind in FIELDS.items()}
        if not isinstance(record, dict) or record.keys() != kinds.keys():
            raise ValueError(f"{record!r:.40} is no threshold")
        for name, kind in kinds.items():
            if type(record[name]) not in kind:
                raise ValueError(f"a threshold's {name} is no {record[name]!r:.40}")
        return cls(**{name: FIELDS[name](record[name]) for name in FIELDS})


FIELDS: Final[dict[str, Any]] = Threshold.__annotations__
"""The types of a threshold's parts, by name."""


@dataclass(frozen=True)
class Prefix:
    """The high ``bits`` of keys, as a number: which rows are looked at."""

    value: int = 0
    bits: int = 0

    def keeps(self, keys: Keys) -> Keys:
        """Those of the ``keys`` that begin so."""
        if not self.bits:
            return keys
        kept: Keys = keys[keys >> np.uint64(BITS - self.bits) == np.uint64(self.value)]
        return kept

    def digits(self, keys: Keys) -> NDArray[np.intp]:
        """The next digit of keys that begin so."""
        shifted = keys >> np.uint64(BITS - self.bits - DIGIT)
        return (shifted & np.uint64((1 << DIGIT) - 1)).astype(np.intp)

    def with_digit(self, digit: int) -> "Prefix":
        """One digit longer."""
        return Prefix((self.value << DIGIT) | digit, self.bits + DIGIT)


@dataclass(frozen=True)
class Counts:
    """How many rows have each digit (65536,), and how many have no log-density."""

    of_digits: NDArray[np.int64]
    nothing: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.of_digits + other.of_digits, self.nothing + other.nothing)


@dataclass(frozen=True)
class Collected:
    """Keys of rows, in any order."""

    keys: Keys

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(np.concatenate([self.keys, other.keys]))


Query = tuple[RowOutputs, Prefix]
"""The log-density of rows, and which of them to look at more closely."""


def keys_of(values: Array) -> Keys:
    """Keys that sort as the ``values`` do; 0 and -0 have one, and NaN must not be there."""
    bits = (values + 0.0).view(np.int64)  # -0.0 + 0.0 is 0.0
    flips = bits >> (BITS - 1)  # all bits of a negative number, as it shifts its sign in
    flips |= np.int64(-1 << (BITS - 1))  # the sign of any
    flips ^= bits
    return flips.view(np.uint64)


def value_of(key: int) -> float:
    """The value that has a key."""
    bits = np.array([key], dtype=np.uint64)
    top = np.uint64(1 << (BITS - 1))
    return float(np.where(bits & top, bits ^ top, ~bits).view(np.float64)[0])


def _keys(block: Block, query: Query) -> tuple[Keys, int]:
    """The keys of a block's rows that are looked at, and how many rows have none."""
    wanted, prefix = query
    scores = wanted(block)
    known = scores[~np.isnan(scores)]
    return prefix.keeps(keys_of(known)), len(scores) - len(known)


def count(block: Block, query: Query) -> Counts:
    """Count a block's rows by the next digit of their keys."""
    keys, nothing = _keys(block, query)
    return Counts(np.bincount(query[1].digits(keys), minlength=1 << DIGIT), nothing)


def collect(block: Block, query: Query) -> Collected:
    """The keys of a block's rows that are looked at."""
    return Collected(_keys(block, query)[0])


def find(sweep: Sweep, wanted: RowOutputs, rate: float) -> Threshold:
    """The threshold below which a share ``rate`` of the rows lies, by two to four sweeps.

    ``wanted`` gives the log-density of each row.  Raises ``UsageError`` for a rate that is no
    share, ``DataError`` where it is less than one row.
    """
    if not (isinstance(rate, int | float | np.number) and 0 < rate < 1):
        raise UsageError(f"rate must be above 0 and below 1, a share of the rows; it is {rate!r}")
    rate, prefix, below = float(rate), Prefix(), 0
    counts = sweep(count, (wanted, prefix))
    rows, nothing = int(counts.of_digits.sum()), counts.nothing
    place = int(Fraction(repr(rate)) * rows)  # of the row that is wanted, in order, from 0
    if not rows:
        raise DataError("no row has a log-density: nothing was observed of any")
    if not place:
        raise DataError(
            f"rate {rate:g} of {rows} rows with a log-density is less than one row: none would be "
            f"odd. Give {f'a rate of at least {1 / rows:.2g}' if rows > 1 else 'more rows'}"
        )
    while True:
        running = below + np.cumsum(counts.of_digits)
        digit = int(np.searchsorted(running, place, side="right"))
        held = int(counts.of_digits[digit])
        below, prefix = int(running[digit]) - held, prefix.with_digit(digit)
        if prefix.bits == BITS:
            return Threshold(value_of(prefix.value), rate, below, rows, nothing)
        if held <= FEW:
            break
        counts = sweep(count, (wanted, prefix))
    keys = np.sort(sweep(collect, (wanted, prefix)).keys)
    chosen = keys[place - below]
    flagged = below + int(np.searchsorted(keys, chosen))
    return Threshold(value_of(int(chosen)), rate, flagged, rows, nothing)


def outliers_below(log_density: float) -> Output:
    """The output that says of each row whether it is below a threshold; NaN is not."""
    return Output("outliers", partial(_below, log_density), np.bool_, one_number)


def _below(log_density: float, block: Block, wanted: RowOutputs) -> NDArray[Any]:
    scores = replace(wanted, output=OUTPUTS["score"])(block)
    flags: NDArray[np.bool_] = scores < log_density
    return flags
