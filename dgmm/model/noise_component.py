"""The noise component: rows that belong to no cluster, spread evenly over the box of the data.

It is one more component, of constant density 1 / V, beside the normal ones (Banfield and Raftery,
Model-based Gaussian and non-Gaussian clustering, 1993; Fraley and Raftery, How many clusters? Which
clustering method?, 1998).

**The volume** V is that of the box between the least and the largest value of each feature, or one
that is given: then the box is stretched about its middle, by one factor for all features.  (mclust
takes the smaller of this box and that along the principal axes; its number can be given.)

**The density does not end at the box.**  It is the same for every row, however far away: else a row
beyond the box, in a fit to a part of the rows or in a prediction, would have to be a cluster's.  So
it is no density that integrates to 1 over all there is, and rows are drawn from the box alone.  Of
a row some of whose features are missing, it is that of the box in those that were observed.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.model.arrays import Array

LOG_ZERO = -1e300
"""The logarithm of a weight of 0: exp of it is 0, and unlike -inf it survives a matrix product."""


@dataclass(frozen=True, eq=False)
class NoiseComponent:
    """A component of constant density.

    Parameters
    ----------
    weight : float
        Its weight; those of the normal components sum to 1 less that.
    low, extent : array (D,)
        Where the box begins whose volume is one over the density, and how long it is.

    Examples
    --------
    >>> import numpy as np
    >>> noise = NoiseComponent(0.1, np.zeros(2), np.array([2.0, 4.0]))
    >>> round(float(np.exp(noise.log_density)), 6)
    0.125
    """

    weight: float
    low: Array
    extent: Array

    @classmethod
    def of(
        cls, weight: float, low: Array, high: Array, volume: float | None = None
    ) -> "NoiseComponent":
        """Make one of a ``weight`` and a box, or of a box like it that has a ``volume``.

        Parameters
        ----------
        weight : float
            Its weight, from 0 to 1.
        low, high : array (D,)
            The least and the largest value of each feature.
        volume : float, optional
            The box is stretched about its middle to that.

        Returns
        -------
        NoiseComponent
            The component.

        Raises
        ------
        ValueError
            If a feature has one value alone, or the volume can't be one.

        Examples
        --------
        >>> import numpy as np
        >>> noise = NoiseComponent.of(0.1, np.zeros(2), np.array([2.0, 4.0]), volume=32.0)
        >>> noise.low.round(9).tolist(), noise.high.round(9).tolist()
        ([-1.0, -2.0], [3.0, 6.0])
        """
        with np.errstate(over="ignore", invalid="ignore"):
            component = cls(weight, low, high - low)
        component.check()
        if volume is None:
            return component
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.exp((np.log(volume) + component.log_density) / len(component.low))
        if not 0 < factor < np.inf:
            raise ValueError(f"{volume!r} is no volume")
        extent = factor * component.extent
        component = replace(
            component, low=component.low + (component.extent - extent) / 2, extent=extent
        )
        component.check()
        return component

    def check(self) -> None:
        """See that it can be a component.

        Raises
        ------
        ValueError
            If the box has no volume, or the weight is none.

        Examples
        --------
        >>> import numpy as np
        >>> NoiseComponent(0.1, np.zeros(2), np.ones(2)).check()
        """
        if not 0 <= self.weight <= 1:
            raise ValueError(f"its noise component has the weight {self.weight!r}")
        box = np.concatenate([self.low, self.extent])
        if not (np.isfinite(box).all() and (self.extent > 0).all()):
            raise ValueError("its noise component has a box without a volume")

    @property
    def high(self) -> Array:
        """Where the box ends, (D,)."""
        return self.low + self.extent

    @property
    def log_density(self) -> float:
        """The logarithm of the density, in nats."""
        return -float(np.log(self.extent).sum())

    @property
    def log_weight(self) -> float:
        """log of the weight; ``LOG_ZERO`` for a weight of 0."""
        return float(np.log(self.weight)) if self.weight > 0 else LOG_ZERO

    @property
    def log_joint(self) -> float:
        """The same with the weight, for a row of which all was observed."""
        return self.log_weight + self.log_density

    def log_joint_of(self, observed: NDArray[np.bool_]) -> Array:
        """The same for rows of which so much was observed.

        Parameters
        ----------
        observed : array (M, D) of bool
            Which features each row has.

        Returns
        -------
        array (M,)
            In nats.

        Examples
        --------
        >>> import numpy as np
        >>> noise = NoiseComponent(1.0, np.zeros(2), np.array([2.0, 4.0]))
        >>> np.exp(noise.log_joint_of(np.array([[True, False], [False, False]]))).tolist()
        [0.5, 1.0]
        """
        return np.asarray(self.log_weight - observed @ np.log(self.extent), np.float64)

    def weighing(self, weight: float) -> "NoiseComponent":
        """The same of another weight.

        Parameters
        ----------
        weight : float
            The weight.

        Returns
        -------
        NoiseComponent
            Of the same box.

        Examples
        --------
        >>> import numpy as np
        >>> NoiseComponent(0.1, np.zeros(1), np.ones(1)).weighing(0.2).weight
        0.2
        """
        return replace(self, weight=float(weight))

    def among(self, features: NDArray[np.intp]) -> "NoiseComponent":
        """That of some features alone.

        Parameters
        ----------
        features : array (M,) of int
            Their numbers.

        Returns
        -------
        NoiseComponent
            Of so many features.

        Examples
        --------
        >>> import numpy as np
        >>> noise = NoiseComponent(0.1, np.zeros(2), np.array([2.0, 4.0]))
        >>> noise.among(np.array([1])).high.tolist()
        [4.0]
        """
        return replace(self, low=self.low[features], extent=self.extent[features])

    def moved(self, shift: Array, scale: Array) -> "NoiseComponent":
        """That of ``shift + scale * x``.

        Parameters
        ----------
        shift, scale : array (D,)
            The scale is above 0.

        Returns
        -------
        NoiseComponent
            Of the same weight.

        Examples
        --------
        >>> import numpy as np
        >>> noise = NoiseComponent(0.1, np.zeros(1), np.ones(1))
        >>> noise.moved(np.array([5.0]), np.array([2.0])).high.tolist()
        [7.0]
        """
        return replace(self, low=self.low * scale + shift, extent=self.extent * scale)

    def sample(self, rows: int, rng: Any) -> Array:
        """Draw rows, evenly from the box.

        Parameters
        ----------
        rows : int
            How many rows to draw.
        rng : numpy.random.RandomState or Generator
            The source of random numbers.

        Returns
        -------
        array (rows, D)
            In the units of the box.

        Examples
        --------
        >>> import numpy as np
        >>> noise = NoiseComponent(0.1, np.zeros(2), np.ones(2))
        >>> noise.sample(3, np.random.default_rng(0)).shape
        (3, 2)
        """
        drawn: Array = self.low + self.extent * rng.uniform(size=(rows, len(self.low)))
        return drawn
