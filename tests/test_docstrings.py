"""Public names say what goes in, what comes out and what is raised, with examples that run."""

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from matplotlib import pyplot, rc_context

import dgmm
from dgmm import plot

validate = pytest.importorskip("numpydoc.validate").validate

CODES = {"GL08", "PR01", "PR02", "RT01", "YD01", "EX01"}
"""No docstring; parameters that are missing or unknown; no Returns, Yields or Examples."""


def methods(name: str) -> Iterator[tuple[str, Any]]:
    """A public name, and its public methods that dgmm defines."""
    value = getattr(dgmm, name)
    yield name, value
    for base in value.__mro__ if inspect.isclass(value) else ():
        for method, member in vars(base).items() if base.__module__.startswith("dgmm.") else ():
            function = getattr(member, "__func__", getattr(member, "fn", member))
            if method.startswith("_") or not inspect.isfunction(function):
                continue
            found = inspect.unwrap(getattr(value, method))
            if getattr(found, "__func__", found) is function:
                yield f"{name}.{method}", function  # and not one that another hides


NAMES = [
    path
    for name in dgmm.__all__
    if not (inspect.isclass(getattr(dgmm, name)) and issubclass(getattr(dgmm, name), Exception))
    for path, _ in methods(name)
]


NAMES += [f"plot.{name}" for name in plot.__all__]


@pytest.mark.parametrize("name", NAMES)
def test_all_sections_are_there(name: str) -> None:
    missing = {code for code, _ in validate(f"dgmm.{name}")["errors"]} & CODES
    assert not missing


@pytest.mark.parametrize("name", dgmm.__all__)
def test_examples_run(name: str) -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for path, value in methods(name):
        for each in finder.find(value, path, globs={}) if path != name else [own(value, path)]:
            runner.run(each)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", plot.__all__)
def test_examples_of_pictures_run(name: str) -> None:
    with rc_context({"backend": "agg"}):
        runner = doctest.DocTestRunner()
        runner.run(own(getattr(plot, name), name))
        pyplot.close("all")
    assert runner.summarize(verbose=False).failed == 0


def own(value: Any, path: str) -> doctest.DocTest:
    """The examples of a docstring alone, without those of what it has."""
    return doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, path, None, None)
