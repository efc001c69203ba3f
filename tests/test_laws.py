"""Laws that hold for all data: of merging, of sampling, of one tile, and of EM."""

import itertools
import tracemalloc
from dataclasses import fields, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from scipy.stats import chi2, chisquare, kstest, multivariate_normal

from dgmm import GaussianMixture
from dgmm.em.evaluate import State, evaluate
from dgmm.em.expectation_maximization import EM
from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.fit_context import FitContext
from dgmm.em.init import representative
from dgmm.em.model import Model, Trial
from dgmm.em.solver import StopRule, run_all
from dgmm.em.squarem import Squarem, extrapolate
from dgmm.errors import DataError
from dgmm.kernels import native
from dgmm.kernels.choice import KERNELS
from dgmm.kernels.correction import StatisticsCorrection
from dgmm.kernels.kernel import e_step
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import COMPLETE, Complete
from dgmm.kernels.outputs import row_outputs
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.arrays import FLOOR
from dgmm.model.covariance import COVARIANCE_MODELS, COVARIANCE_TYPES
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.covariance_parameters import Covariances
from dgmm.model.decomposed import DECOMPOSED
from dgmm.model.factor import Factor
from dgmm.model.features import Features, Length, Linear, Products, Squares
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised
from dgmm.model.statistics import Stacked, Statistics, WeightedSum

TOLERANCE = 1e-9
"""What the kernel promises of a log-density; not imported, so that it can't be loosened."""

REGS = (0.0, 1e-6, 1e-2)
FACTORS = ("factor", "factor-tied", "ppca")

seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(0, 60)
kinds = st.sampled_from(sorted(COVARIANCE_MODELS))
every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def laws(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


# ---------------------------------------------------------------- examples of everything


def covariances_of(kind: str, k: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Random positive definite covariances (K, D, D) of this structure, of condition below 100."""
    a = rng.normal(size=(k, d, d))
    dense = a @ a.swapaxes(1, 2) / d + 0.3 * np.eye(d)
    if kind == "tied":
        dense[:] = dense[0]
    elif kind == "diag":
        dense *= np.eye(d)
    elif kind == "spherical":
        dense = dense[:, :1, :1] * np.eye(d)
    return dense


def in_shape(kind: str, dense: np.ndarray) -> np.ndarray:
    """Matrices (K, D, D) as the structure holds them."""
    return {
        "full": lambda: dense,
        "tied": lambda: dense[0],
        "diag": lambda: np.diagonal(dense, axis1=1, axis2=2),
        "spherical": lambda: dense[:, 0, 0],
    }[kind]()


def a_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    weights = rng.dirichlet(np.full(k, 3.0))
    precisions = np.linalg.inv(covariances_of(kind, k, d, rng))
    precisions = (precisions + precisions.swapaxes(1, 2)) / 2
    return Mixture.of(
        COVARIANCE_MODELS[kind], weights, rng.normal(size=(k, d)), in_shape(kind, precisions)
    )


def some_rows(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(n, d)) * 1.5


def some_weights(weighted: bool, n: int, rng: np.random.Generator) -> np.ndarray | None:
    return rng.integers(0, 3, n) * rng.uniform(0.1, 2.0, n) if weighted else None


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


# ---------------------------------------------------------------- one tile


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
    context = setting_of([Block(0, rows)], COVARIANCE_MODELS[kind], 0.0)
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
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_covariances_answer_as_dense_matrices_do(kind: str, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixture = a_mixture(kind, k, d, rng)
    covariances, dense = mixture.covariances, mixture.covariances.dense()
    near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    assert covariances.model is COVARIANCE_MODELS[kind]
    assert dense.shape == (k, d, d)
    inverse, amounts = np.linalg.inv(dense), rng.uniform(0.5, 2.0, size=d)
    if kind == "spherical":
        amounts[:] = amounts[0]  # one scale for all columns
    near(covariances.variances(), np.diagonal(dense, axis1=1, axis2=2))
    near(covariances.precisions(), in_shape(kind, inverse))
    near(np.broadcast_to(covariances.half_log_det(), k), 0.5 * np.linalg.slogdet(inverse)[1])
    weights = rng.uniform(size=(k, d))
    expected = np.einsum("kii,ki->k", inverse, weights)
    near(np.broadcast_to(covariances.trace(weights), k), expected)
    assert (covariances.max_eigenvalue_bound() >= np.linalg.eigvalsh(inverse)[:, -1] - 1e-9).all()
    near(covariances.rescale(amounts).dense(), dense * amounts[:, None] * amounts)
    near(
        covariances.rescale(amounts).precisions(),
        in_shape(kind, inverse / amounts[:, None] / amounts),
    )
    x = rng.normal(size=(d, 4))
    for i in range(k):
        white = covariances.whiten(i, x)
        near((white**2).sum(axis=0), np.einsum("dn,de,en->n", x, inverse[i], x))
        near(covariances.whitened(np.tile(x[:, 0], (k, 1)))[i], white[:, 0])


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_estimates_answer_as_dense_matrices_do(kind: str, d: int, k: int, seed: int) -> None:
    """Of the rows of k groups, one of which has none; spreads in any direction, floors, amounts."""
    rng = np.random.default_rng(seed)
    model, before = COVARIANCE_MODELS[kind], a_mixture(kind, k + 1, d, rng).covariances
    rows, labels = some_rows(40, d, rng), rng.permutation(np.arange(40) % k)
    own = model.centred_features
    sums = np.zeros((k + 1, own.width(d)))
    for i in range(k):
        x = rows[labels == i].T
        sums[i] = own.of(x, np.empty((own.width(d), x.shape[1]))).sum(axis=1)
    counts = sums[:, 0]
    means = sums[:, 1 : 1 + d] / np.maximum(counts, 1)[:, None]
    estimate = model.estimate(counts, means, means, sums[:, 1 + d :], rows.T @ rows)
    dense = np.stack([np.cov(rows[labels == i].T, ddof=0).reshape(d, d) for i in range(k)])
    dense = np.broadcast_to(model.pooled(counts[:k], dense), (k, d, d))
    near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    near(estimate.variances()[:k], np.diagonal(dense, axis1=1, axis2=2))
    amounts = rng.uniform(0.5, 2.0, size=d)
    if kind == "spherical":
        amounts[:] = amounts[0]
    root = np.sqrt(amounts)
    least = np.linalg.eigvalsh(dense / root[:, None] / root)[:, 0]
    near(np.broadcast_to(estimate.thinnest(amounts), k + 1)[:k], least)
    weights = counts / counts.sum()
    apart = estimate.thinnest_apart(weights, means, np.full(d, FLOOR))
    near(np.broadcast_to(apart, k + 1)[:k] * FLOOR, np.linalg.eigvalsh(dense)[:, 0], atol=1e-8)
    empty = counts == 0
    raised, lost = estimate.regularised(amounts, empty, before)
    assert not lost.any()
    near(raised.dense()[:k], dense + np.diag(amounts))
    if model.own_parameters(d):
        near(raised.dense()[k], before.dense()[k])
    dense_before = raised.precisions()  # and its factors are its own
    near(model.of_precisions(dense_before, (k + 1, d)).dense(), raised.dense())


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_the_prior_tells_what_its_m_step_maximises(kind: str, d: int, k: int, seed: int) -> None:
    """The expected log-density of complete data, each row's lowered by its component's penalty.

    No covariances of the model near those of the M-step have more of it.
    """
    rng = np.random.default_rng(seed)
    rows, labels = some_rows(60, d, rng), rng.permutation(np.arange(60) % k)
    model = COVARIANCE_MODELS[kind]
    prior = Regularised(np.full(d, rng.uniform(0.1, 2.0)) if kind == "spherical" else rng.random(d))
    own = model.centred_features
    sums = np.zeros((k, own.width(d)))
    means = np.stack([rows[labels == i].mean(axis=0) for i in range(k)])
    for i in range(k):
        x = (rows[labels == i] - means[i]).T
        sums[i] = own.of(x, np.empty((own.width(d), x.shape[1]))).sum(axis=1)
    before = Mixture(np.full(k, 1 / k), means, a_mixture(kind, k, d, rng).covariances)
    found = Statistics(sums, means, 0.0, 0.0, 60.0, 60)
    after = Model(model, prior, Complete()).m_step(found, rows.T @ rows, before).mixture

    def expected(covariances: Covariances) -> float:
        mixture = replace(after, covariances=covariances)
        logs = sum(mixture.log_joint(i, rows[labels == i].T).sum() for i in range(k))
        return float(logs - np.bincount(labels, minlength=k) @ prior.penalties(mixture))

    best, every = expected(after.covariances), np.ones(k, bool)
    np.testing.assert_allclose(after.means, means, atol=1e-12)
    at_best = after.covariances.coordinates(after.covariances, np.ones(k)).ravel()
    for size in (1e-3, 0.1, 1.0):
        place = at_best + size * rng.normal(size=len(at_best))
        estimate = after.covariances.at(place, np.ones(k), every, after.covariances)
        assert expected(estimate.floored()[0]) <= best + 1e-9 * abs(best)


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), seed=seeds)
def test_an_estimate_about_other_means(kind: str, d: int, k: int, seed: int) -> None:
    """The mean squares of rows about means that are not their own."""
    rng = np.random.default_rng(seed)
    model, counts = COVARIANCE_MODELS[kind], rng.uniform(1, 5, size=k)
    roots, offsets = rng.normal(size=(k, d, d)), rng.normal(size=(k, d))
    within = roots @ roots.swapaxes(1, 2)
    own = model.centred_features
    second = np.stack([own.of(x, np.empty((own.width(d), d))).sum(axis=1) for x in roots])
    second = second[:, 1 + d :] * counts[:, None]
    zero = np.zeros((k, d))
    estimate = model.estimate(counts, zero, zero, second, None).about(counts, offsets)
    about = within + offsets[:, :, None] * offsets[:, None, :]
    pooled = np.broadcast_to(model.pooled(counts, about), (k, d, d))
    np.testing.assert_allclose(estimate.floored()[0].dense(), pooled, rtol=1e-9, atol=1e-12)


@every_structure
def test_covariances_of_given_variances(kind: str) -> None:
    model, variances = COVARIANCE_MODELS[kind], np.full(3, 4.0)
    made = model.of_variances(variances, 2)
    np.testing.assert_array_equal(made.dense(), np.stack([4 * np.eye(3)] * 2))
    again = model.of_covariances(made.values, (2, 3))
    np.testing.assert_array_equal(made.precisions_cholesky, again.precisions_cholesky)
    assert made.values.shape == model.shape(2, 3)


@every_structure
def test_free_parameters_are_own_and_common(kind: str) -> None:
    expected = {"full": 4 * 6, "tied": 6, "diag": 4 * 3, "spherical": 4}[kind]
    assert COVARIANCE_MODELS[kind].free_parameters(4, 3) == expected


@every_structure
@laws(25)
@given(d=st.integers(1, 5), k=st.integers(1, 5), seed=seeds)
def test_coordinates_lead_back(kind: str, d: int, k: int, seed: int) -> None:
    """Any covariances have coordinates, seen from any others; their own are 0."""
    rng = np.random.default_rng(seed)
    one, other = (a_mixture(kind, k, d, rng).covariances for _ in range(2))
    roots, every = np.sqrt(rng.dirichlet(np.ones(k))), np.ones(k, bool)
    seen = one.coordinates(other, roots)
    back = one.at(seen.ravel(), roots, every, one)
    np.testing.assert_allclose(back.values, other.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.coordinates(one, roots), 0.0, atol=1e-9)
    white = rng.normal(size=(k, d))
    coloured = one.coloured(white)
    np.testing.assert_allclose(one.whitened(coloured), white, rtol=1e-9, atol=1e-9)
    for i in range(k):
        again = one.whiten(i, coloured[i][:, None])[:, 0]
        np.testing.assert_allclose(again, white[i], rtol=1e-9, atol=1e-9)


@every_structure
def test_factors_lie_in_memory_as_if_read_from_a_file(kind: str) -> None:
    """Products round by how their factors lie: a fit that goes on must find them as they were."""
    rng = np.random.default_rng(0)
    before = a_mixture(kind, 4, 3, rng).covariances
    place = before.coordinates(before, np.ones(4)).ravel()
    estimate = before.at(place, np.ones(4), np.ones(4, bool), before)
    floored, _ = estimate.floored()
    regularised, _ = estimate.regularised(np.ones(3), np.zeros(4, bool), before)
    for made in (floored, regularised):
        assert made.values.flags.c_contiguous
        assert made.precisions_cholesky.flags.c_contiguous


@every_structure
@laws(25)
@given(d=st.integers(1, 4), k=st.integers(1, 4), length=st.floats(1.5, 50), seed=seeds)
def test_an_extrapolation_is_a_mixture(kind: str, d: int, k: int, length: float, seed: int) -> None:
    """However long the step; and a step of length 1 would lead to the third mixture."""
    rng = np.random.default_rng(seed)
    first, second, third = (a_mixture(kind, k, d, rng) for _ in range(3))
    model = Model(first.covariance_model, Regularised(np.zeros(d)), COMPLETE)
    assert extrapolate(first, second, third, 1.0, model).mixture is None
    trial = extrapolate(first, second, third, length, model).mixture
    if trial is not None:
        mixture = trial.mixture
        assert mixture.weights.sum() == pytest.approx(1.0)
        dense = mixture.covariances.dense()
        assert (np.linalg.eigvalsh(dense) > 0).all() or trial.singular


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
    whole = setting_of([Block(0, rows)], COVARIANCE_MODELS[kind], 1e-3)
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


# ---------------------------------------------------------------- the frame


@every_structure
@laws(40)
@given(
    d=st.integers(1, 4),
    k=st.integers(1, 4),
    shift=st.sampled_from([0.0, 3.0, 1e8]),
    spread=st.floats(-20, 20),
    seed=seeds,
)
def test_into_the_frame_and_out_again(
    kind: str, d: int, k: int, shift: float, spread: float, seed: int
) -> None:
    """Nothing changes but the means, by a rounding; and densities differ by the volume alone."""
    rng = np.random.default_rng(seed)
    mean, variance = shift + rng.normal(size=d), np.exp(spread + rng.normal(size=d))
    frame = Frame.of(mean, variance, COVARIANCE_MODELS[kind])
    mixture = a_mixture(kind, k, d, rng)
    inside = frame.enter(mixture)
    back = frame.leave(inside)
    np.testing.assert_array_equal(back.weights, mixture.weights)
    for name in ("values", "precisions_cholesky"):
        own, given = (getattr(each.covariances, name) for each in (back, mixture))
        np.testing.assert_array_equal(own, given)
    u = np.finfo(float).eps
    atol = 2 * u * (np.abs(frame.shift).max() + np.abs(mixture.means).max())
    np.testing.assert_allclose(back.means, mixture.means, rtol=0, atol=atol)
    assert np.isin(np.frexp(frame.scale)[0], 0.5).all()  # powers of two
    # A row at each mean, so that no digits are lost: log N differs by log |scale|.
    inner = [inside.log_joint(i, inside.means[i][:, None])[0] for i in range(k)]
    outer = [mixture.log_joint(i, mixture.means[i][:, None])[0] for i in range(k)]
    np.testing.assert_allclose(np.array(inner) - frame.log_volume, outer, rtol=1e-12, atol=1e-11)


def test_rows_in_the_frame_have_unit_spread() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 3)) * [1e-6, 1.0, 1e6] + [0, 1e8, -1]
    found = first_pass(Block(0, rows), FirstPassSpec(1, 0))
    frame = Frame.of(found.robust_centre, found.robust_variance, COVARIANCE_MODELS["full"])
    x = frame.rows(rows, np.empty((3, 2000)))
    assert (np.abs(x.mean(axis=1)) < 1e-6).all()
    assert ((x.std(axis=1) > 0.7) & (x.std(axis=1) < 1.5)).all()  # to the nearest power of two


# ---------------------------------------------------------------- EM


def setting_of(blocks: list[Block], model: CovarianceModel, reg_covar: float) -> FitContext:
    first_pass_spec = FirstPassSpec(sample=1000, seed=0, pairs=model.needs_scatter)
    found = tree_sum(first_pass(block, first_pass_spec) for block in blocks)
    return FitContext.of(found, model, reg_covar)


@st.composite
def torture(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray | None, int, int]:
    """Rows, weights, K and a seed: few rows, many components, equal rows, flat columns."""
    n, d = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    k = draw(st.integers(1, min(n, 8)))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * draw(st.sampled_from([1.0, 1e-5, 1e5]))
    match draw(st.sampled_from(["plain", "duplicates", "constant", "collinear", "integers"])):
        case "duplicates":
            rows = rows[rng.integers(0, max(1, n // 3), n)]
        case "constant":
            rows[:, 0] = 0.1
        case "collinear":
            rows[:, -1] = 2 * rows[:, 0]
        case "integers":
            rows = np.round(rows)
    match draw(st.sampled_from(["none", "uniform", "zeros", "uneven"])):
        case "none":
            weights = None
        case "uniform":
            weights = rng.uniform(0.1, 2.0, n)
        case "zeros":
            weights = (rng.uniform(size=n) < 0.7) * 1.0
        case "uneven":
            weights = 10.0 ** rng.uniform(-9, 9, n)
    assume(weights is None or weights.any())
    return rows, weights, k, seed


def a_start(rows: np.ndarray, kind: str, k: int, seed: int) -> Mixture:
    """Some rows as means, normals as wide as the data."""
    rng = np.random.default_rng([seed, 1])
    means = rows[rng.choice(len(rows), k, replace=False)]
    precision = 1.0 / np.maximum(rows.var(axis=0).max(), 1e-12)
    precisions = in_shape(kind, np.repeat(np.eye(rows.shape[1])[None] * precision, k, axis=0))
    return Mixture.of(COVARIANCE_MODELS[kind], rng.dirichlet(np.full(k, 5.0)), means, precisions)


def allowed_fall(state: State, context: FitContext) -> float:
    """What rounding alone may take from the objective in one iteration.

    Each of two objectives is off by the bound on its log-densities, and by its own rounding.  And
    an M-step finds covariances to some u (rho + |mu|)^2, so to delta, that times the largest
    precision, in the narrowest direction: a quarter of delta^2 in each of D directions below the
    maximum.  It counts only where a component is some 1e5 times narrower than the data.
    """
    mixture = state.mixture
    size = (context.spread + np.linalg.norm(mixture.means, axis=1)) ** 2
    delta = np.finfo(float).eps * size * mixture.covariances.max_eigenvalue_bound()
    curvature = 0.25 * mixture.n_features * (mixture.weights @ delta**2)
    return float(2 * TOLERANCE + 1e-12 * abs(state.objective) + curvature)


@every_structure
@pytest.mark.parametrize("solver", [EM, Squarem])
@pytest.mark.parametrize("reg_covar", REGS)
@laws(20)
@given(example=torture())
def test_the_objective_never_falls(
    kind: str, solver: type[EM | Squarem], reg_covar: float, example: Any
) -> None:
    """All along a run, whatever the data; and never NaN."""
    rows, _, k, seed = example
    blocks = in_two_blocks(example)
    context = setting_of(blocks, COVARIANCE_MODELS[kind], reg_covar)
    never_falls(blocks, context, context.frame.enter(a_start(rows, kind, k, seed)), solver)


TWO_ROWS = np.array([[34558.4, 82161.8], [33043.7, -130315.7]])
UNEVEN = np.array([0.6925, 0.9043])
COPIED = np.array([[2.041, -2.5557, 4.082], [-0.5678, -0.4526, -1.1356]])


@pytest.mark.parametrize("kind", [*(each.name for each in DECOMPOSED), *FACTORS])
@laws(8)
@example(example=(TWO_ROWS, UNEVEN, 1, 1), solver=Squarem, reg=0.0)  # noise below rounding
@example(example=(COPIED, None, 2, 3), solver=Squarem, reg=1e-6)  # below what is added
@given(example=torture(), solver=st.sampled_from([EM, Squarem]), reg=st.sampled_from(REGS))
def test_nor_does_that_of_parts_in_common_or_of_factors(
    kind: str, solver: type[EM | Squarem], reg: float, example: Any
) -> None:
    rows, _, k, seed = example
    blocks, model, d = in_two_blocks(example), COVARIANCE_TYPES[kind], rows.shape[1]
    rng = np.random.default_rng([seed, 1])
    if isinstance(model, Factor):
        assume(d > 1)
        model = model.sized(1)
    context = setting_of(blocks, model, reg)
    means = context.frame.rows(rows[rng.choice(len(rows), k, replace=False)], np.empty((d, k))).T
    covariances = model.of_variances(np.ones(d), k)
    if isinstance(model, Factor):  # from none there is no way to any
        covariances = model.made(np.ones((k, d)), rng.normal(size=(k, d, 1)))
    never_falls(
        blocks, context, Mixture(rng.dirichlet(np.full(k, 5.0)), means, covariances), solver
    )


def in_two_blocks(example: Any) -> list[Block]:
    """The rows, half and half."""
    rows, weights, _, _ = example
    half = len(rows) // 2
    return [
        Block(s, rows[s:e], None if weights is None else weights[s:e])
        for s, e in ((0, half), (half, len(rows)))
    ]


def never_falls(
    blocks: list[Block], context: FitContext, start: Mixture, solver: type[EM | Squarem]
) -> None:
    """Assert that of 15 iterations."""

    def sweep(fn: Any, given: Any) -> Any:
        return tree_sum(fn(block, given) for block in blocks)

    for (advanced,) in run_all(sweep, [solver().init(context, start, StopRule(15))]):
        state = advanced.best
        mixture = state.mixture
        for part in (
            mixture.weights,
            mixture.means,
            mixture.covariances.values,
            mixture.covariances.precisions_cholesky,
        ):
            assert np.isfinite(part).all()
        assert np.isfinite([state.objective, state.score]).all()
        assert mixture.weights.sum() == pytest.approx(1.0, rel=1e-12)
        assert (mixture.weights >= 0).all()
        assert (mixture.variances >= FLOOR * (1 - 1e-3)).all()
        assert advanced.change >= -allowed_fall(state, context)
    assert len(advanced.trace) == 15
    first = evaluate(sweep, [context], [Trial(start)])[0]
    assert [advanced.trace[0]] == [first.objective]


@every_structure
@pytest.mark.parametrize("solver", [EM, Squarem])
def test_runs_side_by_side_are_runs_alone(kind: str, solver: type[EM | Squarem]) -> None:
    """Mixtures that share sweeps do not touch each other; one that has stopped stays."""
    rng = np.random.default_rng(0)
    rows = some_rows(400, 2, rng)
    blocks = [Block(0, rows)]
    context = setting_of(blocks, COVARIANCE_MODELS[kind], 1e-6)
    starts = [context.frame.enter(a_start(rows, kind, 3, seed)) for seed in range(4)]

    def sweep(fn: Any, given: Any) -> Any:
        return fn(blocks[0], given)

    stop = StopRule(300, tol=1e-4)
    *_, together = run_all(sweep, [solver().init(context, start, stop) for start in starts])
    lengths_seen = set()
    for start, shared in zip(starts, together, strict=True):
        *_, (alone,) = run_all(sweep, [solver().init(context, start, stop)])
        assert len(alone.trace) == len(shared.trace)
        np.testing.assert_allclose(alone.trace, shared.trace, rtol=1e-9)
        ours, theirs = alone.best.mixture.means, shared.best.mixture.means
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # slow ways magnify rounding
        lengths_seen.add(len(alone.trace))
    assert len(lengths_seen) > 1


@pytest.mark.parametrize("kind", [kind for kind in COVARIANCE_MODELS if kind != "tied"])
@pytest.mark.parametrize("center", [0.0, 1e3])
def test_rows_of_another_spread_are_noticed(kind: str, center: float) -> None:
    """Those of the first pass are not, though the sweep's sums are about other points."""
    rng = np.random.default_rng(0)
    rows = some_rows(400, 3, rng) + center
    context = setting_of([Block(0, rows)], COVARIANCE_MODELS[kind], 1e-6)
    start = Trial(context.frame.enter(a_start(rows, kind, 3, 0)))
    evaluate(lambda fn, given: fn(Block(0, rows), given), [context], [start])
    wider = rows.mean(axis=0) + 1.001 * (rows - rows.mean(axis=0))
    with pytest.raises(DataError, match="not those of the first pass"):
        evaluate(lambda fn, given: fn(Block(0, wider), given), [context], [start])


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_many_features_take_no_square_matrix(kind: str) -> None:
    features = 10_000
    rows = np.random.default_rng(0).normal(size=(100, features))
    tracemalloc.start()
    GaussianMixture(
        2,
        covariance_type=kind,
        strategy="em",
        init_params="random_from_data",
        max_iter=2,
        tol=1e9,
        random_state=0,
    ).fit(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * features**2 / 2


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
