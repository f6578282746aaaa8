"""The database of an app without the app: migrations and who works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowstone.config import Settings
from flowstone.core.project import Project
from flowstone.errors import ConfigurationError
from flowstone.stores.postgres import migrations, queue
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.migrations import MigrationState, MigrationStatus
from flowstone.stores.postgres.store import embedded_server
from flowstone.stores.postgres.store import upgrade as upgrade_tables


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Open the configured database, starting or joining the embedded server when that is meant.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.database_url is None:
        raise ConfigurationError(
            "No database is configured. Set FLOWSTONE_DATABASE_URL or database_url in the settings file; "
            "'embedded' needs no server."
        )
    server = embedded_server(settings.database_url, Path(settings.storage))
    dsn = server.start() if server is not None else settings.database_url
    try:
        with Database(dsn, project=Project(settings.project)) as database:
            yield database
    finally:
        if server is not None:
            server.stop()


def upgrade(settings: Settings) -> list[str]:
    """Bring the tables up to date; return the migrations that were applied."""
    with opened(settings) as database:
        return upgrade_tables(Database(database.dsn, project=database.project))


def status(settings: Settings) -> list[MigrationStatus]:
    """Return each migration as the database and this version see it."""
    with opened(settings) as database:
        return migrations.status(database)


def require_current(settings: Settings) -> None:
    """Raise SchemaVersionError unless the tables fit this version."""
    with opened(settings) as database:
        migrations.require_current(database)


def projects(settings: Settings) -> list[dict[str, Any]]:
    """Return the projects that have tables in the database, with the state of these and who works there."""
    with opened(settings) as database:
        with database.connection() as connection:
            names = migrations.projects(connection)
        found = []
        for project in map(Project, names):
            with Database(database.dsn, project=project, max_size=1) as own:
                entries = migrations.status(own)
                current = all(entry.state is MigrationState.APPLIED for entry in entries)
                at_work = queue.alive_workers(own) if current else None
            found.append(
                {"project": project.name, "schema": project.schema, "current": current, "workers": at_work}
            )
        return found


def workers(settings: Settings) -> list[dict[str, Any]]:
    """Return the workers whose lease is valid."""
    with opened(settings) as database:
        return queue.alive_workers(database)
