"""What the documents show is what happens."""

import doctest
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dgmm.cli.commands import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*-*.md"))
"""The worked examples."""

GUIDE = [DOCS / "index.md", *sorted(DOCS.glob("guide/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python shown gives the output shown; then the commands shown run on what it left."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    assert len(text.splitlines()) < 150
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 10
    assert found.failed == 0
    for picture in re.findall(r'pictures\.save\(\w+, "(.*?)"\)', text):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    commands = re.findall(r"^\$ dgmm (.*)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("page", GUIDE, ids=lambda path: path.stem)
def test_a_page_of_the_guide(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 5
    assert found.failed == 0
    for command in re.findall(r"^\$ dgmm (.*)$", page.read_text(), flags=re.MULTILINE):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, done.output


def test_the_readme_names_all_pages() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    for page in [*PAGES, *GUIDE[1:]]:
        assert f"{page.relative_to(DOCS.parent)}" in readme
