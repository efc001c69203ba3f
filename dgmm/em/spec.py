"""What is to be fitted, and by what strategy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dgmm.em import init
from dgmm.em.deadline import NEVER, Deadline
from dgmm.em.first_pass import FirstPassSpec
from dgmm.em.fit_context import FitContext
from dgmm.em.moments import DataMoments
from dgmm.em.noise_spec import NoiseSpec
from dgmm.em.prior_spec import NO_PRIOR, PriorSpec
from dgmm.em.solver import RunState, Solver
from dgmm.em.starts import Budget, Search
from dgmm.em.subsamples import ABREAST, Samples
from dgmm.kernels.observation import COMPLETE, Observation
from dgmm.model.arrays import Array
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.fixed import Held
from dgmm.model.mixture import Mixture
from dgmm.model.tails import TailsSpec


class Strategy(ABC):
    """How mixtures are fitted: by what solvers, from what starts, and what that takes.

    Attributes
    ----------
    name : str
        What users call it: its key in ``strategies.STRATEGIES``.
    solvers : tuple of type
        The solvers that its runs may be by: what a checkpoint may hold.
    """

    __slots__ = ()
    name: ClassVar[str]
    solvers: ClassVar[tuple[type[Solver], ...]]

    @abstractmethod
    def goal(self, spec: "FitSpec") -> str:
        """The parameter that says when a fit has converged: "tol" or "resolution"."""

    @abstractmethod
    def sample_rows(self, spec: "FitSpec", rows: int, n_features: int) -> int:
        """How many rows it wants to be sampled; 0 if what is usual will do."""

    @abstractmethod
    def budget(self, spec: "FitSpec", rows: int, n_features: int, sampled: int) -> Budget:
        """What finding a start on a sample may cost; nothing where none is looked for there."""

    @abstractmethod
    def nbytes(self, spec: "FitSpec", rows: int, n_features: int, runs: int) -> int:
        """What so many ``runs`` side by side remember, or what finding their starts takes."""

    def search(
        self, context: FitContext, spec: "FitSpec", shape: tuple[int, int], sampled: int
    ) -> Search | None:
        """What starts are to be looked for before it begins, on so many ``sampled`` rows.

        None where none are, or in a way of its own.  All rows have that ``shape``.
        """
        return None

    @abstractmethod
    def begin(
        self, moments: DataMoments, context: FitContext, spec: "FitSpec", samples: Samples
    ) -> list[RunState]:
        """The runs before their first sweep over all rows."""


@dataclass(frozen=True)
class FitSpec:
    """What is to be fitted; arrays are in the data's units.

    Attributes
    ----------
    covariance_model : CovarianceModel
    strategy : Strategy
    components, tol, resolution, reg_covar, max_iter, n_init, init_params, effort
        As in ``GaussianMixture``.
    kernel, precision : str
        A key of ``choice.KERNELS``; one of ``fit_context.PRECISIONS``.
    random : RandomState
    weights, means, precisions : (K,), (K, D), ``covariance_model.shape(K, D)``, or None
        Where to start, as far as given.
    before : float or None
        The objective at the start of the last iteration of the fit that gave the start, if one did.
    observation : Observation
        What NaN means.
    held : Held or None
        Which of the starting values are held.
    noise : NoiseSpec or None
        The noise component that is asked for.
    tails : TailsSpec or None
        What is asked of the tails, where components are t distributions.
    deadline : Deadline
        When it ends with what it has, once there is an objective; asked between sweeps.
    prior : PriorSpec
        What the objective holds beside the likelihood.
    starts : tuple of Mixture
        Starts (in the frame) that its strategy's search has found.
    """

    covariance_model: CovarianceModel
    components: int
    strategy: Strategy
    tol: float | None = None
    resolution: float = 0.1
    reg_covar: float | None = None
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "auto"
    effort: str = "auto"
    kernel: str = "numpy"
    precision: str = "float64"
    random: Any = None
    weights: Array | None = None
    means: Array | None = None
    precisions: Array | None = None
    before: float | None = None
    observation: Observation = COMPLETE
    held: Held | None = None
    noise: NoiseSpec | None = None
    tails: TailsSpec | None = None
    deadline: Deadline = NEVER
    prior: PriorSpec = NO_PRIOR
    starts: tuple[Mixture, ...] = ()

    def first_pass_spec(
        self, rows: int, n_features: int, weighted: bool, beside: int = 0
    ) -> FirstPassSpec:
        """What the first sweep asks for; ``beside`` as in ``FirstPassSpec``."""
        seed = init.sample_seed(self.random)
        model = self.covariance_model
        common = not self.observation.holes
        pairs = model.needs_scatter and self.noise is None and self.tails is None
        pairs = common and (pairs or self.prior.needs_covariance(model))
        wanted = self.strategy.sample_rows(self, rows, n_features)
        spec = FirstPassSpec.of(
            *(rows, n_features, self.components, seed, weighted),
            *(pairs, wanted, self.kernel, self.observation, beside),
        )
        return replace(spec, probed=self.observation.holes or self.tails is not None)

    def parameters(self, n_features: int) -> int:
        """The number of free parameters."""
        covariances = self.covariance_model.free_parameters(self.components, n_features)
        count = covariances + self.components * n_features + self.all_components - 1
        count += 0 if self.tails is None else self.tails.rule.free(self.components)
        if self.held is None:
            return count
        noise = self.noise is not None
        return count - self.held.fixed.parameters(self.covariance_model, n_features, noise)

    def coordinates(self, n_features: int) -> int:
        """How many numbers solvers see; more than free parameters, where components share parts."""
        model, count = self.covariance_model, self.components
        more = model.coordinates(count, n_features) - model.free_parameters(count, n_features)
        return self.parameters(n_features) + more

    @property
    def all_components(self) -> int:
        """K, and one more if there is a noise component."""
        return self.components + (self.noise is not None)

    def budget(self, rows: int, n_features: int, sampled: int) -> Budget:
        """What finding a start on a sample may cost; nothing where none is looked for there."""
        return self.strategy.budget(self, rows, n_features, sampled)

    def abreast(self, rows: int, n_features: int, sampled: int, near: bool = True) -> int:
        """How many runs may go on side by side: on samples, if these are ``near``, and over all.

        What so few rows cost that hundreds of starts are cheap is not counted.
        """
        budget = self.budget(rows, n_features, sampled)
        if not budget.rows:
            return self.n_init
        ends = max(budget.starts, self.n_init) if budget.subsamples else 1
        return ends if near else min(ends, ABREAST)

    def nbytes(self, rows: int, n_features: int, runs: int) -> int:
        """What ``runs`` side by side take: their memory, or what shows how to split."""
        return self.strategy.nbytes(self, rows, n_features, runs)

    @property
    def given(self) -> bool:
        """Whether any starting values are."""
        return any(value is not None for value in (self.weights, self.means, self.precisions))

    @property
    def complete(self) -> bool:
        """Whether all starting values are given."""
        return all(value is not None for value in (self.weights, self.means, self.precisions))
