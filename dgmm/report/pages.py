"""What pages of HTML are made of: templates beside this file, and tables.

A page has no script and asks no network for anything.  All texts are escaped: names of features and
of files are whatever somebody called them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from dgmm.model.lazy import Late

jinja2 = Late("jinja2")


@dataclass(frozen=True)
class Table:
    """A table of a page: its caption, the names of its columns, and rows of cells."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(template: str, /, **values: Any) -> str:
    """The page that a ``template`` makes of some values."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(
            lambda each: files("dgmm.report").joinpath(each).read_text("utf-8")
        ),
    )
    made: str = environment.get_template(template).render(**values)
    return made
