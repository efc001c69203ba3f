"""scikit-learn's own tests of mixtures, with our classes in place of theirs.

Left out are those that name something private (a function of ``sklearn.mixture``'s modules, or an
attribute that begins with an underscore), and those of the array API, which scikit-learn itself
leaves out unless its array libraries are installed.
"""

import ast
import importlib
import inspect
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dgmm import BayesianGaussianMixture, GaussianMixture

CLASSES = {
    each.__name__: partial(each, strategy="em")
    for each in (GaussianMixture, BayesianGaussianMixture)
}
"""Textbook EM is what scikit-learn has."""

MODULES = {
    name: importlib.import_module(f"sklearn.mixture.tests.test_{name}")
    for name in ("gaussian_mixture", "bayesian_mixture", "mixture")
}

FIXTURES = {"global_dtype": np.float64, "global_random_seed": 42}
"""What scikit-learn's tests have by default."""

DIFFERS = {
    "test_check_weights": "the message of weights out of range has the least and the greatest "
    "weight in each other's place there",
    "test_regularisation": "singular components end the fit there, if reg_covar is 0",
}
"""Those that fail, and why; the guide lists them."""


def _private(module: ModuleType) -> set[str]:
    """The tests of a module that name something private, or use a function there that does."""
    tree = ast.parse(inspect.getsource(module))
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    imported = {
        alias.name
        for each in tree.body
        if isinstance(each, ast.ImportFrom) and str(each.module).startswith("sklearn.mixture")
        for alias in each.names
    }

    def uses(name: str) -> bool:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Attribute) and node.attr[0] == "_" != node.attr[:2][-1]:
                return True
            if isinstance(node, ast.Name) and node.id in imported and node.id[0] == "_":
                return True
            if (
                isinstance(node, ast.Name)
                and node.id in functions.keys() - {name}
                and uses(node.id)
            ):
                return True
        return False

    return {name for name in functions if uses(name)}


def _cases(module: ModuleType) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tests of a module that have to do with us, with their arguments."""
    private = _private(module)
    for name, test in vars(module).items():
        if not name.startswith("test_") or name in private or "array_api" in name:
            continue
        marks = [each for each in getattr(test, "pytestmark", ()) if each.name == "parametrize"]
        names = [
            each.args[0].replace(" ", "").split(",")
            if isinstance(each.args[0], str)
            else each.args[0]
            for each in marks
        ]
        for chosen in itertools.product(*(each.args[1] for each in marks)):
            given = {
                key: value
                for keys, values in zip(names, chosen, strict=True)
                for key, value in zip(keys, values if len(keys) > 1 else [values], strict=True)
            }
            asked = inspect.signature(test).parameters
            yield name, given | {key: FIXTURES[key] for key in asked if key in FIXTURES}


CASES = {
    f"{module}-{name}-{number}": (module, name, given)
    for module, theirs in MODULES.items()
    for name, own in itertools.groupby(_cases(theirs), key=lambda each: each[0])
    for number, (_, given) in enumerate(own)
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_of_scikit_learn(
    case: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    module, name, given = CASES[case]
    if name in DIFFERS:
        request.applymarker(pytest.mark.xfail(reason=DIFFERS[name]))
    for called, own in CLASSES.items():
        monkeypatch.setattr(MODULES[module], called, own, raising=False)
    if "estimator" in given:  # made before
        given = {**given, "estimator": CLASSES[type(given["estimator"]).__name__]()}
    getattr(MODULES[module], name)(**given)


def test_nearly_all_of_them_pass() -> None:
    failing = [name for _, name, _ in CASES.values() if name in DIFFERS]
    assert len(failing) <= 0.05 * len(CASES)


def test_the_guide_lists_those_that_fail() -> None:
    guide = (Path(__file__).parent.parent / "docs/guide/scikit-learn.md").read_text()
    assert f"of {len(CASES)} that name" in guide
    assert all(f"`{name}`" in guide for name in DIFFERS)
