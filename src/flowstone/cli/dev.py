"""`dev`: database, tables and a worker with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowstone.app import database
from flowstone.cli.children import Workers, interruptible
from flowstone.cli.failures import FAILED
from flowstone.cli.session import Session
from flowstone.cli.worker import Concurrency, Queues
from flowstone.config import Settings
from flowstone.stores.postgres.embedded import EmbeddedPostgres


def dev(
    session: Session,
    *,
    queues: Queues = None,
    concurrency: Concurrency = None,
    automation: Annotated[
        bool, typer.Option("--automation", help="Start schedules, sensors and conditions by themselves as well.")
    ] = False,
) -> int:
    """Start the embedded PostgreSQL, bring its tables up to date and run one worker; Ctrl-C stops it all."""
    settings = Settings.load()
    target, directory = session.target, session.app_dir
    arguments = ["worker", "--app", target, "--app-dir", str(directory.absolute())]
    for queue in queues or []:
        arguments += ["--queue", queue]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    arguments.append("--automation" if automation else "--no-automation")
    if session.given.verbose:
        arguments.append("--verbose")
    with interruptible(), EmbeddedPostgres(embedded_directory(settings)) as dsn:
        database.upgrade(Settings.load(database_url=dsn))
        environment = {"FLOWSTONE_DATABASE_URL": dsn}
        with Workers(arguments, environment=environment, grace_seconds=settings.grace_seconds + 20.0) as workers:
            _announce(session, dsn, workers.pids)
            code = workers.wait()
        session.out.note(f"The worker ended with code {code}.")
    return code if code > 0 else FAILED


def embedded_directory(settings: Settings) -> Path:
    """Return where the embedded database of these settings lies."""
    return Path(settings.storage).absolute() / "postgres"


def _announce(session: Session, dsn: str, pids: list[int]) -> None:
    if session.out.as_json:
        session.out.json({"database_url": dsn, "workers": pids})
        return
    session.out.line("PostgreSQL and a worker are running. In another terminal:")
    session.out.line(f"  export FLOWSTONE_DATABASE_URL='{dsn}'")
    session.out.line(f"  flowstone materialize +NAME --app {session.target}")
    session.out.line("Ctrl-C stops both.")
