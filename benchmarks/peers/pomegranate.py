"""pomegranate's ``GeneralMixtureModel`` of normal distributions, on PyTorch."""

import time
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, dense, serve


def prepare(case: Case) -> Ready:
    """Load pomegranate."""
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    torch.set_num_threads(case.threads)
    rows, kind = torch.from_numpy(case.rows), case.covariance_model
    if np.isnan(case.rows).any():
        rows = torch.masked.MaskedTensor(rows, mask=~torch.isnan(rows))
    starts = case.covariances
    if kind == "diag":
        starts = np.diagonal(starts, axis1=1, axis2=2)

    def tensor(array: Any) -> Any:
        return torch.from_numpy(array.copy())

    def run(iterations: int) -> Outcome:
        pairs = zip(case.means, starts, strict=True)
        model = GeneralMixtureModel(
            [Normal(tensor(m), tensor(c), covariance_type=kind) for m, c in pairs],
            priors=tensor(case.weights),
            max_iter=iterations,
            tol=-float("inf"),
            check_data=False,
        )
        done: list[int] = []
        summarize = model.summarize

        def counted(*args: Any, **options: Any) -> Any:
            done.append(1)
            return summarize(*args, **options)

        model.summarize = counted
        began = time.perf_counter()
        with torch.no_grad():
            model.fit(rows)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            parts = model.distributions
            means = np.stack([part.means.detach().numpy() for part in parts])
            covariances = np.stack([part.covs.detach().numpy() for part in parts])
            return model.priors.detach().numpy(), means, dense(kind, covariances, *means.shape)

        return Outcome(seconds, len(done), parameters)

    return Ready(run, version("pomegranate"))


if __name__ == "__main__":
    serve(prepare)
