"""The rooms of the house: who may import what, by import-linter and by reading every module."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dgmm

ROOT = Path(__file__).parent.parent
HOUSE = Path(dgmm.__file__).parent

ROOMS = (
    *("model", "kernels", "em", "inference", "data", "engine", "io"),
    *("estimators", "report", "cli"),
)


def modules() -> list[str]:
    """All but the packages' own, as paths below the house."""
    return sorted(str(path.relative_to(HOUSE)) for path in HOUSE.rglob("*.py"))


def imports(module: str) -> list[tuple[str, bool]]:
    """What a module imports, and whether it does so within a function."""
    tree = ast.parse((HOUSE / module).read_text())
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
        elif isinstance(node, ast.ImportFrom):
            found.append((str(node.module), id(node) in within))
    return found


def test_every_module_has_a_room_and_every_room_says_what_it_is_for() -> None:
    places = {Path(module).parts[0] for module in modules() if len(Path(module).parts) > 1}
    assert places == set(ROOMS)
    alone = {"__init__.py", "__main__.py", "errors.py", "plot.py"}
    assert {m for m in modules() if len(Path(m).parts) == 1} == alone
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text()))


def test_rooms_import_as_their_contracts_say() -> None:
    """Late imports, by name, keep to the order of rooms, too; import-linter does not see them."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for module in modules():
        for node in ast.walk(ast.parse((HOUSE / module).read_text())):
            late = isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Late"
            if late and (name := ast.literal_eval(node.args[0])).startswith("dgmm."):
                room = name.split(".")[1]
                own = Path(module).parts[0] if "/" in module else ROOMS[-1]
                assert ROOMS.index(room) <= ROOMS.index(own), module


@pytest.mark.parametrize("module", modules())
def test_late_imports_are_used(module: str) -> None:
    """Linters don't tell: to them these are values."""
    nodes = list(ast.walk(ast.parse((HOUSE / module).read_text())))
    late = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and "Late(" in ast.unparse(node.value)
        for target in ast.walk(node.targets[0])
        if isinstance(target, ast.Name)
    }
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert late <= read


def test_no_property_has_a_lock() -> None:
    """A process forked while another thread held it would wait for ever (model/lazy.py)."""
    locked = {m for m in modules() if "cached_property" in (HOUSE / m).read_text()}
    assert locked == {"model/lazy.py"}


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
        tree = ast.parse((HOUSE / module).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                names = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not names & {"full", "tied", "diag", "spherical", "kmeans"}, module
