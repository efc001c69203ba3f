"""What is asked of a noise component, and what the first pass makes of that."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dgmm.em.columns import Columns
from dgmm.em.moments import DataMoments
from dgmm.errors import DataError
from dgmm.model.frame import Frame
from dgmm.model.noise_component import NoiseComponent

SHARES: Final = (0.02, 0.1, 0.3)
"""What share of the rows may be noise where a fit begins, unless that is given."""


@dataclass(frozen=True)
class NoiseSpec:
    """What is asked of a noise component.

    Attributes
    ----------
    weight : float or None
        Its first weight.
    volume : float or None
        Of its box, in the data's units; by default the box of the rows.
    """

    weight: float | None = None
    volume: float | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """What share of the rows may be noise where a fit begins."""
        return SHARES if self.weight is None else (self.weight,)

    def fits(self, noise: NoiseComponent) -> bool:
        """Whether ``noise`` of the data has the volume that is asked for, if one is."""
        return self.volume is None or bool(np.isclose(np.log(self.volume), -noise.log_density))

    def check(self, moments: DataMoments, columns: Columns) -> None:
        """Raise ``DataError`` unless the box of the rows of the first pass has a volume."""
        if moments.rows == 1:
            raise DataError(
                "n_samples = 1: the box of one row has no volume that a noise component could fill"
            )
        narrow = ~(moments.low < moments.high)
        if narrow.any():
            raise DataError(
                f"{columns.called(int(narrow.argmax()))} has one value in all rows, so the box of "
                "the rows has no volume that a noise component could fill: leave the column out"
            )

    def component(self, moments: DataMoments, frame: Frame) -> NoiseComponent:
        """The noise component for the rows of the first pass, in the ``frame``."""
        weight = self.shares[len(self.shares) // 2]
        try:
            component = NoiseComponent.of(weight, moments.low, moments.high, self.volume)
        except ValueError as error:
            raise DataError(f"there can be no noise component for these rows: {error}") from error
        return component.moved(-frame.shift / frame.scale, 1 / frame.scale)
