"""Laws of one block: its sums and its answers are those of dense, obvious formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import (
    TOLERANCE,
    a_mixture,
    a_start,
    context_of,
    every_structure,
    laws,
    seeds,
    some_rows,
    some_weights,
)
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from dgmm.em.evaluate import evaluate
from dgmm.em.expectation_maximization import EM
from dgmm.em.model import Trial
from dgmm.em.solver import StopRule, run_all
from dgmm.kernels import native
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.correction import StatisticsCorrection
from dgmm.kernels.kernel import e_step
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.outputs import row_outputs
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.features import Features, Length, Linear, Products, Squares
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised
from dgmm.model.statistics import Statistics


def dense_e_step(
    rows: np.ndarray, weights: np.ndarray, mixture: Mixture, reg: np.ndarray
) -> dict[str, Any]:
    """The obvious E-step: densities from SciPy, n x K responsibilities, sums by einsum."""
    k = mixture.components
    dense = mixture.covariances.dense()
    logs = np.stack(
        [
            np.log(mixture.weights[i])
            + multivariate_normal(mixture.means[i], dense[i]).logpdf(rows).reshape(len(rows))
            for i in range(k)
        ],
        axis=1,
    )
    penalty = 0.5 * np.einsum("kii,i->k", np.linalg.inv(dense), reg)
    shares = softmax(logs - penalty, axis=1) * weights[:, None]
    return {
        "counts": shares.sum(axis=0),
        "first": np.einsum("nk,nd->kd", shares, rows),
        "second": np.einsum("nk,ni,nj->kij", shares, rows, rows),
        "objective": weights @ logsumexp(logs - penalty, axis=1),
        "log_likelihood": weights @ logsumexp(logs, axis=1),
    }


def moved_to_zero(found: Statistics, features: str, d: int) -> dict[str, Any]:
    """Counts, sums and sums of products about 0, from sums about ``found.center``."""
    counts, center = found.sums[:, 0], found.center
    near = found.sums[:, 1 : 1 + d]
    first = near + counts[:, None] * center
    cross = near[:, :, None] * center[:, None, :]
    outer = cross + cross.swapaxes(1, 2)
    outer = outer + counts[:, None, None] * center[:, :, None] * center[:, None, :]
    quadratic = found.sums[:, 1 + d :]
    if features == "products":
        second = np.empty((len(counts), d, d))
        at = np.triu_indices(d)
        second[:, at[0], at[1]] = second[:, at[1], at[0]] = quadratic
        second = second + outer
    elif features == "squares":
        second = quadratic + np.diagonal(outer, axis1=1, axis2=2)
    elif features == "length":
        second = quadratic[:, 0] + np.trace(outer, axis1=1, axis2=2)
    else:
        second = None
    return {"counts": counts, "first": first, "second": second}


def second_in(features: str, dense: np.ndarray) -> Any:
    return {
        "products": dense,
        "squares": np.diagonal(dense, axis1=1, axis2=2),
        "length": np.trace(dense, axis1=1, axis2=2),
        "linear": None,
    }[features]


@every_structure
@pytest.mark.parametrize("centred", [False, True], ids=["product", "centred"])
@laws(25)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 5),
    k=st.integers(1, 5),
    weighted=st.booleans(),
    reg=st.sampled_from([0.0, 0.2]),
    seed=seeds,
)
def test_the_e_step_is_the_obvious_one(
    kind: str, centred: bool, n: int, d: int, k: int, weighted: bool, reg: float, seed: int
) -> None:
    """In the product form and in the centred form, for all structures, weights and penalties.

    Terms are below 1e3 here, so that sixty of them are off by less than 60 * 60 * u * 1e3 < 1e-9.
    """
    rng = np.random.default_rng(seed)
    mixture = a_mixture(kind, k, d, rng)
    rows, weights = some_rows(n, d, rng), some_weights(weighted, n, rng)
    amounts = reg * rng.uniform(0.5, 1.5, d)
    if kind == "spherical":
        amounts[:] = amounts[0]  # one scale for all columns
    penalties = Regularised(amounts).penalties(mixture)
    natural = NaturalParameters.of(mixture, penalties, 1e6 if centred else 1.0)
    assert natural.centred == (tuple(range(k)) if centred else ())
    frame = Frame(np.zeros(d), np.ones(d))
    (found,) = e_step(Block(0, rows, weights), Given(frame, (natural,))).parts
    w = np.ones(n) if weights is None else weights
    expected = dense_e_step(rows, w, mixture, amounts)
    features = natural.features.name
    sums = moved_to_zero(found, features, d)
    expected["second"] = second_in(features, expected["second"])
    common = 0.0
    if features == "linear":  # what its quadratic part is, from the rows' total scatter
        common = natural.common_sum(np.einsum("n,ni,nj->ij", w, rows, rows))
    for name, value in sums.items():
        if value is not None:
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
    assert found.objective + common == pytest.approx(expected["objective"], rel=1e-9, abs=1e-9)
    plain = found.log_likelihood + common
    assert plain == pytest.approx(expected["log_likelihood"], rel=1e-9, abs=1e-9)
    assert found.weight == pytest.approx(w.sum(), rel=1e-14)
    assert found.rows == n
    assert sums["counts"].sum() == pytest.approx(w.sum(), rel=1e-12)


@every_structure
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_one_step_is_the_same_in_both_forms(kind: str, d: int, k: int, seed: int) -> None:
    """The M-step's mixture does not depend on the form, up to what the bound allows."""
    rng = np.random.default_rng(seed)
    mixture, rows = a_mixture(kind, k, d, rng), some_rows(60, d, rng)
    context = context_of([Block(0, rows)], COVARIANCE_MODELS[kind], 0.0)
    start = context.frame.enter(mixture)
    after = []
    for spread in (1.0, 1e6):
        natural = NaturalParameters.of(start, spread=spread)
        (found,) = e_step(Block(0, rows), Given(context.frame, (natural,))).parts
        after.append(context.m_step_of(found, start).mixture)
    product, centred = after
    np.testing.assert_allclose(product.weights, centred.weights, rtol=0, atol=TOLERANCE)
    # A mean's and a covariance's error is that of its sums, divided by the count.
    atol = TOLERANCE / product.weights.min()
    assume(atol < 1e-3)
    np.testing.assert_allclose(product.means, centred.means, rtol=TOLERANCE, atol=atol)
    np.testing.assert_allclose(
        product.covariances.values, centred.covariances.values, rtol=0, atol=atol
    )


@pytest.mark.parametrize("features", [Products(), Squares(), Length(), Linear()], ids=repr)
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_sums_can_be_taken_about_other_points(
    features: Features, d: int, k: int, seed: int
) -> None:
    """``shifted`` against the sums of T(x - by) themselves."""
    rng = np.random.default_rng(seed)
    rows, by, shares = rng.normal(size=(d, 30)), rng.normal(size=(k, d)), rng.random((k, 30))
    width = features.width(d)
    sums = shares @ features.of(rows, np.empty((width, 30))).T
    expected = [
        features.of(rows - by[i][:, None], np.empty((width, 30))) @ shares[i] for i in range(k)
    ]
    np.testing.assert_allclose(features.shifted(sums, by), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("features", [Products(), Squares(), Length()], ids=repr)
def test_features_know_the_length_of_a_row(features: Features) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 20))
    seen = features.of(rows, np.empty((features.width(3), 20)))
    np.testing.assert_allclose(features.length(3) @ seen[4:], (rows**2).sum(axis=0), rtol=1e-12)


@every_structure
@pytest.mark.parametrize("name", KERNELS)
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds, damping=st.sampled_from([0.0, 0.2]))
def test_a_corrected_sample_stands_for_all(
    name: str, kind: str, d: int, k: int, seed: int, damping: float
) -> None:
    """At its reference it has the statistics of all rows; anywhere, an objective that EM raises."""
    if name == "native" and native.compiled is None:
        pytest.skip("no compiled kernel")
    rng = np.random.default_rng(seed)
    rows = some_rows(400, d, rng)
    whole = context_of([Block(0, rows)], COVARIANCE_MODELS[kind], 1e-3)
    context = replace(whole, model=replace(whole.model, observation=Complete(name)))
    start = context.frame.enter(a_start(rows, kind, k, seed))
    few, more = replace(context, weight=100.0, moments=None), None
    if context.total is not None:
        x = context.frame.rows(rows[:100], np.empty((d, 100)))
        few = replace(few, total=context.total * (1 + damping) / 4)
        more = context.total * (1 + damping) / 4 - x @ x.T

    def over(some: np.ndarray) -> Any:
        return lambda fn, given: fn(Block(0, some), given)

    (all_,) = evaluate(over(rows), [context], [Trial(start)])
    (part,) = evaluate(over(rows[:100]), [few], [Trial(start)])
    features = context.natural(start).features
    expected = all_.statistics.sums * (1 + damping) / 4
    lacking = expected - part.statistics.sums
    corrected = replace(
        few, correction=StatisticsCorrection(features, lacking, all_.statistics.center, more)
    )
    begun = EM().init(corrected, start, StopRule(3))
    before = -np.inf
    for (advanced,) in run_all(over(rows[:100]), [begun]):
        state = advanced.best
        if not advanced.trace:
            np.testing.assert_allclose(state.statistics.sums, expected, rtol=1e-9, atol=1e-9)
        if state.empty or state.singular:
            break  # what is taken away was all there was
        assert state.objective >= before - 1e-8
        before = state.objective


@every_structure
@laws(25)
@given(n=st.integers(1, 50), d=st.integers(1, 4), k=st.integers(1, 6), seed=seeds)
def test_answers_are_the_obvious_ones(kind: str, n: int, d: int, k: int, seed: int) -> None:
    """Responsibilities are a distribution, labels their largest, scores the log-densities."""
    rng = np.random.default_rng(seed)
    mixture, rows = a_mixture(kind, k, d, rng), some_rows(n, d, rng)
    rows[0] *= 1e3  # far from all components
    proba = row_outputs(rows, mixture, "proba")
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-14 * k)
    assert (proba >= 0).all()
    np.testing.assert_array_equal(row_outputs(rows, mixture, "labels"), proba.argmax(axis=1))
    dense = mixture.covariances.dense()
    logs = np.stack(
        [
            np.log(mixture.weights[i])
            + multivariate_normal(mixture.means[i], dense[i]).logpdf(rows).reshape(n)
            for i in range(k)
        ],
        axis=1,
    )
    # Both are off by some u of the largest log-density, 1e7 for the row far out.
    np.testing.assert_allclose(
        row_outputs(rows, mixture, "score"), logsumexp(logs, axis=1), rtol=1e-11
    )
    np.testing.assert_allclose(proba[1:], softmax(logs[1:], axis=1), rtol=0, atol=1e-10)
