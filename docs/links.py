"""Links within the site lead somewhere, and pictures say what they show."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging


class Page(HTMLParser):
    """What a page links to, the places on it that can be linked to, and pictures without words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places = {""}
        self.wordless: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag says."""
        has = dict(attrs)
        self.links |= {value for name in ("href", "src") if (value := has.get(name))}
        self.places |= {value for name in ("id", "name") if (value := has.get(name))}
        words = has.get("alt")  # none, for one beside its title; Sphinx's own are the file's name
        if tag == "img" and (words is None or words.endswith((".png", ".jpg"))):
            self.wordless.append(str(has.get("src")))


def broken(site: Path) -> list[str]:
    """What is wrong with the links and pictures of a site, a line each."""
    pages = {path: Page(path) for path in sorted(site.glob("**/*.html"))}
    wrong = []
    for path, page in pages.items():
        wrong += [f"{path}: a picture without words, {each}" for each in page.wordless]
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            places = pages[target].places if target in pages else {"", parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in places:
                wrong.append(f"{path}: {link} leads nowhere")
    return wrong


def check(app: Sphinx, exception: Exception | None) -> None:
    """Warn of what is wrong with a site that was built."""
    if exception is None and app.builder.name == "html":
        for line in broken(Path(app.outdir).resolve()):
            logging.getLogger(__name__).warning(line)
