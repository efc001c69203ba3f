"""Variational Bayes: against scikit-learn's, step by step, and against its own definition."""

import copy
import json
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import sklearn.mixture
from click.testing import CliRunner
from distributed import Client, LocalCluster
from scipy.special import digamma, gammaln
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from dgmm import BayesianGaussianMixture, GaussianMixture, SufficientStatistics, load, select
from dgmm.cli.commands import main
from dgmm.em.variational_prior import VariationalPrior
from dgmm.errors import DgmmError, UsageError
from dgmm.estimators.posterior_parameters import in_sum
from dgmm.model.covariance import COVARIANCE_MODELS

Array = np.ndarray
KINDS = sorted(COVARIANCE_MODELS)
TYPES = ("dirichlet_process", "dirichlet_distribution")
every_structure = pytest.mark.parametrize("kind", KINDS)
every_type = pytest.mark.parametrize("weights", TYPES)
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ATTRIBUTES = (
    *("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"),
    *("weight_concentration_", "mean_precision_", "degrees_of_freedom_"),
    *("weight_concentration_prior_", "mean_precision_prior_", "mean_prior_"),
    *("degrees_of_freedom_prior_", "covariance_prior_"),
)


def groups(n: int, d: int = 3) -> Array:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, d)) * np.linspace(0.5, 2, d)
    rows[: n // 2] += 3
    return rows


def pair(
    kind: str, weights: str, steps: int, rows: Array, **prior: object
) -> tuple[object, object]:
    """scikit-learn's and ours, after so many iterations from one start."""
    how = {
        "n_components": 4,
        "covariance_type": kind,
        "weight_concentration_prior_type": weights,
        "max_iter": steps,
        "tol": 0,
        "reg_covar": 0,
        "init_params": "kmeans",
        "random_state": 0,
        **prior,
    }
    theirs = sklearn.mixture.BayesianGaussianMixture(**how).fit(rows)
    mine = BayesianGaussianMixture(**how, strategy="em", precision="float64").fit(rows)
    return theirs, mine


def priors(kind: str, d: int) -> dict[str, object]:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(d, d))
    full = root @ root.T + np.eye(d)
    return {
        "weight_concentration_prior": 0.3,
        "mean_precision_prior": 2.5,
        "mean_prior": rng.normal(size=d),
        "degrees_of_freedom_prior": d + 1.5,
        "covariance_prior": {"diag": np.diag(full), "spherical": 1.7}.get(kind, full),
    }


@quiet
@pytest.mark.parametrize("given", [False, True])
@every_type
@every_structure
def test_it_equals_scikit_learn_step_by_step(kind: str, weights: str, given: bool) -> None:
    rows = groups(250)
    for steps in (1, 2, 3, 10):
        theirs, mine = pair(kind, weights, steps, rows, **(priors(kind, 3) if given else {}))
        for name in ATTRIBUTES:
            np.testing.assert_allclose(
                np.array(getattr(mine, name)),
                np.array(getattr(theirs, name)),
                rtol=1e-8,
                atol=1e-9,
                err_msg=name,
            )
        np.testing.assert_allclose(mine.predict_proba(rows), theirs.predict_proba(rows), atol=1e-9)
        np.testing.assert_allclose(mine.score_samples(rows), theirs.score_samples(rows), rtol=1e-8)
        np.testing.assert_allclose(mine.score(rows), theirs.score(rows), rtol=1e-8)
        assert (mine.predict(rows) == theirs.predict(rows)).all()


@quiet
@every_type
@every_structure
def test_the_bound_is_scikit_learn_s_and_never_falls(kind: str, weights: str) -> None:
    """Theirs has the responsibilities of before the last M-step: with these, it is the same."""
    rows = groups(200)
    before = pair(kind, weights, 1, rows)[1]
    for steps in (2, 3, 4):
        theirs, mine = pair(kind, weights, steps, rows)
        seen = before.sufficient_statistics_.bound(mine.mixture_)
        np.testing.assert_allclose(in_sum(mine.model_, seen), theirs.lower_bound_, rtol=1e-9)
        assert before.lower_bound_ <= theirs.lower_bound_ <= mine.lower_bound_
        before = mine
    for strategy in ("em", "auto"):
        model = BayesianGaussianMixture(
            6,
            covariance_type=kind,
            weight_concentration_prior_type=weights,
            strategy=strategy,
            random_state=0,
            max_iter=3000,
            tol=1e-7,
            precision="float64",
        ).fit(rows)
        trace = np.array([*model.lower_bounds_, model.lower_bound_])
        assert (np.diff(trace) >= -1e-8).all()
        assert model.converged_


@every_type
def test_the_bound_by_its_definition(weights: str) -> None:
    """The evidence's lower bound of one component, in closed form: it is the evidence itself."""
    rows, d = groups(50), 3
    n = len(rows)
    model = BayesianGaussianMixture(
        1,
        weight_concentration_prior_type=weights,
        reg_covar=0,
        random_state=0,
        strategy="em",
        tol=1e-12,
    ).fit(rows)
    prior_nu, prior_beta = float(d), 1.0
    scale = np.cov(rows.T)
    after = scale + (n - 1) * scale  # the data's mean is the prior's
    nu, beta = prior_nu + n, prior_beta + n

    def log_gamma(freedom: float) -> float:
        return float(sum(gammaln((freedom - i) / 2) for i in range(d)))

    evidence = -0.5 * n * d * np.log(np.pi) + 0.5 * d * np.log(prior_beta / beta)
    evidence += log_gamma(nu) - log_gamma(prior_nu)
    evidence += (
        0.5 * prior_nu * np.linalg.slogdet(scale)[1] - 0.5 * nu * np.linalg.slogdet(after)[1]
    )
    if weights == "dirichlet_process":  # each row is of the first stick, which may be broken
        evidence -= np.log(n + 1)
    np.testing.assert_allclose(model.fit_info_["objective"] * n, evidence, rtol=1e-10)


@every_structure
def test_components_that_are_not_needed_lose_their_rows(kind: str) -> None:
    """They are told, and no row is theirs: not even one far from all."""
    rows = np.random.default_rng(0).normal(size=(600, 2))
    rows[300:] += 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BayesianGaussianMixture(
            6,
            covariance_type=kind,
            weight_concentration_prior=1e-3,
            random_state=0,
            max_iter=2000,
            resolution=1e-3,
        ).fit(rows)
    unused = model.fit_info_["unused"]
    assert len(unused) == 4
    assert model.fit_info_["empty"] == []
    far = np.concatenate([rows, 1e3 * np.random.default_rng(1).normal(size=(100, 2))])
    assert not np.isin(model.predict(far), unused).any()
    assert (model.predict_proba(far)[:, unused] == 0).all()
    np.testing.assert_allclose(model.predict_proba(far).sum(axis=1), 1)


@every_type
def test_weights_count_as_rows(weights: str) -> None:
    rows = groups(120)
    counts = np.random.default_rng(0).integers(1, 4, 120)
    how = {
        "n_components": 3,
        "weight_concentration_prior_type": weights,
        "strategy": "em",
        "init_params": "kmeans",
        "random_state": 0,
        "tol": 1e-9,
        "max_iter": 2000,
        "covariance_prior": np.eye(3),
        "mean_prior": np.zeros(3),
        "reg_covar": 0,
    }
    whole = BayesianGaussianMixture(**how).fit(np.repeat(rows, counts, axis=0))
    model = BayesianGaussianMixture(**how).fit(rows, sample_weight=counts)
    order = [np.argsort(each.means_[:, 0]) for each in (whole, model)]
    np.testing.assert_allclose(model.means_[order[1]], whole.means_[order[0]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.lower_bound_, whole.lower_bound_, rtol=1e-6)


@quiet
def test_weights_that_sum_to_one_leave_the_default_prior_as_it_is() -> None:
    rows = groups(120)
    model = BayesianGaussianMixture(2, max_iter=2, random_state=0)
    model.fit(rows, sample_weight=np.full(120, (1 + 1e-9) / 120))
    np.testing.assert_allclose(model.covariance_prior_, np.cov(rows.T), rtol=1e-9)


@every_type
@every_structure
def test_holes(kind: str, weights: str) -> None:
    """The bound of rows with holes, a row at a time; it never falls; holes are filled in."""
    rows = groups(80)
    rows[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
    rows = rows[~np.isnan(rows).all(axis=1)]
    model = BayesianGaussianMixture(
        2,
        covariance_type=kind,
        weight_concentration_prior_type=weights,
        missing="marginalize",
        random_state=0,
        max_iter=50,
        strategy="em",
        tol=0,
        reg_covar=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    assert (np.diff(model.lower_bounds_) >= -1e-8).all()
    assert model.fit_info_["unused"] == []
    d, freedom = 3, np.broadcast_to(model.degrees_of_freedom_, 2)
    spread = d * np.log(2) - d * np.log(freedom) - d / model.mean_precision_
    spread = spread + sum(digamma((freedom - i) / 2) for i in range(d))
    concentration = model.weight_concentration_
    if weights == "dirichlet_process":
        a, b = concentration
        logs = digamma(a) - digamma(a + b)
        logs[1:] += np.cumsum(digamma(b) - digamma(a + b))[:-1]
    else:
        logs = digamma(concentration) - digamma(concentration.sum())
    covariances = model.mixture_.covariances.dense()
    norms = []
    for row in rows:
        o = np.flatnonzero(~np.isnan(row))
        joint = logs + 0.5 * spread
        for k in range(2):
            away, own = row[o] - model.means_[k, o], covariances[k][np.ix_(o, o)]
            joint[k] -= 0.5 * (
                np.linalg.slogdet(2 * np.pi * own)[1] + away @ np.linalg.solve(own, away)
            )
        norms.append(np.logaddexp.reduce(joint))
    np.testing.assert_allclose(model.score_samples(rows), norms, rtol=1e-9)
    prior = model.sufficient_statistics_.prior
    inside = model.sufficient_statistics_.frame.enter(model.mixture_)
    bound = np.mean(norms) + prior.log_density(inside)
    np.testing.assert_allclose(model.fit_info_["objective"], bound, rtol=1e-9)
    assert not np.isnan(model.impute(rows)).any()


@every_structure
def test_units_don_t_matter(kind: str) -> None:
    rows = groups(300)
    scale = np.full(3, 7.0) if kind == "spherical" else np.array([1e-3, 1.0, 3e4])
    fits = [
        BayesianGaussianMixture(3, covariance_type=kind, random_state=0, max_iter=500).fit(x)
        for x in (rows, rows * scale + 5.0)
    ]
    np.testing.assert_allclose(fits[1].means_, fits[0].means_ * scale + 5.0, rtol=1e-5)
    np.testing.assert_allclose(fits[1].weights_, fits[0].weights_, atol=1e-5)


def test_starts_compete_where_rows_are_few() -> None:
    """The bound of one start from k-means is 10 nats lower than the best of many."""
    rows = load_iris().data
    how = {"prior": "variational", "reg_covar": 0, "random_state": 0}
    one, many, named = (
        len(rows) * GaussianMixture(3, **how, **more).fit(rows).lower_bound_
        for more in ({"effort": "low"}, {}, {"init_params": "kmeans"})
    )
    assert many > one + 5
    assert many > named + 5


def test_starts_compete_where_rows_are_many() -> None:
    """On a part of the sample; the best is far better than the first."""
    rng = np.random.default_rng(4)
    centres, roots = 3.0 * rng.normal(size=(10, 2)), 0.5 * rng.normal(size=(10, 2, 2))
    kinds = rng.choice(10, 10_000)
    rows = centres[kinds] + np.einsum("nij,nj->ni", roots[kinds], rng.normal(size=(10_000, 2)))
    how = {"prior": "variational", "random_state": 0}
    one, many = (
        len(rows) * GaussianMixture(12, **how, effort=effort).fit(rows).lower_bound_
        for effort in ("low", "auto")
    )
    assert many > one + 100


@every_type
@every_structure
def test_files_checkpoints_and_rows_added(kind: str, weights: str, tmp_path: Path) -> None:
    rows = groups(300)
    how = {
        "n_components": 2,
        "covariance_type": kind,
        "weight_concentration_prior_type": weights,
        "random_state": 0,
        "max_iter": 500,
        "reg_covar": 0,
        **priors(kind, 3),
    }
    whole = BayesianGaussianMixture(**how).fit(rows)
    model = BayesianGaussianMixture(**how, checkpoint=tmp_path / "passes")
    for _ in zip(range(2), model.fit_passes(rows), strict=False):
        pass
    model.fit(rows)
    assert (model.means_ == whole.means_).all()
    assert model.lower_bound_ == whole.lower_bound_
    with pytest.raises(DgmmError, match="prior is"):
        BayesianGaussianMixture(
            **{**how, "mean_precision_prior": 3}, checkpoint=tmp_path / "passes"
        ).fit(rows)
    model.save(tmp_path / "model.dgmm")
    again = load(tmp_path / "model.dgmm")
    assert isinstance(again, BayesianGaussianMixture)
    for name in (*ATTRIBUTES, "lower_bound_", "lower_bounds_"):
        np.testing.assert_array_equal(
            np.array(getattr(again, name)), np.array(getattr(model, name))
        )
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))
    assert again.get_params()["weight_concentration_prior"] == 0.3
    np.testing.assert_array_equal(again.get_params()["mean_prior"], how["mean_prior"])
    # More rows: the M-step of all, with their shares under this posterior and the same prior.
    more = groups(100) + 0.5
    more_sums = again.summarize(more)
    more_sums.save(tmp_path / "more.sums")
    shares = again.predict_proba(np.concatenate([rows, more]))
    before = again.sufficient_statistics_ + SufficientStatistics.load(tmp_path / "more.sums")
    floor = before.bound(again.mixture_)
    again.update(before)
    counts = shares.sum(axis=0)
    np.testing.assert_allclose(again.mean_precision_, 2.5 + counts, rtol=1e-6)
    means = (shares.T @ np.concatenate([rows, more]) + 2.5 * how["mean_prior"]) / (2.5 + counts)[
        :, None
    ]
    np.testing.assert_allclose(again.means_, means, rtol=1e-6)
    assert again.model_.lower_bound_ >= floor


def test_clusters_have_the_same_bits(tmp_path: Path) -> None:
    rows = da.from_array(groups(2000), chunks=(250, 3))
    here = BayesianGaussianMixture(4, random_state=0, max_iter=500).fit(rows)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        there = BayesianGaussianMixture(4, random_state=0, max_iter=500).fit(rows)
    assert (here.means_ == there.means_).all()
    assert here.lower_bound_ == there.lower_bound_
    assert (here.predict(rows).compute() == here.predict(groups(2000))).all()


def test_a_warm_start_goes_on() -> None:
    rows = groups(300)
    whole = BayesianGaussianMixture(
        4,
        strategy="em",
        random_state=0,
        tol=0,
        max_iter=6,
        init_params="kmeans",
        precision="float64",
    )
    model = clone(whole).set_params(max_iter=3, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole.fit(rows)
        model.fit(rows).fit(rows)
    np.testing.assert_allclose(model.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(model.lower_bound_, whole.lower_bound_, rtol=1e-9)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"weight_concentration_prior_type": "crp"}, "weight_concentration_prior_type must be one"),
        ({"weight_concentration_prior": 0}, "weight_concentration_prior must be a number above 0"),
        ({"mean_precision_prior": -1.0}, "mean_precision_prior must be a number above 0"),
        ({"degrees_of_freedom_prior": 1.0}, "should be greater than 1, but got 1.000"),
        ({"mean_prior": [0.0]}, "mean_prior of a prior must have shape"),
        ({"covariance_prior": -np.eye(2)}, "must be positive definite"),
    ],
)
def test_priors_that_are_none_are_refused(params: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        BayesianGaussianMixture(2, **params).plan(np.eye(2))


def test_what_makes_no_sense_is_refused() -> None:
    rows = groups(50)
    with pytest.raises(UsageError, match="a variational fit has a posterior of them"):
        GaussianMixture(2, prior=VariationalPrior(), fixed="means", means_init=rows[:2]).plan(rows)
    with pytest.raises(UsageError, match="chooses the number of components by itself"):
        select(rows, [1, 2], prior="variational")


def test_parameters_set_after_the_fit_count() -> None:
    rows = groups(200)
    model = BayesianGaussianMixture(2, random_state=0, max_iter=500).fit(rows)
    holes = rows.copy()
    holes[0, 0] = np.nan
    with pytest.raises(DgmmError, match="row 0"):
        model.predict(holes)
    labels = model.set_params(missing="marginalize").predict(holes)
    np.testing.assert_array_equal(labels[1:], model.predict(rows)[1:])
    drawn = model.sample(5)[0]
    assert not np.array_equal(model.set_params(random_state=1).sample(5)[0], drawn)
    means = model.means_.copy()
    for params in ({"reg_covar": 0.5}, {"mean_precision_prior": 7.0}):
        with pytest.raises(UsageError, match="under the same"):
            copy.deepcopy(model).set_params(**params).partial_fit(rows)
        with pytest.raises(UsageError, match="under the same"):
            copy.deepcopy(model).set_params(**params).update(model.summarize(rows))
    np.testing.assert_array_equal(model.means_, means)
    assert model.partial_fit(holes).sufficient_statistics_.rows == 2 * len(rows)


def test_a_file_of_given_parameters_has_no_posterior(tmp_path: Path) -> None:
    given = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]], prior="variational")
    given.save(tmp_path / "given.dgmm")
    found = load(tmp_path / "given.dgmm")
    assert type(found) is GaussianMixture
    np.testing.assert_array_equal(found.weights_, given.weights_)


def test_the_command_line(tmp_path: Path) -> None:
    rows = groups(300)
    np.save(tmp_path / "rows.npy", rows)
    data, out = str(tmp_path / "rows.npy"), str(tmp_path / "model.dgmm")
    words = [
        "--prior",
        "variational",
        "--weight-concentration-prior-type",
        "dirichlet_distribution",
    ]
    words += ["--weight-concentration-prior", "0.01"]
    done = CliRunner().invoke(
        main, ["fit", data, "-k", "4", "-o", out, *words, "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    same = BayesianGaussianMixture(
        4,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=0.01,
        random_state=0,
    ).fit(rows)
    found = load(out)
    assert isinstance(found, BayesianGaussianMixture)
    np.testing.assert_array_equal(found.weights_, same.weights_)
    assert json.loads(done.stdout)["unused"] == same.fit_info_["unused"]
    labels = str(tmp_path / "labels.zarr")
    done = CliRunner().invoke(main, ["predict", data, "-m", out, "-o", labels])
    assert done.exit_code == 0, done.output
    assert (da.from_zarr(labels).compute() == same.predict(rows)).all()
    done = CliRunner().invoke(main, ["score", data, "-m", out, "--json"])
    assert json.loads(done.stdout)["score"] == pytest.approx(same.score(rows))
    done = CliRunner().invoke(main, ["fit", data, "-k", "4", "-o", out, *words[2:], "--overwrite"])
    assert done.exit_code == 2
    assert "--prior variational" in done.output


@every_type
@every_structure
def test_rows_with_known_errors(kind: str, weights: str) -> None:
    """The bound never falls; without errors it is as without ``noise``."""
    rows = groups(150)
    how = {
        "n_components": 3,
        "covariance_type": kind,
        "weight_concentration_prior_type": weights,
        "strategy": "em",
        "tol": 0,
        "max_iter": 30,
        "random_state": 0,
        "precision": "float64",
        **priors(kind, 3),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = BayesianGaussianMixture(**how).fit(rows)
        none = BayesianGaussianMixture(**how).fit(rows, noise=np.zeros_like(rows))
        some = BayesianGaussianMixture(**how).fit(rows, noise=np.full_like(rows, 0.5))
    np.testing.assert_allclose(none.means_, plain.means_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(none.lower_bounds_, plain.lower_bounds_, rtol=1e-9)
    assert (np.diff(some.lower_bounds_) >= -1e-8).all()
    noise = np.full_like(rows, 1e-200)
    judged = plain.score_samples(rows, noise=noise)
    np.testing.assert_allclose(judged, plain.score_samples(rows), rtol=1e-9)
    assert plain.score(rows, noise=noise) == pytest.approx(judged.mean(), rel=1e-12)
