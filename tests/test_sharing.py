"""Work that threads share between sweeps, and who adds up: never a bit depends on the threads."""

import threading
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dgmm import GaussianMixture
from dgmm.data.opening import open_dataset
from dgmm.em import abreast, splits, strategies
from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.evaluate import State
from dgmm.em.solver import RunState
from dgmm.engine.adding import SharedSum
from dgmm.engine.blas import kept_pool
from dgmm.engine.threads import Threads
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model import matrices, sharing
from dgmm.model.sharing import shared, shared_out

MUCH = 1e9
COLOUR: ContextVar[str] = ContextVar("colour", default="none")


class Nested(tuple):  # type: ignore[type-arg]
    """A sum that shows what was added to what."""

    def __add__(self, other: "Nested") -> "Nested":  # type: ignore[override]
        return Nested((self, other))


@pytest.mark.parametrize("blocks", [1, 2, 7, 8, 21])
def test_whatever_comes_first_the_same_is_added_to_the_same(blocks: int) -> None:
    """Units in their order, blocks by the tree; of every third block there are three units."""
    leaves = [
        [Nested((block, number)) for number in range(1 if block % 3 else 3)]
        for block in range(blocks)
    ]
    folded = [own[0] if len(own) == 1 else (own[0] + own[1]) + own[2] for own in leaves]
    arrivals = [(block, number) for block, own in enumerate(leaves) for number in range(len(own))]
    rng = np.random.default_rng(0)
    for _ in range(10):
        total = SharedSum[Nested]()
        for block, number in rng.permutation(arrivals).tolist():
            last = number == len(leaves[block]) - 1
            total.add(block, number, last, leaves[block][number])
        assert total.sum() == tree_sum(folded)


def test_parts_are_shared_out_in_order_and_see_their_context() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def part(number: int) -> tuple[int, str, int, str]:
        meeting.wait()  # there are two threads, and both are at work
        inner = shared_out(lambda _: threading.get_ident(), [0, 1], MUCH)
        assert inner == [threading.get_ident()] * 2  # or it would wait for itself
        return number, COLOUR.get(), threading.get_ident(), np.geterr()["over"]

    COLOUR.set("blue")
    with ThreadPoolExecutor(2) as pool, shared(lambda: pool), np.errstate(over="raise"):
        found = shared_out(part, [5, 6, 7, 8], MUCH)
        with pytest.raises(ZeroDivisionError):
            shared_out(lambda number: 1 // number, [1, 0], MUCH)
        here = shared_out(lambda _: threading.get_ident(), [0, 1], 1.0)
    assert [each[0] for each in found] == [5, 6, 7, 8]
    assert {each[1] for each in found} == {"blue"}
    assert {each[3] for each in found} == {"raise"}
    assert threading.get_ident() not in {each[2] for each in found}
    assert here == [threading.get_ident()] * 2  # too little to be worth it


def test_matrices_in_batches_have_the_bits_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = np.random.default_rng(0).normal(size=(50, 6, 9))
    covariances = roots @ roots.swapaxes(1, 2)
    covariances[7] = np.outer(covariances[7, 0], covariances[7, 0])  # it is raised
    whole = matrices.factor_matrices(covariances)
    solved = matrices.solve_factors(whole[1], covariances)
    monkeypatch.setattr(sharing, "LEAST_NUMBERS", 0)
    monkeypatch.setattr(matrices, "BATCH", 4 * 6**3)
    with ThreadPoolExecutor(2) as pool, shared(lambda: pool):
        batched = matrices.factor_matrices(covariances)
        again = matrices.solve_factors(whole[1], covariances)
    for one, other in zip((*whole, solved), (*batched, again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole[2].sum() == 1


def test_a_fit_has_the_same_bits_however_many_threads_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that can be shared out is, however small, and not only what many rows need."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(16_000, 2)) + 4 * rng.integers(0, 3, size=(16_000, 2))
    by, called = sharing._by, Counter[str]()

    def counted(pool: Executor, fn: Any, parts: Any) -> Any:
        called[fn.__qualname__.split(".")[0]] += 1
        return by(pool, fn, parts)

    monkeypatch.setattr(sharing, "LEAST_NUMBERS", 0)
    monkeypatch.setattr(sharing, "_by", counted)
    monkeypatch.setattr(splits, "PART", 0)
    monkeypatch.setattr(abreast, "SMALL", 0)
    fits = []
    for threads in (1, 2, 8):
        assert bool(called) == (threads > 2)
        model = GaussianMixture(10, n_init=2, random_state=0, n_jobs=threads).fit(rows)
        fits.append((model.means_.tobytes(), model.covariances_.tobytes()))
    assert set(called) == {
        *("evaluate", "advanced", "splits_of", "_members", "moved_mixtures", "_different")
    }
    assert len(set(fits)) == 1


def test_no_thread_waits_for_itself_where_steps_sweep_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs that go on side by side and sweep samples in their steps wait for the same threads."""
    stepping, step = Counter[threading.Thread](), ControlVariateEM.step

    def seen(solver: ControlVariateEM, run: RunState, state: State) -> RunState:
        stepping[threading.current_thread()] += 1
        return step(solver, run, state)

    monkeypatch.setattr(sharing, "LEAST_NUMBERS", 0)
    monkeypatch.setattr(strategies, "FAR_BELOW", 1)  # as if there were many more rows
    monkeypatch.setattr(strategies, "SURROGATE", 1)
    monkeypatch.setattr(ControlVariateEM, "step", seen)
    cube = np.random.default_rng(0).uniform(size=(12_000, 2))
    args: dict[str, Any] = {"n_init": 3, "resolution": 10, "max_iter": 1, "n_jobs": 4}
    GaussianMixture(6, random_state=0, **args).fit(cube)
    assert stepping.keys() == {threading.main_thread()}
    assert stepping.total() > 1


def test_parts_may_sweep() -> None:
    """All threads may have parts that sweep: none waits for the others, or nobody would end."""
    rows = np.random.default_rng(0).normal(size=(40_000, 1))
    sweep = Threads(open_dataset(rows), 2)

    def total(block: Block, given: Any) -> np.float64:
        return np.float64(block.rows.sum())

    def swept(part: int) -> np.float64:
        return sweep(total, SimpleNamespace(row_products=1e6))

    with shared(partial(kept_pool, "dgmm", 2)):
        found = shared_out(swept, range(4), MUCH)
    assert found == [swept(0)] * 4
    assert found[0] == pytest.approx(rows.sum())
