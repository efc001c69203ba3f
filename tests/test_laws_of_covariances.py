"""Laws of covariance models: they answer as dense matrices do, in any frame."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import a_mixture, every_structure, in_shape, laws, seeds, some_rows

from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.model import Model
from dgmm.em.squarem import extrapolate
from dgmm.kernels.observation import COMPLETE, Complete
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import FLOOR
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised
from dgmm.model.statistics import Statistics


@every_structure
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_covariances_answer_as_dense_matrices_do(kind: str, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixture = a_mixture(kind, k, d, rng)
    covariances, dense = mixture.covariances, mixture.covariances.dense()
    near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    assert covariances.model is COVARIANCE_MODELS[kind]
    assert dense.shape == (k, d, d)
    inverse, amounts = np.linalg.inv(dense), rng.uniform(0.5, 2.0, size=d)
    if kind == "spherical":
        amounts[:] = amounts[0]  # one scale for all columns
    near(covariances.variances(), np.diagonal(dense, axis1=1, axis2=2))
    near(covariances.precisions(), in_shape(kind, inverse))
    near(np.broadcast_to(covariances.half_log_det(), k), 0.5 * np.linalg.slogdet(inverse)[1])
    weights = rng.uniform(size=(k, d))
    expected = np.einsum("kii,ki->k", inverse, weights)
    near(np.broadcast_to(covariances.trace(weights), k), expected)
    assert (covariances.max_eigenvalue_bound() >= np.linalg.eigvalsh(inverse)[:, -1] - 1e-9).all()
    near(covariances.rescale(amounts).dense(), dense * amounts[:, None] * amounts)
    near(
        covariances.rescale(amounts).precisions(),
        in_shape(kind, inverse / amounts[:, None] / amounts),
    )
    x = rng.normal(size=(d, 4))
    for i in range(k):
        white = covariances.whiten(i, x)
        near((white**2).sum(axis=0), np.einsum("dn,de,en->n", x, inverse[i], x))
        near(covariances.whitened(np.tile(x[:, 0], (k, 1)))[i], white[:, 0])


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_estimates_answer_as_dense_matrices_do(kind: str, d: int, k: int, seed: int) -> None:
    """Of the rows of k groups, one of which has none; spreads in any direction, floors, amounts."""
    rng = np.random.default_rng(seed)
    model, before = COVARIANCE_MODELS[kind], a_mixture(kind, k + 1, d, rng).covariances
    rows, labels = some_rows(40, d, rng), rng.permutation(np.arange(40) % k)
    own = model.centred_features
    sums = np.zeros((k + 1, own.width(d)))
    for i in range(k):
        x = rows[labels == i].T
        sums[i] = own.of(x, np.empty((own.width(d), x.shape[1]))).sum(axis=1)
    counts = sums[:, 0]
    means = sums[:, 1 : 1 + d] / np.maximum(counts, 1)[:, None]
    estimate = model.estimate(counts, means, means, sums[:, 1 + d :], rows.T @ rows)
    dense = np.stack([np.cov(rows[labels == i].T, ddof=0).reshape(d, d) for i in range(k)])
    dense = np.broadcast_to(model.pooled(counts[:k], dense), (k, d, d))
    near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    near(estimate.variances()[:k], np.diagonal(dense, axis1=1, axis2=2))
    amounts = rng.uniform(0.5, 2.0, size=d)
    if kind == "spherical":
        amounts[:] = amounts[0]
    root = np.sqrt(amounts)
    least = np.linalg.eigvalsh(dense / root[:, None] / root)[:, 0]
    near(np.broadcast_to(estimate.thinnest(amounts), k + 1)[:k], least)
    weights = counts / counts.sum()
    apart = estimate.thinnest_apart(weights, means, np.full(d, FLOOR))
    near(np.broadcast_to(apart, k + 1)[:k] * FLOOR, np.linalg.eigvalsh(dense)[:, 0], atol=1e-8)
    empty = counts == 0
    raised, lost = estimate.regularised(amounts, empty, before)
    assert not lost.any()
    near(raised.dense()[:k], dense + np.diag(amounts))
    if model.own_parameters(d):
        near(raised.dense()[k], before.dense()[k])
    dense_before = raised.precisions()  # and its factors are its own
    near(model.of_precisions(dense_before, (k + 1, d)).dense(), raised.dense())


@pytest.mark.parametrize("d", [2, 3, 4, 8])
def test_what_was_raised_can_be_saved(d: int) -> None:
    """Factors of covariances of rows that lie in a plane differ from these by rounding alone."""
    for seed in range(200):
        flat = np.random.default_rng(seed).normal(size=(d, d - 1))
        estimate = COVARIANCE_MODELS["full"].estimate_of((flat @ flat.T / d)[None], (1, d))
        covariances, lost = estimate.floored()
        assert lost.all()
        covariances.check(2 * np.sqrt(covariances.variances()[0]))


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_the_prior_tells_what_its_m_step_maximises(kind: str, d: int, k: int, seed: int) -> None:
    """The expected log-density of complete data, each row's lowered by its component's penalty.

    No covariances of the model near those of the M-step have more of it.
    """
    rng = np.random.default_rng(seed)
    rows, labels = some_rows(60, d, rng), rng.permutation(np.arange(60) % k)
    model = COVARIANCE_MODELS[kind]
    prior = Regularised(np.full(d, rng.uniform(0.1, 2.0)) if kind == "spherical" else rng.random(d))
    own = model.centred_features
    sums = np.zeros((k, own.width(d)))
    means = np.stack([rows[labels == i].mean(axis=0) for i in range(k)])
    for i in range(k):
        x = (rows[labels == i] - means[i]).T
        sums[i] = own.of(x, np.empty((own.width(d), x.shape[1]))).sum(axis=1)
    before = Mixture(np.full(k, 1 / k), means, a_mixture(kind, k, d, rng).covariances)
    found = Statistics(sums, means, 0.0, 0.0, 60.0, 60)
    after = Model(model, prior, Complete()).m_step(found, rows.T @ rows, before).mixture

    def expected(covariances: Covariances) -> float:
        mixture = replace(after, covariances=covariances)
        logs = sum(mixture.log_joint(i, rows[labels == i].T).sum() for i in range(k))
        return float(logs - np.bincount(labels, minlength=k) @ prior.penalties(mixture))

    best, every = expected(after.covariances), np.ones(k, bool)
    np.testing.assert_allclose(after.means, means, atol=1e-12)
    at_best = after.covariances.coordinates(after.covariances, np.ones(k)).ravel()
    for size in (1e-3, 0.1, 1.0):
        place = at_best + size * rng.normal(size=len(at_best))
        estimate = after.covariances.at(place, np.ones(k), every, after.covariances)
        assert expected(estimate.floored()[0]) <= best + 1e-9 * abs(best)


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_an_estimate_about_other_means(kind: str, d: int, k: int, seed: int) -> None:
    """The mean squares of rows about means that are not their own."""
    rng = np.random.default_rng(seed)
    model, counts = COVARIANCE_MODELS[kind], rng.uniform(1, 5, size=k)
    roots, offsets = rng.normal(size=(k, d, d)), rng.normal(size=(k, d))
    within = roots @ roots.swapaxes(1, 2)
    own = model.centred_features
    second = np.stack([own.of(x, np.empty((own.width(d), d))).sum(axis=1) for x in roots])
    second = second[:, 1 + d :] * counts[:, None]
    zero = np.zeros((k, d))
    estimate = model.estimate(counts, zero, zero, second, None).about(counts, offsets)
    about = within + offsets[:, :, None] * offsets[:, None, :]
    pooled = np.broadcast_to(model.pooled(counts, about), (k, d, d))
    np.testing.assert_allclose(estimate.floored()[0].dense(), pooled, rtol=1e-9, atol=1e-12)


@every_structure
def test_covariances_of_given_variances(kind: str) -> None:
    model, variances = COVARIANCE_MODELS[kind], np.full(3, 4.0)
    made = model.of_variances(variances, 2)
    np.testing.assert_array_equal(made.dense(), np.stack([4 * np.eye(3)] * 2))
    again = model.of_covariances(made.values, (2, 3))
    np.testing.assert_array_equal(made.precisions_cholesky, again.precisions_cholesky)
    assert made.values.shape == model.shape(2, 3)


@every_structure
def test_free_parameters_are_own_and_common(kind: str) -> None:
    expected = {"full": 4 * 6, "tied": 6, "diag": 4 * 3, "spherical": 4}[kind]
    assert COVARIANCE_MODELS[kind].free_parameters(4, 3) == expected


@every_structure
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_coordinates_lead_back(kind: str, d: int, k: int, seed: int) -> None:
    """Any covariances have coordinates, seen from any others; their own are 0."""
    rng = np.random.default_rng(seed)
    one, other = (a_mixture(kind, k, d, rng).covariances for _ in range(2))
    roots, every = np.sqrt(rng.dirichlet(np.ones(k))), np.ones(k, bool)
    seen = one.coordinates(other, roots)
    back = one.at(seen.ravel(), roots, every, one)
    np.testing.assert_allclose(back.values, other.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.coordinates(one, roots), 0.0, atol=1e-9)
    white = rng.normal(size=(k, d))
    coloured = one.coloured(white)
    np.testing.assert_allclose(one.whitened(coloured), white, rtol=1e-9, atol=1e-9)
    for i in range(k):
        again = one.whiten(i, coloured[i][:, None])[:, 0]
        np.testing.assert_allclose(again, white[i], rtol=1e-9, atol=1e-9)


@every_structure
def test_factors_lie_in_memory_as_if_read_from_a_file(kind: str) -> None:
    """Products round by how their factors lie: a fit that goes on must find them as they were."""
    rng = np.random.default_rng(0)
    before = a_mixture(kind, 4, 3, rng).covariances
    place = before.coordinates(before, np.ones(4)).ravel()
    estimate = before.at(place, np.ones(4), np.ones(4, bool), before)
    floored, _ = estimate.floored()
    regularised, _ = estimate.regularised(np.ones(3), np.zeros(4, bool), before)
    for made in (floored, regularised):
        assert made.values.flags.c_contiguous
        assert made.precisions_cholesky.flags.c_contiguous


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), length=st.floats(1.5, 50), seed=seeds)
def test_an_extrapolation_is_a_mixture(kind: str, d: int, k: int, length: float, seed: int) -> None:
    """However long the step; and a step of length 1 would lead to the third mixture."""
    rng = np.random.default_rng(seed)
    first, second, third = (a_mixture(kind, k, d, rng) for _ in range(3))
    model = Model(first.covariance_model, Regularised(np.zeros(d)), COMPLETE)
    assert extrapolate(first, second, third, 1.0, model).mixture is None
    trial = extrapolate(first, second, third, length, model).mixture
    if trial is not None:
        mixture = trial.mixture
        assert mixture.weights.sum() == pytest.approx(1.0)
        dense = mixture.covariances.dense()
        assert (np.linalg.eigvalsh(dense) > 0).all() or trial.singular


@every_structure
@laws(40)
@given(
    d=st.integers(1, 4),
    k=st.integers(1, 4),
    shift=st.sampled_from([0.0, 3.0, 1e8]),
    spread=st.floats(-20, 20),
    seed=seeds,
)
def test_into_the_frame_and_out_again(
    kind: str, d: int, k: int, shift: float, spread: float, seed: int
) -> None:
    """Nothing changes but the means, by a rounding; and densities differ by the volume alone."""
    rng = np.random.default_rng(seed)
    mean, variance = shift + rng.normal(size=d), np.exp(spread + rng.normal(size=d))
    frame = Frame.of(mean, variance, COVARIANCE_MODELS[kind])
    mixture = a_mixture(kind, k, d, rng)
    inside = frame.enter(mixture)
    back = frame.leave(inside)
    np.testing.assert_array_equal(back.weights, mixture.weights)
    for name in ("values", "precisions_cholesky"):
        own, given = (getattr(each.covariances, name) for each in (back, mixture))
        np.testing.assert_array_equal(own, given)
    u = np.finfo(float).eps
    atol = 2 * u * (np.abs(frame.shift).max() + np.abs(mixture.means).max())
    np.testing.assert_allclose(back.means, mixture.means, rtol=0, atol=atol)
    assert np.isin(np.frexp(frame.scale)[0], 0.5).all()  # powers of two
    # A row at each mean, so that no digits are lost: log N differs by log |scale|.
    inner = [inside.log_joint(i, inside.means[i][:, None])[0] for i in range(k)]
    outer = [mixture.log_joint(i, mixture.means[i][:, None])[0] for i in range(k)]
    np.testing.assert_allclose(np.array(inner) - frame.log_volume, outer, rtol=1e-12, atol=1e-11)


def test_rows_in_the_frame_have_unit_spread() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 3)) * [1e-6, 1.0, 1e6] + [0, 1e8, -1]
    found = first_pass(Block(0, rows), FirstPassSpec(1, 0))
    frame = Frame.of(found.robust_centre, found.robust_variance, COVARIANCE_MODELS["full"])
    x = frame.rows(rows, np.empty((3, 2000)))
    assert (np.abs(x.mean(axis=1)) < 1e-6).all()
    assert ((x.std(axis=1) > 0.7) & (x.std(axis=1) < 1.5)).all()  # to the nearest power of two
