"""scikit-learn's grid: a mixture of each size in one process, judged by BIC, until time is up.

``python -m benchmarks.grid STORE LARGEST BUDGET`` prints one JSON object.
"""

import json
import signal
import sys
import time
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import zarr
from sklearn.mixture import GaussianMixture


class TimeIsUp(Exception):
    """The budget is spent."""


def main(store: str, largest: int, budget: float) -> None:
    """Fit sizes from 2 on to rows that are read once, and say what was found."""
    began = time.perf_counter()

    def stop(*_: object) -> None:
        raise TimeIsUp

    warnings.simplefilter("ignore")  # that it did not converge
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, budget)
    rows = np.asarray(zarr.open_array(store, mode="r")[:])
    fits: list[tuple[float, Any]] = []
    with suppress(TimeIsUp):
        for count in range(2, largest + 1):
            model = GaussianMixture(count, random_state=0).fit(rows)
            fits.append((model.bic(rows), model))
            print(
                f"scikit-learn, K = {count}: {time.perf_counter() - began:.0f} s", file=sys.stderr
            )
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - began
    told = {"seconds": seconds, "sizes": len(fits), "iterations": sum(m.n_iter_ for _, m in fits)}
    if len(fits) == largest - 1:
        best = min(fits, key=lambda each: each[0])[1]
        told |= {"chosen": best.n_components, "bic": best.bic(rows.astype(np.float64))}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
