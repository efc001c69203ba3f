"""What is known of features beside their numbers: names, and which are large integers.

**Integers.**  Sums are of float64, which tells all integers up to 2^53 apart, and beyond that only
some: at 2^60, about that of a time in nanoseconds, those that are 256 apart.  For a time of a day
that is nothing.  For numbers of orders, counted on from 2^60, it is the difference between values
that are now equal.  So the first pass's range tells: a feature is refused whose rounding is not far
below its spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.causes import column_names
from dgmm.em.moments import DataMoments
from dgmm.errors import DataError

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

    def check_rounding(self, moments: DataMoments) -> None:
        """Raise ``DataError`` if integers lose digits that tell rows apart."""
        at = np.array(self.integers, dtype=np.intp)
        if not len(at):
            return
        low, high = moments.low[at], moments.high[at]
        size = np.maximum(np.abs(low), np.abs(high))
        steps = np.spacing(np.where(np.isfinite(size), size, 0.0))
        lost = steps > np.maximum(1.0, STEP * np.sqrt(moments.robust_variance[at]))
        if lost.any():
            i = int(lost.argmax())
            raise DataError(
                f"{self.called(int(at[i]))} has integers from {low[i]:.0f} to {high[i]:.0f}, and "
                f"float64 holds only every {steps[i]:.0f}th of such: rows that differ may come "
                "out equal. Leave the column out, if it is an id; or subtract its smallest "
                "value, as integers, before the fit"
            )


UNKNOWN: Final = Columns()
"""Of which nothing is known."""
