"""The report: one page that shows what is so, whatever names of features are."""

from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dgmm
from dgmm.cli.commands import main
from dgmm.report import document

ROWS = np.random.default_rng(0).normal(size=(600, 3))
ROWS[200:] += 6
HOSTILE = "<script>alert('x')</script>"
NAMED = pd.DataFrame(ROWS, columns=[HOSTILE, "$b_1$", "c"])


class Page(HTMLParser):
    """The elements of a page, and whether they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.seen if name == tag]


@pytest.fixture(scope="module")
def model() -> dgmm.GaussianMixture:
    fitted = dgmm.GaussianMixture(2, random_state=0).fit(NAMED)
    return fitted.keep_threshold(fitted.find_threshold(NAMED, 0.01))


def test_an_overview_counts_as_numpy_does() -> None:
    """In blocks, with holes, and rows outside; certainty is that of the labels."""
    rows = ROWS.copy()
    rows[5, 0], rows[6], rows[7, 1] = np.nan, np.nan, 1e9
    judge = dgmm.GaussianMixture(2, missing="marginalize", random_state=0).fit(ROWS)
    judge.keep_threshold(judge.find_threshold(rows, 0.01))
    seen = judge.overview(dgmm.open_dataset(rows, block_bytes=100 * 24), features=[2, 0, 1])
    proba = judge.predict_proba(rows)
    known = ~np.isnan(proba[:, 0])
    labels, certain = proba[known].argmax(axis=1), proba[known].max(axis=1)
    assert (seen.rows, seen.nothing, seen.below) == (600, 1, int(judge.outliers(rows).sum()))
    assert seen.labels.tolist() == np.bincount(labels).tolist()
    np.testing.assert_allclose(
        seen.mean_certainty, [certain[labels == k].mean() for k in (0, 1)], rtol=1e-12
    )
    np.testing.assert_array_equal(
        seen.certainty.sum(axis=0), np.histogram(certain, bins=20, range=(0, 1))[0]
    )
    assert seen.missing.tolist() == [1, 2, 1]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = rows[:, [seen.features[i], seen.features[j]]]
        pair = pair[~np.isnan(pair).any(axis=1)]
        own, _, _ = np.histogram2d(*pair.T, bins=[seen.edges[i], seen.edges[j]])
        np.testing.assert_array_equal(seen.pair(i, j), own)
    total = seen.singles.sum(axis=1) + seen.outside + seen.missing
    assert total.tolist() == [600] * 3
    assert seen.outside[2] >= 1
    assert seen.log_likelihood == pytest.approx(np.nansum(judge.score_samples(rows)), rel=1e-12)


def _width(url: str) -> int:
    """Of a PNG in a data URL, in pixels."""
    return int.from_bytes(b64decode(url.partition(",")[2])[16:20], "big")


def test_a_page_needs_nothing_else_and_escapes_names(
    model: dgmm.GaussianMixture, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    dgmm.write_report(model, path, NAMED, name='a "b" <i>.dgmm')
    text = path.read_text()
    page = Page(text)
    assert not page.all("script")
    assert not page.all("link")
    assert "&lt;script&gt;" in text
    assert "http" not in text
    assert page.all("html") == [{"lang": "en"}]
    images = page.all("img")
    assert len(images) >= 2
    for each in images:
        assert str(each["src"]).startswith("data:image/png;base64,")
        assert len(str(each["alt"])) > 30
        least = int(str(each["style"]).removeprefix("min-width: ").removesuffix("px"))
        assert least >= 0.5 * _width(str(each["src"]))  # on a phone, it scrolls
    assert text.count('<figure><div class="scroll"') == len(images)
    assert len(page.all("caption")) == len(page.all("table")) >= 3
    assert "600 rows" in text
    assert f"{model.threshold_.log_density:.9g}" in text
    errors = model.standard_errors(NAMED).weights
    assert f"(± {errors[0]:.2g})" in text


def test_many_components_and_features_are_folded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(200, 64))
    large = dgmm.GaussianMixture.from_parameters(
        np.full(200, 0.005), means, np.ones((200, 64)), covariance_type="diag"
    )
    path = tmp_path / "large.html"
    dgmm.write_report(large, path, features=[0])
    assert path.stat().st_size < 2_000_000
    assert "the 20 heaviest of" in path.read_text()
    page = Page(path.read_text())
    assert len(page.all("details")) >= 2
    regions = [each["aria-label"] for tag, each in page.seen if each.get("role") == "region"]
    assert len(set(regions)) == len(regions) >= 4  # whoever hears the page can tell them apart
    assert "--rate 1e-4 -o" in path.read_text()
    assert [document._rate(rows) for rows in (3, 344, 10**4)] == ["0.5", "1e-2", "1e-4"]
    scrolled = [each for tag, each in page.seen if "tabindex" in each]
    assert all(each.get("role") == "region" for each in scrolled)


def test_the_command(model: dgmm.GaussianMixture, tmp_path: Path) -> None:
    model.save(tmp_path / "model.dgmm")
    np.save(tmp_path / "rows.npy", ROWS)
    output = tmp_path / "report.html"
    words = ["report", str(tmp_path / "model.dgmm"), str(tmp_path / "rows.npy"), "-o", str(output)]
    done = CliRunner().invoke(main, [*words, "--features", "c", "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    first = output.read_bytes()
    assert CliRunner().invoke(main, [*words, "--quiet"]).exit_code == 3  # it is there
    assert output.read_bytes() == first
    wrong = CliRunner().invoke(main, [*words, "--features", "d", "--overwrite", "--quiet"])
    assert wrong.exit_code == 3
    assert output.read_bytes() == first


def test_a_notebook_shows_what_was_fitted() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    model = dgmm.GaussianMixture(1, random_state=0)
    assert "<table>" not in model._repr_html_()
    model.fit(rows)
    bundle = model._repr_mimebundle_()
    for shown in (model._repr_html_(), bundle["text/html"]):
        assert shown.count("1 component, full, of 2 features") == 1
        assert shown.index("nats a row") < shown.index("sk-top-container")
    assert bundle["text/plain"] == repr(model)
    search = dgmm.select(rows, [1, 2], random_state=0)
    assert "1 component, full" in search._repr_html_()
