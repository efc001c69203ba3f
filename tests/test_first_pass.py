"""The first sweep, by NumPy and by compiled code, against the exact moments of all rows."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dgmm
from dgmm.em.first_pass import WAYS, FirstPassSpec, first_pass
from dgmm.em.moments import DataMoments
from dgmm.em.sample import uniform
from dgmm.kernels import choice, native
from dgmm.kernels.sweep import Block

built = pytest.mark.skipif(native.compiled is None, reason="dgmm was built without a C compiler")

VARIANTS = range(len(native.compiled.variants()) if native.compiled else 0)
"""Each kind of vector that this processor has."""

WAY = [("numpy", 0), *(("native", variant) for variant in VARIANTS)]

EPS = np.finfo(float).eps


@pytest.fixture(params=WAY, ids=lambda way: f"{way[0]}{way[1]}")
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to make the first pass, with each kind of vector."""
    monkeypatch.setattr(native, "VARIANT", request.param[1])
    return str(request.param[0])


@cache
def exact_sums(
    rows: tuple[tuple[float, ...], ...], weights: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean (D,) and scatter (D, D) of rows, rounded once at the end."""
    x = [[Fraction(value) for value in row] for row in rows]
    w = [Fraction(value) for value in weights]
    n_features = range(len(rows[0]))
    mean = [sum(a * row[i] for a, row in zip(w, x, strict=True)) / sum(w) for i in n_features]
    away = [[value - mean[i] for i, value in enumerate(row)] for row in x]
    scatter = [
        [
            sum(a * d[i] * d[j] for a, d in zip(w, away, strict=True)) if j <= i else 0
            for j in n_features
        ]
        for i in n_features
    ]
    lower = np.array(scatter, dtype=float)
    return np.array(mean, dtype=float), np.tril(lower) + np.tril(lower, -1).T


def check(moments: DataMoments, rows: np.ndarray, weights: np.ndarray | None) -> None:
    """Against what is exact: means to rounding, scatters to that of spreads and merged means."""
    w = np.ones(len(rows)) if weights is None else weights
    rows, kept = rows.astype(float)[w > 0], w[w > 0]
    mean, scatter = exact_sums(tuple(map(tuple, rows.tolist())), tuple(kept.tolist()))
    assert (moments.rows, moments.weighted) == (len(w), len(kept))
    assert moments.weight == pytest.approx(fsum(kept), rel=1e-14)
    rounding = 2 * EPS * np.abs(mean)
    assert (np.abs(moments.mean - mean) <= rounding + 20 * EPS * np.ptp(rows, axis=0)).all()
    spread = np.sqrt(np.diagonal(scatter))
    off = rounding * np.sqrt(fsum(kept))
    error = np.outer(spread + off, spread + off) - (1 - 100 * EPS) * np.outer(spread, spread)
    if moments.scatter.ndim == 1:
        scatter, error = np.diagonal(scatter), np.diagonal(error)
    assert (np.abs(moments.scatter - scatter) <= error).all()
    assert_array_equal(moments.low, rows.min(axis=0))
    assert_array_equal(moments.high, rows.max(axis=0))


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", ">f8"])
@pytest.mark.parametrize(
    ("n_features", "count"), [(1, 1), (1, 333), (2, 75), (3, 129), (5, 40), (8, 99)]
)
def test_moments_are_exact(
    way: str, n_features: int, count: int, dtype: str, weighted: bool, pairs: bool
) -> None:
    """With and without rows and columns that fill no vector, and rows without weight."""
    rng = np.random.default_rng(n_features)
    rows = (100 + 30 * rng.normal(size=(count, n_features))).astype(dtype)
    weights = rng.uniform(0.1, 3.0, size=count) if weighted else None
    if weights is not None and count > 1:
        weights[::4] = 0
    check(
        first_pass(Block(0, rows, weights), FirstPassSpec(10, 1, pairs=pairs, kernel=way)),
        rows,
        weights,
    )


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_columns_of_all_kinds(way: str, weighted: bool, pairs: bool) -> None:
    """Far from zero, huge, tiny, constant, with one row far away; in several tiles."""
    rng = np.random.default_rng(0)
    count = 3001
    rows = rng.normal(size=(count, 6))
    rows[:, 0] += 1e9
    rows[:, 1] *= 1e150
    rows[:, 2] *= 1e-140
    rows[:, 3] = 0.1
    rows[2800, 4] = 1e12
    rows[:, 5] = np.arange(count)
    weights = rng.uniform(0.1, 3.0, size=count) if weighted else None
    moments = first_pass(Block(0, rows, weights), FirstPassSpec(10, 1, pairs=pairs, kernel=way))
    check(moments, rows, weights)
    assert moments.variance[3] == 0
    assert moments.robust_centre[3] == 0.1


def test_fortran_order_and_strides(way: str) -> None:
    """However rows lie in memory, and where they must be copied in pieces."""
    rows = np.random.default_rng(0).normal(size=(40_000, 3))
    first_pass_spec = FirstPassSpec(100, 1, kernel=way)
    expected = first_pass(Block(0, rows), first_pass_spec)
    for other in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        moments = first_pass(Block(0, other), first_pass_spec)
        assert_allclose(moments.mean, expected.mean, atol=1e-15)
        assert_allclose(moments.scatter, expected.scatter, rtol=1e-13)
        assert_array_equal(moments.sample.rows, expected.sample.rows)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_sample_is_the_rows_with_the_smallest_keys(way: str, weighted: bool) -> None:
    """Of a hash of their numbers, over their weights; however small the bound on keys is."""
    rng = np.random.default_rng(0)
    count, start, size = 200_000, 10**12, 1000
    rows = np.arange(2.0 * count).reshape(count, 2)
    weights = np.exp(rng.normal(size=count)) if weighted else np.ones(count)
    weights[:: 3 if weighted else count + 1] = 0
    with np.errstate(divide="ignore"):
        keys = -np.log(uniform(np.arange(start, start + count), 7)) / weights
    numbers = np.sort(np.argsort(keys)[:size])
    block = Block(start, rows, weights if weighted else None)
    first_pass_spec = FirstPassSpec(size, 7, kernel=way)
    for largest in (np.inf, float(np.nextafter(np.sort(keys)[size - 1], 1))):
        sample = first_pass(block, replace(first_pass_spec, largest=largest)).sample
        assert_array_equal(sample.numbers, start + numbers)
        assert_array_equal(sample.keys, keys[numbers])
        assert_array_equal(sample.rows, rows[numbers])
        assert_array_equal(sample.weights, weights[numbers])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_cannot_be_used_is_named_and_counted(way: str, weighted: bool, value: float) -> None:
    """Also where the row has no weight."""
    rows = np.random.default_rng(0).normal(size=(50_000, 3)).astype("f4")
    rows[[30_000, 30_001, 45_000], 1] = value
    rows[30_001, 2] = value
    weights = (np.arange(len(rows)) % 2).astype(float) if weighted else None
    moments = first_pass(Block(10, rows, weights), FirstPassSpec(10, 1, kernel=way))
    assert moments.complaint is not None
    assert f"{value} at row 30010, column 1" in moments.complaint
    assert "3 of 50,000" in moments.complaint


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_weights_that_cannot_be_are_named_and_counted(way: str, value: float) -> None:
    weights = np.ones(40_000)
    weights[[35_000, 35_002]] = value
    moments = first_pass(Block(0, np.zeros((40_000, 2)), weights), FirstPassSpec(10, 1, kernel=way))
    assert moments.complaint is not None
    assert f"{value} at row 35000; such weights: 2 of 40,000" in moments.complaint


def test_values_whose_sums_overflow_are_no_flaw(way: str) -> None:
    """Their mean is a number, if not their variance: told at the door as what it is."""
    rows = np.full((1000, 2), 1e308)
    rows[::2] = 0.9e308
    moments = first_pass(Block(0, rows), FirstPassSpec(10, 1, kernel=way))
    assert moments.invalid_row is None
    assert_allclose(moments.mean, 0.95e308)
    assert not np.isfinite(moments.variance).any()


def test_weights_of_all_sizes(way: str) -> None:
    """Products with rows would leave the range of doubles; a mean needs none."""
    rows = np.random.default_rng(0).normal(size=(100, 2)) * 1e150
    weights = np.ones(100)
    expected = first_pass(Block(0, rows, weights), FirstPassSpec(10, 1, kernel=way))
    for scale in (2.0**-1000, 2.0**1000):
        moments = first_pass(Block(0, rows, weights * scale), FirstPassSpec(10, 1, kernel=way))
        assert_allclose(moments.mean, expected.mean, rtol=1e-14)
        assert moments.weight == expected.weight * scale


@pytest.mark.parametrize("weights", [None, np.zeros(0)])
def test_no_rows(way: str, weights: Any) -> None:
    moments = first_pass(
        Block(0, np.zeros((0, 3), "f4"), weights), FirstPassSpec(10, 1, kernel=way)
    )
    assert (moments.rows, moments.weighted, moments.weight) == (0, 0, 0.0)
    assert len(moments.sample.rows) == 0


def test_rows_without_weight_are_the_zero(way: str) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    moments = first_pass(Block(0, rows, np.zeros(100)), FirstPassSpec(10, 1, kernel=way))
    assert (moments.rows, moments.weighted, moments.weight) == (100, 0, 0.0)
    assert_array_equal(moments.scatter, np.zeros(3))


def test_there_is_a_way_for_each_kernel() -> None:
    assert WAYS.keys() == choice.WAYS.keys()


def test_compiled_code_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker would say that was built without it."""
    monkeypatch.setattr(native, "compiled", None)
    with pytest.raises(dgmm.UsageError, match="which this process lacks"):
        first_pass(Block(0, np.zeros((5, 2))), FirstPassSpec(10, 1, kernel="native"))


FAULTS = """
import resource, sys
import numpy as np
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.kernels.sweep import Block

rows = np.random.default_rng(0).normal(size=(1 << 18, 8)).astype(sys.argv[1])
spec = FirstPassSpec.of(10**9, 8, 16, 0, False, False, kernel="native")
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first_pass(Block(0, rows), spec)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults / (len(rows) / 16384))
"""


@built
@pytest.mark.parametrize("dtype", ["f4", "i4"])
def test_a_tile_takes_no_fresh_memory(dtype: str, tmp_path: Path) -> None:
    """Fewer than 20 page faults for 16,384 rows, even where memory that is freed is returned."""
    as_workers_of_dask = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, dtype],
        cwd=tmp_path,  # where no checkout is, whose kernel need not be compiled
        env=os.environ | as_workers_of_dask,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 20
