"""What a page shows is what happens: its Python and its commands, run in the order of the page."""

import doctest
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from dgmm.cli.commands import main

CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A block of commands; what else is in it does not matter."""

SAVED = re.compile(r'pictures\.save\(\w+, "(.*?)"\)')
"""How code on a page says that it saves a picture."""


def run(page: Path) -> int:
    """Run what ``page`` shows, in this directory; raise if something else happens.

    Returns how many examples of Python there were.  Lines ``$ dgmm ...`` of blocks of ``console``
    are run when their place comes, and have to succeed; ``> file`` keeps what they print.
    """
    runner = doctest.DocTestRunner(verbose=False)
    parser = doctest.DocTestParser()
    shared: dict[str, object] = {"__name__": "__main__"}
    seen, text = 0, page.read_text()
    for part, commands in _parts(text):
        line = text.count("\n", 0, part.start)
        test = parser.get_doctest(text[part], shared, page.stem, str(page), line)
        runner.run(test, clear_globs=False)
        shared = test.globs
        seen += len(test.examples)
        for command in re.findall(r"^\$ dgmm (.*)$", commands, re.MULTILINE):
            words, file = shlex.split(command), ""
            if words[-2:-1] == [">"]:  # and not one within quotes, such as a filter's
                *words, _, file = words
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, f"{page.name}: dgmm {command}: {done.output}"
            if file:
                Path(file).write_text(done.stdout)
    assert runner.summarize(verbose=False).failed == 0, f"{page.name}: Python shows an untruth"
    return seen


def _parts(text: str) -> list[tuple[slice, str]]:
    """The page cut after each block of commands: where the part before is, and the commands."""
    parts, begin = [], 0
    for block in CONSOLE.finditer(text):
        parts.append((slice(begin, block.start()), block[1]))
        begin = block.end()
    return [*parts, (slice(begin, None), "")]
