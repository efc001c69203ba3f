"""The whole fit, from the first sweep to the last, as a generator of progress.

::

    survey -> errors at the door -> setting -> starts -> em.run -> states

It yields after every sweep.  Its consumer shows progress, saves, stops, and takes the best state
of the last one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgmm import em, seeding
from dgmm.covariance import Array, Structure
from dgmm.em import Setting, State
from dgmm.errors import DataError, UsageError
from dgmm.mixture import Mixture
from dgmm.survey import Question, Survey, survey
from dgmm.sweep import Sweep


@dataclass(frozen=True)
class Request:
    """What is to be fitted; arrays are in the data's units.

    Attributes
    ----------
    structure : Structure
    components, tol, reg_covar, max_iter, n_init, init_params
        As in ``GaussianMixture``.
    kernel, precision : str
        A key of ``native.KERNELS``; one of ``em.PRECISIONS``.
    random : RandomState
    weights, means, precisions : (K,), (K, D), ``structure.shape(K, D)``, or None
        Where to start, as far as given.
    """

    structure: Structure
    components: int
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "kmeans"
    kernel: str = "numpy"
    precision: str = "float64"
    random: Any = None
    weights: Array | None = None
    means: Array | None = None
    precisions: Array | None = None

    def question(self, rows: int, dims: int, weighted: bool) -> Question:
        """What the first sweep asks for."""
        seed = seeding.sample_seed(self.random)
        pairs = self.structure.shared
        return Question.about(rows, dims, self.components, seed, weighted, pairs)


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a sweep.

    Attributes
    ----------
    passes : int
        Sweeps so far.
    found : Survey
    setting : Setting
    states : tuple of State
        One for each start; none after the first sweep.
    """

    passes: int
    found: Survey
    setting: Setting
    states: tuple[State, ...] = ()

    @property
    def best(self) -> State:
        """The state with the highest objective."""
        return max(self.states, key=lambda state: state.objective)

    @property
    def mixture(self) -> Mixture:
        """The best state's mixture, of the data."""
        return self.setting.frame.leave(self.best.mixture)


def fit(sweep: Sweep, request: Request, question: Question) -> Iterator[Progress]:
    """Fit; raises ``DataError`` after the first sweep if the rows can't be used."""
    found = sweep(survey, question)
    _check(found, request.components)
    setting = Setting.of(
        found, request.structure, request.reg_covar, request.kernel, request.precision
    )
    yield Progress(1, found, setting)
    starts = [_start(found, setting, request) for _ in range(request.n_init)]
    runs = em.run(sweep, setting, starts, request.tol, request.max_iter)
    for passes, states in enumerate(runs, start=2):
        yield Progress(passes, found, setting, states)


def _check(found: Survey, components: int) -> None:
    if found.flaw is not None:
        raise DataError(found.flaw[1])
    if not found.weight > 0:
        raise DataError("all weights are zero: there is nothing to fit")
    if not 1e-200 < found.weight < 1e200:
        raise DataError(
            f"the weights sum to {found.weight:.3g}; rescale them, so that sums don't overflow"
        )
    if found.weighted < components:
        raise DataError(
            f"{found.weighted} rows have a weight above 0, fewer than the {components} components"
        )
    if not np.isfinite(found.variance).all():
        raise DataError("the rows are too large: their sums of squares overflow; rescale them")


def _start(found: Survey, setting: Setting, request: Request) -> Mixture:
    """One first mixture (in the frame): what is given of it, the rest by ``init_params``."""
    weights, means, precisions = request.weights, request.means, request.precisions
    if weights is not None and means is not None and precisions is not None:
        return setting.frame.enter(given_mixture(request.structure, weights, means, precisions))
    seeded = setting.frame.leave(
        seeding.seed(found, setting, request.components, request.init_params, request.random)
    )
    weights = seeded.weights if weights is None else weights
    means = seeded.means if means is None else means
    if precisions is not None:
        return setting.frame.enter(given_mixture(request.structure, weights, means, precisions))
    return setting.frame.enter(replace(seeded, weights=weights, means=means))


def given_mixture(structure: Structure, weights: Array, means: Array, precisions: Array) -> Mixture:
    """A mixture from given parameters; raises ``UsageError`` unless they make one."""
    try:
        return Mixture.of(structure, weights / weights.sum(), means, precisions)
    except np.linalg.LinAlgError as error:
        raise UsageError(f"precisions_init must be symmetric positive definite: {error}") from error
