"""Sparse rows, against the same rows dense."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from click.testing import CliRunner
from distributed import Client

from dgmm import GaussianMixture, load, open_dataset, select
from dgmm.cli.commands import main
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.errors import CheckpointError, DataError, PlanError, UsageError
from dgmm.kernels import kernel, sparse
from dgmm.kernels.choice import SPARSE
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.outputs import OUTPUTS, RowOutputs
from dgmm.kernels.sparse_rows import SparseRows
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
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


@pytest.mark.parametrize("kind", ["spherical", "diag", "VEI"])
def test_a_narrow_component_is_right_and_no_block_is_dense(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A millionth of the variances wide, of rows that are nearly one, beside wide components.

    The reference takes differences of dense rows, which are exact for its own.
    """
    rows = some_rows(300, 40)
    rows[200:230] = rows[7] * np.random.default_rng(5).normal(1.0, 1e-3, size=(30, 1))
    model = COVARIANCE_TYPES[kind]
    frame = Frame.of(rows.mean(axis=0), rows.var(axis=0), model)
    x = frame.rows(rows, np.empty(rows.shape[::-1])).T
    variances = np.array([0.7, 1e-6, 0.7, 0.7])
    if len(model.shape(4, 40)) > 1:
        variances = np.repeat(variances[:, None], 40, axis=1)
    covariances = model.of_covariances(variances, (4, 40))
    mixture = Mixture(np.array([0.1, 0.2, 0.3, 0.4]), x[[3, 7, 100, 250]], covariances)
    given, held = Given(frame, (NaturalParameters.of(mixture),)), sparse_of(rows)
    (theirs,) = kernel.e_step(Block(0, rows), given).parts
    monkeypatch.setattr(sparse, "_dense_tiles", None)
    (mine,) = sparse.e_step(Block(0, held), given).parts  # type: ignore[arg-type]
    for part in (slice(1), slice(1, 41), slice(41, None)):  # counts, sums, squares
        found, known = mine.sums[:, part], theirs.sums[:, part]
        size = np.abs(known).max(axis=1, keepdims=True)
        np.testing.assert_allclose(found / size, known / size, rtol=1e-10, atol=1e-10)
    assert mine.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-10)


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


def test_squares_of_columns_far_from_0_do_not_cancel() -> None:
    """Beside columns that are 0 mostly; against exact means taken off dense rows."""
    rows = some_rows()
    rows[:, 0] = 1e6 + np.random.default_rng(4).normal(size=len(rows))
    spec = FirstPassSpec(50, 1, pairs=True, kernel=SPARSE, observation=Complete(SPARSE))
    found = first_pass(Block(0, sparse_of(rows)), spec)  # type: ignore[arg-type]
    away = rows - rows.mean(axis=0)
    size = np.sqrt(np.diagonal(away.T @ away))
    apart = np.abs(found.scatter - away.T @ away) / np.outer(size, size)
    assert apart.max() < 1e-9  # u times a mean of a million standard deviations


def test_what_is_not_finite_is_told() -> None:
    held = sparse_of(some_rows())
    held.csr.data[held.csr.indptr[33]] = np.inf
    block = Block(1000, held)  # type: ignore[arg-type]
    spec = FirstPassSpec(50, 1, kernel=SPARSE, observation=Complete(SPARSE))
    assert "at row 1033, column" in str(first_pass(block, spec).invalid_row)
    mixture = a_mixture("diag", some_rows())[1]
    with pytest.raises(DataError, match="inf at row 1033"):
        RowOutputs(mixture, OUTPUTS["score"], Complete(SPARSE))(block)


# ---------------------------------------------------------------- at the door

quiet = pytest.mark.filterwarnings(
    "ignore::dgmm.errors.DegenerateWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)


def zarr_of(rows: Array, path: Path) -> str:
    """A Zarr group of compressed rows, in small chunks, as AnnData writes one."""
    csr = scipy.sparse.csr_array(rows)
    group = zarr.open_group(path, mode="w")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": list(rows.shape)})
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(csr, name), chunks=(100,))
    return str(path)


def npz_of(rows: Array, path: Path) -> str:
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(rows))
    return str(path)


def asked(kind: str = "diag", **more: Any) -> GaussianMixture:
    given = dict(random_state=0, precision="float64", reg_covar=0.01, max_iter=15, **more)
    return GaussianMixture(3, covariance_type=kind, **given)  # type: ignore[arg-type]


@quiet
@pytest.mark.parametrize(
    ("kind", "strategy"), [("diag", "auto"), ("spherical", "em"), ("tied", "em"), ("VEI", "em")]
)
def test_a_fit_is_that_of_dense_rows(kind: str, strategy: str) -> None:
    rows = some_rows(400)
    weights = np.random.default_rng(4).uniform(0.5, 2, len(rows))
    found = asked(kind, strategy=strategy).fit(scipy.sparse.coo_array(rows), weights)
    expected = asked(kind, strategy=strategy).fit(rows, weights)
    assert found.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-9)
    np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-6, atol=1e-6)
    held = scipy.sparse.csr_matrix(rows)
    np.testing.assert_array_equal(found.predict(held), expected.predict(rows))
    np.testing.assert_allclose(found.predict_proba(held), expected.predict_proba(rows), atol=1e-7)
    np.testing.assert_allclose(found.score_samples(held), expected.score_samples(rows), rtol=1e-6)
    assert found.score(held, sample_weight=weights) == pytest.approx(
        found.score(rows, sample_weight=weights)
    )
    assert found.fit_info_["kernel"] == "sparse"


@quiet
def test_files_give_the_bits_of_memory(tmp_path: Path, clusters: dict[int, Client]) -> None:
    """A Zarr group on a cluster and here; a checkpoint knows its rows; ``predict`` is lazy."""
    rows = some_rows()
    url, npz = zarr_of(rows, tmp_path / "x.zarr"), npz_of(rows, tmp_path / "x.npz")
    dataset = open_dataset(url, block_bytes=4_000)
    assert dataset.blocks > 4
    em: Any = {"strategy": "em"}
    here = asked(checkpoint=str(tmp_path / "kept"), **em).fit(dataset)
    with clusters[2].as_current():
        there = asked(**em).fit(dataset)
    np.testing.assert_array_equal(here.means_, there.means_)
    whole = asked(**em).fit(url)
    np.testing.assert_array_equal(whole.means_, asked(**em).fit(npz).means_)
    np.testing.assert_array_equal(
        np.asarray(here.predict(dataset)), here.predict(scipy.sparse.csr_array(rows))
    )
    again = open_dataset(zarr_of(rows * 2, tmp_path / "y.zarr"), block_bytes=4_000)
    with pytest.raises(CheckpointError, match="other values in the rows"):
        asked(checkpoint=str(tmp_path / "kept"), **em).fit(again)
    here.save(tmp_path / "m.dgmm")
    assert load(tmp_path / "m.dgmm").score(npz) == pytest.approx(here.score(rows))


@quiet
def test_select_and_the_command_line(tmp_path: Path) -> None:
    rows = some_rows(300)
    url, run = zarr_of(rows, tmp_path / "x.zarr"), CliRunner()
    how: dict[str, Any] = dict(random_state=0, precision="float64", strategy="em", reg_covar=0.01)
    best = select(scipy.sparse.csr_array(rows), [1, 2], ["diag", "tied"], **how)
    dense = select(rows, [1, 2], ["diag", "tied"], **how)
    assert best.best_params_ == dense.best_params_
    model, labels = str(tmp_path / "m.dgmm"), str(tmp_path / "labels.zarr")
    of = ["-k", "2", "--covariance-type", "diag", "--strategy", "em"]
    for command in (
        ["plan", url, *of],
        ["fit", url, *of, "-o", model, "--quiet"],
        ["predict", url, "-m", model, "-o", labels, "--quiet"],
    ):
        done = run.invoke(main, command)
        assert done.exit_code == 0, done.output
        if command[0] == "plan":
            assert done.output.splitlines()[-1].split() == ["kernel", SPARSE]
    found = zarr.open_array(labels, mode="r")[:]
    np.testing.assert_array_equal(found, load(model).predict(rows))
    done = run.invoke(main, ["impute", url, "-m", model, "-o", str(tmp_path / "filled.zarr")])
    assert done.exit_code != 0
    assert "filled are not told of sparse rows" in done.output


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("full", {}, "'full' is not fitted to sparse rows.*diag"),
        ("diag", {"missing": "marginalize"}, "do not go with missing='marginalize'"),
        ("diag", {"tails": "student"}, "do not go with tails"),
    ],
)
def test_what_does_not_go_with_sparse_rows_is_refused(kind: str, more: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        asked(kind, **more).fit(scipy.sparse.csr_array(some_rows()))


def test_dask_arrays_of_sparse_chunks_are_refused_by_name() -> None:
    chunks = da.from_array(some_rows(), chunks=(100, 9)).map_blocks(scipy.sparse.csr_matrix)
    with pytest.raises(DataError, match=r"chunks of scipy.*are read from a matrix of SciPy"):
        asked().fit(chunks)


@quiet
def test_what_is_not_told_of_sparse_rows_is_refused() -> None:
    held = scipy.sparse.csr_array(some_rows())
    model = asked().fit(held)
    for ask in (model.partial_fit, model.summarize, model.impute, model.deviations):
        with pytest.raises(UsageError, match="holds sparse rows"):
            ask(held)


def test_what_lies_beside_rows_is_not_sparse() -> None:
    rows = some_rows()
    with pytest.raises(DataError, match="noise may not be sparse"):
        open_dataset(rows, noise=scipy.sparse.csr_array(rows))


def test_a_group_that_is_not_whole_is_told(tmp_path: Path) -> None:
    rows = some_rows(50)
    zarr.open_group(zarr_of(rows, tmp_path / "x.zarr")).attrs["shape"] = [60, 9]
    with pytest.raises(DataError, match="indptr has 51 numbers for 60 rows"):
        open_dataset(str(tmp_path / "x.zarr"))
    group = zarr.open_group(zarr_of(rows, tmp_path / "y.zarr"))
    group["indices"][3] = 700  # type: ignore[index]
    with pytest.raises(DataError, match="point outside"):
        open_dataset(str(tmp_path / "y.zarr")).block(0)


def test_rows_of_another_format_are_copied_only_if_there_is_room() -> None:
    rows = scipy.sparse.csr_array(some_rows())
    assert open_dataset(rows, memory="1MB").rows == 700
    for other in (rows.tocsc(), rows.tocoo(), rows[:, ::-1]):  # the last is not sorted
        with pytest.raises(PlanError, match=r"a copy of the .*, by rows and sorted, would have to"):
            open_dataset(other, memory="1MB")
        assert open_dataset(other).rows == 700
