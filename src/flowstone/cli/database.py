"""`db upgrade` and `db status`: the tables in PostgreSQL. They need a database, not an app."""

from __future__ import annotations

from flowstone.app import database
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.output import Column, moment
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.errors import ConfigurationError
from flowstone.stores.postgres.migrations import MigrationState


def upgrade(session: Session) -> None:
    """Bring the tables of a project to this version of FlowStone; tables that are current stay as they are."""
    settings = _settings(session)
    applied = database.upgrade(settings)
    if session.out.as_json:
        session.out.json({"project": settings.project, "applied": list(applied)})
        return
    session.note_project(settings)
    if applied:
        session.out.line(f"Applied {', '.join(applied)}.")
    else:
        session.out.line("The tables are current; nothing to do.")


def projects(session: Session) -> None:
    """List the projects that have tables in the database: schema, whether its tables are current, workers."""
    found = database.projects(_settings(session))
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


def status(session: Session) -> int:
    """Show the state of each migration; the exit code is 1 when `db upgrade` or a person has to act."""
    settings = _settings(session)
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


def _settings(session: Session) -> Settings:
    """Return settings that name a database.

    Raises:
        ConfigurationError: none is named.
    """
    settings = session.settings
    if settings.database_url is None:
        raise ConfigurationError(
            "No database is configured: pass --database, set FLOWSTONE_DATABASE_URL to postgresql://... or to "
            'embedded, or write database_url = "..." into flowstone.toml.'
        )
    return settings
