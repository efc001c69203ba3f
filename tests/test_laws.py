"""Laws that hold for all data: of merging, of sampling, of the tree of sums."""

import itertools
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import a_mixture, every_structure, laws, seeds, some_rows, some_weights
from scipy.stats import chi2, chisquare, kstest

from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.init import representative
from dgmm.kernels.kernel import e_step
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.prior import Regularised
from dgmm.model.statistics import Stacked, Statistics, WeightedSum

lengths = st.integers(0, 60)


UNIT = Frame(np.zeros(2), np.ones(2))


def statistics_of(
    naturals: tuple[NaturalParameters, ...], n: int, weighted: bool, rng: np.random.Generator
) -> Stacked[Statistics]:
    block = Block(0, some_rows(n, 2, rng), some_weights(weighted, n, rng))
    return e_step(block, Given(UNIT, naturals))


def some_forms(kind: str, rng: np.random.Generator) -> tuple[NaturalParameters, ...]:
    """Several at once: of two structures, in the product form, centred, and penalised."""
    first, second = a_mixture(kind, 3, 2, rng), a_mixture("diag", 1, 2, rng)
    return (
        NaturalParameters.of(first),
        NaturalParameters.of(first, spread=1e6),
        NaturalParameters.of(second),
        NaturalParameters.of(first, Regularised(np.array([0.1, 0.01])).penalties(first)),
    )


def member(what: str, start: int, n: int, weighted: bool, seed: int) -> Any:
    """An example of each thing that is swept: of ``n`` rows from row ``start`` on.

    All of one ``seed // 8`` go together.
    """
    own, shared = np.random.default_rng([seed, start]), np.random.default_rng(seed)
    if what == "total":
        return WeightedSum(float(own.normal()) * n, float(n))
    if what == "first pass":
        block = Block(start, some_rows(n, 2, own), some_weights(weighted, n, own))
        return first_pass(block, FirstPassSpec(sample=20, seed=seed, pairs=bool(seed % 2)))
    if what == "sample":
        return member("first pass", start, n, weighted, seed).sample
    kind = sorted(COVARIANCE_MODELS)[seed % 4]
    parts = statistics_of(some_forms(kind, shared), n, weighted, own)
    return parts.parts[0] if what == "statistics" else parts


MERGEABLE = ("statistics", "together", "first pass", "sample", "total")


every_mergeable = pytest.mark.parametrize("what", MERGEABLE)


def numbers_in(value: Any, prefix: str = "") -> dict[str, Any]:
    """All numbers of a mergeable value, by name."""
    if isinstance(value, Stacked):
        parts = [numbers_in(part, f"{prefix}{i}.") for i, part in enumerate(value.parts)]
        return {name: number for part in parts for name, number in part.items()}
    found = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if hasattr(inner, "__dataclass_fields__"):
            found |= numbers_in(inner, f"{prefix}{field.name}.")
        elif inner is not None:
            found[prefix + field.name] = inner
    return found


def assert_identical(a: Any, b: Any) -> None:
    """The same bits (but for the sign of a zero)."""
    ours, theirs = numbers_in(a), numbers_in(b)
    assert ours.keys() == theirs.keys()
    for name, number in ours.items():
        np.testing.assert_array_equal(number, theirs[name], err_msg=name, strict=True)


def assert_equal_to_rounding(a: Any, b: Any) -> None:
    """Sums of at most 200 terms of size about 10, added in another order: below 200 u 200 10."""
    ours, theirs = numbers_in(a), numbers_in(b)
    assert ours.keys() == theirs.keys()
    for name, number in ours.items():
        if number is None or np.asarray(number).dtype.kind in "iu":
            assert np.array_equal(number, theirs[name]), name
        else:
            np.testing.assert_allclose(number, theirs[name], rtol=1e-12, atol=1e-10, err_msg=name)


# ---------------------------------------------------------------- merging


@every_mergeable
@laws(20)
@given(n=lengths, weighted=st.booleans(), seed=seeds)
def test_nothing_is_a_zero(what: str, n: int, weighted: bool, seed: int) -> None:
    """Adding no rows, on either side, changes no bit."""
    some, none = member(what, 0, n, weighted, seed), member(what, n, 0, weighted, seed)
    assert_identical(some + none, some)
    assert_identical(none + some, some)


@every_mergeable
@laws(20)
@given(n=lengths, m=lengths, weighted=st.booleans(), seed=seeds)
def test_addition_commutes(what: str, n: int, m: int, weighted: bool, seed: int) -> None:
    a, b = member(what, 0, n, weighted, seed), member(what, n, m, weighted, seed)
    assert_equal_to_rounding(a + b, b + a)


@every_mergeable
@laws(20)
@given(n=st.tuples(lengths, lengths, lengths), weighted=st.booleans(), seed=seeds)
def test_addition_associates(what: str, n: tuple[int, int, int], weighted: bool, seed: int) -> None:
    starts = (0, n[0], n[0] + n[1])
    a, b, c = (member(what, s, m, weighted, seed) for s, m in zip(starts, n, strict=True))
    left, right = (a + b) + c, a + (b + c)
    assert_equal_to_rounding(left, right)
    if what == "sample":  # which rows are kept is no matter of rounding
        assert_identical(left, right)


@every_structure
@laws(25)
@given(n=lengths, m=lengths, weighted=st.booleans(), seed=seeds)
def test_statistics_of_parts_add_up(kind: str, n: int, m: int, weighted: bool, seed: int) -> None:
    """Rows in two blocks or in one; for one form and for several at once."""
    rng = np.random.default_rng(seed)
    naturals = some_forms(kind, rng)
    rows, weights = some_rows(n + m, 2, rng), some_weights(weighted, n + m, rng)

    def of(start: int, stop: int, which: tuple[NaturalParameters, ...]) -> Stacked[Statistics]:
        part = None if weights is None else weights[start:stop]
        return e_step(Block(start, rows[start:stop], part), Given(UNIT, which))

    whole = of(0, n + m, naturals)
    assert_equal_to_rounding(of(0, n, naturals) + of(n, n + m, naturals), whole)
    for natural, together in zip(naturals, whole.parts, strict=True):
        assert_equal_to_rounding(of(0, n + m, (natural,)).parts[0], together)


def test_one_block_of_many_tiles_adds_up() -> None:
    """A block larger than the cache's tile, whose last tile is short, is the sum of its rows."""
    rng = np.random.default_rng(0)
    naturals = some_forms("full", rng)
    rows = some_rows(10_001, 2, rng)
    whole = e_step(Block(0, rows), Given(UNIT, naturals))
    pieces = [
        e_step(Block(s, rows[s : s + 777]), Given(UNIT, naturals)) for s in range(0, 10_001, 777)
    ]
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    for a, b in zip(numbers_in(whole).values(), numbers_in(total).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-8)  # 1e4 terms of size 10, as above


@every_structure
def test_an_empty_block_is_the_zero(kind: str) -> None:
    """Bit for bit, signs of zeros included; and no form is left out."""
    naturals = some_forms(kind, np.random.default_rng(1))
    for weights in (None, np.empty(0)):
        found = e_step(Block(7, np.empty((0, 2)), weights), Given(UNIT, naturals))
        for natural, statistics in zip(naturals, found.parts, strict=True):
            zero = Statistics.zero(natural.center, natural.features.width(2))
            for field in fields(Statistics):
                a, b = getattr(statistics, field.name), getattr(zero, field.name)
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), field.name


@every_structure
def test_statistics_about_different_points_do_not_add(kind: str) -> None:
    rng = np.random.default_rng(2)
    a, b = (
        statistics_of(
            (NaturalParameters.of(a_mixture(kind, 2, 2, rng), spread=1e6),), 5, False, rng
        ).parts[0]
        for _ in range(2)
    )
    with pytest.raises(ValueError, match="different points"):
        a + b


def test_together_of_unequal_numbers_does_not_add() -> None:
    one = WeightedSum(1.0, 1.0)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        Stacked((one,)) + Stacked((one, one))


@laws(50)
@given(n=lengths, m=lengths, seed=seeds, weighted=st.booleans(), scale=st.sampled_from([1, 1e9]))
def test_first_passes_of_parts_describe_the_whole(
    n: int, m: int, seed: int, weighted: bool, scale: float
) -> None:
    """Count, weight, mean, scatter and range of two blocks together are those of all rows."""
    rng = np.random.default_rng(seed)
    rows, weights = some_rows(n + m, 2, rng) + scale, some_weights(weighted, n + m, rng)
    assume(weights is None or weights.any())
    assume(n + m > 0)
    first_pass_spec = FirstPassSpec(sample=5, seed=1, pairs=True)
    parts = [
        first_pass(Block(s, rows[s:e], None if weights is None else weights[s:e]), first_pass_spec)
        for s, e in ((0, n), (n, n + m))
    ]
    found = parts[0] + parts[1]
    w = np.ones(n + m) if weights is None else weights
    exact = [[Fraction(float(v)) for v in row] for row in rows]
    total = sum(map(Fraction, w.tolist()))
    mean = [
        sum(Fraction(float(a)) * r[j] for a, r in zip(w, exact, strict=True)) / total
        for j in (0, 1)
    ]
    scatter = [
        [
            float(
                sum(
                    Fraction(float(a)) * (r[i] - mean[i]) * (r[j] - mean[j])
                    for a, r in zip(w, exact, strict=True)
                )
            )
            for j in (0, 1)
        ]
        for i in (0, 1)
    ]
    assert found.rows == n + m
    assert found.weight == pytest.approx(float(total), rel=1e-14)
    # The mean is off by some u |mean|; that enters the scatter squared, and once for each rounding
    # of a difference, of which there are 120 of size 1.5 and weight 2.
    off = 8 * np.finfo(float).eps * scale
    np.testing.assert_allclose(found.mean, [float(v) for v in mean], rtol=0, atol=off + 1e-15)
    np.testing.assert_allclose(found.scatter, scatter, rtol=1e-13, atol=120 * 6 * off + 1e-12)
    kept = rows[w > 0]
    np.testing.assert_array_equal(found.low, kept.min(axis=0))
    np.testing.assert_array_equal(found.high, kept.max(axis=0))


# ---------------------------------------------------------------- sampling


@laws(40)
@given(
    divisions=st.lists(st.integers(0, 300), max_size=6).map(sorted),
    size=st.integers(1, 400),
    seed=st.integers(0, 2**31 - 1),
    weighted=st.booleans(),
    hint=st.booleans(),
)
def test_the_sample_does_not_depend_on_the_cuts(
    divisions: list[int], size: int, seed: int, weighted: bool, hint: bool
) -> None:
    """Exactly the same rows, however they are cut; a hint at the largest key changes nothing."""
    rng = np.random.default_rng(seed)
    rows, weights = some_rows(300, 2, rng), some_weights(weighted, 300, rng)
    first_pass_spec = FirstPassSpec(size, seed)

    def of(start: int, stop: int, asked: FirstPassSpec) -> Any:
        part = None if weights is None else weights[start:stop]
        return first_pass(Block(start, rows[start:stop], part), asked)

    whole = of(0, 300, first_pass_spec).sample
    if hint and len(whole.keys) == size:
        first_pass_spec = replace(
            first_pass_spec, largest=float(np.nextafter(whole.keys.max(), np.inf))
        )
    edges = [0, *divisions, 300]
    pieces = [of(a, b, first_pass_spec) for a, b in itertools.pairwise(edges)]
    found = tree_sum(pieces)
    assert_identical(found.sample, whole)
    assert len(whole.numbers) == min(size, 300 if weights is None else np.count_nonzero(weights))
    np.testing.assert_array_equal(whole.rows, rows[whole.numbers])
    if weights is not None:
        assert (weights[whole.numbers] > 0).all()
        np.testing.assert_array_equal(whole.weights, weights[whole.numbers])


def test_the_question_keeps_the_whole_sample() -> None:
    """The bound on keys that the number of rows allows never costs a sampled row."""
    n = 300_000
    first_pass_spec = FirstPassSpec.of(
        n, n_features=1, components=2, seed=3, weighted=False, pairs=False
    )
    assert np.isfinite(first_pass_spec.largest)
    found = first_pass(Block(0, np.arange(n, dtype=float)[:, None]), first_pass_spec)
    assert len(found.sample.numbers) == first_pass_spec.sample == 100_000
    every = first_pass(
        Block(0, np.arange(n, dtype=float)[:, None]), replace(first_pass_spec, largest=np.inf)
    )
    assert_identical(found.sample, every.sample)


def test_the_sample_is_uniform() -> None:
    """Numbers of sampled rows are spread evenly, and no row is preferred over many seeds.

    Fixed seeds, so it can't fail by chance; a fair sample fails one p < 1e-3 in a thousand.
    """
    n, size = 100_000, 5000
    rows = np.zeros((n, 1))
    numbers = first_pass(Block(0, rows), FirstPassSpec(size, seed=11)).sample.numbers
    assert len(set(numbers.tolist())) == size
    assert kstest(numbers / n, "uniform").pvalue > 1e-3
    # Of 60 rows 20 are drawn, 1500 times: each row 500 times, with variance 1500 p (1 - p).
    # Fixing the size of the sample makes the counts' sum constant, hence 59/60.
    drawn = np.zeros(60)
    for seed in range(1500):
        drawn[first_pass(Block(0, rows[:60]), FirstPassSpec(20, seed)).sample.numbers] += 1
    z = (drawn - 500) ** 2 / (1500 * (1 / 3) * (2 / 3)) * 59 / 60
    assert chi2.sf(z.sum(), 59) > 1e-3


def test_neighbouring_rows_are_sampled_independently() -> None:
    """Pairs of neighbours come with the probability of independent draws."""
    n, size = 100_000, 50_000
    numbers = first_pass(Block(0, np.zeros((n, 1))), FirstPassSpec(size, seed=5)).sample.numbers
    inside = np.zeros(n, bool)
    inside[numbers] = True
    for lag in (1, 2, 64):
        a, b = inside[:-lag], inside[lag:]
        table = [np.sum(a & b), np.sum(a & ~b), np.sum(~a & b), np.sum(~a & ~b)]
        assert chisquare(table).pvalue > 1e-3  # half of the rows are in: all four are equal


def test_a_weighted_draw_follows_the_weights() -> None:
    """A sample of one row is row i with probability w_i / W; a row of weight 0 is never drawn."""
    weights = np.array([1.0, 0.0, 2.0, 5.0, 0.5, 0.0, 1.5])
    drawn = np.zeros(7)
    for seed in range(4000):
        found = first_pass(Block(0, np.zeros((7, 1)), weights), FirstPassSpec(1, seed))
        drawn[found.sample.numbers] += 1
    assert (drawn[weights == 0] == 0).all()
    some = weights > 0
    assert chisquare(drawn[some], 4000 * weights[some] / weights.sum()).pvalue > 1e-3


# ---------------------------------------------------------------- the tree


@laws(150)
@given(
    values=st.lists(st.floats(-1e30, 1e30, allow_nan=False), min_size=1, max_size=200),
    heights=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_any_batches_of_powers_of_two_give_the_same_bits(
    values: list[float], heights: list[int]
) -> None:
    """Adding runs of 2^j leaves first, and runs of the results, and so on, changes nothing."""
    level = values
    for height in heights:
        run = 1 << height
        level = [tree_sum(level[i : i + run]) for i in range(0, len(level), run)]
    assert tree_sum(level) == tree_sum(values)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 100])
def test_the_tree_adds_every_leaf_once_in_order(count: int) -> None:
    """Tuples add by concatenation, which shows the order and that nothing is lost or doubled."""
    leaves = [(i,) for i in range(count)]
    assert tree_sum(leaves) == tuple(range(count))


def test_batches_that_are_no_power_of_two_may_differ() -> None:
    """So the law above says something: in runs of three, the last bits come out otherwise."""
    values = np.random.default_rng(0).normal(size=100).tolist()
    threes = [tree_sum(values[i : i + 3]) for i in range(0, 100, 3)]
    assert tree_sum(threes) != tree_sum(values)


@pytest.mark.parametrize("size", [500, 5000])
def test_a_part_of_a_weighted_sample_stands_for_all_rows(size: int) -> None:
    """Rows drawn by their weights must not count by them, too."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100_000, 1))
    weights = np.exp(rows[:, 0])
    found = first_pass(Block(0, rows, weights), FirstPassSpec(len(rows), seed=1))
    part = representative(found).first(size)
    error = 1 / np.sqrt(size)
    assert abs(np.average(part.rows[:, 0], weights=part.weights) - 1.0) < 4 * error
