"""The program `flowstone`: its commands and its version."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flowstone import __version__
from flowstone.cli.command import App, AppDir, AsJson, Database, InProject, Verbose, Wide, build
from flowstone.cli.commands import COMMANDS, PANELS, Listed
from flowstone.cli.given import Given
from flowstone.cli.plain_values import take_plain_values
from flowstone.errors import option_hint

_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""The class of wrong usage, of Click or of the copy of it that typer brings."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the completion of a shell offers.

    Args:
        value: the text that is inserted.
        help: what it stands for.
        type: as Click has it: plain text.
    """

    value: str
    help: str | None = None
    type: str = "plain"


class LazyCommands(dict[str, Any]):
    """Commands by name, each imported when it is asked for.

    Args:
        listed: their lines in the table.
        path: what is typed before their names.
    """

    def __init__(self, listed: Sequence[Listed], path: str = "") -> None:
        super().__init__((one.name, None) for one in listed)
        self.listed = {one.name: one for one in listed}
        self._path = path

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        if found is None:
            one, path = self.listed[name], f"{self._path} {name}".strip()
            found = _group(one, path) if one.inside else build(one, path)
            self[name] = found
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command; the default when there is none of this name."""
        try:
            return self[name]
        except KeyError:
            return default

    def values(self) -> Any:
        """Return all commands."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Return all commands with their names."""
        return [(name, self[name]) for name in self]


class _Group(TyperGroup):
    """A group that lists and completes its commands from the table, without importing them."""

    commands: LazyCommands

    def get_params(self, ctx: Any) -> Any:
        return [take_plain_values(parameter) for parameter in super().get_params(ctx)]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        listed = self.commands.listed.values()
        for panel in PANELS:
            rows = [(one.name, one.summary) for one in listed if one.panel == panel]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)
        rows = [(one.name, one.summary) for one in listed if not one.panel]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        names = [name for name in self.commands if name.startswith(incomplete)]
        found = [Suggestion(name, self.commands.listed[name].summary) for name in names]
        options = super(TyperGroup, self).shell_complete(ctx, incomplete) if incomplete.startswith("-") else []
        return [*found, *options]


class _Noun(_Group):
    """A group that is also a command: `runs` is `runs ls`, and `runs ID` is `runs show ID`."""

    bare = ""
    one = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._completed(list(args)))

    def _completed(self, args: list[str]) -> list[str]:
        """Return the arguments with the name of the command that is meant when they name none."""
        takes_value = {"--app", "--app-dir", "--database", "--database-url", "--project"}
        position = 0
        while position < len(args):
            word = args[position]
            if word in ("-h", "--help") or word in self.commands:
                return args
            if word in takes_value:
                position += 2
            elif word in ("--json", "--wide", "-v", "--verbose") or word.partition("=")[0] in takes_value:
                position += 1
            else:
                break
        # a word with a colon is one of a filter, an id has none
        if position >= len(args) or args[position].startswith("-") or ":" in args[position]:
            return [*args[:position], self.bare, *args[position:]]
        if not self.one or get_close_matches(args[position], self.commands, cutoff=0.75):
            return args
        return [*args[:position], self.one, *args[position:]]


def _group(listed: Listed, path: str) -> Any:
    """Make a group of commands."""
    program = typer.Typer(
        name=listed.name,
        cls=_Noun if listed.bare else _Group,
        help=listed.summary + ".",
        no_args_is_help=not listed.bare,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_common_of_group)
    made = typer.main.get_command(program)
    made.commands = LazyCommands(listed.inside, path)  # type: ignore[attr-defined]
    if listed.bare:
        made.bare, made.one = listed.bare, listed.one  # type: ignore[attr-defined]
    return made


def _common_of_group(
    ctx: typer.Context,
    *,
    app: App = None,
    app_dir: AppDir = None,
    database: Database = None,
    project: InProject = None,
    as_json: AsJson = False,
    wide: Wide = False,
    verbose: Verbose = False,
) -> None:
    given = Given(
        app=app, app_dir=app_dir, database=database, project=project, as_json=as_json, wide=wide, verbose=verbose
    )
    ctx.obj = given.over(ctx.obj if isinstance(ctx.obj, Given) else Given())


class _Program(_Group):
    """Says what was meant by a wrong option, and answers wrong usage with JSON when JSON was requested."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands(COMMANDS)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except _USAGE_ERROR as error:
            _suggest(error)
            if not standalone_mode:
                raise
            error.show()  # type: ignore[attr-defined]
            if "--json" in given:
                message = error.format_message()  # type: ignore[attr-defined]
                typer.echo(json.dumps({"error": {"type": "UsageError", "message": message}}, indent=2))
            sys.exit(error.exit_code)  # type: ignore[attr-defined]
        except typer.Abort:
            if not standalone_mode:
                raise
            typer.echo("Aborted!", err=True)
            sys.exit(1)
        if standalone_mode:
            sys.exit(code)
        return code


def _suggest(error: Any) -> None:
    """Name the option that was meant by one that is not there, also in the words of other tools."""
    written = getattr(error, "option_name", None)
    if written is None or error.ctx is None or not str(written).startswith("--"):
        return
    options = [option for one in error.ctx.command.params for option in one.opts if option.startswith("--")]
    known = {option[2:].replace("-", "_"): option for option in options}
    meant = re.search(r"Did you mean '(\w+)'", option_hint(written[2:].replace("-", "_"), known))
    if meant:
        error.possibilities = [known[meant[1]]]


app = typer.Typer(
    name="flowstone",
    cls=_Program,
    help="Asset-first data orchestration on PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"flowstone {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    *,
    app: App = None,
    app_dir: AppDir = None,
    database: Database = None,
    project: InProject = None,
    as_json: AsJson = False,
    wide: Wide = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Asset-first data orchestration on PostgreSQL."""
    ctx.obj = Given(
        app=app, app_dir=app_dir, database=database, project=project, as_json=as_json, wide=wide, verbose=verbose
    )


def main() -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong usage or settings, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show a character gets an escape instead of an error
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _show_bug
    app(prog_name="flowstone")


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the traceback of what nobody expected, without secrets in its messages and source lines."""
    mask_secrets = import_module("flowstone.core.clean").mask_secrets  # not needed by help and completion
    sys.stderr.write(mask_secrets("".join(traceback.format_exception(kind, error, trace))))
