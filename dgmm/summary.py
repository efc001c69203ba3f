"""What is kept of rows once they have been seen: enough to go on without them.

A ``Summary`` holds the sufficient statistics of rows under the mixture of the time they were seen,
and adds up by ``+``.  The M-step from it gives the next mixture, and what it holds gives, for any
mixture theta, a lower bound of the objective of all its rows,

    F(theta) = sum_c [ L_c(theta_c) - <S_c, eta(theta_c)> ] + <S, eta(theta)>

with L_c(theta_c) the objective of the c-th rows under the mixture theta_c they were seen with, S_c
their statistics and S all of these together: the free energy of Neal and Hinton (A view of the EM
algorithm that justifies incremental, sparse, and other variants, 1998).  The sum of the brackets is
one number, so the bound is free.

**What is exact.**  Summaries under one mixture, added up, are those of all the rows together, but
for rounding; then the bound at that mixture is the objective, and the M-step is an EM iteration
over all rows, wherever they lie.

**What is not.**  Rows keep the responsibilities they had when they were seen.  With summaries under
different mixtures the M-step raises the bound, and the objective is never below it; but what it
converges to, if rows are never seen again, is not the optimum of all rows.  A fit to all of them,
begun with this mixture, gets there.
"""

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Final, Self

import numpy as np

from dgmm import storage
from dgmm.covariance import Array, Structure
from dgmm.em import Setting, State, Trial, m_step
from dgmm.errors import DataError, ModelFileError, UsageError
from dgmm.kernel import Form, Given
from dgmm.mixture import Frame, Mixture
from dgmm.native import KERNELS
from dgmm.statistics import Statistics, Together
from dgmm.survey import weight_flaw
from dgmm.sweep import Block, Sweep

FORMAT: Final = "dgmm-summary"
ARRAYS: Final = ("sums", "about", "shift", "scale", "reg")


@dataclass(frozen=True)
class Summary:
    """The sufficient statistics of rows, in ``frame``; they merge by ``+``.

    Adding raises ``UsageError`` if the summaries don't descend from one model.

    Attributes
    ----------
    structure : Structure
    frame : Frame
    reg : (D,)
        What is added to the diagonal of each covariance, in the frame.
    sums, about : (K, P), (K, D)
        As in ``Statistics``; each component's own, for tied, too.
    constant : float
        The sum of the brackets above, in the frame.
    weight : float
        The sum of the row weights.
    rows : int
    """

    structure: Structure
    frame: Frame
    reg: Array
    sums: Array
    about: Array
    constant: float
    weight: float
    rows: int

    @classmethod
    def of(cls, state: State, setting: Setting) -> Self:
        """The summary of the rows that a ``state`` came from."""
        objective = (state.objective + setting.frame.log_volume) * setting.weight
        statistics = replace(_own(state.statistics, setting), objective=objective)
        return cls._of(statistics, _form(state.mixture, setting.reg), setting.frame, setting.reg)

    @classmethod
    def _of(cls, statistics: Statistics, form: Form, frame: Frame, reg: Array) -> Self:
        """From ``statistics`` in the layout of ``form``."""
        return cls(
            form.mixture.structure,
            frame,
            reg,
            statistics.sums,
            statistics.about,
            statistics.objective - form.pairing(statistics.sums, statistics.about),
            statistics.weight,
            statistics.rows,
        )

    def __add__(self, other: "Summary") -> "Summary":
        if why := self.differs(other):
            raise UsageError(f"summaries add up only if they descend from one model: {why}")
        moved = self.structure.centred.moved(other.sums, self.about - other.about)
        return replace(
            self,
            sums=self.sums + moved,
            constant=self.constant + other.constant,
            weight=self.weight + other.weight,
            rows=self.rows + other.rows,
        )

    def differs(self, other: "Summary") -> str | None:
        """Why the two can't be added up; None if they can."""
        if self.structure is not other.structure:
            return f"covariances are {self.structure.name} here, {other.structure.name} there"
        if self.about.shape != other.about.shape:
            mine, theirs = self.about.shape, other.about.shape
            return f"components and features are {mine} here, {theirs} there"
        pairs = {
            "shift": (self.frame.shift, other.frame.shift),
            "scale": (self.frame.scale, other.frame.scale),
            "reg_covar": (self.reg, other.reg),
        }
        unlike = [name for name, pair in pairs.items() if not np.array_equal(*pair)]
        return f"they differ in {' and '.join(unlike)}" if unlike else None

    def summarize(self, sweep: Sweep, mixture: Mixture, kernel: str) -> "Summary":
        """The summary of other rows, seen with ``mixture`` (of the data), to be added to this one.

        Raises ``DataError`` if they hold NaN or infinity, or weights that can't be.
        """
        form = _form(self.frame.enter(mixture), self.reg)
        (found,) = sweep(_e_step, _Asked(kernel, Given(self.frame, (form,)))).parts
        if not found.weight > 0:
            raise DataError("all weights are zero: there is nothing to learn from")
        return self._of(found, form, self.frame, self.reg)

    def bound(self, mixture: Mixture) -> float:
        """F, the lower bound of the objective of ``mixture`` (of the data), mean per unit weight.

        Equal to the objective if all rows were seen with this mixture.
        """
        inside = self.frame.enter(mixture)
        alive = np.where(inside.weights > 0, 1.0, 0.0)  # no share where there is no weight
        linear = _form(inside, self.reg).pairing(self.sums * alive[:, None], self.about)
        return (self.constant + linear) / self.weight - self.frame.log_volume

    def improve(self, mixture: Mixture) -> Trial:
        """The mixture (of the data) that raises the bound most: an M-step.

        A component without weight stays as it is in ``mixture`` (of the data).
        """
        setting = Setting(self.structure, self.frame, self.reg, self.weight, None, 0.0)
        statistics = Statistics(self.sums, self.about, 0.0, 0.0, self.weight, self.rows)
        trial = m_step(statistics, setting, self.frame.enter(mixture))
        return replace(trial, mixture=self.frame.leave(trial.mixture))

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write to a path or URL; raises ``DataError`` if something is there already."""
        storage.write(str(path), FORMAT, self.arrays(), {"summary": self.record()}, overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Summary":
        """Read what ``save`` wrote; raises ``ModelFileError`` if it isn't that."""
        arrays, header = storage.read(str(path), FORMAT)
        try:
            return cls.parse(arrays, header)
        except ModelFileError as error:
            raise ModelFileError(f"{path} is no usable summary file: {error}") from error

    def arrays(self) -> storage.Arrays:
        """What of it a file keeps in arrays."""
        own = (self.sums, self.about, self.frame.shift, self.frame.scale, self.reg)
        return dict(zip(ARRAYS, own, strict=True))

    def record(self) -> dict[str, Any]:
        """What of it a file keeps in its header."""
        return {
            "covariance_type": self.structure.name,
            "constant": self.constant,
            "weight": self.weight,
            "rows": self.rows,
        }

    @classmethod
    def parse(cls, arrays: storage.Arrays, header: dict[str, Any]) -> "Summary":
        """From what ``arrays`` and ``record`` gave; raises ``ModelFileError`` if that is wrong."""
        record = header.get("summary")
        if not isinstance(record, dict):
            raise ModelFileError("its header has no record of the statistics")
        structure = storage.structure_of(record)
        storage.need(arrays, ARRAYS)
        about = arrays["about"]
        if about.ndim != 2 or 0 in about.shape:
            raise ModelFileError(f"its about has shape {about.shape}")
        components, dims = about.shape
        shapes: tuple[tuple[int, ...], ...]
        shapes = ((components, structure.centred.width(dims)), about.shape, *[(dims,)] * 3)
        storage.expect(arrays, dict(zip(ARRAYS, shapes, strict=True)))
        try:
            numbers = float(record["constant"]), float(record["weight"]), int(record["rows"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"its record of the statistics lacks {error}") from error
        if not (np.isfinite(numbers[0]) and 0 < numbers[1] < np.inf and arrays["scale"].min() > 0):
            raise ModelFileError("its statistics are of nothing")
        frame = Frame(arrays["shift"], arrays["scale"])
        return cls(structure, frame, arrays["reg"], arrays["sums"], about, *numbers)


def _form(mixture: Mixture, reg: Array) -> Form:
    """All components centred: rows to come may lie anywhere."""
    return Form.of(mixture, reg, centre=True, apart=True)


def _own(statistics: Statistics, setting: Setting) -> Statistics:
    """The statistics with each component's own quadratic part.

    Tied sums have none: what all have together is shared out among them.  To a tied covariance
    nothing but the whole matters.
    """
    about, sums = statistics.about, statistics.sums
    dims = about.shape[1]
    if sums.shape[1] == setting.structure.centred.width(dims):
        return statistics
    assert setting.total is not None
    counts, cross = sums[:, :1], sums[:, 1:].T @ about
    within = setting.total - cross - cross.T - (about.T @ (counts * about))
    upper = within[np.triu_indices(dims)]
    return replace(statistics, sums=np.concatenate([sums, counts / counts.sum() * upper], axis=1))


@dataclass(frozen=True)
class _Asked:
    """What a sweep for a summary is given."""

    kernel: str
    given: Given


def _e_step(block: Block, asked: _Asked) -> Together[Statistics]:
    """The statistics of a block that no survey has seen."""
    if flaw := weight_flaw(block):
        raise DataError(flaw)
    return KERNELS[asked.kernel].e_step(block, asked.given)
