"""Standard errors: against analytic information, numerical Hessians and simulated data."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client

import dgmm
from dgmm import engine
from dgmm.cli.commands import main
from dgmm.inference import standard_errors
from dgmm.inference.information import Query, information
from dgmm.inference.layouts import LAYOUTS
from dgmm.kernels.observation import Marginal
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

L = np.longdouble


def rows_of(count: int, seed: int = 0, holes: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 2)) @ np.array([[1.0, 0.4], [0, 0.7]])
    rows[: count // 3] = rng.normal(size=(count // 3, 2)) * [0.6, 1.5] + [3, 2]
    rows[rng.random(rows.shape) < holes] = np.nan
    return rows


def dense(kind: str, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances of two components of two features, of free coordinates."""
    weights = np.exp(np.array([theta[0], 0], L))
    means, rest = theta[1:5].reshape(2, 2), theta[5:]
    entries = {
        "full": lambda: rest.reshape(2, 3),
        "tied": lambda: np.stack([rest, rest]),
        "diag": lambda: np.stack([[a, L(0), b] for a, b in rest.reshape(2, 2)]),
        "spherical": lambda: np.stack([[a, L(0), a] for a in rest]),
    }[kind]()
    return weights / weights.sum(), means, entries


def log_densities(kind: str, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each row, by formulas of 2 x 2 matrices, in extended precision."""
    weights, means, entries = dense(kind, theta)
    found = []
    for pi, mean, (a, b, c) in zip(weights, means, entries, strict=True):
        x, y = (rows.astype(L) - mean).T
        whole = -(c * x * x - 2 * b * x * y + a * y * y) / (2 * (a * c - b * b))
        whole -= np.log(2 * L(np.pi)) + np.log(a * c - b * b) / 2
        first = -x * x / (2 * a) - np.log(2 * L(np.pi) * a) / 2
        second = -y * y / (2 * c) - np.log(2 * L(np.pi) * c) / 2
        own = np.where(np.isnan(x), second, np.where(np.isnan(y), first, whole))
        found.append(np.log(pi) + own)
    return np.asarray(np.logaddexp(*found))


def derivatives(
    function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First derivatives (n, p) of each row, and second (p, p) of their sum, by differences."""
    step = L("1e-4")
    moves = np.eye(len(theta), dtype=L) * step
    first = np.stack([(function(theta + m) - function(theta - m)) / (2 * step) for m in moves], 1)
    second = np.empty((len(theta),) * 2, L)
    for i, a in enumerate(moves):
        for j, b in enumerate(moves[: i + 1]):
            up = function(theta + a + b) - function(theta + a - b)
            down = function(theta - a + b) - function(theta - a - b)
            second[i, j] = second[j, i] = (up - down).sum() / (4 * step * step)
    return first, second


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_information_is_that_of_numerical_derivatives(kind: str, holes: float) -> None:
    """Away from an optimum, too, with weights and holes."""
    rng = np.random.default_rng(1)
    rows = rows_of(60, holes=holes)
    rows = rows[~np.isnan(rows).all(axis=1)]
    weights = rng.integers(0, 4, len(rows)).astype(float)
    covariances = {"full": [1.1, 0.3, 0.8, 0.5, -0.2, 1.9], "tied": [1.2, 0.2, 0.9]}
    rest = covariances.get(kind, [1.1, 0.8, 0.5, 1.9] if kind == "diag" else [0.9, 1.4])
    theta = np.array([0.7, -0.2, 0.1, 2.8, 2.2, *rest], L)
    share, means, entries = (each.astype(float) for each in dense(kind, theta))
    symmetric = np.array([[[a, b], [b, c]] for a, b, c in entries])
    own = {"full": symmetric, "tied": symmetric[0], "diag": entries[:, ::2]}
    values = own.get(kind, entries[:, 0])
    model = dgmm.GaussianMixture.from_parameters(share, means, values, covariance_type=kind)
    frame = Frame(np.zeros(2), np.ones(2))
    query = Query(model.mixture_, frame, Marginal())
    found = information(Block(0, rows, weights), query)
    first, second = derivatives(lambda at: log_densities(kind, at, rows) * weights.astype(L), theta)
    per_row = np.divide(first, weights[:, None], where=weights[:, None] > 0, out=0 * first)
    close = {"rtol": 2e-6, "atol": 2e-6 * float(abs(second).max())}
    np.testing.assert_allclose(found.outer, (first.T @ per_row).astype(float), **close)
    np.testing.assert_allclose(found.squared, (first.T @ first).astype(float), **close)
    np.testing.assert_allclose(found.complete + found.outer, -second.astype(float), **close)
    assert found.rows == (weights > 0).sum()


def test_information_has_the_digits_of_doubles() -> None:
    """Against second derivatives in 40 digits, of the log-likelihood as a textbook writes it."""
    rows = rows_of(7)
    theta = [0.7, -0.2, 0.1, 2.8, 2.2, 1.1, 0.3, 0.8, 0.5, -0.2, 1.9]

    def log_likelihood(*at: mp.mpf) -> mp.mpf:
        total = mp.mpf(0)
        for x, y in rows.tolist():
            density = mp.mpf(0)
            for k, weight in enumerate((1 / (1 + mp.exp(-at[0])), 1 / (1 + mp.exp(at[0])))):
                (u, v), (a, b, c) = at[1 + 2 * k : 3 + 2 * k], at[5 + 3 * k : 8 + 3 * k]
                u, v, determinant = x - u, y - v, a * c - b * b
                square = (c * u * u - 2 * b * u * v + a * v * v) / determinant
                density += weight * mp.exp(-square / 2) / (2 * mp.pi * mp.sqrt(determinant))
            total += mp.log(density)
        return total

    expected = np.empty((11, 11))
    with mp.workdps(40):
        point, step = [mp.mpf(each) for each in theta], mp.mpf("1e-9")

        def moved(i: int, j: int, a: int, b: int) -> mp.mpf:
            there = list(point)
            there[i] += a * step
            there[j] += b * step
            return log_likelihood(*there)

        for i in range(11):
            for j in range(i + 1):
                signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
                found = sum(a * b * moved(i, j, a, b) for a, b in signs) / (4 * step * step)
                expected[i, j] = expected[j, i] = -found
    share, means, entries = (each.astype(float) for each in dense("full", np.array(theta, L)))
    values = np.array([[[a, b], [b, c]] for a, b, c in entries])
    model = dgmm.GaussianMixture.from_parameters(share, means, values)
    query = Query(model.mixture_, Frame(np.zeros(2), np.ones(2)), Marginal())
    told = information(Block(0, rows), query)
    np.testing.assert_allclose(told.complete + told.outer, expected, rtol=1e-10, atol=1e-10)


def test_one_normal_has_its_analytic_errors() -> None:
    """Var mean = S / n, Var S_ij = (S_ii S_jj + S_ij^2) / n (Wishart), at the optimum."""
    rows = rows_of(500) * [1e5, 1e-4] + [1e7, 3]
    model = dgmm.GaussianMixture(reg_covar=0).fit(rows)
    errors = model.standard_errors(rows)
    s = model.covariances_[0]
    np.testing.assert_allclose(errors.means[0], np.sqrt(np.diagonal(s) / 500), rtol=1e-6)
    wishart = np.sqrt((np.outer(np.diagonal(s), np.diagonal(s)) + s**2) / 500)
    np.testing.assert_allclose(errors.covariances[0], wishart, rtol=1e-6)
    assert errors.weights.tolist() == [0.0]
    assert errors.covariance.shape == (6, 6)
    slopes = np.eye(6)
    own = [*errors.weights, *errors.means[0], *errors.covariances[0][np.triu_indices(2)]]
    np.testing.assert_allclose(errors.of(slopes), own)


def test_intervals_cover() -> None:
    """95 % intervals hold means and weights as they should; of 500 data sets, 93 to 96 % do."""
    truth = dgmm.GaussianMixture.from_parameters(
        [0.4, 0.6], [[0.0], [4.0]], [[1.0], [1.5]], covariance_type="diag"
    )
    held: dict[Any, list[bool]] = {kind: [] for kind in standard_errors.KINDS}
    for seed in range(25):
        rows, _ = truth.set_params(random_state=seed).sample(400)
        model = dgmm.GaussianMixture(2, covariance_type="diag", strategy="em", n_jobs=1)
        model.set_params(means_init=truth.means_, weights_init=truth.weights_, tol=1e-6)
        model.fit(rows)
        for kind, own in held.items():
            errors = model.standard_errors(rows, kind=kind)
            own += (abs(model.means_ - truth.means_) < 1.96 * errors.means)[:, 0].tolist()
            own.append(abs(model.weights_ - truth.weights_)[0] < 1.96 * errors.weights[0])
    assert all(0.85 < np.mean(own) < 1.0 for own in held.values()), held


def test_weights_are_repetitions_and_engines_agree(
    clusters: Mapping[int, Client], tmp_path: Any
) -> None:
    rows = rows_of(900)
    repeats = np.random.default_rng(0).integers(0, 3, 900)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows, sample_weight=repeats.astype(float))
    for kind in ("observed", "empirical"):
        weighed = model.standard_errors(rows, repeats.astype(float), kind=kind)
        repeated = model.standard_errors(np.repeat(rows, repeats, axis=0), kind=kind)
        np.testing.assert_allclose(weighed.covariance, repeated.covariance, rtol=1e-7)
    np.save(tmp_path / "rows.npy", rows)
    dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(4 << 10)
    here = model.standard_errors(dataset)
    there = model.standard_errors(dataset, sweep=engine.over(dataset, clusters[2]))
    assert dataset.blocks > 2
    assert (here.covariance == there.covariance).all()
    np.testing.assert_allclose(here.covariance, model.standard_errors(rows).covariance, rtol=1e-9)


def test_holes_are_dropped_or_told() -> None:
    rows = rows_of(600, holes=0.2)
    whole = rows[~np.isnan(rows).any(axis=1)]
    model = dgmm.GaussianMixture(2, missing="drop", random_state=0).fit(rows)
    np.testing.assert_allclose(
        model.standard_errors(rows).covariance, model.standard_errors(whole).covariance, rtol=1e-9
    )
    assert model.standard_errors(rows).rows == len(whole)
    seen = model.set_params(missing="marginalize").standard_errors(rows)
    assert seen.rows == (~np.isnan(rows).all(axis=1)).sum()
    with pytest.raises(dgmm.DataError, match="missing"):
        model.set_params(missing="raise").standard_errors(rows)


def test_what_is_not_told_is_refused() -> None:
    rows = rows_of(300)
    student = dgmm.GaussianMixture(tails="student").fit(rows)
    noisy = dgmm.GaussianMixture(noise_component=True).fit(rows)
    bayes = dgmm.BayesianGaussianMixture(2, random_state=0).fit(rows)
    plain = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    fixed = dgmm.GaussianMixture(
        1, means_init=[[1.0, 1]], fixed={"means": [0]}, random_state=0
    ).fit(rows)
    factor = dgmm.GaussianMixture(covariance_type="EEI").fit(rows)
    for model, told in (
        (student, "heavy tails"),
        (noisy, "noise component"),
        (bayes, "prior='variational'"),
        (fixed, "fixed parameters"),
        (factor, "not 'EEI'"),
    ):
        with pytest.raises(dgmm.UsageError, match=told):
            model.standard_errors(rows)
    with pytest.raises(dgmm.UsageError, match="rows with noise"):
        plain.standard_errors(dgmm.open_dataset(rows, noise=np.ones(rows.shape)))
    with pytest.raises(dgmm.UsageError, match="kind"):
        plain.standard_errors(rows, kind="exact")  # type: ignore[arg-type]
    with pytest.raises(dgmm.UsageError, match="must have shape"):
        plain.standard_errors(rows).of([[1.0]])
    told = r"not positive definite.* fitted to \d+ rows, and these are 5"
    with pytest.raises(dgmm.DataError, match=told):
        plain.standard_errors(rows[:5], kind="empirical")
    wide = Mixture(*mixture_of(60))
    with pytest.raises(dgmm.UsageError, match="1,890 free parameters"):
        standard_errors.check(wide)
    count = 3_000_000  # pairs of these would take 72 TB
    variances = COVARIANCE_MODELS["diag"].of_variances(np.ones(count), 1)
    with pytest.raises(dgmm.UsageError, match="6,000,000 free parameters"):
        standard_errors.check(Mixture(np.ones(1), np.zeros((1, count)), variances))


def test_what_does_not_vary_has_no_error() -> None:
    """The sum of all weights is 1, and multiples of it, whatever they are."""
    rows = np.concatenate([rows_of(300), rows_of(200, seed=1) + 9])
    errors = dgmm.GaussianMixture(4, random_state=0).fit(rows).standard_errors(rows)
    sums = np.zeros((50, len(errors.covariance)))
    sums[:, :4] = np.random.default_rng(0).uniform(-9, 9, size=(50, 1))
    np.testing.assert_allclose(errors.of(sums), 0.0, atol=1e-6)


@pytest.mark.parametrize("told", ["errors", "labels", "prior"])
def test_what_the_fit_knew_and_is_not_told_now_is_refused(told: str) -> None:
    """These rows and parameters alone would make errors of another model than the fitted one."""
    rows = rows_of(300)
    beside: dict[str, dict[str, Any]] = {
        "errors": {"noise": np.full(rows.shape, 0.3)},
        "labels": {"labels": np.where(np.arange(300) < 30, 1, -1)},
        "prior": {},
    }
    prior = "conjugate" if told == "prior" else None
    model = dgmm.GaussianMixture(2, prior=prior, random_state=0).fit(rows, **beside[told])  # type: ignore[arg-type]
    model.set_params(prior=None)
    for ask in (model.standard_errors, model.bootstrap, model.drift):
        with pytest.raises(dgmm.UsageError, match=f"not told .*{told}"):
            ask(rows)


def mixture_of(n_features: int) -> tuple[Any, ...]:
    model = dgmm.GaussianMixture.from_parameters(
        [1.0], np.zeros((1, n_features)), np.eye(n_features)[None]
    )
    return model.weights_, model.means_, model.mixture_.covariances


def test_the_command_tells_errors(tmp_path: Any) -> None:
    rows = rows_of(400)
    np.save(tmp_path / "rows.npy", rows)
    model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
    model.save(tmp_path / "model.dgmm")
    words = ["errors", str(tmp_path / "rows.npy"), "-m", str(tmp_path / "model.dgmm"), "--quiet"]
    told = CliRunner().invoke(main, [*words, "--json", "--kind", "sandwich"])
    assert told.exit_code == 0, told.output
    found, expected = json.loads(told.output), model.standard_errors(rows, kind="sandwich")
    np.testing.assert_allclose(found["means"], expected.means, rtol=1e-9)
    np.testing.assert_allclose(found["covariances"], expected.covariances, rtol=1e-9)
    assert (found["kind"], found["rows"]) == ("sandwich", 400)
    shown = CliRunner().invoke(main, words).output
    plain = model.standard_errors(rows)
    assert f"{model.weights_[0]:.4f} ± {plain.weights[0]:.4f}" in shown
