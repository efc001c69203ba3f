"""oneDAL's ``em_gmm``, through daal4py."""

import time
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve

MOST = 100
"""Iterations of a whole fit, as scikit-learn and Spark have it."""


def prepare(case: Case) -> Ready:
    """Load daal4py."""
    import daal4py

    daal4py.daalinit(case.threads)
    weights = case.weights.reshape(1, -1).copy()
    covariances = [np.ascontiguousarray(each) for each in case.covariances]

    same: dict[str, Any] = {
        "nComponents": len(case.weights),
        "covarianceStorage": "full",
        "fptype": {"float64": "double", "float32": "float"}[case.rows.dtype.name],
    }

    def run(iterations: int) -> Outcome:
        algorithm = daal4py.em_gmm(maxIterations=iterations, accuracyThreshold=0.0, **same)
        began = time.perf_counter()
        return outcome(began, algorithm.compute(case.rows, weights, case.means, covariances))

    def whole(seed: int, trials: int, tol: float = 0.0) -> Outcome:
        stop = {"maxIterations": MOST, "accuracyThreshold": tol * len(case.rows)}
        began = time.perf_counter()
        engine = daal4py.engines_mt19937(seed=seed, fptype=same["fptype"])
        start = daal4py.em_gmm_init(nTrials=trials, engine=engine, **same).compute(case.rows)
        begin = start.weights, start.means, start.covariances
        return outcome(began, daal4py.em_gmm(**stop, **same).compute(case.rows, *begin))

    def outcome(began: float, result: Any) -> Outcome:
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            found = np.stack([np.asarray(each) for each in result.covariances])
            return np.ravel(result.weights), np.asarray(result.means), found

        return Outcome(seconds, int(np.ravel(result.nIterations)[0]), parameters)

    return Ready(run, version("daal4py"), whole=whole)


if __name__ == "__main__":
    serve(prepare)
