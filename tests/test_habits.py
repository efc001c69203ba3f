"""One version, one list of checks, and files that say the same everywhere."""

import re
import tomllib
from pathlib import Path

import yaml

import dgmm

ROOT = Path(__file__).parent.parent


def test_the_version_stands_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dgmm.__version__ == project["version"] == citation["version"]
    assert citation["license"] == project["license"]


def test_hooks_and_workflows_call_checks_that_there_are() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session: nox", (ROOT / "noxfile.py").read_text(), re.M))
    sessions -= {"run"}
    assert sessions == {"lint", "types", "tests", "image", "wheel", "coverage"}
    callers = [ROOT / ".pre-commit-config.yaml", *(ROOT / ".github/workflows").glob("*.yml")]
    called = [
        name
        for caller in callers
        for words in re.findall(r"nox --session ([\w ]+)", caller.read_text())
        for name in words.split()
    ]
    assert sessions == set(called)


def test_tests_run_on_each_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    assert set(promised) <= set(workflow["jobs"]["tests"]["strategy"]["matrix"]["python"])
