"""What all arrays of a mixture are, and the numbers that bound them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Mask = NDArray[np.bool_]

FLOOR: Final = 1e-15
"""The smallest variance, where the data's own is about 1.  Rounding in a sum of squares is about
1e-16 of it, so a smaller variance would be mostly noise."""

ROUNDING: Final = float(np.finfo(np.float64).eps)

EXACT: Final = 1e-8
"""How far covariances and factors in a file may be apart: rounding may be 1e-16 / sqrt(FLOOR)."""


def picked(array: Array, components: NDArray[np.intp]) -> Array:
    """Those of some components; nothing of what ``bare`` leaves empty."""
    return array[components] if len(array) else array


def finite(values: Array) -> Array:
    """The ``values``; raises ``LinAlgError`` if one overflows."""
    if not np.isfinite(values).all():
        raise np.linalg.LinAlgError("a covariance overflows")
    return values


def positive(counts: Array) -> Array:
    """What sums are divided by: ``counts``, or 1 where there are no rows."""
    return np.where(counts > 0, counts, 1.0)
