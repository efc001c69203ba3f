"""What all commands do alike: tell what happens, end in good order, and give an exit code.

Exit codes: 0 done, 1 a crash, 2 usage, 3 data that can't be used or a plan that does not fit (see
``dgmm.errors``), 4 no cluster or no store, or interrupted with a checkpoint: the same command may
do it later, and goes on from a checkpoint.  ``drift`` has 5, for an alarm.

A job has nothing but this number to go by, so what may pass is told apart from what stays in all
commands, with a checkpoint or without.
"""

import atexit
import logging
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import click
from click.core import ParameterSource

from dgmm.cli import sections
from dgmm.cli.progress import LOGS, Log
from dgmm.data.transient import is_transient
from dgmm.errors import DgmmError
from dgmm.model.lazy import Late

dask = Late("dask")

LATER = 4
"""The exit code where the same command may do later what it could not do now."""

NOTHING = "nothing was written"
AGAIN = "the same command may work later"


class Command(click.Command):
    """A command that turns dgmm's errors into a message and an exit code."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections.write_options(self, ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        log = _log_asked_for(ctx, args)  # before anything in them is found wrong
        try:
            return self._parse(ctx, args)
        except click.UsageError as error:
            if not log.alone:
                raise
            log.say("error", error.format_message(), exit_code=error.exit_code)
            ctx.exit(error.exit_code)

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        files = sum(map(os.path.exists, args))  # before they are taken from the list
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            _refuse_unknown_variables(ctx)  # the one missing may be there by a wrong name
            name = None if error.param is None else error.param.name
            if name and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                error.param_hint = f"{_variable(ctx, name)} in the environment"
            raise
        except click.UsageError as error:
            if "extra argument" not in error.message or files < 2:
                raise
            quotes = "a pattern of files stands in quotes, so that the shell leaves it alone"
            raise click.UsageError(f"{error.message}; {quotes}: 'trips/*.parquet'", ctx) from error
        _refuse_unknown_variables(ctx)
        return rest

    def goes_on(self, ctx: click.Context) -> str | None:
        """How the command goes on where it was interrupted, in words; None if it begins anew."""
        if ctx.params.get("checkpoint") is None:
            return None
        same = "the same command" if ctx.params["resume"] else "the same command with --resume"
        return f"{same} continues where it stopped"

    def invoke(self, ctx: click.Context) -> Any:
        again = self.goes_on(ctx)
        log = LOGS[ctx.params.get("log", "auto")]
        try:
            return self._invoke(ctx, log, again)
        except _Interrupted as error:  # wherever that was, also before anything was begun
            atexit.register(_be_silent)
            log.say("interrupted", again or NOTHING, exit_code=error.exit_code)
            ctx.exit(error.exit_code)

    def _invoke(self, ctx: click.Context, log: Log, again: str | None) -> Any:
        clustered = any(ctx.params.get(each) for each in ("scheduler", "workers"))
        with (
            warnings.catch_warnings(),
            _interruptible(again is not None),
            _logged(log, clustered),
        ):
            warnings.showwarning = partial(_show_warning, log)
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            try:
                return super().invoke(ctx)
            except click.exceptions.Exit:
                raise
            except (Exception, _Interrupted) as error:
                if interrupted := _interruption(error):
                    traceback.clear_frames(interrupted.__traceback__)  # what was begun ends here
                    raise interrupted from None
                ctx.exit(_tell_error(log, error, again))


def _tell_error(log: Log, error: BaseException, again: str | None) -> int:
    """Tell of an error; the exit code.  Raises those that click or Python tells of."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        raise error  # click ends without a word, as others do whom head has read enough of
    if is_transient(error):  # a store's own error, or the network's
        name = "" if isinstance(error, DgmmError) else f"{type(error).__name__}: "
        log.say("error", f"{name}{error}; {again or AGAIN}", exit_code=LATER)
        return LATER
    if isinstance(error, DgmmError):
        log.say("error", str(error), exit_code=error.exit_code)
        return error.exit_code
    if not log.alone:
        raise error
    return _tell_unexpected(log, error)


def _nobody_reads() -> bool:
    """Whether standard output leads to a pipe that was closed at its other end."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except (OSError, ValueError):  # it is no file
        return False
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _variable(ctx: click.Context, option: str) -> str:
    return f"{ctx.auto_envvar_prefix}_{option.upper()}"


def _refuse_unknown_variables(ctx: click.Context) -> None:
    """Raise ``UsageError`` for a variable that reads like an option and is none: a slip."""
    options = [each for each in ctx.command.params if isinstance(each, click.Option)]
    known = [_variable(ctx, each.name) for each in options if each.name]
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


def _interruption(error: BaseException) -> _Interrupted | None:
    """The interruption that an error came of, if any.

    A signal that meets a lock half taken leaves it so, and then something else is raised: that is
    how Python's ``Condition.wait`` is written.
    """
    while not isinstance(error, _Interrupted):
        if error.__context__ is None:
            return None
        error = error.__context__
    return error


@contextmanager
def _interruptible(resumable: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside in good order; a second one ends it at once."""

    def stop(number: int, frame: Any) -> None:
        code = LATER if resumable else 128 + number
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


def _be_silent() -> None:
    """Nothing more is told: the process ends, and all was said.

    A signal leaves event loops half started (Zarr's, and those of stores) or with questions out,
    and they say so at the end.
    """
    logging.disable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None


class _Teller(logging.Handler):
    """Tells what is logged, from a ``level`` on."""

    def __init__(self, log: Log, level: int) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self._log.say("log", self.format(record), level=level, logger=record.name)


OF_DASK = ("distributed", "tornado", "bokeh", "asyncio")
"""Loggers of what Dask does, which is no news to a person: dgmm tells what comes of it."""


@contextmanager
def _logged(log: Log, clustered: bool) -> Iterator[None]:
    """What dgmm logs is told; and what others do, where they may not write themselves.

    Where they may, Dask is silent all the same, unless its configuration says how it is to log.
    ``clustered`` says whether there will be a cluster.
    """
    if clustered:
        import_module("distributed")  # it gives its loggers handlers when it is imported
    ours = logging.getLogger("dgmm")
    known = logging.root.manager.loggerDict.values()
    named = [each for each in known if isinstance(each, logging.Logger)]
    others = [each for each in named if each.handlers]
    handler: logging.Handler = _Teller(log, logging.WARNING)
    if log.alone:
        others.append(logging.root)
    else:
        asked_for = dask.config.get("logging", None) is not None
        others = [] if asked_for else [each for each in others if _is_of_dask(each)]
        others += [] if asked_for else map(logging.getLogger, OF_DASK)
        handler = logging.NullHandler()
    before = [(each, each.handlers) for each in {ours, *others}]
    level, propagate = ours.level, ours.propagate
    for logger, _ in before:
        logger.handlers = [handler]
    ours.handlers = [_Teller(log, logging.INFO)]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        for logger, handlers in before:
            logger.handlers = handlers
        ours.setLevel(level)
        ours.propagate = propagate
        if log.alone and not logging.root.handlers:  # the last word is said, whoever thinks of more
            logging.root.addHandler(logging.NullHandler())


def _is_of_dask(logger: logging.Logger) -> bool:
    return logger.name.split(".")[0] in OF_DASK


def _show_warning(
    log: Log, message: Warning | str, category: type[Warning], file: str, *_: Any, **__: Any
) -> None:
    if not log.alone and any(f"{os.sep}{each}{os.sep}" in file for each in OF_DASK):
        return
    log.say("warning", str(message), category=category.__name__)


def _tell_unexpected(log: Log, error: BaseException) -> int:
    """Tell of an error that is not one of ours; its exit code."""
    if isinstance(error, click.ClickException):
        log.say("error", error.format_message(), exit_code=error.exit_code)
        return error.exit_code
    trace = "".join(traceback.format_exception(error))
    log.say("crash", f"{type(error).__name__}: {error}", exit_code=1, traceback=trace)
    return 1


def _log_asked_for(ctx: click.Context, args: list[str]) -> Log:
    """As ``--log`` says, as far as one can tell without reading the other options."""
    given = [os.environ.get(_variable(ctx, "log"), "")]
    given += [each.removeprefix("--log=") for each in args if each.startswith("--log=")]
    given += [after for each, after in pairwise(args) if each == "--log"]
    return LOGS.get(given[-1], LOGS["auto"])
