"""gmmx, on JAX.

It takes float32 only: ``check_shape`` refuses other dtypes.  For float64 that check is replaced.
"""

import os
import time
from importlib.metadata import version
from typing import Any

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve


def prepare(case: Case) -> Ready:
    """Load gmmx; each number of iterations is compiled before it is timed."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = str(int(case.rows.dtype == "float64"))
    import gmmx
    import gmmx.gmm
    import jax

    if case.rows.dtype == "float64":
        gmmx.gmm.check_shape = lambda array, expected: None
    rows = jax.numpy.asarray(case.rows)
    start = gmmx.GaussianMixtureModelJax.from_squeezed(
        means=jax.numpy.asarray(case.means),
        covariances=jax.numpy.asarray(case.covariances),
        weights=jax.numpy.asarray(case.weights),
        covariance_type="full",
    )
    compiled: dict[int, Any] = {}

    def run(iterations: int) -> Outcome:
        fitter = gmmx.EMFitter(max_iter=iterations, tol=0.0, reg_covar=0.0)
        if iterations not in compiled:
            compiled[iterations] = gmmx.EMFitter.fit.lower(fitter, rows, start).compile()
        began = time.perf_counter()
        result = jax.block_until_ready(compiled[iterations](fitter, rows, start))
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            found = result.gmm
            return found.weights_numpy, found.means_numpy, found.covariances.values_numpy

        return Outcome(seconds, int(result.n_iter), parameters)

    return Ready(run, version("gmmx"))


if __name__ == "__main__":
    serve(prepare)
