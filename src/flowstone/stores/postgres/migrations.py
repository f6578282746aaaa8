"""Numbered migrations of a project's schema, applied once, in order, by one migrator at a time."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, LiteralString, NamedTuple

from flowstone.core.project import Project
from flowstone.errors import MigrationChangedError, SchemaVersionError
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database, failing_as
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_LOCK_KEY = int.from_bytes(hashlib.sha256(b"flowstone.migrations").digest()[:8], signed=True)
_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`.

    Args:
        version: number that the file name starts with.
        name: file name without its ending.
        text: its statements.
    """

    version: int
    name: str
    text: LiteralString

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, the same whatever line endings a checkout uses."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()


class MigrationState(StrEnum):
    """How a migration of the code and the record in the database relate."""

    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed"
    UNKNOWN = "unknown"  # applied by a newer version of FlowStone


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration, as the database and this version see it.

    Args:
        version: its number.
        name: its name.
        state: how both compare.
        applied_at: when it was applied, in UTC; None while pending.
        applied_checksum: what the database recorded; None while pending.
    """

    version: int
    name: str
    state: MigrationState
    applied_at: datetime | None = None
    applied_checksum: str | None = None


def known_migrations() -> list[Migration]:
    """Return the migrations of this version, in order.

    Example:
        >>> known_migrations()[0].name
        '0001_schema'
    """
    found = [
        Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in files("flowstone.stores.postgres").joinpath("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def status(database: Database) -> list[MigrationStatus]:
    """Compare the database with this version, migration by migration, without changing anything.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    with database.connection() as connection:
        return _status(connection, known_migrations())


def upgrade(
    database: Database,
    *,
    also: Callable[[Connection[TupleRow]], Sequence[str] | None] | None = None,
    migrations: list[Migration] | None = None,
) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own.

    Two migrators may start at once: one works, the other waits for it and finds nothing to do. The lock
    belongs to a session, so the DSN must reach PostgreSQL itself or a pooler in session mode.

    Args:
        database: where to.
        also: called last with the connection, under the same lock, on every upgrade; it installs tables that are
            not ours, does nothing when they are there, and returns what it added. It opens its own transactions.
        migrations: other than those of this version (tests).

    Returns:
        Names of the migrations that were applied now, and what `also` added.

    Raises:
        SchemaVersionError: the database is newer than this version.
        MigrationChangedError: an applied migration differs from its file.
        DatabaseError: a migration failed; nothing of it was kept.
    """
    known = known_migrations() if migrations is None else migrations
    with database.dedicated() as connection:
        _take_lock(connection, database.masked_dsn)
        found = _status(connection, known)
        _refuse_newer_and_changed(found, known, database.masked_dsn)
        pending = {entry.version for entry in found if entry.state is MigrationState.PENDING}
        missing = [migration for migration in known if migration.version in pending]
        applied = [_apply(connection, migration, database.masked_dsn) for migration in missing]
        if also is not None:
            problem = f"Other tables could not be installed in {database.masked_dsn}"
            with failing_as(problem):
                applied += also(connection) or ()
        return applied


def require_current(database: Database, *, migrations: list[Migration] | None = None) -> None:
    """Refuse to work on tables that this version does not fit.

    Args:
        database: where to look.
        migrations: other than those of this version (tests).

    Raises:
        SchemaVersionError: the tables are missing, older or newer.
        MigrationChangedError: an applied migration differs from its file.
    """
    with database.connection() as connection:
        require_current_on(connection, database, migrations=migrations)


def require_current_on(
    connection: Connection[TupleRow], database: Database, *, migrations: list[Migration] | None = None
) -> None:
    """Do what `require_current` does, on a connection of the database that is open."""
    known = known_migrations() if migrations is None else migrations
    found = _status(connection, known)
    others = [] if any(entry.applied_at for entry in found) else projects(connection)
    _refuse_newer_and_changed(found, known, database.masked_dsn)
    pending = [entry.name for entry in found if entry.state is MigrationState.PENDING]
    if pending and len(pending) == len(found):
        raise _missing_tables(database, others)
    if pending:
        raise SchemaVersionError(
            f"The tables in {database.masked_dsn} are older than this version of FlowStone: "
            f"{', '.join(pending)} not applied.",
            remedy=f"Run `{upgrade_command(database.project)}`.",
        )


def projects(connection: Connection[TupleRow]) -> list[str]:
    """Return the names of the projects that have tables in this database."""
    schemas = fetch_column(connection, str, "database/schemas")
    return sorted(project.name for schema in schemas if (project := Project.of_schema(schema)) is not None)


def upgrade_command(project: Project) -> str:
    """Return what a person types to make or upgrade the tables of a project."""
    return "flowstone db upgrade" + ("" if project.is_default else f" --project {project.name}")


def _missing_tables(database: Database, others: Sequence[str]) -> SchemaVersionError:
    where, project = database.masked_dsn, database.project
    if project.is_default and not others:
        return SchemaVersionError(f"The database {where} has no FlowStone tables yet.")
    there = f" It has those of: {', '.join(others)}." if others else ""
    return SchemaVersionError(
        f"The database {where} has no FlowStone tables of the project {project.name!r} yet.{there}",
        remedy=f"Run `{upgrade_command(project)}`, or name another project "
        "(FLOWSTONE_PROJECT, or project in the settings file).",
    )


class _Applied(NamedTuple):
    """A migration as the database recorded it."""

    version: int
    name: str
    checksum: str
    applied_at: datetime


def _status(connection: Connection[TupleRow], known: list[Migration]) -> list[MigrationStatus]:
    rows: list[_Applied] = []
    if fetch_value(connection, bool, "database/installed"):
        rows = fetch_all(connection, _Applied, "database/applied")
    applied = {row.version: row for row in rows}
    entries = []
    for migration in known:
        version, name = migration.version, migration.name
        if (row := applied.pop(version, None)) is None:
            entries.append(MigrationStatus(version, name, MigrationState.PENDING))
            continue
        same = row.checksum == migration.checksum
        state = MigrationState.APPLIED if same else MigrationState.CHANGED
        entries.append(MigrationStatus(version, name, state, row.applied_at, row.checksum))
    entries += [
        MigrationStatus(row.version, row.name, MigrationState.UNKNOWN, row.applied_at, row.checksum)
        for row in applied.values()
    ]
    return sorted(entries, key=lambda entry: entry.version)


def _refuse_newer_and_changed(found: list[MigrationStatus], known: list[Migration], target: str) -> None:
    if unknown := [entry.name for entry in found if entry.state is MigrationState.UNKNOWN]:
        raise SchemaVersionError(
            f"The tables in {target} are newer than this version of FlowStone, which does not know "
            f"{', '.join(unknown)}.",
            remedy="Install the version of FlowStone that upgraded them, or a later one.",
        )
    checksums = {migration.version: migration.checksum for migration in known}
    for entry in found:
        if entry.state is MigrationState.CHANGED:
            raise MigrationChangedError(entry.name, str(entry.applied_checksum), checksums[entry.version])


def _take_lock(connection: Connection[TupleRow], target: str) -> None:
    key = {"key": _LOCK_KEY}
    if not fetch_value(connection, bool, "database/try_lock", key):
        log.info("Another program upgrades %s right now; waiting for it.", target)
        connection.execute(load_sql("database/lock"), key)


def _apply(connection: Connection[TupleRow], migration: Migration, target: str) -> str:
    problem = f"Migration {migration.name} could not be applied to {target} and nothing of it was kept"
    with failing_as(problem), connection.transaction():
        # Without parameters the driver sends the text as it is, so a file may hold several statements.
        connection.execute(migration.text)
        connection.execute(
            load_sql("database/record"),
            {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
        )
    log.info("Applied migration %s to %s.", migration.name, target)
    return migration.name
