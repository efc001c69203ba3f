"""The estimator's own corners: what goes in beside plain rows, and what is refused."""

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from conftest import QUIET
from distributed import Client, LocalCluster
from scipy.stats import multivariate_normal
from threadpoolctl import threadpool_info

import dgmm
from dgmm import ClusterError, ClusterLostError, DataError, GaussianMixture, UsageError, engine
from dgmm.model.covariance import COVARIANCE_MODELS


def test_a_dataset_brings_its_own_weights(blobs: np.ndarray) -> None:
    weights = np.linspace(0, 2, len(blobs))
    dataset = dgmm.open_dataset(blobs, weights)
    whole = GaussianMixture(3, random_state=0).fit(dataset)
    np.testing.assert_array_equal(
        whole.means_, GaussianMixture(3, random_state=0).fit(blobs, sample_weight=weights).means_
    )
    assert whole.score(dataset) == whole.score(blobs, sample_weight=weights)
    for use in (whole.fit, whole.score):
        with pytest.raises(UsageError, match="brings its own weights"):
            use(dataset, sample_weight=weights)


@pytest.mark.parametrize("method", ["kmeans", "k-means++", "random_from_data", "random"])
def test_rows_of_weight_zero_leave_the_start_alone(blobs: np.ndarray, method: str) -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, len(blobs))
    absurd = np.full((7, 3), 1e200)
    fits = [
        GaussianMixture(3, init_params=method, random_state=0, max_iter=200).fit(*data)
        for data in (
            (blobs, None, weights),
            (np.concatenate([blobs, absurd]), None, np.append(weights, np.zeros(7))),
        )
    ]
    np.testing.assert_allclose(fits[1].means_, fits[0].means_, rtol=1e-9)


def test_too_few_rows_of_positive_weight(blobs: np.ndarray) -> None:
    weights = np.zeros(len(blobs))
    weights[[4, 9]] = 1
    with pytest.raises(DataError, match="2 rows have a weight above 0, fewer than the 3"):
        GaussianMixture(3).fit(blobs, sample_weight=weights)


@pytest.mark.parametrize("before", COVARIANCE_MODELS)
@pytest.mark.parametrize("after", COVARIANCE_MODELS)
def test_warm_start_goes_on_from_the_same_structure(
    blobs: np.ndarray, before: str, after: str
) -> None:
    model = GaussianMixture(
        3, strategy="em", covariance_type=before, warm_start=True, random_state=0
    ).fit(blobs)
    model.set_params(covariance_type=after)
    if before == after:
        assert model.fit(blobs).n_iter_ <= 3  # one that sees it in single precision, two in double
    else:
        with pytest.raises(UsageError, match="warm_start goes on from"):
            model.fit(blobs)


def test_warm_start_goes_on_from_the_same_features() -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["km", "fare"])
    model = GaussianMixture(warm_start=True, random_state=0).fit(rows)
    model.fit(rows).fit(rows.to_numpy())
    model = GaussianMixture(warm_start=True, random_state=0).fit(rows)
    with pytest.raises(UsageError, match="of the features km, fare; the rows have fare, km"):
        model.fit(rows[["fare", "km"]])


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5])
def test_numbers_of_threads(blobs: np.ndarray, n_jobs: object) -> None:
    with pytest.raises(UsageError, match="n_jobs must be an integer"):
        GaussianMixture(3, n_jobs=n_jobs).fit(blobs)
    every = GaussianMixture(3, n_jobs=-1, random_state=0).fit(blobs)
    one = GaussianMixture(3, n_jobs=1, random_state=0).fit(blobs)
    np.testing.assert_array_equal(every.means_, one.means_)


@pytest.mark.parametrize("kind", COVARIANCE_MODELS)
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
def test_marginal_and_conditional(blobs: np.ndarray, kind: str, scale: float) -> None:
    """Against the joint density: p(x) = p(a) p(b | a), and p(a) is the sum over components."""
    rows = blobs * scale
    model = GaussianMixture(3, covariance_type=kind, reg_covar=0, random_state=0).fit(rows)
    mixture, point = model.mixture_, rows[5]
    known, rest = [0, -1], [1]

    def log_density(one: dgmm.Mixture, at: np.ndarray) -> float:
        dense = one.covariances.dense()
        parts = [
            np.log(weight) + multivariate_normal.logpdf(at / scale, mean / scale, cov / scale**2)
            for weight, mean, cov in zip(one.weights, one.means, dense, strict=True)
        ]
        return float(np.logaddexp.reduce(parts))

    marginal = mixture.marginal(known)
    conditional = mixture.conditional(known, point[known])
    assert marginal.means.shape == (3, 2)
    assert conditional.means.shape == (3, 1)
    np.testing.assert_allclose(
        log_density(marginal, point[known]) + log_density(conditional, point[rest]),
        log_density(mixture, point),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_mapped_file_stays_a_file(tmp_path: Path, blobs: np.ndarray) -> None:
    np.save(tmp_path / "rows.npy", blobs)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    model = GaussianMixture(3, random_state=0).fit(mapped)
    assert model.plan_.source == str(tmp_path / "rows.npy")
    assert isinstance(model.predict(mapped), np.ndarray)


def test_rows_too_far_to_judge_are_refused(blobs: np.ndarray) -> None:
    model = GaussianMixture(3, random_state=0).fit(blobs)
    with pytest.raises(DataError, match="too far from the model"):
        model.predict(np.full((2, 3), 1e200))


def test_numpy_parameters_are_saved(tmp_path: Path, blobs: np.ndarray) -> None:
    model = GaussianMixture(np.int64(3), max_iter=np.int64(77), random_state=0).fit(blobs)
    model.save(tmp_path / "m.dgmm")
    assert dgmm.load(tmp_path / "m.dgmm").max_iter == 77


def test_lazy_predictions_leave_blas_as_it_was(tmp_path: Path, blobs: np.ndarray) -> None:
    def threads() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    before = threads()
    model = GaussianMixture(3, random_state=0).fit(blobs)
    model.predict(da.from_array(blobs, chunks=(100, 3))).compute(scheduler="threads")
    assert threads() == before


def test_a_cluster_without_workers(
    tmp_path: Path, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgmm.engine.workers.WORKER_SECONDS", 1)
    zarr.create_array(tmp_path / "rows.zarr", data=blobs, chunks=(500, 3))
    with LocalCluster(n_workers=0, **QUIET) as cluster, Client(cluster) as client:
        with pytest.raises(ClusterError, match="no worker within 1 s"):
            GaussianMixture(3).fit(tmp_path / "rows.zarr")
        with pytest.raises(ClusterError, match="no worker within 1 s"):
            engine.over(dgmm.open_dataset(da.from_array(blobs)), client)(
                dgmm.estimators.gaussian_mixture.describe, 0
            )


def test_a_cluster_that_goes_away_for_good(
    tmp_path: Path, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgmm.engine.cluster.RETURN_SECONDS", 1)
    zarr.create_array(tmp_path / "rows.zarr", data=blobs, chunks=(500, 3))
    model = GaussianMixture(3, tol=0, max_iter=10_000, random_state=0)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, **QUIET)
    client = Client(cluster, set_as_default=False)
    passes = model.fit_passes(str(tmp_path / "rows.zarr"), client=client)
    next(passes)
    cluster.close()
    with pytest.raises(ClusterLostError, match="did not come back in 1 s"):
        for _ in passes:
            pass
    client.close()
    with pytest.raises(ClusterError, match="Client is closed"):
        list(model.fit_passes(str(tmp_path / "rows.zarr"), client=client))
