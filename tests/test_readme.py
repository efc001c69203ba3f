"""What the README and the examples show is what happens."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dgmm.cli.commands import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python shown gives the output shown; then the commands shown run on what it left."""
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted >= 10
    assert found.failed == 0
    commands = re.findall(r"^\$ dgmm (.*)$", README, flags=re.MULTILINE)
    assert {command.split()[0] for command in commands} == {
        "plan",
        "fit",
        "show",
        "score",
        "predict",
        "select",
        "update",
    }
    for command in commands:
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, done.output


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_names_every_command_and_extra() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"'\.\[(\w+)\]'", README)
    assert {"docs", "hdf5", "metrics", "parquet", "plot", "s3", "test"} <= set(extras)
    for extra in extras:
        assert f"\n{extra} = [" in project
    assert "pip install '.[plot]' && dgmm demo" in README
    assert "pip install '.[test]' && pytest" in README


FEWER = {"out_of_core": ["200000"]}
"""What an example is given, to have less to do."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples(tmp_path: Path, example: Path) -> None:
    assert len(example.read_text().splitlines()) < 60
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example), *FEWER.get(example.stem, [])],
        cwd=tmp_path,
        env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "error"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert {
        "quickstart": "after 3 minutes, wait",
        "out_of_core": "rows per component: 39",
        "on_a_cluster": "the same to the last bit: True",
    }[example.stem] in done.stdout
