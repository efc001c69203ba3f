"""The numbers survive: data on which naive float64 formulas fail, against sixty digits.

Parameters are right to the tolerances of ``assert_right``, or an error or a warning says what is
wrong with the data; never NaN.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dgmm import DataError, DegenerateWarning, GaussianMixture
from dgmm.em.degenerate import ALONE
from dgmm.model.arrays import FLOOR
from dgmm.model.covariance import COVARIANCE_MODELS

ITERATIONS = 6
U = np.finfo(float).eps
TOLERANCE = 1e-9
"""What the kernel promises of a log-density; not imported, so that it can't be loosened."""

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


# ---------------------------------------------------------------- EM in sixty digits

exact = np.frompyfunc(mp.mpf, 1, 1)
exp, log, sqrt = (np.frompyfunc(f, 1, 1) for f in (mp.exp, mp.log, mp.sqrt))


def inverse_and_log_det(matrix: np.ndarray) -> tuple[np.ndarray, Any]:
    inverse = np.array(mp.inverse(mp.matrix(matrix.tolist())).tolist(), dtype=object)
    return inverse, mp.log(mp.det(mp.matrix(matrix.tolist())))


def restrict(kind: str, covariances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The maximum-likelihood covariances (K, D, D) of a structure, from those without one."""
    d = covariances.shape[1]
    if kind == "tied":
        shared = (counts[:, None, None] * covariances).sum(axis=0) / counts.sum()
        return np.stack([shared] * len(covariances))
    if kind == "diag":
        return covariances * np.eye(d, dtype=int)
    if kind == "spherical":
        return np.stack([np.trace(c) / d * np.eye(d, dtype=int) for c in covariances])
    return covariances


@dataclass(frozen=True)
class Right:
    """The parameters and objectives that EM must give; arrays of sixty-digit numbers."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    trace: list[Any]


def reference_em(
    rows: np.ndarray,
    row_weights: np.ndarray,
    means: np.ndarray,
    precisions: np.ndarray,
    kind: str,
    reg: float,
) -> Right:
    """EM, written densely: densities, responsibilities, weighted means and covariances.

    With ``reg`` added to variances, each density is multiplied by exp(-reg tr(Sigma^-1) / 2), so
    that this is the exact M-step.
    """
    x, w = exact(rows), exact(row_weights)
    (n, d), k = rows.shape, len(means)
    weights, means = exact(np.full(k, 1.0)) / k, exact(means)
    covariances = np.stack([inverse_and_log_det(p)[0] for p in exact(precisions)])
    trace = []
    for _ in range(ITERATIONS):
        joint = np.empty((n, k), dtype=object)
        for j in range(k):
            inverse, log_det = inverse_and_log_det(covariances[j])
            away = x - means[j]
            square = ((away @ inverse) * away).sum(axis=1) + mp.mpf(reg) * np.trace(inverse)
            constant = mp.log(weights[j]) - (log_det + d * mp.log(2 * mp.pi)) / 2
            joint[:, j] = exp(constant - square / 2)
        density = joint.sum(axis=1)
        trace.append((w * log(density)).sum() / w.sum())
        shares = joint / density[:, None] * w[:, None]
        counts = shares.sum(axis=0)
        weights, means = counts / counts.sum(), (shares.T @ x) / counts[:, None]
        spread = [
            ((x - means[j]) * shares[:, j : j + 1]).T @ (x - means[j]) / counts[j] for j in range(k)
        ]
        covariances = restrict(kind, np.stack(spread), counts) + mp.mpf(reg) * np.eye(d, dtype=int)
    return Right(weights, means, covariances, trace)


@pytest.fixture(autouse=True)
def sixty_digits() -> Any:
    with mp.workdps(60):
        yield


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class Case:
    """Rows, their weights, and where to start: means, and a spread for each component (K, D)."""

    rows: np.ndarray
    means: np.ndarray
    spreads: np.ndarray
    row_weights: np.ndarray | None = None
    reg: float = 0.0


def base(n: int = 60, d: int = 2) -> np.ndarray:
    """Two overlapping groups; multiples of 2^-20, so that shifts up to 2^32 are exact."""
    rng = np.random.default_rng(12)
    groups = np.where(np.arange(n) % 3, 1.5, -1.5)[:, None]
    rows = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3) + groups
    return np.round(rows * 2**20) / 2**20


def shifted(by: float) -> Case:
    rows = base() + by
    return Case(rows, np.array([[-1.0, -1], [1, 1]]) + by, np.ones((2, 2)))


def scaled(*by: float) -> Case:
    rows = base() * by
    return Case(rows, np.array([[-1.0, -1], [1, 1]]) * by, np.ones((2, 2)) * by)


def narrow(by: float, shift: float = 0.0) -> Case:
    """Twenty rows within ``by`` of each other, among forty spread over 1."""
    rng = np.random.default_rng(5)
    rows = np.concatenate([base(40), 0.7 + by * rng.normal(size=(20, 2))]) + shift
    means = np.array([[0.0, 0], [0.7, 0.7]]) + shift
    return Case(rows, means, np.array([[1.0, 1], [1e-3, 1e-3]]))


def skewed(condition: float) -> Case:
    """The covariance of all rows has about this condition number, in no column's direction."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    rng = np.random.default_rng(2)
    rows = np.stack([base()[:, 0], rng.normal(size=60) / np.sqrt(condition)], axis=1) @ turn.T
    return Case(rows, rows[[0, 7]], np.ones((2, 2)))


def duplicated() -> Case:
    rows = np.repeat(base(12), [9, 1, 1, 1, 12, 3, 1, 2, 1, 1, 20, 8], axis=0)
    return Case(rows, np.array([[-1.0, -1], [1, 1]]), np.ones((2, 2)))


def flat_column() -> Case:
    rows = np.insert(base(), 1, 0.1, axis=1)
    return Case(rows, rows[[0, 7]], np.ones((2, 3)), reg=1e-6)


def collinear() -> Case:
    rows = base()[:, [0, 1, 0]] * [1, 1, 2]
    return Case(rows, rows[[0, 7]], np.ones((2, 3)), reg=1e-6)


def heavy(weight: float) -> Case:
    weights = np.ones(60)
    weights[3] = weight
    return Case(base(), np.array([[-1.0, -1], [1, 1]]), np.ones((2, 2)), weights, reg=1e-6)


def uneven() -> Case:
    weights = 10.0 ** np.random.default_rng(1).uniform(-4, 4, 60)
    return Case(base(), np.array([[-1.0, -1], [1, 1]]), np.ones((2, 2)), weights, reg=1e-3)


def one_column() -> Case:
    return Case(base(d=1) + 1e6, np.array([[-1.0], [1.0]]) + 1e6, np.ones((2, 1)))


def one_component() -> Case:
    return Case(base() + 1e6, np.full((1, 2), 1e6), np.ones((1, 2)))


CASES: dict[str, Callable[[], Case]] = {
    "as it is": lambda: shifted(0.0),
    "shifted by 1e4": lambda: shifted(1e4),
    "shifted by 1e6": lambda: shifted(1e6),
    "shifted by 1e8": lambda: shifted(1e8),
    "shifted by 1e12": lambda: shifted(1e12),
    "columns of 1e-6 and 1e6": lambda: scaled(1e-6, 1e6),
    "all of 1e-9": lambda: scaled(1e-9, 1e-9),
    "all of 1e9": lambda: scaled(1e9, 1e9),
    "a component of 1e-4": lambda: narrow(1e-4),
    "a component of 1e-4, shifted by 1e6": lambda: narrow(1e-4, 1e6),
    "a component of 1e-6": lambda: narrow(1e-6),
    "condition 1e6": lambda: skewed(1e6),
    "condition 1e12": lambda: skewed(1e12),
    "duplicates": duplicated,
    "a constant column": flat_column,
    "collinear columns": collinear,
    "a row of weight 1e12": lambda: heavy(1e12),
    "uneven weights": uneven,
    "D = 1": one_column,
    "K = 1": one_component,
}


def precisions_of(case: Case, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The starting precisions as (K, D, D), and in the structure's shape."""
    diagonal = 1.0 / case.spreads**2
    if kind == "tied":
        diagonal = np.repeat(diagonal[:1], len(diagonal), axis=0)
    if kind == "spherical":
        diagonal = np.repeat(diagonal.min(axis=1)[:, None], diagonal.shape[1], axis=1)
    dense = diagonal[:, :, None] * np.eye(diagonal.shape[1])
    shapes = {
        "full": dense,
        "tied": dense[0],
        "diag": diagonal,
        "spherical": diagonal[:, 0],
    }
    return dense, shapes[kind]


def fitted(case: Case, kind: str, **more: Any) -> GaussianMixture:
    k = len(case.means)
    model = GaussianMixture(
        k,
        strategy="em",
        covariance_type=kind,
        weights_init=np.full(k, 1 / k),
        means_init=case.means,
        precisions_init=precisions_of(case, kind)[1],
        reg_covar=case.reg,
        tol=0,
        max_iter=ITERATIONS,
        precision="float64",
        **more,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DegenerateWarning)  # see test_parameters_are_right
        return model.fit(case.rows, sample_weight=case.row_weights)


def dense_covariances(model: GaussianMixture) -> np.ndarray:
    return model.mixture_.covariances.dense()


def units(case: Case, kind: str) -> np.ndarray:
    """The columns' spreads (D,)."""
    w = np.ones(len(case.rows)) if case.row_weights is None else case.row_weights
    centre = (w / w.sum()) @ case.rows
    column = np.sqrt((w / w.sum()) @ (case.rows - centre) ** 2)
    column = np.where(column > 1e-9 * np.abs(centre), column, 1.0)
    return np.full_like(column, np.sqrt(np.mean(column**2))) if kind == "spherical" else column


def assert_right(model: GaussianMixture, right: Right, case: Case) -> None:
    """The parameters equal ``right``, each measured in its own component's spread.

    The kernel bounds the error of a log-density by TOLERANCE; responsibilities, and so parameters
    in units of their component's spread, are then off by a few times it in each iteration: ten
    times in six iterations is the allowance, as EM contracts.  To this comes what no float64 can
    do better: a mean is stored to u |mean|, a row in the frame to u; and the entries of a
    covariance to u times the component's own largest variance, which in its narrowest direction is
    u times the condition number.  (In units of the columns' spread; the factor 16 is (rho + |mu|)^2
    of these data in those units.)  So a component narrow in all directions has no excuse.  A bent
    covariance enters log-densities, so responsibilities and all other parameters, in proportion.
    """
    column = units(case, model.covariance_type)
    scale = exact(1.0 / column)
    worst_bend = 0.0
    for k in range(len(right.weights)):
        unit = right.covariances[k] * scale[:, None] * scale
        lower = np.array(mp.cholesky(mp.matrix(unit.tolist())).tolist(), dtype=object)
        white = np.array(mp.inverse(mp.matrix(lower.tolist())).tolist(), dtype=object)
        stiff = float((white * white).sum())  # at least the largest eigenvalue of the precision
        bend = 16 * U * (float(np.trace(unit)) * stiff + np.sqrt(stiff))
        worst_bend = max(worst_bend, bend)
        moved = white @ ((exact(model.means_[k]) - right.means[k]) * scale)
        stored = 2 * U * float(np.abs(case.rows).max() / column.min()) * np.sqrt(stiff)
        assert np.abs(moved).max() < 10 * TOLERANCE + bend + stored
        found = exact(dense_covariances(model)[k]) * scale[:, None] * scale
        error = white @ found @ white.T - np.eye(len(white), dtype=int)
        assert np.abs(error).max() < 10 * TOLERANCE + bend
        off = abs(exact(model.weights_[k]) - right.weights[k])
        assert off < (10 * TOLERANCE + bend) * right.weights[k] + 10 * U
    for ours, theirs in zip(model.lower_bounds_, right.trace, strict=True):
        assert abs(ours - theirs) < 10 * TOLERANCE + worst_bend + 1e-12 * abs(theirs)


def reference(case: Case, kind: str) -> Right:
    w = np.ones(len(case.rows)) if case.row_weights is None else case.row_weights
    dense, _ = precisions_of(case, kind)
    return reference_em(case.rows, w, case.means, dense, kind, case.reg)


@every_structure
@pytest.mark.parametrize("name", CASES)
def test_parameters_are_right(kind: str, name: str) -> None:
    """After six iterations, whatever was done to the data; components without spread are named."""
    case = CASES[name]()
    model, right = fitted(case, kind), reference(case, kind)
    assert_right(model, right, case)
    scale = exact(1.0 / units(case, kind))
    for k, covariance in enumerate(right.covariances):
        bare = covariance - mp.mpf(case.reg) * np.eye(len(scale), dtype=int)
        least = min(mp.eigsy(mp.matrix((bare * scale[:, None] * scale).tolist()))[0])
        alone = ALONE * case.reg * float(max(scale)) ** 2  # what reg_covar alone would hold up
        limit = max(FLOOR, alone)
        if not limit / 1000 < least < 1000 * limit:
            assert (k in model.fit_info_["singular"]) == (least < limit)


@every_structure
@pytest.mark.parametrize("by", [1e4, 1e6, 1e8])
def test_a_shift_moves_the_means_and_nothing_else(kind: str, by: float) -> None:
    """The shift is exact, so the only loss is a mean's rounding to u times the shift."""
    still, moved = fitted(shifted(0.0), kind), fitted(shifted(by), kind)
    np.testing.assert_allclose(moved.covariances_, still.covariances_, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(moved.weights_, still.weights_, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(moved.lower_bounds_, still.lower_bounds_, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(moved.means_ - by, still.means_, rtol=0, atol=TOLERANCE + 2 * U * by)
    # An answer comes from the rounded means: off by their rounding, times a slope below 10.
    rows = shifted(0.0).rows
    np.testing.assert_allclose(
        moved.score_samples(rows + by), still.score_samples(rows), atol=TOLERANCE + 20 * U * by
    )


@every_structure
@pytest.mark.parametrize(("count", "shift"), [(1000, 0.0), (1000, 1e10), (40_000, 1e12)])
def test_rows_far_from_zero_are_those_of_the_first_pass(
    kind: str, count: int, shift: float
) -> None:
    """Means are then rounded by much of the spread, which must not look like other rows."""
    rng = np.random.default_rng(3)
    rows = np.sort(rng.normal(size=(count, 2)), axis=0) + shift
    rows = np.column_stack([rows, np.full(count, 1e9 + 0.1)])
    model = GaussianMixture(2, covariance_type=kind, strategy="em", max_iter=5, random_state=0)
    assert named(finite_fit(model, rows)) == (set() if kind == "spherical" else {0, 1})
    np.testing.assert_array_equal(model.means_[:, 2], 1e9 + 0.1)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_scale_multiplies_and_nothing_else(kind: str) -> None:
    """Columns times powers of two: the same bits, as the frame takes them out again."""
    by = np.array([2.0**-20, 2.0**20])
    plain, other = fitted(shifted(0.0), kind), fitted(scaled(*by), kind)
    np.testing.assert_array_equal(other.weights_, plain.weights_)
    np.testing.assert_array_equal(other.means_, plain.means_ * by)
    square = by[:, None] * by if kind == "full" else by * by
    np.testing.assert_array_equal(other.covariances_, plain.covariances_ * square)


# ---------------------------------------------------------------- what can't be right


def finite_fit(model: GaussianMixture, rows: np.ndarray, **more: Any) -> list[str]:
    """Fit, and give what DegenerateWarnings said; any other warning but one is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", DegenerateWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, **more)
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bounds_"):
        assert np.isfinite(getattr(model, name)).all()
    assert model.weights_.sum() == pytest.approx(1.0, rel=1e-12)
    assert np.isfinite(model.score_samples(rows)).all()
    np.testing.assert_allclose(model.predict_proba(rows).sum(axis=1), 1.0, rtol=1e-12)
    assert np.isfinite(model.sample(20)[0]).all()
    return [str(one.message) for one in caught]


def named(messages: list[str]) -> set[int]:
    """The components that warnings name."""
    said = re.compile(
        r"components? ((\d+)(, \d+)*) (?:(?:are|is) singular|ha(?:ve|s) become empty)"
    )
    found = [said.match(message) for message in messages]
    return {int(k) for one in found if one for k in one[1].split(",")}


DEGENERATE: dict[str, Callable[[], np.ndarray]] = {
    "a constant column": lambda: np.insert(base(), 1, 0.1, axis=1),
    "constant columns only": lambda: np.full((30, 2), 0.1),
    "collinear": lambda: base()[:, [0, 1, 0]] * [1, 1, 2],
    "collinear and shifted": lambda: base()[:, [0, 1, 0]] * [1, 1, 2] + 1e8,
    "two distinct rows": lambda: base(2)[np.arange(40) % 2],
    "three distinct rows, shifted": lambda: base(3)[np.arange(40) % 3] + 1e6,
    "as many rows as components": lambda: base(4),
    "more columns than rows": lambda: np.random.default_rng(0).normal(size=(8, 12)),
    "one far row": lambda: np.concatenate([base(), [[1e9, -1e9]]]),
}


@every_structure
@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("method", ["kmeans", "random_from_data"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_rows_never_make_nan(
    kind: str, reg_covar: float, method: str, name: str
) -> None:
    """Four components, however they start: all numbers finite, and no false alarm."""
    args = {"covariance_type": kind, "reg_covar": reg_covar, "init_params": method}
    model = GaussianMixture(4, strategy="em", random_state=0, **args)
    messages = finite_fit(model, DEGENERATE[name]())
    info = model.fit_info_
    assert named(messages) == {*info["empty"], *info["singular"]}
    assert all(re.search("Fit fewer components|Leave .* out", each) for each in messages)


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_is_no_fall_of_the_objective(kind: str, seed: int) -> None:
    """No false alarm where a variance is 1e-12 of the data's, and its rounding 1e-4 of itself.

    The M-step is then off by that, and the objective by its square; reg_covar = 1e-2 is small for
    columns that vary by 1e5.
    """
    rows = np.random.default_rng(seed).normal(size=(3, 4)) * 1e5
    model = GaussianMixture(covariance_type=kind, reg_covar=1e-2, tol=0, random_state=0)
    assert named(finite_fit(model, rows)) == {0}  # 3 rows in 4 columns


@every_structure
@pytest.mark.parametrize("name", ["two distinct rows", "as many rows as components"])
def test_more_components_than_rows_can_bear_are_named(kind: str, name: str) -> None:
    """Without reg_covar each component sits on one row or has none, and the warning says which."""
    model = GaussianMixture(4, covariance_type=kind, reg_covar=0, random_state=0)
    assert named(finite_fit(model, DEGENERATE[name]())) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_constant_column_changes_nothing_else(kind: str) -> None:
    """Without reg_covar: the fit of the other columns, and a warning that names all components.

    The column's density is the same for all rows and components, so it cancels.
    """
    case = shifted(0.0)
    plain = fitted(case, kind)
    rows = np.insert(case.rows, 1, 0.1, axis=1)
    wide = Case(rows, np.insert(case.means, 1, 0.1, axis=1), np.ones((2, 3)))
    model = fitted(wide, kind)
    assert model.fit_info_["singular"] == [0, 1]
    others = np.array([0, 2])
    np.testing.assert_allclose(model.weights_, plain.weights_, rtol=10 * TOLERANCE)
    np.testing.assert_allclose(model.means_[:, others], plain.means_, atol=10 * TOLERANCE)
    np.testing.assert_allclose(model.means_[:, 1], 0.1, rtol=4 * U)
    dense = dense_covariances(model)
    np.testing.assert_allclose(
        dense[:, others[:, None], others], dense_covariances(plain), atol=10 * TOLERANCE
    )
    np.testing.assert_allclose(dense[:, 1, others], 0.0, atol=1e-12)


def test_a_weight_beyond_all_others() -> None:
    """A row of weight 1e300 makes all others nothing: a warning or an error, never NaN."""
    weights = np.ones(60)
    weights[3] = 1e300
    for kind in COVARIANCE_MODELS:
        model = GaussianMixture(2, covariance_type=kind, random_state=0)
        try:
            messages = finite_fit(model, base(), sample_weight=weights)
        except DataError as error:
            assert re.search("overflow|weight", str(error))  # noqa: PT017
        else:
            assert messages


@pytest.mark.parametrize("size", [1e160, 1e300])
def test_rows_whose_squares_overflow_are_refused(size: float) -> None:
    with pytest.raises(DataError, match="rescale them"):
        GaussianMixture(2, random_state=0).fit(base() * size)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_are_named(value: float) -> None:
    rows = base()
    rows[41, 1] = value
    invalid_row = f"NaN or infinity in the rows: {value} at row 41, column 1"
    with pytest.raises(DataError, match=invalid_row):
        GaussianMixture(2, random_state=0).fit(rows)


@every_structure
def test_a_variance_is_never_negative(kind: str) -> None:
    """Two float32 rows, one component: the variances are the obvious ones plus reg_covar."""
    rows = np.array([[9999.0], [0.0]], dtype=np.float32)
    model = GaussianMixture(1, covariance_type=kind, reg_covar=0.1, random_state=0).fit(rows)
    expected = (9999.0 / 2) ** 2 + 0.1
    np.testing.assert_allclose(dense_covariances(model).ravel(), expected, rtol=1e-14)
    two = GaussianMixture(2, covariance_type=kind, reg_covar=0.1, random_state=0)
    with pytest.warns(DegenerateWarning, match="components 0, 1 are singular: .* Fit fewer"):
        two.fit(rows)
    np.testing.assert_allclose(dense_covariances(two).ravel(), 0.1, rtol=1e-7)


@every_structure
@pytest.mark.parametrize("by", [1e-160, 1e-300, 1e-310])
def test_rows_whose_squares_underflow_are_refused_as_that(kind: str, by: float) -> None:
    with pytest.raises(DataError, match="too small: column 0 ranges from"):
        GaussianMixture(2, covariance_type=kind, random_state=0).fit(base() * by)
    column = np.column_stack([base(), base()[:, 0] * by])
    with pytest.raises(DataError, match="too small: column 2"):
        GaussianMixture(2, covariance_type=kind, random_state=0).fit(column)


@every_structure
@pytest.mark.parametrize("by", [1e-140, 1e-100, 1e100, 1e150])
def test_rows_of_any_size_that_squares_can_have_are_fitted_alike(kind: str, by: float) -> None:
    args = {"covariance_type": kind, "strategy": "em", "random_state": 0, "precision": "float64"}
    model, plain = (GaussianMixture(2, **args).fit(base() * each) for each in (by, 1.0))
    np.testing.assert_allclose(model.means_ / by, plain.means_, rtol=1e-9)
    np.testing.assert_allclose(model.covariances_ / by / by, plain.covariances_, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(base() * by), plain.predict(base()))


@every_structure
@pytest.mark.parametrize("far", [1e4, 1e9, 1e12])
@pytest.mark.parametrize("strategy", ["em", "auto"])
def test_one_row_far_away_leaves_the_others_as_they_are(
    kind: str, far: float, strategy: str
) -> None:
    """Its own component has it; the rest is the fit of the rest.

    A tied covariance is that of the rest, times the share of the rows that they are.
    """
    rng = np.random.default_rng(0)
    rest = rng.normal(size=(3000, 2))
    rows = np.vstack([rest, [[far, -far]]])
    begin = {"means_init": [[0.0, 0.0], [far, -far]], "weights_init": [3000 / 3001, 1 / 3001]}
    ones = {
        "full": np.tile(np.eye(2), (2, 1, 1)),
        "tied": np.eye(2),
        "diag": np.ones((2, 2)),
        "spherical": np.ones(2),
    }
    model = GaussianMixture(
        2, covariance_type=kind, strategy=strategy, precisions_init=ones[kind], **begin
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateWarning)  # one row has no spread
        model.fit(rows)
    alone = np.cov(rest.T, bias=True)
    expected = {
        "full": alone,
        "tied": alone * 3000 / 3001,
        "diag": np.diag(np.diag(alone)),
        "spherical": np.eye(2) * np.trace(alone) / 2,
    }[kind]
    found = model.mixture_.covariances.dense()[0]
    np.testing.assert_allclose(model.means_[0], rest.mean(axis=0), atol=1e-9)
    # reg_covar is 1e-6 of the variance of most rows; a tied one's sums lose far^2 u of theirs.
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)
