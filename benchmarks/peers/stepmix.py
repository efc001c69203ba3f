"""StepMix's latent class model of incomplete rows: normal features that are not correlated."""

import time
import warnings
from importlib.metadata import version

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, dense, serve


def prepare(case: Case) -> Ready:
    """Load StepMix, which takes no start, and knows diagonal covariances of incomplete rows."""
    from stepmix.stepmix import StepMix

    def run(iterations: int) -> Outcome:
        model = StepMix(
            len(case.weights),
            measurement="gaussian_diag_nan",
            max_iter=iterations,
            abs_tol=0,
            rel_tol=0,
            progress_bar=0,
            random_state=0,
        )
        began = time.perf_counter()
        model.fit(case.rows)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            found = model.get_parameters()
            parts = found["measurement"]
            covariances = dense("diag", parts["covariances"], *case.means.shape)
            return found["weights"], parts["means"], covariances

        return Outcome(seconds, model.n_iter_, parameters)

    if case.covariance_model != "diag" or not np.isnan(case.rows).any():
        raise ValueError("only diagonal covariances of incomplete rows are measured")
    warnings.simplefilter("ignore")  # that it did not converge
    return Ready(run, version("stepmix"), own_start=True)


if __name__ == "__main__":
    serve(prepare)
