"""What contributes nothing is left out: what is left is what dense tiles make, within the bound."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dgmm
from dgmm.kernels import native, native_outputs, outputs
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.rounding import OMITTED
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.tails import Each, StudentTails

pytestmark = pytest.mark.skipif(native.compiled is None, reason="built without a C compiler")

VARIANTS = range(len(native.compiled.variants()) if native.compiled else 0)
FULL = COVARIANCE_MODELS["full"]
ROUNDING = 1e-12
"""Both sum up to n products of rounding 1e-16 each, in different orders."""


@contextmanager
def dense() -> Iterator[None]:
    """Nothing is left out."""
    native.SKIPS = False
    try:
        yield
    finally:
        native.SKIPS = True


def textured(components: int, n_features: int, apart: float, rng: np.random.Generator) -> Mixture:
    """Components of very different scales, as of patches of photographs, so far ``apart``."""
    root = rng.normal(size=(components, n_features, n_features)) / np.sqrt(n_features)
    eye = 0.2 * np.eye(n_features)
    scales = np.exp(rng.uniform(-apart / 2, apart / 2, size=(components, 1, 1)))
    covariances = scales**2 * (root @ root.swapaxes(1, 2) + eye)
    means = apart * rng.normal(size=(components, n_features)) / np.sqrt(n_features)
    weights = rng.dirichlet(np.full(components, 2.0))
    return Mixture.of_covariances(FULL, weights, means, covariances)


def tailed(mixture: Mixture, dof: float | None) -> Mixture:
    """The same of t distributions, where there are degrees of freedom."""
    if dof is None:
        return mixture
    return replace(mixture, tails=StudentTails(np.full(mixture.components, dof), Each()))


def drawn(mixture: Mixture, rows: int, rng: np.random.Generator) -> np.ndarray:
    x, _ = mixture.sample(rows, rng)
    rng.shuffle(x)
    return x


def asked(*mixtures: Mixture, single: bool = False) -> Given:
    frame = Frame.of(*mixtures[0].moments_of_components(), FULL)
    naturals = (
        NaturalParameters.of(frame.enter(each), None, None, True, single) for each in mixtures
    )
    return Given(frame, tuple(naturals))


def is_skipped(block: Block, wanted: Given) -> bool:
    """Whether a block's bits are not those of dense tiles."""
    with dense():
        expected = native.e_step(block, wanted).parts[0]
    return not np.array_equal(native.e_step(block, wanted).parts[0].sums, expected.sums)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    n_features=st.integers(24, 40),
    components=st.integers(16, 40),
    apart=st.floats(0.0, 8.0),
    weighted=st.booleans(),
    noisy=st.booleans(),
    single=st.booleans(),
    dof=st.sampled_from([None, None, 1.0, 30.0]),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 99),
)
def test_statistics_are_those_of_dense_tiles(
    n_features: int,
    components: int,
    apart: float,
    weighted: bool,
    noisy: bool,
    single: bool,
    dof: float | None,
    variant: int,
    seed: int,
) -> None:
    """In double precision to rounding; in single, no further from double than dense tiles are."""
    noisy, single = noisy and dof is None, single and dof is None
    rng = np.random.default_rng(seed)
    mixture = tailed(textured(components, n_features, apart, rng), dof)
    rows = drawn(mixture, 5000, rng)
    other = tailed(textured(components, n_features, apart, rng), dof)
    if noisy:
        noise = NoiseComponent(0.1, rows.min(axis=0), np.ptp(rows, axis=0))
        mixture = Mixture(0.9 * mixture.weights, mixture.means, mixture.covariances, noise)
    weights = rng.uniform(0, 2, size=len(rows)) * (rng.random(len(rows)) > 0.1)
    if weighted:
        rows[weights == 0] = np.nan
    block = Block(0, rows, weights if weighted else None)
    total = weights.sum() if weighted else len(rows)
    one, two = asked(mixture, single=single), asked(mixture)
    if not noisy:
        one, two = asked(mixture, other, single=single), asked(mixture, other)
    native.VARIANT = variant
    try:
        found = native.e_step(block, one).parts
        with dense():
            plain = native.e_step(block, one).parts
            exact = native.e_step(block, two).parts
    finally:
        native.VARIANT = 0
    for mine, theirs, true in zip(found, plain, exact, strict=True):
        size = np.abs(true.sums).max()
        scale = 1e-6 if single else ROUNDING
        off = 3 * np.abs(theirs.sums - true.sums).max() + OMITTED[single] * total + scale * size
        np.testing.assert_allclose(mine.sums, true.sums, rtol=0, atol=off)
        apart_by = 3 * abs(theirs.objective - true.objective) + OMITTED[single] * total
        atol = apart_by + scale * (abs(true.objective) + total)
        np.testing.assert_allclose(mine.objective, true.objective, rtol=0, atol=atol)
        np.testing.assert_allclose(mine.log_likelihood, true.log_likelihood, rtol=0, atol=atol)
        assert (mine.weight, mine.rows) == (theirs.weight, theirs.rows)
        assert (mine.tails is None) == (dof is None)
        if mine.tails is not None:
            off = ROUNDING * max(np.abs(theirs.tails).max(), total)
            np.testing.assert_allclose(mine.tails, theirs.tails, rtol=0, atol=off)


def moved(mixture: Mixture, by: np.ndarray, shift: float) -> Mixture:
    """The mixture of ``by`` times the rows, shifted."""
    covariances = mixture.covariances.dense() * by[:, None] * by
    means = mixture.means * by + shift
    return Mixture.of_covariances(FULL, mixture.weights, means, covariances)


def collinear(mixture: Mixture) -> Mixture:
    """The last feature is twice the first, but for 1e-5 of it."""
    onto = np.eye(mixture.n_features)
    onto[-1] = 2 * onto[0]
    covariances = onto @ mixture.covariances.dense() @ onto.T
    covariances[:, -1, -1] += 1e-10 * covariances[:, 0, 0]
    return Mixture.of_covariances(FULL, mixture.weights, mixture.means @ onto.T, covariances)


def narrowed(mixture: Mixture) -> Mixture:
    """A component is a millionth as wide as the others."""
    covariances = mixture.covariances.dense().copy()
    covariances[3] *= 1e-12
    return Mixture.of_covariances(FULL, mixture.weights, mixture.means, covariances)


def strayed(mixture: Mixture) -> Mixture:
    """A component is where no row is."""
    means = mixture.means.copy()
    means[5] += 1e4
    return Mixture.of_covariances(FULL, mixture.weights, means, mixture.covariances.dense())


UNITS = 10.0 ** np.linspace(-7, 7, 24)
TORTURE: dict[str, Callable[[Mixture], Mixture]] = {
    "as it is": lambda mixture: mixture,
    "far from 0": lambda mixture: moved(mixture, np.ones(24), 1e6),
    "units": lambda mixture: moved(mixture, UNITS, 0.0),
    "collinear": collinear,
    "a narrow component": narrowed,
    "a component without rows": strayed,
}


@pytest.mark.parametrize("weighing", ["equal", "uneven", "one row"])
@pytest.mark.parametrize("torture", TORTURE)
def test_torture_does_not_change_that(torture: str, weighing: str) -> None:
    """An outlier at 1e6 and 500 rows of one value among the rows, and weights over 12 decades."""
    rng = np.random.default_rng(5)
    mixture = TORTURE[torture](textured(20, 24, 6.0, rng))
    drawn_from = textured(20, 24, 6.0, rng) if torture == "a component without rows" else mixture
    rows = drawn(drawn_from, 5000, rng)
    rows[4000:4500] = rows[3]
    rows[77] = rows.mean(axis=0) + 1e6 * rows.std(axis=0)
    weights = {
        "equal": None,
        "uneven": 10.0 ** rng.uniform(-6, 6, len(rows)),
        "one row": np.where(np.arange(len(rows)) == 9, 1e12, 1.0),
    }[weighing]
    block, wanted = Block(0, rows, weights), asked(mixture)
    assert is_skipped(block, wanted)
    (mine,) = native.e_step(block, wanted).parts
    with dense():
        (theirs,) = native.e_step(block, wanted).parts
    off = OMITTED[False] * mine.weight
    size = np.abs(theirs.sums).max(axis=0)  # of each sum, over components
    assert (np.abs(mine.sums - theirs.sums) <= off + ROUNDING * size).all()
    least = off + ROUNDING * (abs(theirs.objective) + theirs.weight)
    assert abs(mine.objective - theirs.objective) <= least
    assert abs(mine.log_likelihood - theirs.log_likelihood) <= least


@pytest.mark.parametrize("dof", [None, 9.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_those_of_dense_tiles(
    variant: int, dof: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "VARIANT", variant)
    rng = np.random.default_rng(1)
    mixture = tailed(textured(24, 33, 3.0, rng), dof)
    block = Block(0, drawn(mixture, 5001, rng).astype("f4"))
    for kind in native_outputs.KINDS:
        output = outputs.OUTPUTS[kind]  # type: ignore[index]
        of = outputs.RowOutputs(mixture, output, Complete("native"))
        with dense():
            expected = of(block)
        np.testing.assert_allclose(of(block), expected, rtol=1e-12, atol=1e-12)
    rows = block.rows.copy()
    rows[2700, 3] = np.nan
    with pytest.raises(dgmm.DataError, match="nan at row 2700, column 3"):
        of(Block(0, rows))
    with pytest.raises(dgmm.DataError, match="nan at row 2700, column 3"):
        native.e_step(Block(0, rows), asked(mixture))


def test_where_all_overlap_every_bit_stays() -> None:
    """Blocks with nothing to leave out, small ones and few components are as they were."""
    rng = np.random.default_rng(2)
    close, apart = textured(16, 24, 0.0, rng), textured(16, 24, 6.0, rng)
    assert not is_skipped(Block(0, drawn(close, 5000, rng)), asked(close))
    assert is_skipped(Block(0, drawn(apart, 5000, rng)), asked(apart))
    heavy = tailed(apart, 30.0)
    assert is_skipped(Block(0, drawn(heavy, 5000, rng)), asked(heavy))
    assert not is_skipped(Block(0, drawn(tailed(close, 1.0), 5000, rng)), asked(tailed(close, 1.0)))
    assert not is_skipped(Block(0, drawn(apart, 1000, rng)), asked(apart))
    few = textured(15, 24, 6.0, rng)
    assert not is_skipped(Block(0, drawn(few, 5000, rng)), asked(few))


def of_a_block(problem: tuple[Block, Given]) -> np.ndarray:
    return native.e_step(*problem).parts[0].sums


def test_same_block_same_bits() -> None:
    """Whatever memory held before, and in another process."""
    rng = np.random.default_rng(3)
    mixture = textured(20, 30, 4.0, rng)
    problem = Block(0, drawn(mixture, 5000, rng)), asked(mixture)
    first = of_a_block(problem)
    other = textured(40, 50, 5.0, rng)
    of_a_block((Block(0, drawn(other, 5000, rng)), asked(other)))
    native.scratch.tile[:] = 0xFF  # NaN
    np.testing.assert_array_equal(of_a_block(problem), first)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(of_a_block, problem).result(), first)


def test_a_fit_ends_where_it_did() -> None:
    rng = np.random.default_rng(4)
    mixture = textured(16, 24, 3.0, rng)
    rows = drawn(mixture, 7000, rng)

    def fitted() -> dgmm.GaussianMixture:
        start = dict(means_init=mixture.means, random_state=0, strategy="em", tol=0.02)
        return dgmm.GaussianMixture(16, precision="float64", **start).fit(rows)

    found = fitted()
    with dense():
        expected = fitted()
    assert found.lower_bound_ == pytest.approx(expected.lower_bound_, abs=1e-9)
    assert found.fit_info_["omitted_bound"] == OMITTED[found.fit_info_["float32_bound"] > 0]
    assert np.diff(found.lower_bounds_).min() > -1e-12
