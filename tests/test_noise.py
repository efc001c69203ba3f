"""Rows with known errors: what lies beside rows, and extreme deconvolution a row at a time."""

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
from distributed import Client

from dgmm import engine
from dgmm.data.dataset import Dataset, opened
from dgmm.em.first_pass import DataMoments, FirstPassSpec, first_pass
from dgmm.errors import DataError, UsageError
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Marginal, Noisy
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.mixture import Frame, Mixture
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
