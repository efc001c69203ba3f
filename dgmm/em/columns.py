"""What is known of features beside their numbers: names, and which are large integers.

**Integers.**  Sums are of float64, which tells all integers up to 2^53 apart, and beyond that only
some: at 2^60, about that of a time in nanoseconds, those that are 256 apart.  For a time of a day
that is nothing.  For numbers of orders, counted on from 2^60, it is the difference between values
that are now equal.  So a feature is refused whose rounding is not far below its spread: in a fit
the first pass tells both, and of rows that are added their mean and the frame of the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.causes import column_names
from dgmm.errors import DataError
from dgmm.model.arrays import Array

STEP: Final = 1e-5
"""Steps of so much of a standard deviation are seen: components may be far narrower than all rows.

The default ``reg_covar`` blurs a hundred times as much.
"""


@dataclass(frozen=True)
class Columns:
    """What is known of the features beside their numbers.

    Attributes
    ----------
    names : (D,) of str, or None
        What they are called.
    integers : sequence of int
        Which of them are integers of 8 bytes, by their numbers.
    """

    names: Sequence[str] | NDArray[Any] | None = None
    integers: Sequence[int] = ()

    def called(self, number: int) -> str:
        """What a message calls a column."""
        names = None if self.names is None else [str(each) for each in self.names]
        return column_names((number,), names)

    def check_rounding(self, size: Array, spread: Array) -> None:
        """Raise ``DataError`` if integers lose digits that tell rows apart.

        ``size`` (D,) says how large they are, and ``spread`` (D,) how far they are from each other,
        as a standard deviation.
        """
        at = np.array(self.integers, dtype=np.intp)
        if not len(at):
            return
        steps = np.spacing(np.where(np.isfinite(size), np.abs(size), 0.0)[at])
        lost = steps > np.maximum(1.0, STEP * spread[at])
        if lost.any():
            i = int(lost.argmax())
            raise DataError(
                f"{self.called(int(at[i]))} has integers as large as {size[at[i]]:.0f}, and "
                f"float64 holds only multiples of {steps[i]:.0f} there: rows that differ may come "
                "out equal. Leave the column out, if it is an id; or subtract its smallest "
                "value, as integers, before the fit"
            )


UNKNOWN: Final = Columns()
"""Of which nothing is known."""
