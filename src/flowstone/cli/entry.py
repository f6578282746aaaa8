"""The program `flowstone`: its commands and its version."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flowstone import __version__
from flowstone.cli.approvals import approvals, approve, audit, reject
from flowstone.cli.assets import graph, ls, plan
from flowstone.cli.automation import automation, schedules, sensors
from flowstone.cli.checks import checks
from flowstone.cli.command import App, AppDir, AsJson, Command, Verbose, add_command
from flowstone.cli.database import projects as db_projects
from flowstone.cli.database import status as db_status
from flowstone.cli.database import upgrade as db_upgrade
from flowstone.cli.demo import demo
from flowstone.cli.doctor import doctor
from flowstone.cli.materialize import backfill, materialize
from flowstone.cli.partitions import partitions
from flowstone.cli.runs import cancel, history, pause, prune, resume, retry, runs, status, why
from flowstone.cli.session import Given
from flowstone.cli.workers import dev, executors, queues, scale, worker, workers
from flowstone.core.clean import mask_secrets
from flowstone.errors import option_hint

_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""The class of wrong usage, of Click or of the copy of it that typer brings."""


class _Program(TyperGroup):
    """Says what was meant by a wrong option, and answers wrong usage with JSON when JSON was requested."""

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
_db = typer.Typer(help="The tables of FlowStone in PostgreSQL.", no_args_is_help=True)

_COMMANDS: tuple[tuple[str, Command], ...] = (
    ("demo", demo),
    ("worker", worker),
    ("dev", dev),
    ("ls", ls),
    ("graph", graph),
    ("plan", plan),
    ("materialize", materialize),
    ("backfill", backfill),
    ("status", status),
    ("history", history),
    ("cancel", cancel),
    ("runs", runs),
    ("partitions", partitions),
    ("checks", checks),
    ("schedules", schedules),
    ("sensors", sensors),
    ("automation", automation),
    ("why", why),
    ("retry", retry),
    ("pause", pause),
    ("resume", resume),
    ("approvals", approvals),
    ("approve", approve),
    ("reject", reject),
    ("audit", audit),
    ("queues", queues),
    ("scale", scale),
    ("executors", executors),
    ("workers", workers),
    ("prune", prune),
    ("doctor", doctor),
)
_DB_COMMANDS: tuple[tuple[str, Command], ...] = (
    ("upgrade", db_upgrade),
    ("status", db_status),
    ("projects", db_projects),
)
for _name, _function in _COMMANDS:
    add_command(app, _name, _function)
for _name, _function in _DB_COMMANDS:
    add_command(_db, _name, _function)
app.add_typer(_db, name="db")


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
    as_json: AsJson = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Asset-first data orchestration on PostgreSQL."""
    ctx.obj = Given(app=app, app_dir=app_dir, as_json=as_json, verbose=verbose)


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
    sys.stderr.write(mask_secrets("".join(traceback.format_exception(kind, error, trace))))
