"""dgmm: float64 rows in double precision, float32 rows as ``precision="auto"`` has it."""

import time
import warnings

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, dense, precisions, serve


def prepare(case: Case) -> Ready:
    """Load dgmm."""
    import dgmm

    precision = {"float64": "float64", "float32": "auto"}[case.rows.dtype.name]

    def run(iterations: int) -> Outcome:
        model = dgmm.GaussianMixture(
            len(case.weights),
            strategy="em",
            covariance_type=case.structure,
            weights_init=case.weights / case.weights.sum(),
            means_init=case.means,
            precisions_init=precisions(case),
            tol=0,
            reg_covar=0,
            max_iter=iterations,
            n_jobs=case.threads,
            precision=precision,
        )
        began = time.perf_counter()
        model.fit(case.rows)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            shape = case.means.shape
            covariances = dense(case.structure, model.covariances_, *shape)
            return model.weights_, model.means_, covariances

        info = model.fit_info_
        passes = f"{info['single_passes']} of {info['passes'] - 1} passes single"
        return Outcome(seconds, model.n_iter_, parameters, f"{info['kernel']}, {passes}")

    warnings.simplefilter("ignore")  # that it did not converge
    return Ready(run, dgmm.__version__)


if __name__ == "__main__":
    serve(prepare)
