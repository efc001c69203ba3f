"""oneDAL's ``em_gmm``, through daal4py."""

import time
from importlib.metadata import version

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve


def prepare(case: Case) -> Ready:
    """Load daal4py."""
    import daal4py

    daal4py.daalinit(case.threads)
    weights = case.weights.reshape(1, -1).copy()
    covariances = [np.ascontiguousarray(each) for each in case.covariances]

    def run(iterations: int) -> Outcome:
        algorithm = daal4py.em_gmm(
            nComponents=len(case.weights),
            maxIterations=iterations,
            accuracyThreshold=0.0,
            covarianceStorage="full",
            fptype={"float64": "double", "float32": "float"}[case.rows.dtype.name],
        )
        began = time.perf_counter()
        result = algorithm.compute(case.rows, weights, case.means, covariances)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            found = np.stack([np.asarray(each) for each in result.covariances])
            return np.ravel(result.weights), np.asarray(result.means), found

        return Outcome(seconds, int(np.ravel(result.nIterations)[0]), parameters)

    return Ready(run, version("daal4py"))


if __name__ == "__main__":
    serve(prepare)
