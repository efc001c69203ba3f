"""What all arrays of a mixture are, and the numbers that bound them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLOOR: Final = 1e-15
"""The smallest variance, where the data's own is about 1.  Rounding in a sum of squares is about
1e-16 of it, so a smaller variance would be mostly noise."""

ROUNDING: Final = float(np.finfo(np.float64).eps)

EXACT: Final = 1e-8
"""How far covariances and factors in a file may be apart: rounding may be 1e-16 / sqrt(FLOOR)."""
