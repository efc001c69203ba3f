"""The checks, by name: ``nox`` runs all of them, ``nox -s lint`` one.

They run in the active environment (``pip install -e '.[dev]'``).  .ci/run, the workflows and the
hooks of pre-commit call them by these names, so each command stands once.
"""

import shutil
from pathlib import Path

import nox

nox.options.stop_on_first_error = True

GITHUB = {
    "github-workflows": ".github/workflows/*.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "dependabot": ".github/dependabot.yml",
    "citation-file-format": "CITATION.cff",
}
"""Files that only GitHub runs, by the schema that they follow."""


def run(session: nox.Session, command: str) -> None:
    """Run a command, with the words that follow ``--`` on nox's own line."""
    session.run(*command.split(), *session.posargs, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, and the files that can't be run here."""
    run(session, "ruff check .")
    run(session, "ruff format --check .")
    for schema, files in GITHUB.items():
        names = " ".join(sorted(map(str, Path().glob(files))))
        run(session, f"check-jsonschema --builtin-schema vendor.{schema} {names}")
    run(session, "zizmor --offline --quiet .github")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types."""
    run(session, "mypy")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The site of the documents, in docs/_build, made anew; tests run its pages, too."""
    for made in ("_build", "_made", "gallery", "reference"):
        shutil.rmtree(Path("docs", made), ignore_errors=True)
    run(session, "sphinx-build -q -W --keep-going -b html docs docs/_build")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests that processes side by side can do."""
    run(session, "pytest")


@nox.session(venv_backend="none")
def image(session: nox.Session) -> None:
    """The image, built and run; wants root and tools of Debian, else it is skipped."""
    run(session, "pytest -n 0 tests/test_image.py")


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """Wheel and sdist, built and installed as users do."""
    run(session, "pytest -n 0 tests/test_wheel.py")


@nox.session(venv_backend="none", default=False)
def coverage(session: nox.Session) -> None:
    """The tests, with the lines and branches that they reach; slower, so only when asked."""
    run(session, "pytest --cov")
