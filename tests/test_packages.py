"""What is said of the package where it is packed: its extras, and the recipe for conda."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import dgmm

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
FOR_USERS = {"gcs", "geotiff", "hdf5", "metrics", "onnx", "parquet", "plot", "s3", "xarray"}
OF_CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base"}
"""What packages are called there, where that differs: without what dgmm does not use."""


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    return made


def of_conda(requirement: str) -> str:
    """A requirement of pip as one of conda: ``dask[array]>=1`` is ``dask-core >=1``."""
    name, bounds = re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", requirement).groups()
    return f"{OF_CONDA.get(name, name)} {bounds}"


def test_all_is_every_extra_for_users() -> None:
    (everything,) = EXTRAS["all"]
    assert set(everything.removeprefix("dgmm[").removesuffix("]").split(",")) == FOR_USERS
    assert set(EXTRAS) == FOR_USERS | {"all", "docs", "test", "dev"}


def test_the_recipe_for_conda_asks_for_what_the_project_does(recipe: dict[str, Any]) -> None:
    asked = recipe["requirements"]
    python = f"python {PROJECT['project']['requires-python']}"
    assert asked["run"] == [python, *map(of_conda, PROJECT["project"]["dependencies"])]
    optional = {of_conda(each) for name in FOR_USERS for each in EXTRAS[name]}
    assert asked["run_constraints"] == sorted(optional)
    built_with = [of_conda(each) for each in PROJECT["build-system"]["requires"]]
    assert set(built_with) <= set(asked["host"])


def test_the_recipe_for_conda_says_what_the_project_says(recipe: dict[str, Any]) -> None:
    project = PROJECT["project"]
    assert recipe["context"]["version"] == project["version"] == dgmm.__version__
    assert recipe["package"]["name"] == project["name"]
    ((name, command),) = project["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {command}"]
    assert recipe["about"]["summary"] == project["description"]
    assert recipe["about"]["license"] == project["license"]
    assert (ROOT / recipe["about"]["license_file"]).exists()
    modules = [each["name"] for each in PROJECT["tool"]["setuptools"]["ext-modules"]]
    assert set(modules) <= set(recipe["tests"][0]["python"]["imports"])
