"""The floors and doors of the house, kept by reading every module's imports."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dgmm

HOUSE = Path(dgmm.__file__).parent

FLOORS = (
    {"deadline", "errors", "lazy"},
    {"covariance"},
    {"mixture"},
    {"collapse"},
    {"statistics"},
    {"sweep"},
    {"kernel"},
    {"native"},
    {"survey"},
    {"em"},
    {"seeding"},
    {"squarem", "clustering", "information"},
    {"quasi"},
    {"ladder"},
    {"anchored", "race", "scouts"},
    {"exchanges"},
    {"starts"},
    {"fit"},
    {"selection"},
    {"patience", "amounts", "stored", "direct"},
    {"places", "forms"},
    {"dataset"},
    {"cache"},
    {"threads"},
    {"workers"},
    {"runs"},
    {"cluster"},
    {"engine"},
    {"plan", "storage"},
    {"output", "summary", "codec", "pods"},
    {"checkpoint"},
    {"tables"},
    {"progress", "estimator"},
    {"metrics", "command", "search", "report"},
    {"options"},
    {"demo"},
    {"cli"},
)
"""From the lowest; a module imports from lower floors only."""

VALUES = {"numpy", "scipy"}
METHOD = VALUES | {"sklearn", "threadpoolctl"}
MACHINES = {"numpy", "dask", "distributed", "zarr", "fsspec", "threadpoolctl", "psutil"}
PEOPLE = MACHINES | METHOD | {"click", "rich", "matplotlib"}

DOORS = {
    "deadline": set(),
    "errors": set(),
    "lazy": set(),
    "sweep": {"numpy"},
    "covariance": VALUES,
    "mixture": VALUES,
    "collapse": VALUES,
    "statistics": VALUES,
    "kernel": VALUES,
    "native": VALUES,
    "survey": VALUES,
    "em": VALUES,
    "seeding": METHOD,
    "squarem": METHOD,
    "clustering": METHOD,
    "information": VALUES,
    "quasi": VALUES,
    "exchanges": METHOD,
    "starts": METHOD,
    "ladder": METHOD,
    "anchored": METHOD,
    "race": METHOD,
    "scouts": METHOD,
    "fit": METHOD,
    "selection": METHOD,
    "patience": {"dask"},
    "places": {"fsspec"},
    "amounts": {"dask", "distributed", "psutil"},
    "stored": {"numpy", "zarr"},
    "direct": {"numpy", "zarr", "numcodecs"},
    "forms": {"numpy", "dask", "distributed"},
    "dataset": {"numpy", "dask", "zarr"},
    "cache": set(),
    "threads": {"dask", "threadpoolctl"},
    "workers": {"dask", "distributed"},
    "runs": {"numpy", "dask", "distributed"},
    "cluster": {"numpy", "dask", "distributed"},
    "engine": {"dask", "distributed"},
    "plan": {"dask", "distributed", "psutil"},
    "pods": set(),
    "storage": {"numpy"},
    "output": {"numpy", "zarr"},
    "summary": {"numpy"},
    "codec": {"numpy"},
    "checkpoint": {"numpy"},
    "estimator": PEOPLE,
    "progress": PEOPLE,
    "tables": {"rich"},
    "metrics": {"prometheus_client"},
    "options": {"click", "dask", "distributed"},
    "command": {"click", "dask"},
    "search": PEOPLE,
    "report": PEOPLE,
    "demo": PEOPLE,
    "cli": PEOPLE,
    "__init__": PEOPLE,
}
"""Which third-party packages a module may import."""


def modules() -> list[str]:
    return sorted(path.stem for path in HOUSE.glob("*.py"))


def imports(module: str) -> list[tuple[str, bool]]:
    """What a module imports, and whether it does so within a function."""
    tree = ast.parse((HOUSE / f"{module}.py").read_text())
    found = []
    within = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in within) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "dgmm":
            found += [(f"dgmm.{alias.name}", id(node) in within) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((str(node.module), id(node) in within))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Late":
            found.append((ast.literal_eval(node.args[0]), id(node) in within))
    return found


def test_every_module_has_a_floor() -> None:
    assert {name for floor in FLOORS for name in floor} == set(modules()) - {"__init__"}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_from_lower_floors_only(module: str) -> None:
    heights = {name: height for height, floor in enumerate(FLOORS) for name in floor}
    mine = heights.get(module, len(FLOORS))
    for name, _ in imports(module):
        if name.startswith("dgmm."):
            below = name.split(".")[1]
            assert heights[below] < mine, f"{module} imports {below}"


@pytest.mark.parametrize("module", modules())
def test_a_module_uses_its_own_doors_only(module: str) -> None:
    outside = {name.split(".")[0] for name, _ in imports(module)}
    outside -= set(sys.stdlib_module_names) | {"dgmm"}
    assert outside <= DOORS[module]


@pytest.mark.parametrize("module", modules())
def test_nothing_is_imported_inside_a_function(module: str) -> None:
    assert [name for name, within in imports(module) if within] == []


def test_public_names_are_sorted_and_real() -> None:
    assert dgmm.__all__ == sorted(dgmm.__all__)
    tree = ast.parse((HOUSE / "__init__.py").read_text())
    shown = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dgmm.")
        for alias in node.names
    }
    assert set(shown) == set(dgmm.__all__) <= set(dir(dgmm))
    for name, module in shown.items():  # what type checkers see is what there is
        assert getattr(dgmm, name) is getattr(import_module(module), name)
        assert getattr(dgmm, name).__module__ == module
    with pytest.raises(AttributeError, match="no attribute 'Gaussian'"):
        dgmm.Gaussian  # noqa: B018


def test_no_chains_on_a_kind() -> None:
    """A variant is an object in one visible dict, not a branch on its name."""
    for module in modules():
        tree = ast.parse((HOUSE / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                names = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not names & {"full", "tied", "diag", "spherical", "kmeans"}, module
