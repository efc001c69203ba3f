"""Laws of EM: the objective never falls, and runs side by side are runs alone."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from laws import TOLERANCE, a_start, context_of, every_structure, laws, seeds, some_rows

from dgmm import GaussianMixture
from dgmm.em.evaluate import State, evaluate
from dgmm.em.expectation_maximization import EM
from dgmm.em.fit_context import FitContext
from dgmm.em.model import Trial
from dgmm.em.solver import StopRule, run_all
from dgmm.em.squarem import Squarem
from dgmm.errors import DataError
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.arrays import FLOOR
from dgmm.model.covariance import COVARIANCE_MODELS, COVARIANCE_TYPES
from dgmm.model.decomposed import DECOMPOSED
from dgmm.model.factor import Factor
from dgmm.model.mixture import Mixture

REGS = (0.0, 1e-6, 1e-2)

FACTORS = ("factor", "factor-tied", "ppca")


@st.composite
def torture(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray | None, int, int]:
    """Rows, weights, K and a seed: few rows, many components, equal rows, flat columns."""
    n, d = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    k = draw(st.integers(1, min(n, 8)))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * draw(st.sampled_from([1.0, 1e-5, 1e5]))
    match draw(st.sampled_from(["plain", "duplicates", "constant", "collinear", "integers"])):
        case "duplicates":
            rows = rows[rng.integers(0, max(1, n // 3), n)]
        case "constant":
            rows[:, 0] = 0.1
        case "collinear":
            rows[:, -1] = 2 * rows[:, 0]
        case "integers":
            rows = np.round(rows)
    match draw(st.sampled_from(["none", "uniform", "zeros", "uneven"])):
        case "none":
            weights = None
        case "uniform":
            weights = rng.uniform(0.1, 2.0, n)
        case "zeros":
            weights = (rng.uniform(size=n) < 0.7) * 1.0
        case "uneven":
            weights = 10.0 ** rng.uniform(-9, 9, n)
    assume(weights is None or weights.any())
    return rows, weights, k, seed


def allowed_fall(state: State, context: FitContext) -> float:
    """What rounding alone may take from the objective in one iteration.

    Each of two objectives is off by the bound on its log-densities, and by its own rounding.  And
    an M-step finds covariances to some u (rho + |mu|)^2, so to delta, that times the largest
    precision, in the narrowest direction: a quarter of delta^2 in each of D directions below the
    maximum.  It counts only where a component is some 1e5 times narrower than the data.
    """
    mixture = state.mixture
    size = (context.spread + np.linalg.norm(mixture.means, axis=1)) ** 2
    delta = np.finfo(float).eps * size * mixture.covariances.max_eigenvalue_bound()
    curvature = 0.25 * mixture.n_features * (mixture.weights @ delta**2)
    return float(2 * TOLERANCE + 1e-12 * abs(state.objective) + curvature)


@every_structure
@pytest.mark.parametrize("solver", [EM, Squarem])
@pytest.mark.parametrize("reg_covar", REGS)
@laws(20)
@given(example=torture())
def test_the_objective_never_falls(
    kind: str, solver: type[EM | Squarem], reg_covar: float, example: Any
) -> None:
    """All along a run, whatever the data; and never NaN."""
    rows, _, k, seed = example
    blocks = in_two_blocks(example)
    context = context_of(blocks, COVARIANCE_MODELS[kind], reg_covar)
    never_falls(blocks, context, context.frame.enter(a_start(rows, kind, k, seed)), solver)


TWO_ROWS = np.array([[34558.4, 82161.8], [33043.7, -130315.7]])


UNEVEN = np.array([0.6925, 0.9043])


COPIED = np.array([[2.041, -2.5557, 4.082], [-0.5678, -0.4526, -1.1356]])


@pytest.mark.parametrize("kind", [*(each.name for each in DECOMPOSED), *FACTORS])
@laws(8)
@example(example=(TWO_ROWS, UNEVEN, 1, 1), solver=Squarem, reg=0.0)  # noise below rounding
@example(example=(COPIED, None, 2, 3), solver=Squarem, reg=1e-6)  # below what is added
@given(example=torture(), solver=st.sampled_from([EM, Squarem]), reg=st.sampled_from(REGS))
def test_nor_does_that_of_parts_in_common_or_of_factors(
    kind: str, solver: type[EM | Squarem], reg: float, example: Any
) -> None:
    rows, _, k, seed = example
    blocks, model, d = in_two_blocks(example), COVARIANCE_TYPES[kind], rows.shape[1]
    rng = np.random.default_rng([seed, 1])
    if isinstance(model, Factor):
        assume(d > 1)
        model = model.sized(1)
    context = context_of(blocks, model, reg)
    means = context.frame.rows(rows[rng.choice(len(rows), k, replace=False)], np.empty((d, k))).T
    covariances = model.of_variances(np.ones(d), k)
    if isinstance(model, Factor):  # from none there is no way to any
        covariances = model.made(np.ones((k, d)), rng.normal(size=(k, d, 1)))
    never_falls(
        blocks, context, Mixture(rng.dirichlet(np.full(k, 5.0)), means, covariances), solver
    )


def in_two_blocks(example: Any) -> list[Block]:
    """The rows, half and half."""
    rows, weights, _, _ = example
    half = len(rows) // 2
    return [
        Block(s, rows[s:e], None if weights is None else weights[s:e])
        for s, e in ((0, half), (half, len(rows)))
    ]


def never_falls(
    blocks: list[Block], context: FitContext, start: Mixture, solver: type[EM | Squarem]
) -> None:
    """Assert that of 15 iterations."""

    def sweep(fn: Any, given: Any) -> Any:
        return tree_sum(fn(block, given) for block in blocks)

    for (advanced,) in run_all(sweep, [solver().init(context, start, StopRule(15))]):
        state = advanced.best
        mixture = state.mixture
        for part in (
            mixture.weights,
            mixture.means,
            mixture.covariances.values,
            mixture.covariances.precisions_cholesky,
        ):
            assert np.isfinite(part).all()
        assert np.isfinite([state.objective, state.score]).all()
        assert mixture.weights.sum() == pytest.approx(1.0, rel=1e-12)
        assert (mixture.weights >= 0).all()
        assert (mixture.variances >= FLOOR * (1 - 1e-3)).all()
        assert advanced.change >= -allowed_fall(state, context)
    assert len(advanced.trace) == 15
    first = evaluate(sweep, [context], [Trial(start)])[0]
    assert [advanced.trace[0]] == [first.objective]


@every_structure
@pytest.mark.parametrize("solver", [EM, Squarem])
def test_runs_side_by_side_are_runs_alone(kind: str, solver: type[EM | Squarem]) -> None:
    """Mixtures that share sweeps do not touch each other; one that has stopped stays."""
    rng = np.random.default_rng(0)
    rows = some_rows(400, 2, rng)
    blocks = [Block(0, rows)]
    context = context_of(blocks, COVARIANCE_MODELS[kind], 1e-6)
    starts = [context.frame.enter(a_start(rows, kind, 3, seed)) for seed in range(4)]

    def sweep(fn: Any, given: Any) -> Any:
        return fn(blocks[0], given)

    stop = StopRule(300, tol=1e-4)
    *_, together = run_all(sweep, [solver().init(context, start, stop) for start in starts])
    lengths_seen = set()
    for start, shared in zip(starts, together, strict=True):
        *_, (alone,) = run_all(sweep, [solver().init(context, start, stop)])
        assert len(alone.trace) == len(shared.trace)
        np.testing.assert_allclose(alone.trace, shared.trace, rtol=1e-9)
        ours, theirs = alone.best.mixture.means, shared.best.mixture.means
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # slow ways magnify rounding
        lengths_seen.add(len(alone.trace))
    assert len(lengths_seen) > 1


@pytest.mark.parametrize("kind", [kind for kind in COVARIANCE_MODELS if kind != "tied"])
@pytest.mark.parametrize("center", [0.0, 1e3])
def test_rows_of_another_spread_are_noticed(kind: str, center: float) -> None:
    """Those of the first pass are not, though the sweep's sums are about other points."""
    rng = np.random.default_rng(0)
    rows = some_rows(400, 3, rng) + center
    context = context_of([Block(0, rows)], COVARIANCE_MODELS[kind], 1e-6)
    start = Trial(context.frame.enter(a_start(rows, kind, 3, 0)))
    evaluate(lambda fn, given: fn(Block(0, rows), given), [context], [start])
    wider = rows.mean(axis=0) + 1.001 * (rows - rows.mean(axis=0))
    with pytest.raises(DataError, match="not those of the first pass"):
        evaluate(lambda fn, given: fn(Block(0, wider), given), [context], [start])


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_many_features_take_no_square_matrix(kind: str) -> None:
    features = 10_000
    rows = np.random.default_rng(0).normal(size=(100, features))
    tracemalloc.start()
    GaussianMixture(
        2,
        covariance_type=kind,
        strategy="em",
        init_params="random_from_data",
        max_iter=2,
        tol=1e9,
        random_state=0,
    ).fit(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * features**2 / 2
