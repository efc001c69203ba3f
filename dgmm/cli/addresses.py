"""Paths and URLs on a command line; a shell completes the names of files where one stands."""

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType


class Address(StringParamType):
    """A path or a URL, as text: whether anything is there is asked where it is opened."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


ADDRESS = Address()
