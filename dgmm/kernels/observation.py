"""The observation model: how a block of rows becomes the expected sums under given mixtures."""

from collections.abc import Callable
from dataclasses import dataclass

from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import Given
from dgmm.kernels.rounding import Away
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics


@dataclass(frozen=True)
class Complete:
    """Rows are seen whole and without error: E[T(x)] is r_k(x) T(x).

    Attributes
    ----------
    kernel : str
        What computes that, a key of ``choice.KERNELS``.
    """

    kernel: str = "numpy"

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        """The statistics of a block under each mixture."""
        return KERNELS[self.kernel].e_step(block, given)

    @property
    def centres(self) -> bool:
        """Whether all components are to be seen by differences from their means."""
        return KERNELS[self.kernel].centres

    @property
    def noise(self) -> Callable[[Mixture, Away, float], Array]:
        """The bound on the error of log-densities; see ``choice.Kernel``."""
        return KERNELS[self.kernel].noise
