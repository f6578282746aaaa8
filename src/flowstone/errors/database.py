"""Errors of the database."""

from __future__ import annotations

from flowstone.errors.root import FlowStoneError


class DatabaseError(FlowStoneError, RuntimeError):
    """The database cannot be used as it is."""


class DatabaseUnavailableError(DatabaseError, ConnectionError):
    """The database does not answer."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        super().__init__(
            f"PostgreSQL at {target} does not answer: {why}. Check that the server runs and that "
            "FLOWSTONE_DATABASE_URL is right; `flowstone doctor` looks at each part."
        )


class SchemaVersionError(DatabaseError):
    """The tables are older or newer than this version of FlowStone."""

    def __init__(self, problem: str, *, remedy: str = "Run `flowstone db upgrade`.") -> None:
        super().__init__(f"{problem} {remedy}")


class MigrationChangedError(DatabaseError):
    """A migration that was applied differs from the one in this version."""

    def __init__(self, name: str, applied: str, found: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with checksum {applied} but this version carries {found}. "
            "An applied migration must never change: install the version that applied it, or restore the file."
        )


class EmbeddedDatabaseError(DatabaseError):
    """The embedded PostgreSQL could not be started or joined."""
