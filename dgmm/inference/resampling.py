"""How often each row counts in each replicate of a bootstrap: Poisson variates, from its number.

In a sample of N rows drawn with replacement from N, each comes as often as a binomial variate says;
for many rows that is a Poisson variate of mean 1, which needs to know nothing of other rows (Hanley
and MacGibbon, Creating non-parametric bootstrap samples using Poisson frequencies, 2006; Chamandy
et al., Estimating uncertainty for massive data streams, 2012).  So it is the same whatever the
blocks, the engine and the workers, nothing of it is kept, and replicate b is the same however many
there are.

A row's number and a seed are hashed to 64 bits, which serve four replicates.  With 16 bits a
variate's mean is 1 exactly, its variance 0.99997, and it is never above 8.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.sample import random_bits

EACH: Final = 4
"""How many replicates a hash serves."""

STRIDE: Final = 1 << 32
"""How far apart the seeds of hashes are that serve other replicates."""


def _variates() -> NDArray[np.uint8]:
    """The Poisson variate of each number of 16 bits: where that lies in the distribution."""
    chances = [math.exp(-1) / math.factorial(count) for count in range(16)]
    ends = np.round(np.cumsum(chances) * (1 << 16))
    found: NDArray[np.uint8] = np.searchsorted(ends, np.arange(1 << 16), side="right").astype("u1")
    return found


VARIATES: Final = _variates()


@dataclass(frozen=True)
class Resampling:
    """Some replicates of a bootstrap, by their numbers, from 0."""

    replicates: tuple[int, ...] = ()
    seed: int = 0

    @classmethod
    def first(cls, count: int, seed: int) -> "Resampling":
        """The first ``count`` replicates."""
        return cls(tuple(range(count)), seed)

    def counts(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """How often the rows of these ``numbers`` (n,) count in each replicate, (n, B)."""
        hashes = sorted({each // EACH for each in self.replicates})
        place = {each: i for i, each in enumerate(hashes)}
        bits = np.empty((len(numbers), len(hashes)), "<u8")
        for each, i in place.items():
            bits[:, i] = random_bits(numbers, self.seed + STRIDE * each)
        chosen = [EACH * place[each // EACH] + each % EACH for each in self.replicates]
        parts = bits.view("<u2")
        if chosen != list(range(parts.shape[1])):
            parts = parts[:, chosen]
        return VARIATES.take(parts)


NOTHING: Final = Resampling()
"""No replicates."""
