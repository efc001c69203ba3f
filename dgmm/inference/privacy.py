"""Differential privacy of sums over rows: how much noise hides any one row.

Two sets of rows are neighbours if one has one row more.  A mechanism is (epsilon, delta)-private if
whatever it may say is at most e^epsilon times as probable for a set as for its neighbour, but for a
probability of delta (Dwork and Roth, The algorithmic foundations of differential privacy, 2014).

**The sums.**  Rows are drawn in to a ball of radius C about the origin of the frame.  The shares of
a row sum to 1, so of the vector of all components' weights, sums over C, and sums of products over
C^2 a row makes at most a length of sqrt(3); with the entropy of its label over log K, of 2.

**The noise** is normal, of z times that length in each coordinate.  T rounds of it are together as
one of z / sqrt(T) (Dong, Roth and Su, Gaussian differential privacy, 2022), whose delta is known in
closed form, with mu = sqrt(T) / z (Balle and Wang, Improving the Gaussian mechanism for
differential privacy, 2018):

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

So nothing is lost by accounting, and no accountant is needed.  This is so of real numbers: the last
bits of floating-point noise may tell more (Mironov, On significance of the least significant bits
for differential privacy, 2012), so sums are rounded to multiples of ``GRAIN`` of their noise.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from dgmm.errors import UsageError
from dgmm.model.arrays import Array

LENGTH: Final = 2.0
"""The most that a row adds to sums in their units, as a length."""

GRAIN: Final = 2.0**-10
"""What noised sums are multiples of, over the standard deviation of their noise."""

WIDE: Final = 3.0
"""The default radius, over the root of the number of features."""

LEAST_MU: Final = 1e-8
MOST_MU: Final = 1e3
"""Between which mu is looked for."""


def delta_of(epsilon: float, mu: float) -> float:
    """The least delta that goes with ``epsilon`` for normal noise of 1 / ``mu`` of the length."""
    far = np.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu))
    return float(ndtr(mu / 2 - epsilon / mu) - far)


@dataclass(frozen=True)
class Privacy:
    """How private the sums are that a site tells: noise that hides any one of its rows.

    Parameters
    ----------
    epsilon : float
        By at most e^epsilon what is told may be more probable with a row than without.
    delta : float
        But for this probability; far below one over the number of rows.
    rounds : int, default=1
        How many times sums of these rows are told in all.  Keep count: each answer is one, also
        one that is given again.
    clip : float, optional
        Rows further than this from the origin of the model's frame, in its units (a feature's
        standard deviation, up to a factor of 1.5), are drawn in to there.  By default 3 sqrt(D).
        Choose it without looking at the rows.
    random_state : int, optional
        The seed of the noise, for tests: whoever knows it can take the noise off.  By default, it
        comes of the operating system.

    Raises
    ------
    UsageError
        If a number can't be that.

    References
    ----------
    .. [1] B. Balle and Y.-X. Wang, "Improving the Gaussian mechanism for differential privacy:
       analytical calibration and optimal denoising", 2018.
    .. [2] J. Dong, A. Roth and W. J. Su, "Gaussian differential privacy", 2022.

    Examples
    --------
    >>> from dgmm import Privacy
    >>> round(Privacy(epsilon=1.0, delta=1e-6, rounds=10).noise_multiplier, 3)
    13.36
    """

    epsilon: float
    delta: float
    rounds: int = 1
    clip: float | None = None
    random_state: int | None = None

    def __post_init__(self) -> None:
        for name, most in (("epsilon", 50.0), ("delta", 1.0), ("clip", np.inf)):
            value = getattr(self, name)
            if name == "clip" and value is None:
                continue
            if not isinstance(value, int | float | np.number) or not 0 < value < most:
                raise UsageError(f"{name} must be above 0 and below {most:g}, not {value!r}")
        if delta_of(self.epsilon, LEAST_MU) > self.delta:
            raise UsageError(
                f"epsilon={self.epsilon:g} with delta={self.delta:g} asks for more noise than "
                "there can be: give more of one of the two"
            )
        rounds: Any = self.rounds
        if not isinstance(rounds, int | np.integer) or isinstance(rounds, bool) or rounds < 1:
            raise UsageError(f"rounds must be an integer of at least 1, not {rounds!r}")

    @property
    def noise_multiplier(self) -> float:
        """The standard deviation of the noise over the most that a row adds; z above."""

        def off(log_mu: float) -> float:
            return delta_of(self.epsilon, float(np.exp(log_mu))) - self.delta

        root = brentq(off, np.log(LEAST_MU), np.log(MOST_MU), xtol=1e-13)
        return float(np.sqrt(self.rounds) * np.exp(-root))

    def radius(self, n_features: int) -> float:
        """How far from the origin of the frame rows may be.

        Parameters
        ----------
        n_features : int
            D, the number of features.

        Returns
        -------
        float
            ``clip``, or its default.

        Examples
        --------
        >>> from dgmm import Privacy
        >>> Privacy(epsilon=1.0, delta=1e-6).radius(4)
        6.0
        """
        return WIDE * float(np.sqrt(n_features)) if self.clip is None else float(self.clip)


def with_noise(exact: Array, units: Array, privacy: Privacy) -> Array:
    """The ``exact`` sums with noise; ``units`` are what a row makes of each at most."""
    noise = LENGTH * privacy.noise_multiplier * np.where(units > 0, units, 1.0)
    drawn = exact + noise * np.random.default_rng(privacy.random_state).normal(size=exact.shape)
    grain = GRAIN * noise
    return np.where(units > 0, np.round(drawn / grain) * grain, exact)
