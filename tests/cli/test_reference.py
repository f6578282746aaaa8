"""All commands: each is listed, explained, in a group, answers with JSON, and stands on the page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

import pytest
import typer
from tools import cli_reference

from flowstone.cli import app
from flowstone.cli.commands import COMMANDS, FAILS, PANELS, Listed

ROOT = typer.main.get_command(app)


def everything() -> Iterator[tuple[str, Listed]]:
    for listed in COMMANDS:
        if listed.inside:
            yield from ((f"{listed.name} {inner.name}", inner) for inner in listed.inside)
        else:
            yield listed.name, listed


ALL = dict(everything())


def built(path: str) -> object:
    here: object = ROOT
    for word in path.split():
        here = here.commands[word]  # type: ignore[attr-defined]
    return here


@pytest.mark.parametrize("path", ALL)
def test_every_command_is_explained(path: str) -> None:
    listed, command = ALL[path], built(path)
    module, _, name = listed.place.partition(":")
    function = getattr(import_module(f"flowstone.cli.{module}"), name)
    assert 8 <= len(listed.summary) <= 60
    assert not listed.summary.endswith(".")
    assert len(inspect.getdoc(function) or "") > 20
    for parameter in command.params:  # type: ignore[attr-defined]
        assert parameter.help, f"{path}: {parameter.name} has no help"
        assert parameter.help.endswith((".", ")", "?")), f"{path}: {parameter.name}: {parameter.help}"
    options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {"--json", "--app", "--database", "--wide", "--verbose"} <= options
    assert re.match(r"Exit codes: 0 done, 1 .+, 2 .+, 130 ", command.epilog)  # type: ignore[attr-defined]


def test_every_command_has_a_group_and_every_group_is_used() -> None:
    assert {listed.panel for listed in COMMANDS} == set(PANELS)
    names = [listed.name for listed in COMMANDS]
    assert len(names) == len(set(names))
    assert set(FAILS) <= set(ALL)
    for listed in COMMANDS:
        inner = [one.name for one in listed.inside]
        assert len(inner) == len(set(inner))
        assert {listed.bare, listed.one} <= {*inner, ""}


def test_the_help_fits_into_sixty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "60"}, terminal_width=60).stdout
    assert max(map(len, shown.splitlines())) <= 62
    for panel in PANELS:
        assert f"{panel}:" in shown
    for listed in COMMANDS:
        assert re.search(rf"^  {listed.name} ", shown, re.MULTILINE)


def test_the_reference_is_current() -> None:
    """`python -m tools.cli_reference` writes both files."""
    hint = "run: uv run python -m tools.cli_reference"
    assert cli_reference.REFERENCE.read_text() == cli_reference.reference(), hint
    assert cli_reference.PAGE.read_text() == cli_reference.whole_page(), hint
