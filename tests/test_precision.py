"""Single precision is used where its bound holds, and nothing that is returned depends on it."""

import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import DegenerateWarning, GaussianMixture
from dgmm.em.fit_context import SINGLE, FitContext
from dgmm.em.model import Model
from dgmm.kernels import native
from dgmm.kernels.choice import KERNELS, Kernel
from dgmm.kernels.kernel import e_step
from dgmm.kernels.native import compiled
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.rounding import Away
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised

kernels = pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(name == "native" and not compiled, reason="no C")
        )
        for name in KERNELS
    ],
)
every_structure = pytest.mark.parametrize("name", COVARIANCE_MODELS)

UNIT = 2.0**-24


def blocks(name: str, width: float, offset: float, weights: str) -> tuple[Block, Mixture]:
    """Rows of a mixture of five normals, ``width`` wide and ``offset`` apart, and the mixture."""
    rng, covariance_model, n_features = np.random.default_rng(1), COVARIANCE_MODELS[name], 6
    means = offset * rng.normal(size=(5, n_features))
    precisions = np.broadcast_to(
        np.eye(n_features) if name in ("full", "tied") else 1.0,
        covariance_model.shape(5, n_features),
    )
    rows = means[rng.integers(5, size=4000)] + width * rng.normal(size=(4000, n_features))
    given = {
        "none": None,
        "some": np.where(np.arange(4000) % 7 == 0, 0.0, rng.uniform(size=4000)),
        "huge": 1e150 * rng.uniform(size=4000),
    }[weights]
    mixture = Mixture.of(covariance_model, np.full(5, 0.2), means, precisions / width**2)
    return Block(0, rows, given), mixture


@kernels
@every_structure
@pytest.mark.parametrize("variant", [0, -1])
@pytest.mark.parametrize(("width", "offset"), [(1.0, 1.0), (0.1, 1.0), (0.02, 2.0), (3.0, 30.0)])
@pytest.mark.parametrize("weights", ["none", "some", "huge"])
def test_the_bound_holds(
    kernel: str,
    name: str,
    variant: int,
    width: float,
    offset: float,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the widest and in the plainest vectors."""
    if compiled:
        monkeypatch.setattr(native, "VARIANT", variant % len(compiled.variants()))
    block, mixture = blocks(name, width, offset, weights)
    frame = Frame(np.zeros(6), np.ones(6))
    spread = float(np.sqrt(np.mean(np.sum(block.rows**2, axis=1))))
    chosen = KERNELS[kernel]
    penalties = Regularised(np.full(6, 1e-6 * width**2)).penalties(mixture)
    exact, single = (
        NaturalParameters.of(mixture, penalties, spread, chosen.centres, single)
        for single in (False, True)
    )
    if exact.centred and kernel == "numpy":
        pytest.skip("single precision is never asked for here")
    (expected,) = e_step(block, Given(frame, (exact,))).parts
    (found,) = chosen.e_step(block, Given(frame, (single,))).parts
    bound = float(chosen.error_bound(mixture, Away.expected(mixture), UNIT).max())
    # Adding up log-densities of some 10 to 100 costs their own rounding.
    size = abs(expected.objective) / expected.weight
    allowed = (bound + 4 * UNIT * size) * expected.weight
    assert abs(found.objective - expected.objective) < allowed
    assert abs(found.log_likelihood - expected.log_likelihood) < allowed
    assert found.weight == expected.weight
    largest = np.abs(expected.sums).max()
    if bound < 1e-3:
        np.testing.assert_allclose(found.sums, expected.sums, rtol=0, atol=bound * largest)


def problem(name: str, rng: np.random.Generator) -> tuple[np.ndarray, Mixture]:
    """Narrow components far from the centre, wide beside narrow, turned, and rows elsewhere.

    Raises ``LinAlgError`` for conditions beyond what doubles invert.
    """
    n_features, count, n = rng.integers(1, 9), rng.integers(1, 5), rng.integers(20, 400)
    means = rng.normal(size=(count, n_features)) * 10.0 ** rng.uniform(-1, 4, size=(count, 1))
    spreads = 10.0 ** rng.uniform(-3, 2, size=(count, n_features))
    turns = np.linalg.qr(rng.normal(size=(count, n_features, n_features)))[0]
    labels = rng.integers(count, size=n)
    white = rng.standard_t(3, size=(n, n_features)) * spreads[labels]
    rows = means[labels] + np.einsum("nij,nj->ni", turns[labels], white)
    precisions = np.einsum("kij,kj,klj->kil", turns, spreads**-2.0, turns)
    precisions = (precisions + precisions.swapaxes(1, 2)) / 2
    shaped = {
        "full": precisions,
        "tied": precisions[0],
        "diag": np.diagonal(precisions, axis1=1, axis2=2),
        "spherical": np.trace(precisions, axis1=1, axis2=2) / n_features,
    }[name]
    elsewhere = rng.choice([0.0, 0.3, 3.0]) * spreads * rng.normal(size=(count, n_features))
    weights = rng.dirichlet(np.ones(count))
    return rows, Mixture.of(COVARIANCE_MODELS[name], weights, means + elsewhere, shaped)


@kernels
@every_structure
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_bound_holds_wherever_components_and_rows_are(
    kernel: str, name: str, seed: int
) -> None:
    """The bound of a sweep is the larger of what is expected before it and of what it found."""
    rng, chosen = np.random.default_rng(seed), KERNELS[kernel]
    for _ in range(20):  # of which a few may be in single precision
        with suppress(np.linalg.LinAlgError):
            rows, mixture = problem(name, rng)
            assert_bound_holds(chosen, kernel, rows, mixture)


def assert_bound_holds(chosen: Kernel, kernel: str, rows: np.ndarray, mixture: Mixture) -> None:
    (n, n_features), total = rows.shape, rows.T @ rows
    spread = float(np.sqrt(np.mean(np.sum(rows**2, axis=1))))
    frame, prior = (
        Frame(np.zeros(n_features), np.ones(n_features)),
        Regularised(np.zeros(n_features)),
    )
    model = Model(mixture.covariance_model, prior, Complete(kernel))
    context = FitContext(model, frame, float(n), total, spread, "auto")
    before = context.single_bound(mixture)
    exact, single = (context.natural(mixture, each) for each in (False, True))
    if before == np.inf or (exact.centred and not chosen.centres):
        return  # then it is not asked for
    (expected,) = chosen.e_step(Block(0, rows), Given(frame, (exact,))).parts
    (found,) = chosen.e_step(Block(0, rows), Given(frame, (single,))).parts
    bound = max(before, context.single_error(found, mixture))
    bound += 2 * SINGLE * abs(expected.objective + exact.common_sum(total)) / n
    assert abs(found.objective - expected.objective) / n < bound


@kernels
@pytest.mark.parametrize(("name", "far"), [("diag", 1e4), ("spherical", 3e4), ("full", 1e4)])
def test_a_row_far_away_does_not_break_the_bound(
    kernel: str, name: str, far: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trace falls by no more than the bound, and ends where double precision does."""
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(size=(3000, 2)), [[far, far]]])
    options = {"covariance_type": name, "strategy": "em", "tol": 1e-8, "max_iter": 200}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        auto, exact = (
            GaussianMixture(3, random_state=0, precision=each, **options).fit(rows)
            for each in ("auto", "float64")
        )
    steps = np.diff([*auto.lower_bounds_, auto.lower_bound_])
    assert steps.min() > -2 * auto.fit_info_["float32_bound"] - 1e-9
    assert auto.lower_bound_ == pytest.approx(exact.lower_bound_, abs=1e-5)


def fitted(rows: Any, **more: Any) -> GaussianMixture:
    return GaussianMixture(4, random_state=0, tol=1e-5, max_iter=500, **more).fit(rows)


@kernels
@every_structure
def test_what_is_returned_is_double(
    kernel: str, name: str, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    auto = fitted(blobs, covariance_type=name, strategy="em")
    exact = fitted(blobs, covariance_type=name, strategy="em", precision="float64")
    if (kernel, name) == ("numpy", "full"):  # here products of features lose too many digits
        assert auto.fit_info_["float32_passes"] == 0
    else:
        assert auto.fit_info_["float32_passes"] > 2
        assert 0 < auto.fit_info_["float32_bound"] < 1e-3
    assert exact.fit_info_["float32_passes"] == 0
    # Both stopped where a step gains less than tol, at most some steps apart.
    assert abs(auto.lower_bound_ - exact.lower_bound_) < 1e-4
    again = GaussianMixture(
        4,
        covariance_type=name,
        weights_init=auto.weights_,
        means_init=auto.means_,
        precisions_init=auto.precisions_,
        precision="float64",
        tol=10.0,
    ).fit(blobs)
    assert again.lower_bounds_[0] == pytest.approx(auto.lower_bound_, rel=1e-11)


def test_the_last_of_max_iter_are_double() -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 3))  # wide: single precision will do
    with pytest.warns(match="did not converge"):
        model = GaussianMixture(2, strategy="em", random_state=0, tol=0, max_iter=7).fit(rows)
    assert model.fit_info_["float32_passes"] == 5  # of 8 sweeps: the start's, and one an iteration


@kernels
def test_a_narrow_component_needs_double(
    kernel: str, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rng = np.random.default_rng(0)
    narrow = blobs[:1] + 1e-5 * rng.normal(size=(500, blobs.shape[1]))
    rows = np.concatenate([blobs, narrow])
    model = GaussianMixture(5, reg_covar=0, random_state=0, means_init=blobs[4::-1])
    assert model.fit(rows).fit_info_["float32_passes"] < model.n_iter_ + 1
    assert np.linalg.eigvalsh(model.covariances_).min() < 2e-10
