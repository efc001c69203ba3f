"""Starts where rows are few: many side by side, in any units, with a sound end."""

import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference
from threadpoolctl import threadpool_limits

from dgmm import GaussianMixture, engine
from dgmm.em import finals, knockout, many, scouts
from dgmm.em.cost import Cost
from dgmm.em.degenerate import unbounded
from dgmm.em.evaluate import evaluate
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.fit_context import FitContext
from dgmm.em.init import QUANTUM, representative, standard, standardised
from dgmm.em.model import Trial
from dgmm.em.subsamples import Subsample
from dgmm.kernels import native
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.mixture import Mixture

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def groups(rows: int, seed: int = 0, components: int = 4) -> np.ndarray:
    """Rows (rows, 2) of overlapping groups, of unequal shares."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(components, 3.0))
    labels = rng.choice(components, rows, p=shares)
    shapes = 0.5 * rng.normal(size=(components, 2, 2)) + 0.5 * np.eye(2)
    means = 2.0 * rng.normal(size=(components, 2))
    return means[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(rows, 2)))


def subsample(rows: np.ndarray, kind: str, weights: np.ndarray | None = None) -> Subsample:
    """The subsample of all ``rows``."""
    covariance_model = COVARIANCE_MODELS[kind]
    first_pass_spec = FirstPassSpec.of(
        len(rows), rows.shape[1], 3, 0, weights is not None, covariance_model.needs_scatter
    )
    found = first_pass(Block(0, rows, weights), first_pass_spec)
    context = FitContext.of(found, covariance_model, 1e-3)
    in_memory_sweep = partial(engine.in_memory_sweep, threads=1)
    return Subsample.of(representative(found), context, in_memory_sweep, Cost())


@every_structure
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_of_many_is_an_em_step_of_each(kind: str, weighted: bool) -> None:
    """The same objective and the same mixture as the sweep's, in the frame of the fit."""
    rng = np.random.default_rng(1)
    rows = groups(200) * [1.0, 100.0] + [0.0, 1e4]
    place = subsample(rows, kind, rng.gamma(1.0, size=200) if weighted else None)
    field = many.Field.of(place)
    labels = rng.integers(3, size=(5, 200))
    begun = many.stepped(field, many.labelled(field, labels, 3, np.zeros(5)))
    before, next_ones = many.following(field, begun), many.stepped(field, begun)
    after, found = many.following(field, next_ones), many.stepped(field, next_ones)
    states = evaluate(place.sweep, [place.context] * 5, [Trial(each) for each in before])
    volume = np.log(standard(rows, COVARIANCE_MODELS[kind]).scale).sum()
    for state, objective, mixture in zip(states, found.objective, after, strict=True):
        assert objective - volume == pytest.approx(state.objective, abs=1e-8)
        expected = place.context.m_step(state).mixture
        np.testing.assert_allclose(mixture.means, expected.means, atol=1e-8)
        np.testing.assert_allclose(
            mixture.covariances.values, expected.covariances.values, rtol=1e-6
        )


@pytest.mark.skipif(native.compiled is None, reason="there is no compiled kernel")
@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_the_compiled_kernel_steps_as_numpy_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights, a noise component and a component that is flat; to single precision."""
    rng = np.random.default_rng(2)
    rows = groups(300)
    rows[:40, 0] = 0.25
    field = many.Field.of(subsample(rows, kind, rng.gamma(1.0, size=300)))
    field = replace(field, noise=-6.0)
    labels = rng.integers(3, size=(6, 300))
    labels[:3, :40], labels[:3, 40:] = 2, labels[:3, 40:] % 2
    begun = many.labelled(field, labels, 3, np.full(6, 0.1))
    monkeypatch.setenv("DGMM_KERNEL", "numpy")
    expected = many.stepped(field, begun)
    monkeypatch.setenv("DGMM_KERNEL", "native")
    found = many.stepped(field, begun, rough=True)
    for name in ("weights", "means", "covariances", "objective", "noise"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=2e-4, err_msg=name
        )


@every_structure
def test_pooled_covariances_are_the_structures_own(kind: str) -> None:
    """Maximum-likelihood estimates follow from the full ones."""
    covariance_model, full, rng = (
        COVARIANCE_MODELS[kind],
        COVARIANCE_MODELS["full"],
        np.random.default_rng(0),
    )
    rows, labels = rng.normal(size=(60, 3)), np.arange(60) % 4
    moments = []
    for own in (full, covariance_model):
        features = own.centred_features
        sums = np.zeros((4, features.width(3)))
        for k in range(4):
            x = rows[labels == k].T
            sums[k] = features.of(x, np.empty((features.width(3), x.shape[1]))).sum(axis=1)
        counts, means = sums[:, 0], sums[:, 1:4] / sums[:, :1]
        moments.append(own.estimate(counts, means, means, sums[:, 4:], rows.T @ rows))
    pooled = covariance_model.pooled(np.full(4, 15.0), moments[0].values)
    expected = moments[1].floored()[0].dense()
    np.testing.assert_allclose(np.broadcast_to(pooled, (4, 3, 3)), expected, atol=1e-12)


def test_no_restarts_find_better() -> None:
    """Of thirty random starts to their ends, none that is sound is likelier."""
    rows = groups(120)
    best = -np.inf
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for start in range(30):
            args: dict[str, Any] = {"init_params": "random_from_data", "random_state": start}
            other = Reference(3, tol=1e-5, max_iter=300, **args).fit(rows)
            smallest = np.linalg.eigvalsh(other.covariances_)[:, 0].min()
            if smallest > 1e-4 and other.weights_.min() > 3 / 120:
                best = max(best, other.score(rows))
    model = GaussianMixture(3, random_state=0).fit(rows)
    assert model.fit_info_["starts"] == 2 * scouts.EACH
    assert model.score(rows) > best - 1e-4


@every_structure
@pytest.mark.parametrize("seed", range(3))
def test_ties_win_nothing(kind: str, seed: int) -> None:
    """Rows measured to 0.1 and 1, many of them alike: no component collapses (or it would warn)."""
    rows = np.round(10 * groups(150, seed)) * [0.1, 1.0]
    rows[:30, 0] = 0.5  # a fifth of them in one line
    model = GaussianMixture(4, covariance_type=kind, random_state=seed).fit(rows)
    assert model.fit_info_["singular"] == model.fit_info_["empty"] == []


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_units_are_not_seen(kind: str) -> None:
    """Columns times any constants, and shifted: the same labels, the same model in new units."""
    rows = np.round(groups(150), 1)  # with distances that are equal
    scale, shift = np.array([3e-7, 7e4]), np.array([5e-6, -3e5])
    args: dict[str, Any] = {"covariance_type": kind, "random_state": 0, "reg_covar": 0}
    one = GaussianMixture(4, **args).fit(rows)
    other = GaussianMixture(4, **args).fit(rows * scale + shift)
    labels = [np.asarray(one.predict(rows)), np.asarray(other.predict(rows * scale + shift))]
    np.testing.assert_array_equal(*labels)
    np.testing.assert_allclose((other.means_ - shift) / scale, one.means_, atol=1e-4)


def test_standardised_rows_are_the_same_numbers_in_all_units() -> None:
    rows = np.round(np.random.default_rng(0).normal(size=(500, 3)), 2)
    rows[7, 0] = 1e9  # one far out does not make the others alike
    full = COVARIANCE_MODELS["full"]
    seen = standardised(rows, standard(rows, full))
    assert 0.5 < np.median(np.abs(seen[:, 0])) < 1
    for scale in ([1e-200, 3.0, 1 / 7], [1e6, 1e-3, 0.1]):
        again = standardised(rows * scale, standard(rows * scale, full))
        np.testing.assert_allclose(again, seen, rtol=1e-15, atol=2 / QUANTUM)
        assert (again == seen).mean() > 0.999
    round_ = COVARIANCE_MODELS["spherical"]
    both = standard(rows, round_).scale
    assert (both == both[0]).all()
    assert (standardised(np.full((5, 2), 3.0), standard(np.full((5, 2), 3.0), full)) == 0).all()


def test_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Also where it stopped before its starts were found."""
    rows, place = groups(150), str(tmp_path / "passes")
    whole = GaussianMixture(4, random_state=3).fit(rows)
    for stop in range(1, whole.fit_info_["passes"]):
        model = GaussianMixture(4, random_state=3, checkpoint=place)
        for progress in model.fit_passes(rows):
            if progress.passes == stop:
                break
    model = GaussianMixture(4, random_state=3, checkpoint=place).fit(rows)
    assert model.lower_bounds_ == whole.lower_bounds_
    np.testing.assert_array_equal(model.covariances_, whole.covariances_)
    assert model.fit_info_["starts"] == whole.fit_info_["starts"] == 3 * scouts.EACH


def test_fewer_starts_the_more_each_costs() -> None:
    """As many as asked for at least, and none where they would be too few to be of use."""
    counts = [scouts.affordable(8, rows, 2) for rows in (500, 2000, 5000, 20_000, 100_000)]
    assert counts[0] == scouts.STARTS
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    assert scouts.affordable(1, 100, 2) == 0
    rows = groups(60)
    assert GaussianMixture(3, n_init=400, random_state=0).fit(rows).fit_info_["starts"] == 400


def placed(place: Subsample, means: list[list[float]], spread: float) -> Mixture:
    """Two components at ``means``, the second of that ``spread``, in the frame of ``place``."""
    precisions = np.stack([np.eye(2), np.eye(2) / spread**2])
    weights = np.array([0.9, 0.1])
    mixture = Mixture.of(place.context.model.covariance_model, weights, np.array(means), precisions)
    return place.context.frame.enter(mixture)


def test_an_end_without_a_bound_wins_no_finals() -> None:
    """Rows that are tied have the highest likelihood; so the next go to their ends, and no more."""
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(80, 2)), rng.normal(4.0, 1.0, (20, 2)), np.full((25, 2), -1.0)]
    place = subsample(np.concatenate(groups), "full")
    tied = placed(place, [[0.0, 0.0], [-1.0, -1.0]], 0.01)
    sound = placed(place, [[0.0, 0.0], [4.0, 4.0]], 1.0)

    def finalists() -> Iterator[list[Mixture]]:
        yield [tied]
        yield [sound]
        raise AssertionError("an end was sound")

    collapsed = finals.best_end(place, [[tied]]).best
    best = finals.best_end(place, finalists()).best
    assert collapsed.objective > best.objective
    assert not unbounded(best, place.context)


def test_seeds_that_knock_each_other_out_lead_to_one_end_as_planned() -> None:
    """Where rows are few, though five and more for each parameter: all seeds run on all of them."""
    x = load_breast_cancer().data[:, :10]
    kind: dict[str, Any] = {"covariance_type": "factor", "n_factors": 2}
    models = [GaussianMixture(2, random_state=seed, **kind).fit(x) for seed in (3, 4)]
    resolution = models[0].mixture_.free_parameters / (2 * len(x))
    assert abs(models[0].score(x) - models[1].score(x)) < 0.2 * resolution
    plan, info = models[0].plan(x), models[0].fit_info_
    assert plan.starts == info["starts"] == knockout.MOST
    assert 0.5 * plan.starts_passes < info["sample_passes"] < 1.5 * plan.starts_passes
    assert "samples" not in plan.described()["finding a start"]


def test_seeds_side_by_side_take_no_more_than_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knockout, "ROUNDS", ((2, 4),))
    monkeypatch.setattr(finals, "ITERATIONS", 2)
    x = np.random.default_rng(0).normal(size=(40, 30))
    model = GaussianMixture(2, tails="student", max_iter=1, n_jobs=1)
    plan = model.plan(x)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < plan.thread_bytes + plan.shared_bytes < 8 * peak
