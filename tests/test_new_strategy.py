"""A strategy that is not dgmm's: a class for its solver, one for itself, a line in STRATEGIES."""

import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from dgmm import CheckpointError, GaussianMixture, select
from dgmm.em.evaluate import State
from dgmm.em.fit_context import FitContext
from dgmm.em.init import representative, seeded
from dgmm.em.model import Trial
from dgmm.em.moments import DataMoments
from dgmm.em.solver import RunState, Solver, StopRule
from dgmm.em.spec import FitSpec, Strategy
from dgmm.em.starts import Budget
from dgmm.em.strategies import STRATEGIES
from dgmm.em.subsamples import Samples
from dgmm.io.codec import Known, decode, encode
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Momentum(Solver):
    """EM whose means go on as they went before, a little.

    Attributes
    ----------
    share : float
        How much of the last step of the means is made once more.
    moved : (K, D) or None
        That step.
    """

    share: float = 0.3
    moved: Array | None = None

    def init(self, context: FitContext, start: Mixture, stop: StopRule) -> RunState:
        return RunState.begin(context, start, stop, self, far=False)

    def step(self, run: RunState, state: State) -> RunState:
        after = replace(run.record(state), state=state)
        if after.budget_exhausted or abs(after.change) < run.stop.tol:
            return after.finish(not after.budget_exhausted)
        image = run.context.m_step(state).mixture
        means = image.means if self.moved is None else image.means + self.share * self.moved
        solver = replace(self, moved=means - state.mixture.means)
        return after.by(solver).propose(Trial(replace(image, means=means)), far=False)

    def reach(self, run: RunState) -> float:
        return np.inf


@dataclass(frozen=True)
class Rolling(Strategy):
    """Momentum from one k-means start."""

    name: ClassVar[str] = "rolling"
    solvers: ClassVar[tuple[type[Solver], ...]] = (Momentum,)

    def goal(self, spec: FitSpec) -> str:
        return "tol"

    def sample_rows(self, spec: FitSpec, rows: int, n_features: int) -> int:
        return 500

    def budget(self, spec: FitSpec, rows: int, n_features: int, sampled: int) -> Budget:
        return Budget(0, 0, (), 0.0)

    def nbytes(self, spec: FitSpec, rows: int, n_features: int, runs: int) -> int:
        return 8 * runs * spec.components * n_features

    def begin(
        self, moments: DataMoments, context: FitContext, spec: FitSpec, samples: Samples
    ) -> list[RunState]:
        sample, count = representative(moments), spec.components
        start = seeded(sample, context, count, "kmeans", spec.random)
        return [Momentum().init(context, start, StopRule(spec.max_iter, tol=1e-7))]


PARAMS: dict[str, Any] = {"strategy": "rolling", "random_state": 0, "max_iter": 200}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, Rolling.name, Rolling())


def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 2)) + 2.5 * rng.integers(3, size=(3000, 1))


def fit_and_be_killed(place: str, after: int) -> None:
    """A fit in a process that is killed once so many passes are done."""
    STRATEGIES[Rolling.name] = Rolling()
    for progress in GaussianMixture(3, checkpoint=place, **PARAMS).fit_passes(rows()):
        if progress.passes == after:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.usefixtures("registered")
def test_a_new_strategy_fits_and_goes_on_from_its_checkpoint(tmp_path: Path, after: int) -> None:
    whole = GaussianMixture(3, **PARAMS).fit(rows())
    assert whole.fit_info_["strategy"] == "rolling"
    plain = GaussianMixture(3, strategy="em", tol=1e-9, max_iter=5000).fit(rows())
    assert whole.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-5)
    assert whole.fit_info_["passes"] > 5

    place = str(tmp_path / "passes")
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=fit_and_be_killed, args=(place, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = GaussianMixture(3, checkpoint=place, **PARAMS)
    first = next(passes := again.fit_passes(rows()))
    passes.close()
    assert (first.passes, first.resumed) == (after, True)
    again.fit(rows())
    np.testing.assert_array_equal(again.means_, whole.means_)
    np.testing.assert_array_equal(again.covariances_, whole.covariances_)
    assert again.lower_bounds_ == whole.lower_bounds_


@pytest.mark.usefixtures("registered")
def test_a_new_strategy_chooses_too() -> None:
    template = {name: value for name, value in PARAMS.items() if name != "max_iter"}
    assert select(rows(), [1, 2, 3, 4], **template).best_params_["n_components"] == 3


@pytest.mark.usefixtures("registered")
def test_a_checkpoint_holds_no_other_solvers_than_the_strategys() -> None:
    """A solver is read where its strategy says that its runs are by it, as it was written."""
    *_, last = GaussianMixture(3, **PARAMS).fit_passes(rows())
    run, arrays = last.run, dict[str, Array]()
    told = encode(run, arrays)
    samples: Any = None  # such a run refers to none
    again = decode(RunState, told, arrays, Known(run.context, samples, Rolling.solvers))
    assert isinstance(again.solver, Momentum)
    np.testing.assert_array_equal(again.solver.moved, run.solver.moved)
    assert again.trace == run.trace
    with pytest.raises(CheckpointError, match="Momentum"):
        decode(RunState, told, arrays, Known(run.context, samples, STRATEGIES["em"].solvers))
