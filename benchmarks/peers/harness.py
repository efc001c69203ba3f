"""The process of one contender: loads a case, runs EM iterations or whole fits, says how long.

One JSON object a line: in come ``{"iterations": n}`` and ``{"iterations": n, "score": rows}``; out
goes what was measured.  ``"keep": 1`` leaves the parameters in the case's directory, as
``found.npz``.  ``{"whole": seed, "options": {...}}`` is a fit that finds its own start, and leaves
there what it had after each pass, with the seconds, or what it ended with alone.  The first line
out says that it is ready, or why it can't be.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
Parameters = tuple[Array, Array, Array]
"""Weights (K,), means (K, D) and covariances (K, D, D)."""


@dataclass(frozen=True)
class Case:
    """What is to be fitted.

    Attributes
    ----------
    rows : (N, D)
        Of the case's dtype, as are the other arrays.
    weights, means, covariances : (K,), (K, D), (K, D, D)
        Where to start.
    covariance_model : str
        Of the covariances, by scikit-learn's names.
    threads : int
    place : Path
        A directory for temporary files.
    """

    rows: Array
    weights: Array
    means: Array
    covariances: Array
    covariance_model: str
    threads: int
    place: Path


@dataclass(frozen=True)
class Outcome:
    """What a run brought.

    Attributes
    ----------
    seconds : float
        Of the iterations and whatever the program does around them.
    iterations : int
        As the program counted them.
    parameters : callable
        What it ended with.
    note : str
        What the table should say of the run.
    way : tuple of (float, Parameters)
        What a whole fit had after so many seconds, as far as the program tells.
    """

    seconds: float
    iterations: int
    parameters: Callable[[], Parameters]
    note: str = ""
    way: tuple[tuple[float, Parameters], ...] = ()


Run = Callable[[int], Outcome]
"""Run so many EM iterations from the case's start."""

Whole = Callable[..., Outcome]
"""Fit from a seed, with the program's defaults but for the named options."""


@dataclass(frozen=True)
class Ready:
    """A contender that has loaded a case.

    Attributes
    ----------
    run : Run
    version : str
    own_start : bool
        Whether it can't begin where it is told to.
    whole : Whole or None
        None where no one asks for it.
    """

    run: Run
    version: str
    own_start: bool = False
    whole: Whole | None = None


def use_threads(count: int) -> None:
    """Have libraries that are loaded from now on use so many threads, on so many processors."""
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS"):
        os.environ[f"{name}_NUM_THREADS"] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def serve(prepare: Callable[[Case], Ready]) -> None:
    """Serve the case in the directory that the command line names; see the module."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the program prints is not ours

    def say(**words: Any) -> None:
        print(json.dumps(words), file=told, flush=True)

    try:
        place, dtype, covariance_model, threads = sys.argv[1:]
        use_threads(int(threads))
        began = time.perf_counter()
        case = load(Path(place), dtype, covariance_model, int(threads))
        reading = time.perf_counter() - began
        ready = prepare(case)
    except ImportError as error:
        return say(missing=str(error))
    except Exception as error:
        return say(failed=f"{type(error).__name__}: {error}")
    say(version=ready.version, own_start=ready.own_start, reading=reading)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            done = _done(ready, asked)
            found = None
            if "score" in asked:
                found = score(case.rows[: asked["score"]], done.parameters())
            if "keep" in asked:
                keep(case.place / "found.npz", done.parameters())
            if "whole" in asked:
                keep_way(case.place / "found.npz", done)
            say(seconds=done.seconds, iterations=done.iterations, note=done.note, score=found)
        except Exception as error:
            return say(failed=f"{type(error).__name__}: {error}")
    return None


def _done(ready: Ready, asked: dict[str, Any]) -> Outcome:
    if "whole" not in asked:
        return ready.run(asked["iterations"])
    assert ready.whole is not None
    return ready.whole(asked["whole"], **asked["options"])


def load(place: Path, dtype: str, covariance_model: str, threads: int) -> Case:
    """The case in a directory, in ``dtype``."""
    rows, weights, means, covariances = (
        np.load(place / f"{name}.npy").astype(dtype, order="C", copy=False)
        for name in ("rows", "weights", "means", "covariances")
    )
    return Case(rows, weights, means, covariances, covariance_model, threads, place)


def keep(path: Path, parameters: Parameters) -> None:
    """Write parameters to a file."""
    weights, means, covariances = parameters
    np.savez(path, weights=weights, means=means, covariances=covariances)


def keep_way(path: Path, done: Outcome) -> None:
    """Write what a whole fit had, and when, to a file; the last is what it ended with."""
    seconds, found = zip(*done.way, (done.seconds, done.parameters()), strict=True)
    weights, means, covariances = (np.stack(each) for each in zip(*found, strict=True))
    np.savez(path, seconds=seconds, weights=weights, means=means, covariances=covariances)


def dense(covariance_model: str, covariances: Array, components: int, n_features: int) -> Array:
    """Covariances of a structure as (K, D, D)."""
    shaped: dict[str, Callable[[], Array]] = {
        "full": lambda: covariances,
        "tied": lambda: np.repeat(covariances[None], components, axis=0),
        "diag": lambda: covariances[:, :, None] * np.eye(n_features),
        "spherical": lambda: covariances[:, None, None] * np.eye(n_features),
    }
    return shaped[covariance_model]()


def precisions(case: Case) -> Array:
    """The inverses of the start's covariances, in the shape of the case's structure."""
    covariance = np.asarray(case.covariances[0], np.float64)
    variances, components = np.diag(covariance), len(case.weights)
    shaped: dict[str, Callable[[], Array]] = {
        "full": lambda: np.repeat(np.linalg.inv(covariance)[None], components, axis=0),
        "tied": lambda: np.linalg.inv(covariance),
        "diag": lambda: np.tile(1 / variances, (components, 1)),
        "spherical": lambda: np.full(components, 1 / variances.mean()),
    }
    return shaped[case.covariance_model]().astype(case.rows.dtype)


def score(rows: Array, parameters: Parameters) -> float:
    """The mean log-likelihood of ``rows``, in plain NumPy and double precision."""
    weights, means, covariances = (np.asarray(a, dtype=np.float64) for a in parameters)
    x = rows.astype(np.float64, copy=False)
    log_joint = np.empty((len(weights), len(x)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        lower = np.linalg.cholesky((covariance + covariance.T) / 2)
        white = np.linalg.inv(lower) @ (x - mean).T
        log_joint[k] = -0.5 * np.sum(white**2, axis=0) - np.log(np.diag(lower)).sum()
    with np.errstate(divide="ignore"):
        log_joint += np.log(weights)[:, None] - 0.5 * x.shape[1] * np.log(2 * np.pi)
    top = log_joint.max(axis=0)
    return float(np.mean(top + np.log(np.exp(log_joint - top).sum(axis=0))))
