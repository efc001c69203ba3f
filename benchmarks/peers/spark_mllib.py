"""Spark's older face, ``pyspark.mllib.clustering.GaussianMixture``: EM from a given start."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve
from benchmarks.peers.spark import session


@dataclass(frozen=True)
class Start:
    """A mixture, as ``train`` reads it."""

    k: int
    weights: list[float]
    gaussians: list[Any]


def prepare(case: Case) -> Ready:
    """Load Spark, and hand it the rows."""
    import pyspark
    from pyspark.mllib.clustering import GaussianMixture
    from pyspark.mllib.linalg import DenseMatrix, Vectors
    from pyspark.mllib.stat.distribution import MultivariateGaussian

    count, n_features = case.means.shape
    rows = session(case).sparkContext.parallelize(list(map(Vectors.dense, case.rows)))
    gaussians = [
        MultivariateGaussian(
            Vectors.dense(mean), DenseMatrix(n_features, n_features, covariance.ravel())
        )
        for mean, covariance in zip(case.means, case.covariances, strict=True)
    ]
    start = Start(count, case.weights.tolist(), gaussians)

    def run(iterations: int) -> Outcome:
        began = time.perf_counter()
        model = GaussianMixture.train(rows, count, 0.0, iterations, initialModel=start)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            means = np.stack([each.mu.toArray() for each in model.gaussians])
            covariances = np.stack([each.sigma.toArray() for each in model.gaussians])
            return np.array(model.weights), means, covariances

        return Outcome(seconds, iterations, parameters)

    return Ready(run, pyspark.__version__)


if __name__ == "__main__":
    serve(prepare)
