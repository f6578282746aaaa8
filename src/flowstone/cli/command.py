"""How a function becomes a command: the options that all have, its help, the session that it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from flowstone.cli.commands import FAILS, Listed
from flowstone.cli.given import Given
from flowstone.cli.plain_values import take_plain_values

type Command = Callable[..., int | None]

App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The app: module:attribute or path/to/file.py:attribute. Also FLOWSTONE_APP or the settings file.",
    ),
]
AppDir = Annotated[
    Path | None,
    typer.Option("--app-dir", metavar="DIR", help="Where the app's modules are found."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        "--database-url",
        metavar="URL",
        help="The database to answer from, without an app. Also FLOWSTONE_DATABASE_URL or the settings file.",
    ),
]
InProject = Annotated[
    str | None,
    typer.Option("--project", metavar="NAME", help="The project. Also FLOWSTONE_PROJECT or the settings file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns of tables, however narrow the terminal is.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs and whole tracebacks.")]

_COMMON: tuple[tuple[str, Any, Any], ...] = (
    ("app", App, None),
    ("app_dir", AppDir, None),
    ("database", Database, None),
    ("project", InProject, None),
    ("as_json", AsJson, False),
    ("wide", Wide, False),
    ("verbose", Verbose, False),
)
_COMMON_NAMES = frozenset(name for name, _, _ in _COMMON)


class OwnOptionsFirst(TyperCommand):
    """A command whose help lists its own options before those that every command has."""

    def get_params(self, ctx: Any) -> Any:
        """Return arguments and options, which take plain values themselves."""
        return [take_plain_values(parameter) for parameter in super().get_params(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, own options, common options."""
        shown = [(one, record) for one in self.get_params(ctx) if (record := one.get_help_record(ctx))]
        arguments = [record for one, record in shown if one.param_type_name == "argument"]
        options = [(one, record) for one, record in shown if one.param_type_name != "argument"]
        common = [record for one, record in options if one.name in _COMMON_NAMES or one.name == "help"]
        own = [record for one, record in options if record not in common]
        for title, records in (("Arguments", arguments), ("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=26)


def build(listed: Listed, path: str) -> Any:
    """Import the function of a command and make it one: common options, session, exit code.

    Args:
        listed: its line in the table.
        path: what is typed to call it, such as `db status`.
    """
    module, _, name = listed.place.partition(":")
    function = getattr(import_module(f"flowstone.cli.{module}"), name)
    program = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    fails = FAILS.get(path, "1 when something failed")
    epilog = f"Exit codes: 0 done, {fails}, 2 wrong usage or settings, 130 Ctrl-C."
    register = program.command(listed.name, cls=OwnOptionsFirst, epilog=epilog, short_help=listed.summary)
    call = _as_command(function)
    register(call)
    made = typer.main.get_command(program)
    made.completes = _completes(call)  # type: ignore[attr-defined]
    return made


def _completes(call: Callable[..., None]) -> dict[str, str | list[str]]:
    """Return what parameters can be completed with: the values of an enumeration, or a kind of names."""
    found: dict[str, str | list[str]] = {}
    for name, annotation in call.__annotations__.items():
        declared, *details = get_args(annotation) or (annotation,)
        kind = getattr(getattr(details[0], "autocompletion", None), "kind", None) if details else None
        values = [
            one for one in (declared, *get_args(declared)) if isinstance(one, type) and issubclass(one, Enum)
        ]
        if kind is not None:
            found[name] = kind
        elif values:
            found[name] = [str(one.value) for one in values[0]]
    return found


def _as_command(function: Command) -> Callable[..., None]:
    """Return a function with the parameters of a command; the session, its first one, is made for each call."""
    signature = inspect.signature(function)
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [
        parameter.replace(kind=kind, annotation=_evaluated(parameter.annotation, function))
        for parameter in list(signature.parameters.values())[1:]
    ]
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)
    common = [inspect.Parameter(n, kind, default=d, annotation=a) for n, a, d in _COMMON]

    @wraps(function)
    def call(*, ctx: typer.Context, **values: Any) -> None:
        given = Given(**{name: values.pop(name) for name, _, _ in _COMMON})
        outer = ctx.obj if isinstance(ctx.obj, Given) else Given()
        # loaded only now: help and completion need nothing of it
        run = import_module("flowstone.cli.calls").run
        raise typer.Exit(run(given.over(outer), lambda session: function(session, **values)))

    parameters = [context, *own, *common]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _evaluated(annotation: Any, function: Command) -> Any:
    """Return an annotation that is written as text, without touching those of the session."""
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, inspect.unwrap(function).__globals__)  # noqa: S307 - our own source
