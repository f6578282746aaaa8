"""The program `flowstone`: its commands and its version."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer

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

app = typer.Typer(
    name="flowstone",
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
