"""Rows with known errors: what lies beside rows, and extreme deconvolution a row at a time."""

import json
import tracemalloc
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture, MissingNoiseWarning, engine, load, open_dataset, select
from dgmm.cli.commands import main
from dgmm.data.dataset import Dataset
from dgmm.data.opening import opened
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.moments import DataMoments
from dgmm.errors import CheckpointError, DataError, UsageError
from dgmm.kernels import alike, native
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.noise_bounds import ROWS, NoiseBounds
from dgmm.kernels.observation import Marginal, Noisy
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised
from dgmm.model.statistics import WeightedSum

Array = np.ndarray

N, D = 1000, 3


def numbered(shape: tuple[int, ...]) -> Array:
    """Noise of which each entry tells its row."""
    noise = np.zeros((N, *shape))
    noise[...] = np.arange(N).reshape(N, *[1] * len(shape))
    return noise + 1.0 if len(shape) == 1 else noise * 0.0 + np.eye(D) * noise


def stored(name: str, array: Array, folder: Path) -> Any:
    """The array in one of the forms that rows may have."""
    if name == "zarr":
        made = zarr.create_array(
            store=str(folder / "noise.zarr"),
            shape=array.shape,
            chunks=(77, *array.shape[1:]),
            dtype="f8",
        )
        made[:] = array
        return str(folder / "noise.zarr")
    np.save(folder / "noise.npy", array)
    return {
        "array": array,
        "npy": str(folder / "noise.npy"),
        "memmap": np.load(folder / "noise.npy", mmap_mode="r"),
        "dask": da.from_array(array, chunks=(130, *[2] * (array.ndim - 1))),
    }[name]


def agreeing(block: Block, given: None) -> WeightedSum:
    """How many rows have the noise that is theirs."""
    assert block.noise is not None
    assert block.weights is not None
    number = np.arange(block.start, block.start + len(block.rows))
    noise = np.asarray(block.noise)
    found = noise[:, 0] - 1 if noise.ndim == 2 else noise[:, 0, 0]
    same = (found == number) & (block.rows[:, 0] == number) & (block.weights == number + 1)
    return WeightedSum(float(same.sum()), float(len(number)))


@pytest.mark.parametrize("shape", [(D,), (D, D)], ids=["variances", "covariances"])
@pytest.mark.parametrize("name", ["array", "npy", "memmap", "zarr", "dask"])
def test_noise_lies_beside_the_rows_that_it_is_of(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """In any form, whatever its chunks; in other blocks, cached, and swept by threads."""
    rows = np.arange(N, dtype=float)[:, None] * np.ones(D)
    beside = {"weights": np.arange(N) + 1.0, "noise": stored(name, numbered(shape), tmp_path)}
    dataset = opened(da.from_array(rows, chunks=(170, D)), beside)
    assert dataset.blocks == 6
    assert dataset.row_bytes == 8 * (D + 1 + np.prod(shape))
    for each in (dataset, dataset.rechunk(10_000), opened(rows, beside).rechunk(3_000)):
        for cache in (0, 1 << 20):
            with closing(engine.over(each, threads=2, cache_bytes=cache)) as sweep:
                for _ in range(2):
                    assert sweep(agreeing, None) == WeightedSum(N, N)


@pytest.mark.parametrize("name", ["zarr", "dask"])
def test_noise_goes_with_its_rows_to_a_cluster(
    name: str, tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    np.save(tmp_path / "rows.npy", np.arange(N, dtype=float)[:, None] * np.ones(D))
    noise = stored(name, numbered((D, D)), tmp_path)
    beside = {"weights": da.arange(N, chunks=300) + 1.0, "noise": noise}
    if name == "zarr":
        np.save(tmp_path / "weights.npy", np.arange(N) + 1.0)
        beside["weights"] = str(tmp_path / "weights.npy")
    dataset = opened(str(tmp_path / "rows.npy"), beside, block_bytes=20_000)
    assert dataset.blocks > 4
    with closing(engine.over(dataset, clusters[2])) as sweep:
        assert sweep(agreeing, None) == WeightedSum(N, N)


def test_blocks_of_rows_with_noise_are_as_large_as_those_without() -> None:
    """In bytes: so what is read at once does not grow with what lies beside rows."""
    rows = np.zeros((200_000, 4), "f4")
    noise = da.zeros((200_000, 4, 4), chunks=(1000, 4, 4), dtype="f4")
    alone = opened(rows, {}).rechunk(1 << 20)
    both = opened(rows, {"noise": noise}).rechunk(1 << 20)
    assert both.block_bytes <= alone.block_bytes * 1.01


def moments_of(rows: Array, noise: Any, spec: FirstPassSpec, step: int = 90) -> DataMoments:
    """Of the first pass over blocks of so many rows."""
    whole = Block(0, rows, np.linspace(0.5, 2, len(rows)), noise)
    parts = [whole.part(slice(start, start + step)) for start in range(0, len(rows), step)]
    return tree_sum(map(partial(_first_pass, spec=spec), parts))


def _first_pass(block: Block, spec: FirstPassSpec) -> DataMoments:
    return first_pass(block, spec)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("shape", [(D,), (D, D)])
def test_a_sample_has_the_noise_of_its_rows(kernel: str, shape: tuple[int, ...]) -> None:
    rows = np.arange(N, dtype=float)[:, None] * np.ones(D)
    spec = FirstPassSpec(60, 3, kernel=kernel, beside=int(np.prod(shape)))
    noise = numbered(shape)
    sample = moments_of(rows, noise, spec).sample
    assert len(sample.numbers) == 60
    for each in (sample, sample.first(20), sample.chosen(np.array([5, 2, 9]))):
        np.testing.assert_array_equal(each.noise, noise[each.numbers])
        np.testing.assert_array_equal(each.given.noise, noise[each.numbers])
        np.testing.assert_array_equal(each.rows[:, 0], each.numbers)
    sweep = engine.in_memory_sweep(**{"rows": sample.given.rows, **sample.given.beside})
    assert sweep(lambda block, given: WeightedSum(float(block.noise.sum()), 0.0), None) == (
        WeightedSum(float(noise[sample.numbers].sum()), 0.0)
    )


def bad(shape: tuple[int, ...], place: tuple[int, ...], value: float) -> Array:
    noise = np.ones((N, *shape)) if len(shape) == 1 else np.zeros((N, *shape)) + np.eye(D)
    noise[place] = value
    return noise


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (bad((D,), (217, 1), -0.5), "infinite: -0.5 at row 217, column 1"),
        (bad((D,), (217, 2), np.nan), "infinite: nan at row 217, column 2"),
        (bad((D,), (217, 2), -np.inf), "infinite: -inf at row 217, column 2"),
        (bad((D, D), (217, 1, 1), -1.0), "infinite: -1.0 at row 217, column 1"),
        (bad((D, D), (217, 1, 2), 0.5), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), 1.5), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), np.nan), "that of row 217 is not"),
        (bad((D, D), (217, [1, 2], [2, 1]), np.inf), "that of row 217 is not"),
    ],
)
def test_noise_that_no_error_can_have_is_told_with_its_row(
    noise: Array, message: str, kernel: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(N, D))
    noise[600] = noise[217]
    spec = FirstPassSpec(10, 1, kernel=kernel, observation=Noisy(kernel))
    told = moments_of(rows, noise, spec).complaint
    assert told is not None
    assert message in told
    assert "such noise: " in told


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(
    "noise",
    [
        bad((D,), (217, 1), np.inf),
        bad((D,), (slice(None), 1), 0.0),
        bad((D, D), (217, [1, 2], [2, 1]), 1.0),  # of rank 2
        bad((D, D), (217, 1, 1), np.inf),
        np.zeros((N, D, D), "f4"),
        np.ones((N, D), "i4"),
    ],
)
def test_noise_may_be_singular_infinite_or_integers(noise: Array, kernel: str) -> None:
    rows = np.random.default_rng(0).normal(size=(N, D))
    spec = FirstPassSpec(10, 1, kernel=kernel, observation=Noisy(kernel))
    moments = moments_of(rows, noise, spec)
    assert moments.complaint is None
    assert moments.rows == N


@pytest.mark.parametrize("shape", [(N,), (N, D + 1), (N - 1, D), (N, D, 2), (N, D, D, D)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"noise must be .* \(1000, 3\), or .*\(1000, 3, 3\); the"):
        opened(np.zeros((N, D)), {"noise": np.zeros(shape)})


def test_a_dataset_brings_its_own_noise() -> None:
    dataset = opened(np.zeros((N, D)), {"noise": np.zeros((N, D))})
    assert isinstance(dataset, Dataset)
    assert dataset.layout == (N, D, False, D)
    with pytest.raises(UsageError, match="brings its own noise"):
        opened(dataset, {"noise": np.zeros((N, D))})


@dataclass(frozen=True)
class Sums:
    """Over rows, weighted: r, r E[v], r E[vv'], and the log-likelihood with penalties."""

    counts: Array
    first: Array
    second: Array
    objective: float
    log_likelihood: float


def covariances_of(noise: Array) -> Array:
    full = np.zeros((*noise.shape, noise.shape[-1])) if noise.ndim == 2 else noise.copy()
    if noise.ndim == 2:
        full[:, range(noise.shape[1]), range(noise.shape[1])] = noise
    return full


def row_by_row(
    rows: Array, noise: Array, weights: Array, pi: Array, means: Array, dense: Array, penalty: Array
) -> Sums:
    """The E-step by the formulas of Bovy, Hogg and Roweis, for one row after another.

    What is missing, or of infinite variance, is left out of the projection R.
    """
    k, d = means.shape
    counts, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    objective = log_likelihood = 0.0
    for row, own, weight in zip(rows, covariances_of(noise), weights, strict=True):
        o = np.flatnonzero(~np.isnan(row) & np.isfinite(np.diagonal(own)))
        if not len(o) or weight == 0:
            continue
        joint, b, extra = np.empty(k), np.zeros((k, d)), np.zeros((k, d, d))
        for j in range(k):
            v = dense[j]
            t = v[np.ix_(o, o)] + own[np.ix_(o, o)]
            away = row[o] - means[j, o]
            joint[j] = np.log(pi[j]) - 0.5 * (
                np.linalg.slogdet(2 * np.pi * t)[1] + away @ np.linalg.solve(t, away)
            )
            b[j] = means[j] + v[:, o] @ np.linalg.solve(t, away)
            extra[j] = v - v[:, o] @ np.linalg.solve(t, v[o])
        log_likelihood += weight * np.logaddexp.reduce(joint)
        joint -= penalty
        objective += weight * np.logaddexp.reduce(joint)
        shares = weight * np.exp(joint - np.logaddexp.reduce(joint))
        counts += shares
        first += shares[:, None] * b
        second += shares[:, None, None] * (b[:, :, None] * b[:, None, :] + extra)
    return Sums(counts, first, second, objective, log_likelihood)


def as_type(kind: str, dense: Array, pi: Array) -> Array:
    """The covariances of a type that have the most of the likelihood, from full ones (K, D, D)."""
    diagonals = np.diagonal(dense, axis1=1, axis2=2)
    return {
        "full": lambda: dense,
        "tied": lambda: np.tensordot(pi, dense, 1),
        "diag": lambda: diagonals,
        "spherical": lambda: diagonals.mean(axis=1),
    }[kind]()


def errors(name: str, n: int, d: int, rng: np.random.Generator) -> Array:
    """Noise of some kind: of one variance each, one of few covariances, some without, some lost."""
    variances = rng.gamma(1.0, 0.5, size=(n, d))
    variances[: n // 5] = 0.0
    if name == "diagonal":
        return variances
    if name == "classes":
        return variances[rng.integers(n // 5, n // 5 + 4, n)]
    if name == "unknown":
        variances[rng.random((n, d)) < 0.2] = np.inf
        return variances
    root = rng.normal(size=(n, d, 1)) if name == "singular" else rng.normal(size=(n, d, d)) * 0.5
    full = root @ root.swapaxes(1, 2)
    full[: n // 5] = 0.0
    if name == "full unknown":
        lost = rng.random((n, d)) < 0.2
        full[:, range(d), range(d)] = np.where(lost, np.inf, full[:, range(d), range(d)])
    return full


KINDS = ("diagonal", "classes", "unknown", "full", "singular", "full unknown")


def deconvolved(
    kind: str, rows: Array, noise: Array, weights: Array, start: Mixture, reg: float, steps: int
) -> tuple[list[float], Array, Array, Array]:
    """EM from a start: objectives, weights, means and dense covariances, one row after another."""
    pi, means, dense = start.weights, start.means, np.array(start.covariances.dense())
    trace, d = [], means.shape[1]
    seen = (~np.isnan(rows) & np.isfinite(np.diagonal(covariances_of(noise), 0, 1, 2))).any(axis=1)
    for step in range(steps + 1):
        mixture = Mixture.of_covariances(
            COVARIANCE_MODELS[kind], pi, means, np.array(as_type(kind, dense, pi))
        )
        penalty = Regularised(np.full(d, reg)).penalties(mixture)
        sums = row_by_row(rows, noise, weights, pi, means, dense, penalty)
        trace.append(sums.objective / weights[seen].sum())
        if step == steps:
            break
        pi, means = sums.counts / sums.counts.sum(), sums.first / sums.counts[:, None]
        scatter = sums.second / sums.counts[:, None, None] - means[:, :, None] * means[:, None, :]
        values = as_type(kind, scatter + reg * np.eye(d), pi)
        dense = np.array(COVARIANCE_MODELS[kind].of_covariances(values, means.shape).dense())
    return trace, pi, means, dense


def some_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    root = rng.normal(size=(k, d, d))
    full = root @ root.swapaxes(1, 2) / d + 0.3 * np.eye(d)
    pi = rng.dirichlet(np.full(k, 4.0))
    values = np.array(as_type(kind, full, pi))
    return Mixture.of_covariances(
        COVARIANCE_MODELS[kind], pi, rng.normal(scale=2, size=(k, d)), values
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("noise", KINDS)
@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_the_e_step_equals_that_of_one_row_after_another(
    kind: str, name: str, noise: str, weighted: bool
) -> None:
    """The rows in another frame than the mixture's units, of single and of double precision."""
    d, n = 3, 240
    rng = np.random.default_rng(d)
    frame = Frame(rng.normal(size=d), np.exp2(np.arange(d) % 3 - 1.0))
    if kind == "spherical":
        frame = replace(frame, scale=np.full(d, 2.0))
    inside, own = some_mixture(kind, 3, d, rng), errors(noise, n, d, rng)
    rows = rng.normal(scale=2, size=(n, d))
    rows[rng.random((n, d)) < 0.2] = np.nan
    weights = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    weights[:60:7] = 0.0 if weighted else 1.0
    penalties = Regularised(np.full(d, 0.03)).penalties(inside)
    natural = NaturalParameters.of(inside, penalties, centre=True, per_component=True)
    block = Block(0, rows, weights if weighted else None, own)
    (found,) = Noisy(name, Marginal(name)).e_step(block, Given(frame, (natural,))).parts
    outside = frame.leave(inside)
    dense = outside.covariances.dense()
    true = row_by_row(rows, own, weights, outside.weights, outside.means, dense, natural.penalty)
    variances = np.diagonal(covariances_of(own), axis1=1, axis2=2)
    seen = (~np.isnan(rows) & np.isfinite(variances)).any(axis=1) & (weights > 0)
    volume = frame.log_volume * weights[seen].sum()
    assert found.objective - volume == pytest.approx(true.objective, rel=1e-11)
    assert found.log_likelihood - volume == pytest.approx(true.log_likelihood, rel=1e-11)
    assert found.weight == pytest.approx(weights[seen].sum(), rel=1e-13)
    about = natural.features.shifted(found.sums, -natural.center)
    np.testing.assert_allclose(about[:, 0], true.counts, rtol=1e-10)
    first = (true.first - true.counts[:, None] * frame.shift) / frame.scale
    np.testing.assert_allclose(about[:, 1 : 1 + d], first, rtol=1e-10, atol=1e-10)
    cross = true.first[:, :, None] * frame.shift + frame.shift[:, None] * true.first[:, None, :]
    square = true.counts[:, None, None] * frame.shift[:, None] * frame.shift
    second = (true.second - cross + square) / frame.scale[:, None] / frame.scale
    np.testing.assert_allclose(
        about[:, 1 + d :], natural.features.of_matrices(second), rtol=1e-10, atol=1e-9
    )


def of_two(n: int, d: int, noise: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows of two clusters with holes and errors, and their noise."""
    own = errors(noise, n, d, rng)
    known = np.where(np.isfinite(covariances_of(own)), covariances_of(own), 0.0)
    values, vectors = np.linalg.eigh(known)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    true = rng.normal(size=(n, d)) * [1.0, 0.4, 2.0] + 3.0 * rng.integers(0, 2, (n, 1)) + 50.0
    rows = true + (root @ rng.normal(size=(n, d, 1)))[:, :, 0]
    rows[rng.random((n, d)) < 0.15] = np.nan
    return rows, own


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("noise", ["unknown", "full unknown"])
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_twenty_iterations_equal_those_of_one_row_after_another(
    kind: str, noise: str, weighted: bool
) -> None:
    """Variances and covariances of errors, both with values that are missing in either way.

    The reference takes rows about 50: it sums their squares as they are, and about 0 would cancel.
    """
    rng = np.random.default_rng(5)
    n, d, reg = 150, 3, 0.01
    rows, own = of_two(n, d, noise, rng)
    weights = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    start = some_mixture(kind, 2, d, rng)
    trace, pi, means, dense = deconvolved(kind, rows - 50.0, own, weights, start, reg, 20)
    start = replace(start, means=start.means + 50.0)
    model = GaussianMixture(
        2,
        covariance_type=kind,
        strategy="em",
        missing="marginalize",
        reg_covar=reg,
        tol=0,
        max_iter=20,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.covariances.precisions(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, sample_weight=weights if weighted else None, noise=own)
    found = [*model.lower_bounds_, model.lower_bound_]
    np.testing.assert_allclose(found, trace, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.weights_, pi, rtol=1e-10)
    np.testing.assert_allclose(model.means_, means + 50.0, rtol=1e-12)
    np.testing.assert_allclose(model.mixture_.covariances.dense(), dense, rtol=1e-10, atol=1e-12)
    assert np.diff(found).min() > -1e-12


@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_no_noise_is_none_and_infinite_noise_is_a_hole(kind: str) -> None:
    rng = np.random.default_rng(3)
    rows, own = of_two(600, 3, "unknown", rng)
    holes = np.isnan(rows) | np.isinf(own)
    how = {"covariance_type": kind, "missing": "marginalize", "random_state": 0, "max_iter": 30}
    plain = GaussianMixture(2, **how).fit(np.where(holes, np.nan, rows))
    unknown = np.where(holes, np.inf, 0.0)
    for noise in (unknown, covariances_of(unknown)):
        model = GaussianMixture(2, **how).fit(np.nan_to_num(rows, nan=7.0), noise=noise)
        assert model.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-7)
        np.testing.assert_allclose(model.means_, plain.means_, rtol=1e-4)
    tiny = GaussianMixture(2, **how).fit(np.nan_to_num(rows, nan=7.0), noise=unknown + 1e-13)
    assert tiny.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-7)


@pytest.mark.parametrize("strategy", ["auto", "em"])
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_what_is_fitted_is_the_distribution_without_errors(kind: str, strategy: str) -> None:
    """In blocks, from a start of its own; and better than what is fitted to the rows as seen."""
    rng = np.random.default_rng(1)
    n, truth = 4000, some_mixture(kind, 2, 2, rng)
    truth = replace(truth, means=np.array([[0.0, 0.0], [6.0, 2.0]]))
    true, _ = truth.sample(n, rng)
    noise = rng.gamma(1.0, 1.0, size=(n, 2))
    rows = true + np.sqrt(noise) * rng.normal(size=(n, 2))
    model = GaussianMixture(2, covariance_type=kind, strategy=strategy, random_state=0)
    model.fit(da.from_array(rows, chunks=(700, 2)), noise=noise)
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.means_[order], truth.means, atol=0.15)
    dense = model.mixture_.covariances.dense()[order]
    np.testing.assert_allclose(dense, truth.covariances.dense(), atol=0.2)
    assert model.score(rows, noise=noise) == pytest.approx(model.fit_info_["score"], rel=1e-9)
    assert model.score(rows, noise=noise) > model.fit(rows).score(rows, noise=noise)


def test_the_strategies_reach_one_optimum_and_the_same_bits_anywhere(
    clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    rows, noise = of_two(3000, 3, "full", rng)
    rows = np.nan_to_num(rows, nan=51.0)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "noise.npy", noise)
    dataset = open_dataset(tmp_path / "rows.npy", noise=tmp_path / "noise.npy", block_bytes=40_000)
    assert dataset.blocks > 4
    how = {"random_state": 0, "tol": 1e-9, "max_iter": 1000}
    model = GaussianMixture(2, **how).fit(dataset)
    textbook = GaussianMixture(
        2,
        strategy="em",
        means_init=model.means_,
        precisions_init=model.precisions_,
        weights_init=model.weights_,
        **how,
    ).fit(rows, noise=noise)
    assert textbook.lower_bound_ == pytest.approx(model.lower_bound_, abs=1e-6)
    *_, last = GaussianMixture(2, **how).fit_passes(dataset, client=clusters[2])
    found = last.best.run.best
    assert found.objective == model.lower_bound_
    np.testing.assert_array_equal(last.mixture.means, model.means_)


def test_outputs_are_those_of_the_components_with_the_noise_of_each_row() -> None:
    """Against normal densities; lazily, too, with noise in any form."""
    rng = np.random.default_rng(4)
    rows, noise = of_two(300, 3, "full unknown", rng)
    model = GaussianMixture.from_parameters(
        [0.4, 0.6],
        [[50.0, 50, 50], [53, 53, 53]],
        [np.eye(3), np.diag([1.0, 0.2, 2.0])],
        missing="marginalize",
    )
    joint, denoised = np.full((300, 2), np.nan), np.empty((300, 2, 3))
    for i, (row, own) in enumerate(zip(rows, noise, strict=True)):
        o = np.flatnonzero(~np.isnan(row) & np.isfinite(np.diagonal(own)))
        for k in range(2):
            v, mean = model.covariances_[k], model.means_[k]
            t = v[np.ix_(o, o)] + own[np.ix_(o, o)]
            density = multivariate_normal(mean[o], t).logpdf(row[o]) if len(o) else 0.0
            joint[i, k] = np.log(model.weights_[k]) + density
            denoised[i, k] = mean + v[:, o] @ np.linalg.solve(t, row[o] - mean[o])
    seen = (~np.isnan(rows) & np.isfinite(np.diagonal(noise, 0, 1, 2))).any(axis=1)
    assert not seen.all()
    score = np.where(seen, np.logaddexp.reduce(joint, axis=1), np.nan)
    proba = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    means = np.einsum("nk,nkd->nd", proba, denoised)
    proba[~seen] = np.nan
    labels = np.where(seen, joint.argmax(axis=1), -2)
    lazy = da.from_array(rows, chunks=(70, 3)), da.from_array(noise, chunks=(90, 2, 3))
    for x, own in ((rows, noise), (lazy[0], noise), lazy, (rows, lazy[1])):
        for method, expected in (
            (model.score_samples, score),
            (model.predict_proba, proba),
            (model.predict, labels),
            (model.denoise, means),
        ):
            found = method(x, noise=own)
            assert isinstance(found, np.ndarray if x is rows and own is noise else da.Array)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    whole = score[seen].mean()
    assert model.score(rows, noise=noise) == pytest.approx(whole, rel=1e-12)


def test_values_without_errors_stay_and_lost_ones_become_means() -> None:
    model = GaussianMixture.from_parameters([1.0], [[1.0, 2.0]], [[[1.0, 0.5], [0.5, 1.0]]])
    noise = np.array([[0.0, 0.0], [0.0, np.inf], [np.inf, np.inf]])
    found = model.denoise([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], noise)
    np.testing.assert_allclose(found, [[4.0, 0.0], [4.0, 3.5], [1.0, 2.0]], rtol=1e-13)


def test_a_model_that_knew_of_errors_says_so_when_none_are_given(tmp_path: Path) -> None:
    """After it was saved and loaded, too."""
    rng = np.random.default_rng(6)
    rows, noise = rng.normal(size=(200, 2)), np.full((200, 2), 0.1)
    model = GaussianMixture(1).fit(rows, noise=noise)
    model.save(tmp_path / "model.dgmm")
    for each in (model, load(tmp_path / "model.dgmm")):
        assert each.fit_info_["noise"] is True
        each.predict(rows, noise=noise)
        for method in (each.predict, each.predict_proba, each.score_samples, each.score):
            with pytest.warns(MissingNoiseWarning, match="zeros say that there are none"):
                method(rows)
    assert GaussianMixture(1).fit(rows).fit_info_["noise"] is False


def test_nan_is_refused_unless_it_is_missing() -> None:
    rows, noise = np.ones((50, 2)), np.full((50, 2), 0.1)
    rows[7, 1] = np.nan
    model = GaussianMixture(1)
    with pytest.raises(DataError, match="nan at row 7, column 1"):
        model.fit(rows, noise=noise)
    noise[20:] = -1.0
    with pytest.raises(DataError, match=r"-1.0 at row 20.*; rows with such noise: 30 of 50"):
        model.fit(np.ones((50, 2)), noise=noise)
    given = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [np.eye(2)])
    for method in (given.predict, given.denoise, given.score):
        with pytest.raises(DataError, match=r"-1.0 at row 20"):
            method(np.ones((50, 2)), noise=noise)
    with pytest.raises(UsageError, match="denoise needs"):
        given.denoise(np.ones((50, 2)), None)


def test_rows_that_are_dropped_are_those_with_nan() -> None:
    """A value of infinite variance is missing, and its row counts."""
    rng = np.random.default_rng(7)
    rows, noise = rng.normal(size=(400, 2)), rng.gamma(1.0, 0.2, size=(400, 2))
    rows[::5, 0], noise[1::5, 1] = np.nan, np.inf
    dropped = GaussianMixture(1, missing="drop").fit(rows, noise=noise)
    kept = ~np.isnan(rows).any(axis=1)
    alone = GaussianMixture(1).fit(rows[kept], noise=noise[kept])
    assert dropped.fit_info_["left_out"] == 80
    assert dropped.fit_info_["incomplete"] == 160
    np.testing.assert_allclose(dropped.means_, alone.means_, rtol=1e-6)


def test_batches_add_up_to_the_statistics_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    rows, noise = of_two(600, 3, "diagonal", rng)
    rows = np.nan_to_num(rows, nan=51.0)
    model = GaussianMixture(2, random_state=0).fit(rows, noise=noise)
    parts = [slice(0, 200), slice(200, 600)]
    some, more = (model.summarize(rows[each], noise=noise[each]) for each in parts)
    whole = model.summarize(rows, noise=noise)
    np.testing.assert_allclose((some + more).sums, whole.sums, rtol=1e-10, atol=1e-9)
    assert whole.bound(model.mixture_) == pytest.approx(model.lower_bound_, rel=1e-9)
    model.partial_fit(rows[:100], noise=noise[:100])
    assert model.fit_info_["noise"] is True
    model.save(tmp_path / "model.dgmm")
    assert load(tmp_path / "model.dgmm").sufficient_statistics_.observation.deconvolves


def test_a_choice_counts_the_noise() -> None:
    """With the criterion on rows held out, too."""
    rng = np.random.default_rng(9)
    true = rng.normal(size=(1500, 1)) * 0.3 + 4.0 * rng.integers(0, 2, (1500, 1))
    noise = np.where(rng.random((1500, 1)) < 0.5, 0.1, 2.0)
    rows = true + np.sqrt(noise) * rng.normal(size=true.shape)
    best = {"bic": {2}, "icl": {2}, "heldout": {2, 3}}  # chance decides between the last two
    for criterion, counts in best.items():
        search = select(
            rows, [1, 2, 3], criterion=criterion, noise=noise, random_state=0, max_iter=50
        )
        assert search.best_params_["n_components"] in counts
        assert search.score(rows, noise=noise) > -2.3


def test_a_fit_with_noise_goes_on_where_it_was_and_only_with_that_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    rows, noise = of_two(800, 3, "diagonal", rng)
    rows = np.nan_to_num(rows, nan=51.0)
    how = {"random_state": 0, "strategy": "em", "tol": 1e-7, "max_iter": 200}
    whole = GaussianMixture(2, **how).fit(rows, noise=noise)
    model = GaussianMixture(2, checkpoint=tmp_path / "there", **how)
    with closing(model.fit_passes(rows, noise=noise)) as passes:
        for each in passes:
            if each.passes == 4:
                break
    for other in (None, 2 * noise, covariances_of(noise)):
        with pytest.raises(CheckpointError, match="another fit"):
            model.fit(rows, noise=other)
    np.testing.assert_array_equal(model.fit(rows, noise=noise).means_, whole.means_)


def test_the_plan_counts_the_noise() -> None:
    rows = np.zeros((50_000, 8))
    alone = GaussianMixture(4).plan(rows)
    both = GaussianMixture(4).plan(rows, noise=np.zeros((50_000, 8, 8)))
    assert both.pass_bytes == 9 * alone.pass_bytes
    assert both.thread_bytes > alone.thread_bytes
    assert both.shared_bytes > alone.shared_bytes


def test_the_commands_take_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    true = rng.normal(size=(500, 2)) * 0.5 + 4.0 * rng.integers(0, 2, (500, 1))
    noise = rng.gamma(1.0, 1.0, size=(500, 2))
    rows = true + np.sqrt(noise) * rng.normal(size=true.shape)
    noise[:5, 0] = np.inf
    names = {name: str(tmp_path / name) for name in ("rows.npy", "noise.npy", "model", "labels")}
    np.save(names["rows.npy"], rows)
    np.save(names["noise.npy"], noise)

    def dgmm(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, [str(names.get(each, each)) for each in words])
        assert done.exit_code == code, done.output
        return done.output

    quiet, given = ("--quiet", "--json"), ("--noise", "noise.npy")
    planned = json.loads(dgmm("plan", "rows.npy", "-k", "2", *given, "--json"))
    assert planned["pass_bytes"] == rows.nbytes + noise.nbytes
    dgmm("fit", "rows.npy", "-k", "2", "-o", "model", *given, *quiet)
    model = load(names["model"])
    assert model.fit_info_["noise"] is True
    expected = GaussianMixture(2, random_state=0).fit(rows, noise=noise)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-6)
    told = json.loads(dgmm("score", "rows.npy", "-m", "model", *given, *quiet))
    assert told["score"] == pytest.approx(model.score(rows, noise=noise), rel=1e-12)
    dgmm("predict", "rows.npy", "-m", "model", "-o", "labels", *given, *quiet)
    np.testing.assert_array_equal(zarr.open(names["labels"])[:], model.predict(rows, noise=noise))
    dgmm("denoise", "rows.npy", "-m", "model", "-o", "labels", "--overwrite", *given, *quiet)
    np.testing.assert_allclose(zarr.open(names["labels"])[:], model.denoise(rows, noise))
    dgmm("denoise", "rows.npy", "-m", "model", "-o", "labels", "--overwrite", code=2)
    best = ("select", "rows.npy", "-k", "1,2", "-o", "model", "--overwrite")
    dgmm(*best, *given, *quiet)
    assert load(names["model"]).n_components == 2
    dgmm("update", "rows.npy", "-m", "model", "-o", "model", "--overwrite", *given, *quiet)
    assert load(names["model"]).sufficient_statistics_.rows == 1000


@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_a_noise_component_beside_known_errors_equals_em_a_row_at_a_time(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With holes and weights, iteration by iteration."""
    monkeypatch.setenv("DGMM_KERNEL", kernel)
    rng = np.random.default_rng(0)
    wide = rng.uniform(-10, 12, (30, 2))
    rows = np.concatenate([rng.normal(size=(60, 2)), rng.normal([6, 0], 1, (60, 2)), wide])
    noise, weights = rng.uniform(0, 0.8, rows.shape), rng.uniform(0.5, 2, len(rows))
    rows[::7, 0], noise[3::7, 1] = np.nan, np.inf
    seen = ~np.isnan(rows) & np.isfinite(noise)
    pi, mu, v = np.array([0.4, 0.4]), np.array([[0.0, 0], [5, 0]]), np.array(2 * [2 * np.eye(2)])
    model = GaussianMixture(
        *(2,),
        **dict(noise_component=0.2, missing="marginalize", strategy="em", tol=0, max_iter=6),
        **dict(reg_covar=0, precision="float64", weights_init=[0.5, 0.5], means_init=mu),
        precisions_init=np.linalg.inv(v),
    )
    with pytest.warns(ConvergenceWarning):
        model.fit(rows, noise=noise, sample_weight=weights)
    even = model.mixture_.noise_component
    assert even is not None
    objectives, share = [], 0.2
    for _ in range(7):
        sums = [np.zeros(3), np.zeros((2, 2)), np.zeros((2, 2, 2))]
        objective = 0.0
        for x, own, o, weight in zip(rows, noise, seen, weights, strict=True):
            wider = [each[np.ix_(o, o)] + np.diag(own[o]) for each in v]
            normal = [
                each * multivariate_normal(m[o], w).pdf(x[o])
                for each, m, w in zip(pi, mu, wider, strict=True)
            ]
            densities = np.array([*normal, share / np.prod(even.extent[o])])
            objective += weight * np.log(densities.sum())
            r = weight * densities / densities.sum()
            sums[0] += r
            for k in range(2):
                gain = v[k][:, o] @ np.linalg.inv(wider[k])
                expected = mu[k] + gain @ (x[o] - mu[k][o])
                sums[1][k] += r[k] * expected
                sums[2][k] += r[k] * (np.outer(expected, expected) + v[k] - gain @ v[k][o])
        objectives.append(objective / weights.sum())
        if len(objectives) <= 6:
            pi, share = sums[0][:2] / weights.sum(), sums[0][2] / weights.sum()
            mu = sums[1] / sums[0][:2, None]
            v = sums[2] / sums[0][:2, None, None] - mu[:, :, None] * mu[:, None, :]
    found = [*model.lower_bounds_, model.lower_bound_]
    np.testing.assert_allclose(found, objectives, rtol=1e-12)
    np.testing.assert_allclose(model.means_, mu, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.covariances_, v, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.weights_, pi, rtol=1e-10)
    assert model.noise_weight_ == pytest.approx(share, rel=1e-10)


def test_a_noise_component_knows_no_errors() -> None:
    """Rows that have errors are judged by it as they were seen."""
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(400, 2))
    rows[300:] = rng.uniform(-20, 20, size=(100, 2))
    model = GaussianMixture(1, noise_component=True, random_state=0).fit(rows)
    noise = np.full((400, 2), 0.5)
    even = model.mixture_.noise_component
    assert even is not None
    log_normal = multivariate_normal(model.means_[0], model.covariances_[0] + 0.5 * np.eye(2))
    normal = np.log(model.weights_[0]) + log_normal.logpdf(rows)
    same = np.log(even.weight) - np.log(even.extent).sum()
    joint = np.stack([normal, np.full(400, same)], axis=1)
    total = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(model.score_samples(rows, noise=noise), total, rtol=1e-10)
    proba = model.predict_proba(rows, noise=noise)
    np.testing.assert_allclose(proba, np.exp(joint - total[:, None]), rtol=1e-9, atol=1e-300)
    assert model.predict([[100.0, 0.0]], noise=[[0.1, 0.1]]).tolist() == [-1]
    np.testing.assert_allclose(model.denoise([[100.0, 0.0]], [[0.1, 0.1]]), [[100.0, 0.0]])


@pytest.mark.skipif(native.compiled is None, reason="there is no compiled kernel")
@pytest.mark.parametrize(
    "variant", range(len(native.compiled.variants()) if native.compiled else 0)
)
@pytest.mark.parametrize("kind", ["full", "spherical"])
@pytest.mark.parametrize("d", [1, 2, 4, 7, 8, 13, 19])
def test_compiled_code_finds_what_numpy_does(
    d: int, kind: str, variant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the instructions, the features, and how many rows fill a vector."""
    monkeypatch.setattr(native, "VARIANT", variant)
    rng = np.random.default_rng(d)
    n, k = 203, 3
    mixture = some_mixture(kind, k, d, rng)
    frame = Frame(rng.normal(size=d), np.full(d, 2.0))
    natural = NaturalParameters.of(mixture, np.full(k, 0.3), centre=True, per_component=True)
    rows = (rng.normal(scale=4, size=(n, d)) + frame.shift).astype("f4")
    weights = rng.uniform(0.5, 2, n)
    for noise in (errors("diagonal", n, d, rng) + 0.1, errors("full", n, d, rng) + np.eye(d)):
        for lost in (False, True):
            if lost and d > 1:
                rows[::3, 0] = np.nan
                variances = noise[:, 1] if noise.ndim == 2 else noise[:, 1, 1]
                variances[1::3] = np.inf
            block = Block(5, rows, weights, noise)
            given = Given(frame, (natural,))
            (found,), (expected,) = (
                Noisy(each, Marginal(each)).e_step(block, given).parts
                for each in ("native", "numpy")
            )
            np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-10, atol=1e-9)
            assert found.objective == pytest.approx(expected.objective, rel=1e-12)
            assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
            assert found.weight == pytest.approx(weights.sum(), rel=1e-13)


@pytest.mark.skipif(native.compiled is None, reason="there is no compiled kernel")
@pytest.mark.parametrize(
    "variant", range(len(native.compiled.variants()) if native.compiled else 0)
)
@pytest.mark.parametrize("d", [2, 9])
def test_compiled_code_leaves_out_what_is_lost(
    d: int, variant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Components far apart, of which each row has a share in few: sums are as those of all."""
    monkeypatch.setattr(native, "VARIANT", variant)
    rng = np.random.default_rng(d)
    n, k = 2 * ROWS + 5, 6
    near = some_mixture("full", k, d, rng)
    mixture = replace(near, means=np.repeat(near.means[: k // 2] * 8, 2, axis=0) + 0.1)
    natural = NaturalParameters.of(mixture, np.linspace(0, 3, k), centre=True, per_component=True)
    frame = Frame(rng.normal(size=d), np.full(d, 2.0))
    rows = mixture.means[rng.integers(0, k, n)] * 2 + rng.normal(size=(n, d)) + frame.shift
    noise = np.exp(rng.normal(-1, 1.5, (n, d)))
    noise[::5, 0] = 0.0
    noise[::7, 1] = np.inf
    given = Given(frame, (natural,))
    (found,), (expected,) = (
        Noisy(each, Marginal(each)).e_step(Block(0, rows, None, noise), given).parts
        for each in ("native", "numpy")
    )
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-10, atol=1e-9)
    assert found.objective == pytest.approx(expected.objective, rel=1e-12)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("floor", [1e-6, 0.3])
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_what_bounds_the_density_of_a_row_with_noise_is_never_below_it(
    floor: float, spread: float
) -> None:
    """Whatever the rows, their noise and the components, though close where noise is alike."""
    rng = np.random.default_rng(0)
    n, k, d = 300, 3, 5
    root = rng.normal(size=(k, d, d))
    covariances = root @ root.swapaxes(1, 2) / d + floor * np.eye(d)
    noise = np.exp(rng.normal(0, spread, (n, d)))
    noise[::9, ::2] = 0.0
    bounds = NoiseBounds.of(covariances, noise[:ROWS], np.zeros(k), np.zeros(k))
    away = rng.normal(size=(n, 1, d)) * np.exp(rng.normal(size=(n, k, 1)))
    white = np.einsum("kij,nki->nkj", bounds.white, away)
    pull = np.einsum("kij,nkj->nki", bounds.white, white)
    square = np.sum(white * white, axis=2)
    square *= square / (square + np.sum(pull * pull * (noise - bounds.middle)[:, None], axis=2))
    log_det = np.log(noise + bounds.under) @ bounds.slopes.T
    found = bounds.ceilings - 0.5 * (square + log_det)
    whole = covariances + noise[:, None, :, None] * np.eye(d)
    squares = np.sum(away * np.linalg.solve(whole, away[..., None])[..., 0], axis=2)
    density = -0.5 * (squares + np.linalg.slogdet(whole)[1])
    assert (found >= density).all()
    if spread < 1:
        assert np.median((found - density)[np.all(noise > 0, axis=1)]) < 0.5


TULLY_FISHER = """
-21.58 .19    -     -  -22.59 .18 -23.11 .18 -23.83 .11 2.744 .028
-18.67 .18    -     -  -19.45 .18 -19.84 .18 -20.31 .11 2.397 .074
-19.79 .29 -20.10 .16 -20.35 .16 -20.67 .28 -21.16 .10 2.420 .049
-21.91 .37 -22.34 .12 -22.74 .17 -23.40 .12 -24.30 .11 2.682 .035
-20.99 .17 -21.44 .08 -21.84 .07 -22.39 .08 -23.07 .08 2.621 .041
-19.93 .11 -20.27 .10 -20.73 .10 -21.30 .11 -21.95 .10 2.501 .035
-19.27 .29    -     -  -20.02 .28 -20.38 .28 -21.14 .25 2.480 .059
-18.85 .18 -19.19 .13 -19.44 .10 -19.87 .13 -20.24 .10 2.370 .049
-20.84 .17    -     -  -21.99 .17 -22.50 .17 -23.54 .10 2.719 .034
-20.32 .08 -20.78 .08 -21.08 .07 -21.56 .08 -22.22 .08 2.531 .032
-19.38 .14 -19.72 .14 -19.96 .13 -20.33 .14 -20.44 .13 2.405 .048
-19.85 .11 -20.61 .09 -21.04 .09 -21.64 .09 -22.56 .10 2.586 .047
-20.54 .14 -21.31 .12 -21.76 .11 -22.31 .11 -23.41 .11 2.674 .036
-19.68 .12 -20.16 .12 -20.62 .12 -21.06 .12 -21.84 .12 2.499 .035
-21.18 .18 -21.79 .18 -22.17 .18 -22.66 .18 -23.50 .18 2.626 .026
-20.93 .13 -21.60 .11 -22.01 .11 -22.61 .11 -23.65 .11 2.743 .039
-20.85 .10 -21.42 .09 -21.64 .08 -22.28 .08 -22.72 .09 2.586 .038
-20.49 .12 -21.05 .10 -21.39 .09 -21.95 .13 -22.79 .09 2.562 .030
-20.46 .24 -21.11 .23 -21.52 .23 -22.17 .23    -     -  2.617 .046
-21.36 .10 -21.91 .09 -22.25 .09 -22.77 .09 -23.65 .10 2.671 .026
-21.81 .12 -22.48 .11 -22.87 .11 -23.38 .11 -24.66 .11 2.746 .021
"""
"""Magnitudes of 21 galaxies in B, V, R, I, H, and log10 of a line's width, each with its error.

Sakai and others, ApJ 529, 698 (2000), table 2."""


@pytest.mark.parametrize(
    ("band", "slope", "zero"),
    [
        (0, -8.04, -19.77),
        (1, -8.86, -20.33),
        (2, -8.79, -20.64),
        (3, -9.26, -21.12),
        (4, -11.03, -21.73),
    ],
)
def test_the_tully_fisher_relation_is_that_of_the_authors(
    band: int, slope: float, zero: float
) -> None:
    """Bovy, Hogg and Roweis (2011), table 1, by the first principal axis of one component.

    Their two decimals, and what is left where they stop: by 1e-5 in the log-likelihood.
    """
    lines = TULLY_FISHER.replace(" - ", " nan ").replace(" - ", " nan ").strip().splitlines()
    table = np.array([line.split() for line in lines], float)
    seen = ~np.isnan(table[:, 2 * band])
    rows, sigma = table[seen][:, [10, 2 * band]], table[seen][:, [11, 2 * band + 1]]
    model = GaussianMixture(1, reg_covar=0, tol=1e-8, max_iter=10_000).fit(rows, noise=sigma**2)
    axis = np.linalg.eigh(model.covariances_[0])[1][:, -1]
    found = axis[1] / axis[0]
    assert found == pytest.approx(slope, abs=0.02)
    at = model.means_[0, 1] + found * (2.5 - model.means_[0, 0])
    assert at == pytest.approx(zero, abs=0.01)


@pytest.mark.parametrize("shape", ["none", "constant", "each", "covariances"])
@pytest.mark.parametrize("d", [1, 2])
def test_what_the_authors_test(d: int, shape: str) -> None:
    """3,001 rows of a normal distribution, to 10 / sqrt(N), as tests of extreme-deconvolution."""
    n, rng = 3001, np.random.default_rng(2)
    mean = np.array([1.0, 2.0])[:d]
    variances = {
        "none": np.zeros((n, d)),
        "constant": np.full((n, d), 0.25),
        "each": rng.uniform(size=(n, d)) / 2,
        "covariances": rng.uniform(size=(n, d)) / 2,
    }[shape]
    rows = rng.normal(size=(n, d)) + mean + np.sqrt(variances) * rng.normal(size=(n, d))
    noise = covariances_of(variances) if shape == "covariances" else variances
    begin = {"means_init": rows.mean(axis=0)[None] + 1.5, "weights_init": [1.0]}
    model = GaussianMixture(1, **begin).fit(rows, noise=noise)
    np.testing.assert_allclose(model.means_[0], mean, atol=10 / np.sqrt(n))
    np.testing.assert_allclose(model.covariances_[0], np.eye(d), atol=10 / np.sqrt(n))


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("kind", sorted(COVARIANCE_MODELS))
def test_many_rows_with_the_same_noise_are_taken_together(
    kind: str, name: str, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same, but for rounding, as taking each by itself."""
    rng = np.random.default_rng(14)
    n, d = 400, 3
    mixture = some_mixture(kind, 3, d, rng)
    frame = Frame(rng.normal(size=d), np.full(d, 2.0))
    penalties = Regularised(np.full(d, 0.03)).penalties(mixture)
    natural = NaturalParameters.of(mixture, penalties, centre=True, per_component=True)
    own = errors(noise, n, d, rng)[rng.choice([3, n - 2, n - 1], n)]
    own[:30] = errors(noise, n, d, rng)[-30:]
    rows, weights = rng.normal(scale=4, size=(n, d)), rng.uniform(0, 2, n)
    rows[::7, 0] = np.nan
    block, given = Block(0, rows, weights, own), Given(frame, (natural,))
    (each,) = Noisy(name, Marginal(name)).e_step(block, given).parts
    monkeypatch.setattr(alike, "MANY", 50)
    taken = list(alike.same_noise(block, ~np.isnan(rows).any(axis=1)))
    assert len(taken) == 3
    (together,) = Noisy(name, Marginal(name)).e_step(block, given).parts
    np.testing.assert_allclose(together.sums, each.sums, rtol=1e-10, atol=1e-9)
    np.testing.assert_array_equal(together.center, each.center)
    assert together.objective == pytest.approx(each.objective, rel=1e-12)
    assert together.log_likelihood == pytest.approx(each.log_likelihood, rel=1e-12)
    assert (together.weight, together.rows) == (pytest.approx(each.weight, rel=1e-13), each.rows)


@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("pairs", [False, True])
def test_the_e_step_takes_no_more_memory_than_is_planned(name: str, pairs: bool) -> None:
    """With holes, and kinds of noise that many rows share, and that one has alone."""
    rng = np.random.default_rng(15)
    n, d, k = 6000, 8, 6
    mixture = some_mixture("full", k, d, rng)
    natural = NaturalParameters.of(mixture, centre=True, per_component=True)
    given = Given(Frame(np.zeros(d), np.ones(d)), (natural,))
    rows = rng.normal(size=(n, d)).astype("f4")
    rows[::5, 2] = np.nan
    noise = errors("full" if pairs else "diagonal", n, d, rng).astype("f4")
    noise[n // 2 :] = noise[-1]
    block, seen = Block(0, rows, rng.uniform(0.5, 1, n), noise), Noisy(name, Marginal(name))
    seen.e_step(block.part(slice(0, 10)), given)
    tracemalloc.start()
    seen.e_step(block, given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < seen.nbytes(n, block.nbytes // n, d, k)
