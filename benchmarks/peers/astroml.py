"""astroML's extreme deconvolution, for which what is missing has an error without end."""

import time
from importlib.metadata import version

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve

ENDLESS = 1e8
"""The variance of the error of a missing value: that of the rows is about 1."""


def prepare(case: Case) -> Ready:
    """Load astroML."""
    from astroML.density_estimation import XDGMM

    holes = np.isnan(case.rows)
    rows = np.where(holes, 0.0, case.rows)
    errors = holes[:, :, None] * (ENDLESS * np.eye(rows.shape[1]))

    def run(iterations: int) -> Outcome:
        model = XDGMM(len(case.weights))
        model.alpha, model.mu, model.V = case.weights, case.means, case.covariances
        began = time.perf_counter()
        for _ in range(iterations):  # what its ``fit`` does, from the start of the case
            model._EMstep(rows, errors)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            return model.alpha, model.mu, model.V

        return Outcome(seconds, iterations, parameters)

    return Ready(run, version("astroML"))


if __name__ == "__main__":
    serve(prepare)
