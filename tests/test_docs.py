"""What the documents show is what happens."""

import re
from pathlib import Path

import pages
import pytest

import dgmm

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = sorted(DOCS.glob("*-*.md"))
TUTORIALS = sorted(DOCS.glob("tutorials/*.md"))
GUIDE = [DOCS / "index.md", *sorted(DOCS.glob("guide/*.md"))]


@pytest.mark.parametrize("page", [*EXAMPLES, *TUTORIALS, *GUIDE], ids=lambda path: path.stem)
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python shown gives the output shown, and the commands shown succeed."""
    monkeypatch.chdir(tmp_path)
    assert pages.run(page) >= 5
    text = page.read_text()
    for picture in pages.SAVED.findall(text):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
        assert re.search(rf"!\[.{{20,}}\]\((\.\./)?_made/{picture}\)", text, re.DOTALL)


def test_pages_that_show_an_untruth_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md: Python"):
        pages.run(page)
    page.write_text("```python\n>>> 1 + 1\n2\n\n```\n```console\n$ dgmm show nothing.dgmm\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md: dgmm show"):
        pages.run(page)


def test_short_pages_stay_short() -> None:
    assert max(len(page.read_text().splitlines()) for page in [*EXAMPLES, *TUTORIALS]) < 150


def test_the_first_page_has_figures_that_were_measured() -> None:
    """Each line of its table is one of benchmarks/README.md, as far as it is rounded."""
    measured = (DOCS.parent / "benchmarks" / "README.md").read_text()
    told = dict(re.findall(r"^\| (1,000,000 .*?|200,000 .*?|400,000 .*?): (.*)$", INDEX, re.M))
    assert len(told) == 4
    cells = [cell.strip(" *s>") for row in told.values() for cell in row.split("|")[1:4]]
    assert len(cells) == 12
    for cell in cells:
        assert re.search(rf"\| (> )?{re.escape(cell)} \|", measured), cell
    for score in re.findall(r"−(\d+\.\d{3})\b", INDEX):
        assert any(f"{-float(x):.3f}" == score for x in re.findall(r"-\d+\.\d{6}\b", measured))
    for cell in re.findall(r"(\d[\d.,]*) s\b|−([\d.]+)", README):
        assert "".join(cell) in INDEX
    for figure in ("29.6 GB", "1,006", "1,894 MiB"):
        assert figure in measured
        assert figure in INDEX


INDEX = (DOCS / "index.md").read_text()
README = (DOCS.parent / "README.md").read_text()


def test_the_reference_has_all_public_names() -> None:
    reference = re.findall(
        r"^(?:   |\.\. autoexception:: )(\w+)$", (DOCS / "reference.md").read_text(), re.M
    )
    assert sorted(reference) == sorted(dgmm.__all__)


def test_all_pages_can_be_reached() -> None:
    listed = set(re.findall(r"^([\w/-]+)$", INDEX, re.M))
    for page in [*TUTORIALS, *GUIDE[1:], DOCS / "glossary.md", DOCS / "reference.md"]:
        assert str(page.relative_to(DOCS).with_suffix("")) in listed
