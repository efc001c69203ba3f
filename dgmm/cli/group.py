"""All commands: what each is for, and where it is; a command is loaded when it is asked for.

A command takes a second to load, with all that it may need.  So what is said of each in the help of
all stands here, too; a test holds it to the command's own first sentence.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Final, cast

import click
from click.shell_completion import CompletionItem

COMMANDS: Final = {
    "Fit": {
        "demo": "Fit the pixels of two photographs out of core, and draw the result.",
        "plan": "Show what a fit to DATA will need: blocks, tasks, bytes read, peak memory.",
        "fit": "Fit a mixture to the rows of DATA, and write it to a model file.",
        "select": "Choose the number of components and the covariance type for DATA.",
        "update": "Update a model with DATA, rows that it has not seen, in one pass over these.",
    },
    "Use a model": {
        "predict": "Label each row of DATA with its component, in a Zarr array, a table or a file.",
        "score": "Score a model on DATA: the mean log-likelihood of the rows, AIC and BIC.",
        "impute": "Fill in the missing values (NaN) of DATA, in a Zarr array or a table.",
        "denoise": "Write what DATA are expected to be without their known errors, as a Zarr array "
        "or a table.",
        "regress": "Predict some features of rows from the others, in a Zarr array or a table.",
        "threshold": "Find the log-density below which a share of the rows of DATA lies.",
        "merge": "Join the components of a model to groups, as a cluster may be several "
        "components.",
        "drift": "Tell whether the rows DATA are like those that a model was fitted to, and what "
        "changed.",
    },
    "Over sites that do not share rows": {
        "summarize": "Write the sums of the rows DATA under a model, all that an update needs of "
        "these rows.",
        "federate": "Fit a mixture to the rows of many sites, which do not share them.",
        "join": "Be a site of a federated fit: answer with sums of the rows DATA, which stay here.",
    },
    "Look at a model": {
        "show": "Show the components of a model file, and how it was fitted.",
        "report": "Write what there is to say of a model as one page of HTML, which opens from a "
        "disk.",
        "errors": "Tell the standard errors of a model's parameters, by the rows DATA that it was "
        "fitted to.",
        "export": "Write a model for other programs: an ONNX graph (with dgmm[onnx]), or its "
        "parameters as JSON.",
        "reduce": "Make a model of fewer components that is near a MODEL, without rows.",
        "compare": "Tell how far the model OTHER is from MODEL, and which components moved.",
    },
}
"""What commands are for, by the heading that they stand under in the help of all, and the name."""

MODULES: Final = {
    "changing": ("compare", "drift"),
    "deciding": ("threshold",),
    "exporting": ("export",),
    "federating": ("federate", "join", "summarize"),
    "fitting": ("fit", "select"),
    "grouping": ("merge", "reduce"),
    "planning": ("demo", "plan"),
    "predicting": ("denoise", "impute", "predict"),
    "regressing": ("regress",),
    "reporting": ("report",),
    "uncertainty": ("errors",),
    "using": ("score", "show", "update"),
}
"""The commands of each module of this room."""


class LateCommands(Mapping[str, click.Command]):
    """All commands, by name; each is imported when it is first asked for."""

    def __init__(self) -> None:
        self._modules = {name: module for module, names in MODULES.items() for name in names}

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"dgmm.cli.{self._modules[name]}")
        return cast(click.Command, getattr(module, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class Commands(click.Group):
    """All commands; the help has them under headings, each with its whole first sentence."""

    def __init__(self, name: str | None = None, **rest: object) -> None:
        super().__init__(name, **rest)  # type: ignore[arg-type]
        self.commands = cast(MutableMapping[str, click.Command], LateCommands())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        told = sorted((name, said) for each in COMMANDS.values() for name, said in each.items())
        items = [CompletionItem(name, help=said) for name, said in told]
        of_options = click.Command.shell_complete(self, ctx, incomplete)
        return [each for each in items if each.value.startswith(incomplete)] + of_options
