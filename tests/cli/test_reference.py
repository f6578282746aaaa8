"""All commands: each is listed, explained, in a group, answers with JSON, and stands on the page."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

import pytest
import typer
from tools import cli_reference

from flowstone.cli import app, main
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
    """`python -m tools.cli_reference` writes the files."""
    hint = "run: uv run python -m tools.cli_reference"
    assert cli_reference.REFERENCE.read_text() == cli_reference.reference(), hint
    assert cli_reference.PAGE.read_text() == cli_reference.whole_page(), hint
    assert cli_reference.HELP.read_text() == cli_reference.help_text(), hint
    assert cli_reference.help_text().isascii()  # so that any terminal can show it


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_is_the_same_whoever_writes_it(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` is written from a file where the library would write the same; it takes 40 ms instead of 300."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["flowstone", "--help"])
    with pytest.raises(SystemExit):
        app(prog_name="flowstone")
    expected = capsys.readouterr().out
    with suppress(SystemExit):
        main()
    assert capsys.readouterr().out == expected


def test_help_imports_next_to_nothing() -> None:
    code = "import sys; from flowstone.cli import main; sys.argv[1:] = ['--help']; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.splitlines()[-1].split() if name.startswith("flowstone")}
    assert ours == {"flowstone", "flowstone.cli"}
    assert not {"typer", "click", "json", "pathlib", "re"} & set(done.stdout.splitlines()[-1].split())
