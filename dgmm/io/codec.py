"""Frozen values as JSON and arrays, for the files of a checkpoint, and back.

A value is read as the annotation says of the field that it is for, and only as that; so nothing in
a file is ever executed, and there is no list of types to keep.

It is our own: cattrs and msgspec read plain dataclasses, a few lines of this, and would want a hook
each for the rest: arrays beside the JSON, contexts, samples, solvers, and numbers as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

from dgmm.em.fit_context import FitContext
from dgmm.em.solver import Solver
from dgmm.em.subsamples import Samples, Subsample
from dgmm.errors import CheckpointError
from dgmm.io.storage import Arrays
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.tails import StudentTails

PLAIN: Final[dict[Any, tuple[type, ...]]] = {
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str: (str,),
    NoneType: (NoneType,),
}
"""What JSON holds for a field of such a type."""


WITH_MORE: Final = 6
"""How many parts a mixture has that has a noise component, or heavy tails."""


@dataclass(frozen=True)
class Known:
    """What runs refer to and a file need not hold, and the solvers that they may be by."""

    context: FitContext
    samples: Samples
    solvers: tuple[type[Solver], ...]


def encode(value: Any, arrays: Arrays) -> Any:
    """A value as JSON; its arrays go to ``arrays``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[name := f"array{len(arrays)}"] = value
        return name
    if isinstance(value, tuple | list):
        return [encode(each, arrays) for each in value]
    if isinstance(value, Mixture):
        covariances = value.covariances
        numbers = covariances.values, covariances.precisions_cholesky
        record = encode((value.weights, value.means, *numbers), arrays)
        dof = None if value.tails is None else value.tails.dof
        more = [encode(value.noise_component, arrays), encode(dof, arrays)]
        return [covariances.model.name, *record, *([] if more == [None, None] else more)]
    if isinstance(value, FitContext):
        return None
    if isinstance(value, Subsample):
        return value.sample.size
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} can't be part of a checkpoint")
    record = {each.name: encode(getattr(value, each.name), arrays) for each in fields(value)}
    return [type(value).__name__, record] if isinstance(value, Solver) else record


def decode(kind: Any, record: Any, arrays: Arrays, known: Known | None = None) -> Any:
    """The value of the type ``kind`` that ``encode`` made this of.

    Raises ``CheckpointError`` if it can't be that.
    """
    try:
        return _Reader(arrays, known).read(kind, record)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"a checkpoint is not as it should be: {error!r}") from error


@dataclass(frozen=True)
class _Reader:
    """Reads what a file holds as values of given types."""

    arrays: Arrays
    known: Known | None

    def read(self, kind: Any, record: Any) -> Any:
        """The value of the type ``kind``, which may be a generic one, that a ``record`` holds."""
        if kind in PLAIN:
            if type(record) not in PLAIN[kind]:
                raise TypeError(f"{record!r:.40} is no {kind.__name__}")
            return record
        if kind in REFERRED:
            return REFERRED[kind](self, record)
        origin, inner = _origin(kind), get_args(kind)
        if origin in (Union, UnionType):  # with None
            (one,) = (each for each in inner if each is not NoneType)
            return None if record is None else self.read(one, record)
        if origin is np.ndarray:
            return self.arrays[record]
        return self.fields(kind, record) if origin is None else self.items(inner, record)

    def items(self, kinds: tuple[Any, ...], records: Any) -> tuple[Any, ...]:
        """A tuple of these types; of any length, if the last of them is an ellipsis."""
        if not isinstance(records, list):
            raise TypeError(f"{records!r:.40} is no list")
        kinds = kinds[:1] * len(records) if kinds[-1] is Ellipsis else kinds
        return tuple(self.read(kind, each) for kind, each in zip(kinds, records, strict=True))

    def fields(self, kind: type, record: Any) -> Any:
        """The dataclass ``kind`` with these fields."""
        kinds = _fields(kind)
        if not isinstance(record, dict) or record.keys() != kinds.keys():
            raise TypeError(f"{record!r:.40} is no {kind.__name__}")
        return kind(**{name: self.read(kinds[name], each) for name, each in record.items()})

    @property
    def about(self) -> Known:
        """``known``, which there must be."""
        if self.known is None:
            raise TypeError("there are no runs here")
        return self.known

    def mixture(self, record: Any) -> Mixture:
        """The mixture of these parameters, of the covariance model that is fitted."""
        name, *places = record
        noise = tails = None
        if len(places) == WITH_MORE:
            tails = self.tails(places.pop())
            noise = self.read(NoiseComponent | None, places.pop())
        model = self.about.context.model.covariance_model
        if name != model.name:
            raise ValueError(f"these are {name!r:.40} covariances")
        weights, means, values, factors = (self.arrays[each] for each in places)
        covariances = model.of_factors(values, factors, means.shape)
        mixture = Mixture(weights, means, covariances, noise, tails)
        mixture.check()
        return mixture

    def tails(self, place: Any) -> StudentTails | None:
        """The tails of such degrees of freedom, by the rule of what is fitted."""
        spec = self.about.context.model.tails
        if place is None or spec is None:
            return None
        return StudentTails(self.arrays[place], spec.rule)

    def subsample(self, size: Any) -> Subsample:
        """The part of the sample that has so many rows."""
        if type(size) is not int or size < 1:
            raise ValueError(f"there is no sample of {size!r:.40} rows")
        return self.about.samples.subsample(size, self.about.context)

    def solver(self, record: Any) -> Solver:
        """The solver of that name, with what it remembers."""
        name, fields = record
        solver = self.fields({each.__name__: each for each in self.about.solvers}[name], fields)
        assert isinstance(solver, Solver)
        return solver


REFERRED: Final[dict[Any, Callable[[_Reader, Any], Any]]] = {
    FitContext: lambda reader, told: reader.about.context,
    Mixture: _Reader.mixture,
    Subsample: _Reader.subsample,
    Solver: _Reader.solver,
}
"""How values are read that a file names."""


def _origin(kind: Any) -> Any:
    """The generic type that ``kind`` is of; that of an alias, such as NumPy's ``NDArray``."""
    origin = get_origin(kind)
    stands_for = getattr(origin or kind, "__value__", None)
    return origin if stands_for is None else get_origin(stands_for) or stands_for


@cache
def _fields(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}
