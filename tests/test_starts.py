"""Finding a start on a sample: clusters, split and merge, the budget; and the steps that follow."""

import itertools
import warnings
from dataclasses import fields, is_dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from sklearn.cluster import KMeans

from dgmm import GaussianMixture, engine
from dgmm.em import splits
from dgmm.em.abreast import SMALL, Abreast, serves
from dgmm.em.clustering import METHODS, clusters
from dgmm.em.cost import Cost
from dgmm.em.degenerate import unbounded
from dgmm.em.expectation_maximization import EM
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.fit_context import FitContext
from dgmm.em.information import Information, is_known
from dgmm.em.init import representative
from dgmm.em.quasi_newton import QuasiNewton, nbytes
from dgmm.em.race import seeded
from dgmm.em.solver import RunState, StopRule, kept, run_all
from dgmm.em.spec import FitSpec
from dgmm.em.split_merge import Move, merge_costs, moved_mixtures, taken_apart
from dgmm.em.splits import Halves
from dgmm.em.squarem import Squarem, coordinates, mixture_at
from dgmm.em.starts import EFFORTS
from dgmm.em.strategies import STRATEGIES
from dgmm.em.subsamples import Subsample, refine
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.mixture import Mixture

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def subsample(rows: np.ndarray, kind: str = "full", reg: float = 0.0) -> Subsample:
    """All ``rows``, to be fitted to."""
    first_pass_spec = FirstPassSpec(len(rows), 0, pairs=COVARIANCE_MODELS[kind].needs_scatter)
    found = first_pass(Block(0, rows), first_pass_spec)
    context = FitContext.of(found, COVARIANCE_MODELS[kind], reg)
    return Subsample.of(representative(found), context, engine.in_memory_sweep, Cost())


def grid(side: int, each: int, seed: int) -> np.ndarray:
    """Rows of ``side`` squared clusters on a grid, so many of each."""
    rng = np.random.default_rng(seed)
    centres = 10.0 * np.array(list(itertools.product(range(side), repeat=2)))
    return np.repeat(centres, each, axis=0) + rng.normal(size=(len(centres) * each, 2))


def error(rows: np.ndarray, labels: np.ndarray) -> float:
    """The sum of squared distances from the clusters' means."""
    parts = [rows[labels == k] for k in np.unique(labels)]
    return float(sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts))


def test_breathing_finds_clusters_that_kmeans_misses() -> None:
    """All of 100; k-means from one start leaves some in pairs, and breathing is never worse."""
    rows = grid(10, 30, 0)
    truth = error(rows, np.repeat(np.arange(100), 30))
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed, method in itertools.product(range(5), METHODS):
        labels = clusters(rows, np.ones(len(rows)), 100, method, np.random.RandomState(seed))
        found[method].append(error(rows, labels))
    assert max(found["breathing"]) == pytest.approx(truth, rel=1e-5)
    assert max(found["kmeans"]) > 1.2 * truth
    assert all(a <= b for a, b in zip(found["kmeans"], found["k-means++"], strict=True))


def test_first_centres_of_many_clusters_are_among_some_rows() -> None:
    """400 clusters of 110 rows are more than ``SEEDING``; nearly each has a centre of its own."""
    rng = np.random.default_rng(0)
    own = rng.permutation(np.repeat(np.arange(400), 110))
    rows = np.stack([own % 20, own // 20], axis=1) + 0.05 * rng.normal(size=(len(own), 2))
    labels = clusters(rows, np.ones(len(rows)), 400, "k-means++", np.random.RandomState(0))
    assert np.mean([len(np.unique(labels[own == k])) == 1 for k in range(400)]) > 0.97


def test_kmeans_ends_where_scikit_learns_can_go_no_further() -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    labels = clusters(rows, np.ones(3000), 5, "kmeans", np.random.RandomState(0))
    centres = np.stack([rows[labels == k].mean(axis=0) for k in range(5)])
    onward = KMeans(5, init=centres, n_init=1).fit(rows)
    assert error(rows, labels) < 1.02 * onward.inertia_


def test_a_weight_of_two_is_a_row_twice() -> None:
    rows = grid(2, 50, 1)
    weights = np.random.default_rng(0).integers(1, 4, len(rows))
    labels = clusters(rows, weights.astype(float), 4, "breathing", np.random.RandomState(0))
    repeated = clusters(
        np.repeat(rows, weights, axis=0),
        np.ones(weights.sum()),
        4,
        "breathing",
        np.random.RandomState(0),
    )
    pairs = set(zip(np.repeat(labels, weights).tolist(), repeated.tolist(), strict=True))
    assert len(pairs) == 4  # the same clusters, by other names


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_weights_may_be_of_any_size(size: float) -> None:
    rows = grid(2, 10_000, 1)
    weights = np.random.default_rng(0).integers(1, 4, len(rows)).astype(float)
    one = GaussianMixture(4, random_state=0).fit(rows, sample_weight=weights)
    other = GaussianMixture(4, random_state=0).fit(rows, sample_weight=weights * size)
    np.testing.assert_allclose(other.means_, one.means_, rtol=1e-4)
    assert other.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-9)


@every_structure
def test_an_exchange_keeps_the_moments(kind: str) -> None:
    """What is merged has the moments of both, what is split becomes its halves, exactly."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3))
    field = subsample(rows, kind)
    covariance_model = COVARIANCE_MODELS[kind]
    unit = covariance_model.of_variances(np.full(3, 2.0), 4)
    weights, means = np.array([0.1, 0.2, 0.3, 0.4]), rng.normal(size=(4, 3))
    mixture = Mixture(weights, means, unit)
    halves = Halves(np.array([0.25, 0.75]), rng.normal(size=(2, 3)), np.stack([np.eye(3)] * 2))
    (after,) = moved_mixtures(field, mixture, [[Move(1.0, 0, 2, 3, halves)]])
    assert after.weights == pytest.approx([0.4, 0.2, 0.1, 0.3])
    merged = (0.1 * means[0] + 0.3 * means[2]) / 0.4
    np.testing.assert_allclose(after.means, [merged, means[1], *halves.means], rtol=1e-9)
    if not covariance_model.needs_scatter:  # a shared one is made from the rows' own scatter
        away = means[[0, 2]] - merged
        spread = 0.25 * np.outer(away[0], away[0]) + 0.75 * np.outer(away[1], away[1])
        dense = after.covariances.dense()
        expected = [
            covariance_model.kept(2 * np.eye(3) + spread),
            2 * np.eye(3),
            np.eye(3),
            np.eye(3),
        ]
        np.testing.assert_allclose(dense, expected, atol=1e-9)


@every_structure
def test_a_mixture_that_is_badly_placed_is_taken_apart(kind: str) -> None:
    """Two components share a cluster, and one has two: EM alone would stay there."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0], [12.0, 12.0], [24.0, 0.0]])
    rows = np.repeat(centres, 400, axis=0) + rng.normal(size=(2000, 2))
    bad = centres.copy()
    bad[[0, 1]] = [[-0.5, 0.0], [0.5, 0.0]]
    bad[4] = [18.0, 0.0]
    covariance_model, field = COVARIANCE_MODELS[kind], subsample(rows, kind)
    covariances = covariance_model.of_variances(np.full(2, 4.0), 5)
    start = field.context.frame.enter(Mixture(np.full(5, 0.2), bad, covariances))
    (run,) = field.refine([Squarem().init(field.context, start, StopRule(1000))], 60)
    before = run.best.objective
    run, rounds = taken_apart(field, run)
    (run,) = field.refine([run], 40)
    assert rounds >= 1
    assert run.best.objective > before + 0.1
    found = field.context.frame.leave(run.best.mixture).means
    nearest = np.linalg.norm(found[:, None] - centres, axis=2).min(axis=0)
    assert nearest.max() < 0.3


def overlapping(kind: str, count: int = 4000) -> tuple[Subsample, Mixture]:
    """Rows of three components that overlap, and where EM ends on them."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(count, 2)) * [1.0, 1.5] + 2.0 * rng.integers(0, 3, (count, 1))
    field = subsample(rows, kind)
    covariance_model = COVARIANCE_MODELS[kind]
    means = np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
    start = Mixture(np.full(3, 1 / 3), means, covariance_model.of_variances(np.ones(2), 3))
    return field, field.context.frame.enter(start)


@pytest.mark.parametrize(
    "kind", [each for each in COVARIANCE_MODELS if is_known(COVARIANCE_MODELS[each], 2)]
)
def test_the_information_is_how_the_gradient_falls(kind: str) -> None:
    """At the optimum: EM's step, taken for the gradient, has its derivative for a Jacobian."""
    field, start = overlapping(kind)
    (run,) = field.refine(
        [QuasiNewton().init(field.context, start, StopRule(2000, target=1e-13))], 2000
    )
    optimum = run.best.mixture
    known = Information.of(field.sample, field.context.frame, optimum)
    matrix = (known.vectors * known.values) @ known.vectors.T
    live, prior = np.ones(3, bool), field.context.model.prior
    here = coordinates(optimum, optimum, live, prior)

    def gradient(place: np.ndarray) -> np.ndarray:
        mixture = mixture_at(place, optimum, optimum, live, field.context.model).mixture
        (run,) = run_for(field, EM().init(field.context, mixture, StopRule(5)), 2)
        image = run.best.mixture
        ends = (coordinates(each, optimum, live, prior) for each in (mixture, image))
        before, after = ends
        return after - before

    step = 1e-4
    # Along weights only differences count: what adds to all of them changes nothing.
    columns = []
    for j in range(len(here)):
        away = np.zeros_like(here)
        away[j] = step
        columns.append((gradient(here + away) - gradient(here - away)) / (2 * step))
    jacobian = -np.stack(columns, axis=1)
    root = np.sqrt(optimum.weights)
    jacobian[:3, :3] += np.outer(root, root) - np.outer(root, root) @ jacobian[:3, :3]
    np.testing.assert_allclose(jacobian[3:, 3:], matrix[3:, 3:], atol=0.03)


def run_for(field: Subsample, begun: RunState, sweeps: int) -> tuple[RunState, ...]:
    """The run after so many sweeps."""
    return list(itertools.islice(run_all(field.sweep, [begun]), sweeps))[-1]


@every_structure
@pytest.mark.parametrize("informed", [False, True])
def test_quasi_newton_ends_where_em_does_and_never_falls(kind: str, informed: bool) -> None:
    """In a fraction of the sweeps, on a slope so flat that EM takes hundreds."""
    field, start = overlapping(kind)
    information = None
    if informed and is_known(COVARIANCE_MODELS[kind], 2):
        information = Information.of(field.sample, field.context.frame, start)
    stop = StopRule(500, target=1e-10)
    solver = QuasiNewton(information=information)
    (run,) = field.refine([solver.init(field.context, start, stop)])
    (plain,) = field.refine([EM().init(field.context, start, StopRule(5000, tol=1e-12))], 5001)
    assert run.converged
    assert run.reason == "gap"
    assert list(run.trace) == sorted(run.trace)
    assert run.best.objective > plain.best.objective - 1e-8
    assert len(run.trace) < len(plain.trace) / 3


def test_what_starts_after_the_first_bring() -> None:
    """By how much the best end is better than the first one's; nothing at one optimum."""
    rng = np.random.default_rng(0)
    rows = np.repeat([[0.0, 0], [30, 0], [60, 0]], 500, axis=0) + rng.normal(size=(1500, 2))
    field, covariance_model = subsample(rows, "spherical"), COVARIANCE_MODELS["spherical"]

    def start(*places: float) -> Mixture:
        means = np.array([[each, 0.0] for each in places])
        mixture = Mixture.of_covariances(covariance_model, np.full(3, 1 / 3), means, np.ones(3))
        return field.context.frame.enter(mixture)

    good, other, bad = start(0, 30, 60), start(59, 1, 31), start(-1, 1, 45)
    (best,) = field.refine([EM().init(field.context, good, StopRule(1000, tol=1e-12))])
    (worse,) = field.refine([EM().init(field.context, bad, StopRule(1000, tol=1e-12))])
    gain = best.best.objective - worse.best.objective
    assert gain > 0.1
    found = refine([field], [bad, good, other])
    assert found.gain == pytest.approx(gain, abs=field.resolution(good))
    assert (found.optima, len(found.ends)) == (2, 1)
    found = refine([field, field], [other, good, bad])
    assert (found.gain, found.optima, len(found.ends)) == (0, 2, 1)


def test_effort_says_how_many_starts_there_may_be() -> None:
    """The plan tells, the fit keeps to it; one or four that can't be bettered are enough."""
    cube = np.random.default_rng(0).uniform(size=(500_000, 3))
    starts = {}
    for effort in ("low", "auto", "high"):
        model = GaussianMixture(12, effort=effort, random_state=0, resolution=10)
        planned = model.plan(cube)
        info = model.fit(cube).fit_info_
        assert 1 <= info["starts"] <= planned.starts
        assert info["sample_passes"] < 2 * planned.starts_passes
        starts[effort] = planned.starts
    assert starts["low"] == 1 < starts["auto"] < starts["high"]
    apart = cube + 10 * np.random.default_rng(1).integers(0, 2, size=cube.shape)
    for effort, enough in {"low": 1, "auto": 1, "high": 4}.items():
        model = GaussianMixture(8, effort=effort, random_state=0).fit(apart)
        assert model.fit_info_["starts"] == enough
    with pytest.raises(ValueError, match="effort must be one of 'low', 'auto', 'high'"):
        GaussianMixture(2, effort="most").fit(cube)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_what_is_split_does_not_depend_on_units(kind: str) -> None:
    """Rows that no start fits well, in units that no power of two leads to."""
    rng = np.random.default_rng(2)
    centres, spread = 1.5 * rng.normal(size=(12, 4)), np.exp(0.5 * rng.normal(size=(12, 4)))
    labels = rng.integers(0, 12, 80_000)
    rows = centres[labels] + rng.normal(size=(80_000, 4)) * spread[labels]
    scale, shift = np.array([3.0, 0.7, 11.0, 1.3]), np.array([5.0, -3.0, 100.0, 1.0])
    one = GaussianMixture(10, covariance_type=kind, random_state=0).fit(rows)
    other = GaussianMixture(10, covariance_type=kind, random_state=0).fit(rows * scale + shift)
    np.testing.assert_allclose(other.means_, one.means_ * scale + shift, rtol=1e-3, atol=0.01)
    volume = np.log(scale).sum()
    assert other.lower_bound_ == pytest.approx(one.lower_bound_ - volume, abs=1e-6)


def test_a_walk_that_is_beaten_rests_and_goes_on_if_the_best_turns_out_singular() -> None:
    """A component of ties rises without end: what was beaten by that is what there is."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(1000, 2)), np.full((50, 2), 3.0)])
    field = subsample(rows, reg=1e-6)
    covariance_model, unit = COVARIANCE_MODELS["full"], np.stack([np.eye(2)] * 2)
    ties = np.stack([np.eye(2), 1e-3 * np.eye(2)])
    starts = [
        Mixture.of_covariances(covariance_model, np.array([0.5, 0.5]), np.array(means), covariances)
        for means, covariances in (([[-0.1, 0], [0.1, 0]], unit), ([[0, 0], [3, 3]], ties))
    ]
    starts = [field.context.frame.enter(each) for each in starts]
    stop = StopRule(100, target=1e-6)
    runs = [QuasiNewton().init(field.context, start, stop) for start in starts]
    stages = list(itertools.islice(run_all(field.sweep, runs), 3))
    plain, singular = stages[-1]
    assert plain.trial is not None
    assert unbounded(singular.best, field.context)
    assert singular.best.objective > plain.best.objective + plain.gap_upper
    better = replace(plain, trial=None, state=replace(plain.best, objective=10.0))
    rested, _ = kept([plain, better])
    assert rested.trial is None
    again, _ = kept([rested, singular])
    assert again.trial is plain.trial
    assert kept([plain, singular])[0].trial is plain.trial


def test_passes_in_single_precision_are_counted() -> None:
    """Also where the last is made again, in double, which is no iteration."""
    field, start = overlapping("full", 20_000)
    context = replace(field.context, precision="auto")
    begun = QuasiNewton().init(context, start, StopRule(50, target=10.0))
    stages = [run for (run,) in run_all(field.sweep, [begun])]
    assert stages[-1].repeated == 1
    assert stages[-1].converged
    single = sum(run.best.bound > 0 for run in stages)
    assert stages[-1].rejected == 0
    assert stages[-1].float32_passes == single == len(stages) - 1 == len(stages[-1].trace) + 1


def arrays(value: Any) -> dict[int, np.ndarray]:
    """All arrays that a value holds."""
    if isinstance(value, np.ndarray):
        return {id(value): value}
    if isinstance(value, FitContext | Information):
        return {}
    if is_dataclass(value):
        value = [getattr(value, each.name) for each in fields(value)]
    found: dict[int, np.ndarray] = {}
    for each in value if isinstance(value, tuple | list) else ():
        found |= arrays(each)
    return found


def test_runs_hold_no_more_than_is_planned() -> None:
    rng = np.random.default_rng(0)
    field = subsample(rng.uniform(size=(5000, 6)))
    start = seeded(field.sample, field.context, 8, "kmeans", np.random.RandomState(0))
    begun = QuasiNewton().init(field.context, start, StopRule(40))
    stages = [run for (run,) in run_all(field.sweep, [begun])]
    solvers = [run.solver for run in stages if isinstance(run.solver, QuasiNewton)]
    assert max(len(solver.steps) for solver in solvers) == 20
    most = nbytes(start.free_parameters)
    taken = [sum(each.nbytes for each in arrays(run).values()) for run in stages]
    assert 0.5 * most < max(taken) < most


def test_starts_of_many_parameters_are_fewer() -> None:
    """What the runs of all starts remember keeps to half a gibibyte, unless more are wanted."""
    rows, n_features, sampled = 100_000_000, 64, 1 << 18
    few, many = (
        FitSpec(COVARIANCE_MODELS["full"], k, STRATEGIES["auto"], effort="high") for k in (2, 100)
    )
    most = EFFORTS["high"][1]
    assert few.budget(rows, n_features, sampled).starts == most
    starts = many.budget(rows, n_features, sampled).starts
    assert 1 < starts < most
    assert starts * nbytes(many.parameters(n_features)) <= 1 << 29
    assert many.abreast(rows, n_features, sampled) == starts
    assert many.abreast(rows, n_features, sampled, near=False) == 3
    assert replace(many, n_init=20).abreast(rows, n_features, sampled) == 20


def test_rows_that_the_sample_has_not_seen_are_met_by_a_step_of_em() -> None:
    """Components lie on tied rows, so that other ties are worlds away in their coordinates."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(5, 3))
    rows = centres[rng.integers(0, 5, 60_000)] + rng.normal(size=(60_000, 3))
    rows = 3 * np.round(rows / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(20, reg_covar=0.0, random_state=0).fit(rows)
        plain = GaussianMixture(20, reg_covar=0.0, random_state=0, strategy="em").fit(rows)
    assert model.converged_
    assert model.lower_bounds_[0] < -1e6
    assert model.lower_bound_ > plain.lower_bound_
    assert model.n_iter_ < 20


@every_structure
def test_of_many_components_the_cheapest_merges_are_found(kind: str) -> None:
    """Without looking at all pairs; what a merge costs is Runnalls' bound, from dense matrices."""
    rng = np.random.default_rng(0)
    covariance_model, count, n_features = COVARIANCE_MODELS[kind], 150, 3
    unit = covariance_model.of_variances(np.full(n_features, 0.3), count)
    weights, means = rng.dirichlet(np.full(count, 5.0)), rng.normal(size=(count, n_features))
    mixture = Mixture(weights, means, unit)
    found = merge_costs(mixture, np.arange(count))
    costs = []
    for i, j in itertools.combinations(range(count), 2):
        total = weights[i] + weights[j]
        away = means[i] - means[j]
        merged = 0.3 * np.eye(n_features) + weights[i] * weights[j] / total**2 * np.outer(
            away, away
        )
        costs.append(total / 2 * (np.linalg.slogdet(merged)[1] - n_features * np.log(0.3)))
    assert len(found) < len(costs)
    np.testing.assert_allclose([cost for cost, *_ in found[:10]], sorted(costs)[:10], rtol=1e-9)


def test_thousands_of_features_are_not_split() -> None:
    """Nothing of size D^2 is planned, or made, for covariances that have no such thing."""
    wide = da.zeros((10_000_000, 5000), chunks=(1000, 5000), dtype="f4")
    planned = GaussianMixture(4, covariance_type="diag").plan(wide)
    assert planned.starts >= 1
    assert planned.shared_bytes < 2 << 30
    assert not splits.affordable(4, 5000)
    assert splits.affordable(1000, 64)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_mixtures_side_by_side_go_as_each_would_alone(kind: str) -> None:
    """EM of three at once is EM of each; what is chosen of them, and put together, is unchanged."""
    seen = subsample(grid(3, 60, 0), kind)
    makes = [(each, np.random.RandomState(0)) for each in METHODS]
    starts = [seeded(seen.sample, seen.context, 4, *make) for make in makes]
    many = Abreast.of(seen, starts).swept(4)
    alone = [seen.refine([EM().init(seen.context, start, StopRule(100))], 5)[0] for start in starts]
    levels = many.objectives - seen.context.frame.log_volume
    np.testing.assert_allclose(levels, [run.trace[-1] for run in alone], rtol=1e-12)
    both = many.best(1).beside(many)
    best = int(np.argmax(levels))
    for place, other in enumerate([best, 0, 1, 2]):
        mine, theirs = both.at(place), alone[other].best.mixture
        np.testing.assert_allclose(mine.weights, theirs.weights, rtol=1e-10)
        np.testing.assert_allclose(mine.means, theirs.means, rtol=1e-9, atol=1e-12)
        values = mine.covariances.values, theirs.covariances.values
        np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-12)


def test_what_components_share_is_not_found_side_by_side() -> None:
    """Nor is a start on many rows, where a sweep costs what its arithmetic does."""
    rows = grid(3, 60, 0)
    apart = {kind for kind in COVARIANCE_MODELS if serves(subsample(rows, kind), 4)}
    assert apart == {"full", "diag", "spherical"}
    assert not serves(subsample(rows), SMALL // len(rows))
