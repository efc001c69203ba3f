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

from dgmm.em.degenerate import ALONE, thin
from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Model, Trial
from dgmm.errors import ModelFileError, UsageError
from dgmm.estimators.statistics_file import fields
from dgmm.estimators.summarizing import check_weight, natural_of, summarized, with_products
from dgmm.io import storage
from dgmm.kernels.labelled import Labelled
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import COMPLETE, OBSERVATIONS, Noisy, Observation
from dgmm.kernels.sweep import Sweep
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import Fixed
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Prior
from dgmm.model.statistics import Statistics

FORMAT: Final = "dgmm-sufficient-statistics"
ARRAYS: Final = ("sums", "center", "shift", "scale", "reg")


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """The sufficient statistics of rows: what ``partial_fit`` keeps of the rows it has seen.

    ``GaussianMixture.summarize`` makes them, and ``+`` adds up those of different rows.  Adding
    raises ``UsageError`` unless both descend from one fit.  Rows that are added twice count twice.

    Parameters
    ----------
    origin : str
        The fit that the statistics descend from: a digest of the mixture that it led to.
    covariance_model : CovarianceModel
        What the components' covariances may be.
    frame : Frame
        The shift (D,) and the scale (D,) that rows are taken in.
    prior : Prior
        What the objective holds beside the likelihood, in the frame.
    reg_covar : float or None
        The model's parameter that the prior's ``reg`` came from.
    sums : array (K, P)
        For each component the weight of its rows, and the sums of their features and of products
        of these, all about ``center``; of tied covariances, too, each component has its own.
    center : array (K, D)
        What the sums are taken about, in the frame.
    entropy : float
        The entropy of the responsibilities of all rows, in nats: the sum of the brackets in the
        module's docstring.
    weight : float
        The sum of the rows' weights.
    rows : int
        How many rows there are.
    observation : Observation
        What NaN means in them.
    fixed : Fixed or None
        What the fit held, which M-steps from them hold, too.
    under : str or None
        A digest of the mixture of the data that gave the responsibilities; None where several did,
        or a file does not tell.

    References
    ----------
    .. [1] R. M. Neal and G. E. Hinton, "A view of the EM algorithm that justifies incremental,
       sparse, and other variants", Learning in Graphical Models, 1998.

    Examples
    --------
    Two sites have rows of their own, and one mixture.

    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = GaussianMixture(random_state=0).fit(rows)
    >>> here, there = model.summarize(rows[:150]), model.summarize(rows[150:])
    >>> here + there
    <SufficientStatistics: 200 rows of weight 200, under 1 full components of 2 features>
    """

    origin: str
    covariance_model: CovarianceModel
    frame: Frame
    prior: Prior
    reg_covar: float | None
    sums: Array
    center: Array
    entropy: float
    weight: float
    rows: int
    observation: Observation = COMPLETE
    fixed: Fixed | None = None
    under: str | None = None

    def __repr__(self) -> str:
        count, n_features = self.center.shape
        return (
            f"<SufficientStatistics: {self.rows:,} rows"
            + " with known errors" * self.observation.deconvolves
            + f" of weight {self.weight:.8g}, under {count} "
            f"{self.covariance_model.name} components of {n_features} features>"
        )

    @classmethod
    def of(cls, state: State, context: FitContext) -> Self:
        """The statistics of the rows that a pass of a fit has swept.

        Parameters
        ----------
        state : State
            A mixture, and what the sweep found of the rows under it.
        context : FitContext
            What the fit is made with: its frame, covariance model and prior.

        Returns
        -------
        SufficientStatistics
            Those of the rows under that mixture.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture, SufficientStatistics
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> *_, last = GaussianMixture(random_state=0).fit_passes(rows)
        >>> run = last.best.run
        >>> SufficientStatistics.of(run.best, run.context).rows
        200
        """
        prior, observation = context.model.prior, context.model.observation.plain
        objective = state.objective + context.frame.log_volume - prior.log_density(state.mixture)
        objective *= context.weight
        statistics = replace(with_products(state.statistics, context), objective=objective)
        natural, mixture = natural_of(state.mixture, context.model), state.mixture
        shared = (context.frame, prior, context.reg_covar, observation, context.model.fixed)
        under = digest(context.frame.leave(mixture))
        return cls._of(digest(mixture)[:16], statistics, natural, *shared, under)

    @classmethod
    def _of(
        cls,
        origin: str,
        statistics: Statistics,
        natural: NaturalParameters,
        frame: Frame,
        prior: Prior,
        reg_covar: float | None,
        observation: Observation,
        fixed: Fixed | None,
        under: str,
    ) -> Self:
        """From ``statistics`` in the features of ``natural``."""
        entropy = statistics.objective - natural.inner_product(statistics.sums, statistics.center)
        if not observation.holes:  # else it is also that of what is missing, of either sign
            most = statistics.weight * np.log(len(statistics.sums))
            entropy = float(np.clip(entropy, 0.0, most))  # a difference of large numbers
        return cls(
            origin,
            natural.mixture.covariance_model,
            frame,
            prior,
            reg_covar,
            statistics.sums,
            statistics.center,
            entropy,
            statistics.weight,
            statistics.rows,
            observation,
            fixed,
            under,
        )

    def __add__(self, other: "SufficientStatistics") -> "SufficientStatistics":
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if why := self.differs(other):
            raise UsageError(f"statistics add up only if they descend from one fit: {why}")
        moved = self.covariance_model.centred_features.shifted(
            other.sums, self.center - other.center
        )
        weight = self.weight + other.weight
        check_weight(weight)
        return replace(
            self,
            sums=self.sums + moved,
            entropy=self.entropy + other.entropy,
            weight=weight,
            rows=self.rows + other.rows,
            observation=max(
                *(self.observation, other.observation),
                key=lambda observation: (observation.deconvolves, observation.holes),
            ),
            under=self.under if self.under == other.under else None,
        )

    def __radd__(self, other: int) -> "SufficientStatistics":
        return self if other == 0 else NotImplemented  # so that sum() works

    def differs(self, other: "SufficientStatistics") -> str | None:
        """Why two statistics can't be added up.

        Parameters
        ----------
        other : SufficientStatistics
            The statistics to add.

        Returns
        -------
        str or None
            The reason, for a message; None if they can be added up.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> other = GaussianMixture(random_state=0).fit(rows + 1)
        >>> model.sufficient_statistics_.differs(model.summarize(rows))
        >>> model.sufficient_statistics_.differs(other.sufficient_statistics_)
        'their models were fitted apart'
        """
        if self.covariance_model != other.covariance_model:
            names = self.covariance_model.name, other.covariance_model.name
            return f"covariances are {names[0]} here, {names[1]} there"
        if self.center.shape != other.center.shape:
            mine, theirs = self.center.shape, other.center.shape
            return f"components and features are {mine} here, {theirs} there"
        pairs = (
            (self.frame.shift, other.frame.shift),
            (self.frame.scale, other.frame.scale),
        )
        held = [
            None if statistics.fixed is None else statistics.fixed.record()
            for statistics in (self, other)
        ]
        same = self.origin == other.origin and held[0] == held[1]
        same = same and self.prior.is_same(other.prior)
        if not same or not all(np.array_equal(*pair) for pair in pairs):
            return "their models were fitted apart"
        return None

    def summarize(
        self,
        sweep: Sweep,
        mixture: Mixture,
        kernel: str,
        noise: bool = False,
        labels: bool = False,
        radius: float | None = None,
    ) -> "SufficientStatistics":
        """The statistics of other rows, which can be added to these: an E-step.

        Parameters
        ----------
        sweep : Sweep
            Sweeps the other rows (``dgmm.engine.over``).
        mixture : Mixture
            The mixture of the data that gives the responsibilities.
        kernel : {"native", "numpy"}
            Which kernel computes.
        noise : bool, default=False
            Whether the other rows have known errors.
        labels : bool, default=False
            Whether it is known of some what components they may be of.
        radius : float, optional
            Rows further than this from the origin of the frame, in it, are drawn in to there.

        Returns
        -------
        SufficientStatistics
            Those of the other rows alone.

        Raises
        ------
        DataError
            If a row holds NaN or infinity, a weight is negative or not finite, or all are zero.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> from dgmm import engine
        >>> sweep = engine.in_memory_sweep(rows[:50])
        >>> model.sufficient_statistics_.summarize(sweep, model.mixture_, "numpy").rows
        50
        """
        natural = natural_of(self.frame.enter(mixture), self._model)
        plain = OBSERVATIONS[self.observation.name](kernel)
        observation = Noisy(kernel, plain) if noise else plain
        given = Given(self.frame, (observation.given(natural),))
        labelled = Labelled(kernel, observation, mixture.components) if labels else observation
        statistics = summarized(sweep, labelled, given, radius)
        kept = observation if noise else self.observation
        return self._of(
            *(self.origin, statistics, natural, self.frame, self.prior, self.reg_covar),
            *(kept, self.fixed, digest(mixture)),
        )

    @property
    def mean(self) -> Array:
        """The mean (D,) of the rows.

        Returns
        -------
        array (D,)
            Of the data; where values were missing, of what was expected there.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture(random_state=0).fit([[1.0], [2.0], [6.0]])
        >>> model.sufficient_statistics_.mean.round(9).tolist()
        [3.0]
        """
        n_features = len(self.frame.shift)
        sums = self.sums[:, 1 : 1 + n_features] + self.sums[:, :1] * self.center
        mean: Array = self.frame.shift + self.frame.scale * sums.sum(axis=0) / self.weight
        return mean

    def bound(self, mixture: Mixture) -> float:
        """A lower bound of the objective of all rows, F in the module's docstring.

        Parameters
        ----------
        mixture : Mixture
            A mixture of the data.

        Returns
        -------
        float
            In nats, per unit of weight.  It equals the objective if all rows were seen with
            ``mixture``, and is minus infinity if a component that has rows has no weight there.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> bound = model.sufficient_statistics_.bound(model.mixture_)
        >>> bool(np.isclose(bound, model.lower_bound_))
        True
        """
        inside, prior = self.frame.enter(mixture), self.prior.of_weight(self.weight)
        dead = inside.all_weights <= 0
        if np.any(self.sums[dead, 0] > np.finfo(np.float64).eps * self.weight):
            return -np.inf
        sums = np.where(dead[:, None], 0.0, self.sums)
        linear = natural_of(inside, self._context.model).inner_product(sums, self.center)
        likelihood = (self.entropy + linear) / self.weight - self.frame.log_volume
        return likelihood + prior.log_density(inside)

    def improve(self, mixture: Mixture) -> Trial:
        """The mixture of the data that maximises the bound: an M-step.

        Parameters
        ----------
        mixture : Mixture
            A mixture of the data, in which a component without rows stays as it is.

        Returns
        -------
        Trial
            The new ``mixture``, and which of its components are ``empty`` or ``singular``.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> trial = model.sufficient_statistics_.improve(model.mixture_)
        >>> bool(np.allclose(trial.mixture.means, rows.mean(axis=0)))
        True
        """
        trial = self._context.m_step_of(self._statistics, self.frame.enter(mixture))
        improved = self.frame.leave(trial.mixture)
        return replace(trial, mixture=self._model.hold(improved, mixture))

    def bare(self, mixture: Mixture) -> Trial:
        """The M-step of ``improve`` without ``reg``.

        Parameters
        ----------
        mixture : Mixture
            A mixture of the data, in which a component without rows stays as it is.

        Returns
        -------
        Trial
            The new ``mixture``, and which of its components are ``empty`` or ``singular``.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> trial = model.sufficient_statistics_.bare(model.mixture_)
        >>> bool(np.allclose(trial.mixture.covariances.dense()[0], np.cov(rows.T, bias=True)))
        True
        """
        return replace(self, prior=self.prior.unregularised).improve(mixture)

    def held(self, mixture: Mixture) -> tuple[int, ...]:
        """The components that nothing but ``reg`` keeps from being singular in the M-step.

        Parameters
        ----------
        mixture : Mixture
            A mixture of the data, in which a component without rows stays as it is.

        Returns
        -------
        tuple of int
            Their numbers, from 0.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> model.sufficient_statistics_.held(model.mixture_)
        ()
        """
        return thin(self._statistics, self._context, self.frame.enter(mixture), ALONE)

    @property
    def _model(self) -> Model:
        return Model(self.covariance_model, self.prior, self.observation, self.fixed)

    @property
    def _context(self) -> FitContext:
        model = replace(self._model, prior=self.prior.of_weight(self.weight))
        return FitContext(model, self.frame, self.weight, None, 0.0)

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
            Whether to replace a file that is there.

        Raises
        ------
        DataError
            If a file is there already, unless ``overwrite``; or if it can't be written.

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
            The statistics as they were saved.

        Raises
        ------
        ModelFileError
            If there is no such file, or it can't be used.

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
        """The arrays that a file of the statistics holds.

        Returns
        -------
        dict of str to array
            ``sums`` (K, P), ``center`` (K, D), ``shift``, ``scale`` and ``reg`` (D,), and those of
            the prior.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> model.sufficient_statistics_.arrays()["center"].shape
        (1, 2)
        """
        values = (self.sums, self.center, self.frame.shift, self.frame.scale, self.prior.reg)
        return {**dict(zip(ARRAYS, values, strict=True)), **self.prior.arrays()}

    def record(self) -> dict[str, Any]:
        """The numbers and texts that the header of a file of the statistics holds.

        Returns
        -------
        dict
            The other fields by name, with ``covariance_type`` for the covariance model.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> record = model.sufficient_statistics_.record()
        >>> record["covariance_type"], record["rows"]
        ('full', 200)
        """
        return {
            "origin": self.origin,
            "covariance_type": self.covariance_model.name,
            "reg_covar": self.reg_covar,
            "entropy": self.entropy,
            "weight": self.weight,
            "rows": self.rows,
            "missing": self.observation.name,
            "fixed": None if self.fixed is None else self.fixed.record(),
            "components": None if self.fixed is None else len(self.fixed.weights),
            "prior": self.prior.numbers(),
            "noise": self.observation.deconvolves,
            "under": self.under,
        }

    @classmethod
    def parse(cls, arrays: storage.Arrays, header: dict[str, Any]) -> "SufficientStatistics":
        """The statistics that a file holds.

        Parameters
        ----------
        arrays : dict of str to array
            What ``arrays`` gave.
        header : dict
            The file's header, which has what ``record`` gave as ``sufficient_statistics``.

        Returns
        -------
        SufficientStatistics
            As they were saved.

        Raises
        ------
        ModelFileError
            If an array or a number is missing, or can't be one of any rows.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = GaussianMixture(random_state=0).fit(rows)
        >>> from dgmm import SufficientStatistics
        >>> statistics = model.sufficient_statistics_
        >>> header = {"sufficient_statistics": statistics.record()}
        >>> SufficientStatistics.parse(statistics.arrays(), header).rows
        200
        """
        return cls(**fields(arrays, header))


def digest(mixture: Mixture) -> str:
    """What tells a ``mixture`` from all others: the SHA-256 of its parameters."""
    parts = mixture.all_weights, mixture.means, mixture.covariances.values
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(np.ascontiguousarray(part).data)
    return hashed.hexdigest()
