"""Attributes of an estimator that show a part of what was fitted."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class FittedAttribute(Generic[T]):
    """An attribute that shows a part of what was fitted, and can't be set by itself.

    Parameters
    ----------
    of : str
        The attribute that has all of it; while it is not there, neither is this.
    part : callable
        Takes that attribute's value, and gives the part.
    doc : str
        What the part is.
    instead : str, default=""
        What to do rather than to set it.
    """

    def __init__(self, of: str, part: Callable[[Any], T], doc: str, instead: str = "") -> None:
        self._of, self._part, self._instead = of, part, instead
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, model: None, owner: type) -> Self: ...
    @overload
    def __get__(self, model: object, owner: type) -> T: ...
    def __get__(self, model: object, owner: type) -> Self | T:
        if model is None:
            return self
        if self._of not in vars(model):
            raise AttributeError(
                f"{owner.__name__!r} object has no attribute {self._name!r}: it is not fitted yet"
            )
        return self._part(vars(model)[self._of])

    def __set__(self, model: object, value: object) -> None:
        self.__delete__(model)

    def __delete__(self, model: object) -> None:
        raise AttributeError(
            f"{self._name} shows a part of what was fitted and can't be set: the rest would not "
            f"follow{self._instead}"
        )
