"""What is kept of rows once they have been seen: enough to go on without them.

``SufficientStatistics`` are those of rows under the mixture of the time they were seen, and add up
by ``+``.  The M-step from them gives the next mixture; and for any mixture theta they give a lower
bound of the objective of all their rows,

    F(theta) = sum_c [ L_c(theta_c) - <S_c, eta(theta_c)> ] + <S, eta(theta)>

with L_c(theta_c) the objective of the c-th rows under the mixture theta_c they were seen with, S_c
their statistics and S all of these together: the free energy of Neal and Hinton (A view of the EM
algorithm that justifies incremental, sparse, and other variants, 1998).  A bracket is the entropy
of the responsibilities of its rows, so their sum is between 0 and log K for each unit of weight:
one number, and the bound is free.

**What is exact.**  Statistics under one mixture, added up, are those of all the rows together, but
for rounding; then the bound at that mixture is the objective, and the M-step is an EM iteration
over all rows, wherever they lie.

**What is not.**  Rows keep the responsibilities they had when they were seen.  With statistics
under different mixtures the M-step raises the bound, and the objective is never below it; but what
it converges to, if rows are never seen again, is not the optimum of all rows.  A fit to all of
them, begun with this mixture, gets there.
"""

import hashlib
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Final, Self

import numpy as np

from dgmm.em.evaluate import ALONE, FitContext, State, Trial, m_step, thin
from dgmm.em.first_pass import invalid_weight
from dgmm.em.fit import WEIGHTS
from dgmm.errors import DataError, ModelFileError, UsageError
from dgmm.io import models, storage
from dgmm.kernels.kernel import describe_invalid_row
from dgmm.kernels.native import KERNELS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.sweep import Block, Sweep
from dgmm.model.covariance_model import Array, CovarianceModel
from dgmm.model.mixture import Frame, Mixture
from dgmm.model.statistics import Stacked, Statistics

FORMAT: Final = "dgmm-sufficient-statistics"
ARRAYS: Final = ("sums", "center", "shift", "scale", "reg")


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """The sufficient statistics of rows, in ``frame``; they merge by ``+``.

    Adding raises ``UsageError`` unless both descend from one fit.  Rows that are added twice count
    twice.

    Attributes
    ----------
    origin : str
        The fit that all this descends from: a digest of the mixture that it led to.
    covariance_model : CovarianceModel
    frame : Frame
    reg : (D,)
        What is added to the diagonal of each covariance, in the frame.
    reg_covar : float or None
        The parameter of that name that ``reg`` came from.
    sums, center : (K, P), (K, D)
        As in ``Statistics``; each component's own, for tied, too.
    entropy : float
        The sum of the brackets above.
    weight : float
        The sum of the row weights.
    rows : int
    """

    origin: str
    covariance_model: CovarianceModel
    frame: Frame
    reg: Array
    reg_covar: float | None
    sums: Array
    center: Array
    entropy: float
    weight: float
    rows: int

    def __repr__(self) -> str:
        count, n_features = self.center.shape
        return (
            f"<SufficientStatistics: {self.rows:,} rows of weight {self.weight:.8g}, under {count} "
            f"{self.covariance_model.name} components of {n_features} features>"
        )

    @classmethod
    def of(cls, state: State, context: FitContext) -> Self:
        """The statistics of the rows that a ``state`` came from."""
        objective = (state.objective + context.frame.log_volume) * context.weight
        statistics = replace(_own(state.statistics, context), objective=objective)
        natural, mixture = _natural(state.mixture, context.reg), state.mixture
        told = hashlib.sha256(b"".join(a.tobytes() for a in (mixture.means, mixture.covariances)))
        shared = (context.frame, context.reg, context.reg_covar)
        return cls._of(told.hexdigest()[:16], statistics, natural, *shared)

    @classmethod
    def _of(
        cls,
        origin: str,
        statistics: Statistics,
        natural: NaturalParameters,
        frame: Frame,
        reg: Array,
        reg_covar: float | None,
    ) -> Self:
        """From ``statistics``, which have the structure of ``natural``."""
        entropy = statistics.objective - natural.inner_product(statistics.sums, statistics.center)
        most = statistics.weight * np.log(len(statistics.sums))
        return cls(
            origin,
            natural.mixture.covariance_model,
            frame,
            reg,
            reg_covar,
            statistics.sums,
            statistics.center,
            float(np.clip(entropy, 0.0, most)),  # a difference of large numbers
            statistics.weight,
            statistics.rows,
        )

    def __add__(self, other: "SufficientStatistics") -> "SufficientStatistics":
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if why := self.differs(other):
            raise UsageError(f"statistics add up only if they descend from one fit: {why}")
        moved = self.covariance_model.centred.shift_moments(other.sums, self.center - other.center)
        weight = self.weight + other.weight
        _check_weight(weight)
        return replace(
            self,
            sums=self.sums + moved,
            entropy=self.entropy + other.entropy,
            weight=weight,
            rows=self.rows + other.rows,
        )

    def __radd__(self, other: int) -> "SufficientStatistics":
        return self if other == 0 else NotImplemented  # so that sum() works

    def differs(self, other: "SufficientStatistics") -> str | None:
        """Why the two can't be added up; None if they can."""
        if self.covariance_model is not other.covariance_model:
            names = self.covariance_model.name, other.covariance_model.name
            return f"covariances are {names[0]} here, {names[1]} there"
        if self.center.shape != other.center.shape:
            mine, theirs = self.center.shape, other.center.shape
            return f"components and features are {mine} here, {theirs} there"
        pairs = (
            (self.frame.shift, other.frame.shift),
            (self.frame.scale, other.frame.scale),
            (self.reg, other.reg),
        )
        if self.origin != other.origin or not all(np.array_equal(*pair) for pair in pairs):
            return "their models were fitted apart"
        return None

    def summarize(self, sweep: Sweep, mixture: Mixture, kernel: str) -> "SufficientStatistics":
        """The statistics of other rows, seen with ``mixture`` (of the data), to be added to these.

        Raises ``DataError`` if they hold NaN or infinity, or weights that can't be.
        """
        natural = _natural(self.frame.enter(mixture), self.reg)
        (found,) = sweep(_e_step, _Asked(kernel, Given(self.frame, (natural.bare,)))).parts
        if found.weight == 0:
            raise DataError("all weights are zero: there is nothing to learn from")
        _check_weight(found.weight)
        return self._of(self.origin, found, natural, self.frame, self.reg, self.reg_covar)

    def bound(self, mixture: Mixture) -> float:
        """F, the lower bound of the objective of ``mixture`` (of the data), mean per unit weight.

        Equal to the objective if all rows were seen with this mixture; minus infinity if rows were
        given to a component that has no weight in it.
        """
        inside = self.frame.enter(mixture)
        dead = inside.weights <= 0
        if np.any(self.sums[dead, 0] > np.finfo(np.float64).eps * self.weight):
            return -np.inf
        sums = np.where(dead[:, None], 0.0, self.sums)
        linear = _natural(inside, self.reg).inner_product(sums, self.center)
        return (self.entropy + linear) / self.weight - self.frame.log_volume

    def improve(self, mixture: Mixture) -> Trial:
        """The mixture (of the data) that raises the bound most: an M-step.

        A component without weight stays as it is in ``mixture`` (of the data).
        """
        trial = m_step(self._statistics, self._setting, self.frame.enter(mixture))
        return replace(trial, mixture=self.frame.leave(trial.mixture))

    def bare(self, mixture: Mixture) -> Trial:
        """That M-step without ``reg``."""
        return replace(self, reg=np.zeros_like(self.reg)).improve(mixture)

    def held(self, mixture: Mixture) -> tuple[int, ...]:
        """The components that nothing but ``reg`` holds up in that M-step."""
        return thin(self._statistics, self._setting, self.frame.enter(mixture), ALONE)

    @property
    def _setting(self) -> FitContext:
        return FitContext(self.covariance_model, self.frame, self.reg, self.weight, None, 0.0)

    @property
    def _statistics(self) -> Statistics:
        return Statistics(self.sums, self.center, 0.0, 0.0, self.weight, self.rows)

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write to a file.

        Parameters
        ----------
        path : str or PathLike
            A path or URL.
        overwrite : bool, default=False
            Whether to replace what is there.

        Raises
        ------
        DataError
            If something is there already, unless ``overwrite``.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from dgmm import GaussianMixture, SufficientStatistics
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> statistics = GaussianMixture().fit(rows).sufficient_statistics_
        >>> with tempfile.TemporaryDirectory() as place:
        ...     statistics.save(f"{place}/night.sums")
        ...     SufficientStatistics.load(f"{place}/night.sums").rows
        200
        """
        storage.write(
            str(path), FORMAT, self.arrays(), {"sufficient_statistics": self.record()}, overwrite
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "SufficientStatistics":
        """Read what ``save`` wrote.

        Parameters
        ----------
        path : str or PathLike
            A path or URL.

        Returns
        -------
        SufficientStatistics
            As it was saved.

        Raises
        ------
        ModelFileError
            If it isn't that.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from dgmm import GaussianMixture, SufficientStatistics
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> statistics = GaussianMixture().fit(rows).sufficient_statistics_
        >>> with tempfile.TemporaryDirectory() as place:
        ...     statistics.save(f"{place}/night.sums")
        ...     SufficientStatistics.load(f"{place}/night.sums").rows
        200
        """
        arrays, header = storage.read(str(path), FORMAT)
        try:
            return cls.parse(arrays, header)
        except ModelFileError as error:
            raise ModelFileError(f"{path} is no usable statistics file: {error}") from error

    def arrays(self) -> storage.Arrays:
        """What of it a file keeps in arrays."""
        own = (self.sums, self.center, self.frame.shift, self.frame.scale, self.reg)
        return dict(zip(ARRAYS, own, strict=True))

    def record(self) -> dict[str, Any]:
        """What of it a file keeps in its header."""
        return {
            "origin": self.origin,
            "covariance_type": self.covariance_model.name,
            "reg_covar": self.reg_covar,
            "entropy": self.entropy,
            "weight": self.weight,
            "rows": self.rows,
        }

    @classmethod
    def parse(cls, arrays: storage.Arrays, header: dict[str, Any]) -> "SufficientStatistics":
        """From what ``arrays`` and ``record`` gave; raises ``ModelFileError`` if that is wrong."""
        record = header.get("sufficient_statistics")
        if not isinstance(record, dict):
            raise ModelFileError("its header has no record of the statistics")
        covariance_model = models.structure_of(record)
        center = storage.matrix(arrays, "center")
        components, n_features = center.shape
        width = covariance_model.centred.width(n_features)
        shapes = {
            "sums": (components, width),
            **dict.fromkeys(("shift", "scale", "reg"), (n_features,)),
        }
        storage.expect(arrays, shapes)
        kinds = {"origin": str, "entropy": float, "weight": float, "rows": int}
        for name, kind in kinds.items():
            if type(record.get(name)) is not kind:
                raise ModelFileError(f"its statistics have {name} {record.get(name)!r}")
        reg_covar = record.get("reg_covar", "missing")
        if not (reg_covar is None or (type(reg_covar) is float and 0 <= reg_covar < np.inf)):
            raise ModelFileError(f"its statistics have reg_covar {reg_covar!r}")
        weight, counts = record["weight"], arrays["sums"][:, 0]
        sound = (
            WEIGHTS[0] < weight < WEIGHTS[1]
            and record["rows"] > 0
            and 0 <= record["entropy"] <= weight * np.log(components) * (1 + 1e-9)
            and counts.min() >= 0
            and abs(counts.sum() / weight - 1) < 1e-6
            and arrays["scale"].min() > 0
            and arrays["reg"].min() >= 0
        )
        if not sound or not _possible(covariance_model, arrays["sums"], center):
            raise ModelFileError("its statistics are those of no rows")
        return cls(
            record["origin"],
            covariance_model,
            Frame(arrays["shift"], arrays["scale"]),
            arrays["reg"],
            reg_covar,
            arrays["sums"],
            center,
            record["entropy"],
            weight,
            record["rows"],
        )


def _possible(covariance_model: CovarianceModel, sums: Array, center: Array) -> bool:
    """Whether rows may have such ``sums`` (K, P): no variance is negative, but for rounding."""
    counts, n_features = sums[:, 0], center.shape[1]
    held = counts > np.finfo(np.float64).eps * counts.sum()  # others are rounding themselves
    counts, second = counts[held], sums[held, 1 + n_features :]
    offsets = sums[held, 1 : 1 + n_features] / counts[:, None]
    found = covariance_model.estimate(counts, center[held] + offsets, offsets, second, None)
    least = covariance_model.variances(found, len(counts), n_features).min()
    return bool(least >= -1e-9 * max(1.0, np.abs(second / counts[:, None]).max()))


def _check_weight(weight: float) -> None:
    if not WEIGHTS[0] < weight < WEIGHTS[1]:
        raise DataError(f"the weights sum to {weight:.3g}; rescale them")


def _natural(mixture: Mixture, reg: Array) -> NaturalParameters:
    """All components centred: rows to come may lie anywhere."""
    return NaturalParameters.of(mixture, reg, centre=True, per_component=True)


def _own(statistics: Statistics, context: FitContext) -> Statistics:
    """The statistics with each component's own quadratic part.

    Tied sums have none: what all have together is shared out among them.  To a tied covariance
    nothing but the whole matters.
    """
    center, sums = statistics.center, statistics.sums
    n_features = center.shape[1]
    if sums.shape[1] == context.covariance_model.centred.width(n_features):
        return statistics
    assert context.total is not None
    counts, cross = sums[:, :1], sums[:, 1:].T @ center
    within = context.total - cross - cross.T - (center.T @ (counts * center))
    upper = within[np.triu_indices(n_features)]
    return replace(statistics, sums=np.concatenate([sums, counts / counts.sum() * upper], axis=1))


@dataclass(frozen=True)
class _Asked:
    """What a sweep for statistics is given."""

    kernel: str
    given: Given


def _e_step(block: Block, asked: _Asked) -> Stacked[Statistics]:
    """The statistics of a block that no first pass has seen."""
    if wrong := invalid_weight(block):
        raise DataError(wrong[0])
    if invalid_row := describe_invalid_row(block):
        raise DataError(invalid_row)
    return KERNELS[asked.kernel].e_step(block, asked.given)
