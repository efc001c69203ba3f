"""One default fit in a process of its own, told stage by stage on standard output.

``python -P onefit.py BEGAN STORE COMPONENTS STRUCTURE SEED WORKERS`` imports the dgmm that is found
first, which may be another checkout's, and nothing else of this repository.  Each stage is one JSON
object a line, with the seconds since ``BEGAN`` (of ``time.time()``) as "at".
"""

import json
import sys
import time
import warnings
from contextlib import ExitStack
from itertools import islice
from statistics import median
from typing import Any

TIMED = 3
"""Passes of EM that are timed; the middle one is told."""


def main(
    began: float, store: str, components: int, covariance_model: str, seed: int, count: int
) -> None:
    """Fit, and then time EM's passes from there."""
    import dgmm

    def tell(stage: str, **more: Any) -> None:
        print(json.dumps({"stage": stage, "at": time.time() - began, **more}), flush=True)

    tell("imported", path=dgmm.__file__)
    warnings.simplefilter("ignore")  # that it did not converge
    with ExitStack() as stack:
        client = None
        if count:
            from distributed import Client, LocalCluster

            cluster = stack.enter_context(
                LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0")
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        tell("machines")
        model = dgmm.GaussianMixture(
            components, covariance_type=covariance_model, random_state=seed
        )
        model.plan(store, client=client).check()
        tell("planned")
        # What any version has: the first step is the first pass, each other one evaluates mixtures.
        for number, _ in enumerate(model.fit_passes(store, client=client)):
            tell("pass", evaluated=number > 0)
        info = model.fit_info_
        ended = {name: info[name] for name in ("passes", "stopped_by", "resolution")}
        tell("model", objective=model.lower_bound_, version=dgmm.__version__, **ended)
        em = dgmm.GaussianMixture(
            components,
            covariance_type=covariance_model,
            strategy="em",
            weights_init=model.weights_,
            means_init=model.means_,
            precisions_init=model.precisions_,
            tol=0,
            max_iter=TIMED + 8,
            precision="float64",
        )
        steps, seconds = em.fit_passes(store, client=client), []
        for _ in islice(
            steps, 2
        ):  # the first pass, and the first evaluation, which fills the cache
            pass
        for _ in range(TIMED):
            before = time.perf_counter()
            next(steps)
            seconds.append(time.perf_counter() - before)
        tell("em", seconds=median(seconds))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:]))
