"""Frozen values as JSON and arrays, for the files of a checkpoint, and back.

Only the types named here can come of a file: nothing in one is ever executed.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

import numpy as np

from dgmm.em.control_variate import ControlVariateEM
from dgmm.em.evaluate import FitContext, State, Trial
from dgmm.em.expectation_maximization import EM
from dgmm.em.first_pass import DataMoments
from dgmm.em.information import Information
from dgmm.em.quasi_newton import QuasiNewton
from dgmm.em.sample import Sample
from dgmm.em.solver import RunState, StopRule
from dgmm.em.squarem import Squarem
from dgmm.em.subsamples import Samples, Subsample
from dgmm.errors import CheckpointError
from dgmm.io.storage import Arrays
from dgmm.model.diagonal import DiagonalCovariances
from dgmm.model.full import FullCovariances
from dgmm.model.mixture import Mixture
from dgmm.model.spherical import SphericalCovariances
from dgmm.model.statistics import Statistics
from dgmm.model.tied import TiedCovariances

TYPES: Final = {
    each.__name__: each
    for each in (
        *(ControlVariateEM, Information, Mixture, QuasiNewton, RunState, Sample, Squarem, State),
        *(Statistics, StopRule, DataMoments, EM, Trial),
        *(FullCovariances, TiedCovariances, DiagonalCovariances, SphericalCovariances),
    )
}
"""All that a file can become."""


@dataclass(frozen=True)
class Known:
    """What runs refer to and a file need not hold."""

    context: FitContext
    samples: Samples | None


def encode(value: Any, arrays: Arrays) -> Any:
    """A value as JSON; its arrays go to ``arrays``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[name := f"array{len(arrays)}"] = value
        return {"array": name}
    if isinstance(value, tuple | list):
        return [encode(each, arrays) for each in value]
    if isinstance(value, FitContext):
        return {"context": None}
    if isinstance(value, Subsample):
        return {"subsample": value.sample.size}
    if not is_dataclass(value) or type(value).__name__ not in TYPES:
        raise TypeError(f"{type(value).__name__} can't be part of a checkpoint")
    encoded = {each.name: encode(getattr(value, each.name), arrays) for each in fields(value)}
    return {"type": type(value).__name__, "fields": encoded}


def decode(value: Any, arrays: Arrays, known: Known | None) -> Any:
    """What ``encode`` was given; raises ``CheckpointError`` if it can't be that."""
    try:
        return _decoded(value, arrays, known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"a checkpoint is not as it should be: {error!r}") from error


def _decoded(value: Any, arrays: Arrays, known: Known | None) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(each, arrays, known) for each in value)
    if not isinstance(value, dict):
        return value
    ((kind, content), *rest) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "context" and known is not None:
        return known.context
    if kind == "subsample" and known is not None and known.samples is not None:
        if type(content) is not int or content < 1:
            raise ValueError(f"there is no sample of {content!r} rows")
        return known.samples.subsample(content, known.context)
    ((_, members),) = rest
    make: Callable[..., Any] = TYPES[content]
    made = make(**{name: _decoded(each, arrays, known) for name, each in members.items()})
    if isinstance(made, Mixture):
        made.check()
    return made
