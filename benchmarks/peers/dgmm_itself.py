"""dgmm: float64 rows in double precision, float32 rows as ``precision="auto"`` has it.

``DGMM_CHECKOUT`` names the root of the checkout whose dgmm it should be.
"""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, dense, precisions, serve


def prepare(case: Case) -> Ready:
    """Load dgmm."""
    root = os.environ.get("DGMM_CHECKOUT")
    if root:
        sys.path.insert(0, root)
    import dgmm
    from dgmm import GaussianMixture  # what is loaded on first use counts as starting up

    if root and Path(root) not in Path(dgmm.__file__).parents:
        raise RuntimeError(f"not the dgmm in {root} was imported, but {dgmm.__file__}")
    holed = {"missing": "marginalize"} if np.isnan(case.rows).any() else {}
    precision = {"float64": "float64", "float32": "auto"}[case.rows.dtype.name]

    def run(iterations: int) -> Outcome:
        model = GaussianMixture(
            len(case.weights),
            strategy="em",
            covariance_type=case.covariance_model,
            weights_init=case.weights / case.weights.sum(),
            means_init=case.means,
            precisions_init=precisions(case),
            tol=0,
            reg_covar=0,
            max_iter=iterations,
            n_jobs=case.threads,
            precision=precision,
            **holed,
        )
        began = time.perf_counter()
        model.fit(case.rows)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            shape = case.means.shape
            covariances = dense(case.covariance_model, model.covariances_, *shape)
            return model.weights_, model.means_, covariances

        info = model.fit_info_
        passes = f"{info['float32_passes']} of {info['passes'] - 1} passes single"
        return Outcome(seconds, model.n_iter_, parameters, f"{info['kernel']}, {passes}")

    def whole(seed: int, **options: Any) -> Outcome:
        model = GaussianMixture(
            len(case.weights),
            covariance_type=case.covariance_model,
            random_state=seed,
            n_jobs=case.threads,
            **options,
        )
        mixtures = []
        began = time.perf_counter()
        for step in model.fit_passes(case.rows):
            if step.candidates:
                mixtures.append((time.perf_counter() - began, step.mixture))
        seconds = time.perf_counter() - began

        def found(mixture: Any) -> Parameters:
            return mixture.weights, mixture.means, mixture.covariances.dense()

        way = tuple((at, found(mixture)) for at, mixture in mixtures)
        passes = model.fit_info_["passes"]
        return Outcome(seconds, passes, lambda: found(model.mixture_), way=way)

    warnings.simplefilter("ignore")  # that it did not converge
    return Ready(run, dgmm.__version__, whole=whole)


if __name__ == "__main__":
    serve(prepare)
