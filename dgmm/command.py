"""What all commands do alike: tell what happens, end in good order, and give an exit code.

Exit codes: 0 done, 1 a crash, 2 usage, 3 data that can't be used or a plan that does not fit (see
``dgmm.errors``), 4 interrupted, and the same command goes on where it stopped.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from dgmm.errors import DgmmError, LostError

EXIT_CODES = """\b
Exit codes: 0 done; 1 crash; 2 usage; 3 data that can't be used, or a plan
that does not fit in memory (running it again won't help); 4 interrupted, and
the same command goes on (with --checkpoint; else 130 Ctrl-C, 143 SIGTERM).
"""

ENVIRONMENT = """\b
Each option is also read from the environment, where it is not given here:
for dgmm fit, --max-iter from DGMM_FIT_MAX_ITER, --no-resume as
DGMM_FIT_RESUME=false. An empty variable is as none.
"""

RESUMABLE = 4
"""The exit code of an interrupted fit that has a checkpoint; without, it is as shells have it."""


class Command(click.Command):
    """A command that turns dgmm's errors into a message and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            _refuse_unknown_variables(ctx)  # the one missing may be there by a wrong name
            name = None if error.param is None else error.param.name
            if name and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                error.param_hint = f"{_variable(ctx, name)} in the environment"
            raise
        _refuse_unknown_variables(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        resumable = ctx.params.get("checkpoint") is not None
        with warnings.catch_warnings(), _interruptible(resumable), _logged():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except DgmmError as error:
                click.echo(f"Error: {error}", err=True)
                lost = resumable and isinstance(error, LostError)
                ctx.exit(RESUMABLE if lost else error.exit_code)
            except _Interrupted as error:
                if resumable:
                    click.echo("Interrupted: the same command goes on where it stopped.", err=True)
                else:
                    click.echo("Interrupted: nothing was written.", err=True)
                ctx.exit(error.exit_code)


def _variable(ctx: click.Context, option: str) -> str:
    return f"{ctx.auto_envvar_prefix}_{option.upper()}"


def _refuse_unknown_variables(ctx: click.Context) -> None:
    """Raise ``UsageError`` for a variable that reads like an option and is none: a slip."""
    known = [_variable(ctx, each.name) for each in ctx.command.params if each.name]
    for name in sorted(os.environ):
        if name.startswith(_variable(ctx, "")) and name not in known:
            close = "".join(f"; do you mean {each}?" for each in get_close_matches(name, known, 1))
            raise click.UsageError(
                f"{name} in the environment names no option of {ctx.command_path}{close}"
            )


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


@contextmanager
def _interruptible(resumable: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside in good order; a second one ends it at once."""

    def stop(number: int, frame: Any) -> None:
        code = RESUMABLE if resumable else 128 + number
        for each in before:
            signal.signal(each, lambda *_: os._exit(code))
        raise _Interrupted(code)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            if (was := signal.getsignal(each)) is not signal.SIG_IGN:
                before[each] = was
                signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _logged() -> Iterator[None]:
    """What dgmm logs is told in a line each."""
    handler, log = logging.StreamHandler(sys.stderr), logging.getLogger("dgmm")
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)
