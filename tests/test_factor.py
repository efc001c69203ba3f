"""Mixtures of factor analysers: against dense matrices, scikit-learn, and closed forms."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import FactorAnalysis

import dgmm
from dgmm import GaussianMixture, MixtureSearch, UsageError, select
from dgmm.cli.commands import main
from dgmm.em.model import Model
from dgmm.errors import CheckpointError, DegenerateWarning, ModelFileError
from dgmm.kernels import factor, native
from dgmm.kernels.labels import FREE
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.factor import Factor
from dgmm.model.frame import Frame
from dgmm.model.loadings import least_eigenvalue
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.prior import Regularised

Array = np.ndarray
KINDS = ("factor", "factor-tied", "ppca")
KERNELS = ["numpy"] + ["native"] * (native.compiled is not None)
heywood = pytest.mark.filterwarnings("ignore:.*a Heywood case")
"""The likeliest factors of these rows make up all that some column is, and fits say so."""

every_kind = pytest.mark.parametrize("kind", KINDS)


def model_of(kind: str, n_factors: int) -> Factor:
    made = COVARIANCE_TYPES[kind].sized(n_factors)
    assert isinstance(made, Factor)
    return made


def noise_of(kind: str, psi: Array, counts: Array) -> Array:
    """The noise variances (K, D) of a kind, from each component's and feature's own."""
    if kind == "factor-tied":
        psi = np.broadcast_to(counts @ psi / counts.sum(), psi.shape)
    if kind == "ppca":
        psi = np.broadcast_to(psi.mean(axis=1, keepdims=True), psi.shape)
    return psi


def clusters(rng: Any, count: int = 300, d: int = 6, spread: float = 1.0) -> Array:
    """Rows of three clusters with two directions each that are wider than others."""
    labels = np.arange(count) % 3
    own = rng.normal(size=(3, d, 2))
    rows = np.einsum("ndq,nq->nd", own[labels], rng.normal(size=(count, 2)))
    return spread * (rows + 0.4 * rng.normal(size=(count, d))) + 5.0 * labels[:, None]


def dense_of(psi: Array, loadings: Array) -> Array:
    return loadings @ loadings.swapaxes(1, 2) + np.stack([np.diag(each) for each in psi])


Parameters = tuple[Array, Array, Array, Array]


def textbook(
    kind: str, rows: Array, weights: Array, at: Parameters, reg: Array
) -> tuple[Parameters, float]:
    """One iteration with dense matrices, and the objective before.

    By Ghahramani and Hinton, 1996, with the parameter expansion of Liu, Rubin and Wu, 1998.
    """
    pi, means, psi, loadings = at
    covariances, count = dense_of(psi, loadings), len(pi)
    joint = np.empty((len(rows), count))
    for k in range(count):
        inverse, away = np.linalg.inv(covariances[k]), rows - means[k]
        joint[:, k] = np.log(pi[k]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariances[k])[1]
        joint[:, k] -= 0.5 * np.einsum("ni,ij,nj->n", away, inverse, away)
        joint[:, k] -= 0.5 * np.diag(inverse) @ reg
    norm = logsumexp(joint, axis=1)
    shares = np.exp(joint - norm[:, None]) * weights[:, None]
    counts = shares.sum(axis=0)
    means, new, own = shares.T @ rows / counts[:, None], np.empty_like(loadings), []
    for k in range(count):
        away = rows - means[k]
        within = (away.T * shares[:, k]) @ away / counts[k] + np.diag(reg)
        beta = loadings[k].T @ np.linalg.inv(covariances[k])
        second = np.eye(len(beta)) - beta @ loadings[k] + beta @ within @ beta.T
        new[k] = within @ beta.T @ np.linalg.inv(second) @ np.linalg.cholesky(second)
        own.append(np.diag(within - new[k] @ new[k].T))
    psi = noise_of(kind, np.array(own), counts)
    psi = np.maximum(psi, noise_of(kind, np.broadcast_to(reg, psi.shape), counts))
    return (counts / counts.sum(), means, psi, new), float(weights @ norm / weights.sum())


@every_kind
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_each_iteration_is_that_of_dense_matrices(kind: str, kernel: str, spread: float) -> None:
    rng = np.random.default_rng(3)
    rows, weights = clusters(rng, spread=spread), rng.random(300)
    d, reg = rows.shape[1], np.full(6, 1e-4 * spread**2)
    psi = noise_of(kind, spread**2 * (0.2 + rng.random((3, d))), np.ones(3))
    loadings = spread * rng.normal(size=(3, d, 2))
    at = np.full(3, 1 / 3), rows[:3] + 0.1 * spread, psi, loadings
    own = model_of(kind, 2)
    model = Model(own, Regularised(reg), Complete(kernel))
    mixture = Mixture(at[0], at[1], own.made(psi, loadings))
    frame, before = Frame(np.zeros(d), np.ones(d)), -np.inf
    # A narrow component is seen by itself: both ways are here.
    apart = factor.products_error(mixture) > factor.TOLERANCE
    assert apart.any() == (spread < 1)
    for _ in range(25):
        given = Given(frame, (model.natural(mixture, np.sqrt(d)),))
        (found,) = model.observation.e_step(Block(0, rows, weights), given).parts
        at, objective = textbook(kind, rows, weights, at, reg)
        mixture = model.m_step(found, None, mixture).mixture
        assert found.objective / found.weight == pytest.approx(objective, rel=1e-10)
        np.testing.assert_allclose(mixture.weights, at[0], atol=1e-10)
        np.testing.assert_allclose(mixture.means, at[1], rtol=1e-10)
        dense = dense_of(at[2], at[3])
        size = 1e-10 * np.abs(dense).max()
        np.testing.assert_allclose(mixture.covariances.dense(), dense, atol=size)
        assert objective >= before - 1e-12 * abs(objective)
        before = objective


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_sums_of_rows_that_few_components_share_are_those_of_all(spread: float) -> None:
    rng, count, d, q = np.random.default_rng(13), 30, 8, 2
    means = rng.normal(size=(count, d))
    where = rng.integers(count, size=700)
    rows = means[where] + 0.1 * spread * rng.normal(size=(700, d))
    weights = rng.integers(3, size=700) / 2
    rows[0], weights[0] = 1e6, 1.0  # far out: noise
    own = model_of("factor", q)
    psi, loadings = 0.01 * spread**2 * (1 + rng.random((count, d))), rng.normal(size=(count, d, q))
    covariances = own.made(psi, 0.1 * spread * loadings)
    noise = NoiseComponent(0.01, np.zeros(d), np.full(d, 10.0))
    mixture = Mixture(np.full(count, 0.99 / count), means, covariances, noise)
    seen = Given(Frame(np.zeros(d), np.ones(d)), (NaturalParameters.of(mixture),))
    (found,) = Complete("numpy").e_step(Block(0, rows, weights), seen).parts
    flat = np.full(700, noise.log_joint)
    joint = np.stack([*(mixture.log_joint(k, rows.T) for k in range(count)), flat])
    norm = logsumexp(joint, axis=0)
    shares = np.exp(joint - norm) * weights
    assert found.objective == pytest.approx(weights @ norm, rel=1e-10)
    np.testing.assert_allclose(found.sums[:, 0], shares.sum(axis=1), atol=1e-10)
    for k in range(count):
        away = rows - means[k]
        factors = away @ covariances.directions[k]
        along = (away[:, :, None] * factors[:, None]).reshape(700, -1)
        expected = shares[k] @ np.concatenate([away, away * away, along], axis=1)
        np.testing.assert_allclose(found.sums[k, 1:], expected, atol=1e-9 * spread**2)


@every_kind
def test_covariances_are_those_of_their_matrices(kind: str) -> None:
    rng = np.random.default_rng(0)
    psi = noise_of(kind, 0.01 + rng.random((4, 7)), np.ones(4))
    own = model_of(kind, 3).made(psi, rng.normal(size=(4, 7, 3)))
    dense, vectors = own.dense(), rng.normal(size=(4, 7))
    inverse, amounts = np.linalg.inv(dense), rng.random(7)
    own.check(np.ones(7))
    np.testing.assert_allclose(own.variances(), np.diagonal(dense, axis1=1, axis2=2))
    np.testing.assert_allclose(own.half_log_det(), -0.5 * np.linalg.slogdet(dense)[1])
    np.testing.assert_allclose(own.trace(amounts), np.einsum("kii,i->k", inverse, amounts))
    white = own.whitened(vectors)
    lengths = np.einsum("ki,kij,kj->k", vectors, inverse, vectors)
    np.testing.assert_allclose(np.sum(white**2, axis=1), lengths)
    np.testing.assert_allclose(own.coloured(white), vectors)
    np.testing.assert_allclose(own.whiten(2, vectors[2][:, None])[:, 0], white[2])
    np.testing.assert_allclose(own.times(vectors), np.einsum("kij,kj->ki", dense, vectors))
    roots = np.stack([own.drawn_rows(k, np.eye(7)) for k in range(4)])
    np.testing.assert_allclose(roots.swapaxes(1, 2) @ roots, dense)
    some = np.array([5, 0, 2])
    np.testing.assert_allclose(own.among(some).dense(), dense[:, some[:, None], some])
    scale = 1 + rng.random(7)
    np.testing.assert_allclose(own.rescale(scale).dense(), dense * scale * scale[:, None])
    again = own.model.of_precisions(own.precisions(), (4, 7))
    np.testing.assert_allclose(again.dense(), dense)
    small = dense / np.sqrt(amounts) / np.sqrt(amounts)[:, None]
    least = least_eigenvalue(own.values, amounts)
    np.testing.assert_allclose(least, np.linalg.eigvalsh(small)[:, 0], rtol=1e-9)
    there = own.coordinates(own, np.full(4, 0.5))
    np.testing.assert_allclose(there, 0.0, atol=1e-12)
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # loadings are told but for rotations
    other = own.model.made(noise_of(kind, 1.3 * psi, np.ones(4)), own.loadings @ turned + 0.1)
    place = own.coordinates(other, np.full(4, 0.5))
    found, _ = own.at(place.ravel(), np.full(4, 0.5), np.ones(4, bool), own).floored()
    np.testing.assert_allclose(found.dense(), other.dense())


@pytest.mark.parametrize(("d", "q"), [(4, 2), (3, 2), (2, 2), (2, 3), (1, 1), (1, 2)])
def test_the_least_spread_of_no_more_features_than_factors(d: int, q: int) -> None:
    """As it is where other columns have one value, and of some features of many."""
    rng = np.random.default_rng(0)
    psi, loadings = 0.1 + 0.8 * rng.random((5, d)), rng.normal(size=(5, d, q))
    psi[0] = 1e-9  # factors alone make up all there is
    values, amounts = np.concatenate([psi[:, :, None], loadings], axis=2), 1e-3 * rng.random(d)
    small = dense_of(psi, loadings) / np.sqrt(amounts) / np.sqrt(amounts)[:, None]
    least = least_eigenvalue(values, amounts)
    np.testing.assert_allclose(least, np.linalg.eigvalsh(small)[:, 0], rtol=1e-6)
    flat = np.concatenate([values, np.zeros((5, 2, 1 + q))], axis=1)
    estimate = model_of("factor", q).estimate_of(flat, (5, d + 2))
    apart = estimate.thinnest_apart(
        np.full(5, 0.2), np.zeros((5, d + 2)), np.append(amounts, [1e-3, 1e-3])
    )
    np.testing.assert_allclose(apart, least, rtol=1e-6)


def directions(kind: str, d: int, q: int, components: int) -> int:
    """In how many directions covariances change as their noise and loadings do."""
    rng, psi_shape = np.random.default_rng(0), {"factor-tied": (1, d), "ppca": (components, 1)}
    psi_shape = psi_shape.get(kind, (components, d))
    at = np.concatenate(
        [0.5 + rng.random(np.prod(psi_shape)), rng.normal(size=components * d * q)]
    ).astype(complex)

    def covariances(place: Any) -> Array:
        psi = np.broadcast_to(place[: np.prod(psi_shape)].reshape(psi_shape), (components, d))
        return dense_of(psi, place[np.prod(psi_shape) :].reshape(components, d, q)).ravel()

    steps = 1e-30j * np.eye(len(at))  # derivatives by complex steps are exact
    slopes = np.array([covariances(at + step).imag / 1e-30 for step in steps])
    return int(np.linalg.matrix_rank(slopes, tol=1e-8))


@every_kind
@pytest.mark.parametrize("d", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("q", [1, 2, 3, 5])
def test_free_parameters_are_the_directions_that_covariances_have(
    kind: str, d: int, q: int
) -> None:
    for components in (1, 2, 3):
        expected = directions(kind, d, q, components)
        assert model_of(kind, q).free_parameters(components, d) == expected


@pytest.mark.parametrize("kind", ["factor", "factor-tied"])
def test_loadings_that_are_given_are_turned_in_any_units(kind: Any) -> None:
    """One feature has a factor of its own; the others' two are not as they should be turned."""
    rng, mean = np.random.default_rng(0), np.zeros(5)
    loadings = np.zeros((1, 5, 3))
    loadings[0, 0, 0], loadings[0, 1:, 1:] = 3.0, rng.normal(size=(4, 2))
    psi, rows = noise_of(kind, 0.5 + rng.random((1, 5)), np.ones(1)), rng.normal(size=(9, 5))
    expected = multivariate_normal(mean, dense_of(psi, loadings)[0]).logpdf(rows)
    for units in (np.ones(5), np.array([1e9, 1, 1, 1, 1]), np.array([1e-9, 1, 1e3, 1, 1])):
        values = np.concatenate([(psi * units**2)[:, :, None], loadings * units[:, None]], axis=2)
        model = GaussianMixture.from_parameters(
            [1.0], [mean], values, covariance_type=kind, n_factors=3
        )
        density = model.score_samples(rows * units) + np.log(units).sum()
        np.testing.assert_allclose(density, expected, rtol=1e-9)
        again = GaussianMixture.from_json(model.to_json())  # which is turned so, to the last bit
        np.testing.assert_array_equal(again.loadings_, model.loadings_)


@pytest.mark.parametrize("kind", ["factor-tied", "ppca"])
def test_noise_that_is_given_must_be_the_same_where_it_is_one(kind: Any) -> None:
    psi = np.array([[1.0, 2.0], [3.0, 5.0]])
    asked: dict[str, Any] = {"covariance_type": kind, "n_factors": 1}
    where = {"factor-tied": "in all components", "ppca": "in all features"}[kind]
    values = np.stack([psi, np.ones((2, 2))], axis=2)
    with pytest.raises(UsageError, match=f"noise variances .* are the same {where}"):
        GaussianMixture.from_parameters([0.5, 0.5], np.zeros((2, 2)), values, **asked)
    psi = psi[[0, 0]] if kind == "factor-tied" else psi[:, [0, 0]]
    values = np.stack([psi * (1 + 1e-15), np.ones((2, 2))], axis=2)
    model = GaussianMixture.from_parameters([0.5, 0.5], np.zeros((2, 2)), values, **asked)
    np.testing.assert_allclose(model.noise_variance_, psi)


def test_a_model_of_some_features_counts_what_it_has() -> None:
    rows = clusters(np.random.default_rng(0))
    model = GaussianMixture(covariance_type="factor", n_factors=4, random_state=0).fit(rows)
    some, full = model.marginal([0, 3]), GaussianMixture(random_state=0).fit(rows[:, [0, 3]])
    assert some.mixture_.free_parameters == full.mixture_.free_parameters == 5


def test_one_component_is_scikit_learns_factor_analysis() -> None:
    rows = load_wine().data
    spread = rows.std(axis=0)
    theirs = FactorAnalysis(2, tol=1e-12, max_iter=20_000).fit(rows / spread)
    ours = GaussianMixture(
        covariance_type="factor", n_factors=2, reg_covar=0, tol=1e-12, max_iter=3000, random_state=0
    ).fit(rows)
    assert ours.score(rows) == pytest.approx(
        theirs.score(rows / spread) - np.log(spread).sum(), abs=1e-6
    )
    scaled = ours.loadings_[0] / spread[:, None]
    inner = theirs.components_.T @ theirs.components_  # the same but for rotations
    np.testing.assert_allclose(scaled @ scaled.T, inner, atol=1e-3)
    own = ours.component_covariances_[0] / spread / spread[:, None]
    np.testing.assert_allclose(own, theirs.get_covariance(), atol=1e-3)
    away = rows - ours.means_[0]
    precision = np.linalg.inv(ours.component_covariances_[0])
    np.testing.assert_allclose(ours.transform(rows), away @ precision @ ours.loadings_[0])


def test_one_component_is_the_closed_form_of_principal_components() -> None:
    rows = load_wine().data[:, :6]
    d, q = 6, 2
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    rest = values[q:].mean()  # Tipping and Bishop, 1999, equation 3.8
    best = -0.5 * (d * np.log(2 * np.pi) + np.log(values[:q]).sum() + (d - q) * np.log(rest) + d)
    model = GaussianMixture(
        covariance_type="ppca", n_factors=q, reg_covar=0, tol=1e-12, max_iter=3000, random_state=0
    ).fit(rows)
    assert model.score(rows) == pytest.approx(best, abs=1e-7)
    np.testing.assert_allclose(model.noise_variance_, rest, rtol=1e-3)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from(["em", "auto"]))
def test_the_objective_never_falls(seed: int, kind: str, strategy: Any) -> None:
    rng = np.random.default_rng(seed)
    rows = clusters(rng, int(rng.integers(20, 120)), int(rng.integers(3, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", dgmm.errors.ObjectiveFellWarning)
        model = GaussianMixture(
            int(rng.integers(1, 5)),
            covariance_type=kind,  # type: ignore[arg-type]
            n_factors=int(rng.integers(1, 3)),
            strategy=strategy,
            random_state=0,
            max_iter=30,
        ).fit(rows)
    trace = [*model.lower_bounds_, model.lower_bound_]
    slack = 1e-9 * (1 + np.abs(trace).max())
    assert (np.diff(trace) > -slack).all()


@heywood
@every_kind
def test_rows_are_judged_as_by_dense_matrices(kind: Any) -> None:
    rng = np.random.default_rng(1)
    rows = clusters(rng)
    model = GaussianMixture(3, covariance_type=kind, n_factors=2, random_state=0).fit(rows)
    pairs = zip(model.means_, model.component_covariances_, strict=True)
    joint = np.stack([multivariate_normal(*each).logpdf(rows) for each in pairs], axis=1)
    joint += np.log(model.weights_)
    np.testing.assert_allclose(model.score_samples(rows), logsumexp(joint, axis=1), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(rows), joint.argmax(axis=1))
    assert model.loadings_.shape == (3, 6, 2)
    dense = dense_of(model.noise_variance_, model.loadings_)
    np.testing.assert_allclose(model.component_covariances_, dense)
    labels, precisions = model.predict(rows), np.linalg.inv(dense)
    away = np.einsum("nij,nj->ni", precisions[labels], rows - model.means_[labels])
    expected = np.einsum("niq,ni->nq", model.loadings_[labels], away)
    np.testing.assert_allclose(model.transform(rows), expected, atol=1e-9)
    lazy = model.transform(da.from_array(rows, chunks=(70, 6)))
    np.testing.assert_array_equal(lazy.compute(), model.transform(rows))
    drawn, _ = model.sample(20_000)
    np.testing.assert_allclose(drawn.mean(axis=0), model.weights_ @ model.means_, atol=0.15)
    own = model.mixture_.marginal([0, 3])
    np.testing.assert_allclose(own.covariances.dense(), dense[:, [[0], [3]], [0, 3]])
    count = model.mixture_.free_parameters
    assert model.bic(rows) == pytest.approx(
        -2 * logsumexp(joint, axis=1).sum() + count * np.log(300)
    )
    noise = {"factor": 18, "factor-tied": 6, "ppca": 3}[kind]
    assert count == 2 + 18 + 3 * (12 - 1) + noise


@heywood
def test_factors_of_rows_with_holes_are_by_what_was_observed() -> None:
    rng = np.random.default_rng(2)
    rows = clusters(rng)
    model = GaussianMixture(3, covariance_type="factor", n_factors=2, random_state=0).fit(rows)
    holes = rows[:5].copy()
    holes[0, 1:3], holes[1, 0], holes[2] = np.nan, np.nan, np.nan
    model.set_params(missing="marginalize", covariance_type="factor")
    labels, found = model.predict(holes), model.transform(holes)
    full = GaussianMixture.from_parameters(
        model.weights_, model.means_, model.component_covariances_, missing="marginalize"
    )
    np.testing.assert_array_equal(labels, full.predict(holes))
    np.testing.assert_allclose(model.score_samples(holes), full.score_samples(holes))
    np.testing.assert_allclose(model.impute(holes), full.impute(holes))
    many = np.repeat(holes[:1], 20_000, axis=0)
    drawn, theirs = (each.impute(many, sample=True) for each in (model, full))
    np.testing.assert_allclose(drawn.mean(axis=0), theirs.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn[:, 1:3].T), np.cov(theirs[:, 1:3].T), rtol=0.06)
    assert labels[2] == -2
    assert np.isnan(found[2]).all()
    for i in (0, 1, 3, 4):
        seen, k = ~np.isnan(holes[i]), labels[i]
        own = model.component_covariances_[k][np.ix_(seen, seen)]
        away = np.linalg.solve(own, holes[i, seen] - model.means_[k, seen])
        np.testing.assert_allclose(found[i], model.loadings_[k][seen].T @ away)


def test_weights_units_labels_and_noise() -> None:
    rng = np.random.default_rng(4)
    rows = clusters(rng)
    common: dict[str, Any] = {"covariance_type": "factor", "n_factors": 2, "random_state": 0}
    common |= {"strategy": "em", "max_iter": 8, "tol": 0.0}
    start = GaussianMixture(3, **{**common, "max_iter": 0}).fit(rows)

    def after(model: GaussianMixture, *args: Any, **more: Any) -> GaussianMixture:
        model.set_params(warm_start=True, **{**common, **more})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(*args)

    def begun(scale: Any = 1.0) -> GaussianMixture:
        values = start.covariances_ * np.concatenate([[scale], np.ones(2)]) * scale
        return GaussianMixture.from_parameters(
            start.weights_, start.means_ * scale, values, covariance_type="factor", n_factors=2
        )

    counts = rng.integers(1, 3, size=len(rows))
    weighted = begun().set_params(warm_start=True, **common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weighted.fit(rows, sample_weight=counts)
    repeated = after(begun(), np.repeat(rows, counts, axis=0), reg_covar=0.0)
    np.testing.assert_allclose(weighted.means_, repeated.means_, atol=1e-4)
    other = after(begun(1000.0), rows * 1000.0)
    here = after(begun(), rows)
    np.testing.assert_allclose(other.means_, 1000 * here.means_, rtol=1e-9)
    np.testing.assert_allclose(
        other.component_covariances_, 1e6 * here.component_covariances_, rtol=1e-7
    )
    labels = np.where(rng.random(300) < 0.3, np.arange(300) % 3, FREE)
    told = GaussianMixture(3, covariance_type="factor", n_factors=2, random_state=0)
    told.fit(rows, labels=labels)
    assert (told.predict(rows) == np.arange(300) % 3).mean() > 0.98
    far = np.concatenate([rows, rng.uniform(-60, 60, size=(30, 6))])
    noisy = GaussianMixture(
        3, covariance_type="factor", n_factors=2, noise_component=True, random_state=0
    ).fit(far)
    assert 0.05 < noisy.noise_weight_ < 0.12
    found = noisy.predict(far)
    assert (found[300:] == -1).mean() > 0.9
    assert np.isnan(noisy.transform(far)[found == -1]).all()
    held = after(begun(), rows, fixed={"covariances": [1], "means": True})
    np.testing.assert_array_equal(held.loadings_[1], begun().loadings_[1])
    np.testing.assert_array_equal(held.means_, start.means_)


def fits(**params: Any) -> GaussianMixture:
    params = {"covariance_type": "factor", "n_factors": 2, "random_state": 0, **params}
    return GaussianMixture(3, **params)


def test_files_checkpoints_and_engines(tmp_path: Path, clusters: dict[int, Client]) -> None:
    rows = globals()["clusters"](np.random.default_rng(5), 1200)
    store = zarr.create_array(str(tmp_path / "rows.zarr"), data=rows, chunks=(200, 6))
    assert store.shape == rows.shape
    path = str(tmp_path / "rows.zarr")
    whole = fits(n_jobs=2).fit(path)
    whole.save(tmp_path / "model.dgmm")
    again = dgmm.load(tmp_path / "model.dgmm")
    assert (again.covariance_type, again.n_factors) == ("factor", 2)
    np.testing.assert_array_equal(again.loadings_, whole.loadings_)
    np.testing.assert_array_equal(again.transform(rows), whole.transform(rows))
    on_cluster = fits()
    for _ in on_cluster.fit_passes(path, client=clusters[2]):
        pass
    np.testing.assert_array_equal(on_cluster.covariances_, whole.covariances_)
    np.testing.assert_array_equal(on_cluster.means_, whole.means_)
    elsewhere = GaussianMixture.from_json(whole.to_json())
    np.testing.assert_array_equal(elsewhere.covariances_, whole.covariances_)
    assert elsewhere.n_factors == 2
    density = whole.frozen().logpdf(rows[:9])
    np.testing.assert_allclose(density, whole.score_samples(rows[:9]))
    checkpoint = str(tmp_path / "fit")
    for step in fits(checkpoint=checkpoint).fit_passes(path):
        if step.passes == 3:
            break
    resumed = fits(checkpoint=checkpoint).fit(path)
    np.testing.assert_array_equal(resumed.covariances_, whole.covariances_)
    with pytest.raises(CheckpointError, match="n_factors"):
        fits(n_factors=3, checkpoint=checkpoint).fit(path)
    warm = again.set_params(warm_start=True).fit(path)
    assert warm.lower_bound_ >= whole.lower_bound_ - 1e-9
    with pytest.raises(UsageError, match=r"'factor' covariances of 2 factors.*n_factors 3"):
        again.set_params(n_factors=3).fit(path)


def test_a_file_of_other_factors_is_refused(tmp_path: Path) -> None:
    rows = clusters(np.random.default_rng(6))
    model = fits().fit(rows)
    mixture = model.mixture_
    wrong = replace(mixture.covariances, structure=model_of("factor", 3))
    model.mixture_ = replace(mixture, covariances=wrong)
    with pytest.raises(ModelFileError, match="covariances"):
        model.save(tmp_path / "model.dgmm")


def test_search_over_factors(tmp_path: Path) -> None:
    rows = clusters(np.random.default_rng(7), 900)
    search = select(rows, [2, 3], ["diag", "factor"], n_factors=[1, 2, 3], random_state=0)
    assert search.best_params_ == {"n_components": 3, "covariance_type": "factor", "n_factors": 2}
    assert len(search.results_) == 8
    assert search.best_estimator_.n_factors == 2
    assert search.transform(rows).shape == (900, 2)
    assert search.cv_results_["param_n_factors"].tolist() == [None, None, 1, 1, 2, 2, 3, 3]
    template = GaussianMixture(random_state=0)
    with pytest.raises(UsageError, match="no covariance_type has factors"):
        MixtureSearch(template, n_components=[2], n_factors=2).fit(rows)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_factors": None}, "wants n_factors"),
        ({"n_factors": 0}, "integer of at least 1"),
        ({"n_factors": True}, "integer of at least 1"),
        ({"n_factors": 6}, "below the number of features, 6"),
        ({"covariance_type": "full"}, "n_factors=2 is of no use"),
        ({"missing": "marginalize"}, "does not go with missing='marginalize'"),
        ({"tails": "student"}, "does not go with tails='student'"),
        ({"prior": "conjugate"}, "there is no prior='conjugate' of 'factor'"),
        ({"precisions_init": np.ones((3, 6, 3))}, "precisions_init does not go"),
        (
            {"covariance_type": "factor-tied", "fixed": {"covariances": [0]}, "warm_start": True},
            "have parts in common",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fits(**params).fit(clusters(np.random.default_rng(0)))


@heywood
def test_what_does_not_go_with_factors_is_refused_by_name() -> None:
    rows = clusters(np.random.default_rng(8))
    model = fits().fit(rows)
    with pytest.raises(UsageError, match="known errors"):
        fits().fit(rows, noise=np.ones_like(rows))
    for use in (
        lambda: model.denoise(rows, np.ones_like(rows)),
        lambda: model.predict(rows, noise=np.ones_like(rows)),
        lambda: model.score(rows, noise=np.ones_like(rows)),
        lambda: model.summarize(rows),
        lambda: GaussianMixture.from_parameters(
            [1.0],
            [[0.0, 0.0]],
            precisions=[[[1.0, 0.5]] * 2],
            covariance_type="factor",
            n_factors=1,
        ),
        lambda: model.to_sklearn(),
    ):
        with pytest.raises(UsageError, match="factor"):
            use()
    assert not hasattr(model, "partial_fit")
    plain = GaussianMixture(2, random_state=0).fit(rows)
    assert not hasattr(plain, "transform")
    with pytest.raises(AttributeError, match="'full' covariances have no factors"):
        _ = plain.loadings_


def test_noise_that_vanishes_is_told() -> None:
    rng = np.random.default_rng(9)
    factors = rng.normal(size=(400, 1))
    rows = factors @ [[1.0, 0.7, 0.5, 0.6]] + 0.5 * rng.normal(size=(400, 4))
    rows[:, 0] = factors[:, 0]
    with pytest.warns(DegenerateWarning, match="column 0 in component 0 .* Heywood"):
        model = GaussianMixture(
            covariance_type="factor", n_factors=1, random_state=0, max_iter=500
        ).fit(rows)
    assert model.fit_info_["noiseless"] == {"components": [0], "features": [0]}
    assert model.fit_info_["singular"] == []


def test_many_features_take_little_memory() -> None:
    rng = np.random.default_rng(10)
    rows = da.from_array(rng.normal(size=(400, 2000)), chunks=(100, 2000))
    model = GaussianMixture(4, covariance_type="factor", n_factors=3, random_state=0)
    full = GaussianMixture(4, random_state=0).plan(rows)
    assert model.plan(rows).peak_bytes < full.peak_bytes / 3
    assert model.plan(rows).width == 1 + 2 * 2000 + 2000 * 3


def test_images_are_fitted() -> None:
    rows = load_digits().data
    rows = rows[:, rows.std(axis=0) > 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels that are 0 in all rows of a component
        factors, plain = (
            GaussianMixture(10, covariance_type=kind, random_state=0, reg_covar=0.1, **more).fit(
                rows
            )
            for kind, more in (("factor", {"n_factors": 5}), ("diag", {}))
        )
    assert factors.bic(rows) < plain.bic(rows)


@heywood
def test_command_line(tmp_path: Path) -> None:
    rows = clusters(np.random.default_rng(11))
    np.save(tmp_path / "rows.npy", rows)

    def run(*words: str) -> Any:
        done = CliRunner().invoke(main, [w.replace("@", str(tmp_path) + "/") for w in words])
        assert done.exit_code == 0, done.output
        return done

    kind = ("--covariance-type", "factor", "--n-factors", "2")
    planned = json.loads(run("plan", "@rows.npy", "-k", "3", *kind, "--json").stdout)
    assert planned["width"] == 1 + 2 * 6 + 6 * 2
    run("fit", "@rows.npy", "-k", "3", *kind, "-o", "@model.dgmm", "--quiet")
    told = json.loads(run("show", "@model.dgmm", "--json").stdout)
    assert told["n_factors"] == 2
    run(
        "predict", "@rows.npy", "-m", "@model.dgmm", "--kind", "factors", "-o", "@z.zarr", "--quiet"
    )
    found = zarr.open_array(str(tmp_path / "z.zarr"), mode="r")[...]
    np.testing.assert_array_equal(found, dgmm.load(tmp_path / "model.dgmm").transform(rows))
    run("fit", "@rows.npy", "-k", "3", *kind, "--start", "@model.dgmm", "-o", "@b.dgmm", "--quiet")
    words = ("select", "@rows.npy", "-k", "3", "--covariance-type", "full,factor")
    done = run(*words, "--n-factors", "1..2", "-o", "@best.dgmm", "--json", "--quiet")
    assert [each.get("n_factors") for each in json.loads(done.stdout)["candidates"]] == [None, 1, 2]
