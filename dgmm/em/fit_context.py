"""What stays the same during a fit: the model, the frame, and what the first pass says of the rows.

**Precision.**  Where the kernel's bound shows single precision to be good enough a trial may ask
for it; its state says how much that may have changed the objective (evaluate.py).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from dgmm.em.model import Model, Trial
from dgmm.em.moments import DataMoments
from dgmm.em.noise_spec import NoiseSpec
from dgmm.em.prior_spec import NO_PRIOR, PriorSpec
from dgmm.kernels.correction import StatisticsCorrection
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.observation import COMPLETE, Observation
from dgmm.kernels.probe import Probe
from dgmm.kernels.rounding import SINGLE_TOLERANCE, Away
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import Fixed
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import MaximumLikelihood
from dgmm.model.statistics import Statistics
from dgmm.model.tails import TailsSpec

if TYPE_CHECKING:  # which imports this
    from dgmm.em.evaluate import State

Precision = Literal["auto", "float64"]
"""The members of ``PRECISIONS``."""

PRECISIONS: Final = ("auto", "float64")

SINGLE: Final = float(np.finfo(np.float32).eps)

RELATIVE: Final = 1e-6
"""The default ``reg_covar``, over each feature's variance."""

LEFT_OUT: Final = (0.01, 0.1, 0.3)
"""What shares of the rows, the most isolated, starts of heavy tails leave out."""

FAR: Final = 1e15
"""Squares of rows so far from the origin of the frame are near what single precision can hold."""


@dataclass(frozen=True)
class FitContext:
    """What stays the same during a fit.

    Attributes
    ----------
    model : Model
    frame : Frame
    weight : float
        The sum of the row weights.
    total : (D, D) or None
        sum w x x' over the rows, in the frame; for tied.
    spread : float
        The root mean square of |x| in the frame.
    precision : str
        One of ``PRECISIONS``: whether sweeps may be in single precision where that is good enough.
    correction : StatisticsCorrection or None
        What is added to the statistics of each sweep.
    moments : ((D,), float) or None
        The means of x and of |x|^2, in the frame; None where sweeps are not of the rows of the
        first pass.
    probe : Probe or None
        What sweeps must see of the rows, where the means don't tell; None as there.
    reg_covar : float or None
        The parameter of that name that the prior came from; see ``regularisation``.
    left_out : tuple of float
        What shares of the rows, the most isolated, starts leave out: those that may be noise, or
        far in the tails; nothing where components are normal and all there is.
    """

    model: Model
    frame: Frame
    weight: float
    total: Array | None
    spread: float
    precision: str = "float64"
    correction: StatisticsCorrection | None = None
    moments: tuple[Array, float] | None = None
    probe: Probe | None = None
    reg_covar: float | None = None
    left_out: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        moments: DataMoments,
        covariance_model: CovarianceModel,
        reg_covar: float | None,
        observation: Observation = COMPLETE,
        precision: str = "float64",
        frame: Frame | None = None,
        fixed: Fixed | None = None,
        prior: PriorSpec = NO_PRIOR,
        components: int = 1,
        noise: NoiseSpec | None = None,
        tails: TailsSpec | None = None,
    ) -> "FitContext":
        """The context for the rows of the first pass; ``reg_covar`` as in ``regularisation``.

        The ``prior`` may depend on the number of ``components``.
        """
        frame = frame or frame_of(moments, covariance_model)
        reg = regularisation(moments, reg_covar) / frame.scale / frame.scale
        resolved = prior.resolved(moments, frame, reg, covariance_model, components)
        variance = np.maximum(moments.variance, moments.robust_variance)
        spread = np.sqrt(np.sum(variance / frame.scale / frame.scale))
        offset = (moments.mean - frame.shift) / frame.scale
        size = float(np.sum(moments.variance / frame.scale / frame.scale + offset**2))
        return cls(
            Model(
                covariance_model,
                resolved,
                observation,
                fixed,
                None if noise is None else noise.component(moments, frame),
                tails,
            ),
            frame,
            moments.weight,
            _total(moments, frame) if covariance_model.needs_scatter else None,
            float(spread),
            precision,
            moments=None if observation.holes or tails is not None else (offset, size),
            probe=moments.probe,
            reg_covar=reg_covar,
            left_out=LEFT_OUT if tails is not None else noise.shares if noise is not None else (),
        )

    @property
    def share(self) -> float:
        """Of all rows, which the prior goes with: how many a sweep is said to stand for."""
        return 1.0 if self.correction is None else 1.0 + self.correction.share

    def maximum_likelihood(self, statistics: Statistics, before: Mixture) -> MaximumLikelihood:
        """What ``statistics`` of the rows under the mixture ``before`` say by themselves."""
        return self.model.maximum_likelihood(statistics, self.total, before)

    def m_step(self, state: "State") -> Trial:
        """The mixture that maximises the expected objective under a state's responsibilities."""
        return self.m_step_of(state.statistics, state.mixture)

    def m_step_of(self, statistics: Statistics, before: Mixture) -> Trial:
        """The same for ``statistics`` that no sweep has made."""
        return self.model.m_step(statistics, self.total, before)

    def natural(self, mixture: Mixture, single: bool = False) -> NaturalParameters:
        """A ``mixture`` as the kernel sees it, in single precision if asked for."""
        return self.model.natural(mixture, self.spread, single)

    def single_bound(self, mixture: Mixture) -> float:
        """The bound on single precision's error in log-densities; infinity if it is too large.

        The M-step's error, relative to the smallest variance, is about the condition number times
        the unit round-off, and costs the square of that.
        """
        observation = self.model.observation
        if self.precision != "auto" or observation.deconvolves or _is_too_wide(mixture):
            return np.inf
        if self.model.covariance_model.along_loadings:
            return np.inf
        unit, live = SINGLE / 2, mixture.weights > 0
        noise = self._noise(mixture, Away.expected(mixture))
        bound = np.max(noise, where=live, initial=0)
        most = mixture.covariances.max_eigenvalue_bound()
        condition = np.max(mixture.variances.sum(axis=1) * most, where=live, initial=0)
        return float(bound) if max(bound, 10 * unit * condition) < SINGLE_TOLERANCE else np.inf

    def single_error(self, statistics: Statistics, mixture: Mixture) -> float:
        """The same bound from what a sweep found: the rows may not be where they are expected."""
        mle = self.maximum_likelihood(statistics, mixture)
        offsets = mle.means - mixture.means
        noise = self._noise(mixture, Away.measured(mixture, mle.estimate, offsets))
        error = float(mle.weights @ np.where(mle.empty, 0.0, noise))
        even = mixture.noise_component
        rounded = 0.0 if even is None else mle.noise * abs(even.log_joint) * SINGLE / 2
        return (error + rounded) / mle.total

    def _noise(self, mixture: Mixture, away: Away) -> Array:
        """The bound (K,) on single precision's error in the log-densities of such rows."""
        unit = SINGLE / 2
        size = np.abs(mixture.constants - self.model.penalties(mixture))
        return self.model.observation.error_bound(mixture, away, unit) + unit * size


def _is_too_wide(mixture: Mixture) -> bool:
    """Whether rows that are noise, or in tails, may be too far for squares in single precision."""
    noise = mixture.noise_component
    if mixture.tails is not None:
        return True
    return noise is not None and max(np.abs(noise.low).max(), np.abs(noise.high).max()) > FAR


def _total(moments: DataMoments, frame: Frame) -> Array | None:
    """sum w x x' (D, D) over the rows, in the ``frame``; None where only variances are known."""
    if moments.scatter.ndim == 1:
        return None
    offset = (moments.mean - frame.shift) / frame.scale
    total: Array = moments.scatter / frame.scale[:, None] / frame.scale
    return total + moments.weight * offset[:, None] * offset


def frame_of(moments: DataMoments, covariance_model: CovarianceModel) -> Frame:
    """The frame for the rows of the first pass."""
    return Frame.of(moments.robust_centre, moments.robust_variance, covariance_model)


def regularisation(moments: DataMoments, reg_covar: float | None) -> Array:
    """What is added to each feature's variances (D,), in the data's units.

    ``reg_covar``, or ``RELATIVE`` times the feature's own variance if that is None; where a feature
    has none, there is no unit to go by but 1.
    """
    variance = moments.robust_variance
    if reg_covar is None:
        return RELATIVE * np.where(variance > 0, variance, 1.0)
    return np.full(len(variance), reg_covar)
