"""`db upgrade` and `db status`: the tables in PostgreSQL. They need a database, not an app."""

from __future__ import annotations

from typing import Annotated

import typer

from flowstone.app import database
from flowstone.cli.command import DONE, FAILED
from flowstone.cli.output import Column, moment
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.errors import ConfigurationError
from flowstone.stores.postgres.migrations import MigrationState

Url = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Default: FLOWSTONE_DATABASE_URL or the settings file."),
]

InProject = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Default: FLOWSTONE_PROJECT or the settings file.")
]


def upgrade(session: Session, *, database_url: Url = None, project: InProject = None) -> None:
    """Bring the tables of a project to this version of FlowStone; tables that are current stay as they are."""
    settings = _settings(database_url, project)
    applied = database.upgrade(settings)
    if session.out.as_json:
        session.out.json({"project": settings.project, "applied": list(applied)})
        return
    session.note_project(settings)
    if applied:
        session.out.line(f"Applied {', '.join(applied)}.")
    else:
        session.out.line("The tables are current; nothing to do.")


def projects(session: Session, *, database_url: Url = None) -> None:
    """List the projects that have tables in the database: schema, whether its tables are current, workers."""
    found = database.projects(_settings(database_url))
    if session.out.as_json:
        listed = [{**one, "workers": None if one["workers"] is None else len(one["workers"])} for one in found]
        session.out.json({"projects": listed})
        return
    rows = [
        [
            one["project"],
            one["schema"],
            "current" if one["current"] else "flowstone db upgrade --project " + one["project"],
            "" if one["workers"] is None else str(len(one["workers"])),
        ]
        for one in found
    ]
    columns = [Column("PROJECT"), Column("SCHEMA"), Column("TABLES"), Column("AT WORK", right=True)]
    session.out.table(columns, rows)


def status(session: Session, *, database_url: Url = None, project: InProject = None) -> int:
    """Show the state of each migration; the exit code is 1 when `db upgrade` or a person has to act."""
    settings = _settings(database_url, project)
    found = database.status(settings)
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
        session.out.json({"project": settings.project, "current": current, "migrations": listed})
    else:
        session.note_project(settings)
        rows = [[entry.name, entry.state.value, moment(entry.applied_at)] for entry in found]
        session.out.table([Column("MIGRATION"), Column("STATE"), Column("APPLIED", rank=1)], rows)
    return DONE if current else FAILED


def _settings(database_url: str | None, project: str | None = None) -> Settings:
    """Return settings that name a database.

    Raises:
        ConfigurationError: none is named.
    """
    settings = Settings.load(database_url=database_url, project=project)
    if settings.database_url is None:
        raise ConfigurationError(
            "No database is configured: pass --database-url, set FLOWSTONE_DATABASE_URL to postgresql://... or to "
            'embedded, or write database_url = "..." into flowstone.toml.'
        )
    return settings
