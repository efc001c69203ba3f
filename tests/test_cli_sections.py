"""The help has every option and every command once, under a heading that exists for something."""

import re

import click
import pytest
from click.testing import CliRunner

from dgmm.cli.commands import main
from dgmm.cli.group import COMMANDS
from dgmm.cli.sections import FEW, OPTIONS


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {str(each.name): each for each in command.params if isinstance(each, click.Option)}


@pytest.mark.parametrize("name", main.commands)
def test_each_option_is_told_once(name: str) -> None:
    command = main.commands[name]
    told = "\nOptions:" + command.get_help(click.Context(command)).split("\nOptions:")[1]
    for option in options_of(command).values():
        start = re.escape(", ".join(sorted(option.opts, key=len)))
        assert len(re.findall(rf"^  {start}(?![\w-])", told, re.MULTILINE)) == 1
    assert told.count("\nThe rows:") == (len(options_of(command)) > FEW)
    assert told.count("\nWhere it starts:") == ("effort" in options_of(command))


def test_what_is_required_comes_first() -> None:
    fit = main.commands["fit"]
    told = fit.get_help(click.Context(fit))
    for needed in ("-k, --n-components", "-o, --output"):
        assert told.index(needed) < told.index("The mixture:")


def test_each_command_is_told_once_with_its_whole_sentence() -> None:
    told = [(name, said) for each in COMMANDS.values() for name, said in each.items()]
    assert sorted(told) == sorted(
        (str(command.name), command.get_short_help_str(1000)) for command in main.commands.values()
    )
    shown = CliRunner().invoke(main, ["--help"]).output
    for name, _ in told:
        assert len(re.findall(rf"^  {name} ", shown, re.MULTILINE)) == 1


def test_headings_name_what_exists() -> None:
    known = {name for command in main.commands.values() for name in options_of(command)}
    assert {name for names in OPTIONS.values() for name in names} <= known


def test_a_list_goes_on_where_its_option_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was the last alone that counted, without a word."""
    monkeypatch.setenv("DGMM_SELECT_COVARIANCE_TYPE", "tied,full")
    words = [
        "rows.parquet",
        "-o",
        "x.dgmm",
        "-k",
        "1",
        "--columns",
        "a,b",
        "--columns=c",
        "-k",
        "3..4",
    ]
    asked = main.commands["select"].make_context("select", words, auto_envvar_prefix="DGMM_SELECT")
    given = asked.params
    assert given["n_components"] == [1, 3, 4]
    assert given["columns"] == ["a", "b", "c"]
    assert list(given["covariance_type"]) == ["tied", "full"]
