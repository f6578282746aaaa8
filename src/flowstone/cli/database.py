"""`db upgrade` and `db status`: the tables in PostgreSQL. They need a database, not an app."""

from __future__ import annotations

from typing import Annotated

import typer

from flowstone.app import database
from flowstone.cli.failures import DONE, FAILED
from flowstone.cli.output import Column, moment
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.errors import ConfigurationError
from flowstone.stores.postgres.migrations import MigrationState

Url = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Default: FLOWSTONE_DATABASE_URL or the settings file."),
]


def upgrade(session: Session, *, database_url: Url = None) -> None:
    """Bring the tables to this version of FlowStone; nothing happens to tables that are current."""
    applied = database.upgrade(_settings(database_url))
    if session.out.as_json:
        session.out.json({"applied": list(applied)})
    elif applied:
        session.out.line(f"Applied {', '.join(applied)}.")
    else:
        session.out.line("The tables are current; nothing to do.")


def status(session: Session, *, database_url: Url = None) -> int:
    """Show the state of each migration; the exit code is 1 when `db upgrade` or a person has to act."""
    found = database.status(_settings(database_url))
    current = all(entry.state is MigrationState.APPLIED for entry in found)
    if session.out.as_json:
        listed = [
            {
                "version": entry.version,
                "name": entry.name,
                "state": entry.state.value,
                "applied_at": entry.applied_at.isoformat() if entry.applied_at else None,
            }
            for entry in found
        ]
        session.out.json({"current": current, "migrations": listed})
    else:
        rows = [[entry.name, entry.state.value, moment(entry.applied_at)] for entry in found]
        session.out.table([Column("MIGRATION"), Column("STATE"), Column("APPLIED", rank=1)], rows)
    return DONE if current else FAILED


def _settings(database_url: str | None) -> Settings:
    """Return settings that name a database.

    Raises:
        ConfigurationError: none is named.
    """
    settings = Settings.load(database_url=database_url)
    if settings.database_url is None:
        raise ConfigurationError(
            "No database is configured: pass --database-url, set FLOWSTONE_DATABASE_URL to postgresql://... or to "
            'embedded, or write database_url = "..." into flowstone.toml.'
        )
    return settings
