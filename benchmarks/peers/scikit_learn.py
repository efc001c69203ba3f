"""scikit-learn's ``GaussianMixture``."""

import time
import warnings
from typing import Any

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, dense, precisions, serve


def prepare(case: Case) -> Ready:
    """Load scikit-learn."""
    import sklearn
    from sklearn.mixture import GaussianMixture

    def run(iterations: int) -> Outcome:
        model = GaussianMixture(
            len(case.weights),
            covariance_type=case.covariance_model,
            weights_init=case.weights,
            means_init=case.means,
            precisions_init=precisions(case),
            tol=0,
            reg_covar=0,
            max_iter=iterations,
        )
        return timed(model)

    def whole(seed: int, **options: Any) -> Outcome:
        chosen = {"covariance_type": case.covariance_model, "random_state": seed, **options}
        return timed(GaussianMixture(len(case.weights), **chosen))

    def timed(model: Any) -> Outcome:
        began = time.perf_counter()
        model.fit(case.rows)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            covariances = dense(case.covariance_model, model.covariances_, *case.means.shape)
            return model.weights_, model.means_, covariances

        return Outcome(seconds, model.n_iter_, parameters)

    warnings.simplefilter("ignore")  # that it did not converge
    return Ready(run, sklearn.__version__, whole=whole)


if __name__ == "__main__":
    serve(prepare)
