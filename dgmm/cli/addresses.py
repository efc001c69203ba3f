"""Paths and URLs on a command line; a shell completes the names of files where one stands."""

from typing import Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType


class Address(StringParamType):
    """A path or a URL, as text: whether anything is there is asked where it is opened."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-":  # which would be a file of that name
            self.fail(
                "'-' can't be read or written, as rows are read more than once, and outputs appear "
                "whole: give a path or a URL",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


ADDRESS = Address()
