"""Sparse rows, against the same rows dense."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.errors import DataError
from dgmm.kernels import kernel, sparse
from dgmm.kernels.choice import SPARSE
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.outputs import OUTPUTS, RowOutputs
from dgmm.kernels.sparse_rows import SparseRows
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.mixture import Frame, Mixture
from dgmm.model.noise_component import NoiseComponent

Array = np.ndarray
KINDS = ("spherical", "diag", "tied", "VEI", "EII", "full")
every_kind = pytest.mark.parametrize("kind", KINDS)


def some_rows(n: int = 700, d: int = 9, seed: int = 0, density: float = 0.2) -> Array:
    """Rows of which few numbers are not 0, in columns of different sizes."""
    rng = np.random.default_rng(seed)
    rows = rng.gamma(2.0, size=(n, d)) * (rng.random((n, d)) < density)
    rows[: n // 2, : d // 2] *= 3.0
    return np.asarray(rows * 10.0 ** rng.integers(-2, 3, size=d))


def sparse_of(rows: Array) -> SparseRows:
    """The rows with their numbers in no order, some in two parts, and zeros that are stored."""
    csr = scipy.sparse.csr_array(rows)
    rng = np.random.default_rng(1)
    data, indices, indptr = list[float](), list[int](), [0]
    for i in range(len(rows)):
        own = slice(csr.indptr[i], csr.indptr[i + 1])
        parts = [(0.25 * v, j) for v, j in zip(csr.data[own], csr.indices[own], strict=True)]
        parts += [(0.75 * v, j) for v, j in zip(csr.data[own], csr.indices[own], strict=True)]
        parts.append((0.0, int(rng.integers(rows.shape[1]))))
        rng.shuffle(parts)
        data += [v for v, _ in parts]
        indices += [int(j) for _, j in parts]
        indptr.append(len(data))
    return SparseRows.of(np.array(data), np.array(indices), np.array(indptr), rows.shape)


def a_mixture(kind: str, rows: Array, noisy: bool = False) -> tuple[Frame, Mixture]:
    """In the frame of the rows, whose shift is not 0."""
    model, k = COVARIANCE_TYPES[kind], 4
    frame = Frame.of(rows.mean(axis=0), rows.var(axis=0), model)
    x = frame.rows(rows, np.empty(rows.shape[::-1])).T
    covariances = model.of_variances(np.full(rows.shape[1], 0.7), k)
    mixture = Mixture(np.array([0.1, 0.2, 0.3, 0.4]), x[[3, 100, 400, 600]], covariances)
    if noisy:
        noise = NoiseComponent(0.1, x.min(axis=0), np.ptp(x, axis=0))
        mixture = Mixture(0.9 * mixture.weights, mixture.means, mixture.covariances, noise)
    return frame, mixture


def assert_near(mine: Any, theirs: Any) -> None:
    size = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("noisy", [False, True], ids=["normal", "noise"])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weights"])
@every_kind
def test_sums_are_those_of_dense_rows(kind: str, weighted: bool, noisy: bool) -> None:
    """A row without weight may hold what it likes."""
    rows = some_rows()
    rng = np.random.default_rng(2)
    weights = rng.uniform(0, 2, len(rows)) * (rng.random(len(rows)) < 0.8) if weighted else None
    frame, mixture = a_mixture(kind, rows, noisy)
    penalty = np.array([0.1, 0.0, 0.3, 0.2])
    given = Given(frame, (NaturalParameters.of(mixture, penalty), NaturalParameters.of(mixture)))
    held = sparse_of(rows)
    if weights is not None:
        (first, *_) = np.flatnonzero((weights == 0) & (np.diff(held.csr.indptr) > 0))
        held.csr.data[held.csr.indptr[first]] = np.nan
    found = sparse.e_step(Block(7, held, weights), given)  # type: ignore[arg-type]
    expected = kernel.e_step(Block(7, rows, weights), given)
    for mine, theirs in zip(found.parts, expected.parts, strict=True):
        assert_near(mine.sums, theirs.sums)
        np.testing.assert_array_equal(mine.center, theirs.center)
        for name in ("objective", "log_likelihood", "weight", "rows"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-11)


@every_kind
def test_far_from_0_no_digits_are_lost(kind: str) -> None:
    """Where nothing is 0, and means are 1e7 spreads away, rows are made dense."""
    rows = np.random.default_rng(0).normal(size=(500, 5)) + 1e7
    model = COVARIANCE_TYPES[kind]
    frame = Frame.of(rows.mean(axis=0), rows.var(axis=0), model)
    x = frame.rows(rows, np.empty((5, 500))).T
    mixture = Mixture(np.array([0.4, 0.6]), x[:2], model.of_variances(np.ones(5), 2))
    given = Given(frame, (NaturalParameters.of(mixture),))
    held = SparseRows(scipy.sparse.csr_array(rows))
    (mine,) = sparse.e_step(Block(0, held), given).parts  # type: ignore[arg-type]
    (theirs,) = kernel.e_step(Block(0, rows), given).parts
    np.testing.assert_allclose(mine.sums, theirs.sums, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output", ["labels", "proba", "score"])
@every_kind
def test_outputs_are_those_of_dense_rows(kind: str, output: Any) -> None:
    rows = some_rows(300)
    rows = np.concatenate([rows, some_rows(400, seed=5)])
    frame, inside = a_mixture(kind, rows)
    mixture = frame.leave(inside)
    found = RowOutputs(mixture, OUTPUTS[output], Complete(SPARSE))(Block(0, sparse_of(rows)))  # type: ignore[arg-type]
    expected = RowOutputs(mixture, OUTPUTS[output], Complete("numpy"))(Block(0, rows))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pairs", [False, True])
def test_the_first_pass_is_that_of_dense_rows(pairs: bool) -> None:
    """Moments, range and the very rows of the sample, in two blocks."""
    rows = some_rows()
    weights = np.random.default_rng(3).uniform(0, 2, len(rows))
    weights[::5] = 0

    def found(held: Any, way: str) -> Any:
        spec = FirstPassSpec(50, 1, pairs=pairs, kernel=way, observation=Complete(way))
        parts = [Block(at, held[at : at + 350], weights[at : at + 350]) for at in (0, 350)]
        return first_pass(parts[0], spec) + first_pass(parts[1], spec)

    mine, theirs = found(sparse_of(rows), SPARSE), found(rows, "numpy")
    for name in ("mean", "scatter", "low", "high", "observed"):
        own, known = getattr(mine, name), getattr(theirs, name)
        np.testing.assert_allclose(own, known, rtol=1e-11, atol=1e-11 * np.abs(known).max())
    assert (mine.rows, mine.weighted) == (theirs.rows, theirs.weighted)
    np.testing.assert_array_equal(mine.sample.numbers, theirs.sample.numbers)
    np.testing.assert_allclose(mine.sample.rows, theirs.sample.rows, rtol=1e-15)


def test_what_is_not_finite_is_told() -> None:
    held = sparse_of(some_rows())
    held.csr.data[held.csr.indptr[33]] = np.inf
    block = Block(1000, held)  # type: ignore[arg-type]
    spec = FirstPassSpec(50, 1, kernel=SPARSE, observation=Complete(SPARSE))
    assert "at row 1033, column" in str(first_pass(block, spec).invalid_row)
    mixture = a_mixture("diag", some_rows())[1]
    with pytest.raises(DataError, match="inf at row 1033"):
        RowOutputs(mixture, OUTPUTS["score"], Complete(SPARSE))(block)
