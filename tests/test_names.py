"""The names that types list are those of the families' members."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import dgmm
from dgmm.data.missing_chunks import MISSING_CHUNKS, MissingChunks
from dgmm.em.criteria import CRITERIA, CriterionName
from dgmm.em.fit_context import PRECISIONS, Precision
from dgmm.em.init import METHODS, InitParams
from dgmm.em.starts import EFFORTS, Effort
from dgmm.em.strategies import STRATEGIES, StrategyName
from dgmm.kernels.observation import OBSERVATIONS, Missing
from dgmm.kernels.outputs import OUTPUTS, OutputKind
from dgmm.model.covariance import (
    COVARIANCE_MODELS,
    COVARIANCE_TYPES,
    CovarianceType,
    PlainCovarianceType,
)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (CovarianceType, COVARIANCE_TYPES),
        (PlainCovarianceType, COVARIANCE_MODELS),
        (CriterionName, CRITERIA),
        (Effort, EFFORTS),
        (InitParams, ["auto", *METHODS]),
        (Missing, OBSERVATIONS),
        (MissingChunks, MISSING_CHUNKS),
        (OutputKind, OUTPUTS),
        (Precision, PRECISIONS),
        (StrategyName, STRATEGIES),
    ],
)
def test_types_list_all_members(names: Any, family: Any) -> None:
    assert get_args(names) == tuple(family)


def documented() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Options of public functions that docstrings list, as {"a", "b"}, with their types' names."""
    for name in dgmm.__all__:
        public = getattr(dgmm, name)
        own = [public, *(vars(public).values() if inspect.isclass(public) else ())]
        for each in own:
            function = getattr(each, "__func__", each)
            called = function.__init__ if inspect.isclass(function) else function
            if not inspect.isfunction(called) or not inspect.getdoc(function):
                continue
            listed = re.findall(r"^(\w+) : \{(.*?)\}", inspect.getdoc(function) or "", re.MULTILINE)
            hints = get_type_hints(called) if listed else {}
            for option, words in listed:
                if get_origin(hints.get(option)) is Literal:
                    found = tuple(re.findall(r'"(.*?)"', words))
                    yield f"{function.__qualname__} {option}", found, get_args(hints[option])


def test_docstrings_list_all_members() -> None:
    listed = list(documented())
    assert len(listed) > 8
    for option, words, names in listed:
        assert words == names, option
